"""latentray's engine: films in, a verified archive of codes out. Its doors open lazily, so that importing it loads nothing heavy."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.archive.code_reader import open_codes
    from engine.archive.reader import open_archive
    from engine.encode.codec import load_codec
    from engine.encode_dataset import encode_dataset

__all__ = ["__version__", "encode_dataset", "load_codec", "open_archive", "open_codes"]
__version__ = "0.1.0"

_DOORS = {
    "open_archive": "engine.archive.reader",
    "open_codes": "engine.archive.code_reader",
    "load_codec": "engine.encode.codec",
    "encode_dataset": "engine.encode_dataset",
}


def __getattr__(name: str) -> Any:
    """Opens a door on first use; raises AttributeError for a name that is none."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOORS})


class _Package(ModuleType):
    """Keeps a door a function: importing the submodule of the same name, `engine.encode_dataset`, would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _DOORS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
