"""Fixtures every test may use."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def helper() -> Callable[[str], ModuleType]:
    """A function that loads a file of helpers by its name in this folder, once: ``helper("ros_bridge/peer")``."""

    def load(name: str) -> ModuleType:
        module = "helpers_" + name.replace("/", "_")
        if module not in sys.modules:
            spec = importlib.util.spec_from_file_location(module, ROOT / "tests" / f"{name}.py")
            assert spec is not None and spec.loader is not None
            sys.modules[module] = made = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(made)
        return sys.modules[module]

    return load


@pytest.fixture
def answering(helper: Callable[[str], ModuleType]) -> Any:
    """A localiser that answers every frame at once (``answering.py``)."""
    return helper("answering").Answering()


@pytest.fixture(scope="session")
def make_fix(helper: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """A function that makes a fix: ``make_fix(time, north_m, status, **fields)``."""
    return helper("answering").fix_at  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def until(helper: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """A function that waits for the first true value of a condition."""
    return helper("answering").wait_until  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def cvgl_data() -> Path:
    """The folder of real flights, maps and models; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("CVGL_DATA") or ROOT.parent / "shared").expanduser()
    if not (folder / "flights").is_dir():
        pytest.skip(f"no shared data at {folder} (set CVGL_DATA to the folder that holds flights/ and maps/)")
    return folder


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small procedural town as files: ``map.tif``, ``flight/`` over it, ``elsewhere/`` over another town.

    Both flights have 10 frames of 640 x 480 from about 80 m, with errors of heading, height and tilt.
    """
    from cvgl.camera import Camera
    from cvgl.sim import World, write_flight, write_map

    folder = tmp_path_factory.mktemp("town")
    camera = Camera.from_field_of_view(640, 480, 62.0)
    place = World.generate(5, size_m=480.0, style="suburban")
    write_map(place, folder / "map.tif", gsd=0.5)
    for name, world, seed in (("flight", place, 3), ("elsewhere", World.generate(77, 480.0, "suburban"), 4)):
        write_flight(world, folder / name, camera, latitude=47.0, longitude=9.5, frames=10, height_m=80.0, seed=seed)
    return folder


@pytest.fixture(scope="session")
def mission(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mission for the town with the model that ships. Tests that damage it work on a copy."""
    from cvgl_export.prepare import CheckSize, prepare

    out = tmp_path_factory.mktemp("mission") / "mission"
    camera = town / "flight" / "camera.yaml"
    # No trials: the default laws of chance stand, which were measured on many maps.
    check = CheckSize(views=32, frames=4, trials=0)
    prepare(town / "map.tif", camera, 80.0, out, adapt=False, stride_m=20.0, check=check)
    return out


@pytest.fixture(scope="session")
def check_with_tensorrt() -> Callable[[str, str], None]:
    """A function that runs a file of checks in tests/trt over the genuine bindings of a version of TensorRT."""

    def check(version: str, file: str) -> None:
        # In a process of its own: the bindings of two versions cannot live in one.
        command = [sys.executable, str(ROOT / "tests" / "trt" / "bindings.py"), "--run", version]
        done = subprocess.run(
            [*command, str(ROOT / "tests" / "trt" / file)],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "PYTEST_ADDOPTS": ""},
        )
        if done.returncode == 77:
            pytest.skip(done.stdout.strip())
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout

    return check


@pytest.fixture(scope="session")
def of_benchmarks() -> Callable[[str], ModuleType]:
    """A function that gives a module of benchmarks/, which is no package; where it is absent the test is skipped."""

    def load(name: str) -> ModuleType:
        path = ROOT / "benchmarks" / f"{name}.py"
        if not path.is_file():
            pytest.skip("benchmarks/ is not part of this installation")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # They import each other by name, as they do when one is started as a command.
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
        return module

    return load
