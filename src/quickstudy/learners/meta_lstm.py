"""Meta-LSTM: an LSTM whose cell state is the learner's weights, and whose gates learn how to descend and to forget.

    θ_t = f_t ⊙ θ_{t-1} - i_t ⊙ ∇L_t        i_t = σ(W_I [h_t, θ_{t-1}, i_{t-1}] + b_I),  f_t likewise
    h_t = LSTM(scaled ∇L_t, scaled L_t)      L_t = L(θ_{t-1}; support)

Ravi & Larochelle 2017, Optimization as a Model for Few-Shot Learning, ICLR, OpenReview:rJY0-Kcll, sections 3 and 4. The
gates are the same for all coordinates of θ. θ_0 is learned. Losses and gradients count as constants.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from quickstudy.core.coordinates import flatten, unflatten
from quickstudy.core.episode import Labelled
from quickstudy.core.learner import (
    Fast,
    Meta,
    NetLearner,
    in_precision_of,
    inner_gradient,
    inner_step,
    part,
    per_task,
    prefixed,
)
from quickstudy.core.net import initial
from quickstudy.core.spec import Fraction, Size, Steps
from quickstudy.learners.cells import blank, linear, lstm, scaled


@dataclass(frozen=True)
class _Cells:
    """A plain LSTM, and the two gates above it."""

    hidden: int

    def build(self) -> nn.Module:
        gates = {name: nn.Linear(self.hidden + 2, 1) for name in ("write", "keep")}
        return nn.ModuleDict({"lstm": nn.LSTMCell(4, self.hidden), **gates})


@dataclass(frozen=True, kw_only=True)
class MetaLSTM(NetLearner):
    """Meta-LSTM of two layers: a plain LSTM over scaled gradients and losses, and the cell that holds the weights."""

    steps: Steps = 5
    """Inner steps, each on the whole support; the authors' code takes 8 passes over 5 examples a class."""
    hidden: Size = 20
    """Width of the plain LSTM; the authors' code takes 20."""
    rate: Fraction = 0.1
    """The gate i, the learning rate, to start from; the authors' code draws .007 to .018, for more steps than ours."""
    keep: Fraction = 0.999
    """The gate f to start from, 1 less the decay; the authors' code draws .982 to .993, for a far longer training."""

    paper: ClassVar[str] = (
        "Ravi & Larochelle 2017. Optimization as a Model for Few-Shot Learning. OpenReview:rJY0-Kcll"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        cells = {name: 0.1 * value for name, value in initial(_Cells(self.hidden), seed).items()}
        for gate, value in (("write", self.rate), ("keep", self.keep)):
            cells[f"{gate}.bias"] = torch.tensor([value]).logit()
        net = initial(self.net, seed)
        return prefixed(net, "net.") | in_precision_of(net, cells)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        start = part(meta, "net.")

        def step(fast: Fast, cells: Fast) -> Fast:
            theta, weights = fast["theta"], unflatten(fast["theta"], start)
            gradient = flatten(
                inner_gradient(self.support_loss, weights, support, second_order=False), support
            )
            with torch.no_grad():
                loss = per_task(self.support_loss, support, weights, support).unsqueeze(-1)
            seen = torch.cat([scaled(gradient), scaled(loss.expand_as(gradient))], -1)
            h, c = lstm(part(cells, "lstm."), seen, (fast["h"], fast["c"]))
            i = self._gate(part(cells, "write."), h, theta, fast["i"])
            f = self._gate(part(cells, "keep."), h, theta, fast["f"])
            return {"theta": f * theta - i * gradient, "h": h, "c": c, "i": i, "f": f}

        theta = flatten(start, support)
        h, c = blank(theta, self.hidden)
        fast = {"theta": theta, "h": h, "c": c, "i": torch.zeros_like(theta), "f": torch.zeros_like(theta)}
        cells = {name: value for name, value in meta.items() if not name.startswith("net.")}
        for _ in range(self.steps):
            fast = inner_step(step, fast, cells)
        return self.adapted(unflatten(fast["theta"], start), support)

    @staticmethod
    def _gate(gate: Meta, h: torch.Tensor, theta: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([h, theta.unsqueeze(-1), before.unsqueeze(-1)], -1)
        return linear(gate["weight"], gate["bias"], seen).squeeze(-1).sigmoid()
