"""``cvgl-prepare``: a satellite map in, a mission folder out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cvgl.cli.common import main

__all__ = ["app", "app_main"]

_INTERRUPTED = 130
_WORDS = {
    "map": "reading the map",
    "adapt": "adapting the model",
    "model": "writing the model",
    "gallery": "building the gallery",
    "calibrate": "learning what chance scores",
    "check": "checking the mission",
}

app = typer.Typer(add_completion=False)


@app.command(no_args_is_help=True)
def prepare(
    map_path: Annotated[
        Path, typer.Argument(metavar="MAP", help="A georeferenced satellite image, such as a GeoTIFF.")
    ],
    camera: Annotated[Path, typer.Option("--camera", help="The drone's camera.yaml.")],
    height: Annotated[float, typer.Option("--height", help="Planned height above ground, metres.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="The mission folder to make.")],
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Time to train on the map.", show_default="10"),
    ] = None,
    no_adapt: Annotated[bool, typer.Option("--no-adapt", help="Use the model as it is. Needs no PyTorch.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="BUNDLE",
            help="With --no-adapt: the model bundle to use.",
            show_default="the one that ships with cvgl",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="What training starts from.", show_default="the base model's"),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option("--stride", help="Metres from tile to tile.", show_default="a fifth of a tile"),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            min=30,
            help="Simulated frames to learn from what chance scores, and in proportion to check the mission with.",
        ),
    ] = 150,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of one inference.", show_default="2")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="That trains: auto, cpu, cuda.")] = "auto",
    terrain: Annotated[
        Path | None,
        typer.Option("--terrain", metavar="DEM", help="Elevation model in metres, for frames that tell an altitude."),
    ] = None,
    terrain_datum: Annotated[
        str,
        typer.Option("--terrain-datum", help="What its heights are counted from: mean_sea_level, ellipsoid."),
    ] = "mean_sea_level",
    geoid_separation: Annotated[
        float | None,
        typer.Option("--geoid-separation", help="Mean sea level above the ellipsoid there, metres."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Local features for a second opinion: akaze, orb, sift, or xfeat with --xfeat.",
            show_default="akaze, xfeat with --xfeat",
        ),
    ] = None,
    xfeat: Annotated[
        Path | None, typer.Option("--xfeat", metavar="ONNX", help="XFeat's network: images to keypoints, descriptors.")
    ] = None,
    lighterglue: Annotated[
        Path | None, typer.Option("--lighterglue", metavar="ONNX", help="A matcher trained for XFeat's descriptors.")
    ] = None,
) -> None:
    """Make a mission: what the drone carries to find itself on this map.

    Trains the model on the map, so that its places are told apart, builds the
    gallery, learns what wrong matches score, and checks the whole on simulated
    frames. What the check found stands in the mission's selfcheck.json.

    Nothing appears at --out before all is done. Interrupted, the same command
    goes on where it stopped.

    Example: cvgl-prepare town.tif --camera camera.yaml --height 120 --out town-mission

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.
    """
    if minutes is not None and no_adapt:
        raise typer.BadParameter("there is no training with --no-adapt", param_hint="--minutes")
    if weights is not None and no_adapt:
        raise typer.BadParameter("there is no training with --no-adapt", param_hint="--weights")
    if model is not None and not no_adapt:
        raise typer.BadParameter(
            "a bundle is used as it is: add --no-adapt, or start training from --weights", param_hint="--model"
        )
    if lighterglue is not None and xfeat is None:
        raise typer.BadParameter("it matches the descriptors of XFeat: give --xfeat too", param_hint="--lighterglue")
    chosen = features or ("akaze" if xfeat is None else "xfeat")
    if (chosen == "xfeat") != (xfeat is not None):
        raise typer.BadParameter(f"--xfeat goes with xfeat alone (found {chosen})", param_hint="--features")
    from cvgl.features import FeatureFiles

    from .prepare import CheckSize
    from .prepare import prepare as make

    try:
        with _Bars(skip=("adapt",) if no_adapt else ()) as bars:
            record = make(
                map_path,
                camera,
                height,
                out,
                minutes=10.0 if minutes is None else minutes,
                adapt=not no_adapt,
                model=model,
                weights=weights,
                seed=seed,
                device=device,
                stride_m=stride,
                threads=threads,
                check=CheckSize.of(trials),
                terrain=terrain,
                terrain_datum=terrain_datum,
                geoid_separation=geoid_separation,
                features=FeatureFiles(chosen, xfeat, lighterglue),
                reporter=bars,
            )
    except KeyboardInterrupt:
        print(f"interrupted. What is done is kept in {out}.partial: the same command goes on there", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    _tell(record)
    typer.echo(f"mission: {out}")


def app_main() -> None:
    """The command ``cvgl-prepare``."""
    main(app)


class _Bars:
    """All stages at once, each with its bar and the time left, on stderr."""

    def __init__(self, skip: tuple[str, ...]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description:<27}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True), markup=False),
            console=Console(stderr=True),
        )
        self._tasks = {
            name: self._progress.add_task(_WORDS[name], total=1.0, start=False, words="")
            for name in _WORDS
            if name not in skip
        }
        self._now = "map"

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._now = stage
        self._progress.start_task(self._tasks[stage])

    def progress(self, share: float, words: str = "") -> None:
        """That share of the stage is done."""
        self._progress.update(self._tasks[self._now], completed=min(share, 1.0), words=words)

    def end(self, stage: str, words: str) -> None:
        """A stage is done."""
        self._progress.update(self._tasks[stage], completed=1.0, words=words)

    def say(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """The same, standing out."""
        self._progress.console.print(
            f"warning: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )


def _tell(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    gallery, check = record["gallery"], record["self_check"]
    views, frames = check["retrieval"], check["frames"]
    median = frames["median_error_m"]
    rows = {
        "model": f"{record['model']['name']} {record['model']['fingerprint'][:12]}",
        "gallery": f"{gallery['tiles']} tiles of {gallery['tile_size_m']:g} m every {gallery['stride_m']:g} m,"
        f" {gallery['megabytes']:g} MB",
        "index against exact search": f"recall {check['index_recall']:.3f}",
        f"{views['views']} simulated views": f"right tile first {views['R@1']:.0%}, among 5 {views['R@5']:.0%},"
        f" among 20 {views['R@20']:.0%} (within {views['within_m']:g} m)",
        f"{frames['frames']} simulated frames": f"{frames['refined_within_10m']:.0%} refined within 10 m,"
        f" {frames['refined_beyond_10m']} further off, {frames['coarse']} coarse, {frames['no_fix']} no fix"
        + ("" if median is None else f", median error {median:.2f} m"),
        "took": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record["seconds"].items()),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    app_main()
