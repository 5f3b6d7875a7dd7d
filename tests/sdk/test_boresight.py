"""A flight with GNSS tells its camera: what it determines is found within its sigmas, what it does not is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from cvgl.boresight.fit import calibrate_camera
from cvgl.boresight.sights import Sight, azimuth_of, usable
from cvgl.boresight.solve import Solution, solve
from cvgl.camera import Camera
from cvgl.cli.camera import app
from cvgl.errors import FlightError
from cvgl.fix import Fix, FixStatus
from cvgl.flight import Flight, FrameRecord
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount, camera_to_enu
from cvgl.rectify import ground_offset

Array = NDArray[Any]

LOCAL = LocalFrame(47.0, 9.5)
TRUE = Camera(1280, 720, 1100.0, 1100.0, 639.5, 359.5, mount=Mount(1.5, 8.0, -3.0))
GNSS_SIGMA, CENTER_SIGMA, TURN_SIGMA, HEADING_SIGMA = 1.5, 1.0, 0.3, 2.0


def a_sight(
    rng: np.random.Generator,
    camera: Camera,
    index: int,
    *,
    heading: float,
    height: float,
    shift: tuple[float, float] = (0.0, 0.0),
    velocity: Array | None = None,
    late: float = 0.0,
    above: float = 0.0,
) -> Sight:
    """What a flight with a true camera gives: GNSS ``late`` seconds after the exposure, heights ``above`` too low."""
    place = rng.uniform(-200, 200, 2)
    rotation = camera_to_enu(camera.mount, heading)
    center = place + ground_offset(camera, rotation, height + above) + shift + rng.normal(0, CENTER_SIGMA, 2)
    moved = 0.0 if velocity is None else late * velocity
    return Sight(
        name=f"{index:03d}.jpg",
        heading=heading + rng.normal(0, HEADING_SIGMA),
        pitch=0.0,
        roll=0.0,
        height=height,
        gnss=place - moved + rng.normal(0, GNSS_SIGMA, 2),
        velocity=velocity,
        center=center,
        covariance=CENTER_SIGMA**2 * np.eye(2),
        azimuth=azimuth_of(rotation) + rng.normal(0, TURN_SIGMA),
        azimuth_sigma=TURN_SIGMA,
        gsd=(height + above) / camera.fx * float(np.exp(rng.normal(0, 0.01))),
        log10_chance=-5.0,
    )


def a_flight(seed: int, camera: Camera = TRUE, count: int = 40, **how: Any) -> list[Sight]:
    """Sights in all directions and at heights from 60 to 140 m, unless ``how`` says otherwise."""
    rng = np.random.default_rng(seed)
    return [
        a_sight(rng, camera, i, **{"heading": rng.uniform(0, 360), "height": rng.uniform(60, 140), **how})
        for i in range(count)
    ]


def solved(sights: list[Sight], camera: Camera, gnss_sigma_m: float = 2.5, heading_sigma_deg: float = 3.0) -> Solution:
    """The fit of a flight of one part."""
    return solve(sights, [camera], [0] * len(sights), gnss_sigma_m, heading_sigma_deg)


def given_camera(**mount: float) -> Camera:
    return replace(TRUE, fx=1000.0, fy=1000.0, mount=Mount(**mount))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    focal=st.floats(0.85, 1.2),
    roll=st.floats(-8, 8),
    pitch=st.floats(-20, 20),
    yaw=st.floats(-15, 15),
)
def test_the_camera_of_a_varied_flight_is_found(seed: int, focal: float, roll: float, pitch: float, yaw: float) -> None:
    truth = replace(TRUE, fx=1000 * focal, fy=1000 * focal, mount=Mount(roll, pitch, yaw))
    found = solved(a_flight(seed, truth), given_camera(), GNSS_SIGMA, HEADING_SIGMA)
    wanted = {"focal_length": truth.fx, "mount_roll": roll, "mount_pitch": pitch, "mount_yaw": yaw}
    for name, value in wanted.items():
        estimate = found.estimates[name]
        assert estimate.determined, name
        assert abs(estimate.value - value) < 5 * estimate.sigma, name
    assert found.camera.fx == pytest.approx(truth.fx, rel=0.03)
    assert found.camera.fy / found.camera.fx == pytest.approx(1.0)


def test_sigmas_are_true() -> None:
    misses = []
    for seed in range(40):
        found = solved(a_flight(seed, count=14), given_camera(), GNSS_SIGMA, HEADING_SIGMA)
        mount = TRUE.mount
        truth = {"mount_roll": mount.roll_deg, "mount_pitch": mount.pitch_deg, "mount_yaw": mount.yaw_deg}
        misses.append([(found.estimates[n].value - v) / found.estimates[n].sigma for n, v in truth.items()])
    spread = np.sqrt((np.array(misses) ** 2).mean(axis=0))
    # The root mean square of 40 draws of a unit normal lies within a third of 1.
    assert (spread > 0.6).all() and (spread < 1.3).all(), spread


def test_time_offset_needs_motion() -> None:
    rng = np.random.default_rng(5)
    hovering = solved(a_flight(1), given_camera())
    assert not hovering.estimates["time_offset"].determined
    assert hovering.estimates["time_offset"].value == 0.0
    moving = [
        a_sight(rng, TRUE, i, heading=h, height=100.0, velocity=12.0 * np.array([np.sin(h), np.cos(h)]), late=0.4)
        for i, h in enumerate(rng.uniform(0, 360, 60))
    ]
    found = solved(moving, given_camera()).estimates["time_offset"]
    assert found.determined
    assert found.value == pytest.approx(0.4, abs=4 * found.sigma)


def test_focal_length_and_height_are_told_apart_only_by_several_heights() -> None:
    level = solved(a_flight(2, height=100.0, above=3.0), given_camera()).estimates
    varied = solved(a_flight(2, count=400, above=3.0), given_camera()).estimates
    assert not level["height_offset"].determined
    # What cannot be told apart is part of the focal length's own uncertainty.
    assert level["focal_length"].sigma > 0.015 * TRUE.fx
    assert abs(level["focal_length"].value - TRUE.fx) < 3 * level["focal_length"].sigma
    assert varied["height_offset"].determined
    assert varied["height_offset"].value == pytest.approx(3.0, abs=4 * varied["height_offset"].sigma)


def test_a_shifted_map_and_tilt_are_told_apart_only_by_several_directions() -> None:
    one_way = solved(a_flight(3, heading=30.0, height=100.0, shift=(4.0, -3.0)), given_camera()).estimates
    all_ways = solved(a_flight(3, shift=(4.0, -3.0)), given_camera()).estimates
    assert one_way["mount_pitch"].sigma > 4 * all_ways["mount_pitch"].sigma
    assert all_ways["map_east"].determined and all_ways["map_north"].determined
    assert (all_ways["map_east"].value, all_ways["map_north"].value) == pytest.approx((4.0, -3.0), abs=1.5)
    assert all_ways["mount_pitch"].value == pytest.approx(8.0, abs=1.0)


def test_matches_in_wrong_places_pull_little() -> None:
    sights = a_flight(4)
    for index in (3, 11, 24, 30):
        wrong = sights[index].center + np.array([60.0, -40.0])
        sights[index] = replace(sights[index], center=wrong, gsd=sights[index].gsd * 1.2)
    found = solved(sights, given_camera())
    assert found.camera.mount.pitch_deg == pytest.approx(8.0, abs=0.8)
    assert found.camera.fx == pytest.approx(1100.0, rel=0.03)
    assert (found.residuals.weight[[3, 11, 24, 30]] < 0.2).all()


class Simulated:
    """A localiser that answers as a flight with a true camera would have it, while its own camera is near enough."""

    def __init__(self, truth: dict[str, Camera], places: dict[str, Array], reach: float = 0.1) -> None:
        self.camera = TRUE
        self.truth, self.places, self.reach = truth, places, reach

    def locate(self, frame: Frame) -> Fix:
        truth = self.truth[frame.name]
        off = abs(np.log(self.camera.fx / truth.fx))
        assert frame.prior is not None
        if off > self.reach:
            return Fix.none(frame.time, "no place stands out")
        place, heading = self.places[frame.name], float(frame.heading or 0.0)
        center = place + ground_offset(truth, camera_to_enu(truth.mount, heading), frame.height)
        # A frame is matched alike every time, as far as its picture decides it.
        center = center + np.random.default_rng(int(frame.name[:3])).normal(0, 1.0, 2)
        latitude, longitude = LOCAL.to_wgs84(*center)
        turn = azimuth_of(camera_to_enu(truth.mount, heading)) - azimuth_of(camera_to_enu(self.camera.mount, heading))
        return Fix(
            FixStatus.REFINED,
            frame.time,
            center_latitude=float(latitude),
            center_longitude=float(longitude),
            covariance=np.eye(2),
            center_covariance=np.eye(2),
            heading_deg=heading + turn,
            heading_sigma_deg=0.3,
            height_m=frame.height * self.camera.fx / truth.fx,
            log10_chance=-5.0 + 20.0 * off,
        )


def simulated(tmp_path: Path, cameras: list[Camera]) -> tuple[Simulated, list[FrameRecord]]:
    import cv2

    rng = np.random.default_rng(1)
    picture = tmp_path / "grey.png"
    cv2.imwrite(str(picture), np.full((72, 128, 3), 90, np.uint8))
    truth, places, records = {}, {}, []
    for index, camera in enumerate(cameras):
        name = f"{index:03d}.png"
        place = rng.uniform(-300, 300, 2)
        latitude, longitude = LOCAL.to_wgs84(*(place + rng.normal(0, 1.5, 2)))
        heading, height = float(rng.uniform(0, 360)), float(rng.uniform(80, 130))
        truth[name], places[name] = camera, place
        records.append(
            FrameRecord(
                name,
                picture,
                60.0 * index,
                height,
                heading,
                gps_latitude=float(latitude),
                gps_longitude=float(longitude),
            )
        )
    return Simulated(truth, places), records


def test_a_focal_length_a_fifth_off_is_found(tmp_path: Path) -> None:
    finder, records = simulated(tmp_path, [TRUE] * 24)
    start = replace(TRUE, fx=880.0, fy=880.0, mount=Mount())
    found = calibrate_camera(finder, LOCAL, records, start)
    assert found.settled and not found.changes
    assert found.solution.camera.fx == pytest.approx(1100.0, rel=0.02)
    assert found.solution.camera.mount.pitch_deg == pytest.approx(8.0, abs=1.0)
    assert np.median(found.errors_after) < 4.0 < np.median(found.errors_before)


def test_a_camera_that_was_tilted_anew_has_a_tilt_for_each_part_and_one_lens(tmp_path: Path) -> None:
    level = replace(TRUE, mount=Mount(yaw_deg=-3.0))
    finder, records = simulated(tmp_path, [TRUE] * 14 + [level] * 12)
    found = calibrate_camera(finder, LOCAL, records, replace(TRUE, fx=1000.0, fy=1000.0, mount=Mount()))
    assert [change.name for change in found.changes] == ["014.png"]
    assert found.changes[0].forward_deg == pytest.approx(-8.0, abs=2.0)
    assert found.settled and found.parts == (0,) * 14 + (1,) * 12
    first, second = found.solution.cameras
    assert (first.mount.pitch_deg, second.mount.pitch_deg) == pytest.approx((8.0, 0.0), abs=1.2)
    assert (first.mount.roll_deg, second.mount.roll_deg) == pytest.approx((1.5, 0.0), abs=1.2)
    assert first.mount.yaw_deg == second.mount.yaw_deg == pytest.approx(-3.0, abs=1.5)
    assert first.fx == second.fx == pytest.approx(1100.0, rel=0.02)
    assert np.median(found.errors_after) < 4.0 < np.median(found.errors_before)


def test_what_all_parts_have_in_common_is_surer_than_from_one() -> None:
    level = replace(TRUE, mount=Mount(yaw_deg=-3.0))
    sights = [*a_flight(6, TRUE, 16), *a_flight(7, level, 16)]
    together = solve(sights, [given_camera(), given_camera()], [0] * 16 + [1] * 16).estimates
    alone = solved(sights[:16], given_camera()).estimates
    assert together["focal_length"].sigma < alone["focal_length"].sigma
    assert together["mount_pitch_1"].value == pytest.approx(8.0, abs=4 * together["mount_pitch_1"].sigma)
    assert together["mount_pitch_2"].value == pytest.approx(0.0, abs=4 * together["mount_pitch_2"].sigma)


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    finder, records = simulated(tmp_path, [TRUE] * 20)
    silent = [replace(record, gps_latitude=None, gps_longitude=None) for record in records[4:]]
    assert len(usable([*records[:4], *silent])) == 4
    with pytest.raises(FlightError, match="GNSS"):
        calibrate_camera(finder, LOCAL, [*records[:4], *silent], TRUE)
    finder.reach = -1.0
    with pytest.raises(FlightError, match="0 of 20 refined"):
        calibrate_camera(finder, LOCAL, records, TRUE)


@pytest.mark.slow
def test_the_command_calibrates_a_simulated_flight(town: Path, mission: Path, tmp_path: Path) -> None:
    truth = Camera.from_yaml(town / "flight" / "camera.yaml")
    out = tmp_path / "camera.yaml"
    command = ["calibrate", str(mission), str(town / "flight"), "--out", str(out), "--focal", str(truth.fx * 1.1)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = Camera.from_yaml(out)
    assert found.fx == pytest.approx(truth.fx, rel=0.04)
    assert abs(found.mount.pitch_deg) < 2.0 and abs(found.mount.roll_deg) < 2.0
    record = json.loads((tmp_path / "camera.json").read_text())
    assert record["sights"] >= 6
    assert (tmp_path / "camera.html").read_text().count("<circle") == 4 * record["sights"]
    assert "nan" not in json.dumps(record).lower()


def test_frames_that_are_not_there_are_named(town: Path, mission: Path, tmp_path: Path) -> None:
    command = ["calibrate", str(mission), str(town / "flight"), "--out", str(tmp_path / "c.yaml"), "--first", "none"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "none" in done.output
    assert len(Flight.open(town / "flight")) > 0
