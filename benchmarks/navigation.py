"""What navigation must show: the real flight, its calibration, and thousands of simulated frames in closed loop.

    python benchmarks/navigation.py                              # everything: hours
    python benchmarks/navigation.py --only kidnap --frames 2000  # one section, smaller
    python benchmarks/navigation.py --only consistency --jobs 4  # goes on where it was interrupted

Each section is kept in the record as soon as it is done, with its own date and commit; sections that are not run again
stay. It wants the missions that benchmarks/fengyuan.py leaves, and the data beside the project (CVGL_DATA).
"""

from __future__ import annotations

import enum
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from fengyuan import CAMERA, HEIGHT_M, run
from navigation_report import as_markdown, draw
from peers_area import make_missions, open_plane
from record import ROOT, commit, on_machine, run_app, slug, write_record
from scoring import judge_flight

from cvgl.bench import machine, open_flight
from cvgl.cli.locate import locate_flight
from cvgl.errors import MissionError
from cvgl.files import atomic_path, read_json
from cvgl.fix import Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.localizer import Localizer
from cvgl.mission import Mission
from cvgl.results import center_errors, error_metres, fix_row, nees, summarise
from cvgl.sim import World, write_map
from cvgl.sim.closed import PRESETS, Run, Scenario, perform, preset, score
from cvgl.sim.closed.baselines import BASELINES
from cvgl.sim.closed.fly import frame_camera
from cvgl.sim.closed.ground import Ground, MapGround
from cvgl.sim.closed.rows import Rows
from cvgl.sim.closed.rows import nees as nees_of
from cvgl.sim.closed.score import recoveries
from cvgl.versions import versions

# The EXIF's 24 mm equivalent, at the width of these frames.
EXIF_FOCAL_PX, TRUE_FOCAL_PX = 1333.0, 1571.0
# After a landing the gimbal hung otherwise.
WHOLE = "whole flight, one lens; the first part's mount"
PARTS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "first flight": ("--last", "DJI_045.jpg"),
    "later flights": ("--first", "DJI_047.jpg"),
}
FIRST_TILT_DEG = 9.0
# RMS distances from the truth, within which the references of the images' middles are said to be good.
REFERENCE_M = (1.0, 2.0)

AREA_KM2 = 25.0
# Each flight begins lost, anywhere, and is displaced to anywhere half way through.
KIDNAPPED_FRAMES = 60
WORLD_SEED, WORLD_M, WORLD_STYLE, WORLD_PLACE = 11, 1200.0, "mixed", (47.0, 9.5)
DJI_HEIGHT_M = 100.0
# Of simulated frames, pixels along the longest side: half as fine again as what registration reads, and cheap to make.
FRAME_SIDE = 384
# Errors that last otherwise than the filter reckons with; a share of the section's frames each.
DEPARTURES = ("white-errors", "constant-errors", "loose-gimbal")
DEPARTURE_SHARE, LEAST_DEPARTURE = 30, 600
LOSSES = (
    "nominal",
    "heading-unknown",
    "wrong-height",
    "wrong-heading",
    "no-velocity",
    "biased-velocity",
    "wind",
    "dropouts",
    "clouds",
    "dark",
    "blur",
    "drift",
    "loose-gimbal",
    "off-map",
)

app = typer.Typer(add_completion=False)


class Section(str, enum.Enum):
    """What can be run by itself."""

    FENGYUAN = "fengyuan"
    CALIBRATION = "calibration"
    CONSISTENCY = "consistency"
    KIDNAP = "kidnap"
    LOSSES = "losses"
    BASELINES = "baselines"


# Frames of each section where --frames does not say otherwise.
FRAMES = {
    Section.CONSISTENCY: 102_000,
    Section.KIDNAP: 24_000,
    Section.LOSSES: 1_000 * len(LOSSES),
    Section.BASELINES: 2_000,
}


@dataclass(frozen=True)
class Work:
    """What every section gets.

    Args:
        data: flights/ and maps/.
        mission: of the Fengyuan map.
        folder: everything that is made goes here.
        peers: folder of the towns and larger missions, shared with benchmarks/peers.py.
        frames: of a simulated section; None for its own number.
        seed: of simulations.
        jobs: processes.
    """

    data: Path
    mission: Path
    folder: Path
    peers: Path
    frames: int | None
    seed: int
    jobs: int

    @property
    def photos(self) -> Path:
        """The Fengyuan flight and its map."""
        return self.data / "flights" / "fengyuan"

    def frames_of(self, section: Section) -> int:
        """How many frames a section simulates."""
        return FRAMES[section] if self.frames is None else self.frames


@app.command()
def navigation(
    only: Annotated[list[Section] | None, typer.Option(help="Sections to run; repeat for several.")] = None,
    frames: Annotated[
        int | None, typer.Option(min=100, help="Of each simulated section.", show_default="as the issue asks")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulations.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Flights in the air at a time.")] = max(
        1, (os.cpu_count() or 2) // 2
    ),
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/ and maps/.")
    ] = ROOT.parent / "shared",
    mission: Annotated[Path, typer.Option(help="An adapted mission of the Fengyuan map.")] = ROOT
    / "build"
    / "fengyuan"
    / "adapted-10min-seed0",
    work: Annotated[
        Path, typer.Option(help="Missions, worlds and flights go here; what is there is used again.")
    ] = ROOT / "build" / "navigation",
    peers: Annotated[Path, typer.Option(help="Towns and larger missions, shared with benchmarks/peers.py.")] = ROOT
    / "build"
    / "peers",
    out: Annotated[Path, typer.Option(help="Results go here, as JSON, Markdown and figures.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure what navigation promises, section by section.

    fengyuan: the real flight, one frame at a time and as a sequence.
    calibration: the camera from the EXIF's focal length, 18 % wrong.
    consistency: are covariances and protection radii true, over simulated flights?
    kidnap: started anywhere on 25 km2.
    losses: what wrong heights, headings, weather, gaps and flights off the map each cost; single frames off the map
        are benchmarks/integrity.py's.
    baselines: the same frames answered in other ways.
    """
    if not (data / "flights" / "fengyuan" / "map.tif").is_file():
        raise typer.BadParameter(f"no flights/fengyuan/map.tif in {data}", param_hint="--data")
    if not mission.is_dir():
        raise MissionError("no such mission", file=mission, expected="one made by benchmarks/fengyuan.py")
    about = machine()
    given = Work(data, mission, work, peers, frames, seed, jobs)
    name = on_machine("navigation", about)
    file = out / f"{name}.json"
    result: dict[str, Any] = {"format_version": 1, "benchmark": "navigation", "sections": {}}
    if file.is_file():
        result = read_json(file, MissionError)
    for section in only or list(Section):
        say(f"== {section.value}")
        # Before it: a long run goes on with the code that it began with.
        began, code = time.monotonic(), commit()
        found = SECTIONS[section](given)
        result["machine"] = about
        result["sections"][section.value] = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": code,
            "versions": versions(),
            "seed": seed,
            "seconds": round(time.monotonic() - began, 1),
            **found,
        }
        result["targets"] = targets(result["sections"])
        figures = {}
        for title in draw(result["sections"], None):
            figures[title] = f"{name}-{title}.svg"
            with atomic_path(out / figures[title]) as temporary:
                draw(result["sections"], {title: temporary})
        write_record(out, name, result, as_markdown(result, figures))


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def real_flight(work: Work) -> dict[str, Any]:
    """Fengyuan, every frame by itself and as a sequence."""
    found: dict[str, Any] = {}
    localizer = Localizer.open(work.mission, threads=1)
    flight = open_flight(localizer, work.photos)
    for name in ("independent", "sequence"):
        fixes, _ = locate_flight(localizer, flight, independent=name == "independent")
        rows = [fix_row(record, fix) for record, fix in zip(flight.records, fixes, strict=True)]
        told = summarise(flight.records, fixes)
        found[name] = {
            **judge_flight(flight.records, rows),
            "consistency": {kind: told["reference"][kind]["consistency"] for kind in ("center", "aircraft")},
            "on_map": on_map_consistency(flight.records, fixes, localizer.mission.settings.map_sigma_m),
            "latency_ms": told["latency_ms"],
        }
        position = [row["status"] != "no_fix" for row in rows]
        found[name]["available_after_three"] = round(float(np.mean(position[3:])), 4)
        found[name]["aircraft_beyond_50m"] = [
            record.name
            for record, row in zip(flight.records, rows, strict=True)
            if row["status"] != "no_fix" and _apart(record, row) > 50.0
        ]
    return found


def on_map_consistency(records: Sequence[FrameRecord], fixes: Sequence[Fix], map_sigma_m: float) -> dict[str, Any]:
    """Whether the covariances of the image's middle are true, where its reference was measured on the same map.

    A fix's covariance holds what the map's georeference may be off by. A reference that was itself found on the map is
    off by the same, so that it does not show: it is taken out of the covariance. What does show is the reference's own
    error. It is good to 1 to 2 m, here taken as the RMS distance, which goes on top; what our own covariance is beside
    that decides little, so the ratio is told for both ends, and for a reference without any error, which is not so.

    Returns:
        ``count``, ``own_sigma_m`` (median, without the map's part), ``error_m`` (RMS on each axis), and ``ratio``: mean
        NEES over its expectation by the reference's error in metres.
    """
    errors = center_errors(records, fixes)
    kept = [
        index
        for index, fix in enumerate(fixes)
        if fix.status is FixStatus.REFINED and fix.center_covariance is not None and np.isfinite(errors[index]).all()
    ]
    own = [np.asarray(fixes[index].center_covariance) - map_sigma_m**2 * np.eye(2) for index in kept]
    ratio = {}
    for reference_m in (0.0, *REFERENCE_M):
        extra = reference_m**2 / 2 * np.eye(2)
        squared = [nees(errors[index], covariance + extra) for index, covariance in zip(kept, own, strict=True)]
        ratio[f"{reference_m:g}"] = round(float(np.mean(squared)) / 2, 3) if kept else None
    return {
        "count": len(kept),
        "own_sigma_m": round(float(np.median([math.sqrt(np.trace(each) / 2) for each in own])), 3) if kept else None,
        "error_m": round(float(np.sqrt((errors[kept] ** 2).mean())), 3) if kept else None,
        "ratio": ratio,
    }


def _apart(record: FrameRecord, row: dict[str, str]) -> float:
    """Metres between the aircraft's answer and its GNSS; 0 without one."""
    if record.gps_latitude is None or record.gps_longitude is None:
        return 0.0
    found = float(row["latitude"]), float(row["longitude"])
    return float(np.hypot(*error_metres(*found, record.gps_latitude, record.gps_longitude)))


def calibration(work: Work) -> dict[str, Any]:
    """The camera from the flight itself, starting from the focal length that the EXIF tells."""
    found = {}
    for name, part in PARTS.items():
        out = work.folder / f"camera-{part[1].split('.')[0] if part else 'whole'}.yaml"
        focal = ["--focal", f"{EXIF_FOCAL_PX:g}"]
        run(["cvgl-camera", "calibrate", work.mission, work.photos, *focal, *part, "--out", out])
        told = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        estimates = {key.removesuffix("_1"): value for key, value in told["estimates"].items()}
        focal_px = estimates["focal_length"]["value"]
        found[name] = {
            "sights": told["sights"],
            "frames": told["frames"],
            "estimates": estimates,
            "changes": told["changes"],
            "settled": told["settled"],
            "focal_error": round(focal_px / TRUE_FOCAL_PX - 1, 4),
            "aircraft_error_m": told["aircraft_error_m"],
        }
    return {"exif_focal_px": EXIF_FOCAL_PX, "reference_focal_px": TRUE_FOCAL_PX, "parts": found}


def consistency(work: Work) -> dict[str, Any]:
    """Simulated flights whose sensors err as the mission's settings say: over a map, a rendered world, real tracks."""
    frames = work.frames_of(Section.CONSISTENCY)
    world, world_map = world_mission(work)
    places: dict[str, tuple[Path, Path, Path | None]] = {
        "Fengyuan, cut from the map": (work.mission, work.photos / "map.tif", None),
        "procedural world, rendered": (world, world_map, None),
    }
    dji, dji_map = dji_mission(work)
    for log in ("DJI_v12", "DJI_0017"):
        places[f"along {log}"] = (dji, dji_map, work.data / "flights" / "dji_srt" / f"{log}.SRT")
    share = {"Fengyuan, cut from the map": 1 / 3, "procedural world, rendered": 1 / 3}
    found, together = {}, []
    for name, (mission, map_file, log_file) in places.items():
        settings = Mission.open(mission).settings
        flown = fly(
            work,
            f"consistency-{name}",
            Run(
                mission,
                preset("nominal", settings),
                round(frames * share.get(name, 1 / 6)),
                flight_frames=300,
                seed=work.seed,
                map=map_file,
                trajectory=log_file,
                side=FRAME_SIDE,
            ),
        )["track"]
        found[name] = score(flown, protection_risk=settings.protection_risk)
        # One mission's flights must not be taken for another's.
        flown["flight"] += 100_000 * len(together)
        together.append(flown)
    settings, departures = Mission.open(work.mission).settings, {}
    for name in DEPARTURES:
        planned = _over_fengyuan(
            work, preset(name, settings), max(frames // DEPARTURE_SHARE, min(frames, LEAST_DEPARTURE)), 300
        )
        flown = fly(work, f"consistency-{name}", planned)["track"]
        departures[name] = {"changes": PRESETS[name], **score(flown, protection_risk=settings.protection_risk)}
    everything = np.concatenate(together)
    risk = settings.protection_risk
    return {
        "places": found,
        "departures": departures,
        "all": score(everything, protection_risk=risk),
        "nees_histogram": histogram(nees_of(everything)),
    }


def kidnap(work: Work) -> dict[str, Any]:
    """Started anywhere on 25 km2, lost, and displaced to anywhere; with and without a heading."""
    missions = make_missions(
        work.mission, work.photos / "map.tif", [AREA_KM2], work.peers, progress_line(), max(1, work.jobs)
    )
    ((area, mission),) = missions.items()
    settings = Mission.open(mission).settings
    found = {}
    for name, scenario in (
        ("heading known", preset("nominal", settings)),
        ("heading unknown", preset("heading-unknown", settings)),
    ):
        displaced = replace(scenario, kidnap_every=KIDNAPPED_FRAMES // 2)
        flown = fly(
            work,
            f"kidnap-{name}",
            Run(
                mission,
                displaced,
                work.frames_of(Section.KIDNAP) // 2,
                KIDNAPPED_FRAMES,
                work.seed,
                map=work.photos / "map.tif",
                side=FRAME_SIDE,
            ),
            open_map=over_plane,
        )["track"]
        frames, _, started = recoveries(flown)
        counts = [None if not np.isfinite(count) else int(count) for count in frames]
        found[name] = {
            **score(flown, protection_risk=settings.protection_risk),
            "frames_to_recover": {
                kind: [count for count, start in zip(counts, started, strict=True) if bool(start) is wanted]
                for kind, wanted in (("started", True), ("displaced", False))
            },
        }
    return {"area_km2": round(area, 2), "frames_a_run": KIDNAPPED_FRAMES // 2, "runs": found}


def over_plane(run_: Run, localizer: Localizer) -> Ground:
    """The plane of towns around the real map, for a mission of `make_missions`."""
    mission = localizer.mission
    if run_.map is None:
        raise MissionError("no map to put in the middle", field="map")
    plane = open_plane(mission.path, run_.map, mission.path.parent)
    return MapGround(plane, frame_camera(localizer.camera, run_.side), mission.height_m)


def losses(work: Work) -> dict[str, Any]:
    """The same flights once for each thing that can be wrong."""
    settings = Mission.open(work.mission).settings
    each = work.frames_of(Section.LOSSES) // len(LOSSES)
    found = {}
    for name in LOSSES:
        flown = fly(work, f"losses-{name}", _over_fengyuan(work, preset(name, settings), each))["track"]
        found[name] = {"changes": PRESETS[name], **score(flown, protection_risk=settings.protection_risk)}
    return {"scenarios": found}


def baselines(work: Work) -> dict[str, Any]:
    """The same frames answered in other ways, in an ordinary flight and with displacements."""
    settings = Mission.open(work.mission).settings
    frames = work.frames_of(Section.BASELINES) // 2
    xfeat = work.data / "models" / "xfeat_dense.onnx"
    network = xfeat if xfeat.is_file() else None
    found = {}
    for name in ("nominal", "kidnap"):
        planned = replace(_over_fengyuan(work, preset(name, settings), frames, 200), baselines=BASELINES, xfeat=network)
        flown = fly(work, f"baselines-{name}", planned)
        found[name] = {method: score(rows, protection_risk=settings.protection_risk) for method, rows in flown.items()}
    return {"scenarios": found, "features": "XFeat" if network else "SIFT"}


def _over_fengyuan(work: Work, scenario: Scenario, frames: int, flight_frames: int = 250) -> Run:
    return Run(work.mission, scenario, frames, flight_frames, work.seed, map=work.photos / "map.tif", side=FRAME_SIDE)


def fly(
    work: Work, name: str, planned: Run, open_map: Callable[[Run, Localizer], Ground] | None = None
) -> dict[str, Rows]:
    """Perform a run in a folder of its own, with a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Flights of other code are other flights, and stay where they are.
    code = planned.identity()["code"]
    folder = work.folder / "flights" / f"{slug(name)}-seed{work.seed}-{code[:8]}"
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=planned.frames)
        return perform(
            planned,
            folder,
            jobs=work.jobs,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
            open_map=open_map,
        )


def world_mission(work: Work) -> tuple[Path, Path]:
    """A mission of a procedural world and its map; made where they are not there."""
    map_file, mission = work.folder / "world.tif", work.folder / "world-mission"
    if not map_file.is_file():
        say("making up a world")
        write_map(World.generate(WORLD_SEED, WORLD_M, WORLD_STYLE), map_file, 0.3, *WORLD_PLACE)
    return _prepared(work, map_file, HEIGHT_M, mission), map_file


def dji_mission(work: Work) -> tuple[Path, Path]:
    """A mission of the map under the recorded trajectories, and that map: a folder of web tiles."""
    tiles = work.data / "maps" / "xyz_z18"
    return _prepared(work, tiles, DJI_HEIGHT_M, work.folder / "dji-mission"), tiles


def _prepared(work: Work, map_file: Path, height_m: float, mission: Path) -> Path:
    if not mission.is_dir():
        camera = work.folder / "camera.yaml"
        CAMERA.to_yaml(camera)
        run(["cvgl-prepare", map_file, "--camera", camera, "--height", f"{height_m:g}", "--no-adapt", "--out", mission])
    return mission


def progress_line() -> Callable[[str, int, int], None]:
    """Reports a stage by one line when it begins."""
    told: set[str] = set()

    def report(stage: str, done: int, total: int) -> None:
        if stage not in told:
            told.add(stage)
            say(f"{stage}: {total}")

    return report


def histogram(values: np.ndarray) -> dict[str, list[float]]:
    """Shares of the finite values in bins of half a unit up to 12; the last bin holds what is more."""
    finite = values[np.isfinite(values)]
    edges = np.linspace(0, 12, 25)
    counts, _ = np.histogram(np.minimum(finite, 11.999), edges)
    return {"edges": edges.tolist(), "shares": (counts / max(len(finite), 1)).round(5).tolist()}


def targets(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """What the issue asks, what was found, and whether it is met."""
    rows: list[dict[str, Any]] = []

    def add(what: str, found: Any, asked: str, met: bool) -> None:
        rows.append({"what": what, "found": found, "asked": asked, "met": bool(met)})

    if (flight := sections.get("fengyuan")) is not None:
        own, sequence = flight["independent"], flight["sequence"]
        share, median, p95 = own["refined_within_10m"], own["median_m"], own["p95_m"]
        add("Fengyuan, one at a time: refined within 10 m of the reference", share, "1", share == 1.0)
        add("Fengyuan: median error, m", median, "<= 1.2", median is not None and median <= 1.2)
        add("Fengyuan: 95th percentile, m", p95, "<= 4", p95 is not None and p95 <= 4.0)
        far = len(own["refined_beyond_25m"]) + len(own["refined_beyond_gps_slack"])
        add("Fengyuan: refined more than 25 m off (35 m of GNSS without a reference)", far, "0", far == 0)
        available, gone = sequence["available_after_three"], len(sequence["aircraft_beyond_50m"])
        add("Fengyuan as a sequence: available after three fixes", available, "1", available == 1.0)
        add("Fengyuan as a sequence: answers over 50 m off GNSS", gone, "0", gone == 0)
        mean = own["consistency"]["aircraft"]["mean_nees"]
        ratios = {"aircraft": None if mean is None else round(mean / 2, 3)}
        for reference_m in REFERENCE_M if "on_map" in own else ():
            ratios[f"image's middle on the map, reference good to {reference_m:g} m"] = own["on_map"]["ratio"][
                f"{reference_m:g}"
            ]
        for what, ratio in ratios.items():
            met = ratio is not None and 0.8 <= ratio <= 1.25
            add(f"Fengyuan: NEES over expectation, {what}", ratio, "0.8 to 1.25", met)
    if (camera := sections.get("calibration")) is not None:
        for name, part in camera["parts"].items():
            off, errors = part["focal_error"], part["aircraft_error_m"]
            add(f"calibration, {name}: focal length off by", off, "within 0.02", abs(off) <= 0.02)
            before, after = errors["before"]["p50"], errors["after_held_out"]["p50"]
            add(f"calibration, {name}: median to GNSS after, m", round(after, 2), f"< {before:.2f}", after < before)
        tilt = camera["parts"]["first flight"]["estimates"].get("mount_pitch", {}).get("value")
        met = tilt is not None and abs(tilt - FIRST_TILT_DEG) <= 1.0
        add("calibration, first flight: forward tilt, degrees", tilt, "8 to 10", met)
    if (true := sections.get("consistency")) is not None:
        every = true["all"]
        ratio = every["consistency"]["answers"]["value"]
        add("simulation: frames", every["frames"], ">= 100000", every["frames"] >= 100_000)
        add("simulation: NEES over expectation", ratio, "0.8 to 1.25", ratio is not None and 0.8 <= ratio <= 1.25)
        if (radius := every["protection"]) is not None:
            share, risk = radius["exceeded"]["value"], radius["stated_risk"]
            add("simulation: protection radius exceeded", share, f"<= {risk:g}", share <= risk)
    if (off_map := sections.get("losses", {}).get("scenarios", {}).get("off-map")) is not None:
        share = off_map["false_fixes"]["off_map"]["value"]
        add("flights that leave the map: false fixes off it", share, "< 0.001", share is not None and share < 1e-3)
    if (lost := sections.get("kidnap")) is not None:
        for kind, words in (("start", "started"), ("kidnap", "displaced to")):
            share = lost["runs"]["heading known"]["recovery"][kind]["within_10_frames"]["value"]
            what = f"{words} anywhere on {lost['area_km2']:g} km2: localised within 10 frames"
            add(what, share, ">= 0.95", share is not None and share >= 0.95)
    return rows


SECTIONS: dict[Section, Callable[[Work], dict[str, Any]]] = {
    Section.FENGYUAN: real_flight,
    Section.CALIBRATION: calibration,
    Section.CONSISTENCY: consistency,
    Section.KIDNAP: kidnap,
    Section.LOSSES: losses,
    Section.BASELINES: baselines,
}


if __name__ == "__main__":
    run_app(app)
