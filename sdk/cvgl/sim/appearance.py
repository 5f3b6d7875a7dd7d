"""How a place looks on one day through one sensor: light, season, haze, clutter, and the sensor's own
faults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Season = Literal["spring", "summer", "autumn", "winter"]
SEASONS: tuple[Season, ...] = ("spring", "summer", "autumn", "winter")


@dataclass(frozen=True)
class Appearance:
    """Everything that differs between two pictures of one unchanged place.

    Angles in degrees, azimuths clockwise from true north. `cast` are the gains of red, green, blue; `haze`
    0-1 is the share of air light; `view_tilt_deg`/`view_azimuth_deg` say how far off nadir and in which
    direction the satellite stands (maps only); `blur_px`, `noise`, `vignetting`, `jpeg_quality`, `sharpen`
    are the sensor's.
    """

    sun_azimuth_deg: float = 150.0
    sun_elevation_deg: float = 50.0
    season: Season = "summer"
    ambient: float = 0.42
    shadow_strength: float = 0.58
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exposure: float = 1.0
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    haze: float = 0.0
    clutter_seed: int = 0
    clutter_density: float = 0.55
    jitter_seed: int = 0
    jitter: float = 0.05
    view_tilt_deg: float = 0.0
    view_azimuth_deg: float = 0.0
    blur_px: float = 0.5
    noise: float = 0.0
    vignetting: float = 0.0
    jpeg_quality: int = 0
    sharpen: float = 0.0
    effect_seed: int = 0

    @staticmethod
    def random(rng: np.random.Generator, kind: Literal["satellite", "drone"] = "drone") -> Appearance:
        """A plausible day and sensor. `kind` is "satellite" (hazy, off-nadir, resampled) or "drone"."""
        if kind not in ("satellite", "drone"):
            raise ValueError(f"kind: found {kind!r}, expected 'satellite' or 'drone'")
        overcast = rng.random() < (0.06 if kind == "satellite" else 0.22)
        warm = rng.normal(0.0, 0.035)
        look = Appearance(
            sun_azimuth_deg=float(rng.uniform(0, 360)) if rng.random() < 0.25 else float(rng.uniform(90, 270)),
            sun_elevation_deg=float(rng.uniform(22, 75)),
            season=SEASONS[int(rng.choice(4, p=[0.25, 0.4, 0.25, 0.1]))],
            ambient=float(rng.uniform(0.78, 0.95) if overcast else rng.uniform(0.32, 0.55)),
            shadow_strength=float(rng.uniform(0.03, 0.2) if overcast else rng.uniform(0.4, 0.7)),
            cast=(
                float(1 + warm + rng.normal(0, 0.02)),
                float(1 + rng.normal(0, 0.02)),
                float(1 - warm + rng.normal(0, 0.03)),
            ),
            exposure=float(np.exp(rng.normal(-0.02, 0.11))),
            gamma=float(np.exp(rng.normal(0.0, 0.14))),
            contrast=float(rng.uniform(0.88, 1.14)),
            saturation=float(rng.uniform(0.75, 1.3)),
            clutter_seed=int(rng.integers(2**31)),
            clutter_density=float(rng.uniform(0.15, 0.9)),
            jitter_seed=int(rng.integers(2**31)),
            jitter=float(rng.uniform(0.02, 0.1)),
            effect_seed=int(rng.integers(2**31)),
        )
        if kind == "satellite":
            return replace(
                look,
                haze=float(rng.uniform(0.0, 0.28)),
                view_tilt_deg=float(rng.uniform(0, 15)),
                view_azimuth_deg=float(rng.uniform(0, 360)),
                blur_px=float(rng.uniform(0.4, 1.3)),
                saturation=look.saturation * 0.85,
                noise=float(rng.uniform(0, 2.5)),
                jpeg_quality=int(rng.integers(60, 96)),
                sharpen=float(rng.uniform(0.0, 0.9)),
            )
        return replace(
            look,
            haze=float(rng.uniform(0.0, 0.08)),
            blur_px=float(rng.uniform(0.2, 1.1)),
            noise=float(rng.uniform(0.5, 5.0)),
            vignetting=float(rng.uniform(0.0, 0.3)),
            jpeg_quality=int(rng.integers(55, 97)),
            sharpen=float(rng.uniform(0.0, 0.5)),
        )
