"""What a bundle or an engine is, from the files that lie there: no GPU, no TensorRT, no network is loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvgl.engines.sidecar import read_sidecar, sidecar_path
from cvgl.errors import CvglError, ModelError
from cvgl.files import check_files, sha256_file
from cvgl.manifest import MANIFEST, Fields
from cvgl.model import Model, read_manifest

__all__ = ["inspect_file", "print_inspection"]

_REPORT = "report.json"


def inspect_file(path: str | Path) -> dict[str, Any]:
    """What lies at a path.

    Args:
        path: a bundle's folder, or a TensorRT plan with its sidecar beside it.

    Returns:
        "kind" ("bundle" or "engine"), "path", "intact" (whether every hash fits), "damage" (which does not; None
        where all do), and what manifest or sidecar say. JSON values.

    Raises:
        ModelError: nothing there, neither of them, or a manifest or sidecar that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError("no such file", file=path, expected="a bundle's folder or an engine")
    return _bundle(path) if path.is_dir() else _engine(path)


def print_inspection(found: dict[str, Any]) -> None:
    """The same on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(found):
        table.add_row(name, value)
    Console().print(table)


def _bundle(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    files = Fields(manifest, path / MANIFEST, ModelError).files()
    damage = None
    try:
        check_files(path, files, ModelError)
    except CvglError as reason:
        damage = str(reason)
    # A bundle with no engines open is its manifest, fingerprint included.
    model = Model(path, manifest, {})
    found = {
        "kind": "bundle",
        "path": str(path),
        "intact": damage is None,
        "damage": damage,
        "name": model.name,
        "architecture": model.architecture,
        "descriptor_size": model.descriptor_size,
        "precision": model.precision,
        "opset": model.opset,
        "fingerprint": model.fingerprint,
        "views": {name: asdict(view) for name, view in model.views.items()},
        "files": files,
        "runs": _where_it_runs(model.precision),
        "training": dict(model.training),
    }
    if _REPORT in files and damage is None:
        found["proof"] = f"{_REPORT} and report.html in the bundle"
    return found


def _engine(path: Path) -> dict[str, Any]:
    if not sidecar_path(path).is_file():
        raise ModelError(
            "nothing says what it is",
            file=path,
            field="sidecar",
            expected=f"{sidecar_path(path).name} beside it, as cvgl-export writes it; or a bundle's folder",
        )
    sidecar = read_sidecar(path)
    damage = None
    size = path.stat().st_size
    if size != sidecar.plan_bytes:
        damage = f"{size} bytes instead of {sidecar.plan_bytes}: truncated or another file"
    elif sha256_file(path) != sidecar.plan_sha256:
        damage = "altered: its SHA-256 is not the sidecar's"
    capability = ".".join(map(str, sidecar.compute_capability))
    gpus = {
        "none": f"{sidecar.gpu} and others of compute capability {capability}",
        "same_compute_capability": f"GPUs of compute capability {capability}",
        "ampere_plus": "GPUs of compute capability 8.0 or higher",
    }[sidecar.hardware_compatibility]
    version = f"TensorRT {sidecar.tensorrt}" + (" or newer" if sidecar.version_compatible else " only")
    return {
        "kind": "engine",
        "path": str(path),
        "intact": damage is None,
        "damage": damage,
        "runs": f"{gpus}, {version}",
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(sidecar).items()},
    }


def _where_it_runs(precision: str) -> str:
    if precision.startswith("bf16"):
        return "TensorRT engines made from it; ONNX Runtime on a CPU does not run bfloat16"
    return "ONNX Runtime, and TensorRT engines made from it"


def _lines(found: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            # How it was trained may be long; programs read it with --json.
            lines += (
                [(name, ", ".join(value) or "nothing")] if name == "training" else _lines(value, f"{before}{name}.")
            )
        elif value is not None:
            lines.append((before + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return lines
