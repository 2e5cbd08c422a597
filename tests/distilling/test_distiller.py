"""The distiller: it learns, and stopping changes nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_distillation import (
    LAYERS,
    distill_once,
    error_at,
    make_distiller,
    photos_of,
    random_pictures,
    settings_of,
    write_small_distillation,
)
from small_run import (
    checkpoints_of,
    fail_writing,
    final_state,
    open_small_run,
    rows_of,
)

from fast_style.core.errors import Stopped, UserError
from fast_style.distilling import build
from fast_style.distilling.distiller import PICTURES_STREAM, Distiller
from fast_style.distilling.painters import painting_crop
from fast_style.distilling.students import (
    Comparison,
    best_head,
    compare,
    folded_head,
)
from fast_style.losses.loss_network import load_weights
from fast_style.losses.perceptual import (
    content_distance,
    gram_matrix,
)
from fast_style.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fast_style.models.model_files import CheckpointError
from fast_style.pictures.folders import find_photos


@pytest.mark.parametrize("painters", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_learning_lowers_the_errors_on_held_out_pictures(
    open_distiller: Callable[..., Distiller], painters: int
) -> None:
    words = ["train.steps=60", "train.learning_rate=3e-4"]
    distiller = open_distiller(f"train.painters={painters}", *words)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # The chosen channels are good already, for so small a teacher.
        for parameter in distiller.parameters.values():
            parameter *= 1 + 0.3 * torch.randn(parameter.shape, generator=generator)

    def errors() -> list[float]:
        with torch.no_grad():
            return [
                error_at(distiller.student, distiller.teacher, held_out / 255, layer)
                for held_out in distiller.validation.values()
                for layer in LAYERS
            ]

    before = errors()
    for step in range(60):
        distiller.train_step(photos_of(distiller, step))
    shares = [new / old for new, old in zip(errors(), before, strict=True)]
    assert max(shares) < 0.93  # seen: 0.64 to 0.86


def test_step_learns_from_photos_painted_photos_paintings_and_surfaces(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller("train.paintings=3", "train.surfaces=2")
    photos = photos_of(distiller).float() / 255
    with torch.no_grad():
        painted = distiller.painters[0].fast_net(photos).clamp(0, 1)
    pictures = distiller.pictures_of_step(photos)
    assert pictures.shape == (2 + 2 + 3 + 2, 3, 32, 32)
    assert torch.equal(pictures[:2], photos)
    assert torch.equal(pictures[2:4], painted)
    rng = np.random.default_rng((3, PICTURES_STREAM, 0))
    number = int(rng.integers(len(distiller.styles.paintings)))
    first = painting_crop(distiller.styles.paintings[number], 32, rng)
    assert torch.equal(pictures[4], first)


def test_paintings_and_surfaces_are_functions_of_the_step(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller("train.painters=0")
    photos = photos_of(distiller).float() / 255
    first, again = distiller.pictures_of_step(photos), distiller.pictures_of_step(photos)
    assert torch.equal(first, again)
    distiller.step = 1
    later = distiller.pictures_of_step(photos)
    assert torch.equal(later[:2], first[:2])
    assert not torch.equal(later[2], first[2])
    assert not torch.equal(later[3], first[3])


@pytest.mark.slow
def test_first_loss_is_the_sum_of_all_errors_of_the_chosen_channels(
    open_distiller: Callable[..., Distiller], straight: Path
) -> None:
    distiller = open_distiller()
    photos = photos_of(distiller)
    pictures = open_distiller("name=other").pictures_of_step(photos.float() / 255)
    expected = 0.0
    with torch.no_grad():
        features, targets = (
            net(pictures, LAYERS) for net in (distiller.student, distiller.teacher)
        )
    for layer in LAYERS:
        comparison = compare(features[layer], targets[layer], distiller.energies[layer])
        head = best_head(comparison.own, comparison.cross)
        error = float(comparison.feature_error(head))
        expected += error + float(comparison.gram_error(head))
        logged = float(rows_of(straight)[0][f"error/{layer}"])
        assert logged == pytest.approx(error, rel=1e-3)
    assert float(distiller.train_step(photos)["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(rows_of(straight)[0]["loss"]) == pytest.approx(expected, rel=1e-4)


def test_targets_in_half_precision_are_nearly_those_in_full(
    open_distiller: Callable[..., Distiller],
) -> None:
    full = open_distiller("train.precision=fp32")
    half = open_distiller("train.precision=bf16", "name=half")
    pictures = random_pictures(2, 3, 32, 32)
    exact, rounded = full.targets(pictures), half.targets(pictures)
    for layer in LAYERS:
        assert rounded[layer].dtype == torch.float32
        error = (rounded[layer] - exact[layer]).square().mean() / exact[layer].square().mean()
        assert 0 < float(error) < 1e-4


def test_judge_shares_memory_with_the_student_and_is_not_trained(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller()
    before = {name: tensor.clone() for name, tensor in distiller.parameters.items()}
    distiller.train_step(photos_of(distiller))
    assert distiller.step == 1
    for name, parameter in distiller.parameters.items():
        assert not torch.equal(parameter, before[name]), name
        assert parameter.grad is not None
        ours, students = (net.get_buffer(name) for net in (distiller.judge, distiller.student))
        assert ours.data_ptr() == students.data_ptr() == parameter.data_ptr()
        assert not ours.requires_grad
        assert ours.grad is None
    assert not any(buffer.requires_grad for buffer in distiller.judge.buffers())
    assert not any(buffer.requires_grad for buffer in distiller.teacher.buffers())


def test_heads_are_renewed_each_step_and_fit_the_running_products(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller()
    for layer in LAYERS:
        head = distiller.judge.get_buffer(f"head_{layer}")
        assert torch.equal(head, torch.eye(len(head)))
    for step in range(2):
        before = {layer: distiller.judge.get_buffer(f"head_{layer}").clone() for layer in LAYERS}
        distiller.train_step(photos_of(distiller, step))
        for layer in LAYERS:
            head = distiller.judge.get_buffer(f"head_{layer}")
            assert not torch.equal(head, before[layer])
            assert torch.equal(head, folded_head(best_head(*distiller.products[layer])))


def test_older_products_fade_slowly(open_distiller: Callable[..., Distiller]) -> None:
    distiller = open_distiller()
    nothing = torch.zeros(1)

    def products(size: float) -> Comparison:
        return Comparison(size * torch.eye(6), size * torch.ones(6, 8), nothing, nothing, nothing)

    distiller.update_head("relu1_1", products(1.0))
    own, cross = distiller.products["relu1_1"]
    assert torch.equal(own, torch.eye(6))
    distiller.step = 1000  # of few, it takes the mean
    head = distiller.update_head("relu1_1", products(51.0))
    own, cross = distiller.products["relu1_1"]
    torch.testing.assert_close(own, 2 * torch.eye(6))  # 0.98 * 1 + 0.02 * 51
    torch.testing.assert_close(cross, 2 * torch.ones(6, 8))
    torch.testing.assert_close(head, torch.ones(8, 6), rtol=1e-3, atol=0)


def test_judges_distances_are_those_of_the_student_through_its_heads(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller()
    distiller.train_step(photos_of(distiller))
    pictures = random_pictures(2, 3, 32, 32)
    for layer in LAYERS:
        judged = distiller.judge(pictures, [layer])[layer]
        head = best_head(*distiller.products[layer])
        full = torch.einsum("ij,njyx->niyx", head, distiller.student(pictures, [layer])[layer])
        torch.testing.assert_close(
            content_distance(judged[:1], judged[1:]), content_distance(full[:1], full[1:]),
            rtol=1e-3, atol=0,
        )  # fmt: skip
        torch.testing.assert_close(
            gram_matrix(judged).square().sum(), gram_matrix(full).square().sum(), rtol=1e-3, atol=0
        )


def test_painters_take_turns_and_are_replaced_when_their_life_ends(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller("train.steps=20")
    seen = []
    for step in range(12):
        distiller.train_step(photos_of(distiller, step))
        seen.append([(painter.number, painter.age) for painter in distiller.painters])
    # Two of them, one step each in turn, and each lives two steps.
    assert seen[:6] == [
        [(0, 1), (1, 0)],
        [(0, 1), (1, 1)],
        [(0, 2), (1, 1)],
        [(0, 2), (1, 2)],
        [(2, 1), (1, 2)],
        [(2, 1), (3, 1)],
    ]
    assert seen[-1] == [(4, 2), (5, 2)]


def test_held_out_errors_are_those_of_all_pictures_together(
    open_distiller: Callable[..., Distiller],
) -> None:
    distiller = open_distiller()
    distiller.train_step(photos_of(distiller))
    found = distiller.validate()
    for name, pictures in distiller.validation.items():
        pixels = pictures.float() / 255  # 3 of them, in chunks of 2
        for layer in LAYERS:
            head = best_head(*distiller.products[layer])
            with torch.no_grad():
                target = distiller.teacher(pixels, [layer])[layer]
                student = distiller.student(pixels, [layer])[layer]
            ours = torch.einsum("ij,njyx->niyx", head, student)
            error = (ours - target).square().sum() / target.square().sum()
            assert found[name][f"error/{layer}"] == pytest.approx(float(error), rel=1e-3)
            grams = gram_matrix(ours), gram_matrix(target)
            off = (grams[0] - grams[1]).square().sum(dim=(1, 2))
            gram_error = (off / grams[1].square().sum(dim=(1, 2))).mean()
            assert found[name][f"gram_error/{layer}"] == pytest.approx(float(gram_error), rel=1e-3)
            around = [part - part.mean(dim=(2, 3), keepdim=True) for part in (ours, target)]
            correlation = torch.nn.functional.cosine_similarity(
                around[0].flatten(), around[1].flatten(), dim=0
            )
            assert found[name][f"correlation/{layer}"] == pytest.approx(
                float(correlation), rel=1e-3
            )


@pytest.mark.parametrize(
    "word",
    [
        "teacher.padding=zeros",
        "student.widths=[5, 8]",
        "data.crop_scale=[0.4, 0.5]",
        "train.surfaces=2",
        "train.painters=0",
        "train.schedule=constant",
        *(
            pytest.param(word, marks=pytest.mark.slow)
            for word in (
                "seed=4",
                "teacher.pooling=average",
                "student.deepest=relu2_1",
                "data.crop_size=36",
                "data.flip=false",
                "data.validation_count=2",
                "train.steps=7",
                "train.photos=3",
                "train.paintings=0",
                "train.learning_rate=3e-3",
                "train.precision=bf16",
                "train.warmup_steps=2",
            )
        ),
    ],
)
def test_setting_changes_the_student(
    open_distiller: Callable[..., Distiller], straight: Path, word: str
) -> None:
    distiller = open_distiller(word)
    for step in range(2):
        distiller.train_step(photos_of(distiller, step))
    plain = load_checkpoint(straight / "checkpoints" / "step-00000002.safetensors").part("student")
    changed = distiller.parameters
    assert changed.keys() != plain.keys() or not all(
        changed[name].shape == plain[name].shape and torch.equal(changed[name], plain[name])
        for name in plain
    )


def test_two_runs_are_equal_byte_for_byte(yaml_file: Path, tmp_path: Path, straight: Path) -> None:
    torch.manual_seed(12345)  # of no account
    distill_once(settings_of(yaml_file), tmp_path)
    assert final_state(tmp_path / "small") == final_state(straight)


@pytest.mark.parametrize(
    "stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 4, 5))]
)
def test_resumed_run_equals_the_straight_one_byte_for_byte(
    yaml_file: Path, tmp_path: Path, straight: Path, stop: int
) -> None:
    # Painters are new, in the middle of their lives and at their end at these steps.
    config = settings_of(yaml_file)
    stopped = distill_once(config, tmp_path, stop_at=stop)
    assert stopped.step == stop
    assert max(checkpoints_of(tmp_path / "small")) == stop
    torch.manual_seed(stop)
    distill_once(config, tmp_path)
    assert final_state(tmp_path / "small") == final_state(straight)


@pytest.mark.slow
def test_resumed_run_with_a_cache_of_photos_equals_the_straight_one(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file, "data.cache=disk", f"data.cache_folder={tmp_path / 'caches'}")
    straight = distill_once(config, tmp_path / "straight")
    assert straight.photos.crops.cache is not None
    assert straight.photos.crops.cache.folder.name.startswith("64-")  # 32 / 0.5
    distill_once(config, tmp_path / "resumed", stop_at=3)
    distill_once(config, tmp_path / "resumed")
    assert final_state(tmp_path / "resumed/small") == final_state(tmp_path / "straight/small")


def test_resumed_run_without_painters_equals_the_straight_one(
    yaml_file: Path, tmp_path: Path
) -> None:
    config = settings_of(yaml_file, "train.painters=0")
    distill_once(config, tmp_path / "straight")
    for stop in (2, 3, None):
        distill_once(config, tmp_path / "stopped", stop_at=stop)
    straight, stopped = (tmp_path / name / "small" for name in ("straight", "stopped"))
    assert final_state(stopped) == final_state(straight)


@pytest.mark.slow
@pytest.mark.usefixtures("winograd_everywhere")
def test_resumed_run_of_wide_layers_equals_the_straight_one(
    yaml_file: Path, tmp_path: Path
) -> None:
    # Such layers are convolved in another way. Their biases once had no gradient, and so no state
    # of Adam to resume with.
    config = settings_of(yaml_file)
    straight = distill_once(config, tmp_path / "straight")
    assert len(straight.optimizer.state) == len(straight.parameters)
    for stop in (3, None):
        distill_once(config, tmp_path / "stopped", stop_at=stop)
    assert final_state(tmp_path / "stopped/small") == final_state(tmp_path / "straight/small")


def test_stop_signal_saves_and_tells_the_step_and_the_signal(
    open_distiller: Callable[..., Distiller], tmp_path: Path
) -> None:
    distiller = open_distiller()
    with pytest.raises(Stopped) as caught:
        distiller.train(lambda: 2 if distiller.step == 3 else None)
    assert (caught.value.step, caught.value.signal_number) == (3, 2)
    found = load_checkpoint(tmp_path / "small" / "checkpoints" / "step-00000003.safetensors")
    assert found.metadata["step"] == 3
    assert found.metadata["kind"] == "distillation"
    assert found.metadata["painters"] == [{"number": 0, "age": 2}, {"number": 1, "age": 1}]
    student = found.part("student")
    assert student.keys() == distiller.parameters.keys()
    assert all(torch.equal(student[name], ours) for name, ours in distiller.parameters.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost", ["student.kernel_1_2", "optimizer.exp_avg.bias_2_1", "products.own.relu1_2"]
)
def test_checkpoint_without_all_its_tensors_is_refused(
    yaml_file: Path, tmp_path: Path, lost: str
) -> None:
    config = settings_of(yaml_file)
    distill_once(config, tmp_path, stop_at=2)
    path = tmp_path / "small" / "checkpoints" / "step-00000002.safetensors"
    found = load_checkpoint(path)
    del found.tensors[lost]
    save_checkpoint(path, found.tensors, found.metadata)
    run = open_small_run(config, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        make_distiller(config, run)
    run.lock.release()
    assert str(caught.value).startswith(f"{path}: ")
    assert lost.partition(".")[2] in str(caught.value)


def _without_painters(found: Checkpoint) -> None:
    del found.metadata["painters"]


def _with_a_painter_too_many(found: Checkpoint) -> None:
    found.metadata["painters"].append({"number": 9, "age": 0})


def _with_a_painter_of_no_age(found: Checkpoint) -> None:
    found.metadata["painters"][0]["age"] = "young"


def _with_smaller_products(found: Checkpoint) -> None:
    found.tensors["products.cross.relu1_2"] = found.tensors["products.cross.relu1_2"][:1].clone()


def _with_products_of_nothing(found: Checkpoint) -> None:
    found.tensors["products.own.relu1_2"].zero_()


def _with_an_energy_that_is_no_number(found: Checkpoint) -> None:
    found.metadata["energies"]["relu1_2"] = "much"


@pytest.mark.parametrize(
    ("forge", "part"),
    [
        (_without_painters, "painters"),
        (_with_a_painter_too_many, "painters"),
        (_with_a_painter_of_no_age, "painters"),
        (_with_an_energy_that_is_no_number, "energies"),
        (_with_smaller_products, "cross.relu1_2"),
        (_with_products_of_nothing, "own.relu1_2"),
    ],
)
def test_forged_checkpoint_is_refused(
    yaml_file: Path, tmp_path: Path, forge: Callable[[Checkpoint], None], part: str
) -> None:
    config = settings_of(yaml_file)
    distill_once(config, tmp_path, stop_at=2)
    path = tmp_path / "small" / "checkpoints" / "step-00000002.safetensors"
    found = load_checkpoint(path)
    forge(found)
    save_checkpoint(path, found.tensors, found.metadata)
    with open_small_run(config, tmp_path) as run, pytest.raises(CheckpointError) as caught:
        make_distiller(config, run)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)


def test_resumed_run_keeps_the_energies_that_it_began_with(
    yaml_file: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill_once(settings_of(yaml_file), tmp_path, stop_at=3)
    # As if a photo that they are measured on had become unreadable.
    monkeypatch.setattr(
        build, "_energies", lambda teacher, photos, layers: dict.fromkeys(layers, 9.0)
    )
    distill_once(settings_of(yaml_file), tmp_path)
    assert final_state(tmp_path / "small") == final_state(straight)


def test_first_photo_that_is_unreadable_is_told(tmp_path: Path) -> None:
    config = settings_of(write_small_distillation(tmp_path))
    for photo in sorted(Path(config.data.photos).rglob("*.png"))[:3]:
        photo.write_bytes(photo.read_bytes()[:200])
    told: list[str] = []
    with open_small_run(config, tmp_path) as run:
        make_distiller(config, run, say=told.append)
    assert [line for line in told if line.startswith("warning: skipping ")]


def test_result_that_is_lost_is_written_again_with_its_measurements(
    yaml_file: Path, tmp_path: Path, straight: Path
) -> None:
    distill_once(settings_of(yaml_file), tmp_path)
    (tmp_path / "small" / "loss_network.safetensors").unlink()
    distill_once(settings_of(yaml_file), tmp_path)
    assert final_state(tmp_path / "small") == final_state(straight)


def test_full_disk_ends_the_run_and_names_the_last_checkpoint(
    open_distiller: Callable[..., Distiller], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_writing(monkeypatch, lambda path: path.name == "step-00000004.safetensors")
    with pytest.raises(UserError) as caught:
        open_distiller().train()
    assert str(caught.value).startswith("step 4: no checkpoint could be written ([Errno 28] ")
    assert str(caught.value).endswith(
        f"The last good checkpoint is {tmp_path}/small/checkpoints/step-00000002.safetensors. "
        "Free some room on its disk, and repeat the command"
    )
    assert caught.value.exit_code == 1


def test_network_that_cannot_be_written_ends_the_run(
    open_distiller: Callable[..., Distiller], tmp_path: Path
) -> None:
    distiller = open_distiller()
    (tmp_path / "small" / "loss_network.safetensors").mkdir()
    with pytest.raises(UserError) as caught:
        distiller.train()
    assert str(caught.value).startswith("step 2: no checkpoint could be written ([Errno 21] ")
    assert str(caught.value).endswith(
        " are free). There is no checkpoint yet. See that this folder can be written to, and "
        "repeat the command, which begins anew"
    )
    assert checkpoints_of(tmp_path / "small") == []


def test_loss_that_is_not_finite_ends_the_run_and_spoils_nothing(
    open_distiller: Callable[..., Distiller], tmp_path: Path
) -> None:
    distiller = open_distiller()
    network = tmp_path / "small" / "loss_network.safetensors"
    kept: list[bytes] = []

    def poison() -> None:
        if distiller.step == 3:
            kept.append(network.read_bytes())
            with torch.no_grad():
                distiller.parameters["kernel_2_1"][0, 0, 0, 0] = torch.nan

    with pytest.raises(UserError) as caught:
        distiller.train(poison)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "step 4: the loss is not a finite number. Try a lower train.learning_rate. The last good "
        f"checkpoint is {tmp_path}/small/checkpoints/step-00000002.safetensors"
    )
    assert caught.value.exit_code == 1
    assert network.read_bytes() == kept[0]


@pytest.mark.parametrize("name", ["student.kernel_1_2", "painter1.model.to_rgb.conv.bias"])
def test_numbers_that_are_not_finite_are_never_saved(
    open_distiller: Callable[..., Distiller], tmp_path: Path, name: str
) -> None:
    distiller = open_distiller("log.every=99", "log.validate_every=99")
    distiller.train_step(photos_of(distiller))
    distiller.save()
    network = tmp_path / "small" / "loss_network.safetensors"
    before = network.read_bytes()
    with torch.no_grad():
        tensor = distiller.tensors()[name]
        tensor[(0,) * tensor.ndim] = torch.inf
    distiller.step = 2
    with pytest.raises(UserError, match=r"^step 2: .* has numbers that are not finite") as caught:
        distiller.save()
    assert "Try a lower train.learning_rate. The last good checkpoint is " in str(caught.value)
    assert checkpoints_of(tmp_path / "small") == [1]
    if name.startswith("student"):
        assert network.read_bytes() == before
    load_weights(str(network), "vgg16", "relu2_2")


def test_unreadable_photos_are_replaced_and_listed_the_same_after_stopping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = write_small_distillation(tmp_path)
    config = settings_of(yaml_file, "train.painters=0")
    photos = find_photos(tmp_path / "photos", validation_count=3)
    for broken in photos.training[:3]:
        broken.write_bytes(b"")
    distill_once(config, tmp_path / "straight")
    assert capsys.readouterr().out.count("warning: skipping ") == 3
    for stop in (4, None):
        distill_once(config, tmp_path / "stopped", stop_at=stop)
    straight, stopped = (tmp_path / name / "small" for name in ("straight", "stopped"))
    listed = (straight / "unreadable_photos.jsonl").read_text()
    assert len(listed.splitlines()) == 3
    assert (stopped / "unreadable_photos.jsonl").read_text() == listed
    assert final_state(stopped) == final_state(straight)
