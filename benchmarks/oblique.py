"""How far off nadir a camera may look: simulated frames of a map at several tilts, localised one by one.

    python benchmarks/oblique.py MISSION MAP           # frames cut from the map: flat ground, other contrast and noise
    python benchmarks/oblique.py MISSION --world 5     # frames of a procedural town, with buildings seen aslant

The mission of a town is made where it is absent. What is said of a frame's heading, height, pitch and roll has errors.
Frames that are cut from the map show what geometry and resolution cost; the town's, what stands on the ground as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, run_app, write_record

from cvgl import Localizer
from cvgl.bench import machine
from cvgl.calibrate import simulated_frame, window
from cvgl.camera import Camera
from cvgl.fix import Fix, FixStatus
from cvgl.footprint import footprint
from cvgl.frame import Frame
from cvgl.geometry import camera_to_enu
from cvgl.ground import ground_offset
from cvgl.imagery import MapSource
from cvgl.sim import Appearance, World, render_frame, write_map
from cvgl.versions import versions
from cvgl_export.prepare import CheckSize, prepare

TILTS_DEG = (0.0, 15.0, 30.0, 45.0, 60.0)
# What telemetry is wrong by: standard deviations.
HEADING_SIGMA_DEG, HEIGHT_SIGMA, ATTITUDE_SIGMA_DEG = 3.0, 0.02, 1.0
FRAME_SIDE = 1000
# A procedural town: its side, where it lies, and how high it is flown over.
TOWN_M, PLACE, HEIGHT_M = 800.0, (47.0, 9.5), 100.0
# Shares of the footprint that must lie on the map.
ON_MAP = 0.97

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class View:
    """One simulated frame and the truth about it, metres in the gallery's local tangent plane."""

    frame: Frame
    middle: NDArray[np.float64]
    aircraft: NDArray[np.float64]


@app.command()
def oblique(
    mission: Annotated[Path, typer.Argument(help="A mission, as cvgl-prepare made it.")],
    map_path: Annotated[Path | None, typer.Argument(metavar="MAP", help="The map that it was made from.")] = None,
    world: Annotated[int | None, typer.Option(help="Fly over the procedural town of this seed instead.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="At each tilt.")] = 24,
    seed: Annotated[int, typer.Option(help="Of places, headings and errors.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Results go here.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Measure localisation at 0, 15, 30, 45 and 60 degrees off nadir."""
    if (map_path is None) == (world is None):
        raise typer.BadParameter("give either a map or --world")
    town = None if world is None else World.generate(world, TOWN_M, "suburban")
    if town is not None and not mission.is_dir():
        make_mission(town, mission)
    localizer = Localizer.open(mission, threads=threads)
    shrink = FRAME_SIDE / localizer.camera.width
    camera = localizer.camera.scaled_to(FRAME_SIDE, round(localizer.camera.height * shrink))
    where = mission.with_suffix(".tif") if map_path is None else map_path
    rows = []
    with MapSource.open(where) as source:
        for tilt in TILTS_DEG:
            rng = np.random.default_rng([seed, int(tilt)])
            views = simulate(source, localizer, camera, tilt, frames, rng, town)
            rows.append(judge(tilt, views, [localizer.locate(view.frame) for view in views], localizer))
            print(rows[-1], flush=True)
    result: dict[str, Any] = {
        "format_version": 1,
        "benchmark": "oblique",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "options": {"frames": frames, "seed": seed, "mission": mission.name, "map": where.name, "world": world},
        "errors": {"heading_deg": HEADING_SIGMA_DEG, "height": HEIGHT_SIGMA, "attitude_deg": ATTITUDE_SIGMA_DEG},
        "tilts": rows,
    }
    write_record(out, "oblique" if world is None else "oblique-town", result, page(result))


def simulate(
    source: MapSource,
    localizer: Localizer,
    camera: Camera,
    tilt: float,
    count: int,
    rng: np.random.Generator,
    town: World | None,
) -> list[View]:
    """Frames whose footprint lies on the map, at a tilt in the direction of image-up."""
    look = Appearance.random(rng, "drone")
    # The town's own origin in the map's local tangent plane.
    origin = np.array(source.local.to_local(*PLACE)) if town is not None else np.zeros(2)
    height, views = localizer.mission.height_m, []
    west, south, east, north = source.bounds
    tried = 0
    while len(views) < count and tried < 4000:
        tried += 1
        heading = float(rng.uniform(0, 360))
        rotation = camera_to_enu(camera.mount, heading, tilt)
        middle = rng.uniform((west, south), (east, north))
        aircraft = middle - ground_offset(camera, rotation, height, max_slant=2.0001)
        outline = footprint(camera, rotation, height, points_a_side=4) + aircraft
        inside = (outline >= (west, south)).all(axis=1) & (outline <= (east, north)).all(axis=1)
        if inside.mean() < 1.0:
            continue
        reach = 2.1 * float(np.hypot(*(outline - middle).T).max())
        image = window(source, *middle.tolist(), reach, source.native_gsd)
        if np.mean(image.rgba[..., 3] == 0) > 1 - ON_MAP and not _covered(image, outline):
            continue
        east_m, north_m = middle.tolist()
        picture = simulated_frame(image, east_m, north_m, height, heading, camera, rng, tilt_deg=(tilt, 0.0), light=0.0)
        picture = through_sensor(picture, rng)
        if town is not None:
            place = np.array([*(aircraft - origin), height])
            picture = render_frame(town, camera, place, (heading, tilt, 0.0), look)
        pitch, roll = (float(rng.normal(angle, ATTITUDE_SIGMA_DEG)) for angle in (tilt, 0.0))
        frame = Frame(
            picture,
            time=float(len(views)),
            height=height * float(rng.normal(1.0, HEIGHT_SIGMA)),
            heading=heading + float(rng.normal(0.0, HEADING_SIGMA_DEG)),
            # 60 degrees and a half would be refused: what is measured here is how well it does within its limits.
            pitch=min(pitch, 59.9),
            roll=roll if tilt < 59.0 else 0.0,
            name=f"{tilt:g}-{len(views)}",
        )
        views.append(View(frame, middle, aircraft))
    return views


def make_mission(town: World, mission: Path) -> None:
    """The town's map beside the mission, and the mission, with the model that ships."""
    camera = Camera.from_field_of_view(2000, 1500, 62.0)
    write_map(town, mission.with_suffix(".tif"), gsd=0.4, latitude=PLACE[0], longitude=PLACE[1])
    prepare(mission.with_suffix(".tif"), camera, HEIGHT_M, mission, adapt=False, check=CheckSize.of(30))


def through_sensor(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another contrast, blur and noise than the map's."""
    gain, gamma = rng.uniform(0.7, 1.2), rng.uniform(0.7, 1.4)
    soft = cv2.GaussianBlur(picture.astype(np.float32) / 255.0, (0, 0), float(rng.uniform(0.5, 1.2)))
    noisy = 255.0 * gain * soft**gamma + rng.normal(0.0, 8.0, picture.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def _covered(image: Any, outline: NDArray[np.float64]) -> bool:
    """Whether the map has data in (nearly) all of an outline."""
    polygon = (outline - (image.west, image.north)) / (image.gsd_m, -image.gsd_m) - 0.5
    seen = np.zeros(image.rgba.shape[:2], np.uint8)
    cv2.fillPoly(seen, [np.round(polygon).astype(np.int32)], 1)
    return bool(np.mean(image.rgba[seen > 0, 3] > 0) >= ON_MAP)


def judge(tilt: float, views: list[View], fixes: list[Fix], localizer: Localizer) -> dict[str, Any]:
    """Shares and errors of one tilt."""
    centers, aircraft = [], []
    for view, fix in zip(views, fixes, strict=True):
        if fix.status is FixStatus.REFINED:
            center = np.array(localizer.gallery.local.to_local(fix.center_latitude, fix.center_longitude))
            place = np.array(localizer.gallery.local.to_local(fix.latitude, fix.longitude))
            centers.append(float(np.hypot(*(center - view.middle))))
            aircraft.append(float(np.hypot(*(place - view.aircraft))))
    found = np.array(centers)
    return {
        "tilt_deg": tilt,
        "frames": len(views),
        "refined": len(found),
        "refined_within_10m": int((found <= 10.0).sum()),
        "refined_beyond_25m": int((found > 25.0).sum()),
        "median_center_m": round(float(np.median(found)), 2) if len(found) else None,
        "median_aircraft_m": round(float(np.median(aircraft)), 2) if aircraft else None,
        "bad_input": sum("attitude" in fix.reason for fix in fixes),
        "latency_p50_ms": round(float(np.median([fix.latency_ms for fix in fixes])), 1) if fixes else None,
    }


def page(result: dict[str, Any]) -> str:
    """The record for people."""
    names = list(result["tilts"][0])
    source = "a procedural town" if result["options"]["world"] is not None else "the map, flat"
    lines = [
        "# Tilt",
        "",
        f"{result['date']}, commit {result['commit']}, {result['machine']['processor']}. Simulated frames of {source}, "
        f"with errors of heading {HEADING_SIGMA_DEG:g}, attitude {ATTITUDE_SIGMA_DEG:g} degrees and height "
        f"{HEIGHT_SIGMA:.0%} (1 sigma).",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|" + " --- |" * len(names),
    ]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in result["tilts"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app)
