"""Building engines over the genuine bindings of one TensorRT version; run by tests/export/test_tensorrt_build.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pycuda.driver as cuda
import pytest
from strict import Strict
from tensorrt_double import HISTOGRAM, World

from cvgl.engines.sidecar import Platform, check_plan, read_sidecar
from cvgl.errors import MissingDependencyError, ModelError
from cvgl_export.tensorrt import EngineOptions, build_engine

RECORD: dict[str, Any] = {"fingerprint": "f" * 64, "views": ("query", "reference"), "precision": "fp16"}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "embed.onnx"
    path.write_bytes(b"a graph")
    return path


def test_a_plan_and_its_sidecar(world: World, graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "out" / "embed.engine"
    report = build_engine(graph, engine, **RECORD)
    assert engine.read_bytes() == world.plan
    assert sorted(entry.name for entry in engine.parent.iterdir()) == ["embed.engine", "embed.engine.json"]
    sidecar = read_sidecar(engine)
    assert sidecar == report.sidecar
    assert (sidecar.tensorrt, sidecar.cuda, sidecar.driver) == (world.trt.__version__, "12.6.0", "12.8")
    assert (sidecar.gpu, sidecar.compute_capability, sidecar.batch) == ("Double", (8, 7), (1, 1, 16))
    assert (sidecar.input_size, sidecar.descriptor_size, sidecar.achieved) == ((8, 8), 5, HISTOGRAM)
    assert sidecar.source_sha256 == hashlib.sha256(b"a graph").hexdigest()
    assert check_plan(engine, sidecar, Platform(world.trt.__version__, "Double", (8, 7))) == world.plan
    assert report.messages == ("warning: a detector of nothing", "1 of 4 layers do not say their precision")


def test_the_network_is_strongly_typed_and_its_layers_will_tell(world: World, graph: Path, tmp_path: Path) -> None:
    build_engine(graph, tmp_path / "embed.engine", **RECORD)
    trt = world.trt
    assert world.called("Builder", "create_network") == [(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)]
    assert world.called("IBuilderConfig", "profiling_verbosity") == [(trt.ProfilingVerbosity.DETAILED,)]
    assert world.called("IBuilderConfig", "clear_flag") == [(trt.BuilderFlag.TF32,)]
    assert world.called("IBuilderConfig", "set_flag") == []
    assert world.called("IOptimizationProfile", "set_shape") == [
        ("images", (1, 3, 8, 8), (1, 3, 8, 8), (16, 3, 8, 8)),
    ]


def test_every_option_exists_in_this_version(world: World, graph: Path, tmp_path: Path) -> None:
    trt, cache = world.trt, tmp_path / "timing.cache"
    world.dla_cores, world.batch = 2, 4
    cache.write_bytes(b"measured")
    options = EngineOptions(
        workspace_mib=256,
        timing_cache=cache,
        hardware_compatibility="ampere_plus",
        version_compatible=True,
        dla_core=1,
        optimization_level=4,
        tf32=True,
        progress=True,
    )
    report = build_engine(graph, tmp_path / "embed.engine", options, **RECORD)
    config = {call[1:] for call in world.calls if call[0] == "IBuilderConfig"}
    assert {
        ("set_memory_pool_limit", trt.MemoryPoolType.WORKSPACE, 256 << 20),
        ("builder_optimization_level", 4),
        ("hardware_compatibility_level", trt.HardwareCompatibilityLevel.AMPERE_PLUS),
        ("set_flag", trt.BuilderFlag.VERSION_COMPATIBLE),
        ("set_flag", trt.BuilderFlag.GPU_FALLBACK),
        ("default_device_type", trt.DeviceType.DLA),
        ("DLA_core", 1),
    } <= config
    assert "progress_monitor" in world.names("IBuilderConfig")
    assert "clear_flag" not in world.names("IBuilderConfig")
    assert cache.read_bytes() == b"measured+"
    assert world.called("Runtime", "engine_host_code_allowed") == [(True,)]
    assert world.called("Runtime", "DLA_core") == [(1,)]
    adjusts = hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA")
    assert adjusts == (int(trt.__version__.split(".")[0]) >= 11)
    assert world.called("OnnxParser", "set_flag") == ([(trt.OnnxParserFlag.ADJUST_FOR_DLA,)] if adjusts else [])
    sidecar = report.sidecar
    assert (sidecar.hardware_compatibility, sidecar.version_compatible, sidecar.dla_core) == ("ampere_plus", True, 1)
    assert (sidecar.tf32, sidecar.batch) == (True, (4, 4, 4))
    assert "add_optimization_profile" not in world.names("IBuilderConfig")


def test_a_timing_cache_of_another_gpu_is_started_anew_and_said_so(world: World, graph: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"foreign")
    world.cache_is_foreign = True
    report = build_engine(graph, tmp_path / "embed.engine", EngineOptions(timing_cache=cache), **RECORD)
    assert cache.read_bytes() == b"+"
    assert f"timing cache {cache} is of another GPU or TensorRT, or damaged: started anew" in report.messages


def test_a_level_that_this_version_lacks_is_refused_by_name(world: World, graph: Path, tmp_path: Path) -> None:
    options = EngineOptions(hardware_compatibility="same_compute_capability")
    if hasattr(world.trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
        report = build_engine(graph, tmp_path / "embed.engine", options, **RECORD)
        assert report.sidecar.hardware_compatibility == "same_compute_capability"
    else:
        with pytest.raises(ModelError, match=r"hardware_compatibility: .* has no such level .*ampere_plus or none"):
            build_engine(graph, tmp_path / "embed.engine", options, **RECORD)


@pytest.mark.parametrize(
    ("settings", "options", "error", "says"),
    [
        (
            {"parse_errors": [("attn/softmax", "Softmax", "no such thing"), ("", "Einsum", "nor that")]},
            {},
            ModelError,
            r"does not take the graph: node attn/softmax \(Softmax\): no such thing; node 1 \(Einsum\): nor that",
        ),
        ({"parses": False}, {}, ModelError, "does not take the graph: it says nothing"),
        ({"builds": False}, {}, ModelError, "does not build it: .*Could not find any implementation"),
        ({"loads": False}, {}, ModelError, "does not load it: Serialization assertion failed"),
        ({"inputs": []}, {}, ModelError, "inputs: not an embedding network"),
        ({"outputs": []}, {}, ModelError, "outputs: not an embedding network"),
        ({"batch": 4}, {"batch": (1, 1, 4)}, ModelError, "batch: the graph has another batch"),
        ({}, {"dla_core": 0}, MissingDependencyError, "dla_core: no such deep learning accelerator"),
        ({"dla_cores": 1}, {"dla_core": 0, "batch": (1, 1, 2)}, ModelError, "a DLA takes no other"),
        ({}, {"device": 3}, MissingDependencyError, "device: no such GPU"),
    ],
)
def test_what_cannot_be_built_leaves_nothing_behind(
    world: World,
    graph: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    for name, value in settings.items():
        setattr(world, name, value)
    engine = tmp_path / "embed.engine"
    engine.write_bytes(b"an older plan")
    with pytest.raises(error, match=says):
        build_engine(graph, engine, EngineOptions(**options), **RECORD)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["embed.engine", "embed.onnx"]
    assert engine.read_bytes() == b"an older plan"


@pytest.mark.parametrize("kind", ["HALF", "INT32"])
def test_images_and_descriptors_are_fp32(world: World, graph: Path, tmp_path: Path, kind: str) -> None:
    other = getattr(world.trt.DataType, kind)
    world.outputs = [("descriptors", other, (5,))]
    with pytest.raises(ModelError, match=rf"outputs: not an embedding network .*{kind}"):
        build_engine(graph, tmp_path / "embed.engine", **RECORD)
    world.inputs = [("images", other, (3, 8, 8))]
    with pytest.raises(ModelError, match=rf"inputs: not an embedding network .*{kind}"):
        build_engine(graph, tmp_path / "embed.engine", **RECORD)


def test_a_plan_that_fails_its_check_never_appears(world: World, graph: Path, tmp_path: Path) -> None:
    seen = []

    def check(path: Path) -> None:
        seen.append((path.read_bytes(), read_sidecar(path).fingerprint))
        raise ModelError("other descriptors")

    with pytest.raises(ModelError, match="other descriptors"):
        build_engine(graph, tmp_path / "embed.engine", **RECORD, check=check)
    assert seen == [(world.plan, "f" * 64)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["embed.onnx"]


@pytest.mark.parametrize("report", ["", "not JSON", "[]", "{}", json.dumps({"Layers": "conv1"})])
def test_an_inspector_that_says_nothing_gives_no_precision(
    world: World, graph: Path, tmp_path: Path, report: str
) -> None:
    world.report = report
    built = build_engine(graph, tmp_path / "embed.engine", **RECORD)
    assert built.sidecar.achieved == {}
    assert "the engine inspector's report is not readable: no precision is known" in built.messages


def test_without_a_gpu_the_missing_thing_is_named(
    world: World, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "devices", 0)
    with pytest.raises(MissingDependencyError, match="no usable NVIDIA GPU: cuInit failed"):
        build_engine(graph, tmp_path / "embed.engine", **RECORD)


REMOVED = ("FP16", "INT8", "BF16", "FP8", "OBEY_PRECISION_CONSTRAINTS")


def test_this_harness_refuses_what_the_version_does_not_have(world: World) -> None:
    trt = world.trt
    config = trt.Builder(world.trt.Logger()).create_builder_config()
    eleven = int(trt.__version__.split(".")[0]) >= 11
    for name in REMOVED:
        assert hasattr(trt.BuilderFlag, name) != eleven
    if eleven:
        with pytest.raises(AttributeError, match="FP16"):
            config.set_flag(trt.BuilderFlag.FP16)
        with pytest.raises(AttributeError, match="int8_calibrator"):
            config.int8_calibrator = None
        with pytest.raises(AttributeError, match="precision"):
            Strict(trt, trt.ILayer, []).precision = trt.DataType.HALF
    else:
        config.set_flag(trt.BuilderFlag.FP16)
    for wrong in (
        lambda: config.max_workspace_size,
        lambda: trt.Builder(trt.Logger()).build_engine,
        lambda: Strict(trt, trt.ICudaEngine, []).get_binding_index,
        lambda: Strict(trt, trt.IExecutionContext, []).execute_async_v2,
        lambda: Strict(trt, trt.IExecutionContext, [], execute_async_v9=True),
        lambda: setattr(Strict(trt, trt.Builder, []), "num_DLA_cores", 1),
    ):
        with pytest.raises(AttributeError):
            wrong()
    for wrong in (
        lambda: config.set_flag("FP16"),
        lambda: config.set_flag(),
        lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1),
        lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5),
        lambda: config.set_timing_cache(config.create_timing_cache(b"")),
        lambda: setattr(config, "profiling_verbosity", 2),
        lambda: trt.Builder(),
        lambda: trt.Runtime("log"),
        lambda: trt.OnnxParser(trt.Builder(trt.Logger()).create_network(), config),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_an_interrupted_build_ends_as_an_interruption(
    world: World, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.progress.Progress.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_engine(graph, tmp_path / "embed.engine", EngineOptions(progress=True), **RECORD)
    assert world.faults == ["interrupted"]
    world.faults.clear()
    assert [entry.name for entry in tmp_path.iterdir()] == ["embed.onnx"]
