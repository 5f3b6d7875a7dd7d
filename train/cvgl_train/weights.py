"""Weight files as the world publishes them: PyTorch's own, safetensors, with and without wrappers around them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvgl.errors import MissingDependencyError, ModelError

from .models.base import CrossViewModel

__all__ = ["fill_exactly", "load_backbone", "load_pretrained", "naming", "read_state", "unreadable"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_PREFIXES = ("module.", "_orig_mod.")
# As timm looks for them in a repository of the hub, the first one first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


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
            with torch.serialization.safe_globals(_harmless()):
                data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("no such file", file=path) from None
    except Exception as reason:
        # torch raises pickle's, zipfile's and its own errors, depending on where the damage is.
        raise ModelError(f"not readable as weights: {unreadable(reason)}", file=path) from reason
    if isinstance(data, dict) and str(data.get("format", "")).startswith("cvgl-"):
        # A run's or a model's own checkpoint; `state` is not among the wrappers.
        found = data["format"]
        raise ModelError(
            "this project's own checkpoint", file=path, field="format", found=found, expected="a file of weights alone"
        )
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
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in state)), None):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def unreadable(reason: Exception) -> str:
    """What PyTorch found wrong with a file, without its advice to read the file in a way that runs its code."""
    text = str(reason).partition("WeightsUnpickler error:")[2] or str(reason)
    return text.strip().partition("\n")[0].partition(" Please ")[0]


def _harmless() -> list[Any]:
    """What training scripts save beside the weights: their scores as NumPy numbers or arrays, their command line."""
    makers = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
    # NumPy 1 and 2 say differently where these are.
    aliases = [(maker, f"numpy.core.multiarray.{maker.__name__}") for maker in makers]
    kinds = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [*makers, *aliases, np.ndarray, np.dtype, *kinds, Namespace]


def fill_exactly(
    module: nn.Module, state: dict[str, Tensor], what: str, called: Mapping[str, str] | None = None
) -> None:
    """`load_state_dict(strict=True)` with an error that people can act on.

    A BatchNorm's count of batches may be missing: files from before PyTorch 0.4.1 have none, and nothing reads it at
    a fixed momentum.

    Args:
        module: to fill.
        state: tensors by the module's names.
        what: they are for, for the message.
        called: their names in the file, where those are others.

    Raises:
        ModelError: names that are missing, left over, or of another shape, all of them.
    """
    own = module.state_dict()
    uncounted = {name: own[name] for name in own.keys() - state.keys() if name.endswith(".num_batches_tracked")}
    state = {**state, **uncounted}

    def told(name: str, shape: str = "") -> str:
        there = (called or {}).get(name, name)
        return f"{name}{shape}" if there == name else f"{name}{shape} [{there}]"

    left = [told(name) for name in state.keys() - own.keys()]
    shapes = [
        told(name, f" {tuple(state[name].shape)} for {tuple(own[name].shape)}")
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    missing = [told(name) for name in own.keys() - state.keys()]
    problems = [
        f"{len(names)} {kind}: {', '.join(sorted(names))}"
        for kind, names in (("missing", missing), ("not of this network", left), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ModelError(f"weights do not fit {what}", field="state_dict", found="; ".join(problems))
    module.load_state_dict(state, strict=True)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors about a model that come from what a file says name the file."""
    try:
        yield
    except ModelError as reason:
        raise ModelError(
            reason.message, file=path, field=reason.field, found=reason.found, expected=reason.expected
        ) from reason


def load_backbone(model: CrossViewModel, path: str | Path) -> list[str]:
    """Put a weights file into a model's backbone; returns the names that were not used.

    Raises:
        ModelError: as `read_state` and `CrossViewModel.load_backbone`, naming the file.
    """
    state = read_state(path)
    with naming(path):
        return model.load_backbone(state)


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
        _ask_once(model.timm_name)
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


def _ask_once(model_name: str) -> None:
    """Raise the hub client's own error where a model's weights are neither in its cache nor to be had.

    timm asks for one file after the other, and the client tries each of them six times: without a network the same
    error comes up to a minute later.
    """
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    about = timm.get_pretrained_cfg(model_name)
    repository = about.hf_hub_id if about is not None else None
    if repository is None or any(isinstance(try_to_load_from_cache(repository, file), str) for file in _HUB_FILES):
        return
    # A repository without that file has answered as well, and may have the other one.
    with suppress(EntryNotFoundError):
        get_hf_file_metadata(hf_hub_url(repository, _HUB_FILES[0]))
