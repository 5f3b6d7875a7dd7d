"""``cvgl-locate``: a mission and a flight in, fixes, track, summary and report out."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from cvgl.camera import Camera
from cvgl.cli.common import main
from cvgl.errors import FrameError
from cvgl.files import sha256_file, write_json
from cvgl.fix import Fix, ReasonCode
from cvgl.flight import Flight
from cvgl.frame import Frame, Prior
from cvgl.results import summarise, write_fixes, write_geojson
from cvgl.versions import versions

if TYPE_CHECKING:
    from cvgl.gallery import Gallery

__all__ = ["app", "app_main", "locate_flight", "mission_fingerprint", "parse_heading", "parse_start"]
__all__ += ["parse_topics"]

app = typer.Typer(add_completion=False)


class Locator(Protocol):
    """What a flight is handed to: :class:`cvgl.Localizer`, or anything that answers like it."""

    def locate(self, frame: Frame) -> Fix:
        """The fix of one frame by itself."""

    def track(self, frame: Frame) -> Fix:
        """The fix of the next frame of a sequence."""

    def estimate(self, time: float) -> Fix:
        """Where the sequence has the aircraft at a time of which there is no frame."""

    def reset(self, prior: Prior | None = None) -> None:
        """Begin a sequence."""


def locate_flight(
    locator: Locator,
    flight: Flight,
    *,
    start: Prior | None = None,
    independent: bool = False,
    on_fix: Callable[[Fix], None] | None = None,
) -> tuple[list[Fix], list[float]]:
    """Localise the frames of a flight in their order, one decoded at a time.

    Args:
        locator: the localiser.
        flight: the flight.
        start: where the aircraft may be at the first frame; with ``independent``, at every frame.
        independent: treat every frame as the first.
        on_fix: called with each answer, for progress.

    Returns:
        A fix for every frame (for one that cannot be read where the sequence has the aircraft, or a no-fix, with the
        reason), and the milliseconds that reading and decoding took for those that could.
    """
    fixes: list[Fix] = []
    decode_ms: list[float] = []
    locator.reset(start)
    for record in flight:
        began = time.perf_counter()
        try:
            frame = record.load()
        except FrameError as error:
            fix = Fix.none(record.time, error.message, reason_code=ReasonCode.BAD_INPUT, name=record.name)
            if not independent and (followed := locator.estimate(record.time)):
                reason = f"{error.message}; {followed.reason}"
                fix = replace(followed, reason=reason, reason_code=fix.reason_code, name=record.name, measured=fix)
        else:
            decode_ms.append(1000.0 * (time.perf_counter() - began))
            if independent:
                fix = locator.locate(replace(frame, prior=start))
            else:
                fix = locator.track(frame)
        fixes.append(fix)
        if on_fix is not None:
            on_fix(fix)
    return fixes, decode_ms


def mission_fingerprint(mission: str | Path) -> str:
    """SHA-256 over a mission's manifests and settings, which carry the hashes of everything else."""
    mission = Path(mission)
    digest = hashlib.sha256()
    described = (p for p in mission.rglob("*") if p.suffix in (".json", ".yaml") and p.is_file())
    for path in sorted(described, key=lambda p: p.relative_to(mission).as_posix()):
        digest.update(f"{path.relative_to(mission).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def parse_start(text: str) -> Prior:
    """``LAT,LON,SIGMA_M`` as a prior.

    Raises:
        typer.BadParameter: not three numbers, or out of range.
    """
    try:
        latitude, longitude, sigma = (float(part) for part in text.split(","))
        return Prior(latitude, longitude, sigma)
    except FrameError as error:
        raise typer.BadParameter(str(error)) from None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not LAT,LON,SIGMA_M, such as 24.26,120.72,200") from None


def parse_heading(text: str) -> float | None:
    """Degrees, or None for ``unknown``.

    Raises:
        typer.BadParameter: neither.
    """
    if text.strip().lower() == "unknown":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -360.0 <= value <= 360.0:
        raise typer.BadParameter(f"{text!r} is neither degrees from -360 to 360 nor 'unknown'")
    return value


def parse_topics(texts: list[str]) -> dict[str, str]:
    """``ROLE=TOPIC`` as topics by role.

    Raises:
        typer.BadParameter: without a sign between the two.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (role, sign, topic) in zip(texts, pairs, strict=True):
        if not (role and sign and topic):
            raise typer.BadParameter(f"{text!r} is not ROLE=TOPIC, such as image=/camera/image_raw")
    return {role: topic for role, _, topic in pairs}


@app.command()
def locate(
    mission: Annotated[Path, typer.Argument(metavar="MISSION", help="The mission folder, as cvgl-prepare made it.")],
    flight: Annotated[
        Path,
        typer.Argument(
            metavar="FLIGHT", help="A folder with frames/ and frames.csv, a folder of photos, a photo, or a rosbag2."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="The folder to write the results to.")],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON,SIGMA_M",
            help="Where the aircraft may be at first. Without it: anywhere on the map.",
        ),
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Treat every frame as the first: no tracking.")
    ] = False,
    height: Annotated[
        float | None,
        typer.Option(min=1.0, help="Metres above ground, for frames that do not tell theirs (photos: 50)."),
    ] = None,
    heading: Annotated[
        str | None,
        typer.Option(
            metavar="DEG|unknown",
            help="Heading for frames that do not tell theirs; 'unknown' ignores recorded ones too.",
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=TOPIC",
            help="Of a rosbag2 that leaves a choice: image, attitude, height or position; more than once.",
        ),
    ] = None,
    bag: Annotated[
        Path | None, typer.Option(help="Write the fixes as a rosbag2 too: MCAP if the name ends so, else sqlite3.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with. Default: the localiser's own.")
    ] = None,
) -> None:
    """Localise a recorded flight and write fixes.csv, track.geojson, summary.json and report.html.

    Positions recorded with the flight are only compared with; they are never used to localise.

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.
    """
    prior = None if start is None else parse_start(start)
    direction = None if heading is None else parse_heading(heading)
    if bag is not None and bag.exists():
        raise typer.BadParameter(f"{bag} is there already", param_hint="--bag")
    from cvgl import Localizer

    began = time.time()
    localizer = Localizer.open(mission, threads=threads)
    frames = Flight.open(
        flight,
        localizer.camera,
        height=height,
        heading=direction,
        ignore_heading=heading is not None and direction is None,
        topics=parse_topics(topic or []),
    )
    camera = frames.camera or localizer.camera
    if camera != localizer.camera:
        localizer.camera = camera
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"cannot write there: {error.strerror}", param_hint="--out") from error
    fixes, decode_ms = _with_progress(localizer, frames, prior, independent)
    run = {
        "mission": {"path": str(mission), "fingerprint": mission_fingerprint(mission)},
        "flight": str(flight),
        "mode": "independent" if independent else "tracking",
        "start": None
        if prior is None
        else {"latitude": prior.latitude, "longitude": prior.longitude, "sigma_m": prior.sigma_m},
        "options": {"height_m": height, "heading": heading, "threads": threads},
        "engine": localizer.model.runtime,
        "notes": list(frames.notes),
        "started": datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds"),
        "took_s": round(time.time() - began, 1),
        "versions": versions(),
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()},
    }
    summary = summarise(frames.records, fixes, decode_ms=decode_ms, run=run)
    _write(out, localizer.gallery, camera, frames, fixes, summary)
    if bag is not None:
        from cvgl.ros.bag import write_bag

        write_bag(bag, fixes, [record.time for record in frames])
    _tell(out, summary)


def _with_progress(
    localizer: Locator, flight: Flight, prior: Prior | None, independent: bool
) -> tuple[list[Fix], list[float]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts = {"refined": 0, "coarse": 0, "no_fix": 0}
    columns = (
        TextColumn("locating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(flight), tally="")

        def on_fix(fix: Fix) -> None:
            counts[fix.status.value] += 1
            tally = "{refined} refined, {coarse} coarse, {no_fix} no fix".format(**counts)
            progress.update(task, advance=1, tally=tally)

        return locate_flight(localizer, flight, start=prior, independent=independent, on_fix=on_fix)


def _write(
    out: Path, gallery: Gallery, camera: Camera, flight: Flight, fixes: list[Fix], summary: dict[str, Any]
) -> None:
    from cvgl.gallery.manifest import OVERVIEW
    from cvgl.report import Overview, write_report

    write_fixes(out / "fixes.csv", flight.records, fixes)
    write_geojson(out / "track.geojson", flight.records, fixes, camera)
    write_json(out / "summary.json", summary)
    place = gallery.manifest.overview
    overview = Overview.read(gallery.verified(OVERVIEW), place.gsd_m, place.west, place.north, gallery.local)
    write_report(
        out / "report.html",
        flight.records,
        fixes,
        {**summary, "run": {name: value for name, value in summary["run"].items() if name != "notes"}},
        overview=overview,
        camera=camera,
        title=flight.path.resolve().name,
        notes=flight.notes,
        attribution=gallery.manifest.attribution,
    )


def _tell(out: Path, summary: dict[str, Any]) -> None:
    counts, latency = summary["counts"], summary["latency_ms"]
    typer.echo("{frames} frames: {refined} refined, {coarse} coarse, {no_fix} no fix".format(**counts))
    for kind, label in (("center", "image centre"), ("aircraft", "aircraft")):
        reference = summary["reference"][kind]
        if reference is not None and reference["refined_m"]["count"]:
            typer.echo(
                f"{label}: median error {reference['refined_m']['p50']:.1f} m, 95 % within "
                f"{reference['refined_m']['p95']:.1f} m, {100 * reference['refined_within_10m']:.0f} % of "
                f"{reference['frames']} refined within 10 m"
            )
    if latency["count"]:
        typer.echo(f"latency: median {latency['p50']:.1f} ms, 95 % within {latency['p95']:.1f} ms")
    for note in summary["run"]["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"{out / 'report.html'}")


def app_main() -> None:
    """The ``cvgl-locate`` command."""
    main(app)
