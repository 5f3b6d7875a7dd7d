"""The page of benchmarks/navigation.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cvgl.sim.closed.rows import REFINED, ROW
from cvgl.sim.closed.score import score


def scored(frames: int = 60) -> dict[str, Any]:
    """Scores of a flight that was answered at once and always."""
    rows = np.zeros(frames, ROW)
    for name in ROW.names or ():
        if ROW[name].kind == "f":
            rows[name] = 1.0
    rows["cov_east_north"] = rows["measured_cov_east_north"] = 0.0
    rows["frame"], rows["time"], rows["segment"] = np.arange(frames), np.arange(frames), np.arange(frames) // 30
    rows["seen"] = rows["on_map"] = True
    rows["status"] = rows["measured_status"] = REFINED
    return score(rows, protection_risk=1e-3)


def sections() -> dict[str, Any]:
    about = {"date": "2026-01-01T00:00:00+00:00", "commit": "abc", "seed": 0, "seconds": 1.0}
    one = scored()
    histogram = {"edges": np.linspace(0, 12, 25).tolist(), "shares": [1 / 24] * 24}
    recovered = {"frames_to_recover": {"started": [1, 2], "displaced": [3, None]}}
    return {
        "consistency": {**about, "places": {"a map": one}, "all": one, "nees_histogram": histogram},
        "kidnap": {**about, "area_km2": 25.0, "frames_a_run": 30, "runs": {"heading known": {**one, **recovered}}},
        "losses": {**about, "scenarios": {"nominal": one, "dark": one}},
        "baselines": {**about, "scenarios": {"nominal": {"track": one, "ekf": one}}, "features": "SIFT"},
    }


def test_every_section_has_its_page(of_benchmarks: Callable[[str], ModuleType]) -> None:
    report = of_benchmarks("navigation_report")
    targets = [{"what": "something", "found": 0.97, "asked": ">= 0.95", "met": True}]
    machine = {"processor": "P", "cores": 2}
    page = report.as_markdown({"machine": machine, "targets": targets, "sections": sections()}, {"kidnap": "k.svg"})
    for words in ("something | 0.97", "## Consistency", "## Started anywhere", "25 km2", "### nominal", "](k.svg)"):
        assert words in page
    assert "started, heading known | 1 | 100 %" in page
    assert "nan" not in page and "None" not in page


def test_figures_are_drawn(of_benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = of_benchmarks("navigation_report")
    names = report.draw(sections(), None)
    assert names == ["consistency", "kidnap", "losses"]
    report.draw(sections(), {name: tmp_path / f"{name}.svg" for name in names})
    assert all("<svg" in (tmp_path / f"{name}.svg").read_text() for name in names)
