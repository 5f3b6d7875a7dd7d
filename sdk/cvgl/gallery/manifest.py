"""The gallery's manifest: every field checked, and sealed by a hash of its own.

A wrong digit in a model's manifest shows in its fingerprint. A wrong digit in where a gallery lies would show
in nothing but wrong positions, so that the manifest carries the SHA-256 of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl.errors import GalleryError
from cvgl.files import read_json
from cvgl.geo import LocalFrame
from cvgl.manifest import MANIFEST, Fields

__all__ = ["FORMAT_VERSION", "GalleryManifest", "Raster", "read_manifest", "seal"]

FORMAT_VERSION = 1
TILES = "tiles.npy"
DESCRIPTORS = "descriptors.npy"
INDEX = "index.hnsw"
BASEMAP = "basemap.npy"
OVERVIEW = "overview.jpg"


@dataclass(frozen=True)
class Raster:
    """Where a north-up image of the gallery lies.

    Args:
        width, height: pixels.
        gsd_m: ground sampling distance, m/px.
        west, north: outer corner of the first pixel, metres in the local tangent plane.
    """

    width: int
    height: int
    gsd_m: float
    west: float
    north: float


@dataclass(frozen=True)
class GalleryManifest:
    """What a gallery says of itself.

    Args:
        path: of the gallery.
        model_name, model_fingerprint: of the model that embedded the tiles.
        dimension: length of a descriptor.
        count: number of tiles.
        tile_size_m: side of a tile on the ground, metres.
        tile_px: side of a tile as it was embedded, pixels.
        tile_gsd_m: tile_size_m / tile_px.
        stride_m: from one tile's centre to the next, metres.
        local: the local tangent plane of all eastings and northings.
        bounds: (west, south, east, north) of the map in metres of ``local``.
        source, attribution: of the imagery.
        basemap, overview: where these images lie.
        ef: search effort of the index.
        files: size in bytes and SHA-256 by name.
        data: the whole manifest as it is written.
    """

    path: Path
    model_name: str
    model_fingerprint: str
    dimension: int
    count: int
    tile_size_m: float
    tile_px: int
    tile_gsd_m: float
    stride_m: float
    local: LocalFrame
    bounds: tuple[float, float, float, float]
    source: str
    attribution: str
    basemap: Raster
    overview: Raster
    ef: int
    files: dict[str, dict[str, Any]]
    data: dict[str, Any]

    @property
    def bytes_on_disk(self) -> int:
        """Of all files but the manifest."""
        return sum(entry["bytes"] for entry in self.files.values())


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same manifest with the SHA-256 of its content, however it is laid out as text."""
    content = {name: value for name, value in data.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_manifest(path: str | Path) -> GalleryManifest:
    """Read and check ``manifest.json``; no other file is opened.

    Args:
        path: the gallery's folder.

    Raises:
        GalleryError: no gallery, written by a newer version, altered, or a field missing or unusable.
    """
    path = Path(path)
    if not path.is_dir():
        raise GalleryError("no gallery there", file=path, expected="a folder NAME.gallery with a manifest.json")
    file = path / MANIFEST
    data = read_json(file, GalleryError)
    fields = Fields(data, file, GalleryError)
    fields.version(FORMAT_VERSION)
    if fields.text("sha256") != seal(data)["sha256"]:
        raise GalleryError("altered", file=file, field="sha256", found=fields.text("sha256")[:16])
    if fields.text("metric") != "cosine":
        raise fields.refuse("metric", "'cosine'")
    model, tiling, index = fields.section("model"), fields.section("tiling"), fields.section("index")
    origin, bounds = fields.section("local"), fields.section("bounds")
    fields.section("built_with")
    return GalleryManifest(
        path=path,
        model_name=model.text("name"),
        model_fingerprint=model.text("fingerprint"),
        dimension=fields.integer("dimension"),
        count=fields.integer("count"),
        tile_size_m=tiling.positive("tile_size_m"),
        tile_px=tiling.integer("tile_px"),
        tile_gsd_m=tiling.positive("gsd_m"),
        stride_m=tiling.positive("stride_m"),
        local=LocalFrame(origin.number("latitude", -90, 90), origin.number("longitude", -180, 180)),
        bounds=(
            bounds.number("west_m"),
            bounds.number("south_m"),
            bounds.number("east_m"),
            bounds.number("north_m"),
        ),
        source=fields.text("source"),
        attribution=fields.text("attribution"),
        basemap=_raster(fields.section("basemap"), BASEMAP),
        overview=_raster(fields.section("overview"), OVERVIEW),
        ef=index.integer("ef"),
        files=fields.files(TILES, DESCRIPTORS, INDEX, BASEMAP, OVERVIEW),
        data=data,
    )


def _raster(fields: Fields, file: str) -> Raster:
    if fields.text("file") != file:
        raise fields.refuse("file", repr(file))
    return Raster(
        fields.integer("width"),
        fields.integer("height"),
        fields.positive("gsd_m"),
        fields.number("west"),
        fields.number("north"),
    )
