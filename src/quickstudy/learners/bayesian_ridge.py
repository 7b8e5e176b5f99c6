"""Bayesian linear regression in closed form, with a mean and a covariance of its weights learned from past tasks.

    w ~ N(μ, Σ),  y = x w + ε,  ε ~ N(0, σ²)        w = μ + Σ Xᵀ (X Σ Xᵀ + σ² I)⁻¹ (Y - X μ)

Ridge regression is μ = 0 and Σ a multiple of I. μ, Σ and σ are learned by expectation maximisation over past tasks:
each task's posterior N(m_t, V_t), then μ = mean m_t, Σ = mean (V_t + (m_t - μ)(m_t - μ)ᵀ).

Harrison, Sharma & Pavone 2018 (ALPaCA), arXiv:1807.08912, section 3, where prior and features both follow the
meta-gradient, as they do here; the estimate, of a prior on features as they are, is that of Lindley & Smith 1972,
doi:10.1111/j.2517-6161.1972.tb00885.x. Classes are regressed as rows of the identity and share one prior, so that none
is another's better by its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Fast, Meta, in_precision_of
from quickstudy.core.net import full_precision
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive, Size, Steps
from quickstudy.learners.embedding import EmbeddingLearner, with_one


@dataclass(frozen=True, kw_only=True)
class BayesianRidge(EmbeddingLearner):
    """Linear regression from a learned prior; its answers to new inputs are posterior means."""

    width: Size
    """Features that the embedding gives; of an input, where there is no embedding."""
    rounds: Steps = 20
    """Of expectation maximisation in `estimate`."""
    strength: Positive = 50.0
    """How many past tasks' weights it takes until their covariance counts as much as the multiple of I that it is
    drawn to."""

    paper: ClassVar[str] = (
        "Harrison et al. 2018. Meta-Learning Priors for Efficient Online Bayesian Regression. arXiv:1807.08912"
    )

    def init(self, seed: int = 0) -> Meta:
        columns = 1 if isinstance(self.objective, Classify) else self.objective.outputs
        own = {
            "mean": torch.zeros(self.width + 1, columns),
            "root": torch.eye(self.width + 1),  # Σ is its product with its transpose
            "log_noise": torch.zeros(()),
            "log_scale": torch.zeros(()),
        }
        net = self.embedding(seed)
        return net | in_precision_of(net, own)

    def row_width(self) -> int | None:
        return self.width if self.net is None else None

    def trainable(self, meta: Meta) -> list[str]:
        # How sure answers are belongs to classes alone.
        numbers = not isinstance(self.objective, Classify)
        return [name for name in super().trainable(meta) if not (numbers and name == "log_scale")]

    def estimate(self, tasks: Sequence[Labelled], meta: Meta | None = None) -> Meta:
        """Learn the prior from past tasks, whose answers are as the objective reads them.

        Args:
            meta: where to start; its embedding stays as it is.

        Raises:
            DataError: no task.
        """
        if not tasks:
            raise DataError("There is no past task to learn a prior from; `init` has one that knows nothing.")
        meta = self.init() if meta is None else meta
        found = [
            (with_one(self.embed(meta, task.x)).detach().double(), self._answers(task))
            for task in map(Labelled.trimmed, tasks)
        ]
        prior = {name: meta[name].double() for name in ("mean", "root", "log_noise")}
        for _ in range(self.rounds):
            prior = self._next(prior, found)
        return meta | {name: value.to(meta[name]) for name, value in prior.items()}

    def _next(self, prior: Meta, tasks: Sequence[tuple[Tensor, Tensor]]) -> Meta:
        """The prior that makes the tasks' answers more probable than the last one did."""
        covariance, eye = prior["root"] @ prior["root"].t(), torch.eye(len(prior["root"])).to(prior["root"])
        means, spread, missed, rows = [], torch.zeros_like(eye), 0.0, 0
        for z, y in tasks:
            gain = self._gain(prior, z)
            weights = prior["mean"] + gain @ (y - z @ prior["mean"])
            left = (eye - gain @ z) @ covariance
            means.append(weights)
            spread = spread + left * weights.shape[1]
            missed += float((y - z @ weights).pow(2).sum() + ((z @ left) * z).sum() * weights.shape[1])
            rows += y.numel()
        shared = isinstance(self.objective, Classify)
        center = torch.stack([m.mean(1, keepdim=True) if shared else m for m in means]).mean(0)
        apart = torch.cat([m - center for m in means], 1)
        count = apart.shape[1]
        found = (apart @ apart.t() + spread) / count
        drawn = (count * found + self.strength * found.diagonal().mean() * eye) / (count + self.strength)
        noise = torch.tensor(max(missed / rows, 1e-9)).to(eye).log()
        return {"mean": center, "root": torch.linalg.cholesky(drawn), "log_noise": noise}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        real = support.mask.unsqueeze(-1)
        z = with_one(self.embed(meta, support.x)) * real
        weights = meta["mean"] + self._gain(meta, z) @ ((self.targets(support) - z @ meta["mean"]) * real)
        return {"weights": weights, "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        outputs = with_one(self.embed(meta, x)) @ fast["weights"]
        if isinstance(self.objective, Classify):
            outputs = outputs * meta["log_scale"].exp()
        return self.objective.restrict(outputs, fast["present"])

    def _gain(self, prior: Meta, z: Float[Tensor, "n d"]) -> Float[Tensor, "d n"]:
        """Σ Xᵀ (X Σ Xᵀ + σ² I)⁻¹, by the smaller of two equal systems; a row of zeros takes no part."""
        with full_precision(z):
            seen, noise = z @ prior["root"], prior["log_noise"].exp()
            tall = seen.shape[0] > seen.shape[1]
            both = seen.t() @ seen if tall else seen @ seen.t()
            both = both + noise * torch.eye(len(both)).to(z)
            solved = torch.linalg.solve(both, seen.t()) if tall else torch.linalg.solve(both, seen).t()
            return prior["root"] @ solved

    def _answers(self, task: Labelled) -> Float[Tensor, "n k"]:
        return (one_hot(task.y) if isinstance(self.objective, Classify) else task.y).double()
