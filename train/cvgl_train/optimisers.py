"""What a recipe's `optimiser` and `schedule` may ask for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cvgl.errors import CvglError

from .asam import Asam
from .factories import make
from .models.base import CrossViewModel

__all__ = ["OPTIMISERS", "SCHEDULES", "OptimiserError", "Schedule", "build_optimiser", "build_schedule"]

Schedule = Callable[[float, float], float]
"""Epochs done and epochs in all, both with fractions, to the share of its rate at which each group learns."""

Groups = list[dict[str, Any]]


class OptimiserError(CvglError, ValueError):
    """An optimiser or schedule that a recipe asks for and that cannot be made."""


def build_optimiser(model: CrossViewModel, settings: dict[str, Any]) -> torch.optim.Optimizer | Asam:
    """The optimiser of a recipe over `model.parameter_groups()`.

    Args:
        model: what it trains.
        settings: `name` (sgd, adam or adamw), `rate`, `backbone_rate` where the backbone learns at another one,
            `weight_decay`, `decay_norm_and_bias` (false: parameters of one dimension do not decay), the optimiser's own
            settings, and `asam: {rho, eta}` for sharpness-aware steps, as in ``{name: sgd, rate: 0.01, backbone_rate:
            0.003, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4}``.

    Raises:
        OptimiserError: no such optimiser or setting, a setting that cannot be, or a model whose groups are not all of
            its parameters.
    """
    own = dict(settings)
    name, asam = own.pop("name", None), own.pop("asam", None)
    for key in ("rate", "backbone_rate"):
        value = own.get(key)
        if isinstance(value, (int, float)) and not value > 0:
            raise OptimiserError("out of range", field=f"optimiser {name}: {key}", found=value, expected="more than 0")
    optimiser = make(OPTIMISERS, name, own, OptimiserError, "optimiser", model=model)
    if asam is None:
        return optimiser
    if not isinstance(asam, dict):
        raise OptimiserError("not a mapping", field="optimiser asam", found=asam, expected="{rho: 2.0}")
    return make({"asam": _asam}, "asam", asam, OptimiserError, "optimiser", base=optimiser)


def _sgd(
    model: CrossViewModel,
    rate: float,
    backbone_rate: float | None = None,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    groups = _groups(model, rate, backbone_rate, weight_decay, decay_norm_and_bias)
    if nesterov and momentum <= 0:
        raise OptimiserError("needs momentum", field="optimiser sgd: nesterov", found=momentum)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov)


def _adam(
    model: CrossViewModel,
    rate: float,
    backbone_rate: float | None = None,
    weight_decay: float = 0.0,
    decay_norm_and_bias: bool = True,
) -> torch.optim.Optimizer:
    return torch.optim.Adam(_groups(model, rate, backbone_rate, weight_decay, decay_norm_and_bias), lr=rate)


def _adamw(
    model: CrossViewModel,
    rate: float,
    backbone_rate: float | None = None,
    weight_decay: float = 0.01,
    decay_norm_and_bias: bool = True,
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(model, rate, backbone_rate, weight_decay, decay_norm_and_bias), lr=rate)


def _asam(base: torch.optim.Optimizer, rho: float = 2.0, eta: float = 0.0) -> Asam:
    if not rho > 0 or not eta >= 0:
        raise OptimiserError("out of range", field="optimiser asam", found=(rho, eta), expected="rho > 0 and eta >= 0")
    return Asam(base, rho, eta)


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
"""The settings are the functions' arguments, but for `model`."""


def _groups(
    model: CrossViewModel, rate: float, backbone_rate: float | None, weight_decay: float, decay_norm_and_bias: bool
) -> Groups:
    if not weight_decay >= 0:
        raise OptimiserError("out of range", field="optimiser: weight_decay", found=weight_decay, expected="0 or more")
    parts = model.parameter_groups()
    _check_complete(model, parts)
    groups: Groups = []
    for part, parameters in parts.items():
        part_rate = backbone_rate if part == "backbone" and backbone_rate is not None else rate
        flat = [p for p in parameters if p.ndim <= 1 and not decay_norm_and_bias]
        rest = [p for p in parameters if p.ndim > 1 or decay_norm_and_bias]
        for chosen, decay in ((rest, weight_decay), (flat, 0.0)):
            if chosen:
                groups.append({"params": chosen, "lr": part_rate, "weight_decay": decay, "part": part})
    if not groups:
        raise OptimiserError("nothing to train", field="model", found=model.info.name)
    return groups


def _check_complete(model: CrossViewModel, parts: dict[str, list[nn.Parameter]]) -> None:
    """A parameter that no group has would silently stay as it is."""
    found = Counter(id(p) for parameters in parts.values() for p in parameters)
    for name, p in model.named_parameters():
        if found[id(p)] != int(p.requires_grad):
            raise OptimiserError(
                "not in exactly one parameter group",
                field=name,
                found=found[id(p)],
                expected=str(int(p.requires_grad)),
            )


def build_schedule(settings: dict[str, Any]) -> Schedule:
    """The schedule of a recipe: a pure function of how far training has come.

    Args:
        settings: `name` (constant, steps, cosine, epoch_cosine or exponential) and its settings; any of them with
            `warmup` (epochs) or `warmup_share` (of the run), in which the rate rises from 0 in a straight line. What
            follows runs as if the warm-up were part of it, but for the cosines, which begin where the warm-up ends.

    Raises:
        OptimiserError: no such schedule or setting, or a setting that cannot be.
    """
    own = dict(settings)
    warmup, share = own.pop("warmup", 0.0), own.pop("warmup_share", 0.0)
    for key, value, most in (("warmup", warmup, math.inf), ("warmup_share", share, 1.0)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < most:
            expected = "epochs, 0 or more" if key == "warmup" else "from 0 to below 1"
            raise OptimiserError("out of range", field=f"schedule: {key}", found=value, expected=expected)
    if warmup and share:
        raise OptimiserError("one of the two", field="schedule: warmup, warmup_share", found=(warmup, share))
    curve = make(SCHEDULES, own.pop("name", None), own, OptimiserError, "schedule")

    def schedule(progress: float, total: float) -> float:
        rising = warmup or share * total
        factor = curve(progress, total, rising)
        return factor * progress / rising if progress < rising else factor

    return schedule


Curve = Callable[[float, float, float], float]
"""Epochs done, epochs in all, epochs of warm-up."""


def _constant() -> Curve:
    return lambda progress, total, rising: 1.0


def _steps(at: Sequence[float], factor: float = 0.1) -> Curve:
    """Times `factor` from each of the epochs `at` on, counted from 0 as in the papers' code."""
    _check_factor("steps", factor)
    if not at or list(at) != sorted(at) or at[0] <= 0:
        raise OptimiserError(
            "not rising", field="schedule steps: at", found=list(at), expected="epochs, such as [70, 110]"
        )
    # An epoch's first step may come out a rounding error before it.
    return lambda progress, total, rising: float(factor ** sum(progress >= epoch - 1e-6 for epoch in at))


def _cosine(last: float = 0.0) -> Curve:
    """Half a cosine from 1 to `last`."""
    if not 0 <= last <= 1:
        raise OptimiserError("out of range", field="schedule cosine: last", found=last, expected="from 0 to 1")

    def curve(progress: float, total: float, rising: float) -> float:
        done = min(max(progress - rising, 0.0) / max(total - rising, 1e-12), 1.0)
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))

    return curve


def _epoch_cosine(last: float = 0.0) -> Curve:
    """The same, but the rate stays for an epoch what it is at its beginning, as in FRGeo's code."""
    smooth = _cosine(last)
    # An epoch's first step may come out a rounding error before it.
    return lambda progress, total, rising: smooth(math.floor(progress + 1e-6), total, rising)


def _exponential(factor: float = 0.95) -> Curve:
    """Times `factor` an epoch, smoothly."""
    _check_factor("exponential", factor)
    return lambda progress, total, rising: float(factor**progress)


def _check_factor(name: str, factor: float) -> None:
    if not 0 < factor <= 1:
        raise OptimiserError("out of range", field=f"schedule {name}: factor", found=factor, expected="from 0 to 1")


SCHEDULES: dict[str, Callable[..., Curve]] = {
    "constant": _constant,
    "steps": _steps,
    "cosine": _cosine,
    "epoch_cosine": _epoch_cosine,
    "exponential": _exponential,
}
"""The settings are the functions' arguments."""
