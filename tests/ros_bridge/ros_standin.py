"""What the rclpy transport touches of ROS 2, as strict stand-ins: messages by rosbags' definitions, a recording node.

They show that the transport hangs together and fills every field with a value that rclpy's checks let pass. They do not
show that it works in ROS; that is for a machine that has it.
"""

from __future__ import annotations

import array
import enum
import sys
from types import ModuleType, SimpleNamespace
from typing import Any


def message_class(ros_name: str, store: Any, made: dict[str, Any]) -> Any:
    """A class that takes what rclpy's generated classes take, and nothing else."""
    if ros_name in made:
        return made[ros_name]
    fields = dict(store.fielddefs[ros_name][1])

    class Strict:
        def __init__(self) -> None:
            for name, spec in fields.items():
                object.__setattr__(self, name, default(spec, store, made))

        def __setattr__(self, name: str, value: Any) -> None:
            assert name in fields, f"{ros_name} has no {name}"
            assert fits(fields[name], value, made), f"{ros_name}.{name} = {value!r}"
            object.__setattr__(self, name, value)

    Strict.__name__ = ros_name.split("/")[-1]
    made[ros_name] = Strict
    return Strict


def default(spec: Any, store: Any, made: dict[str, Any]) -> Any:
    kind, value = spec
    if kind.name == "NAME":
        return message_class(value, store, made)()
    if kind.name == "SEQUENCE":
        if value[0][0].name == "NAME":
            message_class(value[0][1], store, made)
        return []
    if kind.name == "ARRAY":
        return [0.0] * value[1]
    return {"string": "", "byte": b"\0", "bool": False}.get(value[0], 0.0 if "float" in value[0] else 0)


def fits(spec: Any, value: Any, made: dict[str, Any]) -> bool:
    kind, inner = spec
    if kind.name == "NAME":
        return type(value) is made[inner]
    if kind.name in ("ARRAY", "SEQUENCE"):
        element, length = inner
        if element[1] == ("uint8", 0):
            return isinstance(value, array.array) and value.typecode == "B"
        count_fits = kind.name == "SEQUENCE" or len(value) == length
        return isinstance(value, list) and count_fits and all(fits(element, item, made) for item in value)
    name = inner[0]
    if name == "byte":
        return isinstance(value, bytes) and len(value) == 1
    wanted = {"string": str, "bool": bool}.get(name, float if "float" in name else int)
    return isinstance(value, wanted) and (wanted is not int or not isinstance(value, bool))


class Return(enum.Enum):
    SUCCESS = 0
    FAILURE = 1


class Clock:
    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=1_700_000_000 * 10**9)


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        self.lines.append(text)

    warning = info = error


class LifecycleNode:
    """Records what is created and destroyed; ``overrides`` are the parameters of the command line."""

    overrides: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Any] = {}
        self.publishers: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.timers: list[Any] = []
        self.logger = Logger()
        self.callback: Any = None

    def declare_parameter(self, name: str, value: Any) -> None:
        self.values[name] = self.overrides.get(name, value)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.values[name])

    def add_on_set_parameters_callback(self, callback: Any) -> None:
        self.callback = callback

    def create_publisher(self, message: Any, topic: str, qos: Any) -> Any:
        sent: list[Any] = []

        def publish(value: Any) -> None:
            assert type(value) is message
            sent.append(value)

        self.publishers[topic] = SimpleNamespace(topic=topic, qos=qos, sent=sent, publish=publish)
        return self.publishers[topic]

    def create_subscription(self, message: Any, topic: str, handler: Any, qos: Any) -> Any:
        self.subscriptions[topic] = SimpleNamespace(topic=topic, message=message, handler=handler, qos=qos)
        return self.subscriptions[topic]

    def create_service(self, kind: Any, name: str, handler: Any) -> Any:
        self.services[name] = SimpleNamespace(topic=name, handler=handler)
        return self.services[name]

    def create_timer(self, period_s: float, callback: Any) -> Any:
        self.timers.append(SimpleNamespace(period_s=period_s, callback=callback))
        return self.timers[-1]

    def destroy_publisher(self, entity: Any) -> None:
        del self.publishers[entity.topic]

    def destroy_subscription(self, entity: Any) -> None:
        del self.subscriptions[entity.topic]

    def destroy_service(self, entity: Any) -> None:
        del self.services[entity.topic]

    def destroy_timer(self, entity: Any) -> None:
        self.timers.remove(entity)

    def get_logger(self) -> Logger:
        return self.logger

    def get_clock(self) -> Clock:
        return Clock()

    def on_activate(self, state: Any) -> Return:
        return Return.SUCCESS

    def on_deactivate(self, state: Any) -> Return:
        return Return.SUCCESS


def modules(store: Any) -> dict[str, ModuleType]:
    """Everything that is to stand in ``sys.modules``."""
    made: dict[str, Any] = {}
    found: dict[str, ModuleType] = {}

    def module(name: str, **contents: Any) -> None:
        parent, _, child = name.rpartition(".")
        found.setdefault(name, ModuleType(name)).__dict__.update(contents)
        if parent:
            module(parent)
            setattr(found[parent], child, found[name])

    for ros_name in store.fielddefs:
        package, kind, name = ros_name.split("/")
        module(f"{package}.{kind}", **{name: message_class(ros_name, store, made)})

    def record(**fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    policy = {name: name for name in ("RELIABLE", "BEST_EFFORT", "KEEP_LAST", "TRANSIENT_LOCAL", "VOLATILE")}
    policies = SimpleNamespace(**policy)
    module("std_srvs.srv", Trigger=SimpleNamespace)
    module("rcl_interfaces.msg", SetParametersResult=record)
    module("rclpy.executors", ExternalShutdownException=type("ExternalShutdownException", (Exception,), {}))
    module("rclpy.lifecycle", LifecycleNode=LifecycleNode, State=object, TransitionCallbackReturn=Return)
    module(
        "rclpy.qos",
        QoSProfile=record,
        DurabilityPolicy=policies,
        HistoryPolicy=policies,
        ReliabilityPolicy=policies,
    )
    module("rclpy", init=lambda args=None: None, spin=lambda node: None, try_shutdown=lambda: None)
    return {name: one for name, one in found.items() if name not in sys.modules}
