"""Routes, vehicles in wind, and their sensors."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl import lasting
from cvgl.errors import FlightError
from cvgl.geo import LocalFrame
from cvgl.settings import Settings
from cvgl.sim.closed.noise import ERRORS, gaps, gauss_markov, lasting_errors, map_errors
from cvgl.sim.closed.route import Route, pattern_route, recorded_route
from cvgl.sim.closed.scenario import PATTERNS, PRESETS, Scenario, preset
from cvgl.sim.closed.sensors import measure
from cvgl.sim.closed.trajectory import Trajectory, fly
from cvgl.srt import TelemetryLog, read_srt

BOUNDS = (-600.0, -400.0, 600.0, 400.0)
FOOTPRINT = (90.0, 150.0)


def route_of(pattern: str = "random", seed: int = 0) -> Route:
    return pattern_route(pattern, BOUNDS, FOOTPRINT, 120.0, np.random.default_rng(seed))


def flown(frames: int = 300, seed: int = 0, stabilized: bool = True, **changes: object) -> Trajectory:
    scenario = replace(Scenario(), **changes)  # type: ignore[arg-type]
    return fly(route_of(seed=seed), scenario, frames, np.random.default_rng(seed), stabilized=stabilized)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "excursion"])
@pytest.mark.parametrize("seed", range(5))
def test_patterns_keep_the_footprint_on_the_map(pattern: str, seed: int) -> None:
    route = route_of(pattern, seed)
    margin = math.hypot(*FOOTPRINT) / 2
    assert np.all(np.abs(route.points) <= np.array([600, 400]) - margin + 1e-6)
    steps = np.hypot(*np.diff(np.vstack([route.points, route.points[:1]]), axis=0).T)
    assert steps.max() < 2 * route.step_m
    assert np.all(route.height == 120.0)


def test_excursions_leave_the_map_and_come_back() -> None:
    route = route_of("excursion")
    beyond = (np.abs(route.points) > np.array([600, 400]) + math.hypot(*FOOTPRINT) / 4).any(axis=1)
    changes = np.count_nonzero(np.diff(beyond.astype(int)))
    assert 0.03 < beyond.mean() < 0.5
    assert changes >= 10


def test_a_map_smaller_than_the_footprint_is_refused() -> None:
    with pytest.raises(FlightError, match="too small"):
        pattern_route("random", (0, 0, 150, 1000), FOOTPRINT, 120.0, np.random.default_rng(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 5000))
def test_the_course_is_the_way_the_route_goes(seed: int, s: float) -> None:
    route = route_of(seed=seed)
    here, course, _ = route.at(s)
    there = route.at(s + 1.0)[0]
    moved = there - here
    if np.hypot(*moved) > 0.5:
        apart = (math.degrees(math.atan2(*moved)) - course + 180) % 360 - 180
        assert abs(apart) < 30
    np.testing.assert_allclose(route.at(s + route.length_m)[0], here, atol=1e-6)


def log_of(east: np.ndarray, north: np.ndarray, height: np.ndarray, hertz: float = 30.0) -> TelemetryLog:
    latitude, longitude = LocalFrame(32.1, 35.2).to_wgs84(east, north)
    time = np.arange(len(east)) / hertz
    return TelemetryLog(time, np.round(latitude, 6), np.round(longitude, 6), height, height + 700)


def test_a_recorded_flight_is_flown_at_its_heights_and_speeds() -> None:
    count = 1800
    way = 8.0 * np.arange(count) / 30
    # Taking off and landing on the spot, and a receiver that has a new position every third entry only.
    east = np.concatenate([np.zeros(150), np.repeat(way[::3], 3), np.full(150, way[-1])])
    height = np.concatenate([np.linspace(0, 80, 150), np.full(count, 80.0), np.linspace(80, 0, 150)])
    route = recorded_route(log_of(east, np.zeros_like(east), height), LocalFrame(32.1, 35.2), 60.0)
    assert route.length_m == pytest.approx(2 * way[-1], rel=0.02)
    # The way back is a straight leg from where it landed to where it took off.
    outward = route.height[10 : len(route.height) // 2 - 10]
    assert np.abs(outward - 80).max() < 1.0
    assert np.all((route.height > 59) & (route.height < 81))
    assert route.speed is not None
    assert np.median(route.speed) == pytest.approx(8.0, rel=0.05)
    assert np.abs(route.points[:, 1]).max() < 0.2


@pytest.mark.data
@pytest.mark.parametrize(("name", "length_m"), [("DJI_v12", 1900), ("DJI_0017", 2700)])
def test_real_flights_are_routes(cvgl_data: Path, name: str, length_m: float) -> None:
    log = read_srt(cvgl_data / "flights" / "dji_srt" / f"{name}.SRT")
    local = LocalFrame(32.1047, 35.2078)
    route = recorded_route(log, local, 50.0)
    assert route.length_m == pytest.approx(length_m, rel=0.25)
    assert route.height.min() >= 45 and route.height.max() <= 121
    # The map under them reaches 700 m to either side.
    assert np.abs(route.points).max() < 700
    assert route.speed is not None
    assert 3 < np.median(route.speed) < 20
    steps = np.hypot(*np.diff(route.points, axis=0).T)
    assert steps.max() < 1.5 * route.step_m


@pytest.mark.parametrize(
    ("east", "height", "message"),
    [(np.linspace(0, 500, 300), np.full(300, 20.0), "never flown"), (np.zeros(300), np.full(300, 90.0), "moved")],
)
def test_recordings_that_lead_nowhere(east: np.ndarray, height: np.ndarray, message: str) -> None:
    with pytest.raises(FlightError, match=message):
        recorded_route(log_of(east, np.zeros_like(east), height), LocalFrame(32.1, 35.2), 60.0)


def test_the_vehicle_makes_its_airspeed_good() -> None:
    truth = flown(2000, wind_m_s=0.0, gust_m_s=0.0)
    speed = np.hypot(*truth.velocity.T)
    assert np.mean(speed) == pytest.approx(12.0, rel=0.05)


def test_wind_drifts_and_crabs() -> None:
    truth = flown(3000, wind_m_s=6.0, gust_m_s=0.0)
    direction = truth.wind / np.hypot(*truth.wind)
    with_wind = (truth.velocity @ direction) > 8
    against = (truth.velocity @ direction) < -4
    speed = np.hypot(*truth.velocity.T)
    assert np.median(speed[with_wind]) > np.median(speed[against]) + 6
    course = np.degrees(np.arctan2(*truth.velocity.T))
    crab = (truth.heading - course + 180) % 360 - 180
    # Wind from the left of the course turns the nose to the left.
    from_left = (np.cos(np.radians(course)) * truth.wind[0] - np.sin(np.radians(course)) * truth.wind[1]) > 5
    assert np.median(crab[from_left]) == pytest.approx(-math.degrees(math.asin(0.47)), abs=4)


def test_velocity_is_the_mean_since_the_frame_before() -> None:
    truth = flown(100)
    np.testing.assert_allclose(truth.velocity[1:], np.diff(truth.position[:, :2], axis=0) * 2.0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_displacements_are_sudden_far_and_not_told(seed: int) -> None:
    truth = flown(200, seed=seed, kidnap_every=40)
    assert truth.segment.tolist() == [index // 40 for index in range(200)]
    jumps = np.hypot(*np.diff(truth.position[:, :2], axis=0).T)
    assert jumps[39::40].min() > 90
    assert np.delete(jumps, np.s_[39::40]).max() < 15
    assert np.hypot(*truth.velocity.T).max() < 25


def test_tilt_is_the_gimbals_or_the_vehicles() -> None:
    steady, moved = flown(50), flown(50, stabilized=False)
    assert np.abs(steady.seen - steady.vehicle).max() > 0.1
    np.testing.assert_array_equal(moved.seen, moved.vehicle)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_tilt_has_the_sigma_that_is_stated(share: float) -> None:
    changes = {"tilt_sigma_deg": 3.0, "tilt_lasting": share}
    tilts = np.concatenate([flown(40, seed=seed, **changes).seen[::20] for seed in range(200)])
    assert tilts.std() == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("field", "change", "sigma"),
    [
        ("heading", {"heading_sigma_deg": 6.0}, 6.0),
        ("heading", {"heading_sigma_deg": 3.0, "heading_drift_deg": 4.0}, 5.0),
        ("height", {"height_sigma": 0.03}, 0.03),
        ("velocity", {"velocity_sigma_m_s": 0.5}, 0.5),
        ("velocity", {"velocity_sigma_m_s": 0.3, "velocity_bias_m_s": 0.4}, 0.5),
    ],
)
def test_sensors_err_by_their_sigma(field: str, change: dict[str, float], sigma: float) -> None:
    quiet = {"heading_sigma_deg": 0.0, "height_sigma": 0.0, "velocity_sigma_m_s": 0.0}
    scenario = replace(Scenario(), **{**quiet, **change})
    errors = []
    for seed in range(200):
        truth = flown(20, seed=seed % 4)
        told = measure(truth, scenario, np.random.default_rng(seed))
        if field == "heading":
            errors.append((told.heading - truth.heading + 180) % 360 - 180)
        elif field == "height":
            errors.append(told.height / truth.position[:, 2] - 1)
        else:
            errors.append((told.velocity - truth.velocity).ravel())
    found = np.array(errors)
    assert found.std() == pytest.approx(sigma, rel=0.1)
    # Half of the variance (or more) is the same for ten seconds.
    assert found.mean(axis=1).std() > 0.6 * sigma


def test_constant_errors_are_on_top() -> None:
    truth = flown(400)
    scenario = replace(
        Scenario(),
        heading_error_deg=15.0,
        height_error=0.15,
        heading_sigma_deg=0.0,
        height_sigma=0.0,
        height_offset_m=2,
    )
    told = measure(truth, scenario, np.random.default_rng(0))
    np.testing.assert_allclose((told.heading - truth.heading) % 360, 15.0, atol=1e-9)
    np.testing.assert_allclose(told.height, 1.15 * truth.position[:, 2] + 2, atol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_gaps_take_their_share_of_the_time(share: float) -> None:
    missing = gaps(np.random.default_rng(0), 60_000, 0.5, share, 5.0)
    assert missing.mean() == pytest.approx(share, rel=0.15)
    edges = np.diff(np.r_[0, missing.astype(int), 0])
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    assert 0.5 * lengths.mean() == pytest.approx(5.0, rel=0.1)


def test_no_gaps_without_a_share() -> None:
    assert not gaps(np.random.default_rng(0), 100, 0.5, 0.0, 5.0).any()


def test_what_is_missing_is_nan() -> None:
    truth = flown(3000)
    told = measure(truth, Scenario(heading_known=False, drop_velocity=0.4, drop_frames=0.2), np.random.default_rng(1))
    assert np.isnan(told.heading).all()
    assert 0.1 < np.isnan(told.velocity[:, 0]).mean() < 0.7
    assert np.isnan(told.attitude).all()
    assert 0.05 < 1 - told.present.mean() < 0.4
    assert not np.isnan(measure(truth, Scenario(), np.random.default_rng(1), stabilized=False).attitude).any()


def test_gauss_markov_noise_has_unit_variance_and_its_correlation() -> None:
    noise = gauss_markov(np.random.default_rng(0), 200_000, 0.5, 5.0)[:, 0]
    assert noise.std() == pytest.approx(1.0, rel=0.05)
    assert np.mean(noise[10:] * noise[:-10]) == pytest.approx(math.exp(-1), abs=0.05)


LAWS = [lasting.TILT, lasting.HEADING, lasting.HEIGHT, lasting.VELOCITY]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("law", LAWS)
def test_errors_last_as_long_as_their_law_says(law: lasting.Law, kind: str) -> None:
    runs = np.array([lasting_errors(np.random.default_rng(s), law, 21, 2.0, 2, kind) for s in range(600)])
    assert runs.std() == pytest.approx(1.0, rel=0.1)
    expected = law.lasting * math.exp(-40.0 / law.lasting_s)
    if law.passing_s > 0:
        expected += (1 - law.lasting) * math.exp(-40.0 / law.passing_s)
    expected = {"lawful": expected, "white": 0.0, "constant": 1.0}[kind]
    assert np.mean(runs[:, 0] * runs[:, -1]) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_maps_error_belongs_to_the_place(kind: str) -> None:
    places = np.array([[0.0, 0.0], [60.0, 80.0], [300.0, 0.0], [0.0, 0.0]])
    found = np.array([map_errors(np.random.default_rng([seed, 3]), places, kind) for seed in range(800)])
    assert found.std() == pytest.approx(1.0, rel=0.1)
    for index, metres in ((1, 100.0), (2, 300.0), (3, 0.0)):
        expected = {"lawful": math.exp(-metres / lasting.MAP_REACH_M), "white": 0.0, "constant": 1.0}[kind]
        assert np.mean(found[:, 0] * found[:, index]) == pytest.approx(expected, abs=0.1)
    assert abs(np.mean(found[..., 0] * found[..., 1])) < 0.1


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_scenario_of_the_missions_sigmas(name: str) -> None:
    scenario = preset(name, Settings(heading_sigma_deg=4.0, tilt_sigma_deg=2.0))
    assert (scenario.heading_sigma_deg, scenario.tilt_sigma_deg) == (4.0, 2.0)
    assert all(getattr(scenario, field) == value for field, value in PRESETS[name].items())


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "zigzag"},
        {"errors": "red"},
        {"tilt_lasting": 1.1},
        {"speed_m_s": 0.0},
        {"clouds": 1.2},
        {"drop_frames": 0.95},
        {"wind_m_s": -1.0},
        {"height_error": -1.0},
        {"heading_error_deg": float("nan")},
    ],
)
def test_scenarios_that_make_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(FlightError):
        replace(Scenario(), **change)  # type: ignore[arg-type]


def test_no_such_preset() -> None:
    with pytest.raises(FlightError, match="nominal"):
        preset("storm", Settings())
