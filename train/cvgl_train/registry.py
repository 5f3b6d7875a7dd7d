"""Every method by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from cvgl.errors import ModelError

from .models.base import CrossViewModel, settings_of

__all__ = ["METHODS", "Method", "build_model", "create_model", "list_models"]


@dataclass(frozen=True)
class Method:
    """Where a method is built.

    Args:
        module: below `cvgl_train.models`; imported when the method is asked for.
        model, settings: names in it of the `CrossViewModel` and of its dataclass of settings.
        summary: one line.
        preset: settings in which this name differs from the class's defaults.
    """

    module: str
    model: str
    settings: str
    summary: str
    preset: dict[str, Any] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    "vit-baseline": Method("fsra", "Fsra", "FsraSettings", "transformer strong baseline of FSRA", {"regions": 0}),
    "fsra": Method("fsra", "Fsra", "FsraSettings", "feature segmentation and region alignment (Dai et al. 2021)"),
    "lpn": Method("lpn", "Lpn", "LpnSettings", "local pattern network, square rings (Wang et al. 2021)"),
    "frgeo": Method("frgeo", "FrGeo", "FrGeoSettings", "ConvNeXt with feature recombination (Zhang et al. 2024)"),
    "saig-s": Method("saig", "Saig", "SaigSettings", "attention-only, shallow (Zhu et al. 2023)", {"depth": 11}),
    "saig-d": Method("saig", "Saig", "SaigSettings", "attention-only, deep (Zhu et al. 2023)", {"depth": 22}),
    "dinov2-cvv": Method("dinov2_cvv", "Dinov2Cvv", "Dinov2CvvSettings", "frozen DINOv2 with one unshared head a view"),
    "vgg16": Method("siamese", "Siamese", "SiameseSettings", "siamese VGG-16 of the PSSR paper", {"backbone": "vgg16"}),
    "resnet50": Method("siamese", "Siamese", "SiameseSettings", "siamese ResNet-50 of the PSSR paper",
                       {"backbone": "resnet50"}),
    "cvm-net-1": Method("cvm_net", "CvmNet", "CvmNetSettings", "CVM-Net-I: VGG-16 and NetVLAD a view (Hu et al. 2018)",
                        {"shared_vlad": False}),
    "cvm-net-2": Method("cvm_net", "CvmNet", "CvmNetSettings", "CVM-Net-II: its NetVLAD shared too (Hu et al. 2018)",
                        {"shared_vlad": True}),
    "cvgl-nano": Method("nano", "NanoModel", "NanoConfig", "the project's own: small, north-up, fast on a CPU"),
}  # fmt: skip


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(METHODS)


def build_model(name: str, settings: Mapping[str, Any]) -> CrossViewModel:
    """A method's network with random weights. Raises ModelError as `create_model`."""
    method = METHODS.get(name)
    if method is None:
        raise ModelError("no such method", field="model", found=name, expected=" or ".join(METHODS))
    module = import_module(f"cvgl_train.models.{method.module}")
    chosen = settings_of(getattr(module, method.settings), {**method.preset, **settings}, name)
    model: CrossViewModel = getattr(module, method.model)(chosen, name)
    return model


def create_model(
    name: str, *, weights: str | Path | None = None, pretrained: bool = False, **settings: Any
) -> CrossViewModel:
    """A method's network, with the paper's settings where none are given.

    Args:
        name: one of `list_models`.
        weights: of the backbone, a file; see `cvgl_train.weights.load_backbone`.
        pretrained: take the backbone's official weights from timm, which needs a network. Without either, random.
        settings: fields of the method's settings.

    Raises:
        ModelError: no such method or setting, a setting that cannot be, or weights that do not fit.
        MissingDependencyError: pretrained weights cannot be downloaded here.
    """
    model = build_model(name, settings)
    if weights is not None or pretrained:
        from .weights import load_backbone, load_pretrained

        if weights is not None:
            load_backbone(model, weights)
        else:
            load_pretrained(model)
    return model
