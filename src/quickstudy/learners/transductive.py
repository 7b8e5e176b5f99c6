"""Prototypes refined by what is asked: queries, softly assigned, count as further examples of each class.

    z_jk = softmax_k(-s ‖f(x_j) - c_k‖²)         c_k ← (Σ_i 1[y_i = k] f(x_i) + Σ_j z_jk f(x_j)) / (n_k + Σ_j z_jk)

Soft k-means of Ren et al. 2018, arXiv:1803.00676, section 3.1.1. There the unlabelled examples come with the support;
here they are the queries themselves, so **an answer depends on what else is asked**: the same input may be answered
otherwise alone than among others. An explanation is that of the answer to one input asked alone.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive, Steps
from quickstudy.learners.prototypical import class_means, squared_distances


@dataclass(frozen=True, kw_only=True)
class SoftKMeans(MetaLearner):
    """Transductive prototypical networks; the net maps inputs to embeddings [n, d]."""

    objective: Classify
    net: Net
    """The embedding f."""
    scale: Positive = 1.0
    """s; the paper has 1. Embeddings of unit length need more, about 10."""
    rounds: Steps = 1
    """Refinements; the paper makes one, as more did not help there. 0 is `Prototypical`."""

    paper: ClassVar[str] = (
        "Ren et al. 2018. Meta-Learning for Semi-Supervised Few-Shot Classification. arXiv:1803.00676"
    )
    transductive: ClassVar[bool] = True

    def init(self, seed: int = 0) -> Meta:
        return initial(self.net, seed)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        means, counts = class_means(features(self.net, meta, support.x), self.objective.one_hot(support))
        return {"prototypes": means, "counts": counts, "present": counts > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        z, prototypes = features(self.net, meta, x), fast["prototypes"]
        sums, counts = fast["counts"].unsqueeze(-1) * prototypes, fast["counts"]
        for _ in range(self.rounds):
            share = self._logits(z, prototypes, fast["present"]).softmax(-1)
            total = (counts + share.sum(0)).clamp(min=1e-9)  # of an absent class 0, and so is its sum
            prototypes = (sums + share.t() @ z) / total.unsqueeze(-1)
        return self._logits(z, prototypes, fast["present"])

    def _logits(self, z: Tensor, prototypes: Tensor, present: Tensor) -> Float[Tensor, "n ways"]:
        return self.objective.restrict(-self.scale * squared_distances(z, prototypes), present)
