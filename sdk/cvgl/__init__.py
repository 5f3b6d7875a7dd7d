"""cvgl: where is this aircraft, from its camera and a satellite map it carries.

>>> import cvgl
>>> localizer = cvgl.Localizer.open("mission")
>>> fix = localizer.locate(cvgl.Frame(image, time=t, height=121.0, heading=152.3))
>>> if fix: print(fix.latitude, fix.longitude, fix.sigma_m)
"""

from __future__ import annotations

from cvgl import native as _native  # first: says in one sentence what is wrong where the compiled core is missing
from cvgl.camera import Camera
from cvgl.errors import CvglError
from cvgl.fix import Alternative, Candidate, Fix, FixStatus, ReasonCode
from cvgl.frame import Frame, Prior
from cvgl.gallery import Gallery
from cvgl.localizer import Localizer
from cvgl.model import Model

__all__ = [
    "Alternative",
    "Camera",
    "Candidate",
    "CvglError",
    "Fix",
    "FixStatus",
    "Frame",
    "Gallery",
    "Localizer",
    "Model",
    "Prior",
    "ReasonCode",
]

del _native
