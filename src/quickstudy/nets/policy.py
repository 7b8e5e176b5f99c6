"""A policy of continuous actions: a multilayer perceptron for the mean, one deviation for each number of an action."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quickstudy.core.spec import Positive, Size, Spec
from quickstudy.nets.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class GaussianPolicy(Spec):
    """Means from the observation, deviations that don't depend on it: [n, inputs] -> [n, 2 · actions].

    The outputs are what `GaussianActions` reads: means, then logarithms of deviations. The latter are one parameter,
    `log_deviation`, learned and adapted as all others are. For discrete actions an `MLP` is the policy.
    """

    inputs: Size
    actions: Size
    """How many numbers an action is."""
    hidden: Annotated[tuple[Size, ...], Field(max_length=100)] = (64, 64)
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    deviation: Positive = 1.0
    """That training begins at, in the actions' own unit."""

    def build(self) -> nn.Module:
        mean = MLP(
            inputs=self.inputs, outputs=self.actions, hidden=self.hidden, activation=self.activation
        ).build()
        return _MeanAndDeviation(mean, self.actions, math.log(self.deviation))


class _MeanAndDeviation(nn.Module):
    def __init__(self, mean: nn.Module, actions: int, log: float) -> None:
        super().__init__()
        self.mean = mean
        self.log_deviation = nn.Parameter(torch.full((actions,), log))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        mean = self.mean(x)
        return torch.cat([mean, self.log_deviation.expand_as(mean)], -1)
