"""Photos of a real flight looked for among more and more tiles of other places.

    python benchmarks/gallery_distractors.py --mission MISSION --tiles 1000000

Tiles of other places come from the real maps beside the project (the web-mercator tiles and the rural images; the NAIP
dates are left out, since at 5 m/px they are no tile that a photo could be taken for), from galleries of the same model
that were made before, and from procedural towns of about a kilometre, each also turned and mirrored, which are other
tiles to a network that looks north-up. Each town's descriptors are kept in a file of their own, so that a run that was
interrupted goes on where it stopped, and the record says of how many tiles the largest gallery is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from gallery_engines import Left
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record
from scoring import FAR_M
from towns import CELL_STRIDES, rendering, town

from cvgl.bench.machine import machine
from cvgl.bench.timing import open_flight
from cvgl.files import atomic_path
from cvgl.gallery import Gallery, build_gallery
from cvgl.gallery.embedding import BATCH
from cvgl.geometry import camera_to_enu
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.mission import MODEL
from cvgl.model import Model
from cvgl.rectify import warp_to_input

app = typer.Typer(add_completion=False, help=__doc__)

# Turned by quarters, and mirrored.
_VERSIONS = 8
_SEED, _DRAWS = 6, 20


@app.command()
def distractors(
    mission: Annotated[Path, typer.Option(help="Of the Fengyuan map.")] = ROOT
    / "build"
    / "fengyuan"
    / "adapted-10min-seed0",
    tiles: Annotated[int, typer.Option(help="Of the largest gallery.")] = 1_000_000,
    seconds: Annotated[float, typer.Option(help="After which no further town is begun; what is there counts.")] = 1e9,
    like: Annotated[
        list[Path] | None,
        typer.Option("--gallery", help="Of peers_area.py and the same model; its towns are not embedded again."),
    ] = None,
    data: Annotated[Path, typer.Option(envvar="CVGL_DATA", help="Holds flights/ and maps/.")] = ROOT.parent / "shared",
    work: Annotated[Path, typer.Option(help="Towns and descriptors.")] = ROOT / "build" / "distractors",
    threads: Annotated[int, typer.Option(help="Of the network.")] = 2,
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """R@1, R@20 and PSSR of the flight's photos against the number of tiles, as table and drawing."""
    work.mkdir(parents=True, exist_ok=True)
    localizer = Localizer.open(mission, threads=threads)
    own, model = localizer.gallery, Model.open(mission / MODEL, threads, views=("reference",))
    queries, places = embed_photos(localizer, data / "flights" / "fengyuan")
    pool: list[NDArray[np.float16]] = []
    kinds: list[tuple[str, int]] = []

    def take(kind: str, rows: NDArray[Any]) -> None:
        pool.append(np.asarray(rows, np.float16))
        kinds.append((kind, len(rows)))

    for name in ("xyz_z18", "rural_fi"):
        take("real", _of_map(data / "maps" / name, own, model, work / f"{model.fingerprint[:12]}-{name}.gallery"))
    for path in like or []:
        take("procedural", _elsewhere(Gallery.open(path, model), own))
    wanted, began = tiles - len(own), time.perf_counter()
    left = Left("tiles of other places", wanted)
    for rows in _towns(own, model, work, 1 if like else 0):
        take("procedural", rows)
        left(min(wanted, sum(map(len, pool))))
        if sum(map(len, pool)) >= wanted or time.perf_counter() - began > seconds:
            break
    kind = np.concatenate([np.full(count, name) for name, count in kinds])
    report(mission, own, queries, places, np.concatenate(pool), kind, out)


def embed_photos(localizer: Localizer, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Descriptors (Q, D) of a flight's photos, as ``locate`` makes them, and where their middles lie, (Q, 2) metres.

    Photos without a reference are left out.
    """
    queries, places = [], []
    view = localizer.model.views["query"]
    scale, offset = view.normalisation
    size = view.input_size[0]
    for record in open_flight(localizer, folder):
        if record.center_latitude is None or record.center_longitude is None:
            continue
        frame = record.load()
        camera = localizer.camera.scaled_to(*frame.size)
        rotation = camera_to_enu(camera.mount, float(frame.heading or 0.0), frame.pitch or 0.0, frame.roll or 0.0)
        held = np.empty((1, 3, size, size), np.float32), np.empty((1, size, size), np.uint8)
        warp_to_input(
            frame.image,
            camera,
            [rotation],
            frame.height,
            localizer.gallery.manifest.tile_size_m / size,
            size,
            scale,
            offset,
            pixels=frame.layout,
            channels=view.channels,
            out=held,
            threads=1,
        )
        queries.append(localizer.model.embed_inputs(held[0])[0])
        places.append(localizer.gallery.local.to_local(record.center_latitude, record.center_longitude))
    return np.stack(queries), np.array(places, np.float64)


def ranks(
    queries: NDArray[np.float32],
    places: NDArray[np.float64],
    own: NDArray[np.float32],
    tiles: NDArray[np.float64],
    others: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where the best right tile of each query comes among the map's own tiles, and which other tiles come before it.

    Args:
        queries: (Q, D).
        places: (Q, 2) where they were taken.
        own: (N, D) of the map.
        tiles: (N, 2) their centres; those within 25 m of a query's place are right.
        others: (M, D) of other places.

    Returns:
        (Q,) rank, the first being 1, and (Q, M). Ties count against the right one.
    """
    similarity = queries @ own.T
    right = np.hypot(*(tiles[None] - places[:, None]).transpose(2, 0, 1)) <= FAR_M
    best = np.where(right, similarity, -2.0).max(axis=1, keepdims=True)
    return 1 + ((similarity >= best) & ~right).sum(axis=1), queries @ others.T >= best


def _of_map(path: Path, own: Gallery, model: Model, out: Path) -> NDArray[Any]:
    """Descriptors of a real map's tiles, as large and as far apart as the gallery's."""
    if not out.is_dir():
        with MapSource.open(path) as source:
            build_gallery(
                source,
                model,
                out,
                tile_size_m=own.manifest.tile_size_m,
                stride_m=own.manifest.stride_m,
                basemap_gsd_m=2.0,
                identity=source.identity(),
            )
    return np.asarray(Gallery.open(out, model).descriptors)


def _elsewhere(gallery: Gallery, own: Gallery) -> NDArray[Any]:
    """Descriptors of a gallery's tiles that do not touch the map."""
    west, south, east, north = own.bounds
    x, y = np.asarray(gallery.tiles, np.float64).T
    reach = gallery.manifest.tile_size_m / 2
    off = (x < west - reach) | (x > east + reach) | (y < south - reach) | (y > north + reach)
    return np.asarray(gallery.descriptors)[off]


def _towns(own: Gallery, model: Model, work: Path, version: int) -> Iterator[NDArray[Any]]:
    """Descriptors of one town after the other without end, each in its versions from a number on."""
    layer = own.manifest.layers[0]
    cell_m = CELL_STRIDES * layer.stride_m
    side = round(cell_m / own.manifest.basemap.gsd_m)
    number = 0
    while True:
        picture: NDArray[np.uint8] | None = None
        for turn in range(version, _VERSIONS):
            file = work / f"{model.fingerprint[:12]}-town-{rendering()}-{number}-{turn}.npy"
            if not file.exists():
                if picture is None:
                    picture = town(work, number, cell_m, side)
                turned = np.rot90(picture[:, ::-1] if turn >= _VERSIONS // 2 else picture, turn % 4)
                rows = _embedded(turned, model, cell_m, layer.gsd_m, layer.tile_px, round(layer.stride_m / layer.gsd_m))
                with atomic_path(file) as temporary, temporary.open("wb") as opened:
                    np.save(opened, rows.astype(np.float16))
            yield np.load(file)
        number += 1


def _embedded(
    picture: NDArray[np.uint8], model: Model, cell_m: float, gsd: float, px: int, stride: int
) -> NDArray[np.float32]:
    side = round(cell_m / gsd)
    small = cv2.resize(np.ascontiguousarray(picture[..., ::-1]), (side, side), interpolation=cv2.INTER_AREA)
    starts = range(0, side - px + 1, stride)
    cut = np.stack([small[top : top + px, left : left + px] for top in starts for left in starts])
    valid = np.ones(cut.shape[:3], bool)
    return np.concatenate(
        [model.embed(cut[at : at + BATCH], valid[at : at + BATCH], "reference") for at in range(0, len(cut), BATCH)]
    )


def report(
    mission: Path,
    own: Gallery,
    queries: NDArray[np.float32],
    places: NDArray[np.float64],
    pool: NDArray[np.float16],
    kind: NDArray[np.str_],
    out: Path,
) -> None:
    """Write the record: at each size the mean over random choices among the tiles of other places."""
    rank, before = [], []
    for start in range(0, len(pool), 1 << 16):
        rank, some = ranks(
            queries,
            places,
            np.asarray(own.descriptors, np.float32),
            np.asarray(own.tiles, np.float64),
            pool[start : start + (1 << 16)].astype(np.float32),
        )
        before.append(some)
    ahead = np.concatenate(before, axis=1)
    total = len(own) + len(pool)
    sizes = [len(own), *(size for size in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000) if size < total)]
    rows = [_at(size, len(own), rank, ahead) for size in [*sizes, total]]
    shares = {str(name): float(ahead[:, kind == name].mean()) for name in np.unique(kind)}
    about = machine()
    data = {
        "commit": commit(), "machine": about, "mission": mission.name, "photos": len(queries), "within_m": FAR_M,
        "own": len(own), "others": {str(n): int((kind == n).sum()) for n in np.unique(kind)},
        "ahead_share": shares, "sizes": rows,
    }  # fmt: skip
    counted = " and ".join(f"{count} {name}" for name, count in data["others"].items())
    lines = [
        "# Retrieval among tiles of other places",
        "",
        f"Mission {mission.name}, commit {data['commit']}: {len(queries)} photos over Fengyuan, heading known, no"
        f" prior; {len(own)} tiles of their map, and of other places {counted} tiles, embedded by the same network."
        f" A tile is right within {FAR_M:g} m. Where a size is smaller than what there is, the mean of {_DRAWS}"
        " random choices. PSSR is the mean of (n - k) / n, k the tiles as similar as the best right one, itself"
        " included; other right tiles do not count. No index: every tile is compared.",
        "",
        "| tiles | R@1 | R@20 | PSSR | median rank |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    columns = {"tiles": "d", "r_at_1": ".3f", "r_at_20": ".3f", "pssr": ".5f", "median_rank": ".1f"}
    lines += ["| " + " | ".join(format(row[name], how) for name, how in columns.items()) + " |" for row in rows]
    lines += [
        "",
        "Share of other places' tiles that come before a photo's right one, mean over photos: "
        + ", ".join(f"{name} {share:.2e}" for name, share in shares.items())
        + ".",
        "",
    ]
    name = on_machine(f"gallery-distractors-{mission.name}", about)
    out.mkdir(parents=True, exist_ok=True)
    draw(rows, out / f"{name}.svg")
    write_record(out, name, data, "\n".join([*lines, f"![R@1, R@20 and PSSR against tiles]({name}.svg)", ""]))


def _at(size: int, own: int, rank: NDArray[np.int64], ahead: NDArray[np.bool_]) -> dict[str, Any]:
    rng = np.random.default_rng([_SEED, size])
    wanted, found = size - own, []
    for _ in range(1 if wanted in (0, ahead.shape[1]) else _DRAWS):
        chosen = rng.permutation(ahead.shape[1])[:wanted]
        found.append(rank + ahead[:, chosen].sum(axis=1))
    all_ranks = np.array(found)
    return {
        "tiles": size,
        "r_at_1": float((all_ranks <= 1).mean()),
        "r_at_20": float((all_ranks <= 20).mean()),
        "pssr": float(((size - all_ranks) / size).mean()),
        "median_rank": float(np.median(all_ranks)),
    }


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """The three against the number of tiles, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cvgl"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    tiles = [row["tiles"] for row in rows]
    for name, words, style in (("pssr", "PSSR", "s-"), ("r_at_20", "R@20", "o-"), ("r_at_1", "R@1", "v-")):
        axes.plot(tiles, [row[name] for row in rows], style, label=words, markersize=5, linewidth=1.6)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="tiles in the gallery", ylabel="share")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    run_app(app)
