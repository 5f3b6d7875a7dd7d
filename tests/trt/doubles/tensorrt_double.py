"""A TensorRT to build and run with, over the genuine classes of the bindings that are imported; a pytest plugin.

The network it pretends to know takes (B, 3, 8, 8) and gives five of each image's values, each times its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda
import pytest
from strict import Strict, constructor

SIZE, LENGTH = 8, 5

LAYERS = [
    {
        "Name": "images_to_half",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "images", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [{"Name": "a", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
    },
    {
        "Name": "conv1",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "a", "Format/Datatype": "Half"}],
        "Outputs": [{"Name": "b", "Format/Datatype": "Half"}],
        "Weights": {"Type": "Half", "Count": 432},
    },
    {
        "Name": "norm",
        "LayerType": "kgen",
        "Inputs": [{"Name": "b", "Format/Datatype": "Float"}],
        "Outputs": [{"Name": "c", "Format/Datatype": "Float"}],
    },
    {
        "Name": "flatten",
        "LayerType": "NoOp",
        "Inputs": [{"Name": "c", "Format/Datatype": "N/A due to dynamic shapes"}],
        "Outputs": [{"Name": "d", "Format/Datatype": "Float"}],
    },
]
HISTOGRAM = {"fp32+fp16": 1, "fp16": 1, "fp32": 1, "unknown": 1}


def expected(images: np.ndarray) -> np.ndarray:
    """What the network gives."""
    return images.reshape(len(images), 3 * SIZE * SIZE)[:, :LENGTH] * np.arange(1, LENGTH + 1, dtype=np.float32)


class HostMemory(bytes):
    """Bytes that pass for an IHostMemory, which cannot be made without TensorRT."""

    kind: type

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self.kind


class World:
    """One TensorRT. What it finds and does is set here before the code under test runs.

    Attributes:
        calls: every call and assignment, as (class, name, arguments).
        faults: what must not have happened.
    """

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.calls: list[tuple[Any, ...]] = []
        self.faults: list[str] = []
        self.batch = -1
        self.inputs = [("images", trt.DataType.FLOAT, (3, SIZE, SIZE))]
        self.outputs = [("descriptors", trt.DataType.FLOAT, (LENGTH,))]
        self.profile: tuple[int, int, int] | None = None
        self.parse_errors: list[tuple[str, str, str]] = []
        self.parses = self.builds = self.loads = self.runs = True
        self.dla_cores = 0
        self.plan = b"a plan" * 50
        self.report = json.dumps({"Layers": LAYERS, "Bindings": ["images", "descriptors"]})
        self.cache_is_foreign = False
        self.loaded: list[bytes] = []
        self.log: Any = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the place of the classes that TensorRT's libraries would have to make."""
        for cls, make in (("Builder", self._builder), ("OnnxParser", self._parser), ("Runtime", self._runtime)):
            monkeypatch.setattr(self.trt, cls, constructor(self.trt, getattr(self.trt, cls), make, self.calls))

    def names(self, cls: str) -> list[str]:
        """What was called and assigned of a class, in order."""
        return [call[1] for call in self.calls if call[0] == cls]

    def called(self, cls: str, name: str) -> list[tuple[Any, ...]]:
        """Arguments of every call of a method."""
        return [call[2:] for call in self.calls if call[:2] == (cls, name)]

    def strict(self, cls: str, **answers: Any) -> Any:
        return Strict(self.trt, self._genuine[cls], self.calls, **answers)

    @property
    def _genuine(self) -> dict[str, type]:
        return GENUINE

    def _tensor(self, name: str, kind: Any, sizes: tuple[int, ...]) -> Any:
        return self.strict("ITensor", name=name, dtype=kind, shape=self.trt.Dims((self.batch, *sizes)))

    def _builder(self, log: Any) -> Any:
        self.log = log

        def create_network(flags: int = 0) -> Any:
            return self.strict(
                "INetworkDefinition",
                num_inputs=len(self.inputs),
                num_outputs=len(self.outputs),
                get_input=lambda index: self._tensor(*self.inputs[index]),
                get_output=lambda index: self._tensor(*self.outputs[index]),
            )

        def build(network: Any, config: Any) -> Any:
            monitor = config.progress_monitor
            if isinstance(monitor, self.trt.IProgressMonitor) and type(monitor).__name__ == "Monitor":
                monitor.phase_start("Building", None, 2)
                monitor.phase_start("Timing", "Building", 1)
                if not monitor.step_complete("Timing", 0):
                    self.faults.append("interrupted")
                monitor.phase_finish("Timing")
                monitor.phase_finish("Building")
            self.log.log(self.trt.ILogger.Severity.INFO, "nobody needs to know")
            self.log.log(self.trt.ILogger.Severity.WARNING, "a detector of nothing")
            if not self.builds:
                self.log.log(
                    self.trt.ILogger.Severity.ERROR, "Could not find any implementation for node {ForeignNode}"
                )
                return None
            return self.host_memory(self.plan)

        return self.strict(
            "Builder",
            num_DLA_cores=self.dla_cores,
            create_network=create_network,
            create_builder_config=self._config,
            create_optimization_profile=lambda: self.strict("IOptimizationProfile"),
            build_serialized_network=build,
        )

    def _config(self) -> Any:
        kept: list[Any] = []

        def create_timing_cache(serialized_timing_cache: bytes) -> Any:
            return self.strict("ITimingCache", serialize=lambda: self.host_memory(serialized_timing_cache + b"+"))

        def set_timing_cache(cache: Any, ignore_mismatch: bool) -> bool:
            if self.cache_is_foreign and not kept:
                kept.append(None)
                return False
            kept[:] = [cache]
            return True

        return self.strict(
            "IBuilderConfig",
            create_timing_cache=create_timing_cache,
            set_timing_cache=set_timing_cache,
            get_timing_cache=lambda: kept[0] if kept else None,
            add_optimization_profile=lambda profile: 0,
        )

    def _parser(self, network: Any, log: Any) -> Any:
        def error(index: int) -> Any:
            name, operator, words = self.parse_errors[index]
            return self.strict(
                "ParserError",
                node_name=lambda: name,
                node=lambda: index,
                node_operator=lambda: operator,
                desc=lambda: words,
            )

        return self.strict(
            "OnnxParser",
            parse_from_file=lambda model: not self.parse_errors and self.parses,
            num_errors=len(self.parse_errors),
            get_error=error,
        )

    def _runtime(self, log: Any) -> Any:
        self.log = log

        def load(serialized_engine: bytes) -> Any:
            if not cuda.depth():
                self.faults.append("a plan was loaded without a current context")
            self.loaded.append(bytes(serialized_engine))
            if not self.loads:
                log.log(self.trt.ILogger.Severity.ERROR, "Serialization assertion failed")
                return None
            return self._engine()

        return self.strict("Runtime", deserialize_cuda_engine=load)

    def _engine(self) -> Any:
        tensors = {name: (kind, sizes) for name, kind, sizes in (*self.inputs, *self.outputs)}
        names = list(tensors)
        modes = self.trt.TensorIOMode

        def inspector() -> Any:
            def information(format: Any) -> str:
                if not any(call[:2] == ("EngineInspector", "execution_context") for call in self.calls):
                    self.faults.append("the formats of dynamic shapes were asked for without a context")
                return self.report

            return self.strict("EngineInspector", get_engine_information=information)

        return self.strict(
            "ICudaEngine",
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index],
            get_tensor_mode=lambda name: (
                modes.INPUT if name in dict.fromkeys(n for n, _, _ in self.inputs) else modes.OUTPUT
            ),
            get_tensor_dtype=lambda name: tensors[name][0],
            get_tensor_shape=lambda name: self.trt.Dims((self.batch, *tensors[name][1])),
            create_execution_context=self._context,
            create_engine_inspector=inspector,
        )

    def _context(self) -> Any:
        state: dict[str, Any] = {"shape": None, "warm": None, "changes": 0}
        addresses: dict[str, int] = {}

        def set_input_shape(name: str, shape: Any) -> bool:
            least, _, most = self.profile or (1, 1, 1 << 20)
            if name != self.inputs[0][0] or not least <= shape[0] <= most or tuple(shape[1:]) != self.inputs[0][2]:
                return False
            state.update(shape=tuple(shape), changes=state["changes"] + 1)
            return True

        def set_tensor_address(name: str, memory: int) -> bool:
            addresses[name] = memory
            state["changes"] += 1
            return True

        def execute(stream_handle: int) -> bool:
            stream = cuda._streams[stream_handle]
            captured = stream.capturing is not None
            if not self.runs or (captured and state["warm"] != state["shape"]):
                self.log.log(self.trt.ILogger.Severity.ERROR, "enqueue failed")
                return False
            shape, changes, at = state["shape"], state["changes"], dict(addresses)

            def kernel() -> None:
                if captured and changes != state["changes"]:
                    self.faults.append("a graph ran after its context was changed")
                images = cuda.memory(at[self.inputs[0][0]], shape)
                cuda.memory(at[self.outputs[0][0]], (shape[0], LENGTH))[:] = expected(images)

            stream.put(kernel)
            state["warm"] = shape
            return True

        return self.strict(
            "IExecutionContext",
            set_input_shape=set_input_shape,
            set_tensor_address=set_tensor_address,
            execute_async_v3=execute,
        )

    def host_memory(self, content: bytes) -> HostMemory:
        memory = HostMemory(content)
        memory.kind = self.trt.IHostMemory
        return memory


GENUINE: dict[str, type] = {}


def _unplayed(*arguments: Any) -> None:
    raise AssertionError("a kernel was launched that nothing plays")


@pytest.fixture
def trt() -> Any:
    """The genuine module."""
    import tensorrt

    return tensorrt


@pytest.fixture
def world(trt: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A TensorRT and a GPU; afterwards everything must have been given back, and nothing gone wrong."""
    import gc

    import cvgl.engines.cuda as ours
    from cvgl.engines import tensorrt as engines
    from cvgl.engines import warp

    GENUINE.update({name: value for name, value in vars(trt).items() if isinstance(value, type)})
    monkeypatch.setattr(ours, "_gpus", {})
    monkeypatch.setattr(ours, "_driver_library", cuda.GraphLibrary)
    # What was compiled here, if anything was, must not decide what these checks see.
    monkeypatch.setattr(warp, "fat_binary", lambda: b"a fat binary")
    engines.logger.cache_clear()
    cuda.reset()
    cuda.kernels["cvgl_warp"] = _unplayed
    made = World(trt)
    made.install(monkeypatch)
    yield made
    gc.collect()
    assert (made.faults, cuda.faults, cuda.depth(), cuda.live()) == ([], [], 0, {"memory": 0, "streams": 0})


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A model whose ONNX file does what the pretended TensorRT does."""
    import onnx

    from cvgl.model import View, write_bundle

    helper = onnx.helper
    places = helper.make_tensor("places", onnx.TensorProto.INT64, [LENGTH], list(range(LENGTH)))
    factors = helper.make_tensor("factors", onnx.TensorProto.FLOAT, [LENGTH], [1.0 + k for k in range(LENGTH)])
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gather", ["flat", "places"], ["some"], axis=1),
        helper.make_node("Mul", ["some", "factors"], ["descriptors"]),
    ]
    kind = onnx.TensorProto.FLOAT
    images = helper.make_tensor_value_info("images", kind, ["batch", 3, SIZE, SIZE])
    descriptors = helper.make_tensor_value_info("descriptors", kind, ["batch", LENGTH])
    graph = helper.make_graph(nodes, "tiny", [images], [descriptors], [places, factors])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(network, str(tmp_path / "made.onnx"))
    view = View("embed.onnx", (SIZE, SIZE), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 1.0)
    path = tmp_path / "tiny.cvgl"
    write_bundle(
        path,
        name="tiny",
        architecture="five values",
        descriptor_size=LENGTH,
        views={"query": view, "reference": view},
        files={"embed.onnx": tmp_path / "made.onnx"},
        precision="fp32",
        opset=18,
    )
    return path
