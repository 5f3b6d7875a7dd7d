"""Recipes that ship can be followed, changes reach what they name, and what cannot be is refused by name."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cvgl.errors import CvglError
from cvgl_train import create_model, list_models
from cvgl_train.data.base import CrossViewSet, ImageFile
from cvgl_train.data.images import build_augmentation
from cvgl_train.data.readers import READERS
from cvgl_train.losses.terms import TERMS, build_objective
from cvgl_train.methods import make_model, open_data
from cvgl_train.models.base import ViewInput, settings_of
from cvgl_train.optimisers import build_optimiser, build_schedule
from cvgl_train.recipes import MethodRecipe, RecipeError, merge, read_recipe, shipped_recipes
from cvgl_train.registry import METHODS
from cvgl_train.sampling import build_sampler
from cvgl_train.training.plan import Plan

KINDS = ["method", "base", "adapt"]
METHOD_RECIPES = [name for name in shipped_recipes() if read_recipe(name, [], KINDS)[0] == "method"]


def some_set() -> CrossViewSet:
    numbers = np.arange(40)
    images = [ImageFile(Path(f"{i}.png")) for i in numbers]
    return CrossViewSet("made up", "train", images, images, [np.array([i]) for i in numbers], numbers, numbers)


def test_every_method_has_a_recipe_of_its_name() -> None:
    assert set(list_models()) <= set(METHOD_RECIPES)
    for name in list_models():
        assert read_recipe(name, [], KINDS)[1]["method"] == name


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_recipes_that_ship_can_be_followed(name: str, small: bool) -> None:
    """All but the training: every part of the recipe is built, the network in a stand-in's place."""
    recipe = MethodRecipe.from_dict(read_recipe(name, [], KINDS, small)[1])
    method = METHODS[recipe.method]
    module = import_module(f"cvgl_train.models.{method.module}")
    settings_of(getattr(module, method.settings), {**method.preset, **recipe.model}, recipe.method)
    plan = Plan.from_dict(recipe.plan)
    nano = create_model("cvgl-nano", widths=(8, 8, 8), descriptor_size=8, input_px=32)
    build_optimiser(nano, dict(plan.optimiser))
    build_schedule(dict(plan.schedule))
    if all(term["term"] != "pair_bce" for term in plan.loss):
        build_objective(list(plan.loss), nano)
    for view in ("query", "reference"):
        build_augmentation(recipe.augment.get(view) or [], ViewInput(64, 64))
    if recipe.sampler["name"] != "gps_neighbours":
        build_sampler(dict(recipe.sampler), some_set(), plan.batch)
    assert recipe.data["reader"] in READERS
    if small:
        assert recipe.data["reader"] == "procedural" and not recipe.pretrained and recipe.weights is None


def test_no_loss_is_without_a_recipe_or_a_test_of_its_own() -> None:
    used = {
        term["term"]
        for name in METHOD_RECIPES
        for small in (False, True)
        for term in read_recipe(name, [], KINDS, small)[1]["plan"]["loss"]
    }
    variants = {"soft_margin_triplet", "saig_semisoft_trihard", "saig_infonce"}
    assert used | variants == set(TERMS)


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        # The authors' command lines and the defaults of their scripts.
        ("fsra", "plan.loss", [{"term": "cross_entropy"}, {"term": "triplet", "margin": 0.3}]),
        ("fsra", "sampler", {"name": "k_fold", "k": 3}),
        ("fsra", "augment.reference", [{"name": "pad_crop", "pad": 0, "degrees": 90}, {"name": "flip"}]),
        ("fsra", "plan.optimiser.backbone_rate", 0.003),
        ("fsra", "plan.schedule", {"name": "steps", "at": [70, 110], "factor": 0.1}),
        ("vit-baseline", "augment.query", [{"name": "flip"}]),
        ("lpn", "augment.reference", [{"name": "pad_crop", "pad": 10, "degrees": 90}, {"name": "flip"}]),
        ("lpn", "plan.optimiser.rate", 0.001),
        ("lpn", "plan.optimiser.backbone_rate", 0.0001),
        ("lpn", "plan.schedule", {"name": "steps", "at": [80], "factor": 0.1}),
        ("lpn", "model", {"dropout": 0.75}),
        ("frgeo", "plan.schedule", {"name": "epoch_cosine"}),
        ("frgeo", "plan.optimiser", {"name": "adamw", "rate": 1e-4, "weight_decay": 0.03, "asam": {"rho": 2.5}}),
        ("saig-d", "plan.epochs", 200),
        ("saig-s", "plan.optimiser", {"name": "adamw", "rate": 1e-4, "weight_decay": 0.03, "asam": {"rho": 2.0}}),
        ("saig-s", "augment", {}),
        ("cvm-net-2", "plan.batch", 12),
        ("dinov2-cvv", "plan.schedule", {"name": "steps", "at": [50, 100, 150], "factor": 0.1}),
        ("vgg16", "plan.loss", [{"term": "max_margin_triplet", "margin": 0.5}]),
        ("pssr-hard", "sampler", {"name": "clusters", "clusters": 3, "first": 0}),
    ],
)
def test_recipes_state_the_authors_settings(name: str, where: str, value: Any) -> None:
    found: Any = read_recipe(name, [], KINDS)[1]
    for key in where.split("."):
        found = found[key]
    assert found == value


@pytest.mark.parametrize(
    ("change", "where", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("model.regions=2", ("model", "regions"), 2),
        ("epochs=5", ("plan", "epochs"), 5),
        ("plan.optimiser.rate=0.5", ("plan", "optimiser", "rate"), 0.5),
        ("data.root=/data/u", ("data", "root"), "/data/u"),
        ("weights=null", ("weights",), None),
        ("start=runs/a.pt", ("start",), "runs/a.pt"),
        ("plan.loss=[{term: kl}]", ("plan", "loss"), [{"term": "kl"}]),
    ],
)
def test_changes_reach_what_they_name(change: str, where: tuple[str, ...], value: Any) -> None:
    found: Any = read_recipe("fsra", [change], KINDS)[1]
    for key in where:
        found = found[key]
    assert found == value


@pytest.mark.parametrize(
    ("change", "message"),
    [("nothing", "no field to change"), ("kind=base", "no field"), ("modl.regions=2", "no field to change")],
)
def test_changes_to_nothing_are_refused(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe("fsra", [change], KINDS)


def test_a_plan_field_that_there_is_not_is_named() -> None:
    with pytest.raises(CvglError, match="epocs: unknown field"):
        Plan.from_dict(read_recipe("fsra", ["epocs=5"], KINDS)[1]["plan"])


@pytest.mark.parametrize(
    ("old", "over", "expected"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"s": {"name": "steps", "at": [1]}}, {"s": {"name": "cosine"}}, {"s": {"name": "cosine"}}),
        ({"s": {"name": "k_fold", "k": 1}}, {"s": {"k": 3}}, {"s": {"name": "k_fold", "k": 3}}),
        ({"d": {"reader": "cvusa", "root": "x", "a": 1}}, {"d": {"reader": "map"}}, {"d": {"reader": "map"}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
    ],
)
def test_merging(old: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge(old, over) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "not a recipe"),
        ("kind: dinner", "kind: not a recipe .found 'dinner'"),
        ("a: [", "not readable as YAML"),
        ("kind: method\nmethod: fsra", "plan: missing field"),
        ("kind: method\nplan: {}\nmethod: fsra", "plan: missing field"),
        ("kind: method\nmethod: fsra\nplan: {epochs: 1}\ncolour: red", "colour: unknown field"),
        ("kind: method\nmethod: fsra\nplan: 3", "plan: a value of another kind"),
    ],
)
def test_recipes_that_cannot_be_followed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(CvglError, match=message):
        MethodRecipe.from_dict(read_recipe(str(path), [], KINDS)[1])


def test_a_recipe_without_a_small_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("kind: method\nmethod: fsra\nplan: {epochs: 1}")
    with pytest.raises(RecipeError, match="small"):
        read_recipe(str(path), [], KINDS, small=True)


def test_missing_data_is_named() -> None:
    values = {"method": "cvgl-nano", "plan": {"epochs": 1}, "data": {"reader": "cvusa"}}
    with pytest.raises(RecipeError, match=r"data\.root"):
        open_data(MethodRecipe.from_dict(values))


def test_a_classifier_has_as_many_classes_as_the_data(tmp_path: Path) -> None:
    small = {"image_size": 32, "width": 48, "depth": 1, "heads": 4}
    recipe = MethodRecipe.from_dict({"method": "fsra", "plan": {"epochs": 1}, "model": small})
    assert make_model(recipe, some_set()).settings.classes == 40


def test_recipes_explain_their_fields() -> None:
    """Whatever a recipe may say is described where people look for it."""
    described = MethodRecipe.__doc__ or ""
    assert all(f"        {field.name}" in described or f" {field.name}" in described for field in fields(MethodRecipe))


def test_recipes_are_yaml_without_surprises() -> None:
    """YAML 1.1 reads 1e-4 as text; a rate must be a number."""
    for path in shipped_recipes().values():
        text = yaml.safe_dump(yaml.safe_load(path.read_text()))
        assert not any(word.replace("'", "").replace("e-", "").isdigit() and "e-" in word for word in text.split())
