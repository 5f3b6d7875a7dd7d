"""``cvgl-train``: a method from a recipe to a checkpoint, an ablation's table, an authors' file taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cvgl_train import load_model
from cvgl_train.ablation import run_ablation
from cvgl_train.cli import app
from cvgl_train.data.procedural import write_procedural
from cvgl_train.models.fsra import Fsra
from cvgl_train.recipes import RecipeError

TINY = ["places=8", "test_share=0.5", "distractors=1", "drone_views=2", "image_px=48", "tile_m=60", "spacing_m=60"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny procedural set, and the changes by which a recipe reads it."""
    folder = tmp_path_factory.mktemp("data") / "set"
    options = {key: float(value) if "." in value else int(value) for key, value in (p.split("=") for p in TINY)}
    write_procedural(folder, processes=1, **options)
    return [f"data.root={folder}", *(f"data.{option}" for option in TINY)]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


SMALL = {
    "fsra": ["model.width=48", "model.depth=1", "model.image_size=32", "model.heads=4", "model.regions=2"],
    "dinov2-cvv": ["model.backbone=vit_tiny_patch16_224", "model.image_size=32", "model.depth=1", "model.head_heads=4"],
    "cvm-net-2": ["model.vgg_width=4", "model.clusters=4", "model.descriptor_size=16"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_becomes_a_checkpoint(name: str, data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = ["plan.batch=4", "plan.threads=1", "plan.validate_every=1", "workers=0", "steps=2"]
    output = invoke(name, "--small", *data, *SMALL[name], *plan, f"out={out}")
    assert "2 steps" in output and "R@1" in output
    model = load_model(out / "model.pt")
    assert model.info.name == name and not model.training
    record = json.loads((out / "record.json").read_text())
    assert record["data"]["queries"] == 8 and record["steps"] == 2
    # A dataset of 4 classes and 5 references: guessing finds one in five.
    assert record["curve"][-1]["chance"] == pytest.approx(0.2)
    # The same command again has nothing left to do, and says the same.
    assert "2 steps" in invoke(name, "--small", *data, *SMALL[name], *plan, f"out={out}")


def test_the_list_of_recipes_names_them(data: list[str]) -> None:
    output = invoke("recipes")
    assert "fsra" in output and "nano-adapt" in output


def test_an_authors_file_is_taken_over(tmp_path: Path) -> None:
    from cvgl_train import create_model

    torch.manual_seed(0)
    small = {"regions": 2, "classes": 5, "image_size": 32, "width": 48, "depth": 1, "heads": 4, "bottleneck": 16}
    mine = create_model("fsra", **small)
    assert isinstance(mine, Fsra)
    path = tmp_path / "theirs.pth"
    torch.save({"nothing": torch.ones(2)}, path)
    result = CliRunner().invoke(app, ["import", str(path), "--as", "fsra"])
    assert result.exit_code != 0 and "theirs.pth" in str(result.exception)
    result = CliRunner().invoke(app, ["import", str(path), "--as", "nobody"])
    assert "no importer" in str(result.exception)


ABLATION = """
recipe: fsra
rows:
  - {name: without, changes: {model: {regions: 0}, sampler: {k: 1}, plan: {loss: [{term: cross_entropy}]}}}
  - {name: + regions}
"""


def test_an_ablation_trains_its_rows_once(data: list[str], tmp_path: Path) -> None:
    file = tmp_path / "parts.yaml"
    file.write_text(ABLATION)
    size = [change for change in SMALL["fsra"] if "regions" not in change]
    changes = [*data, *size, "plan.batch=4", "plan.threads=1", "workers=0", "steps=2", "plan.validate_every=1"]
    rows = run_ablation(str(file), changes, tmp_path / "out")
    assert [row["name"] for row in rows] == ["without", "+ regions"]
    first = (tmp_path / "out" / "0-without" / "model.pt").stat().st_mtime_ns
    assert run_ablation(str(file), changes, tmp_path / "out") == rows
    assert (tmp_path / "out" / "0-without" / "model.pt").stat().st_mtime_ns == first
    assert load_model(tmp_path / "out" / "1-regions" / "model.pt").settings.regions == 3
    output = invoke("ablation", str(file), *changes, "--out", str(tmp_path / "again"))
    assert "+ regions" in output and "chance" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [("rows: []", "recipe"), ("recipe: fsra", "rows"), ("recipe: fsra\nrows: [{}]", "rows"), ("a: [", "YAML")],
)
def test_ablations_that_cannot_be_run(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "parts.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        run_ablation(str(file), [], tmp_path / "out")


def test_ablations_that_ship_are_known_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="frgeo or fsra"):
        run_ablation("nothing", [], tmp_path)
