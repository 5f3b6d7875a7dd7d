"""ROS 2 over the cvgl SDK: images in, position fixes out.

Only ``cvgl_ros.node`` needs ROS; everything else here is plain Python and is tested without it.
"""
