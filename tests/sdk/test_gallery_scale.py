"""Galleries built on a Ray cluster of two workers: the same bytes as in one process, workers that die included."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cvgl.cli.gallery import app
from cvgl.errors import GalleryError, MapError, MissingDependencyError, ModelError
from cvgl.gallery import build_gallery
from cvgl.gallery.pieces import Arrays, Plan, basemap_piece, cells_of, tile_pieces
from cvgl.gallery.scale import RayWorkers, ray_cluster
from cvgl.imagery import MapSource
from cvgl.model import Model

SIZES: dict[str, Any] = {"tile_size_m": [32.0, 48.0], "stride_m": 8.0, "basemap_gsd_m": 0.25}


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def build(place: Path, out: Path, workers: Any = None) -> dict[str, bytes]:
    with MapSource.open(place / "map.tif") as source:
        build_gallery(source, Model.open(place / "tiny.cvgl"), out, workers=workers, **SIZES)
    return content(out)


def workers_of(place: Path) -> RayWorkers:
    with MapSource.open(place / "map.tif") as source:
        return RayWorkers.of([place / "map.tif"], source, Model.open(place / "tiny.cvgl"), threads=1)


class Backwards:
    """Pieces made from a plan that travelled, the last one first."""

    def __init__(self, place: Path) -> None:
        self.place, self.made = place, 0

    def make(self, plan: Plan, stage: str, numbers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        arrived = pickle.loads(pickle.dumps(plan))
        with MapSource.open(self.place / "map.tif") as source:
            for number in reversed(numbers):
                self.made += 1
                if stage == "basemap":
                    yield number, basemap_piece(arrived, source, number)
                else:
                    model = Model.open(self.place / "tiny.cvgl", threads=1)
                    yield from tile_pieces(arrived, source, model, [number], lambda count: None)


def test_pieces_made_elsewhere_give_the_same_bytes(tiny_place: Path, tmp_path: Path) -> None:
    elsewhere = Backwards(tiny_place)
    assert build(tiny_place, tmp_path / "a.gallery", elsewhere) == build(tiny_place, tmp_path / "b.gallery")
    assert elsewhere.made > 3


def test_cells_tell_places_apart() -> None:
    at = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [-1, 1], [1, -1]], float) * 8 + 3
    cells = cells_of(at, np.array([3.0, 3.0]), 8.0)
    assert len(set(cells.tolist())) == len(at)
    assert cells_of(at + 0.4, np.array([3.0, 3.0]), 8.0).tolist() == cells.tolist()


def test_without_ray_the_extra_is_named(tiny_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["build", str(tiny_place / "map.tif"), "--model", str(tiny_place / "tiny.cvgl"), "--ray", "local"]
    done = CliRunner().invoke(app, [*words, "--tile-size", "32", "--out", str(tmp_path / "x.gallery")])
    assert isinstance(done.exception, MissingDependencyError) and "cvgl[scale]" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_not_there_is_named() -> None:
    ray = pytest.importorskip("ray", reason="needs cvgl[scale]")
    if ray.is_initialized():
        pytest.skip("one is there")
    with pytest.raises(GalleryError, match="no Ray cluster"), ray_cluster("auto"):
        pass


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """Ray, with a cluster of two processors for one worker each."""
    ray = pytest.importorskip("ray", reason="needs cvgl[scale]")
    ray.init(address="local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(two: Any, tiny_place: Path, tmp_path: Path) -> None:
    expected = build(tiny_place, tmp_path / "one.gallery")
    assert build(tiny_place, tmp_path / "two.gallery", workers_of(tiny_place)) == expected


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(
    two: Any, tiny_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many pieces, so that the kill falls among them.
    monkeypatch.setattr("cvgl.gallery.grid._PIECE_PIXELS", 1)
    expected = build(tiny_place, tmp_path / "one.gallery")
    killed: list[int] = []

    class Killing(RayWorkers):
        def make(self, plan: Plan, stage: str, numbers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
            for count, made in enumerate(super().make(plan, stage, numbers)):
                if count == 0 and stage == "tiles":
                    killed.append(kill_one())
                yield made

    workers = Killing(**vars(workers_of(tiny_place)))
    assert build(tiny_place, tmp_path / "two.gallery", workers) == expected
    assert killed


def kill_one() -> int:
    """Kill a worker of the cluster that this process started; its process number."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if b"_Worker" in (entry / "cmdline").read_bytes() and os.getpid() in ancestors(int(entry.name)):
                    os.kill(int(entry.name), signal.SIGKILL)
                    return int(entry.name)
    raise LookupError("no worker is at work")


def ancestors(process: int) -> Iterator[int]:
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        yield process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("maps", ("/nowhere/absent.tif",), MapError, r"absent\.tif"),
        ("identity", "0" * 64, MapError, "other files"),
        ("fingerprint", "0" * 64, ModelError, "another model"),
    ],
)
def test_what_a_worker_has_not_is_named(
    two: Any, tiny_place: Path, tmp_path: Path, field: str, value: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        build(tiny_place, tmp_path / "x.gallery", replace(workers_of(tiny_place), **{field: value}))
    assert not (tmp_path / "x.gallery").exists()
