"""Gradient descent with momentum whose rates and momenta are learned, one of each for every layer.

    v ← γ_l v - (1 - γ_l) ∇_l L(θ; support)        θ_l ← θ_l + α_l v

Maclaurin, Duvenaud & Adams 2015, arXiv:1502.03492, algorithm 1, with the hyper-parameters of each layer set by the
gradient through training, as in their section 3.1. Every tensor of the network counts as a layer.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import (
    Fast,
    Meta,
    NetLearner,
    in_precision_of,
    inner_gradient,
    inner_step,
    part,
    prefixed,
    reshaped,
)
from quickstudy.core.net import initial
from quickstudy.core.spec import Fraction, Positive, Steps


@dataclass(frozen=True, kw_only=True)
class LearnedMomentum(NetLearner):
    """Learned rates and momenta, the same for all steps, so that `steps` may differ between training and use.

    The paper has one for each step, too.
    """

    steps: Steps = 5
    """Inner steps; the authors' 100 train from nothing, few-shot tasks want few."""
    rate: Positive = 0.1
    """α to start from, learned as its logarithm; the authors' experiments start from 1/e and train from nothing."""
    momentum: Fraction = 0.5
    """γ to start from; learned as its logit; the authors' experiments start from .5."""
    second_order: bool = True
    """Differentiate through the gradients, as the paper does."""

    paper: ClassVar[str] = (
        "Maclaurin, Duvenaud & Adams 2015. Gradient-based Hyperparameter Optimization through Reversible Learning. "
        "arXiv:1502.03492"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        net = initial(self.net, seed)
        own = {f"log_rate.{name}": torch.tensor(self.rate).log() for name in net}
        own |= {f"momentum.{name}": torch.tensor(self.momentum).logit() for name in net}
        return prefixed(net, "net.") | in_precision_of(net, own)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        def step(fast: Fast, fixed: Fast) -> Fast:
            weights, velocity = part(fast, "net."), part(fast, "velocity.")
            rate, kept = part(fixed, "rate."), part(fixed, "momentum.")
            slope = inner_gradient(self.support_loss, weights, support, second_order=self.second_order)
            velocity = {name: kept[name] * v - (1 - kept[name]) * slope[name] for name, v in velocity.items()}
            weights = {name: weight + rate[name] * velocity[name] for name, weight in weights.items()}
            return prefixed(weights, "net.") | prefixed(velocity, "velocity.")

        start = part(meta, "net.")
        fixed = {f"rate.{n}": reshaped(meta[f"log_rate.{n}"].exp(), w) for n, w in start.items()}
        fixed |= {f"momentum.{n}": reshaped(meta[f"momentum.{n}"].sigmoid(), w) for n, w in start.items()}
        still = {name: torch.zeros_like(weight) for name, weight in start.items()}
        fast = prefixed(start, "net.") | prefixed(still, "velocity.")
        for _ in range(self.steps):
            fast = inner_step(step, fast, fixed, second_order=self.second_order)
        return self.adapted(part(fast, "net."), support)
