"""What `pip install` promises: commands that load, a base install without torch, a whole wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "cvgl-bench",
    "cvgl-camera",
    "cvgl-demo",
    "cvgl-eval",
    "cvgl-export",
    "cvgl-gallery",
    "cvgl-locate",
    "cvgl-mavlink",
    "cvgl-prepare",
    "cvgl-ros",
    "cvgl-sim",
    "cvgl-train",
}
BASE = {
    "numpy",
    "opencv-python-headless",
    "hnswlib",
    "onnxruntime",
    "rasterio",
    "typer",
    "rich",
    "jinja2",
    "pyyaml",
}


def scripts() -> dict[str, metadata.EntryPoint]:
    points = metadata.distribution("cvgl").entry_points
    return {point.name: point for point in points if point.group == "console_scripts"}


def test_the_commands_are_there() -> None:
    assert set(scripts()) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_loads(name: str) -> None:
    assert callable(scripts()[name].load())


def test_base_install_is_what_a_drone_needs() -> None:
    requirements = [line for line in metadata.requires("cvgl") or [] if "extra ==" not in line]
    assert {re.split(r"[ <>=!;\[(]", line)[0].lower() for line in requirements} == BASE


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("cvgl_train.cli", ["fsra", "--small"], "train"),
        ("cvgl_train.eval_cli", ["model.pt", "procedural:folder"], "train"),
        ("cvgl_export.cli", ["model.pt"], "train,export"),
    ],
)
def test_a_command_whose_extra_is_not_installed_says_so(module: str, arguments: list[str], extra: str) -> None:
    code = "import sys\nfor name in ('torch', 'timm', 'onnx', 'sklearn'): sys.modules[name] = None\n"
    code += f"sys.argv = ['command', *{arguments!r}]\nfrom {module} import app_main\napp_main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and f"pip install 'cvgl[{extra}]'" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_missing_core_is_named() -> None:
    # None in sys.modules is how Python itself marks a module that must not be found.
    code = "import sys; sys.modules['cvgl._native'] = None; import cvgl"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "ImportError: the compiled core of cvgl (cvgl._native) is missing" in done.stderr
    assert "pip install" in done.stderr


@pytest.mark.slow
def test_wheel_ships_every_file_of_the_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--config-settings", f"build-dir={tmp_path / 'build'}", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, text=True, timeout=280)
    (wheel,) = tmp_path.glob("cvgl-*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    tracked = subprocess.run(
        ["git", "ls-files", "sdk/cvgl", "train/cvgl_train", "export/cvgl_export", "ros_bridge/cvgl_ros"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files belong to the packages")
    expected = {name.split("/", 1)[1] for name in tracked.stdout.split() if (ROOT / name).exists()}
    assert expected - shipped == set()
    assert any(name.startswith("cvgl/_native.") and not name.endswith(".pyi") for name in shipped)
    assert {name.split("/")[0] for name in shipped} == {"cvgl", "cvgl_train", "cvgl_export", "cvgl_ros"}
