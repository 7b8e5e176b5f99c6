"""Reptile: move the initialisation towards the weights that plain training on each task ends at.

    φ ← φ + ε mean_i (W_i - φ),   W_i = k steps of SGD on task i from φ

Nichol, Achiam & Schulman 2018, arXiv:1803.02999, algorithms 1 and 2 (the batched version).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, PlainSGD, descend
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class Reptile(NetLearner):
    """Reptile. It trains on the support alone; the paper does the same, with more shots in training than in testing."""

    steps: Steps = 10
    """Inner steps k; the authors' commands take 3 to 19 in training, on batches, and mostly 55 to 100 in testing."""
    rate: Rate = 0.1
    """Inner learning rate; the authors' Adam at .0002 to .0015 is replaced by plain SGD, which needs a larger one."""

    paper: ClassVar[str] = (
        "Nichol, Achiam & Schulman 2018. On First-Order Meta-Learning Algorithms. arXiv:1803.02999"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = descend(self.support_loss, meta, support, steps=self.steps, rate=self.rate, second_order=False)
        return self.adapted(fast, support)

    def plain_sgd(self) -> PlainSGD:
        return PlainSGD(self.net, self.steps, self.rate, second_order=False)

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        # Its gradient in φ is φ - W_i: the paper's update read as gradient descent (section 2).
        return (
            torch.stack([(meta[name] - fast[f"net.{name}"].detach()).pow(2).sum() for name in meta]).sum() / 2
        )
