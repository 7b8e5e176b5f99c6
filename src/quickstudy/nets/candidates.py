"""One network that scores every candidate of a row."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from quickstudy.core.spec import Size, Spec


@dataclass(frozen=True, kw_only=True)
class Candidates(Spec):
    """A multilayer perceptron run on each candidate alone: [n, candidates, inputs] -> [n, candidates]; see `Rank`."""

    inputs: Size
    """What is known of a candidate."""
    hidden: Annotated[tuple[Size, ...], Field(max_length=100)] = (32,)

    def build(self) -> nn.Module:
        parts: list[nn.Module] = []
        width = self.inputs
        for size in self.hidden:
            parts += [nn.Linear(width, size), nn.Tanh()]
            width = size
        return nn.Sequential(*parts, nn.Linear(width, 1), nn.Flatten(-2))
