"""cvgl-nano: a small embedding network for north-up patches, quick to train on a CPU and to run on a drone.

Plain 3 x 3 convolutions on a quarter of the input's resolution; a head that keeps the layout, since heading
is known and patches are north-up: where a thing lies in the patch says as much as that it is there.

The colours never enter as they are. Satellite images and photos of one place differ most in brightness and contrast,
so the graph itself computes what survives: local-contrast-normalised luma, the chroma in units of the patch's own
contrast, and the mask of seen pixels (which enter as exactly 0, see `cvgl.model`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl.files import atomic_path

from .base import IMAGENET_MEAN as MEAN
from .base import IMAGENET_STD as STD
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput

__all__ = ["MEAN", "STD", "Nano", "NanoConfig", "NanoModel", "average", "load_weights", "normalise", "save_weights"]


@dataclass(frozen=True)
class NanoConfig:
    """The shape of a cvgl-nano.

    Args:
        widths: channels at a quarter, an eighth, a sixteenth of the input's resolution.
        blocks: residual blocks at each.
        reduced: channels of the layout-keeping map before the head.
        descriptor_size: length of the descriptor.
        input_px: side of the input, pixels; a multiple of 16.
    """

    widths: tuple[int, int, int] = (64, 128, 256)
    blocks: tuple[int, int, int] = (1, 2, 1)
    reduced: int = 32
    descriptor_size: int = 256
    input_px: int = 128

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NanoConfig:
        """From JSON values, as `asdict` gives them."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


class Robustify(nn.Module):
    """(B, 3, H, W) normalised RGB to (B, 5, H, W): chroma (3), local-contrast-normalised luma, mask."""

    def forward(self, x: Tensor) -> Tensor:
        # Mean colours are no whole grey levels, so that a pixel that was seen is never exactly 0 in all
        # channels.
        mask = (x.abs().sum(1, keepdim=True) > 0).to(x.dtype)
        count = mask.sum((2, 3), keepdim=True).clamp(min=1.0)
        centred = (x - x.sum((2, 3), keepdim=True) / count) * mask
        spread = ((centred * centred).sum((2, 3), keepdim=True) / count).mean(1, keepdim=True).sqrt()
        centred = centred / (spread + 0.05)
        luma = centred.mean(1, keepdim=True)
        around = _surroundings(mask).clamp(min=1e-3)
        local = (luma - _surroundings(luma) / around) * mask
        contrast = (_surroundings(local * local) / around).sqrt()
        return torch.cat([centred - luma, local / (contrast + 0.1), mask], 1)


def _surroundings(x: Tensor) -> Tensor:
    """Mean over about 20 x 20 pixels, computed at a quarter of the resolution: a wide box filter is slow on
    a CPU."""
    coarse = F.avg_pool2d(F.avg_pool2d(x, 4), 5, 1, 2)
    return F.interpolate(coarse, scale_factor=4.0, mode="bilinear", align_corners=False)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Nano(nn.Module):
    """(B, 3, H, W) normalised RGB patches, 0 where nothing is seen, to (B, D) descriptors of unit length."""

    def __init__(self, config: NanoConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NanoConfig()
        self.robustify = Robustify()
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), _convolution(5 * 16, config.widths[0])]
        channels = config.widths[0]
        for stage, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            if stage > 0:
                layers.append(_convolution(channels, width, stride=2))
                channels = width
            layers += [Residual(channels) for _ in range(blocks)]
        layers.append(_convolution(channels, config.reduced, kernel=1))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(config.reduced * (config.input_px // 16) ** 2, config.descriptor_size)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            features = self.robustify(x.float())
        if x.device.type == "cpu" and not torch.onnx.is_in_onnx_export():
            features = features.contiguous(memory_format=torch.channels_last)
        descriptor = self.head(self.body(features).flatten(1))
        return F.normalize(descriptor.float(), dim=1)


class NanoModel(CrossViewModel):
    """A cvgl-nano among the other methods; both views share it."""

    def __init__(self, settings: NanoConfig, name: str = "cvgl-nano") -> None:
        super().__init__()
        if settings.input_px % 16 or settings.input_px < 16:
            raise ModelError("not a size", field="input_px", found=settings.input_px, expected="a multiple of 16")
        self.settings = settings
        self.net = Nano(settings)
        view = ViewInput(settings.input_px, settings.input_px)
        self.info = ModelInfo(name, settings.descriptor_size, view, view, shared=True)

    @classmethod
    def of(cls, net: Nano) -> NanoModel:
        """A network that is there already; it is not copied."""
        model = cls(net.config)
        model.net = net
        return model

    def forward(self, images: Tensor, view: View) -> Features:
        return Features(self.net(images))

    def forward_pair(self, query: Tensor, reference: Tensor) -> tuple[Features, Features]:
        """Both views in one pass, so that the batch normalisation sees them as the one distribution it is used on."""
        references, queries = self.net(torch.cat([reference, query])).chunk(2)
        return Features(queries), Features(references)

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """Weights of a `Nano`, all of them."""
        from cvgl_train.weights import fill_exactly

        fill_exactly(self.net, state, "cvgl-nano")
        return []


def average(first: Nano, second: Nano, share: float) -> Nano:
    """A network whose weights are `share` of the first's and the rest of the second's; in evaluation mode.

    Between a network and what became of it by fine-tuning, such an average often does better under a shift of domain
    than either (WiSE-FT, Wortsman et al. 2022).
    """
    net = Nano(second.config)
    mine, theirs = first.state_dict(), second.state_dict()
    net.load_state_dict(
        {
            name: share * mine[name] + (1 - share) * value if value.is_floating_point() else value
            for name, value in theirs.items()
        }
    )
    return net.eval()


def normalise(rgb: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Tensor:
    """(B, H, W, 3) uint8 RGB and (B, H, W) masks to the network's (B, 3, H, W) input, as `cvgl.model` makes
    it."""
    scale = (1 / (255 * np.array(STD))).astype(np.float32)
    shift = (np.array(MEAN) / np.array(STD)).astype(np.float32)
    x = rgb.astype(np.float32)
    x *= scale
    x -= shift
    x *= masks[..., None]
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def save_weights(net: Nano, path: str | Path) -> None:
    """Write a network as ``.npz`` (half precision, readable without pickle), atomically."""
    arrays: dict[str, Any] = {
        name: value.detach().cpu().numpy().astype(np.float16 if value.is_floating_point() else value.numpy().dtype)
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    config = {key: np.asarray(value) for key, value in asdict(net.config).items()}
    with atomic_path(path) as temporary:
        named: dict[str, Any] = arrays | {f"config.{key}": value for key, value in config.items()}
        np.savez(temporary, **named)


def load_weights(path: str | Path) -> Nano:
    """Read a network that `save_weights` wrote.

    Raises:
        ModelError: no such file, not a weights file, or one of another network.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise ModelError("no such file", file=path) from None
    except Exception as reason:
        # numpy raises its own, zipfile's and zlib's errors, depending on where the damage is.
        raise ModelError(f"not readable as weights: {reason}", file=path) from reason
    config = {name[len("config.") :]: value.tolist() for name, value in arrays.items() if name.startswith("config.")}
    state = {
        name: torch.from_numpy(value.astype(np.float32))
        for name, value in arrays.items()
        if not name.startswith("config.")
    }
    try:
        net = Nano(NanoConfig.from_dict(config))
        missing, unexpected = net.load_state_dict(state, strict=False)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise ModelError(f"weights of another network: {reason}", file=path) from reason
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ModelError("weights of another network", file=path, field=(missing + unexpected)[0])
    return net
