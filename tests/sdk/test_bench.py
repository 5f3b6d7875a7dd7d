"""What cvgl-bench reports adds up, and what the benchmarks make of a flight's answers is right."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cvgl import Candidate, Fix, Localizer
from cvgl.bench import cold_start, machine, open_flight, peak_memory_mb, time_frames
from cvgl.errors import FlightError, MissionError
from cvgl.fix import FixStatus
from cvgl.flight import Flight, FrameRecord
from cvgl.geo import LocalFrame

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scoring() -> ModuleType:
    path = ROOT / "benchmarks" / "scoring.py"
    if not path.is_file():
        pytest.skip("benchmarks/ is not part of this installation")
    spec = importlib.util.spec_from_file_location("scoring", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_a_cold_start_is_a_process_of_its_own(mission: Path, town: Path) -> None:
    cold = cold_start(mission, town / "flight", threads=1)
    parts = cold["import_ms"] + cold["open_ms"] + cold["first_locate_ms"]
    assert cold["total_ms"] == pytest.approx(parts, abs=0.5)
    assert min(cold["import_ms"], cold["open_ms"], cold["first_locate_ms"]) > 0
    assert cold["status"] in {status.value for status in FixStatus}
    if sys.platform == "linux":
        assert 20 < cold["peak_memory_mb"] < 2000 and (peak_memory_mb() or 0) > 20


def test_a_failed_cold_start_says_why(town: Path) -> None:
    with pytest.raises(MissionError, match="no such mission folder"):
        cold_start(town / "nowhere", town / "flight")


def test_the_machine_is_described_but_not_named() -> None:
    about = machine()
    assert about["cores"] >= 1 and about["processor"]
    host = platform.node()
    assert not host or host not in json.dumps(about).split('"')


def test_the_command_writes_what_it_shows(mission: Path, town: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = bench(mission, town / "flight", "--frames", "1", "--repeat", "1", "--json", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["answers"] == 1 and result["cold_start"]["total_ms"] > 0
    for word in ("rectify", "embed", "locate", "decode", "cold start", "peak memory"):
        assert word in done.stdout
    assert f"{result['locate_ms']['p50']:.1f}" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("MISSION", "nowhere"), 4, "nowhere"),
        (("nowhere", "FLIGHT"), 4, "nowhere"),
        (("MISSION", "FLIGHT", "--frames", "0"), 2, "--frames"),
        (("MISSION", "FLIGHT", "--heading", "north"), 2, "north"),
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
