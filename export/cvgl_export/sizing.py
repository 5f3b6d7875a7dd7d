"""Images and masks at the size of a network's input."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from cvgl_train.data.images import resize, to_tensor
from cvgl_train.models.base import ViewInput

from .tiles import Images, Masks

__all__ = ["cut_px", "mask_to_view", "reduced", "to_view"]

# Tiles are cut at no more pixels than this and resized from there: finer detail costs time and proves nothing more.
_MOST_PX = 256


def cut_px(query: ViewInput, reference: ViewInput) -> int:
    """Side in pixels at which tiles for two views are cut."""
    return min(_MOST_PX, max(query.height, query.width, reference.height, reference.width))


def to_view(image: Images, view: ViewInput) -> Images:
    """(H, W, 3) to the view's (h, w, 3), the way training resizes."""
    resized: Images = resize(to_tensor(image), view).permute(1, 2, 0).contiguous().numpy()
    return resized


def mask_to_view(mask: Masks, view: ViewInput) -> Masks:
    """(H, W) to the view's (h, w): a pixel counts as seen where most of it was."""
    if mask.shape == (view.height, view.width):
        return mask
    small = resize(torch.from_numpy(mask.astype(np.uint8) * 255).expand(3, -1, -1), view)[0]
    return np.asarray(small.numpy() >= 128)


def reduced(image: Images) -> Images:
    """An image of no more than twice the pixels that views need: a large photo would take seconds to disturb."""
    scale = 2 * _MOST_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
