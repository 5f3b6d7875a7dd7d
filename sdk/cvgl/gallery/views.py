"""Simulated views of a gallery's own map: the queries that its index is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.gallery.embedding import BATCH
from cvgl.gallery.write import LayerTiles
from cvgl.model import Model
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size, drone_view

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["SimulatedViews"]

_SEED = 24
# Tilted by ten degrees, a view reaches a quarter further than a level one.
_REACH = 1.6


@dataclass(frozen=True)
class SimulatedViews:
    """Views as a camera would take them over a map: :data:`cvgl.gallery.write.Views`.

    Args:
        camera: the drone's. It flies where its footprint suits a layer's tiles.
        source: the map.
        model: with its query view.
    """

    camera: Camera
    source: MapSource = field(repr=False)
    model: Model = field(repr=False)

    def __call__(self, layer: LayerTiles, places: NDArray[np.float64]) -> NDArray[np.float32] | None:
        """Descriptors of views of places; None where the layer's tiles are not north-up, as views are."""
        if layer.heading_deg != 0.0:
            return None
        px = self.model.views["query"].input_size[0]
        height = 1000.0 * layer.tile_size_m / choose_tile_size(self.camera, 1000.0)
        drone = ViewSettings(self.camera, height, layer.tile_size_m / px, px, offset_m=0.0)
        found = []
        for start in range(0, len(places), BATCH):
            views = [
                self._view(number, place, drone) for number, place in enumerate(places[start : start + BATCH], start)
            ]
            images, masks = zip(*views, strict=True)
            found.append(self.model.embed(np.ascontiguousarray(np.stack(images)[..., ::-1]), np.stack(masks)))
        return np.concatenate(found)

    def _view(
        self, number: int, place: NDArray[np.float64], drone: ViewSettings
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        gsd = drone.gsd_m / 2
        side = int(np.ceil(_REACH * drone.tile_px * drone.gsd_m / gsd))
        easting, northing = float(place[0]), float(place[1])
        west, north = easting - side * gsd / 2, northing + side * gsd / 2
        image = MapImage.of(*self.source.read(west, north, side, side, gsd), gsd, west, north)
        rgb, mask, _ = drone_view(image, easting, northing, drone, np.random.default_rng([_SEED, number]))
        return rgb, mask
