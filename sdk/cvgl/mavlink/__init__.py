"""Fixes for autopilots over MAVLink 2: PX4 and ArduPilot, by UDP or a serial line. Needs the extra ``mavlink``."""
