"""A mission finds its own flight, knows what is not its own, and damage is named before anything flies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cvgl import Camera, CvglError, Fix, Localizer
from cvgl.cli.locate import locate_flight
from cvgl.errors import CameraError, GalleryError, MissionError, ModelError
from cvgl.fix import FixStatus
from cvgl.flight import Flight
from cvgl.gallery import build_gallery
from cvgl.imagery import MapSource
from cvgl.model import Model
from cvgl.results import aircraft_errors, center_errors


@pytest.fixture
def copy(mission: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mission, tmp_path / "copy"))


def fly(mission: Path, flight: Flight, **options: bool) -> list[Fix]:
    return locate_flight(Localizer.open(mission), flight, **options)[0]


def test_most_frames_of_a_flight_are_placed_within_five_metres(mission: Path, town: Path) -> None:
    flight = Flight.open(town / "flight")
    fixes = fly(mission, flight, independent=True)
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes])
    center, aircraft = (
        np.hypot(*errors(flight.records, fixes).T)[refined] for errors in (center_errors, aircraft_errors)
    )
    assert (center < 5.0).sum() >= 7
    assert center.max() < 10.0
    assert np.median(center) < 2.0
    # The camera's lean is not known, so the point below the aircraft is: about a metre for each degree and 60 m.
    assert np.median(aircraft) < 5.0
    for fix in fixes:
        if fix:
            assert fix.sigma_m > 0 and 0 <= fix.heading_deg < 360
            assert np.linalg.eigvalsh(fix.covariance).min() > 0


def test_frames_of_another_place_are_answered_no_fix(mission: Path, town: Path) -> None:
    counts = Counter(fix.status for fix in fly(mission, Flight.open(town / "elsewhere"), independent=True))
    assert counts[FixStatus.REFINED] == 0
    assert counts[FixStatus.NO_FIX] >= 9


def test_a_sequence_is_tracked(mission: Path, town: Path) -> None:
    flight = Flight.open(town / "flight")
    fixes = fly(mission, flight)
    errors = np.hypot(*center_errors(flight.records, fixes).T)
    assert sum(fix.status is FixStatus.REFINED for fix in fixes) >= 7
    assert np.nanmax(errors) < 10.0


def test_the_same_frame_has_the_same_answer(mission: Path, town: Path) -> None:
    frame = next(iter(Flight.open(town / "flight"))).load()
    one, two = Localizer.open(mission), Localizer.open(mission, threads=1)
    first, again, single = one.locate(frame), one.locate(frame), two.locate(frame)
    assert (first.status, first.latitude, first.longitude) == (again.status, again.latitude, again.longitude)
    assert single.status is first.status
    assert single.latitude == pytest.approx(first.latitude, abs=1e-6)


def test_broken_pictures_in_a_flight_are_no_fixes_among_fixes(mission: Path, town: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(town / "flight", tmp_path / "flight"))
    pictures = sorted((folder / "frames").iterdir())
    pictures[0].write_bytes(b"")
    pictures[1].write_bytes(pictures[1].read_bytes()[:4000])
    pictures[2].unlink()
    pictures[3].write_bytes(b"no picture at all")
    fixes = fly(mission, Flight.open(folder), independent=True)
    assert len(fixes) == len(pictures)
    assert not any(fixes[:4]) and all(fix.reason for fix in fixes[:4])
    assert sum(map(bool, fixes[4:])) >= 4


@pytest.fixture(scope="module")
def fengyuan(cvgl_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The real map as a mission with the model that ships, not adapted; and the flight."""
    from cvgl_export.prepare import CheckSize, prepare

    flight = cvgl_data / "flights" / "fengyuan"
    out = tmp_path_factory.mktemp("fengyuan") / "mission"
    camera = Camera(width=2000, height=1125, fx=1571.0, fy=1571.0, cx=999.5, cy=562.0)
    prepare(flight / "map.tif", camera, 120.0, out, adapt=False, check=CheckSize(32, 4, 0))
    return out, flight


@pytest.mark.slow
@pytest.mark.data
def test_a_real_flight_is_placed_right_or_not_at_all(fengyuan: tuple[Path, Path]) -> None:
    mission, folder = fengyuan
    flight = Flight.open(folder)
    fixes = fly(mission, flight, independent=True)
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes])
    errors = np.hypot(*center_errors(flight.records, fixes).T)
    assert refined.sum() >= 15
    assert np.nanmedian(errors[refined]) < 2.0
    assert np.nanmax(errors[refined]) < 25.0


@pytest.mark.slow
@pytest.mark.data
def test_photos_of_another_place_are_not_refined_on_a_real_map(fengyuan: tuple[Path, Path], cvgl_data: Path) -> None:
    flight = Flight.open(cvgl_data / "flights" / "seneca_reject", height=50.0, heading=0.0)
    localizer = Localizer.open(fengyuan[0])
    localizer.camera = Camera(1200, 900, 832.5, 832.5, 599.5, 449.5)
    fixes, _ = locate_flight(localizer, flight, independent=True)
    assert not any(fix.status is FixStatus.REFINED for fix in fixes)
    assert sum(map(bool, fixes)) <= 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(bytes(data))


DESCRIPTIONS = {
    "mission.json": MissionError,
    "camera.yaml": CameraError,
    "model.cvgl/manifest.json": ModelError,
    "area.gallery/manifest.json": GalleryError,
}
PARTS = {f"area.gallery/{name}": GalleryError for name in ("tiles.npy", "descriptors.npy", "index.hnsw", "basemap.npy")}
PARTS["model.cvgl"] = ModelError


def part_of(folder: Path, part: str) -> Path:
    """The file; for the model its network, whatever it is called."""
    path = folder / part
    if path.is_dir():
        (path,) = (file for file in path.iterdir() if file.name != "manifest.json")
    return path


@pytest.mark.parametrize("damage", [Path.unlink, truncate, flip_a_bit], ids=["missing", "truncated", "altered"])
@pytest.mark.parametrize("part", PARTS)
def test_damaged_parts_are_named(copy: Path, part: str, damage: Callable[[Path], None]) -> None:
    path = part_of(copy, part)
    damage(path)
    with pytest.raises(PARTS[part]) as caught:
        # A gallery's parts are verified as they are read.
        Localizer.open(copy).gallery.verified(path.name)
    assert caught.value.file == path
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["tiles.npy", "descriptors.npy", "basemap.npy"])
def test_damage_that_shows_in_flight_is_a_no_fix_that_names_the_part(copy: Path, town: Path, name: str) -> None:
    path = copy / "area.gallery" / name
    data = np.fromfile(path, np.uint8)
    # Every block of it, so that the frame needs one of them.
    data[200::60_000] ^= 4
    data.tofile(path)
    localizer = Localizer.open(copy)
    frame = Flight.open(town / "flight").records[0].load()
    for _ in range(2):
        fix = localizer.locate(frame)
        assert fix.status is FixStatus.NO_FIX and fix.reason == f"gallery: {name}: altered"


@pytest.mark.parametrize("damage", [Path.unlink, truncate], ids=["missing", "truncated"])
@pytest.mark.parametrize("part", DESCRIPTIONS)
def test_damaged_descriptions_are_named(copy: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(copy / part)
    with pytest.raises(DESCRIPTIONS[part]) as caught:
        Localizer.open(copy)
    assert caught.value.file == copy / part


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 99),
        ("format_version", "1"),
        ("height_m", -120),
        ("height_m", None),
        ("settings", {"candidates": 0}),
        ("settings", {"candidate": 20}),
        ("decision", {"fix_chance": "low"}),
        ("decision", {"fix_chance": 1.5}),
        ("decision", []),
    ],
)
def test_unusable_fields_of_a_mission_are_named(copy: Path, field: str, value: object) -> None:
    file = copy / "mission.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(MissionError) as caught:
        Localizer.open(copy)
    assert caught.value.file == file
    assert (caught.value.field or "").startswith(field)


@pytest.mark.parametrize("field", ["width", "fx", "cy"])
def test_missing_fields_of_a_camera_are_named(copy: Path, field: str) -> None:
    file = copy / "camera.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith(f"{field}:")))
    with pytest.raises(CameraError) as caught:
        Localizer.open(copy)
    assert (caught.value.file, caught.value.field) == (file, field)


def test_a_gallery_of_another_model_is_refused_by_name(copy: Path) -> None:
    file = copy / "model.cvgl" / "manifest.json"
    manifest = json.loads(file.read_text())
    named = manifest["name"]
    manifest["name"] = "stranger"
    manifest["views"]["query"]["mean"][0] += 0.1
    file.write_text(json.dumps(manifest))
    with pytest.raises(GalleryError) as caught:
        Localizer.open(copy)
    assert caught.value.file == copy / "area.gallery"
    assert named in str(caught.value) and "stranger" in str(caught.value)


@pytest.mark.parametrize("place", ["nowhere", "map.tif"])
def test_what_is_no_mission_is_named(town: Path, place: str) -> None:
    with pytest.raises(CvglError) as caught:
        Localizer.open(town / place)
    assert caught.value.file == town / place


def test_the_command_line_ends_with_4_and_writes_nothing(copy: Path, town: Path, tmp_path: Path) -> None:
    truncate(copy / "area.gallery" / "descriptors.npy")
    out = tmp_path / "out"
    code = "from cvgl.cli.locate import app_main; app_main()"
    words = [sys.executable, "-c", code, str(copy), str(town / "flight"), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    assert "descriptors.npy" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_a_frame_from_another_height_is_searched_among_tiles_of_its_size(
    mission: Path, town: Path, tmp_path: Path
) -> None:
    """The second layer is made for 100 m; the flight's frames are from 80 m, or are told to be."""
    out = Path(shutil.copytree(mission, tmp_path / "mission"))
    opened = Localizer.open(out)
    manifest = opened.gallery.manifest
    with MapSource.open(town / "map.tif") as source:
        build_gallery(
            source,
            Model.open(out / "model.cvgl"),
            out / "area.gallery",
            tile_size_m=[manifest.tile_size_m * 0.6, manifest.tile_size_m],
            stride_m=manifest.stride_m * 0.6,
            basemap_gsd_m=manifest.basemap.gsd_m,
        )
    data = json.loads((out / "mission.json").read_text())
    data["height_m"] = 0.6 * opened.mission.height_m
    (out / "mission.json").write_text(json.dumps(data))
    layered = Localizer.open(out)
    first = layered.gallery.manifest.layers[1].first
    for record in Flight.open(town / "flight").records[:3]:
        one, other = opened.locate(record.load()), layered.locate(record.load())
        assert [c.tile + first for c in one.candidates] == [c.tile for c in other.candidates]
        assert one.status is other.status and one.latitude == pytest.approx(other.latitude, abs=1e-5, nan_ok=True)
