"""Which local features a mission uses, and the networks that a user supplied for them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cvgl.errors import MissionError
from cvgl.features.detect import DETECTORS, xfeat
from cvgl.features.match import lighterglue
from cvgl.features.refiner import FeatureRefiner
from cvgl.files import sha256_file

__all__ = ["FeatureChoice", "NetworkFile", "open_refiner"]

_XFEAT = "xfeat"
_XFEAT_RATIO = 0.9


@dataclass(frozen=True)
class NetworkFile:
    """A network beside a mission's description.

    Args:
        file: relative to the mission's folder.
        sha256: of its content, hexadecimal.
    """

    file: str
    sha256: str

    @classmethod
    def of(cls, folder: Path, file: str) -> NetworkFile:
        """The file as it lies in a mission's folder now."""
        return cls(file, sha256_file(folder / file))


@dataclass(frozen=True)
class FeatureChoice:
    """The section ``features`` of ``mission.json``.

    Args:
        detector: ``akaze``, ``orb``, ``sift`` (OpenCV's), or ``xfeat``, for which ``xfeat`` has to be given.
        xfeat: the network of XFeat.
        lighterglue: a matcher for XFeat's descriptors; without it they are matched by nearest neighbours.
    """

    detector: str = "akaze"
    xfeat: NetworkFile | None = None
    lighterglue: NetworkFile | None = None

    @classmethod
    def from_dict(cls, data: Any, file: Path) -> FeatureChoice:
        """The choice of a mission; what is absent keeps its default.

        Raises:
            MissionError: an unknown name, an unusable value, or a network that the detector needs and none names.
        """
        if not isinstance(data, dict):
            raise MissionError("not usable", file=file, field="features", found=data, expected="an object")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in data:
            if name not in names:
                raise MissionError("unknown", file=file, field=f"features.{name}", expected=", ".join(names))
        kinds = (*DETECTORS, _XFEAT)
        detector = data.get("detector", cls.detector)
        if detector not in kinds:
            expected = " or ".join(kinds)
            raise MissionError("not usable", file=file, field="features.detector", found=detector, expected=expected)
        networks = {name: _network(data.get(name), name, file) for name in (_XFEAT, "lighterglue")}
        choice = cls(detector, **networks)
        if detector == _XFEAT and choice.xfeat is None:
            raise MissionError("no network is named", file=file, field="features.xfeat", expected="file and sha256")
        if detector != _XFEAT and choice.lighterglue is not None:
            message = "it matches the descriptors of XFeat alone"
            raise MissionError(message, file=file, field="features.lighterglue", found=detector, expected=_XFEAT)
        return choice

    def to_dict(self) -> dict[str, Any]:
        """What stands in ``mission.json``."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def open_refiner(choice: FeatureChoice, folder: Path, threads: int) -> FeatureRefiner:
    """The refiner of a mission.

    Args:
        choice: of the mission.
        folder: the mission's.
        threads: of a network.

    Raises:
        MissionError: a network's file is absent or another than the mission was made with.
        ModelError: a file does not load, or is another network.
    """
    if choice.xfeat is None or choice.detector != _XFEAT:
        return FeatureRefiner(DETECTORS[choice.detector]())
    detector = xfeat(_checked(choice.xfeat, _XFEAT, folder), threads)
    if choice.lighterglue is None:
        # As it comes it matches by similarity alone, and pictures without structure are similar everywhere.
        return FeatureRefiner(replace(detector, least_cosine=-1.0, ratio=_XFEAT_RATIO))
    return FeatureRefiner(detector, lighterglue(_checked(choice.lighterglue, "lighterglue", folder), threads))


def _network(data: Any, name: str, file: Path) -> NetworkFile | None:
    if data is None:
        return None
    usable = (
        isinstance(data, dict) and set(data) == {"file", "sha256"} and all(isinstance(v, str) for v in data.values())
    )
    # A mission is one folder: what it needs lies in it.
    if usable and not PurePosixPath(data["file"]).is_absolute() and ".." not in PurePosixPath(data["file"]).parts:
        return NetworkFile(**data)
    expected = "file (relative to the mission) and sha256"
    raise MissionError("not usable", file=file, field=f"features.{name}", found=data, expected=expected)


def _checked(network: NetworkFile, name: str, folder: Path) -> Path:
    path = folder / network.file
    if not path.is_file():
        raise MissionError("no such file: the mission names it", file=path, field=f"features.{name}.file")
    found = sha256_file(path)
    if found != network.sha256:
        message = "another file than the mission was made with"
        raise MissionError(message, file=path, field=f"features.{name}.sha256", found=found, expected=network.sha256)
    return path
