"""A strongly typed ONNX graph to a TensorRT plan, and what precision each of its layers really got.

Precision is asked for in the graph alone, by its types; a strongly typed network takes it from there. No builder flag
of TensorRT 10.3 to 11.4 that sets a precision is touched: 11 has none left.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cvgl.engines.cuda import open_gpu
from cvgl.engines.sidecar import HARDWARE_COMPATIBILITY, Sidecar, publish_engine, write_sidecar
from cvgl.engines.tensorrt import import_tensorrt, load_plan, logger
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.files import atomic_path, sha256_file

__all__ = [
    "Achieved",
    "EngineOptions",
    "EngineReport",
    "LayerPrecision",
    "build_engine",
    "inspect_engine",
    "read_layers",
]

UNKNOWN = "unknown"
DEFAULT_BATCH = (1, 1, 16)
"""Least, best and largest batch of a network that takes any: one frame, up to sixteen headings of it."""

# Words of the inspector's format descriptions: "Half", "Row major linear FP16 format", "Thirty-two wide channel
# vectorized row major Int8 format".
_PRECISIONS = {
    "float": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
    "half": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp4": "fp4",
    "int4": "int4",
    "int8": "int8",
    "uint8": "uint8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
# Of a layer with tensors of several kinds, indices and masks say nothing about how it computes.
_COMPUTED = ("fp32", "fp16", "bf16", "fp8", "fp4", "int4", "int8")


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Args:
        batch: the least, the best and the largest batch; None takes a fixed one from the graph, and `DEFAULT_BATCH`
            where the graph takes any.
        workspace_mib: memory that the builder's trials may take, MiB; None for all of the GPU's.
        timing_cache: a file of measurements that makes the next build faster; read where it is there, then replaced.
        hardware_compatibility: one of `cvgl.engines.sidecar.HARDWARE_COMPATIBILITY`.
        version_compatible: newer versions of TensorRT run the plan as well; it may be slower.
        dla_core: build for this deep learning accelerator, what it cannot do on the GPU; None for the GPU.
        optimization_level: 0 (builds fast) to 5 (runs fast); None for TensorRT's default.
        tf32: let FP32 layers round their factors to TF32. Off by default: layers that the graph keeps in FP32 are
            there for their accuracy.
        device: index of the GPU.
        progress: show a progress bar on stderr.
    """

    batch: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    dla_core: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    device: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        def refuse(field: str, expected: str) -> ModelError:
            return ModelError("not usable", field=field, found=getattr(self, field), expected=expected)

        if self.batch is not None and not (
            len(self.batch) == 3 and 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]
        ):
            raise refuse("batch", "least, best and largest, from 1 upwards")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise refuse("workspace_mib", "1 or more")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            raise refuse("hardware_compatibility", " or ".join(HARDWARE_COMPATIBILITY))
        if self.dla_core is not None and self.dla_core < 0:
            raise refuse("dla_core", "0 or more")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise refuse("optimization_level", "0 to 5")


@dataclass(frozen=True)
class LayerPrecision:
    """What the inspector says of one layer.

    Args:
        name, kind: as TensorRT calls the layer and its type.
        inputs, outputs: precision of each of its tensors.
        weights: precision of its weights; None where it has none or says nothing.
        precision: of the layer: the precisions of its tensors and weights joined by "+", such as "fp16" or
            "fp16+fp32", or "unknown". A matter of record: a layer that does not say is never guessed.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: str | None
    precision: str


@dataclass(frozen=True)
class Achieved:
    """The precision that a built engine reports.

    Args:
        layers: all of the engine's, in its order.
        note: why there is less to read than there should be; None where all is there.
    """

    layers: tuple[LayerPrecision, ...]
    note: str | None = None

    @property
    def histogram(self) -> dict[str, int]:
        """Number of layers by precision, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())


@dataclass(frozen=True)
class EngineReport:
    """What came of a build.

    Args:
        path: of the plan.
        sidecar: as it stands beside the plan.
        achieved: per layer, as the engine itself reports it.
        seconds: that TensorRT took to build.
        messages: TensorRT's warnings and errors on the way, and ours.
    """

    path: Path
    sidecar: Sidecar
    achieved: Achieved
    seconds: float
    messages: tuple[str, ...]


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path,
    options: EngineOptions | None = None,
    *,
    fingerprint: str,
    views: Sequence[str],
    precision: str,
    check: Callable[[Path], object] | None = None,
) -> EngineReport:
    """Build the plan of a graph for this machine's GPU; plan and sidecar appear together or not at all.

    Args:
        onnx_path: one FP32 image input (B, 3, H, W), one FP32 output (B, D), typed inside as it is to run.
        engine_path: of the plan, by custom ``NAME.engine``; a plan that stands there is replaced.
        options: by default those of `EngineOptions`.
        fingerprint, views: of the model that it embeds, and which of its views.
        precision: what the graph asks for, such as "fp16"; recorded beside what was achieved.
        check: called with the plan, its sidecar beside it, before they appear; if it raises they do not.

    Raises:
        MissingDependencyError: no TensorRT, no pycuda, no such GPU or accelerator.
        ModelError: the graph does not parse or is no embedding network, an option does not exist in this version of
            TensorRT, or the build fails; what TensorRT said is in the message.
    """
    onnx_path, engine_path = Path(onnx_path), Path(engine_path)
    options = options or EngineOptions()
    if not onnx_path.is_file():
        raise ModelError("no such file", file=onnx_path)
    trt, gpu = import_tensorrt(), open_gpu(options.device)
    log = logger(trt)
    log.take()
    messages: list[str] = []
    engine_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        gpu.active(),
        tempfile.TemporaryDirectory(prefix=f".{engine_path.stem}.", dir=engine_path.parent) as folder,
    ):
        builder = trt.Builder(log)
        # Version 11 is always strongly typed and takes the flag for what it is.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        # The parser owns weights that the network refers to: it must live until the build is done.
        parser = _parse(trt, network, onnx_path, options)
        name, input_size, fixed = _input(trt, network, onnx_path)
        descriptor_size = _output(trt, network, onnx_path)
        batch = _batch(options, fixed, onnx_path)
        config = _configure(trt, builder, options, messages)
        if fixed is None:
            profile = builder.create_optimization_profile()
            least, best, most = ((size, 3, *input_size) for size in batch)
            profile.set_shape(name, least, best, most)
            if config.add_optimization_profile(profile) < 0:
                raise ModelError(f"TensorRT refuses the batch: {_said(log)}", file=onnx_path, found=batch)
        started = time.perf_counter()
        with _progress(trt, config, options.progress, onnx_path.name):
            serialized = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - started
        if serialized is None:
            raise ModelError(f"TensorRT {trt.__version__} does not build it: {_said(log)}", file=onnx_path)
        messages += log.take()
        plan = bytes(serialized)
        del parser, network, serialized
        messages += _save_timing_cache(config, options)
        shape = (batch[1], 3, *input_size)
        achieved = inspect_engine(trt, plan, onnx_path, options, input_name=name, shape=shape)
        if achieved.note is not None:
            messages.append(achieved.note)
        built = Path(folder) / engine_path.name
        built.write_bytes(plan)
        sidecar = Sidecar(
            tensorrt=str(trt.__version__),
            cuda=gpu.info.cuda,
            driver=gpu.info.driver,
            gpu=gpu.info.name,
            compute_capability=gpu.info.compute_capability,
            hardware_compatibility=options.hardware_compatibility,
            version_compatible=options.version_compatible,
            dla_core=options.dla_core,
            tf32=options.tf32,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            plan_bytes=len(plan),
            source_sha256=sha256_file(onnx_path),
            fingerprint=fingerprint,
            views=tuple(views),
            input_size=input_size,
            batch=batch,
            descriptor_size=descriptor_size,
            precision=precision,
            achieved=achieved.histogram,
            made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_with=f"cvgl {importlib.metadata.version('cvgl')}",
        )
        write_sidecar(built, sidecar)
        if check is not None:
            check(built)
        publish_engine(built, engine_path)
    return EngineReport(engine_path, sidecar, achieved, seconds, tuple(dict.fromkeys(messages)))


def inspect_engine(
    trt: Any, plan: bytes, file: Path, options: EngineOptions, *, input_name: str, shape: tuple[int, ...]
) -> Achieved:
    """Ask a built plan what its layers became; the primary context must be current.

    Args:
        trt: the module.
        plan: one that was built here, or checked.
        file: named in errors.
        options: those it was built with.
        input_name, shape: formats of a network for any batch are only known once its input has a shape.

    Raises:
        ModelError: TensorRT does not load the plan that it built.
    """
    runtime, engine = load_plan(
        trt, plan, file, version_compatible=options.version_compatible, dla_core=options.dla_core
    )
    context = engine.create_execution_context()
    if context is None or not context.set_input_shape(input_name, shape):
        raise ModelError(f"TensorRT does not run what it built: {_said(logger(trt))}", file=file)
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    # In this order: TensorRT wants its objects gone before what made them.
    del inspector, context, engine, runtime
    return read_layers(text)


def read_layers(text: str) -> Achieved:
    """The JSON of TensorRT's engine inspector as precisions, one entry a layer.

    What cannot be read is "unknown", and the note says so; nothing here fails a build that worked.
    """
    try:
        layers = json.loads(text)["Layers"]
        if not isinstance(layers, list):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        return Achieved((), "the engine inspector's report is not readable: no precision is known")
    read = tuple(_layer(layer) for layer in layers)
    silent = sum(layer.precision == UNKNOWN for layer in read)
    return Achieved(read, f"{silent} of {len(read)} layers do not say their precision" if silent else None)


def _layer(layer: Any) -> LayerPrecision:
    if not isinstance(layer, Mapping):
        # With less detail than was asked for, layers are names alone.
        return LayerPrecision(str(layer), UNKNOWN, (), (), None, UNKNOWN)
    inputs, outputs = (_tensors(layer.get(side)) for side in ("Inputs", "Outputs"))
    weights = layer.get("Weights")
    stated = _precision(weights.get("Type")) if isinstance(weights, Mapping) else UNKNOWN
    found = {*inputs, *outputs, stated} - {UNKNOWN}
    # One tensor that does not say makes the layer's precision unknown, not that of the others.
    known = bool(found) and UNKNOWN not in (*inputs, *outputs)
    computed = [kind for kind in _COMPUTED if kind in found] or sorted(found)
    return LayerPrecision(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", UNKNOWN)),
        inputs=inputs,
        outputs=outputs,
        weights=None if stated == UNKNOWN else stated,
        precision="+".join(computed) if known else UNKNOWN,
    )


def _tensors(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        _precision(tensor.get("Format/Datatype")) if isinstance(tensor, Mapping) else UNKNOWN for tensor in value
    )


def _precision(description: Any) -> str:
    """Whole words only: "BFloat16" is not a "Float". Two kinds in one description are none."""
    words = re.findall(r"[A-Za-z]+[0-9]*", str(description).lower())
    kinds = {_PRECISIONS[word] for word in words if word in _PRECISIONS}
    return kinds.pop() if len(kinds) == 1 else UNKNOWN


def _parse(trt: Any, network: Any, path: Path, options: EngineOptions) -> Any:
    """The parser, the network filled."""
    parser = trt.OnnxParser(network, logger(trt))
    if options.dla_core is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = [
            f"node {error.node_name() or error.node()} ({error.node_operator()}): {error.desc()}" for error in errors
        ]
        raise ModelError(
            f"TensorRT {trt.__version__} does not take the graph: {'; '.join(said) or _said(logger(trt))}", file=path
        )
    return parser


def _input(trt: Any, network: Any, path: Path) -> tuple[str, tuple[int, int], int | None]:
    """Name, (height, width) and the batch, None where any will do."""
    found = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = [tuple(tensor.shape) for tensor in found]
    usable = len(found) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 3 and min(shapes[0][2:]) > 0
    if not usable or found[0].dtype != trt.DataType.FLOAT:
        raise ModelError(
            "not an embedding network",
            file=path,
            field="inputs",
            found=[f"{tensor.name}: {tensor.dtype} {shape}" for tensor, shape in zip(found, shapes, strict=True)],
            expected="one FLOAT (batch, 3, height, width)",
        )
    batch, _, height, width = shapes[0]
    return str(found[0].name), (height, width), batch if batch > 0 else None


def _output(trt: Any, network: Any, path: Path) -> int:
    """Length of a descriptor."""
    found = [network.get_output(index) for index in range(network.num_outputs)]
    shapes = [tuple(tensor.shape) for tensor in found]
    usable = len(found) == 1 and len(shapes[0]) == 2 and shapes[0][1] > 0
    if not usable or found[0].dtype != trt.DataType.FLOAT:
        raise ModelError(
            "not an embedding network",
            file=path,
            field="outputs",
            found=[f"{tensor.name}: {tensor.dtype} {shape}" for tensor, shape in zip(found, shapes, strict=True)],
            expected="one FLOAT (batch, descriptor size)",
        )
    return int(shapes[0][1])


def _batch(options: EngineOptions, fixed: int | None, path: Path) -> tuple[int, int, int]:
    batch = options.batch or (DEFAULT_BATCH if fixed is None else (fixed, fixed, fixed))
    if options.dla_core is not None and fixed is None:
        if options.batch is None:
            batch = (1, 1, 1)
        if batch[0] != batch[2]:
            raise ModelError("not usable", field="batch", found=batch, expected="one size: a DLA takes no other")
    if fixed is not None and batch != (fixed, fixed, fixed):
        raise ModelError("the graph has another batch", file=path, field="batch", found=batch, expected=str(fixed))
    return batch


def _configure(trt: Any, builder: Any, options: EngineOptions, messages: list[str]) -> Any:
    config = builder.create_builder_config()
    # Without it the finished engine tells the names of its layers and nothing of their precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        levels = trt.HardwareCompatibilityLevel
        level = getattr(levels, options.hardware_compatibility.upper(), None)
        if level is None:
            raise ModelError(
                f"TensorRT {trt.__version__} has no such level",
                field="hardware_compatibility",
                found=options.hardware_compatibility,
                expected=" or ".join(sorted(name.lower() for name in levels.__members__)),
            )
        config.hardware_compatibility_level = level
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise MissingDependencyError(
                "no such deep learning accelerator (DLA), or this release of TensorRT does not serve it",
                field="dla_core",
                found=options.dla_core,
                expected=f"less than {builder.num_DLA_cores}, the number of cores",
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.timing_cache is not None:
        _load_timing_cache(config, options.timing_cache, messages)
    return config


def _load_timing_cache(config: Any, path: Path, messages: list[str]) -> None:
    """Attach what was measured before, or an empty cache where it is of another GPU or TensorRT."""
    measured = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(measured)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        messages.append(f"timing cache {path} is of another GPU or TensorRT, or damaged: started anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _save_timing_cache(config: Any, options: EngineOptions) -> list[str]:
    if options.timing_cache is None:
        return []
    cache = config.get_timing_cache()
    if cache is None:
        return ["TensorRT kept no timing cache"]
    with atomic_path(options.timing_cache) as temporary:
        temporary.write_bytes(bytes(cache.serialize()))
    return []


@contextlib.contextmanager
def _progress(trt: Any, config: Any, wanted: bool, title: str) -> Iterator[None]:
    """A bar for each of the builder's phases."""
    if not wanted:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        monitor = _monitor(trt, bars, title)
        config.progress_monitor = monitor
        yield
    if monitor.interrupted:
        raise KeyboardInterrupt


def _monitor(trt: Any, bars: Any, title: str) -> Any:
    """What TensorRT calls as it goes on, from threads of its own; rich's bars stand that."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, Any] = {}
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            words = phase_name if parent_phase else f"{title}: {phase_name}"
            self._tasks[phase_name] = bars.add_task(words, total=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            task = self._tasks.pop(phase_name, None)
            if task is not None:
                bars.remove_task(task)

        def step_complete(self, phase_name: str, step: int) -> bool:
            task = self._tasks.get(phase_name)
            try:
                if task is not None:
                    bars.update(task, completed=step + 1)
            except KeyboardInterrupt:  # it cannot pass through TensorRT; the build is asked to end instead
                self.interrupted = True
            return not self.interrupted

    return Monitor()


def _said(log: Any) -> str:
    return "; ".join(log.take()[-5:]) or "it says nothing"
