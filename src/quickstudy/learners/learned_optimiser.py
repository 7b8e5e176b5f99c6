"""A learned optimiser: an LSTM that reads a weight's gradient and writes its update, the same for every weight.

    [g_t, s_{t+1}] = m(∇L(θ_t; support), s_t; φ)        θ_{t+1} = θ_t + g_t        min_φ L(θ_T; query)

Andrychowicz et al. 2016, arXiv:1606.04474, equations 1 and 2, section 2.1 (coordinate-wise, two layers of LSTM) and
appendix A (how gradients are scaled). m doesn't see how gradients depend on it, as in the paper. The paper then sums
the losses of all steps, since it unrolls for hundreds; few steps need no such help.
"""

from dataclasses import dataclass
from typing import ClassVar

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
    prefixed,
)
from quickstudy.core.net import initial
from quickstudy.core.spec import Positive, Size, Steps
from quickstudy.learners.cells import blank, linear, lstm, scaled


@dataclass(frozen=True)
class _Optimiser:
    """The optimiser m."""

    hidden: int

    def build(self) -> nn.Module:
        cells = {"first": nn.LSTMCell(2, self.hidden), "second": nn.LSTMCell(self.hidden, self.hidden)}
        return nn.ModuleDict({**cells, "output": nn.Linear(self.hidden, 1)})


@dataclass(frozen=True, kw_only=True)
class LearnedOptimiser(NetLearner):
    """The coordinate-wise LSTM optimiser."""

    steps: Steps = 5
    """Inner steps T; the paper's 100 to 200 train from nothing, few-shot tasks want few."""
    hidden: Size = 20
    """Units in each of the two layers; the paper's 20."""
    scale: Positive = 0.01
    """What the LSTM's output is multiplied by, so that an untrained one takes small steps; the authors' code takes
    .01."""
    learn_start: bool = True
    """Learn θ_0 too; False keeps it as `init` drew it. The paper draws it anew for each task, which a few examples
    can't make up for."""

    paper: ClassVar[str] = (
        "Andrychowicz et al. 2016. Learning to Learn by Gradient Descent by Gradient Descent. arXiv:1606.04474"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        net = initial(self.net, seed)
        return prefixed(net, "net.") | in_precision_of(net, initial(_Optimiser(self.hidden), seed))

    def trainable(self, meta: Meta) -> list[str]:
        return [name for name in meta if self.learn_start or not name.startswith("net.")]

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        start = part(meta, "net.")

        def step(fast: Fast, cells: Fast) -> Fast:
            weights, output = unflatten(fast["theta"], start), part(cells, "output.")
            gradient = inner_gradient(self.support_loss, weights, support, second_order=False)
            h1, c1 = lstm(part(cells, "first."), scaled(flatten(gradient, support)), (fast["h1"], fast["c1"]))
            h2, c2 = lstm(part(cells, "second."), h1, (fast["h2"], fast["c2"]))
            update = self.scale * linear(output["weight"], output["bias"], h2).squeeze(-1)
            return {"theta": fast["theta"] + update, "h1": h1, "c1": c1, "h2": h2, "c2": c2}

        zero, _ = blank(theta := flatten(start, support), self.hidden)
        fast = {"theta": theta} | dict.fromkeys(("h1", "c1", "h2", "c2"), zero)
        cells = {name: value for name, value in meta.items() if not name.startswith("net.")}
        for _ in range(self.steps):
            fast = inner_step(step, fast, cells)
        return self.adapted(unflatten(fast["theta"], start), support)
