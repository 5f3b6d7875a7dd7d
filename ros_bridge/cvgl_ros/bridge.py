"""The bridge itself: messages in, fixes out, over whichever transport carries them.

Callbacks only note what came in; a worker (``cvgl.node``) takes the newest image, waits a moment for telemetry that
covers its exposure, localises and has it published here. No message stops it: what cannot be used is counted, with its
reason.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CvglError, FrameError
from cvgl.fix import Fix
from cvgl.geo import LocalFrame
from cvgl.node.attitude import Attitude, Turn, attitude_of, interpolate_degrees, interpolate_quaternion
from cvgl.node.health import WARN
from cvgl.node.log import harmless
from cvgl.node.tracks import Track, linear
from cvgl.node.video import VideoCamera
from cvgl.node.worker import Answer, Locator, Pace, Paired, Worker
from cvgl.ros import incoming
from cvgl.ros.images import image_from_fields, image_from_file, to_bgr
from cvgl_ros import msgs, outgoing
from cvgl_ros.debug import debug_image
from cvgl_ros.outgoing import PLANAR, Altitude, MapFrame, PoseSigmas
from cvgl_ros.parameters import LIVE, ParameterError, Parameters

__all__ = ["OUTPUTS", "TRIGGER_SERVICE", "Bridge", "Input", "Output"]


@dataclass(frozen=True)
class Input:
    """A topic to subscribe to.

    Args:
        topic: relative name.
        message: its class.
        handler: called with each message, from any thread; never raises.
        depth: messages that are kept until they are taken.
        reliable: ask for every message (commands), or take what comes (sensor data: best effort, keep last).
    """

    topic: str
    message: type[msgs.Message]
    handler: Callable[[Any], None]
    depth: int
    reliable: bool = False


@dataclass(frozen=True)
class Output:
    """A topic to publish on.

    Args:
        topic: relative name; absolute where it begins with a slash.
        message: its class.
        latched: kept for subscribers that come later (reliable, transient local), whatever the parameters say.
    """

    topic: str
    message: type[msgs.Message]
    latched: bool = False


_FIX = "visual_localization/fix"
_POSE = "visual_localization/pose"
_STATUS = "visual_localization/status"
_ORIGIN = "visual_localization/map_origin"
_DEBUG = "visual_localization/debug_image/compressed"
_DIAGNOSTICS = "/diagnostics"
_TF = "/tf"
OUTPUTS = {
    output.topic: output
    for output in (
        Output(_FIX, msgs.NavSatFix),
        Output(_POSE, msgs.PoseWithCovarianceStamped),
        Output(_STATUS, msgs.DiagnosticArray),
        Output(_ORIGIN, msgs.NavSatFix, latched=True),
        Output(_DEBUG, msgs.CompressedImage),
        Output(_DIAGNOSTICS, msgs.DiagnosticArray),
        Output(_TF, msgs.TFMessage),
    )
}
TRIGGER_SERVICE = "visual_localization/trigger_localization"

# Of images only the newest counts. Attitude at 400 Hz has to wait while Python is busy elsewhere, and none of it should
# be lost.
_IMAGES_KEPT, _TELEMETRY_KEPT, _COMMANDS_KEPT = 5, 50, 10
# What telemetry can be; beyond it a message is refused, and the localiser has narrower bounds of its own.
_HEIGHTS = (-1_000.0, 100_000.0)


@dataclass(frozen=True)
class _Paired(Paired):
    """With the altitude that ``fix`` is to carry."""

    altitude: Altitude | None = None


class Bridge:
    """Joins a localiser to a transport.

    Args:
        localizer: what ``cvgl.Localizer.open`` returns. The bridge's thread is the only one to use it.
        parameters: see there.
        publish: called as ``publish(topic, message)`` with the topics of ``OUTPUTS``; from several threads.
        now: nanoseconds of ROS time.
        log: called with ``"error"``, ``"warning"`` or ``"info"`` and a text for people.

    Raises:
        CvglError: parameters that do not go together with the mission.
    """

    def __init__(
        self,
        localizer: Locator,
        parameters: Parameters,
        publish: Callable[[str, msgs.Message], None],
        now: Callable[[], int] = time.time_ns,
        log: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        self._localizer = localizer
        self._parameters = parameters
        self._publish = publish
        self._now = now
        self._log = harmless(log)
        origin = localizer.gallery.local
        if not math.isnan(parameters.map_origin_latitude):
            origin = LocalFrame(parameters.map_origin_latitude, parameters.map_origin_longitude)
        self._frame = MapFrame(parameters.map_frame, origin, parameters.map_origin_altitude_m)
        settings = localizer.mission.settings
        self._sigmas = PoseSigmas(settings.attitude_sigma_deg, settings.heading_sigma_deg)

        age, jump = parameters.max_telemetry_age_s, parameters.clock_jump_s
        self._turns: dict[str, Track[Turn]] = {
            name: Track(interpolate_quaternion, age, jump) for name in ("imu", "odometry")
        }
        self._numbers: dict[str, Track[float]] = {
            "heading": Track(interpolate_degrees, age, jump),
            **{name: Track(linear, age, jump) for name in ("range", "height", "odometry", "altitude")},
        }
        self._triggered = False
        self._debug_at = -math.inf
        self._worker = Worker(localizer, self, now, log)
        self._camera: VideoCamera | None = None
        if parameters.camera_source:
            delay = parameters.camera_delay_s
            self._camera = VideoCamera(parameters.camera_source, self._on_picture, now, log, delay_s=delay)

    @property
    def parameters(self) -> Parameters:
        """Those in force."""
        return self._parameters

    def inputs(self) -> tuple[Input, ...]:
        """What to subscribe to: nothing that the parameters do not ask for."""
        p = self._parameters
        wanted = {p.attitude_source, p.heading_source, p.height_source}
        if p.altitude_source == "topic" or p.height_source == "altitude":
            wanted.add("altitude")
        if p.camera_source:
            inputs = []
        elif p.image_transport == "raw":
            inputs = [Input("image", msgs.Image, self._on_image, _IMAGES_KEPT)]
        else:
            inputs = [Input("image/compressed", msgs.CompressedImage, self._on_image, _IMAGES_KEPT)]
        if p.use_camera_info:
            handler = self._worker.guarded("camera_info", self._on_camera_info)
            inputs.append(Input("camera_info", msgs.CameraInfo, handler, _IMAGES_KEPT))
        sources: dict[str, tuple[type[msgs.Message], Callable[[Any], None]]] = {
            "imu": (msgs.Imu, self._on_imu),
            "odometry": (msgs.Odometry, self._on_odometry),
            "range": (msgs.Range, self._on_range),
            "heading": (msgs.Float64, lambda m: self._on_number("heading", m, (-360.0, 360.0))),
            "height": (msgs.Float64, lambda m: self._on_number("height", m, _HEIGHTS)),
            "altitude": (msgs.Float64, lambda m: self._on_number("altitude", m, _HEIGHTS)),
        }
        for name, (message, note) in sources.items():
            if name in wanted:
                inputs.append(Input(name, message, self._worker.guarded(name, note), _TELEMETRY_KEPT))
        commands: dict[str, tuple[type[msgs.Message], Callable[[Any], Any]]] = {
            "prior": (msgs.NavSatFix, self._on_prior),
            "prior_pose": (msgs.PoseWithCovarianceStamped, self._on_prior_pose),
            "trigger": (msgs.Empty, lambda _: self.trigger()),
        }
        for name, (message, command) in commands.items():
            inputs.append(Input(name, message, self._worker.guarded(name, command), _COMMANDS_KEPT, reliable=True))
        return tuple(inputs)

    def outputs(self) -> tuple[Output, ...]:
        """What will be published: nothing that the parameters do not ask for."""
        p = self._parameters
        left_out = set() if p.publish_tf else {_TF}
        if p.altitude_source == "none":
            left_out.add(_FIX)
        return tuple(output for topic, output in OUTPUTS.items() if topic not in left_out)

    def start(self) -> None:
        """Begin to answer; publishes the map's origin."""
        if self._parameters.altitude_source == "none":
            self._log("info", f"{_FIX} is not published, as altitude_source is none; {_POSE} is")
        self._publish(_ORIGIN, outgoing.map_origin(self._frame, outgoing.time_of(self._now())))
        self._worker.start()
        if self._camera is not None:
            self._camera.start()

    def close(self) -> None:
        """Let the worker finish its frame and stop."""
        if self._camera is not None:
            self._camera.close()
        self._worker.close()

    def trigger(self) -> tuple[bool, str]:
        """Localise the next frame as if lost: over the whole map, or around the prior that came last.

        Returns:
            Whether that can be expected, and a sentence about it.
        """
        with self._worker.changed:
            self._triggered = True
            self._worker.reset(None, keep=True)
            _, text = self._worker.health.state(self._parameters.camera_timeout_s, ())
        if text.startswith("camera:"):
            return False, f"will be done with the next image, but: {text}"
        return True, "the next frame will be localised over the whole map"

    def update(self, parameters: Parameters) -> frozenset[str]:
        """Take over new values of the parameters that can change while running.

        Returns:
            The names of those that changed.

        Raises:
            ParameterError: one that needs a restart has changed; then none is taken over.
        """
        changed = self._parameters.changed_to(parameters)
        fixed = sorted(changed - LIVE)
        if fixed:
            raise ParameterError("takes effect after a restart only", field=", ".join(fixed))
        self._parameters = parameters
        return changed

    def malformed(self, topic: str, reason: str) -> None:
        """A transport tells of a message that it could not decode."""
        with self._worker.changed:
            self._worker.health.refuse(f"{topic}: {reason}", "malformed")

    def diagnose(self) -> None:
        """Publish ``/diagnostics``; to be called every ``diagnostics_period_s``."""
        p = self._parameters
        sources = [p.attitude_source, p.heading_source, p.height_source]
        if p.altitude_source == "topic":
            sources.append("altitude")
        wanted = tuple(dict.fromkeys(name for name in sources if name != "none"))
        with self._worker.changed:
            level, text = self._worker.health.state(p.camera_timeout_s, wanted)
            values = self._worker.health.values(self._worker.dropped)
            values["telemetry_clock_jumps"] = str(
                sum(t.jumps for t in self._turns.values()) + sum(t.jumps for t in self._numbers.values())
            )
        values["mode"] = p.mode
        values["altitude_source"] = p.altitude_source
        values["engine"] = str(getattr(self._localizer.model, "runtime", ""))
        values["model"] = str(getattr(self._localizer.model, "name", ""))
        values["gallery"] = str(getattr(self._localizer.gallery, "path", ""))
        name = "cvgl: visual localization"
        stamp = outgoing.time_of(self._now())
        self._send(_DIAGNOSTICS, outgoing.status_of(name, level, text, values, stamp))

    # -- what comes in -------------------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        try:
            stamp = incoming.stamp_of(message, "image")
        except (CvglError, AttributeError, TypeError, ValueError) as error:
            with self._worker.changed:
                self._worker.health.refuse(str(error))
            return
        self._put(message, stamp)

    def _on_picture(self, image: NDArray[np.uint8], stamp: int) -> None:
        self._put(image, stamp)

    def _put(self, message: Any, stamp: int) -> None:
        with self._worker.changed:
            self._worker.health.arrived()
            if self._parameters.mode == "trigger" and not self._triggered:
                return
            if self._worker.put(message, stamp):
                self._triggered = False

    def _on_imu(self, message: Any) -> None:
        stamp = incoming.stamp_of(message, "imu")
        self._worker.note(self._turns["imu"], stamp, incoming.orientation_of(message, "imu"), "imu")

    def _on_odometry(self, message: Any) -> None:
        stamp = incoming.stamp_of(message, "odometry")
        turn = incoming.orientation_of(message, "odometry")
        z = incoming.number_of(msgs.Float64(message.pose.pose.position.z), "odometry.z", *_HEIGHTS)
        with self._worker.changed:
            self._numbers["odometry"].add(stamp, z)
        self._worker.note(self._turns["odometry"], stamp, turn, "odometry")

    def _on_range(self, message: Any) -> None:
        stamp = incoming.stamp_of(message, "range")
        self._worker.note(self._numbers["range"], stamp, incoming.range_of(message), "range")

    def _on_number(self, name: str, message: Any, bounds: tuple[float, float]) -> None:
        value = incoming.number_of(message, name, *bounds)
        # It has no stamp, and so its arrival dates it.
        self._worker.note(self._numbers[name], self._now(), value, name)

    def _on_camera_info(self, message: Any) -> None:
        camera = incoming.camera_of(message, self._localizer.mission.camera)
        self._worker.take_camera(camera)

    def _on_prior(self, message: Any) -> None:
        self._worker.reset(incoming.prior_of_fix(message, self._parameters.prior_sigma_max_m))

    def _on_prior_pose(self, message: Any) -> None:
        most = self._parameters.prior_sigma_max_m
        self._worker.reset(incoming.prior_of_pose(message, self._frame.name, self._frame.local, most))

    # -- what the worker asks for --------------------------------------------------------------------------------

    def pace(self) -> Pace:
        """As the parameters have it."""
        p = self._parameters
        return Pace(p.tracking, p.least_status == "refined", p.telemetry_wait_s, p.clock_jump_s)

    def awaited(self) -> Sequence[Track[Any]]:
        """Attitude and height that carry stamps; what has none is dated by its arrival, and waiting for it would be
        waiting for the next one."""
        p = self._parameters
        tracks: list[Track[Any]] = []
        if p.attitude_source != "none":
            tracks.append(self._turns[p.attitude_source])
        if p.heading_source in self._turns:
            tracks.append(self._turns[p.heading_source])
        if p.height_source in ("range", "odometry"):
            tracks.append(self._numbers[p.height_source])
        return tracks

    def picture(self, message: Any) -> tuple[NDArray[np.uint8], str]:
        """The image of a message, in its own layout where the SDK reads that.

        Raises:
            FrameError: it has none that can be used.
        """
        if isinstance(message, np.ndarray):  # of the bridge's own camera
            return message, "bgr"
        most = self._parameters.max_image_megapixels * 1e6
        if self._parameters.image_transport == "raw":
            size = (message.height, message.width, message.step)
            return image_from_fields(message.encoding, *size, message.data, most)
        return image_from_file(message.data, most), "bgr"

    def paired(self, stamp: int) -> _Paired:
        """Telemetry at an exposure.

        Raises:
            FrameError: no height near it.
        """
        p, counts = self._parameters, self._worker.health.counts
        tilt = Attitude(None)
        if p.attitude_source != "none":
            turn = self._turns[p.attitude_source].at(stamp)
            tilt = tilt if turn is None else attitude_of(turn)
        heading: float | None = None
        if p.heading_source == "heading":
            heading = self._numbers["heading"].at(stamp)
        elif p.heading_source != "none":
            turn = self._turns[p.heading_source].at(stamp)
            heading = None if turn is None else attitude_of(turn).heading
        if heading is not None:
            heading = (heading + p.heading_offset_deg) % 360.0
        elif p.heading_source != "none":
            counts["without_heading"] += 1
        if tilt.pitch is None and p.attitude_source != "none":
            counts["without_attitude"] += 1
        raw = self._numbers[p.height_source].at(stamp)
        if raw is None:
            raise FrameError(f"no {p.height_source} within {p.max_telemetry_age_s:g} s of the exposure", field="height")
        height = raw + p.height_offset_m
        if p.height_source == "range" and tilt.pitch is not None and tilt.roll is not None:
            # The sensor is fixed to the body: its axis leans with it.
            height = raw * math.cos(math.radians(tilt.pitch)) * math.cos(math.radians(tilt.roll)) + p.height_offset_m
        elif p.height_source == "altitude":
            height = raw - p.ground_ellipsoid_m + p.height_offset_m
        attitude = Attitude(heading, tilt.pitch, tilt.roll)
        return _Paired(height, attitude, altitude=self._altitude(stamp, height, p))

    def _altitude(self, stamp: int, height: float, p: Parameters) -> Altitude | None:
        if p.altitude_source == "constant":
            return Altitude(p.altitude_ellipsoid_m, p.altitude_sigma_m)
        if p.altitude_source == "ground":
            return Altitude(p.ground_ellipsoid_m + height, math.hypot(p.altitude_sigma_m, p.height_sigma_m))
        if p.altitude_source == "topic":
            value = self._numbers["altitude"].at(stamp)
            return None if value is None else Altitude(value, p.altitude_sigma_m)
        return PLANAR if p.altitude_source == "planar" else None

    # -- what goes out -------------------------------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        """Publish an answer."""
        p = self._parameters
        self._publish_answer(answer.fix, answer.paired, answer.stamp, p)
        self._publish_status(answer.fix, answer.stamp, answer.delay_ms, answer.paired)
        if p.debug_image and time.monotonic() - self._debug_at >= p.debug_image_period_s:
            self._debug_at = time.monotonic()
            self._publish_picture(answer, p)

    def refused(self, stamp: int, reason: str) -> None:
        """Publish why a frame was not localised."""
        values = {"status": "refused", "reason": reason}
        self._send(_STATUS, outgoing.status_of("cvgl: frame", WARN, reason, values, outgoing.time_of(stamp)))

    def _publish_answer(self, fix: Fix, paired: _Paired, nanoseconds: int, p: Parameters) -> None:
        if not fix:
            return
        stamp = outgoing.time_of(nanoseconds)
        if paired.altitude is not None and p.altitude_source != "none":
            self._send(_FIX, outgoing.nav_sat_fix(fix, paired.altitude, p.frame_id, stamp))
        known = None if paired.altitude is PLANAR else paired.altitude
        pose = outgoing.pose_of(fix, known, paired.attitude, self._sigmas, self._frame, stamp)
        self._send(_POSE, pose)
        if p.publish_tf:
            self._send(_TF, msgs.TFMessage([outgoing.transform_of(pose, p.frame_id)]))

    def _publish_status(self, fix: Fix, stamp: int, delay_ms: float, paired: _Paired) -> None:
        values = {
            "status": fix.status.value,
            "reason": fix.reason,
            "sigma_m": f"{fix.sigma_m:.2f}",
            "score": f"{fix.score:.3f}",
            "log10_chance": f"{fix.log10_chance:.2f}",
            "latency_ms": f"{fix.latency_ms:.1f}",
            "delay_ms": f"{delay_ms:.1f}",
            "height_m": f"{paired.height:.1f}",
            **{name: _degrees(value) for name, value in vars(paired.attitude).items()},
        }
        if fix and paired.altitude is None and self._parameters.altitude_source != "none":
            values["fix_withheld"] = "no altitude at the time of exposure"
        name = "cvgl: frame"
        message = outgoing.status_of(
            name, 0 if fix else WARN, fix.reason or fix.status.value, values, outgoing.time_of(stamp)
        )
        self._send(_STATUS, message)

    def _publish_picture(self, answer: Answer, p: Parameters) -> None:
        try:
            picture = debug_image(to_bgr(answer.image, answer.pixels), answer.fix, self._localizer.gallery)
        except Exception:  # the frame has been answered; a picture of it is a courtesy
            self._log("warning", traceback.format_exc())
            return
        header = msgs.Header(outgoing.time_of(answer.stamp), p.frame_id)
        self._send(_DEBUG, msgs.CompressedImage(header, "jpeg", picture))

    def _send(self, topic: str, message: msgs.Message) -> None:
        """Publish; a transport that cannot is a matter for the log, not the end of the flight."""
        try:
            self._publish(topic, message)
        except Exception as error:
            with self._worker.changed:
                self._worker.health.refuse(f"{topic}: not published: {error}")
            self._log("error", f"{topic}: not published: {error!r}")


def _degrees(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
