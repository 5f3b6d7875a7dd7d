"""Rate limits: how many, how close, and what jitter costs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cvgl.mavlink.rate import RateLimit


@given(st.floats(0.1, 100.0), st.lists(st.floats(0.0, 3.0), min_size=1, max_size=200))
def test_no_more_and_no_closer_than_said(rate: float, steps: list[float]) -> None:
    limit, now, sent = RateLimit(rate), 0.0, []
    for step in steps:
        now += step / rate
        if limit.allows(now):
            sent.append(now)
    assert sent
    assert all((later - earlier) * rate > 0.4999 for earlier, later in pairwise(sent))
    assert len(sent) - 1 <= (sent[-1] - sent[0]) * rate + 0.5001


def test_a_source_at_just_the_rate_loses_nothing_to_jitter() -> None:
    limit = RateLimit(10.0)
    assert all(limit.allows(0.1 * index + 0.02 * (index % 2)) for index in range(100))


def test_a_pause_is_not_made_up_for() -> None:
    limit = RateLimit(1.0)
    assert limit.allows(0.0)
    assert [limit.allows(100.0 + 0.1 * index) for index in range(15)] == [True] + [False] * 4 + [True] + [False] * 9
