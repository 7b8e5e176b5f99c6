"""Fine-tuning: gradient descent on one task's support from weights that were never meta-trained.

    θ' = θ - α ∇_θ L(θ; support), repeated

The baseline that every gradient-based learner has to beat: no experience of other tasks enters (Chen et al. 2019,
arXiv:1904.04232, section 3.1, without its pre-training).
"""

from dataclasses import dataclass
from typing import ClassVar

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, PlainSGD, descend
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class FineTune(NetLearner):
    """Fine-tuning of the whole network."""

    steps: Steps = 50
    """Gradient steps on a new task; the paper's 100 at batch size 4 are about as many passes over the support."""
    rate: Rate = 0.1
    """Learning rate; the paper's .01 with momentum."""

    paper: ClassVar[str] = "Chen et al. 2019. A Closer Look at Few-shot Classification. arXiv:1904.04232"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = descend(self.support_loss, meta, support, steps=self.steps, rate=self.rate, second_order=False)
        return self.adapted(fast, support)

    def plain_sgd(self) -> PlainSGD:
        return PlainSGD(self.net, self.steps, self.rate, second_order=False)

    def trainable(self, meta: Meta) -> list[str]:
        return []
