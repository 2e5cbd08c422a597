"""Several processes that work together: started by torchrun, one for each GPU.

torch is imported where it is needed only, so that a command can ask for its place among the
processes before it takes the seconds that torch takes.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from fast_style.errors import UserError, shortened


class Launch(NamedTuple):
    """Which process this is, of those that were started together; alone, the only one."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    """The last two count the processes of one machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank zero: the one that writes and talks."""
        return self.rank == 0


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """What torchrun says in the environment; without torchrun, a process is alone.

    Raises:
        UserError: a number makes no sense.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Launch()
    world_size = _whole_number(environment, "WORLD_SIZE", least=1)
    local_world_size = _whole_number(environment, "LOCAL_WORLD_SIZE", least=1)
    return Launch(
        rank=_whole_number(environment, "RANK", below=world_size),
        world_size=world_size,
        local_rank=_whole_number(environment, "LOCAL_RANK", below=local_world_size),
        local_world_size=local_world_size,
    )


def _whole_number(
    environment: Mapping[str, str], name: str, *, least: int = 0, below: int = 1_000_000
) -> int:
    text = environment.get(name, "")
    if text.isdecimal() and len(text) < 8 and least <= int(text) < below:
        return int(text)
    found = f"got {shortened(repr(text))}" if text else "is not set"
    raise UserError(
        f"{name} in the environment: must be a whole number from {least} to {below - 1}, {found}; "
        "torchrun sets it, and without torchrun RANK and WORLD_SIZE must not be set"
    )
