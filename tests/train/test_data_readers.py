"""The list of datasets: names, options, and sets that say which queries have no match."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.readers import READERS, list_datasets, read_dataset


@pytest.fixture
def pairs(tmp_path: Path, draw) -> Path:
    for name in ("train", "val"):
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / f"splits/{name}-19zl.csv").write_text("bingmap/19/1.jpg,streetview/panos/1.jpg,x.png\n")
    draw(tmp_path, "bingmap/19/1.jpg", "streetview/panos/1.jpg")
    return tmp_path


def test_a_dataset_by_name(pairs: Path) -> None:
    found = read_dataset("cvusa", str(pairs), "train")
    assert (found.name, found.split, len(found.queries)) == ("cvusa", "train", 1)


def test_an_unknown_dataset_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such dataset.*'imagenet'.*university-1652 or sues-200"):
        read_dataset("imagenet", tmp_path)


@pytest.mark.parametrize(
    "name, option, match",
    [
        ("cvusa", "height", "height: no such option of cvusa.*expected none"),
        ("sues-200", "heights", "heights: no such option of sues-200.*height or gallery"),
        ("vigor", "split_", "split_: no such option of vigor.*area or labels"),
    ],
)
def test_an_unknown_option_says_which_there_are(tmp_path: Path, name: str, option: str, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        read_dataset(name, tmp_path, **{option: 1})


@pytest.mark.parametrize("name", list_datasets())
def test_every_reader_is_there_and_takes_root_and_split(name: str) -> None:
    function = READERS[name].load()
    assert list(inspect.signature(function).parameters)[1] == "split"
    assert READERS[name].summary


def test_queries_without_a_match_must_be_announced(pairs: Path) -> None:
    found = read_dataset("cvusa", pairs)
    nothing = [np.empty(0, np.int64)]
    with pytest.raises(DatasetError, match="a query without a true reference"):
        replace(found, matches=nothing)
    assert replace(found, matches=nothing, unmatched=True).reversed().queries == []
