"""What the report of an export is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cvgl.errors import ModelError
from cvgl.files import sha256_file
from cvgl_train.models.base import View

from .bisect import Bisection
from .latency import Latency
from .parity import Failure, Parity
from .sensitivity import Int8Choice
from .tiles import ParityTiles

__all__ = ["FileFact", "KeptNode", "Layer", "Precision", "ReportData", "Stage"]


@dataclass(frozen=True)
class Layer:
    """A layer, or a node of a graph.

    Args:
        name, kind: of it; the kind is its operator, or what TensorRT calls it.
        precision: that it computes in, as read.
    """

    name: str
    kind: str
    precision: str


@dataclass(frozen=True)
class Precision:
    """In which precision a graph or an engine computes, as it was read from it.

    Args:
        of: which file.
        read_from: where it says so: "types of the ONNX graph", "TensorRT's engine inspector".
        layers: every layer; None where nothing could be read. What was asked for has no place here.
        reason: why nothing could be read.
        counts: number of layers by precision, where layers are not known one by one.

    Raises:
        ModelError: neither layers, nor counts, nor a reason; or a reason beside them.
    """

    of: str
    read_from: str
    layers: tuple[Layer, ...] | None = None
    reason: str | None = None
    counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if (self.layers is None and self.counts is None) != (self.reason is not None):
            raise ModelError(
                "either a precision that was read, or a reason why none was", field=f"precision of {self.of}"
            )

    @property
    def by_precision(self) -> dict[str, int] | None:
        """Number of layers by precision, the most frequent first; None where nothing could be read."""
        if self.layers is not None:
            return dict(Counter(layer.precision for layer in self.layers).most_common())
        return None if self.counts is None else dict(self.counts)


@dataclass(frozen=True)
class KeptNode:
    """A node that stays in FP32 in a graph of less precision.

    Args:
        file: the graph.
        name, op: of the node.
        why: it does.
    """

    file: str
    name: str
    op: str
    why: str


@dataclass(frozen=True)
class FileFact:
    """A file that the export wrote.

    Args:
        name: of it.
        bytes: of it.
        sha256: of its content.
    """

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path, name: str | None = None) -> FileFact:
        """From the file itself."""
        path = Path(path)
        return cls(name or path.name, path.stat().st_size, sha256_file(path))


@dataclass(frozen=True)
class Stage:
    """One engine on the way from PyTorch to TensorRT.

    Args:
        name: such as "ONNX Runtime, FP16".
        read_from: what ran, and how: where all figures of the stage were measured.
        parity: with the original; None for the original itself and for a stage that did not run.
        skipped: why it did not run here; None where it did.
        latency: of single images, by view.
        bytes: size of its files; None where it has none.
        note: what else there is to know.

    Raises:
        ModelError: figures of a stage that did not run.
    """

    name: str
    read_from: str
    parity: Parity | None = None
    skipped: str | None = None
    latency: Mapping[View, Latency] = field(default_factory=dict)
    bytes: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.skipped is not None and (self.parity is not None or self.latency):
            raise ModelError("figures of a stage that did not run", field=self.name, found=self.skipped)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report says.

    Args:
        model: name of what was exported.
        architecture: of it.
        fingerprint: of the bundle, or None before there is one.
        precision: that was asked for.
        descriptor_size: length of a descriptor.
        tiles: that the figures were taken on.
        stages: the original first; the last one that ran is what the export is judged by, and so is every other one.
        precisions: that were achieved, or why none can be told.
        files: that were written.
        versions: of everything that took part.
        machine: where it ran.
        command: that makes this report again.
        kept: nodes that stay in FP32.
        bisections: the searches for such nodes, by network; empty where none was asked for.
        int8: what became of every layer, where some are INT8.
        notes: what else there is to know.
        created: when, ISO 8601.
    """

    model: str
    architecture: str
    precision: str
    descriptor_size: int
    tiles: ParityTiles
    stages: Sequence[Stage]
    precisions: Sequence[Precision]
    files: Sequence[FileFact]
    versions: Mapping[str, str]
    machine: str
    command: str
    fingerprint: str | None = None
    kept: Sequence[KeptNode] = ()
    bisections: Mapping[str, Bisection] = field(default_factory=dict)
    int8: Int8Choice | None = None
    notes: Sequence[str] = ()
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def judged(self) -> list[Stage]:
        """Stages with figures of parity."""
        return [stage for stage in self.stages if stage.parity is not None]

    @property
    def failures(self) -> list[tuple[Stage, Failure]]:
        """Of every stage."""
        return [
            (stage, failure) for stage in self.stages if stage.parity is not None for failure in stage.parity.failures
        ]

    @property
    def passed(self) -> bool:
        """Whether something was compared at all, and all of it passed."""
        return bool(self.judged) and not self.failures

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        if not self.judged:
            return "Nothing was compared, so nothing is proven."
        last = self.judged[-1].name
        absent = [stage.name for stage in self.stages if stage.skipped is not None]
        rest = f" Not run here: {', '.join(absent)}." if absent else ""
        if self.passed:
            share = "" if self.int8 is None else f" {self.int8.words}"
            return f"{last} is the same model, by every threshold.{share}{rest}"
        count = len(self.failures)
        return f"Not the same model: {count} threshold{'s' if count > 1 else ''} not reached.{rest}"
