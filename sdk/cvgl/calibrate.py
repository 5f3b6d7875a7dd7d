"""What chance looks like on this map: frames of the map itself, searched where they were not taken.

The laws of chance of :class:`cvgl.settings.Decision` depend on the map (a town of equal blocks fools a matcher more
easily than a harbour) and on the camera's footprint, so ``cvgl-prepare`` measures them for every mission.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.footprint import footprint_sides
from cvgl.geometry import camera_to_enu
from cvgl.ground import ground_offset, ground_points
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.refine import REACH_STRIDES, TURNS_DEG, ask_features, examine, look, view_of
from cvgl.register import PoseSigmas
from cvgl.settings import Decision
from cvgl.sim.views import MapImage, relight

__all__ = ["fit_decision", "fit_gumbel", "simulated_frame", "window"]

# Simulated frames need no more pixels than the basemap resolves.
_FRAME_SIDE = 512
# A frame that looks past the map's edge has an edge of its own there, which matches other edges of the map and which
# no real frame has: at most this share of a trial's surroundings may lie beyond.
_BEYOND = 0.02
# Where a pixel looks that sees no ground: far off any map.
_UNSEEN = 1e6
# Places searched a frame: about what retrieval's candidates merge into.
_PLACES = 10


def simulated_frame(
    image: MapImage,
    easting: float,
    northing: float,
    height: float,
    heading_deg: float,
    camera: Camera,
    rng: np.random.Generator,
    *,
    tilt_deg: tuple[float, float] = (0.0, 0.0),
    light: float = 1.0,
) -> NDArray[np.uint8]:
    """A camera frame (H, W, 3) BGR of the flat map, seen from a height with the image's middle at a place.

    Args:
        image: the map, no coarser than the frame's ground sampling distance or the frame is blurred.
        easting, northing: ground point at the image's middle, metres.
        height: above ground, metres.
        heading_deg: of the vehicle, clockwise from true north.
        camera: its size is the frame's.
        tilt_deg: pitch and roll. What the camera sees further than 60 degrees off nadir, and beyond the map, is black.
        light: how much light, season and sensor differ from the map's (see :func:`cvgl.sim.views.relight`).
    """
    rotation = camera_to_enu(camera.mount, heading_deg, *tilt_deg)
    offset = ground_offset(camera, rotation, height)
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    seen = ground_points(camera, rotation, height, np.column_stack([columns.ravel(), rows.ravel()]))
    ground = seen - offset + (easting, northing)
    x = ((ground[:, 0] - image.west) / image.gsd_m - 0.5).reshape(columns.shape).astype(np.float32)
    y = ((image.north - ground[:, 1]) / image.gsd_m - 0.5).reshape(columns.shape).astype(np.float32)
    left, top = max(0, math.floor(np.nanmin(x)) - 1), max(0, math.floor(np.nanmin(y)) - 1)
    part = image.rgba[top : math.ceil(np.nanmax(y)) + 2, left : math.ceil(np.nanmax(x)) + 2, :3]
    if part.size == 0:
        raise MapError("the simulated frame looks past the map")
    x, y = (np.nan_to_num(places, nan=-_UNSEEN) for places in (x - left, y - top))
    frame = cv2.remap(np.ascontiguousarray(part), x, y, cv2.INTER_LINEAR)
    lit = relight(frame, rng, light) if light > 0 else frame
    return np.ascontiguousarray(lit[..., ::-1])


def window(source: MapSource, easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
    """A square part of a map around a place, in memory."""
    side = math.ceil(side_m / gsd)
    west, north = easting - side * gsd / 2, northing + side * gsd / 2
    return MapImage.of(*source.read(west, north, side, side, gsd), gsd, west, north)


def fit_gumbel(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Location and scale of a Gumbel law by its first two moments."""
    scale = float(np.std(scores)) * math.sqrt(6.0) / math.pi
    return float(np.mean(scores)) - 0.57722 * scale, max(scale, 1e-3)


def fit_decision(
    localizer: Localizer,
    source: MapSource,
    *,
    trials: int = 150,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Decision, dict[str, Any]]:
    """Measure how well wrong places match, and fit the laws of chance to it.

    Each trial looks at a simulated frame in ten random places at least a footprint away from where it was taken.

    Args:
        localizer: of the mission; its basemap and settings are used, its decision is not.
        source: the map that the gallery was built from.
        trials: number of frames.
        seed: same seed, same decision.

    Returns:
        The mission's decision with the laws replaced, and a record of the trials.
    """
    mission, gallery = localizer.mission, localizer.gallery
    height = mission.height_m
    short, long = footprint_sides(mission.camera, height)
    shrink = _FRAME_SIDE / max(mission.camera.width, mission.camera.height)
    camera = mission.camera.scaled_to(round(mission.camera.width * shrink), round(mission.camera.height * shrink))
    rng = np.random.default_rng([seed, 20])
    settings = mission.settings
    sigmas = PoseSigmas(settings.heading_sigma_deg, settings.height_sigma, settings.tilt_sigma_deg)
    tiles = gallery.tiles
    peaks_scores, evidences, features_scores = [], [], []
    for trial in range(trials):
        if progress is not None:
            progress(trial, trials)
        easting, northing = tiles[rng.integers(len(tiles))]
        far = np.hypot(tiles[:, 0] - easting, tiles[:, 1] - northing) > math.hypot(short, long)
        if far.sum() < _PLACES:
            continue
        heading = float(rng.uniform(0, 360))
        tilt = (float(rng.normal(0, 2)), float(rng.normal(0, 2)))
        image = window(source, easting, northing, 1.1 * math.hypot(short, long), gallery.basemap.gsd)
        if np.mean(image.rgba[..., 3] == 0) > _BEYOND:
            continue
        picture = simulated_frame(image, easting, northing, height, heading, camera, rng, tilt_deg=tilt)
        assumed = height * float(1 + rng.normal(0, settings.height_sigma))
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        given = heading + float(rng.normal(0, settings.heading_sigma_deg / 2))
        rotation = camera_to_enu(camera.mount, given)
        view = view_of(grey, camera, rotation, assumed, given, gallery.basemap.gsd, localizer.threads)
        chosen = rng.choice(np.flatnonzero(far), _PLACES, replace=False)
        places = [(float(tiles[index, 0]), float(tiles[index, 1])) for index in chosen]
        keep = settings.refine_hypotheses
        reach = REACH_STRIDES * gallery.manifest.stride_m
        peaks = look(gallery.basemap, [view], [places], TURNS_DEG, reach, keep, None)
        found = examine(gallery.basemap, peaks, TURNS_DEG, sigmas, None)
        if found:
            peaks_scores.append(max(h.peak.score for h in found))
            evidences.append(max(h.registration.evidence for h in found))
        if found and localizer.features is not None:
            asked = ask_features(gallery.basemap, found, localizer.features, sigmas, None)
            features_scores.append(max(h.features.score for h in asked if h.features is not None))
    if progress is not None:
        progress(trials, trials)
    record: dict[str, Any] = {"trials": trials, "used": len(evidences), "seed": seed}
    if len(evidences) < 30:
        record["note"] = "too few wrong places to measure chance on so small a map: the default laws are kept"
        return mission.decision, record
    peak_law, evidence_law = fit_gumbel(np.array(peaks_scores)), fit_gumbel(np.array(evidences))
    # A small sample may come out narrower than chance is; the defaults are those of an ordinary town.
    default = Decision()
    decision = replace(
        mission.decision,
        peak_location=round(peak_law[0], 3),
        peak_scale=round(max(peak_law[1], 0.8 * default.peak_scale), 3),
        evidence_location=round(evidence_law[0], 3),
        evidence_scale=round(max(evidence_law[1], 0.8 * default.evidence_scale), 3),
    )
    record["largest"] = {"peak": round(max(peaks_scores), 2), "evidence": round(max(evidences), 2)}
    if features_scores:
        location, scale = fit_gumbel(np.array(features_scores))
        scale = max(scale, 0.8 * default.features_scale)
        decision = replace(decision, features_location=round(location, 3), features_scale=round(scale, 3))
        record["largest"]["features"] = round(max(features_scores), 2)
    return decision, record
