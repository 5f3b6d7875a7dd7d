"""A flight's fixes as files and as numbers: tables, tracks, errors in metres, their consistency."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.camera import Camera
from cvgl.files import atomic_path
from cvgl.fix import Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.footprint import footprint_wgs84
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu

__all__ = [
    "FIX_COLUMNS",
    "aircraft_errors",
    "center_errors",
    "distribution",
    "error_metres",
    "fix_footprint",
    "fix_row",
    "nees",
    "summarise",
    "write_fixes",
    "write_geojson",
]

FIX_COLUMNS = (
    "file",
    "time",
    "status",
    "latitude",
    "longitude",
    "sigma_east_m",
    "sigma_north_m",
    "center_latitude",
    "center_longitude",
    "heading_deg",
    "score",
    "latency_ms",
    "probability",
    "protection_radius_m",
    "reason_code",
    "reason",
)

# 95 % of a chi-square variable with two degrees of freedom lie below this.
_NEES_95 = -2.0 * math.log(0.05)


def error_metres(
    latitude: float, longitude: float, reference_latitude: float, reference_longitude: float
) -> NDArray[np.float64]:
    """Estimate minus reference in the reference's local tangent plane: (2,) metres east and north."""
    easting, northing = LocalFrame(reference_latitude, reference_longitude).to_local(latitude, longitude)
    return np.array([float(easting), float(northing)])


def center_errors(records: Sequence[FrameRecord], fixes: Sequence[Fix]) -> NDArray[np.float64]:
    """(N, 2) metres east and north by which each image's middle was misplaced; NaN where unknown."""
    return _errors(
        [(fix.center_latitude, fix.center_longitude) for fix in fixes],
        [(record.center_latitude, record.center_longitude) for record in records],
    )


def aircraft_errors(records: Sequence[FrameRecord], fixes: Sequence[Fix]) -> NDArray[np.float64]:
    """(N, 2) metres east and north between each aircraft position and its receiver's; NaN where unknown."""
    return _errors(
        [(fix.latitude, fix.longitude) for fix in fixes],
        [(record.gps_latitude, record.gps_longitude) for record in records],
    )


def _errors(
    found: Sequence[tuple[float, float]], reference: Sequence[tuple[float | None, float | None]]
) -> NDArray[np.float64]:
    errors = np.full((len(found), 2), np.nan)
    for row, ((latitude, longitude), (true_latitude, true_longitude)) in enumerate(zip(found, reference, strict=True)):
        if true_latitude is not None and true_longitude is not None and math.isfinite(latitude + longitude):
            errors[row] = error_metres(latitude, longitude, true_latitude, true_longitude)
    return errors


def nees(error: ArrayLike, covariance: ArrayLike | None) -> float:
    """Normalised estimation error squared of one fix, e' P^-1 e.

    Its mean over a flight is 2 (the dimension) where the covariances are right, more where they are too
    small. NaN without an error or a positive definite covariance.

    Source: Bar-Shalom, Li, Kirubarajan: Estimation with Applications to Tracking and Navigation, 5.4.

    Args:
        error: (2,) metres.
        covariance: (2, 2) m^2.
    """
    e = np.asarray(error, dtype=np.float64)
    if covariance is None or not np.isfinite(e).all():
        return math.nan
    try:
        factor = np.linalg.cholesky(np.asarray(covariance, dtype=np.float64))
        whitened = np.linalg.solve(factor, e)
    except np.linalg.LinAlgError:
        return math.nan
    value = float(whitened @ whitened)
    return value if math.isfinite(value) else math.nan


def distribution(values: ArrayLike) -> dict[str, float | int]:
    """Count, mean, percentiles 50, 90, 95, 99 and maximum of the finite values; of none, the count alone."""
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return {"count": 0}
    p50, p90, p95, p99 = np.percentile(finite, [50, 90, 95, 99])
    return {
        "count": int(finite.size),
        "mean": _round(finite.mean()),
        "p50": _round(p50),
        "p90": _round(p90),
        "p95": _round(p95),
        "p99": _round(p99),
        "max": _round(finite.max()),
    }


def fix_row(record: FrameRecord, fix: Fix) -> dict[str, str]:
    """One row of ``fixes.csv``; what a frame has no answer for is empty."""
    east, north = math.nan, math.nan
    if fix.covariance is not None:
        east, north = (math.sqrt(max(0.0, float(variance))) for variance in np.diag(fix.covariance))
    return {
        "file": record.name,
        "time": record.time_text or _text(record.time, 3),
        "status": fix.status.value,
        "latitude": _text(fix.latitude, 8),
        "longitude": _text(fix.longitude, 8),
        "sigma_east_m": _text(east, 3),
        "sigma_north_m": _text(north, 3),
        "center_latitude": _text(fix.center_latitude, 8),
        "center_longitude": _text(fix.center_longitude, 8),
        "heading_deg": _text(fix.heading_deg, 2),
        "score": _text(fix.score, 4),
        "latency_ms": _text(fix.latency_ms, 2),
        "probability": _text(fix.probability, 6),
        "protection_radius_m": "" if not fix else _radius(fix.protection_radius_m),
        "reason_code": fix.reason_code.value,
        "reason": fix.reason,
    }


def write_fixes(path: str | Path, records: Sequence[FrameRecord], fixes: Sequence[Fix]) -> None:
    """Write ``fixes.csv``: a row for every frame in the flight's order, the columns of ``FIX_COLUMNS``."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIX_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(fix_row(record, fix) for record, fix in zip(records, fixes, strict=True))


def write_geojson(
    path: str | Path, records: Sequence[FrameRecord], fixes: Sequence[Fix], camera: Camera | None = None
) -> None:
    """Write ``track.geojson`` (RFC 7946): the line through the refined fixes, a point for every fix, its footprint.

    The line is left out where fewer than two fixes are refined: GeoJSON knows no shorter one. Footprints are polygons
    of the ground that a fix's frame sees, by :func:`fix_footprint`; without a camera they are left out.
    """
    line = [_coordinates(fix) for fix in fixes if fix.status is FixStatus.REFINED]
    features: list[dict[str, Any]] = []
    if len(line) >= 2:
        features.append(_feature("LineString", line, {"name": "track", "fixes": len(line)}))
    for record, fix in zip(records, fixes, strict=True):
        if fix:
            row = fix_row(record, fix)
            numbers = ("sigma_east_m", "sigma_north_m", "heading_deg", "score", "latency_ms")
            properties: dict[str, Any] = {name: row[name] for name in ("file", "time", "status")}
            properties |= {name: float(row[name]) if row[name] else None for name in numbers}
            properties["probability"] = round(fix.probability, 6)
            # JSON knows no infinity: null is a position without a radius.
            radius = fix.protection_radius_m
            properties["protection_radius_m"] = round(radius, 3) if math.isfinite(radius) else None
            properties["reason_code"] = fix.reason_code.value
            properties["reason"] = fix.reason
            features.append(_feature("Point", _coordinates(fix), properties))
            outline = None if camera is None else fix_footprint(camera, record, fix)
            if outline is not None:
                ring = [[round(longitude, 8), round(latitude, 8)] for latitude, longitude in outline.tolist()]
                about = {"file": record.name, "footprint_of": fix.status.value}
                features.append(_feature("Polygon", [[*ring, ring[0]]], about))
    with atomic_path(path) as temporary:
        collection = {"type": "FeatureCollection", "features": features}
        temporary.write_text(json.dumps(collection, allow_nan=False) + "\n", encoding="utf-8")


def fix_footprint(camera: Camera, record: FrameRecord, fix: Fix) -> NDArray[np.float64] | None:
    """Outline (N, 2) of the ground that a fix's frame sees, WGS84 latitude and longitude; None where it is not known.

    By the fix's position, heading and height, and the pitch and roll of the frame's telemetry where they move the
    camera.
    """
    if not (fix and math.isfinite(fix.heading_deg) and math.isfinite(fix.height_m)):
        return None
    pitch, roll = (record.pitch, record.roll) if record.attitude_moves_camera else (None, None)
    rotation = camera_to_enu(camera.mount, fix.heading_deg, pitch or 0.0, roll or 0.0)
    outline = footprint_wgs84(camera, rotation, fix.height_m, fix.latitude, fix.longitude, points_a_side=4)
    return outline if len(outline) else None


def summarise(
    records: Sequence[FrameRecord],
    fixes: Sequence[Fix],
    *,
    decode_ms: Sequence[float] = (),
    run: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A flight's results as plain values, ready for JSON.

    Args:
        records: the flight's frames.
        fixes: the answers, in the same order.
        decode_ms: time that reading and decoding each picture took; not part of the latency.
        run: how it was run; copied.

    Returns:
        ``counts`` by status; ``no_fix_reasons`` and ``coarse_reasons`` (numbers in a reason become N, so that
        equal ones meet); ``latency_ms`` of the frames that were localised at all, with the median of each
        stage; ``decode_ms``; ``reference`` with ``center`` and ``aircraft``, each None where the flight has
        no such reference and otherwise as ``_against_reference`` says; ``run``.
    """
    counts = Counter(fix.status.value for fix in fixes)
    answered = [fix for fix in fixes if fix.timings_ms]
    stages = list(dict.fromkeys(stage for fix in answered for stage in fix.timings_ms))
    return {
        "format_version": 1,
        "counts": {"frames": len(fixes), **{status.value: counts[status.value] for status in FixStatus}},
        "no_fix_reasons": _reasons(fixes, FixStatus.NO_FIX),
        "coarse_reasons": _reasons(fixes, FixStatus.COARSE),
        "latency_ms": {
            **distribution([fix.latency_ms for fix in answered]),
            "stages_p50": {
                stage: _round(np.median([f.timings_ms[stage] for f in answered if stage in f.timings_ms]))
                for stage in stages
            },
        },
        "decode_ms": distribution(decode_ms),
        "reference": {
            "center": _against_reference(
                records,
                fixes,
                center_errors(records, fixes),
                [record.center_latitude is not None for record in records],
                [fix.center_covariance for fix in fixes],
            ),
            "aircraft": _against_reference(
                records,
                fixes,
                aircraft_errors(records, fixes),
                [record.gps_latitude is not None for record in records],
                [fix.covariance for fix in fixes],
            ),
        },
        "run": dict(run or {}),
    }


def _against_reference(
    records: Sequence[FrameRecord],
    fixes: Sequence[Fix],
    errors: NDArray[np.float64],
    has_reference: Sequence[bool],
    covariances: Sequence[NDArray[np.float64] | None],
) -> dict[str, Any] | None:
    """Errors against one kind of reference.

    ``frames`` with a reference; ``refined_m``, ``coarse_m`` and ``all_m`` error distributions in metres;
    ``refined_within_10m`` the share of the frames with a reference that were refined and lie within 10 m of
    it; ``refined_beyond_25m`` how many refined fixes are further off, which is what rejection must prevent;
    ``worst`` the refined fix with the largest error; ``consistency`` of the refined fixes' covariances:
    ``mean_nees`` (2 expected), ``within_95_percent`` (0.95 expected), ``count``.
    """
    total = sum(has_reference)
    if total == 0:
        return None
    metres = np.hypot(errors[:, 0], errors[:, 1])
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes])
    coarse = np.array([fix.status is FixStatus.COARSE for fix in fixes])
    scores = np.array([nees(e, p) for e, p in zip(errors, covariances, strict=True)])
    scores = scores[refined & np.isfinite(scores)]
    refined_metres = np.where(refined, metres, np.nan)
    worst = None
    if np.isfinite(refined_metres).any():
        index = int(np.nanargmax(refined_metres))
        worst = {"file": records[index].name, "error_m": _round(metres[index])}
    return {
        "frames": total,
        "refined_m": distribution(refined_metres),
        "coarse_m": distribution(np.where(coarse, metres, np.nan)),
        "all_m": distribution(metres),
        "refined_within_10m": _round(np.count_nonzero(refined_metres <= 10.0) / total),
        "refined_beyond_25m": int(np.count_nonzero(refined_metres > 25.0)),
        "worst": worst,
        "consistency": {
            "count": int(scores.size),
            "mean_nees": _round(scores.mean()) if scores.size else None,
            "expected_nees": 2.0,
            "within_95_percent": _round(np.mean(scores <= _NEES_95)) if scores.size else None,
        },
    }


def _reasons(fixes: Sequence[Fix], status: FixStatus) -> dict[str, int]:
    reasons = Counter(re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "N", fix.reason) for fix in fixes if fix.status is status)
    return dict(reasons.most_common())


def _coordinates(fix: Fix) -> list[float]:
    return [round(fix.longitude, 8), round(fix.latitude, 8)]


def _feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _round(value: float) -> float:
    return round(float(value), 4)


def _radius(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "inf"


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""
