"""An export with an engine, from a bundle to the plan and its proof; run by tests/export/test_export_engine.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_double
from tensorrt_double import HISTOGRAM, LENGTH, World

from cvgl.engines.sidecar import read_sidecar
from cvgl.model import Model
from cvgl_export import cli
from cvgl_export.report import read_report


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cvgl-export", *map(str, arguments), "--precision", "fp32", "--count", "6"])
    with pytest.raises(SystemExit) as ended:
        cli.app_main()
    return int(ended.value.code or 0)


def test_the_engine_its_sidecar_and_its_proof(
    world: World, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, engine = tmp_path / "flown.cvgl", tmp_path / "plans" / "model.engine"
    options = ("--workspace", 512, "--timing-cache", tmp_path / "cache", "--hardware-compatible")
    assert export(monkeypatch, tiny_bundle, "--out", out, "--engine", engine, *options) == 0, capsys.readouterr().err
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
    world: World, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(images: np.ndarray) -> Any:
        return images.reshape(len(images), -1)[:, LENGTH : 2 * LENGTH]

    monkeypatch.setattr(tensorrt_double, "expected", other)
    out, engine = tmp_path / "flown.cvgl", tmp_path / "model.engine"
    assert export(monkeypatch, tiny_bundle, "--out", out, "--engine", engine) == 4
    assert "not the same model any more" in capsys.readouterr().err
    assert not out.exists() and not engine.exists() and not list(tmp_path.glob("*.engine*"))
    assert not read_report(tmp_path / "flown.failed" / "report.json")["passed"]
