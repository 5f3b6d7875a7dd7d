"""What can be set about localisation, with the reasons for the defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl.errors import MissionError

__all__ = ["Decision", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How a frame is localised.

    Args:
        candidates: tiles that retrieval proposes.
        headings: hypotheses that are embedded when the heading is unknown, evenly around the circle.
        heading_sigma_deg: of a heading that is given. Magnetic headings near steel are worse than their data sheet.
        height_sigma: of the height above ground, relative: barometers drift and ground is not flat.
        tilt_sigma_deg: of roll and pitch where the frame does not give them (a gimbal's "level" is off by this).
        attitude_sigma_deg: of roll and pitch where the frame gives them.
        registration_sigma_m: of what all blocks of a frame have wrong in common: the basemap's georeference,
            buildings that lean the same way. Added to the covariance of every refined fix.
        refine_hypotheses: correlation peaks that are registered block by block.
        max_speed_m_s: of the aircraft over ground, for :meth:`cvgl.Localizer.track`; taken as two sigma.
        velocity_sigma_m_s: of each component of a velocity that comes without its sigma.
        match_probability: that the right place is among those that a frame registers, for tracking.
        loss_per_s: probability that within a second the aircraft turns out to be elsewhere than the track says.
        track_limit_m: a tracked position that is less sure than this (sigma) is of no use, and not given.
        track_history_s: how late a frame may come and still be taken in at its own time.
    """

    candidates: int = 20
    headings: int = 16
    heading_sigma_deg: float = 6.0
    height_sigma: float = 0.03
    tilt_sigma_deg: float = 5.0
    attitude_sigma_deg: float = 1.5
    registration_sigma_m: float = 1.0
    refine_hypotheses: int = 5
    max_speed_m_s: float = 20.0
    velocity_sigma_m_s: float = 1.0
    match_probability: float = 0.5
    loss_per_s: float = 2e-5
    track_limit_m: float = 150.0
    track_history_s: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
                raise MissionError("not usable", field=f"settings.{field.name}", found=value, expected="above 0")

    @classmethod
    def from_dict(cls, data: Any, file: Path) -> Settings:
        """Settings of a mission; absent ones keep their defaults.

        Raises:
            MissionError: an unknown name or an unusable value.
        """
        return _from_dict(cls, data, "settings", file)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Decision:
    """When a match is believed: the laws of chance for this mission, and the risks that are taken.

    Three witnesses are heard that know nothing of each other: the height of the correlation peak of the whole frame,
    the agreement of its blocks, and the rank that retrieval gave the place. ``cvgl-prepare`` measures what the best of
    a frame's hypotheses scores when the frame was *not* taken where the search looks, on this very map; the largest of
    many tries follows a Gumbel law. So each becomes the probability that chance alone reaches it, and together they
    become the probability that three draws of chance multiply to as little (Fisher's method).

    Args:
        peak_location, peak_scale: Gumbel law of the correlation peak of wrong places.
        evidence_location, evidence_scale: Gumbel law of the blocks' evidence at wrong places.
        refined_chance: a fix is refined if chance reaches all this with less than this probability...
        witness_chance: ...and peak and evidence each by itself with less than this, so that one freak score does not
            carry a fix alone.
        overwhelming_chance: evidence below this needs no second witness: a score may be a freak, thirty blocks that
            each find the same pose by themselves are not (fields of parallel rows have no peak, and are still right).
        coarse_chance: a fix that is not refined is coarse if chance reaches it with less than this probability and the
            place is where retrieval's best candidate is.
        ambiguity: a second place whose product of probabilities comes within this factor makes both worthless.
    """

    peak_location: float = 5.0
    peak_scale: float = 0.5
    evidence_location: float = 1.0
    evidence_scale: float = 0.65
    refined_chance: float = 5e-3
    witness_chance: float = 0.2
    overwhelming_chance: float = 1e-8
    coarse_chance: float = 2e-2
    ambiguity: float = 10.0

    def log10_chances(self, peak: float, evidence: float) -> tuple[float, float]:
        """Decimal logarithms of the probabilities that a wrong place scores at least this."""
        return (
            _log10_gumbel(peak, self.peak_location, self.peak_scale),
            _log10_gumbel(evidence, self.evidence_location, self.evidence_scale),
        )

    @staticmethod
    def log10_joint(log10_product: float) -> float:
        """Decimal logarithm of the probability that three independent uniform draws multiply to at most this."""
        spread = -math.log(10.0) * min(log10_product, 0.0)
        return log10_product + math.log10(1.0 + spread + spread**2 / 2)

    @classmethod
    def from_dict(cls, data: Any, file: Path) -> Decision:
        """The decision stored with a mission.

        Raises:
            MissionError: an unknown name or an unusable value.
        """
        return _from_dict(cls, data, "decision", file)

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return dataclasses.asdict(self)


def _from_dict(cls: Any, data: Any, section: str, file: Path) -> Any:
    if not isinstance(data, dict):
        raise MissionError("not usable", file=file, field=section, found=data, expected="an object")
    kinds = {field.name: field.default for field in dataclasses.fields(cls)}
    values = {}
    for name, value in data.items():
        if name not in kinds:
            raise MissionError("unknown", file=file, field=f"{section}.{name}", expected=", ".join(kinds))
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        whole = isinstance(kinds[name], int)
        if not number or (whole and not isinstance(value, int)):
            expected = "a whole number above 0" if whole else "a number above 0"
            raise MissionError("not usable", file=file, field=f"{section}.{name}", found=value, expected=expected)
        values[name] = value
    return cls(**values)


def _log10_gumbel(score: float, location: float, scale: float) -> float:
    """log10 of the probability that a Gumbel variable exceeds a score."""
    tail = math.exp(min(-(score - location) / scale, 50.0))
    # 1 - exp(-tail), without cancellation where tail is small.
    return math.log10(max(-math.expm1(-tail), 1e-300))
