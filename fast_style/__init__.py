"""Fast feed-forward neural style transfer: one small network per style.

The names that a notebook needs are here, and loaded when they are first used, so that importing
the package loads no torch. `Stylizer` applies a model. `train` trains one, from the settings that
`load_config` reads; `open_run` and `build_trainer` are its parts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast_style.settings.config import load_config
    from fast_style.stylizing.stylizer import Stylizer
    from fast_style.training.build import build_trainer
    from fast_style.training.run_folder import open_run
    from fast_style.training.running import train

__version__ = "0.1.0"

__all__ = ["Stylizer", "__version__", "build_trainer", "load_config", "open_run", "train"]

_MODULES = {
    "Stylizer": "fast_style.stylizing.stylizer",
    "build_trainer": "fast_style.training.build",
    "load_config": "fast_style.settings.config",
    "open_run": "fast_style.training.run_folder",
    "train": "fast_style.training.running",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fast_style.core.signals import waiting_signals

    with waiting_signals():
        module = import_module(_MODULES[name])
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
