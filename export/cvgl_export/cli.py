"""``cvgl-export``: a trained network to a model bundle and a TensorRT engine, each proven the same model still."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cvgl.cli.common import command_when_none_is_named, main
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.mission import GALLERY, MISSION

if TYPE_CHECKING:
    from .bundle import Exported
    from .source import Source

__all__ = ["app", "app_main"]

# Tiles of each view by default: as many as so many billions of multiply-adds allow. Deterministic, unlike a clock, and
# a minute or two of an ordinary processor for the largest method.
_BUDGET_GMACS, _LEAST_TILES, _MOST_TILES = 600.0, 8, 500

app = typer.Typer(add_completion=False, cls=command_when_none_is_named("run"), no_args_is_help=True)


@app.callback()
def about() -> None:
    """Write a trained network for flight: cvgl-export CHECKPOINT [--engine PATH]

    Examples:

      cvgl-export runs/fsra/best.pt --engine fsra.engine --gsd 0.5

      cvgl-export base.cvgl --out base-fp16.cvgl --tiles town.tif

      cvgl-export authors.pth --as frgeo --precision fp32

      cvgl-export inspect fsra.engine

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.
    """


@app.command(no_args_is_help=True)
def run(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="A .pt or weights.npz of cvgl-train, a bundle, or with --as an authors' file."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="BUNDLE", help="The bundle.", show_default="NAME.cvgl beside the checkpoint"),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            "--engine", metavar="PATH", help="Also build a TensorRT engine for this GPU, here and in the bundle."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(help="Of graph and engine. fp32 is for CPUs; bf16 runs in engines only."),
    ] = "fp16",
    batch: Annotated[
        int | None, typer.Option(min=1, help="The only batch size; it may make engines faster.", show_default="any")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", metavar="METHOD", help="An authors' checkpoint: fsra, frgeo, saig-s ...")
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(min=0.001, help="Ground sampling distance it was trained for, m/px.", show_default="as recorded"),
    ] = None,
    tiles: Annotated[
        Path | None,
        typer.Option(
            help="What to prove it on: a folder of tiles, a map, a gallery or a mission.",
            show_default="a procedural world",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=2, help="Tiles to prove it on.", show_default="8 to 500, by the network's size"),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="A node to keep in FP32; may be given again.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Where the halved graph fails, find the nodes that must stay in FP32.")
    ] = False,
    held_agreement: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="For int8: share of queries, of tiles that do not judge, that must find the same tile.",
            show_default="what makes 98 % of the judged ones likely",
        ),
    ] = None,
    calibration: Annotated[
        Literal["entropy", "percentile", "minmax"], typer.Option(help="How ranges for int8 follow from the tiles.")
    ] = "entropy",
    workspace: Annotated[
        int | None, typer.Option(min=1, help="Memory for TensorRT's trials, MiB.", show_default="all")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="A file of TensorRT's measurements, which makes the next build faster.")
    ] = None,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Let the engine run on every GPU from Ampere on.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let newer versions of TensorRT run the engine.")
    ] = False,
    dla: Annotated[
        int | None, typer.Option(min=0, help="Build for this deep learning accelerator of a Jetson.")
    ] = None,
) -> None:
    """Write a bundle, and with --engine a TensorRT engine.

    Every step, from PyTorch to ONNX Runtime to TensorRT, embeds the same
    tiles; where one gives other descriptors, or finds other tiles, than the
    thresholds allow, nothing is written and the exit status is 4. The
    bundle holds the proof: report.html.

    Without TensorRT the bundle is complete, and --engine ends with status 3
    and what to install.
    """
    _require("torch", "onnx", "onnxscript")
    from .bundle import ExportOptions, export_bundle
    from .calibration import calibrated_tiles
    from .source import open_source
    from .tensorrt import EngineOptions
    from .tile_sources import open_tiles

    source = open_source(checkpoint, kind)
    path = out if out is not None else checkpoint.with_suffix(".cvgl")
    if source.model is None and path.resolve() == checkpoint.resolve():
        raise ModelError("would replace the bundle that it is made from", file=path, field="--out", expected="another")
    options = ExportOptions(precision, batch, tuple(keep or ()), bisect, calibration, held_agreement)
    sizes = source.inputs["query"], source.inputs["reference"]
    number = count or _affordable(source)
    # A mission's tiles are its gallery's; as a folder of images it has none but the map's pictures.
    place = tiles / GALLERY if tiles is not None and (tiles / MISSION).is_file() else tiles
    with _bar() as show:
        tell = partial(show, "tiles")
        if precision == "int8":
            proof, others = calibrated_tiles(place, *sizes, count=number, progress=tell)
        else:
            proof, others = open_tiles(place, *sizes, count=number, progress=tell), None
        made = export_bundle(
            source,
            path,
            proof,
            options,
            gsd_m=gsd,
            calibration=others,
            engine=engine,
            engine_options=EngineOptions(
                batch=None if batch is None else (batch, batch, batch),
                workspace_mib=workspace,
                timing_cache=timing_cache,
                hardware_compatibility="ampere_plus" if hardware_compatible else "none",
                version_compatible=version_compatible,
                dla_core=dla,
            ),
            command=shlex.join(["cvgl-export", *sys.argv[1:]]),
            progress=show,
        )
    _say(made)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="ENGINE_OR_BUNDLE", help="A bundle's folder, or a .engine file.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a bundle or an engine is, where it runs, and what it was made from.

    Needs neither a GPU nor TensorRT, and trusts nothing that its hash does not confirm.

    Example: cvgl-export inspect model.engine
    """
    from .inspection import inspect_file, print_inspection

    found = inspect_file(path)
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
    else:
        print_inspection(found)


def app_main() -> None:
    """The command ``cvgl-export``."""
    main(app)


def _affordable(source: Source) -> int:
    """Tiles that the network's size allows."""
    if source.model is None:
        return _MOST_TILES // 4
    from cvgl_train.evaluation.cost import cost_of

    cost = cost_of(source.model, measure=False)
    gmacs = (cost.query.flops + cost.reference.flops) / 2e9
    return int(min(_MOST_TILES, max(_LEAST_TILES, _BUDGET_GMACS / gmacs)))


def _say(made: Exported) -> None:
    from cvgl.model import read_manifest

    from .parity import COLLAPSED

    for stage, parity in made.parities.items():
        words = f"cosine median {parity.cosine_median:.6f}, least {parity.cosine_minimum:.6f}"
        if parity.retrieval is not None:
            seen = parity.retrieval
            words += (
                f", same nearest tile {seen.agreement:.1%}, R@1 {seen.recall_before:.1%} -> {seen.recall_after:.1%}"
            )
        typer.echo(f"{stage}: {words}")
    if any(parity.spread < COLLAPSED for parity in made.parities.values()):
        typer.echo("warning: it gives much the same descriptor for every tile; is it trained?", err=True)
    for name, nodes in made.kept.items():
        typer.echo(f"{name}: {len(nodes)} nodes kept in FP32: {', '.join(nodes) or 'none needed'}")
    if made.int8 is not None:
        typer.echo(f"{made.int8.words} ({made.int8.budget.words}; {made.int8.differ} do)")
    for report in made.engines.values():
        layers = ", ".join(f"{count} {precision}" for precision, count in report.achieved.histogram.items())
        typer.echo(f"engine: {report.path}, layers {layers or 'not told'}, built in {report.seconds:.0f} s")
    typer.echo(f"bundle: {made.path}, {read_manifest(made.path)['precision']}, fingerprint {made.fingerprint[:12]}")


def _require(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"exporting needs {', '.join(missing)}: pip install 'cvgl[train,export]'")


@contextmanager
def _bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show
