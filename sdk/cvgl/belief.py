"""From the witnesses of a frame's places to the probability that one of them is right.

A place that chance would match as well with probability u is worth the factor p u^(p - 1), with p the decision's
``right_power``: the density of u where the place is right, over its density where it is wrong. Whatever p is, the
factor averages at most 1 over wrong places, so a right-place law that is off (simulated views are easier than photos)
costs fixes and never makes false ones likelier than stated.

Source: Vovk, Wang: E-values: Calibration, combination and applications, Annals of Statistics 49 (2021), section 2;
weights: Genovese, Roeder, Wasserman: False discovery control with p-value weighting, Biometrika 93 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.settings import Chances, Decision

__all__ = ["Belief", "believe", "prior_factor", "protection_radius", "retrieval_share"]

# Nothing that was measured on some hundred simulated frames tells a surer place from a sure one.
_SUREST = 1.0 - 1e-6
# Part of the belief that goes to all places alike, whatever retrieval says of them.
_EVEN = 0.2


@dataclass(frozen=True)
class Belief:
    """What is believed of one place.

    Args:
        log10_chance: decimal logarithm of the probability that chance matches as well at any of the places searched.
        log10_odds: decimal logarithm of the likelihood ratio of this place : none of those searched, before any prior
            on the position.
        probability: that the place is right.
    """

    log10_chance: float
    log10_odds: float
    probability: float


def retrieval_share(order: int, listed: int, lists: int, miss_share: float) -> float:
    """How probable retrieval makes a place, given that the right one is among those it lists: sums to 1 over them.

    Args:
        order: of the place in its list, from 1.
        listed: places in that list.
        lists: lists, which are taken to be equally likely.
        miss_share: share of right places that are not ranked first; each further rank is rarer by as much.
    """
    falling = (1.0 - miss_share) * miss_share ** (order - 1) / (1.0 - miss_share**listed)
    return ((1.0 - _EVEN) * falling + _EVEN / listed) / lists


def prior_factor(apart_m: float, sigma_m: float, radius_m: float) -> float:
    """How much likelier a position prior makes a place than any other inside the circle that was searched.

    The density of the prior over that of a place anywhere in the circle.

    Args:
        apart_m: from the prior's middle to the aircraft's position if the place is right.
        sigma_m: of the prior and that position together, each axis.
        radius_m: of the circle.
    """
    return radius_m**2 / (2.0 * sigma_m**2) * math.exp(-0.5 * (apart_m / sigma_m) ** 2)


def believe(
    chances: Sequence[Chances],
    shares: Sequence[float],
    factors: Sequence[float],
    answers: Sequence[int],
    decision: Decision,
) -> list[Belief]:
    """What is believed of each of a frame's places.

    Either one of the places is right, or none (the frame was taken elsewhere, or retrieval missed its place).

    Args:
        chances: for each place those of its witnesses, at that place alone.
        shares: of each place, by retrieval.
        factors: of each place, by the frame's prior; 1 without one.
        answers: places with the same number are the same answer, found twice: the better one counts.
        decision: the laws.
    """
    alone = [decision.log10_agreed(one) for one in chances]
    power = decision.right_power
    ratios = [math.log10(power) + (power - 1.0) * chance for chance in alone]
    weights = [min(share * factor, 1.0) for share, factor in zip(shares, factors, strict=True)]
    scores = [math.log10(max(w, 1e-12)) + ratio for w, ratio in zip(weights, ratios, strict=True)]
    best: dict[int, int] = {}
    for index, answer in enumerate(answers):
        if answer not in best or scores[index] > scores[best[answer]]:
            best[answer] = index
    # A prior may favour several places more than it can: together they are at most certain.
    total = max(sum(weights[index] for index in best.values()), 1.0)
    against = 1.0 - decision.proposed + decision.proposed * (1.0 - sum(weights[i] for i in best.values()) / total)
    terms = {answer: math.log10(decision.proposed / total) + scores[index] for answer, index in best.items()}
    top = max([math.log10(against), *terms.values()])
    everything = 10 ** (math.log10(against) - top) + sum(10 ** (term - top) for term in terms.values())
    return [
        Belief(
            log10_chance=min(chance - math.log10(max(weight, 1e-12)), 0.0),
            log10_odds=math.log10(share) + ratio,
            probability=min(10 ** (math.log10(decision.proposed / total) + score - top) / everything, _SUREST),
        )
        for chance, weight, share, ratio, score in zip(alone, weights, shares, ratios, scores, strict=True)
    ]


def protection_radius(covariance: NDArray[np.float64], probability: float, risk: float) -> float:
    """Radius (metres) that a position's error exceeds with at most a stated probability; infinite where there is none.

    The error exceeds it if the place is wrong, or if it is right and the error of its covariance is that large. For the
    latter the bound exp(-r^2 / (2 l)) is used, l the variance along the worst direction: exact for a circle, and for a
    line an eighth too far at one in a thousand.

    Args:
        covariance: (2, 2) m^2.
        probability: that the place is right.
        risk: probability of being outside.
    """
    left = risk - (1.0 - probability)
    if left <= 0.0:
        return math.inf
    return math.sqrt(-2.0 * math.log(left / probability) * float(np.linalg.eigvalsh(covariance)[-1]))
