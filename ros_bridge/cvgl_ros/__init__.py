"""ROS 2 node over the cvgl SDK."""
