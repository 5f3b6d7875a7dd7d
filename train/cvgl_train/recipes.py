"""Recipes: YAML files that say what is trained on what and how, and the changes that a command line makes to them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from cvgl.errors import CvglError

from .factories import checked_fields

__all__ = ["MethodRecipe", "RecipeError", "apply_change", "merge", "read_recipe", "shipped_recipes"]


_IDENTITY = ("method", "model", "pretrained", "weights", "start", "data", "validation", "augment", "sampler", "cache")


class RecipeError(CvglError, ValueError):
    """A recipe that cannot be followed."""


@dataclass(frozen=True)
class MethodRecipe:
    """How a published method is trained. The recipes that ship state the papers' settings.

    Args:
        method: its name in the registry.
        plan: fields of `cvgl_train.training.plan.Plan`.
        model: settings of the model; `classes` follows from the data where it is not given.
        pretrained: start from timm's official weights of the backbone, which needs a network the first time.
        weights: start from this file of backbone weights instead.
        start: start from all of this checkpoint's weights instead.
        data: `reader`, `root` and the reader's options; `split` is "train" where it is not given.
        validation: the same for judging, and `queries`, how many at most; what it does not say is as in `data`, with
            the split "test".
        augment: lists of augmentations for `query` and `reference`.
        sampler: `name` and settings, see `cvgl_train.sampling`.
        cache: keep a frozen backbone's features on disk instead of running it at every step.
        seed: of everything random.
        workers: processes that read images ahead.
        device: "auto", "cpu", "cuda".
        resume: go on with a run that was stopped.
        out: folder of the run.
    """

    method: str
    plan: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    start: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "shuffled"})
    cache: bool = False
    seed: int = 0
    workers: int = 1
    device: str = "auto"
    resume: bool = True
    out: str = "runs/method"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MethodRecipe:
        """From a recipe's values without its `kind`. Raises RecipeError for a field that there is not, that is missing,
        or whose value cannot be."""
        given = {name: value for name, value in values.items() if value is not None}
        for name in ("method", "plan"):
            if not given.get(name):
                raise RecipeError("missing field", field=name)
        recipe = cls(**checked_fields(cls, given, RecipeError, "recipe"))
        for name in ("seed", "workers"):
            if getattr(recipe, name) < 0:
                raise RecipeError("out of range", field=name, found=getattr(recipe, name), expected="0 or more")
        return recipe

    def identity(self) -> dict[str, Any]:
        """What makes its run this run and no other, beside plan, seed and the model's settings: the data but for where
        it lies, what becomes of it, and the weights to start from."""
        values = {name: getattr(self, name) for name in _IDENTITY}
        for name in ("data", "validation"):
            values[name] = {key: value for key, value in values[name].items() if key != "root"}
        return values


def shipped_recipes() -> dict[str, Path]:
    """The recipes of this package by name."""
    folder = Path(str(files("cvgl_train") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(recipe: str, changes: list[str], kinds: list[str], small: bool = False) -> tuple[str, dict[str, Any]]:
    """(kind, fields) of a recipe with its changes applied.

    Args:
        recipe: a YAML file, or the name of a recipe that ships.
        changes: ``key=value``; keys inside mappings with dots (``model.regions=2``), a field of `plan` also alone.
        kinds: that are known.
        small: merge the recipe's own `small` over it: the procedural dataset, and a size for minutes on two cores.

    Raises:
        RecipeError: no such recipe, not a recipe, or a change to a field it does not have.
    """
    path = Path(recipe)
    if not path.exists():
        shipped = shipped_recipes()
        if recipe not in shipped:
            raise RecipeError("no such recipe", file=recipe, expected=f"a YAML file, or one of {', '.join(shipped)}")
        path = shipped[recipe]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
        raise RecipeError(f"not readable as YAML: {reason}", file=path) from reason
    if not isinstance(values, dict) or values.get("kind") not in kinds:
        found = values.get("kind") if isinstance(values, dict) else type(values).__name__
        raise RecipeError("not a recipe", file=path, field="kind", found=found, expected=" or ".join(kinds))
    smaller = values.pop("small", None)
    if small:
        if not isinstance(smaller, dict):
            raise RecipeError("has no small version", file=path, field="small")
        values = merge(values, smaller)
    for change in changes:
        apply_change(values, change, path)
    return str(values.pop("kind")), values


def merge(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`values` with `over` put over it, mapping by mapping.

    A mapping of another `name` or `reader` replaces what was there: its settings would mean nothing to the other.
    """
    merged = dict(values)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(new.get(kind, old.get(kind)) == old.get(kind) for kind in ("name", "reader"))


def apply_change(values: dict[str, Any], change: str, path: Path) -> None:
    """Put a ``key=value`` into a recipe's values. Raises RecipeError for a field that it does not have."""
    key, sign, text = change.partition("=")
    names = key.split(".")
    may_be = values.keys() | ({f.name for f in fields(MethodRecipe)} if values.get("kind") == "method" else set())
    if len(names) == 1 and names[0] not in may_be and isinstance(values.get("plan"), dict):
        # A plan's field is common enough to be named alone; whether there is one of the name, the plan checks.
        names = ["plan", *names]
    if not sign or names[0] == "kind" or names[0] not in may_be:
        known = ", ".join(name for name in values if name != "kind")
        raise RecipeError("no field to change", file=path, field=key, expected=known)
    target = values
    for name in names[:-1]:
        inner = target.get(name)
        if not isinstance(inner, dict):
            inner = target[name] = {}
        target = inner
    try:
        target[names[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as reason:
        raise RecipeError("not a value", field=key, found=text, expected="YAML") from reason
