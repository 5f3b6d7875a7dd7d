"""An export with an engine, from a bundle to the plan and its proof; run by tests/export/test_export_engine.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorrt_double
from tensorrt_double import HISTOGRAM, LENGTH, SIZE, World

from cvgl.engines.sidecar import read_sidecar
from cvgl.model import Model, View, write_bundle
from cvgl_export import cli
from cvgl_export.report import read_report


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A model whose ONNX file does what the pretended TensorRT does."""
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


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cvgl-export", *map(str, arguments), "--precision", "fp32", "--count", "6"])
    with pytest.raises(SystemExit) as ended:
        cli.app_main()
    return int(ended.value.code or 0)


def test_the_engine_its_sidecar_and_its_proof(
    world: World, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, engine = tmp_path / "flown.cvgl", tmp_path / "plans" / "model.engine"
    options = ("--workspace", 512, "--timing-cache", tmp_path / "cache", "--hardware-compatible")
    assert export(monkeypatch, bundle, "--out", out, "--engine", engine, *options) == 0, capsys.readouterr().err
    assert "engine:" in capsys.readouterr().out
    sidecar = read_sidecar(engine)
    model = Model.open(out)
    assert (sidecar.fingerprint, sidecar.views) == (model.fingerprint, ("query", "reference"))
    assert (sidecar.hardware_compatibility, sidecar.achieved) == ("ampere_plus", HISTOGRAM)
    # The bundle brings the engine along, and the SDK takes it.
    assert (out / "embed.engine").read_bytes() == engine.read_bytes() == world.plan
    assert model.runtime.startswith("TensorRT")
    report = read_report(out / "report.json")
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["TensorRT, embed.onnx"]["parity"]["passed"] and report["passed"]
    (read,) = (entry for entry in report["precision"] if entry["of"] == "embed.engine")
    assert (read["read_from"], read["achieved"]) == ("TensorRT's engine inspector", HISTOGRAM)
    assert export(monkeypatch, "inspect", engine) == 2  # --precision and --count are not inspect's


def test_an_engine_that_computes_something_else_is_not_left_behind(
    world: World, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(images: np.ndarray) -> Any:
        return images.reshape(len(images), -1)[:, LENGTH : 2 * LENGTH]

    monkeypatch.setattr(tensorrt_double, "expected", other)
    out, engine = tmp_path / "flown.cvgl", tmp_path / "model.engine"
    assert export(monkeypatch, bundle, "--out", out, "--engine", engine) == 4
    assert "not the same model any more" in capsys.readouterr().err
    assert not out.exists() and not engine.exists() and not list(tmp_path.glob("*.engine*"))
    assert not read_report(tmp_path / "flown.failed" / "report.json")["passed"]
