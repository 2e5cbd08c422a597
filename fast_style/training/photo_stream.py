"""The training photos of a run, batch by batch, and the list of the unreadable ones."""

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from fast_style.core.distributed import ALONE, Group
from fast_style.core.errors import UserError, printable
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.folders import INCLUDE_RESULTS
from fast_style.training.data import Batch, Crops, StepSampler, stream_photos
from fast_style.training.unreadable import Unreadable, UnreadableList


class PhotoStream:
    """This process's share of the photos of every step.

    Args:
        crops: gives sample k for any k.
        unreadable: the run's list, opened at the step that training starts from.
        batch_size: photos of a step, of all processes together.
        device: where training computes.
        workers: processes that decode photos.
        group: the processes that train together. Each has an equal share of every batch.
    """

    def __init__(
        self,
        crops: Crops,
        unreadable: UnreadableList,
        *,
        batch_size: int,
        device: torch.device,
        workers: int,
        group: Group = ALONE,
    ) -> None:
        self.crops = crops
        self.unreadable = unreadable
        self.batch_size = batch_size
        self.device = device
        self.workers = workers
        self.group = group
        # Unreadable photos that this process met, and that are not yet in rank zero's list.
        self._unlisted: list[Unreadable] = []

    @property
    def num_unreadable(self) -> int:
        """Photos that were replaced because they cannot be read, or are results."""
        return len(self.unreadable.entries)

    def side_at(self, step: int) -> int:
        """Pixels of the crops' sides in the step that follows `step` finished ones."""
        return self.crops.size_of(step * self.batch_size)

    def samples_of(self, step: int) -> list[int]:
        """The numbers of this process's samples in the step that follows `step` finished ones."""
        return next(iter(self._sampler(step, step + 1)))

    def _sampler(self, start_step: int, end_step: int) -> StepSampler:
        launch = self.group.launch
        return StepSampler(
            start_step, end_step, self.batch_size, rank=launch.rank, world_size=launch.world_size
        )

    def batches(
        self, start_step: int, end_step: int, warn: Callable[[str], None]
    ) -> Iterator[Tensor]:
        """This process's photos of every step, uint8 (N, 3, S, S), on the CPU.

        Args:
            start_step: finished steps.
            end_step: the number of the last step.
            warn: called with a line about each of the first unreadable photos.

        Raises:
            UserError: too many photos are unreadable, their folder is gone, or no photos arrive
                any more.
        """
        return stream_photos(
            self.crops,
            self._sampler(start_step, end_step),
            lambda batch: self._account_for(batch, warn),
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def _account_for(self, batch: Batch, warn: Callable[[str], None]) -> None:
        folder = self.crops.photos.folder
        if batch.is_empty and _is_gone(folder):  # its photos are no unreadable ones
            raise UserError(
                f"{printable(folder)}: the folder of photos is gone, or empty, perhaps because a "
                "disk was unplugged; mount it again, and the same command resumes from the last "
                "checkpoint",
                exit_code=1,
            )
        if self.group.is_alone or batch.is_empty:
            self.unreadable.report(batch.unreadable, warn, is_fatal=batch.is_empty)
        else:
            self._unlisted += batch.unreadable

    def collect_unreadable(self, warn: Callable[[str], None]) -> None:
        """Add the unreadable photos of all processes to rank zero's list.

        Raises:
            UserError: there are too many now.
        """
        if self.group.is_alone:
            return
        met = sorted(chain(*self.group.gather(self._unlisted)), key=lambda photo: photo.sample)
        self._unlisted = []
        with self.group.together():
            if self.group.is_first and met:
                self.unreadable.report(met, warn)

    def sum_up(self, warn: Callable[[str], None]) -> None:
        """Warn of the number of skipped photos, if there are any."""
        if self.num_unreadable > 0:
            num_results = sum(entry.is_result for entry in self.unreadable.entries.values())
            results = (
                f"; {num_results} of them are results of fast-style, which {INCLUDE_RESULTS} "
                "takes in"
            )
            warn(
                f"skipped {self.num_unreadable} of {self.unreadable.num_photos} photos, listed in "
                f"{printable(self.unreadable.path)}{results if num_results else ''}"
            )


def _is_gone(folder: Path) -> bool:
    """Whether a folder does not exist, cannot be read, or is empty, as where a disk was mounted."""
    try:
        return not os.listdir(folder)
    except OSError:
        return True


def to_pixels(photos: Tensor, device: torch.device) -> Tensor:
    """uint8 (N, 3, S, S) to float in [0, 1] on the device.

    Photos cross to the device as uint8, a quarter of the bytes.
    """
    photos = photos.to(device, non_blocking=True)
    return photos.to(memory_format=memory_format_for(device)).float() / 255
