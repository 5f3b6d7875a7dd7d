"""Which local features a mission uses, and the networks that a user supplied for them."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cvgl.errors import MissionError
from cvgl.features.detect import DETECTORS, xfeat
from cvgl.features.match import lighterglue
from cvgl.features.refiner import FeatureRefiner
from cvgl.files import sha256_file

__all__ = ["FeatureChoice", "FeatureFiles", "NetworkFile", "open_refiner"]

_XFEAT, _LIGHTERGLUE = "xfeat", "lighterglue"
_XFEAT_RATIO = 0.9
_FOLDER = "features"


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
        networks = {name: _network(data.get(name), name, file) for name in (_XFEAT, _LIGHTERGLUE)}
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


@dataclass(frozen=True)
class FeatureFiles:
    """Local features for a mission that is to be made.

    Args:
        detector: ``akaze``, ``orb``, ``sift``, or ``xfeat``.
        xfeat: the network of XFeat (ONNX), wherever it lies.
        lighterglue: a matcher for XFeat's descriptors (ONNX), or None for nearest neighbours.

    Raises:
        MissionError: an unknown detector, or networks that do not go with it.
    """

    detector: str = FeatureChoice.detector
    xfeat: Path | None = None
    lighterglue: Path | None = None

    def __post_init__(self) -> None:
        kinds = (*DETECTORS, _XFEAT)
        if self.detector not in kinds:
            expected = " or ".join(kinds)
            raise MissionError("not usable", field="features", found=self.detector, expected=expected)
        if (self.detector == _XFEAT) != (self.xfeat is not None):
            raise MissionError("a network goes with xfeat, and with nothing else", field=_XFEAT, found=self.detector)
        if self.detector != _XFEAT and self.lighterglue is not None:
            message = "it matches the descriptors of XFeat alone"
            raise MissionError(message, field=_LIGHTERGLUE, found=self.detector, expected=_XFEAT)

    @property
    def networks(self) -> dict[str, Path]:
        """The files, by what they are."""
        named = {_XFEAT: self.xfeat, _LIGHTERGLUE: self.lighterglue}
        return {name: path for name, path in named.items() if path is not None}

    def to_dict(self) -> dict[str, str]:
        """The detector, and SHA-256 of each network.

        Raises:
            ModelError: a file is absent, or is another network.
        """
        _open(self.detector, self.xfeat, self.lighterglue, 1)
        return {"detector": self.detector, **{name: sha256_file(path) for name, path in self.networks.items()}}

    def carry(self, folder: Path) -> FeatureChoice:
        """Copy the networks into a mission's folder; what its description says of them."""
        carried = {}
        for name, path in self.networks.items():
            file = f"{_FOLDER}/{name}.onnx"
            (folder / _FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(path, folder / file)
            carried[name] = NetworkFile.of(folder, file)
        return FeatureChoice(self.detector, **carried)


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
    if choice.detector != _XFEAT:
        return _open(choice.detector, None, None, threads)
    files = {
        name: None if network is None else _checked(network, name, folder)
        for name, network in ((_XFEAT, choice.xfeat), (_LIGHTERGLUE, choice.lighterglue))
    }
    return _open(choice.detector, files[_XFEAT], files[_LIGHTERGLUE], threads)


def _open(detector: str, network: Path | None, matcher: Path | None, threads: int) -> FeatureRefiner:
    if network is None:
        return FeatureRefiner(DETECTORS[detector]())
    found = xfeat(network, threads)
    if matcher is None:
        # As it comes it matches by similarity alone, and pictures without structure are similar everywhere.
        return FeatureRefiner(replace(found, least_cosine=-1.0, ratio=_XFEAT_RATIO))
    return FeatureRefiner(found, lighterglue(matcher, threads))


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
