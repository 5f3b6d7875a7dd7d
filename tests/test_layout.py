"""Imports point one way, the SDK stays light, and every module says what it is for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "cvgl": ROOT / "sdk" / "cvgl",
    "cvgl_train": ROOT / "train" / "cvgl_train",
    "cvgl_export": ROOT / "export" / "cvgl_export",
    "cvgl_ros": ROOT / "ros_bridge" / "cvgl_ros",
}
# sdk <- train <- export; sdk <- ros_bridge.
MAY_IMPORT = {
    "cvgl": {"cvgl"},
    "cvgl_train": {"cvgl", "cvgl_train"},
    "cvgl_export": {"cvgl", "cvgl_train", "cvgl_export"},
    "cvgl_ros": {"cvgl", "cvgl_ros"},
}
# What the base install brings (markupsafe is part of jinja2), and what an extra or the vehicle may add to it.
FLIES = {"numpy", "cv2", "hnswlib", "onnxruntime", "rasterio", "typer", "rich", "yaml"}
FLIES |= {"jinja2", "markupsafe"}
MAY_BE_THERE = {"tensorrt", "pycuda", "pymavlink", "serial", "rosbags", "ray"}


def modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGES[package].rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_roots(tree: ast.Module) -> set[str]:
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    forbidden = set(PACKAGES) - MAY_IMPORT[package]
    found = {str(path): both for path, tree in modules(package) if (both := imported_roots(tree) & forbidden)}
    assert found == {}


def test_what_flies_imports_only_what_the_base_install_brings() -> None:
    allowed = FLIES | MAY_BE_THERE | {"cvgl"} | sys.stdlib_module_names
    found = {str(path): more for path, tree in modules("cvgl") if (more := imported_roots(tree) - allowed)}
    assert found == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_module_says_what_it_is_for(package: str) -> None:
    silent = [
        str(path)
        for path, tree in modules(package)
        if (path.name == "__init__.py" or not path.name.startswith("_")) and not ast.get_docstring(tree)
    ]
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_one_and_typed(package: str) -> None:
    assert (PACKAGES[package] / "__init__.py").is_file()
    assert (PACKAGES[package] / "py.typed").is_file()


def test_import_is_light() -> None:
    heavy = {"torch", "scipy", "rasterio", "jinja2", "rich", "typer", "matplotlib", "PIL"}
    code = f"import sys, cvgl; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
