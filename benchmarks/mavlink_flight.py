"""A simulated flight over MAVLink: does every fix reach the autopilot, with its frame's time, and how late.

    python benchmarks/mavlink_flight.py                          # ten minutes for PX4, camera at 10 Hz
    python benchmarks/mavlink_flight.py --autopilot ardupilot    # external position estimates, at most one a second
    python benchmarks/mavlink_flight.py --faults                 # 100 seconds in which one thing after the other fails

Two processes and a real UDP socket between them. The bridge: ``MavlinkNode`` over the localiser, with a camera that
shows a circle over a procedural town at the tenths of a second of the steady clock. The autopilot (here): pymavlink and
nothing of ours (``tests/sdk/mavlink/autopilot.py``), on a clock that began 5000 s before and runs 40 ppm fast; it tells
its attitude at 50 Hz, asks and answers TIMESYNC, and keeps what it hears. It knows when the camera exposed, so every
message is held against that: the exposure it states is brought to the autopilot's clock by the autopilot's own
TIMESYNC, as PX4 does it.

With ``--faults`` both sides sign, and need it. Latency is from the exposure to the autopilot's socket.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from circling import HEIGHT_M, PLACE, TICK_S, make_frames, make_mission, nearest, round_s, where
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.bench import machine
from cvgl.versions import versions

sys.path.insert(0, str(ROOT / "tests" / "sdk" / "mavlink"))
import autopilot as pilots  # the autopilot of the tests

KEY = bytes(range(32))
BOOT_S, DRIFT = 5000.0, 40e-6
TIMESYNC_S = 0.1
FIXES = {"px4": "GLOBAL_POSITION_SENSOR", "ardupilot": "COMMAND_INT"}
RATES_HZ = {"px4": 20.0, "ardupilot": 1.0}
WRAP_S = 250.0

app = typer.Typer(add_completion=False)


# -- the bridge, in a process of its own ----------------------------------------------------------------------------


class Recording:
    """A localiser whose claims are written down, so that what is sent can be held against them."""

    def __init__(self, localizer: Any, lines: Any) -> None:
        self._localizer, self._lines = localizer, lines
        self.dark = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._localizer, name)

    def track(self, frame: Any) -> Any:
        """As the localiser's."""
        from cvgl.node.claims import own_answer

        fix = self._localizer.track(frame)
        claim = own_answer(fix)
        about = {"time": frame.time, "status": claim.status.value, "sigma_m": claim.sigma_m if claim else None}
        self._lines.write(json.dumps(about) + "\n")
        return fix


@app.command(hidden=True)
def bridge(mission: Path, frames_file: Path, port: int, autopilot: str, log: Path, dark: Path, signed: str) -> None:
    """Run the node with the simulated camera until it is told to stop.

    Args:
        mission: folder.
        frames_file: one round of images, as NumPy writes them.
        port: to wait on.
        autopilot: ``px4`` or ``ardupilot``.
        log: claims go there, and once a second what the node reports.
        dark: while this file is there the camera shows nothing.
        signed: ``yes``: sign, and need it.
    """
    from cvgl import Localizer
    from cvgl.mavlink.links import Device, UdpLink
    from cvgl.mavlink.node import MavlinkNode
    from cvgl.mavlink.options import Options
    from cvgl.mavlink.signing import Signing
    from cvgl.node.clock import SteadyClock

    frames, clock = np.load(frames_file), SteadyClock()
    black = np.zeros_like(frames[0])
    with open(log, "a", encoding="utf-8", buffering=1) as lines:
        localizer = Recording(Localizer.open(mission, threads=1), lines)
        keys = Signing(KEY, required=True) if signed == "yes" else None
        node = MavlinkNode(localizer, Options(autopilot), UdpLink(Device("udpin", "127.0.0.1", port)), keys, clock)
        node.start()
        tick = math.ceil(time.monotonic() / TICK_S)
        while True:
            tick += 1
            moment = tick * TICK_S
            time.sleep(max(0.0, moment - time.monotonic()))
            index, _, _ = nearest(moment, len(frames))
            # The exposure is the tick itself, however late this thread is.
            stamp = clock() - (time.monotonic_ns() - round(moment * 1e9))
            node.frame(black if dark.exists() else frames[index], stamp)
            if tick % 10 == 0:
                level, text = node.state()
                report = {"at": moment, "level": level, "message": text, "values": node.values()}
                lines.write(json.dumps(report) + "\n")


class Running:
    """The bridge's process.

    Args:
        mission: folder.
        port: where it waits.
        kind: of the autopilot.
        folder: its files go there.
        signed: both sides sign.
    """

    def __init__(self, mission: Path, port: int, kind: str, folder: Path, signed: bool) -> None:
        self.log, self.dark = folder / "log.jsonl", folder / "dark"
        for path in (self.log, self.dark):
            path.unlink(missing_ok=True)
        frames = folder / "frames.npy"
        np.save(frames, np.stack(make_frames()))
        command = [sys.executable, __file__, "bridge", str(mission), str(frames), str(port), kind]
        self._command = [*command, str(self.log), str(self.dark), "yes" if signed else "no"]
        self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(timeout=30)

    def restart(self) -> None:
        """End it and start another, without waiting for that."""
        self.stop()
        self._process = subprocess.Popen(self._command)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What it wrote: its claims (``sigma_m``) or its reports (``values``)."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if line.endswith("}") and line.startswith("{"):  # one that was cut off by the end is left out
                found.append(json.loads(line))
        return [one for one in found if name in one]


# -- the autopilot --------------------------------------------------------------------------------------------------


class Vehicle(pilots.Autopilot):  # type: ignore[misc]
    """Flies the circle of the camera, on its own clock, and synchronises as PX4 does."""

    def __init__(self, port: int, kind: str, key: bytes) -> None:
        number = {"px4": pilots.PX4, "ardupilot": pilots.ARDUPILOT}[kind]
        super().__init__(f"udpout:127.0.0.1:{port}", kind=number, key=key)
        self.port = port
        self.starts = [(time.monotonic(), BOOT_S)]  # when its clock began anew, and with what
        self.cuts: list[list[float]] = []  # when the link was cut, and when it came again
        self._asked = 0.0
        self._write, self.connection.write = self.connection.write, self._gated

    def boot_of(self, steady: float) -> float:
        """Its clock, nanoseconds, at a time of the steady clock (seconds)."""
        began, boot_s = next((one for one in reversed(self.starts) if one[0] <= steady), self.starts[0])
        return (boot_s + (steady - began) * (1.0 + DRIFT)) * 1e9

    def steady_of(self, boot_ns: float, steady: float) -> float:
        """The steady clock at a time of its own, which it had near to a time of the steady clock."""
        return steady - (self.boot_of(steady) - boot_ns) * 1e-9 / (1.0 + DRIFT)

    def boot_ns(self) -> int:
        """Its clock."""
        return round(self.boot_of(time.monotonic()))

    def reboot(self) -> None:
        """Its clock begins anew."""
        self.starts.append((time.monotonic(), 10.0))

    def cut(self) -> None:
        """Nothing goes out any more, and nothing comes in."""
        self.cuts.append([time.monotonic(), math.inf])

    def join(self) -> None:
        """The link is there again."""
        self.cuts[-1][1] = time.monotonic()

    def telemetry(self) -> None:
        """One round of messages, and a question for TIMESYNC from time to time."""
        now = time.monotonic()
        self.heading = where(now)[2]
        super().telemetry()
        if now - self._asked >= TIMESYNC_S:
            self._asked = now
            self.mav.timesync_send(0, self.boot_ns())

    def record(self) -> list[tuple[Any, float]]:
        """What it heard, and when (steady clock)."""
        with self._lock:
            record = list(zip(self.heard, self.at, strict=True))
        return [(message, at) for message, at in record if not self._is_cut(at)]

    def _is_cut(self, at: float) -> bool:
        return any(first <= at <= last for first, last in self.cuts)

    def _gated(self, data: bytes) -> None:
        if not self._is_cut(time.monotonic()):
            self._write(data)


@dataclass(frozen=True)
class Heard:
    """A fix that arrived.

    Args:
        at: steady clock, seconds.
        tick: number of the exposure it belongs to, in tenths of a second.
        off_s: what the stated exposure is off from that.
        accuracy_m: as stated.
        error_m: from where the frame was taken.
        late_s: from exposure to arrival.
        sound: the fields that were not measured are empty.
    """

    at: float
    tick: int
    off_s: float
    accuracy_m: float
    error_m: float
    late_s: float
    sound: bool


def offsets(vehicle: Vehicle) -> Callable[[float], float]:
    """The bridge's clock less the autopilot's at a time (steady), nanoseconds, by the autopilot's own questions: of
    those of the last ten seconds, since its clock began, the one with the shortest way."""
    found = []
    for message, at in vehicle.record():
        if message.get_type() == "TIMESYNC" and message.tc1 != 0:
            back = vehicle.boot_of(at)
            if 0 <= back - message.ts1 < 1e9:
                found.append((at, back - message.ts1, message.tc1 - (message.ts1 + back) / 2))

    def at(steady: float) -> float:
        start = max((began for began, _ in vehicle.starts if began <= steady), default=-math.inf)
        near = [one for one in found if max(start, steady - 10.0) <= one[0] <= steady + 0.5]
        return min(near, key=lambda one: one[1])[2] if near else math.nan

    return at


def decoded(vehicle: Vehicle, kind: str, count: int) -> list[Heard]:
    """The fixes among what was heard, each held against the exposure that is nearest to what it states.

    Args:
        vehicle: after the flight.
        kind: ``px4`` or ``ardupilot``.
        count: of the images of a round.
    """
    offset = offsets(vehicle)
    fixes = []
    for message, at in vehicle.record():
        if message.get_type() != FIXES[kind]:
            continue
        if kind == "px4":
            theirs = (message.time_usec - message.processing_time) * 1e3 - offset(at)
            place, accuracy = (message.lat, message.lon), message.eph
            sound = all(math.isnan(value) for value in (message.alt, message.alt_ellipsoid, message.epv))
            sound = sound and (message.source, message.flags, message.id) == (2, 0, 1)
        else:
            # The time of sending begins again at 250 s: the turn nearest to now.
            now = (vehicle.boot_of(at) + offset(at)) * 1e-9
            sent = message.param1 + round((now - message.param1) / WRAP_S) * WRAP_S
            theirs = (sent - message.param2) * 1e9 - offset(at)
            place, accuracy = (message.x, message.y), message.param3
            sound = message.command == 43003 and message.frame == 0 and math.isnan(message.z)
        if math.isnan(theirs):
            continue  # the autopilot does not know the other clock yet, and would not use it either
        stated = vehicle.steady_of(theirs, at)
        tick = round(stated / TICK_S)
        _, easting, northing = nearest(tick * TICK_S, count)
        east, north = PLACE.to_local(place[0] * 1e-7, place[1] * 1e-7)
        error = math.hypot(float(east) - easting, float(north) - northing)
        fixes.append(Heard(at, tick, stated - tick * TICK_S, accuracy, error, at - tick * TICK_S, sound))
    return fixes


# -- what goes wrong ------------------------------------------------------------------------------------------------

REBOOT, CUT, HOSTILE, UNSIGNED, DARK, RESTART = (
    "autopilot's clock starts anew",
    "link cut",
    "hostile bytes",
    "unsigned lies about the height",
    "nothing to see",
    "bridge restarted",
)
FAULTS_S = 100.0
#: Seconds of the flight from which to which something is wrong.
FAULTS = {
    REBOOT: (15.0, 15.0),
    CUT: (27.0, 35.0),
    HOSTILE: (45.0, 50.0),
    UNSIGNED: (55.0, 60.0),
    DARK: (66.0, 72.0),
    RESTART: (82.0, 82.0),
}


def _hostile(rng: random.Random, vehicle: Vehicle, stranger: socket.socket) -> None:
    """Noise and damaged frames, from the autopilot's address and from a stranger's."""
    frame = bytearray(
        pilots.dialect.MAVLink_heartbeat_message(2, 12, 0, 0, 4, 3).pack(pilots.dialect.MAVLink(None, 7, 1))
    )
    frame[rng.randrange(len(frame))] = rng.randrange(256)
    for data in (rng.randbytes(rng.randint(1, 1400)), bytes(frame) * rng.randint(1, 40)):
        vehicle.connection.port.sendto(data, ("127.0.0.1", vehicle.port))
        stranger.sendto(data, ("127.0.0.1", vehicle.port))


def _lie(vehicle: Vehicle) -> None:
    """From the autopilot's own address and in its name, but without its signature: half the height."""
    mav = pilots.dialect.MAVLink(None, 7, 1)
    boot_ms = vehicle.boot_ns() // 1_000_000
    message = pilots.dialect.MAVLink_distance_sensor_message(boot_ms, 20, 30000, round(50 * HEIGHT_M), 0, 0, 25, 255)
    vehicle.connection.port.sendto(message.pack(mav), ("127.0.0.1", vehicle.port))


def _fly(vehicle: Vehicle, running: Running, seconds: float, faulty: bool) -> float:
    """Wait for the first fix, then fly; the steady time at which it began."""
    end = time.monotonic() + 120.0
    while not any(message.get_type() in FIXES.values() for message, _ in vehicle.record()):
        if time.monotonic() > end:
            raise TimeoutError("no fix arrives")
        time.sleep(0.1)
    rng, began, done = random.Random(1), time.monotonic(), set()
    once = {REBOOT: vehicle.reboot, RESTART: running.restart, CUT: vehicle.cut, DARK: running.dark.touch}
    after = {CUT: vehicle.join, DARK: running.dark.unlink}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        while (into := time.monotonic() - began) < seconds:
            time.sleep(0.01)
            for name, (first, last) in FAULTS.items() if faulty else ():
                if into >= first and name not in done:
                    done.add(name)
                    once.get(name, lambda: None)()
                if into >= last and name in done and name in after:
                    after.pop(name)()
                if first <= into < last and name == HOSTILE:
                    _hostile(rng, vehicle, stranger)
                elif first <= into < last and name == UNSIGNED:
                    _lie(vehicle)
    return began


# -- what is made of it ---------------------------------------------------------------------------------------------


def claims_by_tick(running: Running, vehicle: Vehicle, began: float, seconds: float) -> dict[int, float | None]:
    """What the localiser claimed of each exposure of the flight: the standard deviation, or None without a fix."""
    unix = time.time() - time.monotonic()
    found = {}
    for one in running.lines("sigma_m"):
        # The bridge's clock is the system's as it was when it started; a tenth of a second tells exposures apart.
        tick = round((one["time"] - unix) / TICK_S)
        if began <= tick * TICK_S <= began + seconds:
            found[tick] = one["sigma_m"] if one["status"] == "refined" else None
    return found


def figures(fixes: list[Heard], claims: dict[int, float | None], running: Running, kind: str) -> dict[str, Any]:
    """The flight in numbers."""
    refined = {tick for tick, sigma in claims.items() if sigma is not None}
    received = {fix.tick for fix in fixes}
    ratios = [fix.accuracy_m / float(claims[fix.tick] or math.nan) for fix in fixes if claims.get(fix.tick)]
    arrivals = sorted(fix.at for fix in fixes)
    gaps = [second - first for first, second in itertools.pairwise(arrivals)]
    late = sorted(fix.late_s * 1e3 for fix in fixes)
    values = running.lines("values")[-1]["values"]
    span = max(arrivals[-1] - arrivals[0], 1e-9) if len(arrivals) > 1 else math.nan
    return {
        "frames_answered": len(claims),
        "refined": len(refined),
        "received": len(fixes),
        "withheld_by_the_rate_limit": int(values["withheld"]),
        "refined_but_not_received": len(refined - received),
        "received_without_a_fix": len(received - refined),
        "received_twice": len(fixes) - len(received),
        "fields_wrong": sum(not fix.sound for fix in fixes),
        "exposure_off_ms": _quantiles(sorted(abs(fix.off_s) * 1e3 for fix in fixes)),
        "least_stated_over_claimed": min(ratios, default=None),
        "most_stated_over_claimed": max(ratios, default=None),
        "latency_ms": _quantiles(late),
        "position_error_m": _quantiles(sorted(fix.error_m for fix in fixes)),
        "a_second": (len(arrivals) - 1) / span,
        "limit_a_second": RATES_HZ[kind],
        "closest_s": min(gaps, default=None),
        "longest_silence_s": max(gaps, default=None),
        "clock_known_to": values["clock"],
    }


def texts(vehicle: Vehicle, began: float) -> list[tuple[float, str]]:
    """STATUSTEXTs, by the second of the flight."""
    return [(at - began, m.text) for m, at in vehicle.record() if m.get_type() == "STATUSTEXT"]


def _survived(name: str, fixes: list[Heard], running: Running, said: list[tuple[float, str]], began: float) -> Any:
    """What a fault did: whether the node's report showed it, and when fixes came again."""
    first, last = FAULTS[name]
    until = min([other for other, _ in FAULTS.values() if other > first], default=FAULTS_S)
    reports = [r for r in running.lines("values") if began + first - 1.5 <= r["at"] < began + until]
    before, after = reports[0]["values"], reports[-1]["values"]

    def grew(*names: str) -> bool:
        return any(int(after[one]) > int(before[one]) for one in names)

    lost = [text for at, text in said if first <= at <= until and "lost" in text]
    seen = {
        REBOOT: lambda: grew("clock_jumps_autopilot"),
        CUT: lambda: any(report["message"].startswith("autopilot: silent") for report in reports),
        HOSTILE: lambda: grew("damaged", "foreign"),
        UNSIGNED: lambda: grew("not_signed"),
        DARK: lambda: bool(lost),
        RESTART: lambda: int(after["images"]) < int(before["images"]),
    }[name]()
    meanwhile = [fix for fix in fixes if began + first <= fix.at < began + until]
    again = [fix.at - began - last for fix in meanwhile if fix.at - began > last]
    return {
        "fault": name,
        "seconds": [first, last],
        "seen": bool(seen),
        "fixes_during": sum(fix.at < began + last for fix in meanwhile),
        "next_fix_s": min(again, default=None),
        "fixes_until_the_next_fault": len(meanwhile),
        "worst_error_over_accuracy": max((fix.error_m / fix.accuracy_m for fix in meanwhile), default=None),
        "texts": [text for at, text in said if first <= at < until],
    }


def _quantiles(ordered: list[float]) -> dict[str, float | None]:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {n: ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None for n, q in shares.items()}


def _number(value: float | None, digits: int = 1) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _page(data: dict[str, Any], title: str) -> str:
    about, latency, off, error = (data[n] for n in ("machine", "latency_ms", "exposure_off_ms", "position_error_m"))
    rows = {
        "frames answered by the localiser": data["frames_answered"],
        "of these refined": data["refined"],
        "fixes received by the autopilot": data["received"],
        "withheld by the rate limit": data["withheld_by_the_rate_limit"],
        "refined, but not received, withheld ones included": data["refined_but_not_received"],
        "received for a frame without a fix": data["received_without_a_fix"],
        "with a field that nobody measured": data["fields_wrong"],
        "stated exposure off the true one, p99 and largest, ms": f"{_number(off['p99'], 2)}, {_number(off['max'], 2)}",
        "stated accuracy over the claimed one, least and most": f"{_number(data['least_stated_over_claimed'], 7)}, "
        f"{_number(data['most_stated_over_claimed'], 7)}",
        "messages a second, and the limit": f"{_number(data['a_second'], 2)}, {data['limit_a_second']:g}",
        "two messages, closest and farthest, s": f"{_number(data['closest_s'], 2)}, "
        f"{_number(data['longest_silence_s'], 2)}",
        "latency, median, ms": _number(latency["p50"]),
        "latency, p99, ms": _number(latency["p99"]),
        "latency, largest, ms": _number(latency["max"]),
        "position error, median and largest, m": f"{_number(error['p50'])}, {_number(error['max'])}",
    }
    lines = [
        f"# {title}",
        "",
        f"{about['processor']}, {about['cores']} cores, load {data['load']:.1f}; commit {data['commit']}.",
        "Bridge and autopilot are two processes with a UDP socket between them; camera at 10 Hz. The autopilot's clock "
        f"is {BOOT_S:g} s old and {DRIFT * 1e6:g} ppm fast.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    if data.get("faults"):
        lines += [
            "",
            "Both sides sign. Cut: nothing goes through either way. Hostile: noise and damaged frames, from the",
        ]
        lines += ["autopilot's address and another. Lies: half the height, in the autopilot's name, not signed.", ""]
        lines += [
            "| fault | seconds | seen | fixes meanwhile | next fix, s after | worst error over accuracy | texts |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for one in data["faults"]:
            first, last = one["seconds"]
            lines.append(
                f"| {one['fault']} | {first:g} to {last:g} | {'yes' if one['seen'] else 'no'} | {one['fixes_during']} "
                f"| {_number(one['next_fix_s'], 2)} | {_number(one['worst_error_over_accuracy'])} "
                f"| {'; '.join(one['texts'])} |"
            )
    return "\n".join(lines) + "\n"


@contextmanager
def _both(mission: Path, kind: str, work: Path, signed: bool) -> Iterator[tuple[Running, Vehicle]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    running = Running(mission, port, kind, work, signed)
    vehicle = Vehicle(port, kind, KEY if signed else b"")
    vehicle.height_m = HEIGHT_M
    vehicle.start()
    try:
        yield running, vehicle
    finally:
        vehicle.close()
        running.stop()


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.05, help="Length of the flight.")] = 10.0,
    autopilot: Annotated[str, typer.Option(help="px4 or ardupilot.")] = "px4",
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
    work: Annotated[Path, typer.Option(help="The mission is made here, and used again.")] = ROOT
    / "build"
    / "dds_flight",
    faults: Annotated[bool, typer.Option("--faults", help="Let things go wrong, one after the other.")] = False,
) -> None:
    """Fly, and say what arrived."""
    if context.invoked_subcommand is not None:
        return
    if autopilot not in FIXES:
        raise typer.BadParameter(f"{autopilot}: px4 or ardupilot", param_hint="--autopilot")
    about = machine()
    mission = make_mission(work)
    seconds = FAULTS_S if faults else minutes * 60.0
    with _both(mission, autopilot, work, faults) as (running, vehicle):
        began = _fly(vehicle, running, seconds, faults)
        # The last frame's answer, and one more report.
        time.sleep(2.0)
    count = round(round_s() / TICK_S)
    fixes = [one for one in decoded(vehicle, autopilot, count) if began <= one.tick * TICK_S <= began + seconds]
    claims = claims_by_tick(running, vehicle, began, seconds)
    said = texts(vehicle, began)
    data = {**figures(fixes, claims, running, autopilot), "minutes": seconds / 60.0, "autopilot": autopilot}
    data |= {"texts": said, "load": os.getloadavg()[0], "commit": commit(), "machine": about, "versions": versions()}
    title, name = f"A flight of {minutes:g} minutes over MAVLink ({autopilot})", f"mavlink-flight-{autopilot}"
    if faults:
        data["faults"] = [_survived(fault, fixes, running, said, began) for fault in FAULTS]
        title, name = f"Faults on the MAVLink link ({autopilot})", f"mavlink-faults-{autopilot}"
    page = _page(data, title)
    print(page)
    write_record(out, on_machine(name, about), data, page)


if __name__ == "__main__":
    run_app(app)
