"""Gaussian classes with a known prior: what the best possible classifier does is known in closed form."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.dataset import Shots
from quickstudy.core.engine import Sample
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.objective import ABSENT


@dataclass(frozen=True, kw_only=True)
class GaussianClasses:
    """Class means m_c ~ N(μ, Σ_b), examples x | c ~ N(m_c, Σ_w).

    μ, Σ_b and Σ_w belong to the family, so past tasks teach them. Both covariances have axes of their own, at random,
    and variances in a geometric row along them.
    """

    dim: int = 16
    between: tuple[float, float] = (0.03, 3.0)
    """Smallest and largest variance of Σ_b."""
    within: tuple[float, float] = (0.1, 10.0)
    """Smallest and largest variance of Σ_w."""
    family: int = 0
    """Seed of μ ~ N(0, I) and of the axes."""

    @cached_property
    def prior(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """μ, Σ_b, Σ_w."""
        rng = np.random.default_rng(self.family)

        def covariance(least: float, most: float) -> np.ndarray:
            axes, _ = np.linalg.qr(rng.standard_normal((self.dim, self.dim)))
            return axes * np.geomspace(least, most, self.dim) @ axes.T

        return rng.standard_normal(self.dim), covariance(*self.between), covariance(*self.within)

    def sampler(self, shots: Shots, seed: int = 0) -> Sample:
        """Draw tasks: batch number `step` is a pure function of (seed, step). Rows stand shot by shot."""
        mean, between, within = self.prior
        apart, around = (np.linalg.cholesky(covariance).T for covariance in (between, within))
        ways, most, dtype = shots.most_ways, shots.most_shots, torch.get_default_dtype()

        def sample(step: int) -> Episode:
            rng = np.random.default_rng([seed, step])
            means = mean + rng.standard_normal((shots.tasks, 1, ways, self.dim)) @ apart
            each = most + shots.queries
            x = means + rng.standard_normal((shots.tasks, each, ways, self.dim)) @ around
            real = np.ones((shots.tasks, each, ways), bool)
            if not isinstance(shots.ways, int):
                real &= np.arange(ways) < rng.integers(shots.ways[0], ways + 1, (shots.tasks, 1, 1))
            if not isinstance(shots.shots, int):
                own = rng.integers(shots.shots[0], most + 1, (shots.tasks, 1, 1))
                real[:, :most] &= np.arange(most)[:, None] < own

            def part(rows: slice) -> Labelled:
                here = torch.from_numpy(x[:, rows].reshape(shots.tasks, -1, self.dim)).to(dtype)
                y = torch.arange(ways).repeat(here.shape[1] // ways).expand(shots.tasks, -1).clone()
                return Labelled(here, y, torch.from_numpy(real[:, rows].reshape(shots.tasks, -1)))

            return Episode(part(slice(0, most)), part(slice(most, None)))

        return sample

    def bayes(self, support: Labelled, x: Float[Tensor, "*t n d"], ways: int) -> Float[Tensor, "*t n ways"]:
        """The log-probabilities of the classes, all as likely before x is seen; no classifier has a smaller risk.

            m_c | support ~ N(m̂_c, P_c)      P_c⁻¹ = Σ_b⁻¹ + n_c Σ_w⁻¹      m̂_c = P_c (Σ_b⁻¹ μ + Σ_w⁻¹ Σ_i x_i)
            p(x | c, support) = N(x; m̂_c, Σ_w + P_c)

        A class without examples has no probability. With leading dimensions of tasks or none.
        """
        mean, between, within = (torch.from_numpy(part) for part in self.prior)
        real = support.mask.unsqueeze(-1)
        member = ((support.y.unsqueeze(-1) == torch.arange(ways)) & real).double()
        sums = member.mT @ torch.where(real, support.x, 0.0).double()
        count = member.sum(-2)[..., None, None]
        ours, theirs = between.inverse(), within.inverse()
        posterior = (ours + count * theirs).inverse()  # [*t, ways, d, d]
        expected = (posterior @ (mean @ ours + sums @ theirs).unsqueeze(-1)).squeeze(-1)
        predictive = torch.distributions.MultivariateNormal(
            expected.unsqueeze(-3), covariance_matrix=(within + posterior).unsqueeze(-4), validate_args=False
        )
        found = predictive.log_prob(x.double().unsqueeze(-2))
        found = torch.where(count.squeeze(-1).mT > 0, found, ABSENT)
        return torch.log_softmax(found, -1).to(x.dtype)
