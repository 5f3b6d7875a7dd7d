"""Every method becomes an ONNX graph that gives its descriptors, for one image and for many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cvgl.errors import ModelError
from cvgl_export import onnx as exporter
from cvgl_export.onnx import INPUT, OPSET, OUTPUT, write_onnx
from cvgl_train.models.base import CrossViewModel
from cvgl_train.registry import list_models

Small = Callable[..., CrossViewModel]


def images(model: CrossViewModel, count: int) -> torch.Tensor:
    wanted = model.info.query
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (wanted.height, wanted.width), mode="bilinear")


def run(path: Path, batch: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: batch.numpy()})[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_a_methods_graph_gives_its_descriptors(name: str, small: Small, tmp_path: Path) -> None:
    model = small(name, **({"depth": 2} if name.startswith("saig") else {}))
    batch = images(model, 3)
    for view in ("query",) if model.info.shared else ("query", "reference"):
        write_onnx(model, view, tmp_path / "g.onnx")
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model(batch, view).descriptor, dim=1).numpy()
        found = run(tmp_path / "g.onnx", batch)
        assert found == pytest.approx(expected, abs=2e-5)
        assert run(tmp_path / "g.onnx", batch[:1]) == pytest.approx(expected[:1], abs=2e-5)


def test_the_graph_says_what_it_takes_and_nothing_of_where_it_was_made(small: Small, tmp_path: Path) -> None:
    model = small("cvgl-nano")
    write_onnx(model, "query", tmp_path / "one.onnx", batch=1)
    write_onnx(model, "query", tmp_path / "any.onnx")
    one, whatever = (onnx.load(str(tmp_path / name)) for name in ("one.onnx", "any.onnx"))
    for graph, first in ((one, 1), (whatever, 0)):
        (put,), (got,) = graph.graph.input, graph.graph.output
        size = model.info.query.height
        assert (put.name, got.name) == (INPUT, OUTPUT)
        assert [d.dim_value for d in put.type.tensor_type.shape.dim] == [first, 3, size, size]
        assert [d.dim_value for d in got.type.tensor_type.shape.dim] == [first, model.info.descriptor_size]
        assert {entry.domain: entry.version for entry in graph.opset_import}[""] == OPSET
        assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert str(Path(exporter.__file__).parents[2]).encode() not in (tmp_path / "any.onnx").read_bytes()


def test_a_batch_that_cannot_be_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="batch"):
        write_onnx(small("cvgl-nano"), "query", tmp_path / "g.onnx", batch=0)
    assert not (tmp_path / "g.onnx").exists()


def test_a_network_that_onnx_cannot_express_is_named(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small("cvgl-nano")

    def depends_on_values(batch: torch.Tensor, view: str) -> object:
        return batch if float(batch.sum()) > 0 else -batch

    monkeypatch.setattr(model, "forward", depends_on_values)
    with pytest.raises(ModelError, match="cannot be expressed"):
        write_onnx(model, "query", tmp_path / "g.onnx")
