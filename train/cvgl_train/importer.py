"""Authors' checkpoints become this project's: `cvgl-train import CHECKPOINT --as METHOD`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from cvgl.errors import ModelError

from .models.base import CrossViewModel
from .registry import METHODS, create_model
from .weights import fill_exactly, naming, read_state

__all__ = ["IMPORTS", "import_checkpoint", "import_state"]

IMPORTS: dict[str, str] = {
    "fsra": "fsra",
    "vit-baseline": "vit-baseline",
    "lpn": "lpn",
    "frgeo": "frgeo",
    "saig-s": "saig-s",
    "saig-d": "saig-d",
    "dinov2": "dinov2-cvv",
}
"""What `--as` takes, and the method it becomes. "dinov2" brings the frozen backbone; its heads are untrained."""


def import_state(state: dict[str, Tensor], kind: str, **settings: Any) -> CrossViewModel:
    """A model from an authors' `state_dict`, in evaluation mode.

    The method's module has `from_authors(state, name)`, which reads the settings that the tensors' shapes decide
    (number of regions, classes ...) and renames the tensors; the rest is strict.

    Args:
        state: with the authors' names.
        kind: one of `IMPORTS`.
        settings: of the model, where the tensors do not decide.

    Raises:
        ModelError: an unknown kind, or tensors that are missing, left over or of another shape, by name: this
            project's, and the file's behind it in brackets.
    """
    name = IMPORTS.get(kind)
    if name is None:
        raise ModelError("no importer", field="as", found=kind, expected=" or ".join(IMPORTS))
    module = import_module(f"cvgl_train.models.{METHODS[name].module}")
    convert: Callable[[dict[str, Tensor], str], tuple[dict[str, Any], dict[str, Tensor]]] = module.from_authors
    found, renamed = convert(state, name)
    model = create_model(name, **{**found, **settings})
    if kind == "dinov2":
        model.load_backbone(renamed)
    else:
        fill_exactly(model, renamed, f"the authors' {kind}", _called(model, state, renamed))
    return model.eval()


def _called(model: CrossViewModel, state: dict[str, Tensor], renamed: dict[str, Tensor]) -> dict[str, str]:
    """The authors' name of each tensor; of one that is missing, where another of its layer is there to tell."""
    names = {id(value): key for key, value in state.items()}
    called = {key: names[id(value)] for key, value in renamed.items() if id(value) in names}
    layers = {key.rpartition(".")[0]: there.rpartition(".")[0] for key, there in called.items()}
    for key in model.state_dict().keys() - called.keys():
        layer, _, leaf = key.rpartition(".")
        if layer in layers:
            called[key] = f"{layers[layer]}.{leaf}".lstrip(".")
    return called


def import_checkpoint(path: str | Path, kind: str, **settings: Any) -> CrossViewModel:
    """A model from an authors' checkpoint file. Raises ModelError as `read_state` and `import_state`."""
    state = read_state(path)
    with naming(path):
        return import_state(state, kind, **settings)
