"""The images on which an export is proven: tiles, a view of each, and which belong together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cvgl.calibrate import window
from cvgl.camera import Camera
from cvgl.errors import GalleryError
from cvgl.gallery import Gallery
from cvgl.imagery import MapSource
from cvgl.manifest import MANIFEST
from cvgl.sim import Appearance, World, render_map
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size, drone_view, reference_tile
from cvgl_train.data.base import DatasetError, ImageFile
from cvgl_train.data.images import resize, to_tensor
from cvgl_train.models.base import View, ViewInput

__all__ = [
    "COUNT",
    "ParityTiles",
    "disturbed",
    "folder_tiles",
    "gallery_tiles",
    "map_tiles",
    "open_tiles",
    "procedural_tiles",
]

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Called with the number of tiles made so far and the number in all."""

COUNT = 500
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")

# Tiles are cut at no more pixels than this and resized from there: finer detail costs time and proves nothing more.
_MOST_PX = 256
_FIELD_OF_VIEW_DEG = 70.0
# As the trained models saw it: the image's middle is off the tile's centre by up to an eighth of a tile.
_OFFSET_PER_TILE = 0.125
# Half of what training draws: a search that finds next to nothing tells next to nothing about an engine.
_LIGHT = 0.5
_WINDOW_PER_TILE = 1.6
_TILE_M = 100.0
# Tiles may overlap so that a small map gives enough of them, but not by more than three quarters: the view of one
# must not be a better view of its neighbour.
_STRIDES_PER_TILE = (1.0, 0.5, 0.25)
_LEAST_VALID = 0.6
_PROCEDURAL_TILE_M = 64.0

Look = Callable[[float, float, float, float], MapImage]
"""Easting, northing, side in metres and ground sampling distance to a piece of a map around there."""


@dataclass(frozen=True, eq=False)
class ParityTiles:
    """References, queries made of them, and each query's true reference. Images are RGB at their view's input size.

    Args:
        query: (Q, h, w, 3) uint8.
        reference: (R, h, w, 3) uint8, no two alike.
        truth: (Q,) index of each query's reference.
        names: (R,) of the references, for people.
        inputs: what the images of each view become before the network.
        source: where the images are from, for people.
        query_mask, reference_mask: (Q, h, w), (R, h, w) pixels that were seen; None where all were. Others enter the
            network as exactly 0, as `cvgl.model` has it in flight.
        duplicates: images left out since they were equal to another.

    Raises:
        DatasetError: fewer than two references, equal ones, or arrays that do not fit each other.
    """

    query: Images
    reference: Images
    truth: NDArray[np.int64]
    names: tuple[str, ...]
    inputs: dict[View, ViewInput]
    source: str
    query_mask: Masks | None = None
    reference_mask: Masks | None = None
    duplicates: int = 0

    def __post_init__(self) -> None:
        for view, images, mask in (
            ("query", self.query, self.query_mask),
            ("reference", self.reference, self.reference_mask),
        ):
            wanted = self.inputs[view]  # type: ignore[index]
            shape = (len(images), wanted.height, wanted.width, 3)
            if images.shape != shape or images.dtype != np.uint8:
                raise DatasetError(
                    "not the view's images", field=view, found=f"{images.dtype} {images.shape}", expected=str(shape)
                )
            if mask is not None and mask.shape != shape[:3]:
                raise DatasetError("does not fit the images", field=f"{view}_mask", found=mask.shape)
        if len(self.truth) != len(self.query) or len(self.names) != len(self.reference):
            raise DatasetError(
                "does not fit the images",
                field="truth, names",
                found=(len(self.truth), len(self.names)),
                expected=f"{len(self.query)}, {len(self.reference)}",
            )
        if len(self.truth) and not 0 <= self.truth.min() <= self.truth.max() < len(self.reference):
            raise DatasetError("no such reference", field="truth", expected=f"0 to {len(self.reference) - 1}")
        if len(_distinct(self.reference)) < len(self.reference):
            raise DatasetError("two tiles are equal", field="reference")
        if len(self.reference) < 2 or len(self.query) < 1:
            raise DatasetError(
                "too few tiles to prove anything on: a search among one always finds it",
                field="tiles",
                found=len(self.reference),
                expected="two or more that differ",
            )

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.query)

    def __repr__(self) -> str:
        return f"ParityTiles({len(self.query)} queries, {len(self.reference)} references, {self.source})"

    def images(self, view: View) -> Images:
        """(N, h, w, 3) uint8 of a view."""
        return self.query if view == "query" else self.reference

    def mask(self, view: View) -> Masks | None:
        """(N, h, w) of a view, or None."""
        return self.query_mask if view == "query" else self.reference_mask

    def batch(self, view: View, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """(B, 3, h, w) normalised input of the images from `start` up to `stop`."""
        wanted = self.inputs[view]
        scale = (1 / (255 * np.array(wanted.std))).astype(np.float32)
        mean = (255 * np.array(wanted.mean)).astype(np.float32)
        values = (self.images(view)[start:stop].astype(np.float32) - mean) * scale
        mask = self.mask(view)
        if mask is not None:
            values *= mask[start:stop, ..., None]
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all pixels, masks and the truth: two proofs with the same one were made on the same tiles."""
        digest = hashlib.sha256()
        for part in (self.query, self.reference, self.truth, self.query_mask, self.reference_mask):
            if part is not None:
                digest.update(f"{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


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
        query, reference: input of each view.
        count: of tiles, at most.
        seed: same seed, same tiles.
        progress: told how far it is.

    Raises:
        DatasetError: nothing there, an unreadable image, or fewer than two tiles that differ.
        GalleryError, MapError: a gallery or a map that cannot be used.
    """
    if source is None:
        return procedural_tiles(query, reference, count=count, seed=seed, progress=progress)
    path = Path(source)
    if not path.exists():
        raise DatasetError("no such folder or map", file=path, field="tiles")
    if path.is_file():
        return map_tiles(path, query, reference, count=count, seed=seed, progress=progress)
    if (path / MANIFEST).is_file():
        return gallery_tiles(path, query, reference, count=count, seed=seed, progress=progress)
    return folder_tiles(path, query, reference, count=count, seed=seed, progress=progress)


def folder_tiles(
    folder: str | Path,
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int = COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> ParityTiles:
    """Tiles that are files of their own, in a folder or in folders below it; queries are `disturbed` copies.

    Args:
        folder: of images of any size; resized as in training.
        query, reference, count, seed, progress: as `open_tiles` has them. Of more than `count` images some are drawn.

    Raises:
        DatasetError: no image there, one that cannot be read, or fewer than two that differ.
    """
    _checked_count(count)
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
    order = np.random.default_rng([seed, 61]).permutation(len(found))
    references: list[Images] = []
    queries: list[Images] = []
    names: list[str] = []
    seen: set[bytes] = set()
    duplicates = 0
    total = min(count, len(found))
    # A duplicate is replaced by the next image, as long as there are any.
    for index in order:
        path = found[int(index)]
        image = ImageFile(path).read()
        tile = _to_view(image, reference)
        key = _key(tile)
        if key in seen:
            duplicates += 1
            continue
        seen.add(key)
        references.append(tile)
        # By the file's place in the folder, so that a query does not hang on how many are drawn.
        queries.append(_to_view(disturbed(_reduced(image), np.random.default_rng([seed, 62, int(index)])), query))
        names.append(path.relative_to(root).as_posix())
        if progress is not None:
            progress(len(names), total)
        if len(names) == count:
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
        {"query": query, "reference": reference},
        f"images in {root.name}, and disturbed copies of them as queries",
        duplicates=duplicates,
    )


def disturbed(image: Images, rng: np.random.Generator) -> Images:
    """What another camera on another day might have made of a tile: (H, W, 3) uint8, as large as the image.

    Turned by up to 5 degrees, scaled by up to 8 %, shifted by up to 6 %; another exposure, contrast and colour cast;
    sometimes blurred; noisy.
    """
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(rng.uniform(-5, 5)), float(np.exp(rng.uniform(-0.08, 0.08))))
    matrix[:, 2] += rng.uniform(-0.06, 0.06, 2) * (width, height)
    moved = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    gain = math.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))
    contrast, brightness = math.exp(rng.normal(0, 0.12)), float(rng.normal(0, 10))
    blur, noise = float(rng.uniform(0, 1.2)), float(rng.uniform(0, 8))
    values = (moved.astype(np.float32) * gain.astype(np.float32) - 110) * contrast + 110 + brightness
    if blur > 0.4:
        values = cv2.GaussianBlur(values, (0, 0), blur)
    values += noise * rng.standard_normal(values.shape, np.float32)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def map_tiles(
    path: str | Path,
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int = COUNT,
    seed: int = 0,
    tile_m: float | None = None,
    progress: Progress | None = None,
) -> ParityTiles:
    """Tiles of a georeferenced map on a gallery's grid; queries are simulated views of them (`cvgl.sim.views`).

    Args:
        path: of the map.
        query, reference, count, seed, progress: as `open_tiles` has them.
        tile_m: side of a tile; None for 100 m, or less where the map is small. Tiles overlap where they must to be
            enough.

    Raises:
        MapError: a map that cannot be read.
        DatasetError: fewer than two tiles on it.
    """
    _checked_count(count)
    with MapSource.open(path) as source:
        west, south, east, north = source.bounds
        side = min(_TILE_M, (east - west) / 3, (north - south) / 3) if tile_m is None else tile_m
        places = _grid((west, south, east, north), side, count)

        def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
            return window(source, easting, northing, side_m, gsd)

        words = f"tiles of {side:.0f} m of {source.source}, and simulated views of them as queries"
        return _cut(look, places, side, query, reference, count, seed, words, Path(path), progress)


def gallery_tiles(
    path: str | Path,
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int = COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> ParityTiles:
    """A gallery's own tiles, cut from the picture that it carries; queries are simulated views of them.

    Args:
        path: of the gallery.
        query, reference, count, seed, progress: as `open_tiles` has them. The picture is the overview, in colour, where
            it is fine enough, else the basemap, which is grey.

    Raises:
        GalleryError: not a whole gallery.
        DatasetError: fewer than two tiles that differ.
    """
    _checked_count(count)
    gallery = Gallery.open(path)
    manifest = gallery.manifest
    if manifest.overview.gsd_m <= 1.5 * manifest.tile_gsd_m:
        raster, words = manifest.overview, "colour"
        picture = cv2.imread(str(manifest.path / "overview.jpg"), cv2.IMREAD_COLOR)
        if picture is None:
            raise GalleryError("not readable as an image", file=manifest.path / "overview.jpg")
        colours: NDArray[np.uint8] = np.ascontiguousarray(picture[..., ::-1])
    else:
        raster, words = manifest.basemap, "grey"
        colours = gallery.basemap.pixels

    def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
        return _piece(colours, raster.gsd_m, raster.west, raster.north, easting, northing, side_m, gsd)

    text = f"tiles of {manifest.tile_size_m:.0f} m of the gallery {manifest.path.name} ({words}), and simulated views"
    places = np.array(gallery.tiles, np.float64)
    return _cut(look, places, manifest.tile_size_m, query, reference, count, seed, text, manifest.path, progress)


def procedural_tiles(
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int = COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> ParityTiles:
    """Tiles of a procedural world, made on the spot; queries are simulated views of them.

    Args:
        query, reference, count, seed, progress: as `open_tiles` has them.

    Raises:
        DatasetError: a count below 2.
    """
    _checked_count(count)
    side = math.ceil(math.sqrt(count))
    tile = _PROCEDURAL_TILE_M
    # Half overlapping, and wide enough around them that no view looks past the edge.
    stride = tile / 2
    size = (side - 1) * stride + (_WINDOW_PER_TILE + 0.2) * tile
    rng = np.random.default_rng([seed, 63])
    world = World.generate(int(rng.integers(2**31)), size)
    gsd = tile / _cut_px(query, reference) / 2
    rgb = render_map(world, gsd, Appearance.random(rng, "satellite"))
    whole = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), gsd, -size / 2, size / 2)
    steps = (np.arange(side) - (side - 1) / 2) * stride
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)[:count]

    def look(easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
        return whole

    words = f"a procedural world of {size:.0f} m (seed {seed}), and simulated views of its tiles as queries"
    return _cut(look, places, tile, query, reference, count, seed, words, None, progress)


# Cutting pairs from a map.


def _cut(
    look: Look,
    places: NDArray[np.float64],
    tile_m: float,
    query: ViewInput,
    reference: ViewInput,
    count: int,
    seed: int,
    source: str,
    file: Path | None,
    progress: Progress | None,
) -> ParityTiles:
    """Tiles at some of the places, and a simulated view of each."""
    px = _cut_px(query, reference)
    lens = Camera.from_field_of_view(1600, 1200, _FIELD_OF_VIEW_DEG)
    height = 100.0 * tile_m / choose_tile_size(lens, 100.0)
    drone = ViewSettings(lens, height, tile_m / px, px, offset_m=_OFFSET_PER_TILE * tile_m, light=_LIGHT)
    order = np.random.default_rng([seed, 64]).permutation(len(places))
    pairs: list[tuple[int, Images, Masks, Images, Masks]] = []
    seen: set[bytes] = set()
    duplicates = 0
    total = min(count, len(places))
    for index in order.tolist():
        easting, northing = (float(value) for value in places[index])
        image = look(easting, northing, _WINDOW_PER_TILE * tile_m, drone.gsd_m / 2)
        rgb, valid = reference_tile(image, easting, northing, drone)
        if valid.mean() < _LEAST_VALID:
            continue
        tile = _to_view(rgb, reference)
        key = _key(tile)
        if key in seen:
            duplicates += 1
            continue
        view, covered, _ = drone_view(image, easting, northing, drone, np.random.default_rng([seed, 65, index]))
        seen.add(key)
        pairs.append(
            (index, tile, _mask_to_view(valid, reference), _to_view(view, query), _mask_to_view(covered, query))
        )
        if progress is not None:
            progress(len(pairs), total)
        if len(pairs) == count:
            break
    if len(pairs) < 2:
        raise DatasetError(
            "too few tiles to prove anything on",
            file=file,
            field="tiles",
            found=f"{len(pairs)}, and {duplicates} equal to one of them",
            expected="two or more that differ and have data",
        )
    # In the order of the grid, so that a name's neighbours are its neighbours on the ground.
    pairs.sort(key=lambda pair: pair[0])
    seen_of_tiles, seen_of_views = (np.stack([pair[part] for pair in pairs]) for part in (2, 4))
    return ParityTiles(
        np.stack([pair[3] for pair in pairs]),
        np.stack([pair[1] for pair in pairs]),
        np.arange(len(pairs)),
        tuple(f"{places[pair[0]][0]:.1f} m east, {places[pair[0]][1]:.1f} m north" for pair in pairs),
        {"query": query, "reference": reference},
        source,
        query_mask=None if seen_of_views.all() else seen_of_views,
        reference_mask=None if seen_of_tiles.all() else seen_of_tiles,
        duplicates=duplicates,
    )


def _grid(bounds: tuple[float, float, float, float], tile_m: float, count: int) -> NDArray[np.float64]:
    """(N, 2) centres of whole tiles on a map, of as little overlap as gives `count` of them."""
    west, south, east, north = bounds
    half = tile_m / 2
    places = np.zeros((0, 2))
    for share in _STRIDES_PER_TILE:
        xs = np.arange(west + half, east - half + 1e-6, share * tile_m)
        ys = np.arange(north - half, south + half - 1e-6, -share * tile_m)
        places = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        if len(places) >= count:
            break
    return places


def _piece(
    colours: NDArray[np.uint8],
    from_gsd: float,
    west: float,
    north: float,
    easting: float,
    northing: float,
    side_m: float,
    gsd: float,
) -> MapImage:
    """A square of a picture, (H, W) grey or (H, W, 3) RGB, resampled; black is where nothing is known."""
    px = math.ceil(side_m / gsd)
    left, top = easting - px * gsd / 2, northing + px * gsd / 2
    # A warp looks up single points: where the picture is finer it is sampled as finely, and averaged.
    finer = max(1, math.ceil(gsd / from_gsd))
    side, ratio = px * finer, gsd / finer / from_gsd
    # Output pixel centres to picture pixel centres.
    matrix = np.array(
        [
            [ratio, 0, (left - west) / from_gsd + ratio / 2 - 0.5],
            [0, ratio, (north - top) / from_gsd + ratio / 2 - 0.5],
        ]
    )
    low = np.clip(np.floor(matrix[:, 2]).astype(int) - 2, 0, None)
    high = np.minimum(np.ceil(matrix[:, 2] + ratio * side).astype(int) + 3, (colours.shape[1], colours.shape[0]))
    rgb = np.zeros((px, px, 3), np.uint8)
    if (high > low).all():
        part = np.ascontiguousarray(colours[low[1] : high[1], low[0] : high[0]])
        matrix[:, 2] -= low
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        fine = cv2.warpAffine(part, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        small = cv2.resize(fine, (px, px), interpolation=cv2.INTER_AREA)
        rgb[:] = small if small.ndim == 3 else small[..., None]
    return MapImage.of(rgb, np.asarray(rgb.any(axis=2)), gsd, left, top)


# From an image to a view's.


def _checked_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise DatasetError("too few tiles to prove anything on", field="count", found=count, expected="2 or more")


def _cut_px(query: ViewInput, reference: ViewInput) -> int:
    return min(_MOST_PX, max(query.height, query.width, reference.height, reference.width))


def _to_view(image: Images, view: ViewInput) -> Images:
    """(H, W, 3) to the view's (h, w, 3), the way training resizes."""
    resized: Images = resize(to_tensor(image), view).permute(1, 2, 0).contiguous().numpy()
    return resized


def _mask_to_view(mask: Masks, view: ViewInput) -> Masks:
    """(H, W) to the view's (h, w): a pixel counts as seen where most of it was."""
    if mask.shape == (view.height, view.width):
        return mask
    small = resize(torch.from_numpy(mask.astype(np.uint8) * 255).expand(3, -1, -1), view)[0]
    return np.asarray(small.numpy() >= 128)


def _reduced(image: Images) -> Images:
    """An image of no more than twice the pixels that views need: a large photo would take seconds to disturb."""
    scale = 2 * _MOST_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _key(image: Images) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _distinct(images: Sequence[Images] | Images) -> set[bytes]:
    return {_key(image) for image in images}
