"""A real flight moves the laws of right places, and of chance only towards caution."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvgl.camera import Camera
from cvgl.errors import FlightError
from cvgl.fix import Alternative, Fix, Witnesses
from cvgl.flight import Flight
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.mission import Mission, write_mission_file
from cvgl.refit import FEWEST_RIGHT, refit_decision
from cvgl.settings import Decision

LOCAL = LocalFrame(47.0, 9.5)


@dataclass
class Gallery:
    local: LocalFrame = LOCAL


@dataclass
class StandIn:
    """Answers like a localiser: right places with given witnesses, and others where the place is hidden."""

    mission: Mission
    right: Witnesses
    wrong: Witnesses
    off_m: float = 0.0
    camera: Camera = field(default_factory=lambda: Camera.from_field_of_view(640, 480, 62.0))
    gallery: Gallery = field(default_factory=Gallery)
    truth: tuple[float, float] = (0.0, 0.0)

    def locate(self, frame: Frame) -> Fix:
        assert frame.prior is None
        return self._answer(self.right, self.truth[0] + self.off_m, self.truth[1])

    def locate_elsewhere(self, frame: Frame, hidden: tuple[float, float, float]) -> Fix:
        assert hidden[2] > 50.0
        return self._answer(self.wrong, hidden[0] + 500.0, hidden[1])

    def _answer(self, told: Witnesses, easting: float, northing: float) -> Fix:
        place = Alternative(
            easting, northing, easting, northing, np.eye(2), np.eye(2), 0.0, 1.0, 80.0, 0.5, 0.0, witnesses=told
        )
        return Fix.none(0.0, "a stand-in", alternatives=(place,))


@pytest.fixture
def flight(town: Path) -> Flight:
    return Flight.open(town / "flight")


def fit(mission: Path, flight: Flight, right: Witnesses, wrong: Witnesses, off_m: float = 0.0) -> Any:
    # All frames at one place: where the stand-in finds them.
    latitude, longitude = (float(value) for value in LOCAL.to_wgs84(0.0, 0.0))
    records = [replace(record, gps_latitude=latitude, gps_longitude=longitude) for record in flight.records]
    finder: Any = StandIn(Mission.open(mission), right, wrong, off_m)
    found = refit_decision(finder, records, [finder.camera] * len(records))
    assert finder.camera == StandIn(Mission.open(mission), right, wrong).camera, "the localiser's camera comes back"
    return found


def test_right_places_that_score_little_flatten_the_right_law(mission: Path, flight: Flight) -> None:
    nothing = Witnesses(3.0, 0.0, 4, 12)
    easy, _ = fit(mission, flight, Witnesses(14.0, 12.0), nothing)
    hard, told = fit(mission, flight, Witnesses(7.0, 3.0, 2, 12), nothing)
    assert easy.right_power < hard.right_power
    assert easy.miss_share < hard.miss_share
    assert (told["frames"], told["right"], told["wrong"]) == (10, 10, 10)
    assert told["before"] == Mission.open(mission).decision.to_dict()
    assert told["after"] == hard.to_dict()
    risks = ("proposed", "fix_chance", "fix_probability", "peak_location", "evidence_location", "places")
    assert all(getattr(hard, name) == getattr(Decision(), name) for name in risks)


def test_chance_that_matches_too_often_is_counted(mission: Path, flight: Flight) -> None:
    right = Witnesses(14.0, 12.0)
    usual, _ = fit(mission, flight, right, Witnesses(3.0, 0.0, 4, 12))
    fooled, _ = fit(mission, flight, right, Witnesses(6.5, 3.5, 1, 12))
    assert usual.chance_factor == 1.0
    assert fooled.chance_factor > 5.0


def test_a_flight_that_is_not_found_says_nothing(mission: Path, flight: Flight) -> None:
    with pytest.raises(FlightError, match="0 of 10") as caught:
        fit(mission, flight, Witnesses(14.0, 12.0), Witnesses(3.0, 0.0), off_m=60.0)
    assert f"at least {FEWEST_RIGHT}" in str(caught.value.expected)


def test_a_mission_keeps_what_was_fitted(mission: Path, flight: Flight, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mission, tmp_path / "copy"))
    decision, told = fit(copy, flight, Witnesses(9.0, 6.0), Witnesses(3.0, 0.0, 4, 12))
    before = Mission.open(copy)
    write_mission_file(copy, before.height_m, before.settings, decision, {**before.record, "refit": told})
    after = Mission.open(copy)
    assert after.decision == decision
    assert after.record["refit"]["right"] == 10
    assert replace(after, decision=before.decision, record=before.record) == before
