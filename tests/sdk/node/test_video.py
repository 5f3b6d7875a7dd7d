"""Cameras read directly: stamps, a file's end, dead cameras, and what is no camera."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.errors import CameraError, MissingDependencyError
from cvgl.node import video
from cvgl.node.video import VideoCamera, kind_of

S = 10**9


def write_video(path: Path, frames: int = 6, rate: float = 50.0) -> Path:
    """Frames of 64 x 48 whose grey tells their number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 + 30 * index, np.uint8))
    writer.release()
    return path


def wait(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def test_a_file_is_played_once_in_its_order_and_at_its_rate(tmp_path: Path) -> None:
    got: list[tuple[int, int]] = []
    source = str(write_video(tmp_path / "flight.avi"))
    camera = VideoCamera(source, lambda image, stamp: got.append((int(image.mean()), stamp)), time.time_ns)
    camera.start()
    wait(lambda: not camera.is_alive())
    camera.close()
    assert [round((level - 20) / 30) for level, _ in got] == [0, 1, 2, 3, 4, 5]
    stamps = [stamp for _, stamp in got]
    assert stamps == sorted(set(stamps)) and stamps[-1] - stamps[0] >= 0.9 * 5 * S / 50
    assert camera.frames == 6 and camera.failures == 0


class Capture:
    """A camera of the tests: gives some frames, then fails."""

    def __init__(self, frames: int, position_ms: Callable[[], float] = lambda: 0.0) -> None:
        self.left, self.position_ms, self.released = frames, position_ms, False

    def isOpened(self) -> bool:  # OpenCV's name
        return self.left > 0

    def get(self, what: int) -> float:
        return self.position_ms() if what == cv2.CAP_PROP_POS_MSEC else 0.0

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_camera_that_fails_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_SHORTEST_S", 0.01)
    opened: list[Capture] = []
    log: list[str] = []

    def opener(source: str) -> Capture:
        opened.append(Capture(frames=(3, 0, 2, 10**9)[min(len(opened), 3)]))
        return opened[-1]

    got: list[int] = []
    camera = VideoCamera(
        "rtsp://camera", lambda image, stamp: got.append(stamp), time.time_ns, lambda *one: log.append(one[1]),
        opener=opener,
    )  # fmt: skip
    camera.start()
    wait(lambda: len(got) > 20)
    camera.close()
    assert camera.failures == 3 and len(log) == 3 and all("rtsp://camera" in line for line in log)
    assert all(one.released for one in opened) and not camera.is_alive()


def test_pauses_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_SHORTEST_S", 0.01)
    monkeypatch.setattr(video, "_LONGEST_S", 0.04)
    log: list[str] = []
    camera = VideoCamera(
        "0", lambda *_: None, time.time_ns, lambda *one: log.append(one[1]), opener=lambda _: Capture(0)
    )
    camera.start()
    wait(lambda: len(log) >= 4)
    camera.close()
    assert [line.rsplit("in ", 1)[1] for line in log[:4]] == ["0.02 s", "0.04 s", "0.04 s", "0.04 s"]


@pytest.mark.parametrize(
    ("source", "age_s", "delay_s", "expected_s"),
    [
        ("/dev/video0", 0.25, 0.0, 0.25),  # the driver's own stamp
        ("/dev/video0", 50.0, 0.1, 0.1),  # a driver whose clock is another
        ("rtsp://camera", 0.25, 0.1, 0.1),  # a stream's position is no time of exposure
    ],
)
def test_stamps(source: str, age_s: float, delay_s: float, expected_s: float) -> None:
    got: list[float] = []
    capture = Capture(10**9, lambda: (time.monotonic() - age_s) * 1e3)

    def deliver(image: Any, stamp: int) -> None:
        got.append((time.time_ns() - stamp) / S)
        time.sleep(0.01)

    camera = VideoCamera(source, deliver, time.time_ns, delay_s=delay_s, opener=lambda _: capture)
    camera.start()
    wait(lambda: len(got) > 3)
    camera.close()
    assert min(got) == pytest.approx(expected_s, abs=0.05)


def test_an_error_in_opening_or_delivering_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_SHORTEST_S", 0.01)
    got: list[int] = []

    def opener(source: str) -> Capture:
        if not got:
            got.append(0)
            raise RuntimeError("driver")
        return Capture(10**9)

    log: list[str] = []
    camera = VideoCamera("0", lambda i, s: got.append(s), time.time_ns, lambda *one: log.append(one[1]), opener=opener)
    camera.start()
    wait(lambda: len(got) > 3)
    camera.close()
    assert "RuntimeError: driver" in log[0]


@pytest.mark.parametrize(
    ("source", "kind"),
    [("0", "device"), ("/dev/video2", "device"), ("rtsp://10.0.0.5/live", "stream"), ("udp://@:5600", "stream")],
)
def test_kinds(source: str, kind: str) -> None:
    assert kind_of(source) == kind


def test_what_is_no_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CameraError, match="no such camera"):
        kind_of("nowhere.mp4")
    monkeypatch.setattr(video, "_has_gstreamer", lambda: False)
    with pytest.raises(MissingDependencyError, match="GStreamer"):
        kind_of("videotestsrc ! appsink")
    monkeypatch.setattr(video, "_has_gstreamer", lambda: True)
    assert kind_of("videotestsrc ! appsink") == "pipeline"


class Stream:
    """A camera on the network: MPEG over UDP, sent by a thread until it is closed."""

    def __init__(self, port: int) -> None:
        fourcc = cv2.VideoWriter_fourcc(*"mp2v")
        self._writer = cv2.VideoWriter(f"udp://127.0.0.1:{port}/live.ts", cv2.CAP_FFMPEG, fourcc, 25.0, (160, 120))
        self.works = self._writer.isOpened()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while self.works and not self._stopping.wait(0.04):
            self._writer.write(np.full((120, 160, 3), 120, np.uint8))

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._writer.release()


def test_a_stream_that_dies_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_TIMEOUT_MS", 1500)
    monkeypatch.setattr(video, "_SHORTEST_S", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    stream = Stream(port)
    if not stream.works:
        pytest.skip("this OpenCV writes no MPEG stream")
    got: list[int] = []
    camera = VideoCamera(f"udp://127.0.0.1:{port}", lambda image, stamp: got.append(stamp), time.time_ns)
    camera.start()
    try:
        wait(lambda: len(got) > 5)
        stream.close()
        wait(lambda: camera.failures > 0)
        before = len(got)
        stream = Stream(port)
        wait(lambda: len(got) > before + 5)
    finally:
        stream.close()
        camera.close()
    assert got == sorted(got)
