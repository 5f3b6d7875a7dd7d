"""Threads that share a frame's work with the one that asks for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Crew"]

Result = TypeVar("Result")


class Crew(ThreadPoolExecutor):
    """An executor whose ``map`` lets the calling thread work instead of wait.

    The pieces of a frame's work take a fraction of a millisecond each. To hand every one of them to a pool and to wait
    for it by itself costs a good part of that again; here each thread is told once, and then takes piece by piece.

    Args:
        threads: that work at most, the calling one among them; at least 2.
    """

    def __init__(self, threads: int) -> None:
        self._helpers = max(threads - 1, 1)
        super().__init__(self._helpers, thread_name_prefix="cvgl")

    def map(
        self, fn: Callable[..., Result], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Result]:
        """``fn`` of each of the arguments, in their order; all of them are done when it returns.

        Args:
            fn: called by several threads at a time.
            iterables: of its arguments, as for the built-in ``map``.
            timeout, chunksize: as other executors have them; they change nothing here.

        Raises:
            Exception: the first that ``fn`` raised; what nobody had begun by then is left undone.
        """
        jobs = list(zip(*iterables, strict=False))
        results: list[Any] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))

        def work() -> None:
            try:
                while waiting:
                    try:
                        index = waiting.popleft()
                    except IndexError:  # another thread was quicker
                        return
                    results[index] = fn(*jobs[index])
            except BaseException:
                waiting.clear()
                raise

        helpers = [self.submit(work) for _ in range(min(self._helpers, len(jobs) - 1))]
        try:
            work()
        finally:
            # One that has not begun has nothing left to do.
            unfinished = [helper for helper in helpers if not helper.cancel()]
            failures = [helper.exception() for helper in unfinished]
        for failure in failures:
            if failure is not None:
                raise failure
        return iter(results)
