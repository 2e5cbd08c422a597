"""Two processes that train together, started as torchrun starts them; and what they are to do.

As a script it is one of the two: it trains runs of a small YAML file side by side with the other
one, and writes down what came of it.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def start_two(arguments: Sequence[str | Path], cwd: Path) -> list[subprocess.Popen[str]]:
    """``python ARGUMENTS`` twice, each told its rank."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def main(yaml_file: Path, root: Path, what: str) -> None:
    """Train in ``root``; the two outcomes go to ``root/outcome-0.json`` and ``-1.json``.

    Args:
        yaml_file: of a small run.
        root: the folder of all runs.
        what: ``stopped``, ``compiled`` or ``adversarial``, beside a straight run.
    """
    import torch
    from small_run import settings_of

    from fast_style.core.distributed import Group, joined, read_launch
    from fast_style.core.errors import Stopped, UserError
    from fast_style.losses.perceptual import LossTerms
    from fast_style.training import adversary
    from fast_style.training import build as runs
    from fast_style.training import trainer as trainer_module
    from fast_style.training.run_folder import open_run
    from fast_style.training.trainer import Trainer

    torch.set_num_threads(1)
    runs.SMALLEST_SAMPLE = 32
    launch = read_launch()
    cpu = torch.device("cpu")
    outcome: dict[str, Any] = {}

    def train(group: Group, *words: str, prepare: Callable[[Trainer], Any] = lambda t: None) -> int:
        config = settings_of(yaml_file, *words)
        run = open_run(config, root=root, fresh=False, say=print, group=group)
        try:
            trainer = group.rank_zero_first(
                lambda: runs.build_trainer(config, run, device=cpu, say=print, group=group)
            )
            trainer.train(prepare(trainer) or (lambda: None))
            return trainer.step
        finally:
            run.release()

    def write_down() -> None:
        (root / f"outcome-{launch.rank}.json").write_text(json.dumps(outcome))

    def stop_of_second(trainer: Trainer) -> Callable[[], int | None]:
        return lambda: 15 if launch.rank == 1 and trainer.step >= 2 else None

    def poison_second(trainer: Trainer) -> None:
        original = trainer.perceptual_loss.forward

        def poisoned(output: torch.Tensor, photos: torch.Tensor) -> LossTerms:
            terms = original(output, photos)
            if trainer.step == 1 and launch.rank == 1 and torch.is_grad_enabled():
                nan = terms.style * torch.nan
                return terms._replace(style=nan, total=terms.total + nan)
            return terms

        trainer.perceptual_loss.forward = poisoned  # type: ignore[method-assign]

    if what == "adversarial":
        adversary._STEPS_ALONE = adversary._STEPS_RISING = 1
    if what == "compiled":
        # The fast execution takes other kernels where it is compiled, which round otherwise.
        trainer_module.FastTransform = lambda net: net  # type: ignore[assignment,misc]
    with joined(launch, cpu, advice="Start again") as group:
        outcome["straight"] = train(group)
        if what == "adversarial":
            write_down()
            return
        if what == "compiled":
            # Traced, and run as it stands: C++ would take minutes.
            torch.compile = partial(torch.compile, backend="eager")  # type: ignore[assignment]
            outcome["compiled"] = train(group, "name=compiled", "train.compile=true")
            write_down()
            return
        try:
            train(group, "name=stopped", "log.every=2", prepare=stop_of_second)
        except Stopped as stopped:
            outcome["stopped"] = [stopped.step, stopped.signal_number]
        outcome["resumed"] = train(group, "name=stopped", "log.every=1")
        try:
            train(group, "name=poisoned", prepare=poison_second)
        except UserError as error:
            outcome["poisoned"] = [str(error), error.exit_code]
        try:
            with group.together():
                if launch.rank == 1:
                    raise UserError("only the second one sees this", exit_code=1)
        except UserError as error:
            outcome["together"] = [str(error), error.exit_code]
        write_down()


if __name__ == "__main__":
    from fast_style.cli.main import leave

    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    leave(0)
