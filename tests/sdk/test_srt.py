"""DJI's subtitle logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.errors import FlightError
from cvgl.srt import read_srt

PLAIN = """1
00:00:00,000 --> 00:00:00,033
<font size="28">FrameCnt: 1, DiffTime: 33ms
2026-04-27 15:22:26.853
[iso: 100] [latitude: 32.102624] [longitude: 35.209724] [rel_alt: 19.600 abs_alt: 729.642] [ct: 5660] </font>

"""
SPACED = """1
00:00:01,000 --> 00:00:01,033
<font size="28">SrtCnt : 1, DiffTime : 33ms
2024-06-19 11:15:22,444
[iso : 140] [dzoom_ratio: 10000, delta:0],[latitude : -32.1] [longtitude : 35.2] [rel_alt: -1.5 abs_alt: 802.4] </font>

"""
WITHOUT_CLOCK = """7
00:01:02,500 --> 00:01:02,533
[latitude: 1.5] [longitude: -2.5] [rel_alt: 30.0]

"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN, (1777303346.853, 32.102624, 35.209724, 19.6, 729.642)),
        (SPACED, (1718795722.444, -32.1, 35.2, -1.5, 802.4)),
        (WITHOUT_CLOCK, (62.5, 1.5, -2.5, 30.0, np.nan)),
        (PLAIN.replace("\n", "\r\n"), (1777303346.853, 32.102624, 35.209724, 19.6, 729.642)),
        ("\ufeff" + PLAIN, (1777303346.853, 32.102624, 35.209724, 19.6, 729.642)),
    ],
)
def test_one_entry(tmp_path: Path, text: str, expected: tuple[float, ...]) -> None:
    file = tmp_path / "log.SRT"
    file.write_bytes(text.encode())
    log = read_srt(file)
    assert len(log) == 1
    found = [log.time[0], log.latitude[0], log.longitude[0], log.height[0], log.altitude[0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_entries_without_position_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "log.SRT"
    nowhere = PLAIN.replace("32.102624", "0.000000").replace("35.209724", "0.000000")
    file.write_text(nowhere + PLAIN + PLAIN.replace("[latitude: 32.102624]", ""))
    assert len(read_srt(file)) == 1


def test_times_never_decrease(tmp_path: Path) -> None:
    file = tmp_path / "log.SRT"
    file.write_text(PLAIN.replace("26.853", "26.900") + PLAIN)
    assert np.all(np.diff(read_srt(file).time) >= 0)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff\xfe\x00bad"])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "log.SRT"
    file.write_bytes(content)
    with pytest.raises(FlightError, match=r"log\.SRT"):
        read_srt(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FlightError, match="no such file"):
        read_srt(tmp_path / "absent.SRT")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("srt") / "log.SRT"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FlightError):
        read_srt(file)


@pytest.mark.data
@pytest.mark.parametrize(("name", "entries", "highest"), [("DJI_v12", 7793, 117.8), ("DJI_0017", 7546, 120.4)])
def test_real_logs(cvgl_data: Path, name: str, entries: int, highest: float) -> None:
    log = read_srt(cvgl_data / "flights" / "dji_srt" / f"{name}.SRT")
    assert len(log) == entries
    assert log.height.max() == pytest.approx(highest)
    assert np.median(np.diff(log.time)) == pytest.approx(1 / 30, abs=0.002)
    assert np.all((log.latitude > 32.10) & (log.latitude < 32.11))
