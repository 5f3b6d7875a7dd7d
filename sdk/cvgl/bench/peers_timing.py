"""Contestants on the same work in one run: interleaved rounds, and ratios with their confidence intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "Timed", "interleave", "ratio"]

Item = TypeVar("Item")
_DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A figure with the 95 % interval of a bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_digits(self.value)} ({_digits(self.low)} to {_digits(self.high)})"


@dataclass(frozen=True)
class Timed:
    """What one contestant did.

    Args:
        milliseconds: (rounds, items) of each call, by the wall.
        processor_ms: (rounds, items) of all the processors' time that each call took: what other programs do hardly
            lengthens it, and threads do not shorten it.
        answers: to each item, from the first round.
    """

    milliseconds: NDArray[np.float64]
    processor_ms: NDArray[np.float64]
    answers: list[Any]

    @property
    def p50(self) -> float:
        """Median, ms."""
        return float(np.median(self.milliseconds))

    @property
    def p95(self) -> float:
        """95th percentile, ms."""
        return float(np.percentile(self.milliseconds, 95))


def interleave(
    contestants: Mapping[str, Callable[[Item], Any]],
    items: Sequence[Item],
    *,
    rounds: int,
    pause_s: float = 0.005,
    on_item: Callable[[], None] | None = None,
) -> dict[str, Timed]:
    """Have every contestant do every item, one after the other in an order that rotates from item to item.

    So whatever else the machine does meets all of them. Each does the first item once before anything counts.

    Args:
        contestants: by name; each takes an item and returns its answer.
        items: the work.
        rounds: over all items.
        pause_s: before every call, seconds: idle workers of the one before may still spin and would take its cores.
        on_item: called when an item has been done by all.
    """
    names = list(contestants)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    answers: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        contestants[name](items[0])
    for number in range(rounds):
        for place, item in enumerate(items):
            first = (place + number) % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(pause_s)
                began, busy = time.perf_counter(), time.process_time()
                answer = contestants[name](item)
                spent[name].append((time.perf_counter() - began, time.process_time() - busy))
                if number == 0:
                    answers[name].append(answer)
            if on_item is not None:
                on_item()
    shaped = {name: 1e3 * np.array(spent[name]).reshape(rounds, len(items), 2) for name in names}
    return {name: Timed(shaped[name][..., 0], shaped[name][..., 1], answers[name]) for name in names}


def ratio(peer: NDArray[np.float64], own: NDArray[np.float64]) -> Interval:
    """How many times longer the peer takes: the ratio of medians over the same calls, and its interval.

    Items are resampled with all their rounds: repeated calls on one item are no independent draws of items.

    Args:
        peer, own: (rounds, items) of the same calls.
    """
    rng = np.random.default_rng(0)
    items = own.shape[1]
    ratios = []
    for chosen in rng.integers(0, items, (_DRAWS, items)):
        ratios.append(np.median(peer[:, chosen]) / np.median(own[:, chosen]))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Interval(float(np.median(peer) / np.median(own)), float(low), float(high))


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
