"""Tiles from a folder of images, a map, a gallery or the procedural world."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.calibrate import window
from cvgl.errors import GalleryError
from cvgl.gallery import Gallery
from cvgl.imagery import MapSource
from cvgl.manifest import MANIFEST
from cvgl.sim import Appearance, World, render_map
from cvgl.sim.views import MapImage
from cvgl_train.data.base import DatasetError, ImageFile
from cvgl_train.models.base import ViewInput

from .cutting import WINDOW_PER_TILE, cut, grid, piece
from .disturbing import disturbed
from .sizing import cut_px, reduced, to_view
from .tiles import COUNT, Images, ParityTiles, Progress, Wanted, image_key

__all__ = ["SUFFIXES", "folder_tiles", "gallery_tiles", "map_tiles", "open_tiles", "procedural_tiles"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
_TILE_M = 100.0
_PROCEDURAL_TILE_M = 64.0


def open_tiles(
    source: str | Path | None,
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int = COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> ParityTiles:
    """Tiles from whatever the user has.

    Args:
        source: a folder of images, a gallery, the path of a map; None for the procedural world.
        query, reference, count, seed, progress: what for, see `Wanted`.

    Raises:
        DatasetError: nothing there, an unreadable image, a count below 2, or fewer than two tiles that differ.
        GalleryError, MapError: a gallery or a map that cannot be used.
    """
    wanted = Wanted(query, reference, count, seed, progress)
    if source is None:
        return procedural_tiles(wanted)
    path = Path(source)
    if not path.exists():
        raise DatasetError("no such folder or map", file=path, field="tiles")
    if path.is_file():
        return map_tiles(path, wanted)
    if (path / MANIFEST).is_file():
        return gallery_tiles(path, wanted)
    return folder_tiles(path, wanted)


def folder_tiles(folder: str | Path, wanted: Wanted) -> ParityTiles:
    """Tiles that are files of their own, in a folder or in folders below it; queries are `disturbed` copies.

    Args:
        folder: of images of any size; resized as in training.
        wanted: what for.

    Raises:
        DatasetError: no image there, one that cannot be read, or fewer than two that differ.
    """
    root = Path(folder)
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise DatasetError(
            "no image in the folder", file=root, field="tiles", expected=f"files as {', '.join(SUFFIXES)}"
        )
    order = np.random.default_rng([wanted.seed, 61]).permutation(len(found))
    references: list[Images] = []
    queries: list[Images] = []
    names: list[str] = []
    seen: set[bytes] = set()
    duplicates = 0
    total = min(wanted.count, len(found))
    # A duplicate is replaced by the next image, as long as there are any.
    for index in order:
        path = found[int(index)]
        image = ImageFile(path).read()
        tile = to_view(image, wanted.reference)
        key = image_key(tile)
        if key in seen:
            duplicates += 1
            continue
        seen.add(key)
        references.append(tile)
        # By the file's place in the folder, so that a query does not hang on how many are drawn.
        other = disturbed(reduced(image), np.random.default_rng([wanted.seed, 62, int(index)]))
        queries.append(to_view(other, wanted.query))
        names.append(path.relative_to(root).as_posix())
        wanted.tell(len(names), total)
        if len(names) == wanted.count:
            break
    if len(names) < 2:
        raise DatasetError(
            "too few tiles to prove anything on",
            file=root,
            field="tiles",
            found=f"{len(names)}, and {duplicates} equal to it",
            expected="two or more that differ",
        )
    return ParityTiles(
        np.stack(queries),
        np.stack(references),
        np.arange(len(names)),
        tuple(names),
        wanted.inputs,
        f"images in {root.name}, and disturbed copies of them as queries",
        duplicates=duplicates,
    )


def map_tiles(path: str | Path, wanted: Wanted, *, tile_m: float | None = None) -> ParityTiles:
    """Tiles of a georeferenced map on a gallery's grid; queries are simulated views of them (`cvgl.sim.views`).

    Args:
        path: of the map.
        wanted: what for.
        tile_m: side of a tile; None for 100 m, or less where the map is small. Tiles overlap where they must to be
            enough.

    Raises:
        MapError: a map that cannot be read.
        DatasetError: fewer than two tiles on it.
    """
    with MapSource.open(path) as source:
        west, south, east, north = source.bounds
        side = min(_TILE_M, (east - west) / 3, (north - south) / 3) if tile_m is None else tile_m
        places = grid((west, south, east, north), side, wanted.count)

        def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
            return window(source, easting, northing, side_m, gsd)

        words = f"tiles of {side:.0f} m of {source.source}, and simulated views of them as queries"
        return cut(look, places, side, wanted, words, Path(path))


def gallery_tiles(path: str | Path, wanted: Wanted) -> ParityTiles:
    """A gallery's own tiles, cut from the picture that it carries; queries are simulated views of them.

    Args:
        path: of the gallery. Its picture is the overview, in colour, where it is fine enough, else the basemap, which
            is grey.
        wanted: what for.

    Raises:
        GalleryError: not a whole gallery.
        DatasetError: fewer than two tiles that differ.
    """
    gallery = Gallery.open(path)
    manifest = gallery.manifest
    if manifest.overview.gsd_m <= 1.5 * manifest.tile_gsd_m:
        raster, words = manifest.overview, "colour"
        picture = cv2.imread(str(gallery.verified("overview.jpg")), cv2.IMREAD_COLOR)
        if picture is None:
            raise GalleryError("not readable as an image", file=manifest.path / "overview.jpg")
        colours: NDArray[np.uint8] = np.ascontiguousarray(picture[..., ::-1])
    else:
        raster, words = manifest.basemap, "grey"
        colours = np.asarray(gallery.basemap.pixels)

    def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
        return piece(colours, raster.gsd_m, raster.west, raster.north, easting, northing, side_m, gsd)

    text = f"tiles of {manifest.tile_size_m:.0f} m of the gallery {manifest.path.name} ({words}), and simulated views"
    places = np.array(gallery.tiles, np.float64)
    return cut(look, places, manifest.tile_size_m, wanted, text, manifest.path)


def procedural_tiles(wanted: Wanted) -> ParityTiles:
    """Tiles of a procedural world, made on the spot; queries are simulated views of them."""
    side = math.ceil(math.sqrt(wanted.count))
    tile = _PROCEDURAL_TILE_M
    # Half overlapping, and wide enough around them that no view looks past the edge.
    stride = tile / 2
    size = (side - 1) * stride + (WINDOW_PER_TILE + 0.2) * tile
    rng = np.random.default_rng([wanted.seed, 63])
    world = World.generate(int(rng.integers(2**31)), size)
    gsd = tile / cut_px(wanted.query, wanted.reference) / 2
    rgb = render_map(world, gsd, Appearance.random(rng, "satellite"))
    whole = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), gsd, -size / 2, size / 2)
    steps = (np.arange(side) - (side - 1) / 2) * stride
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)[: wanted.count]

    def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
        return whole

    words = f"a procedural world of {size:.0f} m (seed {wanted.seed}), and simulated views of its tiles as queries"
    return cut(look, places, tile, wanted, words)
