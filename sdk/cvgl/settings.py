"""What can be set about localisation, with the reasons for the defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cvgl.errors import MissionError

__all__ = ["REFINERS", "Chances", "Decision", "Settings"]

REFINERS = ("correlation", "features", "both")
"""What can place a frame on the map."""

# Thresholds of missions made before fixes had probabilities.
_RETIRED = frozenset({"refined_chance", "overwhelming_chance", "coarse_chance", "ambiguity"})


@dataclass(frozen=True)
class Settings:
    """How a frame is localised.

    Sigmas are those of one frame. How much of each error lasts from frame to frame, and for how long, `cvgl.lasting`
    says: tracking reckons with it, and simulation draws by it.

    Args:
        candidates: tiles that retrieval proposes.
        headings: hypotheses that are embedded when the heading is unknown, evenly around the circle.
        heading_sigma_deg: of a heading that is given. Magnetic headings near steel are worse than their data sheet.
        height_sigma: of the height above ground, relative: barometers drift and ground is not flat.
        tilt_sigma_deg: of roll and pitch where the frame does not give them (a gimbal's "level" is off by this).
        attitude_sigma_deg: of roll and pitch where the frame gives them.
        registration_sigma_m: of what all blocks of a frame have wrong in common, each axis: measured over procedural
            towns with leaning roofs. Added to the covariance of every fix, and to that what roofs displace this frame
            by, see :mod:`cvgl.roofs`.
        map_sigma_m: of the map's georeference, each axis: satellite imagery is off by a metre and more, and no match
            to the map itself can tell. Added to the covariance of every fix.
        refine_hypotheses: correlation peaks that are registered block by block.
        max_speed_m_s: of the aircraft over ground, for :meth:`cvgl.Localizer.track`; taken as two sigma.
        velocity_sigma_m_s: of each component of a velocity that comes without its sigma.
        match_probability: that the right place is among those that a frame registers, for tracking.
        loss_per_s: probability that within a second the aircraft turns out to be elsewhere than the track says.
        track_limit_m: a tracked position that is less sure than this (sigma) is of no use, and not given.
        visual_odometry: "auto": where frames do not tell a velocity, successive frames do, if they share enough ground;
            "off": they are not asked.
        track_history_s: how late a frame may come and still be taken in at its own time.
        protection_risk: probability, per fix, with which the aircraft may be outside the protection radius. A place
            that is wrong altogether counts, so only fixes whose place is surer than this have a radius at all: one in a
            thousand is what one good frame can show, and a filter that asks several frames multiplies it.
        refiner: what places a frame on the map: ``correlation``; ``features``, local ones; or ``both``, correlation
            with local features for a second opinion wherever it leaves more doubt than ``protection_risk``.
    """

    candidates: int = 20
    headings: int = 16
    heading_sigma_deg: float = 6.0
    height_sigma: float = 0.03
    tilt_sigma_deg: float = 5.0
    attitude_sigma_deg: float = 1.5
    registration_sigma_m: float = 0.1
    map_sigma_m: float = 1.0
    refine_hypotheses: int = 5
    max_speed_m_s: float = 20.0
    velocity_sigma_m_s: float = 1.0
    match_probability: float = 0.5
    loss_per_s: float = 2e-5
    track_limit_m: float = 150.0
    visual_odometry: str = dataclasses.field(default="auto", metadata={"choices": ("auto", "off")})
    track_history_s: float = 30.0
    protection_risk: float = 1e-3
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

        Missions made before ``map_sigma_m`` was told apart hold both sigmas in ``registration_sigma_m``.

        Raises:
            MissionError: an unknown name or an unusable value.
        """
        if isinstance(data, dict) and "registration_sigma_m" in data and "map_sigma_m" not in data:
            data = {("map_sigma_m" if name == "registration_sigma_m" else name): data[name] for name in data}
        return _from_dict(cls, data, "settings", file)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name."""
        return dataclasses.asdict(self)


class Chances(NamedTuple):
    """How often chance reaches what each witness of a place says: decimal logarithms, None for who was not asked.

    Args:
        peak: of the whole frame's correlation peak.
        blocks: of the agreement of its blocks.
        detail: of the peak in all detail under the pose that was fitted.
        features: of the local features.
    """

    peak: float
    blocks: float
    detail: float | None = None
    features: float | None = None


@dataclass(frozen=True)
class Decision:
    """When a match is believed: the laws of chance for this mission, and the risks that are taken.

    A place has witnesses that know nothing of each other: the height of the correlation peak of the whole frame, the
    agreement of its blocks and, where the first look leaves doubt, the peak in all detail under the fitted pose, and
    local features. ``cvgl-prepare`` measures what they score at the places that retrieval proposes when the right one
    is not among them, on this very map; the largest of many tries follows a Gumbel law. So each becomes the probability
    that chance alone reaches it at *one* place. Retrieval and the frame's prior then say how the belief is shared among
    the places searched, see :mod:`cvgl.belief`.

    Args:
        peak_location, peak_scale: Gumbel law of the highest correlation peak of ``places`` wrong places.
        evidence_location, evidence_scale: Gumbel law of the blocks' evidence at wrong places.
        detail_location, detail_scale: Gumbel law of the peak in all detail at wrong places.
        features_location, features_scale: Gumbel law of the local features' score at wrong places.
        looks: how many looks at a doubtful frame the laws were measured with. Missions made before there was a second
            one hold the laws of one, and take one.
        places: how many places the law of the peak is the largest of. Missions made before probabilities were
            fitted hold the law of ten.
        chance_factor: how much more often than these laws say chance was seen to match; at least 1.
        right_power: of the law of right places: chance reaches what a right place scores with a probability
            distributed as the power law with this exponent, 0 to 1 (the smaller, the surer right places are).
        miss_share: share of right places that retrieval does not rank first.
        proposed: how probable it is, before anything is seen, that the frame's place is among those searched.
        fix_chance: a fix needs a match that chance reaches with at most this probability, whatever right places look
            like: this is the rate of false fixes off the map...
        fix_probability: ...and a probability of at least this that the place is right, which rivals lower.
        witness_chance: a fix is refined if chance reaches the agreement of its blocks, or its local features, with at
            most this probability; else only the place is known, and the fix is coarse.
    """

    peak_location: float = 5.0
    peak_scale: float = 0.5
    evidence_location: float = 1.5
    evidence_scale: float = 0.75
    detail_location: float = 2.5
    detail_scale: float = 0.4
    features_location: float = 6.0
    features_scale: float = 2.0
    places: int = 10
    looks: int = 2
    chance_factor: float = 1.0
    right_power: float = 0.08
    miss_share: float = 0.3
    proposed: float = 0.5
    fix_chance: float = 1e-3
    fix_probability: float = 0.95
    witness_chance: float = 0.2

    def __post_init__(self) -> None:
        for name in ("right_power", "miss_share", "proposed", "fix_chance", "fix_probability", "witness_chance"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                expected = "a probability between 0 and 1"
                raise MissionError("not usable", field=f"decision.{name}", found=value, expected=expected)

    def log10_chances(
        self, peak: float, evidence: float, detail: float | None = None, features: float | None = None
    ) -> Chances:
        """How often one wrong place scores at least this, of what is given."""
        # The largest of n draws of a Gumbel law follows the same law, n times e-folds of its scale further up.
        location = self.peak_location - self.peak_scale * math.log(self.places)
        return Chances(
            _log10_gumbel(peak, location, self.peak_scale),
            _log10_gumbel(evidence, self.evidence_location, self.evidence_scale),
            None if detail is None else _log10_gumbel(detail, self.detail_location, self.detail_scale),
            None if features is None else self.log10_features(features),
        )

    def log10_features(self, score: float) -> float:
        """Decimal logarithm of the probability that local features score at least this at a wrong place."""
        return _log10_gumbel(score, self.features_location, self.features_scale)

    def log10_joint(self, log10_chances: Sequence[float]) -> float:
        """Decimal logarithm of the probability that as many independent witnesses are by chance as rare together.

        Source: Fisher: Statistical Methods for Research Workers, 21.1, with the factor that was measured.
        """
        product = sum(min(chance, 0.0) for chance in log10_chances)
        spread = -math.log(10.0) * product
        series = sum(spread**power / math.factorial(power) for power in range(len(log10_chances)))
        return min(product + math.log10(series) + math.log10(self.chance_factor), 0.0)

    def log10_agreed(self, chances: Chances) -> float:
        """Decimal logarithm of the probability that chance matches as well, with or without a second opinion.

        Local features see nothing at some right places, which says little against them; so the better of both
        judgements counts, the one without them and the one with, and twice as often as each (Bonferroni).
        """
        correlated = [chance for chance in chances[:3] if chance is not None]
        alone = self.log10_joint(correlated)
        if chances.features is None:
            return alone
        return min(min(alone, self.log10_joint([*correlated, chances.features])) + math.log10(2.0), 0.0)

    @classmethod
    def from_dict(cls, data: Any, file: Path) -> Decision:
        """The decision stored with a mission; absent fields keep their defaults, and those of older missions that
        no longer mean anything are passed over.

        Raises:
            MissionError: an unknown name or an unusable value.
        """
        kept = data
        if isinstance(data, dict):
            kept = {name: value for name, value in data.items() if name not in _RETIRED}
            if "evidence_location" in kept:
                kept.setdefault("looks", 1)  # laws that were measured before there was a second look
        try:
            return _from_dict(cls, kept, "decision", file)
        except MissionError as error:
            if error.file is not None:
                raise
            raise MissionError(
                error.message, file=file, field=error.field, found=error.found, expected=error.expected
            ) from None

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
