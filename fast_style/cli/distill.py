"""``fast-style distill``: a large loss network in, a small one out."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.common import RUNS, add_device, add_settings, say, stop_signals
from fast_style.errors import UserError

if TYPE_CHECKING:
    from fast_style.config import DistillConfig


SUMMARY = "learn a small loss network from a large one"
EXAMPLES = """\
examples:
  # hours on a CPU; the same again continues
  {prog} configs/distill.yaml
  # train a style with the result
  fast-style train my.yaml loss_network.weights=runs/compact/loss_network.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser, instead_of="learn")
    add_device(parser)
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: go on with an unfinished run of this name; never: begin a new run folder",
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.config import DistillConfig, load_distill_config
    from fast_style.settings import help_text, to_yaml

    if options.help_config:
        print(help_text(DistillConfig))
        return 0
    if options.config is None:
        raise UserError("give a YAML file, such as configs/distill.yaml, or see --help")
    config = load_distill_config(options.config, options.words)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    return distill(config, device=options.device, fresh=options.resume == "never")


def distill(config: "DistillConfig", *, device: str, fresh: bool) -> int:
    """Learn, or go on learning, with signals handled; gives the exit code."""
    from fast_style.distillation import build_distiller
    from fast_style.runs import open_run
    from fast_style.stylizer import resolve_device
    from fast_style.trainer import Stopped

    chosen = resolve_device(device)
    run = open_run(config, root=RUNS, fresh=fresh, say=say)
    result = run.folder / "loss_network.safetensors"
    step = run.resume_from.metadata["step"] if run.resume_from else 0
    if step >= config.train.steps:
        say(f"{run.folder}: finished at step {step}; the loss network is {result}")
        return 0
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        distiller = build_distiller(config, run, device=chosen, say=say, command=command)
    except (UserError, KeyboardInterrupt):
        run.abandon()
        raise
    action = f"going on at step {step}" if step else "learning"
    say(f"{action} in {run.folder} on {chosen}; watch with: tensorboard --logdir {RUNS}")
    with stop_signals() as stop_signal:
        try:
            distiller.train(stop_signal)
        except Stopped as stopped:
            again = f"--resume auto name={run.folder.name}" if fresh else "the same command"
            say(f"stopped at step {stopped.step}; {again} goes on from there")
            return 128 + stopped.signal_number
    say(f"finished: {result}")
    return 0
