"""Ours and its peers on the same work in one run, and what a larger map costs each.

    python benchmarks/peers.py            # everything
    python benchmarks/peers.py --quick    # an impression: few frames, small maps

Peers are the real libraries, tuned as far as we know how to: PyTorch and torchvision, OpenCV, ONNX Runtime as it
comes, numpy, faiss, usearch, whole-map correlation, SIFT and XFeat. In each contest all do every frame in turn, so that
whatever else the machine does meets all of them; ratios are of medians, with bootstrap intervals over the
frames. A peer whose library or file is missing is named with the reason.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from peers_area import make_missions
from peers_report import as_markdown, draw_area
from peers_synthetic import synthetic_gallery
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl import Localizer, Prior
from cvgl.basemap import Basemap
from cvgl.bench import machine, open_flight
from cvgl.bench.peers import OURS, compare_embedding, compare_frames, compare_search, crew, load_work, rows
from cvgl.bench.peers_embed import Task, as_flown, fine_chain, input_as_flown, plain_chain, supersampled
from cvgl.bench.peers_features import sift, xfeat
from cvgl.bench.peers_frame import Finder, correlating, errors_m, judge, locating, matching
from cvgl.bench.peers_timing import interleave
from cvgl.errors import CvglError, MissionError
from cvgl.files import atomic_path
from cvgl.flight import FrameRecord
from cvgl.frame import Frame
from cvgl.gallery import Gallery
from cvgl.imagery import MapSource
from cvgl.mission import GALLERY
from cvgl.versions import versions

# Of the map that XFeat matches, m/px: at the basemap's 0.5 m it places a tenth of the flight's frames wrongly.
XFEAT_GSD_M = 0.35
PRIOR_SIGMA_M = 30.0
SYNTHETIC = 100_000
# All detail of a larger map would take more memory than its time is worth.
FULL_DETAIL_UP_TO_KM2 = 2.5
PEER_PACKAGES = ("torch", "torchvision", "faiss-cpu", "usearch", "scipy")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        frames: of the flight, spread over it; None for all.
        rounds: over the frames.
        areas: of the larger missions, km2.
        area_frames, area_rounds: for them.
        search_rounds: over the queries.
    """

    frames: int | None
    rounds: int
    areas: tuple[float, ...]
    area_frames: int
    area_rounds: int
    search_rounds: int


FULL = Plan(None, 3, (2.0, 10.0, 30.0, 100.0), 12, 3, 20)
QUICK = Plan(5, 1, (2.0,), 4, 1, 3)


@app.command()
def peers(
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/, maps/ and models/.")
    ] = ROOT.parent / "shared",
    mission: Annotated[Path, typer.Option(help="A mission of the Fengyuan map.")] = ROOT
    / "build"
    / "fengyuan"
    / "adapted-10min-seed0",
    work: Annotated[
        Path, typer.Option(help="Towns, larger missions and indexes go here; what is there is used again.")
    ] = ROOT / "build" / "peers",
    out: Annotated[Path, typer.Option(help="Results go here.")] = ROOT / "benchmarks" / "results",
    threads: Annotated[int, typer.Option(min=1, help="Of every contestant.")] = min(4, os.cpu_count() or 1),
    quick: Annotated[bool, typer.Option("--quick", help="An impression: few frames, small maps.")] = False,
) -> None:
    """Measure ours beside its peers, and both over growing maps.

    Wants a mission of the Fengyuan map (python benchmarks/fengyuan.py leaves one)
    and the extra "bench". Making the larger missions takes about ten minutes on
    one core, once; the measurement itself about ten on two.
    """
    photos = data / "flights" / "fengyuan"
    if not (photos / "map.tif").is_file():
        raise typer.BadParameter(f"no map.tif in {photos}", param_hint="--data")
    if not mission.is_dir():
        raise MissionError("no such mission", file=mission, expected="one made by benchmarks/fengyuan.py")
    plan = QUICK if quick else FULL
    about = machine()
    cv2.setNumThreads(threads)
    began = time.monotonic()
    missing: dict[str, str] = {}
    localizer = Localizer.open(mission, threads=threads)
    taken = spread(load_work(open_flight(localizer, photos)), plan.frames)
    frames = [frame for _, frame in taken]
    missions = make_missions(mission, photos / "map.tif", list(plan.areas), work, say_progress, threads)
    made_s = time.monotonic() - began
    say("embedding")
    contests = embedding(localizer, frames, plan.rounds, missing)
    queries = np.stack([as_flown(Task(localizer))(frame) for frame in frames])
    say("search")
    searches = search(localizer, missions, queries, work, plan, missing, quick)
    with crew(threads) as executor:
        say("whole frames")
        contests["frame"] = whole_frames(localizer, taken, data, plan.rounds, executor, missing)
        say("area")
        area = over_area(mission, missions, photos, plan, threads, executor, missing)
    result: dict[str, Any] = {
        "format_version": 1,
        "benchmark": "peers",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {**about, "load_average_at_end": round(os.getloadavg()[0], 2)},
        "versions": {**versions(), **installed()},
        "threads": threads,
        "quick": quick,
        "prior_sigma_m": PRIOR_SIGMA_M,
        "seconds": {"missions": round(made_s, 1), "measuring": round(time.monotonic() - began - made_s, 1)},
        "contests": contests,
        "search": searches,
        "area": area,
        "missing": missing,
    }
    name = on_machine("peers-quick" if quick else "peers", about)
    with atomic_path(out / f"{name}.svg") as temporary:
        draw_area(area, temporary, about)
    write_record(out, name, result, as_markdown(result, f"{name}.svg"))


def embedding(
    localizer: Localizer, frames: Sequence[Frame], rounds: int, missing: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Three contests: frame to network input, frame to descriptor, frame to the most similar tiles."""
    task, k = Task(localizer), localizer.mission.settings.candidates
    warps: dict[str, Callable[[Frame], Any]] = {
        OURS: input_as_flown(task),
        "OpenCV bilinear + numpy (aliases)": plain_chain(task),
        "OpenCV antialiased + numpy": fine_chain(task),
    }
    timed = interleave(warps, frames, rounds=max(rounds, 2))
    reference = [supersampled(task)(frame) for frame in frames]
    grey = {
        # Once more: ours writes every frame into the same memory.
        name: {
            "rms_grey": round(
                float(np.mean([off(warp(f), r, task) for f, r in zip(frames, reference, strict=True)])), 2
            )
        }
        for name, warp in warps.items()
    }
    found = {"warp": {"frames": len(frames), "contestants": rows(timed, grey)}}
    more: dict[str, Callable[[Frame], NDArray[np.float32]]] = {}
    tiles: dict[str, Callable[[Frame], Any]] = {
        OURS: lambda frame: localizer.gallery.search(descriptor(frame)[None], k)[0][0]
    }
    descriptor = as_flown(task)
    try:
        import peers_torch

        net = peers_torch.network(task, localizer.threads)
        alone = peers_torch.eager(net)
        more["our warp, eager PyTorch"] = lambda frame: alone(warps[OURS](frame))
        tiles["torchvision, eager PyTorch, full product"] = peers_torch.research(task, net, k)
    except ImportError as reason:
        missing["PyTorch"] = str(reason)
    except CvglError as error:
        missing["PyTorch"] = error.message
    found["embedding"] = compare_embedding(localizer, frames, max(rounds, 2), more)[0]
    timed = interleave(tiles, frames, rounds=max(rounds, 2), pause_s=0.02)
    found["retrieval"] = {"frames": len(frames), "contestants": rows(timed)}
    return found


def off(picture: NDArray[np.float32], reference: NDArray[np.float32], task: Task) -> float:
    """Root mean square difference of two network inputs where both see the ground, grey levels."""
    both = (picture != 0) & (reference != 0)
    return float(np.sqrt(np.mean(((picture - reference) / task.factor)[both] ** 2)))


def search(
    localizer: Localizer,
    missions: Mapping[float, Path],
    queries: NDArray[np.float32],
    work: Path,
    plan: Plan,
    missing: dict[str, str],
    quick: bool,
) -> list[dict[str, Any]]:
    """The search contest over the mission's own tiles, those of a larger one, and many synthetic ones."""
    galleries = {"the mission's": localizer.gallery}
    # The first beyond what is searched exactly: the smallest that shows the graph.
    larger = [Gallery.open(path / GALLERY) for path in missions.values()]
    beyond = [gallery for gallery in larger if len(gallery) > 20_000]
    chosen = beyond[0] if beyond else larger[-1]
    galleries["of a larger mission"] = chosen
    if not quick:
        galleries["synthetic, clustered around those"] = synthetic_gallery(chosen, SYNTHETIC, work)
    found = []
    for name, gallery in galleries.items():
        fingerprint = gallery.manifest.model_fingerprint[:12]
        folder = work / f"indexes-{fingerprint}-{len(gallery)}"
        folder.mkdir(parents=True, exist_ok=True)
        say(f"search: {len(gallery)} tiles")
        row = compare_search(gallery, queries, 20, localizer.threads, folder, plan.search_rounds, missing)
        found.append({"descriptors": name, **row})
    return found


def whole_frames(
    localizer: Localizer,
    taken: list[tuple[FrameRecord, Frame]],
    data: Path,
    rounds: int,
    executor: Executor | None,
    missing: dict[str, str],
) -> dict[str, Any]:
    """Frame to place: ours, correlation with the whole map at two levels of detail, SIFT, XFeat."""
    frames = [frame for _, frame in taken]
    finders: dict[str, Finder] = {OURS: locating(localizer)}
    about: dict[str, dict[str, Any]] = {}

    def add(name: str, make: Callable[[], tuple[Finder, Any]]) -> None:
        say(f"preparing the map: {name}")
        began = time.perf_counter()
        try:
            finders[name], ready = make()
        except CvglError as error:
            missing[name] = error.message
            return
        about[name] = {
            "prepare_s": round(time.perf_counter() - began, 2),
            "map_memory_mb": round(ready.memory_bytes / 1e6, 1),
        }

    for detail, words in ((3, "a third of the detail"), (1, "all detail")):
        add(f"whole-map correlation, {words}", partial(correlating, localizer, frames, detail, executor))
    add("SIFT, every window", lambda: matching(localizer, frames, sift(), executor))
    network = data / "models" / "xfeat_dense.onnx"
    if network.is_file():
        fine = finer_map(data / "flights" / "fengyuan" / "map.tif", XFEAT_GSD_M)
        add(
            f"XFeat, every window at {XFEAT_GSD_M:g} m/px",
            lambda: matching(localizer, frames, xfeat(network, localizer.threads), executor, fine),
        )
    else:
        missing["XFeat"] = "no models/xfeat_dense.onnx in the data folder"
    say("whole frames: measuring")
    return compare_frames(localizer, taken, finders, rounds, about)


def finer_map(file: Path, gsd: float) -> Basemap:
    """A map in grey at another detail than the mission's."""
    with MapSource.open(file) as source:
        west, south, east, north = source.bounds
        width, height = int((east - west) / gsd), int((north - south) / gsd)
        rgb, valid = source.read(west, north, width, height, gsd)
    grey = np.maximum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1)
    grey[~valid] = 0
    return Basemap(grey, gsd, west, north)


def over_area(
    mission: Path,
    missions: Mapping[float, Path],
    photos: Path,
    plan: Plan,
    threads: int,
    executor: Executor | None,
    missing: dict[str, str],
) -> list[dict[str, Any]]:
    """The same frames on maps of growing area, all in one contest: lost, with a prior, and by whole-map correlation."""
    own = Gallery.open(mission / GALLERY)
    west, south, east, north = own.bounds
    opened: dict[float, Localizer] = {}
    for area, path in {(east - west) * (north - south) / 1e6: mission, **missions}.items():
        opened[area] = Localizer.open(path, threads=threads)
    first = next(iter(opened.values()))
    taken = spread(load_work(open_flight(first, photos)), plan.area_frames)
    frames = [frame for _, frame in taken]
    calls: dict[tuple[float, str], Finder] = {}
    for area, localizer in opened.items():
        localizer.camera = first.camera
        calls[area, "lost"] = locating(localizer)
        calls[area, "prior"] = partial(with_prior, locating(localizer), dict(zip(map(id, frames), taken, strict=True)))
        for detail, name in ((3, "whole map, a third"), (1, "whole map, all")):
            if detail == 1 and area > FULL_DETAIL_UP_TO_KM2:
                continue
            say(f"preparing {area:.3g} km2: {name}")
            try:
                calls[area, name] = correlating(localizer, frames, detail, executor)[0]
            except CvglError as error:
                missing[f"{area:.3g} km2: {name}"] = error.message
    say("area: measuring")
    named = {f"{area}|{name}": call for (area, name), call in calls.items()}
    timed = interleave(named, frames, rounds=plan.area_rounds)
    records = [record for record, _ in taken]
    told = rows(timed)
    found = []
    for area, localizer in opened.items():
        row: dict[str, Any] = {
            "area_km2": round(area, 3),
            "tiles": len(localizer.gallery),
            "basemap_px": list(localizer.gallery.basemap.pixels.shape),
            "frames": len(frames),
        }
        for (other, name), _ in calls.items():
            if other == area:
                key = f"{area}|{name}"
                errors = errors_m(records, timed[key].answers, localizer.gallery.local)
                # Rows are ratios to the first contestant: locate(), lost, on the smallest map.
                row[name] = {**told[key], **judge(errors)}
        found.append(row)
    return found


def with_prior(find: Finder, known: dict[int, tuple[FrameRecord, Frame]], frame: Frame) -> Any:
    """A frame with a prior cut from the aircraft's own GNSS: the flight's only use of it."""
    record, _ = known[id(frame)]
    if record.gps_latitude is None or record.gps_longitude is None:
        return find(frame)
    return find(replace(frame, prior=Prior(record.gps_latitude, record.gps_longitude, PRIOR_SIGMA_M)))


def spread(taken: list[tuple[FrameRecord, Frame]], most: int | None) -> list[tuple[FrameRecord, Frame]]:
    """So many frames, evenly over the flight."""
    if most is None or most >= len(taken):
        return taken
    return [taken[index] for index in np.linspace(0, len(taken) - 1, most).round().astype(int)]


def installed() -> dict[str, str]:
    """Versions of the peers that are here."""
    found = {}
    for name in PEER_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def say(what: str) -> None:
    """A line about what is being done."""
    print(what, file=sys.stderr, flush=True)


class _Progress:
    """Lines about long work, one for each tenth of it."""

    def __init__(self) -> None:
        self._said: tuple[str, int] = ("", -1)

    def __call__(self, stage: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if (stage, tenth) != self._said:
            self._said = (stage, tenth)
            say(f"{stage}: {10 * tenth} %")


say_progress = _Progress()


if __name__ == "__main__":
    run_app(app)
