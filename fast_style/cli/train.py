"""``fast-style train``: settings in, a trained model out."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.cli.common import RUNS, add_device, add_settings, say, stop_signals
from fast_style.errors import UserError

if TYPE_CHECKING:
    from fast_style.config import Config


SUMMARY = "train a style from a YAML file"
EXAMPLES = """\
examples:
  # train; the same again continues
  {prog} configs/starry_night.yaml
  # change settings for this run
  {prog} my.yaml train.steps=2000 loss.style_weight=8
  # are photos, style and weights fine?
  {prog} my.yaml --check
  # watch
  tensorboard --logdir runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser, instead_of="train")
    add_device(parser)
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: go on with an unfinished run of this name; never: begin a new run folder",
    )
    parser.add_argument(
        "--check", action="store_true", help="look at photos, style and weights; train nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from fast_style.config import Config, load_config
    from fast_style.settings import help_text, to_yaml

    if options.help_config:
        print(help_text(Config))
        return 0
    if options.config is None:
        raise UserError("give a YAML file, such as configs/quickstart.yaml, or see --help")
    config = load_config(options.config, options.words)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    if options.check:
        from fast_style.runs import check_inputs

        check_inputs(config, say)
        return 0
    return train(config, device=options.device, fresh=options.resume == "never")


def train(config: "Config", *, device: str, fresh: bool) -> int:
    """Train, or go on training, with signals handled; gives the exit code."""
    from fast_style.runs import build_trainer, open_run
    from fast_style.stylizer import resolve_device
    from fast_style.trainer import Stopped

    chosen = resolve_device(device)
    run = open_run(config, root=RUNS, fresh=fresh, say=say)
    model = run.folder / "model.safetensors"
    step = run.resume_from.metadata["step"] if run.resume_from else 0
    if step >= config.train.steps:
        say(
            f"{run.folder}: finished at step {step}; the model is {model}. Begin anew with "
            "--resume never, or start another run from it with train.init_from"
        )
        return 0
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        trainer = build_trainer(config, run, device=chosen, say=say, command=command)
    except (UserError, KeyboardInterrupt):
        run.abandon()
        raise
    action = f"going on at step {step}" if step else "training"
    say(f"{action} in {run.folder} on {chosen}; watch with: tensorboard --logdir {RUNS}")
    with stop_signals() as stop_signal:
        try:
            trainer.train(stop_signal)
        except Stopped as stopped:
            again = f"--resume auto name={run.folder.name}" if fresh else "the same command"
            say(f"stopped at step {stopped.step}; {again} goes on from there")
            return 128 + stopped.signal_number
    say(f"finished: {model}")
    return 0
