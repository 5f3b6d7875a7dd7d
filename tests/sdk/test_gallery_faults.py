"""What goes wrong with galleries: damage of every kind is named, killed builds go on, full disks leave the old one.

``CVGL_FAULTS=all`` tries every byte of most parts, thousands of the largest, and 50 kills instead of four (`make` does
not; `benchmarks/gallery.py faults` does, and records it).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cvgl.cli.gallery import app
from cvgl.errors import GalleryError
from cvgl.gallery import Gallery, build_gallery
from cvgl.gallery.check import check_gallery
from cvgl.gallery.work import Work
from cvgl.imagery import MapSource
from cvgl.model import Model

ALL = os.environ.get("CVGL_FAULTS") == "all"
SMALL = 16384 if ALL else 2048
"""Parts up to this many bytes are damaged at every byte, larger ones at some."""
SAMPLE = 4000 if ALL else 60


Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def truth(tiny_place: Path) -> dict[str, object]:
    return answers(tiny_place / "map.gallery")


def answers(path: Path) -> dict[str, object]:
    """All that a flight, its report and a builder ever read of a gallery."""
    gallery = Gallery.open(path)
    rng = np.random.default_rng(3)
    queries = rng.normal(size=(3, gallery.manifest.dimension)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found: dict[str, object] = {}
    for number in range(len(gallery.manifest.layers)):
        found[f"near {number}"] = gallery.near(queries, 0.0, 0.0, 60.0, 5, number)[0].tolist()
        found[f"exact {number}"] = gallery.exact(queries, 5, number)[0].tolist()
        found[f"index {number}"] = gallery.approximate(queries, 5, number)[0].tolist()
    found["basemap"] = np.asarray(gallery.basemap.pixels).tobytes()
    found["overview"] = gallery.verified("overview.jpg").read_bytes()
    found["table"] = gallery.table.tobytes()
    found["manifest"] = gallery.manifest.data
    return found


def harmless_or_named(path: Path, part: str, truth: dict[str, object]) -> bool:
    """Whether using a gallery raises an error that names the part; what else it may do is answer rightly."""
    try:
        found = answers(path)
    except GalleryError as error:
        assert part in str(error), f"{part} is at fault, not: {error}"
        return True
    assert found == truth, f"a wrong answer from a damaged {part}"
    return False


PARTS = [
    "manifest.json", "tiles.npy", "descriptors.npy", "index.hnsw", "index-1.hnsw", "basemap.npy", "basemap_tiles.npy",
    "overview.jpg", "blocks.sha256",
]  # fmt: skip


def test_the_parts_are_all(tiny_place: Path) -> None:
    assert {path.name for path in (tiny_place / "map.gallery").iterdir()} == set(PARTS)


def places(size: int, seed: int) -> Iterator[int]:
    """Bytes to damage."""
    if size <= SMALL:
        return iter(range(size))
    rng = random.Random(seed)
    return iter(sorted({0, 1, 7, 127, 128, size - 1, *(rng.randrange(size) for _ in range(SAMPLE))}))


@pytest.mark.parametrize("part", PARTS)
def test_every_flipped_byte_is_named(
    tiny_place: Path, truth: dict[str, object], tmp_path: Path, part: str, record_property: Record
) -> None:
    copy = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / "copy.gallery"))
    whole = (copy / part).read_bytes()
    record = Counter[str]()
    for count, place in enumerate(places(len(whole), 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (copy / part).write_bytes(damaged)
        raised = harmless_or_named(copy, part, truth)
        assert raised or part == "manifest.json", f"byte {place} of {part}"
        record["raised" if raised else "harmless"] += 1
        if count % 50 == 0 and raised:
            with pytest.raises(GalleryError, match=part.replace(".", r"\.")):
                check_gallery(copy)
    record_property("flipped", dict(record))


@pytest.mark.parametrize("part", PARTS)
def test_every_truncation_is_named(
    tiny_place: Path, truth: dict[str, object], tmp_path: Path, part: str, record_property: Record
) -> None:
    copy = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / "copy.gallery"))
    whole = (copy / part).read_bytes()
    record = Counter[str]()
    for length in places(len(whole), 2):
        (copy / part).write_bytes(whole[:length])
        raised = harmless_or_named(copy, part, truth)
        # The last byte of the manifest is a line feed.
        assert raised or (part == "manifest.json" and length == len(whole) - 1)
        record["raised" if raised else "harmless"] += 1
    record_property("truncated", dict(record))
    (copy / part).write_bytes(whole + b"\0")
    assert harmless_or_named(copy, part, truth)


@pytest.mark.parametrize("part", PARTS)
def test_every_missing_or_strange_part_is_named(tiny_place: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / "copy.gallery"))
    (copy / part).unlink()
    for use in (Gallery.open, check_gallery):
        with pytest.raises(GalleryError, match=part.replace(".", r"\.")):
            use(copy)
    done = CliRunner().invoke(app, ["check", str(copy)])
    assert isinstance(done.exception, GalleryError) and done.exception.exit_status == 4
    (copy / part).mkdir()
    with pytest.raises(GalleryError, match=part.replace(".", r"\.")):
        Gallery.open(copy)


def test_a_part_of_another_gallery_is_named(tiny_place: Path, truth: dict[str, object], tmp_path: Path) -> None:
    """Parts that are whole, but not this gallery's, as after a copy that mixed two of them up."""
    with MapSource.open(tiny_place / "other.tif") as source:
        build_gallery(source, Model.open(tiny_place / "tiny.cvgl"), tmp_path / "other.gallery", **SIZES)
    for part in PARTS[1:]:
        copy = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / f"{part}.gallery"))
        shutil.copy(tmp_path / "other.gallery" / part, copy / part)
        if (copy / part).read_bytes() != (tiny_place / "map.gallery" / part).read_bytes():
            assert harmless_or_named(copy, part, truth)


def test_a_gallery_that_is_replaced_while_it_is_open_stays_what_it_was(
    tiny_place: Path, truth: dict[str, object], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / "copy.gallery"))
    opened = Gallery.open(copy)
    shutil.rmtree(copy)
    rng = np.random.default_rng(3)
    queries = rng.normal(size=(3, opened.manifest.dimension)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    assert opened.exact(queries, 5)[0].tolist() == truth["exact 0"]
    assert opened.approximate(queries, 5)[0].tolist() == truth["index 0"]


# Builds that end early

SIZES = {"tile_size_m": [32.0, 48.0], "stride_m": 16.0, "basemap_gsd_m": 0.5}

BUILD = """
import sys
from cvgl.gallery import build_gallery
from cvgl.gallery import grid, index, pieces
from cvgl.imagery import MapSource
from cvgl.model import Model
# Many pieces and snapshots, so that there is much to be interrupted.
grid._PIECE_PIXELS, pieces._BASEMAP_STRIP, index._CHUNK, index._SNAPSHOT = 1, 1, 10, 50
print("begun", flush=True)
with MapSource.open(sys.argv[1]) as source:
    build_gallery(source, Model.open(sys.argv[2]), sys.argv[3], tile_size_m=[32.0, 48.0], stride_m=8.0,
                  basemap_gsd_m=0.25, identity=source.identity())
"""


def start(place: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(place / "map.tif"), str(place / "tiny.cvgl"), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    tiny_place: Path, tmp_path: Path, record_property: Record
) -> None:
    process = start(tiny_place, tmp_path / "whole.gallery")
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    began = time.monotonic()
    assert process.wait() == 0, process.communicate()[1]
    lasts = time.monotonic() - began
    expected = content(tmp_path / "whole.gallery")
    rng = random.Random(11)
    went_on = killed = 0
    for trial in range(50 if ALL else 4):
        out = tmp_path / f"killed-{trial}.gallery"
        partial = tmp_path / f"{out.name}.partial"
        kills = 0
        # A kill may also fall between the gallery's appearance and the end of clearing up.
        while not out.is_dir() or partial.exists():
            process = start(tiny_place, out)
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            if kills < 2:
                time.sleep(rng.uniform(0.0, lasts))
                process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode in (0, -signal.SIGKILL)
            killed += process.returncode != 0
            went_on += process.returncode != 0 and any(partial.glob("pieces/*.npz"))
            kills += 1
        assert content(out) == expected
    record_property("killed", {"builds": trial + 1, "kills": killed, "with pieces done": went_on})
    assert went_on, "no kill fell into the middle of the work"


FULL = (
    """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
from cvgl.errors import GalleryError
"""
    + BUILD.replace("import sys\n", "", 1)
    .replace("with MapSource", "try:\n  with MapSource")
    .replace("    build_gallery(", "    build_gallery(")
    .rstrip()
    + """
except GalleryError as error:
    print("refused:", error)
"""
)


@pytest.mark.parametrize("limit", [1_000, 8_000, 30_000, 60_000, 150_000])
def test_a_full_disk_is_said_and_the_old_gallery_stands(tiny_place: Path, tmp_path: Path, limit: int) -> None:
    out = Path(shutil.copytree(tiny_place / "map.gallery", tmp_path / "old.gallery"))
    before = content(out)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tiny_place / "map.tif"), str(tiny_place / "tiny.cvgl"), str(out), str(limit)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout and "cannot be written" in done.stdout, done.stdout
    assert content(out) == before
    check_gallery(out)


def test_two_builds_of_one_gallery_do_not_mix(tiny_place: Path, tmp_path: Path) -> None:
    import fcntl

    partial = tmp_path / "map.gallery.partial"
    partial.mkdir()
    with open(partial / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            MapSource.open(tiny_place / "map.tif") as source,
            pytest.raises(GalleryError, match="another process is at work"),
        ):
            build_gallery(source, Model.open(tiny_place / "tiny.cvgl"), tmp_path / "map.gallery", **SIZES)


def test_a_folder_that_is_no_unfinished_gallery_is_left_alone(tiny_place: Path, tmp_path: Path) -> None:
    (tmp_path / "map.gallery.partial").mkdir()
    (tmp_path / "map.gallery.partial" / "thesis.tex").write_text("years of work")
    with MapSource.open(tiny_place / "map.tif") as source, pytest.raises(GalleryError, match="stands there already"):
        build_gallery(source, Model.open(tiny_place / "tiny.cvgl"), tmp_path / "map.gallery", **SIZES)
    assert (tmp_path / "map.gallery.partial" / "thesis.tex").exists()


@pytest.mark.parametrize("left", [["pieces", "plan.json", "lock"], ["plan.json", "lock"], ["lock"], []])
def test_killed_while_it_cleared_up_it_is_built_again_to_the_same_bytes(
    tiny_place: Path, tmp_path: Path, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "map.gallery", tmp_path / "map.gallery.partial"
    with MapSource.open(tiny_place / "map.tif") as source:
        model = Model.open(tiny_place / "tiny.cvgl")
        with monkeypatch.context() as patch:
            patch.setattr(Work, "_clear", lambda self: None)
            build_gallery(source, model, out, **SIZES, identity=source.identity())
        assert {path.name for path in partial.iterdir()} == {"pieces", "plan.json", "lock"}
        before = content(out)
        for path in partial.iterdir():
            if path.name not in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        build_gallery(source, model, out, **SIZES, identity=source.identity())
    assert content(out) == before and not partial.exists()


def test_killed_between_its_last_two_renames_it_gives_the_old_gallery_back(tiny_place: Path, tmp_path: Path) -> None:
    partial = tmp_path / "map.gallery.partial"
    shutil.copytree(tiny_place / "map.gallery", partial / "replaced")
    (partial / "plan.json").write_text(json.dumps({}))
    with MapSource.open(tiny_place / "map.tif") as source, pytest.raises(KeyboardInterrupt):
        build_gallery(
            source,
            Model.open(tiny_place / "tiny.cvgl"),
            tmp_path / "map.gallery",
            **SIZES,
            progress=stop,
        )
    check_gallery(tmp_path / "map.gallery")
    assert not partial.exists()


def stop(stage: str, done: int, total: int) -> None:
    raise KeyboardInterrupt
