"""The bridge as a lifecycle node of ROS 2; needs rclpy and the message packages. All that it does is in ``bridge``.

configure reads the parameters and opens the mission, activate subscribes and publishes, deactivate stops that, cleanup
lets the mission go.
"""

from __future__ import annotations

import array
import dataclasses
import importlib
import traceback
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray  # noqa: F401  imported here so that what is missing is told at once
from rcl_interfaces.msg import SetParametersResult  # type: ignore[import-not-found]
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import NavSatFix  # noqa: F401
from std_srvs.srv import Trigger  # type: ignore[import-not-found]

from cvgl.errors import CvglError, MissionError
from cvgl_ros.bridge import TRIGGER_SERVICE, Bridge, Input, Output
from cvgl_ros.cdr import fields_of
from cvgl_ros.msgs import Array, Message, Unbounded
from cvgl_ros.parameters import Parameters

__all__ = ["LocalizerNode", "ros_class", "run", "to_ros"]


class LocalizerNode(LifecycleNode):  # type: ignore[misc]  # rclpy has no types where it is not installed
    """See the module."""

    def __init__(self) -> None:
        super().__init__("localizer")
        for field in dataclasses.fields(Parameters):
            self.declare_parameter(field.name, field.default)
        self._localizer: Any = None
        self._bridge: Bridge | None = None
        self._entities: list[tuple[Any, Any]] = []  # how to destroy, what
        self._publishers_by_topic: dict[str, Any] = {}
        self.add_on_set_parameters_callback(self._on_parameters)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Open the mission."""
        from cvgl import Localizer

        try:
            parameters = self._read_parameters()
            if not parameters.mission:
                raise MissionError("not set", field="mission", expected="the mission folder")
            self._localizer = Localizer.open(parameters.mission, threads=parameters.threads or None)
        except Exception as error:
            return self._failed(error)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe and publish."""
        try:
            self._open()
        except Exception as error:
            self.release()
            return self._failed(error)
        return super().on_activate(state)

    def _failed(self, error: Exception) -> TransitionCallbackReturn:
        """Log why a transition failed: rclpy passes over what a callback raises without a word."""
        ours = isinstance(error, CvglError)
        self.get_logger().error(str(error) if ours else "".join(traceback.format_exception(error)))
        return TransitionCallbackReturn.FAILURE

    def _open(self) -> None:
        parameters = self._read_parameters()
        bridge = Bridge(self._localizer, parameters, self._publish, self._now, self._log)
        reliable = parameters.output_reliability == "reliable"
        for output in bridge.outputs():
            publisher = self.create_publisher(
                ros_class(output.message), output.topic, _output_qos(output, reliable, parameters.output_depth)
            )
            self._publishers_by_topic[output.topic] = publisher
            self._entities.append((self.destroy_publisher, publisher))
        for wanted in bridge.inputs():
            subscription = self.create_subscription(
                ros_class(wanted.message), wanted.topic, wanted.handler, _input_qos(wanted)
            )
            self._entities.append((self.destroy_subscription, subscription))
        service = self.create_service(Trigger, TRIGGER_SERVICE, self._on_trigger)
        self._entities.append((self.destroy_service, service))
        timer = self.create_timer(parameters.diagnostics_period_s, bridge.diagnose)
        self._entities.append((self.destroy_timer, timer))
        self._bridge = bridge
        bridge.start()

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Stop; the mission stays open."""
        self.release()
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Let the mission go."""
        self.release()
        self._localizer = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """The same at the end."""
        return self.on_cleanup(state)

    def release(self) -> None:
        """Stop the bridge and give back what it subscribed to and published on."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self._publishers_by_topic.clear()

    def _read_parameters(self) -> Parameters:
        names = [field.name for field in dataclasses.fields(Parameters)]
        return Parameters.from_dict({name: self.get_parameter(name).value for name in names})

    def _on_parameters(self, changes: list[Any]) -> SetParametersResult:
        names = {field.name for field in dataclasses.fields(Parameters)}
        new = {parameter.name: parameter.value for parameter in changes if parameter.name in names}
        try:
            if self._bridge is not None:
                values = {**dataclasses.asdict(self._bridge.parameters), **new}
                self._bridge.update(Parameters.from_dict(values))
        except CvglError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_trigger(self, request: Any, response: Any) -> Any:
        bridge = self._bridge
        if bridge is not None:
            response.success, response.message = bridge.trigger()
        return response

    def _publish(self, topic: str, message: Message) -> None:
        publisher = self._publishers_by_topic.get(topic)
        if publisher is not None:
            publisher.publish(to_ros(message))

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _log(self, level: str, text: str) -> None:
        logger = self.get_logger()
        # rclpy knows a call by its line, and raises where one line logs at two levels.
        if level == "error":
            logger.error(text)
        elif level == "warning":
            logger.warning(text)
        else:
            logger.info(text)


def ros_class(message: type[Message]) -> Any:
    """rclpy's class of a message class."""
    package, kind, name = message.ros_name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def to_ros(message: Message) -> Any:
    """The same message in rclpy's class."""
    made = ros_class(type(message))()
    for name, kind in fields_of(type(message)):
        value = getattr(message, name)
        if isinstance(kind, list):
            value = [to_ros(item) for item in value]
        elif isinstance(kind, Array):
            value = list(value)
        elif isinstance(kind, Unbounded):
            value = array.array("B", bytes(value)) if kind.element == "uint8" else list(value)
        elif kind == "byte":
            value = bytes([value])
        elif not isinstance(kind, str):
            value = to_ros(value)
        setattr(made, name, value)
    return made


def run(args: list[str] | None = None) -> None:
    """Spin the node until it is told to stop."""
    rclpy.init(args=args)
    node = LocalizerNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.release()
        node.destroy_node()
        rclpy.try_shutdown()


def _input_qos(wanted: Input) -> QoSProfile:
    reliability = ReliabilityPolicy.RELIABLE if wanted.reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=wanted.depth, reliability=reliability)


def _output_qos(output: Output, reliable: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1 if output.latched else depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable or output.latched else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if output.latched else DurabilityPolicy.VOLATILE,
    )
