"""CVM-Net (Hu et al. 2018): VGG-16's local features of each view, pooled by NetVLAD into one space.

CVM-Net-I has a NetVLAD per view. CVM-Net-II brings the local features of both views closer first and pools them with
one NetVLAD. Where the paper leaves something open, the authors' released code decides: dropout after the convolutions
of the fourth and fifth stage, the first three stages not trained, the convolutions of CVM-Net-II.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError

from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .netvlad import NetVlad, sample_features
from .siamese import fill_vgg16, vgg16_convolutions

__all__ = ["CvmNet", "CvmNetSettings"]

STAGES = 5


@dataclass(frozen=True)
class CvmNetSettings:
    """The shape of a CVM-Net.

    Args:
        shared_vlad: False is CVM-Net-I, True is CVM-Net-II.
        clusters: K of NetVLAD.
        descriptor_size: length of the descriptor.
        query_size, reference_size: (height, width) of the input, pixels; the defaults are the authors' for CVUSA. A
            drone's view wants a square.
        aligned: with `shared_vlad`, whether local features pass one 1 x 1 convolution per view, then a 3 x 3 and a
            1 x 1 convolution for both, before NetVLAD, as released; False shares NetVLAD and nothing else.
        dropout: share of the values dropped in training, after those convolutions and the last six of VGG-16. Want 0
            without pretrained weights: from random ones, no descriptors were learnt with it that were not all alike.
        frozen_stages: first stages of VGG-16 that are not trained; 0 where there are no pretrained weights to keep.
        vgg_width: channels of VGG's first stage; smaller ones are for quick trials.
    """

    shared_vlad: bool = False
    clusters: int = 64
    descriptor_size: int = 4096
    query_size: tuple[int, int] = (224, 1232)
    reference_size: tuple[int, int] = (512, 512)
    aligned: bool = True
    dropout: float = 0.2
    frozen_stages: int = 3
    vgg_width: int = 64


class LocalFeatures(nn.Module):
    """(B, 3, H, W) images to (B, 8 width, H / 16, W / 16): VGG-16 up to the ReLU of conv5_3."""

    def __init__(self, width: int, dropout: float, frozen_stages: int) -> None:
        super().__init__()
        # Without the last pooling.
        self.layers = vgg16_convolutions(width)[:-1]
        self.dropout = dropout
        self.dropped: set[int] = set()
        stage = 1
        for place, layer in enumerate(self.layers):
            if isinstance(layer, nn.MaxPool2d):
                stage += 1
            if isinstance(layer, nn.ReLU) and stage > STAGES - 2:
                self.dropped.add(place)
            if stage <= frozen_stages:
                layer.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers):
            images = layer(images)
            if place in self.dropped:
                images = F.dropout(images, self.dropout, self.training)
        return images


class CvmNet(CrossViewModel):
    """CVM-Net-I or CVM-Net-II, by `settings.shared_vlad`."""

    timm_name = "vgg16.tv_in1k"

    def __init__(self, settings: CvmNetSettings, name: str = "cvm-net-1") -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.info = ModelInfo(
            name, settings.descriptor_size, ViewInput(*settings.query_size), ViewInput(*settings.reference_size), False
        )
        channels = 8 * settings.vgg_width
        views: tuple[View, ...] = get_args(View)
        self.local = nn.ModuleDict(
            {view: LocalFeatures(settings.vgg_width, settings.dropout, settings.frozen_stages) for view in views}
        )
        self.align: nn.ModuleDict | None = None
        if settings.shared_vlad and settings.aligned:
            self.align = nn.ModuleDict({view: _convolution(channels, 1, settings.dropout) for view in views})
            self.align["both"] = nn.Sequential(
                _convolution(channels, 3, settings.dropout), _convolution(channels, 1, settings.dropout)
            )
        vlads = ("both",) if settings.shared_vlad else views
        self.vlad = nn.ModuleDict({view: NetVlad(settings.clusters, channels) for view in vlads})
        self.reduce = nn.Linear(settings.clusters * channels, settings.descriptor_size)
        nn.init.trunc_normal_(self.reduce.weight, std=0.005)
        # The released code starts the bias at 0.1. Beside a vector of unit length that is so much that all descriptors
        # begin within about 4 degrees of each other.
        nn.init.zeros_(self.reduce.bias)

    def forward(self, images: Tensor, view: View) -> Features:
        pooled = self.vlad["both" if self.settings.shared_vlad else view](self.local_features(images, view))
        return Features(self.reduce(pooled))

    def local_features(self, images: Tensor, view: View) -> Tensor:
        """(B, 3, H, W) images of a view to the (B, C, H / 16, W / 16) local features that NetVLAD pools."""
        features: Tensor = self.local[view](images)
        if self.align is not None:
            features = self.align["both"](self.align[view](features))
        return features

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained convolutions of VGG-16, and the rest."""
        parts: dict[str, list[nn.Module | None]] = {
            "backbone": [self.local],
            "head": [self.align, self.vlad, self.reduce],
        }
        return {
            group: [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
            for group, modules in parts.items()
        }

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet weights of VGG-16 as torchvision or timm name them, into both views; the classifier is left out.

        Raises:
            ModelError: tensors that are missing, left over or of another shape.
        """
        unused: list[str] = []
        for local in self.local.values():
            unused = fill_vgg16(cast(LocalFeatures, local).layers, state)
        return unused

    def initialise(self, batches: Callable[[View], Iterable[Tensor]], seed: int) -> None:
        """NetVLAD's clusters from local features of training images: see `NetVlad.set_centres`.

        A NetVLAD of both views takes half of its samples from each.

        Raises:
            ModelError: too few images.
        """
        training = self.training
        self.eval()
        device = self.reduce.weight.device
        total = 25_000 if self.settings.shared_vlad else 50_000
        samples = {}
        views: tuple[View, ...] = get_args(View)
        for view in views:

            def local(images: Tensor, view: View = view) -> Tensor:
                return self.local_features(images.to(device), view)

            samples[view] = sample_features(local, batches(view), seed, total=total)
        self.train(training)
        if self.settings.shared_vlad:
            cast(NetVlad, self.vlad["both"]).set_centres(np.concatenate(list(samples.values())), seed)
        else:
            for view in views:
                cast(NetVlad, self.vlad[view]).set_centres(samples[view], seed)


def _convolution(channels: int, kernel: int, dropout: float) -> nn.Sequential:
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
    for values in layer.parameters():
        (nn.init.xavier_uniform_ if values.ndim > 1 else nn.init.zeros_)(values)
    return nn.Sequential(layer, nn.ReLU(inplace=True), nn.Dropout(dropout))


def _check(settings: CvmNetSettings) -> None:
    for field in ("query_size", "reference_size"):
        size = getattr(settings, field)
        if len(size) != 2 or min(size) < 16:
            raise ModelError("not a size", field=field, found=size, expected="(height, width), at least 16 each")
    if settings.descriptor_size < 1:
        raise ModelError("not a length", field="descriptor_size", found=settings.descriptor_size, expected="at least 1")
    if not 0 <= settings.frozen_stages <= STAGES:
        raise ModelError("no such stage", field="frozen_stages", found=settings.frozen_stages, expected="0 to 5")
    if not 0 <= settings.dropout < 1:
        raise ModelError("not a share", field="dropout", found=settings.dropout, expected="0 up to 1")
