"""What only shows over many frames, in two threads, and at the start of a large mission.

    python benchmarks/endurance.py                                # about an hour on a quiet machine
    python benchmarks/endurance.py --frames 5000 --rounds 5       # an impression
    python benchmarks/endurance.py --only starts --only threads   # what wants a quiet machine; the rest is kept

- Memory: a localiser answers 100 000 small frames, by itself and as a sequence in turn; what the process holds and how
  many blocks Python holds must not grow.
- Two threads: two localisers, each computing with one thread, against one.
- Cold start: from the start of a process to its first fix, with a mission of 100 000 tiles, the files in the system's
  memory or on the disk. Asked for: less than a second.
- Beside it, the same with a mission of a few hundred tiles: what the tiles cost.

The missions are procedural (`large_mission.py`), made once under ``--work``, which takes some minutes.
"""

from __future__ import annotations

import enum
import os
import statistics
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from large_mission import CAMERA_640, make_mission
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record
from rich.progress import Progress

from cvgl.bench import allocated_mb, cold_start, load_frames, machine, open_flight, two_threads
from cvgl.bench.spread import growth, spread
from cvgl.bench.start import PARTS
from cvgl.camera import Camera
from cvgl.errors import MissionError
from cvgl.files import read_json
from cvgl.localizer import Localizer
from cvgl.versions import versions

ASKED_MS = 1000.0
SAMPLES = 1000
SMALL_TILES = 500
# A frame that takes a fifth of a full one's time, and the same way through the code.
SMALL_CAMERA = Camera.from_field_of_view(320, 240, 62.0)
SMALL_BASEMAP_PIXELS = 80

app = typer.Typer(add_completion=False)


class Part(str, enum.Enum):
    """What can be measured by itself."""

    MEMORY = "memory"
    STARTS = "starts"
    THREADS = "threads"


@app.command()
def endurance(
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
    work: Annotated[Path, typer.Option(help="Missions are made here, and used again.")] = ROOT / "build" / "endurance",
    frames: Annotated[int, typer.Option(min=100, help="Frames of the memory test.")] = 100_000,
    tiles: Annotated[int, typer.Option(min=100, help="Tiles of the large mission.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of the two threads, and cold starts of each kind.")] = 15,
    only: Annotated[
        list[Part] | None, typer.Option(help="Parts to measure; repeat for several. The others stay in the record.")
    ] = None,
) -> None:
    """Memory over many frames, two localisers in two threads, and the cold start of a large mission."""
    about = machine()
    file = out / f"{on_machine('endurance', about)}.json"
    result: dict[str, Any] = read_json(file, MissionError) if only and file.is_file() else {"parts": {}}
    parts = list(dict.fromkeys(only or Part))

    def begun() -> dict[str, Any]:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {"date": date, "commit": commit(), "load_average": round(os.getloadavg()[0], 2)}

    with Progress() as progress:

        def made(stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"missions: {stage}", completed=done, total=total)

        task = progress.add_task("missions", total=None)
        small, small_flight = make_mission(work / "small", SMALL_TILES, camera=CAMERA_640, progress=made)
        tiny, tiny_flight = make_mission(
            work / "tiny", SMALL_TILES, camera=SMALL_CAMERA, basemap_pixels=SMALL_BASEMAP_PIXELS, progress=made
        )
        large, large_flight = make_mission(work / f"large-{tiles}", tiles, camera=CAMERA_640, progress=made)
        progress.update(task, description="missions", completed=1, total=1)
        # First: what a larger mission leaves free in this process would hide what these frames take.
        if Part.MEMORY in parts:
            task = progress.add_task("memory", total=frames)
            result["parts"][Part.MEMORY.value] = {**begun(), **remember(tiny, tiny_flight, frames, progress, task)}
        if Part.STARTS in parts:
            about_it, starts = begun(), {}
            task = progress.add_task("cold starts", total=4 * rounds)
            for name, mission, flight in (("small", small, small_flight), ("large", large, large_flight)):
                for from_disk in (False, True):
                    start = cold_start(
                        mission, flight, repeat=rounds, from_disk=from_disk, on_start=lambda: progress.advance(task)
                    )
                    starts[f"{name} {'from disk' if from_disk else 'in memory'}"] = {
                        **start,
                        "total": spread(start["totals_ms"]),
                    }
            missions = {name: described(mission) for name, mission in (("small", small), ("large", large))}
            result["parts"][Part.STARTS.value] = {**about_it, "rounds": rounds, "missions": missions, "starts": starts}
        if Part.THREADS in parts:
            task = progress.add_task("two threads", total=rounds)
            localizer = Localizer.open(small, threads=1)
            held = load_frames(open_flight(localizer, small_flight), 8)
            about_it = begun()
            pair = two_threads(small, held, rounds=rounds, on_round=lambda: progress.advance(task))
            result["parts"][Part.THREADS.value] = {**about_it, **pair}
    result |= {"machine": about, "versions": versions()}
    write_record(out, file.stem, result, as_markdown(result))


def described(mission: Path) -> dict[str, Any]:
    """How large a mission is."""
    manifest = Localizer.open(mission, threads=1).gallery.manifest
    west, south, east, north = manifest.bounds
    return {
        "tiles": manifest.count,
        "km2": round((east - west) * (north - south) / 1e6, 2),
        "gallery_mb": round(manifest.bytes_on_disk / 1e6, 1),
        "basemap": asdict(manifest.basemap),
    }


def remember(mission: Path, flight: Path, count: int, progress: Progress, task: Any) -> dict[str, Any]:
    """One localiser over many frames: what the process and Python hold, sampled at equal distances."""
    localizer = Localizer.open(mission, threads=1)
    held = load_frames(open_flight(localizer, flight))
    every = max(1, count // SAMPLES)
    counts: dict[str, int] = {}
    # Written in place, and the bar moved seldom: what watches must not grow itself.
    samples = np.zeros((2, count // every))
    began = time.perf_counter()
    for number in range(count):
        lap, index = divmod(number, len(held))
        if index == 0:
            localizer.reset()
        # Every other lap is flown as a sequence, from an unknown start.
        fix = localizer.track(held[index]) if lap % 2 else localizer.locate(held[index])
        counts[fix.status.value] = counts.get(fix.status.value, 0) + 1
        del fix
        if (number + 1) % every == 0:
            samples[:, number // every] = allocated_mb() or np.nan, sys.getallocatedblocks()
        if (number + 1) % max(1, count // 50) == 0:
            progress.update(task, completed=number + 1)
    seconds = time.perf_counter() - began
    megabytes, blocks = samples
    known = bool(np.isfinite(megabytes).all())

    def by_thousand(series: NDArray[np.float64]) -> dict[str, float] | None:
        grown = growth(series)
        return None if grown is None else {name: round(1000 * value / every, 4) for name, value in grown.items()}

    warm = megabytes[len(megabytes) // 5 :]
    return {
        "frames": count,
        "counts": counts,
        "frames_per_s": round(count / seconds, 2),
        "every": every,
        "allocated_mb": {
            "first": float(megabytes[0]),
            "after_warm_up": float(warm[0]),
            "last": float(warm[-1]),
            "least": float(warm.min()),
            "most": float(warm.max()),
        }
        if known
        else None,
        "growth_mb_per_1000": by_thousand(megabytes) if known else None,
        "growth_blocks_per_1000": by_thousand(blocks),
        "series_mb": megabytes[:: max(1, len(megabytes) // 100)].tolist() if known else None,
    }


def as_markdown(result: dict[str, Any]) -> str:
    """The record as a page; a part that was never measured is left out."""
    about, parts = result["machine"], result["parts"]
    pages = {Part.MEMORY: _memory_page, Part.STARTS: _starts_page, Part.THREADS: _threads_page}
    lines = [
        "# Endurance",
        "",
        f"{about['processor']}, {about['cores']} cores. Timings taken beside other work are upper bounds.",
        "",
    ]
    for part, page in pages.items():
        if (found := parts.get(part.value)) is not None:
            title, *rest = page(found)
            said = f"{found['date'][:10]}, commit {found['commit']}, load average {found['load_average']} at first."
            lines += [f"## {title}", "", said, "", *rest, ""]
    return "\n".join(lines)


def _memory_page(memory: dict[str, Any]) -> list[str]:
    grown, blocks, held = (memory[name] for name in ("growth_mb_per_1000", "growth_blocks_per_1000", "allocated_mb"))
    return [
        "Memory over many frames",
        f"{memory['frames']} frames by one localiser with one thread, {memory['frames_per_s']:.1f} a second, every"
        f" other lap as a sequence: {', '.join(f'{number} {status}' for status, number in memory['counts'].items())}.",
        "",
        "| after a warm-up of a fifth | in 1000 frames | 95 % interval |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {values['slope']:.{digits}f} | {values['low']:.{digits}f} to {values['high']:.{digits}f} |"
            for name, values, digits in (("memory, MB", grown, 3), ("blocks that Python holds", blocks, 2))
            if values is not None
        ),
        "",
        "This system does not tell what a process holds."
        if held is None
        else f"The process held {held['after_warm_up']:.1f} MB after the warm-up and {held['last']:.1f} MB at the end,"
        f" {held['least']:.1f} to {held['most']:.1f} MB in between (mapped files not counted).",
    ]


def _threads_page(pair: dict[str, Any]) -> list[str]:
    return [
        "Two localisers in two threads",
        f"One delivers {pair['one']:.1f} frames a second with one thread, two at once {pair['two']:.1f}:"
        f" **{pair['scaling']['p50']:.2f} times** (95 % {pair['scaling']['p50_low']:.2f} to"
        f" {pair['scaling']['p50_high']:.2f}, {pair['rounds']} rounds in turn).",
    ]


def _starts_page(found: dict[str, Any]) -> list[str]:
    large, small = found["missions"]["large"], found["missions"]["small"]
    return [
        "Process start to first fix",
        f"The large mission has {large['tiles']} tiles, {large['km2']:.0f} km², {large['gallery_mb']:.0f} MB;"
        f" the small one {small['tiles']} tiles. Milliseconds, the median run of {found['rounds']};"
        f" asked for: {ASKED_MS:.0f}.",
        "",
        "| | total | 95 % of the median | fastest | processor | "
        + " | ".join(part.removesuffix("_ms").replace("_", " ") for part in PARTS)
        + " | answer | MB |",
        "| --- |" + " ---: |" * (len(PARTS) + 4) + " --- | ---: |",
        *(
            f"| {name} | {start['total_ms']:.0f} | {start['total']['p50_low']:.0f} to {start['total']['p50_high']:.0f}"
            f" | {min(start['totals_ms']):.0f} | {start['processor_ms']:.0f} | "
            + " | ".join(f"{start[part]:.0f}" for part in PARTS)
            + f" | {start['status']} | {start['peak_memory_mb'] or 0:.0f} |"
            for name, start in found["starts"].items()
        ),
        "",
        "`processor` is what all threads of the process took of the processors: what the start costs, whatever else"
        " the machine does. The median over all four rows of the share that starting the interpreter and importing"
        f" take is {statistics.median(_loading(start) for start in found['starts'].values()):.0%}.",
    ]


def _loading(start: dict[str, Any]) -> float:
    return float((start["interpreter_ms"] + start["import_ms"]) / start["total_ms"])


if __name__ == "__main__":
    run_app(app)
