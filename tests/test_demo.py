"""The demo, as somebody who has just installed the base package runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "cvgl.cli.demo"]


@pytest.mark.slow
def test_the_demo_localises_its_flight_without_pytorch(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "onnx"):
        (blocked / f"{name}.py").write_text("raise ImportError('the demo runs without this')\n")
    path = os.pathsep.join(filter(None, [str(blocked), os.environ.get("PYTHONPATH", "")]))
    out = tmp_path / "demo"
    done = subprocess.run(
        [*COMMAND, "--out", str(out), "--frames", "8"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "cvgl-prepare" in done.stdout and "cvgl-locate" in done.stdout and "report.html" in done.stdout
    summary = json.loads((out / "results" / "summary.json").read_text())
    assert summary["counts"]["frames"] == 8 and summary["counts"]["refined"] >= 4
    assert summary["reference"]["center"]["refined_m"]["p50"] < 3.0
    assert (out / "results" / "report.html").stat().st_size > 10_000
    assert [p.name for p in out.iterdir()] == ["results"]


def test_the_demo_keeps_its_hands_off_other_folders(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("all of it")
    done = subprocess.run([*COMMAND, "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 4 and "thesis.doc" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]
