"""GE2E: every example of a batch is told apart by class centroids that leave it out.

    S_ik = cos(z_i, c_k) / t,   c_k = mean of the class's embeddings, without z_i for its own class
    L = mean_i  -log softmax(S_i)[y_i]

The generalised end-to-end loss of speaker verification: Wan, Wang, Papir & Lopez Moreno 2018, arXiv:1710.10467,
equations 5, 6, 8 and 9. It is the prototypical loss with every row as support and as query at once, so an embedding
pass is used twice. To predict, the nearest centroid wins.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive


@dataclass(frozen=True, kw_only=True)
class GE2E(MetaLearner):
    """A net tuned by the GE2E loss over episodes; the net maps inputs to embeddings [n, d]."""

    objective: Classify
    net: Net
    temperature: Positive = 0.07
    """t, fixed; the paper learns 1/t, and an offset that changes nothing in a softmax, from a start of 10."""

    paper: ClassVar[str] = (
        "Wan et al. 2018. Generalized End-to-End Loss for Speaker Verification. arXiv:1710.10467"
    )

    def init(self, seed: int = 0) -> Meta:
        return initial(self.net, seed)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = self._embed(meta, support.x)
        one_hot = self.objective.one_hot(support).to(z.dtype)
        return {"centroids": normalize(one_hot.t() @ z, dim=-1), "present": one_hot.sum(0) > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        cosine = self._embed(meta, x) @ fast["centroids"].t()
        return self.objective.restrict(cosine / self.temperature, fast["present"])

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        rows = Labelled(*(torch.cat(pair) for pair in zip(*episode, strict=True)))
        z = self._embed(meta, rows.x)
        one_hot = self.objective.one_hot(rows).to(z.dtype)
        sums, counts = one_hot.t() @ z, one_hot.sum(0)
        without = normalize(one_hot @ sums - z, dim=-1)  # the centroid of a row's own class, less the row
        cosine = torch.where(
            one_hot > 0, (z * without).sum(-1, keepdim=True), z @ normalize(sums, dim=-1).t()
        )
        logits = self.objective.restrict(cosine / self.temperature, counts > 0)
        # A row that is alone in its class has no centroid to be near to.
        judged = rows.mask & (one_hot @ counts > 1.5)
        return self.objective.loss(logits, rows._replace(mask=judged))

    def _embed(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        return normalize(features(self.net, meta, x), dim=-1)
