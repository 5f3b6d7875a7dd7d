"""A mission: the folder that is copied to the drone, with everything that localisation needs.

``mission.json``, ``camera.yaml``, ``model.cvgl/``, ``area.gallery/`` and, where it was given one, ``terrain/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvgl.camera import Camera
from cvgl.errors import MissionError
from cvgl.features.choice import FeatureChoice
from cvgl.files import read_json, write_json
from cvgl.settings import Decision, Settings
from cvgl.terrain import Terrain

__all__ = ["CAMERA", "GALLERY", "MISSION", "MODEL", "TERRAIN", "Mission", "write_mission_file"]

MISSION = "mission.json"
CAMERA = "camera.yaml"
MODEL = "model.cvgl"
GALLERY = "area.gallery"
TERRAIN = "terrain"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Mission:
    """What ``mission.json`` and ``camera.yaml`` say.

    Args:
        path: the folder.
        camera: the drone's camera.
        height_m: planned height above ground, metres.
        settings: how frames are localised.
        decision: when a fix is believed.
        record: how the mission was made (free form).
        features: the local features that it uses, where its settings say so.
        terrain: height of the ground; None where the mission carries none.
    """

    path: Path
    camera: Camera
    height_m: float
    settings: Settings
    decision: Decision
    record: dict[str, Any]
    features: FeatureChoice = field(default_factory=FeatureChoice)
    terrain: Terrain | None = None

    @classmethod
    def open(cls, path: str | Path) -> Mission:
        """Read a mission's description; model and gallery are opened by their own classes.

        Raises:
            MissionError: no such folder, no mission in it, a field that cannot be used, or a damaged terrain.
            CameraError: ``camera.yaml`` cannot be used.
        """
        path = Path(path)
        if not path.is_dir():
            raise MissionError("no such mission folder", file=path)
        file = path / MISSION
        data = read_json(file, MissionError)
        version = data.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= _FORMAT_VERSION:
            expected = f"1 to {_FORMAT_VERSION}; a newer cvgl reads newer missions"
            raise MissionError("not readable", file=file, field="format_version", found=version, expected=expected)
        height = data.get("height_m")
        if not isinstance(height, (int, float)) or isinstance(height, bool) or not height > 0:
            raise MissionError("not usable", file=file, field="height_m", found=height, expected="metres above 0")
        record = data.get("record", {})
        return cls(
            path=path,
            camera=Camera.from_yaml(path / CAMERA),
            height_m=float(height),
            settings=Settings.from_dict(data.get("settings", {}), file),
            decision=Decision.from_dict(data.get("decision", {}), file),
            record=record if isinstance(record, dict) else {},
            features=FeatureChoice.from_dict(data.get("features", {}), file),
            terrain=_open_terrain(path / TERRAIN),
        )


def _open_terrain(path: Path) -> Terrain | None:
    if not path.exists():
        return None
    return Terrain.open(path)


def write_mission_file(
    folder: Path,
    height_m: float,
    settings: Settings,
    decision: Decision,
    record: dict[str, Any],
    features: FeatureChoice | None = None,
) -> None:
    """Write ``mission.json`` atomically."""
    write_json(
        folder / MISSION,
        {
            "format_version": _FORMAT_VERSION,
            "height_m": height_m,
            "settings": settings.to_dict(),
            "decision": decision.to_dict(),
            "features": (features or FeatureChoice()).to_dict(),
            "record": record,
        },
    )
