"""A network to an ONNX graph in float32: what every other precision and every engine is made from."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train.models.base import CrossViewModel, View

from .graphs.edit import name_nodes

__all__ = ["INPUT", "OPSET", "OUTPUT", "write_onnx"]

OPSET = 18
INPUT, OUTPUT = "images", "descriptors"


class _Embed(nn.Module):
    """One view of a model, as it is deployed: images in, descriptors of unit length out."""

    def __init__(self, model: CrossViewModel, view: View) -> None:
        super().__init__()
        self.model = model
        self.view = view

    def forward(self, images: Tensor) -> Tensor:
        # Unit length whatever the method's own metric is: galleries compare by cosine. What that changes for the
        # ranks of a method that compares by distance is part of the report.
        return F.normalize(self.model(images, self.view).descriptor.float(), dim=1)


def write_onnx(model: CrossViewModel, view: View, path: str | Path, *, batch: int | None = None) -> None:
    """Write one view of a model: (B, 3, H, W) normalised RGB `images` to (B, D) `descriptors` of unit length.

    Sizes are the model's, with its position codes as constants for them; batch normalisation is folded into what
    stands before it; weights lie in the file itself.

    Args:
        model: in evaluation mode, on the CPU.
        view: of whose weights; either where they are shared.
        path: of the ``.onnx`` file.
        batch: the only batch size the graph takes; None for any.

    Raises:
        ModelError: the exporter cannot express the network, or a batch size that cannot be.
    """
    import onnx

    if batch is not None and batch < 1:
        raise ModelError("not a batch size", field="batch", found=batch, expected="1 or more, or None for any")
    wanted = model.info.view(view)
    # An example of one image would be taken for a constant batch of one.
    example = torch.zeros(batch or 2, 3, wanted.height, wanted.width)
    free = None if batch is not None else ({0: torch.export.Dim("batch", min=1)},)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter and its libraries report their own deprecations at length.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                _Embed(model, view).eval(),
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=free,
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as reason:
            first = (str(reason).splitlines() or [""])[0]
            raise ModelError(f"cannot be expressed as ONNX: {first}", file=path, field=view) from reason
    if program is None:
        raise ModelError("the exporter gave nothing", file=path, field=view)
    # Before the modules' names, from which the nodes get theirs, are removed.
    graph = name_nodes(program.model_proto)
    # Names and stack traces of the exporter's own source lines have no place in what is shipped.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
