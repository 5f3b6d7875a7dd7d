"""``cvgl-bench``: how fast a mission localises a flight on this machine, of what parts, and how far from the limit."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvgl.cli.common import main
from cvgl.cli.locate import mission_fingerprint, parse_heading
from cvgl.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app", "app_main"]

_COLD_STARTS = 3
_THREAD_ROUNDS = 5
_THREAD_FRAMES = 8
_HELD = 32

app = typer.Typer(add_completion=False)


@app.command()
def bench(
    mission: Annotated[Path, typer.Argument(metavar="MISSION", help="The mission folder, as cvgl-prepare made it.")],
    flight: Annotated[
        Path,
        typer.Argument(metavar="FLIGHT", help="A folder with frames/ and frames.csv, a folder of photos, or a photo."),
    ],
    frames: Annotated[
        int | None, typer.Option(min=1, help="Use the first N frames.", show_default="all", metavar="N")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds over the frames.")] = 3,
    track: Annotated[
        bool,
        typer.Option("--track", help="Time each frame as the next of a sequence too, searched around a prior."),
    ] = False,
    height: Annotated[
        float | None, typer.Option(min=1.0, help="Metres above ground, for frames that do not tell theirs.")
    ] = None,
    heading: Annotated[
        str | None,
        typer.Option(
            metavar="DEG|unknown", help="For frames that do not tell theirs; 'unknown' ignores recorded ones too."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with.", show_default="the localiser's own")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures to this file as well.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", dir_okay=False, metavar="FILE.svg", help="Draw them into this file.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Measure what else could do the same work on this mission too: see below."),
    ] = False,
    xfeat: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="With --compare: match XFeat's local features too.", dir_okay=False),
    ] = None,
) -> None:
    """Time localisation on this machine: every stage, a cold start, memory,
    frames a second, and how far each stage is from what the machine can do.

    Every frame is located as if it were the first; decoding the picture is timed
    beside it. Stop other work first: the machine's load is recorded with the
    figures, not subtracted from them.

    How to read it: p50 is the median, with the interval that holds it in 95 of
    100 repetitions of the measurement. The limit of a stage is the time its
    arithmetic or its memory traffic takes at the best rates that were measured
    here for a matrix product and for moving memory; "3.0 compute" takes three
    times as long as the arithmetic alone would. A stage whose limit is not known
    says why in the JSON. "two threads" is what a second localiser in a second
    thread adds: 2.0 is twice as many frames.

    --compare puts peers beside ours, each doing every frame in turn: OpenCV's
    warp and ONNX Runtime as it comes; numpy, faiss and usearch where they are
    installed; correlation with the whole map and SIFT in every window of it. It
    takes minutes, and only frames with a heading take part.

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing,
    4 bad input.

    Example: cvgl-bench mission flight --track --json bench.json --figure bench.svg
    """
    if heading is not None:
        direction = parse_heading(heading)
        heading = "unknown" if direction is None else f"{direction:g}"
    if figure is not None and figure.suffix.lower() != ".svg":
        raise typer.BadParameter(f"{figure} is not a name that ends in .svg", param_hint="--figure")
    from rich.console import Console

    console = Console(stderr=True)
    if xfeat is not None and not compare:
        raise typer.BadParameter("only with --compare", param_hint="--xfeat")
    result = _measure(mission, flight, frames, repeat, track, height, heading, threads, console)
    if compare:
        result["peers"] = _compare(mission, flight, frames, repeat, height, heading, threads, xfeat, console)
    if out is not None:
        write_json(out, result)
    if figure is not None:
        from cvgl.bench.figure import draw

        with atomic_path(figure) as temporary:
            temporary.write_text(draw(result), encoding="utf-8")
    _show(result)


def _compare(
    mission: Path,
    flight: Path,
    frames: int | None,
    repeat: int,
    height: float | None,
    heading: str | None,
    threads: int | None,
    xfeat: Path | None,
    console: Console,
) -> dict[str, Any]:
    """The same mission and flight beside peers."""
    from cvgl import bench
    from cvgl.bench.peers import compare
    from cvgl.localizer import Localizer

    localizer = Localizer.open(mission, threads=threads)
    opened = bench.open_flight(localizer, flight, height=height, heading=heading)
    with console.status("peers") as status:
        return compare(
            localizer,
            opened,
            frames=frames,
            rounds=repeat,
            xfeat=xfeat,
            say=lambda what: status.update(f"peers: {what}"),
        )


def _measure(
    mission: Path,
    flight: Path,
    frames: int | None,
    repeat: int,
    track: bool,
    height: float | None,
    heading: str | None,
    threads: int | None,
    console: Console,
) -> dict[str, Any]:
    """Everything, one thing after the other, with a progress bar for each."""
    from rich.progress import Progress, TimeElapsedColumn

    from cvgl import bench
    from cvgl.bench import limit
    from cvgl.fix import Fix
    from cvgl.localizer import Localizer
    from cvgl.versions import versions

    options = {"height": height, "heading": heading}
    about = bench.machine()
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("cold starts", total=2 * _COLD_STARTS)
        starts: list[dict[str, Any]] = []
        for from_disk in (False, True):
            start = bench.cold_start(
                mission,
                flight,
                threads=threads,
                frame_options=options,
                repeat=_COLD_STARTS,
                from_disk=from_disk,
                on_start=lambda: progress.advance(task),
            )
            starts.append(start)
        localizer = Localizer.open(mission, threads=threads)
        opened = bench.open_flight(localizer, flight, height=height, heading=heading)
        fixes: list[Fix] = []

        def count(fix: Fix) -> None:
            fixes.append(fix)
            progress.advance(located)

        located = progress.add_task("locating", total=repeat * min(len(opened), frames or len(opened)))
        timed = bench.time_frames(localizer, opened, frames=frames, repeat=repeat, track=track, on_fix=count)
        peak = bench.peak_memory_mb()
        task = progress.add_task("throughput", total=1 + _THREAD_ROUNDS)
        held = bench.load_frames(opened, min(_HELD, frames or _HELD))
        rate = bench.back_to_back(localizer, held)
        progress.advance(task)
        pair = bench.two_threads(
            mission,
            held[:_THREAD_FRAMES],
            rounds=_THREAD_ROUNDS,
            camera=localizer.camera,
            on_round=lambda: progress.advance(task),
        )
        task = progress.add_task("the machine's limit", total=2)
        ceiling = limit.measure_ceiling(localizer.threads)
        progress.advance(task)
        work = limit.stage_work(localizer, held[0], fixes)
        progress.advance(task)
    return {
        "format_version": 2,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": about,
        "versions": versions(),
        "mission": {"path": str(mission), "fingerprint": mission_fingerprint(mission), "tiles": len(localizer.gallery)},
        "flight": str(flight),
        "engine": localizer.model.runtime,
        "options": {"frames": frames, "repeat": repeat, "threads": threads, "track": track, **options},
        **timed,
        "cold_start": starts[0],
        "cold_start_from_disk": starts[1],
        "peak_memory_mb": peak,
        "throughput": {"frames_per_s": round(rate, 3), "threads": localizer.threads, "two_threads": pair},
        "limit": {
            "ceiling": {**asdict(ceiling), "gb_s": ceiling.gb_s},
            "stages": limit.distances(ceiling, work, timed["stages_ms"]),
        },
    }


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console

    about = result["machine"]
    load = "" if about["load_average"] is None else f", load average {about['load_average']} at the start"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{about['processor']}, {about['cores']} cores{load}")
    console.print(_stages(result))
    if "track" in result:
        console.print(_sequence(result))
    _show_rest(console, result)
    if "peers" in result:
        from cvgl.bench.peers import show

        show(result["peers"], console)


def _stages(result: dict[str, Any]) -> Any:
    table = _table("stage", "p50 ms", "95 %", "p95 ms", "p99 ms", "share", "x the limit")
    limits = result["limit"]["stages"]
    for stage, spent in result["stages_ms"].items():
        least = limits[stage]
        times = f"{least['times']:.3g} {least['bound']}" if "times" in least else "-"
        table.add_row(stage, *_numbers(spent), f"{spent['share']:.1%}", times, end_section=stage == "other")
    table.add_row("locate", *_numbers(result["locate_ms"]), "100 %", "")
    table.add_row("decode, beside it", *_numbers(result["decode_ms"]), "", "")
    return table


def _sequence(result: dict[str, Any]) -> Any:
    table = _table("as a sequence", "p50 ms", "95 %", "p95 ms", "p99 ms", "share", "x alone")
    alone, track = result["stages_ms"], result["track"]
    for stage, spent in track["stages_ms"].items():
        ratio = f"{spent['p50'] / alone[stage]['p50']:.2f}" if stage in alone else "-"
        table.add_row(stage, *_numbers(spent), f"{spent['share']:.1%}", ratio, end_section=stage == "track")
    ratio = f"{track['locate_ms']['p50'] / result['locate_ms']['p50']:.2f}"
    table.add_row("track", *_numbers(track["locate_ms"]), "100 %", ratio)
    return table


def _table(first: str, *others: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _show_rest(console: Console, result: dict[str, Any]) -> None:
    counts, cold, disk = result["counts"], result["cold_start"], result["cold_start_from_disk"]
    say = ", ".join(f"{number} {status}" for status, number in counts.items())
    console.print(f"{result['answers']} answers on {result['frames']} frames: {say}")
    opened = cold["open_mission_ms"] + cold["open_gallery_ms"] + cold["open_rest_ms"]
    console.print(
        f"cold start to the first answer ({cold['status']}): {cold['total_ms']:.0f} ms = "
        f"{cold['interpreter_ms']:.0f} interpreter + {cold['import_ms']:.0f} import + {cold['open_model_ms']:.0f} model"
        f" + {opened:.0f} gallery and mission + {cold['first_locate_ms']:.0f} locate; "
        f"{disk['total_ms']:.0f} ms with the mission's files from disk",
    )
    memory = [("after the first answer", cold["peak_memory_mb"]), ("this run", result["peak_memory_mb"])]
    told = ", ".join(f"{value:.0f} MB {name}" for name, value in memory if value is not None)
    console.print(f"peak memory: {told or 'this system does not tell'}")
    grown = result["memory_growth_mb"]
    if grown is not None:
        console.print(
            f"memory growth: {grown['slope']:.2f} MB in 1000 answers (95 % interval {grown['low']:.2f} to"
            f" {grown['high']:.2f})"
        )
    rate, pair = result["throughput"], result["throughput"]["two_threads"]
    low, high = pair["scaling"]["p50_low"], pair["scaling"]["p50_high"]
    console.print(
        f"throughput: {rate['frames_per_s']:.1f} frames/s back to back with {_threads(rate['threads'])}; two "
        f"localisers in two threads {pair['two']:.1f}, {pair['scaling']['p50']:.2f} times one ({low:.2f} to {high:.2f})"
    )
    most = result["limit"]["ceiling"]
    console.print(
        f"this machine at best, {_threads(most['threads'])}: {most['gflops']:.0f} GFLOP/s single precision, "
        f"{most['gb_s']:.1f} GB/s (read {most['read_gb_s']:.1f}, copy {most['copy_gb_s']:.1f}, "
        f"triad {most['triad_gb_s']:.1f})"
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _numbers(spent: dict[str, float]) -> list[str]:
    interval = f"{spent['p50_low']:.1f}-{spent['p50_high']:.1f}"
    return [f"{spent['p50']:.1f}", interval, f"{spent['p95']:.1f}", f"{spent['p99']:.1f}"]


def app_main() -> None:
    """The ``cvgl-bench`` command."""
    main(app)
