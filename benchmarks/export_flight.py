"""What lower precision does to a mission: on its gallery's tiles, and on a real flight's photos as it sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from export_parity import by_onnx, change, compared, nodes, number, verdict
from numpy.typing import NDArray

from cvgl import Localizer
from cvgl.bench import open_flight
from cvgl.errors import FlightError, GalleryError, MapError
from cvgl.gallery import Gallery, build_gallery
from cvgl.imagery import MapSource
from cvgl.mission import GALLERY, MODEL
from cvgl.model import Model
from cvgl_export.descriptors import Descriptors, cosines
from cvgl_export.retrieval import nearest
from cvgl_export.source import Source, open_source
from cvgl_export.tiles import ParityTiles
from cvgl_train.evaluation.metrics import pssr, recall_at
from cvgl_train.evaluation.ranks import rank_descriptors

__all__ = ["measure_mission", "section"]

NEAR_M = 25.0
"""Metres within which a tile's centre is the right answer, as in `benchmarks/fengyuan.py`."""


class _Watched:
    """A model that keeps what it is given; everything else is the model's."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.patches: list[NDArray[np.uint8]] = []
        self.masks: list[NDArray[np.bool_]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def inputs_of(
        self, patches: NDArray[np.uint8], masks: NDArray[Any] | None = None, view: str = "query"
    ) -> NDArray[np.float32]:
        """The model's inputs."""
        self.patches += [patch[..., ::-1].copy() for patch in patches]
        seen = np.ones(patches.shape[:3], bool) if masks is None else masks > 0
        self.masks += list(seen)
        return self._model.inputs_of(patches, masks, view)

    def embed_inputs(self, inputs: Any, view: str = "query") -> NDArray[np.float32]:
        """The model's descriptors of what a frame was warped to; kept as grey levels, rounded as tiles are."""
        seen = self._model.views[view]
        scale, offset = (np.asarray(values, np.float32)[:, None, None] for values in seen.normalisation)
        for one in inputs:
            known = (one != 0).any(axis=0)
            levels = np.where(known, np.clip(np.rint((one - offset) / scale), 0, 255), 0).astype(np.uint8)
            image = levels.transpose(1, 2, 0)
            self.patches.append(np.ascontiguousarray(image if seen.channels == "rgb" else image[..., ::-1]))
            self.masks.append(known)
        return self._model.embed_inputs(inputs, view)

    def images(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(N, H, W, 3) RGB and (N, H, W) of everything so far."""
        masks: NDArray[np.bool_] = np.stack(self.masks)
        return np.stack(self.patches), masks


@dataclass(frozen=True)
class _Flown:
    """A flight's photos and a gallery's tiles as the network is given them.

    Args:
        tiles: the photos as queries; their truth is the tile nearest to the place, or to the aircraft where that is
            not known.
        files: (Q,) names of the photos.
        places: (Q, 2) easting and northing of the ground at the image's middle, metres; nan where nobody knows.
        centres: (R, 2) of the tiles.
    """

    tiles: ParityTiles
    files: tuple[str, ...]
    places: NDArray[np.float64]
    centres: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(Q,) photos whose place is known."""
        return np.isfinite(self.places).all(1)


def measure_mission(mission: Path, flight: Path, map_path: Path, count: int) -> dict[str, Any]:
    """FP16 and INT8 of a mission's model against the model as it flies.

    Args:
        mission: a mission of the map.
        flight: over it, with reference positions.
        map_path: what the gallery was cut from; its tiles are cut again, since a gallery keeps only descriptors.
        count: of the gallery's tiles to compare on.

    Returns:
        What was compared with what, and a row of figures for each precision, JSON values.

    Raises:
        CvglError: a mission, a flight or a map that cannot be used, or that do not belong together.
    """
    source = open_source(mission / MODEL)
    model = Model.open(mission / MODEL, engine="onnxruntime")
    flown = _as_flown(mission, flight, map_path, source, model)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source.write_graphs(folder)
        exact = by_onnx(folder, source, flown.tiles)
        for precision in ("fp16", "int8"):
            row, bundle = compared(source, precision, mission / GALLERY, count, folder)
            photos = None if bundle is None else _judge_photos(exact, by_onnx(bundle, source, flown.tiles), flown)
            rows.append({**row, "photos": photos})
    return {
        "model": model.name,
        "reference": f"ONNX Runtime, {model.precision}",
        "proof": model.training.get("export"),
        "precisions": rows,
    }


def _as_flown(mission: Path, flight: Path, map_path: Path, source: Source, model: Model) -> _Flown:
    """What `Localizer.locate` and `build_gallery` themselves hand to the model."""
    localizer = Localizer.open(mission)
    frames = open_flight(localizer, flight)
    watched = localizer.model = _Watched(localizer.model)  # type: ignore[assignment]
    gallery = localizer.gallery
    places: list[tuple[float, float]] = []
    nearest_tiles = []
    for record in frames:
        fix = localizer.locate(record.load())
        if len(watched.patches) != len(places) + 1:
            raise FlightError("not one patch a photo", file=record.path, found=fix.reason or len(watched.patches))
        centre = record.center_latitude, record.center_longitude
        places.append(_local(gallery, *centre))
        aircraft = _local(gallery, record.gps_latitude, record.gps_longitude)
        here = np.where(np.isfinite(places[-1]), places[-1], aircraft)
        nearest_tiles.append(int(np.linalg.norm(gallery.tiles - here, axis=1).argmin()))
    photos, photo_masks = watched.images()
    cut, cut_masks = _tiles_of(gallery, map_path, model)
    words = f"photos of {flight.name}, rectified as in flight, and the tiles of the gallery"
    tiles = ParityTiles(
        photos,
        cut,
        np.array(nearest_tiles),
        tuple(f"{east:.1f} m east, {north:.1f} m north" for east, north in gallery.tiles),
        dict(source.inputs),
        words,
        query_mask=photo_masks,
        reference_mask=cut_masks,
    )
    names = tuple(record.name for record in frames)
    return _Flown(tiles, names, np.array(places), np.array(gallery.tiles, np.float64))


def _tiles_of(gallery: Gallery, map_path: Path, model: Model) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The tiles that the gallery's descriptors were made of, cut again as they were."""
    manifest = gallery.manifest
    watched = _Watched(model)
    with MapSource.open(map_path) as source, tempfile.TemporaryDirectory() as scratch:
        again = build_gallery(
            source,
            watched,  # type: ignore[arg-type]
            Path(scratch) / "again.gallery",
            tile_size_m=manifest.tile_size_m,
            stride_m=manifest.stride_m,
            basemap_gsd_m=manifest.basemap.gsd_m,
        )
        if not np.array_equal(again.tiles, gallery.tiles):
            raise MapError("not the map that the gallery was cut from", file=map_path, found=len(again.tiles))
        apart = 1 - cosines(np.asarray(again.descriptors), np.asarray(gallery.descriptors)).min()
        if not apart < 1e-3:
            raise GalleryError("its descriptors are of other tiles", file=manifest.path, found=apart)
    return watched.images()


def _local(gallery: Gallery, latitude: float | None, longitude: float | None) -> tuple[float, float]:
    if latitude is None or longitude is None:
        return np.nan, np.nan
    east, north = gallery.local.to_local(latitude, longitude)
    return float(east), float(north)


def _judge_photos(before: Descriptors, after: Descriptors, flown: _Flown) -> dict[str, Any]:
    """What becomes of each photo, and of retrieval, with photos and tiles in lower precision alike."""
    same = cosines(before.query, after.query)
    first_before, first_after = (nearest(engine, "cosine")[:, 0] for engine in (before, after))
    known = flown.known
    matches = [np.flatnonzero(np.linalg.norm(flown.centres - place, axis=1) <= NEAR_M) for place in flown.places[known]]
    ranks = [rank_descriptors(engine.query[known], engine.reference, matches) for engine in (before, after)]
    moved = np.linalg.norm(flown.centres[first_after] - flown.centres[first_before], axis=1)
    off = [np.linalg.norm(flown.centres[first] - flown.places, axis=1) for first in (first_before, first_after)]
    return {
        "photos": len(same),
        "with_reference": int(known.sum()),
        "tiles": len(flown.centres),
        "cosine_median": float(np.median(same)),
        "cosine_minimum": float(same.min()),
        "tiles_cosine_minimum": float(cosines(before.reference, after.reference).min()),
        "agreement": float((first_before == first_after).mean()),
        "recall_within_m": NEAR_M,
        "recall_before": recall_at(ranks[0], 1),
        "recall_after": recall_at(ranks[1], 1),
        "pssr_before": float(pssr(ranks[0]).mean()),
        "pssr_after": float(pssr(ranks[1]).mean()),
        "each": [
            {
                "file": file,
                "cosine": float(same[i]),
                "same_tile": bool(first_before[i] == first_after[i]),
                "tile_moved_m": round(float(moved[i]), 1),
                "off_m": [round(float(o[i]), 1) if known[i] else None for o in off],
            }
            for i, file in enumerate(flown.files)
        ],
    }


def section(missions: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown of what `measure_mission` found; nothing of nothing."""
    rows = [(mission["mission"], row, row["photos"]) for mission in missions for row in mission["precisions"]]
    flown = [(name, row, photos) for name, row, photos in rows if photos is not None]
    if not flown:
        return []
    about = flown[0][2]
    lines = [
        "",
        "## On the real flight",
        "",
        "A mission adapted to the map of a real flight, and one of the base model. FP32 is the mission's bundle as it",
        f"flies ({missions[0]['reference']}: its weights are rounded, its arithmetic is not); in lower",
        "precision are photos and tiles alike. INT8's ranges and layers are from other tiles of the gallery than those",
        "that judge it.",
        "",
        f"{about['photos']} photos, rectified by the SDK as in flight, against all {about['tiles']} tiles of the",
        f"mission's gallery. R@1: the nearest tile lies within {about['recall_within_m']:g} m of where the photo's",
        f"middle is, on the {about['with_reference']} photos for which that is known; PSSR by the closest of those",
        "tiles. Cosine and nearest tile: all photos.",
        "",
        "| mission | precision | cosine, median | least | least of a tile | same nearest tile | R@1 % | PSSR |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row, photos in flown:
        lines.append(
            f"| {name} | {row['precision']} | {photos['cosine_median']:.7f} | {photos['cosine_minimum']:.6f} "
            f"| {photos['tiles_cosine_minimum']:.6f} | {round(photos['agreement'] * photos['photos'])} of "
            f"{photos['photos']} | {change(photos, 'recall')} "
            f"| {photos['pssr_before']:.4f} → {photos['pssr_after']:.4f} |"
        )
    changed = [
        f"- {name}, {row['precision']}, {each['file']}: {each['tile_moved_m']:g} m from FP32's nearest tile{_off(each)}"
        for name, row, photos in flown
        for each in photos["each"]
        if not each["same_tile"]
    ]
    if changed:
        lines += ["", "Photos whose nearest tile is another:", "", *changed]
    lines += [
        "",
        "Tiles of the gallery against simulated views of them, judged as the procedural ones above. They overlap by",
        "four fifths, so that the very tile of a view is often not the nearest.",
        "",
        "| mission | precision | tiles | cosine, median | least | same nearest tile % | R@1 % | nodes | |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for name, row, _ in rows:
        agreement = row.get("agreement")
        lines.append(
            f"| {name} | {row['precision']} | {row['queries']} | {number(row.get('cosine_median'), 7)} "
            f"| {number(row.get('cosine_minimum'), 6)} | {number(None if agreement is None else 100 * agreement, 1)} "
            f"| {change(row, 'recall')} | {nodes(row)} | {verdict(row)} |"
        )
    return lines


def _off(each: dict[str, Any]) -> str:
    before, after = each["off_m"]
    return "" if before is None else f"; {before:g} m off before, {after:g} m after"
