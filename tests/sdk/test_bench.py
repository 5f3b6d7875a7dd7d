"""What cvgl-bench reports adds up, and what the benchmarks make of a flight's answers is right."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl import Candidate, Fix, Localizer, Model
from cvgl.bench import (
    allocated_mb,
    back_to_back,
    cold_start,
    forget_files,
    limit,
    load_frames,
    machine,
    open_flight,
    peak_memory_mb,
    resident_mb,
    time_frames,
    two_threads,
)
from cvgl.bench.figure import draw
from cvgl.bench.spread import growth, spread
from cvgl.bench.start import PARTS
from cvgl.cli.bench import _show
from cvgl.errors import FlightError, MissingDependencyError, MissionError, ModelError
from cvgl.fix import FixStatus
from cvgl.flight import Flight, FrameRecord
from cvgl.geo import LocalFrame


@pytest.fixture(scope="module")
def scoring(of_benchmarks: Callable[[str], ModuleType]) -> ModuleType:
    return of_benchmarks("scoring")


def test_a_mosaic_joins_without_a_seam_and_shows_its_middle_once(
    of_benchmarks: Callable[[str], ModuleType],
) -> None:
    rng = np.random.default_rng(0)
    middle, other = rng.integers(0, 256, (2, 40, 40, 3), np.uint8)
    mosaic = of_benchmarks("large_mission").Mosaic(100.0, middle, [other])
    shown, valid = mosaic.read(-10.0, 10.0, 40, 40, 0.5)
    np.testing.assert_array_equal(shown, middle)
    assert valid.all() and mosaic.bounds == (-50.0, -50.0, 50.0, 50.0)
    whole, _ = mosaic.read(-50.0, 50.0, 200, 200, 0.5)
    np.testing.assert_array_equal(whole[80:120, 80:120], middle)
    part, _ = mosaic.read(-21.0, 33.0, 50, 70, 0.5)
    np.testing.assert_array_equal(part, whole[34:104, 58:108])
    blocks = whole.reshape(5, 40, 5, 40, 3).swapaxes(1, 2).reshape(25, -1)
    assert (blocks == middle.ravel()).all(axis=1).sum() == 1
    coarse, _ = mosaic.read(-50.0, 50.0, 50, 50, 2.0)
    assert coarse.shape == (50, 50, 3)


def test_made_up_tiles_are_unit_descriptors_around_real_ones(of_benchmarks: Callable[[str], ModuleType]) -> None:
    large_mission = of_benchmarks("large_mission")

    class Recorder:
        descriptor_size, name = 64, "recorder"
        seen = 0

        def embed_inputs(self, inputs: np.ndarray, view: str) -> np.ndarray:
            self.seen += len(inputs)
            return np.eye(64, dtype=np.float32)[self.seen - len(inputs) : self.seen]

    real = Recorder()
    grid = large_mission.plan_grid((-45.0, -45.0, 45.0, 45.0), 10.0, 10.0, 10)
    model = large_mission.SampledModel(real, grid, 10.5, sample=3)
    batch = np.zeros((50, 3, 10, 10), np.float32)
    descriptors = np.concatenate([model.embed_inputs(batch), model.embed_inputs(batch)])
    assert grid.columns * grid.rows == 100
    assert real.seen == 3 + 4, "the first three, and the four whose centres are 5 m from the middle"
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, rtol=1e-5)
    assert model.name == "recorder"


def test_times_add_up(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission)
    seen: list[Fix] = []
    flight = open_flight(localizer, town / "flight")
    timed = time_frames(localizer, flight, frames=2, repeat=2, on_fix=seen.append)
    assert (timed["frames"], timed["answers"], timed["unreadable"]) == (2, 4, 0)
    assert len(seen) == sum(timed["counts"].values()) == 4
    for spent in (timed["locate_ms"], timed["decode_ms"], *timed["stages_ms"].values()):
        assert spent["p50"] <= spent["p95"] <= spent["p99"]
    assert {"rectify", "embed", "search", "other"} <= set(timed["stages_ms"])
    assert sum(stage["share"] for stage in timed["stages_ms"].values()) == pytest.approx(1.0, abs=0.01)


def test_unreadable_frames_are_counted_and_not_timed(mission: Path, town: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(town / "flight", tmp_path / "flight"))
    pictures = sorted((folder / "frames").iterdir())
    pictures[0].write_bytes(b"")
    localizer = Localizer.open(mission)
    timed = time_frames(localizer, Flight.open(folder), frames=2, repeat=1)
    assert (timed["frames"], timed["answers"], timed["unreadable"]) == (1, 1, 1)
    for picture in pictures:
        picture.write_bytes(b"")
    with pytest.raises(FlightError) as caught:
        time_frames(localizer, Flight.open(folder), repeat=1)
    assert caught.value.file == folder


def test_a_flight_brings_its_camera_and_headings_may_be_ignored(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission)
    unknown = open_flight(localizer, town / "flight", heading="unknown")
    assert localizer.camera == unknown.camera
    assert {record.heading for record in unknown} == {None}
    assert None not in {record.heading for record in open_flight(localizer, town / "flight", heading="0")}


def test_a_sequence_is_timed_beside_single_frames(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission)
    timed = time_frames(localizer, open_flight(localizer, town / "flight"), frames=3, repeat=1, track=True)
    assert sum(timed["counts"].values()) == sum(timed["track"]["counts"].values()) == timed["answers"] == 3
    assert list(timed["track"]["stages_ms"])[-1] == "track" and "other" not in timed["track"]["stages_ms"]
    assert sum(stage["share"] for stage in timed["track"]["stages_ms"].values()) == pytest.approx(1.0, abs=0.01)
    assert timed["memory_growth_mb"] is None, "three frames say nothing of growth"


def test_a_cold_start_is_a_process_of_its_own(mission: Path, town: Path) -> None:
    seen: list[int] = []
    cold = cold_start(mission, town / "flight", threads=1, repeat=2, on_start=lambda: seen.append(1))
    assert len(seen) == len(cold["totals_ms"]) == 2 and cold["total_ms"] == min(cold["totals_ms"])
    assert cold["total_ms"] == pytest.approx(sum(cold[part] for part in PARTS), abs=0.5)
    assert min(cold[part] for part in PARTS) >= 0 and cold["interpreter_ms"] > 0 and cold["open_model_ms"] > 0
    assert cold["processor_ms"] > 0
    assert cold["status"] in {status.value for status in FixStatus}
    if sys.platform == "linux":
        assert 20 < cold["peak_memory_mb"] < 2000 and (peak_memory_mb() or 0) > 20
        assert 0 < (allocated_mb() or 0) < (resident_mb() or 0) <= (peak_memory_mb() or 0)


def test_forgetting_files_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "file"
    file.write_bytes(b"kept" * 10_000)
    assert forget_files(tmp_path) is hasattr(os, "posix_fadvise")
    assert file.read_bytes() == b"kept" * 10_000


def test_a_failed_cold_start_says_why(town: Path) -> None:
    with pytest.raises(MissionError, match="no such mission folder"):
        cold_start(town / "nowhere", town / "flight")


def test_the_machine_is_described_but_not_named() -> None:
    about = machine()
    assert about["cores"] >= 1 and about["processor"]
    host = platform.node()
    assert not host or host not in json.dumps(about).split('"')


def test_throughput_counts_frames(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission, threads=1)
    flight = open_flight(localizer, town / "flight")
    frames = load_frames(flight, 2)
    assert [frame.name for frame in frames] == [record.name for record in list(flight)[:2]]
    assert back_to_back(localizer, frames, seconds=1e-6) > 0
    rounds: list[int] = []
    pair = two_threads(mission, frames, rounds=2, camera=localizer.camera, on_round=lambda: rounds.append(1))
    assert len(rounds) == pair["rounds"] == 2
    scaling = pair["scaling"]
    assert 0 < scaling["p50_low"] <= scaling["p50"] <= scaling["p50_high"]
    assert min(pair["one"], pair["two"]) > 0


@pytest.mark.slow
def test_the_command_writes_and_draws_what_it_shows(mission: Path, town: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ("--frames", "1", "--repeat", "1", "--track", "--threads", "1", "--json", out, "--figure", figure)
    done = bench(mission, town / "flight", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["answers"] == 1 and result["cold_start"]["total_ms"] > 0
    for word in ("rectify", "embed", "locate", "decode", "cold start", "peak memory", "two threads", "GFLOP/s"):
        assert word in done.stdout
    assert f"{result['locate_ms']['p50']:.1f}" in done.stdout
    assert figure.read_text() == draw(result)
    ceiling = result["limit"]["ceiling"]
    assert ceiling["threads"] == 1 and ceiling["gb_s"] == max(
        ceiling[f"{kind}_gb_s"] for kind in ("read", "copy", "triad")
    )
    for stage in ("rectify", "embed", "search", "correlate", "register"):
        assert result["limit"]["stages"][stage]["limit_ms"] > 0


@pytest.mark.parametrize(
    ("values", "groups", "median", "low", "high"),
    [
        ([3.0], None, 3.0, 3.0, 3.0),
        ([2.0] * 40, None, 2.0, 2.0, 2.0),
        ([1.0, 2.0, 3.0], ["a", "a", "a"], 2.0, 2.0, 2.0),  # one thing measured thrice: its median is not in doubt
        ([1.0] * 9 + [5.0] * 9, ["a"] * 9 + ["b"] * 9, 3.0, 1.0, 5.0),  # two things: it may be either's
    ],
)
def test_intervals_of_a_median(
    values: list[float], groups: list[str] | None, median: float, low: float, high: float
) -> None:
    found = spread(values, groups)
    assert (found["p50"], found["p50_low"], found["p50_high"]) == (median, low, high)
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-4)


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_percentiles_are_in_order(values: list[float]) -> None:
    found = spread(values)
    order = [found[name] for name in ("p5", "p25", "p50", "p75", "p95", "p99")]
    assert order == sorted(order) and min(values) - 1e-4 <= order[0] and order[-1] <= max(values) + 1e-4
    assert found["p50_low"] <= found["p50"] + 1e-4 and found["p50"] <= found["p50_high"] + 1e-4


def test_a_median_interval_holds_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [spread(rng.exponential(size=41)) for _ in range(40)]
    assert sum(found["p50_low"] <= np.log(2) <= found["p50_high"] for found in held) >= 34


@pytest.mark.parametrize(
    ("series", "slope"),
    [
        (np.arange(200.0), 1.0),
        (np.full(100, 7.0), 0.0),
        (np.concatenate([np.linspace(0, 50, 40), np.full(160, 50.0)]), 0.0),  # a warm-up of a fifth is left out
    ],
)
def test_growth_is_the_slope_after_the_warm_up(series: np.ndarray, slope: float) -> None:
    found = growth(series)
    assert found is not None
    assert found["slope"] == pytest.approx(slope) and found["low"] <= found["slope"] <= found["high"]


def test_growth_in_noise_is_not_claimed_and_a_leak_is_found() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 5, 1000)
    still, leak = growth(100 + noise), growth(100 + noise + 0.1 * np.arange(1000))
    assert still is not None and still["low"] < 0 < still["high"]
    assert leak is not None and 0 < leak["low"] < 0.1 < leak["high"]
    assert growth(np.arange(60.0)) is None, "too few"


def test_the_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(limit, "_SECONDS", 0.01)
    monkeypatch.setattr(limit, "_GEMM_SIDES", (64,))
    monkeypatch.setattr(limit, "_array_bytes", lambda: 32 << 20)
    limit.measure_here(2)
    found = limit.Ceiling(threads=2, **json.loads(capsys.readouterr().out))
    assert min(found.gflops, found.read_gb_s, found.copy_gb_s, found.triad_gb_s) > 0
    assert found.gb_s == max(found.read_gb_s, found.copy_gb_s, found.triad_gb_s) and found.array_mb == 33.6


def test_a_ceiling_that_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_CHILD", "raise SystemExit('no memory here')")
    with pytest.raises(MissingDependencyError, match="no memory here"):
        limit.measure_ceiling(1)


def test_multiply_adds_are_counted_from_shapes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "plain": rng.random((8, 3, 3, 3)),
        "grouped": rng.random((8, 1, 3, 3)),
        "up": rng.random((8, 4, 2, 2)),
        "wide": rng.random((16, 5)),
        "dense": rng.random((5, 4)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "plain"], ["a"], pads=[1, 1, 1, 1]),  # 16 x 16 x 8 outputs of 27
        helper.make_node("Conv", ["a", "grouped"], ["b"], strides=[2, 2], pads=[1, 1, 1, 1], group=8),  # 8 x 8 x 8 of 9
        helper.make_node("ConvTranspose", ["b", "up"], ["c"], strides=[2, 2]),  # 8 x 8 x 8 inputs to 4 x 4
        helper.make_node("MatMul", ["c", "wide"], ["d"]),  # 4 x 16 x 5 outputs of 16
        helper.make_node("ReduceMean", ["d"], ["e"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["e", "dense"], ["y"]),  # 4 outputs of 5
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    file = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    macs, weight_bytes = limit.count_network(file, (16, 16))
    assert macs == 16 * 16 * 8 * 27 + 8 * 8 * 8 * 9 + 8 * 8 * 8 * 16 + 4 * 16 * 5 * 16 + 4 * 5
    assert weight_bytes == 4 * sum(value.size for value in weights.values())
    file.write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be counted"):
        limit.count_network(file, (16, 16))


def test_the_least_work_of_each_stage(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission, threads=1)
    flight = open_flight(localizer, town / "flight")
    frame = load_frames(flight, 1)[0]
    fix = localizer.locate(frame)
    work = limit.stage_work(localizer, frame, [fix])
    tiles, size = localizer.gallery.descriptors.shape
    assert work["search"] == limit.Work(2.0 * tiles * size, 4.0 * tiles * size, work["search"].counted)
    assert work["rectify"].bytes == frame.image.nbytes
    assert all(entry.flop > 0 and entry.bytes > 0 for entry in work.values())
    lost = limit.stage_work(localizer, replace(frame, heading=None), [fix])
    assert lost["embed"].flop == pytest.approx(16 * work["embed"].flop)
    silent = limit.stage_work(localizer, frame, [])
    assert silent["register"] == silent["correlate"] == "no frame came so far"


def test_a_network_elsewhere_is_not_measured(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission, threads=1)
    flight = open_flight(localizer, town / "flight")
    model = localizer.model
    localizer.model = Model.__new__(Model)
    localizer.model.__dict__ |= model.__dict__ | {"runtime": "TensorRT 10.3.0, Orin, CUDA graph"}
    work = limit.stage_work(localizer, load_frames(flight, 1)[0], [])
    assert isinstance(work["embed"], str) and "not measured" in work["embed"]


def test_distances_name_what_binds() -> None:
    ceiling = limit.Ceiling(threads=1, gflops=10.0, read_gb_s=5.0, copy_gb_s=4.0, triad_gb_s=3.0, array_mb=64.0)
    work = {
        "embed": limit.Work(2e7, 1e6, "a network"),  # 2 ms of arithmetic, 0.2 ms of memory
        "search": limit.Work(1e6, 5e6, "tiles"),  # 0.1 ms and 1 ms
        "track": "nothing to count",
    }
    told = limit.distances(ceiling, work, {name: {"p50": 4.0} for name in ("embed", "search", "track", "other")})
    assert (told["embed"]["limit_ms"], told["embed"]["times"], told["embed"]["bound"]) == (2.0, 2.0, "compute")
    assert (told["search"]["limit_ms"], told["search"]["times"], told["search"]["bound"]) == (1.0, 4.0, "memory")
    assert told["track"] == {"why": "nothing to count"} and "why" in told["other"]


def made_up(track: bool) -> dict[str, Any]:
    """A result as the command writes it."""
    stages = {"rectify": 5.0, "embed": 10.0, "<search>": 0.001, "other": 0.0}
    times = {name: {**spread([value, value * 1.2]), "share": 0.25} for name, value in stages.items()}
    start = {part: 100.0 for part in PARTS} | {"total_ms": 700.0, "status": "refined", "peak_memory_mb": None}
    ceiling = limit.Ceiling(threads=1, gflops=100.0, read_gb_s=5.0, copy_gb_s=4.0, triad_gb_s=3.0, array_mb=64.0)
    work = {"embed": limit.Work(1e8, 1e6, 'a network & "more"')}
    ours = {"counts": {"refined": 2}, "locate_ms": spread([15.0, 18.0]), "stages_ms": times}
    sequence = {name: times[name] for name in ("rectify", "embed", "<search>")} | {"track": times["other"]}
    return {
        "machine": {"processor": "A <fast> one", "cores": 2, "load_average": 0.5},
        "engine": "ONNX Runtime",
        "frames": 2,
        "answers": 2,
        **ours,
        **({"track": {**ours, "stages_ms": sequence}} if track else {}),
        "decode_ms": spread([2.0]),
        "memory_growth_mb": {"slope": 0.01, "low": -0.02, "high": 0.04},
        "cold_start": start,
        "cold_start_from_disk": start,
        "peak_memory_mb": 150.0,
        "throughput": {
            "frames_per_s": 20.0,
            "threads": 2,
            "two_threads": {"one": 15.0, "two": 29.0, "scaling": spread([1.9, 1.95])},
        },
        "limit": {
            "ceiling": {**asdict(ceiling), "gb_s": ceiling.gb_s},
            "stages": limit.distances(ceiling, work, times),
        },
    }


@pytest.mark.parametrize("track", [False, True])
def test_the_figure_is_a_drawing_by_itself(track: bool) -> None:
    root = ElementTree.fromstring(draw(made_up(track)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for word in ("rectify", "<search>", "locate", "decode", "cold start", "700 ms", "A <fast> one, 2 cores"):
        assert any(word in text for text in texts), word
    assert texts.count("11 x (compute)") == 1
    assert ("track" in texts) is track
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    numbers = [
        (name, float(value))
        for node in root.iter()
        for name, value in node.attrib.items()
        if name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")
    ]
    assert all(0 <= value <= (height if "y" in name or name == "height" else width) for name, value in numbers)


@pytest.mark.parametrize("track", [False, True])
def test_what_is_shown(track: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _show(made_up(track))
    shown = capsys.readouterr().out
    for word in ("rectify", "11.0", "compute", "0.01 MB", "peak memory: 150 MB this run", "1.93 times", "100 GFLOP/s"):
        assert word in shown, word
    assert ("as a sequence" in shown) is track


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("MISSION", "nowhere"), 4, "nowhere"),
        (("nowhere", "FLIGHT"), 4, "nowhere"),
        (("MISSION", "FLIGHT", "--frames", "0"), 2, "--frames"),
        (("MISSION", "FLIGHT", "--heading", "north"), 2, "north"),
        (("MISSION", "FLIGHT", "--figure", "bench.png"), 2, ".svg"),
    ],
)
def test_what_the_command_refuses(
    mission: Path, town: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    paths = {"MISSION": str(mission), "FLIGHT": str(town / "flight"), "nowhere": str(tmp_path / "nowhere")}
    out = tmp_path / "bench.json"
    done = bench(*(paths.get(word, word) for word in words), "--json", out)
    assert done.returncode == status
    assert said in done.stderr
    assert not out.exists()


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from cvgl.cli.bench import app_main; app_main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=120)


LOCAL = LocalFrame(47.0, 9.5)


def at(east: float, north: float) -> tuple[float, float]:
    latitude, longitude = LOCAL.to_wgs84(east, north)
    return float(latitude), float(longitude)


def record(
    name: str, *, center: tuple[float, float] | None = None, gps: tuple[float, float] | None = None
) -> FrameRecord:
    center_place, gps_place = (at(*place) if place else (None, None) for place in (center, gps))
    return FrameRecord(
        name,
        Path(name),
        0.0,
        80.0,
        gps_latitude=gps_place[0],
        gps_longitude=gps_place[1],
        center_latitude=center_place[0],
        center_longitude=center_place[1],
    )


def row(status: str, east: float = 0.0, north: float = 0.0) -> dict[str, str]:
    """A row of fixes.csv; the aircraft 10 m south of the image's middle."""
    if status == "no_fix":
        return dict.fromkeys(("latitude", "longitude", "center_latitude", "center_longitude"), "") | {"status": status}
    places = (*at(east, north), *at(east, north - 10.0))
    names = ("center_latitude", "center_longitude", "latitude", "longitude")
    return {"status": status, **{name: f"{value:.8f}" for name, value in zip(names, places, strict=True)}}


def test_a_flight_is_judged_frame_by_frame(scoring: ModuleType) -> None:
    records = [
        record("near", center=(0, 0)),
        record("off", center=(0, 0)),
        record("far", center=(0, 0)),
        record("coarse", center=(0, 0)),
        record("none", center=(0, 0)),
        record("ahead", gps=(0, 0)),
        record("astray", gps=(0, 0)),
        record("silent", gps=(0, 0)),
    ]
    rows = [
        row("refined", 0.0, 2.0),
        row("refined", 20.0, 0.0),
        row("refined", 0.0, -26.0),
        row("coarse", 100.0, 0.0),
        row("no_fix"),
        row("refined", 0.0, 20.0),
        row("refined", 36.0, 0.0),
        row("no_fix"),
    ]
    found = scoring.judge_flight(records, rows)
    assert {name: found[name] for name in ("frames", "refined", "coarse", "no_fix", "with_reference")} == {
        "frames": 8,
        "refined": 5,
        "coarse": 1,
        "no_fix": 2,
        "with_reference": 5,
    }
    assert found["refined_within_10m"] == pytest.approx(1 / 5)
    assert (found["median_m"], found["worst_m"]) == (pytest.approx(20.0, abs=0.01), pytest.approx(26.0, abs=0.01))
    assert found["refined_beyond_25m"] == ["far"]
    assert found["refined_beyond_gps_slack"] == ["astray"]
    assert [frame["file"] for frame in found["worst"]] == ["far", "off", "near"]
    ahead, _, silent = found["without_reference"]
    assert (ahead["center_to_gps_m"], ahead["aircraft_to_gps_m"]) == (20.0, 10.0)
    assert found["aircraft_to_gps_m"]["p50"] == pytest.approx((10.0 + np.hypot(36.0, 10.0)) / 2, abs=0.01)
    assert silent == {"file": "silent", "status": "no_fix"}


def test_a_flight_without_fixes_is_judged_too(scoring: ModuleType) -> None:
    found = scoring.judge_flight([record("a", center=(0, 0))], [row("no_fix")])
    assert (found["refined_within_10m"], found["median_m"], found["refined_beyond_25m"]) == (0.0, None, [])


def test_retrieval_counts_the_first_tile_that_is_near(scoring: ModuleType) -> None:
    def fix(*distances: float) -> Fix:
        tiles = [Candidate(i, distance, 0.0, 1.0 - 0.1 * i, 0.0) for i, distance in enumerate(distances)]
        return Fix(FixStatus.NO_FIX, 0.0, candidates=tuple(tiles))

    records = [record(name, center=(0, 0)) for name in "abcd"] + [record("unreferenced", gps=(0, 0))]
    fixes = [fix(24.0), fix(26.0, 90.0, 10.0), fix(*[50.0] * 19, 0.0), fix(), fix(0.0)]
    found = scoring.judge_retrieval(records, fixes, LOCAL)
    assert (found["frames"], found["r_at_1"], found["r_at_5"], found["r_at_20"]) == (4, 0.25, 0.5, 0.75)
