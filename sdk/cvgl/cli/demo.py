"""``cvgl-demo``: the whole way on a place of its own, from satellite map to position fixes; needs no data."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cvgl.camera import Camera
from cvgl.cli.common import main
from cvgl.errors import CvglError

__all__ = ["app", "app_main"]

_MAP, _FLIGHT, _MISSION, _RESULTS = "map.tif", "flight", "mission", "results"
_PLACE = (47.0, 9.5)
_WORLD_M = 700.0
_MAP_GSD_M = 0.4
_HEIGHT_M = 120.0
_CAMERA = Camera.from_field_of_view(1280, 720, 65.0)
# Enough to show what a preparation measures; a mission that will fly deserves cvgl-prepare's default.
_TRIALS = 40

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The folder to write to; it is made if need be.")
    ] = Path("cvgl-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed is another place and flight.")] = 1,
    frames: Annotated[int, typer.Option("--frames", min=1, max=2000, help="Frames of the flight.")] = 40,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep map, flight and mission, to try the commands on yourself.")
    ] = False,
) -> None:
    """Localise a simulated flight, from nothing: a minute on two cores.

    Makes up a place, photographs it from a satellite, flies a drone over it on
    another day with a compass and a barometer that err, prepares a mission from
    the satellite map alone (cvgl-prepare --no-adapt), and finds the drone in
    every frame (cvgl-locate). Then look at results/report.html.

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.
    """
    from cvgl.cli.locate import locate

    _check_folder(out)
    began = time.perf_counter()
    _simulate(out, seed, frames)
    prepare = ["prepare", str(out / _MAP), "--camera", str(out / _FLIGHT / "camera.yaml"), "--height", f"{_HEIGHT_M:g}"]
    prepare += ["--out", str(out / _MISSION), "--no-adapt", "--trials", str(_TRIALS), "--seed", str(seed)]
    _say(f"$ cvgl-{' '.join(prepare)}")
    _prepare(prepare[1:])
    _say(f"$ cvgl-locate {out / _MISSION} {out / _FLIGHT} --out {out / _RESULTS} --independent")
    locate(out / _MISSION, out / _FLIGHT, out / _RESULTS, independent=True)
    if not keep:
        for made in (_MISSION, _FLIGHT):
            shutil.rmtree(out / made)
        (out / _MAP).unlink()
    _say(f"done in {time.perf_counter() - began:.0f} s: open {out / _RESULTS / 'report.html'}")


def app_main() -> None:
    """The command ``cvgl-demo``."""
    main(app)


def _simulate(out: Path, seed: int, frames: int) -> None:
    """Write the world's satellite map and the flight over it, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cvgl.sim import World, write_flight, write_map

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    latitude, longitude = _PLACE
    out.mkdir(parents=True, exist_ok=True)
    with Progress(*columns, console=Console(stderr=True)) as bars:
        place = bars.add_task("making up a place, and its satellite map", total=2)
        world = World.generate(seed, _WORLD_M)
        bars.advance(place)
        write_map(world, out / _MAP, _MAP_GSD_M, latitude, longitude)
        bars.advance(place)
        flight = bars.add_task("flying over it on another day          ", total=frames)
        write_flight(
            world,
            out / _FLIGHT,
            _CAMERA,
            latitude=latitude,
            longitude=longitude,
            frames=frames,
            height_m=_HEIGHT_M,
            seed=seed,
            progress=lambda done, total: bars.update(flight, completed=done),
        )


def _prepare(arguments: list[str]) -> None:
    """Run cvgl-prepare as its user would: it composes training and export, which the SDK must not import."""
    status = subprocess.run([sys.executable, "-m", "cvgl_export.prepare_cli", *arguments]).returncode
    if status != 0:
        # It has said itself what is wrong.
        raise typer.Exit(status)


def _check_folder(out: Path) -> None:
    made = {_MAP, _FLIGHT, _MISSION, _RESULTS, f"{_MISSION}.partial"}
    others = sorted(p.name for p in out.iterdir() if p.name not in made) if out.is_dir() else []
    if others:
        raise CvglError(
            "the folder holds other things", file=out, field="--out", found=others[0], expected="a new or empty folder"
        )


def _say(line: str) -> None:
    # Flushed, or the lines of the command in between come first.
    print(line, flush=True)


if __name__ == "__main__":
    app_main()
