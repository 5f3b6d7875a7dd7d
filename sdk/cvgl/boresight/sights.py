"""What a flight with GNSS says of its camera: every refined fix beside what the aircraft itself reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CameraError, FrameError
from cvgl.fix import Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu

__all__ = ["Finder", "Sight", "azimuth_of", "collect", "usable"]

# GNSS positions further apart in time than this say nothing of the velocity at the moment of an exposure, seconds.
_NEIGHBOUR_S = 3.0
# The tile that shows the image's middle lies this far from the aircraft at most, as a share of its height (30 degrees
# off nadir), and GNSS is not to be trusted to better than this, metres. Both only bound the search.
_LOOKS_AWAY = 0.6
_GNSS_DOUBT_M = 30.0


class Finder(Protocol):
    """What frames are handed to: :class:`cvgl.Localizer`, or anything that answers like it."""

    camera: Camera

    def locate(self, frame: Frame) -> Fix:
        """The fix of one frame by itself."""


@dataclass(frozen=True)
class Sight:
    """One refined fix, and what the aircraft said at that moment.

    Args:
        name: the frame's.
        heading, pitch, roll: of what carries the camera, as reported, degrees.
        height: above ground as reported, metres.
        gnss: (2,) easting and northing of the aircraft by its receiver, metres in the gallery's local tangent plane.
        velocity: (2,) over ground by the receiver's positions before and after, m/s; None where they lie too far apart
            in time.
        center: (2,) easting and northing of the image's middle on the ground, as matched, metres.
        covariance: (2, 2) of it, m^2.
        azimuth: of image-up on the ground, as matched, degrees clockwise from north.
        azimuth_sigma: of it, degrees.
        gsd: height above ground over focal length, as matched, m/px.
        log10_chance: how surely it is no chance match, see :class:`cvgl.Fix`.
    """

    name: str
    heading: float
    pitch: float
    roll: float
    height: float
    gnss: NDArray[np.float64]
    velocity: NDArray[np.float64] | None
    center: NDArray[np.float64]
    covariance: NDArray[np.float64]
    azimuth: float
    azimuth_sigma: float
    gsd: float
    log10_chance: float


def usable(records: Iterable[FrameRecord]) -> list[FrameRecord]:
    """The frames that can tell of their camera: those with a GNSS position, a heading and a height."""
    return [
        record
        for record in records
        if not record.problem
        and record.gps_latitude is not None
        and record.heading is not None
        and math.isfinite(record.height)
    ]


def collect(
    finder: Finder,
    local: LocalFrame,
    camera: Camera,
    records: Sequence[FrameRecord],
    on_frame: Callable[[], None] | None = None,
) -> list[Sight]:
    """Locate frames with a camera, near their GNSS positions; those that are refined become sights.

    Args:
        finder: the localiser; its camera is set to ``camera``.
        local: the gallery's local tangent plane.
        camera: as it is supposed to be.
        records: frames as :func:`usable` gives them, in the order of the flight.
        on_frame: called after each, for progress.
    """
    finder.camera = camera
    gnss = np.array([(record.gps_latitude, record.gps_longitude) for record in records], dtype=np.float64)
    places = np.column_stack(local.to_local(gnss[:, 0], gnss[:, 1]))
    sights = []
    for index, record in enumerate(records):
        try:
            frame = record.load()
        except FrameError:
            continue  # a damaged picture tells nothing, and the flight has others
        finally:
            if on_frame is not None:
                on_frame()
        sigma = (_GNSS_DOUBT_M + _LOOKS_AWAY * record.height) / 3.0
        prior = Prior(float(gnss[index, 0]), float(gnss[index, 1]), sigma)
        fix = finder.locate(replace(frame, prior=prior))
        if fix.status is not FixStatus.REFINED or fix.center_covariance is None:
            continue
        pitch, roll = frame.pitch or 0.0, frame.roll or 0.0
        scaled = camera.scaled_to(frame.image.shape[1], frame.image.shape[0])
        sights.append(
            Sight(
                name=record.name,
                heading=float(record.heading or 0.0),
                pitch=pitch,
                roll=roll,
                height=record.height,
                gnss=places[index],
                velocity=_velocity(records, places, index),
                center=np.array(local.to_local(fix.center_latitude, fix.center_longitude)),
                covariance=fix.center_covariance,
                azimuth=azimuth_of(camera_to_enu(camera.mount, fix.heading_deg, pitch, roll)),
                azimuth_sigma=fix.heading_sigma_deg,
                # In pixels of the camera's own size, whatever size its frames were reduced to.
                gsd=fix.height_m / scaled.fx * (scaled.width / camera.width),
                log10_chance=fix.log10_chance,
            )
        )
    return sights


def azimuth_of(rotation: NDArray[np.float64]) -> float:
    """Direction of image-up on the ground for a camera-to-ENU rotation (3, 3), degrees clockwise from north.

    Raises:
        CameraError: image-up points straight up or down: the camera looks at the horizon.
    """
    east, north = -rotation[:2, 1]
    if math.hypot(east, north) < 1e-6:
        raise CameraError("image-up has no direction on the ground", field="mount", expected="a camera that looks down")
    return math.degrees(math.atan2(east, north)) % 360.0


def _velocity(records: Sequence[FrameRecord], places: NDArray[np.float64], index: int) -> NDArray[np.float64] | None:
    before, after = max(index - 1, 0), min(index + 1, len(records) - 1)
    now = records[index].time
    gaps = (now - records[before].time, records[after].time - now)
    apart = sum(gaps)
    # Both neighbours, or at either end of the flight the one there is.
    if not (apart > 0.0 and max(gaps) <= _NEIGHBOUR_S):
        return None
    return np.asarray((places[after] - places[before]) / apart)
