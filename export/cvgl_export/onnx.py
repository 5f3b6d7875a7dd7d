"""A trained network to a model bundle: ONNX with half-precision weights, checked against the network it came
from."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cvgl.errors import ModelError
from cvgl.model import View, write_bundle
from cvgl_train.models.nano import MEAN, STD, Nano, Residual, load_weights

__all__ = ["OPSET", "export_bundle", "parity", "write_onnx"]

OPSET = 18
_LEAST_COSINE = 0.9999
_FILE = "embed.onnx"


def export_bundle(
    network: Nano | str | Path,
    path: str | Path,
    gsd_m: float,
    training_record: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    patches: torch.Tensor | None = None,
) -> str:
    """Write a model bundle from a network or its weights file, after checking ONNX Runtime against PyTorch.

    Args:
        network: a cvgl-nano, or the `.npz` that `cvgl_train.models.nano.save_weights` wrote.
        path: of the bundle; appears whole or not at all.
        gsd_m: ground sampling distance that the network was trained for, m/px.
        training_record: how it was trained; JSON values.
        name: of the model; by default the bundle's file name.
        patches: (B, 3, H, W) normalised input to compare on, real tiles and views by preference; without it,
            drawn from a rendered place.

    Returns:
        The bundle's fingerprint.

    Raises:
        ModelError: no such weights, or the exported network gives other descriptors.
    """
    net = load_weights(network) if isinstance(network, (str, Path)) else network
    path = Path(path)
    net.eval()
    size = net.config.input_px
    if patches is None:
        patches = _rendered_patches(size)
    view = View(_FILE, (size, size), MEAN, STD, float(gsd_m))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _FILE
        write_onnx(net, file)
        agreement = parity(net, file, patches)
        if agreement["least cosine"] < _LEAST_COSINE:
            raise ModelError(
                "the exported network gives other descriptors",
                file=path,
                field="cosine",
                found=agreement["least cosine"],
                expected=f"at least {_LEAST_COSINE}",
            )
        return write_bundle(
            path,
            name=name or path.stem,
            architecture="cvgl-nano",
            descriptor_size=net.config.descriptor_size,
            views={"query": view, "reference": view},
            files={_FILE: file},
            precision="fp32, weights stored as fp16",
            opset=OPSET,
            training={**(training_record or {}), "export": agreement},
        )


def write_onnx(net: Nano, path: Path) -> None:
    """Write a network as ONNX: batch size free, L2 normalisation inside, batch normalisation folded, weights
    in fp16."""
    import onnx

    size = net.config.input_px
    example = torch.zeros(2, 3, size, size)
    folded = _fold(net)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter and its libraries report their own deprecations at length.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            folded,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["descriptors"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ModelError("the exporter gave nothing", file=path)
    model = _halve_weights(program.model_proto)
    # Names and stack traces of the exporter's own source lines have no place in what is shipped.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def parity(net: nn.Module, file: Path, patches: torch.Tensor) -> dict[str, float]:
    """How well ONNX Runtime's descriptors agree with PyTorch's: the least and the mean cosine over the
    patches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = net(patches).numpy()
    found = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(patches.numpy())})[0]
    cosine = (expected * found).sum(1) / np.maximum(np.linalg.norm(found, axis=1), 1e-12)
    return {"least cosine": float(cosine.min()), "mean cosine": float(cosine.mean()), "patches": len(patches)}


def _fold(net: Nano) -> nn.Module:
    """A copy whose batch normalisations have become part of the convolutions before them."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = Nano(net.config)
    folded.load_state_dict(net.state_dict())
    folded.eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential) and len(module) >= 2 and isinstance(module[1], nn.BatchNorm2d):
            convolution = module[0]
            if isinstance(convolution, nn.Conv2d):
                module[0] = fuse_conv_bn_eval(convolution, module[1])
                module[1] = nn.Identity()
        if isinstance(module, Residual):
            module.second = fuse_conv_bn_eval(module.second, module.norm)
            setattr(module, "norm", nn.Identity())  # noqa: B010 - its declared type is narrower
    return folded


def _halve_weights(model: Any) -> Any:
    """Store large float32 initialisers as float16 with a Cast before their use: half the bytes, and a
    runtime folds the casts when it loads, so that inference stays in float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 1024:
            continue
        values: NDArray[np.float32] = numpy_helper.to_array(tensor)
        if np.abs(values).max() > 6e4:
            raise ModelError("a weight is beyond half precision", field=tensor.name, found=float(np.abs(values).max()))
        wide, half = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [wide], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def _rendered_patches(size: int) -> torch.Tensor:
    """Tiles and views of a small procedural place: 16 patches."""
    from cvgl.camera import Camera
    from cvgl.sim import Appearance, World, render_map
    from cvgl.sim.views import MapImage, ViewSettings
    from cvgl_train.pairs import MapPairs

    rng = np.random.default_rng(0)
    rgb = render_map(World.generate(7, 300.0), 0.4, Appearance.random(rng, "satellite"))
    image = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), 0.4, -150.0, 150.0)
    settings = ViewSettings(Camera.from_field_of_view(1600, 900, 65.0), 120.0, 0.8, size)
    return MapPairs(image, settings).draw(rng, 8).images
