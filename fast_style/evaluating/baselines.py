"""The baseline that models are compared with: L-BFGS on one photo, cached in a folder.

A baseline takes minutes to hours, and depends on the objective and the photo alone. So each result
is cached, and serves every model that is evaluated on the same objective.
"""

import hashlib
import io
import json
import math
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fast_style.core.errors import UserError, printable, remedy_for
from fast_style.core.files import atomic_write, make_with_parents, why_unwritable
from fast_style.core.free_memory import ran_out_of_memory
from fast_style.evaluating.plan import Photo, Variant
from fast_style.losses.perceptual import LossValues, PerceptualLoss
from fast_style.optimizing.minimizing import Iterate, minimize

# The report gives the objective after each of these iterations.
MILESTONES = (10, 20, 50, 100, 200, 300, 500)

# Pictures are stored after these iterations, for the grid: steps of a factor of 1.4.
_PICTURED = {0, 1, 2, 3, 5, 7, *(round(10 * 2 ** (half / 2)) for half in range(24)), *MILESTONES}

_FORMAT = 1


class Descent(NamedTuple):
    """The course of L-BFGS on one photo: after each iteration, the best picture so far."""

    values: NDArray[np.float64]
    """(I + 1, 4): total, content, style and tv of the best picture after 0 to I iterations."""

    evaluations: NDArray[np.int64]
    """(I + 1,): evaluations of the loss and its gradient up to each iteration."""

    pictured: NDArray[np.int64]
    """(K,): the iterations whose pictures are stored, ascending; the last iteration is one."""

    pictures: NDArray[np.uint8]
    """(K, S, S, 3)."""

    def index_of(self, iteration: int) -> int:
        """The row of `values` for this iteration: the last row if L-BFGS converged before."""
        return min(iteration, len(self.values) - 1)

    def iterations_to_reach(self, total: float) -> int | None:
        """The first iteration whose objective is at most `total`; None if none is.

        A total that is not finite is no better than any start, so it gives 0.
        """
        if not math.isfinite(total):
            return 0
        reached = np.nonzero(self.values[:, 0] <= total)[0]
        return int(reached[0]) if len(reached) else None

    def picture_after(self, iteration: int) -> tuple[int, NDArray[np.uint8]]:
        """The first stored picture from this iteration on, (S, S, 3), after its own iteration."""
        index = min(int(np.searchsorted(self.pictured, iteration)), len(self.pictured) - 1)
        # A copy, because a view would keep all pictures in memory.
        return int(self.pictured[index]), self.pictures[index].copy()


def descend(
    loss: PerceptualLoss,
    photo: Tensor,
    variant: Variant,
    iterations: int,
    on_iterate: Callable[[Iterate], None] = lambda iterate: None,
) -> Descent:
    """Every iteration of L-BFGS on the objective of one photo.

    ``box`` is the strongest baseline known here: L-BFGS-B within [0, 1], from the photo. ``clip``
    is that of Johnson et al. 2016, section 4.1: from white noise, clipped after each update.

    Args:
        loss: the objective.
        photo: (1, 3, S, S) in [0, 1].
        variant: ``box`` or ``clip``.
        iterations: at most.
        on_iterate: called after the start and after each iteration; may raise `Stopped`.
    """
    best: list[LossValues] = []
    evaluations: list[int] = []
    pictured: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    best_picture = photo

    def record(iterate: Iterate) -> None:
        nonlocal best_picture
        if not best or iterate.values.total < best[-1].total:
            best_picture = iterate.picture
            best.append(iterate.values)
        else:
            best.append(best[-1])
        evaluations.append(iterate.evaluations)
        if iterate.iteration in _PICTURED or iterate.iteration == iterations:
            pictured.append(iterate.iteration)
            pictures.append(to_uint8(best_picture))
        on_iterate(iterate)

    run_lbfgs(loss, photo, variant, iterations, record)
    if pictured[-1] != len(best) - 1:  # L-BFGS converged before the last iteration
        pictured.append(len(best) - 1)
        pictures.append(to_uint8(best_picture))
    return Descent(np.array(best), np.array(evaluations), np.array(pictured), np.stack(pictures))


def run_lbfgs(
    loss: PerceptualLoss,
    photo: Tensor,
    variant: Variant,
    iterations: int,
    on_iterate: Callable[[Iterate], None],
) -> None:
    """Minimize the objective of one photo without recording anything; see `descend`."""
    targets = loss.content_targets(photo)
    start = photo
    if variant == "clip":
        # The same noise for every photo, so that no result depends on the other photos.
        start = torch.rand(photo.shape, generator=torch.Generator().manual_seed(1))

    def observe(iterate: Iterate) -> bool:
        on_iterate(iterate)
        return True

    minimize(
        lambda picture: loss.terms(picture, targets),
        start.to(photo.device),
        iterations=iterations,
        bounds=variant,
        on_iterate=observe,
    )


class BaselineCache:
    """Descents of photos, one file each, in a folder.

    A file's name holds a digest of everything its contents depend on: the objective, the photo, the
    size and the variant. So a file is never mistaken for another, nor overwritten by another.

    Args:
        folder: created by `make_folder`.
        loss: the objective.
        objective_digest: digest of everything that the objective depends on.
    """

    def __init__(self, folder: Path, loss: PerceptualLoss, objective_digest: str) -> None:
        self.folder = folder
        self.loss = loss
        self.objective_digest = objective_digest

    def make_folder(self, option: str) -> None:
        """Create the folder, before hours are spent on its contents.

        Args:
            option: what names the folder, for the message: ``--output``.

        Raises:
            UserError: the folder cannot be created or written to.
        """
        try:
            make_with_parents(self.folder)
        except OSError as error:
            raise UserError(
                f"{printable(self.folder)}: cannot create this folder ({error.strerror}); "
                f"{remedy_for(error, f'choose another {option}')}"
            ) from None
        if refusal := why_unwritable(self.folder):
            raise UserError(f"{printable(self.folder)}: {refusal}; choose another {option}")

    def path(self, photo: Photo, variant: Variant) -> Path:
        """The file of a photo's descent, whether or not it exists."""
        size = photo.pixels.shape[-1]
        key = {
            "format": _FORMAT,
            "objective": self.objective_digest,
            "photo": hashlib.sha256(to_uint8(photo.pixels).tobytes()).hexdigest(),
            "variant": variant,
        }
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(photo.name).stem)
        return self.folder / f"{size}-{variant}-{stem[:60]}-{digest_of(key)[:12]}.npz"

    def load(
        self,
        photo: Photo,
        variant: Variant,
        iterations: int,
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> Descent | None:
        """The cached descent, cut to `iterations`.

        None if its file is missing or damaged, has fewer iterations, or has no picture after
        `iterations`.

        Args:
            photo: the photo.
            variant: ``box`` or ``clip``.
            iterations: at most.
            say: prints a line for the user if the file is damaged.

        Raises:
            UserError: what has the file's name is no file, or cannot be read.
        """
        path = self.path(photo, variant)
        data = self._read(path)
        if data is None:
            return None
        try:
            asked, descent = _read_descent(data, photo.pixels.shape[-1])
        except Exception as error:  # zipfile, zlib, numpy and tokenize raise many types at damage
            if ran_out_of_memory(error, path):
                raise
            say(f"{printable(path)}: this L-BFGS result is damaged; it is computed again")
            return None
        has_converged = len(descent.values) <= asked
        if asked < iterations and not has_converged:
            return None
        within = descent.pictured <= iterations
        if descent.pictured[within][-1] != descent.index_of(iterations):
            return None
        return Descent(
            descent.values[: iterations + 1],
            descent.evaluations[: iterations + 1],
            descent.pictured[within],
            descent.pictures[within],
        )

    def require_files(self, photos: Sequence[Photo], variants: Sequence[Variant]) -> None:
        """Check that the descents can be read and stored, before hours are spent on the first.

        Raises:
            UserError: as `load`.
        """
        for photo in photos:
            for variant in variants:
                self._read(self.path(photo, variant), 0)

    def _read(self, path: Path, num_bytes: int = -1) -> bytes | None:
        """The first bytes of a descent's file, by default all; None if it is missing.

        Raises:
            UserError: a folder or a pipe has its name, or it cannot be read.
        """
        try:
            if stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
                with path.open("rb") as file:
                    return file.read(num_bytes)
            found = "is a folder" if path.is_dir() else "is no ordinary file"
        except FileNotFoundError:
            return None
        except OSError as error:
            found = f"cannot be read ({error.strerror})"
        raise UserError(
            f"{printable(path)}: {found}, where an L-BFGS result is kept; remove or rename it"
        )

    def compute(
        self,
        photo: Photo,
        variant: Variant,
        iterations: int,
        on_iterate: Callable[[Iterate], None],
    ) -> Descent:
        """Run L-BFGS on a photo, and store its descent; nothing is stored if `on_iterate` raises.

        Raises:
            UserError: the file cannot be written (exit code 1).
        """
        descent = descend(self.loss, photo.pixels, variant, iterations, on_iterate)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            asked=np.array(iterations),
            values=descent.values,
            evaluations=descent.evaluations,
            kept=descent.pictured,
            pictures=descent.pictures,
        )
        try:
            with atomic_write(self.path(photo, variant)) as file:
                file.write(buffer.getvalue())
        except OSError as error:
            raise UserError(
                f"{printable(self.folder)}: cannot write the L-BFGS baseline of "
                f"{printable(photo.name)} ({error.strerror}); "
                + remedy_for(error, "see that this folder can be written to"),
                exit_code=1,
            ) from None
        return descent

    def load_or_compute(
        self,
        photo: Photo,
        variant: Variant,
        iterations: int,
        *,
        where: str,
        progress: Callable[[int, str], None],
        say: Callable[[str], None],
    ) -> Descent:
        """The photo's descent, from its file or computed.

        Args:
            photo: the photo.
            variant: ``box`` or ``clip``.
            iterations: at most.
            where: which photo of which size this is, for people.
            progress: called with the work since the last call, in pixels times iterations, and a
                description of the present step; may raise `Stopped`.
            say: prints a line for the user before L-BFGS runs, and about a damaged file.

        Raises:
            Stopped: raised by `progress`.
            UserError: the file cannot be written (exit code 1); or as `load`.
        """
        area = photo.pixels.shape[-1] ** 2
        cached = self.load(photo, variant, iterations, say=say)
        if cached is not None:
            progress(area * iterations, where)
            return cached
        say(f"{where} ({printable(photo.name)}): {iterations} iterations of {variant} L-BFGS")
        num_done = 0

        def on_iterate(iterate: Iterate) -> None:
            nonlocal num_done
            num_new, num_done = iterate.iteration - num_done, iterate.iteration
            progress(area * num_new, f"{where}, {variant} L-BFGS, iteration {num_done}")

        descent = self.compute(photo, variant, iterations, on_iterate)
        progress(area * (iterations - num_done), where)  # L-BFGS may have converged early
        return descent


def _read_descent(data: bytes, size: int) -> tuple[int, Descent]:
    """The iterations that were asked for, and the descent, in a file that `compute` has written.

    Args:
        data: the file's contents.
        size: of the photo, in pixels.

    Raises:
        ValueError: the arrays are not those of a descent; at damage, nearly any other exception.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        asked, *arrays = (
            _read_array(file, name, kind, shape)
            for name, kind, shape in (
                ("asked", "i", ()),
                ("values", "f", (None, 4)),
                ("evaluations", "i", (None,)),
                ("kept", "i", (None,)),
                ("pictures", "u", (None, size, size, 3)),
            )
        )
    descent = Descent(*arrays)
    last = len(descent.values) - 1
    if not (
        len(descent.evaluations) == last + 1
        and len(descent.pictured) == len(descent.pictures) > 0
        and descent.pictured[0] == 0
        and descent.pictured[-1] == last <= asked
        and (np.diff(descent.pictured) > 0).all()
    ):
        raise ValueError("the arrays do not fit together")
    return int(asked), descent


def _read_array(
    file: zipfile.ZipFile, name: str, kind: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """An array of an .npz file, of this kind and shape; None stands for any length.

    Raises:
        ValueError: it has another kind or shape, or claims more than the file holds.
    """
    member = file.getinfo(f"{name}.npy")
    with file.open(member) as header:
        if np.lib.format.read_magic(header) != (1, 0):
            raise ValueError("of another version than numpy gives to such arrays")
        found, _, dtype = np.lib.format.read_array_header_1_0(header)
    fits = len(found) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, found, strict=True)
    )
    # Checked before it is allocated: a few bytes can claim any shape.
    is_held = math.prod(found) * dtype.itemsize < member.file_size
    if dtype.kind != kind or not (fits and is_held):
        raise ValueError("not the array of a descent")
    with file.open(member) as stored:
        array: NDArray[Any] = np.lib.format.read_array(stored, allow_pickle=False)
    return array


def to_uint8(picture: Tensor) -> NDArray[np.uint8]:
    """A picture (1, 3, S, S) in [0, 1] as (S, S, 3) levels of 0..255: clamped, then rounded."""
    levels: NDArray[np.uint8] = (
        (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )
    return levels


def from_uint8(levels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """A picture (S, S, 3) of levels 0..255 as (1, 3, S, S), float in [0, 1]."""
    return torch.from_numpy(levels).permute(2, 0, 1)[None].to(device).float() / 255


def digest_of(data: Mapping[str, Any]) -> str:
    """The SHA-256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
