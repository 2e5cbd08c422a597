"""A trained model applied to pictures and tensors; each result has the size of its photo.

As a library::

    stylizer = Stylizer("runs/starry_night/model.safetensors")
    stylizer("photo.jpg").save("painting.png")

If this image is saved as JPEG or GIF, the file carries the mark by which folders of photos leave
out results. Other formats do not carry it: give those files a folder of their own, or write them
with the commands.

A photo that does not fit in memory as a whole goes through the network in bands, with the same
result up to rounding. `memory` decides between the two, and refuses what is too large. `folder`
reads and writes files.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fast_style.core.devices import is_out_of_memory, resolve_device, without_autocast
from fast_style.core.errors import UserError, printable, shown
from fast_style.core.files import size_in_words
from fast_style.core.free_memory import limit_remedy, return_freed_memory
from fast_style.core.paths import path_named
from fast_style.models.checkpoint import load_transform_net
from fast_style.models.model_files import grain_of, require_grain
from fast_style.networks.compiling import CompileRequest, compile_whole
from fast_style.networks.fast_transform import FastTransform
from fast_style.networks.grain import grain_pattern
from fast_style.networks.streaming import Band, storage_bytes, stylize_in_bands
from fast_style.networks.transform_net import memory_format_for
from fast_style.pictures.pixels import image_to_tensor, tensor_to_image
from fast_style.pictures.reading import MARK, Picture, read_picture, to_picture
from fast_style.stylizing.copies import DEFAULT_STROKES, copy_sides, require_strokes
from fast_style.stylizing.memory import (
    Bands,
    Budget,
    NetSetup,
    PhotoSize,
    TooLarge,
    Whole,
    leaves_room_for_others,
    measure_budget,
    plan_batch,
    plan_photo,
    sizes_to_paint,
)
from fast_style.stylizing.strokes import BATCHES, IMAGES, coarse_to_fine

# An ordinary size: torch.compile would specialize on accidental properties such as divisibility.
# For smaller pictures, torch chooses other convolutions.
_SIZE_TO_COMPILE = 93, 122
# Largest relative difference between the compiled and the eager picture that TF32 on a GPU
# explains. A uniformly gray picture differs by about a third.
_MOST_BY_ROUNDING = 0.02
# Values that count as pixels of [0, 1]. Enlarging exceeds it: by 0.25 at corners, and for noise of
# black and white pixels by 0.38 (torch's bicubic) and 0.57 (Pillow's Lanczos). Black of [-1, 1],
# pixels of 0..255 and those normalized by ImageNet's mean lie farther outside.
_LEAST_VALUE, _MOST_VALUE = -0.75, 1.75
_COMPILING = CompileRequest("--compile", "leave out --compile")


class Stylizer:
    """A model on a device.

    Args:
        model: a ``model.safetensors`` or a checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a
            torch.device.
        memory_bytes: the most that a photo, its result and everything in between may take: in main
            memory, and as much again on a GPU. None: nine tenths of what is free.
        compile: use torch.compile, once for photos of all sizes. That takes a minute or two here,
            or seconds if torch has cached the result. Photos in bands run uncompiled.
        grain: levels of 255, at most 32: the standard deviation of the `grain_pattern`
            that is added to photos. None: what the model asks for, which is none for most.
        strokes: a photo whose longer side has at least 1.5 times as many pixels gets strokes as
            large as those of a photo with this longer side (`strokes`). At least 64; or 0, as for
            the frames of a video: every photo goes through the network once. None: 1,536.

    Attributes:
        device: where the network runs.
        description: the model file's metadata, such as its name, architecture and settings.

    Raises:
        TypeError: `model` is no path, `memory_bytes` or `strokes` no whole number, or `grain` no
            number.
        ValueError: `memory_bytes` is below 1, or `grain` or `strokes` outside its range.
        UserError: the file or the device cannot be used, or torch cannot compile here.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        device: str | torch.device = "auto",
        memory_bytes: int | None = None,
        compile: bool = False,
        grain: float | None = None,
        strokes: int | None = None,
    ) -> None:
        if not isinstance(model, str | os.PathLike):
            raise TypeError(f"model must be the path of a model, got {type(model).__name__}")
        _require_bytes(memory_bytes)
        levels = None if grain is None else require_grain(grain)
        self._strokes = DEFAULT_STROKES if strokes is None else require_strokes(strokes)
        self.device = resolve_device(device, argument="device=")
        net, self.description = load_transform_net(path_named(model))
        self._grain = (grain_of(self.description) if levels is None else levels) / 255
        self._memory_format = memory_format_for(self.device)
        net = net.to(self.device).to(memory_format=self._memory_format)
        self._net = FastTransform(net)
        self._memory_bytes = memory_bytes
        self._net_setup = NetSetup(net.to_rgb.conv.in_channels, self.device, is_compiled=compile)
        if compile:
            self._compile()

    @overload
    def __call__(
        self, photo: Image.Image | os.PathLike[str] | str, *, upright: bool = False
    ) -> Image.Image: ...
    @overload
    def __call__(self, photo: Tensor, *, upright: bool = False) -> Tensor: ...
    @overload
    def __call__(self, photo: NDArray[np.uint8], *, upright: bool = False) -> NDArray[np.uint8]: ...
    def __call__(
        self,
        photo: Image.Image | os.PathLike[str] | str | NDArray[np.uint8] | Tensor,
        *,
        upright: bool = False,
    ) -> Image.Image | NDArray[np.uint8] | Tensor:
        """The stylized photo: same type and size. A path gives a Pillow image.

        Args:
            photo: one of

                - the path of a picture file, which is turned upright;
                - a Pillow image of any mode (one with transparency gives RGBA, others RGB);
                - a uint8 array (H, W, 3);
                - a float tensor (3, H, W) or (N, 3, H, W) in [0, 1]. Values from -0.75 to 1.75,
                  as resizing makes them, are accepted. The result is float32, on the tensor's
                  device; no photos (N = 0) give none.
            upright: also turn a Pillow image as its EXIF orientation says. By default it is taken
                as it is, since it may have been turned already.

        Raises:
            UserError: the file cannot be read, or the photo does not fit in memory; the message
                says which size does.
            ValueError: an array or a tensor has another shape, dtype or range, or no pixels; or
                the tensor is sparse, nested or without values.
            TypeError: the photo is none of these, or `upright` neither True nor False.
        """
        if not isinstance(upright, bool):
            raise TypeError(f"upright must be True or False, got {shown(upright)}")
        match photo:
            case Tensor():
                return self._stylize_tensor(photo)
            case np.ndarray():
                return self._stylize_array(photo)
            case Image.Image():
                return _to_image(self.stylize_picture(_decoded(photo, upright=upright)))
            case str() | os.PathLike():
                return _to_image(self.stylize_picture(read_picture(path_named(photo))))
        raise TypeError(
            "a photo must be a path, a Pillow image, a uint8 array (H, W, 3) or a float tensor "
            f"(3, H, W) or (N, 3, H, W), got {type(photo).__name__}"
        )

    def stylize_picture(
        self, picture: Picture, *, progress: Callable[[float], None] | None = None
    ) -> Picture:
        """The picture with stylized colors; its alpha channel is not changed.

        Args:
            picture: of any size.
            progress: called with the finished share, from 0 to 1, after each band; never for a
                photo and copies that fit as a whole.

        Raises:
            UserError: it does not fit in memory, or the disk is full.
        """
        _require_size(picture.size)
        height, width = picture.size
        sides = copy_sides(max(height, width), self._strokes)
        sizes = sizes_to_paint(PhotoSize(height, width, picture.alpha is not None), sides)
        if sides:  # before minutes are spent on copies of a photo that is too large
            self._require_fit(lambda budget: self._plan_with_copies(sizes[-1], budget))
        num_pixels = [size.height * size.width for size in sizes]

        def paint(image: Image.Image, index: int) -> Image.Image:
            def share_of_all(share: float) -> None:
                assert progress is not None
                done = sum(num_pixels[:index]) + share * num_pixels[index]
                progress(done / sum(num_pixels))

            # By now, the other pictures lie in what is no longer free.
            size = sizes[index] if self._memory_bytes else sizes[index]._replace(beside=0)
            strokes = self._strokes if index == len(sides) else 0
            plan = self._require_fit(
                lambda budget: plan_photo(size, self._net_setup, budget, strokes=strokes)
            )
            grain = self._grain if index == 0 else 0
            if isinstance(plan, Whole):
                return self._paint_whole(image, grain)
            return self._paint_in_bands(
                image, grain, plan, None if progress is None else share_of_all
            )

        remedy = f"a lower --memory or --max-side {_smaller_side(height, width)}"
        with _reporting_out_of_memory(height, width, remedy):
            return Picture(coarse_to_fine(picture.rgb, sides, IMAGES, paint), picture.alpha)

    def _plan_with_copies(self, photo: PhotoSize, budget: Budget) -> Whole | Bands | TooLarge:
        """The plan for a photo beside its copies; of one too large for that, it says what fits."""
        found = plan_photo(photo, self._net_setup, budget, strokes=self._strokes)
        if not isinstance(found, TooLarge):
            return found
        if isinstance(plan_photo(photo._replace(beside=0), self._net_setup, budget), TooLarge):
            return found
        return found._replace(message=f"{found.message}; --strokes 0 needs less, and fits")

    def is_small(self, height: int, width: int, *, max_side: int | None = None) -> bool:
        """Whether photos of this size may wait in memory while the network works on one of them.

        Args:
            height: of the photo in its file.
            width: of the photo in its file.
            max_side: the longer side to which it is shrunk before the network.
        """
        return leaves_room_for_others(
            height, width, max_side=max_side, net_setup=self._net_setup, budget=self._budget()
        )

    def _require_fit(self, plan: Callable[[Budget], Whole | Bands | TooLarge]) -> Whole | Bands:
        """The plan for the memory that is free now, or free once freed memory is given back.

        Raises:
            UserError: the photos are too large for either.
        """
        found = plan(self._budget())
        if not isinstance(found, Whole):
            return_freed_memory()  # until then it counts as used
            found = plan(self._budget())
        if isinstance(found, TooLarge):
            raise UserError(found.message, exit_code=1)
        return found

    def _budget(self) -> Budget:
        return measure_budget(self.device, limit_bytes=self._memory_bytes)

    def _paint_whole(self, photo: Image.Image, grain: float) -> Image.Image:
        pixels = image_to_tensor(photo).to(self.device).float().div_(255)
        return tensor_to_image(self._forward(self._with_grain(pixels[None], grain))[0])

    @without_autocast()
    def _paint_in_bands(
        self,
        photo: Image.Image,
        grain: float,
        bands: Bands,
        progress: Callable[[float], None] | None,
    ) -> Image.Image:
        result = Image.new("RGB", photo.size)

        def paint(band: Band) -> None:
            result.paste(tensor_to_image(band.pixels), (band.left, band.top))

        shares = stylize_in_bands(
            self._net.net,
            photo,
            paint,
            band_rows=bands.rows,
            storage=bands.storage,
            grain=grain,
        )
        features = storage_bytes(photo.height, photo.width, net_width=self._net_setup.net_width)
        with _reporting_full_disk(bands.storage, features), closing(shares):
            for share in shares:
                if progress is not None:
                    progress(share)
        return result

    def _stylize_array(self, photo: NDArray[Any]) -> NDArray[np.uint8]:
        if isinstance(photo, np.ma.MaskedArray):
            raise ValueError("an array must have no mask; give its values with .filled(...)")
        is_usable = photo.ndim == 3 and photo.shape[2] == 3
        if not is_usable or photo.dtype != np.uint8:
            raise ValueError(
                f"an array must be uint8 of shape (H, W, 3), got {photo.dtype} {photo.shape}; "
                "floats in [0, 1] are taken as a torch tensor (3, H, W), other modes as a Pillow "
                "image"
            )
        _require_size(photo.shape[:2])
        image = Image.fromarray(np.ascontiguousarray(photo))
        return np.array(self.stylize_picture(Picture(image, None)).rgb)

    def _stylize_tensor(self, photos: Tensor) -> Tensor:
        _require_dense(photos)
        is_usable = photos.ndim in (3, 4) and photos.shape[-3] == 3
        if not is_usable or not photos.is_floating_point():
            raise ValueError(
                "photos must be floats of shape (3, H, W) or (N, 3, H, W) in [0, 1], got "
                f"{photos.dtype} {tuple(photos.shape)}; divide pixels of 0..255 by 255"
            )
        if photos.ndim == 4 and len(photos) == 0:
            return torch.empty_like(photos, dtype=torch.float32)
        _require_size(photos.shape[-2:])
        _require_pixels(photos)
        batch = photos if photos.ndim == 4 else photos[None]
        num_photos, _, height, width = batch.shape
        self._require_fit(
            lambda budget: plan_batch(num_photos, height, width, self._net_setup, budget)
        )
        remedy = f"a longer side of {_smaller_side(height, width)} pixels"
        with _reporting_out_of_memory(height, width, remedy):
            result = self._paint_batch(batch.to(self.device).float()).to(photos.device)
        return result if photos.ndim == 4 else result[0]

    @without_autocast()
    @torch.no_grad()
    def _paint_batch(self, batch: Tensor) -> Tensor:
        """(N, 3, H, W), float32, on `device`, to the same."""
        sides = copy_sides(max(batch.shape[-2:]), self._strokes)

        def paint(photos: Tensor, index: int) -> Tensor:
            return self._forward(self._with_grain(photos, self._grain if index == 0 else 0))

        return coarse_to_fine(batch, sides, BATCHES, paint)

    def _with_grain(self, photos: Tensor, grain: float) -> Tensor:
        """The photos (N, 3, H, W), on `device`, with as much grain."""
        if not grain:
            return photos
        return photos + grain_pattern(0, 0, *photos.shape[-2:]).mul_(grain).to(self.device)

    @without_autocast()
    @torch.no_grad()  # not inference_mode: callers may train on the result, or change it in place
    def _forward(self, batch: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same shape and range, float32, on `device`."""
        ready = batch.to(self.device, torch.float32, memory_format=self._memory_format)
        result: Tensor = self._net(ready)
        return result.clamp_(0, 1).contiguous()

    def _compile(self) -> None:
        """Compile the network for photos of any size, and check its picture against the eager one.

        Raises:
            UserError: torch cannot compile here, or the picture is wrong.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand((1, 3, *_SIZE_TO_COMPILE), generator=generator, dtype=torch.float32)
        plain = self._forward(noise)
        with _COMPILING.mistakes():
            self._net.uncropped = compile_whole(  # type: ignore[method-assign]
                self._net.uncropped, any_size=True
            )
            compiled = self._forward(noise)
            _COMPILING.require_same(compiled, plain, "picture", most=_MOST_BY_ROUNDING)


def _to_image(picture: Picture) -> Image.Image:
    """The picture as one image, RGBA if it has an alpha channel, else RGB; marked when saved."""
    image = picture.rgb
    if picture.alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(picture.alpha)
    image.info["comment"] = MARK.encode()  # which Pillow writes into JPEG and GIF
    return image


def _require_dense(photos: Tensor) -> None:
    """Check that a tensor has its values, in an array of one shape."""
    if photos.is_meta:
        raise ValueError(
            "photos must be a tensor with values, got one on the device meta, which has none"
        )
    if photos.is_nested:
        raise ValueError(
            "photos must be a dense tensor, got a nested one; stylize its photos one by one "
            "(tensor.unbind())"
        )
    if photos.layout != torch.strided:
        raise ValueError(
            f"photos must be a dense tensor, got layout {photos.layout}; use tensor.to_dense()"
        )


def _require_bytes(memory_bytes: object) -> None:
    """Raise TypeError or ValueError unless it is None or a whole number above 0."""
    if memory_bytes is None:
        return
    if isinstance(memory_bytes, bool) or not isinstance(memory_bytes, int | np.integer):
        raise TypeError(f"memory_bytes must be a whole number, got {shown(memory_bytes)}")
    if memory_bytes < 1:
        raise ValueError(f"memory_bytes must be above 0, got {memory_bytes}")


def _decoded(photo: Image.Image, *, upright: bool) -> Picture:
    """The picture of a Pillow image, which may be read from its file only now.

    Raises:
        UserError: its file cannot be read, or its metadata do not fit its mode.
    """
    try:
        return to_picture(photo, upright=upright)
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        place = printable(getattr(photo, "filename", "") or "the image")
        raise UserError(f"{place}: cannot be read ({error})") from None


def _require_size(size: Sequence[int]) -> None:
    """Check that a picture of size (height, width) has pixels."""
    if min(size) == 0:
        height, width = size
        raise ValueError(
            f"a picture without pixels cannot be stylized, got height {height} and width {width}"
        )


def _require_pixels(photos: Tensor) -> None:
    """Check that no value is far outside [0, 1], or not a number."""
    least, most = (float(value) for value in photos.detach().float().aminmax())
    # A comparison with NaN is false.
    if not (least >= _LEAST_VALUE and most <= _MOST_VALUE):
        raise ValueError(
            f"photos must be floats in [0, 1], got values from {least:g} to {most:g}; divide "
            "pixels of 0..255 by 255, and undo a normalization"
        )


def _smaller_side(height: int, width: int) -> int:
    """The longer side of a photo with about half the pixels."""
    return max(1, int(0.7 * max(height, width)))


@contextmanager
def _reporting_out_of_memory(height: int, width: int, remedy: str) -> Iterator[None]:
    """Turn a failed allocation into a UserError; estimates can be wrong, and others take memory."""
    try:
        yield
    except (RuntimeError, MemoryError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{width} x {height} pixels: memory ran out; try {remedy}{limit_remedy()}", exit_code=1
        ) from None


@contextmanager
def _reporting_full_disk(storage: torch.device | Path, features_bytes: int) -> Iterator[None]:
    """Turn a failed write of the features into a UserError, if `storage` is a folder."""
    try:
        yield
    except OSError as error:
        if not isinstance(storage, Path):
            raise
        raise UserError(
            f"{printable(storage)}: cannot store the photo's features, "
            f"{size_in_words(features_bytes)} ({error.strerror or error}); set the environment "
            "variable TMPDIR to a folder on another disk",
            exit_code=1,
        ) from error
