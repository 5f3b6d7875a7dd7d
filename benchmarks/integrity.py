"""Whether what a fix says of itself is true: probability, covariance, protection radius, and the courage to say no.

    python benchmarks/integrity.py                                          # 250 frames of each kind
    python benchmarks/integrity.py --frames 4000                            # more; what is there is kept
    python benchmarks/integrity.py --frames 400 --off 4000                  # 4000 more looks off the map, cheaply
    python benchmarks/integrity.py --fengyuan MISSION --data ../shared      # with real photos marked in the figure

Frames are rendered from procedural places with leaning roofs, another day and sensor than their map's, and telemetry as
wrong as the settings state. Each place's frames are localised on its own map, on its own map with the tiles around
their place hidden, and on the map of another place of the same style. Looks off the map beyond these are cheap: each
frame of a place that is on no map is looked for on the maps of all. The laws were fitted by cvgl-prepare to other
pictures (cut from the map itself, other seeds).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from fengyuan import FOREIGN, own_camera
from integrity_report import as_markdown, draw
from record import ROOT, commit, run_app, write_record
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cvgl import Localizer
from cvgl.bench import machine
from cvgl.calibrate import RIGHT_M, hidden_circle
from cvgl.camera import Camera
from cvgl.files import atomic_path
from cvgl.fix import Alternative, Fix
from cvgl.flight import Flight
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu, wrap_degrees
from cvgl.ground import ground_offset
from cvgl.refine import REACH_STRIDES
from cvgl.results import nees
from cvgl.settings import Settings
from cvgl.sim import Appearance, World, render_frame, write_map
from cvgl.sim.closed.run import code_fingerprint
from cvgl.sim.closed.statistics import clopper_pearson
from cvgl.versions import versions

CAMERA = Camera.from_field_of_view(640, 480, 62.0)
HEIGHT_M = 100.0
SIZE_M = 800.0
LATITUDE, LONGITUDE = 47.0, 9.5
KINDS = ("own", "hidden", "elsewhere", "foreign")
# A frame over its own map is localised these ways; foreign looks are counted by themselves.
WAYS = KINDS[:3]
STAGES = ("not proposed", "not registered", "not the likeliest", "not believed")
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
BINS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)

app = typer.Typer(add_completion=False)
Row = dict[str, Any]


@app.command()
def integrity(
    frames: Annotated[int, typer.Option(min=10, help="Rendered frames; each is localised in three ways.")] = 250,
    off: Annotated[int, typer.Option(min=0, help="Further looks off the map.")] = 0,
    styles: Annotated[str, typer.Option(help="Of the procedural places, with commas between.")] = (
        "suburban,dense,rural,industrial"
    ),
    seed: Annotated[int, typer.Option(help="Of places and frames.")] = 100,
    fengyuan: Annotated[Path | None, typer.Option(help="A mission of the Fengyuan map, to mark real photos.")] = None,
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/, for --fengyuan.")
    ] = ROOT.parent / "shared",
    work: Annotated[Path, typer.Option(help="Maps, missions and frames' answers go here; what is there is kept.")] = (
        ROOT / "build" / "integrity"
    ),
    out: Annotated[Path, typer.Option(help="Results go here, as JSON, Markdown and SVG.")] = (
        ROOT / "benchmarks" / "results"
    ),
) -> None:
    """Judge probabilities, covariances, protection radii and refusals on frames whose truth is known."""
    names = [name.strip() for name in styles.split(",")]
    # Answers of other code are other answers, and stay where they are.
    folders = [work / f"{style}-{seed + number}-{code_fingerprint()[:8]}" for number, style in enumerate(names)]
    each = [frames // len(names) + (number < frames % len(names)) for number in range(len(names))]
    rows: list[Row] = []
    with bars() as bar:
        for number, style in enumerate(names):
            rows += place_rows(style, seed + number, each[number], folders[number], bar)
        rows += foreign_rows(names, seed, off, folders, bar)
    real = [] if fengyuan is None else real_rows(fengyuan, data / "flights", work)
    result: dict[str, Any] = {
        "format_version": 1,
        "benchmark": "integrity",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "options": {"frames": frames, "off": off, "styles": names, "seed": seed},
        "simulated": judge(rows),
        "by_style": {style: judge([row for row in rows if row["style"] == style]) for style in names},
        "lost": judge_lost(rows),
        "real": judge_real(real),
    }
    text = as_markdown(result)
    print(text)
    write_record(out, "integrity", result, text)
    with atomic_path(out / "integrity.svg") as file:
        draw(rows, real, result, file)


def bars() -> Progress:
    """Bars on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def place_rows(style: str, seed: int, count: int, folder: Path, bar: Progress) -> list[Row]:
    """The answers for a procedural place's frames, three a frame; those that are in ``rows.jsonl`` are read."""
    from cvgl_export.prepare import CheckSize, prepare

    folder.mkdir(parents=True, exist_ok=True)
    world = World.generate(seed, SIZE_M, style)
    if not (folder / "mission").is_dir():
        write_map(world, folder / "map.tif", gsd=0.4, latitude=LATITUDE, longitude=LONGITUDE)
        CAMERA.to_yaml(folder / "camera.yaml")
        check = CheckSize(views=32, frames=4)
        prepare(folder / "map.tif", folder / "camera.yaml", HEIGHT_M, folder / "mission", adapt=False, check=check)
    localizer = Localizer.open(folder / "mission")
    other = World.generate(seed + 5000, SIZE_M, style)

    def answer(number: int) -> list[Row]:
        return list(frame_rows(localizer, world, other, style, [seed, 50, number]))

    return kept_rows(folder / "rows.jsonl", answer, len(WAYS), count, bar, style)


def foreign_rows(styles: Sequence[str], seed: int, looks: int, folders: Sequence[Path], bar: Progress) -> list[Row]:
    """Frames of places that are on no map, each looked for on every place's map: one picture serves several looks."""
    if not looks:
        return []
    localizers = [Localizer.open(folder / "mission") for folder in folders]
    worlds = [World.generate(seed + 7000 + number, SIZE_M, style) for number, style in enumerate(styles)]

    def answer(number: int) -> list[Row]:
        return foreign_looks(localizers, styles, worlds, [seed, 60, number])

    return kept_rows(folders[0] / "foreign.jsonl", answer, len(folders), -(-looks // len(folders)), bar, "off the map")


def foreign_looks(
    localizers: Sequence[Localizer], styles: Sequence[str], worlds: Sequence[World], seed: list[int]
) -> list[Row]:
    """The answers of all maps to one frame of a place that is on none of them."""
    rng = np.random.default_rng(seed)
    style = seed[-1] % len(styles)
    taken = draw_pose(localizers[style], rng)
    look = Appearance.random(rng, "drone")
    picture = render_frame(worlds[style], CAMERA, taken.position, taken.attitude, look)
    frame = Frame(picture, 0.0, HEIGHT_M, heading=taken.said, name=f"{styles[style]} {seed[-1]}")
    return [
        row_of("foreign", on, localizer.locate(frame), localizer)
        for on, localizer in zip(styles, localizers, strict=True)
    ]


def kept_rows(
    file: Path, answer: Callable[[int], list[Row]], each: int, count: int, bar: Progress, name: str
) -> list[Row]:
    """Rows of a file, made and added where there are too few.

    Args:
        file: JSON, a row a line.
        answer: the rows of a frame by its number.
        each: rows a frame has.
        count: of frames.
        bar, name: shows how far it is.
    """
    rows: list[Row] = []
    if file.is_file():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    done = len(rows) // each
    del rows[each * done :]  # an interrupted frame's
    task = bar.add_task(name, total=count, completed=min(done, count))
    if done < count:
        with atomic_path(file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with open(file, "a", encoding="utf-8") as out:
            for number in range(done, count):
                fresh = answer(number)
                out.write("".join(json.dumps(row) + "\n" for row in fresh))
                out.flush()
                rows += fresh
                bar.advance(task)
    return rows[: each * count]


class Taken(NamedTuple):
    """Where and how a frame was taken, and the heading that it tells.

    Args:
        position: (3,) of the aircraft, east, north and up from the place's middle, metres.
        attitude: heading, pitch and roll, degrees.
        said: the heading that the frame tells, degrees.
    """

    position: np.ndarray
    attitude: tuple[float, float, float]
    said: float


def draw_pose(localizer: Localizer, rng: np.random.Generator) -> Taken:
    """Anywhere that is wholly on the map, with telemetry as wrong as the mission's settings state."""
    settings = localizer.mission.settings
    reach = SIZE_M / 2 - 0.75 * hidden_circle(localizer, 0.0, 0.0)[2]
    position = np.array([*rng.uniform(-reach, reach, 2), HEIGHT_M * (1 + settings.height_sigma * rng.normal())])
    heading = float(rng.uniform(0, 360))
    tilt = settings.tilt_sigma_deg * rng.normal(size=2)
    said = heading + settings.heading_sigma_deg * float(rng.normal())
    return Taken(position, (heading, float(tilt[0]), float(tilt[1])), said)


def frame_rows(localizer: Localizer, world: World, other: World, style: str, seed: list[int]) -> Iterator[Row]:
    """A frame over its own place, the same with its place hidden, and one over another place."""
    rng = np.random.default_rng(seed)
    taken = draw_pose(localizer, rng)
    position, attitude, said = taken.position, taken.attitude, taken.said
    look = Appearance.random(rng, "drone")
    middle = position[:2] + ground_offset(CAMERA, camera_to_enu(CAMERA.mount, *attitude), position[2])
    here = LocalFrame(LATITUDE, LONGITUDE)
    truth = [localizer.gallery.local.to_local(*here.to_wgs84(*place)) for place in (position[:2], middle)]
    aircraft, center = (np.array([float(value) for value in place]) for place in truth)
    name = f"{style} {seed[-1]}"
    own = Frame(render_frame(world, CAMERA, position, attitude, look), 0.0, HEIGHT_M, heading=said, name=name)
    away = Frame(render_frame(other, CAMERA, position, attitude, look), 0.0, HEIGHT_M, heading=said, name=name)
    row = row_of("own", style, localizer.locate(own), localizer, aircraft, center)
    yield row | {"errors": telemetry_errors(taken, localizer.mission.settings), "season": look.season}
    hidden = hidden_circle(localizer, float(center[0]), float(center[1]))
    yield row_of("hidden", style, localizer.locate_elsewhere(own, hidden), localizer)
    yield row_of("elsewhere", style, localizer.locate(away), localizer)


def row_of(
    kind: str,
    style: str,
    fix: Fix,
    localizer: Localizer,
    aircraft: np.ndarray | None = None,
    center: np.ndarray | None = None,
    map_known: bool = True,
) -> Row:
    """What is judged of an answer.

    Args:
        kind, style: of the frame.
        fix: the answer.
        localizer: that gave it.
        aircraft, center: (2,) where they truly are, metres in the gallery's plane; None off the map.
        map_known: whether the map has no error of its own, so that what the settings state of it does not count.
    """
    row: Row = {
        "kind": kind,
        "style": style,
        "name": fix.name,
        "status": fix.status.value,
        "reason": fix.reason_code.value,
        "probability": fix.probability,
        "log10_chance": fix.log10_chance,
        "log10_odds": round(fix.alternatives[0].log10_odds, 4) if fix.alternatives else None,
        "right": False,
    }
    if center is not None:
        row["stage"] = stage_of(fix, center, localizer)
    if not fix.alternatives or center is None:
        return row
    place = fix.alternatives[0]
    error = np.array([place.center_easting, place.center_northing]) - center
    row["center_m"] = math.hypot(*error)
    row["right"] = row["center_m"] <= RIGHT_M
    exact = (localizer.mission.settings.map_sigma_m**2 if map_known else 0.0) * np.eye(2)
    row["center_nees"] = nees(error, place.center_covariance - exact)
    if aircraft is not None:
        error = np.array([place.easting, place.northing]) - aircraft
        row["aircraft_m"] = math.hypot(*error)
        row["aircraft_nees"] = nees(error, place.covariance - exact)
    if fix:
        row["protection_m"] = fix.protection_radius_m if math.isfinite(fix.protection_radius_m) else None
    return row


def stage_of(fix: Fix, center: np.ndarray, localizer: Localizer) -> str:
    """Where a frame on the map lost its place, one of ``STAGES``; empty where it was found and believed."""
    reach = REACH_STRIDES * localizer.gallery.manifest.stride_m

    def right(place: Alternative) -> bool:
        return math.hypot(place.center_easting - center[0], place.center_northing - center[1]) <= RIGHT_M

    if fix and right(fix.alternatives[0]):
        return ""
    if not any(max(abs(c.easting - center[0]), abs(c.northing - center[1])) <= reach for c in fix.candidates):
        return STAGES[0]
    if not any(right(place) for place in fix.alternatives):
        return STAGES[1]
    return STAGES[3] if right(fix.alternatives[0]) else STAGES[2]


def telemetry_errors(taken: Taken, settings: Settings) -> dict[str, float]:
    """How wrong a frame's telemetry is, in the standard deviations that the settings state."""
    heading, pitch, roll = taken.attitude
    return {
        "heading": round(abs(float(wrap_degrees(taken.said - heading))) / settings.heading_sigma_deg, 3),
        "height": round(abs(taken.position[2] / HEIGHT_M - 1) / settings.height_sigma, 3),
        # Of two axes: the root mean square, so that one stands for as much as with one axis.
        "tilt": round(math.hypot(pitch, roll) / math.sqrt(2) / settings.tilt_sigma_deg, 3),
    }


def real_rows(mission: Path, flights: Path, work: Path) -> list[Row]:
    """Real photos: the flight over its own map, with its places hidden, and flights over other places."""
    localizer = Localizer.open(mission)
    camera, local, rows = localizer.camera, localizer.gallery.local, []
    for record in Flight.open(flights / "fengyuan", camera).records:
        frame = record.load()
        gps = np.array([float(v) for v in local.to_local(record.gps_latitude, record.gps_longitude)])
        center = gps
        if record.center_latitude is not None:
            center = np.array([float(v) for v in local.to_local(record.center_latitude, record.center_longitude)])
        row = row_of("own", "fengyuan", localizer.locate(frame), localizer, gps, center, map_known=False)
        row["reference"] = record.center_latitude is not None
        rows.append(row)
        hidden = hidden_circle(localizer, float(center[0]), float(center[1]))
        rows.append(row_of("hidden", "fengyuan", localizer.locate_elsewhere(frame, hidden), localizer))
    for place in FOREIGN:
        folder = work / f"flight-{place.flight}"
        localizer.camera = own_camera(flights / place.flight, place.focal, folder)
        for record in Flight.open(folder, localizer.camera, height=50.0, heading=0.0).records:
            fix = localizer.locate(record.load())
            rows.append(row_of("elsewhere", place.flight, fix, localizer))
    return rows


def judge(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts, rates with their exact 95 % intervals, reliability, consistency and protection."""
    own = [row for row in rows if row["kind"] == "own"]
    off = [row for row in rows if row["kind"] != "own"]
    fixed = [row for row in own if row["status"] != "no_fix"]
    right = [row for row in fixed if row["right"]]
    protected = [row for row in fixed if row.get("protection_m") is not None]
    beyond = sum(not row["right"] or row["aircraft_m"] > row["protection_m"] for row in protected)
    return {
        "frames": {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS},
        "status": {
            kind: {
                status: sum(row["kind"] == kind and row["status"] == status for row in rows)
                for status in ("refined", "coarse", "no_fix")
            }
            for kind in KINDS
        },
        "true_fixes": share(len(right), len(own)),
        "wrong_places": share(len(fixed) - len(right), len(own)),
        "false_fixes": {
            **{kind: share(_fixes(rows, kind), sum(row["kind"] == kind for row in rows)) for kind in KINDS[1:]},
            "all": share(sum(row["status"] != "no_fix" for row in off), len(off)),
        },
        "roc": [
            {
                "probability": least,
                "true": share(sum(row["right"] and row["probability"] >= least for row in own), len(own)),
                "false": share(sum(row["probability"] >= least for row in off), len(off)),
            }
            for least in THRESHOLDS
        ],
        "reliability": reliability(rows),
        "nees": {what: consistency(right, f"{what}_nees") for what in ("center", "aircraft")},
        "nees_coarse": {
            what: consistency([row for row in right if row["status"] == "coarse"], f"{what}_nees")
            for what in ("center", "aircraft")
        },
        "center_m": _percentiles([row["center_m"] for row in right]),
        "aircraft_m": _percentiles([row["aircraft_m"] for row in right]),
        "protection": {
            "radius_m": _percentiles([row["protection_m"] for row in protected]),
            "with_radius": share(len(protected), len(fixed)),
            "exceeded": share(beyond, len(protected)),
        },
        "reasons": {
            kind: {
                reason: sum(row["kind"] == kind and row["reason"] == reason for row in rows)
                for reason in sorted({row["reason"] for row in rows if row["kind"] == kind and row["reason"]})
            }
            for kind in KINDS
        },
    }


def judge_lost(rows: Sequence[Row]) -> dict[str, Any]:
    """Where true fixes are lost: at which stage and with what reason, by style, season and error of the telemetry."""
    own = [row for row in rows if row["kind"] == "own"]
    lost = [row for row in own if row["stage"]]
    found: dict[str, Any] = {
        "of": len(own),
        "stages": {stage: sum(row["stage"] == stage for row in lost) for stage in STAGES},
        "reasons": {
            reason: sum((row["reason"] or "another place is believed") == reason for row in lost)
            for reason in sorted({row["reason"] or "another place is believed" for row in lost})
        },
        "by": {},
    }
    for name in ("style", "season"):
        for value in sorted({row[name] for row in own}):
            there = [row for row in own if row[name] == value]
            found["by"][f"{name}: {value}"] = share(sum(not row["stage"] for row in there), len(there))
    for name in ("heading", "height", "tilt"):
        for low, high in ((0.0, 1.0), (1.0, 2.0), (2.0, math.inf)):
            there = [row for row in own if low <= row["errors"][name] < high]
            words = (
                f"{name} off by {low:g} to {high:g} sigma" if high < math.inf else f"{name} off by more than 2 sigma"
            )
            found["by"][words] = share(sum(not row["stage"] for row in there), len(there))
    return found


def judge_real(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The same for real photos, by flight; None without them."""
    if not rows:
        return None
    judged = judge(rows)
    flights: dict[str, Any] = {}
    for row in rows:
        told = flights.setdefault(f"{row['style']}, {row['kind']}", {"frames": 0, "fixes": 0, "likeliest": 0.0})
        told["frames"] += 1
        told["fixes"] += row["status"] != "no_fix"
        told["likeliest"] = max(told["likeliest"], round(row["probability"], 4))
    # The image's middle is judged where it has a reference of its own, and that is good to a metre or two.
    referenced = [row for row in rows if row.get("reference") and row["status"] != "no_fix" and row["right"]]
    return {**judged, "flights": flights, "center_referenced": consistency(referenced, "center_nees")}


def reliability(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of places said to be right with a probability, the share that are: own and other frames in equal number.

    As many frames off the map as on it is what the decision's ``proposed`` of one half states.
    """
    own = [row for row in rows if row["kind"] == "own"]
    off = [row for row in rows if row["kind"] != "own"]
    weight = len(own) / max(len(off), 1)
    found = []
    for low, high in pairwise(BINS):
        top = high if high < 1.0 else 1.1
        mine = [row for row in own if low <= row["probability"] < top]
        theirs = [row for row in off if low <= row["probability"] < top]
        total = len(mine) + weight * len(theirs)
        said = sum(row["probability"] for row in mine) + weight * sum(row["probability"] for row in theirs)
        found.append(
            {
                "from": low,
                "to": high,
                "own": len(mine),
                "off": len(theirs),
                "said": said / total if total else None,
                "right": sum(row["right"] for row in mine) / total if total else None,
            }
        )
    return found


def consistency(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Mean NEES over its expectation of 2, its 95 % interval, and the share inside the 95 % ellipse."""
    values = np.array([row[name] for row in rows if math.isfinite(row.get(name, math.nan))])
    if not values.size:
        return {"count": 0}
    ratio, spread = float(values.mean()) / 2, float(values.std(ddof=min(1, values.size - 1))) / 2
    half = 1.96 * spread / math.sqrt(values.size)
    return {
        "count": int(values.size),
        "ratio": round(ratio, 4),
        "low": round(ratio - half, 4),
        "high": round(ratio + half, 4),
        "median_ratio": round(float(np.median(values)) / (2 * math.log(2)), 4),
        "within_95_percent": round(float(np.mean(values <= -2 * math.log(0.05))), 4),
    }


def share(count: int, total: int) -> dict[str, Any]:
    """A count and its share with the exact 95 % interval (Clopper, Pearson)."""
    return {"count": count, "of": total, **clopper_pearson(count, total).to_dict()}


def _fixes(rows: Sequence[Row], kind: str) -> int:
    return sum(row["kind"] == kind and row["status"] != "no_fix" for row in rows)


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99, 100)}


if __name__ == "__main__":
    run_app(app)
