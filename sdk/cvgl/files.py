"""Files that are either whole or absent: atomic writes, hashes, JSON manifests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvgl.errors import CvglError

__all__ = [
    "atomic_folder",
    "atomic_path",
    "check_files",
    "hash_files",
    "one_process",
    "read_json",
    "sha256_file",
    "write_json",
]

_HASHED_AT_ONCE = 4


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the name lives in the folder, so the folder is what must reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary file name beside ``path``, which becomes ``path`` if the block ends well.

    The temporary name keeps the suffix, since writers choose the format by it. On an error nothing is left behind and
    a file that stood at ``path`` before stands there still.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; what a mission carries is read by other users too.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, which replaces the folder ``path`` as a whole if the block ends well.

    Raises:
        NotADirectoryError: something that is no folder stands at ``path``.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: a file stands where a folder is to be written")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if path.exists():
            # Two renames: a folder cannot be replaced in one. In between the old one exists under its other name.
            os.replace(path, old)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def one_process(lock: Path, refusal: CvglError) -> Iterator[None]:
    """Only one process at a time is in the block; the kernel lets go of the file ``lock`` however a process ends.

    Raises:
        CvglError: ``refusal``, where another process is.
    """
    with open(lock, "a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise refusal from None
        yield


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, in a form that people can read and diff."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path, error: type[CvglError]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        error: the file is absent, unreadable, not JSON or not an object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("no such file", file=path) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as reason:
        raise error(f"not readable as JSON: {reason}", file=path) from reason
    if not isinstance(value, dict):
        raise error("not a JSON object", file=path, found=type(value).__name__, expected="an object")
    return value


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_files(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of some files of a folder, as a manifest stores them."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in names}


def check_files(
    folder: Path,
    files: dict[str, dict[str, Any]],
    error: type[CvglError],
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Compare files with a manifest's sizes and hashes, before anything else reads them.

    Several files are read at a time: this is most of the time that a large gallery takes to open.

    Raises:
        error: a file is absent, of another size (truncated) or of other content.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise error("a file of the manifest is absent", file=path)
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise error("truncated or altered", file=path, field="bytes", found=size, expected=str(expected["bytes"]))
    with ThreadPoolExecutor(min(_HASHED_AT_ONCE, os.cpu_count() or 1)) as executor:
        # The largest first, so that none begins when the others are done.
        names = sorted(files, key=lambda name: -int(files[name]["bytes"]))
        hashes = {name: executor.submit(sha256_file, folder / name) for name in names}
        for name, expected in files.items():
            found = hashes[name].result()
            if found != expected["sha256"]:
                raise error(
                    "altered", file=folder / name, field="sha256", found=found[:16], expected=expected["sha256"][:16]
                )
            if progress is not None:
                progress(name)
