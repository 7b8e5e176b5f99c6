"""Multilayer perceptron on fixed features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from quickstudy.core.spec import Share, Size, Spec

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
# None of the norms keeps running statistics: they would leak from one task into the next.
_NORMS = {
    "layer": nn.LayerNorm,
    "batch": lambda width: nn.BatchNorm1d(width, track_running_stats=False),
    "group": lambda width: nn.GroupNorm(1, width),
    "rms": nn.RMSNorm,
}


@dataclass(frozen=True, kw_only=True)
class MLP(Spec):
    """Linear layers with an activation, and optionally a norm and dropout, between them: [n, inputs] -> [n, outputs].

    With relu or tanh and neither norm nor dropout, the engine runs gradient descent on it in its fast dual form.
    """

    inputs: Size
    outputs: Size
    hidden: Annotated[tuple[Size, ...], Field(max_length=100)] = (64, 64)
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    norm: Literal["none", "layer", "batch", "group", "rms"] = "none"
    """Batch norm takes its statistics from the rows that pass together, in training and in use: an answer then depends
    on what else is asked, and a single row is refused."""
    dropout: Share = 0.0

    def build(self) -> nn.Module:
        parts: list[nn.Module] = []
        width = self.inputs
        for size in self.hidden:
            parts.append(nn.Linear(width, size))
            if self.norm != "none":
                parts.append(_NORMS[self.norm](size))
            parts.append(_ACTIVATIONS[self.activation]())
            if self.dropout:
                parts.append(nn.Dropout(self.dropout))
            width = size
        return nn.Sequential(*parts, nn.Linear(width, self.outputs))
