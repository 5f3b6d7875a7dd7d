"""Which runtime runs a network of a bundle here, and why that one.

Engines lie in the bundle's folder beside the ONNX file that they replace, each with its sidecar: for ``embed.onnx``
``embed.engine``, or several for several machines, ``embed.orin.engine`` and ``embed.thor.engine``. The manifest does
not list them: they can be built where the bundle is used, and their sidecars guard them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvgl.engines import Engine
from cvgl.errors import MissingDependencyError, ModelError

__all__ = ["ENGINES", "choose_engine", "engine_files"]

ENGINES = ("auto", "tensorrt", "onnxruntime")


def engine_files(network: str | Path) -> list[Path]:
    """The TensorRT engines beside an ONNX file: ``NAME.engine`` first, then ``NAME.*.engine`` by name."""
    network = Path(network)
    plain = network.with_suffix(".engine")
    others = sorted(
        path
        for path in network.parent.glob("*.engine")
        if path.name.startswith(f"{network.stem}.") and path.name != plain.name
    )
    return ([plain] if plain.is_file() else []) + others


def choose_engine(
    network: str | Path, *, views: Sequence[str], fingerprint: str, engine: str = "auto", threads: int | None = None
) -> tuple[Engine, str]:
    """Load a network with TensorRT where one of its engines fits this machine, else with ONNX Runtime.

    Args:
        network: the ONNX file.
        views: that will be embedded with it.
        fingerprint: of the model.
        engine: "auto", or the one runtime that will do.
        threads: of one inference on the CPU.

    Returns:
        The engine, and why it is this one.

    Raises:
        ModelError: an unknown runtime; a damaged engine, also where another could be used instead: the bundle is not
            what it was; with "tensorrt", no engine that fits.
        MissingDependencyError: with "tensorrt", no TensorRT, pycuda or GPU.
    """
    network = Path(network)
    if engine not in ENGINES:
        raise ModelError("unknown runtime", field="engine", found=engine, expected=" or ".join(ENGINES))
    if engine == "onnxruntime":
        return _onnx(network, threads), "asked for"
    files = engine_files(network)
    refused: list[ModelError] = []
    try:
        for file in files:
            found = _fitting(file, views, fingerprint)
            if isinstance(found, ModelError):
                refused.append(found)
            else:
                return found, f"{file.name} fits this GPU"
    except MissingDependencyError as missing:
        if engine == "tensorrt":
            raise
        return _onnx(network, threads), missing.message
    if engine == "tensorrt":
        if refused:
            raise refused[0]
        raise ModelError(
            "no TensorRT engine in the bundle", file=network.with_suffix(".engine"), expected="cvgl-export --engine"
        )
    why = "; ".join(f"{error.file.name if error.file else ''}: {error.message}" for error in refused)
    return _onnx(network, threads), why or "no TensorRT engine in the bundle"


def _fitting(file: Path, views: Sequence[str], fingerprint: str) -> Engine | ModelError:
    """The engine, or why it is not for here."""
    # Imported here: what has no engines must not cost their modules.
    from cvgl.engines.sidecar import misfit, read_sidecar
    from cvgl.engines.tensorrt import TensorRTEngine, platform_here

    sidecar = read_sidecar(file)
    if sidecar.fingerprint != fingerprint or not set(views) <= set(sidecar.views):
        return ModelError(
            "built from another model or for another view",
            file=file,
            field="fingerprint, views",
            found=(sidecar.fingerprint[:12], sidecar.views),
            expected=f"{fingerprint[:12]}, {', '.join(views)}",
        )
    return misfit(file, sidecar, platform_here()) or TensorRTEngine(file, fingerprint=fingerprint)


def _onnx(network: Path, threads: int | None) -> Engine:
    from cvgl.engines.onnxruntime import OnnxEngine

    return OnnxEngine(network, threads)
