"""What simulated flights are worth: consistency, integrity, availability, recovery."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.results import distribution
from cvgl.sim.closed.rows import NO_FIX, REFINED, Rows, error, nees
from cvgl.sim.closed.statistics import Estimate, batch_means, clopper_pearson, percentile

__all__ = ["WRONG_PLACE_M", "Divergence", "divergences", "place_error", "recoveries", "score"]

WRONG_PLACE_M = 25.0
"""A refined fix whose image's middle is further off is a false one: tilt and height cannot explain it."""

_SIX_SIGMA = 36.0
_DIVERGED_M, _DIVERGED_PROTECTION, _DIVERGED_FRAMES = 50.0, 3.0, 10
_WITHIN_FRAMES = 10


@dataclass(frozen=True)
class Divergence:
    """A stretch in which the answers stayed wrong while a position was given.

    Args:
        flight: its number.
        first: its first frame.
        frames: how many.
        worst_m: largest error in it.
    """

    flight: int
    first: int
    frames: int
    worst_m: float


def place_error(rows: Rows) -> NDArray[np.float64]:
    """(N,) metres between where the image's middle was found and where it is; NaN without a finding."""
    east = rows["found_center_east"] - rows["center_east"]
    return np.hypot(east, rows["found_center_north"] - rows["center_north"])


def recoveries(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """How long it took to be localised, from each start and each sudden displacement on the map.

    Localised is the first refined answer in the right place. A stretch that ends before counts as infinite; one that
    began off the map, or was too short to tell, is left out.

    Returns:
        frames (K,), the first one counting 1; seconds (K,); started (K,) True for a flight's start.
    """
    frames, seconds, started = [], [], []
    wrong = place_error(rows)
    right = (rows["status"] == REFINED) & ~(wrong > WRONG_PLACE_M)
    for flight in np.unique(rows["flight"]):
        mine = rows["flight"] == flight
        for segment in np.unique(rows["segment"][mine]):
            at = np.flatnonzero(mine & (rows["segment"] == segment) & rows["seen"])
            if not len(at) or not rows["on_map"][at[:_WITHIN_FRAMES]].all():
                continue
            found = np.flatnonzero(right[at])
            if not len(found) and len(at) < _WITHIN_FRAMES:
                continue
            frames.append(float(found[0] + 1) if len(found) else math.inf)
            seconds.append(float(rows["time"][at[found[0]]] - rows["time"][at[0]]) if len(found) else math.inf)
            started.append(segment == 0)
    return np.array(frames), np.array(seconds), np.array(started, bool)


def divergences(rows: Rows, least_frames: int = _DIVERGED_FRAMES) -> list[Divergence]:
    """Stretches of answers that are more than 50 m, or three protection radii, from the truth.

    Args:
        rows: of any flights, each in its order.
        least_frames: of such a stretch; shorter ones are outliers that the filter threw out again.
    """
    metres = np.hypot(*error(rows).T)
    far = (rows["status"] != NO_FIX) & ((metres > _DIVERGED_M) | (metres > _DIVERGED_PROTECTION * rows["protection_m"]))
    found = []
    for flight in np.unique(rows["flight"]):
        at = np.flatnonzero(rows["flight"] == flight)
        edges = np.flatnonzero(np.diff(np.r_[0, far[at].astype(int), 0]))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            if end - begin >= least_frames:
                part = at[begin:end]
                worst = float(np.nanmax(metres[part]))
                found.append(Divergence(int(flight), int(rows["frame"][part[0]]), int(end - begin), round(worst, 2)))
    return found


def score(rows: Rows, *, protection_risk: float | None = None) -> dict[str, Any]:
    """Everything there is to say of some flights, ready for JSON.

    Args:
        rows: of all flights, each in its order.
        protection_risk: that the protection radii are stated for.

    Returns:
        ``frames``, ``seen``, ``on_map``, ``answers`` by status; ``availability``: shares of the moments on the map
        with a position, and refined; ``error_m`` of the aircraft and ``place_error_m`` of the image's middle, each by
        status; ``consistency``: mean NEES over its expectation, with a 95 % interval that knows of the correlation
        within flights, of the answers and of what single frames measured; ``protection``: how often the radius was
        exceeded, its interval if frames were independent and by batch means, the stated risk, and how many answers
        had an infinite radius; ``false_fixes``:
        refined in a wrong place, and refined beyond six sigma; ``recovery`` after starts and displacements;
        ``divergence``; ``latency_ms``, ``render_ms``, ``no_fix_reasons``.
    """
    status, group = rows["status"], rows["flight"]
    refined, given, on_map = status == REFINED, status != NO_FIX, rows["on_map"].astype(bool)
    metres, wrong = np.hypot(*error(rows).T), place_error(rows)
    squared, squared_measured = nees(rows), nees(rows, "measured_")
    measured = rows["seen"] & (rows["measured_status"] == REFINED)
    return {
        "frames": len(rows),
        "flights": len(np.unique(rows["flight"])),
        "seen": int(rows["seen"].sum()),
        "on_map": int(on_map.sum()),
        "answers": {
            "refined": int(refined.sum()),
            "coarse": int((given & ~refined).sum()),
            "no_fix": int((~given).sum()),
        },
        "availability": {
            "position": _mean_share(given[on_map], group[on_map]),
            "refined": _mean_share(refined[on_map], group[on_map]),
        },
        "error_m": {
            "all": distribution(np.where(given, metres, np.nan)),
            "refined": distribution(np.where(refined, metres, np.nan)),
            "coarse": distribution(np.where(given & ~refined, metres, np.nan)),
        },
        "place_error_m": {"refined": distribution(np.where(refined, wrong, np.nan))},
        "consistency": {
            "answers": _consistency(np.where(given, squared, np.nan), group),
            "refined": _consistency(np.where(refined, squared, np.nan), group),
            "coasting": _consistency(np.where(given & ~refined, squared, np.nan), group),
            "measured": _consistency(np.where(measured, squared_measured, np.nan), group),
        },
        "protection": _protection(metres, rows["protection_m"], given, group, protection_risk),
        "false_fixes": {
            "wrong_place": _share(refined & (wrong > WRONG_PLACE_M), refined),
            "beyond_six_sigma": _share(refined & (squared > _SIX_SIGMA), refined),
            "off_map": _share(refined & ~on_map & (wrong > WRONG_PLACE_M), ~on_map),
        },
        "recovery": _recovery(rows),
        "divergence": _divergence(rows),
        "latency_ms": distribution(rows["latency_ms"]),
        "render_ms": distribution(rows["render_ms"]),
        "no_fix_reasons": dict(Counter(rows["reason"][~given].tolist()).most_common()),
    }


def _consistency(values: NDArray[np.float64], group: NDArray[Any]) -> dict[str, Any]:
    """NEES over its expectation of 2; 1 where the covariances are true."""
    return {"count": int(np.isfinite(values).sum()), **batch_means(values / 2, group).to_dict()}


def _mean_share(hits: NDArray[np.bool_], group: NDArray[Any]) -> dict[str, Any]:
    """A share with an interval that knows of the correlation within flights, cut to what a share can be."""
    found = batch_means(hits.astype(float), group)
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0)).to_dict()


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
    count, total = int(hits.sum()), int(among.sum())
    return {"count": count, "of": total, **clopper_pearson(count, total).to_dict()}


def _protection(
    metres: NDArray[np.float64],
    radius: NDArray[np.float64],
    given: NDArray[np.bool_],
    group: NDArray[Any],
    risk: float | None,
) -> dict[str, Any] | None:
    told = given & ~np.isnan(radius)
    if not told.any():
        return None
    over = metres > radius
    return {
        "stated_risk": risk,
        "radius_m": distribution(radius[told]),
        "unprotected": _share(told & np.isinf(radius), told),
        "exceeded": _share(over & told, told),
        "exceeded_by_batches": _mean_share(over[told], group[told]),
    }


def _recovery(rows: Rows) -> dict[str, Any]:
    frames, seconds, started = recoveries(rows)
    said: dict[str, Any] = {}
    for name, chosen in (("start", started), ("kidnap", ~started), ("all", np.ones_like(started))):
        count = int(chosen.sum())
        within = int((frames[chosen] <= _WITHIN_FRAMES).sum())
        said[name] = {
            "runs": count,
            "never": int(np.isinf(frames[chosen]).sum()),
            f"within_{_WITHIN_FRAMES}_frames": clopper_pearson(within, count).to_dict(),
            "frames": {f"p{p}": percentile(frames[chosen], p).to_dict() for p in (50, 90, 95)},
            "seconds": {f"p{p}": percentile(seconds[chosen], p).to_dict() for p in (50, 90, 95)},
        }
    return said


def _divergence(rows: Rows) -> dict[str, Any]:
    found = divergences(rows)
    return {
        "stretches": len(found),
        "frames": sum(one.frames for one in found),
        "flights": len({one.flight for one in found}),
        "worst": [vars(one) for one in sorted(found, key=lambda one: -one.worst_m)[:5]],
    }
