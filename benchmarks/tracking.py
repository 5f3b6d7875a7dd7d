"""Filters over simulated sequences of fixes: which one follows, finds itself again, and tells its errors truly.

    python benchmarks/tracking.py

No picture is made: a frame is what its matches say, drawn from a stated model (the right place with its errors, among
wrong ones), so that a filter is seen thousands of frames a minute. What photos do to it, benchmarks/fengyuan_track.py
and cvgl-sim show.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, run_app, write_record
from tracking_peers import Bounds, Gated, Particles, Peer, Told

from cvgl.bench import machine
from cvgl.fix import Alternative
from cvgl.geo import LocalFrame
from cvgl.lasting import MAP_REACH_M, TILT, VELOCITY
from cvgl.settings import Settings
from cvgl.tracking import Sight, Tracker, distinct
from cvgl.tracking.motion import POSITION

Array = NDArray[np.float64]

BOUNDS: Bounds = (-2500.0, -2500.0, 2500.0, 2500.0)
HEIGHT_M = 100.0
# Beyond this a position that was answered is a false one, metres.
_FALSE_M = 60.0

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """A kind of flight.

    Args:
        name: of it.
        period_s: between frames.
        frames: of a flight.
        speed: metres a second.
        velocity: whether the frames tell it.
        found: how often the right place is among a frame's.
        tilt_deg: sigma of what is not known of the camera's tilt.
        kidnapped: frames at which the aircraft is carried off to anywhere on the map.
        right_power: of the law of chance at right places, as `cvgl.belief` has it; more is weaker.
    """

    name: str
    period_s: float = 1.0
    frames: int = 120
    speed: float = 12.0
    velocity: bool = True
    found: float = 0.9
    tilt_deg: float = 5.0
    kidnapped: tuple[int, ...] = ()
    right_power: float = 0.08


CASES = (
    Case("velocity known"),
    Case("velocity known, attitude known", tilt_deg=1.5),
    Case("velocity unknown", velocity=False),
    Case("velocity unknown, 4 m/s", velocity=False, speed=4.0),
    Case("40 s apart, velocity unknown, 2 m/s", period_s=40.0, frames=60, speed=2.0, velocity=False),
    Case("weak frames", found=0.5, right_power=0.2),
    Case("kidnapped, velocity known", kidnapped=(40, 80)),
    Case("kidnapped, velocity unknown", velocity=False, kidnapped=(40, 80)),
)


def flight(case: Case, rng: np.random.Generator) -> Iterator[tuple[Sight, Array]]:
    """Frames of one flight, each with the aircraft's true position (2,)."""
    west, south, east, north = BOUNDS
    at = rng.uniform([west / 2, south / 2], [east / 2, north / 2])
    target, wind = at, rng.normal(0.0, 0.5, 2)
    lean = HEIGHT_M * math.tan(math.radians(case.tilt_deg))
    mount, sway = (share * rng.standard_normal(2) for share in (TILT.lasting_sigma, TILT.passing_sigma))
    keep = math.exp(-case.period_s / TILT.passing_s)
    waves = rng.standard_normal((2, 64, 2)) / (MAP_REACH_M * np.abs(rng.standard_normal((2, 64, 1))))
    phases = rng.uniform(0.0, 2 * math.pi, (2, 64))
    for index in range(case.frames):
        before = at
        if index in case.kidnapped:
            at = before = target = rng.uniform([west, south], [east, north]) * 0.9
        left = case.speed * case.period_s if index else 0.0
        while left > 0:
            apart = float(np.hypot(*(target - at)))
            if apart < 1.0:
                target = rng.uniform([west, south], [east, north]) * 0.9
                continue
            step = min(left, apart)
            at, left = at + (target - at) / apart * step, left - step
        moved = (at - before) / case.period_s
        heading = math.degrees(math.atan2(*(target - at))) % 360.0
        sine, cosine = math.sin(math.radians(heading)), math.cos(math.radians(heading))
        tilted = lean * np.array([[sine, cosine], [cosine, -sine]]) @ (mount + sway)
        sway = keep * sway + TILT.passing_sigma * math.sqrt(1 - keep**2) * rng.standard_normal(2)
        field = np.sqrt(2 / 64) * np.cos(waves @ at + phases).sum(axis=1)
        seen = at + tilted + field + rng.normal(0.0, 0.5, 2)
        wrong = rng.uniform([west, south], [east, north], (2, 2))
        places = [_place(where, heading + rng.normal(0, 5), rng.random(), 0.15, lean) for where in wrong]
        if rng.random() < case.found:
            places[0] = _place(seen, heading + 2.0, rng.random() ** (1 / case.right_power), 0.7, lean)
        told = None
        if case.velocity:
            # An inertial solution's error stays: averages would not take it out.
            stays = math.exp(-case.period_s / VELOCITY.lasting_s)
            wind = stays * wind + 0.5 * math.sqrt(1 - stays**2) * rng.standard_normal(2)
            told = (float(moved[0] + wind[0]), float(moved[1] + wind[1]))
        ordered = sorted(places, key=lambda place: -place.log10_odds)
        yield Sight(index * case.period_s, HEIGHT_M, heading, told, 0.5, distinct(ordered)), at


def _place(where: Array, heading: float, chance: float, share: float, lean: float) -> Alternative:
    center = (1.0**2 + 0.5**2) * np.eye(2)
    # The odds that `cvgl.belief` gives a place by its chance; retrieval's share with them.
    odds = math.log10(share * 0.08) - 0.92 * math.log10(max(chance, 1e-300))
    east, north = where.tolist()
    covariance = center + lean**2 * np.eye(2)
    return Alternative(
        east, north, east, north, covariance, center, heading % 360.0, 0.3, HEIGHT_M * 1.01, 0.5, 0.0, odds
    )


class _Ours:
    def __init__(self, settings: Settings) -> None:
        self._tracker = Tracker(LocalFrame(47.0, 9.5), settings, BOUNDS)

    def update(self, sight: Sight) -> Told:
        answer = self._tracker.update(sight)
        if answer.mean is None or answer.covariance is None:
            return Told()
        return Told(answer.mean[POSITION], answer.covariance[POSITION, POSITION], answer.accepted)


def filters(seed: int) -> dict[str, Callable[[], Peer]]:
    """What is compared: a name and what makes one."""
    settings = replace(Settings(), velocity_sigma_m_s=0.5)
    return {
        "mixture of Kalman filters": lambda: _Ours(settings),
        "particles, 2000": lambda: Particles(settings, BOUNDS, 2000, seed),
        "one Kalman filter, gated": lambda: Gated(settings, gate=4.0),
        "one Kalman filter, no rejection": lambda: Gated(settings, gate=None, least_odds=-9.0),
    }


def judge(case: Case, make: Callable[[], Peer], flights: int, seed: int) -> dict[str, Any]:
    """One filter over the flights of one case."""
    errors, squared, answered, accepted, again, spent = [], [], 0, 0, [], 0.0
    frames = 0
    for number in range(flights):
        one, rng = make(), np.random.default_rng([seed, number])
        lost_since: int | None = 0
        for index, (sight, truth) in enumerate(flight(case, rng)):
            began = time.perf_counter()
            told = one.update(sight)
            spent += time.perf_counter() - began
            frames += 1
            if index in case.kidnapped:
                if lost_since is not None:
                    again.append(math.inf)
                lost_since = index
            if told.position is None or told.covariance is None:
                continue
            apart = told.position - truth
            error = float(np.hypot(*apart))
            if lost_since is not None and error < _FALSE_M and told.accepted:
                again.append(index - lost_since + 1)
                lost_since = None
            answered += 1
            accepted += told.accepted
            errors.append(error)
            squared.append(float(apart @ np.linalg.solve(told.covariance, apart)))
        if lost_since is not None:
            again.append(math.inf)
    near = np.array(again)
    values = np.array(errors)
    return {
        "frames": frames,
        "available": round(answered / frames, 4),
        "accepted": round(accepted / frames, 4),
        "nees": round(float(np.mean(squared)) / 2, 3) if squared else None,
        "nees_of_the_right": round(float(np.mean(np.array(squared)[values < _FALSE_M])) / 2, 3) if squared else None,
        "error_p50_m": round(float(np.median(values)), 2) if squared else None,
        "error_p99_m": round(float(np.percentile(values, 99)), 2) if squared else None,
        "false": int((values >= _FALSE_M).sum()),
        "relocalised_within_10": round(float(np.mean(near <= 10)), 3),
        "relocalised_p50": float(np.median(near)),
        "ms": round(1e3 * spent / frames, 3),
    }


def page(result: dict[str, Any]) -> str:
    """The record for people."""
    lines = [
        "# Filters over simulated sequences of fixes",
        "",
        f"{result['machine']['processor']}, commit {result['commit']}, {result['flights']} flights a case, seed "
        f"{result['seed']}. NEES is divided by its expectation: 1 is right, more is overconfident; of all answers, "
        "and without the false ones. False: answers more "
        f"than {_FALSE_M:g} m off. Found again: frames from a start or a kidnapping to an accepted match, median, and "
        "the share within 10.",
    ]
    for case, filters_of in result["cases"].items():
        lines += [
            "",
            f"## {case}",
            "",
            "| filter | available | accepted | NEES | error p50, p99 (m) | false | found again | ms |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, r in filters_of.items():
            lines.append(
                f"| {name} | {100 * r['available']:.1f} % | {100 * r['accepted']:.1f} % | "
                f"{r['nees']}, {r['nees_of_the_right']} | "
                f"{r['error_p50_m']}, {r['error_p99_m']} | {r['false']} | {r['relocalised_p50']:g}, "
                f"{100 * r['relocalised_within_10']:.0f} % | {r['ms']} |"
            )
    return "\n".join(lines) + "\n"


@app.command()
def tracking(
    flights: Annotated[int, typer.Option(min=1, help="Flights of each kind.")] = 40,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    only: Annotated[str, typer.Option(help="Cases whose name holds this.")] = "",
    ours: Annotated[bool, typer.Option("--ours", help="The SDK's filter alone.")] = False,
    out: Annotated[Path | None, typer.Option(help="Results go here.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Compare filters on simulated sequences of fixes."""
    cases: dict[str, Any] = {}
    for case in CASES:
        if only in case.name:
            compared = {n: f for n, f in filters(seed).items() if not ours or n.startswith("mixture")}
            cases[case.name] = {name: judge(case, make, flights, seed) for name, make in compared.items()}
            for name, found in cases[case.name].items():
                print(case.name, "|", name, found, flush=True)
    result = {
        "format_version": 1,
        "benchmark": "tracking",
        "commit": commit(),
        "machine": machine(),
        "flights": flights,
        "seed": seed,
        "cases": cases,
    }
    text = page(result)
    if out is not None and not only and not ours:
        write_record(out, "tracking", result, text)
    print(text)


if __name__ == "__main__":
    run_app(app)
