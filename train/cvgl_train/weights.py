"""Weight files as the world publishes them: PyTorch's own, safetensors, with and without wrappers around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvgl.errors import MissingDependencyError, ModelError

from .models.base import CrossViewModel

__all__ = ["fill_exactly", "load_backbone", "load_pretrained", "read_state"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_PREFIXES = ("module.", "_orig_mod.")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name.

    Known wrappers (``state_dict``, ``model`` ...) and the prefixes of data-parallel and compiled training are
    taken off.

    Raises:
        ModelError: no such file, not readable without running its code, or no tensors in it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            data: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_numpy_scalars()):
                data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("no such file", file=path) from None
    except Exception as reason:
        # torch raises pickle's, zipfile's and its own errors, depending on where the damage is.
        raise ModelError(f"not readable as weights: {reason}", file=path) from reason
    for _ in _WRAPPERS:
        inner = next(
            (data[key] for key in _WRAPPERS if isinstance(data, dict) and isinstance(data.get(key), dict)), None
        )
        if inner is None:
            break
        data = inner
    state = {str(k): v for k, v in data.items() if isinstance(v, Tensor)} if isinstance(data, dict) else {}
    if not state:
        raise ModelError("no tensors in it", file=path, found=type(data).__name__, expected="a state_dict")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def _numpy_scalars() -> list[Any]:
    """What a pickled NumPy number is made of: training scripts save their best score beside the weights."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def fill_exactly(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """`load_state_dict(strict=True)` with an error that people can act on.

    Raises:
        ModelError: names that are missing, left over, or of another shape; the first few of each are listed.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    left = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for kind, names in (("missing", missing), ("not of this network", left), ("of another shape", sorted(shapes)))
        if names
    ]
    if problems:
        raise ModelError(f"weights do not fit {what}", field="state_dict", found="; ".join(problems))
    module.load_state_dict(state, strict=True)


def load_backbone(model: CrossViewModel, path: str | Path) -> list[str]:
    """Put a weights file into a model's backbone; returns the names that were not used.

    Raises:
        ModelError: as `read_state` and `CrossViewModel.load_backbone`, naming the file.
    """
    state = read_state(path)
    try:
        return model.load_backbone(state)
    except ModelError as reason:
        raise ModelError(reason.message, file=path, field=reason.field, found=reason.found) from reason


def load_pretrained(model: CrossViewModel) -> list[str]:
    """Put timm's official pretrained weights into a model's backbone; needs a network the first time.

    Raises:
        MissingDependencyError: they cannot be downloaded here.
        ModelError: the method has none.
    """
    import timm

    if model.timm_name is None:
        raise ModelError("no official pretrained weights for this method", field="pretrained", found=model.info.name)
    try:
        state = timm.create_model(model.timm_name, pretrained=True).state_dict()
    except Exception as reason:
        # The hub's client raises errors of several libraries; all of them mean that the file did not come.
        raise MissingDependencyError(
            f"pretrained weights cannot be downloaded: {reason}",
            field="pretrained",
            found=model.timm_name,
            expected="a network, or weights=FILE",
        ) from reason
    return model.load_backbone(state)
