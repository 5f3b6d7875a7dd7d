"""What the tests of the readers of published trees share: small real images and a disk that lists backwards."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def draw() -> Callable[..., None]:
    """Writes images of 8 x 6 pixels, each of one colour that follows from its path."""

    def paint(root: Path, *names: str) -> None:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.empty((6, 8, 3), np.uint8)
            pixels[:] = colour(name)[::-1]
            path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())

    return paint


def colour(name: str) -> np.ndarray:
    # Levels far enough apart for JPEG.
    number = zlib.crc32(name.encode())
    return np.array([number % 8, number // 8 % 8, number // 64 % 8], np.uint8) * 36


@pytest.fixture(scope="session")
def readable() -> Callable[[Any], None]:
    """Checks that every image of a set reads as what was drawn under its name, and that names are unique."""

    def check(found: Any) -> None:
        for images in (found.queries, found.references):
            assert len({image.name for image in images}) == len(images)
            for image in images:
                pixels = image.read()
                assert pixels.shape == (6, 8, 3)
                np.testing.assert_allclose(pixels[3, 4], colour(image.name), atol=12)

    return check


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that lists every folder in reversed order of names."""
    scandir, listdir = os.scandir, os.listdir

    @contextmanager
    def scan(path: Any) -> Iterator[Any]:
        with scandir(path) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
