"""A procedural place as the files a mission starts from: a georeferenced map and a flight over it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.files import atomic_folder, atomic_path
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu

from .appearance import Appearance
from .render import render_frame, render_grid
from .scene import World
from .shapes import along, arc_length, densify, tangents

if TYPE_CHECKING:
    from cvgl.camera import Camera

WORLD_TAG = "CVGL_WORLD"
"""Tag of a map's file that tells seed, size, style and place of the world that it shows, as JSON."""

SPEED_M_S = 10.0
"""Ground speed of a simulated survey flight; together with the distance between frames it gives their
times."""

COLUMNS = (
    "file",
    "time",
    "gps_latitude",
    "gps_longitude",
    "height_above_takeoff_m",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "image_center_latitude",
    "image_center_longitude",
)


def utm_epsg(latitude: float, longitude: float) -> int:
    """EPSG code of the WGS84 UTM zone of a place (the regular six-degree zones)."""
    return (32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) % 60 + 1


def write_map(
    world: World,
    path: str | Path,
    gsd: float = 0.3,
    latitude: float = 47.0,
    longitude: float = 9.5,
    appearance: Appearance | None = None,
) -> Path:
    """Write the world's satellite map as a GeoTIFF in the UTM zone of the place, RGB, tiled and compressed.

    `gsd` in m/px of the UTM grid; the world's origin lies at `latitude`, `longitude` (WGS84 degrees). Grid
    north is not true north, so the square world stands slightly turned in its map; beyond its edges the land
    goes on a little.
    """
    import rasterio
    from rasterio.warp import transform

    look = appearance or Appearance.random(np.random.default_rng([world.seed, 21]), "satellite")
    epsg = utm_epsg(latitude, longitude)
    half = 0.5 * world.size_m
    grid = np.linspace(-half, half, 5)
    east, north = (axis.ravel() for axis in np.meshgrid(grid, grid))
    lat, lon = LocalFrame(latitude, longitude).to_wgs84(east, north)
    utm = np.column_stack(transform("EPSG:4326", f"EPSG:{epsg}", lon, lat))
    # Over a kilometre or two the two projections differ by a similarity to within millimetres.
    fit, *_ = np.linalg.lstsq(np.column_stack([east, north, np.ones_like(east)]), utm, rcond=None)
    low, high = utm.min(axis=0), utm.max(axis=0)
    width, height = (int(n) for n in np.ceil((high - low) / gsd))
    image = render_grid(world, look, float(low[0]), float(high[1]), width, height, gsd, fit.T)
    path = Path(path)
    with (
        atomic_path(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=3,
            dtype="uint8",
            crs=f"EPSG:{epsg}",
            transform=rasterio.Affine(gsd, 0, low[0], 0, -gsd, high[1]),
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            predictor=2,
            photometric="RGB",
        ) as file,
    ):
        file.write(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        place = {"seed": world.seed, "size_m": world.size_m, "style": world.style}
        file.update_tags(
            SOURCE=f"procedural world {world.style} {world.seed}",
            ATTRIBUTION="generated, no rights reserved",
            # From this the world itself can be made again, to be flown over (cvgl.sim.closed.ground).
            **{WORLD_TAG: json.dumps({**place, "latitude": latitude, "longitude": longitude})},
        )
    return path


def survey_path(reach_m: float, turn_deg: float, legs: int) -> NDArray[np.float64]:
    """A lawn-mower track (N, 2) in ENU metres inside a square of half side `reach_m` turned by `turn_deg`."""
    pitch = 2 * reach_m / max(legs - 1, 1)
    radius = min(0.5 * pitch, 0.5 * reach_m)
    bend = np.linspace(-np.pi / 2, np.pi / 2, 13)
    points: list[NDArray[np.float64]] = []
    for k in range(legs):
        y = -reach_m + k * pitch
        side = 1.0 if k % 2 == 0 else -1.0
        end = reach_m - radius
        points.append(np.array([[-side * end, y], [side * end, y]]))
        if k < legs - 1:
            points.append(
                np.stack([side * (end + radius * np.cos(bend)), y + 0.5 * pitch * (1 + np.sin(bend))], axis=1)[1:-1]
            )
    track = densify(np.concatenate(points), 4.0)
    a = np.radians(turn_deg)
    return track @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def _smooth(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float64]:
    """Slowly varying noise (count,), standard deviation 1."""
    raw = rng.standard_normal(count + 4 * width)
    kernel = np.hanning(2 * width + 1)
    return np.convolve(raw, kernel / np.sqrt(np.sum(kernel**2)), mode="same")[2 * width : 2 * width + count]


def write_flight(
    world: World,
    folder: str | Path,
    camera: Camera,
    *,
    latitude: float,
    longitude: float,
    frames: int = 40,
    height_m: float = 120.0,
    seed: int = 0,
    heading_sigma_deg: float = 3.0,
    height_sigma_m: float = 2.0,
    tilt_sigma_deg: float = 1.0,
    appearance: Appearance | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fly a survey over the world and write the flight folder: frames/*.jpg, frames.csv, camera.yaml.

    Heading and height are recorded with errors of the given sigmas, half of them constant over the flight, as
    compasses and barometers err. A stabilised camera hangs level but for `tilt_sigma_deg`, which nobody
    records, while the recorded pitch and roll are the vehicle's; a fixed camera moves with the vehicle, whose
    pitch and roll are recorded with errors of that size. `gps_*` and `image_center_*` are the truth.
    `progress(done, total)` is called after every frame.

    Raises ValueError when the world is too small for this height and camera, or `frames` is not positive.
    """
    if frames < 1:
        raise ValueError(f"frames: found {frames}, expected 1 or more")
    rng = np.random.default_rng([seed, world.seed, 31])
    look = appearance or Appearance.random(rng, "drone")
    corners = np.array(
        [[0, 0], [camera.width - 1, 0], [camera.width - 1, camera.height - 1], [0, camera.height - 1]], float
    )
    level = camera.rays(corners) @ camera_to_enu(camera.mount, 0.0, 6.0, 6.0).T
    if np.any(level[:, 2] > -0.2):
        raise ValueError("camera: found a view near the horizon, expected one that looks down")
    footprint = height_m * 1.05 * float(np.max(np.hypot(level[:, 0], level[:, 1]) / -level[:, 2]))
    half = 0.5 * world.size_m
    turn = float(rng.uniform(0, 360))
    # A turned square fits into the world's at this share of its size.
    share = 1 / (abs(np.cos(np.radians(turn))) + abs(np.sin(np.radians(turn))))
    reach = (half - footprint - 5.0) * share
    if reach < 10:
        raise ValueError(
            f"world: found {world.size_m:.0f} m, expected {2 * (footprint + 25):.0f} m or more for a "
            f"footprint that reaches {footprint:.0f} m at {height_m:.0f} m height"
        )
    legs = int(np.clip(round(np.sqrt(frames / 3.0)), 2, 12))
    track = survey_path(reach, turn, legs)
    total = float(arc_length(track)[-1])
    s = np.linspace(0, total, frames)
    place, tangent = along(track, s)
    course = np.degrees(np.arctan2(tangent[:, 0], tangent[:, 1]))
    heading = course + rng.normal(0, 2.0) + 2.0 * _smooth(rng, frames, 3)
    height = height_m + 1.5 * _smooth(rng, frames, 4)
    swing = tangents(np.column_stack([s, course]))[:, 1] if frames > 2 else np.zeros(frames)
    pitch = -4.0 + 1.2 * _smooth(rng, frames, 2)
    roll = 1.5 * _smooth(rng, frames, 2) + 3.0 * np.clip(swing, -1, 1)
    tilt = tilt_sigma_deg * (
        0.6 * rng.standard_normal(2) + 0.8 * np.stack([_smooth(rng, frames, 2), _smooth(rng, frames, 2)], axis=1)
    )
    seen = tilt if camera.stabilized else np.column_stack([pitch, roll])
    noted = np.column_stack([pitch, roll]) + (0.0 if camera.stabilized else tilt)
    split = np.sqrt(0.5)
    yaw = heading + heading_sigma_deg * split * (rng.standard_normal() + rng.standard_normal(frames))
    noted_height = height + height_sigma_m * split * (rng.standard_normal() + rng.standard_normal(frames))
    frame = LocalFrame(latitude, longitude)
    start = datetime(2024, 6, 1, 9, 0, 0, tzinfo=timezone.utc) + timedelta(days=int(rng.integers(0, 365)))
    name_width = max(4, len(str(frames)))
    with atomic_folder(folder) as out:
        (out / "frames").mkdir()
        camera.to_yaml(out / "camera.yaml")
        rows = []
        for i in range(frames):
            position = np.array([*place[i], height[i]])
            attitude = (float(heading[i]), float(seen[i, 0]), float(seen[i, 1]))
            image = render_frame(world, camera, position, attitude, replace(look, effect_seed=look.effect_seed + i))
            name = f"frame_{i + 1:0{name_width}d}.jpg"
            cv2.imwrite(str(out / "frames" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
            ray = camera_to_enu(camera.mount, *attitude) @ camera.rays(camera.center[None])[0]
            centre = position[:2] - ray[:2] * position[2] / ray[2]
            (lat, center_lat), (lon, center_lon) = frame.to_wgs84(*np.stack([place[i], centre], axis=1))
            moment = start + timedelta(seconds=float(s[i]) / SPEED_M_S)
            rows.append(
                [
                    name,
                    moment.isoformat(timespec="milliseconds"),
                    f"{lat:.8f}",
                    f"{lon:.8f}",
                    f"{noted_height[i]:.2f}",
                    f"{(yaw[i] + 180) % 360 - 180:.2f}",
                    f"{noted[i, 0]:.2f}",
                    f"{noted[i, 1]:.2f}",
                    f"{center_lat:.8f}",
                    f"{center_lon:.8f}",
                ]
            )
            if progress is not None:
                progress(i + 1, frames)
        with open(out / "frames.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    return Path(folder)
