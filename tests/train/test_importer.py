"""Authors' checkpoints taken over: every tensor finds its place, and whatever does not is named with its file.

The authors' numbers are proven method by method, in those methods' tests.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train import create_model, import_checkpoint
from cvgl_train.importer import IMPORTS, import_state
from cvgl_train.registry import METHODS

FSRA: dict[str, Any] = {"classes": 5, "image_size": 32, "width": 24, "depth": 1, "heads": 3, "bottleneck": 8}
SAIG: dict[str, Any] = {
    "width": 24, "heads": 3, "stem": (4, 8, 8, 8, 8, 16), "query_size": (32, 64), "reference_size": (48, 48),
}  # fmt: skip
FRGEO: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224", "query_layout": "map", "reference_layout": "map", "query_size": (32, 32),
    "reference_size": (32, 32),
}  # fmt: skip
VIEWS = (("query.", "model_grd."), ("reference.", "model_sat."))
PARTS = (
    ("backbone.", "model_1.transformer."), ("classifier.blocks.0.", "model_1.classifier_heat1."),
    ("classifier.blocks.1.", "model_1.classifier_heat2."), ("classifier.blocks.2.", "model_1.classifier1."),
    (".reduce.", ".add_block.0."), (".norm.w", ".add_block.1.w"), (".norm.b", ".add_block.1.b"),
    (".norm.r", ".add_block.1.r"), (".norm.n", ".add_block.1.n"), ("1.classifier.", "1.classifier.0."),
    ("2.classifier.", "2.classifier.0."),
)  # fmt: skip
# What is built, what the file does not say of it, and this project's names with the authors'.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[tuple[str, str], ...]]] = {
    "fsra": (FSRA | {"regions": 2}, {"heads": 3}, PARTS),
    "saig-s": (SAIG, SAIG, VIEWS),
    "frgeo": (FRGEO, FRGEO, (("query.", "query_net."), ("reference.", "reference_net."))),
}


def theirs(kind: str) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """A network, its tensors by the authors' names, and the settings that an importer has to be told."""
    torch.manual_seed(0)
    built, told, names = CASES[kind]
    model = create_model(kind, **built)
    state = {}
    for name, value in model.state_dict().items():
        called = name
        for own, other in names:
            # The transformer's own final norm is no part's.
            if not (own.startswith(".norm") and name.startswith("backbone")):
                called = called.replace(own, other)
        state[called] = value
    return model, state, told


@pytest.mark.parametrize("kind", IMPORTS)
def test_what_can_be_imported_has_a_converter(kind: str) -> None:
    module = import_module(f"cvgl_train.models.{METHODS[IMPORTS[kind]].module}")
    assert callable(module.from_authors)


@pytest.mark.parametrize("kind", CASES)
def test_every_tensor_finds_its_place(kind: str, tmp_path: Path) -> None:
    model, state, told = theirs(kind)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "theirs.pth")
    made = import_checkpoint(tmp_path / "theirs.pth", kind, **told)
    assert not made.training and made.info.name == kind
    for name, value in model.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


@pytest.mark.parametrize("kind", CASES)
def test_tensors_that_are_missing_left_over_or_of_another_shape_are_named(kind: str, tmp_path: Path) -> None:
    _, state, told = theirs(kind)
    weights = [name for name, value in state.items() if value.ndim >= 1]
    reshaped = weights[-2]
    del state[weights[-1]]
    state |= {"foreign.weight": torch.ones(2), reshaped: torch.ones(1, 2, 1, 3)}
    path = tmp_path / "theirs.pth"
    torch.save(state, path)
    with pytest.raises(ModelError, match="weights do not fit") as caught:
        import_checkpoint(path, kind, **told)
    message = str(caught.value)
    assert caught.value.file == path
    assert "1 missing: " in message and "not of this network: foreign.weight" in message
    assert reshaped in message and "(1, 2, 1, 3)" in message


@pytest.mark.parametrize("kind", IMPORTS)
def test_a_file_of_something_else_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.ones(8, 3, 3, 3)}, path)
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path, kind)
    assert caught.value.file == path and "conv1.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("nobody", {}, r"as: no importer \(found 'nobody', expected fsra or .*dinov2"),
        ("vit-baseline", {}, r"2 regions.*expected --as fsra"),
        ("fsra", {"heads": 3, "colour": 1}, "colour: unknown field of fsra"),
        ("fsra", {"heads": "three"}, r"heads: a value of another kind \(found 'three', expected a whole number"),
        ("fsra", {"heads": 5}, r"heads: heads do not divide the width \(found 5, expected to divide 24"),
    ],
)
def test_what_is_asked_wrongly_is_named_with_the_file(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.pth"
    torch.save(theirs("fsra")[1], path)
    with pytest.raises(ModelError, match=rf"theirs\.pth: .*{message}"):
        import_checkpoint(path, kind, **settings)


def test_an_import_leaves_the_state_it_was_given_alone() -> None:
    _, state, told = theirs("fsra")
    before = {name: value.clone() for name, value in state.items()}
    import_state(state, "fsra", **told)
    assert state.keys() == before.keys() and all(torch.equal(state[name], before[name]) for name in before)
