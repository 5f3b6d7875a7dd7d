"""The report of an export: report.json and the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvgl.errors import ModelError
from cvgl_export.bisect import Bisection, Kept
from cvgl_export.descriptors import Descriptors
from cvgl_export.latency import Latency
from cvgl_export.parity import Parity, Thresholds, compare
from cvgl_export.report import read_report, write_report
from cvgl_export.report_charts import cosine_histogram
from cvgl_export.report_data import FileFact, KeptNode, Layer, Precision, ReportData, Stage
from cvgl_export.tiles import ParityTiles
from cvgl_train.models.base import ViewInput

COUNT = 12
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """A page taken apart: that its elements are closed, what it says, what it would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def count(self, tag: str, css: str = "") -> int:
        found = [attributes for name, attributes in self.tags if name == tag]
        return sum(not css or css in (attributes.get("class") or "").split() for attributes in found)


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def tiles() -> ParityTiles:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, COUNT, 20, 24, 3), np.uint8)
    view = ViewInput(20, 24)
    names = tuple(f"<tile {i}>" for i in range(COUNT))
    inputs: Any = {"query": view, "reference": view}
    return ParityTiles(images[0], images[1], np.arange(COUNT), names, inputs, "random & noise")


def original() -> Descriptors:
    rng = np.random.default_rng(1)
    reference = unit(rng.normal(size=(COUNT, 8)))
    return Descriptors(unit(reference + 0.2 * rng.normal(size=(COUNT, 8))), reference, "PyTorch, FP32")


def parity(noise: float, precision: str = "fp16", **broken: float) -> Parity:
    rng = np.random.default_rng(2)
    one = original()
    query, reference = (unit(x + noise * rng.normal(size=x.shape)) for x in (one.query, one.reference))
    for value in broken.values():
        query[3, 1] = value
    return compare(one, Descriptors(query, reference, precision), np.arange(COUNT), Thresholds.of(precision))


def report(tiles: ParityTiles, *stages: Stage, **changes: Any) -> ReportData:
    usual: dict[str, Any] = {
        "model": "town <b>",
        "architecture": "frgeo",
        "precision": "fp16",
        "descriptor_size": 8,
        "tiles": tiles,
        "stages": [Stage("PyTorch, FP32", "PyTorch 2, CPU"), *stages],
        "precisions": [Precision("town.engine", "TensorRT's engine inspector", reason="no engine was built")],
        "files": [],
        "versions": {"onnx": "1.2.3"},
        "machine": "CPU of a test",
        "command": "cvgl-export town.pt --precision fp16",
        "created": "2026-01-02T03:04:05+00:00",
    }
    return ReportData(**(usual | changes))


def written(folder: Path, data: ReportData) -> tuple[dict[str, Any], Page]:
    path = write_report(folder, data)
    text = path.read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    html = (folder / "report.html").read_text(encoding="utf-8")
    # Whole, and nothing from elsewhere: the page opens offline.
    assert html.rstrip().endswith("</html>") and "<script" not in html
    page = Page(html)
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import|https?://", html)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    return read_report(path), page


def test_a_passed_export(tiles: ParityTiles, tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"x" * 1234)
    latency = Latency(1.5, 2.5, 50, "ONNX Runtime 1, CPU", "CPU of a test")
    stages = [
        Stage("ONNX Runtime, FP32", "ONNX Runtime 1, CPU", parity(1e-7, "fp32")),
        Stage("ONNX Runtime, FP16", "emulated", parity(1e-3), latency={"query": latency}, bytes=1_234_567),
        Stage("TensorRT, FP16", "TensorRT", skipped="TensorRT is not installed"),
    ]
    layers = tuple(Layer(f"layer {i}", "Conv", "fp16" if i < 3 else "fp32") for i in range(4))
    data = report(
        tiles,
        *stages,
        precisions=[
            Precision("query.onnx", "types of the ONNX graph", layers),
            Precision("town.engine", "TensorRT's engine inspector", reason="no engine was built"),
        ],
        files=[FileFact.of(tmp_path / "weights.onnx")],
        kept=[KeptNode("query.onnx", "norm", "LayerNormalization", "a sum of squares")],
        notes=["a note <i>"],
        fingerprint="f" * 64,
    )
    assert data.passed
    found, page = written(tmp_path / "out", data)
    assert (found["format"], found["format_version"], found["passed"]) == ("cvgl-export-report", 1, True)
    assert found["model"] == {
        "name": "town <b>", "architecture": "frgeo", "descriptor_size": 8, "fingerprint": "f" * 64,
    }  # fmt: skip
    assert found["tiles"]["queries"] == COUNT and found["tiles"]["sha256"] == tiles.fingerprint
    assert [stage["ran"] for stage in found["stages"]] == [True, True, True, False]
    half = found["stages"][2]
    assert half["read_from"] == "emulated" and half["bytes"] == 1_234_567
    assert half["latency"]["query"]["p99_ms"] == 2.5
    figures = half["parity"]
    assert figures["passed"] is True and figures["failures"] == []
    assert figures["cosine"]["minimum"] == stages[1].parity.cosine_minimum  # type: ignore[union-attr]
    assert figures["thresholds"]["cosine_minimum"] == 0.999
    assert figures["retrieval"]["agreement"] == 1.0 and figures["retrieval"]["recall_change"] == 0.0
    assert figures["not_finite"]["candidate"] == {"nan": 0, "inf": 0, "first": None}
    engine = found["stages"][3]
    assert engine["parity"] is None and engine["skipped"] == "TensorRT is not installed"
    assert found["precision"][0]["achieved"] == {"fp16": 3, "fp32": 1} and len(found["precision"][0]["layers"]) == 4
    # What was asked for stands nowhere as what was achieved.
    assert found["precision"][1] == {
        "of": "town.engine", "read_from": "TensorRT's engine inspector", "achieved": None,
        "reason": "no engine was built", "layers": None,
    }  # fmt: skip
    assert found["files"][0]["bytes"] == 1234 and len(found["files"][0]["sha256"]) == 64
    words = page.words
    for expected in (
        "Passed", "town <b>", "not run here: TensorRT is not installed", "Not known: no engine was built",
        "fp16: 3", "a sum of squares", "a note <i>", "1.2 MB", "1.50 ms", "cvgl-export town.pt --precision fp16",
        "random & noise", "≥ 0.999", tiles.fingerprint, "Not run here: TensorRT, FP16.",
    ):  # fmt: skip
        assert expected in words, expected
    assert "Failed" not in words and page.count("td", "failed") == 0
    # Two histograms and a bar; six queries with their two nearest references each.
    assert page.count("svg") == 3 and page.count("img") == 18


def test_a_failed_export_says_what_failed_and_shows_it(tiles: ParityTiles, tmp_path: Path) -> None:
    bad = parity(0.5)
    data = report(tiles, Stage("ONNX Runtime, FP16", "emulated", bad))
    assert not data.passed and bad.retrieval is not None and bad.retrieval.agreement < 1
    found, page = written(tmp_path, data)
    assert found["passed"] is False and "not reached" in found["words"]
    failures = found["stages"][1]["parity"]["failures"]
    assert {"cosine (median)", "cosine (minimum)", "top-1 agreement"} <= {one["metric"] for one in failures}
    for one in failures:
        assert one["text"] in page.words and one["expected"].startswith("at ")
    assert page.count("td", "failed") == len(failures)
    assert "another nearest tile" in page.words and page.count("img") > 18


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_descriptors_that_are_not_finite(value: float, tiles: ParityTiles, tmp_path: Path) -> None:
    data = report(tiles, Stage("ONNX Runtime, FP16", "emulated", parity(1e-4, broken=value)))
    found, page = written(tmp_path, data)
    figures = found["stages"][1]["parity"]
    assert figures["retrieval"] is None and figures["not_finite"]["candidate"]["first"] == "query 3"
    assert "first in query 3" in page.words and "Failed" in page.words
    assert "another nearest tile" not in page.words
    # Nothing is known of its cosine: it comes first.
    assert re.findall(r"Query (\d+) ", page.words)[0] == "3"


def test_nothing_compared_proves_nothing(tiles: ParityTiles, tmp_path: Path) -> None:
    data = report(tiles, Stage("TensorRT, FP16", "TensorRT", skipped="no GPU"), precisions=[])
    found, page = written(tmp_path, data)
    assert not data.passed and found["passed"] is False
    assert "nothing is proven" in page.words and "not run here: no GPU" in page.words


def test_the_search_for_nodes_is_told(tiles: ParityTiles, tmp_path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    kept = (Kept("layer 3 <x>", "MatMul", inf, -inf, True), Kept("y", "Conv", 0.25, nan, None))
    search = Bisection(kept, 0.9999, -inf, 1.0, True, 9, False, "2 of 50 nodes must stay in FP32")
    found, page = written(tmp_path, report(tiles, bisections={"model.onnx": search}))
    told = found["bisections"]["model.onnx"]
    assert told["keep"][0]["name"] == "layer 3 <x>" and told["score_half"] is None
    for expected in ("2 of 50 nodes must stay in FP32.", "layer 3 <x>", "not tried", "0.25", "not finite"):
        assert expected in page.words


def test_figures_are_cut_and_not_rounded_up(tiles: ParityTiles, tmp_path: Path) -> None:
    one = parity(1e-7)
    cosines = np.full(COUNT, 0.99999996)
    data = report(tiles, Stage("FP16", "emulated", replace(one, cosine_query=cosines, cosine_reference=cosines)))
    assert "0.9999999" in written(tmp_path, data)[1].words


def test_the_histogram_counts_every_tile() -> None:
    one = parity(1e-3)
    for cosines in (np.ones(COUNT), np.full(COUNT, -1.0), np.linspace(0.9, 1, COUNT), np.full(COUNT, np.nan)):
        picture = str(cosine_histogram(replace(one, cosine_query=cosines, cosine_reference=cosines[:0])))
        page = Page(picture)
        told = [int(count) for count in re.findall(r">(\d+) tiles from", picture)]
        assert sum(told) == np.isfinite(cosines).sum()
        for tag, found in page.tags:
            if tag == "rect":
                assert 0 <= float(found["x"] or "") <= 560 and float(found["height"] or "") >= 0
    assert "least 0.999" in str(cosine_histogram(one)) and "median 0.9999" in str(cosine_histogram(one))


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(ModelError, match=r"precision of a\.engine"):
        Precision("a.engine", "the inspector")
    with pytest.raises(ModelError, match=r"precision of a\.engine"):
        Precision("a.engine", "the inspector", (Layer("a", "b", "fp16"),), "no engine")
    assert Precision("a.onnx", "types", counts={"fp16": 2}).by_precision == {"fp16": 2}
    with pytest.raises(ModelError, match="did not run"):
        Stage("TensorRT", "TensorRT", parity(1e-4), skipped="no GPU")


def test_a_report_is_replaced_whole_and_read_with_care(tiles: ParityTiles, tmp_path: Path) -> None:
    data = report(tiles, Stage("FP16", "emulated", parity(1e-4)))
    path = write_report(tmp_path / "deep" / "report", data)
    first = path.read_bytes()
    assert write_report(path.parent, data) == path and path.read_bytes() == first
    changed = json.loads(first)
    changed["format_version"] = 99
    path.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=r"report\.json: format_version.*99.*expected 1"):
        read_report(path)
    path.write_text("{}")
    with pytest.raises(ModelError, match="format"):
        read_report(path)
    with pytest.raises(ModelError, match="no such file"):
        read_report(tmp_path / "none.json")
