"""Messages of ROS 2 as what the SDK wants, by the fields of their standard definitions and without ROS: images,
telemetry, and recordings of both."""
