"""The base model: trained once on places of everywhere and nowhere, shipped, and where every adaptation
starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl.errors import MapError
from cvgl.files import write_json

from .models.nano import Nano, NanoConfig, save_weights
from .places import PlacePairs, dated_place, load_place, render_places
from .recipes import RecipeError
from .training.loop import Progress
from .training.stream import FitSettings, fit

__all__ = ["BaseRecipe", "train_base"]


@dataclass(frozen=True)
class BaseRecipe:
    """How the base is made; the fields are those of `recipes/nano-base.yaml`, which explains them."""

    out: str = "runs/nano-base"
    seed: int = 0
    minutes: float = 30.0
    steps: int | None = None
    places: int = 72
    validation_places: int = 4
    dated: str = ""
    enlarge: tuple[float, ...] = (2.0, 3.0)
    dated_share: float = 0.12
    rendered: float = 0.35
    batch: int = 64
    rate: float = 2e-3
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raises RecipeError for a value out of range."""
        for name, good, expected in (
            ("seed", self.seed >= 0, "0 or more"),
            ("validation_places", self.validation_places >= 1, "1 or more"),
            ("places", self.places > self.validation_places, f"more than validation_places={self.validation_places}"),
            ("enlarge", bool(self.enlarge) and min(self.enlarge) > 0, "numbers above 0"),
            ("dated_share", 0 < self.dated_share < 1, "between 0 and 1"),
            ("rendered", 0 <= self.rendered <= 1, "from 0 to 1"),
        ):
            if not good:
                raise RecipeError("out of range", field=name, found=getattr(self, name), expected=expected)


def train_base(
    recipe: BaseRecipe, config: NanoConfig | None = None, progress: Progress | None = None
) -> tuple[Path, dict[str, Any]]:
    """Render the places, train on them, write `weights.npz` and `record.json` into the recipe's folder.

    A run that was killed goes on where it stopped.

    Returns:
        The weights' path, and the record of how they were made.

    Raises:
        MapError: the recipe names dated imagery and there is none.
    """
    folder = Path(recipe.out)
    dated = sorted(data_folder().glob(recipe.dated)) if recipe.dated else []
    if recipe.dated and not dated:
        raise MapError(
            "no such imagery",
            file=data_folder(),
            field="dated",
            found=recipe.dated,
            expected="GeoTIFFs (CVGL_DATA)",
        )
    seeds = range(recipe.seed * 100_000, recipe.seed * 100_000 + recipe.places)
    paths = render_places(seeds, folder / "places", max(1, min(os.cpu_count() or 1, 8)))
    places = [load_place(path) for path in paths]
    held, train = places[: recipe.validation_places], places[recipe.validation_places :]
    weights = [1.0] * len(train)
    if dated:
        extra = [dated_place(dated, scale, recipe.seed) for scale in recipe.enlarge]
        share = recipe.dated_share / (1 - recipe.dated_share) * len(train) / len(extra)
        train, weights = train + extra, weights + [share] * len(extra)
    net = Nano(config)
    settings = FitSettings(minutes=recipe.minutes, steps=recipe.steps, batch=recipe.batch, rate=recipe.rate)
    record = fit(
        net,
        PlacePairs(train, weights, rendered=recipe.rendered),
        folder,
        settings,
        validation=PlacePairs(held, rendered=1.0),
        seed=recipe.seed,
        device=recipe.device,
        progress=progress,
    )
    record["data"] = {
        "procedural places": len(paths) - len(held),
        "validation places": len(held),
        "imagery": [path.name for path in dated],
        "imagery licence": "USDA NAIP, public domain" if dated else None,
    }
    save_weights(net, folder / "weights.npz")
    write_json(folder / "record.json", record)
    return folder / "weights.npz", record


def data_folder() -> Path:
    """Where data beside the project is: the environment's CVGL_DATA, or `../shared`."""
    return Path(os.environ.get("CVGL_DATA", "../shared"))
