"""Flights in closed loop over a small world, from one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cvgl import Localizer
from cvgl.cli.sim import app
from cvgl.errors import FlightError, MissionError
from cvgl.fix import Fix
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.sim.closed import Run, Scenario, perform, plan, preset, score
from cvgl.sim.closed.baselines import BASELINES, PlainFilter
from cvgl.sim.closed.ground import open_ground
from cvgl.sim.closed.rows import REFINED, Rows
from cvgl.sim.closed.run import flight_lengths

# Gimbals of today: the mission's own settings allow for one that nobody calibrated.
CALM = replace(Scenario(), tilt_sigma_deg=1.0, start_sigma_m=30.0)


def run_of(mission: Path, town: Path, **changes: object) -> Run:
    values = {"scenario": CALM, "frames": 12, "flight_frames": 4, "seed": 3, "map": town / "map.tif", "side": 320}
    return Run(mission, **{**values, **changes})  # type: ignore[arg-type]


def same(one: Rows, other: Rows) -> bool:
    """All but what a clock measured."""
    names = [name for name in one.dtype.names or () if name not in ("latency_ms", "render_ms")]
    return len(one) == len(other) and all(
        np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f") for name in names
    )


@pytest.mark.parametrize(
    ("frames", "each", "expected"),
    [(10, 5, [5, 5]), (12, 5, [5, 5, 2]), (11, 5, [5, 6]), (3, 500, [3]), (1000, 500, [500, 500])],
)
def test_flight_lengths(frames: int, each: int, expected: list[int]) -> None:
    assert flight_lengths(frames, each) == expected


def test_no_mission(tmp_path: Path) -> None:
    with pytest.raises(MissionError, match="no mission"):
        perform(Run(tmp_path / "absent", Scenario(), 10), tmp_path / "out")


def test_a_plain_filter_follows_what_it_is_told() -> None:
    kalman = PlainFilter()
    rng = np.random.default_rng(0)
    for step in range(60):
        kalman.predict(0.5 * step)
        kalman.velocity(np.array([10.0, 0.0]) + 0.3 * rng.standard_normal(2), 0.3)
        kalman.position(np.array([5.0 * step, 0.0]) + 3 * rng.standard_normal(2), 9 * np.eye(2))
    assert kalman.state is not None
    np.testing.assert_allclose(kalman.state[:2], [295, 0], atol=4)
    assert 0 < kalman.covariance[0, 0] < 9
    kalman.predict(30.0)
    kalman.position(np.array([9000.0, 0.0]), 9 * np.eye(2))
    assert kalman.state[0] > 600


@pytest.mark.slow
def test_a_run_is_the_same_interrupted_or_not(mission: Path, town: Path, tmp_path: Path) -> None:
    run = run_of(mission, town)
    whole = perform(run, tmp_path / "whole")["track"]

    class Stop(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise Stop

    with pytest.raises(Stop):
        perform(run, tmp_path / "parts", progress=stop)
    kept = sorted((tmp_path / "parts" / "flights").iterdir())
    assert [file.name for file in kept] == ["00000-4.npz"]
    counts: list[int] = []
    resumed = perform(run, tmp_path / "parts", progress=lambda done, total: counts.append(done))["track"]
    assert counts[0] == 4 and counts[-1] == 12
    assert same(whole, resumed)
    assert whole["flight"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    # More frames keep what was flown.
    more = perform(replace(run, frames=16), tmp_path / "parts")["track"]
    assert same(more[:12], whole)
    with pytest.raises(FlightError, match="another run"):
        perform(replace(run, seed=4), tmp_path / "parts")


@pytest.mark.slow
def test_processes_do_not_change_what_is_found(mission: Path, town: Path, tmp_path: Path) -> None:
    run = run_of(mission, town, frames=6, flight_frames=3)
    assert same(perform(run, tmp_path / "one")["track"], perform(run, tmp_path / "two", jobs=2)["track"])


@pytest.mark.slow
def test_a_closed_loop_flight_stays_found(mission: Path, town: Path, tmp_path: Path) -> None:
    run = run_of(mission, town, frames=40, flight_frames=40, baselines=("single", "retrieval", "correlation", "ekf"))
    found = perform(run, tmp_path / "out")
    assert set(found) == {"track", "single", "retrieval", "correlation", "ekf"}
    summary = {name: score(rows) for name, rows in found.items()}
    track = summary["track"]
    assert track["availability"]["position"]["value"] >= 0.95
    assert track["error_m"]["refined"]["p50"] < 6.0
    assert track["false_fixes"]["wrong_place"]["count"] == 0
    assert track["divergence"]["stretches"] == 0
    assert track["recovery"]["start"]["runs"] == 1
    assert summary["correlation"]["consistency"]["answers"]["count"] == 0
    assert np.all(found["correlation"]["status"] == REFINED)
    assert track["error_m"]["refined"]["p50"] < summary["retrieval"]["error_m"]["all"]["p50"]


@pytest.mark.slow
def test_along_a_recorded_trajectory(mission: Path, town: Path, tmp_path: Path) -> None:
    east = np.linspace(-80, 80, 600)
    latitude, longitude = LocalFrame(47.0, 9.5).to_wgs84(east, 0.3 * east)
    entry = "{0}\n2026-04-27 15:22:{1:06.3f}\n[latitude: {2:.6f}] [longitude: {3:.6f}] [rel_alt: 80.0 abs_alt: 500.0]\n"
    entries = [entry.format(i, i / 30, *place) for i, place in enumerate(zip(latitude, longitude, strict=True))]
    (tmp_path / "log.SRT").write_text("\n".join(entries))
    run = run_of(mission, town, frames=6, flight_frames=6, trajectory=tmp_path / "log.SRT")
    rows = perform(run, tmp_path / "out")["track"]
    local = Localizer.open(mission, threads=1).gallery.local
    easting, northing = local.to_local(latitude, longitude)
    true = np.column_stack([rows["true_east"], rows["true_north"]])
    apart = np.hypot(true[:, :1] - easting, true[:, 1:] - northing).min(axis=1)
    assert apart.max() < 12.0
    assert np.abs(rows["true_height"] - 80).max() < 8
    assert (rows["status"] == REFINED).any()


@pytest.mark.slow
def test_each_answer_narrows_the_next_search(mission: Path, town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvgl.sim.closed.fly import run_flight

    localizer = Localizer.open(mission, threads=1)
    ground = open_ground(
        town / "map.tif",
        localizer.gallery.basemap,
        localizer.gallery.local,
        localizer.camera,
        localizer.mission.height_m,
    )
    priors = []
    locate = localizer._locate

    def watched(frame: Frame, *more: Any) -> Fix:
        priors.append(frame.prior)
        return locate(frame, *more)

    monkeypatch.setattr(localizer, "_locate", watched)
    flown = plan(localizer, ground, replace(CALM, start_sigma_m=0.0), seed=1, number=0, frames=3, side=320)
    rows = run_flight(localizer, flown)
    assert priors[0] is None
    assert rows["status"][0] == REFINED
    assert priors[1] is not None and priors[1].sigma_m < 100


@pytest.mark.slow
def test_a_frame_is_a_function_of_seed_flight_and_number(mission: Path, town: Path) -> None:
    localizer = Localizer.open(mission, threads=1)
    ground = open_ground(
        town / "map.tif",
        localizer.gallery.basemap,
        localizer.gallery.local,
        localizer.camera,
        localizer.mission.height_m,
    )
    scenario = replace(preset("clouds", localizer.mission.settings), readout_s=0.03, exposure_s=0.02, darkness=0.3)

    def image(seed: int, number: int, index: int) -> np.ndarray:
        return plan(localizer, ground, scenario, seed=seed, number=number, frames=5, side=160).image(index)

    np.testing.assert_array_equal(image(1, 0, 2), image(1, 0, 2))
    for other in ((2, 0, 2), (1, 1, 2), (1, 0, 3)):
        assert np.abs(image(1, 0, 2).astype(int) - image(*other)).mean() > 1


@pytest.mark.slow
def test_the_command(mission: Path, town: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        str(mission),
        "--map",
        str(town / "map.tif"),
        "--frames",
        "6",
        "--flight-frames",
        "3",
        "--frame-size",
        "256",
    ]
    words += ["--scenario", "wrong-height", "--wind", "5", "--heading", "unknown", "--baselines", "single"]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["run"]["scenario"]["height_error"] == 0.15
    assert summary["run"]["scenario"]["wind_m_s"] == 5.0
    assert summary["run"]["scenario"]["heading_known"] is False
    assert set(summary["methods"]) == {"track", "single"}
    with np.load(out / "frames.npz") as kept:
        assert len(kept["track"]) == 6
    page = (out / "report.html").read_text()
    assert "<svg" in page and "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scenario", "storm"], "no such scenario"),
        (["--pattern", "zigzag"], "no such pattern"),
        (["--heading", "maybe"], "neither"),
        (["--baselines", "magic"], "no such baseline"),
    ],
)
def test_wrong_usage(mission: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, [str(mission), "--out", str(tmp_path / "out"), "--frames", "2", *words])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)


def test_baselines_are_told_in_the_help() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert all(name in shown for name in BASELINES)
