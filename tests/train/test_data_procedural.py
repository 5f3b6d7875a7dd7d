"""The procedural dataset: University-1652's tree, the same bytes for the same settings, whole or absent."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvgl_train.data import procedural
from cvgl_train.data.base import DatasetError
from cvgl_train.data.procedural import MANIFEST, POSES, ProceduralSettings, read_procedural, write_procedural

SMALL: dict[str, Any] = {
    "places": 5,
    "test_share": 0.4,
    "distractors": 1,
    "drone_views": 2,
    "image_px": 48,
    "tile_m": 40.0,
    "spacing_m": 20.0,
}


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def poses(folder: Path) -> list[dict[str, str]]:
    with open(folder / POSES, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_procedural(tmp_path_factory.mktemp("procedural") / "set", processes=1, **SMALL)


def test_the_tree_is_university_1652s(made: Path) -> None:
    found = {
        f"{branch}": sorted(p.name for p in (made / branch).iterdir())
        for branch in (
            "train/drone",
            "train/satellite",
            "test/query_drone",
            "test/gallery_drone",
            "test/query_satellite",
            "test/gallery_satellite",
        )
    }
    assert found["train/drone"] == found["train/satellite"] == ["0001", "0002", "0003"]
    assert found["test/gallery_drone"] == found["test/gallery_satellite"] == ["0004", "0005", "0006"]
    assert found["test/query_drone"] == found["test/query_satellite"]
    assert len(found["test/query_drone"]) == 2
    assert sorted(p.name for p in (made / "train/drone/0002").iterdir()) == ["image-01.jpeg", "image-02.jpeg"]
    assert [p.name for p in (made / "train/satellite/0002").iterdir()] == ["0002.jpg"]
    query = found["test/query_drone"][0]
    same = [
        (made / branch / query / "image-01.jpeg").read_bytes() for branch in ("test/query_drone", "test/gallery_drone")
    ]
    assert same[0] == same[1]


def test_train_and_test_are_of_different_worlds(made: Path) -> None:
    rows = poses(made)
    worlds = {split: {row["world"] for row in rows if row["file"].startswith(split)} for split in ("train", "test")}
    assert not worlds["train"] & worlds["test"]
    assert {row["file"] for row in rows} == {str(p.relative_to(made)) for p in made.rglob("*.jp*g")}


@pytest.mark.parametrize(
    ("split", "queries", "references", "distractors"), [("train", 6, 3, 0), ("test", 4, 3, 1)], ids=["train", "test"]
)
def test_reading(made: Path, split: str, queries: int, references: int, distractors: int) -> None:
    data = read_procedural(made, split)
    assert (len(data.queries), len(data.references)) == (queries, references)
    assert int((data.reference_labels == -1).sum()) == distractors
    assert data.frame == "metres" and data.query_positions is not None and data.reference_positions is not None
    for number, indices in enumerate(data.matches):
        assert data.reference_labels[indices].tolist() == [data.query_labels[number]]
        # The drone aims near the place, and no other place is as near.
        apart = np.linalg.norm(data.reference_positions - data.query_positions[number], axis=1)
        assert apart.argmin() == indices[0] and apart.min() < 0.15 * SMALL["tile_m"]
    assert data.query_heights is not None
    assert ((data.query_heights > 0.5 * SMALL["tile_m"]) & (data.query_heights < 1.3 * SMALL["tile_m"])).all()
    assert data.queries[0].read().shape == data.references[0].read().shape == (48, 48, 3)
    assert len({source.name for source in data.queries}) == queries


def test_the_drone_gallery_has_distractors(made: Path) -> None:
    data = read_procedural(made, "test", gallery="drone")
    assert (len(data.queries), len(data.references)) == (6, 2)
    assert [len(found) for found in data.matches].count(0) == 2
    turned = data.reversed()
    assert (len(turned.queries), len(turned.references)) == (2, 6)
    with pytest.raises(DatasetError, match="gallery"):
        read_procedural(made, "train", gallery="drone")


def test_drone_and_satellite_show_the_same_place() -> None:
    """Rendered on one day from straight above, at the satellite's scale, the two views are nearly one picture."""
    from cvgl.camera import Camera
    from cvgl.sim import Appearance, World, render_map

    class Middle:
        """Draws the middle of every range."""

        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

    settings = ProceduralSettings(tile_m=60.0, max_tilt_deg=0.0, image_px=96)
    world = World.generate(4, 260.0, "suburban")
    spot = procedural._Spot("0001", 20.0, -30.0, "train")
    camera = Camera.from_field_of_view(96, 96, 50.0)
    look = Appearance(clutter_density=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedural.Appearance, "random", lambda *_: look)
        image, (easting, northing, height, *_) = procedural._drone_view(world, camera, spot, settings, Middle())  # type: ignore[arg-type]
    assert (easting, northing) == (20.0, -30.0)
    half = height * np.tan(np.radians(25.0))
    tile = render_map(world, 2 * half / 96, look, (20.0 - half, -30.0 - half, 20.0 + half, -30.0 + half))[..., ::-1]
    grey = [view.astype(float).mean(axis=2).ravel() for view in (image, tile)]
    assert np.corrcoef(grey)[0, 1] > 0.6
    turned = np.rot90(tile, 2).astype(float).mean(axis=2).ravel()
    assert np.corrcoef(grey[0], turned)[0, 1] < 0.4


def test_the_same_settings_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert digest(write_procedural(tmp_path / "again", processes=1, **SMALL)) == digest(made)


def test_processes_do_not_change_the_bytes(made: Path, tmp_path: Path) -> None:
    assert digest(write_procedural(tmp_path / "again", processes=2, **SMALL)) == digest(made)


def test_another_seed_and_any_heading_give_other_images(made: Path, tmp_path: Path) -> None:
    other = write_procedural(tmp_path / "other", processes=1, **{**SMALL, "seed": 1, "heading": "any"})
    name = "train/drone/0001/image-01.jpeg"
    assert (other / name).read_bytes() != (made / name).read_bytes()
    headings = [[float(row["heading_deg"]) for row in poses(folder) if row["heading_deg"]] for folder in (made, other)]
    off_north = [[abs((value + 180) % 360 - 180) for value in values] for values in headings]
    assert max(off_north[0]) <= 20 < max(off_north[1])


def test_a_set_that_stands_is_left_alone(made: Path) -> None:
    before = (made / MANIFEST).stat().st_mtime_ns
    write_procedural(made, **SMALL)
    assert (made / MANIFEST).stat().st_mtime_ns == before


def test_an_interrupted_run_keeps_what_it_has_finished(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = procedural._render_world
    rendered: list[int] = []

    def failing(plan: Any, *rest: Any) -> None:
        if plan.number == 1 and not rendered.count(1):
            rendered.append(1)
            raise KeyboardInterrupt
        rendered.append(plan.number)
        render(plan, *rest)

    monkeypatch.setattr(procedural, "_render_world", failing)
    target = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        write_procedural(target, processes=1, **SMALL)
    assert not target.exists()
    seen: list[tuple[str, int, int]] = []
    write_procedural(target, processes=1, progress=lambda *step: seen.append(step), **SMALL)
    assert rendered == [0, 1, 1]
    assert seen == [("worlds", 2, 2)]
    assert digest(target) == digest(made)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_reading_makes_a_set_that_is_not_there(tmp_path: Path) -> None:
    data = read_procedural(tmp_path / "new" / "set", "train", processes=1, **SMALL)
    assert len(data.queries) == 6
    assert len(read_procedural(tmp_path / "new" / "set", places=5).queries) == 4


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"places": 1}, "places"),
        ({"places": 12.5}, "places"),
        ({"places": True}, "places"),
        ({"test_share": 1.5}, "test_share"),
        ({"test_share": 0.0}, "test_share"),
        ({"drone_views": 0}, "drone_views"),
        ({"tile_m": "wide"}, "tile_m"),
        ({"max_tilt_deg": 80}, "max_tilt_deg"),
        ({"heading": "south"}, "heading"),
        ({"places": 9000, "distractors": 2000}, "places, distractors"),
        ({"plaices": 4}, "plaices"),
    ],
)
def test_unusable_settings(tmp_path: Path, options: dict[str, Any], field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        write_procedural(tmp_path / "set", **options)
    assert caught.value.field == field
    assert not any(tmp_path.iterdir())


def test_other_settings_are_refused(made: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        write_procedural(made, **{**SMALL, "drone_views": 3})
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("drone_views", 2, "3")
    with pytest.raises(DatasetError, match="seed"):
        read_procedural(made, seed=7)
    with pytest.raises(DatasetError, match="split"):
        read_procedural(made, "val")


def _set_version(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "version": 0}))


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / POSES).read_text()
    assert old in text
    (folder / POSES).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "", "not a procedural dataset"),
        (lambda folder: (folder / MANIFEST).write_text("{"), MANIFEST, "JSON"),
        (_set_version, MANIFEST, "version"),
        (lambda folder: (folder / POSES).unlink(), POSES, "no such file"),
        (lambda folder: (folder / POSES).write_text(""), POSES, "header"),
        (lambda folder: _edit(folder, "easting_m", "x"), POSES, "easting_m"),
        (lambda folder: _edit(folder, ",0001,0,", ",0001,0,east"), POSES, "row"),
        (lambda folder: (folder / POSES).write_text(",".join(procedural._COLUMNS) + "\n"), POSES, "train/drone/0001"),
        (lambda folder: shutil.rmtree(folder / "train/satellite/0002"), "train/drone/0002", "other view"),
    ],
)
def test_damage_is_named(made: Path, tmp_path: Path, damage: Any, file: str, words: str) -> None:
    copy = tmp_path / "set"
    shutil.copytree(made, copy)
    damage(copy)
    with pytest.raises(DatasetError, match=words) as caught:
        read_procedural(copy, "train")
    assert caught.value.file == (copy / file if file else copy)


def test_a_missing_image_is_named(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(made, copy)
    image = copy / "train/drone/0001/image-01.jpeg"
    image.unlink()
    with pytest.raises(DatasetError, match="no such image") as caught:
        read_procedural(copy, "train")
    assert caught.value.file == image
