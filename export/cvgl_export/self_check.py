"""What a new mission is worth: simulated views retrieved on it, simulated frames localised with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.calibrate import simulated_frame, window
from cvgl.camera import Camera
from cvgl.fix import FixStatus
from cvgl.footprint import footprint_sides
from cvgl.frame import Frame
from cvgl.gallery import Gallery
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.model import Model
from cvgl.sim.views import MapImage, ViewSettings, drone_view

__all__ = ["SELF_CHECK", "check_frames", "check_retrieval", "worries"]

SELF_CHECK = "selfcheck.json"
"""File of a mission that holds what was found."""

_FRAME_SIDE = 500
_WITHIN_M = 10.0
_WORRYING = 0.5


def check_retrieval(
    source: MapSource,
    model: Model,
    gallery: Gallery,
    drone: ViewSettings,
    count: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Retrieval of simulated views that no training has seen, anywhere on the gallery's area.

    Args:
        source: the map.
        model, gallery: what is checked.
        drone: how views are simulated.
        count: of views.
        seed: decides places and views.
        progress: called with views done and views in all.

    Returns:
        The shares ``R@1``, ``R@5``, ``R@20`` of views of which one of so many tiles has its centre within half a
        tile, and that distance; and the views' descriptors (count, D).
    """
    places = _places(gallery, count, np.random.default_rng([seed, 41]))
    patches, masks = [], []
    for number, place in enumerate(places):
        rgb, mask = _view(source, place, drone, seed, number)
        patches.append(rgb[..., ::-1])
        masks.append(mask)
        if progress is not None:
            progress(number + 1, count)
    descriptors = model.embed(np.ascontiguousarray(np.stack(patches)), np.stack(masks))
    tiles, _ = gallery.exact(descriptors, 20)
    within = gallery.manifest.tile_size_m / 2
    right = np.linalg.norm(np.asarray(gallery.tiles)[tiles] - places[:, None], axis=2) <= within
    shares = {f"R@{k}": round(float(right[:, :k].any(axis=1).mean()), 4) for k in (1, 5, 20)}
    return {"views": count, "within_m": round(within, 1), **shares}, descriptors


def check_frames(
    localizer: Localizer,
    source: MapSource,
    height_m: float,
    count: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Localise simulated frames as in flight: another light, and heading, height and tilt that are not quite as said.

    Args:
        localizer: of the mission.
        source: the map that the frames are made of.
        height_m: they are taken from, metres above ground.
        count: of frames.
        seed: decides places and frames.
        progress: called with frames done and frames in all.

    Returns:
        How many were answered how, the share that is refined within 10 m of the truth, how many refined ones are
        further off, and their median error in metres (None where there is none).
    """
    gallery, camera = localizer.gallery, localizer.camera
    # Tilted by ten degrees, a footprint reaches further than a level one.
    reach = 1.4 * math.hypot(*footprint_sides(camera, height_m))
    # Detail beyond the basemap's decides nothing.
    scale = min(1.0, _FRAME_SIDE / max(camera.width, camera.height))
    small = camera.scaled_to(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    answers = {status: 0 for status in FixStatus}
    errors: list[float] = []
    for number, place in enumerate(_places(gallery, count, np.random.default_rng([seed, 42]))):
        rng = np.random.default_rng([seed, 43, number])
        image = window(source, float(place[0]), float(place[1]), reach, gallery.basemap.gsd)
        fix = localizer.locate(_simulated(image, small, height_m, place, rng, number))
        answers[fix.status] += 1
        if fix.status is FixStatus.REFINED:
            east, north = gallery.local.to_local(fix.center_latitude, fix.center_longitude)
            errors.append(math.hypot(float(east) - place[0], float(north) - place[1]))
        if progress is not None:
            progress(number + 1, count)
    good = sum(error <= _WITHIN_M for error in errors)
    return {
        "frames": count,
        **{status.value: answers[status] for status in FixStatus},
        "refined_within_10m": round(good / max(count, 1), 4),
        "refined_beyond_10m": len(errors) - good,
        "median_error_m": round(float(np.median(errors)), 2) if errors else None,
    }


def worries(check: dict[str, Any]) -> list[str]:
    """What in a self-check should keep a mission on the ground, in words; usually nothing."""
    found = []
    if check["retrieval"]["R@20"] < _WORRYING:
        found.append(
            f"only {check['retrieval']['R@20']:.0%} of simulated views find their tile among 20: most frames will get"
            " no fix. More minutes of adaptation, or a map with more to see, would help."
        )
    frames = check["frames"]
    if frames["refined_within_10m"] < _WORRYING:
        found.append(f"only {frames['refined_within_10m']:.0%} of simulated frames are localised within 10 m.")
    if frames["refined_beyond_10m"] > 0.01 * frames["frames"]:
        found.append(f"{frames['refined_beyond_10m']} of {frames['frames']} simulated frames are placed over 10 m off.")
    return found


def _simulated(
    image: MapImage, camera: Camera, height_m: float, place: NDArray[np.float64], rng: np.random.Generator, number: int
) -> Frame:
    """A frame whose middle shows a place (easting, northing), and what telemetry that is a little wrong says of it."""
    errors = ViewSettings(camera, height_m, 1.0)
    heading = float(rng.uniform(0, 360))
    most = errors.heading_max_deg
    said = (heading + float(np.clip(rng.normal(0, errors.heading_sigma_deg), -most, most))) % 360.0
    most = errors.height_max
    height = height_m * (1 + float(np.clip(rng.normal(0, errors.height_sigma), -most, most)))
    tilt = min(abs(float(rng.normal(0, errors.tilt_sigma_deg))), errors.tilt_max_deg)
    direction = float(rng.uniform(0, 2 * math.pi))
    tilted = tilt * math.cos(direction), tilt * math.sin(direction)
    picture = simulated_frame(image, float(place[0]), float(place[1]), height, heading, camera, rng, tilt_deg=tilted)
    return Frame(picture, time=float(number), height=height_m, heading=said, name=f"simulated {number}")


def _places(gallery: Gallery, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 2) easting and northing, anywhere between the gallery's tiles."""
    tiles = np.asarray(gallery.tiles)[rng.integers(0, len(gallery), count)]
    return tiles + rng.uniform(-0.5, 0.5, (count, 2)) * gallery.manifest.stride_m


def _view(
    source: MapSource, place: NDArray[np.float64], drone: ViewSettings, seed: int, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A simulated view of a place, from a window of the map: the whole may not fit into memory."""
    easting, northing = float(place[0]), float(place[1])
    # Tilted by ten degrees, a view reaches a quarter further than a level one.
    image = window(source, easting, northing, 1.6 * drone.tile_px * drone.gsd_m, drone.gsd_m / 2)
    rgb, mask, _ = drone_view(image, easting, northing, drone, np.random.default_rng([seed, 44, number]))
    return rgb, mask
