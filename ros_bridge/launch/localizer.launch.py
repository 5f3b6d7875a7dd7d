"""Start the localiser for one mission.

ros2 launch cvgl_ros localizer.launch.py mission:=/path/to/MISSION altitude_sigma_m:=5.0 image:=/camera/image
"""

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

TOPICS = ("image", "heading", "height", "altitude")


def generate_launch_description() -> LaunchDescription:
    """Arguments: the mission, the altitude's accuracy, a parameter file, and the topics to listen to."""
    share = get_package_share_directory("cvgl_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument("mission", description="mission folder that cvgl-prepare made"),
            DeclareLaunchArgument("altitude_sigma_m", description="1 sigma of the altitude, metres"),
            DeclareLaunchArgument("params", default_value=f"{share}/config/localizer.yaml"),
            *(DeclareLaunchArgument(topic, default_value=topic) for topic in TOPICS),
            Node(
                package="cvgl_ros",
                executable="localizer",
                name="localizer",
                output="screen",
                parameters=[
                    LaunchConfiguration("params"),
                    {
                        "mission": LaunchConfiguration("mission"),
                        "altitude_sigma_m": ParameterValue(LaunchConfiguration("altitude_sigma_m"), value_type=float),
                    },
                ],
                remappings=[(topic, LaunchConfiguration(topic)) for topic in TOPICS],
            ),
        ]
    )
