"""A map in, a mission out: adapt the embedding, export it, build the gallery, calibrate and check the whole.

Composes training, export and the SDK. PyTorch is imported only where the embedding is adapted, so that missions with a
finished model are prepared on the base install.

The work grows in ``OUT.partial`` beside OUT and becomes OUT by a rename at the very end. What each stage made is
written down there, with the inputs it was made from: the same call again goes on where a killed one stopped.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cvgl.bench.machine import machine
from cvgl.calibrate import fit_decision
from cvgl.camera import Camera
from cvgl.elevation import read_terrain
from cvgl.errors import MapError, MissingDependencyError, MissionError
from cvgl.features import FeatureFiles
from cvgl.files import sha256_file, write_json
from cvgl.footprint import footprint_sides
from cvgl.gallery import build_gallery
from cvgl.gallery.views import SimulatedViews
from cvgl.gallery.write import Search
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.mission import CAMERA, GALLERY, MISSION, MODEL, TERRAIN, Mission, write_mission_file
from cvgl.model import Model
from cvgl.settings import Decision, Settings
from cvgl.sim.views import ViewSettings, choose_tile_size
from cvgl.terrain import DATUMS, Terrain
from cvgl.versions import versions
from cvgl_export.growing import Growing, Reporter, Silent, remove
from cvgl_export.self_check import SELF_CHECK, check_frames, check_retrieval, worries

__all__ = ["CheckSize", "base_bundle", "prepare"]

_PROOF_TILES = 64
_BASEMAP_PIXELS = 172
"""Pixels of the basemap across the footprint's short side: finer ones cost time and do not register better."""
_AROUND_M = 500.0
_NEEDED_TO_ADAPT = ("torch", "onnx", "onnxscript")


@dataclass(frozen=True)
class CheckSize:
    """How much a preparation measures of what it made.

    Args:
        views: simulated views whose tiles are retrieved.
        frames: simulated frames that are localised.
        trials: searches in the wrong place, from which the decision is fitted.
    """

    views: int = 240
    frames: int = 100
    trials: int = 150

    @classmethod
    def of(cls, trials: int) -> CheckSize:
        """The usual proportions for so many trials."""
        return cls(views=trials * 8 // 5, frames=trials * 2 // 3, trials=trials)


def base_bundle() -> Path:
    """The model bundle that ships with the SDK."""
    import cvgl

    return Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl"


def prepare(
    map_path: str | Path,
    camera: Camera | str | Path,
    height_m: float,
    out: str | Path,
    *,
    minutes: float = 10.0,
    adapt: bool = True,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    stride_m: float | None = None,
    threads: int | None = None,
    check: CheckSize | None = None,
    terrain: str | Path | None = None,
    terrain_datum: str = DATUMS[0],
    geoid_separation: float | None = None,
    features: FeatureFiles | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Make a mission folder.

    Args:
        map_path: the satellite map, anything that `cvgl.imagery.MapSource` opens.
        camera: the drone's, or its ``camera.yaml``.
        height_m: planned height above ground, metres.
        out: the mission folder; a mission that stands there is replaced at the very end.
        minutes: of training time for the adaptation.
        adapt: train the embedding on the map. Without it the model is used as it is.
        model: bundle to use as it is, with ``adapt=False``; None for the base model.
        weights: that the adaptation starts from; None for the base model's.
        seed: of everything random.
        device: that trains: "auto", "cpu", "cuda".
        stride_m: from tile to tile, metres; None for a fifth of a tile.
        threads: of one inference; None for two.
        check: how much is measured at the end.
        terrain: elevation model of the map's area and around it, a raster in metres; None for a mission that is told
            heights above ground.
        terrain_datum: what its heights are counted from, "mean_sea_level" or "ellipsoid".
        geoid_separation: height of mean sea level above the ellipsoid there, metres, so that altitudes in the other
            datum can be used as well; None if it is not known.
        features: local features that give a second opinion in flight, and the networks they take, which the mission
            then carries; None for OpenCV's AKAZE.
        reporter: is told about progress.

    Returns:
        The record, as ``mission.json`` holds it.

    Raises:
        MapError: no such map, one that cannot be used, or one smaller than what the camera sees.
        CameraError, ModelError, GalleryError: the camera, the model, or what is made of them cannot be used.
        MissionError: an unusable argument, something else than a mission at ``out``, or another preparation of it
            is running.
        MissingDependencyError: what adaptation needs is not installed, or the device is not there.
    """
    out, map_path = Path(os.path.abspath(out)), Path(map_path)
    tell: Reporter = reporter or Silent()
    size, features = check or CheckSize(), features or FeatureFiles()
    if not isinstance(camera, Camera):
        camera = Camera.from_yaml(camera)
    _check_arguments(height_m, out, minutes, adapt, model, stride_m)
    start: Path | None = None
    if adapt:
        _require_training(device)
        start = _starting_weights(weights)
    else:
        model = Path(model) if model is not None else base_bundle()
        Model.open(model, threads, views=("query",))

    tell.begin("map")
    with MapSource.open(map_path) as source:
        _check_size(source, camera, height_m)
        west, south, east, north = source.bounds
        plan = {
            "map": {"sha256": _map_sha256(map_path, source), "bounds": source.bounds, "local": asdict(source.local)},
            "camera": camera.to_dict(),
            "height": height_m,
            "model": sha256_file(start) if start is not None else sha256_file(Path(str(model)) / "manifest.json"),
            "adaptation": {"minutes": minutes} if adapt else None,
            "seed": seed,
            "stride": stride_m,
            "check": asdict(size),
            "features": features.to_dict(),
            "cvgl": versions()["cvgl"],
        }
        ground: Terrain | None = None
        if terrain is not None:
            # What an oblique camera sees from over the map's edge, and where it starts from, lies around it.
            around = (west - _AROUND_M, south - _AROUND_M, east + _AROUND_M, north + _AROUND_M)
            ground = read_terrain(terrain, source.local, around, datum=terrain_datum, geoid_separation=geoid_separation)
            said = {"sha256": sha256_file(terrain), "datum": terrain_datum, "geoid_separation": geoid_separation}
            plan["terrain"] = said
        tell.end("map", f"{east - west:.0f} x {north - south:.0f} m, {source.native_gsd:.2g} m/px")
        with Growing.open(out, plan, tell) as work:
            job = _Job(work, source, camera, height_m, seed, threads, size, tell, features, ground)
            return job.run(start, None if model is None else Path(model), minutes, device, stride_m, plan)


def _map_sha256(path: Path, source: MapSource) -> str:
    """Of a file its content; of a folder what tells it from others."""
    return sha256_file(path) if path.is_file() else source.identity()


@dataclass(frozen=True)
class _Job:
    """One preparation: what all its stages share."""

    work: Growing
    source: MapSource
    camera: Camera
    height_m: float
    seed: int
    threads: int | None
    size: CheckSize
    tell: Reporter
    features: FeatureFiles
    terrain: Terrain | None = None

    def run(
        self,
        start: Path | None,
        bundle: Path | None,
        minutes: float,
        device: str,
        stride_m: float | None,
        plan: dict[str, Any],
    ) -> dict[str, Any]:
        """All stages, then the mission under its name; its record."""
        work, source, mission = self.work, self.source, self.work.mission
        west, south, east, north = source.bounds
        tile = choose_tile_size(self.camera, self.height_m)
        stride = stride_m or float(max(1, round(tile / 5)))
        adapted: dict[str, Any] | None = None
        if start is not None:
            adapted = work.stage(
                "adapt", lambda: self._adapt(start, minutes, tile, device), lambda a: f"{a['steps']} steps"
            )
        work.stage("model", lambda: self._model(bundle, tile, adapted), lambda m: str(m["name"]))
        model = Model.open(mission / MODEL, self.threads)
        built = work.stage(
            "gallery", lambda: self._gallery(model, tile, stride), lambda g: f"{g['tiles']} of {g['tile_size_m']:g} m"
        )
        self.camera.to_yaml(mission / CAMERA)
        if self.terrain is not None:
            self.terrain.save(mission / TERRAIN)
        settings, features = Settings(), self.features.carry(mission)
        # Calibration and check run what will fly, on the folder that will be carried.
        write_mission_file(mission, self.height_m, settings, Decision(), {}, features)
        fitted = work.stage(
            "calibrate", self._calibrate, lambda f: f"{f['evidence'].get('trials', self.size.trials)} trials"
        )
        decision = Decision.from_dict(fitted["decision"], mission / MISSION)
        write_mission_file(mission, self.height_m, settings, decision, {}, features)
        checked = work.stage(
            "check", self._check, lambda c: f"{c['frames']['refined_within_10m']:.0%} of simulated frames localised"
        )
        record = {
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "map": {
                "source": source.source,
                "attribution": source.attribution,
                "sha256": plan["map"]["sha256"],
                "native_gsd_m": source.native_gsd,
                "size_m": [round(east - west, 1), round(north - south, 1)],
            },
            "model": {"name": model.name, "fingerprint": model.fingerprint, "adapted": adapted},
            "gallery": built,
            "calibration": fitted["evidence"],
            "self_check": checked,
            "seed": self.seed,
            "seconds": work.seconds(),
            "versions": versions(),
            "machine": machine(),
        }
        write_json(mission / SELF_CHECK, checked)
        write_mission_file(mission, self.height_m, settings, decision, record, features)
        Mission.open(mission)
        work.publish()
        for message in worries(checked):
            self.tell.warn(message)
        return record

    def _adapt(self, start: Path, minutes: float, tile_m: float, device: str) -> dict[str, Any]:
        from cvgl_train.adapt import adapt

        def show(share: float, line: dict[str, Any]) -> None:
            known = [f"{key} {line[key]}" for key in ("loss", "R@1") if key in line]
            self.tell.progress(share, ", ".join(known))

        made = adapt(
            self.source,
            self.camera,
            self.height_m,
            start,
            minutes,
            self.work.folder / "adapted",
            tile_size_m=tile_m,
            seed=self.seed,
            device=device,
            progress=show,
        )
        return made.record

    def _model(self, bundle: Path | None, tile_m: float, adapted: dict[str, Any] | None) -> dict[str, Any]:
        target = self.work.mission / MODEL
        remove(target)
        if bundle is not None:
            shutil.copytree(bundle, target)
        else:
            from cvgl_export.bundle import ExportOptions, export_bundle
            from cvgl_export.source import open_source
            from cvgl_export.tile_sources import map_tiles
            from cvgl_export.tiles import Wanted

            source = open_source(self.work.folder / "adapted" / "weights.npz")
            views = source.inputs
            wanted = Wanted(views["query"], views["reference"], _PROOF_TILES, self.seed)
            tiles = map_tiles(self.source.path, wanted, tile_m=tile_m)
            gsd = self._drone(tile_m, views["query"].height).gsd_m
            name = f"cvgl-nano-{self.source.path.stem}"
            # In float32: most CPUs compute nothing faster.
            export_bundle(source, target, tiles, ExportOptions("fp32"), gsd_m=gsd, name=name, record=adapted)
        model = Model.open(target, self.threads)
        return {"name": model.name, "fingerprint": model.fingerprint}

    def _gallery(self, model: Model, tile_m: float, stride_m: float) -> dict[str, Any]:
        starts = {"tiles": 0.0, "index": 0.9, "basemap": 0.95}
        ends = {"tiles": 0.9, "index": 0.95, "basemap": 1.0}

        def show(what: str, done: int, total: int) -> None:
            self.tell.progress(starts[what] + (ends[what] - starts[what]) * done / max(total, 1), what)

        short, _ = footprint_sides(self.camera, self.height_m)
        gallery = build_gallery(
            self.source,
            model,
            self.work.mission / GALLERY,
            tile_size_m=tile_m,
            stride_m=stride_m,
            basemap_gsd_m=max(self.source.native_gsd, short / _BASEMAP_PIXELS),
            search=Search(views=SimulatedViews(self.camera, self.source, model)),
            identity=self.source.identity(),
            progress=show,
        )
        manifest = gallery.manifest
        return {
            "tiles": len(gallery),
            "tile_size_m": manifest.tile_size_m,
            "stride_m": manifest.stride_m,
            "basemap_gsd_m": manifest.basemap.gsd_m,
            "megabytes": round(manifest.bytes_on_disk / 1e6, 1),
        }

    def _calibrate(self) -> dict[str, Any]:
        decision, evidence = fit_decision(
            self._localizer(), self.source, trials=self.size.trials, seed=self.seed, progress=self._count
        )
        return {"decision": decision.to_dict(), "evidence": evidence}

    def _check(self) -> dict[str, Any]:
        localizer = self._localizer()
        model, gallery = localizer.model, localizer.gallery
        drone = self._drone(gallery.manifest.tile_size_m, model.views["query"].input_size[0])
        share = self.size.views / max(self.size.views + 4 * self.size.frames, 1)
        found, descriptors = check_retrieval(
            self.source,
            model,
            gallery,
            drone,
            self.size.views,
            self.seed,
            lambda done, total: self.tell.progress(share * done / total, "retrieval"),
        )
        frames = check_frames(
            localizer,
            self.source,
            self.height_m,
            self.size.frames,
            self.seed,
            lambda done, total: self.tell.progress(share + (1 - share) * done / total, "localisation"),
        )
        recall = round(gallery.self_check(descriptors), 4)
        return {"index_recall": recall, "retrieval": found, "frames": frames}

    def _localizer(self) -> Localizer:
        return Localizer.open(self.work.mission, threads=self.threads)

    def _drone(self, tile_m: float, px: int) -> ViewSettings:
        # The places themselves are drawn at random, so that there is no offset to add.
        return ViewSettings(self.camera, self.height_m, tile_m / px, px, offset_m=0.0)

    def _count(self, done: int, total: int) -> None:
        self.tell.progress(done / max(total, 1))


def _check_arguments(
    height_m: float, out: Path, minutes: float, adapt: bool, model: str | Path | None, stride_m: float | None
) -> None:
    if not (math.isfinite(height_m) and height_m > 0):
        raise MissionError("not usable", field="height", found=height_m, expected="metres above ground, above 0")
    if adapt and not (math.isfinite(minutes) and minutes > 0):
        raise MissionError("not usable", field="minutes", found=minutes, expected="above 0")
    if stride_m is not None and not (math.isfinite(stride_m) and stride_m > 0):
        raise MissionError("not usable", field="stride", found=stride_m, expected="metres above 0")
    if adapt and model is not None:
        raise MissionError(
            "a bundle is used as it is and cannot be adapted",
            file=model,
            field="model",
            expected="--no-adapt with it, or weights to start from",
        )
    if out.exists() and not (out / MISSION).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise MissionError("stands there already and is no mission", file=out, expected="a new folder or a mission")


def _require_training(device: str) -> None:
    missing = [name for name in _NEEDED_TO_ADAPT if importlib.util.find_spec(name) is None]
    if missing:
        extras = "train" if missing == ["torch"] else "train,export"
        raise MissingDependencyError(
            f"adapting the model to the map needs {', '.join(missing)}: pip install 'cvgl[{extras}]', or --no-adapt to"
            " use the model as it is"
        )
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MissingDependencyError(
            "no such device here", field="device", found=device, expected="cpu, or an NVIDIA GPU that PyTorch can use"
        )


def _starting_weights(weights: str | Path | None) -> Path:
    from cvgl_train.adapt import base_weights
    from cvgl_train.models.nano import load_weights

    start = Path(weights) if weights is not None else base_weights()
    load_weights(start)
    return start


def _check_size(source: MapSource, camera: Camera, height_m: float) -> None:
    west, south, east, north = source.bounds
    short, long = footprint_sides(camera, height_m)
    if long > min(east - west, north - south):
        raise MapError(
            "smaller than what the camera sees",
            file=source.path,
            field="size",
            found=f"{east - west:.0f} x {north - south:.0f} m",
            expected=f"more than the footprint of {long:.0f} x {short:.0f} m at a height of {height_m:g} m",
        )
