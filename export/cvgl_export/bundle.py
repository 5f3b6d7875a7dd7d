"""A network to a model bundle and an engine, neither of which appears unless it is the same model still."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvgl.engines.onnxruntime import OnnxEngine
from cvgl.engines.sidecar import publish_engine, sidecar_path
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.model import View as BundleView
from cvgl.model import write_bundle
from cvgl.versions import versions
from cvgl_train.models.base import View

from .bisect import Bisection, bisect, parity_check
from .calibration import Calibration
from .descriptors import Descriptors
from .graphs.floats import Kind
from .graphs.half import half_graph, half_weights, underflowed
from .graphs.quantise import CalibrationKind
from .graphs.types import describe_types, fp32_nodes
from .graphs.work import layer_types
from .latency import Latency, latency, processor
from .parity import COLLAPSED, Parity, Thresholds, compare
from .report import PAGE, REPORT, write_report
from .report_data import FileFact, KeptNode, Layer, Precision, ReportData, Stage
from .running import Run, describe, onnx_descriptors, torch_descriptors
from .sensitivity import Int8Choice, Network, agreement_budget, choose_int8, likely_budget, quantised_networks
from .source import VIEWS, Source
from .tiles import ParityTiles

if TYPE_CHECKING:
    from .tensorrt import EngineOptions, EngineReport

__all__ = ["Asked", "ExportOptions", "Exported", "export_bundle"]

Asked = Literal["fp32", "fp16", "bf16", "int8"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

# What takes part, by the names it may be installed under: TensorRT's wheels carry that of their CUDA.
_DISTRIBUTIONS = {
    **{name: (name,) for name in ("torch", "onnx", "onnxscript", "pycuda")},
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
}
_BATCH = 16
_BISECTION_IMAGES = 4
_SECONDS_OF_TIMING, _LEAST_RUNS, _MOST_RUNS = 3.0, 5, 100


@dataclass(frozen=True)
class ExportOptions:
    """How a network is written.

    Args:
        precision: of the graph and of the engine made from it. "fp32" stores large weights as halves where they fit,
            and computes in float32: what flies on a CPU. "int8" leaves in float16 what is not quantised: what cannot
            be, and the layers that `choose_int8` finds to do most harm.
        batch: the only batch size; None for any.
        keep: names of nodes that stay in float32, or, for int8, unquantised.
        bisect: where a halved graph fails, find the nodes that have to stay in float32, and keep them so. Not for
            int8, whose layers are always chosen, and never on the tiles that judge.
        calibration: how int8's ranges follow from images, see `quantised`.
        held_agreement: share of the queries held back that have to find the same tile in int8; by default what makes
            the judged threshold likely, see `likely_budget`.
        thresholds: to be reached; by default the precision's own, `Thresholds.of`.

    Raises:
        ModelError: `bisect` with int8, or a share that is none.
    """

    precision: Asked = "fp16"
    batch: int | None = None
    keep: tuple[str, ...] = ()
    bisect: bool = False
    calibration: CalibrationKind = "entropy"
    held_agreement: float | None = None
    thresholds: Thresholds | None = None

    def __post_init__(self) -> None:
        if self.bisect and self.precision == "int8":
            raise ModelError(
                "int8 chooses its layers by itself, on tiles that do not judge it",
                field="bisect",
                expected="--held-agreement, which makes it leave more of them in FP16",
            )
        if self.held_agreement is not None and not 0 <= self.held_agreement <= 1:
            raise ModelError("not a share", field="held_agreement", found=self.held_agreement, expected="0 to 1")


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Args:
        path: of the bundle.
        fingerprint: of the model in it.
        parities: of every stage with the network it came from, by the stage's name.
        kept: nodes that the bisection keeps in float32, by network.
        engines: built, by network.
        int8: what became of every layer; None for other precisions.
    """

    path: Path
    fingerprint: str
    parities: Mapping[str, Parity]
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engines: Mapping[str, EngineReport] = field(default_factory=dict)
    int8: Int8Choice | None = None


def export_bundle(
    source: Source,
    path: str | Path,
    tiles: ParityTiles,
    options: ExportOptions | None = None,
    *,
    gsd_m: float | None = None,
    name: str | None = None,
    record: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    engine: str | Path | None = None,
    engine_options: EngineOptions | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Write a bundle, and an engine where one is asked for, after comparing each stage with the network itself.

    The bundle holds its own proof: ``report.json`` and ``report.html``. Where a stage fails there is no bundle and no
    engine, and the report is left in ``NAME.failed/``.

    Args:
        source: from `open_source`.
        path: of the bundle.
        tiles: to compare on.
        options: by default FP16, any batch.
        gsd_m: ground sampling distance that the network was trained for, m/px; by default what the source says.
        name: of the model; by default the bundle's.
        record: how it was trained; by default what the source says.
        calibration: tiles for int8, which needs them: others than `tiles`, see `calibrated_tiles`.
        engine: of the query's TensorRT plan; where the views do not share a network, the reference's gets
            ``.reference`` before its suffix. Copies lie in the bundle, where the SDK finds them by itself.
        engine_options: how it is built.
        command: that repeats this, for the report.
        progress: told how far it is.

    Raises:
        ModelError: a stage differs from the network by more than the thresholds allow; the graph cannot be written;
            int8 without tiles to calibrate with, or with some of those that judge.
        MissingDependencyError: an engine is asked for where none can be built. The bundle has been written then.
    """
    path, options = Path(path), options or ExportOptions()
    if options.precision == "int8":
        if calibration is None:
            raise ModelError("int8 needs tiles to calibrate with", field="calibration", expected="`calibrated_tiles`")
        calibration.check(tiles)
    export = _Export(source, path, tiles, options, calibration, command, progress)
    distance = source.gsd_m if gsd_m is None else gsd_m
    known = source.record if record is None else record
    return export.run(distance, name or path.stem, known, None if engine is None else Path(engine), engine_options)


class _Export:
    def __init__(
        self,
        source: Source,
        path: Path,
        tiles: ParityTiles,
        options: ExportOptions,
        calibration: Calibration | None,
        command: str,
        progress: Progress | None,
    ) -> None:
        self.source, self.path, self.tiles, self.options = source, path, tiles, options
        self.calibration, self.command = calibration, command
        self.tell: Progress = progress or (lambda what, done, total: None)
        self.parities: dict[str, Parity] = {}
        self.stages: list[Stage] = []
        self.precisions: list[Precision] = []
        self.wide: list[KeptNode] = []
        self.files: dict[str, Path] = {}
        self.lost: dict[str, int] = {}
        self.opset = 0
        self.int8: Int8Choice | None = None
        self.engines: dict[str, EngineReport] = {}
        self.targets: dict[str, Path] = {}
        self.bisections: dict[str, Bisection] = {}
        self.kept: dict[str, tuple[str, ...]] = {}

    def run(
        self,
        gsd_m: float | None,
        name: str,
        record: Mapping[str, Any],
        engine: Path | None,
        engine_options: EngineOptions | None,
    ) -> Exported:
        with tempfile.TemporaryDirectory() as scratch:
            plain, typed, proof = (Path(scratch) / folder for folder in ("fp32", "typed", "report"))
            plain.mkdir()
            typed.mkdir()
            self.tell("writing the graph", 0, 1)
            graphs = self.source.write_graphs(plain, self.options.batch)
            self._check_names(graphs)
            self._original(graphs)
            if self.source.model is not None:
                self._onnx("ONNX Runtime, fp32", graphs, Thresholds.of("fp32"))
            self.files, precision = self._typed(graphs, typed)
            self._onnx(f"ONNX Runtime, {precision}", self.files, self._thresholds)

            def write(target: Path, files: Mapping[str, Path]) -> str:
                return write_bundle(
                    target,
                    name=name,
                    architecture=self.source.architecture,
                    descriptor_size=self.source.descriptor_size,
                    views={view: view_of(self.source, view, gsd_m) for view in VIEWS},
                    files=files,
                    precision=precision,
                    opset=self.opset,
                    training={**record, "export": self._summary()},
                )

            # Written once to know its fingerprint, by which engine and report name it.
            fingerprint = write(Path(scratch) / "bundle", self.files)
            missing = None
            if engine is None:
                self.stages.append(Stage("TensorRT", "", skipped="no engine was asked for (--engine PATH)"))
            else:
                try:
                    self._engines(Path(scratch) / "engines", engine, engine_options, fingerprint)
                except MissingDependencyError as reason:
                    # Everything else is done, and worth having.
                    missing = reason
                    self.stages.append(Stage("TensorRT", "", skipped=str(reason)))
            write_report(proof, self._report(name, fingerprint))
            write(self.path, {**self.files, **{file.name: file for file in sorted(proof.iterdir())}})
            self._forget_failure()
            # Last, since writing a bundle replaces the whole folder.
            for file, report in self.engines.items():
                _place(report.path, self.path / report.path.name)
                _place(report.path, self.targets[file])
                self.engines[file] = replace(report, path=self.targets[file])
        if missing is not None:
            raise missing
        return Exported(self.path, fingerprint, self.parities, self.kept, self.engines, self.int8)

    def _engines(self, folder: Path, path: Path, options: EngineOptions | None, fingerprint: str) -> None:
        """A plan of every network in `folder`, each compared with the network it came from before it appears."""
        from cvgl.engines.tensorrt import TensorRTEngine

        from .tensorrt import build_engine

        for name, file in self.files.items():
            views = [view for view in VIEWS if self.source.file_of(view) == name]
            self.targets[name] = path if "query" in views else path.with_suffix(f".reference{path.suffix}")
            # The name under which the SDK finds it in the bundle.
            built = folder / Path(name).with_suffix(".engine")

            def check(plan: Path, views: list[View] = views, name: str = name) -> None:
                with closing(TensorRTEngine(plan, fingerprint=fingerprint)) as engine:
                    made = {"query": self.original.query, "reference": self.original.reference}
                    for view in views:
                        tell = self._of(f"TensorRT, {view}")
                        batch = engine.batch or _BATCH
                        made[view] = describe(engine.run, self.tiles, view, batch=batch, progress=tell)
                    times = {view: self._time(engine.run, view, engine.description, engine.batch) for view in views}
                found = Descriptors(made["query"], made["reference"], engine.description)
                self._judge(f"TensorRT, {name}", found, self._thresholds, engine.description, times, [plan])

            report = build_engine(
                file,
                built,
                options,
                fingerprint=fingerprint,
                views=views,
                precision=self.options.precision,
                check=check,
            )
            self.engines[name] = report
            layers = tuple(Layer(layer.name, layer.kind, layer.precision) for layer in report.achieved.layers)
            self.precisions.append(Precision(built.name, "TensorRT's engine inspector", layers))

    @property
    def _thresholds(self) -> Thresholds:
        return self.options.thresholds or Thresholds.of(self.options.precision)

    def _original(self, graphs: Mapping[str, Path]) -> None:
        """Descriptors by the source itself, against which everything is held."""
        model = self.source.model
        if model is None:
            words = "ONNX Runtime, the bundle as it was"
            self.original = self._embed(graphs, words)
            self.stages.append(Stage(words, self.original.engine, bytes=_size(graphs.values())))
            return
        import torch

        words = f"PyTorch {torch.__version__}, cpu, {torch.get_num_threads()} threads"
        found = {
            view: torch_descriptors(model, self.tiles, view, progress=self._of(f"PyTorch, {view}")) for view in VIEWS
        }
        self.original = Descriptors(found["query"], found["reference"], words)
        self.stages.append(Stage("PyTorch", words))

    def _embed(self, files: Mapping[str, Path], engine: str) -> Descriptors:
        found = {
            view: onnx_descriptors(
                files[self.source.file_of(view)], self.tiles, view, progress=self._of(f"{engine}, {view}")
            )
            for view in VIEWS
        }
        return Descriptors(found["query"], found["reference"], engine)

    def _onnx(self, name: str, files: Mapping[str, Path], thresholds: Thresholds) -> None:
        """Run graphs as they say they are to be run, judge them, and time them as a drone without a GPU runs them."""
        import onnxruntime

        found = self._embed(files, name)
        times, note = {}, ""
        if self.options.precision == "bf16" and files is self.files:
            note = (
                "ONNX Runtime on a CPU does not run bfloat16: every rounding was emulated in float32, no time was taken"
            )
        else:
            for view in VIEWS:
                engine = OnnxEngine(files[self.source.file_of(view)])
                times[view] = self._time(engine.run, view, engine.description, engine.batch)
            if self.options.precision in ("fp16", "int8") and files is self.files:
                note = "descriptors with every rounding as on a GPU; times as ONNX Runtime's CPU kernels have it"
        ran = f"ONNX Runtime {onnxruntime.__version__}, CPU"
        self._judge(name, found, thresholds, ran, times, list(files.values()), note)

    def _judge(
        self,
        name: str,
        found: Descriptors,
        thresholds: Thresholds,
        ran: str,
        times: Mapping[View, Latency],
        files: Sequence[Path],
        note: str = "",
    ) -> None:
        parity = compare(self.original, found, self.tiles.truth, thresholds)
        self.parities[name] = parity
        self.stages.append(Stage(name, ran, parity, latency=times, bytes=_size(files), note=note))
        if not parity:
            write_report(self._failed, self._report(self.path.stem, None))
            failures = "; ".join(map(str, parity.failures))
            where = self._failed / PAGE
            raise ModelError(f"not the same model any more: {failures}; see {where}", file=self.path, field=name)

    @property
    def _failed(self) -> Path:
        """Where the report of an export that failed is left."""
        name = self.path.name.removesuffix(".cvgl")
        return self.path.with_name(f"{name}.failed")

    def _forget_failure(self) -> None:
        """Of an earlier attempt, whose report would contradict the bundle beside it."""
        for name in (REPORT, PAGE):
            (self._failed / name).unlink(missing_ok=True)
        with suppress(OSError):  # not there, or something of the user's is in it
            self._failed.rmdir()

    def _time(self, run: Run, view: View, engine: str, batch: int | None) -> Latency:
        """Of one image, or of as many as the network insists on."""
        images = self.tiles.batch(view, 0, 1).repeat(batch or 1, axis=0)
        first = latency(run, images, engine=engine, runs=1, warm_up=1)
        runs = int(np.clip(_SECONDS_OF_TIMING * 1e3 / max(first.p50_ms, 1e-3), _LEAST_RUNS, _MOST_RUNS))
        return latency(run, images, engine=engine, runs=runs, warm_up=min(runs // 5, 5))

    def _note(self, name: str, graph: Any) -> None:
        """What a graph computes in, read from its types, and what else the bundle says of it."""
        counts: Counter[str] = Counter()
        for found in describe_types(graph).values():
            counts += found
        self.precisions.append(Precision(name, "types of the ONNX graph", counts=dict(counts.most_common())))
        if self.options.precision != "fp32":
            self.wide += [KeptNode(name, node, op, why) for node, op, why in fp32_nodes(graph)]
        self.opset = max(self.opset, *(entry.version for entry in graph.opset_import))
        lost = underflowed(graph)
        if lost:
            self.lost[name] = lost

    def _summary(self) -> dict[str, Any]:
        """The proof in a few figures, for the manifest; all of it is in the report."""
        summary: dict[str, Any] = {"tiles": self.tiles.fingerprint, "queries": len(self.tiles)}
        for name, parity in self.parities.items():
            figures = {"cosine_median": parity.cosine_median, "cosine_minimum": parity.cosine_minimum}
            if parity.retrieval is not None:
                figures["top_1_agreement"] = parity.retrieval.agreement
            summary[name] = {key: round(value, 7) for key, value in figures.items()}
        if self.int8 is not None:
            summary["int8_share_of_multiply_adds"] = round(self.int8.share, 4)
        return summary

    def _report(self, name: str, fingerprint: str | None) -> ReportData:
        notes = [f"Made from {self.source.path.name}, SHA-256 or fingerprint {self.source.sha256[:16]}."]
        if self.source.metric != "cosine":
            notes.append(
                f"The method itself compares by {self.source.metric} distance; bundles and galleries compare directions"
                " only, and so does this report."
            )
        for file, graph_note in self.lost.items():
            notes.append(f"{file}: {graph_note} weights are too small for half precision and became 0.")
        if any(parity.spread < COLLAPSED for parity in self.parities.values()):
            notes.append(
                "The network gives much the same descriptor for every tile (see the spread): that two engines agree on"
                " it proves little. Is it trained?"
            )
        engines = [report.path for report in self.engines.values()]
        return ReportData(
            model=name,
            architecture=self.source.architecture,
            precision=self.options.precision,
            descriptor_size=self.source.descriptor_size,
            tiles=self.tiles,
            stages=self.stages,
            precisions=self.precisions,
            files=[FileFact.of(path) for path in [*self.files.values(), *engines]],
            versions=_versions(),
            machine=processor(),
            command=self.command,
            fingerprint=fingerprint,
            kept=self.wide,
            bisections=self.bisections,
            int8=self.int8,
            notes=notes,
        )

    def _typed(self, graphs: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], str]:
        """The graphs in the precision asked for, and what to call it."""
        import onnx

        made, label = {}, str(self.options.precision)
        networks = self._networks(graphs) if self.options.precision == "int8" else {}
        for name, path in graphs.items():
            self.tell(f"{name} in {self.options.precision}", 0, 1)
            if self.int8 is not None:
                graph = networks.pop(name).graph(self.int8.names(name))
                self.int8 = self.int8.read(name, layer_types(graph))
            elif self.options.precision == "fp32":
                graph, stored = _smaller(onnx.load(str(path)))
                label = "fp32, weights stored as fp16" if stored else "fp32"
            else:
                graph = self._halved(name, onnx.load(str(path)))
            self._note(name, graph)
            made[name] = folder / name
            onnx.save(graph, str(made[name]))
        if self.int8 is not None:
            label = f"int8 in {self.int8.share:.0%} of multiply-adds, fp16"
        return made, label

    def _networks(self, graphs: Mapping[str, Path]) -> dict[str, Network]:
        """Every network quantised, and the choice of the layers that are to stay so."""
        import onnx

        calibration = self.calibration
        if calibration is None:
            return {}
        self.tell("ranges for int8", 0, 1)
        networks = quantised_networks(
            {name: onnx.load(str(path)) for name, path in graphs.items()},
            {name: tuple(view for view in VIEWS if self.source.file_of(view) == name) for name in graphs},
            calibration.ranges,
            keep=self.options.keep,
            method=self.options.calibration,
        )
        queries, asked = len(calibration.held), self.options.held_agreement
        if asked is not None:
            limit = agreement_budget(queries, asked)
        else:
            limit = likely_budget(queries, len(self.tiles), self._thresholds.agreement)
        self.int8 = choose_int8(networks, calibration.held, limit, self._thresholds, progress=self.tell)
        return networks

    def _check_names(self, graphs: Mapping[str, Path]) -> None:
        import onnx

        if not self.options.keep:
            return
        known = {node.name for path in graphs.values() for node in onnx.load(str(path)).graph.node}
        for name in self.options.keep:
            if name not in known:
                close = ", ".join(get_close_matches(name, known)) or "the name of a node, as the report has them"
                raise ModelError(
                    "no such node to keep", file=self.source.path, field="keep", found=name, expected=close
                )

    def _present(self, graph: Any) -> list[str]:
        """Of the nodes to keep those that this network has: a name may belong to the other view's."""
        names = {node.name for node in graph.graph.node}
        return [name for name in self.options.keep if name in names]

    def _halved(self, name: str, graph: Any) -> Any:
        kind: Kind = "bf16" if self.options.precision == "bf16" else "fp16"
        keep = set(self._present(graph))

        def make(more: set[str]) -> Any:
            return half_graph(graph, kind=kind, keep=keep | more)

        if not self.options.bisect:
            return make(set())
        views = [view for view in VIEWS if self.source.file_of(view) == name]
        check = parity_check(self.original, self.tiles, views, self._thresholds)
        images = self.tiles.batch(views[0], 0, self.options.batch or _BISECTION_IMAGES)
        found = bisect(graph, make, check, images, progress=self.tell)
        self.kept[name] = tuple(node.name for node in found.keep)
        self.bisections[name] = found
        return make(found.names)

    def _of(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(what, done, total)


def view_of(source: Source, view: View, gsd_m: float | None) -> BundleView:
    """How a view's patches enter the network, as the bundle's manifest says it."""
    wanted = source.inputs[view]
    return BundleView(
        source.file_of(view),
        (wanted.height, wanted.width),
        wanted.mean,
        wanted.std,
        gsd_m,
        interpolation=wanted.interpolation,
    )


def _smaller(graph: Any) -> tuple[Any, bool]:
    """A float32 graph with its large weights stored as halves, and whether they could be."""
    try:
        return half_weights(graph), True
    except ModelError:
        # A weight beyond half precision: the file is larger, the network the same.
        return graph, False


def _place(built: Path, target: Path) -> None:
    """A copy of a plan and its sidecar, which appear together or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=target.parent) as folder:
        copied = Path(folder) / target.name
        shutil.copyfile(built, copied)
        shutil.copyfile(sidecar_path(built), sidecar_path(copied))
        publish_engine(copied, target)


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _versions() -> dict[str, str]:
    """Of everything that takes part."""
    found = dict(versions())
    for name, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            with suppress(PackageNotFoundError):
                found[name] = version(distribution)
                break
    return found
