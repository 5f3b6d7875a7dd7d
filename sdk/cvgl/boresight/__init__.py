"""The camera from a flight: focal length and mount from refined fixes and the GNSS that was recorded beside them."""

from cvgl.boresight.fit import Calibration, Change, calibrate_camera
from cvgl.boresight.solve import Estimate, Solution

__all__ = ["Calibration", "Change", "Estimate", "Solution", "calibrate_camera"]
