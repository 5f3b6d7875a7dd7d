"""The flight report: one file, nothing from elsewhere, and right about where things lie."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl.camera import Camera
from cvgl.errors import GalleryError
from cvgl.fix import Candidate, Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount
from cvgl.report import Overview, write_report
from cvgl.report.charts import error_curve, error_per_frame
from cvgl.report.overview import footprint
from cvgl.report.svg import element, path
from cvgl.results import summarise

LOCAL = LocalFrame(24.26, 120.72)
CAMERA = Camera(200, 100, 160.0, 160.0, 99.5, 49.5)
NASTY = "<script>alert('x')</script>&\".jpg"
VOID = {"meta", "img", "br", "link", "input"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and collects what a browser would go and fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.addresses.append(value or "")
            elif name == "id":
                self.ids.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def overview(width: int = 800, height: int = 600, gsd: float = 0.5) -> Overview:
    image = np.random.default_rng(5).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Overview(image, gsd, -width * gsd / 2, height * gsd / 2, LOCAL)


def at(east: float, north: float) -> tuple[float, float]:
    latitude, longitude = LOCAL.to_wgs84(east, north)
    return float(latitude), float(longitude)


def flight(folder: Path, count: int) -> tuple[list[FrameRecord], list[Fix]]:
    """Frames along a line, of which some are coarse, some refused; all share one picture."""
    picture = folder / "frame.jpg"
    cv2.imwrite(str(picture), np.full((100, 200, 3), 90, np.uint8))
    rng = np.random.default_rng(11)
    records, fixes = [], []
    for index in range(count):
        east, north = -120.0 + 240.0 * index / max(1, count - 1), 20.0
        plane, center = at(east, north), at(east, north + 10)
        name = NASTY if index == 0 else f"f{index}.jpg"
        records.append(FrameRecord(name, picture, float(index), 100.0, 30.0, None, None, *plane, *center))
        if index % 7 == 3:
            candidates = (Candidate(0, 5.0, 5.0, 0.5, 30.0),)
            fixes.append(Fix.none(float(index), "no place agrees <0.2", candidates=candidates))
            continue
        status = FixStatus.COARSE if index % 7 == 5 else FixStatus.REFINED
        sigma = 20.0 if status is FixStatus.COARSE else 2.0
        error = rng.normal(0, sigma, 2)
        fixes.append(
            Fix(
                status,
                float(index),
                "" if status is FixStatus.REFINED else "two places",
                *at(east + error[0], north + error[1]),
                *at(east + error[0], north + 10 + error[1]),
                covariance=np.eye(2) * sigma**2,
                center_covariance=np.eye(2) * sigma**2,
                heading_deg=30.0,
                height_m=100.0,
                score=0.6,
                timings_ms={"embed": 20.0, "refine": 30.0},
            )
        )
    return records, fixes


def report(folder: Path, records: list[FrameRecord], fixes: list[Fix], map_: Overview | None = None) -> str:
    summary = summarise(records, fixes, decode_ms=[5.0] * len(records), run={"start": None, "mission": {"path": "m"}})
    write_report(
        folder / "report.html",
        records,
        fixes,
        summary,
        overview=map_ or overview(),
        camera=CAMERA,
        title=NASTY,
        notes=["a note"],
        attribution="someone's imagery",
    )
    return (folder / "report.html").read_text(encoding="utf-8")


class TestReport:
    def test_it_carries_everything_it_shows(self, tmp_path: Path) -> None:
        text = report(tmp_path, *flight(tmp_path, 20))
        page = Page(text)
        assert page.count.get("script") is None
        assert page.count.get("link") is None
        outside = [a for a in page.addresses if not a.startswith(("data:image/jpeg;base64,", "#"))]
        assert outside == []
        assert {a[1:] for a in page.addresses if a.startswith("#")} <= page.ids
        assert "url(" not in text
        assert "@import" not in text

    def test_it_says_what_the_summary_says(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 20)
        text = report(tmp_path, records, fixes)
        assert f"{sum(f.status is FixStatus.REFINED for f in fixes)} of 20 frames" in text
        assert "Largest errors" in text
        assert "Refused frames" in text
        assert "no place agrees &lt;N" in text
        assert "a note" in text
        assert "someone&#39;s imagery" in text

    def test_names_are_text_never_markup(self, tmp_path: Path) -> None:
        assert "<script" not in report(tmp_path, *flight(tmp_path, 5))

    def test_without_references_the_sections_say_so(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 12)
        blind = [
            replace(r, gps_latitude=None, gps_longitude=None, center_latitude=None, center_longitude=None)
            for r in records
        ]
        text = report(tmp_path, blind, fixes)
        Page(text)
        assert "This flight has no reference positions." in text
        assert "Least certain fixes" in text
        assert "Median error" not in text
        assert "reference track" not in text

    def test_a_flight_elsewhere(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 10)
        away = [replace(r, gps_latitude=-33.0, gps_longitude=-70.0, center_latitude=None) for r in records]
        text = report(tmp_path, away, [Fix.none(fix.time, "nothing like it") for fix in fixes])
        Page(text)
        assert "reference track" not in text

    @pytest.mark.parametrize("count", [0, 1])
    def test_next_to_nothing(self, tmp_path: Path, count: int) -> None:
        records, fixes = flight(tmp_path, count)
        Page(report(tmp_path, records, fixes))
        if count:
            Page(
                report(
                    tmp_path,
                    [replace(records[0], problem="frames.csv row 2: time: bad")],
                    [Fix.none(0.0, "bad")],
                )
            )

    def test_two_thousand_frames_stay_a_file_that_opens(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 2000)
        text = report(tmp_path, records, fixes)
        page = Page(text)
        assert len(text) < 8_000_000
        assert page.count["img"] <= 12
        assert page.count["ellipse"] <= 200
        assert page.count["tr"] >= 2000

    def test_unreadable_pictures_do_not_stop_it(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 8)
        text = report(tmp_path, [replace(r, path=tmp_path / "gone.jpg") for r in records], fixes)
        assert "the picture cannot be read" in text

    def test_values_that_are_not_numbers_do_not_reach_the_drawing(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 6)
        broken = replace(fixes[1], covariance=np.full((2, 2), np.nan), heading_deg=float("nan"), height_m=float("nan"))
        text = report(tmp_path, [replace(r, height=float("nan")) for r in records], [fixes[0], broken, *fixes[2:]])
        assert re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', text) is None

    def test_a_failure_leaves_no_file(self, tmp_path: Path) -> None:
        records, fixes = flight(tmp_path, 4)
        with pytest.raises(ValueError, match="argument 2"):
            report(tmp_path, records, fixes[:2])
        assert not (tmp_path / "report.html").exists()


class TestOverview:
    def test_pixels(self) -> None:
        map_ = overview(800, 600, 0.5)
        np.testing.assert_allclose(map_.to_pixel(-200, 150), [[-0.5, -0.5]])
        np.testing.assert_allclose(map_.to_pixel([0.0, 0.25], [0.0, -0.25]), [[399.5, 299.5], [400, 300]])

    @settings(max_examples=60, deadline=None)
    @given(st.floats(-190, 180), st.floats(-140, 130), st.floats(5, 300), st.floats(5, 300), st.integers(16, 900))
    def test_a_window_keeps_places(self, west: float, south: float, width: float, height: float, longest: int) -> None:
        map_ = overview()
        view = map_.window(west, south, west + width, south + height, longest)
        assert max(view.size) <= longest
        # The window's corners are where the whole map has them.
        inner = map_.to_pixel(view.west, view.north)[0]
        np.testing.assert_allclose(inner, np.round(inner + 0.5) - 0.5, atol=1e-6)
        assert view.to_pixel(view.west, view.north).tolist() == [[-0.5, -0.5]]
        right, bottom = view.west + view.size[0] * view.gsd, view.north - view.size[1] * view.gsd
        assert right >= min(west + width, 200) - view.gsd
        assert bottom <= max(south, -150) + view.gsd

    def test_a_landmark_stays_where_it_is(self) -> None:
        image = np.zeros((600, 800, 3), np.uint8)
        image[100:120, 300:320] = 255
        map_ = Overview(image, 0.5, -200.0, 150.0, LOCAL)
        view = map_.window(-150, -50, 50, 150, 100)
        rows, columns = np.nonzero(view.image[..., 0] > 127)
        seen = np.array([columns.mean(), rows.mean()])
        middle = map_.west + 310 * 0.5, map_.north - 110 * 0.5
        np.testing.assert_allclose(view.to_pixel(*middle)[0], seen, atol=0.5)

    def test_a_missing_picture(self, tmp_path: Path) -> None:
        with pytest.raises(GalleryError, match=r"overview\.jpg"):
            Overview.read(tmp_path / "overview.jpg", 1.0, 0.0, 0.0, LOCAL)


class TestFootprint:
    def test_straight_down(self) -> None:
        # 200 x 100 px at 100 / 160 m/px.
        expected = np.array([[-62.5, 31.25], [62.5, 31.25], [62.5, -31.25], [-62.5, -31.25], [0, 0]])
        np.testing.assert_allclose(footprint(CAMERA, 100.0, 0.0), expected, atol=1e-6)

    def test_heading_east_turns_it_clockwise(self) -> None:
        found = footprint(CAMERA, 100.0, 90.0)
        assert found is not None
        np.testing.assert_allclose(found[0], [31.25, 62.5], atol=1e-6)

    def test_pitch_looks_ahead(self) -> None:
        found = footprint(CAMERA, 100.0, 0.0, pitch=10.0)
        assert found is not None
        np.testing.assert_allclose(found[4], [0, 100 * np.tan(np.radians(10))], atol=1e-6)

    def test_the_horizon_has_no_footprint(self) -> None:
        assert footprint(CAMERA, 100.0, 0.0, pitch=80.0) is None
        assert footprint(replace(CAMERA, mount=Mount(pitch_deg=90.0)), 100.0, 0.0) is None


class TestDrawing:
    def test_attributes_and_titles_are_escaped(self) -> None:
        text = element("path", css='a"b', d="<", title="<&>", stroke_width=1.234)
        assert text == '<path class="a&#34;b" d="&lt;" stroke-width="1.23"><title>&lt;&amp;&gt;</title></path>'

    def test_a_line_breaks_where_a_point_is_missing(self) -> None:
        nan = float("nan")
        assert path([(0, 0), (1, 1), (nan, 0), (2, 2)]) == "M0.0 0.0L1.0 1.0M2.0 2.0"

    def test_frames_without_a_fix_hold_the_curve_down(self) -> None:
        svg = error_curve([("aircraft", "aircraft", np.array([1.0, 2.0, np.nan, np.nan]))])
        heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg.split('class="curve')[1])]
        assert min(heights) == pytest.approx((14 + 300 - 44) / 2)

    def test_every_frame_is_drawn_once(self) -> None:
        svg = error_per_frame(
            ["a", "b", "c"],
            ["refined", "no_fix", "coarse"],
            np.array([1.0, np.nan, 1e4]),
            np.array([1.0, np.nan, 20.0]),
        )
        assert svg.count("<circle") == 2
        assert svg.count('class="refused"') == 1
        assert svg.count('class="sigma"') == 2
        assert "10000 m" in svg
