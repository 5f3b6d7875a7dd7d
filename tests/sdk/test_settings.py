"""Settings are refused by name where they are wrong, and the laws of chance behave like probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.calibrate import fit_gumbel
from cvgl.errors import MissionError
from cvgl.settings import Decision, Settings

FILE = Path("mission/mission.json")
SECTIONS: list[tuple[Any, str]] = [(Settings, "settings"), (Decision, "decision")]

sections = pytest.mark.parametrize(("kind", "section"), SECTIONS)


@sections
def test_nothing_given_is_the_defaults(kind: Any, section: str) -> None:
    assert kind.from_dict({}, FILE) == kind()


@sections
def test_survives_json(kind: Any, section: str) -> None:
    numbers = {name: value for name, value in kind().to_dict().items() if not isinstance(value, str)}
    words = {name: value for name, value in kind().to_dict().items() if isinstance(value, str)}
    changed = words | {name: value * 2 if value >= 1 else value / 2 for name, value in numbers.items()}
    again = kind.from_dict(json.loads(json.dumps(changed)), FILE)
    assert again == kind(**changed)
    assert again.to_dict() == changed


@sections
def test_given_values_are_kept_and_others_stay(kind: Any, section: str) -> None:
    name = next(name for name, value in kind().to_dict().items() if isinstance(value, float))
    assert kind.from_dict({name: 0.5}, FILE) == kind(**{name: 0.5})
    assert kind.from_dict({name: 1}, FILE) == kind(**{name: 1})


@sections
@pytest.mark.parametrize("data", [None, [], "fast", 3])
def test_a_section_that_is_no_object_is_refused(kind: Any, section: str, data: Any) -> None:
    with pytest.raises(MissionError) as caught:
        kind.from_dict(data, FILE)
    assert (caught.value.file, caught.value.field) == (FILE, section)


@sections
def test_unknown_names_are_refused_and_known_ones_listed(kind: Any, section: str) -> None:
    with pytest.raises(MissionError, match="unknown") as caught:
        kind.from_dict({"turbo": 1}, FILE)
    assert (caught.value.file, caught.value.field) == (FILE, f"{section}.turbo")
    for name in kind().to_dict():
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, math.inf, True, "20", None, [20]])
@pytest.mark.parametrize(
    ("kind", "section", "name"),
    [
        (Settings, "settings", "candidates"),
        (Settings, "settings", "tilt_sigma_deg"),
        (Decision, "decision", "peak_scale"),
        (Decision, "decision", "chance_factor"),
    ],
)
def test_unusable_values_are_refused_with_file_and_field(kind: Any, section: str, name: str, value: Any) -> None:
    with pytest.raises(MissionError) as caught:
        kind.from_dict({name: value}, FILE)
    assert (caught.value.file, caught.value.field) == (FILE, f"{section}.{name}")
    assert caught.value.expected


@pytest.mark.parametrize("value", ["on", "", 5, True, None, ["auto"]])
def test_words_are_among_those_that_mean_something(value: Any) -> None:
    with pytest.raises(MissionError) as caught:
        Settings.from_dict({"visual_odometry": value}, FILE)
    assert caught.value.field == "settings.visual_odometry" and caught.value.expected == "auto or off"
    with pytest.raises(MissionError):
        Settings(visual_odometry=value)
    assert Settings.from_dict({"visual_odometry": "off"}, FILE).visual_odometry == "off"


@pytest.mark.parametrize("name", ["candidates", "headings", "refine_hypotheses"])
def test_counts_are_whole(name: str) -> None:
    with pytest.raises(MissionError, match="expected a whole number above 0"):
        Settings.from_dict({name: 2.5}, FILE)


@pytest.mark.parametrize("value", [0, -2.0, math.nan, math.inf, True, "5"])
def test_settings_made_in_code_are_checked_too(value: Any) -> None:
    with pytest.raises(MissionError, match=r"settings\.tilt_sigma_deg"):
        Settings(tilt_sigma_deg=value)


decisions = st.builds(
    Decision,
    peak_location=st.floats(1.0, 6.0),
    peak_scale=st.floats(0.1, 1.0),
    evidence_location=st.floats(0.5, 4.0),
    evidence_scale=st.floats(0.2, 2.0),
)
scores = st.floats(-50.0, 500.0)


@given(decision=decisions, scores=st.tuples(scores, scores), other=scores)
def test_a_higher_score_is_never_likelier_to_be_chance(
    decision: Decision, scores: tuple[float, float], other: float
) -> None:
    low, high = sorted(scores)
    for chance in (
        lambda score: decision.log10_chances(score, other)[0],
        lambda score: decision.log10_chances(other, score)[1],
    ):
        assert -300.0 <= chance(high) <= chance(low) <= 0.0


@given(decision=decisions, step=st.floats(0.0, 20.0))
def test_scores_that_tell_are_told_apart(decision: Decision, step: float) -> None:
    peak = decision.peak_location + step * decision.peak_scale
    assert decision.log10_chances(peak + 0.05, 0.0)[0] < decision.log10_chances(peak, 0.0)[0]


@pytest.mark.parametrize(
    ("score", "chance"),
    [
        (3.0, 1 - math.exp(-1)),  # at its location a Gumbel variable is exceeded with probability 1 - 1/e
        (3.0 - 0.5 * math.log(math.log(2)), 0.5),  # its median
        (3.0 + 0.5 * math.log(1e6), 1e-6),  # its tail falls by e per scale
        (-1e9, 1.0),
    ],
)
def test_chances_follow_gumbel_s_law(score: float, chance: float) -> None:
    decision = Decision(places=1, peak_location=3.0, peak_scale=0.5, evidence_location=3.0, evidence_scale=0.5)
    np.testing.assert_allclose(decision.log10_chances(score, score)[:2], math.log10(chance), atol=1e-6)


def test_absurd_scores_stay_finite() -> None:
    assert decision_chances(1e9) == (-300.0, -300.0, -300.0)
    assert decision_chances(-1e9) == (0.0, 0.0, 0.0)


def decision_chances(score: float) -> tuple[float | None, ...]:
    return Decision().log10_chances(score, score, score)[:3]


@pytest.mark.parametrize(("location", "scale"), [(3.6, 0.36), (1.7, 0.65), (-2.0, 3.0)])
def test_a_law_is_recovered_from_its_scores(location: float, scale: float) -> None:
    drawn = np.random.default_rng(0).gumbel(location, scale, 20_000)
    found = fit_gumbel(drawn)
    assert found[0] == pytest.approx(location, abs=0.05 * scale)
    assert found[1] == pytest.approx(scale, rel=0.05)


def test_equal_scores_still_give_a_law() -> None:
    location, scale = fit_gumbel(np.full(40, 2.5))
    assert location == pytest.approx(2.5, abs=0.01)
    assert scale > 0


@pytest.mark.parametrize("name", ["proposed", "fix_probability", "right_power"])
@pytest.mark.parametrize("value", [1.0, 7.0])
def test_probabilities_lie_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(MissionError, match="a probability") as caught:
        Decision.from_dict({name: value}, FILE)
    assert (caught.value.file, caught.value.field) == (FILE, f"decision.{name}")


def test_missions_made_before_fixes_had_probabilities_open_with_their_laws() -> None:
    old = {"peak_location": 5.03, "peak_scale": 0.54, "evidence_location": 1.028, "evidence_scale": 0.795}
    thresholds = {"refined_chance": 0.005, "overwhelming_chance": 1e-8, "coarse_chance": 0.02, "ambiguity": 10.0}
    decision = Decision.from_dict({**old, **thresholds, "witness_chance": 0.2}, FILE)
    assert decision == Decision(**old, looks=1), "their laws are those of one look"
    # Their law of the peak is that of the highest of ten places; one of them is exceeded a tenth as often.
    alone = decision.log10_chances(9.0, 0.0).peak
    of_ten = Decision(**old, places=1).log10_chances(9.0, 0.0).peak
    assert alone == pytest.approx(of_ten - 1.0, abs=1e-2)


@given(chances=st.lists(st.floats(-30.0, 0.0), min_size=1, max_size=4))
def test_witnesses_together_are_fisher_s(chances: list[float]) -> None:
    joint = Decision().log10_joint(chances)
    assert sum(chances) - 1e-9 <= joint <= 0.0
    if len(chances) == 1:
        assert joint == pytest.approx(chances[0])
    if len(chances) == 2:
        product = 10.0 ** sum(chances)
        assert joint == pytest.approx(math.log10(product * (1 - math.log(product))), abs=1e-9)


def test_older_settings_hold_the_map_s_sigma_in_the_registration_s() -> None:
    assert Settings.from_dict({"registration_sigma_m": 1.5}, FILE) == Settings(map_sigma_m=1.5)
    both = {"registration_sigma_m": 0.4, "map_sigma_m": 2.0}
    assert Settings.from_dict(both, FILE) == Settings(registration_sigma_m=0.4, map_sigma_m=2.0)
