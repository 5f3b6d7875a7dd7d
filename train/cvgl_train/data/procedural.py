"""Procedural places in the shape of University-1652: each seen by a satellite and, on other days, by a drone.

Every place is a spot of a procedural world (`cvgl.sim`). A world holds several spots, so that the places of a world are
each other's hard negatives: the same satellite, the same style of building, other streets. Train and test are cut from
different worlds. Nothing is downloaded: a recipe that names a folder which is not there makes it first.
"""

from __future__ import annotations

import csv
import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.files import atomic_folder, read_json, write_json
from cvgl.geometry import camera_to_enu
from cvgl.sim import STYLES, Appearance, World, render_frame, render_map

from .base import CrossViewSet, DatasetError
from .folders import need_choice
from .university1652 import read_university1652

__all__ = ["MANIFEST", "POSES", "ProceduralSettings", "read_procedural", "write_procedural"]

MANIFEST = "procedural.json"
POSES = "poses.csv"

# Raised when the same settings give other images: a set that stands then says that it is an old one.
_VERSION = 1
_COLUMNS = ("file", "place", "world", "easting_m", "northing_m", "height_m", "heading_deg", "tilt_deg")
_SPOTS_A_SIDE = 4
_FIELD_OF_VIEW_DEG = 50.0
_NORTH_WITHIN_DEG = 20.0
# Heights by which a level footprint is 0.55 to 1.1 times a satellite image wide.
_HEIGHT_PER_TILE = (0.6, 1.18)
_AIM_PER_TILE = 0.1
# The world goes on this far around its outer spots, which is as far as oblique views look.
_MARGIN_PER_TILE = 1.1
# Worlds are laid out on one plane, far from each other, so that distances between any two places mean something.
_BETWEEN_WORLDS_M = 10_000.0
_JPEG_QUALITY = 92

_WHOLE = (
    ("places", 2, 9999),
    ("distractors", 0, 9997),
    ("drone_views", 1, 99),
    ("image_px", 32, 2048),
    ("seed", 0, 2**32 - 1),
)
_REAL = (
    ("test_share", 0.0, 1.0),
    ("tile_m", 20.0, 400.0),
    ("spacing_m", 5.0, 400.0),
    ("max_tilt_deg", 0.0, 45.0),
)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class ProceduralSettings:
    """What is in a procedural dataset. The defaults are a small set, made for training in minutes on two cores.

    Args:
        places: with drone queries, train and test together.
        test_share: of the places that are test places, 0 to 1.
        distractors: further places of the test galleries, from the test worlds, that no query belongs to.
        drone_views: images of each place from the air.
        image_px: side of all images; they are square.
        tile_m: side of a satellite image on the ground.
        spacing_m: least distance between two places of a world; below ``tile_m`` neighbouring satellite images overlap.
        max_tilt_deg: drone images look between 0 and this far off nadir.
        heading: "north": image-up within 20 degrees of north, tilted in any direction, which a small network learns
            from scratch in minutes. "any": any heading, tilted forward, as University-1652's drone circles its
            buildings.
        seed: of everything.
    """

    places: int = 400
    test_share: float = 0.25
    distractors: int = 60
    drone_views: int = 8
    image_px: int = 160
    tile_m: float = 90.0
    spacing_m: float = 90.0
    max_tilt_deg: float = 40.0
    heading: Literal["north", "any"] = "north"
    seed: int = 0

    def __post_init__(self) -> None:
        for field, low, high in _WHOLE:
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                expected = f"a whole number from {low} to {high}"
                raise DatasetError("not usable", field=field, found=value, expected=expected)
        for field, least, most in _REAL:
            value = getattr(self, field)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
                expected = f"a number from {least:g} to {most:g}"
                raise DatasetError("not usable", field=field, found=value, expected=expected)
            # 90 and 90.0 are one setting, in the manifest too.
            object.__setattr__(self, field, float(value))
        if self.heading not in ("north", "any"):
            raise DatasetError("not usable", field="heading", found=self.heading, expected="'north' or 'any'")
        if not (self.train_places and self.test_places):
            raise DatasetError(
                "leaves a split without places", field="test_share", found=self.test_share, expected="some of each"
            )
        if self.places + self.distractors > 9999:
            raise DatasetError(
                "more places than four digits count",
                field="places, distractors",
                found=self.places + self.distractors,
                expected="at most 9999 together",
            )

    @property
    def test_places(self) -> int:
        """Places with test queries."""
        return round(self.places * self.test_share)

    @property
    def train_places(self) -> int:
        """Places of the train split."""
        return self.places - self.test_places

    @classmethod
    def of(cls, **options: Any) -> ProceduralSettings:
        """From options by name; an unknown one is a DatasetError."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise DatasetError("unknown option of the procedural set", field=name, expected=", ".join(known))
        return cls(**options)


def write_procedural(
    folder: str | Path, *, processes: int | None = None, progress: Progress | None = None, **options: Any
) -> Path:
    """Make the dataset; one that stands there with the same settings is left as it is.

    The tree is University-1652's: ``train/{drone,satellite}/<id>/`` and
    ``test/{query_drone,gallery_drone,query_satellite,gallery_satellite}/<id>/`` with ids of four digits, drone images
    ``image-01.jpeg`` and on, satellite images ``<id>.jpg``. The galleries hold distractors. Beside it lie ``poses.csv``
    (`file, place, world, easting_m, northing_m, height_m, heading_deg, tilt_deg`: for each image the ground point at
    its centre, in one plane; the last three for drone images only) and ``procedural.json`` (the settings).

    The same settings give the same bytes with the same releases of numpy and OpenCV. The folder appears when it is
    complete; what an interrupted run has finished is kept beside it, in ``.<name>.part``, and used by the next.

    Args:
        folder: of the dataset.
        processes: that render; None for one a core. More than one are spawned, so a script that calls this needs the
            usual ``if __name__ == "__main__"``.
        progress: called with "worlds", how many are done, and how many there are.
        options: fields of `ProceduralSettings`.

    Returns:
        The folder.

    Raises:
        DatasetError: unusable settings, or something else stands at ``folder``.
    """
    folder = Path(folder)
    settings = ProceduralSettings.of(**options)
    if _stands(folder, asdict(settings)):
        return folder
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Several processes of one training may start with a set that is not there: one makes it, the others wait.
    with _only_one(folder.absolute().parent):
        if _stands(folder, asdict(settings)):
            return folder
        part = folder.with_name(f".{folder.name}.part")
        _start(part, settings)
        plans = _plan(settings)
        _render_all(plans, settings, part, processes or len(os.sched_getaffinity(0)), progress)
        with atomic_folder(folder) as made:
            _assemble(plans, part, made)
            write_json(made / MANIFEST, _manifest(settings))
        shutil.rmtree(part)
    return folder


def read_procedural(
    root: str | Path,
    split: str = "test",
    *,
    gallery: str = "satellite",
    places: int | None = None,
    test_share: float | None = None,
    distractors: int | None = None,
    drone_views: int | None = None,
    image_px: int | None = None,
    tile_m: float | None = None,
    spacing_m: float | None = None,
    max_tilt_deg: float | None = None,
    heading: Literal["north", "any"] | None = None,
    seed: int | None = None,
    processes: int | None = None,
) -> CrossViewSet:
    """Drone images against satellite images of a set that `write_procedural` made.

    Args:
        root: of the set; where nothing is, it is made first.
        split: "train" or "test".
        gallery: of the test. "satellite": query_drone against gallery_satellite; "drone": gallery_drone against
            query_satellite, to be `reversed` into the satellite-to-drone test; its distractors have no match.
        places, test_share, distractors, drone_views, image_px, tile_m, spacing_m, max_tilt_deg, heading, seed: fields
            of `ProceduralSettings`. A set that stands must have been made with those given.
        processes: that render, where the set has to be made; None for one a core.

    Returns:
        Positions in metres on one plane: of queries the ground point at the image's centre, of references the image's
        centre. Distractors have the label -1.

    Raises:
        DatasetError: no such split, a set made with other settings, or a damaged one.
    """
    root = Path(root)
    need_choice(split, "split", ("train", "test"))
    need_choice(gallery, "gallery", ("satellite",) if split == "train" else ("satellite", "drone"))
    given = {
        "places": places,
        "test_share": test_share,
        "distractors": distractors,
        "drone_views": drone_views,
        "image_px": image_px,
        "tile_m": tile_m,
        "spacing_m": spacing_m,
        "max_tilt_deg": max_tilt_deg,
        "heading": heading,
        "seed": seed,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings = asdict(ProceduralSettings.of(**options))
    if not _stands(root, {name: settings[name] for name in options}):
        write_procedural(root, processes=processes, **options)
    made = read_university1652(root, split, gallery=gallery)
    poses = _read_poses(root / POSES)
    names = {source.name for source in (*made.queries, *made.references)}
    lost = sorted(names - set(poses))
    if lost:
        raise DatasetError("an image without a pose", file=root / POSES, field="file", expected=f"a row for {lost[0]}")
    branches = {_branch(name) for name in names}
    absent = sorted(name for name in set(poses) - names if _branch(name) in branches)
    if absent:
        raise DatasetError("no such image", file=root / absent[0], field=POSES, found=f"{len(absent)} images missing")
    queries = np.array([poses[source.name] for source in made.queries])
    references = np.array([poses[source.name] for source in made.references])
    return replace(
        made,
        name="procedural",
        query_positions=queries[:, :2],
        reference_positions=references[:, :2],
        frame="metres",
        query_heights=queries[:, 2],
    )


# What is where.


@dataclass(frozen=True)
class _Spot:
    """A place: its id, where it is in its world, and its part in the set."""

    place: str
    easting: float
    northing: float
    role: Literal["train", "test", "distractor"]


@dataclass(frozen=True)
class _WorldPlan:
    """A world and the places it is rendered at."""

    number: int
    spots: tuple[_Spot, ...]


def _plan(settings: ProceduralSettings) -> list[_WorldPlan]:
    """The worlds of train, then those of test, whose distractors lie among the test places."""
    rng = np.random.default_rng([settings.seed, 31])
    test: list[Literal["train", "test", "distractor"]] = ["test"] * settings.test_places
    test += ["distractor"] * settings.distractors
    mixed = [test[index] for index in rng.permutation(len(test))]
    plans: list[_WorldPlan] = []
    count = 0
    for roles in (["train"] * settings.train_places, mixed):
        for start in range(0, len(roles), _SPOTS_A_SIDE**2):
            chosen = roles[start : start + _SPOTS_A_SIDE**2]
            where = _spots(settings, np.random.default_rng([settings.seed, 32, len(plans)]))
            spots = []
            for role, (easting, northing) in zip(chosen, where, strict=False):
                count += 1
                spots.append(_Spot(f"{count:04d}", float(easting), float(northing), role))  # type: ignore[arg-type]
            plans.append(_WorldPlan(len(plans), tuple(spots)))
    return plans


def _spots(settings: ProceduralSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    """(16, 2) a grid, each spot moved by up to an eighth of the spacing, which the grid is wide enough for."""
    steps = (np.arange(_SPOTS_A_SIDE) - (_SPOTS_A_SIDE - 1) / 2) * 1.25 * settings.spacing_m
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return grid + rng.uniform(-0.125, 0.125, grid.shape) * settings.spacing_m


# Rendering.


def _render_all(
    plans: Sequence[_WorldPlan], settings: ProceduralSettings, part: Path, processes: int, progress: Progress | None
) -> None:
    wanted = [plan for plan in plans if not (part / _world_name(plan.number)).is_dir()]
    done = len(plans) - len(wanted)

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("worlds", done, len(plans))

    if processes == 1 or len(wanted) <= 1:
        for plan in wanted:
            _render_world(plan, settings, part)
            step()
        return
    # spawn: a fork would copy torch's thread pools in an undefined state.
    with ProcessPoolExecutor(
        min(processes, len(wanted)), mp_context=get_context("spawn"), initializer=_one_thread
    ) as pool:
        for job in as_completed([pool.submit(_render_world, plan, settings, part) for plan in wanted]):
            job.result()
            step()


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _render_world(plan: _WorldPlan, settings: ProceduralSettings, part: Path) -> None:
    """A world's images and the poses they were taken with, into a folder of its own."""
    rng = np.random.default_rng([settings.seed, 33, plan.number])
    # The whole square of spots, whether or not all are used: the layout must not hang on how many are.
    size = (_SPOTS_A_SIDE - 1) * 1.25 * settings.spacing_m + 2 * _MARGIN_PER_TILE * settings.tile_m
    style = STYLES[(settings.seed + plan.number) % len(STYLES)]
    world = World.generate(int(rng.integers(2**31)), size, style)
    # One satellite passed over all of the world, once.
    satellite = Appearance.random(rng, "satellite")
    camera = Camera.from_field_of_view(settings.image_px, settings.image_px, _FIELD_OF_VIEW_DEG)
    origin = plan.number * _BETWEEN_WORLDS_M
    with atomic_folder(part / _world_name(plan.number)) as folder:
        rows: list[tuple[Any, ...]] = []
        for spot in plan.spots:
            # A generator for each spot: views stay the same when another spot gets more.
            own = np.random.default_rng([settings.seed, 34, plan.number, int(spot.place)])
            (folder / spot.place).mkdir()
            half = settings.tile_m / 2
            bounds = spot.easting - half, spot.northing - half, spot.easting + half, spot.northing + half
            tile = render_map(world, settings.tile_m / settings.image_px, satellite, bounds)
            _write(folder / spot.place / f"{spot.place}.jpg", np.ascontiguousarray(tile[..., ::-1]))
            rows.append((f"{spot.place}.jpg", spot.place, plan.number, *_cells(origin + spot.easting, spot.northing)))
            for number in range(1, settings.drone_views + 1):
                image, (easting, northing, *pose) = _drone_view(world, camera, spot, settings, own)
                name = f"image-{number:02d}.jpeg"
                _write(folder / spot.place / name, image)
                rows.append((name, spot.place, plan.number, *_cells(origin + easting, northing, *pose)))
        with open(folder / POSES, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _drone_view(
    world: World, camera: Camera, spot: _Spot, settings: ProceduralSettings, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float, float]]:
    """(BGR image, (easting and northing of its centre, height, heading, tilt)) of one view on a day of its own."""
    look = Appearance.random(rng, "drone")
    height = float(rng.uniform(*_HEIGHT_PER_TILE)) * settings.tile_m
    reach = _AIM_PER_TILE * settings.tile_m
    easting = spot.easting + float(rng.uniform(-reach, reach))
    northing = spot.northing + float(rng.uniform(-reach, reach))
    tilt = float(rng.uniform(0.0, settings.max_tilt_deg))
    if settings.heading == "north":
        heading = float(rng.uniform(-_NORTH_WITHIN_DEG, _NORTH_WITHIN_DEG)) % 360.0
        direction = float(rng.uniform(0.0, 2 * math.pi))
    else:
        heading = float(rng.uniform(0.0, 360.0))
        direction = 0.0
    attitude = heading, tilt * math.cos(direction), tilt * math.sin(direction)
    axis = camera_to_enu(camera.mount, *attitude)[:, 2]
    ahead = axis[:2] * (height / -axis[2])
    image = render_frame(world, camera, (easting - ahead[0], northing - ahead[1], height), attitude, look, rng)
    return image, (easting, northing, height, heading, math.degrees(math.acos(-axis[2])))


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
        raise DatasetError("cannot be written", file=path)


def _cells(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in values) + ("",) * (5 - len(values))


# The folder.

_TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"drone": ("train/drone",), "satellite": ("train/satellite",)},
    "test": {
        "drone": ("test/query_drone", "test/gallery_drone"),
        "satellite": ("test/query_satellite", "test/gallery_satellite"),
    },
    "distractor": {"drone": ("test/gallery_drone",), "satellite": ("test/gallery_satellite",)},
}


def _assemble(plans: Sequence[_WorldPlan], part: Path, folder: Path) -> None:
    """Copy the worlds' images to where University-1652 has them, and gather their poses."""
    rows: list[list[str]] = []
    for plan in plans:
        world = part / _world_name(plan.number)
        roles = {spot.place: spot.role for spot in plan.spots}
        with open(world / POSES, encoding="utf-8", newline="") as file:
            for name, place, *rest in csv.reader(file):
                view = "satellite" if name.endswith(".jpg") else "drone"
                for branch in _TREE[roles[place]][view]:
                    target = f"{branch}/{place}/{name}"
                    (folder / branch / place).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(world / place / name, folder / target)
                    rows.append([target, place, *rest])
    rows.sort()
    with open(folder / POSES, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


def _manifest(settings: ProceduralSettings) -> dict[str, Any]:
    return {"version": _VERSION, "settings": asdict(settings)}


def _stands(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether a set with those settings is there; False where nothing is.

    Raises:
        DatasetError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise DatasetError("not a procedural dataset, and not empty", file=folder, expected=f"{MANIFEST} in it")
    manifest = read_json(folder / MANIFEST, DatasetError)
    found = manifest.get("settings")
    if manifest.get("version") != _VERSION or not isinstance(found, dict):
        raise DatasetError(
            "made by another release, which drew other images",
            file=folder / MANIFEST,
            field="version",
            found=manifest.get("version"),
            expected=str(_VERSION),
        )
    for name, value in wanted.items():
        if found.get(name) != value:
            raise DatasetError(
                "the dataset there was made with other settings: name another folder, or remove it",
                file=folder / MANIFEST,
                field=name,
                found=found.get(name),
                expected=repr(value),
            )
    return True


def _start(part: Path, settings: ProceduralSettings) -> None:
    """The folder of finished worlds, emptied where they are of other settings."""
    manifest = part / MANIFEST
    if manifest.is_file() and read_json(manifest, DatasetError) == _manifest(settings):
        return
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    write_json(manifest, _manifest(settings))


def _world_name(number: int) -> str:
    return f"world-{number:04d}"


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same folder. The lock dies with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _branch(name: str) -> str:
    """Which folder of places an image is in, such as train/drone."""
    return name.rsplit("/", 2)[0]


def _read_poses(path: Path) -> dict[str, tuple[float, float, float]]:
    """Easting, northing and height of each image; the height of a satellite image is not a number."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        raise DatasetError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise DatasetError(f"not readable as CSV: {reason}", file=path) from reason
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise DatasetError(
            "not the columns of a procedural set",
            file=path,
            field="header",
            found=rows[0] if rows else None,
            expected=", ".join(_COLUMNS),
        )
    poses = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            name, _, _, easting, northing, height, _, _ = row
            poses[name] = (float(easting), float(northing), float(height or "nan"))
        except ValueError:
            raise DatasetError("not a pose", file=path, field=f"row {number}", found=row) from None
    return poses
