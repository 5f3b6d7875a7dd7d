"""What the node reports about itself, as the fields of ``diagnostic_msgs/DiagnosticStatus``."""

from __future__ import annotations

from dataclasses import dataclass

from cvgl.fix import Fix

__all__ = ["Health"]

OK, WARN = 0, 1


@dataclass
class Health:
    """Counts since the node started, and how the last frame went."""

    frames: int = 0
    fixes: int = 0
    refused: int = 0
    message: str = "no frame yet"
    level: int = WARN
    latency_ms: float = float("nan")
    sigma_m: float = float("nan")

    def answered(self, fix: Fix) -> None:
        """A frame went through the localiser."""
        self.frames += 1
        self.fixes += bool(fix)
        self.latency_ms = fix.latency_ms
        self.sigma_m = fix.sigma_m if fix else float("nan")
        self.level = OK if fix else WARN
        self.message = fix.status.value + (f": {fix.reason}" if fix.reason else "")

    def refuse(self, reason: str) -> None:
        """A frame or an answer could not be used."""
        self.refused += 1
        self.level = WARN
        self.message = reason

    def values(self, dropped: int) -> dict[str, str]:
        """Key-value pairs; ``dropped`` frames were replaced by newer ones before their turn."""
        return {
            "frames": str(self.frames),
            "fixes": str(self.fixes),
            "refused": str(self.refused),
            "dropped": str(dropped),
            "latency_ms": f"{self.latency_ms:.1f}",
            "sigma_m": f"{self.sigma_m:.2f}",
        }
