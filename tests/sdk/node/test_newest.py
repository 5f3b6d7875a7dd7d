"""The newest frame wins, and what it replaced is counted."""

from __future__ import annotations

import threading

from cvgl.node.newest import NewestOnly


def test_newest_replaces_what_waits() -> None:
    queue: NewestOnly[int] = NewestOnly()
    for item in range(5):
        queue.put(item)
    assert queue.take() == 4
    assert queue.dropped == 4


def test_worker_sees_order_and_the_end() -> None:
    queue: NewestOnly[int] = NewestOnly()
    seen: list[int] = []

    def work() -> None:
        while (item := queue.take()) is not None:
            seen.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    for item in range(1000):
        queue.put(item)
    queue.close()
    worker.join(timeout=10)
    assert not worker.is_alive()
    assert seen == sorted(seen)
    assert len(seen) + queue.dropped in (999, 1000)  # one may have waited when the queue was closed


def test_closed_queue_takes_and_gives_nothing() -> None:
    queue: NewestOnly[int] = NewestOnly()
    queue.put(1)
    queue.close()
    queue.put(2)
    assert queue.take() is None
