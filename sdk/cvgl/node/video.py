"""A camera read directly, through OpenCV: a V4L2 device, an RTSP or UDP stream, a GStreamer pipeline, a video file.

Frames are read as fast as they come and handed on at once, so that nothing grows old in a buffer; who cannot keep up
takes the newest. A camera that fails is opened again, after a pause that doubles up to some seconds.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CameraError, MissingDependencyError
from cvgl.node.log import harmless
from cvgl.node.tracks import NANOSECONDS

__all__ = ["VideoCamera", "kind_of"]

_SHORTEST_S, _LONGEST_S = 0.5, 8.0
_TIMEOUT_MS = 5000
_STREAMS = ("rtsp://", "rtsps://", "rtp://", "udp://", "tcp://", "http://", "https://", "srt://")
# A driver's stamp is believed if it is this recent.
_OLDEST_S = 1.0
_DEFAULT_RATE_HZ = 30.0


def kind_of(source: str) -> str:
    """``device``, ``stream``, ``pipeline`` or ``file``.

    Raises:
        CameraError: none of these: no such file or device.
        MissingDependencyError: a pipeline, and this OpenCV was built without GStreamer.
    """
    if source.isdigit() or source.startswith("/dev/"):
        return "device"
    if source.lower().startswith(_STREAMS):
        return "stream"
    if "!" in source:
        if not _has_gstreamer():
            raise MissingDependencyError("a pipeline needs an OpenCV with GStreamer, such as the system's own")
        return "pipeline"
    if Path(source).is_file():
        return "file"
    expected = "a number or /dev/videoN, rtsp://..., a GStreamer pipeline ending in appsink, or a video file"
    raise CameraError("no such camera", field="camera", found=source, expected=expected)


class VideoCamera:
    """Reads a camera in a thread of its own.

    The stamp of a frame is the driver's, where it gives one (V4L2); otherwise when the frame arrived, less ``delay_s``.
    A video file is played at its own rate, once.

    Args:
        source: see ``kind_of``.
        deliver: called with each picture, (H, W, 3) BGR, and its stamp in nanoseconds.
        now: the clock of stamps, nanoseconds.
        log: called with ``"error"``, ``"warning"`` or ``"info"`` and a text.
        delay_s: from exposure to arrival, where the driver does not say.
        opener: what opens a source; OpenCV, if not a test's.

    Raises:
        CameraError, MissingDependencyError: see ``kind_of``.
    """

    def __init__(
        self,
        source: str,
        deliver: Callable[[NDArray[np.uint8], int], None],
        now: Callable[[], int],
        log: Callable[[str, str], None] = lambda level, text: None,
        *,
        delay_s: float = 0.0,
        opener: Callable[[str], Any] | None = None,
    ) -> None:
        self.kind = kind_of(source)
        self.frames = 0
        self.failures = 0
        self._source = source
        self._deliver = deliver
        self._now = now
        self._log = harmless(log)
        self._delay = round(delay_s * NANOSECONDS)
        self._opener = opener or self._open
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cvgl-camera", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; waits for a read that is under way, which a stream ends after some seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether it still reads: until ``close``, or a file's end."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = _SHORTEST_S
        while not self._stopping.is_set():
            before = self.frames
            try:
                ended = self._read()
            except Exception:  # a camera that fails in a new way is still to be opened again
                self._log("error", traceback.format_exc())
                ended = False
            if ended or self._stopping.is_set():
                return
            self.failures += 1
            pause = _SHORTEST_S if self.frames > before else min(2 * pause, _LONGEST_S)
            self._log("warning", f"camera: {self._source} gives nothing; tried again in {pause:g} s")
            self._stopping.wait(pause)

    def _read(self) -> bool:
        """Read until it fails; true at the end of a file."""
        capture = self._opener(self._source)
        try:
            if not capture.isOpened():
                return False
            rate = float(capture.get(cv2.CAP_PROP_FPS)) if self.kind == "file" else 0.0
            began, index = time.monotonic(), 0
            while not self._stopping.is_set():
                if self.kind == "file":
                    # Played at its own rate, or a flight would be over in seconds.
                    due = began + index / (rate if 0.1 <= rate <= 1000 else _DEFAULT_RATE_HZ)
                    self._stopping.wait(max(0.0, due - time.monotonic()))
                if not capture.grab():
                    return self.kind == "file" and index > 0
                stamp = self._stamp(capture)
                good, image = capture.retrieve()
                if not good or image is None or image.size == 0:
                    return False
                index += 1
                self.frames += 1
                self._deliver(np.asarray(image, np.uint8), stamp)
        finally:
            capture.release()
        return True

    def _stamp(self, capture: Any) -> int:
        if self.kind == "device":
            # The V4L2 backend gives the driver's time of the frame, on the steady clock.
            age = time.monotonic() - float(capture.get(cv2.CAP_PROP_POS_MSEC)) * 1e-3
            if 0.0 <= age <= _OLDEST_S:
                return self._now() - round(age * NANOSECONDS)
        return self._now() - self._delay

    def _open(self, source: str) -> Any:
        if self.kind == "device":
            number = source.removeprefix("/dev/video")
            return cv2.VideoCapture(int(number) if number.isdigit() else source, cv2.CAP_V4L2)
        if self.kind == "pipeline":
            return cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
        if self.kind == "file":
            return cv2.VideoCapture(source, cv2.CAP_FFMPEG)
        # Without these FFmpeg holds frames back to smooth them, and waits for a dead stream for half a minute.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "fflags;nobuffer|flags;low_delay|rtsp_transport;tcp")
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)


def _has_gstreamer() -> bool:
    return cv2.CAP_GSTREAMER in cv2.videoio_registry.getStreamBackends()
