"""CAVIA: a few numbers beside the input say which task this is; only they are learned within a task.

    φ' = 0 - α ∇_φ L(f_θ([x, φ]); support)      θ ← θ - β ∇_θ L(f_θ([x, φ']); query)

Zintgraf, Shiarlis, Kurin, Hofmann & Whiteson 2019, arXiv:1810.03642, section 3. Their networks for images let φ scale
and shift feature maps (FiLM) instead; here it is appended to images, too, as constant channels.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, descend, part, prefixed
from quickstudy.core.net import Net, apply, initial
from quickstudy.core.spec import Rate, Size, Steps


@dataclass(frozen=True, kw_only=True)
class CAVIA(NetLearner):
    """CAVIA. An adapted task is `context` numbers; the network is shared by all."""

    net: Net
    """The network f; it takes `context` features (of images: channels) more than a task's inputs have."""
    context: Size = 5
    """How many numbers φ are; the paper's 5 for sinusoids, 100 for images."""
    steps: Steps = 1
    """Inner steps; the paper's 1 for sinusoids, 2 for images."""
    rate: Rate = 1.0
    """Inner learning rate α; the paper's. It can be large, as θ learns to make φ matter as much as it should."""
    second_order: bool = True
    """Differentiate through the inner steps. Without, θ never learns how φ is inferred."""

    paper: ClassVar[str] = "Zintgraf et al. 2019. Fast Context Adaptation via Meta-Learning. arXiv:1810.03642"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        return prefixed(initial(self.net, seed), "net.")

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        like = next(iter(meta.values()))
        fast = descend(
            self.support_loss,
            {"context": like.new_zeros(*support.mask.shape[:-1], self.context)},
            support,
            fixed=meta,
            steps=self.steps,
            rate=self.rate,
            second_order=self.second_order,
        )
        return fast | {"present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        return self.objective.restrict(self.forward(meta | fast, x), fast["present"])

    def forward(self, weights: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        context = weights["context"].reshape(-1, *[1] * (x.ndim - 2)).expand(len(x), -1, *x.shape[2:])
        return apply(self.net, part(weights, "net."), torch.cat([x, context], 1))
