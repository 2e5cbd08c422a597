"""Processes of one run, started by torchrun, usually one for each GPU.

Only objects and errors travel between them here; DistributedDataParallel averages the gradients.

torch is imported inside functions: a command can ask for its rank before it spends seconds on
importing torch.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fast_style.core.errors import UserError, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed import ProcessGroup

T = TypeVar("T")

# How long processes wait for one that builds a cache or downloads weights. A process that dies is
# noticed at once, whatever the timeout.
_TIMEOUT = timedelta(days=1)

# --- Rank and device of this process ------------------------------------------------------------


class Launch(NamedTuple):
    """The rank of this process among those started together; by default, it is the only one.

    Attributes:
        rank: from 0, over all machines.
        world_size: number of processes on all machines.
        local_rank: from 0, on this machine.
        local_world_size: number of processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank zero, which alone writes files and prints messages."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether this is the only process."""
        return self.world_size == 1


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """The rank of this process from torchrun's environment variables; alone without torchrun.

    Raises:
        UserError: a variable is missing or out of range.
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
    found = f"got {shortened(repr(text)) if text else 'nothing'}"
    raise UserError(
        f"{name} in the environment: must be a whole number from {least} to {below - 1}, {found}; "
        "torchrun sets it, and without torchrun RANK and WORLD_SIZE must not be set"
    )


def require_equal_shares(batch_size: int, launch: Launch) -> None:
    """Check that every process gets the same number of photos in each step.

    Only then is the mean of the processes' mean losses the mean loss over all photos.

    Args:
        batch_size: photos per step over all processes.
        launch: the rank of this process.

    Raises:
        UserError: `batch_size` is no multiple of the number of processes.
    """
    num_processes = launch.world_size
    rest = batch_size % num_processes
    if rest == 0:
        return
    above = batch_size - rest + num_processes
    fitting = f"{batch_size - rest} or {above}" if batch_size > num_processes else f"{above}"
    raise UserError(
        f"train.batch_size: {batch_size} photos cannot be shared equally among {num_processes} "
        f"processes; set it to {fitting}, or start another number of processes (torchrun "
        "--nproc-per-node)"
    )


def own_device(device: "torch.device", launch: Launch) -> "torch.device":
    """The device of this process: a GPU of its own, or the device that all processes share.

    Args:
        device: the device that the command line gives to all processes.
        launch: the rank of this process.

    Raises:
        UserError: `device` is one numbered GPU, or there are fewer GPUs than processes.
    """
    import torch

    if launch.is_alone or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(
            f"--device {device}: one GPU cannot serve all processes of torchrun; use --device "
            "cuda, and choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    num_gpus = torch.cuda.device_count()
    if launch.local_world_size > num_gpus:
        fewer = f"start torchrun with --nproc-per-node {num_gpus}, or " if num_gpus else ""
        raise UserError(
            f"--device {device}: {launch.local_world_size} processes on a machine with {num_gpus} "
            f"GPUs; {fewer}use --device cpu"
        )
    own = torch.device("cuda", launch.local_rank)
    torch.cuda.set_device(own)
    return own


# --- Communication ------------------------------------------------------------------------------


class SharedError(UserError):
    """A UserError of one process that all processes raise. Only rank zero has the message."""


class Group:
    """The processes that work on one run. A single process needs no communication.

    Args:
        launch: the rank of this process.
        channel: carries Python objects between processes; not needed by a single one.
    """

    def __init__(self, launch: Launch | None = None, channel: "ProcessGroup | None" = None) -> None:
        self.launch = launch or Launch()
        self.is_first = self.launch.is_first
        self.is_alone = self.launch.is_alone
        self._channel = channel

    def gather(self, value: T) -> list[T]:
        """The values of all processes, ordered by rank."""
        if self.is_alone:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.launch.world_size
        distributed.all_gather_object(values, value, group=self._channel)
        return values

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        return [sum(found) for found in zip(*self.gather(list(numbers)), strict=True)]

    def broadcast(self, value: T) -> T:
        """The value of rank zero; those of the other processes are ignored."""
        if self.is_alone:
            return value
        from torch import distributed

        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0, group=self._channel)
        return values[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """If one process raises a UserError in the block, all do, so none waits for it forever.

        Raises:
            UserError: the one of the lowest rank; among several processes, as a `SharedError`.
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

    def rank_zero_first(self, make: Callable[[], T]) -> T:
        """The result of `make`, called by rank zero first and then by the others at once.

        So weights are downloaded, and caches built, by one process only.

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
        """The network with its gradients averaged over all processes in every backward pass."""
        if self.is_alone:
            return net
        from torch.nn.parallel import DistributedDataParallel

        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=device_ids)


ALONE = Group()
"""The group of a single process."""


@contextmanager
def joined(launch: Launch, device: "torch.device", *, advice: str) -> Iterator[Group]:
    """The group of all processes, connected while the block lasts.

    Args:
        launch: the rank of this process.
        device: the device of this process, from `own_device`.
        advice: how the user can continue after a process was lost; a sentence without its period.

    Raises:
        UserError: the processes cannot connect, or one has ended before the others.
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
        # Objects are sent through the CPU, with a longer timeout than gradients.
        channel = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        assert isinstance(channel, distributed.ProcessGroup)  # every process is a member
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the processes cannot connect ({reason}); check torchrun's --rdzv-endpoint, or "
            "MASTER_ADDR and MASTER_PORT in the environment"
        ) from None
    try:
        yield Group(launch, channel)
        distributed.barrier(group=channel)  # a process that leaves early would cut its connections
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise UserError(
            "another process of this run has ended; its own error or torchrun's summary gives the "
            f"reason. {advice}",
            exit_code=1,
        ) from None
    finally:
        distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    from torch import distributed

    # gloo has no exception class of its own: it raises a RuntimeError that names its source file.
    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)
