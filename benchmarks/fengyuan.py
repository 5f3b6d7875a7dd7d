"""The real flight over Fengyuan: a map becomes a mission, frames become fixes, other places become none.

    python benchmarks/fengyuan.py                      # ten minutes of adaptation, then everything else
    python benchmarks/fengyuan.py --mission DIR        # a mission that was made before

It runs the commands that a user runs (cvgl-prepare, cvgl-locate, cvgl-bench) on the data beside the project
(CVGL_DATA, by default ../shared) and scores what they wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from record import ROOT, commit, on_machine, run_app, slug, write_record
from report import as_markdown
from scoring import counts, judge_flight, judge_retrieval, read_fixes

from cvgl import Localizer
from cvgl.bench import machine, open_flight
from cvgl.camera import Camera
from cvgl.cli.locate import locate_flight
from cvgl.flight import Flight
from cvgl.metadata import read_metadata
from cvgl.mission import Mission
from cvgl.versions import versions

HEIGHT_M = 120.0
# Calibrated on other frames of the same camera; its EXIF would put it 18 % off.
CAMERA = Camera(width=2000, height=1125, fx=1571.0, fy=1571.0, cx=999.5, cy=562.0)


@dataclass(frozen=True)
class Foreign:
    """Photos of another place.

    Args:
        flight: folder of the photos.
        focal: focal length as a share of the image's width, from the photos' EXIF.
        why: how that was found.
    """

    flight: str
    focal: float
    why: str


# A mission's camera is not theirs. Flown with the mission's, photos of another shape would be refused before anything
# looked at them, which shows nothing; so each flight gets its own.
_CANON = "over a sensor 6.198 mm wide: 4000 px at 16393.4 px an inch"
FOREIGN = (
    Foreign("seneca_reject", 4.3 / 6.198, f"4.3 mm {_CANON}"),
    Foreign("caliterra", 4.5 / 6.198, f"4.5 mm {_CANON}"),
    Foreign("brighton_beach", 20.0 / 36.0, "20 mm equivalent over 36 mm"),
)

app = typer.Typer(add_completion=False)


@app.command()
def fengyuan(
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/ and maps/.")
    ] = ROOT.parent / "shared",
    minutes: Annotated[float, typer.Option(min=0.01, help="Of adaptation to the map, for cvgl-prepare.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of adaptation and everything else random in cvgl-prepare.")] = 0,
    mission: Annotated[
        Path | None, typer.Option(help="A mission adapted to the Fengyuan map before. Without it one is made.")
    ] = None,
    plain: Annotated[
        Path | None, typer.Option(help="A mission of the same map made with --no-adapt. Without it one is made.")
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Missions and reports go here; missions that are there are used again.")
    ] = ROOT / "build" / "fengyuan",
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to locate with.", show_default="the localiser's own")
    ] = None,
) -> None:
    """Measure localisation on a real flight, and its refusal of other places.

    Reports how many frames are refined within 10 m of their reference and how
    far off the others are, what retrieval alone reaches, the same without
    adaptation and without a heading, how flights over other places are answered,
    and how long a frame takes of what parts. Reports with maps stay under --work.

    Takes --minutes, and about five more on two cores.
    """
    photos = data / "flights" / "fengyuan"
    if not (photos / "map.tif").is_file():
        raise typer.BadParameter(f"no map.tif in {photos}", param_hint="--data")
    work.mkdir(parents=True, exist_ok=True)
    camera = work / "camera.yaml"
    CAMERA.to_yaml(camera)
    about = machine()
    prepare = ["cvgl-prepare", photos / "map.tif", "--camera", camera, "--height", f"{HEIGHT_M:g}", "--seed", seed]
    took: dict[str, float] = {}
    given = mission is not None
    if mission is None:
        mission = work / f"adapted-{minutes:g}min-seed{seed}"
        took["adapted"] = make_mission([*prepare, "--minutes", f"{minutes:g}"], mission)
    if plain is None:
        plain = work / f"plain-seed{seed}"
        took["no_adapt"] = make_mission([*prepare, "--no-adapt"], plain)
    options = [] if threads is None else ["--threads", threads]
    missions = {"adapted": mission, "no_adapt": plain}
    runs = (
        ("adapted", "adapted", None),
        ("no_adapt", "no_adapt", None),
        ("adapted, heading unknown", "adapted", "unknown"),
    )
    flights = {
        name: over_own_map(missions[key], photos, work / slug(name), heading, options) for name, key, heading in runs
    }
    foreign = {
        f"{place.flight}{said}": over_another_map(mission, data / "flights", place, work, heading, options)
        for heading, said in (("0", ""), ("unknown", ", heading unknown"))
        for place in FOREIGN
    }
    result: dict[str, Any] = {
        "format_version": 1,
        "benchmark": "fengyuan",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": about,
        "versions": versions(),
        "options": {"minutes": None if given else minutes, "seed": None if given else seed, "threads": threads},
        "prepare_s": {name: round(seconds, 1) for name, seconds in took.items()},
        "missions": {name: record_of(path) for name, path in missions.items()},
        "flights": flights,
        "foreign": foreign,
    }
    result["targets"] = targets(result)
    text = as_markdown(result)
    print(text)
    write_record(out, on_machine("fengyuan", about), result, text)
    print(f"reports with maps: {work}")


def record_of(mission: Path) -> dict[str, Any]:
    """How a mission was made, as far as it explains the figures; nothing that names places on this machine."""
    record = Mission.open(mission).record
    kept = {name: record.get(name) for name in ("made", "seed", "gallery", "calibration", "self_check", "seconds")}
    model = record.get("model") or {}
    adapted = model.get("adapted")
    return {
        **kept,
        "model": {"name": model.get("name"), "fingerprint": model.get("fingerprint")},
        "adaptation": None if adapted is None else {name: adapted.get(name) for name in ("steps", "seconds", "start")},
    }


def make_mission(command: Sequence[Any], mission: Path) -> float:
    """Run cvgl-prepare unless the mission is there; seconds that it took, 0 where it was there."""
    if mission.is_dir():
        print(f"using {mission}", file=sys.stderr)
        return 0.0
    began = time.monotonic()
    run([*command, "--out", mission])
    return time.monotonic() - began


def over_own_map(mission: Path, flight: Path, out: Path, heading: str | None, options: list[Any]) -> dict[str, Any]:
    """The flight located frame by frame: accuracy, retrieval alone, and time."""
    given = [] if heading is None else ["--heading", heading]
    run(["cvgl-locate", mission, flight, "--out", out, "--independent", *given, *options])
    bench = out / "bench.json"
    run(["cvgl-bench", mission, flight, "--repeat", 3, "--json", bench, *given, *options])
    localizer = Localizer.open(mission, threads=options[1] if options else None)
    frames = open_flight(localizer, flight, heading=heading)
    fixes, _ = locate_flight(localizer, frames, independent=True)
    timing = json.loads(bench.read_text(encoding="utf-8"))
    return {
        **judge_flight(frames.records, read_fixes(out / "fixes.csv")),
        "not_refined": {
            record.name: f"{fix.status.value}: {fix.reason}"
            for record, fix in zip(frames.records, fixes, strict=True)
            if fix.status.value != "refined"
        },
        "retrieval": {
            "tiles": len(localizer.gallery),
            **judge_retrieval(frames.records, fixes, localizer.gallery.local),
        },
        "timing": {
            name: timing[name] for name in ("locate_ms", "stages_ms", "decode_ms", "cold_start", "peak_memory_mb")
        },
        "consistency": summary(out)["reference"]["center"]["consistency"],
    }


def over_another_map(
    mission: Path, flights: Path, place: Foreign, work: Path, heading: str, options: list[Any]
) -> dict[str, Any]:
    """Photos of another place, with their own camera; every one of them should be answered no_fix."""
    folder = work / f"flight-{place.flight}"
    camera = own_camera(flights / place.flight, place.focal, folder)
    out = work / slug(f"{place.flight} {heading}")
    run(["cvgl-locate", mission, folder, "--out", out, "--independent", "--height", 50, "--heading", heading, *options])
    answer = counts(read_fixes(out / "fixes.csv"))
    told = summary(out)
    return {
        **answer,
        "no_fix_share": round(answer["no_fix"] / answer["frames"], 4),
        "no_fix_reasons": told["no_fix_reasons"],
        "of_another_shape": sum(n for reason, n in told["no_fix_reasons"].items() if "another shape" in reason),
        "camera": f"{camera.width} x {camera.height}, focal length {camera.fx:.0f} px ({place.why})",
        "notes": told["run"]["notes"],
    }


def own_camera(photos: Path, focal: float, folder: Path) -> Camera:
    """Make a flight folder of photos and a ``camera.yaml`` of their own, without copying the photos."""
    sizes: Counter[tuple[int, int]] = Counter()
    for record in Flight.open(photos):
        about = read_metadata(record.path)
        if about.width and about.height:
            sizes[about.width, about.height] += 1
    # A flight may hold a stray picture of another size (a preview); it is refused by its shape in flight.
    ((width, height), _), *_ = sizes.most_common()
    camera = Camera(width, height, focal * width, focal * width, (width - 1) / 2, (height - 1) / 2)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "frames").symlink_to(photos.resolve(), target_is_directory=True)
    camera.to_yaml(folder / "camera.yaml")
    return camera


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of the adapted mission, what was found, and whether it is met."""
    own = result["flights"]["adapted"]
    far = own["refined_beyond_25m"] + own["refined_beyond_gps_slack"]
    # The recorded headings are what the targets speak of; the runs without a heading are reported beside them.
    others = {name: found for name, found in result["foreign"].items() if "unknown" not in name}
    least = min(found["no_fix_share"] for found in others.values())
    refined = sum(found["refined"] for found in others.values())
    time_ms, median = own["timing"]["locate_ms"]["p50"], own["median_m"]
    return [
        _target(
            "refined within 10 m, of the frames with a reference",
            own["refined_within_10m"],
            ">= 0.95",
            own["refined_within_10m"] >= 0.95,
        ),
        _target("median error of the refined, m", median, "< 2", median is not None and median < 2.0),
        _target("refined more than 25 m off (35 m from GNSS without a reference)", len(far), "0", not far),
        _target("other places: least share of no_fix", least, ">= 0.95", least >= 0.95),
        _target("other places: refined", refined, "0", refined == 0),
        _target("locate() without decoding, p50 ms", time_ms, "< 60", time_ms < 60.0),
    ]


def _target(what: str, found: Any, asked: str, met: bool) -> dict[str, Any]:
    return {"what": what, "found": found, "asked": asked, "met": met}


def run(command: Sequence[Any]) -> None:
    """Run one of the project's commands, as installed beside this Python.

    Raises:
        typer.Exit: it fails; its exit status becomes ours.
    """
    words = [str(word) for word in command]
    program = shutil.which(words[0], path=os.path.dirname(sys.executable)) or shutil.which(words[0])
    if program is None:
        print(f"error: {words[0]} is not installed (pip install '.[train,export]')", file=sys.stderr)
        raise typer.Exit(3)
    print(f"$ {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run([program, *words[1:]], stdout=sys.stderr)
    if done.returncode:
        raise typer.Exit(done.returncode)


def summary(out: Path) -> dict[str, Any]:
    """What cvgl-locate wrote beside the fixes."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    run_app(app)
