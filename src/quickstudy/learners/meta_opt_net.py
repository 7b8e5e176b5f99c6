"""MetaOptNet: a support vector machine on embeddings as the inner learner, differentiated through its optimum.

    min_W  ½ Σ_k ‖w_k‖² + C Σ_i ξ_i    with    w_{y_i}·f(x_i) - w_k·f(x_i) ≥ 1 - δ_{k,y_i} - ξ_i
    p(k | x) ∝ exp(γ w_k·f(x))

Lee, Maji, Ravichandran & Soatto 2019, arXiv:1904.03758, sections 3.2 (the machine of Crammer & Singer, and γ) and 3.3
(its dual, and the implicit function theorem at the solution). The paper leaves both to a solver for quadratic programs;
here an interior point method finds the solution, and one linear system of its free variables gives the derivative.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive, Steps
from quickstudy.learners.crammer_singer import fit
from quickstudy.learners.embedding import EmbeddingLearner


@dataclass(frozen=True, kw_only=True)
class MetaOptNet(EmbeddingLearner):
    """MetaOptNet with its SVM head; its other head, ridge regression, is `Ridge`.

    Memory grows with the square of ways times rows, time with the cube.
    """

    objective: Classify
    cost: Positive = 0.1
    """C, what a violated margin costs; the paper's value."""
    scale: Positive = 1.0
    """γ to start from; meta-learned, as in the paper, here by its logarithm, so that it stays above 0."""
    steps: Steps = 25
    """Of the interior point method. About 15 reach the solution of a few-shot task; hundreds of rows whose classes
    overlap take 40."""

    paper: ClassVar[str] = (
        "Lee et al. 2019. Meta-Learning with Differentiable Convex Optimization. arXiv:1904.03758"
    )

    def init(self, seed: int = 0) -> Meta:
        return self.embedding(seed) | {"log_scale": torch.tensor(math.log(self.scale))}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = self.embed(meta, support.x) * support.mask.unsqueeze(-1)
        exact, y = z.double(), self.objective.one_hot(support).double()
        b = fit(self.cost * exact @ exact.t(), y, self.steps)
        weights = self.cost * exact.t() @ (y - b)
        return {"weights": weights.to(z.dtype), "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        outputs = meta["log_scale"].exp() * self.embed(meta, x) @ fast["weights"]
        return self.objective.restrict(outputs, fast["present"])
