"""Matching networks: a query attends to the support's examples, and their labels are averaged by that attention.

    a_i(x) = softmax_i(s cos(f(x), f(x_i)))         p(y | x) = Σ_i a_i(x) y_i

Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, arXiv:1606.04080, equation 1 and section 2.1.1, with one
embedding for both sides. Labels are one-hot rows; real targets are averaged as they are. `MatchingFCE` adds the paper's
full context embeddings.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner, part, prefixed
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive


@dataclass(frozen=True, kw_only=True)
class Matching(MetaLearner):
    """Matching networks; the net maps inputs to embeddings [n, d]."""

    net: Net
    """The embedding f."""
    scale: Positive = 10.0
    """s. The paper has none, which is 1: no example can then get more than e² = 7.4 times the attention of another."""

    paper: ClassVar[str] = "Vinyals et al. 2016. Matching Networks for One Shot Learning. arXiv:1606.04080"

    def init(self, seed: int = 0) -> Meta:
        return prefixed(initial(self.net, seed), "net.")

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        if isinstance(self.objective, Classify):
            values = self.objective.one_hot(support)
        else:
            values = torch.where(support.mask.unsqueeze(-1), support.y, 0.0)
        return {
            "keys": self.embed(meta, support),
            "values": values,
            "mask": support.mask,
            "present": self.objective.present(support),
        }

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        asked = normalize(self.asked(meta, fast, x), dim=-1)
        likeness = self.scale * asked @ normalize(fast["keys"], dim=-1).t()
        mean = attention(likeness, fast["mask"]) @ fast["values"]
        if isinstance(self.objective, Classify):
            mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        return self.objective.restrict(mean, fast["present"])

    def embed(self, meta: Meta, support: Labelled) -> Float[Tensor, "n d"]:
        """Embeddings of the support."""
        return features(self.net, part(meta, "net."), support.x)

    def asked(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n d"]:
        """Embeddings of queries."""
        return features(self.net, part(meta, "net."), x)


def attention(likeness: Float[Tensor, "q n"], mask: Tensor) -> Float[Tensor, "q n"]:
    """Shares of each real row of the support."""
    return torch.where(mask, likeness, torch.finfo(likeness.dtype).min).softmax(-1)
