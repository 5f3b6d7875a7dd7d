"""Which nodes of a graph must stay in FP32 for the rest to be halved: few, and each shown to be needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError
from cvgl_train.models.base import View

from .descriptors import Descriptors
from .graphs.emulate import emulate
from .graphs.types import fp32_nodes, is_half
from .parity import Thresholds, compare
from .retrieval import Metric
from .running import describe, onnx_runner
from .tiles import ParityTiles

__all__ = ["Bisection", "Check", "Kept", "Suspect", "Verdict", "bisect", "local_errors", "parity_check"]

Floats = NDArray[np.float32]
Make = Callable[[set[str]], Any]
"""Names of nodes to keep in FP32, to the ModelProto in half precision."""
Progress = Callable[[str, int, int], None]
"""Called with what is being tried, the number of trials so far and the most there will be."""

MOST_RUNS = 60
# Values of so many nodes are looked at in one run: all of a transformer's would take gigabytes.
_NODES_A_RUN = 48
# What an error costs is seen where values nearly cancel, but it was made by the nodes that gave them.
_FEEDS = 0.9
# They compute nothing: what is wrong with them was wrong before.
_NO_SUSPECTS = frozenset(("Cast", "Constant", "ConstantOfShape", "Identity", "Shape"))


@dataclass(frozen=True)
class Verdict:
    """What a check found. True where it passed.

    Args:
        passed: whether the graph will do.
        score: how good it is; greater is better, on any scale.
    """

    passed: bool
    score: float

    def __bool__(self) -> bool:
        return self.passed


Check = Callable[[Any], "Verdict | bool"]
"""A ModelProto to whether it will do."""


@dataclass(frozen=True)
class Suspect:
    """A node and the error it makes.

    Args:
        name, op: of the node.
        error: relative error of what it gives, beyond that of what it was given; infinite where it makes the first
            value that is not finite.
    """

    name: str
    op: str
    error: float


@dataclass(frozen=True)
class Kept:
    """A node that must stay in FP32.

    Args:
        name, op: of the node.
        error: what it made in half precision, see `Suspect`; nan where it was not measured.
        score_without: of the graph in which all others found stay in FP32 but not this one; nan where the trials were
            used up before.
        needed: whether that graph fails; None where it was not tried.
    """

    name: str
    op: str
    error: float
    score_without: float
    needed: bool | None


@dataclass(frozen=True)
class Bisection:
    """What must stay in FP32. True where that passes.

    Args:
        keep: the nodes, in the graph's order.
        score: with them in FP32.
        score_half: with none; nan where it was not tried.
        score_fp32: with all.
        passed: whether what was found passes; False where not even all nodes in FP32 do.
        runs: trials made.
        complete: whether the trials were enough to show that no node found can be left out.
        words: the result in one sentence.
    """

    keep: tuple[Kept, ...]
    score: float
    score_half: float
    score_fp32: float
    passed: bool
    runs: int
    complete: bool
    words: str

    def __bool__(self) -> bool:
        return self.passed

    @property
    def names(self) -> set[str]:
        """Of the nodes to keep, as `make` takes them."""
        return {node.name for node in self.keep}


class _UsedUp(Exception):
    """No trial is left."""


class _Trials:
    """Graphs made and checked, each once, and no more than allowed."""

    def __init__(self, make: Make, check: Check, most: int, progress: Progress | None) -> None:
        self._make, self._check, self._most, self._progress = make, check, most, progress
        self._known: dict[frozenset[str], Verdict] = {}

    @property
    def runs(self) -> int:
        return len(self._known)

    def run(self, keep: Sequence[str] | frozenset[str], words: str) -> Verdict:
        key = frozenset(keep)
        if key not in self._known:
            if self.runs >= self._most:
                raise _UsedUp
            if self._progress is not None:
                self._progress(words, self.runs, self._most)
            found = self._check(self._make(set(key)))
            if not isinstance(found, Verdict):
                found = Verdict(bool(found), 1.0 if found else 0.0)
            self._known[key] = found
        return self._known[key]

    def passing(self) -> list[frozenset[str]]:
        """Whatever was tried and passed."""
        return [keep for keep, verdict in self._known.items() if verdict]


def bisect(
    fp32: Any,
    make: Make,
    check: Check,
    images: Floats,
    *,
    most_runs: int = MOST_RUNS,
    progress: Progress | None = None,
) -> Bisection:
    """A small set of nodes which, kept in FP32, let the rest of a graph be in half precision.

    Nodes are ranked by the error each makes on a few images. First those whose results are not finite are kept, one
    after another along the graph; then as many of the worst as are needed, found by doubling and halving their number;
    then groups of them, in the end single ones, are let go as long as the check still passes (delta debugging). What
    is left is small, though not always the smallest there is.

    Args:
        fp32: ModelProto of the graph; its nodes have names, no two alike.
        make: halves all but the nodes named.
        check: whether a graph will do, see `parity_check`.
        images: (B, 3, H, W) normalised; a few are enough.
        most_runs: how often at most a graph is made and checked; 3 or more.
        progress: told what is tried.

    Raises:
        ModelError: nodes without names, too few trials allowed, or a graph that does not run.
    """
    if most_runs < 3:
        raise ModelError("too few trials", field="most_runs", found=most_runs, expected="3 or more")
    operations = _operations(fp32)
    # Those that stay in FP32 anyway need no search.
    already = {name for name, _, _ in fp32_nodes(make(set()))}
    names = [name for name, kind in operations.items() if kind not in _NO_SUSPECTS and name not in already]
    trials = _Trials(make, check, most_runs, progress)
    everything = frozenset(names)
    half, whole = trials.run((), "none in FP32"), trials.run(everything, "all in FP32")
    if half:
        words = "nothing needs to stay in FP32: the halved graph passes"
        return Bisection((), half.score, half.score, whole.score, True, trials.runs, True, words)
    if not whole:
        words = "the graph fails with every node in FP32: precision is not what is wrong with it"
        return Bisection((), whole.score, half.score, whole.score, False, trials.runs, True, words)
    known: dict[str, float] = {}
    found, complete = everything, False
    try:
        found = _grow(fp32, make, images, names, trials, known)
        found = _shrink(found, names, known, trials)
        complete = True
    except _UsedUp:
        # What passed last stands.
        found = min(trials.passing(), key=len)
    kept = tuple(_kept(name, operations[name], known, found, trials) for name in names if name in found)
    complete = complete and all(node.needed for node in kept)
    verdict = trials.run(found, "what was found")
    words = f"{len(kept)} of {len(names)} nodes must stay in FP32"
    if not complete:
        words += f", or fewer: {trials.runs} trials did not tell"
    return Bisection(kept, verdict.score, half.score, whole.score, True, trials.runs, complete, words)


def parity_check(
    original: Descriptors,
    tiles: ParityTiles,
    views: Sequence[View],
    thresholds: Thresholds,
    *,
    metric: Metric = "cosine",
    batch: int = 16,
) -> Check:
    """A check by `cvgl_export.parity.compare`; the score is the least cosine.

    Args:
        original: descriptors of the original engine.
        tiles: of which.
        views: that the graph serves: both where they share it. The other view's descriptors are the original's.
        thresholds: to be reached.
        metric: see `compare`.
        batch: images at a time, where the graph leaves it free.
    """

    def check(model: Any) -> Verdict:
        run, fixed = onnx_runner(model)
        made = {view: describe(run, tiles, view, batch=fixed or batch) for view in views}
        candidate = Descriptors(
            made.get("query", original.query), made.get("reference", original.reference), "candidate"
        )
        parity = compare(original, candidate, tiles.truth, thresholds, metric=metric)
        score = parity.cosine_minimum if parity.after.count == 0 else float("-inf")
        return Verdict(bool(parity), score)

    return check


def local_errors(fp32: Any, half: Any, images: Floats) -> list[Suspect]:
    """The error that each node of a graph makes in half precision, the largest first.

    Both graphs are run on the same images, the halved one as `cvgl_export.graphs.emulate` has it, and what nodes of
    the same name give is compared: the norm of the difference over the norm, beyond the largest that comes in. What is
    not finite already when it comes in tells nothing and counts as none.

    Args:
        fp32, half: ModelProtos.
        images: (B, 3, H, W) normalised.

    Raises:
        ModelError: nodes without names, or a graph that does not run.
    """
    operations = _operations(fp32)
    plain = {node.name: node for node in fp32.graph.node}
    other = {node.name: node for node in half.graph.node if node.name in plain}
    pairs = [
        (name, plain[name].output[0], other[name].output[0])
        for name in operations
        if name in other and operations[name] not in _NO_SUSPECTS
    ]
    exact = emulate(half) if is_half(half) else half
    relative: dict[str, float] = {}
    for start in range(0, len(pairs), _NODES_A_RUN):
        part = pairs[start : start + _NODES_A_RUN]
        before = _values_of(fp32, [pair[1] for pair in part], images)
        after = _values_of(exact, [pair[2] for pair in part], images)
        for (_, name, _), one, two in zip(part, before, after, strict=True):
            relative[name] = _relative(one, two)
    made: dict[str, float] = {}
    for name, output, _ in pairs:
        given = max((relative.get(tensor, 0.0) for tensor in _sources(plain, name)), default=0.0)
        error = relative[output]
        if not np.isfinite(given):
            made[name] = 0.0
        elif not np.isfinite(error):
            made[name] = float("inf")
        else:
            made[name] = float(np.sqrt(max(error**2 - given**2, 0.0)))
    ranked = sorted(made, key=lambda name: -made[name])
    return [Suspect(name, operations[name], made[name]) for name in ranked]


# The search.


def _grow(
    fp32: Any, make: Make, images: Floats, names: Sequence[str], trials: _Trials, known: dict[str, float]
) -> frozenset[str]:
    """Nodes that are enough, worst first."""
    keep: list[str] = []
    suspects = local_errors(fp32, make(set()), images)
    while any(np.isinf(suspect.error) for suspect in suspects):
        for suspect in suspects:
            known.setdefault(suspect.name, suspect.error)
        infinite = {suspect.name for suspect in suspects if np.isinf(suspect.error)} - set(keep)
        first = [name for name in names if name in infinite]
        if not first:
            break
        for name in first:
            known[name] = float("inf")
        keep += first
        if trials.run(keep, f"{len(keep)} that overflow in FP32"):
            return frozenset(keep)
        suspects = local_errors(fp32, make(set(keep)), images)
    for suspect in suspects:
        known.setdefault(suspect.name, suspect.error)
    ranked = _ranked(fp32, suspects)
    order = keep + [name for name in ranked if name in set(names) - set(keep)]
    order += [name for name in names if name not in set(order)]
    enough = _fewest(order, len(keep), trials)
    return frozenset(order[:enough])


def _ranked(fp32: Any, suspects: Sequence[Suspect]) -> list[str]:
    """Names by error, those that feed a bad node close behind it."""
    weight = {suspect.name: suspect.error for suspect in suspects}
    raised = dict(weight)
    producers = {tensor: node.name for node in fp32.graph.node for tensor in node.output}
    for node in fp32.graph.node:
        for tensor in node.input:
            feeds = producers.get(tensor)
            if feeds in raised and weight.get(node.name, 0.0) > 0:
                raised[feeds] = max(raised[feeds], _FEEDS * weight[node.name])
    return sorted(raised, key=lambda name: -raised[name])


def _fewest(order: Sequence[str], sure: int, trials: _Trials) -> int:
    """How many of the first are enough: doubled until they are, then halved in between."""
    low, high, step = sure, len(order), 1
    while sure + step < len(order):
        if trials.run(order[: sure + step], f"the worst {sure + step} in FP32"):
            high = sure + step
            break
        low, step = sure + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if trials.run(order[:middle], f"the worst {middle} in FP32"):
            high = middle
        else:
            low = middle
    return high


def _shrink(found: frozenset[str], names: Sequence[str], known: Mapping[str, float], trials: _Trials) -> frozenset[str]:
    """What is left when groups, and in the end single nodes, are let go as long as the rest passes."""
    # The least suspected go first.
    left = sorted((name for name in names if name in found), key=lambda name: known.get(name, 0.0))
    size = max(len(left) // 2, 1)
    while left:
        start, gone = 0, False
        while start < len(left):
            rest = left[:start] + left[start + size :]
            if rest and trials.run(rest, f"{len(rest)} in FP32"):
                left, gone = rest, True
            else:
                start += size
        if size == 1:
            # Once more after a success: what was needed with others may not be without them.
            if not gone:
                break
        else:
            size = max(size // 2, 1)
    return frozenset(left)


def _kept(name: str, operation: str, known: Mapping[str, float], found: frozenset[str], trials: _Trials) -> Kept:
    error = known.get(name, float("nan"))
    try:
        without = trials.run(found - {name}, f"without {name}")
    except _UsedUp:
        return Kept(name, operation, error, float("nan"), None)
    return Kept(name, operation, error, without.score, not without)


# Looking into a graph.


def _operations(model: Any) -> dict[str, str]:
    """The operation of every node by its name, in the graph's order."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        if not node.name or node.name in found:
            raise ModelError(
                "nodes cannot be told apart",
                field="node",
                found=node.name or node.op_type,
                expected="names of their own",
            )
        found[node.name] = node.op_type
    return found


def _sources(nodes: Mapping[str, Any], name: str) -> list[str]:
    return [tensor for tensor in nodes[name].input if tensor]


def _values_of(model: Any, tensors: Sequence[str], images: Floats) -> list[NDArray[Any]]:
    """Values inside a graph."""
    import onnx
    import onnxruntime

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()[0]
        fixed = inputs.shape[0]
        batch = images if not isinstance(fixed, int) else np.resize(images, (fixed, *images.shape[1:]))
        values: list[NDArray[Any]] = session.run(list(tensors), {inputs.name: batch})
    except Exception as reason:  # the runtime's own exceptions have no common base
        first = (str(reason).splitlines() or [type(reason).__name__])[0]
        raise ModelError(f"ONNX Runtime cannot show what is inside the graph: {first}") from reason
    return values


def _relative(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Norm of the difference over the norm; infinite where only the second is not finite everywhere."""
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, two) else 1.0
    plain, half = one.astype(np.float64), two.astype(np.float64)
    usual = np.isfinite(plain)
    if not np.isfinite(half[usual]).all():
        return float("inf")
    scale = float(np.linalg.norm(plain[usual]))
    return float(np.linalg.norm(plain[usual] - half[usual])) / scale if scale > 0 else 0.0
