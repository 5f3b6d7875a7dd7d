"""The localiser: one object, one call per frame."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.belief import protection_radius
from cvgl.camera import Camera
from cvgl.crew import Crew
from cvgl.decide import SAME_ANSWER_M, Scene, SearchPrior, decide, in_doubt
from cvgl.engines import RawFrame
from cvgl.errors import CameraError, FrameError, GalleryError, ModelError
from cvgl.features import open_refiner
from cvgl.fix import Candidate, Fix, FixStatus, ReasonCode
from cvgl.frame import HIGHEST_M, LOWEST_M, Frame, Prior
from cvgl.gallery import Gallery
from cvgl.geometry import camera_to_enu, wrap_degrees
from cvgl.ground import MAX_SLANT
from cvgl.mission import GALLERY, MODEL, Mission
from cvgl.model import Model
from cvgl.odometry import Odometer
from cvgl.rectify import view_maps, view_offset, warp_to_input
from cvgl.refine import (
    REACH_STRIDES,
    SECOND_PEAKS,
    TURNS_DEG,
    View,
    add_detail,
    add_look_alikes,
    ask_features,
    examine,
    examine_again,
    examine_features,
    look,
    merge,
    view_of,
)
from cvgl.register import PoseSigmas
from cvgl.sharpness import sharpness
from cvgl.tracking import Answer, Sight, Tracker, distinct
from cvgl.tracking.motion import POSITION

__all__ = ["Localizer", "wide_turns"]

# Heading hypotheses of an unknown heading that refinement follows up.
_HEADINGS_REFINED = 5
# Where the first look leaves doubt: so many times the tiles of the first are asked.
_SECOND_CANDIDATES = 5
# How far off a heading is looked for where the first look leaves doubt, standard deviations.
_SECOND_SIGMAS = 2.5
# Places outside a prior that tell what chance reaches: as many as make a middle.
_DECOYS = 6
# Frames that are not found are blurred if they have less than this share of the map's fine detail. Sharp photos have
# 0.7 to 2.3 of it, motion by ten of the basemap's pixels leaves 0.2 to 0.5.
_BLURRED = 0.5
# What a frame that shows nothing anywhere is answered with, or one that cannot be answered at all.
# A blurred frame is not among them: it is less sharp than the map where it was looked for, which a sharp frame of
# smooth ground elsewhere is as well.
_BLIND = frozenset(
    {
        *(ReasonCode.TOO_DARK, ReasonCode.OVEREXPOSED, ReasonCode.FEATURELESS),
        *(ReasonCode.BAD_INPUT, ReasonCode.MODEL, ReasonCode.GALLERY),
    }
)
# Below this standard deviation (grey levels) a frame shows nothing to localise by.
_FEATURELESS = 4.0


class Localizer:
    """Answers frames with fixes.

    ``locate`` treats each frame by itself; ``track`` is a filter over frames. Neither raises on a bad frame or
    bad telemetry: the answer is a no-fix with its reason. One thread at a time may use a localiser.

    Args:
        mission: what it was opened from.
        model: the embedding.
        gallery: the satellite tiles and the basemap.
        threads: to compute with.
    """

    def __init__(self, mission: Mission, model: Model, gallery: Gallery, threads: int) -> None:
        self.mission = mission
        self.model = model
        self.gallery = gallery
        self.camera: Camera = mission.camera
        self.threads = threads
        self._executor = Crew(threads) if threads > 1 else None
        self._tracker = Tracker(gallery.local, mission.settings, gallery.manifest.bounds)
        told = mission.settings
        self._odometer = Odometer(told.height_sigma, told.heading_sigma_deg, told.max_speed_m_s)
        wanted = mission.settings.refiner != "correlation"
        self.features = open_refiner(mission.features, mission.path, threads) if wanted else None
        self._inputs: dict[int, tuple[NDArray[np.float32], NDArray[np.uint8]]] = {}

    @classmethod
    def open(cls, mission: str | Path, threads: int | None = None) -> Localizer:
        """Open a mission folder.

        Args:
            mission: the folder that ``cvgl-prepare`` made.
            threads: to compute with; by default as many as there are cores, at most 4.

        Raises:
            MissionError, CameraError, ModelError, GalleryError: name the file and the field at fault.
        """
        opened = Mission.open(mission)
        threads = threads or min(4, os.cpu_count() or 1)
        model = Model.open(opened.path / MODEL, threads=threads, views=("query",))
        gallery = Gallery.open(opened.path / GALLERY, model)
        return cls(opened, model, gallery, threads)

    def locate(self, frame: Frame) -> Fix:
        """Localise one frame, using its prior if it has one.

        Returns:
            A fix; a no-fix with its reason where the frame cannot be used or nothing on the map is sure enough.
        """
        return self._answer(frame, None, {})

    def locate_elsewhere(self, frame: Frame, hidden: tuple[float, float, float]) -> Fix:
        """What a frame would be answered if the tiles around its place were not on the map: a match by chance.

        Args:
            frame: as for :meth:`locate`; its prior is not used.
            hidden: easting, northing and radius of a circle, metres: tiles whose centre lies in it are passed over.
        """
        return self._answer(replace(frame, prior=None), hidden, {})

    def _answer(
        self, frame: Frame, hidden: tuple[float, float, float] | None, sightings: dict[float, _Sighting]
    ) -> Fix:
        """The answer to a frame, whose ``sightings`` the looks at it share, by the height that they are made for."""
        clock = _Clock()
        try:
            return self._locate(frame, clock, hidden, sightings)
        except (FrameError, CameraError) as error:
            stamp = frame.time if isinstance(frame.time, (int, float)) else float("nan")
            detail = f"{error.field}: {error.message}" if error.field else error.message
            found = "" if error.found is None else f" (found {error.found})"
            code = ReasonCode.BAD_INPUT
            return Fix.none(stamp, detail + found, reason_code=code, timings_ms=clock.stages, name=frame.name)
        except ModelError as error:
            code, reason = ReasonCode.MODEL, f"model: {error.message}"
            return Fix.none(frame.time, reason, reason_code=code, timings_ms=clock.stages, name=frame.name)
        except GalleryError as error:
            # Its parts are read, and verified, as they are needed.
            where = "" if error.file is None else f"{error.file.name}: "
            code, reason = ReasonCode.GALLERY, f"gallery: {where}{error.message}"
            return Fix.none(frame.time, reason, reason_code=code, timings_ms=clock.stages, name=frame.name)

    def track(self, frame: Frame) -> Fix:
        """Localise the next frame of a sequence, by itself and by where the aircraft can have flown.

        The frame is searched near the track while that holds, and over the whole map otherwise; a prior that the frame
        brings narrows its search instead. Frames may come late, see :class:`cvgl.tracking.Tracker`.

        Returns:
            The filter's answer at the frame's time: ``refined`` where the frame's own match was accepted; ``coarse``
            where the aircraft was only followed by its motion since, with a covariance that has grown by it; a no-fix
            with its reason where it is lost. ``measured`` is what ``locate`` says of the frame.
        """
        try:
            frame.check()
        except FrameError:
            # What is wrong with it, and where the aircraft is all the same.
            measured = self.locate(frame)
            return self._told(self._tracker.estimate(measured.time), measured)
        try:
            # Over terrain, the height follows from where the aircraft is.
            prior = frame.prior or (None if math.isfinite(frame.height) else self._tracker.expect(frame.time).prior)
            height = self._height(replace(frame, prior=prior))[0]
        except (FrameError, CameraError):
            measured = self.locate(frame)
            return self._told(self._tracker.estimate(measured.time), measured)
        given = replace(frame, height=height)
        velocity, sigma, seen = self._velocity(given)
        expected = self._tracker.expect(frame.time, velocity, sigma)
        heading = None if frame.heading is None else float(frame.heading)
        # A height that the terrain gave is left to it, with the spread that it has there.
        scaled = min(max(height * expected.scale, LOWEST_M), HIGHEST_M) if math.isfinite(frame.height) else frame.height
        looked = replace(
            frame,
            prior=frame.prior or expected.prior,
            heading=None if heading is None else (heading + expected.turn_deg) % 360.0,
            height=scaled,
        )
        sightings: dict[float, _Sighting] = {}
        measured = self._answer(looked, None, sightings)
        areas = [math.inf if looked.prior is None else math.pi * self._search_circle(looked.prior).radius_m ** 2]
        places = [(place, areas[0]) for place in measured.alternatives]
        if frame.prior is None and looked.prior is not None and not measured and measured.reason_code not in _BLIND:
            # It should have been found there. Whether it is found elsewhere decides what is left of the track.
            elsewhere = self._answer(replace(looked, prior=None), None, sightings)
            areas.append(math.inf)
            places += [(place, math.inf) for place in elsewhere.alternatives]
            likelier = max(measured, elsewhere, key=lambda fix: fix.probability)
            measured = replace(likelier, timings_ms=_together(measured.timings_ms, elsewhere.timings_ms))
        # What was looked for in less has fewer to stand out from.
        west, south, east, north = self.gallery.manifest.bounds
        whole = (east - west) * (north - south)
        places.sort(key=lambda one: -one[0].log10_odds - math.log10(min(one[1], whole)))
        kept = distinct([place for place, _ in places])
        area_of = {id(place): area for place, area in places}
        sight = Sight(
            time=float(frame.time),
            height=height,
            heading=heading,
            velocity=velocity,
            velocity_sigma=sigma,
            places=kept,
            turned=expected.turn_deg,
            scaled=scaled / height if math.isfinite(scaled) else 1.0,
            area=max(areas),
            areas=tuple(area_of[id(place)] for place in kept),
            seen=seen,
            lean_m=scaled * math.tan(math.radians(self._tilt_sigma(given))) if math.isfinite(scaled) else 0.0,
        )
        return self._told(self._tracker.update(sight), measured, given)

    def estimate(self, time: float) -> Fix:
        """Where the aircraft is by the track: at any time at or after the last frame's, or within the filter's history.

        Returns:
            A ``coarse`` fix, or a no-fix with its reason; it knows neither a heading nor the image's middle.
        """
        return self._told(self._tracker.estimate(time))

    def reset(self, prior: Prior | Sequence[Prior] | None = None) -> None:
        """Forget the sequence; ``prior`` is where the next one starts, or several places of which it may be one."""
        self._tracker.reset(prior)
        self._odometer.reset()

    def __repr__(self) -> str:
        return f"Localizer({str(self.mission.path)!r}, {self.model!r}, {self.gallery!r}, threads={self.threads})"

    def _told(self, answer: Answer, measured: Fix | None = None, frame: Frame | None = None) -> Fix:
        """The filter's answer as a fix. Without a frame that can be used, what a camera would see is left out."""
        reasons = [answer.reason, "" if measured is None else measured.reason]
        reason = "; ".join(text for text in reasons if text)
        code = ReasonCode.IMPLAUSIBLE_MOTION if answer.implausible else ReasonCode.NONE
        if measured is not None:
            code = code or measured.reason_code
        fix = Fix.none(answer.time, reason) if measured is None else replace(measured, reason=reason, measured=measured)
        bare = replace(
            fix,
            status=FixStatus.NO_FIX,
            reason_code=code or ReasonCode.NOT_FOUND,
            probability=answer.probability,
            latitude=math.nan,
            longitude=math.nan,
            center_latitude=math.nan,
            center_longitude=math.nan,
            covariance=None,
            center_covariance=None,
            protection_radius_m=math.inf,
            center_protection_radius_m=math.inf,
            heading_deg=math.nan,
            heading_sigma_deg=math.nan,
            height_m=math.nan,
        )
        if answer.mean is None or answer.covariance is None:
            return bare
        latitude, longitude = self.gallery.local.to_wgs84(*answer.mean[POSITION])
        fix = replace(
            bare,
            status=FixStatus.REFINED if answer.accepted else FixStatus.COARSE,
            reason="" if answer.accepted else ": ".join(text for text in ("followed by its motion", reason) if text),
            reason_code=ReasonCode.NONE if answer.accepted else code or ReasonCode.COASTING,
            protection_radius_m=answer.protection_radius_m,
            latitude=float(latitude),
            longitude=float(longitude),
            covariance=answer.covariance[POSITION, POSITION],
        )
        return fix if frame is None else self._looking(fix, answer, frame)

    def _looking(self, fix: Fix, answer: Answer, frame: Frame) -> Fix:
        """A tracked fix with what its camera sees: the image's middle, the heading, the height."""
        place, height = answer.place, float(frame.height) * answer.scale
        if place is not None:
            heading, sigma = place.heading_deg, place.heading_sigma_deg
            center, covariance = np.array([place.center_easting, place.center_northing]), place.center_covariance
        elif frame.heading is None:
            return replace(fix, height_m=height)
        else:
            turn, sigma = answer.turn_deg
            heading = (float(frame.heading) + turn) % 360.0
            try:
                camera = self.camera.scaled_to(*frame.size)
                rotation = camera_to_enu(camera.mount, heading, frame.pitch or 0.0, frame.roll or 0.0)
                offset = view_offset(camera, rotation, height)
            except (FrameError, CameraError):
                return replace(fix, height_m=height, heading_deg=heading, heading_sigma_deg=sigma)
            lean = height * math.tan(math.radians(self._tilt_sigma(frame)))
            center, covariance = answer.middle(offset, heading, lean)
        latitude, longitude = self.gallery.local.to_wgs84(*center)
        risk = self.mission.settings.protection_risk
        return replace(
            fix,
            center_latitude=float(latitude),
            center_longitude=float(longitude),
            center_covariance=covariance,
            center_protection_radius_m=protection_radius(covariance, answer.probability, risk),
            heading_deg=heading,
            heading_sigma_deg=sigma,
            height_m=height,
        )

    def _velocity(self, frame: Frame) -> tuple[tuple[float, float] | None, float, bool]:
        """The velocity since the frame before, its sigma, and whether frames told it: as given, else by odometry."""
        settings = self.mission.settings
        sigma = frame.velocity_sigma or settings.velocity_sigma_m_s
        if frame.velocity is not None:
            return (float(frame.velocity[0]), float(frame.velocity[1])), sigma, False
        if settings.visual_odometry == "off" or frame.heading is None:
            return None, sigma, False
        # What a mount is wrong by moves both frames alike; in a turn, the filter reckons with it.
        tilt = lasting.TILT.passing_sigma * self._tilt_sigma(frame)
        try:
            camera = self.camera.scaled_to(*frame.size)
            rotation = camera_to_enu(camera.mount, frame.heading, frame.pitch or 0.0, frame.roll or 0.0)
            grey = replace(frame, image=_packed(frame.image)).grey()
            seen = self._odometer.velocity(grey, camera, rotation, frame.height, frame.time, tilt)
        except (FrameError, CameraError):
            return None, sigma, False
        return (None, sigma, False) if seen is None else (*seen, True)

    def _tilt_sigma(self, frame: Frame) -> float:
        """Of the roll and pitch that a frame is rectified with, degrees."""
        settings = self.mission.settings
        unknown = frame.pitch is None or frame.roll is None
        return settings.tilt_sigma_deg if unknown else settings.attitude_sigma_deg

    def _locate(
        self,
        frame: Frame,
        clock: _Clock,
        hidden: tuple[float, float, float] | None,
        sightings: dict[float, _Sighting],
    ) -> Fix:
        frame.check()
        height, height_sigma = self._height(frame)
        frame = replace(frame, image=_packed(frame.image), height=height)
        settings = replace(self.mission.settings, height_sigma=height_sigma)
        if height not in sightings:
            sightings[height] = self._see(frame, clock)
        sighting = sightings[height]
        if sighting.blank is not None:
            code, reason = sighting.blank, f"image: {sighting.blank.value.replace('_', ' ')}"
            return Fix.none(frame.time, reason, reason_code=code, timings_ms=clock.stages, name=frame.name)
        descriptors, headings, offsets = sighting.descriptors, sighting.headings, sighting.offsets
        count = settings.candidates
        candidates = self._search(descriptors, headings, frame.prior, hidden, offsets, frame.height, count)
        clock.lap("search")
        if not candidates:
            reason = "no tile of the gallery lies within the prior"
            code = ReasonCode.OUTSIDE_MAP
            return Fix.none(frame.time, reason, reason_code=code, timings_ms=clock.stages, name=frame.name)
        views, places = self._views(sighting, candidates, frame.height)
        clock.lap("rectify")
        stride = self.gallery.manifest.layers[self._layer(frame.height)].stride_m
        # Half a step between heading hypotheses has to be covered when the heading is unknown.
        half_step = 180.0 / settings.headings if frame.heading is None else 0.0
        turns = [turn * max(1.0, 1.2 * half_step / TURNS_DEG[-1]) for turn in TURNS_DEG]
        keep, basemap = settings.refine_hypotheses, self.gallery.basemap
        decoys = [] if frame.prior is None else self._decoys(descriptors[0], frame.prior, offsets[0], frame.height)
        peaks = look(basemap, views, places, turns, REACH_STRIDES * stride, keep, self.threads, decoys)
        clock.lap("correlate")
        tilt = self._tilt_sigma(frame)
        sigmas = PoseSigmas(half_step or settings.heading_sigma_deg, settings.height_sigma, tilt)
        around = None if frame.prior is None else self._search_circle(frame.prior, offsets[0], frame.height)
        scene = Scene(self.gallery.local, tilt, around, sigmas)
        decision, features = self.mission.decision, self.features
        if features is not None and settings.refiner == "features":
            hypotheses = examine_features(basemap, peaks, features, sigmas, self._executor)
            clock.lap("features")
        else:
            hypotheses = examine(basemap, peaks, turns, sigmas, self.threads)
            hypotheses = add_look_alikes(
                basemap, hypotheses, REACH_STRIDES * stride, SAME_ANSWER_M, sigmas, self.threads
            )
            clock.lap("register")
            doubtful = in_doubt(hypotheses, scene, settings, decision)
            if doubtful and decision.looks > 1:
                wide = turns if frame.heading is None else wide_turns(settings.heading_sigma_deg)
                many = _SECOND_CANDIDATES * settings.candidates
                candidates = self._search(descriptors, headings, frame.prior, hidden, offsets, frame.height, many)
                views, places = self._views(sighting, candidates, frame.height)
                peaks = look(basemap, views, places, wide, REACH_STRIDES * stride, SECOND_PEAKS, self.threads, decoys)
                hypotheses = examine_again(basemap, peaks, wide, sigmas, self.threads)
                hypotheses = add_look_alikes(
                    basemap, hypotheses, REACH_STRIDES * stride, SAME_ANSWER_M, sigmas, self.threads
                )
                hypotheses = add_detail(basemap, hypotheses, self._executor)
                doubtful = in_doubt(hypotheses, scene, settings, decision)
                clock.lap("second look")
            if features is not None and doubtful:
                hypotheses = ask_features(basemap, hypotheses, doubtful, features, sigmas, self._executor)
                clock.lap("features")
        fix = decide(hypotheses, frame, candidates, scene, settings, decision)
        if fix.reason_code is ReasonCode.NOT_FOUND:
            fix = self._blurred(fix, views[0])
        clock.lap("decide")
        return replace(fix, timings_ms=clock.stages)

    def _see(self, frame: Frame, clock: _Clock) -> _Sighting:
        """A frame, whose height is known, rectified and embedded."""
        camera, settings = self.camera.scaled_to(*frame.size), self.mission.settings
        grey = frame.grey()
        if frame.heading is None:
            headings = [360.0 * index / settings.headings for index in range(settings.headings)]
        else:
            headings = [float(frame.heading)]
        pitch, roll = frame.pitch or 0.0, frame.roll or 0.0
        rotations = [camera_to_enu(camera.mount, heading, pitch, roll) for heading in headings]
        inputs = self._network_inputs(frame, camera, rotations)
        clock.lap("rectify")
        level, spread = _brightness(grey, limited=frame.pixels in ("nv12", "yuyv"))
        blank = _unusable(level) if spread < _FEATURELESS else None
        if blank is not None:
            return _Sighting(camera, grey, headings, rotations, [], np.empty((0, 0), np.float32), blank)
        descriptors = self.model.embed_inputs(inputs)
        clock.lap("embed")
        offsets = [view_offset(camera, rotation, frame.height) for rotation in rotations]
        return _Sighting(camera, grey, headings, rotations, offsets, descriptors)

    def _blurred(self, fix: Fix, view: View) -> Fix:
        """A no-fix that says so where its frame is far less sharp than the map is at the same scale."""
        basemap, candidate = self.gallery.basemap, fix.candidates[0]
        side = view.patch.mask.shape[0]
        column, row = basemap.to_pixel(candidate.easting, candidate.northing)
        there = basemap.read(round(float(column)) - side // 2, round(float(row)) - side // 2, side, side)
        share = sharpness(view.patch.image, view.patch.mask) / max(sharpness(there), 1e-9)
        if not share < _BLURRED:
            return fix
        reason = f"image: blurred, with {100 * share:.0f} % of the map's fine detail; {fix.reason}"
        return replace(fix, reason=reason, reason_code=ReasonCode.BLURRED)

    def _height(self, frame: Frame) -> tuple[float, float]:
        """A frame's height above the ground it looks at, and its standard deviation as a share of it.

        Where it is not given it is the altitude less the terrain's: where the camera looks from the prior if position
        and heading are known, around the prior if the heading is not, and over the whole map when lost. How much the
        ground rises and falls around there is what the height is uncertain by.

        Raises:
            FrameError: neither height nor an altitude that the mission's terrain can be held against.
        """
        settings, terrain = self.mission.settings, self.mission.terrain
        if math.isfinite(frame.height):
            return frame.height, settings.height_sigma
        if terrain is None:
            expected = "metres above ground, or a mission prepared with terrain"
            raise FrameError("not given", field="height", found="an altitude alone", expected=expected)
        altitude = terrain.altitude(frame.altitude_msl, frame.altitude_ellipsoid)
        west, south, east, north = self.gallery.manifest.bounds
        easting, northing, radius = (west + east) / 2, (south + north) / 2, math.hypot(east - west, north - south) / 2
        if frame.prior is not None:
            place = self.gallery.local.to_local(frame.prior.latitude, frame.prior.longitude)
            easting, northing, radius = float(place[0]), float(place[1]), 2.0 * frame.prior.sigma_m
            if frame.heading is not None:
                camera = self.camera.scaled_to(*frame.size)
                rotation = camera_to_enu(camera.mount, frame.heading, frame.pitch or 0.0, frame.roll or 0.0)
                ray = rotation @ camera.rays(camera.center)[0]
                met = terrain.intersect((easting, northing, altitude), ray)
                if met is not None:
                    easting, northing = float(met[0]), float(met[1])
        ground, spread = terrain.around(easting, northing, radius)
        height = altitude - ground
        if not height >= 1.0:
            found = f"{altitude:.0f} m over ground at {ground:.0f} m"
            raise FrameError("not above the terrain", field="altitude", found=found, expected="at least 1 m above it")
        return height, math.hypot(settings.height_sigma, spread / height)

    def _layer(self, height: float) -> int:
        """Of the gallery, the layer whose tiles are as large as what the camera sees from a height."""
        return self.gallery.layer_for(self.gallery.manifest.tile_size_m * height / self.mission.height_m)

    def _network_inputs(
        self, frame: Frame, camera: Camera, rotations: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32] | RawFrame:
        """The frame under each rotation, in memory that the next frame with as many uses again.

        Or, where the network's engine warps by itself, the frame as it is and where it is to be looked at.
        """
        view = self.model.views["query"]
        count, size = len(rotations), view.input_size[0]
        gsd = self.gallery.manifest.layers[self._layer(frame.height)].tile_size_m / size
        scale, offset = view.normalisation
        if self.model.takes_frames():
            maps = view_maps(camera, rotations, frame.height, gsd, size)[1]
            lens = (camera.fx, camera.fy, camera.cx, camera.cy)
            looks = (scale, offset, view.channels, camera.model, MAX_SLANT)
            return RawFrame(frame.image, frame.layout, maps, lens, camera.distortion, *looks)
        if count not in self._inputs:
            shape = (count, size, size)
            self._inputs[count] = np.empty((count, 3, size, size), np.float32), np.empty(shape, np.uint8)
        warp_to_input(
            frame.image,
            camera,
            rotations,
            frame.height,
            gsd,
            size,
            scale,
            offset,
            pixels=frame.layout,
            channels=view.channels,
            out=self._inputs[count],
            threads=self.threads,
        )
        return self._inputs[count][0]

    def _search(
        self,
        descriptors: NDArray[np.float32],
        headings: Sequence[float],
        prior: Prior | None,
        hidden: tuple[float, float, float] | None,
        offsets: Sequence[NDArray[np.float64]],
        height: float,
        count: int,
    ) -> list[Candidate]:
        """The most similar tiles over all headings, best first, each tile once."""
        at = self.gallery.tiles
        passed: set[int] = set()
        if hidden is not None:
            easting, northing, radius = hidden
            passed = set(np.flatnonzero(np.hypot(at[:, 0] - easting, at[:, 1] - northing) <= radius).tolist())
        if prior is None:
            found = list(zip(*self.gallery.search(descriptors, count + len(passed), self._layer(height)), strict=True))
        else:
            found = [
                self._near(descriptor, prior, offset, height, count)
                for descriptor, offset in zip(descriptors, offsets, strict=True)
            ]
        best: dict[int, tuple[float, float]] = {}
        for heading, (row, values) in zip(headings, found, strict=True):
            for tile, value in zip(row.tolist(), values.tolist(), strict=True):
                if tile >= 0 and tile not in passed and value > best.get(tile, (-2.0, 0.0))[0]:
                    best[tile] = (value, heading)
        ranked = sorted(best.items(), key=lambda entry: (-entry[1][0], entry[0]))[:count]
        return [
            Candidate(tile, float(at[tile, 0]), float(at[tile, 1]), value, heading) for tile, (value, heading) in ranked
        ]

    def _near(
        self, descriptor: NDArray[np.float32], prior: Prior, offset: NDArray[np.float64], height: float, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The tiles most similar to a view whose centre lies at an offset from the aircraft, and their similarities."""
        around = self._search_circle(prior, offset, height)
        place = around.easting + float(offset[0]), around.northing + float(offset[1])
        tiles, similarities = self.gallery.near(descriptor[None], *place, around.radius_m, count, self._layer(height))
        return tiles[0], similarities[0]

    def _decoys(
        self, descriptor: NDArray[np.float32], prior: Prior, offset: NDArray[np.float64], height: float
    ) -> list[tuple[float, float]]:
        """The places most similar to a view that lie outside a prior's circle.

        Inside it there may be few windows, or only such as see the frame's place; they do not tell what chance reaches.
        """
        around, at = self._search_circle(prior, offset, height), self.gallery.tiles
        east, north = around.easting + float(offset[0]), around.northing + float(offset[1])
        apart = around.radius_m + self.gallery.manifest.tile_size_m
        layer = self._layer(height)
        tiles, similarities = self.gallery.search(descriptor[None], 2 * self.mission.settings.candidates, layer)
        outside = [
            Candidate(tile, float(at[tile, 0]), float(at[tile, 1]), value, 0.0)
            for tile, value in zip(tiles[0].tolist(), similarities[0].tolist(), strict=True)
            if tile >= 0 and math.hypot(at[tile, 0] - east, at[tile, 1] - north) > apart
        ]
        return merge(outside, 1.1 * self.gallery.manifest.layers[layer].stride_m)[:_DECOYS]

    def _search_circle(
        self, prior: Prior, offset: NDArray[np.float64] | None = None, height: float = 1.0
    ) -> SearchPrior:
        """Where a prior lets the search go, for a view whose centre lies (2,) metres from the aircraft."""
        settings = self.mission.settings
        easting, northing = self.gallery.local.to_local(prior.latitude, prior.longitude)
        # The tile is where the view's centre is: three sigma, and on top of it how far heading and tilt may move the
        # centre of a view that lies ahead. The lean of a camera that looks down is within half a tile.
        ahead = 0.0 if offset is None else float(np.hypot(*offset))
        swing = ahead * math.radians(settings.heading_sigma_deg)
        lean = ahead * math.radians(settings.tilt_sigma_deg) * ahead / height
        radius = 3.0 * math.hypot(prior.sigma_m, swing, lean) + self.gallery.manifest.tile_size_m / 2
        return SearchPrior(float(easting), float(northing), prior.sigma_m, radius)

    def _views(
        self, sighting: _Sighting, candidates: Sequence[Candidate], height: float
    ) -> tuple[list[View], list[list[tuple[float, float]]]]:
        """Grey views for the best headings, and where each of them is looked for."""
        stride = self.gallery.manifest.layers[self._layer(height)].stride_m
        order = list(dict.fromkeys(c.heading_deg for c in candidates))[:_HEADINGS_REFINED]
        step = 360.0 / len(sighting.headings)
        views, places = [], []
        for heading in order:
            if heading not in sighting.views:
                rotation = sighting.rotations[sighting.headings.index(heading)]
                gsd = self.gallery.basemap.gsd
                sighting.views[heading] = view_of(
                    sighting.grey, sighting.camera, rotation, height, heading, gsd, self.threads
                )
            views.append(sighting.views[heading])
            # A tile found under one heading may be the frame's place under the next.
            near = [c for c in candidates if abs(wrap_degrees(c.heading_deg - heading)) <= 1.01 * step]
            places.append(merge(near, 1.1 * stride))
        return views, places


@dataclass(frozen=True)
class _Sighting:
    """A frame rectified and embedded, from which every look at it starts.

    Args:
        camera: that took it.
        grey: (H, W) uint8.
        headings: hypotheses, degrees.
        rotations: (3, 3) camera to ENU, for each of them.
        offsets: (2,) east and north from the aircraft to the middle of each heading's view, metres.
        descriptors: (headings, D) of unit length.
        blank: why there is nothing to localise by, and nothing was embedded; None for a picture.
        views: refinement's, by heading, as they were asked for.
    """

    camera: Camera
    grey: NDArray[np.uint8]
    headings: list[float]
    rotations: list[NDArray[np.float64]]
    offsets: list[NDArray[np.float64]]
    descriptors: NDArray[np.float32]
    blank: ReasonCode | None = None
    views: dict[float, View] = field(default_factory=dict)


def _together(*timings: dict[str, float]) -> dict[str, float]:
    """Milliseconds by stage of several looks at one frame."""
    stages = dict.fromkeys(stage for one in timings for stage in one)
    return {stage: sum(one.get(stage, 0.0) for one in timings) for stage in stages}


def wide_turns(sigma_deg: float) -> list[float]:
    """Corrections of a heading that a second look tries, degrees: those of the first, and on to 2.5 sigma."""
    step = TURNS_DEG[1] - TURNS_DEG[0]
    count = max(math.ceil(_SECOND_SIGMAS * sigma_deg / step), len(TURNS_DEG) // 2)
    return [step * number for number in range(-count, count + 1)]


def _unusable(level: float) -> ReasonCode:
    """What a frame without contrast is, by its mean grey level."""
    if level < 24:
        return ReasonCode.TOO_DARK
    return ReasonCode.OVEREXPOSED if level > 240 else ReasonCode.FEATURELESS


def _brightness(grey: NDArray[np.uint8], limited: bool) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels, of limited range or not, on a scale of 0 to 255."""
    seen = grey[:: max(1, grey.shape[0] // 128), :: max(1, grey.shape[1] // 128)]
    level, spread = (float(value[0, 0]) for value in cv2.meanStdDev(np.ascontiguousarray(seen)))
    return ((level - 16) * 255 / 219, spread * 255 / 219) if limited else (level, spread)


def _packed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with the pixels of each row side by side, as the native core reads them; rows may lie apart."""
    pixel = 1 if image.ndim == 2 else image.shape[2]
    packed = image.strides[1] == pixel and image.strides[-1] == 1
    return image if packed else np.ascontiguousarray(image)


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + 1000.0 * (now - self._last)
        self._last = now
