"""The local tangent plane: metres where the ground has metres, north where north is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from cvgl.geo import LocalFrame

GEOD = Geod(ellps="WGS84")
# Equator, mid-latitudes of all quarters of the globe, far north, both sides of the date line.
ORIGINS = [(0.0, 0.0), (47.4, 9.74), (-33.9, 151.2), (40.7, -74.0), (69.6, 18.9), (-16.8, 179.99), (52.0, -179.99)]
FRAMES = [LocalFrame(*origin) for origin in ORIGINS]

# pyproj is the reference here; what flies does without it.
places = st.tuples(st.floats(0.0, 20_000.0), st.floats(0.0, 360.0))


@pytest.mark.parametrize("frame", FRAMES)
def test_origin_is_zero(frame: LocalFrame) -> None:
    np.testing.assert_allclose(frame.to_local(frame.latitude, frame.longitude), (0.0, 0.0), atol=1e-6)
    np.testing.assert_allclose(frame.to_wgs84(0.0, 0.0), (frame.latitude, frame.longitude), atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(frame=st.sampled_from(FRAMES), place=places)
def test_there_and_back_is_under_a_millimetre(frame: LocalFrame, place: tuple[float, float]) -> None:
    distance, azimuth = place
    easting, northing = distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))
    latitude, longitude = frame.to_wgs84(easting, northing)
    np.testing.assert_allclose(frame.to_local(latitude, longitude), (easting, northing), atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(frame=st.sampled_from(FRAMES), place=places)
def test_distance_and_direction_are_those_on_the_ellipsoid(frame: LocalFrame, place: tuple[float, float]) -> None:
    distance, azimuth = place
    longitude, latitude, _ = GEOD.fwd(frame.longitude, frame.latitude, azimuth, distance)
    easting, northing = frame.to_local(latitude, longitude)
    expected = distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))
    tolerance = 1e-5 + distance**3 / (6 * 6.33e6**2)
    np.testing.assert_allclose((easting, northing), expected, atol=tolerance)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("northing", [-5000.0, 100.0, 20_000.0])
def test_north_of_the_origin_is_true_north(frame: LocalFrame, northing: float) -> None:
    latitude, longitude = frame.to_wgs84(0.0, northing)
    azimuth, _, distance = GEOD.inv(frame.longitude, frame.latitude, float(longitude), float(latitude))
    assert azimuth % 180.0 == pytest.approx(0.0, abs=1e-6) or azimuth % 180.0 == pytest.approx(180.0, abs=1e-6)
    assert (np.cos(np.radians(azimuth)) > 0) == (northing > 0)
    assert distance == pytest.approx(abs(northing), abs=1e-3)


def test_arrays_keep_their_shape() -> None:
    frame = FRAMES[1]
    easting, northing = np.meshgrid(np.linspace(-900, 900, 4), np.linspace(-500, 500, 3))
    latitude, longitude = frame.to_wgs84(easting, northing)
    assert latitude.shape == longitude.shape == (3, 4)
    assert (np.diff(latitude, axis=0) > 0).all()
    assert (np.diff(longitude, axis=1) > 0).all()
    np.testing.assert_allclose(frame.to_local(latitude, longitude), (easting, northing), atol=1e-6)


def test_across_the_date_line_is_a_short_way() -> None:
    easting, _ = LocalFrame(52.0, 179.999).to_local(52.0, -179.999)
    assert float(easting) == pytest.approx(137.3, abs=0.5)


@pytest.mark.parametrize("frame", FRAMES)
def test_raster_libraries_project_the_same(frame: LocalFrame) -> None:
    crs = CRS.from_user_input(frame.crs)
    assert {axis.unit_name for axis in crs.axis_info} == {"metre"}
    easting, northing = np.meshgrid([-100_000.0, -2000.0, 0.0, 35.5, 60_000.0], [-90_000.0, -1.0, 700.0, 100_000.0])
    latitude, longitude = frame.to_wgs84(easting, northing)
    projected = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    np.testing.assert_allclose(projected, (easting, northing), atol=1e-5)
    np.testing.assert_allclose(frame.to_local(latitude, longitude), (easting, northing), atol=1e-5)
