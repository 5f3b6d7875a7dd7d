"""What can be exported: a checkpoint of any method, the weights of a cvgl-nano, an authors' checkpoint, a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvgl.errors import ModelError
from cvgl.files import read_json, sha256_file
from cvgl.model import Model, read_manifest
from cvgl_train.models.base import CrossViewModel, View, ViewInput

from .onnx import write_onnx

__all__ = ["VIEWS", "Source", "of_model", "open_source"]

VIEWS: tuple[View, View] = ("query", "reference")
_RECORD = "record.json"


@dataclass(frozen=True)
class Source:
    """A trained network, ready to be written as graphs.

    Args:
        path: where it came from.
        name: of the bundle it becomes.
        architecture: the method's name.
        descriptor_size: length D of a descriptor.
        inputs: what the images of each view must be like.
        shared: whether both views go through one network.
        sha256: of the file; of a bundle, its fingerprint.
        gsd_m: ground sampling distance that it was trained for, m/px; None where nobody says.
        record: how it was trained, JSON values.
        model: the network; None of a bundle.
        metric: how the method itself compares descriptors.
    """

    path: Path
    name: str
    architecture: str
    descriptor_size: int
    inputs: Mapping[View, ViewInput]
    shared: bool
    sha256: str
    gsd_m: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    model: CrossViewModel | None = None
    metric: str = "cosine"

    @property
    def networks(self) -> dict[str, View]:
        """File names of the bundle's networks, and a view that each serves."""
        return {"embed.onnx": "query"} if self.shared else {"query.onnx": "query", "reference.onnx": "reference"}

    def file_of(self, view: View) -> str:
        """Name of a view's network in the bundle."""
        return "embed.onnx" if self.shared else f"{view}.onnx"

    def write_graphs(self, folder: Path, batch: int | None = None) -> dict[str, Path]:
        """The float32 graph of every network, by its file name in the bundle.

        Args:
            folder: to write into.
            batch: the only batch size they take; None for any.

        Raises:
            ModelError: the network cannot be expressed, or a bundle's graph takes another batch size.
        """
        made = {}
        for name, view in self.networks.items():
            path = folder / name
            if self.model is not None:
                write_onnx(self.model, view, path, batch=batch)
            else:
                _copy_graph(self.path / read_manifest(self.path)["views"][view]["file"], path, batch)
            made[name] = path
        return made


def open_source(path: str | Path, kind: str | None = None) -> Source:
    """What lies at a path.

    Args:
        path: a ``.pt`` of `cvgl-train`, the ``weights.npz`` of a cvgl-nano, a bundle, or an authors' checkpoint.
        kind: whose checkpoint it is, as `cvgl-train import --as` takes it; None for one of this project's own. Of
            settings that the file does not decide, such as the size of images, the method's own; `cvgl-train import`
            takes others.

    Raises:
        ModelError: nothing there, not one of these, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError("no such file", file=path, expected="a checkpoint or a bundle")
    if kind is not None:
        from cvgl_train.importer import import_checkpoint

        imported = import_checkpoint(path, kind)
        return _of_model(path, imported, {"imported": {"file": path.name, "as": kind}}, path.stem)
    if path.is_dir():
        return _of_bundle(path)
    if path.suffix == ".npz":
        from cvgl_train.models.nano import NanoModel, load_weights

        beside = path.parent / _RECORD
        record = read_json(beside, ModelError) if beside.is_file() else {}
        return _of_model(path, NanoModel.of(load_weights(path)), record, path.stem)
    from cvgl_train.checkpoint import load_model, read_checkpoint

    return _of_model(path, load_model(path), dict(read_checkpoint(path).get("record") or {}), path.stem)


def of_model(model: CrossViewModel, name: str, record: Mapping[str, Any] | None = None) -> Source:
    """A network that is in memory. Its weights have no file, so that no hash of one is recorded."""
    return _source(Path(name), model, record or {}, name, "")


def _of_model(path: Path, model: CrossViewModel, record: Mapping[str, Any], name: str) -> Source:
    return _source(path, model, record, name, sha256_file(path))


def _source(path: Path, model: CrossViewModel, record: Mapping[str, Any], name: str, digest: str) -> Source:
    info = model.eval().info
    distance = record.get("gsd_m")
    if not isinstance(distance, (int, float)) or isinstance(distance, bool) or not distance > 0:
        distance = None
    return Source(
        path=path,
        name=name,
        architecture=info.name,
        descriptor_size=info.descriptor_size,
        inputs={"query": info.query, "reference": info.reference},
        shared=info.shared,
        sha256=digest,
        gsd_m=None if distance is None else float(distance),
        record=record,
        model=model,
        metric=info.metric,
    )


def _of_bundle(path: Path) -> Source:
    bundle = Model.open(path)
    if bundle.precision.startswith(("int8", "fp16", "bf16")):
        raise ModelError(
            "already of lower precision, from which nothing better can be made",
            file=path,
            field="precision",
            found=bundle.precision,
            expected="a bundle of fp32, or the checkpoint it came from",
        )
    query, reference = (bundle.views[view] for view in VIEWS)
    return Source(
        path=path,
        name=bundle.name,
        architecture=bundle.architecture,
        descriptor_size=bundle.descriptor_size,
        inputs={
            view: ViewInput(*v.input_size, v.mean, v.std, "bicubic" if v.interpolation == "bicubic" else "bilinear")
            for view, v in zip(VIEWS, (query, reference), strict=True)
        },
        shared=query.file == reference.file,
        sha256=bundle.fingerprint,
        gsd_m=query.gsd_m,
        record=bundle.training,
    )


def _copy_graph(source: Path, target: Path, batch: int | None) -> None:
    """A bundle's graph in plain float32: the halves that only save space become floats, the batch what is asked."""
    import onnx
    from onnx import TensorProto, numpy_helper

    graph = onnx.load(str(source))
    halves = {t.name: t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT16}
    casts = [node for node in graph.graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for node in casts:
        tensor = halves[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        graph.graph.node.remove(node)
    if batch is not None:
        for value in (*graph.graph.input, *graph.graph.output):
            first = value.type.tensor_type.shape.dim[0]
            if first.HasField("dim_value") and first.dim_value != batch:
                raise ModelError(
                    "takes another batch size", file=source, field="batch", found=first.dim_value, expected=str(batch)
                )
            first.dim_value = batch
        del graph.graph.value_info[:]
    onnx.save(graph, str(target))
