"""Training: the published methods and the project's own, their losses, samplers, datasets and metrics.

The names here are imported when they are used, so that ``cvgl-train --help`` need not load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import load_model, save_model
    from .data.readers import read_dataset
    from .importer import import_checkpoint
    from .registry import create_model, list_models

__all__ = ["create_model", "import_checkpoint", "list_models", "load_model", "read_dataset", "save_model"]

_HOMES = {
    "create_model": "registry",
    "import_checkpoint": "importer",
    "list_models": "registry",
    "load_model": "checkpoint",
    "read_dataset": "data.readers",
    "save_model": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
