"""Scores of constructed flights."""

from __future__ import annotations

import numpy as np
import pytest

from cvgl.results import nees as nees_of_one
from cvgl.sim.closed.rows import NO_FIX, REFINED, ROW, Rows, covariance, error, nees
from cvgl.sim.closed.score import divergences, place_error, recoveries, score


def rows_of(frames: int, flight: int = 0) -> Rows:
    """A flight that was answered perfectly, with covariances of 4 m^2."""
    rows = np.zeros(frames, ROW)
    for name in ROW.names or ():
        if ROW[name].kind == "f":
            rows[name] = np.nan
    rows["flight"], rows["frame"], rows["time"] = flight, np.arange(frames), 0.5 * np.arange(frames)
    for name in ("true_east", "true_north", "east", "north", "center_east", "center_north"):
        rows[name] = 100.0
    rows["found_center_east"] = rows["found_center_north"] = 100.0
    rows["measured_east"] = rows["measured_north"] = 100.0
    for prefix in ("", "measured_"):
        rows[f"{prefix}var_east"], rows[f"{prefix}cov_east_north"], rows[f"{prefix}var_north"] = 4.0, 1.0, 4.0
        rows[f"{prefix}status"] = REFINED
    rows["on_map"] = rows["seen"] = True
    return rows


def lose(rows: Rows, at: slice) -> None:
    rows["status"][at] = rows["measured_status"][at] = NO_FIX
    for name in ("east", "north", "var_east", "found_center_east", "measured_east"):
        rows[name][at] = np.nan
    rows["reason"][at] = "not_found"


def test_nees_is_that_of_the_other_module() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(50)
    rows["east"] += rng.normal(0, 3, 50)
    rows["north"] += rng.normal(0, 3, 50)
    rows["cov_east_north"] = rng.uniform(-3, 3, 50)
    expected = [nees_of_one(e, c) for e, c in zip(error(rows), covariance(rows), strict=True)]
    np.testing.assert_allclose(nees(rows), expected)


def test_nees_without_a_covariance_is_unknown() -> None:
    rows = rows_of(3)
    rows["var_east"][0], rows["cov_east_north"][1], rows["east"][2] = np.nan, 5.0, np.nan
    assert np.isnan(nees(rows)).all()


def test_true_covariances_are_consistent() -> None:
    rng = np.random.default_rng(1)
    parts = []
    for flight in range(20):
        rows = rows_of(200, flight)
        e = rng.multivariate_normal([0, 0], [[4, 1], [1, 4]], 200)
        rows["east"] += e[:, 0]
        rows["north"] += e[:, 1]
        rows["protection_m"] = 2.0 * np.sqrt(2 * np.log(20))
        parts.append(rows)
    found = score(np.concatenate(parts), protection_risk=0.05)
    assert found["consistency"]["answers"]["value"] == pytest.approx(1.0, abs=0.05)
    assert found["consistency"]["answers"]["low"] < 1.0 < found["consistency"]["answers"]["high"]
    assert found["protection"]["stated_risk"] == 0.05
    assert found["protection"]["exceeded"]["value"] == pytest.approx(0.05, abs=0.025)
    assert found["false_fixes"]["wrong_place"]["count"] == 0


def test_answers_and_availability() -> None:
    rows = rows_of(100)
    lose(rows, np.s_[:20])
    rows["status"][20:40] = 1
    rows["on_map"][90:] = False
    rows["seen"][50:60] = False
    found = score(rows)
    assert found["answers"] == {"refined": 60, "coarse": 20, "no_fix": 20}
    assert found["availability"]["position"]["value"] == pytest.approx(70 / 90)
    assert found["availability"]["refined"]["value"] == pytest.approx(50 / 90)
    assert found["no_fix_reasons"] == {"not_found": 20}
    assert found["protection"] is None


def test_a_wrong_place_and_a_tilted_camera_are_two_things() -> None:
    rows = rows_of(100)
    rows["east"][3] += 30.0
    rows["found_center_east"][7] += 200.0
    rows["east"][7] += 200.0
    found = score(rows)
    assert place_error(rows)[3] == 0.0
    assert found["false_fixes"]["wrong_place"]["count"] == 1
    assert found["false_fixes"]["beyond_six_sigma"]["count"] == 2


def test_recovery_counts_from_starts_and_displacements() -> None:
    rows = rows_of(60)
    rows["segment"] = np.arange(60) // 20
    lose(rows, np.s_[0:3])
    lose(rows, np.s_[20:32])
    rows["found_center_east"][40:45] += 300.0
    frames, seconds, started = recoveries(rows)
    assert frames.tolist() == [4, 13, 6]
    assert seconds.tolist() == [1.5, 6.0, 2.5]
    assert started.tolist() == [True, False, False]
    recovery = score(rows)["recovery"]
    assert recovery["all"]["within_10_frames"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert recovery["kidnap"]["runs"] == 2


def test_what_never_recovers_is_endless_and_what_is_off_the_map_does_not_count() -> None:
    never, outside = rows_of(30, 0), rows_of(30, 1)
    lose(never, np.s_[:])
    lose(outside, np.s_[:])
    outside["on_map"][:5] = False
    frames, _, _ = recoveries(np.concatenate([never, outside]))
    assert frames.tolist() == [np.inf]


@pytest.mark.parametrize(
    ("far", "frames", "protection", "expected"),
    [(60.0, 12, np.nan, [(5, 12)]), (60.0, 8, np.nan, []), (40.0, 12, np.nan, []), (40.0, 12, 10.0, [(5, 12)])],
)
def test_divergence_is_long_and_far(
    far: float, frames: int, protection: float, expected: list[tuple[int, int]]
) -> None:
    rows = rows_of(40)
    rows["protection_m"] = protection
    rows["east"][5 : 5 + frames] += far
    found = divergences(rows)
    assert [(one.first, one.frames) for one in found] == expected
    assert all(one.worst_m == far for one in found)


def test_refusing_is_no_divergence() -> None:
    rows = rows_of(40)
    rows["east"] += 100.0
    rows["status"] = NO_FIX
    assert divergences(rows) == []
