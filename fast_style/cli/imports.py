"""Lets signals wait while torch is imported, whichever line of a command imports it."""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from fast_style.core.errors import UserError, shortened
from fast_style.core.free_memory import reason_not_loaded
from fast_style.core.signals import waiting_signals

_SLOW = "torch"  # it takes seconds, and its C++ code ends the process if Python raises in it


def let_signals_wait_for_torch() -> None:
    """From now on, SIGINT, SIGTERM and SIGHUP wait while torch is imported (`waiting_signals`)."""
    is_there = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if _SLOW not in sys.modules and not is_there:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: object = None) -> ModuleSpec | None:
        """Torch as Python finds it, to be loaded by a `_Loader`; None for other modules."""
        if fullname != _SLOW:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, usual: Loader) -> None:
        self._usual = usual

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the usual loader does."""
        return self._usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the usual loader does, by which the module is known from then on."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._usual
        try:
            # After a signal, Python forgets torch as if its import had failed: the command ends.
            with waiting_signals():
                self._usual.exec_module(module)
        except Exception as error:
            if reason_not_loaded(error):  # for lack of memory, which has a message of its own
                raise
            raise _not_imported(error) from error


def _not_imported(error: Exception) -> UserError:
    """The error that torch cannot be imported, with the variables that it may have refused."""
    found = next(iter(str(error).strip().splitlines()), "")
    names = [name for name in os.environ if name.startswith(("TORCH", "PYTORCH"))]
    remedy = f"unset {', '.join(sorted(names))}, or " if names else ""
    return UserError(
        f"torch cannot be imported ({type(error).__name__}: {shortened(found)}); {remedy}install "
        "torch and torchvision again",
        exit_code=1,
    )
