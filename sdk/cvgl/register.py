"""Registration of a frame to the basemap, and the evidence for or against it.

The frame's patch is cut into blocks. Every block is correlated by itself around where a hypothesis puts it, so every
block has an opinion of its own; a pose of the camera (position, heading, height and the two tilts, six numbers) is
fitted to them, and the evidence is how well the blocks' own surfaces agree with the places where the fitted pose puts
them. A wrong place may have a high correlation peak; it does not make thirty separate blocks agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.native import register_looks
from cvgl.orientation import NOISE_LEVEL, SIGMA_PX, map_site
from cvgl.rectify import Look
from cvgl.roofs import HIGHEST_M

__all__ = [
    "SEARCH_PX",
    "Correction",
    "PoseSigmas",
    "Registration",
    "Trial",
    "block_side",
    "register",
]

# A block sees this far beyond the hypothesis, pixels of the basemap.
SEARCH_PX = 16
# A block votes for the fitted pose if its own best place is this close, pixels.
_VOTE_PX = 3.0
# Blocks with a smaller share of seen pixels say nothing.
_SEEN = 0.8
_FEWEST_BLOCKS = 8
# How far from the pose's prediction a block's peak is looked for, pixels, as the fit converges.
_TRUST_PX = (8, 6, 4, 4, 3)
# Rounds of reweighting for each of them.
_ROUNDS = 3
# Heights that a block may have, as the roof of a building.
_RISES_M = np.linspace(0.0, HIGHEST_M, 5).tolist()
# What a block must gain, in standard deviations a step, to be taken for higher than the ground.
_RISE_COST = 0.2
# Standard deviation of one block's peak, pixels. Twice what the residuals of good matches show, since neighbouring
# blocks see the same leaning buildings: their errors are not independent, and a stiffer fit judges better.
_BLOCK_SIGMA_PX = 2.0
# The same for a pose's covariance: so many blocks together tell what one would that erred by itself. Over procedural
# places errors are likeliest under 2 to 3.
_SHARED = 2.0


@dataclass(frozen=True)
class PoseSigmas:
    """How well the frame's attitude and height were known before: standard deviations.

    Args:
        heading_deg: of the heading.
        scale: of the height, relative.
        tilt_deg: of roll and pitch, each.
    """

    heading_deg: float
    scale: float
    tilt_deg: float


@dataclass(frozen=True)
class Correction:
    """How a frame's attitude and height differ from what it came with.

    Args:
        turn_deg: heading, clockwise.
        scale: height, relative.
        lean: (east, north) further lean of the optical axis, metres on the ground per metre of height.
    """

    turn_deg: float = 0.0
    scale: float = 0.0
    lean: tuple[float, float] = (0.0, 0.0)

    def rotation(self, rotation: NDArray[np.float64]) -> NDArray[np.float64]:
        """A camera-to-ENU rotation (3, 3) with this correction."""
        turn = math.radians(self.turn_deg)
        cosine, sine = math.cos(turn), math.sin(turn)
        turned = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        east, north = self.lean
        slope = math.hypot(east, north)
        if slope == 0.0:
            return np.asarray(turned @ rotation)
        axis = np.array([north, -east, 0.0]) * (math.atan(slope) / slope)
        return np.asarray(cv2.Rodrigues(axis)[0] @ turned @ rotation)


@dataclass(frozen=True)
class Registration:
    """A frame placed on the basemap.

    Args:
        easting, northing: of the image's middle on the ground, metres in the local tangent plane.
        covariance: (2, 2) of it, m^2, from the fit alone.
        correction: of the attitude and height the frame came with, with the sigma of its turn.
        blocks: number of blocks with an opinion.
        votes: share of blocks whose own best place agrees with the pose.
        evidence: agreement of the blocks' surfaces with the pose, in standard deviations of chance (Fisher's method
            over the blocks' ranks); chance alone gives about 0 to 4 since the pose was chosen to please.
        residual_m: root mean square disagreement of the voting blocks, metres.
        lean_sigma_deg: of the correction's lean, each axis, from the fit alone.
    """

    easting: float
    northing: float
    covariance: NDArray[np.float64]
    correction: Correction
    turn_sigma_deg: float
    blocks: int
    votes: float
    evidence: float
    residual_m: float
    lean_sigma_deg: float = 0.0


def block_side(footprint_short_px: float) -> int:
    """Side of the blocks, pixels: about five across the footprint's short side, within what correlates well."""
    return min(max(round(footprint_short_px / 4.4), 20), 48)


@dataclass(frozen=True)
class Trial:
    """A look at the ground, and where it may lie on the basemap.

    Args:
        look: grey, made with ``applied`` already in it, at the basemap's GSD or a whole multiple of it.
        offset: (2,) east and north of its middle from the point below the camera, metres.
        easting, northing: where its middle is supposed to be, metres.
        applied: what it has been corrected by; the prior on the pose counts from no correction.
        height: above ground that it was made with, metres.
        side: of the blocks, pixels of the basemap.
        ahead: (2,) as ``offset``, by the attitude that the frame came with: what a change of tilt does is developed
            about it. Zeros for a camera that looks down.
    """

    look: Look
    offset: NDArray[np.float64]
    easting: float
    northing: float
    applied: Correction
    height: float
    side: int
    ahead: NDArray[np.float64]


def register(
    basemap: Basemap, trials: Sequence[Trial], gsd: float, sigmas: PoseSigmas, threads: int = 1
) -> list[Registration | None]:
    """Register looks around hypotheses.

    Args:
        basemap: grey.
        trials: what is registered, and where; those that lie at one place share the ground.
        gsd: of all looks, a whole multiple (1 to 3) of the basemap's: at twice the GSD a look costs a fifth. Evidence
            at different multiples does not compare.
        sigmas: what the fit may change, and how much.
        threads: to share the work among; 0 for one a core. The answer does not depend on it.

    Returns:
        For each trial its registration, or None where too few blocks see both the frame and the basemap.
    """
    reduction = round(gsd / basemap.gsd)
    gsd, search = basemap.gsd * reduction, SEARCH_PX // reduction
    looks: dict[int, tuple[int, Look]] = {}
    sites: dict[tuple[int, int, int], int] = {}
    jobs, middles = [], []
    for trial in trials:
        size = trial.look.mask.shape[0]
        full = size * reduction
        column, row = basemap.to_pixel(trial.easting, trial.northing)
        left, top = round(float(column) - (full - 1) / 2), round(float(row) - (full - 1) / 2)
        middles.append(basemap.to_local(left + (full - 1) / 2, top + (full - 1) / 2))
        number, _ = looks.setdefault(id(trial.look), (len(looks), trial.look))
        applied = trial.applied
        jobs.append(
            (
                number,
                sites.setdefault((left, top, size), len(sites)),
                trial.side // reduction,
                trial.height,
                *trial.offset.tolist(),
                *trial.ahead.tolist(),
                [0.0, 0.0, -math.radians(applied.turn_deg), -applied.scale, -applied.lean[0], -applied.lean[1]],
            )
        )
    turn_weight, tilt_weight = math.radians(sigmas.heading_deg) ** -2, math.radians(sigmas.tilt_deg) ** -2
    found = register_looks(
        [look for _, look in looks.values()],
        [
            map_site(basemap.pixels, left - SEARCH_PX, top - SEARCH_PX, (size + 2 * search) * reduction)
            for left, top, size in sites
        ],
        jobs,
        reduction,
        search,
        gsd,
        _SEEN,
        _FEWEST_BLOCKS,
        _RISES_M,
        _RISE_COST,
        _BLOCK_SIGMA_PX * gsd,
        [max(trust // reduction, 2) for trust in _TRUST_PX],
        _ROUNDS,
        _VOTE_PX,
        reduction == 1,
        [0.0, 0.0, turn_weight, sigmas.scale**-2, tilt_weight, tilt_weight],
        SIGMA_PX,
        NOISE_LEVEL,
        threads,
    )
    shared = _SHARED if reduction == 1 else 1.0
    return [
        None if fit is None else _registration(trial, middle, fit, shared)
        for trial, middle, fit in zip(trials, middles, found, strict=True)
    ]


def _registration(
    trial: Trial,
    middle: tuple[NDArray[np.float64], NDArray[np.float64]],
    fit: tuple[list[float], NDArray[np.float64], int, float, float, float],
    shared: float,
) -> Registration:
    """A trial with the pose that was fitted to it, from the middle of its ground (easting and northing, metres); the
    fit's covariance counts as many times as blocks share their errors.
    """
    (east, north, turn, scale, lean_east, lean_north), covariance, blocks, evidence, votes, spread = fit
    applied, covariance = trial.applied, shared * covariance
    return Registration(
        easting=float(middle[0]) + east,
        northing=float(middle[1]) + north,
        covariance=covariance[:2, :2],
        correction=Correction(
            applied.turn_deg + math.degrees(turn),
            applied.scale + scale,
            (applied.lean[0] + lean_east, applied.lean[1] + lean_north),
        ),
        turn_sigma_deg=math.degrees(math.sqrt(covariance[2, 2])),
        blocks=blocks,
        votes=votes,
        evidence=evidence,
        residual_m=spread,
        lean_sigma_deg=math.degrees(math.sqrt((covariance[4, 4] + covariance[5, 5]) / 2)),
    )
