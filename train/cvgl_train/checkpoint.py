"""A trained model as one file: its name, settings, weights, and how it was made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvgl.errors import ModelError
from cvgl.files import atomic_path

from .models.base import CrossViewModel
from .registry import build_model
from .weights import fill_exactly, naming, unreadable

__all__ = ["load_model", "read_checkpoint", "save_model"]

FORMAT = "cvgl-checkpoint"
FORMAT_VERSION = 1
_FIELDS = {"model": str, "settings": dict, "state": dict, "record": dict}


def save_model(model: CrossViewModel, path: str | Path, record: dict[str, Any]) -> None:
    """Write a model, atomically.

    Args:
        model: on any device.
        path: by convention ``.pt``.
        record: how it was made; JSON values.
    """
    data = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": model.info.name,
        "settings": asdict(model.settings),
        "state": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "record": record,
    }
    with atomic_path(path) as temporary:
        torch.save(data, temporary)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The fields of a checkpoint: model, settings, state, record.

    Raises:
        ModelError: no such file, not a checkpoint of this project, or one of a later version.
    """
    path = Path(path)
    try:
        # No code is run: a checkpoint comes from wherever the user got it.
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("no such file", file=path) from None
    except Exception as reason:
        # torch raises pickle's, zipfile's and its own errors, depending on where the damage is.
        raise ModelError(f"not readable as a checkpoint: {unreadable(reason)}", file=path) from reason
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelError(
            "not a checkpoint of this project",
            file=path,
            field="format",
            found=data.get("format") if isinstance(data, dict) else type(data).__name__,
            expected=f"{FORMAT} (authors' checkpoints: cvgl-train import)",
        )
    if data.get("version") != FORMAT_VERSION:
        found = data.get("version")
        raise ModelError("of another version", file=path, field="version", found=found, expected=str(FORMAT_VERSION))
    for field, kind in _FIELDS.items():
        if not isinstance(data.get(field), kind):
            found = type(data[field]).__name__ if field in data else None
            raise ModelError("not a checkpoint's", file=path, field=field, found=found, expected=f"a {kind.__name__}")
    for name, value in data["state"].items():
        if not isinstance(value, Tensor):
            raise ModelError("not a tensor", file=path, field=f"state: {name}", found=type(value).__name__)
    return data


def load_model(path: str | Path) -> CrossViewModel:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Raises:
        ModelError: as `read_checkpoint`, a method or setting that there is not, or weights that do not fit it.
    """
    data = read_checkpoint(path)
    with naming(path):
        model = build_model(data["model"], data["settings"])
        fill_exactly(model, data["state"], model.info.name)
    return model.eval()
