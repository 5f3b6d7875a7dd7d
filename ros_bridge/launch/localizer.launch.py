"""Start the localiser for one mission, and bring it to its active state.

ros2 launch cvgl_ros localizer.launch.py mission:=/path/to/MISSION params:=/path/to/localizer.yaml image:=/camera/image
"""

import lifecycle_msgs.msg
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState

TOPICS = ("image", "camera_info", "imu", "odometry", "range", "heading", "height", "altitude", "prior", "prior_pose")
TOPICS += ("trigger",)


def generate_launch_description() -> LaunchDescription:
    """Arguments: the mission, a parameter file, the namespace, and the topics to listen to."""
    share = get_package_share_directory("cvgl_ros")
    node = LifecycleNode(
        package="cvgl_ros",
        executable="localizer",
        name="localizer",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[LaunchConfiguration("params"), {"mission": LaunchConfiguration("mission")}],
        remappings=[
            *((topic, LaunchConfiguration(topic)) for topic in TOPICS),
            ("image/compressed", LaunchConfiguration("image_compressed")),
        ],
    )
    automatic = IfCondition(LaunchConfiguration("autostart"))
    configure = EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(node),
            transition_id=lifecycle_msgs.msg.Transition.TRANSITION_CONFIGURE,
        ),
        condition=automatic,
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[
                EmitEvent(
                    event=ChangeState(
                        lifecycle_node_matcher=matches_action(node),
                        transition_id=lifecycle_msgs.msg.Transition.TRANSITION_ACTIVATE,
                    )
                )
            ],
        ),
        condition=automatic,
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("mission", description="mission folder that cvgl-prepare made"),
            DeclareLaunchArgument("params", default_value=f"{share}/config/localizer.yaml"),
            DeclareLaunchArgument("namespace", default_value=""),
            DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at once"),
            *(DeclareLaunchArgument(topic, default_value=topic) for topic in TOPICS),
            DeclareLaunchArgument("image_compressed", default_value="image/compressed"),
            node,
            activate,
            configure,
        ]
    )
