"""Results of a flight: files others read, and the numbers a flight is judged by."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cvgl.camera import Camera
from cvgl.cli.locate import app, locate_flight, mission_fingerprint, parse_heading, parse_start
from cvgl.fix import Fix, FixStatus, ReasonCode
from cvgl.flight import Flight, FrameRecord
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.results import (
    FIX_COLUMNS,
    aircraft_errors,
    center_errors,
    distribution,
    error_metres,
    fix_row,
    nees,
    summarise,
    write_fixes,
    write_geojson,
)

ORIGIN = LocalFrame(24.26, 120.72)


def at(east: float, north: float) -> tuple[float, float]:
    latitude, longitude = ORIGIN.to_wgs84(east, north)
    return float(latitude), float(longitude)


def record(name: str, *, gps: bool = True, center: bool = True) -> FrameRecord:
    latitude, longitude = at(0, 0)
    return FrameRecord(
        name=name,
        path=Path(name),
        time=1000.0,
        height=100.0,
        gps_latitude=latitude if gps else None,
        gps_longitude=longitude if gps else None,
        center_latitude=latitude if center else None,
        center_longitude=longitude if center else None,
    )


def fix(
    east: float, north: float = 0.0, status: FixStatus = FixStatus.REFINED, sigma: float = 2.0, **more: object
) -> Fix:
    latitude, longitude = at(east, north)
    return Fix(
        status,
        1000.0,
        latitude=latitude,
        longitude=longitude,
        center_latitude=latitude,
        center_longitude=longitude,
        covariance=np.eye(2) * sigma**2,
        center_covariance=np.eye(2) * sigma**2,
        timings_ms={"search": 10.0, "refine": 30.0},
        **more,  # type: ignore[arg-type]
    )


NO_FIX = Fix.none(1000.0, "no place agrees: score 0.031 below 0.2")


class TestErrors:
    @pytest.mark.parametrize(("east", "north"), [(0, 0), (10, 0), (0, -3), (-250, 400)])
    def test_metres_east_and_north(self, east: float, north: float) -> None:
        np.testing.assert_allclose(error_metres(*at(east, north), *at(0, 0)), [east, north], atol=2e-3)

    def test_a_hundredth_of_a_degree_of_the_ellipsoid(self) -> None:
        # Length of the meridian's first hundredth of a degree and of one along the equator, WGS84.
        np.testing.assert_allclose(error_metres(0.01, 0, 0, 0), [0, 1105.743], atol=0.01)
        np.testing.assert_allclose(error_metres(0, 0.01, 0, 0), [1113.195, 0], atol=0.01)

    def test_across_the_date_line(self) -> None:
        assert abs(error_metres(0, -179.9999, 0, 179.9999)[0]) == pytest.approx(22.26, abs=0.01)

    def test_nan_where_either_side_is_missing(self) -> None:
        records = [record("a"), record("b", gps=False, center=False), record("c")]
        fixes = [fix(3), fix(3), NO_FIX]
        for errors in (center_errors(records, fixes), aircraft_errors(records, fixes)):
            assert np.isfinite(errors).all(axis=1).tolist() == [True, False, False]


class TestNees:
    @pytest.mark.parametrize(
        ("error", "covariance", "expected"),
        [
            ([0, 0], np.eye(2), 0.0),
            ([3, 4], np.eye(2), 25.0),
            ([3, 4], np.diag([9.0, 16.0]), 2.0),
            ([1, -1], [[2.0, 1.0], [1.0, 2.0]], 2.0),
            ([1, 1], None, math.nan),
            ([math.nan, 1], np.eye(2), math.nan),
            ([1, 1], np.zeros((2, 2)), math.nan),
            ([1, 1], [[1.0, 2.0], [2.0, 1.0]], math.nan),
            ([1, 1], np.full((2, 2), math.nan), math.nan),
        ],
    )
    def test_table(self, error: list[float], covariance: object, expected: float) -> None:
        assert nees(error, covariance) == pytest.approx(expected, nan_ok=True)  # type: ignore[arg-type]

    def test_right_covariances_average_to_two(self) -> None:
        rng = np.random.default_rng(3)
        root = np.array([[3.0, 0.0], [2.0, 0.5]])
        errors = rng.normal(size=(4000, 2)) @ root.T
        assert np.mean([nees(error, root @ root.T) for error in errors]) == pytest.approx(2.0, abs=0.1)


class TestDistribution:
    def test_empty(self) -> None:
        assert distribution([]) == {"count": 0}
        assert distribution([math.nan, math.inf]) == {"count": 0}

    @given(st.lists(st.floats(0, 1e6), min_size=1))
    def test_percentiles_are_ordered(self, values: list[float]) -> None:
        d = distribution([*values, math.nan])
        assert d["count"] == len(values)
        assert d["p50"] <= d["p90"] <= d["p95"] <= d["p99"] <= d["max"]


class TestFiles:
    def test_fixes_csv(self, tmp_path: Path) -> None:
        records = [record("a.jpg"), record("b, c.jpg"), record("d.jpg")]
        fixes = [fix(5, status=FixStatus.COARSE, heading_deg=-12.345, score=0.5), NO_FIX, fix(0)]
        write_fixes(tmp_path / "fixes.csv", records, fixes)
        with open(tmp_path / "fixes.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == FIX_COLUMNS
        assert [row["status"] for row in rows] == ["coarse", "no_fix", "refined"]
        assert rows[1]["file"] == "b, c.jpg"
        assert {rows[1][name] for name in FIX_COLUMNS[3:10]} == {""}
        assert (rows[0]["sigma_east_m"], rows[0]["heading_deg"], rows[0]["score"]) == (
            "2.000",
            "-12.35",
            "0.5000",
        )
        assert rows[0]["latency_ms"] == "40.00"
        moved = error_metres(float(rows[0]["latitude"]), float(rows[0]["longitude"]), *at(5, 0))
        assert np.hypot(*moved) < 0.002

    def test_integrity_stands_behind_the_contract_s_columns(self, tmp_path: Path) -> None:
        assert FIX_COLUMNS[:12][-1] == "latency_ms"
        sure = fix(0, probability=0.9999985, protection_radius_m=12.3456)
        likely = fix(0, probability=0.98)
        refused = Fix.none(0.0, "image: too dark", reason_code=ReasonCode.TOO_DARK, probability=0.25)
        told = [fix_row(record("a"), one) for one in (sure, likely, refused)]
        assert [row["probability"] for row in told] == ["0.999999", "0.980000", "0.250000"]
        assert [row["protection_radius_m"] for row in told] == ["12.346", "inf", ""]
        assert [row["reason_code"] for row in told] == ["", "", "too_dark"]
        write_geojson(tmp_path / "t.geojson", [record("a"), record("b")], [sure, likely])
        points = json.loads((tmp_path / "t.geojson").read_text())["features"][1:]
        assert [point["properties"]["protection_radius_m"] for point in points] == [12.346, None]

    def test_time_is_given_back_as_it_was_written(self) -> None:
        written = FrameRecord("a", Path("a"), 0.0, 1.0, time_text="1970-01-01T00:00:00+00:00")
        assert fix_row(written, NO_FIX)["time"] == "1970-01-01T00:00:00+00:00"
        assert fix_row(record("a"), NO_FIX)["time"] == "1000.000"

    def test_a_failed_write_leaves_the_old_file(self, tmp_path: Path) -> None:
        (tmp_path / "fixes.csv").write_text("old")
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            write_fixes(tmp_path / "fixes.csv", [record("a"), record("b")], [fix(0)])
        assert [path.name for path in tmp_path.iterdir()] == ["fixes.csv"]
        assert (tmp_path / "fixes.csv").read_text() == "old"

    def test_geojson(self, tmp_path: Path) -> None:
        records = [record(name) for name in "abcd"]
        fixes = [fix(0), NO_FIX, fix(30, status=FixStatus.COARSE, reason="spread"), fix(10)]
        write_geojson(tmp_path / "track.geojson", records, fixes)
        track = json.loads((tmp_path / "track.geojson").read_text())
        line, *points = track["features"]
        assert track["type"] == "FeatureCollection"
        assert line["geometry"]["type"] == "LineString"
        assert len(line["geometry"]["coordinates"]) == 2
        longitude, latitude = line["geometry"]["coordinates"][0]
        assert (latitude, longitude) == pytest.approx(at(0, 0), abs=1e-7)
        assert [point["properties"]["file"] for point in points] == ["a", "c", "d"]
        assert points[1]["properties"]["reason"] == "spread"
        assert points[1]["properties"]["heading_deg"] is None

    def test_geojson_has_the_ground_that_a_fix_s_frame_sees(self, tmp_path: Path) -> None:
        camera = Camera.from_field_of_view(640, 480, 62.0)
        fixes = [replace(fix(0), heading_deg=90.0, height_m=100.0), fix(10), NO_FIX]
        write_geojson(tmp_path / "track.geojson", [record(name) for name in "abc"], fixes, camera)
        features = json.loads((tmp_path / "track.geojson").read_text())["features"]
        (outline,) = [feature for feature in features if feature["geometry"]["type"] == "Polygon"]
        assert outline["properties"] == {"file": "a", "footprint_of": "refined"}
        (ring,) = outline["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        east, north = ORIGIN.to_local([at[1] for at in ring], [at[0] for at in ring])
        across = 2 * 100.0 * math.tan(math.radians(31.0))
        # Heading east, the image's long side lies north and south.
        assert np.ptp(north) == pytest.approx(across, abs=0.01)
        assert np.ptp(east) == pytest.approx(across * 0.75, abs=0.01)

    @pytest.mark.parametrize("fixes", [[NO_FIX], [fix(0)], []])
    def test_no_line_without_two_points(self, tmp_path: Path, fixes: list[Fix]) -> None:
        write_geojson(tmp_path / "t.geojson", [record("a")][: len(fixes)], fixes)
        features = json.loads((tmp_path / "t.geojson").read_text())["features"]
        assert all(feature["geometry"]["type"] == "Point" for feature in features)


class TestSummary:
    def test_what_a_flight_is_judged_by(self) -> None:
        records = [record("a"), record("b"), record("c"), record("d"), record("e", center=False)]
        fixes = [fix(1), fix(30), fix(50, status=FixStatus.COARSE), NO_FIX, fix(2)]
        summary = summarise(records, fixes, decode_ms=[5, 6, 7], run={"seed": 0})
        assert summary["counts"] == {"frames": 5, "no_fix": 1, "coarse": 1, "refined": 3}
        assert summary["no_fix_reasons"] == {"no place agrees: score N below N": 1}
        assert summary["latency_ms"]["count"] == 4
        assert summary["latency_ms"]["p50"] == 40.0
        assert summary["latency_ms"]["stages_p50"] == {"search": 10.0, "refine": 30.0}
        assert summary["decode_ms"]["p50"] == 6.0
        center, aircraft = summary["reference"]["center"], summary["reference"]["aircraft"]
        assert center["frames"] == 4
        assert center["refined_within_10m"] == 0.25
        assert aircraft["refined_within_10m"] == 0.4
        assert center["refined_beyond_25m"] == 1
        assert center["worst"] == {"file": "b", "error_m": pytest.approx(30, abs=0.01)}
        assert center["coarse_m"]["p50"] == pytest.approx(50, abs=0.01)
        assert center["consistency"]["count"] == 2
        assert center["consistency"]["mean_nees"] == pytest.approx((0.25 + 225) / 2, rel=1e-3)
        assert center["consistency"]["within_95_percent"] == 0.5
        assert summary["run"] == {"seed": 0}
        json.dumps(summary, allow_nan=False)

    def test_without_references_it_says_none(self) -> None:
        summary = summarise([record("a", gps=False, center=False)], [fix(0)])
        assert summary["reference"] == {"center": None, "aircraft": None}

    @pytest.mark.parametrize("count", [0, 3])
    def test_nothing_found(self, count: int) -> None:
        summary = summarise([record("a")] * count, [NO_FIX] * count)
        assert summary["counts"]["no_fix"] == count
        assert summary["latency_ms"]["count"] == 0
        json.dumps(summary, allow_nan=False)


class Recorder:
    """Answers every frame with a fix at the origin and remembers what it was asked."""

    def __init__(self, knows: float = -1.0) -> None:
        self.knows = knows
        self.asked: list[tuple[str, Frame | None, Prior | None]] = []

    def locate(self, frame: Frame) -> Fix:
        self.asked.append(("locate", frame, frame.prior))
        return fix(0, name=frame.name)

    def track(self, frame: Frame) -> Fix:
        self.asked.append(("track", frame, frame.prior))
        return fix(0, name=frame.name)

    def estimate(self, time: float) -> Fix:
        return replace(fix(0), reason="followed by its motion") if time == self.knows else Fix.none(time, "lost")

    def reset(self, prior: Prior | None = None) -> None:
        self.asked.append(("reset", None, prior))


@pytest.fixture
def flight(tmp_path: Path) -> Flight:
    (tmp_path / "frames").mkdir()
    for name in "abc":
        cv2.imwrite(str(tmp_path / "frames" / f"{name}.jpg"), np.zeros((32, 48, 3), np.uint8))
    whole = (tmp_path / "frames" / "b.jpg").read_bytes()
    (tmp_path / "frames" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    table = "file,time,height_above_takeoff_m\na.jpg,0,100\nb.jpg,1,100\nc.jpg,2,high\na.jpg,3,100\n"
    (tmp_path / "frames.csv").write_text(table)
    return Flight.open(tmp_path)


class TestLocate:
    def test_a_sequence_knows_where_a_frame_was_that_cannot_be_read(self, flight: Flight) -> None:
        fixes, _ = locate_flight(Recorder(knows=1.0), flight)
        assert [bool(found) for found in fixes] == [True, True, False, True]
        assert fixes[1].reason == "the image is truncated; followed by its motion"
        assert fixes[1].measured is not None and not fixes[1].measured and fixes[1].name == "b.jpg"
        assert not locate_flight(Recorder(knows=1.0), flight, independent=True)[0][1]

    def test_a_frame_that_cannot_be_used_is_a_no_fix_and_the_flight_goes_on(self, flight: Flight) -> None:
        seen: list[Fix] = []
        fixes, decode_ms = locate_flight(Recorder(), flight, on_fix=seen.append)
        assert [bool(found) for found in fixes] == [True, False, False, True]
        assert fixes[1].reason == "the image is truncated"
        assert "row 4: height_above_takeoff_m" in fixes[2].reason
        assert len(decode_ms) == 2
        assert seen == fixes

    def test_a_sequence_is_tracked_from_the_start_prior(self, flight: Flight) -> None:
        start, recorder = Prior(24.0, 120.0, 50.0), Recorder()
        locate_flight(recorder, flight, start=start)
        assert [(kind, prior) for kind, _, prior in recorder.asked] == [
            ("reset", start),
            ("track", None),
            ("track", None),
        ]

    @pytest.mark.parametrize("start", [None, Prior(24.0, 120.0, 50.0)])
    def test_independent_frames_are_each_the_first(self, flight: Flight, start: Prior | None) -> None:
        recorder = Recorder()
        locate_flight(recorder, flight, start=start, independent=True)
        assert [(kind, prior) for kind, _, prior in recorder.asked[1:]] == [("locate", start)] * 2

    @pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "91,0,10", "0,0,-1", "nan,0,1", "1;2;3"])
    def test_starts_that_are_none(self, text: str) -> None:
        with pytest.raises(typer.BadParameter):
            parse_start(text)

    def test_start_and_heading(self) -> None:
        assert parse_start("24.5, -120.25,200") == Prior(24.5, -120.25, 200.0)
        assert parse_heading("-12.5") == -12.5
        assert parse_heading("Unknown") is None
        for text in ("north", "400", "nan", ""):
            with pytest.raises(typer.BadParameter):
                parse_heading(text)

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["mission", "flight"],
            ["mission", "flight", "--out", "out", "--start", "here"],
            ["mission", "flight", "--out", "out", "--heading", "north"],
            ["mission", "flight", "--out", "out", "--height", "-5"],
            ["mission", "flight", "--out", "out", "--threads", "0"],
        ],
    )
    def test_wrong_usage_is_status_2(self, arguments: list[str]) -> None:
        assert CliRunner().invoke(app, arguments).exit_code == 2

    def test_a_missions_fingerprint_follows_its_manifests(self, tmp_path: Path) -> None:
        (tmp_path / "a.gallery").mkdir()
        (tmp_path / "a.gallery" / "manifest.json").write_text("{}")
        (tmp_path / "big.bin").write_text("1")
        before = mission_fingerprint(tmp_path)
        (tmp_path / "big.bin").write_text("2")
        assert mission_fingerprint(tmp_path) == before
        (tmp_path / "a.gallery" / "manifest.json").write_text('{"a": 1}')
        assert mission_fingerprint(tmp_path) != before
