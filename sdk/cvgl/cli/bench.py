"""``cvgl-bench``: how fast a mission localises a flight on this machine, and of what parts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from cvgl.cli.common import main
from cvgl.cli.locate import mission_fingerprint, parse_heading
from cvgl.files import write_json

__all__ = ["app", "app_main"]

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
) -> None:
    """Time localisation on this machine: every stage, a cold start, and memory.

    Every frame is located as if it were the first; decoding the picture is timed
    beside it. Stop other work first: the machine's load is recorded with the
    figures, not subtracted from them.

    Exit status: 0 done, 2 wrong usage, 3 a dependency or device is missing,
    4 bad input.

    Example: cvgl-bench mission flight --frames 20 --json bench.json
    """
    if heading is not None:
        direction = parse_heading(heading)
        heading = "unknown" if direction is None else f"{direction:g}"
    from rich.console import Console
    from rich.progress import Progress

    from cvgl.bench import cold_start, machine, open_flight, peak_memory_mb, time_frames
    from cvgl.localizer import Localizer
    from cvgl.versions import versions

    console = Console(stderr=True)
    options = {"height": height, "heading": heading}
    about = machine()
    with console.status("cold start"):
        cold = cold_start(mission, flight, threads=threads, frame_options=options)
    localizer = Localizer.open(mission, threads=threads)
    opened = open_flight(localizer, flight, height=height, heading=heading)
    rounds = repeat * min(len(opened), frames or len(opened))
    with Progress(console=console) as progress:
        task = progress.add_task("locating", total=rounds)
        timed = time_frames(localizer, opened, frames=frames, repeat=repeat, on_fix=lambda fix: progress.advance(task))
    result: dict[str, Any] = {
        "format_version": 1,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": about,
        "versions": versions(),
        "mission": {"path": str(mission), "fingerprint": mission_fingerprint(mission)},
        "flight": str(flight),
        "engine": localizer.model.runtime,
        "options": {"frames": frames, "repeat": repeat, "threads": threads, **options},
        **timed,
        "cold_start": cold,
        "peak_memory_mb": peak_memory_mb(),
    }
    if out is not None:
        write_json(out, result)
    _show(result)


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    about = result["machine"]
    load = "" if about["load_average"] is None else f", load average {about['load_average']} at the start"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{about['processor']}, {about['cores']} cores{load}")
    table = Table()
    table.add_column("stage")
    for name in ("p50 ms", "p95 ms", "p99 ms", "share"):
        table.add_column(name, justify="right")
    for stage, spent in result["stages_ms"].items():
        table.add_row(stage, *_numbers(spent), f"{spent['share']:.1%}", end_section=stage == "other")
    table.add_row("locate", *_numbers(result["locate_ms"]), "100 %")
    table.add_row("decode (beside it)", *_numbers(result["decode_ms"]), "")
    console.print(table)
    counts, cold = result["counts"], result["cold_start"]
    say = ", ".join(f"{number} {status}" for status, number in counts.items())
    console.print(f"{result['answers']} answers on {result['frames']} frames: {say}")
    console.print(
        f"cold start to the first answer ({cold['status']}): {cold['total_ms']:.0f} ms = "
        f"{cold['import_ms']:.0f} import + {cold['open_ms']:.0f} open + {cold['first_locate_ms']:.0f} locate",
    )
    memory = [("after the first answer", cold["peak_memory_mb"]), ("this run", result["peak_memory_mb"])]
    told = ", ".join(f"{value:.0f} MB {when}" for when, value in memory if value is not None)
    console.print(f"peak memory: {told or 'this system does not tell'}")


def _numbers(spent: dict[str, float]) -> list[str]:
    return [f"{spent[name]:.1f}" for name in ("p50", "p95", "p99")]


def app_main() -> None:
    """The ``cvgl-bench`` command."""
    main(app)
