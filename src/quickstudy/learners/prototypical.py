"""Prototypical networks: a class is the mean of its embedded examples, and the nearest mean wins.

    c_k = mean_i f(x_i),  y_i = k         p(k | x) ∝ exp(-s ‖f(x) - c_k‖²)

Snell, Swersky & Zemel 2017, arXiv:1703.05175, equations 1 and 2.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive


@dataclass(frozen=True, kw_only=True)
class Prototypical(MetaLearner):
    """Prototypical networks; the net maps inputs to embeddings [n, d]."""

    objective: Classify
    net: Net
    """The embedding f."""
    scale: Positive = 1.0
    """s; the paper has 1. Embeddings of unit length need more, about 10, to give confident answers."""

    paper: ClassVar[str] = "Snell, Swersky & Zemel 2017. Prototypical Networks. arXiv:1703.05175"

    def init(self, seed: int = 0) -> Meta:
        return initial(self.net, seed)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        means, counts = class_means(features(self.net, meta, support.x), self.objective.one_hot(support))
        return {"prototypes": means, "present": counts > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        distances = squared_distances(features(self.net, meta, x), fast["prototypes"])
        return self.objective.restrict(-self.scale * distances, fast["present"])


def class_means(
    x: Float[Tensor, "n d"], one_hot: Float[Tensor, "n ways"]
) -> tuple[Float[Tensor, "ways d"], Float[Tensor, "ways"]]:
    """The mean of each class's rows (zero for a class without any) and how many rows it has."""
    one_hot = one_hot.to(x.dtype)
    counts = one_hot.sum(0)
    return one_hot.t() @ x / counts.clamp(min=1).unsqueeze(-1), counts


def squared_distances(x: Float[Tensor, "n d"], c: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """Written out, since `cdist` has no second derivative."""
    return x.pow(2).sum(-1, keepdim=True) - 2 * x @ c.t() + c.pow(2).sum(-1)
