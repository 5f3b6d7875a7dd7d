"""A bundle with engines, opened on a machine with a GPU; run by tests/sdk/test_engine_choice.py."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda
import pytest
from tensorrt_double import LENGTH, SIZE, World

from cvgl.engines.sidecar import read_sidecar, write_sidecar
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.model import Model, read_manifest
from cvgl_export.tensorrt import build_engine


@pytest.fixture
def bundle(world: World, tiny_bundle: Path) -> Path:
    """A model whose ONNX file does what the pretended TensorRT does, and an engine of it."""
    make(tiny_bundle, Model(tiny_bundle, read_manifest(tiny_bundle), {}).fingerprint, "embed.engine")
    return tiny_bundle


def make(bundle: Path, fingerprint: str, name: str) -> None:
    record: dict[str, Any] = {"fingerprint": fingerprint, "views": ("query", "reference"), "precision": "fp32"}
    build_engine(bundle / "embed.onnx", bundle / name, **record)


def change(engine: Path, **changes: Any) -> None:
    write_sidecar(engine, type(read_sidecar(engine))(**{**vars(read_sidecar(engine)), **changes}))


PATCHES = np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, 3), np.uint8)


def test_an_engine_that_fits_is_taken_and_gives_the_same(world: World, bundle: Path) -> None:
    model = Model.open(bundle)
    version = world.trt.__version__
    assert model.runtime == f"TensorRT {version}, Double, CUDA graph, GPU warp (embed.engine fits this GPU)"
    plain = Model.open(bundle, engine="onnxruntime")
    assert plain.runtime.startswith("ONNX Runtime ") and plain.runtime.endswith("(asked for)")
    np.testing.assert_allclose(model.embed(PATCHES), plain.embed(PATCHES), atol=1e-6)
    assert Model.open(bundle, engine="tensorrt").runtime == model.runtime


def test_one_of_another_machine_is_passed_over_and_said_so(world: World, bundle: Path) -> None:
    change(bundle / "embed.engine", compute_capability=(9, 0), gpu="H100")
    runtime = Model.open(bundle).runtime
    assert runtime.startswith("ONNX Runtime ") and runtime.endswith("(embed.engine: built for another GPU)")
    with pytest.raises(ModelError, match=r"found '8\.7 \(Double\)', expected 9\.0 \(H100\)"):
        Model.open(bundle, engine="tensorrt")
    make(bundle, Model.open(bundle).fingerprint, "embed.orin.engine")
    assert Model.open(bundle).runtime.endswith("(embed.orin.engine fits this GPU)")


@pytest.mark.parametrize("changes", [{"fingerprint": "e" * 64}, {"views": ("query",)}])
def test_one_of_another_model_is_passed_over(world: World, bundle: Path, changes: dict[str, Any]) -> None:
    change(bundle / "embed.engine", **changes)
    assert "embed.engine: built from another model or for another view" in Model.open(bundle).runtime
    with pytest.raises(ModelError, match="fingerprint, views: built from another model"):
        Model.open(bundle, engine="tensorrt")


def test_an_engine_for_one_view_serves_where_only_that_is_embedded(world: World, bundle: Path) -> None:
    change(bundle / "embed.engine", views=("query",))
    assert Model.open(bundle, views=("query",)).runtime.startswith("TensorRT ")


def test_a_damaged_engine_is_a_damaged_bundle(world: World, bundle: Path) -> None:
    engine = bundle / "embed.engine"
    plan = engine.read_bytes()
    engine.write_bytes(plan[:-1])
    for wanted in ("auto", "tensorrt"):
        with pytest.raises(ModelError, match=r"embed\.engine: plan_bytes: truncated"):
            Model.open(bundle, engine=wanted)
    engine.write_bytes(plan)
    (bundle / "embed.engine.json").unlink()
    with pytest.raises(ModelError, match="no sidecar"):
        Model.open(bundle)
    assert Model.open(bundle, engine="onnxruntime")


def test_an_engine_that_gives_something_else_than_the_manifest_says(world: World, bundle: Path) -> None:
    plan = world.plan
    world.outputs = [("descriptors", world.trt.DataType.FLOAT, (LENGTH + 1,))]
    change(bundle / "embed.engine", descriptor_size=LENGTH + 1, plan_sha256=hashlib.sha256(plan).hexdigest())
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ModelError, match="descriptor_size: the network is another"),
    ):
        patch.setattr("tensorrt_double.LENGTH", LENGTH + 1)
        Model.open(bundle)


def test_without_a_gpu(world: World, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvgl.engines.cuda._gpus", {})
    monkeypatch.setattr(cuda, "devices", 0)
    assert Model.open(bundle).runtime.endswith(
        "(no usable NVIDIA GPU: cuInit failed: no CUDA-capable device is detected)"
    )
    with pytest.raises(MissingDependencyError, match="no usable NVIDIA GPU"):
        Model.open(bundle, engine="tensorrt")
