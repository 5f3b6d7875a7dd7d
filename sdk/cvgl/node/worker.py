"""The thread of a node that answers frames: it takes the newest one, waits a moment for telemetry that covers its
exposure, localises, and hands the answer over. Nothing that comes in stops it: what cannot be used is counted, with its
reason."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CvglError, FrameError
from cvgl.fix import Fix, FixStatus
from cvgl.frame import Frame, Prior
from cvgl.node.attitude import Attitude
from cvgl.node.claims import own_answer
from cvgl.node.health import Health
from cvgl.node.log import harmless
from cvgl.node.newest import NewestOnly
from cvgl.node.tracks import NANOSECONDS, Track

__all__ = ["OUT_OF_ORDER", "Answer", "Locator", "Node", "Pace", "Paired", "Worker"]

OUT_OF_ORDER = "image: out of order or sent twice"
_UNUSABLE = (CvglError, AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError)


class Locator(Protocol):
    """What answers frames: :class:`cvgl.Localizer`, or anything like it."""

    camera: Camera
    mission: Any
    model: Any
    gallery: Any

    def locate(self, frame: Frame) -> Fix:
        """The fix of one frame by itself."""

    def track(self, frame: Frame) -> Fix:
        """The fix of the next frame of a sequence."""

    def reset(self, prior: Prior | None = None) -> None:
        """Begin a sequence."""


@dataclass(frozen=True)
class Pace:
    """How a node treats its frames; asked for with every frame, so that it may change.

    Args:
        tracking: keep a sequence, or treat every frame by itself.
        refined_only: a coarse fix counts as none.
        wait_s: how long a frame waits for telemetry that covers its exposure.
        jump_s: stamps that step back by more mean that a clock was set; smaller steps are out of order.
    """

    tracking: bool
    refined_only: bool
    wait_s: float
    jump_s: float


@dataclass(frozen=True)
class Paired:
    """What telemetry says about the moment of an exposure.

    Args:
        height: of the camera above the ground, metres.
        attitude: of the vehicle.
        velocity: (east, north) over ground, m/s; None where it is not known.
    """

    height: float
    attitude: Attitude
    velocity: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """A frame that went through the localiser.

    Args:
        fix: what it answered; without a position where only a coarse one was found and none such is wanted.
        paired: the telemetry.
        stamp: of the exposure, nanoseconds.
        delay_ms: from exposure (by its stamp) to the answer.
        image: the picture, in the layout that ``pixels`` names (see :class:`cvgl.Frame`).
    """

    fix: Fix
    paired: Any
    stamp: int
    delay_ms: float
    image: NDArray[np.uint8]
    pixels: str


class Node(Protocol):
    """What stands around a worker: where its telemetry comes from, and where its answers go."""

    def pace(self) -> Pace:
        """As it is now."""

    def awaited(self) -> Sequence[Track[Any]]:
        """The tracks that a frame waits for, if they do not cover its exposure yet."""

    def paired(self, stamp: int) -> Paired:
        """Telemetry at an exposure; called under the worker's lock.

        Raises:
            FrameError: what the frame cannot do without is not there.
        """

    def picture(self, message: Any) -> tuple[NDArray[np.uint8], str]:
        """The image of what was put, and its layout.

        Raises:
            FrameError: there is none in it.
        """

    def answered(self, answer: Answer) -> None:
        """Send an answer."""

    def refused(self, stamp: int, reason: str) -> None:
        """Tell of a frame that did not get as far as the localiser."""


@dataclass(frozen=True)
class _Item:
    """A frame that waits for its turn."""

    message: Any
    stamp: int


class Worker:
    """Answers the newest frame of a node.

    Args:
        localizer: the worker's thread is the only one to use it.
        node: see there.
        now: nanoseconds on the clock of the stamps.
        log: called with ``"error"``, ``"warning"`` or ``"info"`` and a text for people.

    Attributes:
        changed: guards everything that threads share, the node's tracks included; notified when telemetry comes in.
        health: counts and rates; to be used under ``changed``.
    """

    def __init__(self, localizer: Locator, node: Node, now: Callable[[], int], log: Callable[[str, str], None]) -> None:
        self.changed = threading.Condition()
        self.health = Health()
        self._localizer = localizer
        self._node = node
        self._now = now
        self._log = harmless(log)
        self._newest_stamp = 0  # of an image that came in
        self._last_stamp = 0  # of a frame that telemetry was found for
        self._restart: list[Prior | None] = []  # at most one: what the localiser is to be reset to
        self._camera: Camera | None = None
        self._found: bool | None = None  # whether the last answer was a fix
        self._closing = False
        self._queue: NewestOnly[_Item] = NewestOnly()
        self._thread = threading.Thread(target=self._work, name="cvgl-worker", daemon=True)

    @property
    def dropped(self) -> int:
        """Frames that newer ones replaced before their turn."""
        return self._queue.dropped

    @property
    def camera(self) -> Camera | None:
        """The camera that the next frame will be taken with, if it is to change."""
        with self.changed:
            return self._camera

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the thread finish its frame and stop."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, message: Any, stamp: int) -> bool:
        """A new frame; false for one that is out of order.

        Args:
            message: whatever ``Node.picture`` reads.
            stamp: of its exposure, nanoseconds.
        """
        with self.changed:
            if self._late(stamp, self._newest_stamp):
                self.health.refuse(OUT_OF_ORDER, "out_of_order")
                return False
            self._newest_stamp = stamp
        self._queue.put(_Item(message, stamp))
        return True

    def reset(self, prior: Prior | None, keep: bool = False) -> None:
        """Begin a sequence with the next frame, around ``prior`` or anywhere; ``keep`` one that waits already."""
        with self.changed:
            if not (keep and self._restart):
                self._restart = [prior]

    def take_camera(self, camera: Camera) -> None:
        """Change the camera with the next frame."""
        with self.changed:
            self._camera = camera

    def note(self, track: Track[Any], stamp: int, value: Any, source: str) -> None:
        """A measurement that came in; ``source`` names it in the health."""
        with self.changed:
            track.add(stamp, value)
            self.health.heard(source)
            self.changed.notify_all()

    def guarded(self, name: str, handler: Callable[[Any], Any]) -> Callable[[Any], None]:
        """A handler that counts what it cannot use instead of raising."""

        def guarded(message: Any) -> None:
            try:
                handler(message)
            except _UNUSABLE as error:
                with self.changed:
                    self.health.refuse(f"{name}: {error}", "telemetry_refused")

        return guarded

    def _late(self, stamp: int, last: int) -> bool:
        """Whether a stamp is no later than the last one; much earlier means that a clock was set."""
        return -self._node.pace().jump_s * NANOSECONDS <= stamp - last <= 0

    def _work(self) -> None:
        while (item := self._queue.take()) is not None:
            try:
                self._answer(item)
            except CvglError as error:
                self._refuse(item.stamp, str(error))
            except Exception as error:  # one frame must not end localisation for the rest of the flight
                self._log("error", traceback.format_exc())
                self._refuse(item.stamp, repr(error))

    def _answer(self, item: _Item) -> None:
        pace = self._node.pace()
        paired = self._pair(item.stamp, pace)
        if not self._follows(item.stamp):
            raise FrameError(OUT_OF_ORDER)
        image, pixels = self._node.picture(item.message)
        with self.changed:
            restart, self._restart = self._restart, []
            camera, self._camera = self._camera, None
        if restart:
            self._localizer.reset(restart[0])
        if camera is not None:
            self._localizer.camera = camera
        # A gimbal that holds the camera level takes the vehicle's roll and pitch out, and so they say nothing of it.
        leans = not self._localizer.mission.camera.stabilized
        frame = Frame(
            image=image,
            time=item.stamp / NANOSECONDS,
            height=paired.height,
            heading=paired.attitude.heading,
            pitch=paired.attitude.pitch if leans else None,
            roll=paired.attitude.roll if leans else None,
            prior=None if pace.tracking or not restart else restart[0],
            pixels=pixels,
            velocity=paired.velocity,
        )
        fix = own_answer(self._localizer.track(frame)) if pace.tracking else self._localizer.locate(frame)
        if fix.status is FixStatus.COARSE and pace.refined_only:
            fix = replace(fix, status=FixStatus.NO_FIX, reason=f"only coarse: {fix.reason}")
        delay_ms = (self._now() - item.stamp) * 1e-6
        self._node.answered(Answer(fix, paired, item.stamp, delay_ms, image, pixels))
        with self.changed:
            self.health.answered(fix, delay_ms)
        self._say(bool(fix), f"fix, {fix.sigma_m:.1f} m" if fix else f"no fix: {fix.reason}")

    def _follows(self, stamp: int) -> bool:
        """Take a frame into the sequence; false where a later one has been answered.

        A stamp counts only here, once telemetry agrees that there is such a time: one false stamp alone neither ends
        a sequence nor makes the frames after it late.
        """
        with self.changed:
            if self._late(stamp, self._last_stamp):
                self.health.counts["out_of_order"] += 1
                return False
            if stamp < self._last_stamp:
                # The clock was set back (or all was started anew): what the tracker knew is dated after this frame.
                self.health.counts["clock_jumps"] += 1
                self._restart = self._restart or [None]
            self._last_stamp = stamp
            return True

    def _pair(self, stamp: int, pace: Pace) -> Paired:
        """Telemetry at an exposure, after waiting a moment for what is still on its way."""
        tracks = self._node.awaited()
        deadline = time.monotonic() + pace.wait_s
        with self.changed:
            while not self._closing and not all(track.covers(stamp) for track in tracks):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            return self._node.paired(stamp)

    def _refuse(self, stamp: int, reason: str) -> None:
        with self.changed:
            self.health.refuse(reason)
        self._say(False, f"no fix: {reason}")
        self._node.refused(stamp, reason)

    def _say(self, found: bool, text: str) -> None:
        """Tell people of loss and recovery."""
        if found != self._found:
            self._found = found
            self._log("info", text)
