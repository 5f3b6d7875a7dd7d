"""A recorded flight over a satellite map, as a dataset: frames against the tiles that a gallery would have."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CameraError, FlightError, FrameError
from cvgl.flight import Flight, FrameRecord
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu
from cvgl.rectify import ground_offset
from cvgl.rectify import rectify as rectify_frame
from cvgl.sim.views import choose_tile_size

from .base import CrossViewSet, DatasetError, ImageSource
from .folders import need_choice
from .windows import Area, as_dataset_error, map_tiles, need_pixels, need_positive, open_map, positioned_set

__all__ = ["FlightFrame", "RectifiedFrame", "read_flight_set"]


@dataclass(frozen=True)
class FlightFrame:
    """A frame as the camera took it."""

    record: FrameRecord

    @property
    def name(self) -> str:
        return self.record.name

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        try:
            return np.ascontiguousarray(self.record.load().image[..., ::-1])
        except FrameError as reason:
            raise as_dataset_error(reason) from reason


@dataclass(frozen=True)
class RectifiedFrame:
    """A frame as the SDK embeds it: north up, at the tiles' ground sampling distance.

    Args:
        record: of the frame; its heading must be known.
        camera: that took it.
        gsd_m: of the result, metres a pixel.
        px: side of the result.
    """

    record: FrameRecord
    camera: Camera
    gsd_m: float
    px: int

    @property
    def name(self) -> str:
        return self.record.name

    def read(self) -> NDArray[np.uint8]:
        """(px, px, 3) RGB, black where the camera sees nothing."""
        try:
            frame = self.record.load()
            camera = self.camera.scaled_to(frame.image.shape[1], frame.image.shape[0])
            turned = _rotation(self.record, camera)
            # One thread: data loaders have processes of their own.
            patch = rectify_frame(frame.image, camera, turned, frame.height, self.gsd_m, self.px, threads=1)
        except (FrameError, CameraError) as reason:
            raise DatasetError(
                reason.message, file=self.record.path, field=reason.field, found=reason.found, expected=reason.expected
            ) from reason
        return np.ascontiguousarray(patch.image[..., ::-1])


def read_flight_set(
    root: Path | str,
    split: str = "test",
    *,
    map: Path | str | None = None,
    camera: Path | str | None = None,
    tile_m: float | None = None,
    stride_m: float | None = None,
    tile_px: int = 256,
    rectify: bool = True,
    height_m: float | None = None,
    heading_deg: float | None = None,
    train_share: float = 0.0,
) -> CrossViewSet:
    """A flight folder over a map.

    The folder is what `cvgl.flight.Flight` reads: ``frames/``, ``frames.csv`` (`file, time, height_above_takeoff_m`,
    and as far as known `yaw_deg, pitch_deg, roll_deg, gps_latitude, gps_longitude, image_center_latitude,
    image_center_longitude`) and ``camera.yaml``; or a folder of photos with EXIF and XMP.

    References are the tiles of a gallery of that map. A frame matches the tile whose centre is nearest to the ground
    point at the middle of the image: `image_center_*`, or else `gps_*`, moved to where the camera looks if its attitude
    is known. Tiles that overlap that one are neither true nor false. Frames without a position, or outside the map, are
    left out.

    Args:
        root: the folder.
        split: "train": the flight's first frames, `train_share` of them; "test": the others. Tiles are all of the map's
            in both.
        map: a GeoTIFF; must be given.
        camera: a camera.yaml, where the folder has none.
        tile_m: side of a tile on the ground; None for what suits the camera at the flight's median height.
        stride_m: from tile to tile; None for a fifth of a tile.
        tile_px: side of a tile as an image.
        rectify: frames north up at the tiles' ground sampling distance, as the SDK embeds them; needs a camera and
            headings. False: as the camera took them.
        height_m: for frames that do not say theirs.
        heading_deg: for frames that do not say theirs.
        train_share: see `split`.

    Raises:
        DatasetError: a flight, camera or map that cannot be read, a frame with an unusable row, a frame without heading
            where one is needed, or no frame over the map.
    """
    root = Path(root)
    need_choice(split, "split", ("train", "test"))
    need_pixels(tile_px, "tile_px")
    if map is None:
        raise DatasetError("must be given", field="map", expected="the path of a GeoTIFF")
    if not 0 <= train_share <= 1:
        raise DatasetError("not usable", field="train_share", found=train_share, expected="a number from 0 to 1")
    try:
        given = None if camera is None else Camera.from_yaml(camera)
        flight = Flight.open(root, given, height=height_m, heading=heading_deg)
    except (FlightError, CameraError) as reason:
        raise as_dataset_error(reason) from reason
    for record in flight:
        if record.problem:
            raise DatasetError(record.problem, file=root, field=record.name)
        if not record.path.is_file():
            raise DatasetError("no such image", file=record.path, field=record.name)
    if rectify:
        _need_poses(flight, root)
    if tile_m is None:
        if flight.camera is None:
            raise DatasetError("must be given where the camera is unknown", file=root, field="tile_m")
        tile_m = choose_tile_size(flight.camera, statistics.median(record.height for record in flight))
    tile_m = need_positive(tile_m, "tile_m")
    stride_m = tile_m / 5 if stride_m is None else need_positive(stride_m, "stride_m")
    cut = round(train_share * len(flight))
    records = flight.records[:cut] if split == "train" else flight.records[cut:]
    source = open_map(Path(map))
    places = [
        (record, place) for record in records if (place := _place(record, flight.camera, source.local)) is not None
    ]
    if not places:
        raise DatasetError(
            "no frame with a position in this split",
            file=root,
            field="image_center_latitude",
            found=f"{len(records)} frames",
            expected="reference positions",
        )
    tiles, centres = map_tiles(Path(map), source.bounds, tile_m, stride_m, tile_px)
    queries: list[ImageSource] = []
    for record, _ in places:
        if rectify and flight.camera is not None:
            queries.append(RectifiedFrame(record, flight.camera, tile_m / tile_px, tile_px))
        else:
            queries.append(FlightFrame(record))
    area = Area(
        source.local,
        tile_m,
        queries,
        np.array([place for _, place in places]),
        np.array([record.height for record, _ in places]),
        tiles,
        centres,
    )
    return positioned_set("flight", split, [area], root)


def _need_poses(flight: Flight, root: Path) -> None:
    if flight.camera is None:
        raise DatasetError(
            "rectifying needs a camera",
            file=root / "camera.yaml",
            field="rectify",
            expected="a camera.yaml, the option camera, or rectify=False",
        )
    for record in flight:
        if record.heading is None:
            raise DatasetError(
                "rectifying needs the frame's heading",
                file=root,
                field=f"{record.name}, yaw_deg",
                expected="degrees, the option heading_deg, or rectify=False",
            )


def _rotation(record: FrameRecord, camera: Camera) -> NDArray[np.float64]:
    """(3, 3) camera to ENU; what moves the camera and is not known is taken as level, as the SDK takes it."""
    pitch, roll = (record.pitch, record.roll) if record.attitude_moves_camera else (None, None)
    return camera_to_enu(camera.mount, record.heading or 0.0, pitch or 0.0, roll or 0.0)


def _place(record: FrameRecord, camera: Camera | None, local: LocalFrame) -> tuple[float, float] | None:
    """Easting and northing of the ground point at the middle of the image."""
    if record.center_latitude is not None and record.center_longitude is not None:
        easting, northing = local.to_local(record.center_latitude, record.center_longitude)
        return float(easting), float(northing)
    if record.gps_latitude is None or record.gps_longitude is None:
        return None
    easting, northing = local.to_local(record.gps_latitude, record.gps_longitude)
    if camera is None or record.heading is None or math.isnan(record.height):
        return float(easting), float(northing)
    try:
        east, north = ground_offset(camera, _rotation(record, camera), record.height)
    except FrameError as reason:
        raise DatasetError(
            reason.message, file=record.path, field=reason.field, found=reason.found, expected=reason.expected
        ) from reason
    return float(easting + east), float(northing + north)
