"""MAML++: MAML with learned rates and norms for each layer and step, and a loss of all steps at first.

    θ_k = θ_{k-1} - α_k ∇ L(θ_{k-1}, γ_{k-1}; support),  k = 1 … N
    minimised:  v L(θ_N, γ_N; query) + (1 - v) mean_{0 < k < N} L(θ_k, γ_k; query)

Antoniou, Edwards & Storkey 2019, arXiv:1810.09502, section 4. α_k holds a rate for each tensor of weights (LSLR). γ_k
are the scales and shifts of norm layers: they change from step to step, not from task to task (BNWB). v rises to 1
(MSL), and derivatives change from first to second order (DA), as `at` says.

Left out: running statistics for each step (BNRS), which a learner without state can't collect, so that batch norm takes
its statistics from the rows that pass; and the cosine schedule of the outer rate (CA), which is the engine's matter.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import (
    Fast,
    Meta,
    NetLearner,
    inner_gradient,
    inner_step,
    part,
    prefixed,
    reshaped,
)
from quickstudy.core.net import initial, parameters_of
from quickstudy.core.spec import Rate, Steps

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, kw_only=True)
class MAMLPlusPlus(NetLearner):
    """MAML++. Meta-train epoch by epoch with `at(epoch)`; what was learned fits the learner of any epoch."""

    steps: Steps = 5
    """Inner steps N; the paper's."""
    rate: Rate = 0.1
    """What all inner learning rates start at; as MAML's. They may become negative."""
    importance: Annotated[float, Field(ge=0, le=1)] = 1.0
    """v, the weight of the last step's loss in meta-training, where earlier steps share the rest equally."""
    second_order: bool = True
    """Differentiate through the inner steps; rates are learned either way."""
    step_norms: bool = True
    """Norm layers have a scale and a shift for each of the N + 1 points of the path, which the inner loop leaves alone.
    The authors' code has N: a query after step k takes those of the support before it."""

    paper: ClassVar[str] = "Antoniou, Edwards & Storkey 2019. How to Train Your MAML. arXiv:1810.09502"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        weights = initial(self.net, seed)
        still = parameters_of(self.net, *_NORMS) if self.step_norms else set()
        norms = {name: weight for name, weight in weights.items() if name in still}
        moving = {name: weight for name, weight in weights.items() if name not in still}
        return (
            prefixed(moving, "net.")
            | {f"rate.{n}": torch.full((self.steps,), self.rate, dtype=w.dtype) for n, w in moving.items()}
            | {f"norm.{name}": torch.stack([w] * (self.steps + 1)) for name, w in norms.items()}
        )

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        def step(weights: Fast, fixed: Fast) -> Fast:
            rates, norms = part(fixed, "rate."), part(fixed, "norm.")
            slope = inner_gradient(
                self.support_loss, weights, support, fixed=norms, second_order=self.second_order
            )
            return {n: w - reshaped(rates[n], w) * slope[n] for n, w in weights.items()}

        weights, rates, norms = (part(meta, kind) for kind in ("net.", "rate.", "norm."))
        place = support.mask.ndim - 1  # the dimension of steps: after that of tasks, if there is one
        norms = [{n: w.select(place, k) for n, w in norms.items()} for k in range(self.steps + 1)]
        path = [self.adapted(weights | norms[0], support)]
        for k in range(self.steps):
            fixed = prefixed({n: rate[..., k] for n, rate in rates.items()}, "rate.")
            fixed |= prefixed(norms[k], "norm.")
            weights = inner_step(step, weights, fixed, second_order=self.second_order)
            path.append(self.adapted(weights | norms[k + 1], support))
        *early, fast = path
        if self.importance < 1:  # meta-training looks back at steps 1 to N - 1
            fast |= {f"{k}.{n}": value for k, one in enumerate(early) if k for n, value in one.items()}
        return fast

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        last = super().outer_loss(meta, fast, episode)
        if self.importance == 1 or self.steps < 2:
            return last
        early = [self.predict(meta, part(fast, f"{k}."), episode.query.x) for k in range(1, self.steps)]
        losses = torch.stack([self.objective.loss(outputs, episode.query) for outputs in early])
        return self.importance * last + (1 - self.importance) * losses.mean()

    def at(self, epoch: int, *, last_only: int = 15, second_order: int = 50) -> "MAMLPlusPlus":
        """The learner to meta-train with in an epoch, counted from 0; the paper's has 500 batches.

        Args:
            last_only: the epoch at which v, which rises evenly from 1 / N, is 1; 15 in the authors' code.
            second_order: the first epoch with derivatives of second order, if this learner has them at all.
        """
        even = 1 / max(1, self.steps)
        importance = 1.0 if epoch >= last_only else even + (1 - even) * epoch / last_only
        return replace(self, importance=importance, second_order=self.second_order and epoch >= second_order)
