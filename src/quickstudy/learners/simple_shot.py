"""SimpleShot: features are centred by the mean of past classes and cut to length 1, then the nearest centroid wins.

    z = (x - μ) / ‖x - μ‖,   μ = the mean of past classes
    c_k = mean_i z_i,  y_i = k         p(k | x) ∝ exp(-s ‖z - c_k‖²)

Wang, Chao, Weinberger & van der Maaten 2019, arXiv:1911.04623: its transformation CL2N, on features of a fixed encoder.
`Centroid` is the same idea without μ (L2N), compared by angle. It knows nothing of past tasks and is the baseline;
this one is the method, and differs by what `estimate` learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Fast, FeatureLearner, Meta
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive, Size
from quickstudy.learners.prototypical import class_means, squared_distances


@dataclass(frozen=True, kw_only=True)
class SimpleShot(FeatureLearner):
    """Nearest centroid of centred features of length 1."""

    objective: Classify
    dim: Size
    """Number of features."""
    scale: Positive = 10.0
    """s. The paper has no probabilities; it changes these, never which class wins."""

    paper: ClassVar[str] = (
        "Wang et al. 2019. SimpleShot: Revisiting Nearest-Neighbor Classification. arXiv:1911.04623"
    )

    def init(self, seed: int = 0) -> Meta:
        return {"center": torch.zeros(self.dim)}

    def trainable(self, meta: Meta) -> list[str]:
        return []  # the mean comes in closed form, by `estimate`

    def estimate(self, tasks: Sequence[Labelled]) -> Meta:
        """Learn the mean of past classes, one vote each; where each has as many examples, that of all examples.

        Raises:
            DataError: no example in any task.
        """
        means = [
            task.x[task.y == number].double().mean(0)
            for task in map(Labelled.trimmed, tasks)
            for number in task.y.unique()
        ]
        if not means:
            raise DataError("SimpleShot learns the mean of past classes; there is none in these tasks.")
        return {"center": torch.stack(means).mean(0).float()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = normalize(support.x - meta["center"], dim=-1)
        means, counts = class_means(z, self.objective.one_hot(support))
        return {"centroids": means, "present": counts > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        distances = squared_distances(normalize(x - meta["center"], dim=-1), fast["centroids"])
        return self.objective.restrict(-self.scale * distances, fast["present"])
