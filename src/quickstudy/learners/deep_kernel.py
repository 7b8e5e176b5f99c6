"""Deep kernel transfer: a Gaussian process on embeddings, whose kernel past tasks teach by their marginal likelihood.

    k(x, x') = s² κ(f(x), f(x'))        max_{f,s,σ,m}  Σ_tasks log N(y; m 1, K + σ² I)    of support and query together
    E[y*] = m + k*ᵀ (K + σ² I)⁻¹ (y - m)        var[y*] = k(x*, x*) - k*ᵀ (K + σ² I)⁻¹ k* + σ²

Patacchiola, Turner, Crowley, O'Boyle & Storkey 2020, arXiv:1910.05199; the posterior is that of Rasmussen & Williams
2006, algorithm 2.1. Classes are regressed as the paper does, each against the rest with labels 1 and -1, and the
greatest posterior mean wins. Its classes differ by their kernels' parameters; here they share them, so that no class is
bound to its number.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Fast, Meta
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Positive
from quickstudy.learners.embedding import EmbeddingLearner

LEAST = 1e-4
"""Added to the noise's variance, so that a likelihood without noise can't make the kernel singular."""


@dataclass(frozen=True, kw_only=True)
class DeepKernel(EmbeddingLearner):
    """Deep kernel transfer; the answer is the posterior mean, and `posterior` gives the variance as well."""

    kernel: Literal["rbf", "cosine", "linear"] = "rbf"
    """κ: exp(-‖a - b‖² / 2ℓ²), which the paper has for regression; a·b / ‖a‖‖b‖, which it found among the best for
    classification; or a·b."""
    lengthscale: Positive = 1.0
    """ℓ to start from; like all three, meta-learned by its logarithm. Only "rbf" has it."""
    amplitude: Positive = 1.0
    """s to start from, in the unit of the answers."""
    noise: Positive = 0.3
    """σ to start from, likewise."""
    scale: Positive = 3.0
    """What classes' posterior means are multiplied by to be logits; the likelihood doesn't see it, and the paper only
    compares means. (Twice the mean by its variance, Bayes' rule for Gaussian labels, is three times too sure.)"""

    paper: ClassVar[str] = (
        "Patacchiola et al. 2020. Bayesian Meta-Learning for the Few-Shot Setting via Deep Kernels. arXiv:1910.05199"
    )

    def init(self, seed: int = 0) -> Meta:
        start = {"log_amplitude": math.log(self.amplitude), "log_noise": math.log(self.noise), "mean": 0.0}
        if self.kernel == "rbf":
            start["log_lengthscale"] = math.log(self.lengthscale)
        return self.embedding(seed) | {name: torch.tensor(value) for name, value in start.items()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = self.embed(meta, support.x).double()
        factor, residual = self._prior(meta, z, support)
        return {
            "embedded": z,
            "factor": factor,
            "weights": torch.cholesky_solve(residual, factor),
            "mask": support.mask,
            "present": self.objective.present(support),
        }

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        mean, _ = self.posterior(meta, fast, x)
        outputs = self.scale * mean if isinstance(self.objective, Classify) else mean
        return self.objective.restrict(outputs, fast["present"])

    def posterior(
        self, meta: Meta, fast: Fast, x: Tensor
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
        """Mean of each answer, and the variance that all of a row's answers have, noise included."""
        z = self.embed(meta, x)
        near = self._kernel(meta, fast["embedded"], z.double()) * fast["mask"].unsqueeze(-1)
        square = z.double().pow(2).sum(-1)
        alone = self._of(meta, square, square, square)
        known = torch.linalg.solve_triangular(fast["factor"], near, upper=False).pow(2).sum(0)
        variance = (alone - known).clamp(min=0) + self._noise(meta)
        return (near.mT @ fast["weights"] + meta["mean"]).to(z.dtype), variance.to(z.dtype)

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        """Minus the log marginal likelihood of the whole task, in nats per row and answer."""
        rows = Labelled(*(torch.cat(pair) for pair in zip(*episode, strict=True)))
        factor, residual = self._prior(meta, self.embed(meta, rows.x).double(), rows)
        misfit = torch.linalg.solve_triangular(factor, residual, upper=False).pow(2).sum(0) / 2
        volume = factor.diagonal().log().sum()
        size, present = rows.mask.sum().clamp(min=1), self.objective.present(rows)
        each = (misfit + volume) / size + math.log(2 * math.pi) / 2
        return ((each * present).sum() / present.sum().clamp(min=1)).to(meta["mean"].dtype)

    def _prior(
        self, meta: Meta, z: Float[Tensor, "n d"], rows: Labelled
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n k"]]:
        """The Cholesky factor of K + σ² I, and y - m; a masked row is alone, with variance 1 and nothing to say."""
        y = self.targets(rows).to(z.dtype)
        y = (2 * y - 1 if isinstance(self.objective, Classify) else y) - meta["mean"]
        both = rows.mask & rows.mask.unsqueeze(-1)
        own = torch.where(rows.mask, self._noise(meta), 1.0)
        factor, failed = torch.linalg.cholesky_ex(self._kernel(meta, z, z) * both + torch.diag_embed(own))
        return torch.where(failed > 0, torch.nan, factor), y * rows.mask.unsqueeze(-1)

    def _noise(self, meta: Meta) -> Float[Tensor, ""]:
        return (2 * meta["log_noise"].double()).exp() + LEAST

    def _kernel(self, meta: Meta, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        return self._of(meta, a @ b.mT, a.pow(2).sum(-1, keepdim=True), b.pow(2).sum(-1))

    def _of(self, meta: Meta, ab: Tensor, aa: Tensor, bb: Tensor) -> Tensor:
        """The kernel from inner products."""
        if self.kernel == "rbf":
            ab = ((ab - (aa + bb) / 2) / (2 * meta["log_lengthscale"].double()).exp()).exp()
        elif self.kernel == "cosine":
            ab = ab / (aa * bb).clamp(min=1e-24).sqrt()
        return (2 * meta["log_amplitude"].double()).exp() * ab
