"""Retrieval between years: a gallery from one year's imagery, views of the same place from other years and seasons.

python benchmarks/seasons.py [--minutes 3]

Ten dates of USDA NAIP, 2009 to 2020, 4.7 x 3.6 km at 5 m/px (CVGL_DATA). Views are simulated from the other date's map
as a drone with an imperfect heading, height and tilt would see it, in that date's own light. Once with the model that
ships, and once with it adapted to the gallery's map alone, which is all that a mission has: no other date is seen in
adapting, and nothing was chosen by what it shows.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, run_app, write_record

import cvgl
from cvgl.bench import machine
from cvgl.camera import Camera
from cvgl.gallery import Gallery, build_gallery
from cvgl.imagery import MapSource
from cvgl.model import Model
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size, drone_view

app = typer.Typer(add_completion=False)

_CAMERA = Camera(width=1600, height=1200, fx=1300.0, fy=1300.0, cx=799.5, cy=599.5)
_GSD_M, _TILE_PX, _STRIDE_M = 5.0, 128, 80.0
_TILE_M = _GSD_M * _TILE_PX
_HEIGHT_M = 1000.0 * _TILE_M / choose_tile_size(_CAMERA, 1000.0)
_SEED = 7


@app.command()
def seasons(
    data: Annotated[Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds maps/naip.")] = ROOT.parent
    / "shared",
    gallery_of: Annotated[str, typer.Option("--gallery", help="Date of the gallery's imagery.")] = "20180716",
    minutes: Annotated[float, typer.Option(min=0.01, help="Of adaptation to the gallery's map.")] = 3.0,
    queries: Annotated[int, typer.Option(help="Views of each date, of the same places.")] = 300,
    work: Annotated[Path, typer.Option(help="Model and galleries go here.")] = ROOT / "build" / "seasons",
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """R@1, R@20 and PSSR of every date's views against one date's gallery, without and with adaptation."""
    maps = {found[1]: path for path in sorted((data / "maps" / "naip").glob("*.tif")) if (found := _date_in(path))}
    if gallery_of not in maps:
        raise typer.BadParameter(f"no map of that date; there are {', '.join(maps) or 'none'}", param_hint="--gallery")
    plain = Model.open(Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl")
    models = {"plain": plain, "adapted": _adapted(maps[gallery_of], minutes, work)}
    found: dict[str, dict[str, dict[str, float]]] = {}
    tiles = 0
    for name, model in models.items():
        gallery = _gallery(maps[gallery_of], model, work / f"{name}-{gallery_of}.gallery")
        tiles = len(gallery)
        places = _places(gallery, queries)
        for day, path in maps.items():
            with MapSource.open(path, gallery.local) as source:
                found.setdefault(day, {})[name] = _judge(gallery, _embed(source, model, places), places)
            print(f"{name}, {day}: {found[day][name]}", flush=True)
    about = machine()
    record = {
        "commit": commit(), "machine": about, "gallery": gallery_of, "tiles": tiles, "tile_m": _TILE_M,
        "stride_m": _STRIDE_M, "queries": queries, "minutes": minutes, "seed": _SEED,
        "steps": models["adapted"].training.get("steps"), "dates": found,
    }  # fmt: skip
    write_record(out, "seasons", record, _page(record))


def _date_in(path: Path) -> re.Match[str] | None:
    return re.search(r"_(\d{8})\.tif$", path.name)


def _adapted(path: Path, minutes: float, work: Path) -> Model:
    from cvgl_export.bundle import ExportOptions, export_bundle
    from cvgl_export.source import open_source
    from cvgl_export.tile_sources import map_tiles
    from cvgl_export.tiles import Wanted
    from cvgl_train.adapt import adapt

    folder = work / f"adapted-{minutes:g}min-{path.stem[-8:]}"
    bundle = folder / "adapted.cvgl"
    if not bundle.is_dir():
        with MapSource.open(path) as source:
            made = adapt(source, _CAMERA, _HEIGHT_M, minutes=minutes, out_dir=folder, tile_size_m=_TILE_M, seed=_SEED)
        network = open_source(made.weights)
        wanted = Wanted(network.inputs["query"], network.inputs["reference"], 100, _SEED)
        tiles = map_tiles(path, wanted, tile_m=_TILE_M)
        export_bundle(network, bundle, tiles, ExportOptions("fp32"), gsd_m=_GSD_M, name="adapted", record=made.record)
    return Model.open(bundle)


def _gallery(path: Path, model: Model, out: Path) -> Gallery:
    with MapSource.open(path) as source:
        return build_gallery(source, model, out, tile_size_m=_TILE_M, stride_m=_STRIDE_M, basemap_gsd_m=_GSD_M)


def _places(gallery: Gallery, count: int) -> NDArray[np.float64]:
    """(count, 2) of which every date's map shows all of a view."""
    west, south, east, north = gallery.bounds
    margin = 0.75 * _TILE_M
    rng = np.random.default_rng(_SEED)
    return rng.uniform((west + margin, south + margin), (east - margin, north - margin), (count, 2))


def _embed(source: MapSource, model: Model, places: NDArray[np.float64]) -> NDArray[np.float32]:
    drone = ViewSettings(_CAMERA, _HEIGHT_M, _GSD_M, _TILE_PX, offset_m=0.0, light=0.0)
    gsd, side = _GSD_M / 2, int(1.7 * 2 * _TILE_PX)
    images, masks = [], []
    for number, (easting, northing) in enumerate(places.tolist()):
        west, north = easting - side * gsd / 2, northing + side * gsd / 2
        image = MapImage.of(*source.read(west, north, side, side, gsd), gsd, west, north)
        # The same drone over each date.
        rgb, mask, _ = drone_view(image, easting, northing, drone, np.random.default_rng([_SEED, number]))
        images.append(rgb[..., ::-1])
        masks.append(mask)
    return model.embed(np.ascontiguousarray(np.stack(images)), np.stack(masks))


def _judge(gallery: Gallery, descriptors: NDArray[np.float32], places: NDArray[np.float64]) -> dict[str, float]:
    """True is every tile whose centre lies within a stride of the view's; PSSR by the best of them."""
    ranked, _ = gallery.exact(descriptors, len(gallery))
    true = np.linalg.norm(gallery.tiles[ranked] - places[:, None], axis=2) <= _STRIDE_M
    first = true.argmax(axis=1)
    return {
        "r_at_1": float((first == 0).mean()),
        "r_at_20": float((first < 20).mean()),
        "pssr": float(1.0 - (first + 1).mean() / len(gallery)),
    }


def _page(record: dict[str, Any]) -> str:
    about, base = record["machine"], _day(record["gallery"])
    lines = [
        "# Retrieval between years",
        "",
        f"{about['processor']}, {about['cores']} cores, commit {record['commit']}. A gallery of {record['tiles']} tiles"
        f" of {record['tile_m']:g} m every {record['stride_m']:g} m from USDA NAIP of {base:%Y-%m-%d} (5 m/px, without"
        f" infrared), {record['queries']} simulated views of each date, at the same places. A tile is true within"
        f" {record['stride_m']:g} m. Adapted: {record['minutes']:g} minutes ({record['steps']} steps) on the gallery's"
        " own map. In percent.",
        "",
        "| date | years apart | plain: R@1 | R@20 | PSSR | adapted: R@1 | R@20 | PSSR |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for day, found in record["dates"].items():
        apart = (_day(day) - base).days / 365.25
        cells = [
            f"{100 * found[name][key]:.1f}" for name in ("plain", "adapted") for key in ("r_at_1", "r_at_20", "pssr")
        ]
        same = " (the gallery's)" if day == record["gallery"] else ""
        lines.append(f"| {_day(day):%Y-%m-%d}{same} | {apart:+.1f} | {' | '.join(cells)} |")
    others = [found for day, found in record["dates"].items() if day != record["gallery"]]
    means = [
        f"{100 * np.mean([found[name][key] for found in others]):.1f}"
        for name in ("plain", "adapted")
        for key in ("r_at_1", "r_at_20", "pssr")
    ]
    lines += [f"| mean of the others | | {' | '.join(means)} |", ""]
    return "\n".join(lines)


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


if __name__ == "__main__":
    run_app(app)
