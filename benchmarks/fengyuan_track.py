"""The real flight over Fengyuan as a sequence, as it was flown and with what flights bring besides.

    python benchmarks/fengyuan_track.py --mission DIR

Reversed, with every second frame missing, begun in its middle, from a wrong start, with photos of other places between
its own, without headings: the track may lose availability by that, never its truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from fengyuan import CAMERA
from record import ROOT, commit, run_app, write_record

from cvgl import Fix, Frame, Localizer, Prior
from cvgl.bench import machine
from cvgl.fix import FixStatus
from cvgl.flight import Flight, FrameRecord, read_image
from cvgl.results import aircraft_errors, center_errors, nees

app = typer.Typer(add_completion=False)

# The first answers may be missing: one frame alone is not always sure.
_SETTLING = 3


def fly(
    localizer: Localizer,
    records: Sequence[FrameRecord],
    start: Prior | None = None,
    change: Callable[[int, Frame], Frame] | None = None,
) -> list[Fix]:
    """A sequence, begun anew."""
    localizer.reset(start)
    fixes = []
    for index, record in enumerate(records):
        frame = record.load()
        fixes.append(localizer.track(frame if change is None else change(index, frame)))
    return fixes


def judge(records: Sequence[FrameRecord], fixes: Sequence[Fix], own: Sequence[bool]) -> dict[str, Any]:
    """What a sequence was worth; ``own`` tells the frames that are of this place."""
    center, aircraft = center_errors(records, fixes), aircraft_errors(records, fixes)
    metres, off = np.hypot(*center.T), np.hypot(*aircraft.T)
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes])
    followed = np.array([fix.status is FixStatus.COARSE for fix in fixes])
    squared = np.array([nees(e, f.covariance) for e, f in zip(aircraft, fixes, strict=True)])
    squared_center = np.array([nees(e, f.center_covariance) for e, f in zip(center, fixes, strict=True)])
    first = next((index for index, fix in enumerate(fixes) if fix), len(fixes))
    late = [bool(fix) for fix in fixes[_SETTLING:]]
    mine = np.array(own)

    def within(values: Any) -> float | None:
        known = values[np.isfinite(values)]
        return round(float(known.mean()) / 2, 3) if known.size else None

    return {
        "frames": len(fixes),
        "first_position": first + 1,
        "available_after_three": round(sum(late) / max(len(late), 1), 4),
        "refined": int(refined.sum()),
        "followed": int(followed.sum()),
        "foreign_refined": int((refined & ~mine).sum()),
        "refined_center_p50_m": round(float(np.nanmedian(np.where(refined & mine, metres, np.nan))), 2),
        "refined_center_max_m": round(float(np.nanmax(np.where(refined & mine, metres, np.nan))), 2),
        "refined_aircraft_max_m": round(float(np.nanmax(np.where(refined, off, np.nan))), 2),
        "followed_aircraft_max_m": round(float(np.nanmax(np.where(followed, off, -1.0))), 2),
        "followed_within_3_sigma": f"{int((squared[followed] <= 9.0).sum())} of {int(followed.sum())}",
        "nees_aircraft": within(squared),
        "nees_center_refined": within(squared_center[refined & mine]),
    }


def sequences(
    localizer: Localizer, flight: Flight, foreign: Sequence[Path]
) -> dict[str, Callable[[], tuple[list[FrameRecord], list[Fix], list[bool]]]]:
    """Each way to fly it, by name."""
    records = list(flight.records)
    first = records[0]
    assert first.gps_latitude is not None and first.gps_longitude is not None

    def plainly(chosen: list[FrameRecord], **more: Any) -> tuple[list[FrameRecord], list[Fix], list[bool]]:
        return chosen, fly(localizer, chosen, **more), [True] * len(chosen)

    def reversed_() -> tuple[list[FrameRecord], list[Fix], list[bool]]:
        back = [replace(r, time=records[0].time + records[-1].time - r.time) for r in reversed(records)]
        return plainly(back)

    def mixed(seed: int) -> tuple[list[FrameRecord], list[Fix], list[bool]]:
        rng = np.random.default_rng(seed)
        replaced = set(rng.choice(len(records), round(0.3 * len(records)), replace=False).tolist())
        photos = {index: foreign[int(rng.integers(len(foreign)))] for index in sorted(replaced)}

        def change(index: int, frame: Frame) -> Frame:
            if index not in photos:
                return frame
            # Of the camera's own shape, or it would be refused for that before anything looked at it.
            picture = read_image(photos[index])
            height, width = picture.shape[:2]
            kept = min(height, round(width * frame.image.shape[0] / frame.image.shape[1]))
            size = (frame.image.shape[1], frame.image.shape[0])
            picture = cv2.resize(picture[(height - kept) // 2 :][:kept], size, interpolation=cv2.INTER_AREA)
            return replace(frame, image=np.asarray(picture, np.uint8))

        own = [index not in photos for index in range(len(records))]
        return records, fly(localizer, records, change=change), own

    # 300 m to the south-east of where it began, and surer of it than it should be.
    latitude, longitude = localizer.gallery.local.to_local(first.gps_latitude, first.gps_longitude)
    wrong = localizer.gallery.local.to_wgs84(latitude + 212.0, longitude - 212.0)
    ways: dict[str, Callable[[], tuple[list[FrameRecord], list[Fix], list[bool]]]] = {
        "as flown": lambda: plainly(records),
        "reversed": reversed_,
        "every second frame": lambda: plainly(records[::2]),
        "the other frames": lambda: plainly(records[1::2]),
        "start wrong by 300 m": lambda: plainly(records, start=Prior(float(wrong[0]), float(wrong[1]), 50.0)),
        "heading unknown": lambda: plainly([replace(r, heading=None) for r in records]),
        "heading 15 degrees off": lambda: plainly([replace(r, heading=(r.heading or 0.0) + 15.0) for r in records]),
        "height 15 % off": lambda: plainly([replace(r, height=1.15 * r.height) for r in records]),
    }
    for begin in (5, 10, 17, 23, 28):
        ways[f"from frame {begin}"] = lambda begin=begin: plainly(records[begin:])  # type: ignore[misc]
    for seed in range(3):
        ways[f"30 % foreign photos, draw {seed}"] = lambda seed=seed: mixed(seed)  # type: ignore[misc]
    return ways


@app.command()
def fengyuan_track(
    mission: Annotated[Path, typer.Option(help="A mission of the Fengyuan map, as benchmarks/fengyuan.py makes it.")],
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/ and maps/.")
    ] = ROOT.parent / "shared",
    only: Annotated[str, typer.Option(help="Sequences whose name holds this.")] = "",
    out: Annotated[Path, typer.Option(help="Results go here.")] = ROOT / "benchmarks" / "results",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to locate with.")] = None,
) -> None:
    """Track the flight in different ways and score each."""
    localizer = Localizer.open(mission, threads=threads)
    localizer.camera = CAMERA
    flight = Flight.open(data / "flights" / "fengyuan", CAMERA)
    foreign = sorted(
        path
        for name in ("seneca_reject", "caliterra", "brighton_beach")
        for path in (data / "flights" / name).rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg")
    )
    found: dict[str, Any] = {}
    for name, way in sequences(localizer, flight, foreign).items():
        if only in name:
            found[name] = judge(*way())
            print(name, found[name], flush=True)
    result = {
        "format_version": 1,
        "benchmark": "fengyuan_track",
        "commit": commit(),
        "machine": machine(),
        "sequences": found,
    }
    text = page(result)
    if not only:
        write_record(out, "fengyuan-track", result, text)
    print(text)


def page(result: dict[str, Any]) -> str:
    """The record for people."""
    lines = [
        "# The flight over Fengyuan as a sequence",
        "",
        f"{result['machine']['processor']}, commit {result['commit']}. Available: frames after the third with a "
        "position. Errors of the image's middle against its reference, of the aircraft against its receiver (the first "
        "flight's camera looks 9 degrees forward, which nobody told the localiser). NEES is divided by its "
        "expectation.",
        "",
        "| sequence | available | refined + followed | middle p50, max (m) | followed: within 3 sigma, max (m) | "
        "NEES aircraft, middle | foreign refined |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, r in result["sequences"].items():
        lines.append(
            f"| {name} | {100 * r['available_after_three']:.1f} % | "
            f"{r['refined']} + {r['followed']} of {r['frames']} | "
            f"{r['refined_center_p50_m']}, {r['refined_center_max_m']} | {r['followed_within_3_sigma']}, "
            f"{r['followed_aircraft_max_m']} | {r['nees_aircraft']}, {r['nees_center_refined']} | "
            f"{r['foreign_refined']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app)
