"""How a model does when the drone's image is shifted, or shows less detail, than those it was made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cvgl_train.data.images import resize, to_tensor
from cvgl_train.models.base import ViewInput

from .embed import Change, Embedder, embed_all
from .evaluate import Progress, Search, measure, search
from .ranks import Score

__all__ = ["SHIFTS", "SIZES", "Pad", "Robustness", "coarsened", "robustness", "shifted"]

Pad = Literal["black", "flip"]

PADS: tuple[Pad, ...] = ("black", "flip")
SHIFTS = (0, 10, 20, 30, 40, 50, 60)
"""Pixels of an image 256 wide, as in FSRA's paper."""
SIZES = (32, 48, 64, 96, 128, 192, 256, 384)
"""Pixels; of these, the ones below the input's height are tried."""


@dataclass(frozen=True)
class Robustness:
    """The metrics of `Direction.values` under changes of the query images.

    Args:
        shift: by pad, by shift in pixels of an image 256 wide.
        size: by pixels of detail; the greatest is the model's own input.
    """

    shift: dict[str, dict[int, dict[str, float]]]
    size: dict[int, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "shift": {pad: {str(px): values for px, values in row.items()} for pad, row in self.shift.items()},
            "size": {str(px): values for px, values in self.size.items()},
        }


def shifted(image: NDArray[np.uint8], view: ViewInput, *, pixels: int, pad: Pad) -> NDArray[np.uint8]:
    """An image moved to the right, as FSRA (Dai et al. 2021, appendix) tests; what leaves on the right is lost.

    Args:
        image: (H, W, 3) RGB.
        view: to whose size it is brought first: the shift is of what the network sees.
        pixels: of an image 256 wide; for other widths in proportion.
        pad: what comes in from the left: "black", or "flip", the image's own left edge mirrored.

    Returns:
        (h, w, 3) of the view's size.
    """
    image = resize(to_tensor(image), view).permute(1, 2, 0).numpy()
    width = min(round(pixels * view.width / 256), view.width)
    edge = image[:, :width][:, ::-1] if pad == "flip" else np.zeros_like(image[:, :width])
    return np.ascontiguousarray(np.concatenate([edge, image], 1)[:, : view.width])


def coarsened(image: NDArray[np.uint8], view: ViewInput, *, pixels: int) -> NDArray[np.uint8]:
    """An image with no more detail than `pixels` rows of pixels can hold, at the view's shape.

    A model is made for one input size, so what is tried is not another input, for which FSRA's paper trains anew, but
    an image from a camera that resolves less.

    Returns:
        (pixels, width in proportion, 3), to be enlarged to the view's size as any other image is.
    """
    width = max(1, round(view.width * pixels / view.height))
    coarse = ViewInput(pixels, width, view.mean, view.std)
    return np.ascontiguousarray(resize(to_tensor(image), coarse).permute(1, 2, 0).numpy())


def robustness(
    embedder: Embedder,
    found: Search,
    *,
    pads: Sequence[Pad] = PADS,
    shifts: Sequence[int] = SHIFTS,
    sizes: Sequence[int] = SIZES,
    score: Score | None = None,
    batch: int = 32,
    workers: int = 2,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Robustness:
    """Search again with changed query images; the references stay as they are, as they do on a drone.

    Args:
        embedder: the model.
        found: its search from queries to references.
        pads, shifts, sizes: what is tried. No shift, and full detail, are what `found` says already.
        score, batch, workers, device, progress: as `evaluate`.

    Raises:
        DatasetError, ModelError: as `evaluate`.
    """
    as_it_is = measure(found).values
    view = embedder.inputs["query"]

    def tried(what: str, change: Change) -> dict[str, float]:
        data = found.dataset
        tell: Callable[[int], None] | None = None
        if progress is not None:
            tell = partial(_tell, progress, what, len(data.queries))
        made = embed_all(embedder, data.queries, "query", batch=batch, workers=workers, change=change, progress=tell)
        again = search(data, made.descriptors, found.reference, metric=embedder.metric, score=score, device=device)
        return measure(again).values

    shift = {
        str(pad): {
            px: tried(f"{pad} pad {px} px", partial(shifted, pixels=px, pad=pad)) if px else as_it_is for px in shifts
        }
        for pad in pads
    }
    size = {px: tried(f"{px} px of detail", partial(coarsened, pixels=px)) for px in sizes if px < view.height}
    return Robustness(shift, {**size, view.height: as_it_is})


def _tell(progress: Progress, what: str, size: int, done: int) -> None:
    progress(what, done, size)
