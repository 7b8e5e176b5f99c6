"""Model-agnostic meta-learning: an initialisation from which a few gradient steps solve a new task.

    θ'_i = θ - α ∇_θ L_i(θ; support)      θ ← θ - β ∇_θ Σ_i L_i(θ'_i; query)

Finn, Abbeel & Levine 2017, arXiv:1703.03400, equation 1 and algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, PlainSGD, descend
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class MAML(NetLearner):
    """MAML; with `second_order=False` its first-order approximation (FOMAML, section 5.2)."""

    steps: Steps = 5
    """Inner steps; the paper uses 1 (sinusoids, Omniglot) to 5 (miniImagenet)."""
    rate: Rate = 0.1
    """Inner learning rate α; the paper's .01 to .4."""
    second_order: bool = True
    """Differentiate through the inner steps."""

    paper: ClassVar[str] = "Finn, Abbeel & Levine 2017. Model-Agnostic Meta-Learning. arXiv:1703.03400"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = descend(
            self.support_loss, meta, support, steps=self.steps, rate=self.rate, second_order=self.second_order
        )
        return self.adapted(fast, support)

    def plain_sgd(self) -> PlainSGD:
        return PlainSGD(self.net, self.steps, self.rate, self.second_order)
