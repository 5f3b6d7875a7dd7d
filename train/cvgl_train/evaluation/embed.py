"""Descriptors of many images, by a model of the training package or by the bundle that a drone carries."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvgl.errors import MissingDependencyError, ModelError
from cvgl.model import Model
from cvgl_train.checkpoint import load_model
from cvgl_train.data.base import ImageSource
from cvgl_train.data.images import resize, to_input, to_tensor
from cvgl_train.models.base import CrossViewModel, View, ViewInput

from .ranks import Score

__all__ = [
    "BundleEmbedder",
    "Change",
    "Embedded",
    "Embedder",
    "ModelEmbedder",
    "embed_all",
    "open_embedder",
    "own_score",
]

Change = Callable[[NDArray[np.uint8], ViewInput], NDArray[np.uint8]]
"""What is done to an image, (H, W, 3) RGB, before a view's input is made of it."""


class Embedder(Protocol):
    """Whatever makes descriptors of images.

    Attributes:
        name: of the model.
        inputs: what the images of each view become.
        descriptor_size: length D of a descriptor.
        metric: how descriptors are compared, see `ModelInfo`.
    """

    name: str
    inputs: Mapping[View, ViewInput]
    descriptor_size: int
    metric: Literal["cosine", "euclidean"]

    def prepare(self, image: NDArray[np.uint8], view: View) -> Any:
        """(H, W, 3) RGB of any size to what `embed` takes of it; called from several threads."""

    def embed(self, prepared: Sequence[Any], view: View) -> NDArray[np.float32]:
        """(B, D) descriptors of what `prepare` gave."""


class ModelEmbedder:
    """An `Embedder` of a model of the training package.

    Args:
        model: put into evaluation mode and on the device.
        device: as PyTorch names it.
    """

    def __init__(self, model: CrossViewModel, device: torch.device | str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.name = model.info.name
        self.inputs: Mapping[View, ViewInput] = {"query": model.info.query, "reference": model.info.reference}
        self.descriptor_size = model.info.descriptor_size
        self.metric = model.info.metric

    def prepare(self, image: NDArray[np.uint8], view: View) -> Tensor:
        return to_input(image, self.inputs[view])

    def embed(self, prepared: Sequence[Tensor], view: View) -> NDArray[np.float32]:
        with torch.inference_mode():
            descriptors: NDArray[np.float32] = (
                self.model.embed(torch.stack(list(prepared)).to(self.device), view).cpu().numpy()
            )
        return descriptors


class BundleEmbedder:
    """An `Embedder` of a bundle, resizing as `ModelEmbedder` does.

    Args:
        model: with both views open.
    """

    metric: Literal["cosine", "euclidean"] = "cosine"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = model.name
        self.descriptor_size = model.descriptor_size
        query, reference = (
            ViewInput(
                *view.input_size, view.mean, view.std, "bicubic" if view.interpolation == "bicubic" else "bilinear"
            )
            for view in (model.views["query"], model.views["reference"])
        )
        self.inputs: Mapping[View, ViewInput] = {"query": query, "reference": reference}

    def prepare(self, image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
        resized: NDArray[np.uint8] = resize(to_tensor(image), self.inputs[view]).permute(1, 2, 0).numpy()
        return resized[..., ::-1]

    def embed(self, prepared: Sequence[NDArray[np.uint8]], view: View) -> NDArray[np.float32]:
        return self.model.embed(np.stack(list(prepared)), view=view)


def open_embedder(path: str | Path, device: str = "cpu") -> ModelEmbedder | BundleEmbedder:
    """A checkpoint, or a bundle's folder.

    Args:
        path: of either.
        device: as PyTorch names it; a bundle runs where its runtime does.

    Raises:
        ModelError: neither of them, or one that cannot be used.
        MissingDependencyError: no such device here.
    """
    if Path(path).is_dir():
        return BundleEmbedder(Model.open(path))
    model = load_model(path)
    try:
        return ModelEmbedder(model, device)
    except (RuntimeError, AssertionError) as reason:
        # PyTorch says so in several ways, depending on how it was built.
        first = str(reason).splitlines()[0]
        raise MissingDependencyError(f"cannot be used: {first}", field="device", found=device) from reason


def own_score(model: CrossViewModel) -> Score:
    """`CrossViewModel.score` of a copy in double precision; descriptors go to the model's device.

    In single precision the scores of equal descriptors differ in their last digits by where they stand in the gallery.
    """
    whole = copy.deepcopy(model).double()
    device = next(whole.parameters()).device
    return lambda query, reference: whole.score(query.to(device), reference.to(device))


@dataclass(frozen=True)
class Embedded:
    """Descriptors of images, and the time it took.

    Args:
        descriptors: (N, D).
        seconds: in the network, without reading and resizing.
    """

    descriptors: NDArray[np.float32]
    seconds: float

    @property
    def seconds_per_image(self) -> float:
        """Mean time in the network."""
        return self.seconds / max(len(self.descriptors), 1)


def embed_all(
    embedder: Embedder,
    sources: Sequence[ImageSource],
    view: View,
    *,
    batch: int = 32,
    workers: int = 2,
    change: Change | None = None,
    progress: Callable[[int], None] | None = None,
) -> Embedded:
    """Descriptors of all images of a view, in their order.

    Args:
        embedder: makes them.
        sources: the images; only a few batches are in memory at a time.
        view: whose network takes them.
        batch: images at a time.
        workers: threads that read and resize.
        change: done to every image first.
        progress: called with the number of images done so far.

    Raises:
        DatasetError: an image cannot be read.
        ModelError: a descriptor is not finite.
    """
    wanted = embedder.inputs[view]

    def make(source: ImageSource) -> Any:
        image = source.read()
        return embedder.prepare(image if change is None else change(image, wanted), view)

    descriptors = np.empty((len(sources), embedder.descriptor_size), np.float32)
    seconds, done = 0.0, 0
    for group in _batches(make, sources, batch, workers):
        start = time.perf_counter()
        found = embedder.embed(group, view)
        seconds += time.perf_counter() - start
        good = np.isfinite(found).all(1)
        if not good.all():
            name = sources[done + int(np.flatnonzero(~good)[0])].name
            raise ModelError("a descriptor that is not finite", field=view, found=name)
        descriptors[done : done + len(group)] = found
        done += len(group)
        if progress is not None:
            progress(done)
    return Embedded(descriptors, seconds)


def _batches(
    make: Callable[[ImageSource], Any], sources: Sequence[ImageSource], batch: int, workers: int
) -> Iterator[list[Any]]:
    """What `make` gives, in groups; a second group is made while the first is used."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            following = iter(sources)
            while True:
                for source in following:
                    waiting.append(pool.submit(make, source))
                    if len(waiting) >= 2 * batch:
                        break
                if not waiting:
                    return
                yield [waiting.popleft().result() for _ in range(min(batch, len(waiting)))]
        finally:
            for future in waiting:
                future.cancel()
