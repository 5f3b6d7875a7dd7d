"""Files are whole or absent: a crash while writing loses nothing and leaves nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cvgl.errors import GalleryError, MissionError
from cvgl.files import atomic_folder, atomic_path, check_files, hash_files, read_json, sha256_file, write_json


class PowerCutError(BaseException):
    """As sudden as an interrupt: no `except Exception` sees it."""


def put(path: Path, text: str) -> None:
    """Text as a file, or as the only file of a folder that is to be written."""
    target = path / "content" if path.is_dir() else path
    target.write_text(text)


def got(path: Path) -> str:
    return (path / "content" if path.is_dir() else path).read_text()


writers = pytest.mark.parametrize("writer", [atomic_path, atomic_folder])
Writer = Callable[[Path], AbstractContextManager[Path]]


@writers
def test_appears_under_its_name_only_when_done(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "out.tif"
    with writer(path) as temporary:
        assert temporary.parent == path.parent, "a rename is atomic within one file system only"
        put(temporary, "new")
        assert not path.exists()
    assert got(path) == "new"
    assert list(path.parent.iterdir()) == [path]


@writers
def test_replaces_what_stood_there(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / "out"
    for text in ("old", "new"):
        with writer(path) as temporary:
            put(temporary, text)
    assert got(path) == "new"
    assert list(tmp_path.iterdir()) == [path]


@writers
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, PowerCutError])
@pytest.mark.parametrize("before", [True, False])
def test_a_crash_leaves_the_old_content_and_no_litter(
    writer: Writer, error: type[BaseException], before: bool, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    if before:
        with writer(path) as temporary:
            put(temporary, "old")
    with pytest.raises(error), writer(path) as temporary:
        put(temporary, "half of the n")
        raise error
    assert list(tmp_path.iterdir()) == ([path] if before else [])
    assert not before or got(path) == "old"


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    with atomic_folder(path) as temporary:
        put(temporary, "old")
    rename = os.replace

    def refuse_the_new_one(source: Path, target: Path) -> None:
        if target == path and source.suffix != ".old":
            raise OSError("device full")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="device full"), atomic_folder(path) as temporary:
        put(temporary, "new")
    assert got(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "map.png") as temporary:
        assert temporary.suffix == ".png", "writers choose the format by it"


@writers
def test_others_may_read_what_was_written(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with writer(path) as temporary:
        put(temporary, "content")
    wanted = 0o755 if path.is_dir() else 0o644
    assert stat.S_IMODE(path.stat().st_mode) == wanted


@pytest.mark.parametrize("value", [{}, {"height": 120.5, "tiles": [1, 2], "source": "Bodensee, Österreich"}])
def test_json_round_trip(value: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, value)
    assert read_json(path, GalleryError) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {"version": 1})
    with pytest.raises(TypeError):
        write_json(path, {"version": object()})
    assert read_json(path, GalleryError) == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not readable as JSON"),
        (b'{"version": 1', "not readable as JSON"),
        (b'{"name": "\xff\xfe"}', "not readable as JSON"),
        (b"[1, 2]", r"not a JSON object \(found 'list', expected an object\)"),
        (b"null", "not a JSON object"),
    ],
)
@pytest.mark.parametrize("error", [GalleryError, MissionError])
def test_unreadable_json_is_the_callers_error_and_names_the_file(
    content: bytes | None, message: str, error: type[GalleryError], tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_json(path, error)
    assert caught.value.file == path
    assert str(path) in str(caught.value)


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="not readable"):
        read_json(tmp_path, GalleryError)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_hash_is_sha256_of_all_bytes(size: int, tmp_path: Path) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / "file"
    path.write_bytes(content[:size])
    assert sha256_file(path) == hashlib.sha256(content[:size]).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for name in ("model.onnx", "parts/index.bin", "empty"):
        (tmp_path / name).write_bytes(name.encode() * (name != "empty"))
    return tmp_path


NAMES = ["model.onnx", "parts/index.bin", "empty"]


def test_whole_files_pass_the_check(folder: Path) -> None:
    checked: list[str] = []
    check_files(folder, hash_files(folder, NAMES), GalleryError, progress=checked.append)
    assert checked == NAMES


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "field", "message"),
    [
        (remove, None, "absent"),
        (replace_by_a_folder, None, "absent"),
        (truncate, "bytes", "truncated or altered"),
        (lengthen, "bytes", "truncated or altered"),
        (flip_a_bit, "sha256", "altered"),
    ],
)
@pytest.mark.parametrize("name", ["model.onnx", "parts/index.bin"])
def test_damaged_files_are_named(
    damage: Callable[[Path], None], field: str | None, message: str, name: str, folder: Path
) -> None:
    manifest = hash_files(folder, NAMES)
    damage(folder / name)
    with pytest.raises(GalleryError, match=message) as caught:
        check_files(folder, manifest, GalleryError)
    assert caught.value.file == folder / name
    assert caught.value.field == field


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "mission"
    target.write_text("mine")
    with pytest.raises(NotADirectoryError, match="mission"), atomic_folder(target):
        raise AssertionError("not reached")
    assert target.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mission"]
