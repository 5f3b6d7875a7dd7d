"""The gallery's format over time: each version is read as it was written, and may be brought to the newest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvgl.errors import GalleryError
from cvgl.gallery import Gallery, merge_galleries
from cvgl.gallery.check import check_gallery
from cvgl.gallery.manifest import WHOLE_VERSION

FOLDER = Path(__file__).parent / "frozen"
FROZEN = FOLDER / "version-1.gallery"
"""Written by the last cvgl that wrote version 1, from a procedural map; beside it the same tiles in later versions.

Version 3, whose index lies along principal axes, is written of large galleries; this one has 24 axes of 48 dimensions.
"""
EXPECTED = json.loads(FROZEN.with_suffix(".json").read_text())
"""What the cvgl that wrote version 1 answered."""
VERSIONS = (1, 2, 3)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return merge_galleries([Gallery.open(FROZEN)], tmp_path_factory.mktemp("newest") / "newest.gallery")


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_every_version_answers_as_the_first_did(version: int | None, newest: Gallery) -> None:
    gallery = newest if version is None else Gallery.open(FOLDER / f"version-{version}.gallery")
    assert gallery.manifest.version == (version or WHOLE_VERSION)
    queries = np.array(EXPECTED["queries"], np.float32)
    for search in (gallery.search, gallery.approximate):
        tiles, similarity = search(queries, 5)
        assert tiles.tolist() == EXPECTED["search"]
        np.testing.assert_allclose(similarity, EXPECTED["similarity"], atol=1e-4)
    assert gallery.near(queries, 5.0, -7.0, 20.0, 3)[0].tolist() == EXPECTED["near"]
    assert len(gallery) == EXPECTED["tiles"]
    assert gallery.tiles[0].tolist() == EXPECTED["first"] and gallery.tiles[-1].tolist() == EXPECTED["last"]
    assert gallery.basemap.read(20, 30, 6, 4).tolist() == EXPECTED["window"]
    assert list(gallery.bounds) == EXPECTED["bounds"]
    assert gallery.table["valid"].tolist() == [100] * len(gallery)
    assert gallery.manifest.attribution == "procedural, no rights reserved"


@pytest.mark.parametrize("version", VERSIONS)
def test_check_takes_every_version(version: int) -> None:
    assert check_gallery(FOLDER / f"version-{version}.gallery").recall == 1.0


def test_an_altered_gallery_of_version_1_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    for file in FROZEN.iterdir():
        copy = tmp_path / file.name
        copy.mkdir()
        for other in FROZEN.iterdir():
            content = bytearray(other.read_bytes())
            content[len(content) // 2] ^= 4 if other == file else 0
            (copy / other.name).write_bytes(content)
        with pytest.raises(GalleryError, match=file.name.replace(".", r"\.")):
            Gallery.open(copy)
