"""Local features place a frame, refuse what no camera sees, and give a mission's choice of them a clear word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl import Localizer
from cvgl.camera import Camera
from cvgl.correlate import Peak
from cvgl.errors import MissionError, ModelError
from cvgl.features import (
    DETECTORS,
    FeatureChoice,
    FeatureFiles,
    FeatureMatch,
    FeatureRefiner,
    Features,
    NetworkFile,
    PlanePose,
    akaze,
    implausible,
    lighterglue,
    match_nearby,
    open_refiner,
    plane_pose,
    pose_noise,
    xfeat,
)
from cvgl.files import sha256_file
from cvgl.geometry import Mount, camera_to_enu
from cvgl.mission import MISSION, Mission
from cvgl.rectify import rectify
from cvgl.refine import Hypothesis, View, ask_features, examine_features, view_of
from cvgl.register import Correction, PoseSigmas, Registration

HEIGHT = 80.0
TRUTH = (20.0, -30.0)
SIGMAS = PoseSigmas(heading_deg=6.0, scale=0.03, tilt_deg=5.0)
NO_NOISE = np.zeros(6)


def view(place: Any, heading_error: float = 0.0, height_error: float = 0.0, light: float = 1.0) -> View:
    grey = place.grey_frame(*TRUTH, HEIGHT, 40.0, (1.0, -2.0), light)
    heading, height = 40.0 + heading_error, HEIGHT * (1 + height_error)
    return view_of(grey, place.camera, camera_to_enu(Mount(), heading), height, heading, place.basemap.gsd, 1)


def look(place: Any, seen: View, at: tuple[float, float], refiner: FeatureRefiner | None = None) -> FeatureMatch:
    chosen = refiner or FeatureRefiner(akaze())
    return chosen.look(place.basemap, seen.patch, *at, Correction(), seen.rotation, seen.height, SIGMAS)


@pytest.mark.parametrize("kind", sorted(DETECTORS))
@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (3.0, -2.0)])
def test_every_kind_places_a_frame(place: Any, kind: str, east: float, north: float) -> None:
    found = look(place, view(place), (TRUTH[0] + east, TRUTH[1] + north), FeatureRefiner(DETECTORS[kind]()))
    assert found.reason == ""
    assert found.inliers <= found.matches <= found.features
    assert np.hypot(found.easting - TRUTH[0], found.northing - TRUTH[1]) < 2 * place.basemap.gsd
    assert found.covariance is not None
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    assert found.score > 10


@pytest.mark.parametrize(("turn", "scale"), [(4.0, 0.0), (-3.0, 0.03), (2.0, -0.02)])
def test_the_pose_is_found(place: Any, turn: float, scale: float) -> None:
    found = look(place, view(place, -turn, 1 / (1 + scale) - 1), TRUTH)
    assert found.reason == ""
    assert found.correction.turn_deg == pytest.approx(turn, abs=0.5)
    assert found.correction.scale == pytest.approx(scale, abs=0.015)


@pytest.mark.parametrize("wrong", [(-60.0, 40.0), (60.0, 60.0), (-50.0, -55.0), (-20.0, 60.0)])
def test_a_wrong_place_has_few_inliers(place: Any, wrong: tuple[float, float]) -> None:
    right, found = look(place, view(place), TRUTH), look(place, view(place), wrong)
    assert found.score < right.score / 3


@pytest.mark.parametrize("at", [(400.0, 0.0), (5000.0, 5000.0)])
def test_off_the_map_is_a_reason_and_no_error(place: Any, at: tuple[float, float]) -> None:
    found = look(place, view(place), at)
    assert (found.score, found.covariance) == (0.0, None)
    assert found.reason


def test_a_frame_without_structure_is_a_reason(place: Any) -> None:
    seen = view(place)
    blank = replace(seen, patch=replace(seen.patch, image=np.full_like(seen.patch.image, 90)))
    blind = replace(seen, patch=replace(seen.patch, mask=np.zeros_like(seen.patch.mask)))
    assert look(place, blank, TRUTH).reason
    assert look(place, blind, TRUTH).reason


def test_the_answer_is_the_same_every_time(place: Any) -> None:
    one, other = look(place, view(place), TRUTH), look(place, view(place), TRUTH)
    assert (one.inliers, one.easting, one.northing) == (other.inliers, other.easting, other.northing)


def test_hypotheses_are_asked_and_keep_their_registration(place: Any) -> None:
    seen = view(place)
    registration = Registration(*TRUTH, np.eye(2), Correction(), 1.0, 20, 0.5, 3.0, 1.0)
    given = [Hypothesis(seen, Peak(*TRUTH, 0.0, score), registration) for score in (6.0, 5.0)]
    asked = ask_features(place.basemap, given, given[:1], FeatureRefiner(akaze()), SIGMAS, None)
    assert asked[1] is given[1]
    assert asked[0].registration is registration
    assert asked[0].features is not None
    assert asked[0].features.reason == ""


def test_features_alone_place_the_best_peaks(place: Any) -> None:
    seen = view(place)
    peaks = [(seen, Peak(TRUTH[0] + 2, TRUTH[1] - 1, 0.0, 8.0)), (seen, Peak(-60.0, 40.0, 0.0, 5.0))]
    found = examine_features(place.basemap, peaks, FeatureRefiner(akaze()), SIGMAS, None)
    best = max(found, key=lambda h: h.features.score if h.features is not None else 0.0)
    assert np.hypot(best.registration.easting - TRUTH[0], best.registration.northing - TRUTH[1]) < 1.0
    assert best.registration.evidence == -np.inf


POINTS = np.array([[10, 10], [20, 10], [40, 30], [12, 11]], np.float32)
AXES = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("shift", "radius", "expected"),
    [(0.0, 5.0, {0, 1, 2, 3}), (3.0, 5.0, {0, 1, 2, 3}), (60.0, 5.0, set())],
)
def test_matches_are_nearby(shift: float, radius: float, expected: set[int]) -> None:
    kind = replace(akaze(), ratio=1.0)
    one, other = match_nearby(Features(POINTS, AXES), Features(POINTS + np.float32(shift), AXES), kind, radius)
    assert set(one.tolist()) == set(other.tolist()) == expected


@pytest.mark.parametrize(("rival", "kept"), [((11.0, 12.0), True), ((18.0, 10.0), False)])
def test_a_match_stands_out_from_other_places_only(rival: tuple[float, float], kept: bool) -> None:
    frame = Features(POINTS[:1], AXES[:1])
    looks = np.stack([0.995 * AXES[0] + 0.1 * AXES[2], 0.994 * AXES[0] + 0.11 * AXES[1]])
    ground = Features(np.array([POINTS[0], rival], np.float32), looks)
    one, _ = match_nearby(frame, ground, replace(akaze(), ratio=0.9), 16.0)
    # A second feature of nearly the same look: at the same place it says nothing against the first.
    assert (len(one) == 1) is kept


CAMERA = Camera.from_field_of_view(320, 240, 62.0)
BLANK = np.zeros((240, 320), np.uint8)


def homography(correction: Correction, pitch: float = 2.0, shift: tuple[float, float] = (30.0, -7.0)) -> Any:
    """From a frame drawn with the telemetry's pose to a map, if its true pose is the corrected one."""
    rotation = camera_to_enu(Mount(), 33.0, pitch, -3.0)
    drawn = rectify(BLANK, CAMERA, rotation, HEIGHT, 0.5, 240)
    true = rectify(BLANK, CAMERA, correction.rotation(rotation), HEIGHT * (1 + correction.scale), 0.5, 240)
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    return move @ np.linalg.inv(true.to_camera) @ drawn.to_camera, drawn, rotation


@settings(max_examples=60, deadline=None)
@given(
    turn=st.floats(-170, 170),
    scale=st.floats(-0.3, 0.3),
    east=st.floats(-0.3, 0.3),
    north=st.floats(-0.3, 0.3),
    factor=st.sampled_from([1.0, -3.0]),
)
def test_the_pose_comes_back_from_its_homography(
    turn: float, scale: float, east: float, north: float, factor: float
) -> None:
    matrix, drawn, rotation = homography(Correction(turn, scale, (east, north)))
    pose = plane_pose(factor * matrix, drawn, rotation, HEIGHT)
    assert pose is not None
    assert pose.turn_deg == pytest.approx(turn, abs=1e-6)
    assert pose.scale == pytest.approx(scale, abs=1e-9)
    np.testing.assert_allclose(np.tan(np.radians(pose.tilt_deg)), (east, north), atol=1e-9)
    assert abs(pose.aspect) + abs(pose.shear) < 1e-9


MIRROR = np.diag([-1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("correction", "change", "word"),
    [
        (Correction(), np.eye(3), ""),
        (Correction(10.0, 0.05, (0.1, -0.1)), np.eye(3), ""),
        (Correction(30.0), np.eye(3), "heading"),
        (Correction(180.0), np.eye(3), "heading"),
        (Correction(0.0, 0.2), np.eye(3), "height"),
        (Correction(0.0, -0.4), np.eye(3), "height"),
        (Correction(0.0, 0.0, (0.6, 0.0)), np.eye(3), "tilt"),
        (Correction(), np.diag([1.2, 1 / 1.2, 1.0]), "aspect"),
        (Correction(), np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]]), "shear"),
        (Correction(), MIRROR, "no camera"),
        (Correction(), np.zeros((3, 3)), "no camera"),
        (Correction(), np.full((3, 3), np.nan), "no camera"),
    ],
)
def test_what_telemetry_rules_out_is_implausible(correction: Correction, change: Any, word: str) -> None:
    matrix, drawn, rotation = homography(correction)
    # About the middle, as a lens or a mirror would change it.
    middle = np.array([[1, 0, 119.5], [0, 1, 119.5], [0, 0, 1.0]])
    pose = plane_pose(middle @ change @ np.linalg.inv(middle) @ matrix, drawn, rotation, HEIGHT)
    reason = implausible(pose, SIGMAS, NO_NOISE)
    assert reason.startswith(word) if word else reason == ""


def test_a_heading_nobody_knows_rules_nothing_out() -> None:
    pose = PlanePose(170.0, 0.0, (0.0, 0.0), 0.0, 0.0)
    assert implausible(pose, replace(SIGMAS, heading_deg=180.0), NO_NOISE) == ""
    assert implausible(pose, SIGMAS, np.array([180.0, 0, 0, 0, 0, 0])) == ""


def test_the_noise_of_a_pose_is_what_noisy_points_show() -> None:
    import cv2

    rng = np.random.default_rng(0)
    matrix, drawn, rotation = homography(Correction(2.0, 0.01, (0.03, 0.0)))
    points = rng.uniform(40, 200, (60, 2)).astype(np.float32)
    places = cv2.perspectiveTransform(points[None], matrix)[0]
    told = pose_noise(matrix, points, 0.5, drawn, rotation, HEIGHT)
    found = []
    for _ in range(200):
        noisy, _ = cv2.findHomography(points, places + rng.normal(0, 0.5, places.shape), 0)
        pose = plane_pose(noisy, drawn, rotation, HEIGHT)
        assert pose is not None
        found.append(pose.values())
    np.testing.assert_allclose(np.std(found, axis=0), told, rtol=0.25)


def test_points_on_a_line_say_nothing_of_the_pose() -> None:
    matrix, drawn, rotation = homography(Correction())
    line = np.column_stack([np.arange(20), np.arange(20)]).astype(np.float32) + 50
    assert (pose_noise(matrix, line, 1.0, drawn, rotation, HEIGHT) > 100).any()


NETWORK = {"file": "xfeat.onnx", "sha256": "0" * 64}
FILE = Path("mission/mission.json")


def test_nothing_chosen_is_akaze() -> None:
    assert FeatureChoice.from_dict({}, FILE) == FeatureChoice() == FeatureChoice("akaze")
    assert FeatureChoice().to_dict() == {"detector": "akaze"}


def test_a_choice_survives_json() -> None:
    data = {"detector": "xfeat", "xfeat": NETWORK, "lighterglue": {**NETWORK, "file": "nets/lg.onnx"}}
    choice = FeatureChoice.from_dict(json.loads(json.dumps(data)), FILE)
    assert choice.to_dict() == data


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (None, "features"),
        ([], "features"),
        ({"turbo": 1}, "features.turbo"),
        ({"detector": "surf"}, "features.detector"),
        ({"detector": 3}, "features.detector"),
        ({"detector": "xfeat"}, "features.xfeat"),
        ({"detector": "xfeat", "xfeat": "xfeat.onnx"}, "features.xfeat"),
        ({"detector": "xfeat", "xfeat": {"file": "x.onnx"}}, "features.xfeat"),
        ({"detector": "xfeat", "xfeat": {**NETWORK, "file": "/etc/x.onnx"}}, "features.xfeat"),
        ({"detector": "xfeat", "xfeat": {**NETWORK, "file": "../x.onnx"}}, "features.xfeat"),
        ({"detector": "sift", "lighterglue": NETWORK}, "features.lighterglue"),
    ],
)
def test_an_unusable_choice_is_refused_by_name(data: Any, field: str) -> None:
    with pytest.raises(MissionError) as caught:
        FeatureChoice.from_dict(data, FILE)
    assert (caught.value.file, caught.value.field) == (FILE, field)


def test_an_absent_or_changed_network_is_refused_by_name(tmp_path: Path) -> None:
    choice = FeatureChoice("xfeat", NetworkFile("xfeat.onnx", "0" * 64))
    with pytest.raises(MissionError, match="no such file") as caught:
        open_refiner(choice, tmp_path, 1)
    assert (caught.value.file, caught.value.field) == (tmp_path / "xfeat.onnx", "features.xfeat.file")
    (tmp_path / "xfeat.onnx").write_bytes(b"no network")
    with pytest.raises(MissionError, match="another file") as caught:
        open_refiner(choice, tmp_path, 1)
    assert caught.value.field == "features.xfeat.sha256"
    with pytest.raises(ModelError, match="does not load"):
        open_refiner(FeatureChoice("xfeat", NetworkFile.of(tmp_path, "xfeat.onnx")), tmp_path, 1)


def test_a_mission_says_its_refiner(mission: Path, tmp_path: Path) -> None:
    changed = tmp_path / "mission"
    shutil.copytree(mission, changed)
    data = json.loads((changed / MISSION).read_text())
    for refiner, asked in (("correlation", False), ("both", True), ("features", True)):
        data["settings"]["refiner"] = refiner
        (changed / MISSION).write_text(json.dumps(data))
        assert (Localizer.open(changed, threads=1).features is not None) is asked
    data["settings"]["refiner"] = "luck"
    (changed / MISSION).write_text(json.dumps(data))
    with pytest.raises(MissionError) as caught:
        Mission.open(changed)
    assert caught.value.field == "settings.refiner"


@pytest.mark.data
def test_networks_that_a_user_supplies(place: Any, cvgl_data: Path, tmp_path: Path) -> None:
    for name in ("xfeat_dense.onnx", "lighterglue_l3.onnx"):
        shutil.copy(cvgl_data / "models" / name, tmp_path / name)
    networks = [NetworkFile.of(tmp_path, name) for name in ("xfeat_dense.onnx", "lighterglue_l3.onnx")]
    assert networks[0].sha256 == sha256_file(tmp_path / "xfeat_dense.onnx")
    for chosen in (networks[:1], networks):
        found = look(place, view(place), TRUTH, open_refiner(FeatureChoice("xfeat", *chosen), tmp_path, 1))
        assert np.hypot(found.easting - TRUTH[0], found.northing - TRUTH[1]) < 2.0
        assert found.score > look(place, view(place), (-60.0, 40.0)).score


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"detector": "luck"}, "features"),
        ({"detector": "xfeat"}, "xfeat"),
        ({"detector": "sift", "xfeat": Path("xfeat.onnx")}, "xfeat"),
        ({"lighterglue": Path("lighterglue.onnx")}, "lighterglue"),
    ],
)
def test_files_that_do_not_go_together_are_refused(chosen: dict[str, Any], field: str) -> None:
    with pytest.raises(MissionError) as caught:
        FeatureFiles(**chosen)
    assert caught.value.field == field


def test_a_file_that_is_no_network_is_refused_before_it_is_carried(tmp_path: Path) -> None:
    (tmp_path / "xfeat.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError):
        FeatureFiles("xfeat", tmp_path / "xfeat.onnx").to_dict()
    with pytest.raises(ModelError):
        FeatureFiles("xfeat", tmp_path / "absent.onnx").to_dict()


@pytest.mark.data
def test_a_mission_carries_the_networks(cvgl_data: Path, tmp_path: Path) -> None:
    files = FeatureFiles(
        "xfeat", cvgl_data / "models" / "xfeat_dense.onnx", cvgl_data / "models" / "lighterglue_l3.onnx"
    )
    choice = files.carry(tmp_path)
    assert choice.xfeat == NetworkFile("features/xfeat.onnx", files.to_dict()["xfeat"])
    assert FeatureChoice.from_dict(choice.to_dict(), FILE) == choice
    assert open_refiner(choice, tmp_path, 1) is not None


@pytest.mark.data
@pytest.mark.parametrize(("open_it", "name"), [(xfeat, "lighterglue_l3.onnx"), (lighterglue, "xfeat_dense.onnx")])
def test_another_network_is_refused(open_it: Callable[[Path, int], Any], name: str, cvgl_data: Path) -> None:
    with pytest.raises(ModelError, match="another network"):
        open_it(cvgl_data / "models" / name, 1)
