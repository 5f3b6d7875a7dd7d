"""Work that runs ahead of whoever uses it, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["ahead"]

_T = TypeVar("_T")
_WAIT_S = 0.1


def ahead(items: Iterable[_T], most: int) -> Iterator[_T]:
    """The same items in the same order, taken up to ``most`` ahead. What ``items`` raises is raised here.

    When the iterator is closed or let go of, the thread ends after the item it is at.
    """
    waiting: queue.Queue[tuple[bool, object]] = queue.Queue(most)
    stopped = threading.Event()

    def put(entry: tuple[bool, object]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=_WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stopped.set()
        # Whoever closes what is read from may do so once this returns.
        thread.join()
