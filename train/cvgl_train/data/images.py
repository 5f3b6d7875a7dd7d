"""From an image to a network's input: the one way of resizing and normalising, and what training changes on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from cvgl.errors import CvglError

from ..factories import make
from ..models.base import ViewInput

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "AugmentationError",
    "build_augmentation",
    "resize",
    "to_input",
    "to_tensor",
]

_INTERPOLATION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}

Augmentation = Callable[[NDArray[np.uint8]], Tensor]
"""(H, W, 3) uint8 RGB to a view's (3, h, w) float32 input; draws from torch's global generator."""


class AugmentationError(CvglError, ValueError):
    """An augmentation that a recipe asks for and that cannot be made."""


def to_input(image: NDArray[np.uint8], view: ViewInput) -> Tensor:
    """(H, W, 3) uint8 RGB of any size to the (3, h, w) float32 input of a view: resized (antialiased), normalised."""
    return _normalise(resize(to_tensor(image), view), view)


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) array to a (3, H, W) tensor of the same values."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def resize(image: Tensor, view: ViewInput) -> Tensor:
    """(3, H, W) uint8 to (3, h, w) uint8 of the view's size."""
    size = [view.height, view.width]
    if list(image.shape[-2:]) == size:
        return image
    return functional.resize(image, size, interpolation=_INTERPOLATION[view.interpolation], antialias=True)


def _normalise(image: Tensor, view: ViewInput) -> Tensor:
    mean = torch.tensor(view.mean).mul(255)[:, None, None]
    scale = torch.tensor(view.std).mul(255).reciprocal()[:, None, None]
    return (image.float() - mean) * scale


def _crop(view: ViewInput, scale: Sequence[float] = (0.7, 1.0), ratio: Sequence[float] = (1.0, 1.0)) -> v2.Transform:
    """A part of the image, `scale` of its area, instead of all of it."""
    _rising("crop: scale", scale)
    _rising("crop: ratio", ratio)
    size = (view.height, view.width)
    return v2.RandomResizedCrop(size, tuple(scale), tuple(ratio), _INTERPOLATION[view.interpolation], antialias=True)


def _pad_crop(view: ViewInput, pad: int = 10, mode: str = "edge", degrees: float = 0.0) -> v2.Transform:
    """Shifted by up to `pad` pixels; what comes in is the border's colour, or black with `mode: constant`.

    With `degrees` turned by up to so many either way before it is cut out, black where nothing is, nearest pixels: how
    LPN and FSRA turn their satellite images.
    """
    if pad < 0:
        raise AugmentationError("out of range", field="augmentation pad_crop: pad", found=pad, expected="0 or more")
    shifted = v2.RandomCrop((view.height, view.width))
    turned = [v2.RandomRotation(degrees)] if degrees else []
    return v2.Compose([v2.Pad(pad, padding_mode=mode), *turned, shifted])


def _flip(view: ViewInput, share: float = 0.5) -> v2.Transform:
    """Mirrored left to right."""
    return v2.RandomHorizontalFlip(share)


def _rotate(view: ViewInput, degrees: float = 90.0) -> v2.Transform:
    """Turned by up to `degrees` either way, black where nothing is."""
    return v2.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR)


def _quarter_turns(view: ViewInput) -> v2.Transform:
    """Turned by 0, 90, 180 or 270 degrees."""
    return v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)])


def _colour(
    view: ViewInput, brightness: float = 0.1, contrast: float = 0.1, saturation: float = 0.1, hue: float = 0.0
) -> v2.Transform:
    """Brightness, contrast, saturation and hue changed by up to these shares."""
    return v2.ColorJitter(brightness, contrast, saturation, hue)


def _erase(view: ViewInput, share: float = 0.5, scale: Sequence[float] = (0.02, 0.4)) -> v2.Transform:
    """A rectangle of `scale` of the area blackened (random erasing, Zhong et al. 2020)."""
    return v2.RandomErasing(share, tuple(scale))


def _grey(view: ViewInput, share: float = 0.2) -> v2.Transform:
    """Without colour."""
    return v2.RandomGrayscale(share)


def _blur(view: ViewInput, kernel: int = 5, share: float = 0.2) -> v2.Transform:
    """Blurred by a Gaussian."""
    return v2.RandomApply([v2.GaussianBlur(kernel)], share)


def _rising(field: str, span: Sequence[float]) -> None:
    """What torchvision only warns of."""
    if len(span) != 2 or not 0 < span[0] <= span[1]:
        expected = "two numbers above 0, the smaller first"
        raise AugmentationError("out of range", field=f"augmentation {field}", found=list(span), expected=expected)


AUGMENTATIONS: dict[str, Callable[..., v2.Transform]] = {
    "crop": _crop,
    "pad_crop": _pad_crop,
    "flip": _flip,
    "rotate": _rotate,
    "quarter_turns": _quarter_turns,
    "colour": _colour,
    "erase": _erase,
    "grey": _grey,
    "blur": _blur,
}
"""What a recipe's `augment` may ask for; the settings are the arguments. "crop" resizes by itself and comes first."""


def build_augmentation(specs: Sequence[dict[str, Any]], view: ViewInput) -> Augmentation:
    """What training does to the images of a view.

    Nothing but torch's global generator is drawn from: under the same seed the same image becomes the same input.

    Args:
        specs: in order, each a recipe's mapping such as ``{name: flip, share: 0.5}``.
        view: the input to end with.

    Raises:
        AugmentationError: no such augmentation or setting, or a setting that cannot be.
    """
    if not isinstance(specs, (list, tuple)):
        raise AugmentationError("not a list", field="augment", found=specs, expected="[{name: NAME, ...}, ...]")
    steps: list[v2.Transform] = []
    for place, spec in enumerate(specs):
        if not isinstance(spec, dict):
            raise AugmentationError("not an augmentation", field="augment", found=spec, expected="{name: NAME, ...}")
        settings = dict(spec)
        name = settings.pop("name", None)
        if name == "crop" and place > 0:
            raise AugmentationError("has to be the first", field="augment", found=name)
        try:
            steps.append(make(AUGMENTATIONS, name, settings, AugmentationError, "augmentation", view=view))
        except (TypeError, ValueError) as reason:
            if isinstance(reason, AugmentationError):
                raise
            # What torchvision says of a value out of range.
            raise AugmentationError(f"cannot be: {reason}", field=f"augmentation {name}", found=settings) from reason
    crops = bool(specs) and specs[0].get("name") == "crop"

    def augment(image: NDArray[np.uint8]) -> Tensor:
        pixels = to_tensor(image)
        if not crops:
            pixels = resize(pixels, view)
        for step in steps:
            pixels = step(pixels)
        return _normalise(pixels, view)

    return augment
