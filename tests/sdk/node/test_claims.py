"""What goes to a filter that is not ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl.node.claims import horizontal_covariance, own_answer

OWN = Fix(FixStatus.REFINED, 1.0, latitude=2.0, longitude=3.0, covariance=np.eye(2))


def test_the_frames_own_match_where_the_filter_agrees() -> None:
    assert own_answer(OWN) is OWN  # without a filter
    assert own_answer(replace(OWN, latitude=1.0, measured=OWN)) is OWN


@pytest.mark.parametrize("status", [FixStatus.COARSE, FixStatus.NO_FIX])
def test_nothing_where_the_filter_only_follows_the_motion_or_is_lost(status: FixStatus) -> None:
    answer = own_answer(replace(OWN, status=status, reason="followed by its motion", measured=OWN))
    assert not answer and answer.reason == "followed by its motion" and answer.covariance is None


@pytest.mark.parametrize("covariance", [None, np.zeros((2, 2)), np.eye(3), np.array([[1.0, 2.0], [2.0, 1.0]])])
def test_claims_that_no_filter_can_use(covariance: np.ndarray | None) -> None:
    with pytest.raises(CvglError):
        horizontal_covariance(replace(OWN, covariance=covariance))


def test_a_frame_that_sees_nothing_says_why_though_the_filter_goes_on() -> None:
    alone = Fix.none(1.0, "image: too dark")
    followed = Fix(FixStatus.COARSE, 1.0, latitude=47.0, longitude=9.0, covariance=np.eye(2), reason="followed")
    assert own_answer(replace(followed, measured=alone)).reason == "image: too dark"
