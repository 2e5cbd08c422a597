"""Several processes that work together: started by torchrun, one for each GPU.

torch is imported where it is needed only, so that a command can ask for its place among the
processes before it takes the seconds that torch takes.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fast_style.core.errors import UserError, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed import ProcessGroup

T = TypeVar("T")

# How long processes wait for one that builds a cache or downloads weights. One that dies is noticed
# at once, whatever this says.
_PATIENCE = timedelta(days=1)

# --- Which process this is ----------------------------------------------------------------------


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

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.world_size == 1


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


def require_equal_shares(batch_size: int, launch: Launch) -> None:
    """Check that every process gets as many photos of a step as the others.

    Only then is the mean over processes of their photos' mean losses the mean over all photos.

    Raises:
        UserError: names the numbers that fit.
    """
    count = launch.world_size
    rest = batch_size % count
    if rest == 0:
        return
    above = batch_size - rest + count
    fitting = f"{batch_size - rest} or {above}" if batch_size > count else f"{above}"
    raise UserError(
        f"train.batch_size: {batch_size} photos cannot be shared equally among {count} processes; "
        f"set it to {fitting}, or start another number of processes (torchrun --nproc-per-node)"
    )


def own_device(device: "torch.device", launch: Launch) -> "torch.device":
    """The device of this process: each has a GPU of its own, or the CPU together with the others.

    Args:
        device: what all processes were told.
        launch: which process this is.

    Raises:
        UserError: one certain GPU was named for all, or there are fewer GPUs than processes.
    """
    import torch

    if launch.is_alone or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(
            f"--device {device}: torchrun's processes take a GPU each; say --device cuda, and "
            "choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    count = torch.cuda.device_count()
    if launch.local_world_size > count:
        raise UserError(
            f"{launch.local_world_size} processes on a machine with {count} GPUs; start torchrun "
            f"with --nproc-per-node {count}, or train with --device cpu"
        )
    own = torch.device("cuda", launch.local_rank)
    torch.cuda.set_device(own)
    return own


# --- What they do together ----------------------------------------------------------------------


class SharedError(UserError):
    """A mistake that all processes raise together. That of rank zero alone says what it is."""


class Group:
    """The processes that train one run together; alone, each method is what it says of one.

    Args:
        launch: which process this is.
        channel: carries Python objects between them.
    """

    def __init__(self, launch: Launch | None = None, channel: "ProcessGroup | None" = None) -> None:
        self.launch = launch or Launch()
        self.is_first = self.launch.is_first
        self.is_alone = self.launch.is_alone
        self._channel = channel

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of the ranks."""
        if self.is_alone:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.launch.world_size
        distributed.all_gather_object(values, value, group=self._channel)
        return values

    def share(self, value: T) -> T:
        """The value of rank zero; what others give is not looked at."""
        if self.is_alone:
            return value
        from torch import distributed

        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0, group=self._channel)
        return values[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A mistake of one process inside is a mistake of all: none waits for one that has ended.

        Raises:
            UserError: the first one by rank; if there are several processes, a `SharedError`.
        """
        if self.is_alone:
            yield
            return
        own = None
        try:
            yield
        except UserError as error:
            own = error
        found = [error for error in self.gather(own) if error is not None]
        if found:
            message = str(found[0]) if self.is_first else ""
            raise SharedError(message, exit_code=found[0].exit_code)

    def one_by_one(self, make: Callable[[], T]) -> T:
        """What each process makes: rank zero first, so that downloads and caches are made once.

        Raises:
            UserError: as in `together`.
        """
        made: list[T] = []
        for is_turn_of_first in (True, False):
            with self.together():
                if self.is_first == is_turn_of_first:
                    made.append(make())
        return made[0]

    def parallel(self, net: "nn.Module", device: "torch.device") -> "nn.Module":
        """The network, its gradients averaged over all processes in every backward pass."""
        if self.is_alone:
            return net
        from torch.nn.parallel import DistributedDataParallel

        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=device_ids)


ALONE = Group()
"""A process without others."""


@contextmanager
def joined(launch: Launch, device: "torch.device") -> Iterator[Group]:
    """The group of all processes, for as long as the context lasts.

    Args:
        launch: which process this is.
        device: its own, from `own_device`.

    Raises:
        UserError: the processes do not find each other, or one has ended before the others.
    """
    if launch.is_alone:
        yield ALONE
        return
    from torch import distributed

    is_gpu = device.type == "cuda"
    try:
        distributed.init_process_group(
            "nccl" if is_gpu else "gloo", device_id=device if is_gpu else None
        )
        # Words between processes need no GPU, and may be waited for longer than gradients.
        channel = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(channel, distributed.ProcessGroup)  # every process is a member
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the processes do not find each other: {reason}") from None
    try:
        yield Group(launch, channel)
        distributed.barrier(group=channel)  # who leaves first takes its connections away
    except RuntimeError as error:
        if not _means_lost_process(error):
            raise
        raise UserError(
            "another process of this run has ended; what it says, or torchrun's summary, tells "
            "why. The same command goes on from the last checkpoint",
            exit_code=1,
        ) from None
    finally:
        distributed.destroy_process_group()


def _means_lost_process(error: RuntimeError) -> bool:
    from torch import distributed

    # gloo has no type of error of its own: a plain RuntimeError that names its source file.
    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)
