"""What chance and what truth look like on this map: simulated frames, looked for elsewhere and where they are.

The laws of :class:`cvgl.settings.Decision` depend on the map (a town of equal blocks fools a matcher more easily than a
harbour) and on the camera's footprint, so ``cvgl-prepare`` measures them for every mission, and ``cvgl-camera
calibrate`` again on a real flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.belief import believe, retrieval_share
from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.fix import Alternative, Fix, Witnesses
from cvgl.footprint import footprint_sides
from cvgl.frame import Frame
from cvgl.geometry import camera_to_enu
from cvgl.ground import ground_offset, ground_points
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.settings import Chances, Decision
from cvgl.sim.views import MapImage, relight

__all__ = [
    "RIGHT_M",
    "SIMULATED_SHARE",
    "View",
    "another_place",
    "excess",
    "fit_decision",
    "fit_gumbel",
    "fit_largest",
    "fit_right",
    "fit_wrong",
    "hidden_circle",
    "likeliest",
    "rarest",
    "right_place",
    "simulated_frame",
    "simulated_views",
    "window",
]

# A place is right if the image's middle lies this close to it, metres: a match is right to metres or wrong altogether.
RIGHT_M = 25.0
# Part of a simulated frame's evidence that a photo is expected to have.
SIMULATED_SHARE = 0.2
# Simulated frames need no more pixels than the basemap resolves.
_FRAME_SIDE = 512
# Degrees that a simulated camera hangs off level, standard deviation on each axis.
_TILT_DEG = 2.0
# A frame that looks past the map's edge has an edge of its own there, which matches other edges of the map and which
# no real frame has: at most this share of a trial's surroundings may lie beyond.
_BEYOND = 0.02
# Places drawn for each frame wanted, at most.
_ATTEMPTS = 4
# Fewer wrong places than this make no law.
_FEWEST = 30
# A procedural town larger than this takes longer to build than the rest of a calibration.
_LARGEST_WORLD_M = 1200.0
# Chance (log10) at which the laws are held against frames they were not fitted to.
_JUDGED_AT = -1.0
# Laws of right places steeper or flatter than these are the sample's, not the camera's.
_POWERS = (0.02, 0.5)
# Where a pixel looks that sees no ground: far off any map.
_UNSEEN = 1e6


def simulated_frame(
    image: MapImage,
    easting: float,
    northing: float,
    height: float,
    heading_deg: float,
    camera: Camera,
    rng: np.random.Generator,
    *,
    tilt_deg: tuple[float, float] = (0.0, 0.0),
    light: float = 1.0,
) -> NDArray[np.uint8]:
    """A camera frame (H, W, 3) BGR of the flat map, seen from a height with the image's middle at a place.

    Args:
        image: the map, no coarser than the frame's ground sampling distance or the frame is blurred.
        easting, northing: ground point at the image's middle, metres.
        height: above ground, metres.
        heading_deg: of the vehicle, clockwise from true north.
        camera: its size is the frame's.
        tilt_deg: pitch and roll. What the camera sees further than 60 degrees off nadir, and beyond the map, is black.
        light: how much light, season and sensor differ from the map's (see :func:`cvgl.sim.views.relight`).
    """
    rotation = camera_to_enu(camera.mount, heading_deg, *tilt_deg)
    offset = ground_offset(camera, rotation, height)
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    seen = ground_points(camera, rotation, height, np.column_stack([columns.ravel(), rows.ravel()]))
    ground = seen - offset + (easting, northing)
    x = ((ground[:, 0] - image.west) / image.gsd_m - 0.5).reshape(columns.shape).astype(np.float32)
    y = ((image.north - ground[:, 1]) / image.gsd_m - 0.5).reshape(columns.shape).astype(np.float32)
    left, top = max(0, math.floor(np.nanmin(x)) - 1), max(0, math.floor(np.nanmin(y)) - 1)
    part = image.rgba[top : math.ceil(np.nanmax(y)) + 2, left : math.ceil(np.nanmax(x)) + 2, :3]
    if part.size == 0:
        raise MapError("the simulated frame looks past the map")
    x, y = (np.nan_to_num(places, nan=-_UNSEEN) for places in (x - left, y - top))
    frame = cv2.remap(np.ascontiguousarray(part), x, y, cv2.INTER_LINEAR)
    lit = relight(frame, rng, light) if light > 0 else frame
    return np.ascontiguousarray(lit[..., ::-1])


def window(source: MapSource, easting: float, northing: float, side_m: float, gsd: float) -> MapImage:
    """A square part of a map around a place, in memory."""
    side = math.ceil(side_m / gsd)
    west, north = easting - side * gsd / 2, northing + side * gsd / 2
    return MapImage.of(*source.read(west, north, side, side, gsd), gsd, west, north)


@dataclass(frozen=True)
class View:
    """A simulated frame, and the place that is at its image's middle, metres in the gallery's local tangent plane.

    Args:
        position: of the aircraft, (2,) east and north, metres.
    """

    frame: Frame
    easting: float
    northing: float
    position: NDArray[np.float64]


def simulated_views(
    localizer: Localizer, source: MapSource | MapImage, count: int, seed: Sequence[int]
) -> Iterator[View]:
    """Frames as the mission's camera would take them over a map, with the errors of its telemetry.

    Another light and season, camera and heading as they were not told: heights are off by the settings' sigma, headings
    by half of theirs, and the camera hangs two degrees off level on each axis.

    Args:
        localizer: of the mission.
        source: the mission's map, or a picture of another place.
        count: of frames; fewer come where too many places look past the map's edge.
        seed: same seed, same frames; each follows from the seed and its own number alone.
    """
    mission, gallery = localizer.mission, localizer.gallery
    settings, height = mission.settings, mission.height_m
    reach = 1.2 * math.hypot(*footprint_sides(localizer.camera, height))
    shrink = _FRAME_SIDE / max(localizer.camera.width, localizer.camera.height)
    camera = localizer.camera.scaled_to(round(localizer.camera.width * shrink), round(localizer.camera.height * shrink))
    drawn = 0
    for number in range(_ATTEMPTS * count):
        rng = np.random.default_rng([*seed, number])
        if isinstance(source, MapImage):
            half = source.gsd_m * np.array(source.rgba.shape[1::-1]) / 2
            middle = np.array([source.west + half[0], source.north - half[1]])
            free = np.maximum(half - reach / 2, 0.0)
            easting, northing = (float(value) for value in middle + rng.uniform(-free, free))
            image = source
        else:
            place = gallery.tiles[rng.integers(len(gallery))] + rng.uniform(-0.5, 0.5, 2) * gallery.manifest.stride_m
            easting, northing = float(place[0]), float(place[1])
            image = window(source, easting, northing, reach, gallery.basemap.gsd)
            if np.mean(image.rgba[..., 3] == 0) > _BEYOND:
                continue
        heading = float(rng.uniform(0, 360))
        tilt = (float(rng.normal(0, _TILT_DEG)), float(rng.normal(0, _TILT_DEG)))
        true_height = height * float(1 + np.clip(rng.normal(0, settings.height_sigma), -0.1, 0.1))
        picture = simulated_frame(image, easting, northing, true_height, heading, camera, rng, tilt_deg=tilt)
        said = heading + float(rng.normal(0, settings.heading_sigma_deg / 2))
        frame = Frame(picture, time=float(number), height=height, heading=said, name=str(number))
        offset = ground_offset(camera, camera_to_enu(camera.mount, heading, *tilt), true_height)
        yield View(frame, easting, northing, np.array([easting, northing]) - offset)
        drawn += 1
        if drawn == count:
            return


def another_place(localizer: Localizer, seed: int) -> MapImage | None:
    """A picture of a procedural town that is on no map, for frames of elsewhere; None for cameras that see too much."""
    size = 2.0 * math.hypot(*footprint_sides(localizer.camera, localizer.mission.height_m))
    if size > _LARGEST_WORLD_M:
        return None
    from cvgl.sim import World, render_map

    gsd = localizer.gallery.basemap.gsd
    rgb = np.ascontiguousarray(render_map(World.generate(seed, max(size, 200.0), "mixed"), gsd)[..., ::-1])
    return MapImage.of(rgb, np.ones(rgb.shape[:2], bool), gsd, -rgb.shape[1] * gsd / 2, rgb.shape[0] * gsd / 2)


def hidden_circle(localizer: Localizer, easting: float, northing: float) -> tuple[float, float, float]:
    """The tiles that show something of what a frame shows: as far away as two footprints touch."""
    return easting, northing, math.hypot(*footprint_sides(localizer.camera, localizer.mission.height_m))


def fit_gumbel(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Location and scale of a Gumbel law by its first two moments."""
    scale = float(np.std(scores)) * math.sqrt(6.0) / math.pi
    return float(np.mean(scores)) - 0.57722 * scale, max(scale, 1e-3)


def fit_largest(scores: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    """Location and scale of a Gumbel law of which each score is the largest of so many draws."""
    scale = fit_gumbel(scores)[1]
    # The largest of n draws lies the logarithm of n times the scale further up; a few rounds settle it.
    for _ in range(20):
        location, scale = fit_gumbel(scores - scale * np.log(counts))
    return location, scale


def fit_wrong(decision: Decision, fixes: Sequence[Fix]) -> Decision:
    """The laws of chance fitted to frames that were searched where they were not taken.

    Args:
        decision: what stays.
        fixes: their answers; those with nothing registered say nothing.
    """
    seen = [fix.alternatives for fix in fixes if fix.alternatives]
    told = [[place.witnesses for place in places if place.witnesses is not None] for places in seen]
    peaks = np.array([max(one.peak for one in places) for places in told])
    counts = np.array([places[0].listed * places[0].lists for places in told], np.float64)
    evidence = np.array([max(one.blocks for one in places) for places in told])
    peak_law, evidence_law = fit_largest(peaks, counts), fit_gumbel(evidence)
    # No frame without its place is beyond doubt after one look, so that all were looked at as often as any is.
    detail = [max((one.detail or 0.0 for one in places), default=0.0) for places in told]
    # Features that see nothing, or another place, say 0; the law is of the others, and so no less than chance is.
    features = [max((one.features or 0.0 for one in places), default=0.0) for places in told]
    # A small sample may come out narrower than chance is; the defaults are those of an ordinary town.
    default = Decision()
    return replace(
        decision,
        peak_location=round(peak_law[0], 3),
        peak_scale=round(max(peak_law[1], 0.8 * default.peak_scale), 3),
        evidence_location=round(evidence_law[0], 3),
        evidence_scale=round(max(evidence_law[1], 0.8 * default.evidence_scale), 3),
        places=1,
        looks=default.looks,
        chance_factor=1.0,
        **_law("detail", detail, default),
        **_law("features", features, default),
    )


def _law(name: str, scores: Sequence[float], default: Decision) -> dict[str, float]:
    """The fields of the law of a witness that not every frame asks, where enough frames did (0: not, or in vain)."""
    asked = [score for score in scores if score > 0.0]
    if len(asked) < _FEWEST:
        return {}
    location, scale = fit_gumbel(np.array(asked))
    least = 0.8 * float(getattr(default, f"{name}_scale"))
    return {f"{name}_location": round(location, 3), f"{name}_scale": round(max(scale, least), 3)}


def rarest(decision: Decision, fix: Fix) -> float:
    """The decimal logarithm of the probability with which chance matches as well as a frame's best place does."""
    return min((chance for chance, _ in _judged(decision, fix)), default=0.0)


def excess(decision: Decision, fixes: Sequence[Fix]) -> float:
    """How much more often than the laws say chance is seen to match, at least 1: a factor for them.

    Judged at one in ten, where some dozens of frames tell something.

    Args:
        decision: the laws, fitted to other frames.
        fixes: of frames that were searched where they were not taken.
    """
    seen = sum(rarest(decision, fix) <= _JUDGED_AT for fix in fixes)
    return round(max(1.0, seen / max(len(fixes), 1) / 10.0**_JUDGED_AT * decision.chance_factor), 3)


def fit_right(decision: Decision, right: Sequence[Witnesses], *, share: float = 1.0, weight: float = 0.0) -> Decision:
    """The law of right places fitted to places that were found right.

    Args:
        decision: with its laws of chance; what it says of right places is where the fit starts from.
        right: witnesses of places known to be right.
        share: part of their evidence that is expected in flight: less than 1 for simulated frames.
        weight: what the decision's present law counts for, in frames.
    """
    if not right:
        return decision
    spread = [-math.log(10.0) * decision.log10_agreed(_chances(decision, one)) * share for one in right]
    power = (len(right) + weight) / max(sum(spread) + weight / decision.right_power, 1e-6)
    missed = sum(one.order > 1 for one in right)
    miss = (missed + weight * decision.miss_share + 1.0) / (len(right) + weight + 2.0)
    if share < 1.0:  # simulated views are found too easily for their misses to tell anything but more
        miss = max(miss, decision.miss_share)
    return replace(
        decision,
        right_power=round(min(max(power, _POWERS[0]), _POWERS[1]), 4),
        miss_share=round(min(max(miss, 0.05), 0.8), 4),
    )


def right_place(fix: Fix, easting: float, northing: float) -> Alternative | None:
    """The likeliest of a frame's places whose image's middle lies within 25 m of where it was, if any."""
    for place in fix.alternatives:
        if math.hypot(place.center_easting - easting, place.center_northing - northing) <= RIGHT_M:
            return place
    return None


def fit_decision(
    localizer: Localizer,
    source: MapSource,
    *,
    trials: int = 150,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Decision, dict[str, Any]]:
    """Measure what wrong and right places score on this map, and fit the laws that make scores probabilities.

    Each trial is a simulated frame that is localised twice: with the tiles around its place hidden, which is what
    chance looks like, and as it is. Two thirds of the frames are fitted to; the others, and frames of a town that
    stands on no map, tell how often chance is then believed.

    Args:
        localizer: of the mission; its basemap and settings are used, its decision is not.
        source: the map that the gallery was built from.
        trials: number of frames.
        seed: same seed, same decision.

    Returns:
        The mission's decision with the laws replaced, and a record of the trials.
    """
    wrong: list[Fix] = []
    found: list[Fix] = []
    right: list[Witnesses] = []
    for number, view in enumerate(simulated_views(localizer, source, trials, [seed, 20])):
        if progress is not None:
            progress(number, trials)
        wrong.append(localizer.locate_elsewhere(view.frame, hidden_circle(localizer, view.easting, view.northing)))
        found.append(localizer.locate(view.frame))
        place = right_place(found[-1], view.easting, view.northing)
        if place is not None and place.witnesses is not None:
            right.append(place.witnesses)
    elsewhere: list[Fix] = []
    town = another_place(localizer, seed + 1)
    if town is not None and wrong:
        views = simulated_views(localizer, town, max(trials // 4, 1), [seed, 21])
        elsewhere = [localizer.locate(view.frame) for view in views]
    if progress is not None:
        progress(trials, trials)
    # Frames that see nowhere to register have no score, and need none.
    told = [fix for fix in wrong if fix.alternatives]
    record: dict[str, Any] = {"trials": trials, "used": len(told), "seed": seed}
    if len(told) < _FEWEST:
        record["note"] = "too few wrong places to measure chance on so small a map: the default laws are kept"
        return localizer.mission.decision, record
    fitted = [fix for number, fix in enumerate(told) if number % 3]
    held_back = [fix for number, fix in enumerate(told) if not number % 3]
    decision = fit_wrong(localizer.mission.decision, fitted)
    decision = replace(decision, chance_factor=max(excess(decision, held_back), excess(decision, elsewhere)))
    decision = fit_right(decision, right, share=SIMULATED_SHARE)
    record |= {
        "fitted": len(fitted),
        "held_back": len(held_back),
        "elsewhere": len(elsewhere),
        "right": len(right),
        "rarest_by_chance": round(min(rarest(decision, fix) for fix in [*held_back, *elsewhere]), 2),
        "likeliest_by_chance": round(max(likeliest(decision, fix) for fix in [*held_back, *elsewhere]), 4),
        "median_probability_right": round(float(np.median([likeliest(decision, fix) for fix in found])), 6),
    }
    return decision, record


def likeliest(decision: Decision, fix: Fix) -> float:
    """The probability that the likeliest of a frame's places is right, under a decision of its own."""
    return max((probability for _, probability in _judged(decision, fix)), default=0.0)


def _chances(decision: Decision, said: Witnesses) -> Chances:
    return decision.log10_chances(said.peak, said.blocks, said.detail, said.features)


def _judged(decision: Decision, fix: Fix) -> list[tuple[float, float]]:
    """Chance (log10) and probability of each of a frame's places, without a prior on the position."""
    places = [place for place in fix.alternatives if place.witnesses is not None]
    told = [place.witnesses for place in places if place.witnesses is not None]
    beliefs = believe(
        [_chances(decision, one) for one in told],
        [retrieval_share(one.order, one.listed, one.lists, decision.miss_share) for one in told],
        [1.0] * len(told),
        range(len(told)),
        decision,
    )
    return [(belief.log10_chance, belief.probability) for belief in beliefs]
