"""``cvgl-camera``: what a mission has to know of its camera, from a flight or from another tool's calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvgl.cli.common import main

if TYPE_CHECKING:
    from cvgl.camera import Camera
    from cvgl.flight import FrameRecord
    from cvgl.localizer import Localizer

__all__ = ["app", "app_main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A mission's camera: calibrate it, or convert it.")


@app.command()
def calibrate(
    mission: Annotated[Path, typer.Argument(metavar="MISSION", help="The mission folder, as cvgl-prepare made it.")],
    flight: Annotated[
        Path,
        typer.Argument(metavar="FLIGHT", help="A folder with frames/ and frames.csv, a folder of photos, or a photo."),
    ],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The camera.yaml to write.")],
    camera: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to start.", show_default="the flight's camera, else the mission's"),
    ] = None,
    focal: Annotated[
        float | None, typer.Option(min=1.0, help="Start from this focal length instead, pixels.", metavar="PX")
    ] = None,
    first: Annotated[str | None, typer.Option(help="Use the flight from this frame on.", metavar="NAME")] = None,
    last: Annotated[str | None, typer.Option(help="Use the flight up to this frame.", metavar="NAME")] = None,
    gnss_sigma: Annotated[float, typer.Option(min=0.01, help="Of one GNSS position, metres on each axis.")] = 2.5,
    heading_sigma: Annotated[float, typer.Option(min=0.01, help="Of one reported heading, degrees.")] = 3.0,
    update_mission: Annotated[
        bool,
        typer.Option(
            "--update-mission", help="Fit the mission's laws of right and wrong places to the flight and keep them."
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with.", show_default="the localiser's own")
    ] = None,
) -> None:
    """Estimate focal length and mount from a flight that recorded its GNSS.

    The frames are located on the mission's map near their GNSS positions; the
    camera is what explains best where they look, at what scale and in what
    direction. Time offset, height offset and the map's shift against GNSS are
    estimated beside it. What the flight does not determine is said, and left as
    it was: at one height focal length and height cannot be told apart, flown in
    one direction the mount's tilt and a shifted map cannot.

    Where the camera was tilted anew during the flight, each part gets a tilt of
    its own and all parts one lens.

    Writes camera.yaml (camera-1.yaml, camera-2.yaml ... where the flight has
    parts), and beside it camera.json with everything that was found and
    camera.html with what is left unexplained in every frame.

    With --update-mission the flight also shows what photos score where they are
    found right, and with their place hidden; mission.json then holds the laws of
    probability fitted to it (the mission's camera.yaml is left as it is).

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing,
    4 bad input, or a flight that does not determine its camera.

    Example: cvgl-camera calibrate mission flight --out camera.yaml
    """
    from cvgl.boresight import calibrate_camera
    from cvgl.boresight.report import as_record, write_page
    from cvgl.camera import Camera
    from cvgl.files import write_json
    from cvgl.flight import Flight
    from cvgl.localizer import Localizer
    from cvgl.versions import versions

    localizer = Localizer.open(mission, threads=threads)
    start = localizer.camera if camera is None else Camera.from_yaml(camera)
    opened = Flight.open(flight, start)
    if camera is None and opened.camera is not None:
        start = opened.camera
    if focal is not None:
        start = replace(start, fx=focal, fy=focal * start.fy / start.fx)
    names = [record.name for record in opened.records]
    for option, name in (("--first", first), ("--last", last)):
        if name is not None and name not in names:
            raise typer.BadParameter(f"no frame of that name: {name}", param_hint=option)
    begin = 0 if first is None else names.index(first)
    end = len(names) if last is None else names.index(last) + 1
    if begin >= end:
        raise typer.BadParameter("--last comes before --first", param_hint="--last")
    with _progress() as on_round:
        found = calibrate_camera(
            localizer,
            localizer.gallery.local,
            opened.records[begin:end],
            start,
            gnss_sigma_m=gnss_sigma,
            heading_sigma_deg=heading_sigma,
            on_round=on_round,
        )
    record: dict[str, Any] = {
        "format_version": 1,
        "flight": flight.resolve().name,
        "first": names[begin],
        "last": names[end - 1],
        "gnss_sigma_m": gnss_sigma,
        "heading_sigma_deg": heading_sigma,
        "versions": versions(),
        **as_record(found),
    }
    write_json(out.with_suffix(".json"), record)
    write_page(out.with_suffix(".html"), found, title=flight.resolve().name)
    cameras = found.solution.cameras
    files = [out] if len(cameras) == 1 else [out.with_stem(f"{out.stem}-{part + 1}") for part in range(len(cameras))]
    for camera_found, file in zip(cameras, files, strict=True):
        camera_found.to_yaml(file)
    _show(record, files, out)
    if update_mission:
        parts = [names.index(change.name) for change in found.changes]
        taken_by = [cameras[sum(part <= begin + i for part in parts)] for i in range(end - begin)]
        _update_mission(localizer, opened.records[begin:end], taken_by, gnss_sigma, flight.resolve().name)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="OpenCV's or ROS's calibration (YAML, XML or JSON), or a camera.yaml."),
    ],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The camera.yaml to write.")],
) -> None:
    """Read a calibration made elsewhere and write it as camera.yaml.

    Reads what OpenCV's calibration sample writes (camera_matrix,
    distortion_coefficients, image_width, image_height; YAML, XML or JSON) and the
    YAML of ROS's camera_info (camera_calibration writes it). Neither knows how
    the camera is mounted: it is taken to look straight down.

    Exit status: 0 done, 2 wrong usage, 4 bad input.
    """
    from cvgl.camera_files import read_calibration

    read = read_calibration(source)
    read.to_yaml(out)
    typer.echo(f"{read.width} x {read.height}, fx {read.fx:.2f}, fy {read.fy:.2f}: {out}")


def _update_mission(
    localizer: Localizer, records: Sequence[FrameRecord], cameras: Sequence[Camera], gnss_sigma_m: float, name: str
) -> None:
    """Fit the mission's decision to a flight and write it into its mission.json."""
    from cvgl.mission import write_mission_file
    from cvgl.refit import refit_decision

    with _progress() as on_round:
        step = on_round(len(records))
        decision, told = refit_decision(
            localizer,
            records,
            cameras,
            gnss_sigma_m=gnss_sigma_m,
            progress=lambda done, _total: step() if done else None,
        )
    mission = localizer.mission
    record = {**mission.record, "refit": {"flight": name, **told}}
    write_mission_file(mission.path, mission.height_m, mission.settings, decision, record)
    typer.echo(
        f"{mission.path}: laws of probability fitted to {told['right']} right and {told['wrong']} wrong places of the "
        f"flight"
    )


@contextmanager
def _progress() -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar on stderr that grows by every round of locating."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("locating, round {task.fields[round]}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None, round=0)

        def on_round(frames: int) -> Callable[[], None]:
            bars.reset(task, total=frames, round=bars.tasks[0].fields["round"] + 1)
            return lambda: bars.advance(task)

        yield on_round


def _show(record: dict[str, Any], files: list[Path], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from cvgl.boresight.report import table_rows

    console = Console(soft_wrap=True, highlight=False)
    table = Table()
    for name, justify in (("parameter", "left"), ("value", "right"), ("1σ", "right"), ("determined", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in table_rows(record):
        value, sigma = (f"{row[key]} {row['unit']}" for key in ("value", "sigma"))
        table.add_row(row["what"], value, sigma, row["determined"])
    console.print(table)
    for change in record["changes"]:
        console.print(
            f"the camera's tilt changed at {change['frame']}, by {change['forward_deg']:+.1f}° towards image-up and "
            f"{change['right_deg']:+.1f}° to the right"
        )
    errors = record["aircraft_error_m"]
    console.print(
        f"{record['sights']} of {record['frames']} frames; aircraft from its GNSS: median "
        f"{errors['before']['p50']:.1f} m before, {errors['after_held_out']['p50']:.1f} m after (frames not fitted to)"
    )
    if not record["settled"]:
        console.print("the last round still changed something: the camera may be off by more than its sigmas say")
    written = [*files, out.with_suffix(".json"), out.with_suffix(".html")]
    console.print(f"{written[0]}, " + ", ".join(file.name for file in written[1:]))


def app_main() -> None:
    """The ``cvgl-camera`` command."""
    main(app)
