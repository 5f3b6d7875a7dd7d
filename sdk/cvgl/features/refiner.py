"""The refiner by local features: frame and map matched point by point, as a second opinion or as the only one."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.features.detect import Detector, Features, seen_features
from cvgl.features.match import Match, match_nearby
from cvgl.features.plausible import implausible, plane_pose, pose_noise
from cvgl.rectify import Patch
from cvgl.register import Correction, PoseSigmas

__all__ = ["FeatureMatch", "FeatureRefiner"]

# Features of a match lie at most this far apart, pixels of the basemap: a place is known to some metres before.
_RADIUS_PX = 16.0
# MAGSAC++ scores within this, pixels; its rounds and confidence.
_WITHIN_PX = 3.0
_ROUNDS, _CONFIDENCE = 1000, 0.999
# Four matches always agree.
_LEAST = 6
# Scores are inliers on a square of this side (pixels) of ground: what chance reaches grows with the side.
_SCORE_SIDE_PX = 200.0
# Matches closer than this (pixels) see the same building, displaced by the same lean, and count as one.
_CELL_PX = 24.0
# Standard deviation of a match, pixels: the least that is believed.
_LEAST_SIGMA_PX = 1.0
# Standard deviation, pixels, of what all matches of a frame have wrong in common, each axis: they sit on the edges of
# roofs, which lean. Measured on frames of procedural towns.
_COMMON_PX = 2.0


@dataclass(frozen=True)
class FeatureMatch:
    """What local features say of a place.

    Args:
        kind: of the features.
        features: of the frame.
        matches: with features of the map nearby.
        inliers: matches that agree on one homography (MAGSAC++).
        score: inliers, as many as a square of 200 pixels a side would have by chance.
        easting, northing: of the image's middle on the ground, metres; NaN where nothing was found.
        covariance: (2, 2) of it, m^2.
        correction: of the attitude and height that the frame came with.
        turn_sigma_deg: of the correction's turn.
        reason: why the match is none; empty where it is one.
    """

    kind: str
    features: int
    matches: int
    inliers: int = 0
    score: float = 0.0
    easting: float = float("nan")
    northing: float = float("nan")
    covariance: NDArray[np.float64] | None = None
    correction: Correction = field(default_factory=Correction)
    turn_sigma_deg: float = float("nan")
    reason: str = ""


@dataclass(frozen=True)
class FeatureRefiner:
    """Matches local features of frames with those of the map below.

    Args:
        detector: the kind of features.
        match: a matcher of its own; by default mutual nearest neighbours nearby.
    """

    detector: Detector
    match: Match | None = None

    def look(
        self,
        basemap: Basemap,
        patch: Patch,
        easting: float,
        northing: float,
        applied: Correction,
        rotation: NDArray[np.float64],
        height: float,
        sigmas: PoseSigmas,
        ahead: NDArray[np.float64] | None = None,
        executor: Executor | None = None,
    ) -> FeatureMatch:
        """Match a frame with the map around a place.

        Args:
            basemap: grey, at the patch's GSD.
            patch: grey, made with ``applied`` already in it.
            easting, northing: where its middle is supposed to be, metres.
            applied: what the patch has been corrected by.
            rotation: (3, 3) camera to ENU that the frame came with, before any correction.
            height: above ground that the frame came with, metres.
            sigmas: how well heading, height and tilt were known.
            ahead: as of :func:`cvgl.register.register`.
            executor: threads to share frame and map among.

        Returns:
            The match; one without a place, and with a reason, where there is none.
        """
        size = patch.mask.shape[0]
        column, row = basemap.to_pixel(easting, northing)
        left, top = round(float(column) - (size - 1) / 2), round(float(row) - (size - 1) / 2)
        run = executor.map if executor is not None else map
        frame, ground = run(
            lambda detect: detect(),
            (
                lambda: seen_features(self.detector, patch.image, patch.mask),
                lambda: self._ground(basemap, patch, left, top),
            ),
        )
        if self.match is None:
            of_frame, of_ground = match_nearby(frame, ground, self.detector, _RADIUS_PX)
        else:
            of_frame, of_ground = self.match(frame, ground, _RADIUS_PX)
        said = FeatureMatch(self.detector.name, len(frame), len(of_frame), reason="too few local features match")
        if len(of_frame) < _LEAST:
            return said
        points, places = frame.points[of_frame], ground.points[of_ground]
        homography, marks = cv2.findHomography(
            points, places, cv2.USAC_MAGSAC, _WITHIN_PX, maxIters=_ROUNDS, confidence=_CONFIDENCE
        )
        if homography is None or marks is None or not np.isfinite(homography).all():
            return said
        agree = marks.ravel() > 0
        inliers = int(agree.sum())
        if inliers < _LEAST:
            return said
        seen = math.sqrt(np.count_nonzero(patch.mask))
        points, places = points[agree], places[agree]
        east, north = (0.0, 0.0) if ahead is None else ahead.tolist()
        drawn_at = height * (1 + applied.scale)
        pose, covariance, sigma = _fit(points, places, patch, applied, drawn_at, sigmas, east, north)
        noise = pose_noise(homography, points, sigma / patch.gsd, patch, rotation, height)
        reason = implausible(plane_pose(homography, patch, rotation, height), sigmas, noise)
        east, north, turn, scale, lean_east, lean_north = pose.tolist()
        middle_east, middle_north = basemap.to_local(left + (size - 1) / 2, top + (size - 1) / 2)
        return FeatureMatch(
            kind=self.detector.name,
            features=len(frame),
            matches=len(of_frame),
            inliers=inliers,
            score=inliers * _SCORE_SIDE_PX / max(seen, 1.0),
            easting=float(middle_east) + east,
            northing=float(middle_north) + north,
            covariance=covariance[:2, :2] + (_COMMON_PX * patch.gsd) ** 2 * np.eye(2),
            correction=Correction(
                applied.turn_deg + math.degrees(turn),
                applied.scale + scale,
                (applied.lean[0] + lean_east, applied.lean[1] + lean_north),
            ),
            turn_sigma_deg=math.degrees(math.sqrt(covariance[2, 2])),
            reason=f"the local features' homography is implausible: {reason}" if reason else "",
        )

    def _ground(self, basemap: Basemap, patch: Patch, left: int, top: int) -> Features:
        """Features of the map below what the frame saw, and a little around it, in the patch's pixels."""
        rows, columns = np.flatnonzero(patch.mask.any(axis=1)), np.flatnonzero(patch.mask.any(axis=0))
        if not len(rows):
            return seen_features(self.detector, patch.image, patch.mask)
        around = math.ceil(_RADIUS_PX)
        first_column, first_row = int(columns[0]) - around, int(rows[0]) - around
        width, height = int(columns[-1]) + around - first_column, int(rows[-1]) + around - first_row
        window = basemap.read(left + first_column, top + first_row, width, height)
        found = seen_features(self.detector, window, (window > 0).astype(np.uint8))
        return Features(found.points + np.array([first_column, first_row], np.float32), found.descriptors)


def _fit(
    points: NDArray[np.float32],
    places: NDArray[np.float32],
    patch: Patch,
    applied: Correction,
    height: float,
    sigmas: PoseSigmas,
    east: float,
    north: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The camera's pose (6,) by least squares, as registration fits it to blocks, its covariance (6, 6), and the
    standard deviation of a match, metres.

    Shift east and north of the patch's middle in metres, turn in radians, relative scale, lean east and north.
    """
    middle = (patch.mask.shape[0] - 1) / 2
    x, y = ((points.astype(np.float64) - middle) * (patch.gsd, -patch.gsd)).T
    moved = (places.astype(np.float64) - points) * (patch.gsd, -patch.gsd)
    one, none = np.ones_like(x), np.zeros_like(x)
    both = (x * y + x * north + y * east) / height
    design = np.stack(
        [
            np.stack([one, none, y, x, (x * x + 2 * east * x) / height, both], axis=1),
            np.stack([none, one, -x, y, both, (y * y + 2 * north * y) / height], axis=1),
        ],
        axis=1,
    ).reshape(-1, 6)
    prior_mean = -np.array([0.0, 0.0, math.radians(applied.turn_deg), applied.scale, *applied.lean])
    turn_weight, tilt_weight = math.radians(sigmas.heading_deg) ** -2, math.radians(sigmas.tilt_deg) ** -2
    prior = np.array([0.0, 0.0, turn_weight, sigmas.scale**-2, tilt_weight, tilt_weight])
    cells = len(np.unique(np.floor(points / _CELL_PX), axis=0))
    sigma = _LEAST_SIGMA_PX * patch.gsd
    pose = np.zeros(6)
    information = np.eye(6)
    # The second round knows how far the matches scatter.
    for _ in range(2):
        weight = cells / len(points) / sigma**2
        information = weight * design.T @ design + np.diag(prior)
        pose = np.linalg.solve(information, weight * design.T @ moved.ravel() + prior * prior_mean)
        scatter = float(np.sqrt(np.mean((moved.ravel() - design @ pose) ** 2)))
        sigma = max(sigma, scatter)
    return pose, np.asarray(np.linalg.inv(information)), sigma * math.sqrt(len(points) / cells)
