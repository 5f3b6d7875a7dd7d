"""A simulated flight over a DDS bus: does every fix arrive, with its frame's stamp, and how late.

    python benchmarks/dds_flight.py                    # ten minutes at 10 Hz
    python benchmarks/dds_flight.py --minutes 1        # an impression
    python benchmarks/dds_flight.py --faults           # 70 seconds in which one thing after the other goes wrong

Three processes on the loopback interface: the vehicle (here), which sends images at 10 Hz, attitude at 50 Hz and range
at 25 Hz; the bridge, as the command ``cvgl-ros``; and a stranger who receives what it publishes and decodes it with the
rosbags library's definitions (``tests/ros_bridge/peer.py``). The vehicle circles over a procedural town whose mission
is made first. Images are stamped between two samples of attitude, so that every frame is interpolated.

Latency is from the exposure (when the vehicle begins to send the image) to the stranger's clock, on one machine.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from circling import CAMERA, HEIGHT_M, PLACE, make_frames, make_mission, nearest, where
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.bench import machine
from cvgl.versions import versions

sys.path.insert(0, str(ROOT / "tests" / "ros_bridge"))
import peer  # the stranger of the tests

# Between two messages of attitude.
IMU_S, TICKS_AN_IMAGE = 0.02, 5
FIX, STATUS, DIAGNOSTICS = "rt/visual_localization/fix", "rt/visual_localization/status", "rt/diagnostics"
TOPICS = {
    FIX: "sensor_msgs/msg/NavSatFix",
    STATUS: "diagnostic_msgs/msg/DiagnosticArray",
    DIAGNOSTICS: "diagnostic_msgs/msg/DiagnosticArray",
}
IMAGE, IMU, RANGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/Imu", "sensor_msgs/msg/Range"

app = typer.Typer(add_completion=False)


@dataclass
class Heard:
    """What the stranger received: stamp to arrival (both nanoseconds) and message."""

    fixes: dict[int, tuple[int, Any]] = field(default_factory=dict)
    statuses: dict[int, str] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """One message of ``/diagnostics``.

    Args:
        at: nanoseconds, when it arrived.
        level, message: of the bridge.
        values: by key.
    """

    at: int
    level: int
    message: str
    values: dict[str, str]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, from one second of the flight to another, and what /diagnostics must then show.

    Args:
        name: for people.
        begins, ends: seconds.
        shows: from the reports between the fault's begin and a little after its end to whether it can be seen.
    """

    name: str
    begins: float
    ends: float
    shows: Callable[[list[Report]], bool]


def _grew(*names: str) -> Callable[[list[Report]], bool]:
    """Whether one of some counters grew."""
    return lambda reports: any(int(reports[-1].values[name]) > int(reports[0].values[name]) for name in names)


def _slower(reports: list[Report]) -> bool:
    """Images came at two thirds of the rate for a while; the rate is over the last twenty seconds."""
    images = [int(report.values["images"]) for report in reports]
    seconds = (reports[-1].at - reports[0].at) * 1e-9
    return (images[-1] - images[0]) / seconds < 8.5


DROPS, LATE, CLOCK, DEAD, RESTART = (
    "images dropped",
    "late attitude",
    "clock set back",
    "dead camera",
    "bridge restarted",
)
LATE_S, BACK_S = 0.8, 60.0
FAULTS_S = 70.0
FAULTS = (
    Fault(DROPS, 10.0, 15.0, _slower),
    Fault(LATE, 20.0, 25.0, _grew("without_attitude")),
    Fault(CLOCK, 30.0, 35.0, _grew("clock_jumps")),
    Fault(DEAD, 42.0, 46.0, lambda reports: any(r.level == 2 and "no image" in r.message for r in reports)),
    Fault(RESTART, 55.0, 55.0, lambda reports: int(reports[-1].values["images"]) < int(reports[0].values["images"])),
)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="Length of the flight.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
    work: Annotated[Path, typer.Option(help="The mission is made here, and used again.")] = ROOT
    / "build"
    / "dds_flight",
    faults: Annotated[bool, typer.Option("--faults", help="Let things go wrong, one after the other.")] = False,
) -> None:
    """Fly, and say what arrived."""
    about = machine()
    mission = make_mission(work)
    frames = make_frames()
    domain = random.SystemRandom().randint(1, 101)
    with _bridge(mission, domain) as bridge, _stranger(domain) as heard:
        seconds = FAULTS_S if faults else minutes * 60.0
        sent, began = _fly(domain, frames, seconds, bridge if faults else None)
        # The last frame's answer, and one more report.
        time.sleep(3.0)
    about_it = {"load": os.getloadavg()[0], "commit": commit(), "machine": about, "versions": versions()}
    if faults:
        data = {"faults": [_survived(fault, sent, heard, began) for fault in FAULTS], **about_it}
        page = _faults_page(data)
    else:
        data = {**_figures(sent, heard, minutes), **about_it}
        page = _page(data)
    print(page)
    write_record(out, on_machine("dds-faults" if faults else "dds-flight", about), data, page)


class Running:
    """The bridge as a process."""

    def __init__(self, mission: Path, domain: int) -> None:
        # Ground and ellipsoid meet in this town: the altitude is the height that the range finder measures.
        settings = ["altitude_source=ground", "ground_ellipsoid_m=0.0", "altitude_sigma_m=1.0", "height_sigma_m=2.0"]
        command = [sys.executable, "-m", "cvgl_ros.cli", str(mission), "--domain", str(domain)]
        self._command = [*command, *(word for one in settings for word in ("--set", one))]
        self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        """End it as a service manager does."""
        self._process.terminate()
        self._process.wait(timeout=30)

    def restart(self) -> None:
        """End it and start another, without waiting for that."""
        self._process.kill()
        self._process.wait(timeout=30)
        self._process = subprocess.Popen(self._command)


@contextmanager
def _bridge(mission: Path, domain: int) -> Iterator[Running]:
    running = Running(mission, domain)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def _stranger(domain: int) -> Iterator[Heard]:
    heard = Heard()
    wanted = [f"{topic}={name}" for topic, name in TOPICS.items()]
    process = subprocess.Popen([sys.executable, peer.__file__, str(domain), *wanted], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it is there

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            topic, arrival, message = json.loads(line)
            stamp = message["header"]["stamp"]["sec"] * 10**9 + message["header"]["stamp"]["nanosec"]
            if topic == FIX:
                heard.fixes[stamp] = (arrival, message)
            elif topic == STATUS:
                values = {pair["key"]: pair["value"] for pair in message["status"][0]["values"]}
                heard.statuses[stamp] = values["status"] + (f": {values['reason']}" if values["reason"] else "")
            else:
                state = message["status"][0]
                values = {pair["key"]: pair["value"] for pair in state["values"]}
                heard.reports.append(Report(arrival, state["level"], state["message"], values))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        process.kill()
        thread.join()
        process.wait()


def _fly(
    domain: int, frames: list[NDArray[np.uint8]], seconds: float, faulty: Running | None = None
) -> tuple[dict[int, tuple[float, float]], int]:
    """Send a flight.

    Args:
        domain: of the bus.
        frames: one round.
        seconds: to fly.
        faulty: the bridge, where ``FAULTS`` are to happen.

    Returns:
        Where the vehicle was (easting, northing) by the stamp of each image, and when (nanoseconds) the flight began.
    """
    vehicle = peer.Peer(domain)
    types = peer.store().types
    for topic, name in (("rt/image", IMAGE), ("rt/imu", IMU), ("rt/range", RANGE)):
        vehicle.writer(topic, name, reliable=False)
    end = time.monotonic() + 120.0
    while not all(vehicle.matched(topic) for topic in ("rt/image", "rt/imu", "rt/range")):
        if time.monotonic() > end:
            raise TimeoutError("the bridge does not appear on the bus")
        time.sleep(0.05)

    def header(stamp: int) -> Any:
        moment = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return types["std_msgs/msg/Header"](stamp=moment, frame_id="vehicle")

    zero, nine = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0), np.zeros(9)
    sent: dict[int, tuple[float, float]] = {}
    held: deque[tuple[float, Any]] = deque()  # attitudes on their way, and when they arrive
    restarted = False
    began, origin = time.monotonic(), time.time_ns()
    for tick in range(round(seconds / IMU_S)):
        time.sleep(max(0.0, began + tick * IMU_S - time.monotonic()))
        into = time.monotonic() - began
        wrong = {fault.name for fault in FAULTS if fault.begins <= into < fault.ends} if faulty else set()
        if faulty is not None and not restarted and into >= FAULTS[-1].begins:
            restarted = True
            faulty.restart()
        stamp = origin + round((into - (BACK_S if CLOCK in wrong else 0.0)) * 1e9)
        heading = where(into)[2]
        if tick % TICKS_AN_IMAGE == TICKS_AN_IMAGE // 2:
            # The nearest image of the circle; telemetry says the same to within half a frame.
            if DEAD in wrong or (DROPS in wrong and tick // TICKS_AN_IMAGE % 2):
                continue
            index, easting, northing = nearest(into, len(frames))
            image = frames[index]
            height, width = image.shape[:2]
            fields = {"height": height, "width": width, "encoding": "bgr8", "is_bigendian": 0, "step": 3 * width}
            vehicle.send("rt/image", types[IMAGE](header=header(stamp), data=image.ravel(), **fields))
            sent[stamp] = (easting, northing)
            continue
        half = math.radians(90.0 - heading) / 2
        turn = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=math.sin(half), w=math.cos(half))
        attitude = types[IMU](header(stamp), turn, nine, zero, nine, zero, nine)
        held.append((into + (LATE_S if LATE in wrong else 0.0), attitude))
        while held and held[0][0] <= into:
            vehicle.send("rt/imu", held.popleft()[1])
        if tick % 2:
            vehicle.send("rt/range", types[RANGE](header(stamp), 0, 0.01, 0.5, 200.0, HEIGHT_M))
    return sent, origin


def _survived(fault: Fault, sent: dict[int, tuple[float, float]], heard: Heard, began: int) -> dict[str, Any]:
    """What a fault did: whether /diagnostics showed it, and when fixes came again."""
    first, last = (began + round(seconds * 1e9) for seconds in (fault.begins, fault.ends))
    following = [later.begins for later in FAULTS if later.begins > fault.begins]
    until = began + round((following[0] if following else FAULTS_S) * 1e9)
    during = [report for report in heard.reports if first - 1_500_000_000 <= report.at < until]
    arrivals = sorted(arrival for arrival, _ in heard.fixes.values())
    after = [arrival for arrival in arrivals if last < arrival < until]
    images = [stamp for stamp in sent if last < stamp < until]
    return {
        "fault": fault.name,
        "seconds": [fault.begins, fault.ends],
        "seen_in_diagnostics": len(during) > 1 and fault.shows(during),
        "said": sorted({f"{report.level}: {report.message}" for report in during if report.level == 2}),
        "fixes_meanwhile": sum(first <= arrival <= last for arrival in arrivals),
        "next_fix_s": (after[0] - last) * 1e-9 if after else None,
        "images_afterwards": len(images),
        "fixes_afterwards": sum(stamp in heard.fixes for stamp in images),
    }


def _faults_page(data: dict[str, Any]) -> str:
    about = data["machine"]
    lines = [
        "# Faults on the bus",
        "",
        f"{about['processor']}, {about['cores']} cores, load {data['load']:.1f}; commit {data['commit']}.",
        f"One flight of {FAULTS_S:g} seconds, images at 10 Hz. Dropped: every second image. Late: attitude arrives "
        f"{LATE_S:g} s after its stamp. Set back: all stamps of the vehicle by {BACK_S:g} s, and forward again at the "
        "end. Restarted: killed, and started as a new process, which has to open the mission.",
        "",
        "| fault | seconds | seen in /diagnostics | fixes meanwhile | next fix, s after | fixes of images afterwards |",
        "|---|---|---|---|---|---|",
    ]
    for one in data["faults"]:
        begins, ends = one["seconds"]
        again = "none" if one["next_fix_s"] is None else f"{one['next_fix_s']:.2f}"
        seen = "yes" if one["seen_in_diagnostics"] else "no"
        lines.append(
            f"| {one['fault']} | {begins:g} to {ends:g} | {seen} | {one['fixes_meanwhile']} | {again} "
            f"| {one['fixes_afterwards']} of {one['images_afterwards']} |"
        )
    return "\n".join(lines) + "\n"


def _figures(sent: dict[int, tuple[float, float]], heard: Heard, minutes: float) -> dict[str, Any]:
    fixed = {stamp for stamp, status in heard.statuses.items() if status.startswith(("refined", "coarse"))}
    refused: dict[str, int] = {}
    for status in heard.statuses.values():
        if not status.startswith(("refined", "coarse")):
            refused[status] = refused.get(status, 0) + 1
    late = sorted((arrival - stamp) * 1e-6 for stamp, (arrival, _) in heard.fixes.items())
    errors, wrong = [], 0
    for stamp, (_, message) in heard.fixes.items():
        if stamp in sent:
            east, north = PLACE.to_local(message["latitude"], message["longitude"])
            errors.append(math.hypot(float(east) - sent[stamp][0], float(north) - sent[stamp][1]))
        covariance = message["position_covariance"]
        wrong += not (
            message["header"]["frame_id"] == "base_link"
            and message["position_covariance_type"] == 3
            and min(covariance[0], covariance[4], covariance[8]) > 0
            and abs(message["altitude"] - HEIGHT_M) < 1.0
        )
    last = heard.reports[-1].values if heard.reports else {}
    return {
        "minutes": minutes,
        "images_sent": len(sent),
        "images_received_by_the_bridge": int(last.get("images", 0)),
        "images_replaced_by_newer_ones": int(last.get("dropped", 0)),
        "frames_answered": len(heard.statuses),
        "fixes_published": int(last.get("fixes", 0)),
        "fixes_announced_in_status": len(fixed),
        "fixes_received": len(heard.fixes),
        "fixes_lost": len(fixed - set(heard.fixes)),
        "stamps_that_are_no_frames": len(set(heard.fixes) - set(sent)),
        "fixes_with_wrong_frame_covariance_or_altitude": wrong,
        "no_fix": refused,
        "latency_ms": {name: _quantile(late, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        "position_error_m": {name: _quantile(sorted(errors), q) for name, q in (("p50", 0.5), ("p95", 0.95))},
        "refused_messages": {name: int(last.get(name, 0)) for name in ("refused", "malformed", "telemetry_refused")},
    }


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _page(data: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.1f}"

    about = data["machine"]
    latency, error = data["latency_ms"], data["position_error_m"]
    rows = {
        "images sent, at 10 Hz": data["images_sent"],
        "images that reached the bridge": data["images_received_by_the_bridge"],
        "of these replaced by newer ones before their turn": data["images_replaced_by_newer_ones"],
        "frames answered": data["frames_answered"],
        "fixes published": data["fixes_published"],
        "fixes received": data["fixes_received"],
        "fixes lost": data["fixes_lost"],
        "fixes whose stamp is no image's": data["stamps_that_are_no_frames"],
        "fixes with another frame, covariance or altitude than stated": data[
            "fixes_with_wrong_frame_covariance_or_altitude"
        ],
        "latency, median, ms": number(latency["p50"]),
        "latency, p99, ms": number(latency["p99"]),
        "latency, largest, ms": number(latency["max"]),
        "position error, median, m": number(error["p50"]),
        "position error, 95 %, m": number(error["p95"]),
    }
    lines = [
        f"# A flight of {data['minutes']:g} minutes over DDS",
        "",
        f"{about['processor']}, {about['cores']} cores, load {data['load']:.1f}; commit {data['commit']}.",
        f"Vehicle, bridge and receiver are three processes on the loopback interface; {CAMERA.width} x {CAMERA.height} "
        "BGR images, best effort. Latency is from exposure to the receiver.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    if data["no_fix"]:
        lines += ["", "Without a fix:", "", *(f"- {count} x {why}" for why, count in sorted(data["no_fix"].items()))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app)
