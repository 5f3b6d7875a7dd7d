"""How many frames a second: one localiser back to back, and two of them in two threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cvgl.bench.spread import spread
from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.flight import Flight
from cvgl.frame import Frame
from cvgl.localizer import Localizer

__all__ = ["back_to_back", "load_frames", "two_threads"]

_MOST_BYTES = 256_000_000


def load_frames(flight: Flight, most: int = 32) -> list[Frame]:
    """The first readable frames of a flight, decoded, as many as fit into 256 MB and at most ``most``."""
    frames: list[Frame] = []
    held = 0
    for record in flight:
        if len(frames) == most or held > _MOST_BYTES:
            break
        try:
            frame = record.load()
        except FrameError:
            continue
        frames.append(frame)
        held += frame.image.nbytes
    return frames


def back_to_back(localizer: Localizer, frames: Sequence[Frame], seconds: float = 3.0) -> float:
    """Frames a second of one localiser that always has the next frame at hand.

    Args:
        localizer: has located a frame before.
        frames: decoded; located in turn, again and again.
        seconds: for at least so long, and all frames equally often.
    """
    count, spent, began = 0, 0.0, time.perf_counter()
    while spent < seconds:
        for frame in frames:
            localizer.locate(frame)
        count += len(frames)
        spent = time.perf_counter() - began
    return count / spent


def two_threads(
    mission: str | Path,
    frames: Sequence[Frame],
    *,
    rounds: int = 5,
    camera: Camera | None = None,
    on_round: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """What a second localiser in a second thread adds, each computing with one thread.

    A round is the same frames by the first alone, by both at once, and by the second alone; rounds are taken in turn,
    so that whatever else the machine does meets all three.

    Args:
        mission: opened twice.
        frames: decoded; each localiser locates all of them in every part of a round.
        rounds: how many.
        camera: the flight's, where it is not the mission's.
        on_round: called after each.

    Returns:
        ``one`` and ``two``: frames a second, the medians; ``scaling``: how many times one's frames two deliver,
        as :func:`cvgl.bench.spread.spread` puts it over the rounds; ``rounds``.

    Raises:
        MissionError, CameraError, ModelError, GalleryError: as :meth:`cvgl.Localizer.open`.
    """
    pair = [Localizer.open(mission, threads=1) for _ in range(2)]
    for localizer in pair:
        if camera is not None:
            localizer.camera = camera
        localizer.locate(frames[0])
    ones: list[float] = []
    twos: list[float] = []
    for _ in range(rounds):
        first = _seconds(pair[:1], frames)
        both = _seconds(pair, frames)
        second = _seconds(pair[1:], frames)
        ones.append(2 * len(frames) / (first + second))
        twos.append(2 * len(frames) / both)
        if on_round is not None:
            on_round()
    return {
        "one": round(spread(ones)["p50"], 3),
        "two": round(spread(twos)["p50"], 3),
        "scaling": spread([two / one for one, two in zip(ones, twos, strict=True)]),
        "rounds": rounds,
    }


def _seconds(localizers: Sequence[Localizer], frames: Sequence[Frame]) -> float:
    """Until every localiser, each in a thread of its own, has located all frames."""
    start = threading.Barrier(len(localizers) + 1)

    def work(localizer: Localizer) -> None:
        start.wait()
        for frame in frames:
            localizer.locate(frame)

    threads = [threading.Thread(target=work, args=(localizer,)) for localizer in localizers]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began
