"""What the localiser answers: a position with its covariance, or an honest no."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Alternative", "Candidate", "Fix", "FixStatus", "ReasonCode", "Witnesses"]


class FixStatus(str, enum.Enum):
    """How far the localisation got."""

    NO_FIX = "no_fix"
    COARSE = "coarse"
    REFINED = "refined"


class ReasonCode(str, enum.Enum):
    """Why there is no fix, or only a coarse one, as a word that stays the same; the sentence stands beside it."""

    NONE = ""
    BAD_INPUT = "bad_input"
    TOO_DARK = "too_dark"
    OVEREXPOSED = "overexposed"
    FEATURELESS = "featureless"
    BLURRED = "blurred"
    MODEL = "model"
    GALLERY = "gallery"
    OUTSIDE_MAP = "outside_map"
    NO_STRUCTURE = "no_structure"
    NOT_FOUND = "not_found"
    AMBIGUOUS = "ambiguous"
    IMPLAUSIBLE = "implausible"
    IMPLAUSIBLE_MOTION = "implausible_motion"
    BLOCKS_DISAGREE = "blocks_disagree"
    COASTING = "coasting"


@dataclass(frozen=True)
class Candidate:
    """A place where the frame may have been taken, and what speaks for it.

    Args:
        tile: index in the gallery's tile table.
        easting, northing: of the tile's centre, metres in the gallery's local tangent plane.
        similarity: cosine of the descriptors, -1 to 1.
        heading_deg: heading hypothesis under which the frame was embedded.
    """

    tile: int
    easting: float
    northing: float
    similarity: float
    heading_deg: float


@dataclass(frozen=True)
class Witnesses:
    """What speaks for a place, before any law of chance is applied.

    Args:
        peak: height of the correlation peak of the whole frame, see :class:`cvgl.correlate.Peak`.
        blocks: agreement of the frame's blocks, see :class:`cvgl.register.Registration`.
        order, listed, lists: the place's number in retrieval's list, from 1, places in that list, and lists searched.
        detail: height of the peak in all detail under the fitted pose, standard deviations of chance; None where the
            first look left no doubt.
        features: what local features speak for it with, 0 where they see another place; None where nobody asked them.
    """

    peak: float
    blocks: float
    order: int = 1
    listed: int = 1
    lists: int = 1
    detail: float | None = None
    features: float | None = None


@dataclass(frozen=True)
class Alternative:
    """A place that was registered to the basemap: where the aircraft would be, and how often chance matches as well.

    Args:
        easting, northing: of the aircraft, metres in the gallery's local tangent plane.
        center_easting, center_northing: of the image's middle on the ground, metres.
        covariance: (2, 2) of the aircraft's position, east and north, m^2, if the place is right.
        center_covariance: (2, 2) of the image's middle, m^2, if the place is right.
        heading_deg: of the vehicle, clockwise from true north; its sigma beside it.
        height_m: above ground.
        score: 0 to 1, the share of the frame's blocks that agree with the basemap.
        log10_chance: decimal logarithm of the probability that chance alone matches this well, at any place searched.
        log10_odds: decimal logarithm of how much likelier what was seen is with this place right than with none of
            the places searched right, retrieval's rank counted and the frame's prior not: what a filter with a prior
            of its own multiplies it by.
        probability: that this place is right, the frame's prior counted.
        witnesses: what speaks for it; None where nobody was asked.
    """

    easting: float
    northing: float
    center_easting: float
    center_northing: float
    covariance: NDArray[np.float64]
    center_covariance: NDArray[np.float64]
    heading_deg: float
    heading_sigma_deg: float
    height_m: float
    score: float
    log10_chance: float
    log10_odds: float = 0.0
    probability: float = 0.0
    witnesses: Witnesses | None = None


@dataclass(frozen=True)
class Fix:
    """The answer for one frame. True in a boolean context when it carries a position.

    Args:
        status: no_fix, coarse or refined.
        time: of the frame's exposure, as given.
        reason: why there is no fix, or why it is only coarse; empty for a refined one.
        reason_code: the same as one of a few words.
        latitude, longitude: of the aircraft, WGS84 degrees.
        center_latitude, center_longitude: of the ground point at the middle of the image, WGS84 degrees.
        covariance: (2, 2) of the aircraft's position, east and north, m^2.
        center_covariance: (2, 2) of the image's middle on the ground, east and north, m^2.
        heading_deg: of the vehicle as measured by the match, clockwise from true north; sigma beside it.
        height_m: above ground as measured by the match.
        score: 0 to 1, the share of the frame's blocks that agree with the basemap.
        log10_chance: decimal logarithm of the probability that chance alone matches this well (lower is surer).
        probability: that the place is right: that the image's middle lies within 25 m of where it was put (a matched
            place is right to metres or wrong altogether). Of a no-fix, that of the likeliest place.
        protection_radius_m: the aircraft is further from its position than this with at most the probability that
            ``Settings.protection_risk`` states, a wrong place counted; infinite where the place itself is not as sure
            as that, and without a position.
        center_protection_radius_m: the same of the image's middle.
        candidates: what retrieval proposed, best first.
        alternatives: places that were registered, likeliest first, whatever was decided about them.
        timings_ms: milliseconds by stage.
        name: the frame's.
        measured: of an answer from :meth:`cvgl.Localizer.track`, what the frame says by itself: what a consumer with a
            filter of its own wants, where this answer is refined. None in answers of :meth:`cvgl.Localizer.locate`.
    """

    status: FixStatus
    time: float
    reason: str = ""
    latitude: float = float("nan")
    longitude: float = float("nan")
    center_latitude: float = float("nan")
    center_longitude: float = float("nan")
    covariance: NDArray[np.float64] | None = None
    center_covariance: NDArray[np.float64] | None = None
    heading_deg: float = float("nan")
    heading_sigma_deg: float = float("nan")
    height_m: float = float("nan")
    score: float = 0.0
    log10_chance: float = 0.0
    probability: float = 0.0
    protection_radius_m: float = float("inf")
    center_protection_radius_m: float = float("inf")
    candidates: tuple[Candidate, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    name: str = ""
    reason_code: ReasonCode = ReasonCode.NONE
    measured: Fix | None = None

    def __bool__(self) -> bool:
        return self.status is not FixStatus.NO_FIX

    @property
    def sigma_m(self) -> float:
        """Standard deviation of the position along its worst direction, metres; infinite without a position."""
        if self.covariance is None:
            return float("inf")
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))

    @property
    def latency_ms(self) -> float:
        """Time that ``locate`` took, milliseconds."""
        return sum(self.timings_ms.values())

    @classmethod
    def none(cls, time: float, reason: str, **evidence: object) -> Fix:
        """A no-fix with its reason."""
        return cls(FixStatus.NO_FIX, time, reason, **evidence)  # type: ignore[arg-type]
