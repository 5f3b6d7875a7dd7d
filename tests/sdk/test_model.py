"""The model bundle: what is refused by name, and what exactly enters the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.errors import ModelError
from cvgl.model import Model, View, write_bundle

onnx = pytest.importorskip("onnx", reason="the tiny networks of these tests are made with onnx")

SIZE = 32
GRID = 4


def tiny_network(path: Path, *, batch: int | None = None, logarithm: bool = False, size: int = SIZE) -> Path:
    """A real network without weights: the mean of each cell of a grid, the cells of red first."""
    cell = size // GRID
    nodes = [
        onnx.helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        onnx.helper.make_node("Flatten", ["cells"], ["flat"], axis=1),
        onnx.helper.make_node("Log" if logarithm else "Identity", ["flat"], ["descriptors"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [batch or "batch", 3, size, size])],
        [onnx.helper.make_tensor_value_info("descriptors", onnx.TensorProto.FLOAT, [batch or "batch", 3 * GRID**2])],
    )
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(network, str(path))
    return path


def tiny_bundle(folder: Path, name: str = "tiny", *, gsd: float = 1.0, **network: Any) -> Path:
    """A bundle of that network."""
    size = network.get("size", SIZE)
    view = View("network.onnx", (size, size), (0.5, 0.4, 0.3), (0.25, 0.2, 0.5), gsd)
    folder.mkdir(parents=True, exist_ok=True)
    source = tiny_network(folder / "made.onnx", **network)
    path = folder / f"{name}.cvgl"
    write_bundle(
        path,
        name=name,
        architecture="grid means",
        descriptor_size=3 * GRID**2,
        views={"query": view, "reference": view},
        files={"network.onnx": source},
        precision="fp32",
        opset=18,
        training={"data": "none"},
    )
    source.unlink()
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy.cvgl"))


def patches(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def edit(path: Path, change: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_the_network_sees_normalised_rgb_and_zero_outside_the_mask(bundle: Path) -> None:
    batch = patches(3)
    masks = np.zeros((3, SIZE, SIZE), np.uint8)
    masks[:, 4:, 7:] = 255
    found = Model.open(bundle).embed(batch, masks)
    rgb = batch[..., ::-1].astype(np.float64) / 255
    seen = (rgb - [0.5, 0.4, 0.3]) / [0.25, 0.2, 0.5] * (masks != 0)[..., None]
    cells = seen.reshape(3, GRID, SIZE // GRID, GRID, SIZE // GRID, 3).mean(axis=(2, 4))
    expected = cells.transpose(0, 3, 1, 2).reshape(3, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.dtype == np.float32


def test_what_the_mask_hides_changes_nothing(bundle: Path) -> None:
    model, mask = Model.open(bundle), np.zeros((1, SIZE, SIZE), bool)
    mask[0, :20] = True
    one, other = patches(1), patches(1)
    other[0, 20:] = 255 - other[0, 20:]
    np.testing.assert_array_equal(model.embed(one, mask), model.embed(other, mask))


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 70])
def test_any_number_of_patches_fits_any_network(tmp_path: Path, batch: int | None, count: int) -> None:
    model = Model.open(tiny_bundle(tmp_path, batch=batch))
    found = model.embed(patches(count))
    assert found.shape == (count, model.descriptor_size)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    if count:
        np.testing.assert_allclose(found[-1:], model.embed(patches(count)[-1:]), atol=1e-6)


def test_strided_patches_are_as_good_as_contiguous_ones(bundle: Path) -> None:
    wide = cv2.flip(np.random.default_rng(1).integers(0, 256, (SIZE, 2 * SIZE, 3), np.uint8), 1)
    view = wide[None, :, 5 : 5 + SIZE]
    model = Model.open(bundle)
    np.testing.assert_array_equal(model.embed(view), model.embed(np.ascontiguousarray(view)))


@pytest.mark.parametrize(
    ("bad", "mask", "view", "says"),
    [
        (np.zeros((1, 33, SIZE, 3), np.uint8), None, "query", "query patches"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), None, "query", "query patches"),
        (np.zeros((1, SIZE, SIZE, 3), np.float32), None, "reference", "reference patches"),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), np.ones((1, SIZE, 31), bool), "query", "query masks"),
        (
            np.zeros((1, SIZE, SIZE, 3), np.uint8),
            np.ones((1, SIZE, SIZE), np.float32),
            "query",
            "query masks",
        ),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), None, "drone", "query or reference"),
    ],
)
def test_wrong_input_is_named(bundle: Path, bad: np.ndarray, mask: Any, view: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Model.open(bundle).embed(bad, mask, view)


def test_a_descriptor_that_is_no_number_is_never_returned(tmp_path: Path) -> None:
    model = Model.open(tiny_bundle(tmp_path, logarithm=True))
    with pytest.raises(ModelError, match="no usable descriptor"):
        model.embed(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_a_view_that_was_left_out_is_refused(bundle: Path) -> None:
    model = Model.open(bundle, views=("query",))
    with pytest.raises(ModelError, match="without this view"):
        model.embed(patches(1), view="reference")


def test_every_flipped_or_missing_byte_of_the_network_is_found(copy: Path) -> None:
    path = copy / "network.onnx"
    whole = path.read_bytes()
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ModelError, match=r"network.onnx: sha256"):
            Model.open(copy)
        path.write_bytes(whole[:place])
        with pytest.raises(ModelError, match=r"network.onnx: bytes: truncated"):
            Model.open(copy)
    path.unlink()
    with pytest.raises(ModelError, match=r"network.onnx: .*absent"):
        Model.open(copy)


def test_a_damaged_manifest_is_refused_or_means_the_same(copy: Path) -> None:
    path = copy / "manifest.json"
    whole, fingerprint = path.read_bytes(), Model.open(copy).fingerprint
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        with pytest.raises(ModelError, match=r"manifest\.json"):
            Model.open(copy)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            model = Model.open(copy)
        except ModelError as error:
            assert str(copy) in str(error)
        else:  # a digit or a letter became another: what decides a descriptor must show in the fingerprint
            same = model.views == Model.open(_restored(path, whole)).views
            assert (model.fingerprint == fingerprint) == same
        path.write_bytes(whole)


def _restored(manifest: Path, whole: bytes) -> Path:
    manifest.write_bytes(whole)
    return manifest.parent


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m.pop("format_version"), "format_version: missing"),
        (lambda m: m.update(format_version=2), "format_version: written by a newer cvgl"),
        (lambda m: m.pop("name"), "name: missing"),
        (lambda m: m.update(descriptor_size=0), "descriptor_size: not usable"),
        (lambda m: m.update(descriptor_size=47), "descriptor_size: the network is another"),
        (lambda m: m["views"].pop("query"), r"views\.query: missing"),
        (lambda m: m["views"]["query"].update(std=[1, 1, 0]), r"views\.query\.std: not usable"),
        (lambda m: m["views"]["query"].update(mean=[1, 1]), r"views\.query\.mean: not usable"),
        (lambda m: m["views"]["query"].update(mean=[1, "x", 1]), r"views\.query\.mean\[1\]: not usable"),
        (lambda m: m["views"]["query"].update(input_size=[SIZE, 31.5]), r"input_size: not usable"),
        (lambda m: m["views"]["query"].update(input_size=[SIZE, 64]), r"input_size: the network is another"),
        (lambda m: m["views"]["query"].update(channels="bgr"), r"channels: not usable"),
        (lambda m: m["views"]["query"].update(gsd_m=0), r"gsd_m: not usable"),
        (lambda m: m["views"]["query"].update(file="other.onnx"), r"files\.other\.onnx"),
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "plain file name"),
        (lambda m: m["files"]["network.onnx"].pop("sha256"), r"files\.network\.onnx\.sha256: missing"),
        (lambda m: m["files"]["network.onnx"].update(bytes="12"), r"bytes: not usable"),
        (lambda m: m.pop("files"), "files: missing"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused_by_field(copy: Path, change: Any, field: str) -> None:
    edit(copy, change)
    with pytest.raises(ModelError, match=field) as caught:
        Model.open(copy)
    assert str(copy) in str(caught.value)


def test_a_broken_network_with_a_right_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"not a network at all")
    view = View("network.onnx", (SIZE, SIZE), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 1.0)
    record: dict[str, Any] = {"architecture": "none", "descriptor_size": 48, "precision": "fp32", "opset": 18}
    write_bundle(
        tmp_path / "noise.cvgl",
        name="noise",
        views={"query": view, "reference": view},
        files={"network.onnx": tmp_path / "noise.onnx"},
        **record,
    )
    with pytest.raises(ModelError, match="does not load"):
        Model.open(tmp_path / "noise.cvgl")


def test_the_fingerprint_follows_content_and_not_words(bundle: Path, copy: Path) -> None:
    original = Model.open(bundle).fingerprint
    edit(copy, lambda m: m.update(name="renamed", training={"data": "more"}, architecture="reworded"))
    assert Model.open(copy).fingerprint == original
    edit(copy, lambda m: m["views"]["reference"].update(mean=[0.5, 0.4, 0.31]))
    assert Model.open(copy).fingerprint != original


def test_no_bundle_appears_that_cannot_be_opened(tmp_path: Path) -> None:
    source = tiny_network(tmp_path / "made.onnx")
    view = View("network.onnx", (SIZE, SIZE), (0.5, 0.5, 0.5), (0.2, 0.2, 0.0), 1.0)
    with pytest.raises(ModelError, match="std"):
        write_bundle(
            tmp_path / "bad.cvgl",
            name="bad",
            architecture="x",
            descriptor_size=48,
            views={"query": view, "reference": view},
            files={"network.onnx": source},
            precision="fp32",
            opset=18,
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.onnx"]


def test_no_folder_is_said_so_and_the_repr_is_for_people(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model bundle there"):
        Model.open(tmp_path / "absent.cvgl")
    model = Model.open(bundle)
    assert repr(model).startswith("<Model tiny: grid means, fp32, 32 x 32 px at 1 m/px -> 48-d, fingerprint ")
