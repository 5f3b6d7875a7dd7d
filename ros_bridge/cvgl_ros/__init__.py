"""ROS 2 over the cvgl SDK: images in, position fixes out.

Only ``cvgl_ros.rclpy_node`` needs ROS, and only ``cvgl_ros.dds`` the package ``cyclonedds``; all else is plain Python.
"""
