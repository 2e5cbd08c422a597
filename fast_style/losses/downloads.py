"""torchvision, and the weights files that it publishes, kept in torch's cache folder."""

import sys
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

import torch

from fast_style.core.errors import UserError, printable
from fast_style.core.files import make_with_parents, sha256_of
from fast_style.core.free_memory import reason_not_loaded


def cached_file(enumeration: str, member: str, *, purpose: str, otherwise: str) -> Path:
    """The path of torchvision's weights file, downloaded unless it lies in torch's cache.

    Args:
        enumeration: torchvision's name for the weights of a network, as ``VGG16_Weights``.
        member: one of these weights, as ``IMAGENET1K_V1``.
        purpose: what the file is for, to begin an error with: ``the loss network's weights``.
        otherwise: what to do without this file, to end an error with.

    Raises:
        UserError: torchvision cannot be imported, the download fails, or the file is damaged.
    """
    entry = getattr(getattr(torchvision_models(), enumeration), member)
    name = entry.url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    prefix = name.removesuffix(".pth").rpartition("-")[2]
    if not path.exists():
        megabytes = entry.meta["_file_size"]
        try:
            make_with_parents(path.parent)
            torch.hub.download_url_to_file(
                entry.url,
                str(path),
                hash_prefix=prefix,
                progress=sys.stderr is not None,  # a program without a console has none
            )
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the digest differs
            words = str(getattr(error, "reason", None) or error).split()  # may have several lines
            reason = " ".join(words) or type(error).__name__
            raise UserError(
                f"{purpose} are not in torch's cache and cannot be downloaded ({reason}): fetch "
                f"{entry.url} ({megabytes:.0f} MB) and put it into {path.parent}, or {otherwise}"
            ) from None
    elif not sha256_of(path).startswith(prefix):
        raise UserError(
            f"{printable(path)}: is damaged (its sha256 does not begin with {prefix}); delete "
            "it, and it will "
            "be downloaded again"
        )
    return path


def torchvision_models() -> ModuleType:
    """The module ``torchvision.models``; nothing else here imports torchvision.

    Raises:
        UserError: torchvision cannot be imported.
    """
    try:
        import torchvision.models
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        if reason_not_loaded(error):
            raise
        # A torchvision that was built for another torch has raised each of these.
        raise UserError(
            f"torchvision cannot be imported ({error}); it must come with the torch beside it: "
            "install both in one command, pip install torch torchvision"
        ) from None
    return torchvision.models
