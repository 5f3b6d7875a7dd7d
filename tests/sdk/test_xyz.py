"""Folders of web map tiles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cvgl.errors import MapError
from cvgl.imagery import MapSource
from cvgl.xyz import assemble_tiles


def lay(folder: Path, zoom: int, tiles: dict[tuple[int, int], int], side: int = 64) -> Path:
    for (x, y), grey in tiles.items():
        file = folder / str(zoom) / str(x) / f"{y}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((side, side, 3), grey, np.uint8))
    return folder


def test_tiles_lie_where_they_belong(tmp_path: Path) -> None:
    # Around 0 N 0 E: the four tiles that meet there, at zoom 18, one of them absent.
    middle = 2**17
    folder = lay(tmp_path / "t", 18, {(middle - 1, middle - 1): 50, (middle, middle - 1): 100, (middle, middle): 200})
    path = assemble_tiles(folder, tmp_path / "map.tif")
    with MapSource.open(path) as source:
        assert source.local.latitude == pytest.approx(0, abs=1e-9)
        assert source.local.longitude == pytest.approx(0, abs=1e-9)
        # 40075017 m around the equator in 2^18 tiles of 64 pixels.
        assert source.native_gsd == pytest.approx(40075016.7 / 2**18 / 64, rel=0.01)
        gsd = source.native_gsd
        rgb, valid = source.read(-40 * gsd, 40 * gsd, 80, 80, gsd)
    assert not valid[50:75, 5:30].any()
    for at, grey in (((20, 20), 50), ((20, 60), 100), ((60, 60), 200)):
        assert valid[at]
        assert rgb[at][0] == pytest.approx(grey, abs=2)


def test_the_most_detailed_level_is_taken(tmp_path: Path) -> None:
    lay(tmp_path / "t", 3, {(4, 4): 10})
    lay(tmp_path / "t", 5, {(16, 16): 90, (17, 16): 90})
    with MapSource.open(assemble_tiles(tmp_path / "t", tmp_path / "map.tif")) as source:
        assert source.native_gsd == pytest.approx(40075016.7 / 2**5 / 64, rel=0.05)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [({}, "no tiles"), ({(1, 1): 5, (50_000, 1): 5}, "too large")],
)
def test_refusals(tmp_path: Path, tiles: dict[tuple[int, int], int], message: str) -> None:
    with pytest.raises(MapError, match=message):
        assemble_tiles(lay(tmp_path / "t", 18, tiles), tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_tiles_of_two_sizes(tmp_path: Path) -> None:
    lay(tmp_path / "t", 4, {(1, 1): 5})
    lay(tmp_path / "t", 4, {(2, 1): 5}, side=32)
    with pytest.raises(MapError, match="another size"):
        assemble_tiles(tmp_path / "t", tmp_path / "map.tif")


@pytest.mark.data
def test_a_real_folder(cvgl_data: Path, tmp_path: Path) -> None:
    with MapSource.open(assemble_tiles(cvgl_data / "maps" / "xyz_z18", tmp_path / "map.tif")) as source:
        assert source.local.latitude == pytest.approx(32.1047, abs=0.001)
        assert source.native_gsd == pytest.approx(0.51, abs=0.01)
