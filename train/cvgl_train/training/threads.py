"""How many threads a training step uses on a CPU that other programs use too."""

from __future__ import annotations

import math

import torch

__all__ = ["Threads"]


class Threads:
    """One thread or all, whichever is faster at the moment.

    Where other programs take cores away, threads that wait for each other at every layer are several times slower than
    a single one, and who else runs changes while we train. So the other count is tried now and then. Sums are taken in
    another order then: a run that must be repeated bit for bit fixes the count.

    Args:
        device: where the training runs; nothing is tried but on a CPU.
        count: to fix; None to try.
    """

    _EVERY, _TRIAL = 120, 3

    def __init__(self, device: torch.device, count: int | None = None) -> None:
        self._before = torch.get_num_threads()
        most = count or self._before
        tried = count is None and device.type == "cpu" and most > 1
        self._counts = [1, most] if tried else [most]
        self._times: dict[int, list[float]] = {count: [] for count in self._counts}
        self._trying = False
        self._use(self._counts[0])
        # The first trial comes soon.
        self._since = self._EVERY - 2 * self._TRIAL

    def took(self, seconds: float) -> None:
        """Tell how long the last step was."""
        if len(self._counts) == 1:
            return
        self._times[self._now].append(seconds)
        self._since += 1
        typical = {count: _median(times[-self._TRIAL :]) for count, times in self._times.items() if times}
        if self._trying:
            if self._since == self._TRIAL:
                self._trying = False
                self._use(min(typical, key=lambda count: typical[count]))
            return
        other = next(count for count in self._counts if count != self._now)
        disturbed = self._since >= 2 * self._TRIAL and typical[self._now] > 1.3 * typical.get(other, math.inf)
        if self._since >= self._EVERY or disturbed:
            self._trying = True
            self._use(other)

    def restore(self) -> None:
        """Back to the count before."""
        torch.set_num_threads(self._before)

    def _use(self, count: int) -> None:
        self._now, self._since = count, 0
        torch.set_num_threads(count)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
