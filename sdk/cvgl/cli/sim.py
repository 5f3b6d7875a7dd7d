"""``cvgl-sim``: flights in closed loop over a mission's map, thousands of frames from one command and one seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvgl.cli.common import main

if TYPE_CHECKING:
    from cvgl.sim.closed.rows import Rows
    from cvgl.sim.closed.run import Run

__all__ = ["app", "app_main"]

app = typer.Typer(add_completion=False)

_FLIGHT, _ERRORS, _WEATHER = "The flight", "What sensors have wrong", "Weather and camera"


@app.command()
def simulate(
    mission: Annotated[Path, typer.Argument(metavar="MISSION", help="The mission folder, as cvgl-prepare made it.")],
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The folder to write to; a run begun there goes on.")
    ],
    scenario: Annotated[
        str,
        typer.Option(
            help="Start from this kind of flight: nominal, wind, clouds, dark, blur, kidnap, wrong-height, "
            "wrong-heading, heading-unknown, no-velocity, biased-velocity, dropouts, loose-gimbal, off-map, drift."
        ),
    ] = "nominal",
    map_: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="Fly over this map. One of cvgl-demo --keep is rendered as the world it shows, with all that stands "
            "up. Without it: over the mission's own basemap, which is easier than any real ground.",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames in all.")] = 1000,
    flight_frames: Annotated[
        int, typer.Option(min=2, help="Frames of one flight. Each flight is kept as soon as it has landed.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same run, whatever --jobs and interruptions.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Flights in the air at a time, each in its own process.")] = 1,
    pattern: Annotated[
        str | None,
        typer.Option(help="survey, transit, loiter, random or excursion.", rich_help_panel=_FLIGHT),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Fly along a recorded flight instead: a DJI subtitle log.", rich_help_panel=_FLIGHT
        ),
    ] = None,
    height: Annotated[
        float | None,
        typer.Option(min=5.0, help="Metres above ground. Without it: the mission's.", rich_help_panel=_FLIGHT),
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Airspeed, m/s.", rich_help_panel=_FLIGHT)] = None,
    rate: Annotated[float | None, typer.Option(help="Frames a second.", rich_help_panel=_FLIGHT)] = None,
    kidnap_every: Annotated[
        int | None, typer.Option(min=0, help="Displace the aircraft every so many frames.", rich_help_panel=_FLIGHT)
    ] = None,
    start_sigma: Annotated[
        float | None,
        typer.Option(help="Tell the start to so many metres. Without it: lost.", rich_help_panel=_FLIGHT),
    ] = None,
    wind: Annotated[float | None, typer.Option(help="Mean wind, m/s.", rich_help_panel=_WEATHER)] = None,
    gusts: Annotated[float | None, typer.Option(help="Sigma of gusts, m/s.", rich_help_panel=_WEATHER)] = None,
    clouds: Annotated[
        float | None, typer.Option(help="Share of the sky below the aircraft that is cloud.", rich_help_panel=_WEATHER)
    ] = None,
    shadows: Annotated[
        float | None, typer.Option(help="Share of the ground in clouds' shadows.", rich_help_panel=_WEATHER)
    ] = None,
    darkness: Annotated[
        float | None,
        typer.Option(help="0 to 1: light falls to 10^(-4 x this) and comes back.", rich_help_panel=_WEATHER),
    ] = None,
    light: Annotated[
        float | None, typer.Option(help="How much the day differs from the map's, 0 to 1.", rich_help_panel=_WEATHER)
    ] = None,
    exposure: Annotated[
        float | None, typer.Option(help="Seconds: what moves meanwhile is blurred.", rich_help_panel=_WEATHER)
    ] = None,
    readout: Annotated[
        float | None, typer.Option(help="Seconds from first row to last: rolling shutter.", rich_help_panel=_WEATHER)
    ] = None,
    heading: Annotated[
        str | None, typer.Option(metavar="known|unknown", help="Whether frames tell it.", rich_help_panel=_ERRORS)
    ] = None,
    heading_error: Annotated[
        float | None, typer.Option(help="Constant error of the heading, degrees.", rich_help_panel=_ERRORS)
    ] = None,
    heading_sigma: Annotated[
        float | None,
        typer.Option(help="Of the heading, degrees.", show_default="the mission's", rich_help_panel=_ERRORS),
    ] = None,
    heading_drift: Annotated[
        float | None, typer.Option(help="Sigma of its slow drift, degrees.", rich_help_panel=_ERRORS)
    ] = None,
    height_error: Annotated[
        float | None, typer.Option(help="Constant relative error: 0.15 is 15 % too high.", rich_help_panel=_ERRORS)
    ] = None,
    height_sigma: Annotated[
        float | None,
        typer.Option(help="Of the height, relative.", show_default="the mission's", rich_help_panel=_ERRORS),
    ] = None,
    height_offset: Annotated[
        float | None, typer.Option(help="Constant error of the height, metres.", rich_help_panel=_ERRORS)
    ] = None,
    tilt_sigma: Annotated[
        float | None,
        typer.Option(
            help="Of the gimbal's roll and pitch, degrees.", show_default="the mission's", rich_help_panel=_ERRORS
        ),
    ] = None,
    tilt_lasting: Annotated[
        float | None,
        typer.Option(
            help="Share of its variance that lasts.", show_default="as cvgl.lasting says", rich_help_panel=_ERRORS
        ),
    ] = None,
    map_sigma: Annotated[
        float | None,
        typer.Option(help="Of the map's georeference, metres.", show_default="the mission's", rich_help_panel=_ERRORS),
    ] = None,
    errors: Annotated[
        str | None,
        typer.Option(
            metavar="lawful|white|constant",
            help="As cvgl.lasting says, new in every frame, or the same all through a flight.",
            rich_help_panel=_ERRORS,
        ),
    ] = None,
    velocity: Annotated[
        str | None, typer.Option(metavar="known|unknown", help="Whether frames tell it.", rich_help_panel=_ERRORS)
    ] = None,
    velocity_sigma: Annotated[
        float | None, typer.Option(help="Of each component, m/s.", rich_help_panel=_ERRORS)
    ] = None,
    velocity_bias: Annotated[
        float | None, typer.Option(help="Sigma of a constant error that nobody tells, m/s.", rich_help_panel=_ERRORS)
    ] = None,
    drop_frames: Annotated[
        float | None, typer.Option(help="Share of the time without frames.", rich_help_panel=_ERRORS)
    ] = None,
    drop_heading: Annotated[
        float | None, typer.Option(help="Share of the time without heading.", rich_help_panel=_ERRORS)
    ] = None,
    drop_velocity: Annotated[
        float | None, typer.Option(help="Share of the time without velocity.", rich_help_panel=_ERRORS)
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            help="Answer the same frames by these too, with commas: single, retrieval, correlation, features, ekf."
        ),
    ] = "",
    xfeat: Annotated[
        Path | None, typer.Option(dir_okay=False, help="XFeat's network, for --baselines features. Default: SIFT.")
    ] = None,
    frame_size: Annotated[int, typer.Option(min=64, max=512, help="Longest side of the frames, pixels.")] = 512,
) -> None:
    """Fly a mission in simulation, and see what its answers are worth.

    The tracker's own belief narrows where it looks next, so that its errors come
    back to it, as in flight. Every frame is made from the map or from the world
    that it shows, under another light, with the errors of sensors and the
    weather asked for; what is not asked for errs as the mission's settings say
    that it does.

    Writes frames.npz (truth, answer, covariance and evidence of every frame, see
    cvgl.sim.closed.rows), summary.json (consistency, protection, false fixes,
    availability, recovery and divergence, with confidence intervals) and
    report.html. The same command again goes on where it was interrupted; more
    --frames add flights to those that are there.

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.

    Examples:

      cvgl-sim mission --map map.tif --frames 2000 --jobs 4 --out out

      cvgl-sim mission --map map.tif --scenario kidnap --wind 8 --out lost

      cvgl-sim mission --map map.tif --trajectory DJI_0017.SRT --out log
    """
    from cvgl.mission import Mission
    from cvgl.sim.closed.run import Run, perform
    from cvgl.sim.closed.scenario import preset

    changes: dict[str, Any] = {
        "pattern": pattern,
        "speed_m_s": speed,
        "rate_hz": rate,
        "kidnap_every": kidnap_every,
        "start_sigma_m": start_sigma,
        "wind_m_s": wind,
        "gust_m_s": gusts,
        "clouds": clouds,
        "shadows": shadows,
        "darkness": darkness,
        "light": light,
        "exposure_s": exposure,
        "readout_s": readout,
        "heading_known": _known(heading, "--heading"),
        "heading_error_deg": heading_error,
        "heading_sigma_deg": heading_sigma,
        "heading_drift_deg": heading_drift,
        "height_error": height_error,
        "height_sigma": height_sigma,
        "height_offset_m": height_offset,
        "tilt_sigma_deg": tilt_sigma,
        "tilt_lasting": tilt_lasting,
        "map_sigma_m": map_sigma,
        "errors": errors,
        "velocity_known": _known(velocity, "--velocity"),
        "velocity_sigma_m_s": velocity_sigma,
        "velocity_bias_m_s": velocity_bias,
        "drop_frames": drop_frames,
        "drop_heading": drop_heading,
        "drop_velocity": drop_velocity,
    }
    ordinary = preset(scenario, Mission.open(mission).settings)
    chosen = replace(ordinary, **{name: value for name, value in changes.items() if value is not None})
    run = Run(
        mission=mission,
        scenario=chosen,
        frames=frames,
        flight_frames=flight_frames,
        seed=seed,
        map=map_,
        trajectory=trajectory,
        height_m=height,
        side=frame_size,
        baselines=tuple(name.strip() for name in baselines.split(",") if name.strip()),
        xfeat=xfeat,
    )
    began = time.monotonic()
    with _progress() as report:
        found = perform(run, out, jobs=jobs, progress=report)
    _write(out, run, scenario, found, time.monotonic() - began)


def _known(said: str | None, option: str) -> bool | None:
    if said is None:
        return None
    if said not in ("known", "unknown"):
        raise typer.BadParameter(f"{said!r} is neither 'known' nor 'unknown'", param_hint=option)
    return said == "known"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("flying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _write(out: Path, run: Run, scenario: str, found: dict[str, Rows], took_s: float) -> None:
    """frames.npz, summary.json, report.html, and the most important figures on the terminal."""
    from cvgl.files import atomic_path, write_json
    from cvgl.gallery import Gallery
    from cvgl.gallery.manifest import OVERVIEW
    from cvgl.mission import GALLERY, Mission
    from cvgl.report import Overview
    from cvgl.sim.closed.page import write_page
    from cvgl.sim.closed.run import save_methods
    from cvgl.sim.closed.score import score
    from cvgl.versions import versions

    risk = Mission.open(run.mission).settings.protection_risk
    summary = {name: score(rows, protection_risk=risk) for name, rows in found.items()}
    with atomic_path(out / "frames.npz") as temporary:
        save_methods(temporary, found)
    about = {"scenario_name": scenario, "took_s": round(took_s, 1), "versions": versions(), **run.identity()}
    write_json(out / "summary.json", {"format_version": 1, "methods": summary, "run": about})
    gallery = Gallery.open(run.mission / GALLERY)
    place = gallery.manifest.overview
    overview = Overview.read(gallery.path / OVERVIEW, place.gsd_m, place.west, place.north, gallery.local)
    write_page(out / "report.html", f"{run.mission.resolve().name}: {scenario}", found, summary, overview)
    _tell(out, summary)


def _tell(out: Path, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in (
        "method",
        "position",
        "refined",
        "median",
        "95 %",
        "wrong place",
        "> 6 sigma",
        "NEES / 2",
        "diverged",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, one in summary.items():
        share, errors, false = one["availability"], one["error_m"]["all"], one["false_fixes"]
        table.add_row(
            name,
            _text(share["position"]["value"], "{:.1%}"),
            _text(share["refined"]["value"], "{:.1%}"),
            _text(errors.get("p50"), "{:.1f} m"),
            _text(errors.get("p95"), "{:.1f} m"),
            str(false["wrong_place"]["count"]),
            str(false["beyond_six_sigma"]["count"]),
            _text(one["consistency"]["answers"]["value"], "{:.2f}"),
            f"{one['divergence']['flights']} of {one['flights']}",
        )
    console = Console(soft_wrap=True, highlight=False)
    # A table that is cut says less than one that a narrow terminal wraps.
    console.width = max(console.width, 112)
    console.print(table)
    recovery = summary["track"]["recovery"]["all"]
    if recovery["runs"]:
        within = recovery["within_10_frames"]
        console.print(
            f"localised within 10 frames of a start or displacement: {within['value']:.1%} of {recovery['runs']} "
            f"(95 % interval {within['low']:.1%} to {within['high']:.1%})"
        )
    console.print(f"{out / 'report.html'}")


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def app_main() -> None:
    """The ``cvgl-sim`` command."""
    main(app)


if __name__ == "__main__":
    app_main()
