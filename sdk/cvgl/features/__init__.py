"""Local features: a second way to place a frame on the map, and what it says for or against a place."""

from __future__ import annotations

from .choice import FeatureChoice, FeatureFiles, NetworkFile, open_refiner
from .detect import DETECTORS, Detector, Features, akaze, orb, sift, xfeat
from .match import lighterglue, match_nearby
from .plausible import PlanePose, implausible, plane_pose, pose_noise
from .refiner import FeatureMatch, FeatureRefiner

__all__ = [
    "DETECTORS",
    "Detector",
    "FeatureChoice",
    "FeatureFiles",
    "FeatureMatch",
    "FeatureRefiner",
    "Features",
    "NetworkFile",
    "PlanePose",
    "akaze",
    "implausible",
    "lighterglue",
    "match_nearby",
    "open_refiner",
    "orb",
    "plane_pose",
    "pose_noise",
    "sift",
    "xfeat",
]
