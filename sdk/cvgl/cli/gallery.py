"""``cvgl-gallery``: build, cut, join, describe and verify galleries."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvgl.cli.common import main

if TYPE_CHECKING:
    from cvgl.gallery.manifest import Recall
    from cvgl.gallery.recall import Measured

__all__ = ["app", "app_main"]

_FINEST_BASEMAP_M = 0.3

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="""Galleries: the tiles of a satellite map, as a drone carries them.

    A gallery belongs to one model: its descriptors mean nothing to another.
    cvgl-prepare makes model and gallery together; these commands are for the
    gallery alone.""",
)

GalleryPath = Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery's folder.")]


@app.command()
def build(
    maps: Annotated[
        list[Path],
        typer.Argument(
            metavar="MAP...",
            help="A georeferenced raster (GeoTIFF, COG, VRT, MBTiles, GeoPackage), a folder of map tiles z/x/y, or a"
            " folder of images with bounds.csv. Of several, each fills what those before it lack.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write, by custom NAME.gallery.")],
    model_path: Annotated[
        Path | None,
        typer.Option("--model", help="Model bundle NAME.cvgl.", show_default="the one that ships with cvgl"),
    ] = None,
    tile_size: Annotated[
        list[float] | None,
        typer.Option(
            min=1.0,
            help="Side of a tile on the ground, metres: about what the camera sees at the planned height. Several make"
            " a layer each.",
            show_default="what the model was made for",
        ),
    ] = None,
    camera: Annotated[Path | None, typer.Option(help="camera.yaml, with --height instead of --tile-size.")] = None,
    height: Annotated[
        list[float] | None,
        typer.Option(
            min=1.0, help="Height above ground that the camera is flown at, metres; several make a layer each."
        ),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Metres from tile to tile: smaller finds more surely, and takes more memory.",
            show_default="a quarter of a tile",
        ),
    ] = None,
    heading: Annotated[
        list[float] | None,
        typer.Option(
            help="Where up in the tiles points, degrees from north; several make a layer each. For programs that"
            " search a layer by its number: cvgl-locate turns the frame instead, and needs north-up tiles.",
            show_default="0",
        ),
    ] = None,
    stored: Annotated[
        str, typer.Option(help="How descriptors are stored: float16, or int8 for half the bytes.")
    ] = "float16",
    basemap_gsd: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Ground sampling distance of the basemap that refinement reads, m/px.",
            show_default="the map's own, but no finer than 0.3",
        ),
    ] = None,
    recall: Annotated[
        float,
        typer.Option(
            help="What the index is to find of the 20 most similar tiles. Its parameters are chosen by measuring that,"
            " on tiles led astray as photos are and, with --camera, on views as it would take them."
        ),
    ] = 0.99,
    tree: Annotated[
        bool, typer.Option("--tree", help="Make a k-means tree beside the index, to compare searches with.")
    ] = False,
    clip: Annotated[Path | None, typer.Option(help="GeoJSON polygon: only tiles that touch it are made.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Extend the gallery that stands at --out, on its own grid.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Embed on a Ray cluster: its address, auto for the one that this machine belongs to, local for one of"
            " this machine alone. The same map and model must lie under the same names on each. Needs cvgl[scale].",
            show_default="in this process",
        ),
    ] = None,
) -> None:
    """Build a gallery from a map.

    Nothing appears at --out before the gallery is whole; a gallery that stands
    there is replaced then. The same map, model and sizes give the same bytes.
    After an interruption the same command goes on where it stopped.

    Example: cvgl-gallery build area.tif --model area.cvgl --out area.gallery --stride 20
    """
    from cvgl.camera import Camera
    from cvgl.gallery import build_gallery, extend_gallery, read_manifest
    from cvgl.gallery.area import Area
    from cvgl.gallery.scale import RayWorkers, ray_cluster
    from cvgl.gallery.views import SimulatedViews
    from cvgl.gallery.write import Search
    from cvgl.imagery import MapSource
    from cvgl.model import Model

    local = read_manifest(out).local if add else None
    with ExitStack() as stack:
        source = stack.enter_context(MapSource.open(maps if len(maps) > 1 else maps[0], local))
        sees = camera is not None and not add
        model = Model.open(model_path or _shipped_model(), views=("reference", "query") if sees else ("reference",))
        area = None if clip is None else Area.read(clip, source.local)
        workers = None
        if ray is not None:
            stack.enter_context(ray_cluster(ray))
            workers = RayWorkers.of(maps, source, model)
        if add:
            if tile_size or height or stride or heading or basemap_gsd or tree:
                raise typer.BadParameter("the gallery has sizes and headings of its own", param_hint="--add")
            with _Bars() as bars:
                gallery = extend_gallery(out, source, model, area=area, workers=workers, say=_say, progress=bars.show)
        else:
            sizes = _tile_sizes(model, tile_size, camera, height)
            views = None if camera is None else SimulatedViews(Camera.from_yaml(camera), source, model)
            with _Bars() as bars:
                gallery = build_gallery(
                    source,
                    model,
                    out,
                    tile_size_m=sizes,
                    stride_m=stride or sizes[0] / 4,
                    basemap_gsd_m=basemap_gsd or max(source.native_gsd, _FINEST_BASEMAP_M),
                    headings_deg=heading or [0.0],
                    stored=stored,
                    area=area,
                    search=Search(recall, views, tree),
                    identity=source.identity(),
                    workers=workers,
                    say=_say,
                    progress=bars.show,
                )
    typer.echo(f"{gallery!r} written to {out}")
    for layer in gallery.manifest.layers:
        if layer.recall is not None and min(one.recall for one in layer.recall.measured) < layer.recall.target:
            _say(f"the index falls short of its target: {_recalled(layer.recall)}")


@app.command()
def clip(
    gallery: GalleryPath,
    polygon: Annotated[Path, typer.Argument(metavar="POLYGON", help="GeoJSON, WGS84.")],
    out: Annotated[Path, typer.Option("--out", help="The gallery to write.")],
) -> None:
    """Cut a gallery to a mission area: its tiles that touch the polygon, and the basemap around them.

    Example: cvgl-gallery clip country.gallery mission.geojson --out area.gallery
    """
    from cvgl.gallery import Gallery, clip_gallery
    from cvgl.gallery.area import Area

    whole = Gallery.open(gallery)
    with _Bars() as bars:
        made = clip_gallery(whole, Area.read(polygon, whole.local), out, say=_say, progress=bars.show)
    typer.echo(f"{made!r} written to {out}")


@app.command()
def merge(
    galleries: Annotated[
        list[Path], typer.Argument(metavar="GALLERY...", help="Of one model and one size of tiles, the best first.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The gallery to write.")],
) -> None:
    """Join galleries into one. A single one of an older format version is brought to the newest.

    Example: cvgl-gallery merge north.gallery south.gallery --out both.gallery
    """
    from cvgl.gallery import Gallery, merge_galleries

    opened = [Gallery.open(path) for path in galleries]
    with _Bars() as bars:
        made = merge_galleries(opened, out, say=_say, progress=bars.show)
    typer.echo(f"{made!r} written to {out}")


@app.command()
def info(
    gallery: GalleryPath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: the manifest and the sizes.")] = False,
) -> None:
    """Say what a gallery is: area, tiles, model, and the memory it will take. Reads its manifest only."""
    from dataclasses import asdict

    from cvgl.gallery import read_manifest
    from cvgl.gallery.gallery import memory_of

    manifest = read_manifest(gallery)
    memory = memory_of(manifest)
    if as_json:
        sizes = {"bytes_on_disk": manifest.bytes_on_disk, "memory_bytes": memory.most, "memory": asdict(memory)}
        typer.echo(json.dumps({**manifest.data, **sizes}, indent=2))
        return
    west, south, east, north = manifest.bounds
    box, basemap = manifest.data["bounds_wgs84"], manifest.basemap
    loss = manifest.data.get("descriptors", {})
    kept = f", {loss['neighbours_kept']:.1%} of neighbours kept" if "neighbours_kept" in loss else ""
    rows = {
        "gallery": f"{gallery}, format version {manifest.version}",
        "area": f"{east - west:.0f} x {north - south:.0f} m,"
        f" {box['south']:.6f}..{box['north']:.6f} N, {box['west']:.6f}..{box['east']:.6f} E",
        "imagery": manifest.source,
        "attribution": manifest.attribution or "none stated",
    }
    for number, layer in enumerate(manifest.layers):
        turned = "" if layer.heading_deg == 0 else f", up is {layer.heading_deg:g} degrees"
        rows["tiles" if number == 0 else f"layer {number}"] = (
            f"{layer.count}, {layer.tile_size_m:g} m ({layer.tile_px} px of {layer.gsd_m:.3g} m)"
            f" every {layer.stride_m:g} m{turned}"
        )
        name = "index" if number == 0 else f"index {number}"
        told = "" if layer.recall is None else f"; {_recalled(layer.recall)}"
        short = f" along {layer.axes} axes" if layer.axes else ""
        rows[name] = f"HNSW{short}, ef {layer.ef}{told}"
        if layer.tree is not None:
            told = "" if layer.tree.recall is None else f"; {_recalled(layer.tree.recall)}"
            rows[name.replace("index", "tree")] = f"{layer.tree.budget} tiles compared{told}"
    rows |= {
        "model": f"{manifest.model_name}, {manifest.dimension}-d",
        "fingerprint": manifest.model_fingerprint,
        "descriptors": f"{manifest.stored}{kept}",
        "basemap": f"{basemap.width} x {basemap.height} px of {basemap.gsd_m:.3g} m",
        "on disk": _megabytes(manifest.bytes_on_disk),
        "in memory": f"{_megabytes(memory.near)} near a prior, {_megabytes(memory.search)} once all of it was searched,"
        f" at most {_megabytes(memory.most)}",
        "built with": ", ".join(f"{name} {found}" for name, found in manifest.data["built_with"].items()),
    }
    _table(rows)


@app.command()
def check(
    gallery: GalleryPath,
    model_path: Annotated[
        Path | None, typer.Option("--model", help="The model bundle that the gallery should belong to.")
    ] = None,
) -> None:
    """Verify a gallery: every hash, the tables, the images, and the index against exact search.

    Ends with status 4 and the name of the part where anything is off.
    """
    from cvgl.gallery.check import check_gallery
    from cvgl.model import Model

    model = None if model_path is None else Model.open(model_path)
    found = check_gallery(gallery, model, lambda part: typer.echo(f"right: {part}"))
    typer.echo(f"recall of the index at 20: {_measured(found)}")


def app_main() -> None:
    """The command ``cvgl-gallery``."""
    main(app)


def _tile_sizes(model: Any, sizes: list[float] | None, camera: Path | None, heights: list[float] | None) -> list[float]:
    """Sides of the tiles of each layer, metres."""
    from cvgl.camera import Camera
    from cvgl.errors import ModelError
    from cvgl.sim.views import choose_tile_size

    if bool(camera) != bool(heights) or (sizes and heights):
        raise typer.BadParameter("--camera and --height go together, and not with --tile-size", param_hint="--height")
    if heights and camera:
        lens = Camera.from_yaml(camera)
        return [choose_tile_size(lens, height) for height in heights]
    view = model.views["reference"]
    if not sizes and view.gsd_m is None:
        raise ModelError(
            "does not say which ground sampling distance it was made for",
            file=model.path,
            field="views.reference.gsd_m",
            expected="--tile-size METRES",
        )
    return sizes or [view.input_size[1] * float(view.gsd_m or 0.0)]


def _recalled(recall: Recall) -> str:
    told = ", ".join(_measured(one) for one in recall.measured)
    return f"recall at {recall.at}: {told}; target {recall.target:g}"


def _measured(found: Measured) -> str:
    return (
        f"{found.recall:.4f} ({found.low:.4f} to {found.high:.4f}) for {found.count} {found.queries} of similarity"
        f" {found.similarity:.2f}"
    )


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _shipped_model() -> Path:
    return Path(__file__).resolve().parents[1] / "models" / "cvgl-nano.cvgl"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _table(rows: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        # As text: a map's attribution may well have brackets in it, which would be taken as markup.
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(table)


class _Bars:
    """One progress bar a stage, with the time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """Progress as build_gallery reports it."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)
