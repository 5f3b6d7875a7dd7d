"""`gallery.py country`: what a country's tiles take, from unit costs that are measured here."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, write_record

import cvgl
from cvgl.basemap import OVERVIEW_SIDE
from cvgl.bench.machine import machine
from cvgl.gallery import Gallery, build_gallery, clip_gallery, merge_galleries
from cvgl.gallery.area import Area
from cvgl.gallery.axes import AXES
from cvgl.gallery.index import ELEMENT_BYTES, NARROW_ABOVE, STRUCTURES, build_index
from cvgl.gallery.parts import block_digests
from cvgl.imagery import MapSource
from cvgl.model import Model

__all__ = ["country"]

_SEED = 12
_REGION = 1_000_000


def country(
    map_path: Annotated[Path, typer.Argument(metavar="MAP", help="Gives the costs of reading and embedding.")],
    tiles: Annotated[int, typer.Option(help="Of the country.")] = 100_000_000,
    sizes: Annotated[
        list[int] | None, typer.Option("--size", help="Indices to measure.", show_default="30000, 100000")
    ] = None,
    price: Annotated[float, typer.Option(help="Of a core for an hour; any currency.")] = 0.04,
    storage: Annotated[float, typer.Option(help="Of a gigabyte in object storage for a month.")] = 0.023,
    threads: Annotated[int, typer.Option(help="Of the network.")] = 2,
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Hours, money and bytes of a country's galleries, on paper: unit costs in processor time, times tiles.

    Costs of an index grow with its size, so the country is built as regions of a million tiles, and what was not
    measured at that size is extrapolated with the logarithm of the number of tiles.
    """
    about = machine()
    model = Model.open(Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl", threads, views=("reference",))
    with tempfile.TemporaryDirectory() as scratch:
        built = _build_costs(map_path, model, Path(scratch))
        indices = [_index_costs(size, model.descriptor_size, Path(scratch)) for size in sizes or (30_000, 100_000)]
    region = min(_REGION, tiles)
    index_ms = _at(region, indices)
    index_bytes = indices[-1]["bytes_a_tile"]
    # A gallery has one overview, of at most so many pixels however many tiles it has.
    bytes_a_tile = {
        **built["bytes_a_tile"], "index.hnsw": index_bytes, "overview.jpg": built["overview_bytes"] / region
    }  # fmt: skip
    a_tile = {
        "read, cut, embed": built["tile_ms"], "basemap": built["basemap_ms_tile"], "index": index_ms,
        "hashes": built["hash_ns_byte"] * sum(bytes_a_tile.values()) / 1e6, "overview": built["overview_ms"] / region,
    }  # fmt: skip
    core_hours = sum(a_tile.values()) * tiles / 3.6e6
    merge_hours = (built["merge_ms_tile"] + index_ms) * tiles / 3.6e6
    total = sum(bytes_a_tile.values()) * tiles
    record = {
        "commit": commit(), "machine": about, "map": map_path.name, "model": model.name, "tiles": tiles,
        "regions": -(-tiles // _REGION), "build": built, "indices": indices, "processor_ms_a_tile": a_tile,
        "core_hours": core_hours, "merge_core_hours": merge_hours, "price": price, "storage_price": storage,
        "bytes_a_tile": bytes_a_tile, "bytes": total,
        "index_memory_bytes": region * (index_bytes + ELEMENT_BYTES + bytes_a_tile["descriptors.npy"]),
    }  # fmt: skip
    write_record(out, on_machine("gallery-country", about), record, _page(record))


def _build_costs(map_path: Path, model: Model, scratch: Path) -> dict[str, Any]:
    """Processor milliseconds of a build's stages, and bytes of its parts, a tile; clipping and joining too."""
    marks: dict[str, float] = {}
    view = model.views["reference"]
    tile_m = view.input_size[1] * float(view.gsd_m or 0.8)

    def tell(stage: str, done: int, total: int) -> None:
        marks[stage] = time.process_time()

    with MapSource.open(map_path) as source:
        gsd = max(source.native_gsd, 0.3)
        began = time.process_time()
        whole = build_gallery(
            source, model, scratch / "whole.gallery", tile_size_m=tile_m, stride_m=tile_m / 4, basemap_gsd_m=gsd,
            progress=tell,
        )  # fmt: skip
        done = time.process_time()
    count = len(whole)
    west, south, east, north = whole.bounds
    middle = (west + east) / 2
    halves = [
        _clip(whole, scratch / f"{name}.gallery", low, south, high, north)
        for name, low, high in (("west", west, middle), ("east", middle, east))
    ]
    index_s = marks["index"] - marks["tiles"]
    merge_s, joined = _timed(lambda: merge_galleries([half for _, half in halves], scratch / "joined.gallery"))
    clip_s, clipped = halves[0]
    files = {name: entry["bytes"] for name, entry in whole.manifest.files.items()}
    hash_s = min(_hash_seconds(whole.path / "basemap.npy") for _ in range(3)) / files["basemap.npy"]
    picture = whole.manifest.overview
    larger = OVERVIEW_SIDE**2 / (picture.width * picture.height)
    overview_s = max(0.0, done - marks["basemap"] - hash_s * sum(files.values()))
    return {
        "tiles": count,
        "tile_m": tile_m,
        "stride_m": whole.manifest.stride_m,
        "basemap_gsd_m": gsd,
        "tile_ms": 1e3 * (marks["tiles"] - began) / count,
        "basemap_ms_tile": 1e3 * (marks["basemap"] - marks["index"]) / count,
        "hash_ns_byte": 1e9 * hash_s,
        "overview_ms": 1e3 * overview_s * larger,
        "overview_bytes": files["overview.jpg"] * larger,
        "merge_ms_tile": max(0.0, 1e3 * merge_s - 1e3 * index_s) / len(joined),
        "clip_ms_tile": 1e3 * clip_s / len(clipped),
        "bytes_a_tile": {name: size / count for name, size in files.items()},
    }


def _hash_seconds(path: Path) -> float:
    began = time.process_time()
    block_digests(path)
    return time.process_time() - began


def _clip(gallery: Gallery, out: Path, west: float, south: float, east: float, north: float) -> tuple[float, Gallery]:
    latitude, longitude = gallery.local.to_wgs84(
        np.array([west, east, east, west, west]), np.array([south, south, north, north, south])
    )
    polygon = out.with_suffix(".geojson")
    ring = np.stack([longitude, latitude], axis=1).tolist()
    polygon.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return _timed(lambda: clip_gallery(gallery, Area.read(polygon, gallery.local), out))


def _timed(work: Callable[[], Gallery]) -> tuple[float, Gallery]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def _index_costs(count: int, dimension: int, scratch: Path) -> dict[str, float]:
    """Of an index of synthetic descriptors around 5000 centres, built by one thread; of a large one as galleries have
    it, along axes, which are here those of the descriptors themselves."""
    rng = np.random.default_rng(_SEED)
    narrow = count > NARROW_ABOVE and dimension >= 2 * AXES
    dimension, structure = (AXES, STRUCTURES[-1]) if narrow else (dimension, STRUCTURES[0])
    centres = rng.standard_normal((5000, dimension), np.float32)

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        own = np.random.default_rng([_SEED, start])
        found = centres[own.integers(0, len(centres), stop - start)]
        found = found + 0.5 * own.standard_normal(found.shape, np.float32)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    path = scratch / f"{count}.hnsw"
    began = time.process_time()
    build_index(path, rows, count, dimension, lambda done: None, structure)
    spent = time.process_time() - began
    size = path.stat().st_size
    path.unlink()
    return {"tiles": count, "ms_a_tile": 1e3 * spent / count, "bytes_a_tile": size / count}


def _at(count: int, indices: list[dict[str, float]]) -> float:
    """Milliseconds a tile of an index of so many tiles: measured, or along the logarithm of the count."""
    if len(indices) == 1:
        return indices[0]["ms_a_tile"]
    logs = [math.log(found["tiles"]) for found in indices]
    slope, start = np.polyfit(logs, [found["ms_a_tile"] for found in indices], 1)
    measured = {found["tiles"]: found["ms_a_tile"] for found in indices}
    return measured.get(count, float(start + slope * math.log(count)))


def _page(record: dict[str, Any]) -> str:
    about, built, tiles = record["machine"], record["build"], record["tiles"]
    area = tiles * built["stride_m"] ** 2 / 1e6
    total, hours = record["bytes"], record["core_hours"]
    months = record["storage_price"] * total / 1e9
    each = record["regions"]
    measured = ", ".join(f"{found['tiles']}: {found['ms_a_tile']:.2f} ms" for found in record["indices"])
    ten_thousand = 10_000 * (built["clip_ms_tile"] + record["indices"][0]["ms_a_tile"]) / 1e3
    lines = [
        "# A country's galleries, on paper",
        "",
        f"{about['processor']}, {about['cores']} cores, commit {record['commit']}. {tiles:.3g} tiles of"
        f" {built['tile_m']:g} m every {built['stride_m']:.3g} m cover {area:,.0f} km2. Unit costs are processor time"
        f" measured on {built['tiles']} tiles of {record['map']} with {record['model']} ({measured} a tile of an index"
        " of so many); everything else is multiplication.",
        "",
        "| | processor ms a tile | core-hours | money |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {spent:.2f} | {spent * tiles / 3.6e6:,.0f} | {spent * tiles / 3.6e6 * record['price']:,.0f} |"
            for name, spent in record["processor_ms_a_tile"].items()
        ),
        f"| together | {sum(record['processor_ms_a_tile'].values()):.2f} | {hours:,.0f} |"
        f" {hours * record['price']:,.0f} |",
        f"| joining everything once more, indices included | | {record['merge_core_hours']:,.0f} |"
        f" {record['merge_core_hours'] * record['price']:,.0f} |",
        "",
        f"At {record['price']:g} a core-hour. A hundred machines of 16 cores take"
        f" {hours / 1600:.1f} hours for all of it; the index of a region is the one step that a single core does, "
        f"{record['processor_ms_a_tile']['index'] * min(tiles, _REGION) / 3.6e6:.1f} hours of a million tiles, and"
        f" regions do not wait for each other.",
        "",
        "| part | bytes a tile | in all, GB |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {size:,.1f} | {size * tiles / 1e9:,.0f} |"
            for name, size in sorted(record["bytes_a_tile"].items(), key=lambda item: -item[1])
        ),
        f"| together | {sum(record['bytes_a_tile'].values()):,.0f} | {total / 1e9:,.0f} |",
        "",
        f"Stored for {months:,.0f} a month at {record['storage_price']:g} a gigabyte. A region's index, with the"
        " descriptors that it is compared by, takes"
        f" {record['index_memory_bytes'] / 1e9:.1f} GB of memory while it is built and searched.",
        "",
        "## How it is built",
        "",
        f"As {each} regions of up to a million tiles, each `cvgl-gallery build --ray --clip REGION` of its own, with a"
        " margin of a tile to its neighbours. Pieces of a region go to whatever machine is free; one that dies loses"
        " its piece. A new year's imagery is a new region beside the old one; a changed map sheet is `--add`, which"
        " embeds only what is new.",
        "",
        "## How a fleet draws its areas",
        "",
        "- **Layout**: `FINGERPRINT/REGION/SHA256.gallery/PART` in object storage: fingerprint of the model, then the"
        " region, then the manifest's own hash. Objects never change; one small listing names the current hash of each"
        " region. A part is fetched by ranges, and each 64 KiB block is verified against `blocks.sha256`, so that no"
        " cache or mirror on the way has to be trusted.",
        "- **Clip service**: would read the tile table of the regions that the polygon touches (18 bytes a tile) and"
        " the blocks of descriptors and basemap under it, join them, and build the index of the area anew: what"
        " `cvgl-gallery clip` and `merge` do from a disk."
        f" A mission of 10,000 tiles takes about {ten_thousand:.0f} s of one core. It needs no state, and the same"
        " polygon gives the same bytes, so that answers can be kept by (hashes of the regions, polygon). The regions'"
        " own indices are not needed for it, and may be left unbuilt where nobody searches a whole region.",
        "- **On board** nothing but the clipped gallery is carried; `cvgl-gallery info` tells its memory, and `check`"
        " belongs before take-off.",
        "- **A vector database is the better tool** where a ground station searches the whole country without a prior,"
        " tiles change daily, or queries filter by date and source: its index is sharded and kept in memory by servers"
        " anyway. It then holds the same descriptors under the same tile numbers, and the galleries stay what is flown:"
        " a drone has no network, and needs the basemap and the hashes, which a database does not bring.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
