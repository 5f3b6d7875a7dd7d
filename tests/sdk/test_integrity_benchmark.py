"""The integrity benchmark's figures follow from its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark(of_benchmarks: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    import sys

    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        return of_benchmarks("integrity")
    finally:
        sys.path.remove(str(folder))


def row(kind: str, status: str, probability: float, **more: Any) -> dict[str, Any]:
    base = {"kind": kind, "style": "mixed", "name": "1", "status": status, "reason": "", "log10_chance": -1.0}
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
    assert found["frames"] == {"own": 5, "hidden": 1, "elsewhere": 1}
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
