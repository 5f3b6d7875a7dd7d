"""Running TensorRT engines: against the genuine bindings of three versions over a double of pycuda."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cvgl.engines.tensorrt import TensorRTEngine, how_to_install_tensorrt, platform_here
from cvgl.errors import MissingDependencyError, ModelError

VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0.106")


@pytest.mark.parametrize("version", VERSIONS)
def test_with_the_genuine_bindings(version: str, check_with_tensorrt: Callable[[str, str], None]) -> None:
    check_with_tensorrt(version, "check_engine.py")


def test_importing_the_sdk_and_its_engines_loads_no_gpu_library() -> None:
    code = "import sys, cvgl, cvgl.model, cvgl.engines, cvgl.engines.tensorrt, cvgl.engines.cuda, cvgl.engines.sidecar;"
    code += "print(sorted({'tensorrt', 'pycuda', 'torch', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_what_is_missing_is_named_with_its_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks a module that must not be found.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError) as caught:
        platform_here()
    assert how_to_install_tensorrt() in str(caught.value)
    assert caught.value.exit_status == 3


def test_a_plan_without_a_sidecar_is_refused_before_anything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (tmp_path / "a.engine").write_bytes(b"who knows")
    with pytest.raises(ModelError, match=r"a\.engine: sidecar: no sidecar"):
        TensorRTEngine(tmp_path / "a.engine")
