"""What a model costs: parameters, arithmetic and time for each view, and the size of its descriptor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from cvgl.errors import ModelError
from cvgl_train.models.base import CrossViewModel, View

__all__ = ["Cost", "ViewCost", "cost_of"]

_VIEWS: tuple[View, View] = ("query", "reference")


@dataclass(frozen=True)
class ViewCost:
    """What one image of one view costs, from normalised pixels to its descriptor.

    Args:
        height, width: of the input, pixels.
        parameters: number of weights that the descriptor depends on; those that only training uses (classifiers) or
            only the other view are not among them.
        flops: floating-point operations of convolutions, matrix products and attention, a multiplication and the
            addition after it counted as two. Norms, activations and pooling are not counted, as is customary.
        seconds: median time of one image alone in its batch; None if not measured.
    """

    height: int
    width: int
    parameters: int
    flops: int
    seconds: float | None = None

    @property
    def gflops(self) -> float:
        """Billions of operations, a multiply-add counted as two."""
        return self.flops / 1e9

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds: what most papers print as "GFLOPs"."""
        return self.flops / 2e9


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Args:
        model: its name.
        descriptor_size: numbers in a descriptor.
        parameters: number of weights in all, with what only training uses.
        trainable: of those, the ones that training changes.
        shared_parameters: of those, the ones that the descriptors of both views depend on.
        query, reference: cost of each view.
        device: what was timed, in words; None if nothing was.
    """

    model: str
    descriptor_size: int
    parameters: int
    trainable: int
    shared_parameters: int
    query: ViewCost
    reference: ViewCost
    device: str | None = None

    @property
    def descriptor_bytes(self) -> int:
        """Of one descriptor in single precision."""
        return 4 * self.descriptor_size

    @property
    def deployed_parameters(self) -> int:
        """Number of weights that at least one view's descriptor depends on: what has to be deployed."""
        return self.query.parameters + self.reference.parameters - self.shared_parameters

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""

        def view(cost: ViewCost) -> dict[str, Any]:
            return {
                "height": cost.height,
                "width": cost.width,
                "parameters": cost.parameters,
                "gmacs": cost.gmacs,
                "gflops": cost.gflops,
                "seconds": cost.seconds,
            }

        return {
            "model": self.model,
            "descriptor_size": self.descriptor_size,
            "descriptor_bytes": self.descriptor_bytes,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "deployed_parameters": self.deployed_parameters,
            "shared_parameters": self.shared_parameters,
            "query": view(self.query),
            "reference": view(self.reference),
            "device": self.device,
        }


def cost_of(model: CrossViewModel, *, measure: bool = True, repeats: int = 5) -> Cost:
    """What a model costs, on the device it lies on.

    Counting does no arithmetic. A model built under ``torch.device("meta")``, which takes no memory either, can be
    counted but not timed.

    Args:
        measure: time it as well.
        repeats: of the timing, after one pass that is not counted; their median stands.

    Raises:
        ModelError: fewer than one repeat, or a model without weights to time.
    """
    device = next(model.parameters()).device
    if measure and device.type == "meta":
        raise ModelError("has no weights to be timed with", field="measure", found=model.info.name)
    if repeats < 1:
        raise ModelError("not a number of repeats", field="repeats", found=repeats, expected="1 or more")
    costs: dict[View, ViewCost] = {}
    with _evaluating(model):
        counted = _count(model)
        for view, (used, flops) in counted.items():
            wanted = model.info.view(view)
            cost = ViewCost(wanted.height, wanted.width, sum(used.values()), flops)
            # One network on one size takes one time; two measurements would differ by what else ran.
            same = model.info.shared and costs and replace(costs["query"], seconds=None) == cost
            if measure:
                cost = replace(cost, seconds=costs["query"].seconds if same else _time(model, view, repeats))
            costs[view] = cost
    shared = counted["query"][0].keys() & counted["reference"][0].keys()
    return Cost(
        model=model.info.name,
        descriptor_size=model.info.descriptor_size,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        shared_parameters=sum(counted["query"][0][key] for key in shared),
        query=costs["query"],
        reference=costs["reference"],
        device=_in_words(device) if measure else None,
    )


class _Used(TorchDispatchMode):
    """Notes which of some tensors take part in the arithmetic, with or without gradients."""

    def __init__(self, sizes: dict[int, int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.found: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor) and id(value) in self.sizes:
                self.found[id(value)] = self.sizes[id(value)]
        return func(*args, **(kwargs or {}))


class _Embed(nn.Module):
    """`CrossViewModel.embed` as a forward pass, which is what `functional_call` can run with other weights."""

    def __init__(self, model: CrossViewModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, view: View) -> Tensor:
        return self.model.embed(image, view)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every part is put back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _count(model: CrossViewModel) -> dict[View, tuple[dict[int, int], int]]:
    """Per view the sizes of the parameters that take part, by their identity, and the operations.

    Every tensor is a fake one that has a shape and says that it lies on the CPU: no arithmetic is done, and code that
    asks for its device (autocast refuses "meta") runs as it does in earnest.
    """
    whole = _Embed(model.eval())
    found: dict[View, tuple[dict[int, int], int]] = {}
    # PyTorch's fused encoder layer is one operation of its own, which the counter takes for nothing.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            # One name for a tensor in each module that holds it and no second name for a module, or `functional_call`
            # would leave fakes behind in those that go by two.
            fakes: dict[int, Tensor] = {}
            state: dict[str, Tensor] = {}
            for prefix, module in whole.named_modules():
                for name, value in (*module.named_parameters(prefix, False), *module.named_buffers(prefix, False)):
                    if id(value) not in fakes:
                        fakes[id(value)] = torch.empty(value.shape, dtype=value.dtype, device="cpu")
                    state[name] = fakes[id(value)]
            sizes = {id(fakes[id(p)]): p.numel() for p in model.parameters()}
            for view in _VIEWS:
                wanted = model.info.view(view)
                image = torch.empty(1, 3, wanted.height, wanted.width, device="cpu")
                with FlopCounterMode(display=False) as counter, _Used(sizes) as used:
                    functional_call(whole, state, (image, view), tie_weights=False)
                found[view] = used.found, cast(int, counter.get_total_flops())
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return found


def _time(model: CrossViewModel, view: View, repeats: int) -> float:
    """Median seconds of one pass."""
    model.eval()
    wanted = model.info.view(view)
    device = next(model.parameters()).device
    # Not zeros, which some processors are quicker with than with what pictures give.
    image = torch.randn(1, 3, wanted.height, wanted.width, generator=torch.Generator().manual_seed(0)).to(device)
    taken = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        model.embed(image, view)
        _wait(device)
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    return str(device)
