"""Peers of the way from a camera frame to a descriptor: OpenCV and numpy for the warp, ONNX Runtime as it comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError, ModelError
from cvgl.frame import Frame
from cvgl.geometry import camera_to_enu
from cvgl.localizer import Localizer
from cvgl.model import View
from cvgl.rectify import ground_offset, warp_to_input

__all__ = ["Task", "as_flown", "fine_chain", "input_as_flown", "onnx_as_it_comes", "plain_chain", "supersampled"]

Input = NDArray[np.float32]
"""(1, 3, H, W): what the network sees."""

# How much finer than the patch the chain of good quality samples the frame before it averages.
_FINER = 4
_REFERENCE_FINER = 16


class Task:
    """Frames with a heading, on their way to the network of a localiser: what all peers have in common.

    Args:
        localizer: its camera, model and tile size.
    """

    def __init__(self, localizer: Localizer) -> None:
        self.localizer = localizer
        self.view: View = localizer.model.views["query"]
        self.size = self.view.input_size[0]
        self.gsd = localizer.gallery.manifest.tile_size_m / self.size
        # x / (255 std) - mean / std, in one multiplication and one subtraction.
        std, mean = (np.array(value, np.float32)[:, None, None] for value in (self.view.std, self.view.mean))
        self.factor, self.bias = 1 / (255 * std), mean / std

    def camera(self, frame: Frame) -> Camera:
        """With the intrinsics of the frame's size."""
        return self.localizer.camera.scaled_to(*frame.size)

    def rotation(self, frame: Frame) -> NDArray[np.float64]:
        """(3, 3) camera to ENU.

        Raises:
            FrameError: the heading is not known.
        """
        if frame.heading is None:
            raise FrameError("peers need a heading", field="heading")
        return camera_to_enu(self.localizer.camera.mount, frame.heading, frame.pitch or 0.0, frame.roll or 0.0)

    def homography(self, frame: Frame, finer: int) -> NDArray[np.float64]:
        """(3, 3) from pixels of a patch that is some times finer than the network's to the undistorted frame's."""
        camera, rotation = self.camera(frame), self.rotation(frame)
        east, north = ground_offset(camera, rotation, frame.height)
        gsd, half = self.gsd / finer, (finer * self.size - 1) / 2
        ground = np.array([[gsd, 0.0, east - half * gsd], [0.0, -gsd, north + half * gsd], [0.0, 0.0, -frame.height]])
        lens = np.array([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
        return np.asarray(lens @ rotation.T @ ground)

    def normalised(self, patch: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Input:
        """A BGR patch (H, W, 3) as numpy normalises it."""
        picture = patch[..., ::-1].transpose(2, 0, 1).astype(np.float32) * self.factor - self.bias
        picture *= mask > 0
        return np.ascontiguousarray(picture[None])


def input_as_flown(task: Task) -> Callable[[Frame], Input]:
    """Frame to the network's input as ``Localizer.locate`` makes it, in memory that the next call uses again."""
    size = task.size
    out = np.empty((1, 3, size, size), np.float32), np.empty((1, size, size), np.uint8)
    scale, offset = task.view.normalisation

    def run(frame: Frame) -> Input:
        warp_to_input(
            frame.image,
            task.camera(frame),
            [task.rotation(frame)],
            frame.height,
            task.gsd,
            size,
            scale,
            offset,
            pixels=frame.layout,
            channels=task.view.channels,
            out=out,
            threads=task.localizer.threads,
        )
        return out[0]

    return run


def as_flown(task: Task) -> Callable[[Frame], NDArray[np.float32]]:
    """Frame to descriptor (D,) as ``Localizer.locate`` does it."""
    warp, model = input_as_flown(task), task.localizer.model
    return lambda frame: model.embed_inputs(warp(frame))[0]


def plain_chain(task: Task) -> Callable[[Frame], Input]:
    """The chain that one writes first: undistort where there is distortion, warp, normalise with numpy.

    Bilinear interpolation looks at four pixels of the many that a patch's pixel covers: it aliases.
    """
    undistort = _undistortion()

    def run(frame: Frame) -> Input:
        picture = undistort(frame.image, task.camera(frame))
        matrix, size = task.homography(frame, 1), (task.size, task.size)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpPerspective(picture, matrix, size, flags=flags)
        return task.normalised(patch, _seen(task, frame, 1))

    return run


def fine_chain(task: Task, finer: int = _FINER) -> Callable[[Frame], Input]:
    """The same with antialiasing: warp to a patch that is some times finer, average its pixels, normalise."""
    undistort = _undistortion()

    def run(frame: Frame) -> Input:
        picture = undistort(frame.image, task.camera(frame))
        size = (finer * task.size, finer * task.size)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        fine = cv2.warpPerspective(picture, task.homography(frame, finer), size, flags=flags)
        patch = cv2.resize(fine, (task.size, task.size), interpolation=cv2.INTER_AREA)
        return task.normalised(patch, _seen(task, frame, 1))

    return run


def supersampled(task: Task) -> Callable[[Frame], Input]:
    """What both chains approximate, from 256 samples a pixel; slow."""
    return fine_chain(task, _REFERENCE_FINER)


def onnx_as_it_comes(task: Task) -> Callable[[Input], NDArray[np.float32]]:
    """The network in a session with the runtime's default settings: input to descriptor (D,) of unit length.

    Raises:
        ModelError: the bundle has no such ONNX file, or it does not load.
    """
    import onnxruntime

    file = Path(task.localizer.model.path) / task.view.file
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime's own exceptions have no common base of their own
        raise ModelError("ONNX Runtime does not load it", file=file, found=str(reason)[:200]) from reason
    name = session.get_inputs()[0].name

    def run(picture: Input) -> NDArray[np.float32]:
        descriptor = np.asarray(session.run(None, {name: picture})[0][0], np.float32)
        return descriptor / np.float32(math.sqrt(float(descriptor @ descriptor)))

    return run


def _undistortion() -> Callable[[NDArray[np.uint8], Camera], NDArray[np.uint8]]:
    """Undistorts where there is distortion, by maps that are made once for a camera."""
    maps: dict[Camera, tuple[NDArray[np.int16], NDArray[np.uint16]]] = {}

    def run(picture: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
        fisheye = camera.model == "fisheye"
        if not (fisheye or any(camera.distortion)):
            return picture
        if camera not in maps:
            lens = np.array([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
            size = (camera.width, camera.height)
            bent = np.array(camera.distortion or (0.0,) * 4, np.float64)
            if fisheye:
                maps[camera] = cv2.fisheye.initUndistortRectifyMap(lens, bent, np.eye(3), lens, size, cv2.CV_16SC2)
            else:
                maps[camera] = cv2.initUndistortRectifyMap(lens, bent, None, lens, size, cv2.CV_16SC2)
        return cv2.remap(picture, *maps[camera], cv2.INTER_LINEAR)

    return run


def _seen(task: Task, frame: Frame, finer: int) -> NDArray[np.uint8]:
    """255 where the camera sees the ground, by its corners rather than by warping a white picture."""
    width, height = frame.size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]])
    inverse = np.linalg.inv(task.homography(frame, finer))
    outline = cv2.perspectiveTransform(corners[None], inverse)[0]
    mask = np.zeros((finer * task.size, finer * task.size), np.uint8)
    cv2.fillConvexPoly(mask, np.round(outline * 16).astype(np.int32), 255, shift=4)
    return mask
