"""``fast-style train``: settings in, a trained model out."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fast_style.cli.common import (
    add_device,
    add_resume,
    add_settings,
    carry_out,
    print_error,
    read_several_settings,
    require_inputs_of_new,
    say,
)
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


SUMMARY = "train a style from a YAML file, or several one after the other"
EXAMPLES = """\
examples:
  # train; the same again continues
  {prog} configs/starry_night.yaml
  # change settings for this run
  {prog} my.yaml train.steps=2000 loss.style_weight=8
  # several styles, one after the other; the same again skips what is finished
  {prog} wave.yaml ink.yaml mosaic.yaml
  # are photos, style and weights fine?
  {prog} my.yaml --check
  # watch
  tensorboard --logdir runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind the command."""
    add_settings(parser, instead_of="train", several=True)
    add_device(parser)
    add_resume(parser)
    parser.add_argument(
        "--check", action="store_true", help="look at photos, style and weights; train nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    launch = read_launch()
    try:
        configs = _read(options, launch)
    except UserError as error:
        if launch.local_rank > 0:  # another process of this machine finds, and tells, the same
            raise UserError("", exit_code=error.exit_code) from None
        raise
    if not configs:
        return 0
    if options.check:
        return check(configs)
    from fast_style.core.devices import resolve_device

    device = own_device(resolve_device(options.device), launch)
    with joined(launch, device) as group:
        return train(configs, device=device, fresh=options.resume == "never", group=group)


def _read(options: argparse.Namespace, launch: Launch) -> "list[Config]":
    from fast_style.settings.config import Config

    configs = read_several_settings(options, Config, example="configs/quickstart.yaml")
    for config in configs:
        require_equal_shares(config.train.batch_size, launch)
    if len(configs) == 1 and not options.check:  # of several, one that fails stops no other
        require_inputs_of_new(configs[0], fresh=options.resume == "never")
    return configs


def check(configs: "Sequence[Config]") -> int:
    """Look at everything that the runs need; gives the exit code."""
    from fast_style.training.build import check_inputs

    def look(config: "Config") -> int:
        check_inputs(config, say)
        return 0

    return _one_after_the_other(configs, look, ALONE)


def train(configs: "Sequence[Config]", *, device: "torch.device", fresh: bool, group: Group) -> int:
    """Train, or go on training; gives the exit code."""
    import torch

    from fast_style.training.build import build_trainer

    threads = torch.get_num_threads()

    def train_one(config: "Config") -> int:
        try:
            return carry_out(
                config,
                partial(build_trainer, group=group),
                device=device,
                fresh=fresh,
                result="model.safetensors",
                meaning="model",
                advice="Begin anew with --resume never, or start another run from it with "
                "train.init_from",
                group=group,
            )
        finally:
            torch.set_num_threads(threads)  # one run's train.threads is not the next one's

    return _one_after_the_other(configs, train_one, group)


def _one_after_the_other(
    configs: "Sequence[Config]", work: "Callable[[Config], int]", group: Group
) -> int:
    """Work on each; gives the exit code.

    What fails does not stop those behind it, which may be a night's work. A signal does.
    """
    failed = []
    for number, config in enumerate(configs, start=1):
        if len(configs) > 1 and group.is_first:
            say(f"{config.name} ({number} of {len(configs)})")
        try:
            code = work(config)
        except UserError as error:
            # What happened to one process alone leaves the others waiting: nothing can go on.
            if len(configs) == 1 or not (group.is_alone or isinstance(error, SharedError)):
                raise
            print_error(error)
            failed.append(config.name)
            continue
        if code != 0:
            return code
    if failed and group.is_first:
        say(f"failed: {', '.join(failed)}; the others are done")
    return 1 if failed else 0
