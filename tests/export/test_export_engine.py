"""An export that ends in an engine, against the genuine bindings of three versions of TensorRT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.0.106"])
def test_with_the_genuine_bindings(version: str) -> None:
    # In a process of its own: the bindings of two versions cannot live in one.
    command = [sys.executable, str(ROOT / "tests" / "trt" / "bindings.py"), "--run", version]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "trt" / "check_export.py")],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
