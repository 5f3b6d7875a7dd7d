"""Ablations: a method trained part by part, same seed and same data, and the table of what each part is worth."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from cvgl.files import write_json

from .methods import finished_record, train_method
from .recipes import MethodRecipe, RecipeError, apply_change, merge, read_recipe
from .training.loop import Progress

__all__ = ["print_table", "run_ablation"]


def run_ablation(
    name: str, changes: list[str], out: Path, *, small: bool = True, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Train every row; one that is trained already is read from its folder.

    Args:
        name: a YAML file with `recipe` and `rows` (each `name` and `changes`, merged over the recipe; a row builds on
            nothing but the recipe), or the name of one that ships.
        changes: ``key=value`` for every row.
        out: a folder a row, and `table.json`.
        small: of the recipe.
        progress: told of the whole.

    Returns:
        Per row its name, scores and seconds.

    Raises:
        RecipeError: no such ablation, or rows that cannot be followed.
    """
    path, recipe, rows = _read(name)
    table = []
    for number, row in enumerate(rows):
        _, values = read_recipe(recipe, [], ["method"], small)
        values = merge(values, row.get("changes") or {})
        for change in changes:
            apply_change(values, change, path)
        folder = out / f"{number}-{re.sub('[^a-z0-9]+', '-', row['name'].lower()).strip('-')}"
        values["out"] = str(folder)

        def show(done: float, line: dict[str, Any], number: int = number, title: str = row["name"]) -> None:
            if progress is not None:
                progress((number + done) / len(rows), {title: "", **line})

        # A finished run is read, not repeated; `train_method` itself goes on with one that was stopped.
        trained = MethodRecipe.from_dict(values)
        record = finished_record(trained) or train_method(trained, show)[1]
        last = record["curve"][-1]
        scores = {key: value for key, value in last.items() if key.startswith("R@") or key == "chance"}
        table.append({"name": row["name"], **scores, "steps": record["steps"], "seconds": record["seconds"]})
        write_json(out / "table.json", {"ablation": name, "small": small, "changes": changes, "rows": table})
    return table


def print_table(rows: list[dict[str, Any]]) -> None:
    """The table on the terminal, each row with what it gained over the one before."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "R@1 %", "gain", "R@5 %", "R@10 %", "steps", "minutes", box=None, pad_edge=False)
    before = None
    for row in rows:
        gain = "" if before is None else f"{100 * (row['R@1'] - before):+.1f}"
        before = row["R@1"]
        shares = [f"{100 * row[key]:.1f}" for key in ("R@1", "R@5", "R@10")]
        minutes = f"{row['seconds'] / 60:.1f}"
        table.add_row(row["name"], shares[0], gain, *shares[1:], str(row["steps"]), minutes)
    table.add_row("chance", f"{100 * rows[0]['chance']:.1f}", *[""] * 5)
    Console().print(table)


def _read(name: str) -> tuple[Path, str, list[dict[str, Any]]]:
    folder = Path(str(files("cvgl_train") / "recipes" / "ablations"))
    path = Path(name) if Path(name).exists() else folder / f"{name}.yaml"
    if not path.exists():
        expected = " or ".join(sorted(entry.stem for entry in folder.glob("*.yaml")))
        raise RecipeError("no such ablation", file=name, expected=f"a YAML file, {expected}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
        raise RecipeError(f"not readable as YAML: {reason}", file=path) from reason
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), str):
        raise RecipeError("not an ablation", file=path, field="recipe", expected="the recipe that the rows change")
    rows = values.get("rows")
    if not rows or not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise RecipeError("not an ablation", file=path, field="rows", expected="a list of {name, changes}")
    return path, values["recipe"], rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("changes") or {}, dict)
