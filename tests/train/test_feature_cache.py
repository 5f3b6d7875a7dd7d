"""Tokens of a frozen backbone on disk: computed once, resumed, refused when they are of something else."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cvgl.errors import CvglError, ModelError
from cvgl_train import feature_cache
from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.data.images import to_input
from cvgl_train.feature_cache import CacheError, backbone_fingerprint, cache_tokens, cached_set, from_cache
from cvgl_train.models.dinov2_cvv import Dinov2Cvv
from cvgl_train.registry import create_model


@dataclass
class Picture:
    """An image that counts how often it is read; `broken` ones cannot be."""

    seed: int
    broken: bool = False
    reads: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.seed}.png"

    def read(self) -> NDArray[np.uint8]:
        self.reads.append(1)
        if self.broken:
            raise DatasetError("not readable as an image", file=self.name)
        return np.random.default_rng(self.seed).integers(0, 256, (40, 30, 3)).astype(np.uint8)


def pictures(count: int = 11) -> list[Picture]:
    return [Picture(seed) for seed in range(count)]


def model(seed: int = 0, **settings: Any) -> Dinov2Cvv:
    torch.manual_seed(seed)
    tiny = {"width": 32, "depth": 1, "heads": 1, "image_size": 28, "head_heads": 1, "feedforward": 8, "hidden": 8}
    made = create_model("dinov2-cvv", **{**tiny, **settings})
    assert isinstance(made, Dinov2Cvv)
    return made.eval()


def expected(net: Dinov2Cvv, sources: list[Picture]) -> NDArray[np.float16]:
    images = torch.stack([to_input(source.read(), net.info.query) for source in sources])
    with torch.no_grad():
        return net.tokens(images).half().numpy()


def test_the_tokens_are_the_models_in_half_precision_and_a_plain_numpy_file(tmp_path: Path) -> None:
    net, sources = model(), pictures()
    told: list[tuple[int, int]] = []
    tokens = cache_tokens(net, sources, "query", tmp_path / "t", batch=4, progress=lambda *now: told.append(now))
    assert tokens.shape == (11, 5, 32) and tokens.dtype == np.float16 and not tokens.flags.writeable
    assert np.allclose(tokens, expected(net, sources), atol=2e-3)
    assert np.array_equal(np.load(tmp_path / "t" / "tokens.npy"), tokens)
    assert told == [(0, 11), (4, 11), (8, 11), (11, 11)]
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["manifest.json", "tokens.npy"]


def test_a_finished_cache_reads_no_image_again(tmp_path: Path) -> None:
    first = cache_tokens(model(), pictures(), "query", tmp_path)
    sources = pictures()
    told: list[tuple[int, int]] = []
    again = cache_tokens(model(), sources, "query", tmp_path, progress=lambda *now: told.append(now))
    assert np.array_equal(first, again) and told == [(11, 11)]
    assert not any(source.reads for source in sources)


def test_an_interrupted_cache_goes_on_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "BATCHES_BETWEEN_FLUSHES", 2)
    sources = pictures()
    sources[9].broken = True
    with pytest.raises(DatasetError, match=r"9\.png"):
        cache_tokens(model(), sources, "query", tmp_path, batch=2)
    sources = pictures()
    tokens = cache_tokens(model(), sources, "query", tmp_path, batch=3)
    # Four batches of two were done, the last two of them written: 8 images.
    assert [bool(source.reads) for source in sources] == [False] * 8 + [True] * 3
    assert np.allclose(tokens, expected(model(), pictures()), atol=2e-3)


def test_an_interruption_before_the_manifest_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "tokens.npy").write_bytes(b"half a header")
    assert np.allclose(cache_tokens(model(), pictures(3), "query", tmp_path), expected(model(), pictures(3)), atol=2e-3)


@pytest.mark.parametrize(
    ("other", "sources", "where"),
    [
        ({"seed": 1}, pictures(), "weights"),
        ({"image_size": 42}, pictures(), "input"),
        ({}, pictures(10), "shape"),
        ({}, [*pictures(10), Picture(99)], r"images\[10\]"),
        ({}, pictures()[::-1], r"images\[0\]"),
    ],
)
def test_a_cache_of_something_else_is_refused_and_left_alone(
    other: dict[str, Any], sources: list[Picture], where: str, tmp_path: Path
) -> None:
    kept = cache_tokens(model(), pictures(), "query", tmp_path).copy()
    with pytest.raises(CacheError, match=f"manifest.json: {where}: tokens of something else"):
        cache_tokens(model(**other), sources, "query", tmp_path)
    assert np.array_equal(cache_tokens(model(), pictures(), "query", tmp_path), kept)


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def damage_tokens(folder: Path) -> None:
    data = (folder / "tokens.npy").read_bytes()
    (folder / "tokens.npy").write_bytes(data[: len(data) // 2])


def remove_tokens(folder: Path) -> None:
    (folder / "tokens.npy").unlink()


def replace_tokens(folder: Path) -> None:
    np.save(folder / "tokens.npy", np.zeros((11, 5, 32), np.float32))


def damage_progress(folder: Path) -> None:
    (folder / "progress.json").write_text(json.dumps({"done": 12}))


@pytest.mark.parametrize("damage", [damage_manifest, damage_tokens, remove_tokens, replace_tokens, damage_progress])
def test_a_damaged_cache_is_refused_by_file(damage: Any, tmp_path: Path) -> None:
    cache_tokens(model(), pictures(), "query", tmp_path)
    damage(tmp_path)
    with pytest.raises(CacheError) as raised:
        cache_tokens(model(), pictures(), "query", tmp_path)
    assert raised.value.file is not None and raised.value.file.parent == tmp_path


@pytest.mark.parametrize(("sources", "batch", "name"), [([], 4, "sources"), (pictures(2), 0, "batch")])
def test_nothing_to_do_is_an_error_that_names_it(sources: list[Picture], batch: int, name: str, tmp_path: Path) -> None:
    with pytest.raises(CacheError) as raised:
        cache_tokens(model(), sources, "query", tmp_path / "t", batch=batch)
    assert raised.value.field == name and not (tmp_path / "t").exists()


def test_tokens_beyond_half_precision_are_refused_by_image(tmp_path: Path) -> None:
    net = model()
    with torch.no_grad():
        net.backbone.norm.weight.fill_(1e6)
    with pytest.raises(ModelError, match=r"0\.png.*float16"):
        cache_tokens(net, pictures(), "query", tmp_path)


def test_the_fingerprint_is_of_the_frozen_weights_alone() -> None:
    one, other = model(), model(seed=1)
    assert backbone_fingerprint(one.backbone) == backbone_fingerprint(model().backbone)
    assert backbone_fingerprint(one.backbone) != backbone_fingerprint(other.backbone)
    other.load_backbone(one.backbone.state_dict())
    assert backbone_fingerprint(one.backbone) == backbone_fingerprint(other.backbone)


def some_set() -> CrossViewSet:
    labels = np.arange(4)
    return CrossViewSet(
        "some", "train", pictures(4), pictures(5), [np.array([i]) for i in range(4)], labels, np.array([*labels, -1])
    )


def test_a_cached_set_gives_the_same_descriptors_as_its_images(tmp_path: Path) -> None:
    net, images = model(), some_set()
    told: list[float] = []
    kept = cached_set(net, images, tmp_path, batch=2, progress=lambda share, line: told.append(share))
    assert [source.name for source in kept.references] == [source.name for source in images.references]
    assert kept.matches is images.matches and kept.reference_labels is images.reference_labels
    assert told == sorted(told) and told[-1] == 1
    # As a worker process gets it.
    kept = pickle.loads(pickle.dumps(kept))
    tokens = torch.stack([from_cache(source.read()) for source in kept.queries])
    assert tokens.dtype == torch.float32
    with torch.no_grad():
        whole = net.embed(torch.stack([to_input(source.read(), net.info.query) for source in images.queries]), "query")
        assert torch.allclose(net.embed(tokens, "query"), whole, atol=1e-2)


def test_a_cache_that_took_anothers_place_is_read_anew(tmp_path: Path) -> None:
    first = cached_set(model(), some_set(), tmp_path).queries[0].read()
    for path in [*(tmp_path / "query").iterdir(), *(tmp_path / "reference").iterdir()]:
        path.unlink()
    assert not np.array_equal(cached_set(model(seed=1), some_set(), tmp_path).queries[0].read(), first)


def test_only_a_frozen_backbone_is_cached_and_lost_tokens_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cache.*frozen.*cvgl-nano"):
        cached_set(create_model("cvgl-nano"), some_set(), tmp_path)
    kept = cached_set(model(), some_set(), tmp_path)
    remove_tokens(tmp_path / "query")
    with pytest.raises(CvglError, match=r"tokens\.npy"):
        kept.queries[0].read()
