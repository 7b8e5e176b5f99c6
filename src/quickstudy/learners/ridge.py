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
from quickstudy.core.learner import Fast, Meta, MetaLearner, part
from quickstudy.core.net import Net, apply, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive


@dataclass(frozen=True, kw_only=True)
class Ridge(MetaLearner):
    """Ridge regression on embeddings; classes are regressed as one-hot rows, then read as logits."""

    net: Net | None = None
    """The embedding f; None takes the inputs as they are."""
    penalty: Positive = 1.0
    """λ to start from; meta-learned, as in the paper."""
    scale: Positive = 10.0
    """α to start from; meta-learned, as in the paper. Only classification uses α and β."""

    paper: ClassVar[str] = (
        "Bertinetto et al. 2019. Meta-learning with Differentiable Closed-form Solvers. arXiv:1805.08136"
    )

    def init(self, seed: int = 0) -> Meta:
        start = {"log_penalty": math.log(self.penalty), "log_scale": math.log(self.scale), "shift": 0.0}
        net = (
            {f"net.{name}": value for name, value in initial(self.net, seed).items()}
            if self.net is not None
            else {}
        )
        return net | {name: torch.tensor(value) for name, value in start.items()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = self._embed(meta, support.x) * support.mask.unsqueeze(
            -1
        )  # a zero row takes no part in the solution
        y = (
            self.objective.one_hot(support)
            if isinstance(self.objective, Classify)
            else support.y * support.mask.unsqueeze(-1)
        )
        penalty = meta["log_penalty"].exp()
        rows, columns = z.shape
        if rows <= columns:
            weights = z.t() @ torch.linalg.solve(
                z @ z.t() + penalty * torch.eye(rows, dtype=z.dtype), y.to(z.dtype)
            )
        else:
            weights = torch.linalg.solve(
                z.t() @ z + penalty * torch.eye(columns, dtype=z.dtype), z.t() @ y.to(z.dtype)
            )
        return {"weights": weights, "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        outputs = self._embed(meta, x) @ fast["weights"]
        if isinstance(self.objective, Classify):
            outputs = meta["log_scale"].exp() * outputs + meta["shift"]
        return self.objective.restrict(outputs, fast["present"])

    def _embed(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        if self.net is not None:
            x = apply(self.net, part(meta, "net."), x)
        return torch.cat([x, torch.ones_like(x[:, :1])], -1)  # a constant feature carries the intercept
