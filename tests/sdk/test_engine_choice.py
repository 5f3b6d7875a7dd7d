"""Which runtime a model gets: with engines and a GPU in check_choice.py, and here what needs neither."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

import cvgl
from cvgl.engines.choose import engine_files
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.model import Model


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shipped = Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl"
    return Path(shutil.copytree(shipped, tmp_path / "copy.cvgl"))


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_with_the_genuine_bindings(version: str, check_with_tensorrt: Callable[[str, str], None]) -> None:
    pytest.importorskip("onnx")
    check_with_tensorrt(version, "check_choice.py")


def test_without_engines_onnx_runtime_says_why(bundle: Path) -> None:
    runtime = Model.open(bundle).runtime
    assert runtime.startswith(f"ONNX Runtime {onnxruntime.__version__}, ")
    assert runtime.endswith(" (no TensorRT engine in the bundle)")
    with pytest.raises(ModelError, match=r"embed\.engine: no TensorRT engine in the bundle"):
        Model.open(bundle, engine="tensorrt")
    with pytest.raises(ModelError, match=r"engine: unknown runtime .*auto or tensorrt or onnxruntime"):
        Model.open(bundle, engine="torch")


def test_an_engine_without_a_sidecar_is_refused_and_never_loaded(bundle: Path) -> None:
    (bundle / "embed.engine").write_bytes(b"who knows")
    with pytest.raises(ModelError, match="sidecar: no sidecar"):
        Model.open(bundle)
    assert Model.open(bundle, engine="onnxruntime").runtime.endswith("(asked for)")


def test_without_tensorrt_the_reason_is_its_absence(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvgl.engines import sidecar

    # None in sys.modules is how Python itself marks a module that must not be found.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    fingerprint = Model.open(bundle).fingerprint
    known = replace(sidecar.read_sidecar(Path(__file__).parents[1] / "sample.engine"), fingerprint=fingerprint)
    (bundle / "embed.engine").write_bytes(b"who knows")
    sidecar.write_sidecar(bundle / "embed.engine", known)
    assert "(TensorRT is not usable here: " in Model.open(bundle).runtime
    with pytest.raises(MissingDependencyError, match="TensorRT is not usable here"):
        Model.open(bundle, engine="tensorrt")


def test_engines_belong_to_the_file_they_are_named_after(tmp_path: Path) -> None:
    for name in ("query.engine", "query.thor.engine", "query.orin.engine", "reference.engine", "query2.engine"):
        (tmp_path / name).touch()
    names = [path.name for path in engine_files(tmp_path / "query.onnx")]
    assert names == ["query.engine", "query.orin.engine", "query.thor.engine"]


@pytest.mark.parametrize(("works", "says"), [(True, "CUDA"), (False, "CPU, ")])
def test_the_cuda_provider_is_used_where_it_works(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, works: bool, says: str
) -> None:
    genuine, asked = onnxruntime.InferenceSession, []

    class Session(genuine):  # type: ignore[misc, valid-type]
        def __init__(self, path: str, sess_options: object, providers: list[str]) -> None:
            asked.append(providers)
            super().__init__(path, sess_options=sess_options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", *super().get_providers()] if works else super().get_providers()

    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    runtime = Model.open(bundle).runtime
    assert asked == [both[1:]]
    assert f"ONNX Runtime {onnxruntime.__version__}, {says}" in runtime
