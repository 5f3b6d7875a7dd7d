"""Every dataset by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import CrossViewSet, DatasetError

__all__ = ["READERS", "Reader", "list_datasets", "read_dataset"]


@dataclass(frozen=True)
class Reader:
    """Where a dataset's reader is.

    Args:
        module: below `cvgl_train.data`; imported when the dataset is asked for.
        function: in it, ``(root, split="...", **options) -> CrossViewSet``.
        summary: one line.
    """

    module: str
    function: str
    summary: str

    def load(self) -> Callable[..., CrossViewSet]:
        """The function itself."""
        function: Callable[..., CrossViewSet] = getattr(import_module(f"cvgl_train.data.{self.module}"), self.function)
        return function


READERS: dict[str, Reader] = {
    "university-1652": Reader("university1652", "read_university1652", "buildings from drone, ground and satellite"),
    "sues-200": Reader("sues200", "read_sues200", "drone from 150, 200, 250 and 300 m, and satellite"),
    "denseuav": Reader("denseuav", "read_denseuav", "low drone flights and dense satellite tiles, with positions"),
    "cvusa": Reader("cvusa", "read_cvusa", "ground panoramas of the USA and satellite, in pairs"),
    "cvact": Reader("cvact", "read_cvact", "ground panoramas of Canberra and satellite, with positions"),
    "vigor": Reader("vigor", "read_vigor", "ground panoramas of four cities beside the centre of satellite tiles"),
    "gta-uav": Reader("gta_uav", "read_gta_uav", "drone and satellite of a game, partly overlapping"),
    "uav-visloc": Reader("uav_visloc", "read_uav_visloc", "eleven real drone flights and their satellite maps"),
    "flight": Reader("flight", "read_flight_set", "a flight folder over a satellite map"),
    "map": Reader("map", "read_map_set", "a satellite map alone, seen by a made-up camera"),
    "procedural": Reader("procedural", "read_procedural", "the procedural world"),
}


def list_datasets() -> list[str]:
    """The names that `read_dataset` takes."""
    return list(READERS)


def read_dataset(name: str, root: Path | str, split: str = "test", **options: Any) -> CrossViewSet:
    """A split of a dataset.

    Args:
        name: one of `list_datasets`.
        root: the dataset's official folder, or what the reader takes in its place.
        split: as the dataset names it.
        options: of its reader.

    Raises:
        DatasetError: no such dataset, split or option, or a tree that is not the official one.
    """
    reader = READERS.get(name)
    if reader is None:
        raise DatasetError("no such dataset", field="dataset", found=name, expected=" or ".join(READERS))
    function = reader.load()
    # The first two are root and split, which are not options.
    known = list(inspect.signature(function).parameters)[2:]
    for option in options:
        if option not in known:
            raise DatasetError(
                f"no such option of {name}", field=option, found=options[option], expected=" or ".join(known) or "none"
            )
    return function(root, split, **options)
