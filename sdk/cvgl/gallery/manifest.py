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

import numpy as np

from cvgl.basemap import TILE_PX
from cvgl.errors import GalleryError
from cvgl.files import read_json
from cvgl.gallery.axes import axes_name
from cvgl.gallery.parts import BLOCK_BYTES, BLOCKS
from cvgl.gallery.recall import Measured
from cvgl.geo import LocalFrame
from cvgl.manifest import MANIFEST, Fields

__all__ = [
    "BASEMAP",
    "BASEMAP_TILES",
    "DESCRIPTORS",
    "FEATURELESS",
    "FORMAT_VERSION",
    "INDEX",
    "OVERVIEW",
    "PARTIAL",
    "STORED",
    "TABLE",
    "TILES",
    "WHOLE_VERSION",
    "GalleryManifest",
    "Layer",
    "Raster",
    "Recall",
    "Tree",
    "index_name",
    "read_manifest",
    "seal",
    "tree_names",
]

FORMAT_VERSION, WHOLE_VERSION = 3, 2
"""The newest, and what is written where no index needs it: version 3 is 2 with indices along axes."""
TILES = "tiles.npy"
DESCRIPTORS = "descriptors.npy"
INDEX = "index.hnsw"
BASEMAP = "basemap.npy"
BASEMAP_TILES = "basemap_tiles.npy"
OVERVIEW = "overview.jpg"

TABLE = np.dtype([("easting", "<f8"), ("northing", "<f8"), ("valid", "u1"), ("flags", "u1")])
"""A row of the tile table: centre in local metres, percent of it that has data, and flags."""
FEATURELESS, PARTIAL = 1, 2
"""Flags: nothing in it to tell it by (water, snow, fog); part of it is without data."""

STORED: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "int8": np.dtype("i1")}
"""How descriptors may be stored: as they are, or as whole numbers in their direction, to be brought to unit length."""


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
class Recall:
    """What an index or a tree finds of what exact search finds, as it was measured when it was built.

    Args:
        at: of how many most similar tiles.
        target: recall that it was to reach.
        measured: by kind of queries.
    """

    at: int
    target: float
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Tree:
    """A layer's k-means tree.

    Args:
        nodes, order: file names of its arrays; see :mod:`cvgl.gallery.tree`.
        count: of nodes.
        budget: tiles that are compared for a query.
        recall: what is found so.
    """

    nodes: str
    order: str
    count: int
    budget: int
    recall: Recall | None


@dataclass(frozen=True)
class Layer:
    """Tiles of one size and heading, which are searched together: a range of the table with an index of its own.

    Args:
        tile_size_m: side of a tile on the ground, metres.
        tile_px: side of a tile as it was embedded, pixels.
        gsd_m: tile_size_m / tile_px.
        stride_m: from one tile's centre to the next, metres.
        heading_deg: where up in the tiles points, degrees clockwise from north.
        first, count: which tiles of the table.
        index: file name of the index.
        ef: search effort of the index.
        recall: what is found so; None if nobody measured it.
        tree: a k-means tree beside the index; None where there is none.
        axes: number of principal axes along which the index was built, which are in a part of their own
            (`cvgl.gallery.axes`); 0 if it is of whole descriptors.
    """

    tile_size_m: float
    tile_px: int
    gsd_m: float
    stride_m: float
    heading_deg: float
    first: int
    count: int
    index: str
    ef: int
    recall: Recall | None = None
    tree: Tree | None = None
    axes: int = 0

    @property
    def stop(self) -> int:
        """Number of the first tile after the layer's."""
        return self.first + self.count


@dataclass(frozen=True)
class GalleryManifest:
    """What a gallery says of itself.

    Args:
        path: of the gallery.
        version: of its format.
        model_name, model_fingerprint: of the model that embedded the tiles.
        dimension: length of a descriptor.
        count: number of tiles.
        layers: tiles by size and heading; the first is what is searched unless another one is asked for.
        local: the local tangent plane of all eastings and northings.
        bounds: (west, south, east, north) of the map in metres of ``local``.
        source, attribution: of the imagery.
        stored: how descriptors are stored, a key of :data:`STORED`.
        basemap, overview: where these images lie.
        basemap_tiles: number of tiles of the basemap that have data.
        files: size in bytes and SHA-256 by name.
        data: the whole manifest as it is written.
    """

    path: Path
    version: int
    model_name: str
    model_fingerprint: str
    dimension: int
    count: int
    layers: tuple[Layer, ...]
    local: LocalFrame
    bounds: tuple[float, float, float, float]
    source: str
    attribution: str
    stored: str
    basemap: Raster
    basemap_tiles: int
    overview: Raster
    files: dict[str, dict[str, Any]]
    data: dict[str, Any]

    @property
    def tile_size_m(self) -> float:
        """Of the first layer: side of a tile on the ground, metres."""
        return self.layers[0].tile_size_m

    @property
    def tile_px(self) -> int:
        """Of the first layer: side of a tile as it was embedded, pixels."""
        return self.layers[0].tile_px

    @property
    def tile_gsd_m(self) -> float:
        """Of the first layer: m/px."""
        return self.layers[0].gsd_m

    @property
    def stride_m(self) -> float:
        """Of the first layer: from one tile's centre to the next, metres."""
        return self.layers[0].stride_m

    @property
    def bytes_on_disk(self) -> int:
        """Of all files but the manifest."""
        return sum(entry["bytes"] for entry in self.files.values())


def index_name(layer: int) -> str:
    """File name of a layer's index."""
    return INDEX if layer == 0 else f"index-{layer}.hnsw"


def tree_names(layer: int) -> tuple[str, str]:
    """File names of the two arrays of a layer's tree."""
    number = "" if layer == 0 else f"-{layer}"
    return f"tree{number}.npy", f"tree_order{number}.npy"


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
    version = fields.version(FORMAT_VERSION)
    if fields.text("sha256") != seal(data)["sha256"]:
        raise GalleryError("altered", file=file, field="sha256", found=fields.text("sha256")[:16])
    if fields.text("metric") != "cosine":
        raise fields.refuse("metric", "'cosine'")
    model, origin, bounds = fields.section("model"), fields.section("local"), fields.section("bounds")
    fields.section("built_with")
    count = fields.integer("count")
    if version == 1:
        layers: tuple[Layer, ...] = (_only_layer(fields, count),)
        stored, basemap_tiles = "float16", 0
        files = fields.files(TILES, DESCRIPTORS, INDEX, BASEMAP, OVERVIEW)
    else:
        layers = _layers(fields, count)
        stored, basemap_tiles = _stored(fields), _tiled(fields.section("basemap"))
        if fields.integer("block_bytes") != BLOCK_BYTES:
            raise fields.refuse("block_bytes", str(BLOCK_BYTES))
        required = (TILES, DESCRIPTORS, BASEMAP, BASEMAP_TILES, OVERVIEW, BLOCKS)
        trees = [name for layer in layers if layer.tree for name in (layer.tree.nodes, layer.tree.order)]
        indices = [layer.index for layer in layers]
        indices += [axes_name(layer.index) for layer in layers if layer.axes]
        files = fields.files(*required, *indices, *trees)
        for name, entry in files.items():
            head = fields.section("files").section(name).integer("head", 0)
            if head > entry["bytes"]:
                raise GalleryError("not usable", file=file, field=f"files.{name}.head", found=head)
            entry["head"] = head
    return GalleryManifest(
        path=path,
        version=version,
        model_name=model.text("name"),
        model_fingerprint=model.text("fingerprint"),
        dimension=fields.integer("dimension"),
        count=count,
        layers=layers,
        local=LocalFrame(origin.number("latitude", -90, 90), origin.number("longitude", -180, 180)),
        bounds=(
            bounds.number("west_m"),
            bounds.number("south_m"),
            bounds.number("east_m"),
            bounds.number("north_m"),
        ),
        source=fields.text("source"),
        attribution=fields.text("attribution"),
        stored=stored,
        basemap=_raster(fields.section("basemap"), BASEMAP),
        basemap_tiles=basemap_tiles,
        overview=_raster(fields.section("overview"), OVERVIEW),
        files=files,
        data=data,
    )


def _only_layer(fields: Fields, count: int) -> Layer:
    """What version 1 says in other places."""
    tiling, index = fields.section("tiling"), fields.section("index")
    return Layer(
        tile_size_m=tiling.positive("tile_size_m"),
        tile_px=tiling.integer("tile_px"),
        gsd_m=tiling.positive("gsd_m"),
        stride_m=tiling.positive("stride_m"),
        heading_deg=0.0,
        first=0,
        count=count,
        index=INDEX,
        ef=index.integer("ef"),
    )


def _layers(fields: Fields, count: int) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for number, layer in enumerate(fields.sections("layers")):
        index = layer.section("index")
        if index.text("file") != index_name(number):
            raise index.refuse("file", repr(index_name(number)))
        first = layer.integer("first", 0)
        if first != (layers[-1].stop if layers else 0):
            raise layer.refuse("first", "the number of the tile after the last layer's")
        layers.append(
            Layer(
                tile_size_m=layer.positive("tile_size_m"),
                tile_px=layer.integer("tile_px"),
                gsd_m=layer.positive("gsd_m"),
                stride_m=layer.positive("stride_m"),
                heading_deg=layer.number("heading_deg", 0, 360),
                first=first,
                count=layer.integer("count"),
                index=index.text("file"),
                ef=index.integer("ef"),
                recall=_recall(index),
                tree=_tree(layer, number),
                axes=index.integer("axes") if "axes" in index.names() else 0,
            )
        )
    if not layers or layers[-1].stop != count:
        raise fields.refuse("layers", f"layers with {count} tiles in all")
    return tuple(layers)


def _recall(fields: Fields) -> Recall | None:
    """Recall came later than format 2 did: older galleries do not say it, and older readers pass it over."""
    if "recall" not in fields.names():
        return None
    recall = fields.section("recall")
    measured = tuple(
        Measured(
            queries=one.text("queries"),
            count=one.integer("count"),
            similarity=one.number("similarity", -1, 1),
            recall=one.number("recall", 0, 1),
            low=one.number("low", 0, 1),
            high=one.number("high", 0, 1),
        )
        for one in recall.sections("measured")
    )
    return Recall(recall.integer("at"), recall.number("target", 0, 1), measured)


def _tree(fields: Fields, layer: int) -> Tree | None:
    if "tree" not in fields.names():
        return None
    tree = fields.section("tree")
    for field, name in zip(("nodes", "order"), tree_names(layer), strict=True):
        if tree.text(field) != name:
            raise tree.refuse(field, repr(name))
    return Tree(*tree_names(layer), tree.integer("count"), tree.integer("budget"), _recall(tree))


def _stored(fields: Fields) -> str:
    descriptors = fields.section("descriptors")
    stored = descriptors.text("stored")
    if stored not in STORED:
        raise descriptors.refuse("stored", " or ".join(STORED))
    return stored


def _tiled(fields: Fields) -> int:
    if fields.integer("tile_px") != TILE_PX:
        raise fields.refuse("tile_px", str(TILE_PX))
    return fields.integer("tiles")


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
