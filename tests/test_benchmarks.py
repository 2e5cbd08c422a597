"""The commands of docs/performance.md run and print their tables. Times are not judged.

Those of docs/reliability.md are in `tests/reliability`.
"""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from noise_photos import write_noise_photo
from small_run import write_photos, write_small_run
from tiny_model import write_tiny_model

from fast_style.networks.transform_net import TransformNet

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow  # whole processes, most of them


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_benchmark_prints_a_row_for_every_size_and_width() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", "--sides", "64", "--widths", "1", "2"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # Of so small a photo, the kernel's coarse counters may say less than nothing.
    rows = re.findall(r"^\| 64 x 64 \| (\d) \| -?\d+ MB \| -?\d+ \|$", done.stdout, re.MULTILINE)
    assert rows == ["1", "2"]
    assert "bytes = pixels * (" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_huge_photo_benchmark_finds_bands_equal_and_within_their_estimate() -> None:
    words = ["--sides", "192", "--widths", "8", "--rounds", "1", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "benchmarks/huge_photo.py", *words],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert row[:2] == ["192 x 192", "8"]
    on_disk, estimate = (float(cell.removesuffix(" MB").replace(",", "")) for cell in row[5:7])
    assert on_disk <= estimate
    assert float(row[10]) < 1e-2


def test_loss_networks_benchmark_prints_a_row_for_every_network(tmp_path: Path) -> None:
    config = write_small_run(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "loss_networks.py"),
            str(config),
            *("--images", "6", "--size", "32", "--judge", "loss_network.weights=random"),
            *("--network", "one loss_network.weights=random"),
            *("--network", "two loss_network.weights=random loss_network.pooling=average"),
            *("--mixture", "two", "one"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number = r"\d+\.\d{3}"
    rows = re.findall(
        rf"^\| ([\w :-]+) \| (?:\d+\.\d+)? \| (\d+) \| {number} \| {number} \| {number} \|$",
        done.stdout,
        re.MULTILINE,
    )
    assert rows == [("nothing: the photos", "0"), ("one", "6"), ("two", "6"), ("two-then-one", "6")]
    for name in ("one", "two", "two-then-one"):
        assert (tmp_path / "loss_networks" / f"{name}.png").is_file()


def test_peer_gets_every_weight_of_ours_under_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    peer = importlib.import_module("peer")
    net = TransformNet()
    weights = peer.peer_weights(net)
    theirs = {tensor.data_ptr() for tensor in weights.values()}
    assert {tensor.data_ptr() for tensor in net.state_dict().values()} <= theirs
    # 16 convolutions and 15 norms, each with a weight and a bias.
    assert len(weights) == 62
    zeros = [name for name, tensor in weights.items() if "conv2d.bias" in name and not any(tensor)]
    assert len(zeros) == 15  # our last convolution alone has a bias


def test_peers_ratios_are_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    peer = importlib.import_module("peer")
    # Load doubles both sides in the second round, and the medians alone would say x2.
    assert peer.ratio_of([4.0, 8.0, 4.0], [1.0, 4.0, 2.0]) == (2.0, 2.0, 4.0)
    assert str(peer.ratio_of([3.0, 8.0, 4.0], [1.0, 4.0, 2.0])) == "x2.00 (2.00 to 3.00)"


def test_start_up_benchmark_prints_a_row_for_every_command() -> None:
    done = run_benchmark("start_up.py", "--rounds", "1", "--side", "16")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+) \| [\d.]+ s \(.*\) \|$", done.stdout, re.MULTILINE)
    assert rows == [
        "import fast_style",
        "stylize.py --help",
        "a photo that is not there",
        "import torch",
        "stylize.py",
    ]


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    name, *words = arguments
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *words],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_folder_benchmark_prints_what_the_whole_folder_took() -> None:
    done = run_benchmark("folder.py", "--count", "3", "--scale", "0.05")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^3 photos, 0\.0 megapixels in all$", done.stdout, re.MULTILINE)
    row = r"^\| one process of stylize.py \| 3 \| [\d.]+ \| [\d.]+ \|$"
    assert re.search(row, done.stdout, re.MULTILINE)


def test_loader_benchmark_prints_a_row_for_every_side(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 8)
    checkout = tmp_path / "fast_neural_style" / "neural_style"
    checkout.mkdir(parents=True)
    (checkout / "neural_style.py").write_text(
        "transforms.Resize(args.image_size) transforms.CenterCrop(args.image_size) "
        "transforms.ToTensor() x.mul(255) datasets.ImageFolder( "
        "DataLoader(train_dataset, batch_size=args.batch_size)"
    )
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "loader.py"),
            *("--photos", str(photos), "--peer", str(checkout.parent)),
            *("--images", "8", "--rounds", "2", "--cache-side", "32"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| ([\w /]+) \| \d+ \| x\d+\.\d \| x\d+\.\d \|$", done.stdout, re.MULTILINE
    )
    assert rows == ["decoded", "pytorch/examples", "cached at 32"]


def test_training_benchmark_prints_a_row_for_every_kind_of_work() -> None:
    words = ["--rounds", "1", "--threads", "1", "--work", "1x16", "2x16", "--steps", "2"]
    done = run_benchmark("training.py", *words, "--commands", "--with", "train.seed=2")
    assert "train.seed: unknown key" in done.stderr
    done = run_benchmark("training.py", *words, "--commands", "--with", "model.width=4")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\d of 16 x 16) \| [\d.]+ s \(.*\) \|$", done.stdout, re.MULTILINE)
    assert rows == 2 * ["1 of 16 x 16", "2 of 16 x 16"]


@pytest.mark.skipif(sys.platform != "linux", reason="keeps freed memory by glibc")
def test_busy_machine_benchmark_prints_a_row_for_every_spin_count() -> None:
    words = ["--rounds", "1", "--threads", "1", "--work", "1x16", "--steps", "1"]
    done = run_benchmark("busy_machine.py", *words, "--spins", "1000", "0")
    assert done.returncode == 0, done.stderr
    cells = r" \| [\d.]+ \| [\d.]+" + r" \| x([\d.]+) \(.*\)" * 3
    rows = re.findall(rf"^\| (\d+){cells} \|$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["1000", "0"]
    assert rows[0][1:3] == ("1.00", "1.00")  # against itself


def test_end_to_end_benchmark_judges_what_it_trained(tmp_path: Path) -> None:
    photos, held_out = write_photos(tmp_path / "photos", 4), write_photos(tmp_path / "held_out", 2)
    done = run_benchmark(
        "end_to_end.py",
        *("--photos", str(photos), "--held-out", str(held_out)),
        *("--style", str(next(held_out.iterdir())), "--size", "32", "--batch-size", "2"),
        *("--with", "model.width=4", "train.threads=1"),
    )
    assert done.returncode == 0, done.stderr
    assert "\n2 steps of 2 photos of 32 pixels\n" in done.stdout
    number = r"([\d.e+-]+)"
    row = rf"^\| fast-style \| {number} \| {number} \| {number} \| {number} \|$"
    found = re.search(row, done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    _, total, content, style = map(float, found.groups())
    assert total == pytest.approx(content + style, rel=1e-2)


def test_inference_benchmark_prints_its_row() -> None:
    done = run_benchmark("inference.py", "--rounds", "1", "--threads", "1", "--sides", "20")
    assert done.returncode == 0, done.stderr
    cells = r" \| [\d.e-]+ s \(.*\)" * 3
    rows = re.findall(rf"^\| (\d+ x \d+){cells} \| x[\d.]+ \(.*\) \|$", done.stdout, re.MULTILINE)
    assert rows == ["20 x 20"]


@pytest.mark.skipif(sys.platform != "linux", reason="keeps freed memory by glibc")
def test_convolutions_benchmark_prints_a_row_for_every_layer() -> None:
    words = ["--rounds", "1", "--threads", "1", "--layers", "1x8x5", "1x128x46"]
    done = run_benchmark("convolutions.py", *words)
    assert done.returncode == 0, done.stderr
    cells = r" \| x[\d.]+ \(.*\)" * 2
    rows = re.findall(rf"^\| 1 \| (\d+) \| .*?{cells} \| (yes|no) \|$", done.stdout, re.MULTILINE)
    assert rows == [("8", "no"), ("128", "yes")]


def test_operations_benchmark_counts_the_known_multiplications() -> None:
    done = run_benchmark("operations.py", "--size", "64", "--widths", "32")
    assert done.returncode == 0, done.stderr
    # VGG's by hand: 0.151e9 each in conv1_2, conv2_2, conv3_2, 3_3, 4_2 and 4_3, 0.075e9 in
    # conv2_1, conv3_1 and conv4_1, 0.007e9 in conv1_1; none of block 4 for the photo.
    assert "| VGG-16 to relu4_3 | 0.76 | 1.14 | " in done.stdout
    # The transform network's by hand, without borders: 0.032e9 in each 9x9 convolution, 0.052e9 in
    # each 5x5 of stride 2, 0.038e9 in each of the ten of the blocks, 0.075e9 in each up-sampling.
    assert re.search(r"^\| width 32 \| 0\.71 \| 0\.70 \| ", done.stdout, re.MULTILINE)


def test_scanning_benchmark_finds_all_photos() -> None:
    done = run_benchmark("scanning.py", "--count", "1003", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "1,003 photos in 2 folders" in done.stdout
    rows = re.findall(r"^\| (.+?) \| [\d.]+ \| ended before \|$", done.stdout, re.MULTILINE)
    assert rows == ["stylize --output", "train"]


def test_pan_benchmark_prints_a_row_and_writes_frames(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    model = write_tiny_model(tmp_path / "tiny" / "model.safetensors")
    photo = write_noise_photo(str(tmp_path / "photo.png"), width=90, height=80)
    words = ["--side", "64", "--frames", "3", "--frames-to", str(tmp_path / "frames")]
    done = run_benchmark("pan.py", str(photo), "--models", str(model), *words)
    assert done.returncode == 0, done.stderr
    number = r" \| (\d\.\d{4})"
    found = re.search(rf"^\| .*/tiny/model\.safetensors{number * 3} \|$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    flicker, floor, above = map(float, found.groups())
    assert above == pytest.approx(max(0, flicker - floor), abs=2e-4)
    frames = sorted(path.name for path in (tmp_path / "frames" / "tiny").iterdir())
    assert frames == [*(f"frame-{number:03}.png" for number in range(7)), "sheet.png"]


def test_previews_benchmark_prints_a_row_for_each_run_and_writes_the_sheet(tmp_path: Path) -> None:
    config = write_small_run(tmp_path)
    trained = subprocess.run(
        [sys.executable, "-m", "fast_style", "train", str(config)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr
    photo, sheet = next((tmp_path / "photos").iterdir()), tmp_path / "sheet.png"
    run = str(tmp_path / "runs" / "tiny")
    words = ["--photos", str(photo), "--iterations", "4", "--output", str(sheet)]
    done = run_benchmark("previews.py", run, *words)
    assert done.returncode == 0, done.stderr
    number = r" \| (\d+\.\d{3})"
    row = rf"^\| tiny, style.size=32 loss.style_weight=1.5{number * 4} \|$"
    found = re.search(row, done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    _, _, style_of_preview, style_of_network = map(float, found.groups())
    assert style_of_preview < style_of_network  # of a network that has learned nothing yet
    assert sheet.is_file()
