"""Conditional neural processes: the support is encoded row by row, averaged, and decoded at each input asked about.

    r = mean_i h(x_i, y_i)        (μ, σ) = g(x, r)        max_{h,g}  Σ_query log N(y; μ, σ²)

For classes, as in the paper's section 4.3, each class is averaged by itself, Σ_i onehot(y_i) ⊗ h(x_i) over its rows; r
is all of them one after the other, and g gives logits. (With labels beside x and a single mean, ten times as many steps
taught the networks less.)

Garnelo et al. 2018, arXiv:1807.01613, section 2.2.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner, part, prefixed
from quickstudy.core.net import Net, apply, features, initial
from quickstudy.core.objective import Classify, mean
from quickstudy.core.spec import Positive
from quickstudy.learners.prototypical import class_means


@dataclass(frozen=True, kw_only=True)
class NeuralProcess(MetaLearner):
    """A conditional neural process. Nothing is fitted to a task: adapting is one pass of the encoder.

    Inputs are vectors. Sizes of the networks, for d features, k answers or classes, and w numbers that represent a row:
    """

    encoder: Net
    """h, from d + k numbers to w; for classes from d to w."""
    decoder: Net
    """g, from d + w numbers to 2 k, the means and then the spreads; for classes from d + k w to k."""
    narrowest: Positive = 0.1
    """The least σ, .1 as in the authors' code, whose softplus counts .9 times: without a bound, likelihoods have no
    greatest value."""

    paper: ClassVar[str] = "Garnelo et al. 2018. Conditional Neural Processes. arXiv:1807.01613"
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        return prefixed(initial(self.encoder, seed), "encoder.") | prefixed(
            initial(self.decoder, seed + 1), "decoder."
        )

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        if isinstance(self.objective, Classify):
            rows, slots = support.x, self.objective.one_hot(support)
        else:
            rows, slots = _beside(support.x, support.y), support.mask.unsqueeze(-1).to(support.y.dtype)
        means, _ = class_means(features(self.encoder, part(meta, "encoder."), rows), slots)
        return {"representation": means.flatten(), "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        return self.objective.restrict(
            self._decode(meta, fast, x)[:, : self.objective.outputs], fast["present"]
        )

    def posterior(
        self, meta: Meta, fast: Fast, x: Tensor
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Mean and variance of each answer of a regression."""
        means, spreads = self._decode(meta, fast, x).chunk(2, -1)
        return means, (self.narrowest + softplus(spreads)).pow(2)

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        """Minus the log-likelihood of the query, in nats per row and answer."""
        if isinstance(self.objective, Classify):
            return super().outer_loss(meta, fast, episode)
        means, variances = self.posterior(meta, fast, episode.query.x)
        misfit = (episode.query.y - means).pow(2) / variances + variances.log() + math.log(2 * math.pi)
        return mean(misfit.mean(-1) / 2, episode.query.mask)

    def _decode(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n out"]:
        same = fast["representation"].expand(len(x), -1)
        out = apply(self.decoder, part(meta, "decoder."), _beside(x, same))
        k = self.objective.outputs
        expected = (len(x), k if isinstance(self.objective, Classify) else 2 * k)
        if out.shape != expected:
            raise ModelError(
                f"NeuralProcess's decoder gives outputs of shape {list(out.shape)}; {self.objective} takes "
                f"{list(expected)}{'' if k == expected[1] else ', the means and then the spreads'}."
            )
        return out


def _beside(x: Tensor, y: Tensor) -> Tensor:
    if x.ndim != 2:
        raise DataError(
            f"NeuralProcess puts inputs beside answers, so each has to be a vector; x has shape {list(x.shape)}. "
            "Flatten inputs, or embed them first."
        )
    return torch.cat([x, y.to(x.dtype)], -1)
