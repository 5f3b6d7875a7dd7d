"""The folder in which a mission grows, stage by stage, and who is told how far it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from cvgl.errors import MissionError
from cvgl.files import one_process, read_json, write_json

__all__ = ["STAGES", "Growing", "Reporter", "Silent", "remove"]

STAGES = ("map", "adapt", "model", "gallery", "calibrate", "check")

_PLAN, _LOCK, _REPLACED, _GROWING = "plan.json", "lock", "replaced", "mission"


class Reporter(Protocol):
    """Who is told how far a preparation is."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def progress(self, share: float, words: str = "") -> None:
        """That share (0..1) of the stage is done."""

    def end(self, stage: str, words: str) -> None:
        """A stage is done, and what came of it."""

    def say(self, message: str) -> None:
        """Something to know."""

    def warn(self, message: str) -> None:
        """Something to worry about."""


class Silent:
    """A reporter that keeps it all to itself."""

    def begin(self, stage: str) -> None:
        pass

    def progress(self, share: float, words: str = "") -> None:
        pass

    def end(self, stage: str, words: str) -> None:
        pass

    def say(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


class Growing:
    """The folder in which a mission grows; of one process at a time.

    Args:
        folder: ``OUT.partial``.
        out: where the mission goes.
        tell: is told when a stage begins and ends.
    """

    def __init__(self, folder: Path, out: Path, tell: Reporter) -> None:
        self.folder, self.out, self._tell = folder, out, tell
        self.mission = folder / _GROWING

    @classmethod
    @contextlib.contextmanager
    def open(cls, out: Path, plan: dict[str, Any], tell: Reporter) -> Iterator[Growing]:
        """Take the folder for this process, empty unless it holds unfinished work of the same plan."""
        folder = out.with_name(out.name + ".partial")
        plan = json.loads(json.dumps(plan))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [p.name for p in folder.iterdir() if p.name != _LOCK and not p.name.startswith(".")]
        except OSError as reason:
            raise MissionError(f"cannot work there: {reason.strerror}", file=folder) from reason
        if others and not (folder / _PLAN).is_file():
            raise MissionError(
                "stands there already", file=folder, found=others[0], expected="nothing, or an unfinished mission"
            )
        with one_process(folder / _LOCK, MissionError("another cvgl-prepare is at work there", file=folder)):
            if (folder / _REPLACED).is_dir() and not out.exists():
                # Killed between the two renames of publish().
                os.replace(folder / _REPLACED, out)
            work = cls(folder, out, tell)
            work._take_up(plan, begun=bool(others))
            yield work
            shutil.rmtree(folder)

    def _take_up(self, plan: dict[str, Any], begun: bool) -> None:
        if begun:
            try:
                earlier = read_json(self.folder / _PLAN, MissionError)
            except MissionError:
                earlier = {}
            if earlier == plan:
                self._tell.say(f"going on with the unfinished work in {self.folder}")
            else:
                changed = ", ".join(name for name in plan if earlier.get(name) != plan[name])
                self._tell.say(f"{self.folder} was begun with another {changed}: starting afresh")
                for path in self.folder.iterdir():
                    if path.name != _LOCK:
                        remove(path)
        write_json(self.folder / _PLAN, plan)
        self.mission.mkdir(exist_ok=True)
        # What a killed process was writing has a temporary name that begins with a dot.
        for path in [*self.folder.glob(".*"), *self.mission.glob(".*")]:
            remove(path)

    def stage(self, name: str, make: Callable[[], dict[str, Any]], words: Callable[[dict[str, Any]], str]) -> Any:
        """What a stage made: from an earlier run, or by making it now. Seconds are kept with it."""
        file = self.folder / f"stage-{name}.json"
        self._tell.begin(name)
        if file.is_file():
            kept: dict[str, Any] = read_json(file, MissionError)["made"]
            self._tell.end(name, f"{words(kept)} (done before)")
            return kept
        began = time.perf_counter()
        made = make()
        write_json(file, {"seconds": round(time.perf_counter() - began, 2), "made": made})
        self._tell.end(name, words(made))
        return made

    def seconds(self) -> dict[str, float]:
        """How long each stage took; of one that was interrupted, its last part."""
        files = {name: self.folder / f"stage-{name}.json" for name in STAGES}
        return {name: read_json(file, MissionError)["seconds"] for name, file in files.items() if file.is_file()}

    def publish(self) -> None:
        """The mission appears under its name; a folder cannot replace another one in a single rename."""
        if self.out.exists():
            replaced = self.folder / _REPLACED
            remove(replaced)
            os.replace(self.out, replaced)
        os.replace(self.mission, self.out)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
