"""In flight nothing raises: a frame that cannot be used is answered no_fix with its reason, and the next one works."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvgl import Frame, Localizer, Prior
from cvgl.errors import ModelError
from cvgl.fix import Fix, FixStatus
from cvgl.flight import Flight
from cvgl.geometry import camera_to_enu
from cvgl.rectify import rectify, warp_to_input
from cvgl.results import error_metres

NOISE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
CHESSBOARD = np.kron(np.indices((24, 32)).sum(0) % 2, np.ones((20, 20)))[..., None].repeat(3, axis=2) * 255

Change = Callable[[Frame], Frame]


def nv12(pixels: np.ndarray) -> np.ndarray:
    """As OpenCV makes YUV of a BGR image, its two planes of chroma brought together."""
    height, width = pixels.shape[:2]
    yuv = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    chroma = yuv[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0).reshape(height // 2, width)
    return np.ascontiguousarray(np.vstack([yuv[:height], chroma]))


def yuyv(pixels: np.ndarray) -> np.ndarray:
    """The same with the chroma of every second row at full height."""
    height, planes = len(pixels), nv12(pixels)
    chroma = planes[height:].repeat(2, axis=0)
    return np.ascontiguousarray(np.dstack([planes[:height], chroma]))


@pytest.fixture(scope="module")
def localizer(mission: Path) -> Localizer:
    return Localizer.open(mission)


@pytest.fixture(scope="module")
def good(town: Path) -> Frame:
    return list(Flight.open(town / "flight"))[3].load()


def image(change: Callable[[np.ndarray], Any]) -> Change:
    return lambda frame: replace(frame, image=change(frame.image))


def told(**values: Any) -> Change:
    return lambda frame: replace(frame, **values)


def resized(factor: float) -> Change:
    return image(lambda pixels: cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


def is_refined(localizer: Localizer, frame: Frame) -> Fix:
    fix = localizer.locate(frame)
    assert fix.status is FixStatus.REFINED, fix.reason
    return fix


# What the frame is turned into, and a word that the reason must hold.
REFUSED: dict[str, tuple[Change, str]] = {
    "no image": (told(image=None), "image"),
    "a list instead of an array": (told(image=[[0, 0], [0, 0]]), "image"),
    "empty image": (image(lambda pixels: pixels[:0, :0]), "image"),
    "float image": (image(lambda pixels: pixels.astype(np.float32)), "float32"),
    "16-bit image": (image(lambda pixels: pixels.astype(np.uint16) * 256), "uint16"),
    "four channels": (image(lambda pixels: np.dstack([pixels, pixels[..., :1]])), "(480, 640, 4)"),
    "one channel kept as an axis": (image(lambda pixels: pixels[..., :1]), "(480, 640, 1)"),
    "a few pixels": (image(lambda pixels: pixels[:8, :8]), "image"),
    "another aspect ratio": (image(lambda pixels: pixels[60:420]), "shape"),
    "portrait": (image(lambda pixels: np.ascontiguousarray(np.rot90(pixels))), "shape"),
    "height not a number": (told(height=math.nan), "height"),
    "height infinite": (told(height=math.inf), "height"),
    "height negative": (told(height=-80.0), "height"),
    "height zero": (told(height=0.0), "height"),
    "height absent": (told(height=None), "height"),
    "height a text": (told(height="80"), "height"),
    "heading not a number": (told(heading=math.nan), "heading"),
    "heading out of range": (told(heading=1e9), "heading"),
    "pitch at the horizon": (told(pitch=85.0, roll=0.0), "nadir"),
    "pitch out of range": (told(pitch=400.0, roll=0.0), "pitch"),
    "pitch not a number": (told(pitch=math.nan, roll=0.0), "pitch"),
    "upside down": (told(pitch=0.0, roll=180.0), "nadir"),
    "roll infinite": (told(pitch=0.0, roll=math.inf), "roll"),
    "time not a number": (told(time=math.nan), "time"),
    "time absent": (told(time=None), "time"),
    "prior far from the map": (told(prior=Prior(48.0, 9.5, 50.0)), "prior"),
    "prior on the other side of the Earth": (told(prior=Prior(-47.0, -170.5, 50.0)), "prior"),
    "prior at the pole": (told(prior=Prior(90.0, 0.0, 50.0)), "prior"),
    "black": (image(np.zeros_like), "dark"),
    "white": (image(lambda pixels: np.full_like(pixels, 255)), "overexposed"),
    "grey as NV12": (told(pixels="nv12", image=np.full((720, 640), 128, np.uint8)), "featureless"),
    "black as NV12": (told(pixels="nv12", image=np.full((720, 640), 16, np.uint8)), "dark"),
    "white as YUYV": (told(pixels="yuyv", image=np.full((480, 640, 2), (235, 128), np.uint8)), "overexposed"),
    "pixels of an unknown kind": (told(pixels="bayer"), "pixels"),
    "pixels of another kind than said": (told(pixels="nv12"), "(480, 640, 3)"),
    "saturated": (image(lambda pixels: np.clip(pixels.astype(int) * 8 + 60, 0, 255).astype(np.uint8)), "image"),
    "one grey": (image(lambda pixels: np.full_like(pixels, 120)), "featureless"),
}

# Frames that could be of anywhere: some reason, whichever it is.
UNRECOGNISABLE: dict[str, Change] = {
    "noise": told(image=NOISE),
    "soft noise": told(image=cv2.resize(NOISE[:24, :32], (640, 480))),
    "chessboard": told(image=CHESSBOARD.astype(np.uint8)),
    "mirrored": image(lambda pixels: np.ascontiguousarray(pixels[:, ::-1])),
    "footprint of a step": told(height=1.0),
    "footprint larger than the map": told(height=5000.0),
    "twice the height": told(height=160.0),
    "heading wrong by 90 degrees": lambda frame: replace(frame, heading=frame.heading + 90.0),  # type: ignore[operator]
    "pitch of a turn": told(pitch=50.0, roll=0.0),
}

# Unusual, and to be localised all the same.
USABLE: dict[str, Change] = {
    "as it is": lambda frame: frame,
    "grey": image(lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)),
    "said to be grey": lambda frame: replace(frame, image=cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY), pixels="grey"),
    "RGB": lambda frame: replace(frame, image=np.ascontiguousarray(frame.image[..., ::-1]), pixels="rgb"),
    "NV12": lambda frame: replace(frame, image=nv12(frame.image), pixels="nv12"),
    "YUYV": lambda frame: replace(frame, image=yuyv(frame.image), pixels="yuyv"),
    "a view of a larger NV12 image": lambda frame: replace(
        frame, image=np.pad(nv12(frame.image), ((0, 0), (6, 10)))[:, 6:-10], pixels="nv12"
    ),
    "half the camera's size": resized(0.5),
    "twice the camera's size": resized(2.0),
    "read only": image(lambda pixels: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)),
    "in Fortran's order": image(np.asfortranarray),
    "a view of an RGB image": image(lambda pixels: np.ascontiguousarray(pixels[..., ::-1])[..., ::-1]),
    "a view of a larger image": image(lambda pixels: np.pad(pixels, ((3, 5), (7, 2), (0, 0)))[3:-5, 7:-2]),
    "every second pixel of a larger image": image(lambda pixels: pixels.repeat(2, 0).repeat(2, 1)[::2, ::2]),
    "a heading beyond 360": lambda frame: replace(frame, heading=frame.heading + 360.0),  # type: ignore[operator]
    "heading unknown": told(heading=None),
    "telemetry of 32 bits": lambda frame: replace(frame, height=np.float32(frame.height)),
    "whole metres": lambda frame: replace(frame, height=round(frame.height)),
    "a vague prior": told(prior=Prior(47.0, 9.5, 1e6)),
    "negative time": told(time=-1.0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_frames_are_answered_with_the_reason(localizer: Localizer, good: Frame, case: str) -> None:
    change, word = REFUSED[case]
    fix = localizer.locate(change(replace(good, name="frame 7")))
    assert fix.status is FixStatus.NO_FIX and not fix
    assert word in fix.reason
    assert fix.name == "frame 7"
    assert math.isnan(fix.latitude) and fix.covariance is None and math.isinf(fix.sigma_m)


def test_the_network_s_input_is_what_the_patch_would_have_given(localizer: Localizer, good: Frame) -> None:
    model, size = localizer.model, localizer.model.views["query"].input_size[0]
    camera = localizer.camera.scaled_to(*good.size)
    gsd = localizer.gallery.manifest.tile_size_m / size
    rotations = [camera_to_enu(camera.mount, heading) for heading in (0.0, 100.0, 200.0)]
    scale, offset = model.views["query"].normalisation
    inputs = warp_to_input(good.image, camera, rotations, good.height, gsd, size, scale, offset, threads=1)
    patches = [rectify(good.image, camera, rotation, good.height, gsd, size, 1) for rotation in rotations]
    by_patch = model.embed(np.stack([p.image for p in patches]), np.stack([p.mask for p in patches]))
    by_input = model.embed_inputs(inputs.tensor)
    np.testing.assert_array_equal(inputs.masks, [p.mask for p in patches])
    assert ((by_patch * by_input).sum(axis=1) > 0.9999).all()  # all between them is rounding to whole grey levels
    halves = model.embed_inputs(inputs.tensor.astype(np.float16))
    assert ((halves * by_input).sum(axis=1) > 0.9999).all()
    for bad in (inputs.tensor[:, :, 1:], inputs.tensor[:, :2], inputs.tensor.astype(np.float64), inputs.tensor[0]):
        with pytest.raises(ModelError, match="query inputs"):
            model.embed_inputs(bad)


@pytest.mark.parametrize("case", UNRECOGNISABLE)
def test_unrecognisable_frames_are_answered_no_fix(localizer: Localizer, good: Frame, case: str) -> None:
    fix = localizer.locate(UNRECOGNISABLE[case](good))
    assert fix.status is FixStatus.NO_FIX
    assert fix.reason


@pytest.mark.parametrize("case", USABLE)
def test_unusual_frames_are_localised_like_any(localizer: Localizer, good: Frame, case: str) -> None:
    frame = USABLE[case](good)
    expected, fix = is_refined(localizer, good), is_refined(localizer, frame)
    assert fix.time == frame.time
    assert fix.latitude == pytest.approx(expected.latitude, abs=3e-5)  # 3 m
    assert fix.longitude == pytest.approx(expected.longitude, abs=4e-5)


@pytest.mark.parametrize("blur", [10.0, 25.0, 60.0])
def test_blurred_frames_are_never_refined_elsewhere(localizer: Localizer, good: Frame, blur: float) -> None:
    expected = is_refined(localizer, good)
    fix = localizer.locate(replace(good, image=cv2.GaussianBlur(good.image, (0, 0), blur)))
    if fix.status is FixStatus.REFINED:
        here, there = ((f.center_latitude, f.center_longitude) for f in (expected, fix))
        assert np.hypot(*error_metres(*here, *there)) < 10.0
    else:
        assert fix.reason


@pytest.mark.parametrize("tracking", [False, True])
def test_bad_frames_leave_no_trace(mission: Path, good: Frame, tracking: bool) -> None:
    localizer = Localizer.open(mission)
    answer = localizer.track if tracking else localizer.locate
    expected = is_refined(localizer, good)
    for change, _ in REFUSED.values():
        assert not answer(change(good))
    assert answer(good).latitude == pytest.approx(expected.latitude, abs=1e-7)


numbers = st.floats(-1e4, 1e4) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300, 5e-324])
maybe = st.none() | numbers | st.floats(-60.0, 60.0)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(time=numbers, height=numbers | st.floats(1.0, 200.0), heading=maybe, pitch=maybe, roll=maybe)
def test_no_telemetry_raises(
    localizer: Localizer,
    good: Frame,
    time: float,
    height: float,
    heading: float | None,
    pitch: float | None,
    roll: float | None,
) -> None:
    small = cv2.resize(good.image, (80, 60), interpolation=cv2.INTER_AREA)
    fix = localizer.locate(Frame(small, time, height, heading, pitch, roll, Prior(47.0, 9.5, 20.0)))
    assert bool(fix) == math.isfinite(fix.latitude)
    assert fix or fix.reason


def test_bad_priors_are_refused_where_they_are_made() -> None:
    for values in ((91.0, 9.5, 50.0), (47.0, 181.0, 50.0), (47.0, 9.5, -1.0), (math.nan, 9.5, 50.0)):
        with pytest.raises(ValueError, match=r"prior\."):
            Prior(*values)
