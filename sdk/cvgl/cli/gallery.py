"""``cvgl-gallery``: build, describe and verify galleries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cvgl.cli.common import main

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
    map_path: Annotated[
        Path,
        typer.Argument(metavar="MAP", help="A georeferenced raster, such as a GeoTIFF; any coordinate system."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write, by custom NAME.gallery.")],
    model_path: Annotated[
        Path | None,
        typer.Option("--model", help="Model bundle NAME.cvgl.", show_default="the one that ships with cvgl"),
    ] = None,
    tile_size: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Side of a tile on the ground, metres: about what the camera sees at the planned height.",
            show_default="what the model was made for",
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
    basemap_gsd: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Ground sampling distance of the basemap that refinement reads, m/px.",
            show_default="the map's own, but no finer than 0.3",
        ),
    ] = None,
) -> None:
    """Build a gallery from a map.

    Nothing appears at --out before the gallery is whole; a gallery that stands
    there is replaced then. The same map, model and sizes give the same bytes.

    Example: cvgl-gallery build area.tif --model area.cvgl --out area.gallery --stride 20
    """
    from cvgl.errors import ModelError
    from cvgl.gallery import build_gallery
    from cvgl.imagery import MapSource
    from cvgl.model import Model

    with MapSource.open(map_path) as source:
        model = Model.open(model_path or _shipped_model(), views=("reference",))
        view = model.views["reference"]
        if tile_size is None and view.gsd_m is None:
            raise ModelError(
                "does not say which ground sampling distance it was made for",
                file=model.path,
                field="views.reference.gsd_m",
                expected="--tile-size METRES",
            )
        size = tile_size or view.input_size[1] * float(view.gsd_m or 0.0)
        with _Bars() as bars:
            gallery = build_gallery(
                source,
                model,
                out,
                tile_size_m=size,
                stride_m=stride or size / 4,
                basemap_gsd_m=basemap_gsd or max(source.native_gsd, _FINEST_BASEMAP_M),
                progress=bars.show,
            )
    typer.echo(f"{gallery!r} written to {out}")


@app.command()
def info(
    gallery: GalleryPath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: the manifest and the sizes.")] = False,
) -> None:
    """Say what a gallery is: area, tiles, model, and the memory it will take. Reads its manifest only."""
    from cvgl.gallery import read_manifest
    from cvgl.gallery.gallery import memory_bytes

    manifest = read_manifest(gallery)
    memory = memory_bytes(manifest)
    if as_json:
        sizes = {"bytes_on_disk": manifest.bytes_on_disk, "memory_bytes": memory}
        typer.echo(json.dumps({**manifest.data, **sizes}, indent=2))
        return
    west, south, east, north = manifest.bounds
    box = manifest.data["bounds_wgs84"]
    basemap, index = manifest.basemap, manifest.data["index"]
    _table(
        {
            "gallery": str(gallery),
            "area": f"{east - west:.0f} x {north - south:.0f} m,"
            f" {box['south']:.6f}..{box['north']:.6f} N, {box['west']:.6f}..{box['east']:.6f} E",
            "imagery": manifest.source,
            "attribution": manifest.attribution or "none stated",
            "tiles": f"{manifest.count}, {manifest.tile_size_m:g} m ({manifest.tile_px} px of"
            f" {manifest.tile_gsd_m:.3g} m) every {manifest.stride_m:g} m",
            "model": f"{manifest.model_name}, {manifest.dimension}-d",
            "fingerprint": manifest.model_fingerprint,
            "index": f"HNSW, M {index['M']}, ef {manifest.ef}",
            "basemap": f"{basemap.width} x {basemap.height} px of {basemap.gsd_m:.3g} m",
            "on disk": _megabytes(manifest.bytes_on_disk),
            "in memory": f"at most {_megabytes(memory)}",
            "built with": ", ".join(f"{name} {found}" for name, found in manifest.data["built_with"].items()),
        }
    )


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
    recall = check_gallery(gallery, model, lambda part: typer.echo(f"right: {part}"))
    typer.echo(f"recall of the index at 20: {recall:.4f}")


def app_main() -> None:
    """The command ``cvgl-gallery``."""
    main(app)


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
