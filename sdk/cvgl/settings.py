"""What can be set about localisation, with the reasons for the defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl.errors import MissionError

__all__ = ["REFINERS", "Decision", "Settings"]

REFINERS = ("correlation", "features", "both")
"""What can place a frame on the map."""


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
        max_speed_m_s: of the aircraft over ground, for :meth:`cvgl.Localizer.track`.
        refiner: what places a frame on the map: ``correlation``; ``features``, local ones; or ``both``, correlation
            with local features for a second opinion wherever it is not beyond doubt by itself.
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
    refiner: str = dataclasses.field(default="both", metadata={"choices": REFINERS})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "choices" in field.metadata:
                _one_of(field, value, "settings", None)
                continue
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

    Witnesses are heard that know nothing of each other: the height of the correlation peak of the whole frame, the
    agreement of its blocks, the rank that retrieval gave the place, and, where they were asked, local features.
    ``cvgl-prepare`` measures what the best of a frame's hypotheses scores when the frame was *not* taken where the
    search looks, on this very map; the largest of many tries follows a Gumbel law. So each becomes the probability that
    chance alone reaches it, and together they become the probability that as many draws of chance multiply to as little
    (Fisher's method).

    Args:
        peak_location, peak_scale: Gumbel law of the correlation peak of wrong places.
        evidence_location, evidence_scale: Gumbel law of the blocks' evidence at wrong places.
        features_location, features_scale: Gumbel law of the local features' score at wrong places.
        refined_chance: a fix is refined if chance reaches all this with less than this probability...
        witness_chance: ...and two of peak, evidence and features each by itself with less than this, so that one freak
            score does not carry a fix alone.
        sure_chance: where chance reaches what correlation alone finds with less than this probability, local features
            are not asked.
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
    features_location: float = 6.0
    features_scale: float = 2.0
    refined_chance: float = 5e-3
    witness_chance: float = 0.2
    sure_chance: float = 1e-5
    overwhelming_chance: float = 1e-8
    coarse_chance: float = 2e-2
    ambiguity: float = 10.0

    def log10_chances(self, peak: float, evidence: float) -> tuple[float, float]:
        """Decimal logarithms of the probabilities that a wrong place scores at least this."""
        return (
            _log10_gumbel(peak, self.peak_location, self.peak_scale),
            _log10_gumbel(evidence, self.evidence_location, self.evidence_scale),
        )

    def log10_features(self, score: float) -> float:
        """Decimal logarithm of the probability that local features score at least this at a wrong place."""
        return _log10_gumbel(score, self.features_location, self.features_scale)

    @staticmethod
    def log10_joint(log10_product: float, witnesses: int = 3) -> float:
        """Decimal logarithm of the probability that so many independent uniform draws multiply to at most this."""
        spread = -math.log(10.0) * min(log10_product, 0.0)
        return log10_product + math.log10(sum(spread**k / math.factorial(k) for k in range(witnesses)))

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
    fields = {field.name: field for field in dataclasses.fields(cls)}
    kinds = {name: field.default for name, field in fields.items()}
    values = {}
    for name, value in data.items():
        if name not in kinds:
            raise MissionError("unknown", file=file, field=f"{section}.{name}", expected=", ".join(kinds))
        if "choices" in fields[name].metadata:
            _one_of(fields[name], value, section, file)
            values[name] = value
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        whole = isinstance(kinds[name], int)
        if not number or (whole and not isinstance(value, int)):
            expected = "a whole number above 0" if whole else "a number above 0"
            raise MissionError("not usable", file=file, field=f"{section}.{name}", found=value, expected=expected)
        values[name] = value
    return cls(**values)


def _one_of(field: dataclasses.Field[Any], value: Any, section: str, file: Path | None) -> None:
    choices = field.metadata["choices"]
    if value not in choices:
        expected = " or ".join(choices)
        raise MissionError("not usable", file=file, field=f"{section}.{field.name}", found=value, expected=expected)


def _log10_gumbel(score: float, location: float, scale: float) -> float:
    """log10 of the probability that a Gumbel variable exceeds a score."""
    tail = math.exp(min(-(score - location) / scale, 50.0))
    # 1 - exp(-tail), without cancellation where tail is small.
    return math.log10(max(-math.expm1(-tail), 1e-300))
