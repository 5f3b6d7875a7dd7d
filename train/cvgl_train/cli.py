"""``cvgl-train``: train a model as a recipe says, run an ablation, take over an authors' checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cvgl.cli.common import command_when_none_is_named, main

from .recipes import RecipeError, read_recipe, shipped_recipes

__all__ = ["app", "app_main"]

_KINDS = ["method", "base", "adapt"]


app = typer.Typer(add_completion=False, cls=command_when_none_is_named("run"), no_args_is_help=True)


@app.callback()
def about() -> None:
    """Train a model: cvgl-train RECIPE [KEY=VALUE]...

    RECIPE is a YAML file, or the name of a recipe that ships (cvgl-train
    recipes lists them). A run that was stopped goes on where it was when the
    same command is given again.

    Examples:

      cvgl-train fsra --small                 (minutes on a CPU, no data)

      cvgl-train fsra data.root=/data/University-1652 out=runs/fsra

      cvgl-train nano-adapt map=town.tif camera=camera.yaml minutes=5

      torchrun --nproc-per-node 4 -m cvgl_train fsra   (four GPUs)
    """


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe that ships.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change, such as model.regions=2 epochs=5 seed=1."),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="The recipe's small version: procedural places, minutes on two cores.")
    ] = False,
) -> None:
    """Train as a recipe says.

    What it made lies in the folder that the recipe's `out` names: model.pt
    and best.pt (or weights.npz), record.json, curve.json, checkpoint.pt to
    go on from, and files for TensorBoard.

    A change names a field as the recipe's file does, with dots into
    mappings; fields of `plan` may stand alone. Values are YAML.

    Examples:

      cvgl-train fsra data.root=/data/University-1652 epochs=10 device=cuda

      cvgl-train fsra --small model.regions=2 'plan.loss=[{term: triplet}]'
    """
    kind, values = read_recipe(recipe, changes or [], _KINDS, small)
    with _bar() as show:
        made, record = _RUN[kind](values, show)
    if _first_process():
        last = record["curve"][-1]
        minutes = record["seconds"] / 60
        scores = ", ".join(f"{name} {last[name]:.3f}" for name in ("R@1", "R@5") if name in last)
        print(f"{made}: {record['steps']} steps in {minutes:.1f} min, {scores} on held-back views")


@app.command()
def recipes() -> None:
    """List the recipes that ship."""
    from rich.console import Console
    from rich.table import Table

    from .registry import METHODS

    table = Table("recipe", "kind", "what it trains", box=None, pad_edge=False)
    for name in shipped_recipes():
        kind, values = read_recipe(name, [], _KINDS)
        method = values.get("method")
        what = METHODS[method].summary if method else {"base": "the model that ships", "adapt": "it, on one map"}[kind]
        table.add_row(name, kind, what)
    Console().print(table)


@app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The authors' file: .pth, .pt, .safetensors.")
    ],
    kind: Annotated[str, typer.Option("--as", metavar="METHOD", help="Whose it is.")],
    out: Annotated[Path | None, typer.Option(help="What to write; by default the same name with .cvgl.pt.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of the model that the file does not decide."),
    ] = None,
) -> None:
    """Take over an authors' checkpoint.

    METHOD is one of fsra, vit-baseline, lpn, frgeo, saig-s, saig-d, dinov2
    (the frozen backbone of dinov2-cvv). Every tensor has to find its place;
    those that do not are named. The result is what cvgl-eval reads.

    Examples:

      cvgl-train import fsra_university.pth --as fsra

      cvgl-train import saig.pth --as saig-s --setting query_size=[128,512]
    """
    import yaml

    from cvgl.files import sha256_file

    from .checkpoint import save_model
    from .importer import import_checkpoint

    settings: dict[str, Any] = {}
    for change in setting or []:
        key, sign, text = change.partition("=")
        if not sign:
            raise RecipeError("not a setting", field="--setting", found=change, expected="KEY=VALUE")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as reason:
            raise RecipeError("not a value", field=f"--setting {key}", found=text, expected="YAML") from reason
    model = import_checkpoint(checkpoint, kind, **settings)
    path = out or checkpoint.with_name(f"{checkpoint.stem}.cvgl.pt")
    source = {"file": checkpoint.name, "sha256": sha256_file(checkpoint), "as": kind}
    save_model(model, path, {"imported": source})
    print(f"{path}: {model.info.name}, descriptors of {model.info.descriptor_size}")


@app.command()
def ablation(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A YAML file, or fsra or frgeo.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change in every row.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="On the published dataset instead of procedural places.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the table.")] = Path("runs/ablation"),
) -> None:
    """Train a method part by part and print the table.

    Rows that are trained already are not trained again.

    Example: cvgl-train ablation fsra
    """
    from .ablation import print_table, run_ablation

    with _bar() as show:
        rows = run_ablation(name, changes or [], out / Path(name).stem, small=not full, progress=show)
    print_table(rows)


def _base(values: dict[str, Any], show: Any) -> tuple[Path, dict[str, Any]]:
    from .base import BaseRecipe, train_base
    from .factories import checked_fields

    # An empty field is the default, but for the imagery, which may be left out.
    given = {"dated": "", **{name: value for name, value in values.items() if value is not None}}
    return train_base(BaseRecipe(**checked_fields(BaseRecipe, given, RecipeError, "recipe")), progress=show)


def _adapt(values: dict[str, Any], show: Any) -> tuple[Path, dict[str, Any]]:
    from cvgl.camera import Camera
    from cvgl.imagery import MapSource

    from .adapt import AdaptRecipe, adapt
    from .factories import checked_fields

    given = {name: value for name, value in values.items() if value is not None}
    for key in ("map", "camera"):
        if not given.get(key):
            raise RecipeError("missing field", field=key, expected=f"{key}=PATH after the recipe's name")
    recipe = AdaptRecipe(**checked_fields(AdaptRecipe, given, RecipeError, "recipe"))
    with MapSource.open(recipe.map) as source:
        made = adapt(
            source,
            Camera.from_yaml(recipe.camera),
            recipe.height_m,
            recipe.init,
            recipe.minutes,
            recipe.out,
            seed=recipe.seed,
            device=recipe.device,
            progress=show,
        )
    return made.weights, made.record


def _method(values: dict[str, Any], show: Any) -> tuple[Path, dict[str, Any]]:
    from .methods import train_method
    from .recipes import MethodRecipe

    return train_method(MethodRecipe.from_dict(values), progress=show)


_RUN = {"base": _base, "adapt": _adapt, "method": _method}


@contextmanager
def _bar() -> Iterator[Any]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, disable=not _first_process()) as bar:
        task = bar.add_task("preparing", total=1.0)

        def show(done: float, line: dict[str, Any]) -> None:
            words = ", ".join(f"{key} {value}" for key, value in line.items() if key not in ("seconds", "chance"))
            bar.update(task, completed=done, description=words)

        yield show


def _first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def app_main() -> None:
    """Entry of the `cvgl-train` command."""
    main(app)
