"""Training a published method as a recipe says: dataset, model, batches, loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvgl.errors import ModelError
from cvgl.files import read_json

from .checkpoint import load_model
from .data.base import CrossViewSet
from .data.images import Augmentation, build_augmentation, to_input
from .data.readers import read_dataset
from .feature_cache import cached_set, from_cache
from .models.base import CrossViewModel, View
from .recipes import MethodRecipe, RecipeError
from .registry import METHODS, create_model
from .sampling import build_sampler
from .training.judge import describe, retrieval_scores
from .training.loop import RECORD, Progress, launch, train
from .training.plan import Plan
from .training.source import DatasetSource

__all__ = ["augmentations", "finished_record", "make_model", "open_data", "train_method"]

# Images of a view from which a method prepares itself: NetVLAD's clusters, which CVM-Net's authors take from some
# 50 000 local features, a hundred an image here.
_PREPARATION_IMAGES, _PREPARATION_BATCH = 500, 16


def train_method(recipe: MethodRecipe, progress: Progress | None = None) -> tuple[Path, dict[str, Any]]:
    """Train as a recipe says; a run that was stopped goes on.

    Returns:
        The path of the final model, and the record of the run, see `cvgl_train.training.loop.train`.

    Raises:
        CvglError: something in the recipe, the dataset or the weights cannot be used; the message names it.
    """
    out = Path(recipe.out)
    plan = Plan.from_dict(recipe.plan)
    fabric, half = launch(recipe.device, plan.precision)
    with fabric.rank_zero_first():
        # A reader may have to make what it reads, and the others must find it made.
        dataset, held = open_data(recipe)
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, dataset)
    query, reference = augmentations(recipe, model)
    if not (recipe.resume and (out / "checkpoint.pt").exists()):
        model.initialise(lambda view: _preparation(model, dataset, view, recipe.seed), recipe.seed)
    if recipe.cache:
        model.to(fabric.device)
        with fabric.rank_zero_first():
            dataset = cached_set(model, dataset, out / "features" / "train", progress=progress)
            held = cached_set(model, held, out / "features" / "validation", progress=progress)
        query = reference = from_cache
    source = DatasetSource(
        dataset,
        build_sampler(dict(recipe.sampler), dataset, plan.batch),
        query,
        reference,
        seed=recipe.seed,
        workers=recipe.workers,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    record = train(
        model,
        source,
        plan,
        out,
        seed=recipe.seed,
        fabric=fabric,
        validate=retrieval_scores(held, fabric.device, half),
        embed=lambda now: describe(now, dataset, fabric.device, half),
        about={
            "recipe": recipe.identity(),
            "data": {"name": dataset.name, "queries": len(dataset.queries), "references": len(dataset.references)},
            "validation": {"name": held.name, "queries": len(held.queries), "references": len(held.references)},
        },
        resume=recipe.resume,
        progress=progress,
    )
    return out / "model.pt", record


def finished_record(recipe: MethodRecipe) -> dict[str, Any] | None:
    """The record in a recipe's folder, None where no run has ended there.

    Raises:
        RecipeError: the folder holds the run of another recipe, whose figures would be taken for this one's.
    """
    path = Path(recipe.out) / RECORD
    if not path.exists():
        return None
    record = read_json(path, ModelError)
    wanted = {**recipe.identity(), "seed": recipe.seed, **asdict(Plan.from_dict(recipe.plan))}
    found = {**record.get("recipe", {}), "seed": record.get("seed"), **record.get("plan", {})}
    # Through JSON, so that a tuple equals the list that was written of it.
    for field, value in json.loads(json.dumps(wanted)).items():
        if found.get(field) != value:
            raise RecipeError(
                "another run ended here", file=path, field=field, found=found.get(field),
                expected=f"{value!r}; delete the folder or choose another `out`",
            )  # fmt: skip
    return record


def open_data(recipe: MethodRecipe) -> tuple[CrossViewSet, CrossViewSet]:
    """The sets a recipe trains on and judges by; of the latter's queries, an even choice where it limits them."""
    data = dict(recipe.data)
    held = {**data, "split": "test", **recipe.validation}
    limit = held.pop("queries", None)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise RecipeError("out of range", field="validation.queries", found=limit, expected="a whole number from 1 on")
    sets = []
    for field, values in (("data", {"split": "train", **data}), ("validation", held)):
        for name in ("reader", "root"):
            if not values.get(name):
                raise RecipeError("missing field", field=f"{field}.{name}", expected=f"data.{name}=...")
        reader, root, split = (str(values.pop(name)) for name in ("reader", "root", "split"))
        sets.append(read_dataset(reader, root, split, **values))
    train_set, test_set = sets
    if limit is not None and len(test_set.queries) > limit:
        test_set = test_set.select(np.linspace(0, len(test_set.queries) - 1, limit).round().astype(np.int64))
    return train_set, test_set


def make_model(recipe: MethodRecipe, dataset: CrossViewSet) -> CrossViewModel:
    """The recipe's model; a classifier gets as many classes as the dataset has.

    Raises:
        ModelError: settings or weights that cannot be.
        MissingDependencyError: pretrained weights cannot be downloaded here.
    """
    method = METHODS.get(recipe.method)
    settings = dict(recipe.model)
    if method is not None:
        kind = getattr(import_module(f"cvgl_train.models.{method.module}"), method.settings)
        if "classes" in {field.name for field in fields(kind)}:
            settings.setdefault("classes", dataset.classes)
    if recipe.start is None:
        return create_model(recipe.method, weights=recipe.weights, pretrained=recipe.pretrained, **settings)
    begun = load_model(recipe.start)
    if begun.info.name != recipe.method:
        raise ModelError(
            "a checkpoint of another method", file=recipe.start, field="start", found=begun.info.name,
            expected=recipe.method,
        )  # fmt: skip
    return begun


def augmentations(recipe: MethodRecipe, model: CrossViewModel) -> tuple[Augmentation, Augmentation]:
    """What happens to the images of queries and references in training."""
    for view in recipe.augment:
        if view not in ("query", "reference"):
            raise RecipeError("no such view", field=f"augment.{view}", expected="query or reference")
    query = build_augmentation(recipe.augment.get("query") or [], model.info.query)
    return query, build_augmentation(recipe.augment.get("reference") or [], model.info.reference)


def _preparation(model: CrossViewModel, dataset: CrossViewSet, view: View, seed: int) -> Iterator[Tensor]:
    sources = dataset.queries if view == "query" else dataset.references
    order = np.random.default_rng([seed, 5]).permutation(len(sources))[:_PREPARATION_IMAGES]
    for start in range(0, len(order), _PREPARATION_BATCH):
        chosen = order[start : start + _PREPARATION_BATCH]
        yield torch.stack([to_input(sources[int(i)].read(), model.info.view(view)) for i in chosen])
