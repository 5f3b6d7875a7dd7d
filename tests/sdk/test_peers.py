"""Peers do the same work as ours: from the same frames they find the same descriptors, tiles and places."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from cvgl import Localizer
from cvgl.bench import open_flight, peers, peers_map, peers_search
from cvgl.bench.peers_embed import Task, as_flown, fine_chain, input_as_flown, onnx_as_it_comes, plain_chain
from cvgl.bench.peers_features import Detector, FeatureMap, sift, xfeat
from cvgl.bench.peers_frame import judge
from cvgl.bench.peers_map import WholeMap
from cvgl.bench.peers_timing import interleave, ratio
from cvgl.cli import bench as bench_command
from cvgl.errors import CvglError, FlightError, FrameError, GalleryError, MissingDependencyError, MissionError
from cvgl.frame import Frame
from cvgl.gallery import Gallery
from cvgl.geometry import camera_to_enu
from cvgl.imagery import MapSource
from cvgl.mission import Mission
from cvgl.rectify import rectify
from cvgl.refine import View, view_of
from cvgl.sim import World, write_map

# Where, metres; height; heading, degrees.
POSES = ((20.0, -35.0, 80.0, 0.0), (-60.0, 40.0, 70.0, 130.0))


def view(place, pose: tuple[float, float, float, float], off: float = 0.0) -> View:
    """A frame of the place as refinement sees it, its heading known but for ``off`` degrees."""
    easting, northing, height, heading = pose
    grey = place.grey_frame(easting, northing, height, heading)
    rotation = camera_to_enu(place.camera.mount, heading + off, 0.0, 0.0)
    return view_of(grey, place.camera, rotation, height, heading + off, place.basemap.gsd, 1)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("reduction", (1, 2, 3))
def test_whole_map_correlation_finds_where_a_frame_was_taken(place, pose, reduction: int) -> None:
    seen = view(place, pose)
    patch = {1: seen.patch, 2: seen.half, 3: seen.third}[reduction]
    # The map may be ready for larger frames than this one.
    whole = WholeMap(place.basemap, patch.mask.shape[0] + 5, reduction=reduction)
    found = whole.find([patch])
    assert found is not None and whole.memory_bytes > 0
    assert np.hypot(found.easting - pose[0], found.northing - pose[1]) < 0.5 * reduction


def test_whole_map_correlation_takes_the_heading_that_fits(place) -> None:
    seen = view(place, POSES[1], off=8.0)
    whole = WholeMap(place.basemap, seen.third.mask.shape[0], reduction=3)
    turned, straight = (whole.find([seen.turned(seen.third, turn)]) for turn in (-8.0, 0.0))
    # An odd number of headings, of which two share a transform and the last stands alone.
    best = whole.find([seen.turned(seen.third, turn) for turn in (8.0, 0.0, -8.0)])
    assert turned is not None and straight is not None and best is not None
    assert best.score == pytest.approx(turned.score, rel=1e-4) and best.score > straight.score
    assert np.hypot(best.easting - POSES[1][0], best.northing - POSES[1][1]) < 2.0


def test_how_the_map_is_cut_into_blocks_changes_nothing(place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = view(place, POSES[0])
    places = []
    for side in (96, 128, 320):
        monkeypatch.setattr(peers_map, "_best_side", lambda template, map_px, side=side: side)
        found = WholeMap(place.basemap, seen.third.mask.shape[0], reduction=3).find([seen.third])
        assert found is not None
        places.append((found.easting, found.northing, found.score))
    np.testing.assert_allclose(places, [places[0]] * 3, atol=2e-3)


def test_whole_map_correlation_refuses(place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = view(place, POSES[0])
    whole = WholeMap(place.basemap, seen.third.mask.shape[0] - 1, reduction=3)
    with pytest.raises(FrameError, match="larger patch"):
        whole.find([seen.third])
    with pytest.raises(MissionError, match="template_px"):
        WholeMap(place.basemap, 0)
    monkeypatch.setattr(peers_map, "_MOST_BYTES", 1e3)
    with pytest.raises(MissionError, match="too large"):
        WholeMap(place.basemap, 50, reduction=3)


def test_a_featureless_frame_has_no_place(place) -> None:
    blank = replace(view(place, POSES[0]).third, image=np.full_like(view(place, POSES[0]).third.image, 90))
    assert WholeMap(place.basemap, blank.mask.shape[0], reduction=3).find([blank]) is None
    assert FeatureMap(place.basemap, sift(), window_px=300, step_px=150).find(blank) is None


def found_by_features(place, detector: Detector, pose: tuple[float, float, float, float]) -> float:
    """Metres by which local features misplace a frame."""
    easting, northing, height, heading = pose
    features = FeatureMap(place.basemap, detector, window_px=300, step_px=150)
    rotation = camera_to_enu(place.camera.mount, heading, 0.0, 0.0)
    grey = place.grey_frame(*pose)
    patch = rectify(grey, place.camera, rotation, height, place.basemap.gsd, 240, 1)
    found = features.find(patch)
    return np.inf if found is None else float(np.hypot(found.easting - easting, found.northing - northing))


@pytest.mark.parametrize("pose", POSES)
def test_sift_finds_where_a_frame_was_taken(place, pose) -> None:
    assert found_by_features(place, sift(), pose) < 3.0


@pytest.mark.data
def test_xfeat_finds_where_a_frame_was_taken(place, cvgl_data: Path) -> None:
    assert found_by_features(place, xfeat(cvgl_data / "models" / "xfeat_dense.onnx", 1), POSES[0]) < 3.0


def test_windows_cover_the_map(place) -> None:
    nothing = Detector("none", lambda grey: sift().detect(np.zeros_like(grey)))
    counted = []
    FeatureMap(place.basemap, nothing, window_px=256, step_px=128, on_window=lambda *at: counted.append(at))
    # 600 px: windows from 0, 128, 256 and, flush with the edge, 344.
    assert counted == [(number, 16) for number in range(1, 17)]
    with pytest.raises(MissionError, match="900 windows"):
        FeatureMap(place.basemap, nothing, window_px=20, step_px=20)


@pytest.fixture(scope="module")
def localizer(mission: Path, town: Path) -> Localizer:
    opened = Localizer.open(mission, threads=1)
    open_flight(opened, town / "flight")
    return opened


@pytest.fixture(scope="module")
def frames(localizer: Localizer, town: Path) -> list[Frame]:
    return [frame for _, frame in peers.load_work(open_flight(localizer, town / "flight"), 3)]


def test_every_way_to_the_network_sees_the_same(localizer: Localizer, frames: list[Frame]) -> None:
    task = Task(localizer)
    flown, session, warp = as_flown(task), onnx_as_it_comes(task), input_as_flown(task)
    for frame in frames:
        own = warp(frame)
        assert float(flown(frame) @ session(own)) == pytest.approx(1.0, abs=1e-4)
        for chain, least in ((fine_chain(task), 0.98), (plain_chain(task), 0.9)):
            assert float(flown(frame) @ session(chain(frame)[0][None])) > least


def test_opencv_chains_undo_the_lens(localizer: Localizer, frames: list[Frame]) -> None:
    bent = replace(localizer.camera, distortion=(-0.2, 0.05, 0.001, -0.002))
    other = Localizer(localizer.mission, localizer.model, localizer.gallery, 1)
    other.camera = bent
    task = Task(other)
    own, chain = input_as_flown(task)(frames[0]), fine_chain(task)(frames[0])
    both = (own != 0) & (chain != 0)
    straight = fine_chain(Task(localizer))(frames[0])
    apart = [float(np.abs(own - picture)[both & (picture != 0)].mean()) for picture in (chain, straight)]
    assert both.mean() > 0.2 and apart[0] < 0.5 * apart[1]


def test_peers_need_a_heading(localizer: Localizer, frames: list[Frame], town: Path) -> None:
    with pytest.raises(FrameError, match="heading"):
        plain_chain(Task(localizer))(replace(frames[0], heading=None))
    with pytest.raises(FlightError, match="heading"):
        peers.load_work(open_flight(localizer, town / "flight", heading="unknown"))


@pytest.fixture(scope="module")
def queries(localizer: Localizer) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    rows = np.asarray(localizer.gallery.descriptors[::7], np.float32)
    rows = rows + 0.02 * rng.standard_normal(rows.shape, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("name", peers_search.CONTESTANTS)
def test_every_library_finds_the_tiles(localizer: Localizer, queries, name: str, tmp_path: Path) -> None:
    gallery, k = localizer.gallery, 10
    descriptors = np.asarray(gallery.descriptors, np.float32)
    source: Gallery | Path = gallery
    try:
        peers_search.library_version(peers_search.CONTESTANTS[name])
    except MissingDependencyError as error:
        pytest.skip(error.message)
    if name != "cvgl":
        source = tmp_path / "index"
        assert peers_search.build_searcher(name, descriptors, source, 1) > 0
    searcher = peers_search.open_searcher(name, source, k, 1)
    found = searcher.search(queries)
    assert found.shape == (len(queries), k)
    kth = peers_search.exact_similarity(queries, gallery.descriptors, k)
    least = 0.95 if "HNSW" in name else 1.0
    assert peers_search.recall(found, queries, gallery.descriptors, kth) >= least
    assert found[:, 0].tolist() == gallery.exact(queries, 1)[0][:, 0].tolist()
    told = peers_search.loading(name, gallery.path if name == "cvgl" else source, k, 1)
    assert told["load_ms"] is not None and told["load_ms"] > 0


def test_recall_counts_ties_and_not_what_is_missing() -> None:
    descriptors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    query = np.eye(4, dtype=np.float32)[:1]
    kth = peers_search.exact_similarity(query, descriptors, 1)
    assert kth.tolist() == [1.0]
    for tile, expected in ((0, 1.0), (1, 1.0), (2, 0.0), (-1, 0.0)):
        assert peers_search.recall(np.array([[tile]]), query, descriptors, kth) == expected


def test_what_is_not_installed_or_known_is_said(tmp_path: Path, localizer: Localizer, monkeypatch) -> None:
    with pytest.raises(GalleryError, match="unknown contestant"):
        peers_search.open_searcher("annoy", tmp_path, 5, 1)
    with pytest.raises(GalleryError, match="not this contestant's"):
        peers_search.open_searcher("numpy exact", localizer.gallery, 5, 1)
    monkeypatch.setitem(peers_search.CONTESTANTS, "faiss flat", "no_such_library")
    with pytest.raises(MissingDependencyError, match="no_such_library is not installed"):
        peers_search.build_searcher("faiss flat", np.eye(3, dtype=np.float32), tmp_path / "index", 1)
    with pytest.raises(CvglError, match="did not load"):
        peers_search.loading("numpy exact", tmp_path / "absent", 5, 1)


@pytest.mark.slow
def test_compare_on_a_mission(localizer: Localizer, town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers_search.CONTESTANTS, "faiss flat", "no_such_library")
    flight = open_flight(localizer, town / "flight")
    said: list[str] = []
    result = peers.compare(localizer, flight, frames=2, rounds=1, say=said.append)
    assert result["frames"] == 2 and "search" in said
    assert "no_such_library" in result["missing"]["faiss flat"]
    assert "faiss flat" not in result["search"]["contestants"]
    for contest in ("embedding", "search", "frame"):
        contestants = result[contest]["contestants"]
        assert next(iter(contestants)) == peers.OURS
        assert contestants[peers.OURS]["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        for row in contestants.values():
            assert 0 < row["p50_ms"] <= row["p95_ms"]
            for times in (row["ratio"], row["processor_ratio"]):
                assert times["low"] <= times["value"] <= times["high"]
    # Every one of them looks for the middles of the same frames and finds them.
    for name, row in result["frame"]["contestants"].items():
        assert row["referenced"] == 2, name
        assert row["within_10m"] == 1.0, name
    console = Console(record=True, width=160)
    peers.show(result, console)
    text = console.export_text()
    assert "whole map" in text and "faiss flat did not take part" in text


def test_all_do_the_same_items_in_turn() -> None:
    calls: list[tuple[str, int]] = []
    done: list[int] = []
    timed = interleave(
        {name: lambda item, name=name: calls.append((name, item)) or (name, item) for name in "ab"},
        [1, 2],
        rounds=2,
        pause_s=0.0,
        on_item=lambda: done.append(1),
    )
    # After a first call that does not count, the order rotates.
    assert calls[:2] == [("a", 1), ("b", 1)]
    assert calls[2:] == [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert timed["b"].answers == [("b", 1), ("b", 2)]
    assert timed["a"].milliseconds.shape == timed["a"].processor_ms.shape == (2, 2) and len(done) == 4


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=30), st.floats(0.1, 20.0))
def test_a_ratio_lies_in_its_interval_and_follows_scale(spent: list[float], factor: float) -> None:
    own = np.array([spent, spent])
    found = ratio(factor * own, own)
    assert found.value == pytest.approx(factor) and found.low == pytest.approx(factor)
    assert found.high == pytest.approx(factor)


def test_judge_tells_no_answer_from_no_reference() -> None:
    told = judge(np.array([1.0, 3.0, 40.0, np.inf, np.nan]))
    assert told == {"referenced": 4, "answered": 3, "within_10m": 0.5, "median_m": 3.0, "beyond_25m": 1}
    assert judge(np.array([np.nan]))["within_10m"] is None


@pytest.fixture(scope="module")
def area(of_benchmarks: Callable[[str], ModuleType]) -> ModuleType:
    return of_benchmarks("peers_area")


def test_a_plane_repeats_its_towns_around_the_real_map(area: ModuleType, tmp_path: Path) -> None:
    write_map(World.generate(3, 200.0, "rural"), tmp_path / "map.tif", gsd=0.5)
    rng = np.random.default_rng(0)
    towns = [[rng.integers(1, 255, (400, 400, 3), np.uint8) for _ in range(2)] for _ in range(2)]
    with MapSource.open(tmp_path / "map.tif") as real:
        plane = area.Plane(real, towns, 400.0, 3000.0, 0.8)
        west, _, _, north = real.bounds
        # Towns of 400 m around the origin, at 1 m/px: the first one's corner lies half a town north-west of it.
        rgb, valid = plane.read(200.0, 200.0, 400, 100, 1.0)
        assert valid.all()
        np.testing.assert_array_equal(rgb, towns[0][1][:100])
        np.testing.assert_array_equal(plane.read(200.0 + 800, 200.0 - 800, 400, 100, 1.0)[0], rgb)
        np.testing.assert_array_equal(plane.read(200.0 - 1600, 200.0 + 800, 400, 100, 1.0)[0], rgb)
        # The real map lies where it is, in whole windows and in parts of them.
        own, known = real.read(west + 20, north - 20, 300, 300, 0.5)
        assert known.all()
        np.testing.assert_array_equal(plane.read(west + 20, north - 20, 300, 300, 0.5)[0], own)
        beside, _ = plane.read(west - 30, north + 10, 100, 100, 0.5)
        part, inside = real.read(west - 30, north + 10, 100, 100, 0.5)
        assert 0.2 < inside.mean() < 0.5
        assert np.abs(beside[inside].astype(int) - part[inside]).mean() < 3
        assert (beside[~inside] > 0).all()


@pytest.mark.slow
def test_larger_missions_are_real_ones(
    area: ModuleType, mission: Path, town: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(area, "CELL_STRIDES", 12)
    monkeypatch.setattr(area, "_PERIOD", 1)
    monkeypatch.setattr(area, "_TRIALS", 3)
    grass = np.full((300, 300, 3), 99, np.uint8)
    monkeypatch.setattr(area, "town", lambda folder, number, cell_m, side: grass)
    stages: list[str] = []
    options = (mission, town / "map.tif", [0.1, 0.2], tmp_path, lambda stage, *_: stages.append(stage), 1)
    made = area.make_missions(*options)
    (size, path), (_, repeating) = made.items()
    assert size == pytest.approx(0.1, rel=0.1) and any("tiles" in stage for stage in stages)
    larger = Localizer.open(path, threads=1)
    stride = larger.gallery.manifest.stride_m
    assert len(larger.gallery) == (round(1000 * size**0.5 / stride) + 1) ** 2
    places = [
        (record, np.hypot(*larger.gallery.local.to_local(record.center_latitude, record.center_longitude)))
        for record in open_flight(larger, town / "flight")
    ]
    seen = min(places, key=lambda place: place[1])[0]
    east, north = larger.gallery.local.to_local(seen.center_latitude, seen.center_longitude)
    fix = larger.locate(seen.load())
    assert fix.candidates and min(np.hypot(c.easting - east, c.northing - north) for c in fix.candidates) < 40

    def record(folder: Path) -> dict[str, object]:
        return json.loads((folder / "mission.json").read_text())["record"]

    # Where towns repeat no law can be measured: the largest map without repetition lends its own.
    (lender,) = [at for at in tmp_path.glob("mission-*") if at.name == record(repeating)["laws_of"]]
    assert "calibration" in record(lender) and "calibration" not in record(repeating)
    assert Mission.open(repeating).decision == Mission.open(lender).decision
    # What is there is used again, and a tile is embedded once.
    stages.clear()
    assert area.make_missions(*options) == made
    assert stages == []


def test_the_command_compares(mission: Path, town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def compare(localizer: Localizer, flight: object, **options: object) -> dict[str, object]:
        asked.update(options)
        return {**{name: {"contestants": {}} for name in ("embedding", "search", "frame")}, "missing": {"x": "gone"}}

    monkeypatch.setattr(bench_command, "_measure", lambda *_: {"frames": 1})
    monkeypatch.setattr(bench_command, "_show", lambda result: peers.show(result["peers"], Console()))
    monkeypatch.setattr(peers, "compare", compare)
    words = [str(mission), str(town / "flight"), "--frames", "2", "--repeat", "1", "--json", str(tmp_path / "b.json")]
    done = CliRunner().invoke(bench_command.app, [*words, "--compare"])
    assert done.exit_code == 0, done.output
    assert (asked["frames"], asked["rounds"], asked["xfeat"]) == (2, 1, None)
    assert json.loads((tmp_path / "b.json").read_text())["peers"]["missing"] == {"x": "gone"}
    assert "x did not take part: gone" in done.output
    assert CliRunner().invoke(bench_command.app, [*words, "--xfeat", "net.onnx"]).exit_code == 2


def test_synthetic_descriptors_make_a_gallery(
    localizer: Localizer, tmp_path: Path, of_benchmarks: Callable[[str], ModuleType]
) -> None:
    module = of_benchmarks("peers_synthetic")
    made = module.synthetic_gallery(localizer.gallery, 700, tmp_path)
    assert len(made) == 700
    lengths = np.linalg.norm(np.asarray(made.descriptors, np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=2e-3)
    # Clustered: nearly every one is like a real tile; and none is one.
    best = (np.asarray(made.descriptors, np.float32) @ np.asarray(localizer.gallery.descriptors, np.float32).T).max(1)
    assert 0.6 < np.median(best) < 0.9999
    queries = np.asarray(made.descriptors[:20], np.float32)
    assert made.approximate(queries, 1)[0][:, 0].tolist() == list(range(20))
    assert len(module.synthetic_gallery(localizer.gallery, 700, tmp_path)) == 700
