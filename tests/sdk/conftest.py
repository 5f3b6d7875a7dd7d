"""What several tests of the core look at: a small textured place, and frames of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.calibrate import simulated_frame
from cvgl.camera import Camera
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
