"""``fast-style train``: train the models of one or several YAML files."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fast_style.cli.arguments import (
    add_device,
    add_max_pixels,
    add_resume,
    add_settings,
    read_several_settings,
)
from fast_style.cli.process import print_error, say
from fast_style.cli.runs import RUNS, require_inputs_of_new, start_or_resume
from fast_style.cli.stdout import hand_out
from fast_style.core.distributed import (
    ALONE,
    Group,
    Launch,
    SharedError,
    joined,
    own_device,
    read_launch,
    require_equal_shares,
)
from fast_style.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from fast_style.settings.config import Config
    from fast_style.training.running import Trainable

SUMMARY = "train a style from a YAML file, or several one after the other"
EXAMPLES = """\
examples:
  # train; the same command resumes a stopped run
  {prog} configs/starry_night.yaml
  # with other settings for this run
  {prog} my.yaml train.steps=2000 loss.style_weight=8
  # several styles, one after the other; the same command skips finished ones
  {prog} wave.yaml ink.yaml mosaic.yaml
  # check that photos, style picture and weights can be read
  {prog} my.yaml --check
  # watch the training
  tensorboard --logdir runs
"""
LESS_MEMORY = "set a smaller train.batch_size or data.crop_size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_settings(parser, several=True)
    add_device(parser)
    add_max_pixels(parser)
    add_resume(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="check that photos, style picture and weights can be read, and train nothing",
    )


def run(options: argparse.Namespace) -> int:
    """Train or check the runs of the command line; returns the exit code."""
    launch = read_launch()
    try:
        configs = _read(options, launch)
    except UserError as error:
        if launch.local_rank > 0:  # the first process of this machine reports the same error
            raise UserError("", exit_code=error.exit_code) from None
        raise
    if not configs:
        return 0
    from fast_style.core.devices import resolve_device

    device = own_device(resolve_device(options.device), launch)
    if options.check:
        return check(configs, device=device, fresh=options.resume == "never")
    advice = "The same command resumes from the last checkpoint"
    with joined(launch, device, advice=advice) as group:
        return train(configs, device=device, fresh=options.resume == "never", group=group)


def _read(options: argparse.Namespace, launch: Launch) -> "list[Config]":
    from fast_style.settings.config import Config

    configs = read_several_settings(options, Config, example="configs/laptop.yaml")
    for config in configs:
        require_equal_shares(config.train.batch_size, launch)
    if len(configs) == 1 and not options.check:  # a failing run must not stop the others
        require_inputs_of_new(configs[0], fresh=options.resume == "never")
    return configs


def check(configs: "Sequence[Config]", *, device: "torch.device", fresh: bool) -> int:
    """Check the inputs of each run; returns the exit code.

    Args:
        configs: the settings of the runs.
        device: where they are to train.
        fresh: as in `train`.
    """
    from fast_style.pictures.scanning import RULES
    from fast_style.training.checking import check_inputs
    from fast_style.training.run_folder import photo_rules_of

    def check_one(config: "Config") -> int:
        # A run that has begun keeps its photos, whatever newer rules leave out.
        rules = RULES if fresh else photo_rules_of(RUNS / config.name, say)
        check_inputs(config, hand_out, device=device, rules=rules)
        return 0

    return _for_each(configs, check_one, ALONE)


def train(
    configs: "Sequence[Config]",
    *,
    device: "torch.device",
    fresh: bool,
    group: Group,
    build: "Callable[..., Trainable] | None" = None,
    anew: str = "--resume never",
) -> int:
    """Start or resume each run; returns the exit code.

    Args:
        configs: the settings of the runs.
        device: the device of this process.
        fresh: whether to train in new folders, even if runs of these names exist.
        group: the processes that train together.
        build: makes what trains a run, with the arguments of `build_trainer`; None: that itself.
        anew: as in `start_or_resume`.
    """
    from fast_style.training.build import build_trainer

    def train_one(config: "Config") -> int:
        return start_or_resume(
            config,
            partial(build or build_trainer, group=group),
            device=device,
            fresh=fresh,
            result="model.safetensors",
            meaning="model",
            advice=", or start another run from this model with train.init_from" if anew else "",
            group=group,
            anew=anew,
        )

    return _for_each(configs, train_one, group)


def _for_each(configs: "Sequence[Config]", work: "Callable[[Config], int]", group: Group) -> int:
    """Do the work for each run in turn; returns the exit code.

    A run that fails does not stop the next ones, which may be a night's work. A signal does.
    """
    failed = []
    for number, config in enumerate(configs, start=1):
        if len(configs) > 1 and group.is_first:
            say(f"{config.name} ({number} of {len(configs)})")
        try:
            code = work(config)
        except UserError as error:
            # If only one process failed, the others wait for it, so no run can follow.
            if len(configs) == 1 or not (group.is_alone or isinstance(error, SharedError)):
                raise
            print_error(error)
            failed.append(config.name)
            continue
        if code != 0:
            return code
    if failed and group.is_first:
        say(f"failed: {', '.join(failed)}; the other runs are done")
    return 1 if failed else 0
