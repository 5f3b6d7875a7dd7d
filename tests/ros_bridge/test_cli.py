"""``cvgl-ros`` teaches itself, and ends with one line and an exit status where it cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "import sys; {}; sys.argv[0] = 'cvgl-ros'; from cvgl_ros.cli import app_main; app_main()"


def run(*arguments: str, before: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE.format(before), *arguments]
    settings = {**os.environ, "COLUMNS": "100", "ROS_DOMAIN_ID": "", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=settings)


def test_help_teaches() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in (
        "image/compressed",
        "altitude_source",
        "--interface",
        "--remap",
        "/diagnostics",
        "Examples",
        "loopback",
    ):
        assert word in done.stdout, word


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "message"),
    [
        (["absent"], {}, 4, "no such mission folder"),
        (["absent", "--set", "frame_id"], {}, 2, "NAME=VALUE"),
        (["absent", "--set", "frame_id=[1"], {}, 2, "--set"),
        (["absent", "--set", "threads=many"], {}, 4, "threads: not usable"),
        (["absent", "--params", "absent.yaml"], {}, 4, "absent.yaml: no such file"),
        (["absent", "--distro", "foxy"], {}, 2, "humble or jazzy"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(
    arguments: list[str], environment: dict[str, str], status: int, message: str
) -> None:
    pytest.importorskip("cyclonedds")
    done = run(*arguments, **environment)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_dds_package_it_says_which(tmp_path: Path) -> None:
    done = run(str(tmp_path), before="sys.modules['cyclonedds'] = None")
    assert done.returncode == 3
    assert "cyclonedds" in done.stderr and "cvgl[ros]" in done.stderr
    assert "Traceback" not in done.stderr
