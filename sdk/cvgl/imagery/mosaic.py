"""Several maps as one: what the more important one does not have, the next one gives."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.imagery.source import MapSource

__all__ = ["Mosaic"]


class Mosaic(MapSource):
    """Maps by priority.

    Args:
        sources: the most important first; all in one local tangent plane.

    Raises:
        MapError: no source, or sources in different planes.
    """

    def __init__(self, sources: list[MapSource]) -> None:
        if not sources:
            raise MapError("no map", field="maps", found=0, expected="one or more")
        if len({source.local for source in sources}) > 1:
            raise MapError("maps in different local tangent planes", field="local")
        self._sources = sources
        self.path, self.local = sources[0].path, sources[0].local
        west, south, east, north = zip(*(source.bounds for source in sources), strict=True)
        self.bounds = min(west), min(south), max(east), max(north)
        self.native_gsd = min(source.native_gsd for source in sources)
        self.source = ", ".join(dict.fromkeys(source.source for source in sources))
        self.attribution = "; ".join(dict.fromkeys(s.attribution for s in sources if s.attribution))

    @classmethod
    def of(cls, paths: list[Path], local: LocalFrame | None) -> Mosaic:
        """Open the maps; the plane of the first is that of all."""
        sources: list[MapSource] = []
        try:
            for path in paths:
                sources.append(MapSource.open(path, local or (sources[0].local if sources else None)))
            return cls(sources)
        except BaseException:
            for source in sources:
                source.close()
            raise

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`MapSource.read`."""
        rgb, valid = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        south, east = north - height * gsd, west + width * gsd
        for source in self._sources:
            w, s, e, n = source.bounds
            if w < east and e > west and s < north and n > south:
                more, there = source.read(west, north, width, height, gsd)
                there &= ~valid
                rgb[there] = more[there]
                valid |= there
                if valid.all():
                    break
        return rgb, valid

    def identity(self) -> str:
        """As :meth:`MapSource.identity`."""
        return hashlib.sha256("\n".join(source.identity() for source in self._sources).encode()).hexdigest()

    def close(self) -> None:
        """As :meth:`MapSource.close`."""
        for source in self._sources:
            source.close()
