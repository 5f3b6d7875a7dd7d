"""Pieces of a gallery made by many machines, with Ray Data."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvgl import errors
from cvgl.errors import CvglError, GalleryError, MapError, MissingDependencyError, ModelError
from cvgl.gallery.pieces import Arrays, Plan, basemap_piece, tile_pieces
from cvgl.geo import LocalFrame
from cvgl.model import Model
from cvgl.versions import versions

if TYPE_CHECKING:
    from cvgl.imagery import MapSource

__all__ = ["LOCAL", "RayWorkers", "ray_cluster"]

LOCAL = "local"
"""Instead of an address: a cluster of this machine alone, for as long as the build takes."""


@dataclass(frozen=True)
class RayWorkers:
    """Makes pieces on a Ray cluster. A piece is an area of the map; a worker that dies loses the one it is at.

    Ray Data gives each worker piece after piece, starts another worker where one died, and gives its piece to the next.
    Every worker reads the map and the model itself, under the names that they have here. A map must be the very files
    (names, sizes, times), as on a file system that is shared or copied with its times.

    Args:
        maps: paths of the map, or of several, the most important first.
        identity: of the map (`MapSource.identity`).
        model: path of the bundle.
        fingerprint: of the model.
        local: the local tangent plane of the gallery.
        threads: of the network in each worker, which takes as many processors.
    """

    maps: tuple[str, ...]
    identity: str
    model: str
    fingerprint: str
    local: LocalFrame
    threads: int

    @classmethod
    def of(cls, maps: Sequence[str | Path], source: MapSource, model: Model, threads: int = 2) -> RayWorkers:
        """For a map and a model that are open here; ``maps`` are the paths that ``source`` was opened from."""
        paths = tuple(os.path.abspath(path) for path in maps)
        return cls(paths, source.identity(), os.path.abspath(model.path), model.fingerprint, source.local, threads)

    def make(self, plan: Plan, stage: str, numbers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """As :meth:`cvgl.gallery.pieces.Workers.make`.

        Raises:
            GalleryError: the cluster fails, or a worker has other versions than this machine.
            MapError, ModelError: a worker cannot read the map or the model, or has another one.
        """
        if not numbers:
            return
        ray = _ray()
        try:
            processors = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            # A cluster's head often has none for its work.
            each = max(1, min(self.threads, max(processors)))
            workers = max(1, sum(count // each for count in processors))
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = ray.data.from_items(
                [{"number": int(number)} for number in numbers], override_num_blocks=len(numbers)
            )
            made = rows.map(
                _Worker,
                fn_constructor_args=(self, plan, stage, versions()),
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(numbers))),
                num_cpus=each,
            )
            for row in made.iter_rows():
                if row["error"]:
                    raise getattr(errors, row["kind"])(row["error"])
                with np.load(io.BytesIO(row["file"])) as arrays:
                    yield row["number"], dict(arrays)
        except ray.exceptions.RayError as reason:
            raise GalleryError(f"the Ray cluster failed: {_last_line(reason)}", field="ray") from reason


@contextlib.contextmanager
def ray_cluster(address: str = LOCAL) -> Iterator[None]:
    """Connect to a Ray cluster, and leave it at the end.

    Args:
        address: as `ray.init` takes it; "auto" for the cluster that this machine belongs to, "local" for one that is
            made of this machine alone.

    Raises:
        MissingDependencyError: Ray is not installed.
        GalleryError: no cluster answers there.
    """
    ray = _ray()
    try:
        ray.init(address=address, include_dashboard=False, configure_logging=False, log_to_driver=False)
    except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as reason:
        raise GalleryError(f"no Ray cluster there: {_last_line(reason)}", field="ray", found=address) from reason
    try:
        yield
    finally:
        ray.shutdown()


class _Worker:
    """Makes pieces on a machine of the cluster; what goes wrong is told in words, since errors do not travel well."""

    def __init__(self, job: RayWorkers, plan: Plan, stage: str, expected: dict[str, str]) -> None:
        self._plan, self._stage = plan, stage
        self._source: MapSource | None = None
        self._model: Model | None = None
        self._failed: CvglError | None = None
        try:
            self._open(job, expected)
        except CvglError as reason:
            self._failed = reason

    def _open(self, job: RayWorkers, expected: dict[str, str]) -> None:
        from cvgl.imagery import MapSource

        if (found := versions()) != expected:
            # They may give other bytes.
            raise GalleryError("a worker has other versions", field="built_with", found=found, expected=str(expected))
        maps = [Path(path) for path in job.maps]
        self._source = MapSource.open(maps if len(maps) > 1 else maps[0], job.local)
        if self._source.identity() != job.identity:
            raise MapError("a worker has other files there", file=maps[0], expected="the same sizes and times")
        if self._stage == "tiles":
            self._model = Model.open(job.model, job.threads, views=("reference",))
            if self._model.fingerprint != job.fingerprint:
                raise ModelError(
                    "a worker has another model there",
                    file=job.model,
                    field="fingerprint",
                    found=self._model.fingerprint[:16],
                    expected=job.fingerprint[:16],
                )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        try:
            if self._failed is not None:
                raise self._failed
            buffer = io.BytesIO()
            np.savez(buffer, **self._make(number))  # type: ignore[arg-type]
            return {"number": number, "file": buffer.getvalue(), "kind": "", "error": ""}
        except CvglError as reason:
            return {"number": number, "file": b"", "kind": type(reason).__name__, "error": str(reason)}

    def _make(self, number: int) -> Arrays:
        if self._source is None:
            raise GalleryError("the worker has no map", field="ray")
        if self._model is None:
            return basemap_piece(self._plan, self._source, number)
        ((_, arrays),) = tile_pieces(self._plan, self._source, self._model, [number], lambda count: None)
        return arrays


def _ray() -> Any:
    # Says once a day to its makers which functions were called, unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as reason:
        raise MissingDependencyError("building by Ray needs ray[data]: pip install 'cvgl[scale]'") from reason
    # Progress is told by the build itself.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return ray


def _last_line(reason: BaseException) -> str:
    lines = str(reason).strip().splitlines()
    return lines[-1].strip() if lines else type(reason).__name__
