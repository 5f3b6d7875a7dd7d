"""The procedural world: one seed is one place, and every picture of it shows things where they are."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount, camera_to_enu
from cvgl.sim import STYLES, Appearance, World, render_frame, render_map, write_flight, write_map
from cvgl.sim.shapes import clip_half_plane, clip_segments, inset, inside_convex, rectangle, signed_area
from cvgl.sim.textures import fine_noise
from cvgl.sim.view import camera_view, map_view

CAMERA = Camera(320, 180, 250.0, 250.0, 159.5, 89.5)
PLAIN = Appearance(shadow_strength=0.3, ambient=0.6)


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate(4, 400.0, "mixed")


def same(one: World, other: World) -> bool:
    return (
        np.array_equal(one.ground.vertices, other.ground.vertices)
        and np.array_equal(one.solids.faces.vertices, other.solids.faces.vertices)
        and np.array_equal(one.trees.xy, other.trees.xy)
        and np.array_equal(one.slots.xy, other.slots.xy)
    )


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of gradient energy: what stays of a place when light and season change."""

    def edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 1.5)
        size = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        return cv2.GaussianBlur(np.minimum(size, np.percentile(size, 90)), (0, 0), 2.0)

    return float(np.corrcoef(edges(one).ravel(), edges(other).ravel())[0, 1])


@pytest.mark.parametrize("style", STYLES)
def test_same_seed_is_the_same_place_and_another_seed_another(style: str) -> None:
    first, again, other = (World.generate(seed, 250.0, style) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
    assert len(first.ground) > 0
    assert np.all(first.ground.bounds[:, :2] <= first.ground.bounds[:, 2:])


def test_styles_differ_in_kind() -> None:
    dense, rural = World.generate(9, 400.0, "dense"), World.generate(9, 400.0, "rural")
    assert len(dense.solids.unit_height) > 3 * len(rural.solids.unit_height)
    assert dense.solids.unit_height.max() < 100


@pytest.mark.parametrize(("arguments", "field"), [((1, 50.0, "mixed"), "size_m"), ((1, 400.0, "moon"), "style")])
def test_refuses_what_it_cannot_build(arguments: tuple[int, float, str], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        World.generate(*arguments)


def test_faces_look_outwards(world: World) -> None:
    """Every wall normal points away from the middle of its walls, every roof up."""
    s = world.solids
    assert np.allclose(np.linalg.norm(s.normal, axis=1), 1, atol=1e-4)
    assert (s.normal[:, 2] > -1e-3).mean() > 0.999


def test_nothing_is_built_on_a_carriageway(world: World) -> None:
    """Buildings keep off the asphalt: no roof hides a lane mark from straight above."""
    from cvgl.sim import materials as mat

    marks = np.flatnonzero(world.ground.material == mat.MARK)
    centres = 0.5 * (world.ground.bounds[marks, :2] + world.ground.bounds[marks, 2:])
    size = (world.ground.bounds[marks, 2:] - world.ground.bounds[marks, :2]).max(axis=1)
    centres = centres[size < 6]
    flat = world.solids.faces
    roofs = [
        flat.vertices[flat.start[i] : flat.start[i + 1], :2].astype(np.float64)
        for i in np.flatnonzero((world.solids.normal[:, 2] > 0.9) & (np.diff(flat.start) == 4))
    ]
    hits = sum(int(inside_convex(roof, centres, 0.3).sum()) for roof in roofs if signed_area(roof) > 1)
    assert hits <= 0.01 * max(len(centres), 1)


def test_map_has_the_size_of_its_bounds_and_bounds_are_windows(world: World) -> None:
    look = replace(PLAIN, blur_px=0.0)
    whole = render_map(world, 1.0, look)
    assert whole.shape == (400, 400, 3)
    assert whole.dtype == np.uint8
    window = render_map(world, 1.0, look, (-100.0, -50.0, 60.0, 80.0))
    assert window.shape == (130, 160, 3)
    difference = np.abs(whole[120:250, 100:260].astype(int) - window)
    assert np.median(difference) <= 1
    with pytest.raises(ValueError, match="bounds"):
        render_map(world, 1.0, look, (0.0, 0.0, 0.0, 10.0))


def test_same_day_is_the_same_picture_and_clutter_moves(world: World) -> None:
    look = Appearance.random(np.random.default_rng(3), "drone")
    pictures = [
        render_frame(world, CAMERA, (0, 0, 120), (20, 0, 0), a) for a in (look, look, replace(look, clutter_seed=9))
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(-25, 25),
    st.floats(-25, 25),
    st.floats(20, 400),
    st.floats(-90, 90),
    st.floats(-60, 60),
)
def test_frames_project_as_the_camera_does(
    heading: float, pitch: float, roll: float, height: float, u: float, v: float
) -> None:
    """The painter's 3 x 4 matrix and `Camera.project` put a ground point on the same pixel."""
    rotation = camera_to_enu(CAMERA.mount, heading, pitch, roll)
    position = np.array([12.0, -7.0, height])
    view = camera_view(CAMERA.matrix, rotation, position, (320, 180), 2)
    ray = rotation @ np.array([u / 250.0, v / 250.0, 1.0])
    point = position - ray * height / ray[2]
    expected = CAMERA.project((rotation.T @ (point - position))[None])[0]
    assert np.allclose(expected, [159.5 + u, 89.5 + v], atol=1e-6)
    assert np.allclose((view.project(point[None])[0] + 0.5) / 2 - 0.5, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 15), st.floats(0, 360), st.floats(0, 45), st.floats(-100, 100), st.floats(-100, 100))
def test_maps_lean_away_from_the_satellite_and_keep_the_ground(
    tilt: float, azimuth: float, height: float, east: float, north: float
) -> None:
    view = map_view(-100.0, 100.0, 400, 400, 0.5, 1, tilt, azimuth)
    ground, top = view.project(np.array([[east, north, 0.0], [east, north, height]]))
    assert np.allclose(ground, [(east + 100) / 0.5 - 0.5, (100 - north) / 0.5 - 0.5])
    lean = (top - ground) * [0.5, -0.5]
    away = -np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
    assert np.allclose(lean, height * np.tan(np.radians(tilt)) * away, atol=1e-6)


def test_map_and_frame_show_the_same_place(world: World) -> None:
    """The ground under a level camera, cut from another day's map, is like the frame; others are not."""
    rng = np.random.default_rng(0)
    map_look = replace(Appearance.random(rng, "satellite"), view_tilt_deg=0.0)
    frame_look = replace(
        Appearance.random(rng, "drone"), season=map_look.season, sun_azimuth_deg=map_look.sun_azimuth_deg
    )
    gsd = 100.0 / 250.0
    frame = render_frame(world, CAMERA, (20.0, -30.0, 100.0), (0.0, 0.0, 0.0), frame_look)

    def cut(east: float, north: float) -> NDArray[np.uint8]:
        w, h = 160 * gsd, 90 * gsd
        return render_map(world, gsd, map_look, (east - w, north - h, east + w, north + h))[..., ::-1].copy()

    right = likeness(frame, cut(20.0, -30.0))
    wrong = [likeness(frame, cut(20.0 + dx, -30.0 + dy)) for dx, dy in ((25, 0), (-25, 10), (0, 30), (60, -40))]
    assert right > 0.3
    assert right > max(wrong) + 0.1


def test_roofs_stand_up() -> None:
    """A roof beside the camera lies farther out in the image than its footprint."""
    view = camera_view(CAMERA.matrix, camera_to_enu(Mount(), 0.0), np.array([0.0, 0.0, 100.0]), (320, 180))
    foot, roof = view.project(np.array([[30.0, 0.0, 0.0], [30.0, 0.0, 20.0]]))
    assert foot[0] == pytest.approx(159.5 + 250 * 30 / 100)
    assert roof[0] == pytest.approx(159.5 + 250 * 30 / 80)


def test_lens_distortion_is_the_cameras(world: World) -> None:
    """A distorted frame, undistorted by OpenCV, is the frame of the ideal camera."""
    bent = replace(CAMERA, distortion=(-0.12, 0.03, 0.001, -0.0005, 0.0))
    look = replace(PLAIN, blur_px=0.6)
    seen = render_frame(world, bent, (0, 0, 120), (50, 3, -2), look)
    straight = cv2.undistort(seen, bent.matrix, np.array(bent.distortion))
    ideal = render_frame(world, CAMERA, (0, 0, 120), (50, 3, -2), look)
    middle = (slice(20, -20), slice(30, -30))
    assert np.corrcoef(straight[middle].ravel(), ideal[middle].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("attitude", [(0, 0, 0), (140, 35, 0), (140, 70, 20), (-90, 88, 0)])
def test_any_attitude_gives_a_picture(world: World, attitude: tuple[float, float, float]) -> None:
    image = render_frame(world, CAMERA, (0.0, 0.0, 90.0), attitude, Appearance())
    assert image.shape == (180, 320, 3)
    assert image.std() > 2


def test_frame_needs_height(world: World) -> None:
    with pytest.raises(ValueError, match="height"):
        render_frame(world, CAMERA, (0.0, 0.0, 0.0), (0, 0, 0))


def test_random_appearances_are_plausible_and_named() -> None:
    rng = np.random.default_rng(1)
    for kind in ("satellite", "drone"):
        looks = [Appearance.random(rng, kind) for _ in range(50)]  # type: ignore[arg-type]
        assert len({a.season for a in looks}) == 4
        assert all(15 < a.sun_elevation_deg < 80 and 0 <= a.view_tilt_deg <= 15 for a in looks)
    with pytest.raises(ValueError, match="kind"):
        Appearance.random(rng, "submarine")  # type: ignore[arg-type]


def test_map_file_is_georeferenced(world: World, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from pyproj import Transformer

    path = write_map(world, tmp_path / "map.tif", 0.8, 60.2, 24.0, replace(PLAIN, blur_px=0.0))
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32635
        assert (file.count, file.profile["tiled"]) == (3, True)
        image = file.read().transpose(1, 2, 0)
        to_utm = Transformer.from_crs(4326, 32635, always_xy=True)
        transform = file.transform
    assert image.std() > 5
    # Three degrees west of the central meridian grid north is 2.6 degrees off true north: what lies 150 m
    # north of the origin must be found by its latitude and longitude, not straight above the middle.
    frame = LocalFrame(60.2, 24.0)
    direct = render_map(world, 0.8, replace(PLAIN, blur_px=0.0))
    spots = [(0.0, 150.0), (150.0, 0.0), (-140.0, -120.0)]
    for east, north in spots:
        lat, lon = frame.to_wgs84(east, north)
        r, c = rasterio.transform.rowcol(transform, *to_utm.transform(float(lon), float(lat)))
        i, j = int((200 - north) / 0.8), int((east + 200) / 0.8)
        here = image[r - 12 : r + 12, c - 12 : c + 12].reshape(-1, 3).mean(axis=0)
        there = direct[i - 12 : i + 12, j - 12 : j + 12].reshape(-1, 3).mean(axis=0)
        assert np.abs(here - there).max() < 12
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stabilized", [True, False])
def test_flight_folder_says_what_was_flown(world: World, tmp_path: Path, stabilized: bool) -> None:
    camera = replace(CAMERA, stabilized=stabilized)
    done: list[tuple[int, int]] = []
    folder = write_flight(
        world, tmp_path / "flight", camera, latitude=24.26, longitude=120.72, frames=9, height_m=70.0, seed=5,
        progress=lambda i, n: done.append((i, n)),
    )  # fmt: skip
    assert done == [(i, 9) for i in range(1, 10)]
    assert Camera.from_yaml(folder / "camera.yaml") == camera
    with open(folder / "frames.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    frame = LocalFrame(24.26, 120.72)
    for row in rows:
        image = cv2.imread(str(folder / "frames" / row["file"]))
        assert image is not None
        assert image.shape == (180, 320, 3)
        place = np.array(frame.to_local(float(row["gps_latitude"]), float(row["gps_longitude"])))
        centre = np.array(frame.to_local(float(row["image_center_latitude"]), float(row["image_center_longitude"])))
        assert np.abs(centre).max() < 200
        # A level camera sees nearly what is under it; a fixed one leans with its vehicle by some degrees.
        assert np.hypot(*(centre - place)) < (8 if stabilized else 20)
        assert abs(float(row["height_above_takeoff_m"]) - 70) < 15
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert len(set(times)) == 9


def test_flight_is_reproducible_and_needs_room(world: World, tmp_path: Path) -> None:
    fly = dict(latitude=47.0, longitude=9.5, frames=3, height_m=60.0, seed=2)
    one = write_flight(world, tmp_path / "one", CAMERA, **fly)  # type: ignore[arg-type]
    two = write_flight(world, tmp_path / "two", CAMERA, **fly)  # type: ignore[arg-type]
    assert (one / "frames.csv").read_text() == (two / "frames.csv").read_text()
    assert (one / "frames/frame_0002.jpg").read_bytes() == (two / "frames/frame_0002.jpg").read_bytes()
    with pytest.raises(ValueError, match="footprint"):
        write_flight(world, tmp_path / "three", CAMERA, **{**fly, "height_m": 400.0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames"):
        write_flight(world, tmp_path / "three", CAMERA, **{**fly, "frames": 0})  # type: ignore[arg-type]
    assert not (tmp_path / "three").exists()


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(2, 60), st.floats(2, 60), st.floats(0.1, 0.9))
def test_convex_cuts(angle: float, length: float, width: float, share: float) -> None:
    """Two halves make the whole; an inset rectangle has the expected area; chords end on the border."""
    box = rectangle(np.array([3.0, -2.0]), angle, length, width)
    assert signed_area(box) == pytest.approx(length * width)
    normal = np.array([np.cos(1.0), np.sin(1.0)])
    reach = box @ normal
    offset = reach.min() + share * (reach.max() - reach.min())
    parts = [clip_half_plane(box, normal, offset), clip_half_plane(box, -normal, -offset)]
    assert sum(signed_area(p) for p in parts) == pytest.approx(length * width)
    d = 0.2 * min(length, width)
    assert signed_area(inset(box, d)) == pytest.approx((length - 2 * d) * (width - 2 * d))
    a, z = clip_segments(box, box.mean(axis=0)[None], normal)
    assert inside_convex(box, np.vstack([a, z]), -1e-6).all()


def test_a_fisheye_sees_what_a_pinhole_sees_in_the_middle(world: World) -> None:
    fisheye = Camera(320, 180, 120.0, 120.0, 159.5, 89.5, model="fisheye")
    look, place = Appearance(), (0.0, 0.0, 60.0)
    wide = render_frame(world, fisheye, place, (30.0, 10.0, 0.0), look)
    pinhole = render_frame(world, CAMERA, place, (30.0, 10.0, 0.0), look)
    u, v = np.meshgrid(np.arange(320.0), np.arange(180.0))
    at = fisheye.project(CAMERA.rays(np.column_stack([u.ravel(), v.ravel()]))).astype(np.float32)
    seen = cv2.remap(wide, at[:, 0].reshape(180, 320), at[:, 1].reshape(180, 320), cv2.INTER_LINEAR)
    assert likeness(seen, pinhole) > 0.5


@pytest.mark.parametrize("other", [3 + 1, 3 + 7, 3 + 991])
def test_no_grain_is_found_in_another_world(other: int) -> None:
    grains = [fine_noise(seed)[0].astype(np.float64) for seed in (3, other)]
    spectra = [np.fft.rfft2((grain - grain.mean()) / grain.std()) for grain in grains]
    alike = np.fft.irfft2(spectra[0] * spectra[1].conj()) / grains[0].size
    assert np.abs(alike).max() < 0.2
