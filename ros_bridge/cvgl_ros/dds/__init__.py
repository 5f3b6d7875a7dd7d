"""The bridge on a DDS bus without ROS, seen by every ROS 2 graph in its domain."""
