"""``cvgl-train``: train the base model, or adapt it to a map, as a recipe says."""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cvgl.cli.common import main
from cvgl.errors import CvglError

__all__ = ["app", "app_main", "read_recipe"]

app = typer.Typer(add_completion=False)


class RecipeError(CvglError, ValueError):
    """A recipe that cannot be followed."""


@app.command(no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe that ships.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change, such as minutes=5."),
    ] = None,
) -> None:
    """Train an embedding as a recipe says.

    Recipes that ship: nano-base (the base model), nano-adapt (the base
    model adapted to a map: map=MAP.tif camera=camera.yaml height_m=120).

    A run that was stopped goes on where it was when the same command is
    given again. What it made lies in the folder that the recipe's `out`
    names: weights.npz, record.json and the curve.

    Example: cvgl-train nano-adapt map=town.tif camera=camera.yaml minutes=5
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    kind, values = read_recipe(recipe, changes or [])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("preparing", total=1.0)

        def show(done: float, line: dict[str, Any]) -> None:
            words = ", ".join(f"{key} {value}" for key, value in line.items() if key != "seconds")
            bar.update(task, completed=done, description=words)

        weights, record = _RUN[kind](values, show)
    last = record["curve"][-1]
    minutes = record["seconds"] / 60
    print(f"{weights}: {record['steps']} steps in {minutes:.1f} min, R@1 {last['R@1']:.3f} on held-back views")


def read_recipe(recipe: str, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """(kind, fields) of a recipe with its changes applied.

    Raises:
        CvglError: no such recipe, not a recipe, or a change to a field it does not have.
    """
    path = Path(recipe)
    if not path.exists():
        shipped = Path(str(files("cvgl_train") / "recipes" / f"{recipe}.yaml"))
        if not shipped.exists():
            names = ", ".join(sorted(entry.stem for entry in shipped.parent.glob("*.yaml")))
            raise RecipeError("no such recipe", file=recipe, expected=f"a YAML file, or one of {names}")
        path = shipped
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
        raise RecipeError(f"not readable as YAML: {reason}", file=path) from reason
    if not isinstance(values, dict) or values.get("kind") not in _RUN:
        found = values.get("kind") if isinstance(values, dict) else type(values).__name__
        raise RecipeError("not a recipe", file=path, field="kind", found=found, expected=" or ".join(_RUN))
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or key not in values or key == "kind":
            raise RecipeError(
                "no field to change",
                file=path,
                field=key,
                expected=", ".join(name for name in values if name != "kind"),
            )
        values[key] = yaml.safe_load(value)
    return str(values.pop("kind")), values


def _base(values: dict[str, Any], show: Any) -> tuple[Path, dict[str, Any]]:
    from .base import BaseRecipe, train_base

    known = {field.name for field in fields(BaseRecipe)}
    for key in values:
        if key not in known:
            raise RecipeError("unknown field", field=key, expected=", ".join(sorted(known)))
    values["enlarge"] = tuple(values.get("enlarge") or (2.0, 3.0))
    values["dated"] = values.get("dated") or ""
    return train_base(BaseRecipe(**values), progress=show)


def _adapt(values: dict[str, Any], show: Any) -> tuple[Path, dict[str, Any]]:
    from cvgl.camera import Camera
    from cvgl.imagery import MapSource

    from .adapt import adapt

    for key in ("map", "camera"):
        if not values.get(key):
            raise RecipeError("missing field", field=key, expected=f"{key}=PATH after the recipe's name")
    with MapSource.open(values["map"]) as source:
        made = adapt(
            source,
            Camera.from_yaml(values["camera"]),
            float(values["height_m"]),
            values["init"],
            float(values["minutes"]),
            values["out"],
            seed=int(values["seed"]),
            device=str(values["device"]),
            progress=show,
        )
    return made.weights, made.record


_RUN = {"base": _base, "adapt": _adapt}


def app_main() -> None:
    """Entry of the `cvgl-train` command."""
    main(app)
