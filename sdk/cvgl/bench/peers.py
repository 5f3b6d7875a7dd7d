"""``cvgl-bench --compare``: this mission on this machine beside what else can be used for the same work.

Three contests, each in interleaved rounds over the same frames: from a frame to a descriptor, from a descriptor to the
nearest tiles, from a frame to its place on the map. A peer whose library is not installed is named with the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.bench.peers_embed import Task, as_flown, fine_chain, input_as_flown, onnx_as_it_comes, plain_chain
from cvgl.bench.peers_features import Detector, sift
from cvgl.bench.peers_features import xfeat as read_xfeat
from cvgl.bench.peers_frame import Finder, correlating, errors_m, judge, locating, matching
from cvgl.bench.peers_search import (
    CONTESTANTS,
    Search,
    build_searcher,
    exact_similarity,
    library_version,
    loading,
    open_searcher,
    recall,
)
from cvgl.bench.peers_timing import Interval, Timed, interleave, ratio
from cvgl.crew import Crew
from cvgl.errors import CvglError, FlightError, FrameError, MissingDependencyError
from cvgl.flight import Flight, FrameRecord
from cvgl.frame import Frame
from cvgl.gallery import Gallery
from cvgl.localizer import Localizer

__all__ = [
    "OURS",
    "Work",
    "compare",
    "compare_embedding",
    "compare_frames",
    "compare_search",
    "crew",
    "load_work",
    "rows",
    "show",
]

OURS = "cvgl"
_CORRELATION = {3: "whole map, a third of the detail", 1: "whole map, all detail"}

Work = Sequence[tuple[FrameRecord, Frame]]
"""Frames, decoded, with what is known of them."""

Say = Callable[[str], None]


def compare(
    localizer: Localizer,
    flight: Flight,
    *,
    frames: int | None = 10,
    rounds: int = 3,
    xfeat: Path | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Ours and its peers on a user's mission and flight.

    Args:
        localizer: the localiser, with the flight's camera.
        flight: the flight; only frames with a heading take part, since most peers need one.
        frames: how many of them, from the first; None for all.
        rounds: over the frames.
        xfeat: the network of XFeat as an ONNX file, if it is to take part.
        say: called with what is being done.

    Returns:
        ``embedding``, ``search`` and ``frame``: by contestant ``p50_ms``, ``p95_ms`` and ``ratio``, how many times
        longer than ours it takes (``value`` and its 95 % interval ``low``, ``high``), and ``processor_p50_ms`` and
        ``processor_ratio``, the same of all processors' time; of search also ``recall``,
        ``load_ms``, ``memory_mb`` and ``build_s``, of whole frames accuracy as :func:`cvgl.bench.peers_frame.judge`
        has it. ``missing``: who did not take part, and why. ``libraries``: versions. ``frames``, ``rounds``.

    Raises:
        FlightError: no frame that can be read has a heading.
    """
    said: Say = say or (lambda what: None)
    work = load_work(flight, frames)
    cv2.setNumThreads(localizer.threads)
    missing: dict[str, str] = {}
    said("embedding")
    embedding, descriptors = compare_embedding(localizer, [frame for _, frame in work], rounds)
    said("search")
    gallery, k = localizer.gallery, localizer.mission.settings.candidates
    with TemporaryDirectory() as folder:
        search = compare_search(gallery, descriptors, k, localizer.threads, Path(folder), 10 * rounds, missing)
    with crew(localizer.threads) as executor:
        finders = _finders(localizer, [frame for _, frame in work], executor, xfeat, missing, said)
        said("whole frames")
        frame = compare_frames(localizer, work, finders, rounds)
    return {
        "frames": len(work),
        "rounds": rounds,
        "threads": localizer.threads,
        "embedding": embedding,
        "search": search,
        "frame": frame,
        "missing": missing,
        "libraries": {name: library_version(name) for name in _importable()},
    }


def crew(threads: int) -> contextlib.AbstractContextManager[Executor | None]:
    """Threads for peers, as ours has them; None where there is but one."""
    return Crew(threads) if threads > 1 else contextlib.nullcontext()


def load_work(flight: Flight, most: int | None = None) -> list[tuple[FrameRecord, Frame]]:
    """The first colour frames of a flight that can be read and have a heading, decoded.

    Raises:
        FlightError: there is none.
    """
    found: list[tuple[FrameRecord, Frame]] = []
    for record in flight:
        if most is not None and len(found) == most:
            break
        try:
            frame = record.load()
            frame.check()
        except FrameError:
            continue
        if frame.heading is not None and frame.layout == "bgr":
            found.append((record, frame))
    if not found:
        raise FlightError("no frame that can be read has a heading", file=flight.path)
    return found


def compare_search(
    gallery: Gallery,
    queries: NDArray[np.float32],
    k: int,
    threads: int,
    folder: Path,
    rounds: int,
    missing: dict[str, str],
) -> dict[str, Any]:
    """The gallery's search beside other libraries over the same descriptors, a query at a time.

    Args:
        gallery: whose descriptors are searched.
        queries: (B, D) of unit length.
        k: how many tiles a query wants.
        threads: of every contestant that takes a number; ours searches with one.
        folder: where the peers' indexes are written; those that are there are used again.
        rounds: over the queries.
        missing: reasons are added for who cannot take part.
    """
    k = min(k, len(gallery))
    about: dict[str, dict[str, Any]] = {}
    searchers = {}
    for name in CONTESTANTS:
        file = folder / f"{name.replace(' ', '-').replace(',', '')}.index"
        try:
            library_version(CONTESTANTS[name])
            built = None
            if name != OURS and not file.is_file():
                built = round(build_searcher(name, np.asarray(gallery.descriptors, np.float32), file, threads), 2)
            source = gallery if name == OURS else file
            about[name] = {"build_s": built, **loading(name, gallery.path if name == OURS else file, k, threads)}
            searchers[name] = open_searcher(name, source, k, threads).search
        except MissingDependencyError as error:
            missing[name] = error.message
    calls = {name: partial(_one, search, queries) for name, search in searchers.items()}
    timed = interleave(calls, range(len(queries)), rounds=rounds, pause_s=0.0005)
    stored = np.asarray(gallery.descriptors)
    kth = exact_similarity(queries, stored, k)
    for name, done in timed.items():
        about[name]["recall"] = round(recall(np.concatenate(done.answers), queries, stored, kth), 4)
    return {"tiles": len(gallery), "k": k, "queries": len(queries), "contestants": rows(timed, about)}


def compare_frames(
    localizer: Localizer,
    work: Work,
    finders: Mapping[str, Finder],
    rounds: int,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    on_item: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Whole frames: ours is the first of the finders.

    Args:
        localizer: its tangent plane is the finders'.
        work: the frames.
        finders: by name.
        rounds: over the frames.
        about: what else to say of a finder.
        on_item: called when a frame has been placed by all.
    """
    timed = interleave(finders, [frame for _, frame in work], rounds=rounds, on_item=on_item)
    records = [record for record, _ in work]
    local = localizer.gallery.local
    judged = {name: judge(errors_m(records, done.answers, local)) for name, done in timed.items()}
    told = {name: {**judged[name], **dict((about or {}).get(name, {}))} for name in timed}
    return {"frames": len(work), "contestants": rows(timed, told)}


def rows(timed: Mapping[str, Timed], about: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Times and ratios by contestant, ours being the first."""
    own = next(iter(timed.values()))
    return {
        name: {
            "p50_ms": round(done.p50, 4),
            "p95_ms": round(done.p95, 4),
            "ratio": _rounded(ratio(done.milliseconds, own.milliseconds)),
            "processor_p50_ms": round(float(np.median(done.processor_ms)), 4),
            "processor_ratio": _rounded(ratio(done.processor_ms, own.processor_ms)),
            **dict((about or {}).get(name, {})),
        }
        for name, done in timed.items()
    }


def _rounded(interval: Interval) -> dict[str, float]:
    return {key: round(value, 4) for key, value in asdict(interval).items()}


def show(result: dict[str, Any], console: Any) -> None:
    """The comparison as tables.

    Args:
        result: of :func:`compare`.
        console: of rich.
    """
    from rich.table import Table

    for contest, title in (("embedding", "frame to descriptor"), ("search", "search"), ("frame", "frame to place")):
        table = Table(title=title)
        table.add_column("contestant")
        extra = {"search": ("recall", "memory_mb", "load_ms"), "frame": ("within_10m", "median_m")}.get(contest, ())
        for name in ("times ours", "p50 ms", "p95 ms", *extra):
            table.add_column(name.replace("_", " "), justify="right")
        for name, row in result[contest]["contestants"].items():
            times = row["ratio"]
            interval = f"{times['value']:.3g} ({times['low']:.3g} to {times['high']:.3g})"
            more = ["" if row.get(field) is None else f"{row[field]:g}" for field in extra]
            table.add_row(name, interval, f"{row['p50_ms']:.3g}", f"{row['p95_ms']:.3g}", *more)
        console.print(table)
    for name, reason in result["missing"].items():
        console.print(f"{name} did not take part: {reason}")


def _one(search: Search, queries: NDArray[np.float32], at: int) -> NDArray[np.int64]:
    return search(queries[at : at + 1])


def compare_embedding(
    localizer: Localizer,
    frames: Sequence[Frame],
    rounds: int,
    more: Mapping[str, Callable[[Frame], NDArray[np.float32]]] | None = None,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Frame to descriptor: as flown, and with OpenCV's warps and ONNX Runtime's default settings.

    Args:
        localizer: its camera and model.
        frames: with headings.
        rounds: over the frames.
        more: contestants beside these, each from a frame to its descriptor (D,).

    Returns:
        The contest, and our descriptors (N, D).
    """
    task = Task(localizer)
    flown, session = as_flown(task), onnx_as_it_comes(task)
    warp, plain, fine = input_as_flown(task), plain_chain(task), fine_chain(task)
    calls: dict[str, Callable[[Frame], Any]] = {
        OURS: flown,
        "our warp, ONNX Runtime as it comes": lambda frame: session(warp(frame)),
        "OpenCV bilinear (aliases), ONNX Runtime as it comes": lambda frame: session(plain(frame)),
        "OpenCV antialiased, ONNX Runtime as it comes": lambda frame: session(fine(frame)),
        **(more or {}),
    }
    timed = interleave(calls, frames, rounds=rounds, pause_s=0.02)
    own = np.stack(timed[OURS].answers)
    about = {
        name: {"cosine_to_ours": round(float(np.mean(np.sum(np.stack(done.answers) * own, axis=1))), 4)}
        for name, done in timed.items()
    }
    return {"frames": len(frames), "contestants": rows(timed, about)}, own


def _finders(
    localizer: Localizer,
    frames: Sequence[Frame],
    executor: Executor | None,
    xfeat: Path | None,
    missing: dict[str, str],
    say: Say,
) -> dict[str, Finder]:
    found: dict[str, Finder] = {OURS: locating(localizer)}
    makers: dict[str, Callable[[], Finder]] = {
        name: partial(_correlating, localizer, frames, detail, executor) for detail, name in _CORRELATION.items()
    }
    detectors: dict[str, Callable[[], Detector]] = {"SIFT, every window": sift}
    if xfeat is not None:
        network = xfeat
        detectors["XFeat, every window"] = lambda: read_xfeat(network, localizer.threads)
    for name, detector in detectors.items():
        makers[name] = partial(_matching, localizer, frames, detector, executor)
    for name, make in makers.items():
        say(f"{name}: preparing the map")
        try:
            found[name] = make()
        except CvglError as error:
            missing[name] = error.message
    return found


def _correlating(localizer: Localizer, frames: Sequence[Frame], detail: int, executor: Executor | None) -> Finder:
    return correlating(localizer, frames, detail, executor)[0]


def _matching(
    localizer: Localizer, frames: Sequence[Frame], detector: Callable[[], Detector], executor: Executor | None
) -> Finder:
    return matching(localizer, frames, detector(), executor)[0]


def _importable() -> list[str]:
    names = []
    for library in dict.fromkeys(CONTESTANTS.values()):
        try:
            library_version(library)
            names.append(library)
        except CvglError:
            continue
    return [*names, "onnxruntime", "cv2"]
