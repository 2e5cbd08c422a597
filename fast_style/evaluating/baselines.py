"""What L-BFGS makes of one photo, and keeps: the baseline that models are compared with.

It takes minutes to hours, and depends on the objective and the photo alone. So it is computed once,
written down, and serves every model that is evaluated on the same objective.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fast_style.core.errors import Stopped, UserError, printable
from fast_style.core.files import atomic_write
from fast_style.losses.perceptual import LossValues, PerceptualLoss
from fast_style.optimizing.minimizing import Iterate, minimize

# After how many iterations L-BFGS is looked at.
MARKS = (10, 20, 50, 100, 200, 300, 500)

# Its pictures are kept after these, for grids: one for every 1.4-fold, and the marks.
_KEPT = {0, 1, 2, 3, 5, 7, *(round(10 * 2 ** (half / 2)) for half in range(24)), *MARKS}

_FORMAT = 1

Variant = Literal["box", "clip"]
VARIANTS: tuple[Variant, ...] = ("box", "clip")
VARIANTS_IN_WORDS = {
    "box": "L-BFGS within [0, 1] from the photo",
    "clip": "clipped L-BFGS from white noise",
}


class Photo(NamedTuple):
    """A held-out photo: its middle square, (1, 3, S, S), float in [0, 1]."""

    name: str
    pixels: Tensor
    is_enlarged: bool


class Descent(NamedTuple):
    """What L-BFGS did with one photo.

    `values` is (I + 1, 4), the total, content, style and tv of the best picture so far, after 0 to
    I iterations; `evaluations` (I + 1,), of the loss and its gradient, up to each of them.
    """

    values: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    kept: NDArray[np.int64]
    """The iterations whose pictures are kept, (K,)."""

    pictures: NDArray[np.uint8]
    """(K, S, S, 3)."""

    def at(self, iteration: int) -> int:
        """The index of an iteration, or of the last one, if L-BFGS ended before."""
        return min(iteration, len(self.values) - 1)

    def equals(self, total: float) -> int | None:
        """The iterations after which the objective is no more than `total`; None: never.

        A total that is not finite is no better than any start: 0.
        """
        if not math.isfinite(total):
            return 0
        reached = np.nonzero(self.values[:, 0] <= total)[0]
        return int(reached[0]) if len(reached) else None

    def picture_after(self, iteration: int) -> tuple[int, NDArray[np.uint8]]:
        """The first kept picture from that iteration on, and its own iteration."""
        index = min(int(np.searchsorted(self.kept, iteration)), len(self.kept) - 1)
        # A copy: a view would keep all the others in memory.
        return int(self.kept[index]), self.pictures[index].copy()


def descend(
    loss: PerceptualLoss,
    photo: Tensor,
    variant: Variant,
    iterations: int,
    on_iterate: Callable[[Iterate], bool] = lambda iterate: True,
) -> Descent:
    """Minimize the objective of one photo, and write down the way.

    ``box`` is the strongest baseline known here: L-BFGS-B within [0, 1], from the photo. ``clip``
    is that of Johnson et al. 2016, section 4.1: from white noise, clipped after each update.

    Raises:
        Stopped: `on_iterate` said so.
    """
    best: list[LossValues] = []
    evaluations: list[int] = []
    kept: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    best_picture = photo

    def note(iterate: Iterate) -> bool:
        nonlocal best_picture
        if not best or iterate.values.total < best[-1].total:
            best_picture = iterate.picture
            best.append(iterate.values)
        else:
            best.append(best[-1])
        evaluations.append(iterate.evaluations)
        if iterate.iteration in _KEPT or iterate.iteration == iterations:
            kept.append(iterate.iteration)
            pictures.append(eight_bits(best_picture))
        if not on_iterate(iterate):
            raise Stopped
        return True

    minimize_on(loss, photo, variant, iterations, note)
    if kept[-1] != len(best) - 1:  # it ended before all iterations were done
        kept.append(len(best) - 1)
        pictures.append(eight_bits(best_picture))
    return Descent(np.array(best), np.array(evaluations), np.array(kept), np.stack(pictures))


def minimize_on(
    loss: PerceptualLoss,
    photo: Tensor,
    variant: Variant,
    iterations: int,
    on_iterate: Callable[[Iterate], bool],
) -> None:
    """L-BFGS on one photo, from the start of the variant; see `descend`."""
    targets = loss.content_targets(photo)
    start = photo
    if variant == "clip":
        # The same noise for every photo, so that none depends on the others.
        start = torch.rand(photo.shape, generator=torch.Generator().manual_seed(1))
    minimize(
        lambda picture: loss.terms(picture, targets),
        start.to(photo.device),
        iterations=iterations,
        bounds=variant,
        on_iterate=on_iterate,
    )


def eight_bits(picture: Tensor) -> NDArray[np.uint8]:
    """(S, S, 3) of a picture (1, 3, S, S) in [0, 1]; clamped, then rounded."""
    levels: NDArray[np.uint8] = (
        (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )
    return levels


def pixels_of(levels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(1, 3, S, S), float in [0, 1], of (S, S, 3)."""
    return torch.from_numpy(levels).permute(2, 0, 1)[None].to(device).float() / 255


class Baselines:
    """What L-BFGS did with photos, in a folder; computed where it is not there yet.

    A file's name holds a digest of all that decides over its contents, so a file never stands for
    another objective, photo or size, and nothing that took hours is ever overwritten by another.

    Args:
        folder: see `make_folder`.
        loss: the objective.
        objective_digest: of all that decides over the objective.
    """

    def __init__(self, folder: Path, loss: PerceptualLoss, objective_digest: str) -> None:
        self.folder = folder
        self.loss = loss
        self.objective_digest = objective_digest

    def make_folder(self) -> None:
        """Make the folder, or say now that nothing can be kept there.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{printable(self.folder)}: no folder can be made there ({error.strerror})"
            ) from None
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise UserError(f"{printable(self.folder)}: this folder cannot be written to")

    def path(self, photo: Photo, variant: Variant) -> Path:
        """Where the descent of a photo lies or will lie."""
        size = photo.pixels.shape[-1]
        key = {
            "format": _FORMAT,
            "objective": self.objective_digest,
            "photo": hashlib.sha256(eight_bits(photo.pixels).tobytes()).hexdigest(),
            "variant": variant,
        }
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(photo.name).stem)
        return self.folder / f"{size}-{variant}-{stem[:60]}-{digest_of(key)[:12]}.npz"

    def find(self, photo: Photo, variant: Variant, iterations: int) -> Descent | None:
        """The kept descent, cut to `iterations`; None if there is none as long or it is damaged."""
        try:
            # Read at once: of a damaged file, np.load leaves the handle open.
            data = io.BytesIO(self.path(photo, variant).read_bytes())
            with np.load(data, allow_pickle=False) as file:
                asked = int(file["asked"])
                descent = Descent(
                    file["values"], file["evaluations"], file["kept"], file["pictures"]
                )
        except Exception:  # zipfile's, zlib's, numpy's, tokenize's: whatever damage leads to
            return None
        ended_early = len(descent.values) <= asked
        if asked < iterations and not ended_early:
            return None
        within = descent.kept <= iterations
        if descent.kept[within][-1] != descent.at(iterations):
            return None  # it went further, and kept no picture from here
        return Descent(
            descent.values[: iterations + 1],
            descent.evaluations[: iterations + 1],
            descent.kept[within],
            descent.pictures[within],
        )

    def compute(
        self,
        photo: Photo,
        variant: Variant,
        iterations: int,
        on_iterate: Callable[[Iterate], bool],
    ) -> Descent:
        """Descend, and keep it.

        Raises:
            Stopped: `on_iterate` said so; nothing is kept then.
            UserError: it cannot be written.
        """
        descent = descend(self.loss, photo.pixels, variant, iterations, on_iterate)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, asked=np.array(iterations), **descent._asdict())
        try:
            with atomic_write(self.path(photo, variant)) as file:
                file.write(buffer.getvalue())
        except OSError as error:
            raise UserError(
                f"{printable(self.folder)}: cannot be written ({error.strerror})", exit_code=1
            ) from None
        return descent


def digest_of(data: Mapping[str, Any]) -> str:
    """Of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
