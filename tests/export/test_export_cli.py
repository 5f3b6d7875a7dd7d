"""cvgl-export as it is typed: what it writes, what it says, how it ends."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cvgl.errors import ModelError
from cvgl.model import Model
from cvgl_export import cli
from cvgl_export.report import read_report
from cvgl_train.checkpoint import save_model
from cvgl_train.models.nano import Nano, NanoConfig, save_weights
from cvgl_train.registry import create_model

SMALL = NanoConfig(widths=(8, 16, 32), blocks=(1, 0, 1), reduced=8, descriptor_size=48, input_px=64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.npz"
    save_weights(Nano(SMALL).eval(), path)
    return path


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a method whose views share nothing."""
    torch.manual_seed(0)
    model = create_model(
        "saig-s", depth=1, width=24, heads=2, stem=(8, 8, 8, 8, 8, 16), query_size=(32, 32), reference_size=(32, 32)
    )
    path = tmp_path_factory.mktemp("saig") / "model.pt"
    save_model(model, path, {"note": "untrained"})
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of the command line."""
    monkeypatch.setattr(sys, "argv", ["cvgl-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.app_main()
    return int(ended.value.code or 0)


def test_a_bundle_with_its_proof(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.cvgl"
    assert run(monkeypatch, weights, "--out", out, "--gsd", 0.7, "--count", 6) == 0
    assert "ONNX Runtime, fp16: cosine median" in capsys.readouterr().out
    model = Model.open(out)
    assert (model.precision, model.views["query"].gsd_m, model.architecture) == ("fp16", 0.7, "cvgl-nano")
    report = read_report(out / "report.json")
    assert report["passed"] and report["model"]["fingerprint"] == model.fingerprint
    assert [stage["name"] for stage in report["stages"] if stage["ran"]][1:] == [
        "ONNX Runtime, fp32",
        "ONNX Runtime, fp16",
    ]
    assert "<svg" in (out / "report.html").read_text()
    # Softmax, norms and sums stay in float32, the layers do not: as the graph's own types say.
    (types,) = (entry for entry in report["precision"] if entry["of"] == "embed.onnx")
    assert types["achieved"]["fp16"] > 0 and types["achieved"]["fp32"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.cvgl"]


def test_what_was_recorded_of_the_training_goes_along(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(weights, tmp_path / "weights.npz")
    (tmp_path / "record.json").write_text('{"gsd_m": 0.8, "minutes": 3}')
    assert run(monkeypatch, tmp_path / "weights.npz", "--precision", "fp32", "--count", 4) == 0
    model = Model.open(tmp_path / "weights.cvgl")
    assert model.views["query"].gsd_m == 0.8 and model.training["minutes"] == 3
    assert model.precision == "fp32, weights stored as fp16"


@pytest.mark.slow
def test_two_networks_where_the_views_share_none_and_a_bundle_from_a_bundle(
    two_networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.cvgl", tmp_path / "b.cvgl"
    assert run(monkeypatch, two_networks, "--out", first, "--precision", "fp32", "--count", 4) == 0
    assert "is it trained?" in capsys.readouterr().err
    model = Model.open(first)
    assert {view.file for view in model.views.values()} == {"query.onnx", "reference.onnx"}
    assert model.views["query"].gsd_m is None
    # What a bundle becomes is held against the bundle.
    assert run(monkeypatch, first, "--out", second, "--count", 4, "--batch", 1) == 0
    assert Model.open(second).precision == "fp16"
    assert run(monkeypatch, second, "--out", tmp_path / "c.cvgl") == 4
    assert "already of lower precision" in capsys.readouterr().err
    assert run(monkeypatch, first, "--out", first) == 4
    assert "would replace" in capsys.readouterr().err


@pytest.mark.slow
def test_int8(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Untrained and tiny as it is, this network need not survive: what matters is that the report says so or not.
    out = tmp_path / "q.cvgl"
    status = run(monkeypatch, weights, "--out", out, "--precision", "int8", "--count", 8)
    report = read_report((out if status == 0 else tmp_path / "q.failed") / "report.json")
    assert report["passed"] == (status == 0) and out.exists() == (status == 0)
    (types,) = (entry for entry in report["precision"] if entry["of"] == "embed.onnx")
    assert types["achieved"]["int8"] > 0
    choice = report["int8"]
    assert sum(layer["precision"] == "int8" for layer in choice["layers"]) == types["achieved"]["int8"]
    assert 0.05 < choice["share"] <= 1 and choice["words"].split(".")[0] in (
        (out if status == 0 else tmp_path / "q.failed") / "report.html"
    ).read_text().replace("&#39;", "'")
    if status == 0:
        assert Model.open(out).precision == f"int8 in {choice['share']:.0%} of multiply-adds, fp16"


def test_int8_is_neither_bisected_nor_made_of_the_tiles_that_judge_it(weights: Path, tmp_path: Path) -> None:
    from cvgl_export.bundle import ExportOptions, export_bundle
    from cvgl_export.calibration import Calibration
    from cvgl_export.source import open_source
    from cvgl_export.tile_sources import open_tiles

    with pytest.raises(ModelError, match="bisect: int8 chooses its layers by itself"):
        ExportOptions("int8", bisect=True)
    with pytest.raises(ModelError, match="held_agreement: not a share"):
        ExportOptions("int8", held_agreement=98)
    source = open_source(weights)
    tiles = open_tiles(None, source.inputs["query"], source.inputs["reference"], count=3)
    for calibration, words in ((None, "needs tiles to calibrate with"), (Calibration(tiles, tiles), "two purposes")):
        with pytest.raises(ModelError, match=words):
            export_bundle(source, tmp_path / "x.cvgl", tiles, ExportOptions("int8"), calibration=calibration)
    assert not list(tmp_path.iterdir())


def test_without_tensorrt_the_bundle_is_there_and_the_status_is_3(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    out, engine = tmp_path / "x.cvgl", tmp_path / "x.engine"
    assert run(monkeypatch, weights, "--out", out, "--engine", engine, "--count", 4) == 3
    assert "install" in capsys.readouterr().err
    assert Model.open(out).precision == "fp16" and not engine.exists()
    (skipped,) = (stage for stage in read_report(out / "report.json")["stages"] if not stage["ran"])
    assert skipped["name"] == "TensorRT" and "install" in skipped["skipped"]


def test_a_network_that_changes_on_the_way_is_not_shipped_and_the_report_says_how(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights altered between PyTorch and the graph, as a wrong exporter would."""
    from cvgl_export import source as sources

    honest = sources.write_onnx

    def damaged(model: torch.nn.Module, *arguments: object, **options: object) -> None:
        with torch.no_grad():
            last = list(model.parameters())[-2]
            before = last.clone()
            last.add_(0.3 * torch.randn(last.shape, generator=torch.Generator().manual_seed(1)) * last.std())
            honest(model, *arguments, **options)  # type: ignore[arg-type]
            last.copy_(before)

    monkeypatch.setattr(sources, "write_onnx", damaged)
    assert run(monkeypatch, weights, "--out", tmp_path / "bad.cvgl", "--count", 4) == 4
    said = capsys.readouterr().err
    assert "not the same model any more" in said and "cosine" in said and "bad.failed" in said
    assert not (tmp_path / "bad.cvgl").exists()
    assert not read_report(tmp_path / "bad.failed" / "report.json")["passed"]


@pytest.mark.slow
def test_a_cast_in_the_wrong_place_is_caught_by_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], force_half: Any
) -> None:
    """Activations of thousands, whose squares a LayerNorm in FP32 sums up and one in FP16 does not. (Of a softmax the
    same is shown on a graph, in test_precision.py.)"""
    from cvgl_export import bundle

    torch.manual_seed(0)
    model = create_model("vit-baseline", image_size=48, width=48, depth=2, heads=2, bottleneck=32, classes=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "patch_embed" in name:
                parameter.mul_(5000.0)
    save_model(model, tmp_path / "m.pt", {})
    given = [tmp_path / "m.pt", "--out", tmp_path / "m.cvgl", "--count", 12]
    assert run(monkeypatch, *given) == 0, capsys.readouterr().err
    shutil.rmtree(tmp_path / "m.cvgl")
    honest = bundle.half_graph
    monkeypatch.setattr(
        bundle, "half_graph", lambda graph, **options: force_half(honest(graph, **options), ["LayerNormalization"])
    )
    assert run(monkeypatch, *given) == 4
    assert "ONNX Runtime, fp16: not the same model any more" in capsys.readouterr().err
    assert not (tmp_path / "m.cvgl").exists()
    report = read_report(tmp_path / "m.failed" / "report.json")
    assert not report["passed"] and report["precision"][0]["achieved"]["fp16"] > 0
    assert "LayerNormalization" not in {node["op"] for node in report["kept_in_fp32"]}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["none.pt"], 4, "none.pt"),
        (["damaged.pt"], 4, "damaged.pt"),
        (["{weights}", "--tiles", "nowhere"], 4, "nowhere"),
        (["{weights}", "--tiles", "mission"], 4, "area.gallery"),
        (["{weights}", "--precision", "int8", "--bisect"], 4, "--held-agreement"),
        (["{weights}", "--precision", "fp8"], 2, "fp8"),
        (["{weights}", "--count", "4", "--keep", "no/such/node"], 4, "no/such/node"),
        (["inspect", "nothing.engine"], 4, "nothing.engine"),
    ],
)
def test_what_cannot_be_used_is_named(
    arguments: list[str],
    status: int,
    words: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "mission").mkdir()
    (tmp_path / "mission" / "mission.json").write_text("{}")
    given = [argument.format(weights=weights) for argument in arguments]
    assert run(monkeypatch, *given, *(["--out", "o.cvgl"] if given[0] != "inspect" else [])) == status
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o.cvgl").exists()


def test_inspect_says_what_a_bundle_is_and_whether_it_is_whole(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.cvgl"
    assert run(monkeypatch, weights, "--out", out, "--count", 4) == 0
    capsys.readouterr()
    assert run(monkeypatch, "inspect", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["intact"], found["precision"]) == ("bundle", True, "fp16")
    assert found["fingerprint"] == Model.open(out).fingerprint
    with (out / "embed.onnx").open("ab") as file:
        file.write(b"x")
    assert run(monkeypatch, "inspect", out) == 0
    said = capsys.readouterr().out
    assert "embed.onnx" in said and "intact" in said and "False" in said
