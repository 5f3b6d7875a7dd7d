"""Many flights, in several processes; each is kept as soon as it has landed, so that a run can be taken up again."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cvgl
from cvgl.errors import FlightError, MissionError
from cvgl.files import atomic_path, read_json, write_json
from cvgl.localizer import Localizer
from cvgl.mission import MISSION
from cvgl.sim.closed.baselines import fly_baselines
from cvgl.sim.closed.fly import FRAME_SIDE, Flown, frame_camera, plan, run_flight
from cvgl.sim.closed.ground import Ground, open_ground
from cvgl.sim.closed.rows import ROW, Rows
from cvgl.sim.closed.scenario import Scenario
from cvgl.srt import TelemetryLog, read_srt

__all__ = ["OpenGround", "Run", "Worker", "flight_lengths", "gather", "perform", "save_methods"]

_RUN, _FLIGHTS = "run.json", "flights"

OpenGround = Callable[["Run", Localizer], Ground]


@dataclass(frozen=True)
class Run:
    """A run of flights; what it finds is a function of this and of the mission.

    Args:
        mission: folder.
        scenario: what every flight is like.
        frames: of all flights together.
        flight_frames: of a flight; the last one may be shorter. An interrupted run goes on with the flights that had
            not landed.
        seed: of everything; flight and frame numbers make it other numbers.
        map: to fly over; None for the mission's basemap.
        trajectory: a DJI subtitle log to fly along instead of the scenario's pattern.
        height_m: above ground; None for the mission's.
        side: longest side of the frames, pixels.
        baselines: which methods answer the same frames beside the tracker, see :mod:`cvgl.sim.closed.baselines`.
        xfeat: network for the local features of the baselines; None for SIFT.
    """

    mission: Path
    scenario: Scenario
    frames: int
    flight_frames: int = 500
    seed: int = 0
    map: Path | None = None
    trajectory: Path | None = None
    height_m: float | None = None
    side: int = FRAME_SIDE
    baselines: tuple[str, ...] = ()
    xfeat: Path | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "flight_frames"):
            if getattr(self, name) < 2:
                raise FlightError("not usable", field=name, found=getattr(self, name), expected="2 or more")

    def identity(self) -> dict[str, Any]:
        """What two runs must share for their flights to be the same; files by name and size."""
        found = {**asdict(self), "scenario": self.scenario.to_dict(), "baselines": list(self.baselines)}
        for name in ("map", "trajectory", "xfeat"):
            file = getattr(self, name)
            found[name] = None if file is None else [file.name, file.stat().st_size if file.is_file() else None]
        try:
            found["mission"] = hashlib.sha256((self.mission / MISSION).read_bytes()).hexdigest()[:16]
        except OSError:
            raise MissionError("no mission there", file=self.mission / MISSION) from None
        # More frames are more flights of the same kind; other code may answer otherwise.
        del found["frames"]
        found["code"] = code_fingerprint()
        return dict(json.loads(json.dumps(found)))


@cache
def code_fingerprint() -> str:
    """SHA-256 of the package's sources and compiled core, in hexadecimal: what answers depend on beside the mission."""
    root = Path(cvgl.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(file for pattern in ("*.py", "*.so") for file in root.rglob(pattern)):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def flight_lengths(frames: int, flight_frames: int) -> list[int]:
    """Frames of each flight; what is left over for a flight too short to be one joins the last."""
    full, rest = divmod(frames, flight_frames)
    lengths = [flight_frames] * full
    if rest >= 2 or not lengths:
        lengths.append(rest)
    else:
        lengths[-1] += rest
    return lengths


def perform(
    run: Run,
    out: str | Path,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    open_map: OpenGround | None = None,
) -> dict[str, Rows]:
    """Fly what has not been flown yet, and give the rows of all flights.

    Args:
        run: what to fly.
        out: folder that keeps the flights; one that holds another run's is refused.
        jobs: processes; what is found does not depend on them.
        progress: called with frames done and frames in all.
        open_map: makes the ground, for maps that are no file; must be importable by its name.

    Returns:
        Rows by method: ``track``, and the baselines asked for.

    Raises:
        FlightError: the folder holds another run, with the first field that differs.
        CvglError: mission, map or trajectory cannot be used.
    """
    out = Path(out)
    _claim(out, run)
    lengths = flight_lengths(run.frames, run.flight_frames)
    # Two flights of one number may differ in length between runs of different numbers of frames.
    files = [out / _FLIGHTS / f"{number:05d}-{length}.npz" for number, length in enumerate(lengths)]
    waiting = [number for number, file in enumerate(files) if not file.is_file()]
    done = sum(length for number, length in enumerate(lengths) if number not in set(waiting))
    report = progress or (lambda _done, _total: None)
    report(done, run.frames)
    if waiting and min(jobs, len(waiting)) <= 1:
        worker = Worker(run, open_map)
        for number in waiting:
            counted = map(report, itertools.count(done + 1), itertools.repeat(run.frames))
            worker.fly(number, lengths[number], files[number], partial(next, counted))
            done += lengths[number]
    elif waiting:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start, (run, open_map)) as pool:
            futures = {pool.submit(_fly, number, lengths[number], files[number]): number for number in waiting}
            for future in as_completed(futures):
                future.result()
                done += lengths[futures[future]]
                report(done, run.frames)
    return gather(files)


def save_methods(path: Path, methods: dict[str, Rows]) -> None:
    """Write rows by method as a compressed ``npz``."""
    arrays: dict[str, Any] = dict(methods)
    np.savez_compressed(path, **arrays)


def gather(files: list[Path]) -> dict[str, Rows]:
    """The rows of some flights, by method.

    Raises:
        FlightError: a file is damaged or of another version.
    """
    parts: dict[str, list[Rows]] = {}
    for file in files:
        try:
            with np.load(file) as kept:
                for name in kept.files:
                    if kept[name].dtype != ROW:
                        raise ValueError("other columns")
                    parts.setdefault(name, []).append(kept[name])
        except (OSError, ValueError, KeyError) as reason:
            raise FlightError(f"not a flight of this version: {reason}", file=file) from reason
    return {name: np.concatenate(rows) for name, rows in parts.items()}


class Worker:
    """What one process needs to fly: opened once.

    Args:
        run: what is flown.
        open_map: see :func:`perform`.
    """

    def __init__(self, run: Run, open_map: OpenGround | None = None) -> None:
        cv2.setNumThreads(1)
        self.run = run
        self.localizer = Localizer.open(run.mission, threads=1)
        camera = frame_camera(self.localizer.camera, run.side)
        height = self.localizer.mission.height_m if run.height_m is None else run.height_m
        gallery = self.localizer.gallery
        self.ground: Ground = (
            open_ground(run.map, gallery.basemap, gallery.local, camera, height)
            if open_map is None
            else open_map(run, self.localizer)
        )
        self.log: TelemetryLog | None = None if run.trajectory is None else read_srt(run.trajectory)

    def plan(self, number: int, frames: int) -> Flown:
        """The flight of a number."""
        run = self.run
        return plan(
            self.localizer,
            self.ground,
            run.scenario,
            seed=run.seed,
            number=number,
            frames=frames,
            height_m=run.height_m,
            log=self.log,
            side=run.side,
        )

    def fly(self, number: int, frames: int, file: Path, on_frame: Callable[[], object] | None = None) -> None:
        """Fly it and keep it."""
        run, flown = self.run, self.plan(number, frames)
        # Baselines take longer than the tracker, so theirs are the frames that are counted.
        found = {"track": run_flight(self.localizer, flown, None if run.baselines else on_frame)}
        if run.baselines:
            found |= fly_baselines(self.localizer, flown, run.baselines, run.xfeat, on_frame)
        with atomic_path(file) as temporary:
            save_methods(temporary, found)


def _claim(out: Path, run: Run) -> None:
    """Note whose flights these are, or see that they are ours."""
    identity = run.identity()
    file = out / _RUN
    if file.is_file():
        there = read_json(file, FlightError)
        for name, value in identity.items():
            if there.get(name) != value:
                raise FlightError(
                    "the folder holds another run", file=out, field=name, found=there.get(name), expected=repr(value)
                )
    else:
        (out / _FLIGHTS).mkdir(parents=True, exist_ok=True)
        write_json(file, identity)


_worker: Worker | None = None


def _start(run: Run, open_map: OpenGround | None) -> None:
    global _worker
    _worker = Worker(run, open_map)


def _fly(number: int, frames: int, file: Path) -> None:
    if _worker is None:
        raise FlightError("a process that was not made ready", field="worker", found=os.getpid())
    _worker.fly(number, frames, file)
