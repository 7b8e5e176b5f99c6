"""Supervised contrastive embedding: examples of one class attract each other, all others in the task repel.

    L = mean_i  -1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p / t) / Σ_{a ≠ i} exp(z_i·z_a / t) ),   P(i): others of i's class

Khosla et al. 2020, arXiv:2004.11362, equation 2 (L_out). A task is an episode of many classes; support and query count
alike. To predict, the nearest class mean wins, as in prototypical networks.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import Net, apply, initial
from quickstudy.core.objective import ABSENT, Classify


@dataclass(frozen=True, kw_only=True)
class Contrastive(MetaLearner):
    """A net tuned by the supervised contrastive loss over episodes; the net maps inputs to embeddings [n, d]."""

    objective: Classify
    net: Net
    temperature: float = 0.07
    """t; the paper's .1 for images."""

    paper: ClassVar[str] = "Khosla et al. 2020. Supervised Contrastive Learning. arXiv:2004.11362"

    def init(self, seed: int = 0) -> Meta:
        return initial(self.net, seed)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        one_hot = self.objective.one_hot(support)
        z = self._embed(meta, support.x)
        return {"centroids": normalize(one_hot.to(z.dtype).t() @ z, dim=-1), "present": one_hot.sum(0) > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        cosine = self._embed(meta, x) @ fast["centroids"].t()
        return self.objective.restrict(cosine / self.temperature, fast["present"])

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        both = Labelled(*(torch.cat(pair) for pair in zip(*episode, strict=True)))
        z = self._embed(meta, both.x)
        real = both.mask.unsqueeze(0) & both.mask.unsqueeze(1)
        others = real & ~torch.eye(len(both.y), dtype=torch.bool)
        alike = others & (both.y.unsqueeze(0) == both.y.unsqueeze(1))
        logits = torch.where(others, z @ z.t() / self.temperature, ABSENT)
        log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
        positives = alike.sum(-1)
        per_row = -torch.where(alike, log_p, 0.0).sum(-1) / positives.clamp(min=1)
        return per_row.sum() / (positives > 0).sum().clamp(min=1)

    def _embed(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        return normalize(apply(self.net, meta, x), dim=-1)
