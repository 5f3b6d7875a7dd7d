"""The standard ROS 2 messages that the bridge takes and gives, as plain dataclasses that need no ROS.

Field names, types and order are those of the ROS packages (Humble and Jazzy). ``cdr`` writes and reads them as the
bytes that ROS sends; ``dds.types`` declares them to a DDS bus; ``node`` copies them into rclpy's own classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

__all__ = [
    "Array",
    "CameraInfo",
    "CompressedImage",
    "DiagnosticArray",
    "DiagnosticStatus",
    "Empty",
    "Float64",
    "Header",
    "Image",
    "Imu",
    "KeyValue",
    "Message",
    "NavSatFix",
    "NavSatStatus",
    "Odometry",
    "Point",
    "Pose",
    "PoseWithCovariance",
    "PoseWithCovarianceStamped",
    "Quaternion",
    "Range",
    "RangeWithVariance",
    "RegionOfInterest",
    "TFMessage",
    "Time",
    "Transform",
    "TransformStamped",
    "TriggerRequest",
    "TriggerResponse",
    "Twist",
    "TwistWithCovariance",
    "Unbounded",
    "Vector3",
]


@dataclass(frozen=True)
class Array:
    """Marks a field as an array of a fixed number of primitives.

    Args:
        element: ROS name of the primitive.
        length: number of elements.
    """

    element: str
    length: int


@dataclass(frozen=True)
class Unbounded:
    """Marks a field as a sequence of any number of primitives, by the ROS name of the primitive."""

    element: str


# ROS names of primitives as they stand in the interface definitions.
bool_ = Annotated[bool, "bool"]
byte = Annotated[int, "byte"]
int8 = Annotated[int, "int8"]
uint8 = Annotated[int, "uint8"]
uint16 = Annotated[int, "uint16"]
int32 = Annotated[int, "int32"]
uint32 = Annotated[int, "uint32"]
int64 = Annotated[int, "int64"]
uint64 = Annotated[int, "uint64"]
float32 = Annotated[float, "float32"]
float64 = Annotated[float, "float64"]
string = Annotated[str, "string"]
octets = Annotated[Any, Unbounded("uint8")]
doubles = Annotated[Sequence[float], Unbounded("float64")]
double9 = Annotated[Sequence[float], Array("float64", 9)]
double12 = Annotated[Sequence[float], Array("float64", 12)]
double36 = Annotated[Sequence[float], Array("float64", 36)]


class Message:
    """Base of all messages; ``ros_name`` is ``package/msg/Name``."""

    ros_name: ClassVar[str] = ""


@dataclass
class Time(Message):
    """Seconds and nanoseconds (0 to 999 999 999) of ROS time."""

    ros_name: ClassVar[str] = "builtin_interfaces/msg/Time"
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(Message):
    """When and in which frame of reference a measurement holds."""

    ros_name: ClassVar[str] = "std_msgs/msg/Header"
    stamp: Time = field(default_factory=Time)
    frame_id: string = ""


@dataclass
class Float64(Message):
    """One number."""

    ros_name: ClassVar[str] = "std_msgs/msg/Float64"
    data: float64 = 0.0


@dataclass
class Empty(Message):
    """Nothing; DDS knows no empty struct, so that ROS sends one byte."""

    ros_name: ClassVar[str] = "std_msgs/msg/Empty"
    structure_needs_at_least_one_member: uint8 = 0


@dataclass
class Point(Message):
    """Metres."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Point"
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Vector3(Message):
    """A free vector."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Vector3"
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Quaternion(Message):
    """A rotation."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Quaternion"
    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


@dataclass
class Pose(Message):
    """Position and orientation."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Pose"
    position: Point = field(default_factory=Point)
    orientation: Quaternion = field(default_factory=Quaternion)


@dataclass
class PoseWithCovariance(Message):
    """A pose with the (6, 6) covariance of x, y, z and the rotations about them, row-major."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/PoseWithCovariance"
    pose: Pose = field(default_factory=Pose)
    covariance: double36 = (0.0,) * 36


@dataclass
class PoseWithCovarianceStamped(Message):
    """The same in a frame of reference at a time."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/PoseWithCovarianceStamped"
    header: Header = field(default_factory=Header)
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)


@dataclass
class Twist(Message):
    """Velocity, linear and angular."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Twist"
    linear: Vector3 = field(default_factory=Vector3)
    angular: Vector3 = field(default_factory=Vector3)


@dataclass
class TwistWithCovariance(Message):
    """The same with its (6, 6) covariance, row-major."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/TwistWithCovariance"
    twist: Twist = field(default_factory=Twist)
    covariance: double36 = (0.0,) * 36


@dataclass
class Transform(Message):
    """Translation and rotation."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/Transform"
    translation: Vector3 = field(default_factory=Vector3)
    rotation: Quaternion = field(default_factory=Quaternion)


@dataclass
class TransformStamped(Message):
    """From the header's frame to a child frame."""

    ros_name: ClassVar[str] = "geometry_msgs/msg/TransformStamped"
    header: Header = field(default_factory=Header)
    child_frame_id: string = ""
    transform: Transform = field(default_factory=Transform)


@dataclass
class TFMessage(Message):
    """What /tf carries."""

    ros_name: ClassVar[str] = "tf2_msgs/msg/TFMessage"
    transforms: list[TransformStamped] = field(default_factory=list)


@dataclass
class Odometry(Message):
    """Pose in the header's frame, velocity in the child frame."""

    ros_name: ClassVar[str] = "nav_msgs/msg/Odometry"
    header: Header = field(default_factory=Header)
    child_frame_id: string = ""
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)
    twist: TwistWithCovariance = field(default_factory=TwistWithCovariance)


@dataclass
class Image(Message):
    """An uncompressed image; ``data`` is whatever has a buffer of bytes."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/Image"
    header: Header = field(default_factory=Header)
    height: uint32 = 0
    width: uint32 = 0
    encoding: string = ""
    is_bigendian: uint8 = 0
    step: uint32 = 0
    data: octets = b""


@dataclass
class CompressedImage(Message):
    """A JPEG or PNG file."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/CompressedImage"
    header: Header = field(default_factory=Header)
    format: string = ""
    data: octets = b""


@dataclass
class RegionOfInterest(Message):
    """Part of the sensor that is read out, pixels."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/RegionOfInterest"
    x_offset: uint32 = 0
    y_offset: uint32 = 0
    height: uint32 = 0
    width: uint32 = 0
    do_rectify: bool_ = False


@dataclass
class CameraInfo(Message):
    """Intrinsics: ``k`` is (3, 3) row-major, ``d`` the lens."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/CameraInfo"
    header: Header = field(default_factory=Header)
    height: uint32 = 0
    width: uint32 = 0
    distortion_model: string = ""
    d: doubles = ()
    k: double9 = (0.0,) * 9
    r: double9 = (0.0,) * 9
    p: double12 = (0.0,) * 12
    binning_x: uint32 = 0
    binning_y: uint32 = 0
    roi: RegionOfInterest = field(default_factory=RegionOfInterest)


@dataclass
class Imu(Message):
    """Orientation of the body (forward, left, up) in east, north, up; a first covariance of -1 says it has none."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/Imu"
    header: Header = field(default_factory=Header)
    orientation: Quaternion = field(default_factory=Quaternion)
    orientation_covariance: double9 = (0.0,) * 9
    angular_velocity: Vector3 = field(default_factory=Vector3)
    angular_velocity_covariance: double9 = (0.0,) * 9
    linear_acceleration: Vector3 = field(default_factory=Vector3)
    linear_acceleration_covariance: double9 = (0.0,) * 9


@dataclass
class NavSatStatus(Message):
    """-1 no fix, 0 a fix; the satellite systems used."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/NavSatStatus"
    status: int8 = 0
    service: uint16 = 0


@dataclass
class NavSatFix(Message):
    """WGS84 position; altitude above the ellipsoid; (3, 3) covariance east, north, up in m^2, row-major."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/NavSatFix"
    header: Header = field(default_factory=Header)
    status: NavSatStatus = field(default_factory=NavSatStatus)
    latitude: float64 = 0.0
    longitude: float64 = 0.0
    altitude: float64 = 0.0
    position_covariance: double9 = (0.0,) * 9
    position_covariance_type: uint8 = 0


@dataclass
class Range(Message):
    """Distance along a sensor's axis, metres, as Humble and Iron define it."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/Range"
    header: Header = field(default_factory=Header)
    radiation_type: uint8 = 0
    field_of_view: float32 = 0.0
    min_range: float32 = 0.0
    max_range: float32 = 0.0
    range: float32 = 0.0


@dataclass
class RangeWithVariance(Message):
    """The same as Jazzy and later define it."""

    ros_name: ClassVar[str] = "sensor_msgs/msg/Range"
    header: Header = field(default_factory=Header)
    radiation_type: uint8 = 0
    field_of_view: float32 = 0.0
    min_range: float32 = 0.0
    max_range: float32 = 0.0
    range: float32 = 0.0
    variance: float32 = 0.0


@dataclass
class KeyValue(Message):
    """One value of a diagnostic."""

    ros_name: ClassVar[str] = "diagnostic_msgs/msg/KeyValue"
    key: string = ""
    value: string = ""


@dataclass
class DiagnosticStatus(Message):
    """How one component is: level 0 ok, 1 warning, 2 error, 3 stale."""

    ros_name: ClassVar[str] = "diagnostic_msgs/msg/DiagnosticStatus"
    level: byte = 0
    name: string = ""
    message: string = ""
    hardware_id: string = ""
    values: list[KeyValue] = field(default_factory=list)


@dataclass
class DiagnosticArray(Message):
    """The components of a node at a time."""

    ros_name: ClassVar[str] = "diagnostic_msgs/msg/DiagnosticArray"
    header: Header = field(default_factory=Header)
    status: list[DiagnosticStatus] = field(default_factory=list)


@dataclass
class TriggerRequest(Message):
    """Request of std_srvs/srv/Trigger as rmw_cyclonedds sends it: who asks and the how many-th time, then nothing."""

    ros_name: ClassVar[str] = "std_srvs/srv/Trigger_Request"
    guid: uint64 = 0
    seq: int64 = 0
    structure_needs_at_least_one_member: uint8 = 0


@dataclass
class TriggerResponse(Message):
    """Its response, with the request's ``guid`` and ``seq`` in front."""

    ros_name: ClassVar[str] = "std_srvs/srv/Trigger_Response"
    guid: uint64 = 0
    seq: int64 = 0
    success: bool_ = False
    message: string = ""
