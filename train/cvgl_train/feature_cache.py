"""Tokens of a frozen backbone, computed once and kept on disk.

A folder holds ``tokens.npy`` (float16, N x T x C, readable by `numpy.load`), ``manifest.json`` (what they were made
of) and, until all are there, ``progress.json``. For DINOv2 ViT-S/14 at 224 pixels an image takes 197 kB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvgl.errors import CvglError, ModelError
from cvgl.files import atomic_path, read_json, write_json

from .data.base import CrossViewSet, ImageSource
from .data.images import to_input
from .models.base import CrossViewModel, View, ViewInput
from .models.dinov2_cvv import Dinov2Cvv

__all__ = ["CacheError", "CachedTokens", "backbone_fingerprint", "cache_tokens", "cached_set", "from_cache"]

FORMAT = "cvgl-tokens"
FORMAT_VERSION = 1
BATCHES_BETWEEN_FLUSHES = 16
READERS = 4


class CacheError(CvglError, ValueError):
    """A folder of tokens that belongs to other weights or images, or is damaged."""


@dataclass(frozen=True)
class CachedTokens:
    """The tokens of one image, in the image's place in a dataset.

    Args:
        name: the image's.
        path: of the ``tokens.npy`` that holds them.
        row: which they are.
    """

    name: str
    path: Path
    row: int

    def read(self) -> NDArray[Any]:
        """(T, C) float16. Raises CacheError where they cannot be read."""
        # By path, not by array: a dataset travels to other processes, and an array would travel whole.
        try:
            version = self.path.stat().st_mtime_ns
        except OSError as reason:
            raise CacheError(f"not readable: {reason.strerror}", file=self.path) from reason
        return np.array(_mapped(self.path, version)[self.row])


@lru_cache(maxsize=16)
def _mapped(path: Path, version: int) -> np.memmap:
    """The file as it was at a time, so that one which took its place is opened anew."""
    return _open(path, None, "r")


def from_cache(tokens: NDArray[Any]) -> Tensor:
    """What `CachedTokens.read` gives, as the (T, C) float32 input that `Dinov2Cvv` takes instead of an image."""
    return torch.from_numpy(tokens).float()


def cached_set(
    model: CrossViewModel,
    dataset: CrossViewSet,
    folder: str | Path,
    *,
    batch: int = 16,
    progress: Callable[[float, dict[str, Any]], None] | None = None,
) -> CrossViewSet:
    """A dataset with tokens in the place of images, kept in ``folder/query`` and ``folder/reference``.

    Args:
        model: on the device to compute on.
        dataset: of images.
        folder, batch: see `cache_tokens`.
        progress: is told the share done and what is being done.

    Raises:
        ModelError: a method without a frozen backbone.
        CacheError, DatasetError: as `cache_tokens`.
    """
    if not isinstance(model, Dinov2Cvv):
        raise ModelError("only a frozen backbone's features can be kept", field="cache", found=model.info.name)
    total, before = len(dataset.queries) + len(dataset.references), 0
    kept: dict[str, list[CachedTokens]] = {}
    views: tuple[tuple[View, Sequence[ImageSource]], ...] = (
        ("query", dataset.queries),
        ("reference", dataset.references),
    )
    for view, sources in views:

        def tell(done: int, _: int, view: View = view, before: int = before) -> None:
            if progress is not None:
                progress((before + done) / total, {"features": view, "images": done})

        cache_tokens(model, sources, view, Path(folder) / view, batch=batch, progress=tell)
        path = (Path(folder) / view / "tokens.npy").absolute()
        kept[view] = [CachedTokens(source.name, path, row) for row, source in enumerate(sources)]
        before += len(sources)
    return replace(dataset, queries=kept["query"], references=kept["reference"])


def backbone_fingerprint(backbone: nn.Module) -> str:
    """SHA-256 of a network's weights: names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        array = np.ascontiguousarray(value.detach().cpu().float().numpy())
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def cache_tokens(
    model: Dinov2Cvv,
    sources: Sequence[ImageSource],
    view: View,
    folder: str | Path,
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.memmap:
    """Tokens of images from a folder, after computing those that are not there yet.

    An interrupted run goes on where it last wrote to disk. A folder of other weights, images or sizes is left as it is
    and refused: its tokens may have taken hours, and to delete them is the user's choice. One process at a time may
    write to a folder.

    Args:
        model: on the device to compute on.
        sources: N images, at least one.
        view: whose input size they are brought to.
        folder: is made if needed.
        batch: images at a time.
        progress: is told images done and images in all, at the beginning and after each batch.

    Returns:
        (N, T, C) float16, read-only, mapped from the file.

    Raises:
        CacheError: the folder belongs to something else, or is damaged.
        DatasetError: an image cannot be read.
        ModelError: tokens that float16 does not hold.
    """
    if not len(sources) or batch < 1:
        field, found = ("sources", 0) if batch >= 1 else ("batch", batch)
        raise CacheError("nothing to compute with", field=field, found=found, expected="at least 1")
    folder = Path(folder)
    path, shape = folder / "tokens.npy", (len(sources), model.token_count, model.width)
    wanted = _manifest(model, sources, view)
    if (folder / "manifest.json").exists():
        _check_manifest(folder / "manifest.json", wanted)
    else:
        # First the file, then what says that it is there; both appear whole. Its zeros take no room until written.
        with atomic_path(path) as temporary:
            np.lib.format.open_memmap(temporary, "w+", np.float16, shape).flush()
        write_json(folder / "progress.json", {"done": 0})
        write_json(folder / "manifest.json", wanted)
    done = _done(folder, len(sources))
    tokens = _open(path, shape, "r+" if done < len(sources) else "r")
    if progress is not None:
        progress(done, len(sources))
    if done == len(sources):
        return tokens
    steps = range(done, len(sources), batch)
    for step, (start, images) in enumerate(_batches(sources, model.info.view(view), steps, batch), 1):
        rows = _compute(model, images)
        stop = start + len(rows)
        if not np.isfinite(rows).all():
            wrong = sources[start + int(np.argmin(np.isfinite(rows).all((1, 2))))].name
            raise ModelError("tokens that float16 does not hold", field=wrong, expected="at most 65504")
        tokens[start:stop] = rows
        if step % BATCHES_BETWEEN_FLUSHES == 0 or stop == len(sources):
            # What is counted as done is on the disk before.
            tokens.flush()
            write_json(folder / "progress.json", {"done": stop})
        if progress is not None:
            progress(stop, len(sources))
    (folder / "progress.json").unlink()
    return _open(path, shape, "r")


def _compute(model: Dinov2Cvv, images: Tensor) -> NDArray[np.float16]:
    device = next(model.backbone.parameters()).device
    with torch.inference_mode():
        return model.tokens(images.to(device)).half().cpu().numpy()


def _batches(sources: Sequence[ImageSource], view: ViewInput, steps: range, batch: int) -> Iterator[tuple[int, Tensor]]:
    """Start and images of each batch; the next one is read while the caller works on this one."""

    def read(source: ImageSource) -> Tensor:
        return to_input(source.read(), view)

    with ThreadPoolExecutor(READERS) as pool:

        def ask(start: int) -> Iterator[Tensor]:
            return pool.map(read, [sources[i] for i in range(start, min(start + batch, len(sources)))])

        waiting = ask(steps[0])
        for start in steps:
            images = torch.stack(list(waiting))
            if start + batch < len(sources):
                waiting = ask(start + batch)
            yield start, images


def _manifest(model: Dinov2Cvv, sources: Sequence[ImageSource], view: View) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "backbone": model.settings.backbone,
        # Before the weights, which hold position codes of the input's size: an error should name the cause.
        "input": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(model.info.view(view)).items()},
        "weights": backbone_fingerprint(model.backbone),
        "shape": [len(sources), model.token_count, model.width],
        "images": [source.name for source in sources],
    }


def _check_manifest(path: Path, wanted: dict[str, Any]) -> None:
    found = read_json(path, CacheError)
    for field, expected in wanted.items():
        there = found.get(field)
        if there == expected:
            continue
        if field == "images" and isinstance(there, list) and len(there) == len(expected):
            # A list of thousands of names says nothing, the first difference does.
            place = next(i for i, (one, other) in enumerate(zip(there, expected, strict=True)) if one != other)
            field, there, expected = f"images[{place}]", there[place], expected[place]
        message = "tokens of something else; take another folder, or delete this one"
        raise CacheError(message, file=path, field=field, found=there, expected=str(expected))


def _done(folder: Path, count: int) -> int:
    if not (folder / "progress.json").exists():
        return count
    done = read_json(folder / "progress.json", CacheError).get("done")
    if not isinstance(done, int) or not 0 <= done <= count:
        message = "not a number of images"
        raise CacheError(message, file=folder / "progress.json", field="done", found=done, expected=f"0 to {count}")
    return done


def _open(path: Path, shape: tuple[int, int, int] | None, mode: Literal["r", "r+"]) -> np.memmap:
    message = "damaged tokens; delete the folder"
    try:
        tokens = np.load(path, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise CacheError("no such file; delete the folder", file=path) from None
    except (OSError, ValueError, EOFError) as reason:
        raise CacheError(f"{message}: {reason}", file=path) from reason
    if not isinstance(tokens, np.memmap) or tokens.dtype != np.float16 or shape not in (None, tokens.shape):
        found = f"{tokens.shape} {tokens.dtype}"
        raise CacheError(message, file=path, field="shape", found=found, expected=f"{shape} float16")
    return tokens
