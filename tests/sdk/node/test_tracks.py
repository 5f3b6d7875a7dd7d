"""Telemetry at the moment of an exposure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.node.tracks import NANOSECONDS, Track, linear

S = NANOSECONDS


def track(*samples: tuple[float, float], age: float = 0.5, jump: float = 1.0) -> Track[float]:
    made: Track[float] = Track(linear, age, jump)
    for moment, value in samples:
        made.add(round(moment * S), value)
    return made


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (10.0, 100.0),
        (10.05, 105.0),
        (10.2, 120.0),
        (9.6, 100.0),  # before the first, but near
        (9.4, None),
        (10.7, 120.0),
        (10.71, None),
    ],
)
def test_between_two_samples_near_one_or_unknown(moment: float, expected: float | None) -> None:
    value = track((10.0, 100.0), (10.1, 110.0), (10.2, 120.0)).at(round(moment * S))
    assert value == (None if expected is None else pytest.approx(expected))


def test_no_line_is_drawn_over_a_gap() -> None:
    made = track((10.0, 0.0), (10.9, 9.0))
    assert made.at(round(10.45 * S)) == pytest.approx(4.5)
    far = track((10.0, 0.0), (12.0, 20.0))
    assert far.at(11 * S) is None
    assert far.at(round(10.2 * S)) == 0.0


def test_samples_out_of_order_are_sorted_in() -> None:
    made = track((10.0, 0.0), (10.2, 20.0), (10.1, 30.0))
    assert made.at(round(10.15 * S)) == pytest.approx(25.0)
    assert made.jumps == 0


def test_a_clock_set_back_forgets_what_was_known() -> None:
    made = track((1000.0, 1.0), (10.0, 2.0))
    assert made.at(1000 * S) is None
    assert made.at(10 * S) == 2.0
    assert made.jumps == 1


def test_one_stamp_from_the_future_does_no_lasting_harm() -> None:
    made = track((10.0, 1.0), (10.1, 1.0), (4e9, 99.0), (10.2, 2.0), (10.3, 3.0))
    assert made.at(round(10.25 * S)) == pytest.approx(2.5)


def test_covers_tells_whether_waiting_helps() -> None:
    made = track((10.0, 1.0))
    assert made.covers(10 * S) and not made.covers(10 * S + 1)
    assert not track().covers(0)
    assert not made.covers(8 * S)  # the clock was set back: more is to come


def test_memory_is_bounded() -> None:
    made = track(*((i / 100, float(i)) for i in range(5000)))
    assert made.at(20 * S) is None
    assert made.at(40 * S) == pytest.approx(4000.0)


@given(st.lists(st.tuples(st.integers(0, 10**13), st.floats(-1e3, 1e3)), max_size=30), st.integers(0, 10**13))
def test_any_order_of_samples_gives_a_value_between_them_or_none(samples: list[tuple[int, float]], moment: int) -> None:
    made: Track[float] = Track(linear, 1.0, 1.0)
    for stamp, value in samples:
        made.add(stamp, value)
    value_at = made.at(moment)
    if value_at is not None:
        values = [value for _, value in samples]
        assert min(values) - 1e-9 <= value_at <= max(values) + 1e-9
