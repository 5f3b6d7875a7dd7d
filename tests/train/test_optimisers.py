"""Optimisers and schedules as recipes ask for them, and sharpness-aware steps by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cvgl.errors import CvglError
from cvgl_train.asam import Asam
from cvgl_train.models.base import CrossViewModel, Features, ModelInfo, View, ViewInput
from cvgl_train.optimisers import OptimiserError, build_optimiser, build_schedule


class Small(CrossViewModel):
    """A backbone with a norm, and a head with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3, bias=False), nn.LayerNorm(3))
        self.head = nn.Linear(3, 2)
        view = ViewInput(1, 1)
        self.info = ModelInfo("small", 2, view, view, shared=True)

    def forward(self, images: Tensor, view: View) -> Features:
        return Features(self.head(self.body(images)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"backbone": list(self.body.parameters()), "head": list(self.head.parameters())}


class Forgetful(Small):
    """A model that leaves its head's bias out of its groups."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"backbone": list(self.body.parameters()), "head": [self.head.weight]}


def rates_and_decays(optimiser: torch.optim.Optimizer | Asam) -> list[tuple[str, int, float, float]]:
    return [(g["part"], len(g["params"]), g["lr"], g["weight_decay"]) for g in optimiser.param_groups]


@pytest.mark.parametrize(
    ("settings", "kind", "groups"),
    [
        (
            {"name": "sgd", "rate": 0.01, "backbone_rate": 0.003, "nesterov": True, "weight_decay": 5e-4},
            torch.optim.SGD,
            [("backbone", 3, 0.003, 5e-4), ("head", 2, 0.01, 5e-4)],
        ),
        (
            {"name": "adamw", "rate": 1e-3, "weight_decay": 0.03, "decay_norm_and_bias": False},
            torch.optim.AdamW,
            [("backbone", 1, 1e-3, 0.03), ("backbone", 2, 1e-3, 0), ("head", 1, 1e-3, 0.03), ("head", 1, 1e-3, 0)],
        ),
        ({"name": "adam", "rate": 1e-5}, torch.optim.Adam, [("backbone", 3, 1e-5, 0), ("head", 2, 1e-5, 0)]),
    ],
)
def test_groups_have_their_rates_and_decays(settings: dict[str, Any], kind: type, groups: list[Any]) -> None:
    optimiser = build_optimiser(Small(), settings)
    assert type(optimiser) is kind
    assert rates_and_decays(optimiser) == groups


def test_sgd_keeps_its_momentum() -> None:
    optimiser = build_optimiser(Small(), {"name": "sgd", "rate": 1, "momentum": 0.8, "nesterov": True})
    assert {(g["momentum"], g["nesterov"]) for g in optimiser.param_groups} == {(0.8, True)}


def test_frozen_parameters_are_left_out() -> None:
    model = Small()
    model.body.requires_grad_(False)
    model.parameter_groups = lambda: {"backbone": [], "head": list(model.head.parameters())}  # type: ignore[method-assign]
    assert rates_and_decays(build_optimiser(model, {"name": "adam", "rate": 0.1})) == [("head", 2, 0.1, 0)]


def test_asam_is_put_around() -> None:
    optimiser = build_optimiser(Small(), {"name": "adamw", "rate": 1e-4, "asam": {"rho": 2.5}})
    assert isinstance(optimiser, Asam) and isinstance(optimiser.base, torch.optim.AdamW)
    assert (optimiser.rho, optimiser.eta) == (2.5, 0.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rate": 1}, ["optimiser", "sgd or adam or adamw"]),
        ({"name": "lamb", "rate": 1}, ["lamb", "adamw"]),
        ({"name": "adam"}, ["optimiser adam", "missing", "rate"]),
        ({"name": "adam", "rate": 1, "momentum": 0.9}, ["optimiser adam", "momentum", "weight_decay"]),
        ({"name": "adam", "rate": "1e-4"}, ["optimiser adam: rate", "'1e-4'", "1.0e-4"]),
        ({"name": "adam", "rate": 0}, ["optimiser adam: rate", "more than 0"]),
        ({"name": "adam", "rate": 1, "backbone_rate": -1}, ["backbone_rate", "-1"]),
        ({"name": "adam", "rate": 1, "weight_decay": -1}, ["weight_decay", "0 or more"]),
        ({"name": "sgd", "rate": 1, "momentum": 0.0, "nesterov": True}, ["nesterov", "momentum"]),
        ({"name": "adam", "rate": 1, "asam": True}, ["optimiser asam", "rho"]),
        ({"name": "adam", "rate": 1, "asam": {"radius": 1}}, ["optimiser asam", "radius", "rho, eta"]),
        ({"name": "adam", "rate": 1, "asam": {"rho": 0}}, ["optimiser asam", "rho > 0"]),
    ],
)
def test_a_wrong_optimiser_is_told_what_is_wrong(settings: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(OptimiserError) as raised:
        build_optimiser(Small(), settings)
    assert isinstance(raised.value, CvglError)
    assert all(words in str(raised.value) for words in says), raised.value


def test_a_parameter_in_no_group_is_named() -> None:
    with pytest.raises(OptimiserError, match=r"head\.bias"):
        build_optimiser(Forgetful(), {"name": "adam", "rate": 1})


def quadratic(w: Tensor) -> Tensor:
    return 0.5 * (w[0] ** 2 + 4 * w[1] ** 2)


@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_asam_step_by_hand(eta: float) -> None:
    w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimiser = Asam(torch.optim.SGD([w], lr=0.1), rho=0.5, eta=eta)
    quadratic(w).backward()
    optimiser.ascend()
    # Gradient (2, -4); T g = (|w| + eta) g; the step is rho T (T g) / |T g|.
    t = (2 + eta, 1 + eta)
    norm = math.hypot(2 * t[0], 4 * t[1])
    worst = [2 + 0.5 * t[0] ** 2 * 2 / norm, -1 - 0.5 * t[1] ** 2 * 4 / norm]
    assert w.tolist() == pytest.approx(worst, rel=1e-10)
    optimiser.zero_grad()
    quadratic(w).backward()
    optimiser.descend()
    assert w.tolist() == pytest.approx([2 - 0.1 * worst[0], -1 - 0.1 * 4 * worst[1]], rel=1e-10)


def test_asam_norm_is_over_all_groups() -> None:
    whole = nn.Parameter(torch.tensor([2.0, -1.0]))
    first, second = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([-1.0]))
    one = Asam(torch.optim.SGD([whole], lr=0.1), rho=0.5)
    two = Asam(torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.2}], lr=0.1), rho=0.5)
    quadratic(whole).backward()
    quadratic(torch.cat([first, second])).backward()
    one.ascend()
    two.ascend()
    assert torch.allclose(whole.detach(), torch.cat([first, second]).detach())


def test_asam_gives_the_weights_back_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Linear(50, 20)
    unused = nn.Parameter(torch.ones(3))
    before = [p.detach().clone() for p in (*model.parameters(), unused)]
    optimiser = Asam(torch.optim.SGD([*model.parameters(), unused], lr=0.0), rho=2.0)
    model(torch.randn(8, 50)).square().mean().backward()
    optimiser.ascend()
    assert not torch.equal(model.weight, before[0])
    assert torch.equal(unused, before[2])
    # A second ascent starts from the weights, not from the worst point of the first.
    once = model.weight.detach().clone()
    optimiser.ascend()
    assert torch.equal(model.weight, once)
    optimiser.descend()
    assert all(torch.equal(p, b) for p, b in zip((*model.parameters(), unused), before, strict=True))


@pytest.mark.parametrize("gradient", [None, 0.0])
def test_asam_without_a_slope_stays(gradient: float | None) -> None:
    w = nn.Parameter(torch.tensor([1.0, 0.0]))
    w.grad = None if gradient is None else torch.zeros(2)
    optimiser = Asam(torch.optim.SGD([w], lr=0.1))
    optimiser.ascend()
    optimiser.descend()
    assert w.tolist() == [1.0, 0.0]


def valley(w: Tensor) -> Tensor:
    """0 wherever the second weight is 1, and the steeper beside it the farther the first weight is from 2."""
    return (0.5 + (w[0] - 2) ** 2) * (w[1] - 1) ** 2


def end_in_valley(sharpness_aware: bool) -> Tensor:
    w = nn.Parameter(torch.tensor([1.0, 1.1]))
    base = torch.optim.SGD([w], lr=0.1)
    optimiser = Asam(base, rho=0.3)
    for _ in range(400):
        optimiser.zero_grad()
        valley(w).backward()
        if sharpness_aware:
            optimiser.ascend()
            optimiser.zero_grad()
            valley(w).backward()
            optimiser.descend()
        else:
            base.step()
    return w.detach()


def test_asam_goes_where_the_valley_is_flat() -> None:
    plain, aware = end_in_valley(sharpness_aware=False), end_in_valley(sharpness_aware=True)
    assert plain[1] == pytest.approx(1.0, abs=0.01) and plain[0] == pytest.approx(1.0, abs=0.05)
    assert aware[1] == pytest.approx(1.0, abs=0.1) and aware[0] == pytest.approx(2.0, abs=0.1)


def test_asam_goes_on_from_its_state() -> None:
    def run(steps: int, state: dict[str, Any] | None, w: nn.Parameter) -> dict[str, Any]:
        optimiser = Asam(torch.optim.AdamW([w], lr=0.1), rho=0.2)
        if state is not None:
            optimiser.load_state_dict(state)
        for _ in range(steps):
            optimiser.zero_grad()
            quadratic(w).backward()
            optimiser.ascend()
            optimiser.zero_grad()
            quadratic(w).backward()
            optimiser.descend()
        return optimiser.state_dict()

    whole, halves = (nn.Parameter(torch.tensor([2.0, -1.0])) for _ in range(2))
    run(6, None, whole)
    run(3, run(3, None, halves), halves)
    assert torch.equal(whole, halves)


@pytest.mark.parametrize(
    ("settings", "total", "values"),
    [
        ({"name": "constant"}, 10, {0: 1, 5: 1, 10: 1}),
        ({"name": "constant", "warmup": 2}, 10, {0: 0, 1: 0.5, 2: 1, 9: 1}),
        ({"name": "constant", "warmup_share": 0.5}, 10, {2.5: 0.5, 5: 1}),
        (
            {"name": "steps", "at": [70, 110], "factor": 0.1},
            120,
            {0: 1, 69.9: 1, 70 - 1e-9: 0.1, 70: 0.1, 109.9: 0.1, 110: 0.01, 120: 0.01},
        ),
        ({"name": "steps", "at": [8], "warmup": 5}, 10, {0: 0, 2.5: 0.5, 5: 1, 8: 0.1}),
        ({"name": "cosine"}, 8, {0: 1, 2: 0.5 + 0.5**1.5, 4: 0.5, 8: 0, 9: 0}),
        ({"name": "cosine", "last": 0.1}, 8, {0: 1, 4: 0.55, 8: 0.1}),
        ({"name": "cosine", "warmup": 2}, 10, {0: 0, 1: 0.5, 2: 1, 6: 0.5, 10: 0}),
        ({"name": "exponential", "factor": 0.5}, 10, {0: 1, 1: 0.5, 1.5: 0.5**1.5, 3: 0.125}),
    ],
)
def test_schedule(settings: dict[str, Any], total: float, values: dict[float, float]) -> None:
    schedule = build_schedule(settings)
    assert {at: schedule(at, total) for at in values} == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential"])
def test_schedule_of_an_endless_epoch(name: str) -> None:
    """A source whose epoch never ends tells its progress in tiny shares of it."""
    schedule = build_schedule({"name": name, "warmup_share": 0.05})
    factors = [schedule(done * 1e-9, 1e-9) for done in (0.0, 0.025, 0.05, 0.5, 1.0)]
    assert factors[:3] == pytest.approx([0, 0.5, 1], abs=1e-6) and all(0 <= factor <= 1 for factor in factors)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, ["schedule", "constant or steps or cosine or epoch_cosine or exponential"]),
        ({"name": "onecycle"}, ["onecycle"]),
        ({"name": "steps"}, ["schedule steps", "missing", "at"]),
        ({"name": "steps", "at": 70}, ["schedule steps: at", "70", "a list of numbers"]),
        ({"name": "steps", "at": [110, 70]}, ["schedule steps: at", "[110, 70]"]),
        ({"name": "steps", "at": []}, ["schedule steps: at"]),
        ({"name": "exponential", "factor": 2.0}, ["schedule exponential: factor", "2.0"]),
        ({"name": "cosine", "last": -1}, ["schedule cosine: last"]),
        ({"name": "cosine", "warmup": -1}, ["schedule: warmup", "-1"]),
        ({"name": "cosine", "warmup_share": 1}, ["schedule: warmup_share", "below 1"]),
        ({"name": "cosine", "warmup": 1, "warmup_share": 0.1}, ["warmup, warmup_share", "one of the two"]),
        ({"name": "cosine", "warmup": "long"}, ["schedule: warmup", "long"]),
        ({"name": "constant", "factor": 0.1}, ["schedule constant", "factor", "no setting"]),
    ],
)
def test_a_wrong_schedule_is_told_what_is_wrong(settings: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(OptimiserError) as raised:
        build_schedule(settings)
    assert all(words in str(raised.value) for words in says), raised.value


def test_the_cosine_by_epochs_stays_for_an_epoch_what_it_is_at_its_beginning() -> None:
    steps, epochs = 7, 50
    schedule = build_schedule({"name": "epoch_cosine"})
    for epoch in (0, 1, 24, 49):
        wanted = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for step in range(steps):
            # As the loop counts: the share of all steps times the epochs.
            progress = (epoch * steps + step) / (epochs * steps) * epochs
            assert schedule(progress, epochs) == pytest.approx(wanted, abs=1e-12)
