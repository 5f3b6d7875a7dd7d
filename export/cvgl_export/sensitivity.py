"""Which layers of a model can be INT8 for it to find the same tiles still, told by tiles that do not judge it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError
from cvgl_train.models.base import View

from .calibration import some
from .descriptors import Descriptors, cosines
from .graphs.half import half_graph
from .graphs.plain import plain_graph
from .graphs.quantise import CalibrationKind, Quantised, quantised, unquantisable
from .graphs.work import multiply_adds
from .parity import Parity, Thresholds, compare, judge
from .running import describe, onnx_runner
from .source import VIEWS
from .tiles import ParityTiles

__all__ = [
    "CONFIDENCE",
    "LEAST_SHARE",
    "Budget",
    "Int8Choice",
    "LayerChoice",
    "Network",
    "agreement_budget",
    "choose_int8",
    "likely_budget",
    "quantised_networks",
]

Progress = Callable[[str, int, int], None]
"""Called with what is being tried, how much of it is done and how much there is."""

CONFIDENCE = 0.9
"""Probability with which the judged threshold has to be met by default."""

LEAST_SHARE = 0.05
"""Of the multiply-adds: with less in INT8 a model is not an INT8 one, and to call it so would be wrong."""

# What measuring single layers may cost, in billions of multiply-adds: half a minute of two cores.
_MEASURE_GMACS = 3000.0
_LEAST_PAIRS, _MOST_PAIRS = 8, 64
_LITTLE = 0.5
# Of the sum of harms: down to a millionth of a millionth.
_STEPS = 80
_HARMFUL = "among those that do most harm for the work they save"
_BATCH, _RANGE_BATCH = 16, 8


@dataclass(frozen=True, eq=False)
class Network:
    """A network of a model, and what its layers may be.

    Args:
        views: that it serves.
        exact: ModelProto in FP32, what it is compared with.
        layers: which can be INT8.
        work: multiply-adds of an image by layer, those that cannot be INT8 among them, see `multiply_adds`.
        left: why layers that cannot be INT8 cannot, by name.
    """

    views: tuple[View, ...]
    exact: Any
    layers: Quantised
    work: Mapping[str, int]
    left: Mapping[str, str]

    def graph(self, layers: Collection[str]) -> Any:
        """The ModelProto with these layers in INT8 and the rest in FP16, which may be all of it."""
        return self.layers.graph(layers, rest="fp16") if layers else half_graph(self.exact)


@dataclass(frozen=True)
class Budget:
    """How many queries may find another tile before layers have to stay in FP16.

    Args:
        queries: held back from calibration, on which they are counted.
        most: of them that may.
        probability: that a graph of which just so many do meets the threshold on the judged tiles; None where it was
            not asked after.
        words: where the figure is from.
    """

    queries: int
    most: int
    probability: float | None
    words: str


@dataclass(frozen=True)
class LayerChoice:
    """A layer with weights, and what it became.

    Args:
        file: the network.
        name, op: of the node.
        multiply_adds: of one image.
        times: views that go through the network, for one fix.
        precision: that it computes in, as read from the graph; what was chosen until then.
        why: it is not INT8; empty where it is.
        harm: of this layer alone in INT8: mean squared change of the similarity of a query and a reference, beyond a
            change that all references of the query share. None where it was not measured.
        error: of this layer alone in INT8: mean of 1 - cosine. None where it was not measured.
    """

    file: str
    name: str
    op: str
    multiply_adds: int
    times: int
    precision: str
    why: str
    harm: float | None
    error: float | None


@dataclass(frozen=True)
class Int8Choice:
    """What became of every layer, and what it was decided on.

    Args:
        layers: of all networks, in the order of their graphs.
        multiply_adds: of one image of each view, those of products without weights included.
        share: of these in INT8, 0..1.
        budget: that was kept to.
        differ: queries of those held back that find another tile.
        differ_all: with every layer in INT8 that can be.
        trials: graphs that were compared on the tiles held back.
        pairs: of tiles on which single layers were measured; 0 where none had to be.
        source: where the tiles held back are from.
    """

    layers: tuple[LayerChoice, ...]
    multiply_adds: int
    share: float
    budget: Budget
    differ: int
    differ_all: int
    trials: int
    pairs: int
    source: str

    def names(self, file: str) -> list[str]:
        """Of a network's layers in INT8."""
        return [layer.name for layer in self.layers if layer.file == file and layer.precision == "int8"]

    def read(self, file: str, types: Mapping[str, str]) -> Int8Choice:
        """The same with a network's precisions as its graph has them.

        Raises:
            ModelError: a layer that is INT8 and should not be, or the other way round.
        """
        layers = []
        for layer in self.layers:
            if layer.file == file:
                found = types[layer.name]
                if (found == "int8") != (layer.precision == "int8"):
                    raise ModelError("not the layers that were chosen", file=file, field=layer.name, found=found)
                layer = replace(layer, precision=found)
            layers.append(layer)
        return replace(self, layers=tuple(layers))

    @property
    def words(self) -> str:
        """The result in a sentence or two."""
        count = sum(layer.precision == "int8" for layer in self.layers)
        could = sum(layer.why == _HARMFUL for layer in self.layers)
        text = f"{count} of {len(self.layers)} layers, {self.share:.0%} of the multiply-adds, are INT8."
        if could:
            text += f" {could} more could be: with them {self.differ_all} of {self.budget.queries} queries held back"
            text += " find another tile."
        if self.share < _LITTLE:
            text += " INT8 buys little here: most of the work is done in FP16."
        return text


def quantised_networks(
    graphs: Mapping[str, Any],
    views: Mapping[str, tuple[View, ...]],
    tiles: ParityTiles,
    *,
    keep: Collection[str] = (),
    method: CalibrationKind = "entropy",
) -> dict[str, Network]:
    """Every network of a model with its layers ready to be INT8.

    Args:
        graphs: ModelProto in FP32, by file.
        views: that each serves, by file.
        tiles: that give ranges.
        keep: names of nodes that are not quantised, in whichever network they are.
        method: how ranges follow from the tiles, see `quantised`.

    Raises:
        ModelError: as `quantised`; for a network of fixed batch size also fewer tiles than that.
    """
    networks = {}
    for file, graph in graphs.items():
        exact = plain_graph(graph)
        served = views[file]
        own = [node.name for node in exact.graph.node if node.name in keep]
        # 0 where it takes any number; otherwise only whole batches will do.
        fixed = exact.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        size = fixed or _RANGE_BATCH
        batches = [
            tiles.batch(view, start, start + size)
            for view in served
            for start in range(0, len(tiles.images(view)) - (fixed - 1 if fixed else 0), size)
        ]
        networks[file] = Network(
            served,
            exact,
            quantised(exact, batches, keep=own, method=method),
            multiply_adds(exact, batches[0][: fixed or 1]),
            {**unquantisable(exact), **dict.fromkeys(own, "kept by name")},
        )
    return networks


def likely_budget(held: int, judged: int, agreement: float | None, *, confidence: float = CONFIDENCE) -> Budget:
    """As many of the queries held back as leave the given probability that the judged ones reach their threshold.

    Both kinds are taken for draws from the same tiles, each query on its own: with k of n that differ, and Jeffreys'
    prior, the number among the judged is beta-binomial. For 500 held back, 500 judged, a threshold of 98 % and a
    probability of 90 % it is 5, that is 99 %. Choosing a graph by the same count makes it look a little better than it
    is, which the probability does not account for.

    Args:
        held: queries held back.
        judged: queries that are judged.
        agreement: their threshold, a share; one of them may always differ (`Thresholds`). None where it is not judged.
        confidence: the least probability. 0 queries may differ even where that does not reach it.
    """
    if agreement is None:
        return Budget(held, held, 1.0, "any number of queries may find another tile, since that is not judged")
    allowed = max(math.floor((1 - agreement) * judged + 1e-9), 1)
    most, reached = 0, _at_most(allowed, judged, 0, held)
    for count in range(1, held + 1):
        chance = _at_most(allowed, judged, count, held)
        if chance < confidence:
            break
        most, reached = count, chance
    words = (
        f"at most {most} of {held} queries held back may find another tile; then, as far as these tell, {agreement:.1%}"
        f" of {judged} judged ones find theirs with a probability of {reached:.0%} or more"
    )
    return Budget(held, most, reached, words)


def agreement_budget(held: int, agreement: float) -> Budget:
    """All but the given share of the queries held back, whatever that means for the judged ones."""
    most = math.floor((1 - agreement) * held + 1e-9)
    return Budget(held, most, None, f"at most {most} of {held} queries held back may find another tile, as was asked")


def _at_most(allowed: int, judged: int, count: int, held: int) -> float:
    """Probability of no more than `allowed` of the judged, after `count` of those held."""
    a, b = count + 0.5, held - count + 0.5

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    total = 0.0
    for k in range(min(allowed, judged) + 1):
        choose = math.lgamma(judged + 1) - math.lgamma(k + 1) - math.lgamma(judged - k + 1)
        total += math.exp(choose + log_beta(k + a, judged - k + b) - log_beta(a, b))
    return min(total, 1.0)


def choose_int8(
    networks: Mapping[str, Network],
    held: ParityTiles,
    limit: Budget,
    thresholds: Thresholds,
    *,
    progress: Progress | None = None,
) -> Int8Choice:
    """The layers that can be INT8.

    With all of them in INT8 and the rest in FP16, the tiles held back are embedded as a GPU does it and compared with
    FP32. Where that will do, that is all. Otherwise each layer is quantised alone, on some of these tiles, for the harm
    it does. Rounding errors of different layers have nothing to do with each other, so that harms add up: for a given
    sum, those layers become INT8 that save most work for their harm and fit in. The greatest sum that will do is found
    by halving, in steps of the root of two. That a smaller sum is no worse is taken for granted by the halving, but
    what it ends with was tried and did pass. Both views count, whichever network a layer is in.

    Args:
        networks: of the model, by file.
        held: tiles that neither gave ranges nor will judge.
        limit: queries that may find another tile.
        thresholds: what else these tiles have to reach; its agreement is not looked at.
        progress: told what is tried.

    Raises:
        ModelError: no more than `LEAST_SHARE` of the work could be INT8.
    """
    search = _Search(networks, held, limit, thresholds, progress or (lambda what, done, total: None))
    return search.run()


_Layer = tuple[str, str]
"""A layer by its file and name."""


class _Search:
    def __init__(
        self,
        networks: Mapping[str, Network],
        held: ParityTiles,
        limit: Budget,
        thresholds: Thresholds,
        tell: Progress,
    ) -> None:
        self.networks, self.held, self.limit, self.tell = networks, held, limit, tell
        self.thresholds = replace(thresholds, agreement=None)
        self.layers: list[_Layer] = [(file, name) for file, net in networks.items() for name in net.layers.layers]
        # A network of both views works twice.
        self.total = sum(len(net.views) * sum(net.work.values()) for net in networks.values())
        self.harm: dict[_Layer, tuple[float, float]] = {}
        self.tried: dict[frozenset[_Layer], Parity] = {}
        self.pairs = 0

    def run(self) -> Int8Choice:
        exact = {file: net.exact for file, net in self.networks.items()}
        self.original = self._embed(exact, self.held)
        every = frozenset(self.layers)
        if self._share(every) < LEAST_SHARE:
            self._refuse("the layers that can be INT8 do hardly any of the work", every)
        chosen = every
        if not self._passes(every):
            self._measure()
            chosen = self._most()
        return self._choice(chosen)

    def _saved(self, layers: Collection[_Layer]) -> int:
        return sum(len(self.networks[file].views) * self.networks[file].work[name] for file, name in layers)

    def _most(self) -> frozenset[_Layer]:
        """The layers of the greatest harm that will do, tried by halving."""
        total = sum(harm for harm, _ in self.harm.values() if math.isfinite(harm))
        sets = dict.fromkeys(self._fitting(total * 2 ** (-step / 2)) for step in range(_STEPS))
        steps = [layers for layers in sets if self._share(layers) >= LEAST_SHARE and layers not in self.tried]
        low, high = -1, len(steps)
        while high - low > 1:
            middle = (low + high) // 2
            if self._passes(steps[middle]):
                high = middle
            else:
                low = middle
        if high == len(steps):
            last = steps[-1] if steps else frozenset(self.layers)
            fewest = min(_differing(found) for found in self.tried.values())
            self._refuse(
                f"with {1 - self._share(last):.0%} of the multiply-adds in FP16 still {fewest} of {len(self.held)}"
                " queries held back find another tile, or the descriptors differ too much",
                last,
            )
        return steps[high]

    def _fitting(self, most: float) -> frozenset[_Layer]:
        """Layers whose harms add up to no more, those first that save most work for theirs."""
        chosen, left = [], most
        for layer in sorted(self.layers, key=lambda layer: self.harm[layer][0] / max(self._saved([layer]), 1)):
            if self.harm[layer][0] <= left:
                chosen.append(layer)
                left -= self.harm[layer][0]
        return frozenset(chosen)

    def _refuse(self, why: str, layers: Collection[_Layer]) -> NoReturn:
        raise ModelError(
            f"nothing is left for INT8: {why}; export it as fp16, or ask for less agreement among those held back",
            field="int8",
            found=f"{self._share(layers):.1%} of the multiply-adds",
            expected=f"{LEAST_SHARE:.0%} or more, and at most {self.limit.most} other tiles",
        )

    def _share(self, layers: Collection[_Layer]) -> float:
        return self._saved(layers) / max(self.total, 1)

    def _passes(self, int8: frozenset[_Layer]) -> bool:
        """Whether the graphs will do with these layers in INT8 and the others in FP16."""
        most = 2 + math.ceil(math.log2(_STEPS))
        self.tell(f"{len(int8)} of {len(self.layers)} layers in INT8", len(self.tried), most)
        graphs = {file: net.graph([name for at, name in int8 if at == file]) for file, net in self.networks.items()}
        found = compare(self.original, self._embed(graphs, self.held), self.held.truth, self.thresholds)
        self.tried[int8] = found
        return _differing(found) <= self.limit.most and not judge(found, self.thresholds)

    def _measure(self) -> None:
        """What each layer does alone."""
        passes = sum(len(net.views) * len(net.layers.layers) * sum(net.work.values()) for net in self.networks.values())
        affordable = int(_MEASURE_GMACS * 1e9 / max(passes, 1))
        self.pairs = min(len(self.held), _MOST_PAIRS, max(_LEAST_PAIRS, affordable))
        chosen = np.linspace(0, len(self.held) - 1, self.pairs).round().astype(int)
        tiles = some(self.held, chosen)
        asked = np.flatnonzero(np.isin(self.held.truth, chosen))
        before = Descriptors(self.original.query[asked], self.original.reference[chosen])
        for number, (file, name) in enumerate(self.layers):
            self.tell(f"{name} alone in INT8", number, len(self.layers))
            net = self.networks[file]
            after = self._embed({file: net.layers.graph([name])}, tiles, before)
            self.harm[file, name] = _harm(before, after), _error(before, after, net.views)

    def _embed(self, graphs: Mapping[str, Any], tiles: ParityTiles, before: Descriptors | None = None) -> Descriptors:
        """Descriptors by some networks; of views that they do not serve, those from before."""
        found: dict[View, NDArray[np.float32]] = {}
        for file, graph in graphs.items():
            run, fixed = onnx_runner(graph)
            for view in self.networks[file].views:
                found[view] = describe(run, tiles, view, batch=fixed or _BATCH)
        query, reference = (found[view] if before is None else found.get(view, before.view(view)) for view in VIEWS)
        return Descriptors(query, reference)

    def _choice(self, int8: frozenset[_Layer]) -> Int8Choice:
        layers = []
        for file, net in self.networks.items():
            for node in net.exact.graph.node:
                key = (file, node.name)
                if node.name in net.left or node.name in net.layers.layers:
                    harm, error = self.harm.get(key, (None, None))
                    why = net.left.get(node.name) or ("" if key in int8 else _HARMFUL)
                    work = net.work[node.name]
                    layers.append(
                        LayerChoice(
                            file,
                            node.name,
                            node.op_type,
                            work,
                            len(net.views),
                            "int8" if key in int8 else "fp16",
                            why,
                            harm,
                            error,
                        )
                    )
        return Int8Choice(
            tuple(layers),
            self.total,
            self._share(int8),
            self.limit,
            _differing(self.tried[int8]),
            _differing(self.tried[frozenset(self.layers)]),
            len(self.tried),
            self.pairs,
            self.held.source,
        )


def _differing(parity: Parity) -> int:
    """Queries that find another tile; all of them where a descriptor is not finite."""
    count = len(parity.cosine_query)
    return count if parity.retrieval is None else count - round(parity.retrieval.agreement * count)


def _harm(before: Descriptors, after: Descriptors) -> float:
    """See `LayerChoice`; infinite where a descriptor is not finite."""
    one, two = (found.query.astype(np.float64) @ found.reference.astype(np.float64).T for found in (before, after))
    change = two - one
    if not np.isfinite(change).all():
        return float("inf")
    return float(np.square(change - change.mean(1, keepdims=True)).mean())


def _error(before: Descriptors, after: Descriptors, views: Sequence[View]) -> float:
    return float(1 - np.mean([cosines(before.view(view), after.view(view)).mean() for view in views]))
