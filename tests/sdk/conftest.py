"""What several tests of the core look at: a small textured place, and frames of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from cvgl.basemap import Basemap
from cvgl.calibrate import simulated_frame
from cvgl.camera import Camera
from cvgl.gallery import build_gallery
from cvgl.imagery import MapSource
from cvgl.model import Model, View, write_bundle
from cvgl.sim import World, render_map
from cvgl.sim.views import MapImage


@dataclass(frozen=True)
class Place:
    """A flat picture of a procedural town, 300 m a side, as the basemap and as what the camera flies over.

    Args:
        image: the picture, easting and northing 0 in its middle.
        basemap: the same, grey.
        camera: 320 x 240, 62 degrees wide.
    """

    image: MapImage
    basemap: Basemap
    camera: Camera

    def grey_frame(
        self,
        easting: float,
        northing: float,
        height: float,
        heading: float,
        tilt: tuple[float, float] = (0.0, 0.0),
        light: float = 0.0,
    ) -> NDArray[np.uint8]:
        """(240, 320) frame with the image's middle at a place; tilt is pitch and roll, degrees."""
        rng = np.random.default_rng(0)
        frame = simulated_frame(
            self.image, easting, northing, height, heading, self.camera, rng, tilt_deg=tilt, light=light
        )
        return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


@pytest.fixture(scope="session")
def place() -> Place:
    """Built once: nothing in it is to be changed."""
    rgb = render_map(World.generate(5, 300.0, "suburban"), 0.5)
    grey = np.maximum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1)
    image = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), 0.5, -150.0, 150.0)
    return Place(image, Basemap(grey, 0.5, -150.0, 150.0), Camera.from_field_of_view(320, 240, 62.0))


_TILE_PX = 32


def _write_model(folder: Path, mean: float = 0.5, grid: int = 8) -> Path:
    """A real network without weights: the mean of each cell of a grid."""
    onnx = pytest.importorskip("onnx", reason="the tiny network of these tests is made with onnx")
    cell = _TILE_PX // grid
    shape, value = ["batch", 3, _TILE_PX, _TILE_PX], onnx.helper.make_tensor_value_info
    pool = onnx.helper.make_node("AveragePool", ["i"], ["c"], kernel_shape=[cell, cell], strides=[cell, cell])
    graph = onnx.helper.make_graph(
        [pool, onnx.helper.make_node("Flatten", ["c"], ["d"], axis=1)],
        "tiny",
        [value("i", onnx.TensorProto.FLOAT, shape)],
        [value("d", onnx.TensorProto.FLOAT, ["batch", 3 * grid**2])],
    )
    folder.mkdir(parents=True, exist_ok=True)
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(folder / "made.onnx"))
    view = View("tiny.onnx", (_TILE_PX, _TILE_PX), (mean, mean, mean), (0.2, 0.2, 0.2), 1.0)
    write_bundle(
        folder / "tiny.cvgl",
        name="tiny",
        architecture="grid means",
        descriptor_size=3 * grid**2,
        views={"query": view, "reference": view},
        files={"tiny.onnx": folder / "made.onnx"},
        precision="fp32",
        opset=18,
    )
    return folder / "tiny.cvgl"


def _write_map(path: Path, seed: int = 0, size: int = 500, crs: str = "EPSG:32651") -> Path:
    """A map of 0.5 m/px with a lake, a corner without data, and texture elsewhere."""
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.resize(rng.normal(0, 1, (size // cell, size // cell, 3)).astype(np.float32), (size, size)) * weight
        for cell, weight in ((50, 40), (20, 25), (5, 15))
    )
    image = np.clip(np.asarray(image) + 120, 1, 255).astype(np.uint8)
    image[300:420, 250:480] = (30, 60, 50)
    image[:80, :90] = 0
    transform = Affine(0.5, 0, 268_095.7, 0, -0.5, 2_685_248.1)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=3, dtype="uint8", crs=crs,
        transform=transform, nodata=0,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
        file.update_tags(TIFFTAG_COPYRIGHT="(c) the [real] makers")
    return path


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """Writes tiny.cvgl into a folder: tiles of 32 pixels to the means of ``grid`` x ``grid`` cells in three colours."""
    return _write_model


@pytest.fixture(scope="session")
def write_map() -> Callable[..., Path]:
    """Writes a GeoTIFF of 0.5 m/px, ``size`` pixels a side."""
    return _write_map


@pytest.fixture(scope="session")
def tiny_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.cvgl, map.tif, other.tif, and map.gallery of two layers, small enough to try every byte.

    Nothing in it is to be changed.
    """
    folder = tmp_path_factory.mktemp("tiny")
    model = Model.open(_write_model(folder, grid=2))
    _write_map(folder / "other.tif", seed=8, size=200)
    with MapSource.open(_write_map(folder / "map.tif", seed=7, size=200)) as source:
        build_gallery(source, model, folder / "map.gallery", tile_size_m=[32.0, 48.0], stride_m=16.0, basemap_gsd_m=0.5)
    return folder
