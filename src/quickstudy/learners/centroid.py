"""Nearest centroid on frozen features: the baseline without any learning across tasks.

    c_k = mean_i x_i / ‖mean_i x_i‖,  y_i = k         p(k | x) ∝ exp(s cos(x, c_k))

The frozen-encoder baseline of the few-shot literature: SimpleShot, Wang et al. 2019, arXiv:1911.04623 (L2N).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive


@dataclass(frozen=True, kw_only=True)
class Centroid(MetaLearner):
    """Nearest centroid by cosine."""

    objective: Classify
    scale: Positive = 20.0
    """s, the inverse temperature. It changes probabilities, never which class wins."""

    paper: ClassVar[str] = (
        "Wang et al. 2019. SimpleShot: Revisiting Nearest-Neighbor Classification. arXiv:1911.04623"
    )

    def init(self, seed: int = 0) -> Meta:
        return {}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        one_hot = self.objective.one_hot(support)
        # The direction of the sum is the direction of the mean.
        return {
            "centroids": normalize(one_hot.t() @ normalize(support.x, dim=-1), dim=-1),
            "present": one_hot.sum(0) > 0,
        }

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        cosine = normalize(x, dim=-1) @ fast["centroids"].t()
        return self.objective.restrict(self.scale * cosine, fast["present"])
