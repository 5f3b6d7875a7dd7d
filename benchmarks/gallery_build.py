"""`gallery.py build`: building a gallery against the engine alone, in processor time and in seconds."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, write_record

import cvgl
from cvgl.bench.machine import machine
from cvgl.gallery import build_gallery
from cvgl.gallery.embedding import BATCH
from cvgl.imagery import MapSource
from cvgl.model import Model

__all__ = ["build"]

_TILE_M = 77.0


def _threads() -> dict[str, float]:
    """Processor seconds of each thread of this process, by its number; empty where the system does not tell."""
    found = {}
    for task in Path("/proc/self/task").glob("*/schedstat"):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            found[task.parent.name] = int(task.read_text().split()[0]) / 1e9
    return found


class _Watched:
    """A model that counts how long its network runs, and keeps what it was given.

    Attributes:
        seconds, processor: of the network, by the clock, and of the processor in the caller's thread and its own.
    """

    def __init__(self, model: Model, keep: int, own: set[str]) -> None:
        self._model, self._keep, self._own = model, keep, own
        self.kept: list[NDArray[np.float32]] = []
        self.seconds, self.processor, self.tiles = 0.0, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_inputs(self, inputs: NDArray[np.float32], view: str = "query") -> NDArray[np.float32]:
        """As :meth:`cvgl.Model.embed_inputs`."""
        if len(self.kept) < self._keep and len(inputs) == BATCH:
            self.kept.append(inputs.copy())
        began, before = time.perf_counter(), self._spent()
        found = self._model.embed_inputs(inputs, view)
        self.processor += self._spent() - before
        self.seconds += time.perf_counter() - began
        self.tiles += len(inputs)
        return found

    def _spent(self) -> float:
        return sum(spent for thread, spent in _threads().items() if thread in self._own)


@dataclass
class _Spent:
    """Milliseconds a tile, of each round: on the clock, and of all processors."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, wall: float, processor: float, tiles: int) -> None:
        self.wall.append(1e3 * wall / tiles)
        self.processor.append(1e3 * processor / tiles)


def _alone(model: Model, kept: list[NDArray[np.float32]], tiles: int, spent: _Spent) -> None:
    began, processor, done = time.perf_counter(), time.process_time(), 0
    while done < tiles:
        model.embed_inputs(kept[done // BATCH % len(kept)], "reference")
        done += BATCH
    spent.add(time.perf_counter() - began, time.process_time() - processor, done)


def build(
    map_path: Annotated[Path, typer.Argument(metavar="MAP", help="Anything that cvgl-gallery build takes.")],
    model_path: Annotated[Path | None, typer.Option("--model", help="Bundle; the one that ships.")] = None,
    stride: Annotated[float, typer.Option(help="Metres from tile to tile.")] = 10.0,
    threads: Annotated[int, typer.Option(help="Of the network.")] = 2,
    rounds: Annotated[int, typer.Option(help="Build and engine alone by turns; the medians count.")] = 3,
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Tiles a second of a build, from the map's file, and of the network alone on the same tensors, in one run.

    On a machine that does other work at the same time seconds say little; processor time still tells what a build adds
    to its network.
    """
    bundle = model_path or Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl"
    model = Model.open(bundle, threads, views=("reference",))
    # As yet there are no threads but the caller's and the network's.
    own = set(_threads())
    built, whole, alone, busy, shares, tiles = _Spent(), _Spent(), _Spent(), [], [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds):
            watched = _Watched(model, 8, own)
            marks: list[tuple[float, float]] = []

            def tell(stage: str, done: int, total: int, marks: list[tuple[float, float]] = marks) -> None:
                if stage == "tiles":
                    marks.append((time.perf_counter(), time.process_time()))

            # Opened anew, so that what an earlier round decoded helps no later one.
            with MapSource.open(map_path) as source:
                began, processor = time.perf_counter(), time.process_time()
                build_gallery(
                    source,
                    watched,  # type: ignore[arg-type]
                    Path(scratch) / "x.gallery",
                    tile_size_m=_TILE_M,
                    stride_m=stride,
                    basemap_gsd_m=max(source.native_gsd, 0.3),
                    progress=tell,
                )
            tiles = watched.tiles
            whole.add(time.perf_counter() - began, time.process_time() - processor, tiles)
            # From the first reading of the map to the last descriptor on disk.
            built.add(marks[-1][0] - began, marks[-1][1] - processor, tiles)
            busy.append(watched.seconds / (marks[-1][0] - began))
            shares.append(watched.processor / (marks[-1][1] - processor))
            _alone(model, watched.kept, tiles, alone)
    about = machine()
    data = {
        "commit": commit(), "machine": about, "map": map_path.name, "model": model.name, "runtime": model.runtime,
        "threads": threads, "tiles": tiles, "stride_m": stride, "build_ms": vars(built), "engine_ms": vars(alone),
        "whole_ms": vars(whole),
        "engine_busy": busy, "engine_share": shares,
        "ratio": float(np.median(alone.wall) / np.median(built.wall)),
        "processor_ratio": float(np.median(alone.processor) / np.median(built.processor)),
    }  # fmt: skip
    rows = [
        ("build: read, cut, normalise, embed, write", built),
        ("the network alone on ready tensors", alone),
        ("the whole build: index, basemap and overview too", whole),
    ]
    page = "\n".join(
        [
            "# Building a gallery against the engine alone",
            "",
            f"{about['processor']}, {about['cores']} cores, commit {data['commit']}; {tiles} tiles of {map_path.name}"
            f" every {stride:g} m, {model.name} by {model.runtime}, {rounds} rounds by turns, medians.",
            "",
            "| | tiles a second | processor time a tile, ms |",
            "| --- | ---: | ---: |",
            *(
                f"| {name} | {1e3 / np.median(spent.wall):.0f} | {np.median(spent.processor):.2f} |"
                for name, spent in rows
            ),
            "",
            f"The build reaches **{data['ratio']:.1%}** of the network alone (asked: 90 %) by the clock, and"
            f" {data['processor_ratio']:.1%} by processor time. The network runs {np.median(busy):.0%} of the time, and"
            f" within one build its threads take **{np.median(shares):.1%}** of the processor time: other work on the"
            " machine, which lengthens the two by turns unequally, hardly changes that.",
            "",
        ]
    )
    write_record(out, on_machine("gallery-build", about), data, page)
