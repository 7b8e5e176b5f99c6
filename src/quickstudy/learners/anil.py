"""Almost no inner loop: MAML whose inner steps move only the last layer.

    θ = (body, head):   head' = head - α ∇_head L(body, head; support)

Raghu, Raghu, Bengio & Vinyals 2020, arXiv:1909.09157, section 4.
"""

from dataclasses import dataclass
from typing import ClassVar

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.head import last_linear, split_head
from quickstudy.core.learner import Fast, Meta, NetLearner, descend
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class ANIL(NetLearner):
    """ANIL. The head is the network's last linear layer."""

    steps: Steps = 5
    """Inner steps; the paper uses 1 (Omniglot) and 5 (miniImagenet)."""
    rate: Rate = 0.1
    """Inner learning rate α; the paper's .01 to .5."""
    second_order: bool = True
    """Differentiate through the inner steps."""

    paper: ClassVar[str] = (
        "Raghu, Raghu, Bengio & Vinyals 2020. Rapid Learning or Feature Reuse? arXiv:1909.09157"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        body, head = split_head(self.net, meta)
        if not head:
            last = last_linear(self.net).rstrip(".") or "the network"
            raise ModelError(
                f"ANIL adapts the last linear layer ({last}), which is frozen. Let its parameters require grad, or "
                "make a linear layer that does the last one of the module."
            )
        # The body is bound, not moved: its gradient is never computed in the inner loop.
        head = descend(
            self.support_loss,
            head,
            support,
            fixed=body,
            steps=self.steps,
            rate=self.rate,
            second_order=self.second_order,
        )
        return self.adapted(body | head, support)
