"""``cvgl-export``: a trained checkpoint to a model bundle that gives the same descriptors."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Annotated

import typer

from cvgl.cli.common import main
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.files import read_json

__all__ = ["app", "app_main"]

_RECORD = "record.json"
_JETSON = Path("/etc/nv_tegra_release")

app = typer.Typer(add_completion=False)


@app.command(no_args_is_help=True)
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The weights.npz of a cvgl-nano, as cvgl-train wrote it.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="BUNDLE", help="The bundle.", show_default="NAME.cvgl beside the checkpoint"),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(
            "--gsd",
            min=0.001,
            help="Ground sampling distance it was trained for, m/px.",
            show_default="what record.json beside the checkpoint says",
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option("--engine", metavar="PATH", help="A TensorRT engine. Not in this version: ends with status 3."),
    ] = None,
) -> None:
    """Write a checkpoint as an ONNX model bundle, checked against the network it came from.

    No bundle appears unless ONNX Runtime gives the same descriptors as PyTorch.

    Example: cvgl-export runs/town/weights.npz --out town.cvgl

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing, 4 bad input.
    """
    if engine is not None:
        raise _no_engine()
    missing = [name for name in ("torch", "onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"exporting needs {', '.join(missing)}: pip install 'cvgl[export]'")
    from cvgl.model import Model

    from .onnx import export_bundle

    record = _record(checkpoint)
    distance = gsd if gsd is not None else _trained_for(record, checkpoint)
    bundle = out if out is not None else checkpoint.with_suffix(".cvgl")
    export_bundle(checkpoint, bundle, distance, record)
    model = Model.open(bundle)
    agreement = model.training["export"]
    typer.echo(f"{model!r}")
    typer.echo(
        f"ONNX Runtime against PyTorch on {agreement['patches']} patches: cosine at least"
        f" {agreement['least cosine']:.6f}, mean {agreement['mean cosine']:.6f}"
    )
    typer.echo(f"bundle: {bundle}")


def app_main() -> None:
    """The command ``cvgl-export``."""
    main(app)


def _no_engine() -> MissingDependencyError:
    """Why there is no engine to be had here, and what would change that."""
    if importlib.util.find_spec("tensorrt") is not None:
        return MissingDependencyError(
            "--engine: TensorRT is installed, but this version of cvgl does not build engines yet; the ONNX bundle"
            " (without --engine) runs by ONNX Runtime"
        )
    if _JETSON.exists():
        how = "on Jetson it comes with JetPack (sudo apt install nvidia-jetpack); a virtual environment needs"
        how += " --system-site-packages to see it"
    elif platform.machine() in ("x86_64", "AMD64"):
        how = "pip install tensorrt (needs an NVIDIA GPU and its driver)"
    else:
        how = "see NVIDIA's packages for this platform; on Jetson it comes with JetPack"
    return MissingDependencyError(f"--engine: TensorRT is not installed: {how}")


def _record(checkpoint: Path) -> dict[str, object]:
    file = checkpoint.parent / _RECORD
    return read_json(file, ModelError) if file.is_file() else {}


def _trained_for(record: dict[str, object], checkpoint: Path) -> float:
    gsd = record.get("gsd_m")
    if isinstance(gsd, bool) or not isinstance(gsd, (int, float)) or not gsd > 0:
        raise ModelError(
            "not known what the network was trained for",
            file=checkpoint.parent / _RECORD,
            field="gsd_m",
            found=gsd,
            expected="m/px above 0, or --gsd",
        )
    return float(gsd)
