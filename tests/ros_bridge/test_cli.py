"""``cvgl-ros`` teaches itself, and ends with one line and an exit status where it cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvgl_ros.cli import app_main
from cvgl_ros.parameters import Parameters, read_parameters

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
    ("arguments", "status", "message"),
    [
        (["absent"], 4, "no such mission folder"),
        (["absent", "--set", "frame_id"], 2, "NAME=VALUE"),
        (["absent", "--set", "frame_id=[1"], 2, "--set"),
        (["absent", "--set", "threads=many"], 4, "threads: not usable"),
        (["absent", "--params", "absent.yaml"], 4, "absent.yaml: no such file"),
        (["absent", "--distro", "foxy"], 2, "humble or jazzy"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(
    arguments: list[str],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("cyclonedds")
    monkeypatch.setattr(sys, "argv", ["cvgl-ros", *arguments])
    with pytest.raises(SystemExit) as ended:
        app_main()
    told = capsys.readouterr().err
    assert ended.value.code == status, told
    assert message in told and "Traceback" not in told


def test_the_parameter_file_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.yaml"
    monkeypatch.setattr(sys, "argv", ["cvgl-ros", "--write-params", str(file)])
    for status in (0, 4):  # and is not written over
        with pytest.raises(SystemExit) as ended:
            app_main()
        assert ended.value.code == status
    assert Parameters.from_dict(read_parameters(file)).frame_id == "base_link"
    assert "is there already" in capsys.readouterr().err


def test_without_the_dds_package_it_says_which(tmp_path: Path) -> None:
    done = run(str(tmp_path), before="sys.modules['cyclonedds'] = None")
    assert done.returncode == 3
    assert "cyclonedds" in done.stderr and "cvgl[ros]" in done.stderr
    assert "Traceback" not in done.stderr
