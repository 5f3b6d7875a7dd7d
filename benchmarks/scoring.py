"""What a flight's answers are worth: from ``fixes.csv`` and the flight's reference positions to figures."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvgl.fix import Fix
from cvgl.flight import FrameRecord
from cvgl.geo import LocalFrame
from cvgl.results import error_metres

NEAR_M, FAR_M = 10.0, 25.0
# A frame without a reference is judged against the aircraft's own GNSS: a metre or two off by itself, and the middle
# of the image lies up to 20 m ahead of the aircraft on the frames that look forward.
GPS_SLACK_M = 35.0
RECALL_AT = (1, 5, 20)


def read_fixes(path: str | Path) -> list[dict[str, str]]:
    """The rows of ``fixes.csv``."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def judge_flight(records: Sequence[FrameRecord], rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Accuracy of a flight over its own map.

    Args:
        records: the flight's frames.
        rows: of ``fixes.csv``, in the same order.

    Returns:
        Counts by status; of the frames with a reference for the image's middle ``refined_within_10m`` (share),
        ``median_m``, ``p95_m`` and ``worst_m`` of the refined ones, ``refined_beyond_25m`` (names);
        ``aircraft_to_gps_m``: how far the aircraft's refined positions lie from its GNSS (percentiles);
        ``without_reference``: a row for each frame judged by GNSS alone, and ``refined_beyond_gps_slack`` (names);
        ``worst``: the five refined frames that are furthest off.
    """
    errors: dict[str, float] = {}
    aircraft: list[float] = []
    referenced = 0
    alone: list[dict[str, Any]] = []
    for record, row in zip(records, rows, strict=True):
        if row["status"] == "refined" and record.gps_latitude is not None and record.gps_longitude is not None:
            aircraft.append(_apart(row, "", record.gps_latitude, record.gps_longitude))
        if record.center_latitude is not None and record.center_longitude is not None:
            referenced += 1
            if row["status"] == "refined":
                errors[record.name] = _apart(row, "center_", record.center_latitude, record.center_longitude)
        elif record.gps_latitude is not None and record.gps_longitude is not None:
            place = (record.gps_latitude, record.gps_longitude)
            judged: dict[str, Any] = {"file": record.name, "status": row["status"]}
            if row["status"] != "no_fix":
                judged["center_to_gps_m"] = round(_apart(row, "center_", *place), 1)
                judged["aircraft_to_gps_m"] = round(_apart(row, "", *place), 1)
            alone.append(judged)
    metres = np.array(list(errors.values()))
    worst = sorted(errors, key=lambda name: -errors[name])[:5]
    beyond_slack = [
        judged["file"] for judged in alone if judged["status"] == "refined" and judged["center_to_gps_m"] > GPS_SLACK_M
    ]
    return {
        **counts(rows),
        "with_reference": referenced,
        "refined_with_reference": len(errors),
        "refined_within_10m": round(float((metres <= NEAR_M).sum()) / max(referenced, 1), 4),
        "median_m": _percentile(metres, 50),
        "p95_m": _percentile(metres, 95),
        "worst_m": _percentile(metres, 100),
        "aircraft_to_gps_m": {f"p{percent}": _percentile(np.array(aircraft), percent) for percent in (50, 95, 100)},
        "refined_beyond_25m": [name for name, error in errors.items() if error > FAR_M],
        "without_reference": alone,
        "refined_beyond_gps_slack": beyond_slack,
        "worst": [{"file": name, "error_m": round(errors[name], 2)} for name in worst],
    }


def counts(rows: Sequence[dict[str, str]]) -> dict[str, int]:
    """Number of frames, and of answers by status."""
    found = Counter(row["status"] for row in rows)
    return {"frames": len(rows), **{status: found[status] for status in ("refined", "coarse", "no_fix")}}


def judge_retrieval(records: Sequence[FrameRecord], fixes: Sequence[Fix], local: LocalFrame) -> dict[str, Any]:
    """Retrieval alone: the share of frames with a tile within 25 m of the reference among the first K candidates.

    Args:
        records: the flight's frames; those without a reference for the image's middle are left out.
        fixes: with the candidates that retrieval proposed, best first. A frame without any counts as missed.
        local: the gallery's tangent plane.
    """
    ranks: list[float] = []
    for record, fix in zip(records, fixes, strict=True):
        if record.center_latitude is None or record.center_longitude is None:
            continue
        east, north = local.to_local(record.center_latitude, record.center_longitude)
        close = [bool(np.hypot(c.easting - east, c.northing - north) <= FAR_M) for c in fix.candidates]
        ranks.append(close.index(True) + 1 if any(close) else np.inf)
    share = {f"r_at_{k}": round(float(np.mean(np.array(ranks) <= k)), 4) if ranks else None for k in RECALL_AT}
    return {"frames": len(ranks), "within_m": FAR_M, **share}


def _apart(row: dict[str, str], prefix: str, latitude: float, longitude: float) -> float:
    found = float(row[f"{prefix}latitude"]), float(row[f"{prefix}longitude"])
    return float(np.hypot(*error_metres(*found, latitude, longitude)))


def _percentile(values: np.ndarray, percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 2) if len(values) else None
