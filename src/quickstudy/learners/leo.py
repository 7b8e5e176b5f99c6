"""Latent embedding optimisation: descend not on a classifier's weights but on the codes that they are decoded from.

    z_c = mean_{i ∈ c, j} g(A x_i, A x_j)        w_c = D z_c        z ← z - α ∇_z L(w; support)
    w ← w - β ∇_w L(w; support)                  logits = w x
    min L(w; query) + γ mean (z_start - stop(z))²

Rusu et al. 2019, arXiv:1807.05960, sections 2.3 and 2.4; this is the deterministic variant of its ablations: codes are
means, not draws, so there is no KL term. g is the relation network, over all pairs of the support's examples, so memory
grows with the square of their number.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Fast, FeatureLearner, Meta, inner_gradient, reshaped
from quickstudy.core.net import initial
from quickstudy.core.objective import Classify, count
from quickstudy.core.spec import Positive, Rate, Size, Steps


@dataclass(frozen=True)
class _Parts:
    """The linear encoder A, the relation network g, the linear decoder D."""

    dim: int
    latent: int

    def build(self) -> nn.Module:
        wide = 2 * self.latent
        return nn.ModuleDict({
            "encoder": nn.Linear(self.dim, self.latent, bias=False),
            "relation1": nn.Linear(wide, wide, bias=False),
            "relation2": nn.Linear(wide, wide, bias=False),
            "relation3": nn.Linear(wide, self.latent, bias=False),
            "decoder": nn.Linear(self.latent, self.dim, bias=False),
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LEO(FeatureLearner):
    """LEO on fixed features, as the paper's: a network that gives them is trained beforehand."""

    objective: Classify
    dim: Size
    """Features of an input; the paper's 640."""
    latent: Size = 64
    """Features of a code z; the paper's 64."""
    steps: Steps = 5
    """Steps on the codes; the paper's 5."""
    rate: Positive = 1.0
    """α to start from; meta-learned, as in the paper, from its 1. One for all coordinates, of the mean loss over
    the support; the paper's code has one for each coordinate, of the sum over classes."""
    tuning_steps: Steps = 5
    """Steps on the decoded weights; the paper's 5."""
    tuning_rate: Positive = 1e-3
    """β to start from; likewise, from its .001."""
    encoder_penalty: Rate = 1e-9
    """γ, which makes the encoder foresee where the descent ends; the paper searches it."""

    paper: ClassVar[str] = (
        "Rusu et al. 2019. Meta-Learning with Latent Embedding Optimization. arXiv:1807.05960"
    )
    inner_loop: ClassVar[bool] = True

    def init(self, seed: int = 0) -> Meta:
        rates = {"log_rate": self.rate, "log_tuning_rate": self.tuning_rate}
        logs = {name: torch.tensor(rate).log() for name, rate in rates.items()}
        return initial(_Parts(self.dim, self.latent), seed) | logs

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        start = codes = self._encode(meta, support)
        decoder = {"decoder": meta["decoder.weight"]}
        rate = reshaped(meta["log_rate"].exp(), codes)
        for _ in range(self.steps):
            codes = (
                codes - rate * inner_gradient(self._loss, {"codes": codes}, support, fixed=decoder)["codes"]
            )
        weights = codes @ decoder["decoder"].transpose(-1, -2)
        rate = reshaped(meta["log_tuning_rate"].exp(), weights)
        for _ in range(self.tuning_steps):
            weights = weights - rate * inner_gradient(self._loss, {"weights": weights}, support)["weights"]
        present = self.objective.present(support)
        return {"weights": weights, "present": present, "start": start, "codes": codes}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        return self.objective.restrict(x @ fast["weights"].t(), fast["present"])

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        unforeseen = (fast["start"] - fast["codes"].detach()).pow(2).mean()
        return super().outer_loss(meta, fast, episode) + self.encoder_penalty * unforeseen

    def _encode(self, meta: Meta, support: Labelled) -> Float[Tensor, "*tasks k latent"]:
        part = {name.removesuffix(".weight"): value.transpose(-1, -2) for name, value in meta.items()
                if name.endswith(".weight")}  # fmt: skip
        x = support.x @ part["encoder"]
        # The first layer on [x_i, x_j] is the sum of what it makes of either.
        left, right = (x @ half for half in part["relation1"].chunk(2, -2))
        pairs = (left.unsqueeze(-2) + right.unsqueeze(-3)).relu().flatten(-3, -2)
        pairs = (pairs @ part["relation2"]).relu().unflatten(-2, (x.shape[-2], -1))
        others = support.mask.to(x.dtype) / count(support.mask)
        mine = self.objective.one_hot(support).transpose(-1, -2).to(x.dtype)
        mine = mine / mine.sum(-1, keepdim=True).clamp(min=1)
        return mine @ (others.unsqueeze(-2).unsqueeze(-2) @ pairs).squeeze(-2) @ part["relation3"]

    def _loss(self, fast: Fast, support: Labelled) -> Float[Tensor, ""]:
        """Of one task, by its classifier's weights or by the codes that they are decoded from."""
        weights = fast["weights"] if "weights" in fast else fast["codes"] @ fast["decoder"].t()
        logits = self.objective.restrict(support.x @ weights.t(), self.objective.present(support))
        return self.objective.loss(logits, support)
