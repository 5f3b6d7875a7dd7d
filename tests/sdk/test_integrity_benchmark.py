"""The integrity benchmark's figures follow from its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvgl.fix import Alternative, Candidate, Fix, FixStatus


@pytest.fixture(scope="module")
def benchmark(of_benchmarks: Callable[[str], ModuleType]) -> ModuleType:
    return of_benchmarks("integrity")


def row(kind: str, status: str, probability: float, **more: Any) -> dict[str, Any]:
    base = {
        "kind": kind,
        "style": "mixed",
        "name": "1",
        "status": status,
        "reason": "",
        "log10_chance": -1.0,
        "log10_odds": 1.0,
    }
    return {**base, "probability": probability, "right": False, **more}


RIGHT: dict[str, Any] = {"right": True, "center_m": 0.5, "aircraft_m": 8.0}


def test_counts_and_rates(benchmark: ModuleType) -> None:
    rows = [
        row("own", "refined", 0.9999, **RIGHT, protection_m=30.0, center_nees=2.0, aircraft_nees=1.0),
        row("own", "refined", 0.9999, **{**RIGHT, "aircraft_m": 40.0}, protection_m=30.0, aircraft_nees=3.0),
        row("own", "refined", 0.97, **RIGHT, protection_m=None),
        row("own", "refined", 0.97, center_m=300.0, aircraft_m=300.0, protection_m=None),
        row("own", "no_fix", 0.4, **RIGHT, reason="not_found"),
        row("hidden", "no_fix", 0.2),
        row("elsewhere", "coarse", 0.96),
    ]
    found = benchmark.judge(rows)
    assert found["frames"] == {"own": 5, "hidden": 1, "elsewhere": 1, "foreign": 0}
    assert (found["true_fixes"]["count"], found["wrong_places"]["count"]) == (3, 1)
    assert (found["false_fixes"]["all"]["count"], found["false_fixes"]["hidden"]["count"]) == (1, 0)
    assert (found["protection"]["with_radius"]["count"], found["protection"]["exceeded"]["count"]) == (2, 1)
    assert found["nees"]["aircraft"]["ratio"] == 1.0
    assert [entry["true"]["count"] for entry in found["roc"]][-1] == 2
    assert found["reasons"]["own"] == {"not_found": 1}
    json.dumps(found, allow_nan=False)


def test_probabilities_that_are_true_are_found_reliable(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for probability in rng.uniform(size=4000):
        on = rng.uniform() < probability
        rows.append(row("own" if on else "elsewhere", "no_fix", float(probability), **(RIGHT if on else {})))
    for entry in benchmark.reliability(rows):
        if entry["own"] + entry["off"] > 100:
            assert entry["right"] == pytest.approx(entry["said"], abs=0.04)


def test_covariances_that_are_true_are_found_consistent(benchmark: ModuleType) -> None:
    values = np.random.default_rng(1).chisquare(2, 3000)
    found = benchmark.consistency([row("own", "refined", 1.0, center_nees=float(v)) for v in values], "center_nees")
    assert found["low"] < 1.0 < found["high"]
    assert found["within_95_percent"] == pytest.approx(0.95, abs=0.02)
    assert benchmark.consistency([], "center_nees") == {"count": 0}


def lost_row(stage: str, reason: str = "", **errors: float) -> dict[str, Any]:
    told = {"heading": 0.5, "height": 0.5, "tilt": 0.5, **errors}
    right = {} if stage else RIGHT
    return row("own", "no_fix" if stage else "refined", 0.9, reason=reason, stage=stage, errors=told, **right) | {
        "season": "summer"
    }


def test_where_true_fixes_are_lost_adds_up(benchmark: ModuleType) -> None:
    rows = [
        lost_row(""),
        lost_row("", heading=2.5),
        lost_row("not proposed", "not_found"),
        lost_row("not believed", "not_found", heading=2.5),
        lost_row("not the likeliest"),
        row("hidden", "no_fix", 0.1),
    ]
    found = benchmark.judge_lost(rows)
    assert found["of"] == 5
    assert sum(found["stages"].values()) == sum(found["reasons"].values()) == 3
    assert found["stages"]["not proposed"] == found["stages"]["not believed"] == 1
    assert found["reasons"] == {"another place is believed": 1, "not_found": 2}
    assert found["by"]["season: summer"]["count"] == 2
    assert (
        found["by"]["heading off by more than 2 sigma"]["count"],
        found["by"]["tilt off by 0 to 1 sigma"]["of"],
    ) == (
        1,
        5,
    )
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("candidates", "places", "status", "stage"),
    [
        ([(0.0, 0.0)], [(5.0, 5.0)], FixStatus.REFINED, ""),
        ([(900.0, 0.0)], [(900.0, 0.0)], FixStatus.NO_FIX, "not proposed"),
        ([(900.0, 0.0), (20.0, -20.0)], [(900.0, 0.0)], FixStatus.NO_FIX, "not registered"),
        ([(0.0, 0.0)], [(900.0, 0.0), (5.0, 5.0)], FixStatus.REFINED, "not the likeliest"),
        ([(0.0, 0.0)], [(5.0, 5.0)], FixStatus.NO_FIX, "not believed"),
        ([(0.0, 0.0)], [], FixStatus.NO_FIX, "not registered"),
    ],
)
def test_a_lost_frame_is_told_by_the_stage_that_lost_it(
    benchmark: ModuleType,
    candidates: list[tuple[float, float]],
    places: list[tuple[float, float]],
    status: FixStatus,
    stage: str,
) -> None:
    manifest = SimpleNamespace(stride_m=20.0)
    localizer = SimpleNamespace(gallery=SimpleNamespace(manifest=manifest))
    registered = [Alternative(*at, *at, np.eye(2), np.eye(2), 0.0, 1.0, 80.0, 0.5, 0.0) for at in places]
    proposed = [Candidate(number, *at, 0.5, 0.0) for number, at in enumerate(candidates)]
    fix = Fix(status, 0.0, candidates=tuple(proposed), alternatives=tuple(registered))
    assert benchmark.stage_of(fix, np.zeros(2), localizer) == stage


def test_rows_go_on_where_they_were_interrupted(benchmark: ModuleType, tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(number: int) -> list[dict[str, Any]]:
        asked.append(number)
        return [{"number": number, "look": look} for look in range(2)]

    file = tmp_path / "rows.jsonl"

    def rows(count: int) -> list[dict[str, Any]]:
        with benchmark.bars() as bar:
            return list(benchmark.kept_rows(file, answer, 2, count, bar, "test"))

    first = rows(2)
    file.write_text(file.read_text(encoding="utf-8") + json.dumps({"number": 2, "look": 0}) + "\n", encoding="utf-8")
    again = rows(4)
    assert again[:4] == first
    assert [one["number"] for one in again] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert asked == [0, 1, 2, 3]
    assert rows(3) == again[:6]
