"""A run is known by what made it: it goes on where it stopped, and no other run's checkpoint or figures are its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cvgl.errors import CvglError, ModelError
from cvgl_train.data.procedural import write_procedural
from cvgl_train.methods import finished_record, train_method
from cvgl_train.recipes import MethodRecipe, RecipeError, merge

SET: dict[str, Any] = {
    "places": 8, "test_share": 0.5, "distractors": 1, "drone_views": 2, "image_px": 48, "tile_m": 60.0,
    "spacing_m": 60.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe whose run of one epoch has ended in its folder."""
    folder = tmp_path_factory.mktemp("begun")
    write_procedural(folder / "set", processes=1, **SET)
    values = {
        "method": "cvgl-nano",
        "model": {"widths": [8, 8, 8], "descriptor_size": 8, "input_px": 32},
        "data": {"reader": "procedural", "root": str(folder / "set"), **SET},
        "validation": {"queries": 4},
        "augment": {"query": [{"name": "flip"}]},
        "sampler": {"name": "shuffled"},
        "plan": {
            "loss": [{"term": "infonce", "temperature": 0.1}],
            "batch": 4,
            "epochs": 1,
            "schedule": {"name": "constant"},
            "threads": 1,
        },
        "workers": 0,
        "device": "cpu",
        "out": str(folder / "run"),
    }
    train_method(MethodRecipe.from_dict(values))
    return values


def changed(begun: dict[str, Any], change: dict[str, Any], folder: Path) -> MethodRecipe:
    """The recipe with a change, and its run's folder copied, so that no test sees another's."""
    shutil.copytree(begun["out"], folder / "run")
    return MethodRecipe.from_dict(merge(begun, {**change, "out": str(folder / "run")}))


ANOTHER: list[tuple[dict[str, Any], str]] = [
    ({"sampler": {"name": "k_fold", "k": 1}}, "recipe"),
    ({"augment": {"query": []}}, "recipe"),
    ({"augment": {"reference": [{"name": "flip"}]}}, "recipe"),
    ({"data": {"split": "test"}}, "data, recipe"),
    ({"validation": {"queries": 3}}, "recipe, validation"),
    ({"seed": 1}, "seed"),
    ({"model": {"reduced": 16}}, "recipe, settings"),
    ({"plan": {"batch": 2}}, "batch"),
    ({"plan": {"loss": [{"term": "infonce", "temperature": 0.2}]}}, "loss"),
    ({"plan": {"optimiser": {"name": "adamw", "rate": 0.5}}}, "optimiser"),
    ({"plan": {"schedule": {"name": "cosine"}}}, "schedule"),
]


@pytest.mark.parametrize(("change", "field"), ANOTHER)
def test_another_recipe_does_not_go_on_with_it(
    begun: dict[str, Any], change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    recipe = changed(begun, change, tmp_path)
    with pytest.raises(ModelError, match=f"checkpoint.pt: {field}: a checkpoint of another run"):
        train_method(recipe)


def test_a_longer_run_elsewhere_goes_on_with_it(begun: dict[str, Any], tmp_path: Path) -> None:
    """More epochs, other workers, the data moved and other processor settings do not make it another run."""
    moved = tmp_path / "moved"
    shutil.copytree(begun["data"]["root"], moved)
    change = {"data": {"root": str(moved)}, "workers": 1, "plan": {"epochs": 2, "precision": "32", "threads": 2}}
    before = json.loads((Path(begun["out"]) / "record.json").read_text())
    _, record = train_method(changed(begun, change, tmp_path))
    assert record["steps"] == 2 * before["steps"]
    assert record["curve"][: len(before["curve"])] == before["curve"]


def test_a_run_can_begin_again_over_another(begun: dict[str, Any], tmp_path: Path) -> None:
    _, record = train_method(changed(begun, {"seed": 1, "resume": False}, tmp_path))
    assert record["seed"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"run": None}, "not a checkpoint of a run"),
        ({"version": 9}, "not a checkpoint of a run: .*9"),
        ({"model": {}}, "not a checkpoint of this run"),
        ({"model": {"net.stem": torch.ones(1)}}, "not a checkpoint of this run"),
        ({"state": {"steps": 3}}, "not a checkpoint of this run"),
        ({"state": 3}, "not a checkpoint of this run"),
        ({"optimiser": {}}, "not a checkpoint of this run"),
        ({"optimiser": {"param_groups": [], "state": {}}}, "not a checkpoint of this run"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    begun: dict[str, Any], damage: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = changed(begun, {"plan": {"epochs": 2}}, tmp_path)
    path = Path(recipe.out) / "checkpoint.pt"
    torch.save({**torch.load(path, weights_only=True), **damage}, path)
    with pytest.raises(ModelError, match=rf"checkpoint\.pt: {message}"):
        train_method(recipe)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_cut_short_is_named(begun: dict[str, Any], share: float, tmp_path: Path) -> None:
    recipe = changed(begun, {}, tmp_path)
    path = Path(recipe.out) / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=r"checkpoint\.pt: not a checkpoint of a run"):
        train_method(recipe)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    begun: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cvgl_train.training import kept

    def killed(data: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    recipe = changed(begun, {"plan": {"epochs": 2}}, tmp_path)
    path = Path(recipe.out) / "checkpoint.pt"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(kept.torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_method(recipe)
    assert path.read_bytes() == before and not list(path.parent.glob(".*"))
    assert train_method(recipe)[1]["curve"][-1]["epoch"] == 2


def test_the_figures_of_an_equal_run_are_read_and_nothing_is_trained(begun: dict[str, Any], tmp_path: Path) -> None:
    assert finished_record(MethodRecipe.from_dict({**begun, "out": str(tmp_path)})) is None
    moved = {"data": {"root": "elsewhere"}, "workers": 3}
    for change in ({}, moved):
        folder = tmp_path / str(len(change))
        record = finished_record(changed(begun, change, folder))
        assert record == json.loads((folder / "run" / "record.json").read_text())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sampler": {"name": "k_fold", "k": 1}}, "sampler"),
        ({"augment": {"query": []}}, "augment"),
        ({"data": {"image_px": 64}}, "data"),
        ({"validation": {"queries": 3}}, "validation"),
        ({"model": {"reduced": 16}}, "model"),
        ({"method": "fsra"}, "method"),
        ({"weights": "imagenet.pth"}, "weights"),
        ({"start": "other.pt"}, "start"),
        ({"pretrained": True}, "pretrained"),
        ({"seed": 1}, "seed"),
        ({"plan": {"epochs": 2}}, "epochs"),
        ({"plan": {"loss": [{"term": "infonce", "temperature": 0.2}]}}, "loss"),
        ({"plan": {"schedule": {"name": "cosine"}}}, "schedule"),
    ],
)
def test_another_runs_figures_are_not_taken_for_ones_own(
    begun: dict[str, Any], change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=rf"record\.json: {field}: another run ended here .*delete the folder"):
        finished_record(changed(begun, change, tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}"])
def test_a_record_that_is_none_is_named(begun: dict[str, Any], text: str, tmp_path: Path) -> None:
    recipe = changed(begun, {}, tmp_path)
    (Path(recipe.out) / "record.json").write_text(text)
    with pytest.raises(CvglError, match=r"record\.json"):
        finished_record(recipe)


def test_a_runs_identity_is_all_that_decides_its_result() -> None:
    """A field that is added to the recipe must be in the identity, in the plan, or plainly without influence."""
    recipe = MethodRecipe.from_dict(
        {"method": "cvgl-nano", "plan": {"epochs": 1}, "data": {"reader": "a", "root": "b"}}
    )
    without_influence = {"workers", "device", "resume", "out"}
    known = set(recipe.identity()) | {"plan", "seed"} | without_influence
    assert known == {name for name in MethodRecipe.__dataclass_fields__}
    assert recipe.identity()["data"] == {"reader": "a"}
