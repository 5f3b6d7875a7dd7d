"""The folder in which a gallery grows, so that a build that was killed goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError
from cvgl.files import atomic_path, one_process, read_json, write_json
from cvgl.manifest import refuse_to_replace_others

__all__ = ["Work", "read_arrays", "write_arrays"]

_PLAN, _LOCK, _REPLACED, _GALLERY, _PIECES = "plan.json", "lock", "replaced", "gallery", "pieces"


class Work:
    """``OUT.partial``, of one process at a time; see :meth:`open`.

    Attributes:
        gallery: the folder that will be the gallery.
        pieces: what parts of it are made of, a file each; a file that is there is whole.
    """

    def __init__(self, folder: Path, out: Path) -> None:
        self._folder, self._out = folder, out
        self.gallery, self.pieces = folder / _GALLERY, folder / _PIECES

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, out: Path, plan: dict[str, Any], resume: bool, say: Callable[[str], None] | None = None
    ) -> Iterator[Work]:
        """Take the folder for this process, empty unless it holds unfinished work of the same plan.

        The gallery stands at ``out`` when the block ends well. If it ends badly, a gallery that stood there stands
        there still, and the work is kept where it can be resumed and any of it is done.

        Args:
            out: where the gallery goes.
            plan: everything that decides what it will be; JSON values.
            resume: False if the plan does not tell one map from another.
            say: told when earlier work is taken up or dropped.

        Raises:
            GalleryError: something else stands at ``out`` or in the folder, another process is at work in it, or the
                disk is full or fails.
        """
        out = Path(os.path.abspath(out))
        refuse_to_replace_others(out, GalleryError)
        folder = out.with_name(out.name + ".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [path.name for path in folder.iterdir() if path.name != _LOCK]
            if others and not {_PLAN, _REPLACED} & set(others):
                raise GalleryError(
                    "stands there already", file=folder, found=others[0], expected="nothing, or an unfinished gallery"
                )
            with one_process(folder / _LOCK, GalleryError("another process is at work there", file=folder)):
                work = cls(folder, out)
                work._take_up(json.loads(json.dumps(plan)), resume, say or (lambda message: None))
                try:
                    yield work
                    work._publish()
                except BaseException:
                    if not (resume and work.pieces.is_dir() and any(work.pieces.iterdir())):
                        work._clear()
                    raise
        except OSError as reason:
            where = folder if reason.filename is None else Path(reason.filename)
            if not str(where).startswith(str(folder)):
                raise
            raise GalleryError(f"cannot be written: {reason.strerror}", file=folder) from reason

    def done(self, name: str) -> bool:
        """Whether a part of the gallery is there."""
        return (self.gallery / name).exists()

    def piece(self, stage: str, number: int) -> Path:
        """The file of a piece."""
        return self.pieces / f"{stage}-{number:06d}.npz"

    def _take_up(self, plan: dict[str, Any], resume: bool, say: Callable[[str], None]) -> None:
        if (self._folder / _REPLACED).is_dir() and not self._out.exists():
            # Killed between the two renames of _publish.
            os.replace(self._folder / _REPLACED, self._out)
        earlier: dict[str, Any] | None = None
        if (self._folder / _PLAN).is_file():
            with contextlib.suppress(GalleryError):
                earlier = read_json(self._folder / _PLAN, GalleryError)
        if resume and earlier == plan:
            say(f"going on with the unfinished gallery in {self._folder}")
        else:
            if earlier is not None:
                say(f"{self._folder} holds an unfinished gallery of another map, model or size: starting afresh")
            for path in self._folder.iterdir():
                if path.name != _LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(self._folder / _PLAN, plan)
        for inside in (self.gallery, self.pieces):
            inside.mkdir(exist_ok=True)
            # What a killed process was writing has a temporary name that begins with a dot.
            for path in inside.glob(".*"):
                path.unlink()

    def _publish(self) -> None:
        """The gallery appears under its name; a folder cannot replace another one in a single rename."""
        replaced = self._folder / _REPLACED
        shutil.rmtree(replaced, ignore_errors=True)
        if self._out.exists():
            os.replace(self._out, replaced)
        try:
            os.replace(self.gallery, self._out)
        except OSError:
            if replaced.is_dir():
                os.replace(replaced, self._out)
            raise
        self._clear()

    def _clear(self) -> None:
        """Remove the folder. The plan goes after all else: what a kill leaves must still be known for our own."""
        for path in self._folder.iterdir():
            if path.name not in (_PLAN, _LOCK):
                shutil.rmtree(path, ignore_errors=True)
        (self._folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays as one file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What :func:`write_arrays` wrote."""
    with np.load(path) as arrays:
        return dict(arrays)
