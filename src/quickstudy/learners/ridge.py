"""R2-D2: ridge regression in closed form as the inner learner, differentiated through.

    W = Zᵀ (Z Zᵀ + λ I)⁻¹ Y,  Z = f(X)         outputs = α f(x) W + β

Bertinetto, Henriques, Torr & Vedaldi 2019, arXiv:1805.08136, equations 4 (Woodbury's form) and 6.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta
from quickstudy.core.net import full_precision
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive
from quickstudy.learners.embedding import EmbeddingLearner, with_one


@dataclass(frozen=True, kw_only=True)
class Ridge(EmbeddingLearner):
    """Ridge regression on embeddings; classes are regressed as one-hot rows, then read as logits."""

    penalty: Positive = 1.0
    """λ to start from; meta-learned. The authors' published settings hold it at 50, for features of some thousands of
    dimensions; ours may have few, and a λ that starts small can still grow."""
    scale: Positive = 10.0
    """α to start from; meta-learned, as in the authors' code, which starts it at 10 on Omniglot and at .0001 on
    miniImagenet. Only classification uses α and β."""

    paper: ClassVar[str] = (
        "Bertinetto et al. 2019. Meta-learning with Differentiable Closed-form Solvers. arXiv:1805.08136"
    )

    def init(self, seed: int = 0) -> Meta:
        start = {"log_penalty": math.log(self.penalty), "log_scale": math.log(self.scale), "shift": 0.0}
        return self.embedding(seed) | {name: torch.tensor(value) for name, value in start.items()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        # A zero row takes no part in the solution.
        z = with_one(self.embed(meta, support.x)) * support.mask.unsqueeze(-1)
        weights = least_squares(z, self.targets(support), meta["log_penalty"].exp())
        return {"weights": weights, "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        outputs = with_one(self.embed(meta, x)) @ fast["weights"]
        if isinstance(self.objective, Classify):
            outputs = meta["log_scale"].exp() * outputs + meta["shift"]
        return self.objective.restrict(outputs, fast["present"])


def least_squares(
    z: Float[Tensor, "n d"], y: Float[Tensor, "n k"], penalty: Float[Tensor, ""]
) -> Float[Tensor, "d k"]:
    """The weights that minimise ‖Z W - Y‖² + λ ‖W‖², by the smaller of two equal systems."""
    with full_precision(z):
        kind = z.dtype
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        y = y.to(z.dtype)
        rows, columns = z.shape
        if rows <= columns:
            return (z.t() @ torch.linalg.solve(z @ z.t() + penalty * torch.eye(rows).to(z), y)).to(kind)
        return torch.linalg.solve(z.t() @ z + penalty * torch.eye(columns).to(z), z.t() @ y).to(kind)
