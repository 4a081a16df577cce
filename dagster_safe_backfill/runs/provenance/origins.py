"""Which code is the user's own, and which belongs to a library."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "dagster_safe_backfill"
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class OwnCode:
    """The user's own code: one package, `__main__`, and modules that aren't installed.

    Attributes:
        package: The top-level package of the user's function.
    """

    package: str

    @classmethod
    def of(cls, function: Callable[..., object]) -> OwnCode:
        """Return the own code of the user who wrote a function."""
        core: Any = function
        while True:
            if isinstance(core, functools.partial):
                core = core.func
            elif isinstance(core, types.MethodType):
                core = core.__func__
            elif hasattr(core, "__wrapped__"):
                core = core.__wrapped__
            else:
                break
        return cls((getattr(core, "__module__", None) or "__main__").partition(".")[0])

    def has(self, kind: type) -> bool:
        """Return True if a class is the user's own."""
        return self.has_module(kind.__module__)

    def has_function(self, function: types.FunctionType) -> bool:
        """Return True if a function is the user's own. `functools.wraps` changes its `__module__`, not its globals."""
        return self.has_module(function.__globals__.get("__name__"))

    def has_module(self, name: str | None) -> bool:
        """Return True if a module is the user's own, or if it can't be known whose it is."""
        top = (name or "__main__").partition(".")[0]
        return top in ("__main__", self.package) or not _is_library(top)


@functools.lru_cache(maxsize=4096)
def _is_library(top: str) -> bool:
    if top == _LIBRARY or top in sys.stdlib_module_names:
        return True
    module: Any = sys.modules.get(top)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if file is None:
        return False
    path = Path(file)
    # Where pip installs into another folder, it records what it has installed beside it.
    home = path.parent.parent if path.name.startswith("__init__.") else path.parent
    return any(name in path.parts for name in _INSTALLED) or any(home.glob("*.dist-info"))
