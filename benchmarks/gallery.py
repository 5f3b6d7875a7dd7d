"""Galleries measured: building against the engine alone, opening and its memory, and the basemap's formats.

python benchmarks/gallery.py build MAP [--model BUNDLE]
python benchmarks/gallery.py open --tiles 1000000 [--index]
python benchmarks/gallery.py basemap GALLERY
python benchmarks/gallery.py faults
python benchmarks/gallery.py country MAP
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from gallery_build import build
from gallery_country import country
from gallery_faults import faults
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.basemap import TILE_PX
from cvgl.bench.machine import machine, peak_memory_mb
from cvgl.bench.start import forget_files
from cvgl.gallery import Gallery
from cvgl.gallery.gallery import memory_of
from cvgl.gallery.grid import Grid
from cvgl.gallery.index import EFFORTS, build_index
from cvgl.gallery.manifest import INDEX, OVERVIEW, TABLE, Raster, read_manifest
from cvgl.gallery.work import Work
from cvgl.gallery.write import LayerTiles, finish, write_basemap, write_tiles
from cvgl.geo import LocalFrame

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

app.command()(build)
app.command()(faults)
app.command()(country)

Results = Annotated[Path, typer.Option(help="Where the record goes.")]
RESULTS = ROOT / "benchmarks" / "results"

_TILE_M, _STRIDE_M = 77.0, 20.0
_SEED = 4


@app.command("open")
def open_(
    tiles: Annotated[int, typer.Option(help="Of the synthetic gallery.")] = 1_000_000,
    dimension: Annotated[int, typer.Option(help="Of a descriptor.")] = 384,
    index: Annotated[bool, typer.Option(help="Build the index too, and search all: hours at a million.")] = False,
    work: Annotated[Path, typer.Option(help="Where the gallery is kept.")] = ROOT / "build" / "galleries",
    rounds: Annotated[int, typer.Option(help="Processes; the medians count.")] = 5,
    out: Results = RESULTS,
) -> None:
    """Time and memory to the first answers of a large gallery, each in a process of its own, files not in memory."""
    gallery = _synthetic(work, tiles, dimension, index)
    wanted = ["near", "global"] if index else ["near"]
    found: dict[str, Any] = {}
    for kind in wanted:
        starts = []
        for _ in range(rounds):
            forget_files(gallery)
            words = [sys.executable, __file__, "first", str(gallery), kind]
            began = time.monotonic()
            start = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            starts.append({**start, "process_ms": 1e3 * (start.pop("answered") - began)})
        starts.sort(key=lambda start: float(start["total_ms"]))
        found[kind] = starts[len(starts) // 2]
    about, manifest = machine(), read_manifest(gallery)
    told = asdict(memory_of(manifest))
    data = {
        "commit": commit(), "machine": about, "tiles": tiles, "dimension": dimension,
        "bytes_on_disk": manifest.bytes_on_disk, "told": told, "first": found,
    }  # fmt: skip
    lines = [
        f"# Opening a gallery of {tiles} tiles",
        "",
        f"{about['processor']}, {about['cores']} cores, commit {data['commit']}; {dimension}-d, float16,"
        f" {manifest.bytes_on_disk / 1e6:.0f} MB; a process each, median of {rounds}, the files not in memory.",
        "The last column is from the start of the process, nearly all of it imports.",
        "",
        "| first query | open, ms | query, ms | together, ms | processor, ms | memory grew, MB | `info` says, MB |"
        " from the process's start, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, start in found.items():
        said = told["near" if kind == "near" else "search"] / 1e6
        lines.append(
            f"| {kind} | {start['open_ms']:.0f} | {start['query_ms']:.0f} | {start['total_ms']:.0f} |"
            f" {start['processor_ms']:.0f} | {start['grew_mb']:.0f} | {said:.0f} | {start['process_ms']:.0f} |"
        )
    write_record(out, on_machine(f"gallery-open-{tiles}", about), data, "\n".join([*lines, ""]))


@app.command(hidden=True)
def first(gallery: Path, kind: str) -> None:
    """A process that opens a gallery and asks one question."""
    before = peak_memory_mb()
    processor, began = time.process_time(), time.perf_counter()
    opened = Gallery.open(gallery)
    ready = time.perf_counter()
    query = np.full((1, opened.manifest.dimension), opened.manifest.dimension**-0.5, np.float32)
    if kind == "near":
        opened.near(query, 0.0, 0.0, opened.manifest.tile_size_m, 20)
    else:
        opened.search(query, 20)
    done, answered = time.perf_counter(), time.monotonic()
    spent = {"open_ms": 1e3 * (ready - began), "query_ms": 1e3 * (done - ready), "total_ms": 1e3 * (done - began)}
    spent["processor_ms"] = 1e3 * (time.process_time() - processor)
    print(json.dumps({**spent, "grew_mb": peak_memory_mb() - before, "answered": answered}))


@app.command()
def basemap(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="Gives the pixels.")],
    window: Annotated[int, typer.Option(help="Side of what refinement reads around a place, pixels.")] = 400,
    places: Annotated[int, typer.Option(help="Windows, at random.")] = 200,
    out: Results = RESULTS,
) -> None:
    """The basemap as tiles in an array against tiles in MBTiles: bytes, and time to read windows, first and again."""
    opened = Gallery.open(gallery)
    pixels = np.asarray(opened.basemap.pixels)
    rows, columns = -(-pixels.shape[0] // TILE_PX), -(-pixels.shape[1] // TILE_PX)
    padded = np.zeros((rows * TILE_PX, columns * TILE_PX), np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    stack = padded.reshape(rows, TILE_PX, columns, TILE_PX).transpose(0, 2, 1, 3)
    rng = np.random.default_rng(_SEED)
    corners = rng.integers(0, np.maximum(np.array(pixels.shape) - window, 1), (places, 2))
    found: dict[str, dict[str, float]] = {}

    def timed(name: str, size: int, tile: Callable[[int, int], NDArray[np.uint8]], error: float) -> None:
        began = time.perf_counter()
        for top, left in corners:
            for row in range(top // TILE_PX, min((top + window - 1) // TILE_PX + 1, rows)):
                for column in range(left // TILE_PX, min((left + window - 1) // TILE_PX + 1, columns)):
                    tile(row, column)
        spent = 1e3 * (time.perf_counter() - began) / places
        found[name] = {"megabytes": size / 1e6, "first_ms": spent, "grey_levels_off": error}

    with tempfile.TemporaryDirectory() as scratch:
        for name, suffix, options in (
            ("MBTiles, PNG", ".png", []),
            ("MBTiles, WebP lossless", ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
            ("MBTiles, JPEG 95", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
            ("MBTiles, JPEG 85", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85]),
        ):
            file = Path(scratch) / f"{len(found)}.mbtiles"
            database = sqlite3.connect(file)
            database.execute(
                "create table tiles (zoom_level, tile_column, tile_row, tile_data,"
                " primary key (zoom_level, tile_column, tile_row))"
            )
            for row in range(rows):
                for column in range(columns):
                    data = cv2.imencode(suffix, stack[row, column], options)[1].tobytes()
                    database.execute("insert into tiles values (0, ?, ?, ?)", (column, row, data))
            database.commit()

            def decoded(row: int, column: int, database: sqlite3.Connection = database) -> NDArray[np.uint8]:
                (data,) = database.execute(
                    "select tile_data from tiles where zoom_level = 0 and tile_column = ? and tile_row = ?",
                    (int(column), int(row)),
                ).fetchone()
                return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))

            errors = [
                np.sqrt(np.mean((decoded(row, column).astype(float) - stack[row, column]) ** 2))
                for row in range(0, rows, 3)
                for column in range(0, columns, 3)
            ]
            timed(name, file.stat().st_size, decoded, float(np.mean(errors)))
            database.close()
    fresh = Gallery.open(gallery).basemap.pixels
    tiled: Any = fresh
    numbers = tiled._directory
    timed(
        "tiles in an array, each verified",
        read_manifest(gallery).files["basemap.npy"]["bytes"],
        lambda row, column: tiled._fetch(int(numbers[row, column])) if numbers[row, column] >= 0 else padded[:1],
        0.0,
    )
    began = time.perf_counter()
    for top, left in corners:
        tiled.window(int(left), int(top), window, window)
    held = 1e3 * (time.perf_counter() - began) / places
    began = time.perf_counter()
    for top, left in corners:
        tiled.window(int(left), int(top), window, window)
    again = 1e3 * (time.perf_counter() - began) / places
    about = machine()
    record = {
        "commit": commit(), "machine": about, "gallery": gallery.parent.name,
        "pixels": list(pixels.shape), "window": window, "formats": found, "window_ms": held, "window_again_ms": again,
    }  # fmt: skip
    lines = [
        "# The basemap's format",
        "",
        f"{about['processor']}, {about['cores']} cores, commit {record['commit']}; {pixels.shape[1]} x"
        f" {pixels.shape[0]} px,"
        f" {places} windows of {window} px; a frame reads up to 20.",
        "",
        "| | MB | a window's tiles read, ms | RMS, grey levels |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {row['megabytes']:.2f} | {row['first_ms']:.2f} | {row['grey_levels_off']:.2f} |"
            for name, row in found.items()
        ),
        "",
        f"A window from the array's tiles takes {held:.2f} ms as flown (tiles once read are kept),"
        f" {again:.3f} ms again.",
        "",
    ]
    write_record(out, on_machine("gallery-basemap", about), record, "\n".join(lines))


def _synthetic(work: Path, count: int, dimension: int, index: bool) -> Path:
    """A gallery with tiles on a square grid, unit descriptors around 5000 centres, and a basemap of one tile."""
    path = work / f"synthetic-{count}-{dimension}-{'index' if index else 'plain'}.gallery"
    if path.is_dir():
        return path
    side = int(np.ceil(np.sqrt(count)))
    half = side * _STRIDE_M / 2
    table = np.zeros(count, TABLE)
    table["easting"] = (np.arange(count) % side) * _STRIDE_M - half
    table["northing"] = half - (np.arange(count) // side) * _STRIDE_M
    table["valid"] = 100
    rng = np.random.default_rng(_SEED)
    centres = rng.standard_normal((5000, dimension), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        own = np.random.default_rng([_SEED, start])
        found = centres[own.integers(0, len(centres), stop - start)]
        found = found + own.standard_normal(found.shape, np.float32) * np.float32(0.5 / np.sqrt(dimension))
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found.astype(np.float16)  # type: ignore[return-value]

    grid = Grid(-half, half, _TILE_M / 128, 128, round(_STRIDE_M / (_TILE_M / 128)), side, side)
    layer = LayerTiles.of(grid, _TILE_M, 0.0, count)
    with Work.open(path, {"count": count}, False) as job:
        step = 10_000
        write_tiles(
            job.gallery, table, (rows(s, min(s + step, count)) for s in range(0, count, step)), dimension, "float16"
        )
        stored = np.load(job.gallery / "descriptors.npy", mmap_mode="r")
        if index:
            build_index(
                job.gallery / INDEX,
                lambda start, stop: np.asarray(stored[start:stop], np.float32),
                count,
                dimension,
                lambda done: print(f"index: {done} of {count}", end="\r", flush=True),
            )
        else:
            # Never read; as large as it would be, since its list of blocks is read when a gallery is opened.
            with open(job.gallery / INDEX, "wb") as file:
                file.truncate(count * (dimension * 4 + 152))
        write_basemap(job.gallery, np.zeros((1, 1), np.int32), [np.full((1, TILE_PX, TILE_PX), 90, np.uint8)])
        cv2.imwrite(str(job.gallery / OVERVIEW), np.zeros((64, 64, 3), np.uint8))
        raster = Raster(64, 64, 2 * half / 64, -half, half)
        finish(
            job,
            model=("synthetic", "0" * 64),
            dimension=dimension,
            layers=[layer],
            searched=[{"index": {"file": INDEX, "ef": EFFORTS[0]}}],
            local=LocalFrame(47.0, 9.5),
            bounds=(-half, -half - _STRIDE_M, half, half),
            source="synthetic",
            attribution="",
            stored={"stored": "float16"},
            basemap=Raster(TILE_PX, TILE_PX, 2 * half / TILE_PX, -half, half),
            overview={"file": OVERVIEW, **asdict(raster)},
        )
    return path


if __name__ == "__main__":
    run_app(app)
