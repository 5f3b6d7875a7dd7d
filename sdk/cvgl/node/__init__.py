"""What every node that localises a live camera has, whatever carries its messages: telemetry by time, the newest frame
first, one thread that answers, and what is told about it. The ROS 2 bridge and the MAVLink bridge stand on it."""
