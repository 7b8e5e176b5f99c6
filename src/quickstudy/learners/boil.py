"""BOIL: MAML whose inner steps move everything but the last layer: the features adapt, what reads them stays.

    θ = (body, head):   body' = body - α ∇_body L(body, head; support)

Oh, Yoo, Kim & Yun 2021, arXiv:2008.08882, section 3. The head learns across tasks alone: ANIL the other way round.
"""

from dataclasses import dataclass
from typing import ClassVar

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.head import split_head
from quickstudy.core.learner import Fast, Meta, NetLearner, descend
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class BOIL(NetLearner):
    """BOIL. The head is the network's last linear layer."""

    steps: Steps = 1
    """Inner steps; the paper's one."""
    rate: Rate = 0.5
    """Inner learning rate α of the body; the paper's. The head's is 0."""
    second_order: bool = True
    """Differentiate through the inner steps."""

    paper: ClassVar[str] = (
        "Oh, Yoo, Kim & Yun 2021. BOIL: Towards Representation Change for Few-shot Learning. arXiv:2008.08882"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        body, head = split_head(self.net, meta)
        if not body:
            raise ModelError(
                f"BOIL adapts the layers below the last linear one, and {self.net} has none that "
                "learn; use MAML, or let them require grad."
            )
        # The head is bound, not moved; the meta-gradient reaches it through the body's steps, too.
        body = descend(
            self.support_loss,
            body,
            support,
            fixed=head,
            steps=self.steps,
            rate=self.rate,
            second_order=self.second_order,
        )
        return self.adapted(body | head, support)
