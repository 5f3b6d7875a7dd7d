"""What a sequence is answered: the filter's position, and what each frame said by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvgl import Fix, Frame, Localizer, Prior
from cvgl.fix import FixStatus
from cvgl.flight import Flight
from cvgl.results import aircraft_errors, center_errors


@pytest.fixture(scope="module")
def localizer(mission: Path) -> Localizer:
    return Localizer.open(mission, threads=1)


@pytest.fixture(scope="module")
def flight(town: Path) -> Flight:
    return Flight.open(town / "flight")


def black(frame: Frame, time: float) -> Frame:
    return replace(frame, image=np.zeros_like(frame.image), time=time, name="black")


def first_refined(localizer: Localizer, flight: Flight) -> tuple[Frame, Fix]:
    localizer.reset()
    for record in flight:
        frame = record.load()
        fix = localizer.track(frame)
        if fix.status is FixStatus.REFINED:
            return frame, fix
    raise AssertionError("no frame of the flight is refined")


def test_a_flight_is_followed(localizer: Localizer, flight: Flight) -> None:
    localizer.reset()
    fixes = [localizer.track(record.load()) for record in flight]
    assert all(fix.measured is not None and fix.measured.measured is None for fix in fixes)
    assert all(fixes[3:])
    center, aircraft = center_errors(flight.records, fixes), aircraft_errors(flight.records, fixes)
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes])
    assert refined.sum() >= 7 and np.hypot(*center[refined].T).max() < 10.0
    for fix, error in zip(fixes, aircraft, strict=True):
        if fix and fix.covariance is not None:
            assert error @ np.linalg.solve(fix.covariance, error) < 16.0
            assert fix.protection_radius_m > 2.0 * fix.sigma_m and fix.height_m > 0


def test_without_pictures_it_coasts_and_then_is_lost(localizer: Localizer, flight: Flight) -> None:
    frame, fix = first_refined(localizer, flight)
    soon = localizer.track(black(frame, frame.time + 2.0))
    assert soon.status is FixStatus.COARSE and "followed by its motion" in soon.reason and "too dark" in soon.reason
    assert soon.measured is not None and not soon.measured
    assert fix.sigma_m < soon.sigma_m < 60.0
    assert soon.latitude == pytest.approx(fix.latitude, abs=1e-4)
    assert np.isfinite([soon.center_latitude, soon.heading_deg]).all() and soon.center_covariance is not None
    between = localizer.estimate(frame.time + 1.0)
    assert fix.sigma_m < between.sigma_m < soon.sigma_m and np.isnan(between.heading_deg)
    lost = localizer.track(black(frame, frame.time + 3600.0))
    assert not lost and lost.reason


def test_a_frame_that_cannot_be_used_is_answered_by_the_track(localizer: Localizer, flight: Flight) -> None:
    frame, fix = first_refined(localizer, flight)
    answer = localizer.track(replace(frame, height=float("nan"), time=frame.time + 1.0))
    assert answer.status is FixStatus.COARSE and "height" in answer.reason
    assert answer.latitude == pytest.approx(fix.latitude, abs=1e-4)
    assert not localizer.track(replace(frame, time=float("nan")))
    # It left no trace.
    assert localizer.estimate(frame.time + 1.0).sigma_m == answer.sigma_m


def test_the_same_frames_have_the_same_answers(localizer: Localizer, flight: Flight) -> None:
    frames = [record.load() for record in flight.records[:4]]
    runs = []
    for _ in range(2):
        localizer.reset()
        runs.append([localizer.track(frame) for frame in frames])
    for one, two in zip(*runs, strict=True):
        assert one.status is two.status
        np.testing.assert_array_equal([one.latitude, one.longitude], [two.latitude, two.longitude])


def test_frames_of_another_place_do_not_pull_it_off(localizer: Localizer, flight: Flight, town: Path) -> None:
    strangers = [record.load() for record in Flight.open(town / "elsewhere")]
    frame, fix = first_refined(localizer, flight)
    for index, stranger in enumerate(strangers[:5]):
        answer = localizer.track(replace(stranger, time=frame.time + 1.0 + index))
        assert answer.status is not FixStatus.REFINED
        if answer:
            assert abs(answer.latitude - fix.latitude) * 111_000 < 4 * answer.sigma_m


def test_a_start_is_no_position_until_a_frame_confirms_it(localizer: Localizer, flight: Flight) -> None:
    record = flight.records[0]
    assert record.gps_latitude is not None and record.gps_longitude is not None
    localizer.reset(Prior(record.gps_latitude, record.gps_longitude, 20.0))
    frame = record.load()
    assert not localizer.track(black(frame, frame.time))
    localizer.reset([Prior(47.0, 9.5, 50.0), Prior(record.gps_latitude, record.gps_longitude, 20.0)])
    assert not localizer.estimate(frame.time)
