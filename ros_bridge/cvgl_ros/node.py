"""The ROS 2 node: subscribes to a camera and telemetry, publishes fixes.

Subscribes (all relative names, to be remapped):
    image     sensor_msgs/Image, stamped with the exposure
    heading   std_msgs/Float64, degrees clockwise from true north (without it the frame's heading is unknown)
    height    std_msgs/Float64, of the camera above ground, metres
    altitude  std_msgs/Float64, of the vehicle above the WGS84 ellipsoid, metres (or a parameter)
Publishes:
    visual_localization/fix  sensor_msgs/NavSatFix, only when there is a position
    /diagnostics             diagnostic_msgs/DiagnosticArray, once a second
Parameters: see config/localizer.yaml.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

from cvgl.errors import EXIT_MISSING, CvglError, MissingDependencyError, MissionError
from cvgl.frame import Frame
from cvgl_ros.health import Health
from cvgl_ros.images import image_from_fields
from cvgl_ros.latest import Latest, NewestOnly
from cvgl_ros.messages import Altitude, nav_sat_fields

__all__ = ["LocalizerBridge", "main"]


@dataclass(frozen=True)
class _Work:
    """One frame that waits for the worker, with what belongs to it."""

    frame: Frame
    stamp: tuple[int, int]
    altitude: Altitude


class LocalizerBridge:
    """Joins a localiser to a ROS node.

    Callbacks only note the newest values; localising runs in a thread of its own, on the newest frame.

    Args:
        node: an ``rclpy.node.Node``.
        localizer: what ``cvgl.Localizer.open`` returns.

    Raises:
        CvglError: a parameter that cannot be used.
    """

    def __init__(self, node: Any, localizer: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, NavSatFix
        from std_msgs.msg import Float64

        self._node = node
        self._localizer = localizer
        self._frame_id: str = node.declare_parameter("frame_id", "base_link").value
        max_age_s: float = node.declare_parameter("max_telemetry_age_s", 1.0).value
        self._fixed_altitude: float = node.declare_parameter("altitude_ellipsoid_m", math.nan).value
        self._altitude_sigma_m: float = node.declare_parameter("altitude_sigma_m", math.nan).value
        if not self._frame_id:
            raise CvglError("empty", field="frame_id", expected="a frame on the vehicle")
        if not self._altitude_sigma_m > 0:
            raise CvglError(
                "not set", field="altitude_sigma_m", found=self._altitude_sigma_m, expected="metres, 1 sigma"
            )

        self._heading, self._height = Latest(max_age_s), Latest(max_age_s)
        self._altitude = Latest(max_age_s)
        self._queue: NewestOnly[_Work] = NewestOnly()
        self._health = Health()
        self._lock = threading.Lock()  # guards the health counts

        self._fixes = node.create_publisher(NavSatFix, "visual_localization/fix", 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        telemetry = {"heading": self._heading, "height": self._height, "altitude": self._altitude}
        for name, latest in telemetry.items():
            node.create_subscription(Float64, name, _setter(latest), qos_profile_sensor_data)
        node.create_timer(1.0, self._publish_diagnostics)
        self._worker = threading.Thread(target=self._work, name="cvgl-localizer", daemon=True)
        self._worker.start()

    def close(self) -> None:
        """Let the worker finish its frame and stop."""
        self._queue.close()
        self._worker.join()

    def _on_image(self, message: Any) -> None:
        now = time.monotonic()
        height = self._height.get(now)
        altitude = self._altitude.get(now)
        if altitude is None and not math.isnan(self._fixed_altitude):
            altitude = self._fixed_altitude
        if height is None:
            self._refuse("no recent height above ground")
            return
        if altitude is None:
            self._refuse("no recent altitude above the ellipsoid: a NavSatFix cannot be filled in")
            return
        try:
            stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
            frame = Frame(
                image=image_from_fields(message.encoding, message.height, message.width, message.step, message.data),
                time=stamp[0] + stamp[1] * 1e-9,
                height=height,
                heading=self._heading.get(now),
            )
            self._queue.put(_Work(frame, stamp, Altitude(altitude, self._altitude_sigma_m)))
        except CvglError as error:
            self._refuse(str(error))

    def _work(self) -> None:
        while (work := self._queue.take()) is not None:
            try:
                fix = self._localizer.locate(work.frame)
                with self._lock:
                    self._health.answered(fix)
                fields = nav_sat_fields(fix, work.altitude, self._frame_id, work.stamp)
                if fields:
                    self._publish_fix(fields)
            except CvglError as error:
                self._refuse(str(error))
            except Exception as error:  # one frame must not end localisation for the rest of the flight
                self._node.get_logger().error(traceback.format_exc())
                self._refuse(repr(error))

    def _publish_fix(self, fields: Any) -> None:
        from sensor_msgs.msg import NavSatFix

        message = NavSatFix()
        message.header.stamp.sec, message.header.stamp.nanosec = fields.stamp
        message.header.frame_id = fields.frame_id
        message.status.status = fields.status
        message.status.service = fields.service
        message.latitude = fields.latitude
        message.longitude = fields.longitude
        message.altitude = fields.altitude
        message.position_covariance = list(fields.position_covariance)
        message.position_covariance_type = fields.position_covariance_type
        self._fixes.publish(message)

    def _publish_diagnostics(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        with self._lock:
            level, text = self._health.level, self._health.message
            values = self._health.values(self._queue.dropped)
        status = DiagnosticStatus(
            level=bytes([level]),
            name=f"{self._node.get_name()}: visual localization",
            message=text,
            hardware_id="cvgl",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _refuse(self, reason: str) -> None:
        with self._lock:
            self._health.refuse(reason)


def _setter(latest: Latest) -> Any:
    return lambda message: latest.set(float(message.data), time.monotonic())


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to stop; exit status 3 without ROS 2, 4 for an unusable mission."""
    try:
        import diagnostic_msgs.msg  # noqa: F401
        import rclpy
        import sensor_msgs.msg  # noqa: F401
        import std_msgs.msg  # noqa: F401
        from rclpy.executors import ExternalShutdownException
    except ImportError as reason:
        print(
            f"error: {reason.name or 'rclpy'} is missing: source a ROS 2 installation (setup.bash) first",
            file=sys.stderr,
        )
        sys.exit(EXIT_MISSING)

    rclpy.init(args=args)
    node = rclpy.create_node("localizer")
    bridge = None
    try:
        bridge = LocalizerBridge(node, _open(node.declare_parameter("mission", "").value))
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except CvglError as error:
        node.get_logger().fatal(str(error))
        sys.exit(error.exit_status)
    finally:
        if bridge is not None:
            bridge.close()
        node.destroy_node()
        rclpy.try_shutdown()


def _open(mission: str) -> Any:
    """The mission's localiser; imported here, so that a ROS that is missing is told at once."""
    if not mission:
        raise MissionError("not set", field="mission", expected="the mission folder")
    try:
        from cvgl import Localizer
    except ImportError as reason:
        raise MissingDependencyError(str(reason)) from reason
    return Localizer.open(mission)


if __name__ == "__main__":
    main()
