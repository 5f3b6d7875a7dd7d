"""What goes in and what comes out: frames are checked by field, fixes say plainly whether they are fixes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.errors import FrameError
from cvgl.fix import Candidate, Fix, FixStatus
from cvgl.frame import Frame, Prior

IMAGE = np.zeros((48, 64, 3), np.uint8)
FRAME = Frame(IMAGE, time=1700000000.25, height=120.0, heading=31.0, pitch=-2.0, roll=1.0)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"heading": None, "pitch": None, "roll": None},
        {"heading": -179.0},
        {"heading": 360.0},
        {"time": 0},
        {"time": -5.0},
        {"height": np.float32(80.0)},
        {"height": np.int64(80)},
        {"image": np.zeros((48, 64), np.uint8)},
        {"image": np.zeros((16, 16, 3), np.uint8)},
        {"image": np.zeros((96, 64, 3), np.uint8)[::2]},
        {"pixels": "rgb"},
        {"pixels": "grey", "image": np.zeros((48, 64), np.uint8)},
        {"pixels": "nv12", "image": np.zeros((72, 64), np.uint8)},
        {"pixels": "yuyv", "image": np.zeros((48, 64, 2), np.uint8)},
    ],
)
def test_usable_frames_pass(change: dict[str, Any]) -> None:
    replace(FRAME, **change).check()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image": None}, "image"),
        ({"image": "frame.jpg"}, "image"),
        ({"image": [[0, 1], [2, 3]]}, "image"),
        ({"image": np.zeros((48, 64, 3), np.float32)}, "image"),
        ({"image": np.zeros((48, 64, 3), np.uint16)}, "image"),
        ({"image": np.zeros((48, 64, 4), np.uint8)}, "image"),
        ({"image": np.zeros((48, 64, 1), np.uint8)}, "image"),
        ({"image": np.zeros((3, 48, 64), np.uint8)}, "image"),
        ({"image": np.zeros((15, 64, 3), np.uint8)}, "image"),
        ({"image": np.zeros((0, 0, 3), np.uint8)}, "image"),
        ({"image": np.zeros(64, np.uint8)}, "image"),
        ({"pixels": "bgra"}, "pixels"),
        ({"pixels": None}, "pixels"),
        ({"pixels": ["bgr"]}, "pixels"),
        ({"pixels": "rgb", "image": np.zeros((48, 64), np.uint8)}, "image"),
        ({"pixels": "grey"}, "image"),
        ({"pixels": "nv12"}, "image"),
        ({"pixels": "nv12", "image": np.zeros((70, 64), np.uint8)}, "image"),
        ({"pixels": "nv12", "image": np.zeros((72, 63), np.uint8)}, "image"),
        ({"pixels": "nv12", "image": np.zeros((21, 64), np.uint8)}, "image"),
        ({"pixels": "yuyv", "image": np.zeros((48, 63, 2), np.uint8)}, "image"),
        ({"pixels": "yuyv", "image": np.zeros((48, 64), np.uint8)}, "image"),
        ({"time": NAN}, "time"),
        ({"time": INF}, "time"),
        ({"time": "noon"}, "time"),
        ({"time": None}, "time"),
        ({"height": 0.0}, "height"),
        ({"height": -120.0}, "height"),
        ({"height": 50_000.0}, "height"),
        ({"height": NAN}, "height"),
        ({"height": None}, "height"),
        ({"height": True}, "height"),
        ({"heading": NAN}, "heading"),
        ({"heading": 1000.0}, "heading"),
        ({"heading": "north"}, "heading"),
        ({"pitch": 91.0}, "pitch"),
        ({"pitch": INF}, "pitch"),
        ({"roll": -181.0}, "roll"),
        ({"roll": [0.0]}, "roll"),
    ],
)
def test_unusable_frames_are_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FrameError) as caught:
        replace(FRAME, **change).check()
    assert caught.value.field == field
    assert caught.value.expected


@pytest.mark.parametrize(
    ("pixels", "shape", "size"),
    [
        ("bgr", (48, 64, 3), (64, 48)),
        ("bgr", (48, 64), (64, 48)),
        ("rgb", (48, 64, 3), (64, 48)),
        ("grey", (48, 64), (64, 48)),
        ("nv12", (72, 64), (64, 48)),
        ("yuyv", (48, 64, 2), (64, 48)),
    ],
)
def test_a_frame_knows_its_size_and_its_grey(pixels: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frame = replace(FRAME, image=image, pixels=pixels)
    frame.check()
    grey = frame.grey()
    assert frame.size == size
    assert grey.shape == size[::-1] and grey.dtype == np.uint8
    colours = {("bgr", 3): cv2.COLOR_BGR2GRAY, ("rgb", 3): cv2.COLOR_RGB2GRAY}
    if (pixels, image.ndim) in colours:
        np.testing.assert_array_equal(grey, cv2.cvtColor(image, colours[pixels, image.ndim]))
    else:
        np.testing.assert_array_equal(grey, image[:48] if image.ndim == 2 else image[..., 0])
        assert np.shares_memory(grey, image) == (image.ndim == 2)
        assert grey.flags.c_contiguous


@pytest.mark.parametrize(
    ("latitude", "longitude", "sigma_m", "field"),
    [
        (91.0, 9.7, 50.0, "prior.latitude"),
        (NAN, 9.7, 50.0, "prior.latitude"),
        (47.4, -181.0, 50.0, "prior.longitude"),
        (47.4, "east", 50.0, "prior.longitude"),
        (47.4, 9.7, -1.0, "prior.sigma_m"),
        (47.4, 9.7, INF, "prior.sigma_m"),
        (47.4, 9.7, None, "prior.sigma_m"),
    ],
)
def test_a_prior_that_is_no_place_is_refused(latitude: Any, longitude: Any, sigma_m: Any, field: str) -> None:
    with pytest.raises(FrameError) as caught:
        Prior(latitude, longitude, sigma_m)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("status", "true"), [(FixStatus.NO_FIX, False), (FixStatus.COARSE, True), (FixStatus.REFINED, True)]
)
def test_a_fix_is_true_when_it_carries_a_position(status: FixStatus, true: bool) -> None:
    assert bool(Fix(status, 1.0)) is true


def test_statuses_are_the_words_of_the_table() -> None:
    assert [status.value for status in FixStatus] == ["no_fix", "coarse", "refined"]
    assert FixStatus("refined") is FixStatus.REFINED
    assert FixStatus.COARSE == "coarse"


def test_no_fix_carries_its_reason_and_no_position() -> None:
    seen = (Candidate(7, 10.0, 20.0, 0.4, 31.0),)
    fix = Fix.none(3.5, "image: too dark", candidates=seen, name="0007.jpg", score=0.2)
    assert not fix
    assert (fix.time, fix.reason, fix.name) == (3.5, "image: too dark", "0007.jpg")
    assert (fix.candidates, fix.score) == (seen, 0.2)
    assert all(math.isnan(v) for v in (fix.latitude, fix.longitude, fix.center_latitude, fix.heading_deg))
    assert fix.covariance is None
    assert fix.sigma_m == INF


@pytest.mark.parametrize(
    ("covariance", "sigma"),
    [
        ([[4.0, 0.0], [0.0, 9.0]], 3.0),
        ([[4.0, 0.0], [0.0, 4.0]], 2.0),
        ([[10.0, 6.0], [6.0, 10.0]], 4.0),  # the worst direction is the diagonal
        ([[10.0, -6.0], [-6.0, 10.0]], 4.0),
    ],
)
def test_sigma_is_that_of_the_worst_direction(covariance: list[list[float]], sigma: float) -> None:
    assert Fix(FixStatus.REFINED, 0.0, covariance=np.array(covariance)).sigma_m == pytest.approx(sigma)


def test_latency_is_the_sum_of_the_stages() -> None:
    assert Fix(FixStatus.NO_FIX, 0.0).latency_ms == 0.0
    assert Fix(FixStatus.NO_FIX, 0.0, timings_ms={"rectify": 4.5, "embed": 20.0}).latency_ms == pytest.approx(24.5)
