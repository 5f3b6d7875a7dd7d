"""Adaptive sharpness-aware minimisation: a step goes by the gradient at the worst point near the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Asam"]


class Asam:
    """ASAM (Kwon et al. 2021) around an optimiser.

    Two gradients a step::

        loss().backward(); optimiser.ascend(); optimiser.zero_grad(); loss().backward(); optimiser.descend()

    `ascend` moves each weight by rho T² g / |T g|, T = |w| + eta, the norm taken over all weights that have a gradient.
    SAIG and FRGeo have eta = 0 and treat every parameter alike, biases too; so does this. (Kwon's own code has eta 0.01
    and leaves biases unscaled.)

    Args:
        base: makes the step; its parameter groups are this one's.
        rho: radius of the neighbourhood, in units of the weights' own size. SAIG 2.0, FRGeo 2.5.
        eta: keeps weights near 0 movable.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float = 2.0, eta: float = 0.0) -> None:
        self.base, self.rho, self.eta = base, rho, eta
        self._before: list[tuple[Tensor, Tensor]] = []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the base."""
        return self.base.param_groups

    @torch.no_grad()
    def ascend(self) -> None:
        """Go to the worst point near the weights, by their gradients; weights without one stay."""
        self._restore()
        moved = [p for group in self.base.param_groups for p in group["params"] if p.grad is not None]
        if not moved:
            return
        scaled = [(p.abs() + self.eta) * p.grad for p in moved]
        norm = torch.stack([each.norm().to(scaled[0].device) for each in scaled]).norm()
        reach = self.rho / (norm + 1e-12)
        for p, each in zip(moved, scaled, strict=True):
            # The weights themselves are kept: taking the step back would round.
            self._before.append((p, p.detach().clone()))
            p.add_((p.abs() + self.eta) * each * reach.to(p.device))

    @torch.no_grad()
    def descend(self) -> None:
        """Back to the weights as they were, and the base's step by the gradients found at the worst point."""
        self._restore()
        self.base.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the base."""
        self.base.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Of the base: between steps there is nothing else to keep."""
        return self.base.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.base.load_state_dict(state)

    def _restore(self) -> None:
        for p, before in self._before:
            p.data.copy_(before)
        self._before = []
