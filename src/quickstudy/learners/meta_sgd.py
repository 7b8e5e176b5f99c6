"""Meta-SGD: the inner learning rate is learned too, one for every single weight, so its sign and direction as well.

    θ' = θ - α ∘ ∇_θ L(θ; support)      (θ, α) ← (θ, α) - β ∇_(θ, α) L(θ'; query)

Li, Zhou, Chen & Li 2017, arXiv:1707.09835, algorithm 1.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, inner_gradient, inner_step, part, prefixed
from quickstudy.core.net import initial
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class MetaSGD(NetLearner):
    """Meta-SGD. `meta` holds a rate α beside each weight, which doubles it."""

    steps: Steps = 1
    """Inner steps, which share their rates; the paper's single one."""
    least: Rate = 0.005
    """All rates start at one value, drawn by the seed from `least` to `most`; the paper's range."""
    most: Rate = 0.1
    """See `least`."""
    second_order: bool = True
    """Differentiate through the inner steps; rates are learned either way."""

    paper: ClassVar[str] = "Li, Zhou, Chen & Li 2017. Meta-SGD: Learning to Learn Quickly. arXiv:1707.09835"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        weights = initial(self.net, seed)
        rate = random.Random(seed).uniform(self.least, self.most)
        return prefixed(weights, "net.") | {
            f"rate.{name}": torch.full_like(weight, rate) for name, weight in weights.items()
        }

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        def step(weights: Fast, rates: Fast) -> Fast:
            slope = inner_gradient(self.support_loss, weights, support, second_order=self.second_order)
            return {name: weight - rates[name] * slope[name] for name, weight in weights.items()}

        weights, rates = part(meta, "net."), part(meta, "rate.")
        for _ in range(self.steps):
            weights = inner_step(step, weights, rates, second_order=self.second_order)
        return self.adapted(weights, support)
