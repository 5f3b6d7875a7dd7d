"""A crew answers as the built-in map does, whoever of it does the work."""

from __future__ import annotations

import threading
import time

import pytest

from cvgl.crew import Crew


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_results_come_in_the_order_of_the_arguments(threads: int, count: int) -> None:
    with Crew(threads) as crew:
        for _ in range(3):
            found = crew.map(lambda a, b: a - b, range(count), range(100, 200))
            assert list(found) == [-100] * count


def test_the_caller_works_too_and_nobody_else_than_the_crew() -> None:
    seen = set()

    def work(_: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.002)

    with Crew(3) as crew:
        list(crew.map(work, range(60)))
    assert threading.get_ident() in seen
    assert 2 <= len(seen) <= 3


def test_all_is_done_when_it_returns() -> None:
    done = []
    with Crew(4) as crew:
        crew.map(lambda number: (time.sleep(0.001 * (number % 5)), done.append(number)), range(40))
        assert sorted(done) == list(range(40))


@pytest.mark.parametrize("bad", [0, 7, 29])
def test_a_failure_is_raised_and_the_crew_goes_on(bad: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.0005)
        if number == bad:
            raise ValueError(f"piece {number}")
        return number

    with Crew(3) as crew:
        with pytest.raises(ValueError, match=f"piece {bad}"):
            crew.map(work, range(30))
        assert list(crew.map(abs, [-1, -2])) == [1, 2]


def test_a_crew_that_is_needed_elsewhere_does_not_hold_the_caller_up() -> None:
    gate = threading.Event()
    with Crew(2) as crew:
        busy = crew.submit(gate.wait, 10.0)
        assert list(crew.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert not busy.done()
        gate.set()
