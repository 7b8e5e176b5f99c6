"""Logistic regression on embeddings as the inner learner, differentiated through its optimum.

    min_W  Σ_i -log softmax(W f(x_i))[y_i] + λ/2 ‖W‖²        p(k | x) ∝ exp(w_k·f(x))

The idea is that of LR-D2, Bertinetto, Henriques, Torr & Vedaldi 2019, arXiv:1805.08136, section 3.3: Newton's method
(iteratively reweighted least squares) as a layer. LR-D2 knows two classes, takes a few steps and differentiates
through each of them. Here there are any number of classes, the steps go on to the optimum without a graph, and one
more with a graph gives the derivative of the optimum itself: exact, and its memory is that of one step.
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
from quickstudy.learners.embedding import EmbeddingLearner, with_one
from quickstudy.learners.softmax import fit


@dataclass(frozen=True, kw_only=True)
class LogisticHead(EmbeddingLearner):
    """Multinomial logistic regression on embeddings. `Logistic` is the same on frozen features, with nothing learned.

    Time and memory grow with the ways and with the cube, or square, of the support's rows; not with features.
    """

    objective: Classify
    penalty: Positive = 1.0
    """λ to start from; meta-learned. It falls on the intercept, too. `Ridge` starts there, too, and says why."""
    steps: Steps = 20
    """Newton's; the last of 20 change nothing, unless λ is so small that the support is all but separated."""

    paper: ClassVar[str] = (
        "Bertinetto et al. 2019. Meta-learning with Differentiable Closed-form Solvers. arXiv:1805.08136"
    )

    def init(self, seed: int = 0) -> Meta:
        return self.embedding(seed) | {"log_penalty": torch.tensor(math.log(self.penalty))}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = with_one(self.embed(meta, support.x)) * support.mask.unsqueeze(-1)
        exact, y = z.double(), self.objective.one_hot(support).double()
        a = fit(exact @ exact.t(), y, meta["log_penalty"].double().exp(), self.steps)
        return {"weights": (exact.t() @ a).to(z.dtype), "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        return self.objective.restrict(with_one(self.embed(meta, x)) @ fast["weights"], fast["present"])
