"""Trust region policy optimisation of what meta-training lowers: the longest step along the natural gradient that keeps
the adapted policies near to those that acted.

    min_θ  Σ_i L_i(θ'_i)   subject to   mean_i KL(π_acting,i ‖ π_θ'_i) ≤ δ,      θ'_i adapted from θ

Schulman et al. 2015, arXiv:1502.05477, appendix C: x = H⁻¹ g by conjugate gradients, a step of √(2δ / xᵀHx) along it,
shortened until the constraint holds and the loss is lower. As in MAML (Finn et al. 2017, arXiv:1703.03400, section
5.3), θ enters through the inner steps, in g and in the Hessian H of the mean divergence alike.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.engine import outputs
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.forms import Form, settled, task_losses
from quickstudy.core.implicit import solve
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.net import training
from quickstudy.core.policy import PolicyGradient
from quickstudy.core.spec import Fraction, Positive, Rate, Size, Spec, Steps


@dataclass(frozen=True, kw_only=True)
class TRPO(Spec):
    """How long a step is, and how hard it is looked for."""

    bound: Positive = 0.01
    """δ, in nats; the paper's."""
    solver_steps: Steps = 10
    """Of conjugate gradients; the paper's."""
    every: Size = 5
    """One in so many steps of the adapted policies' trajectories enters H, the costliest part; the paper takes one in
    ten. The bound is checked on all of them."""
    damping: Rate = 1e-3
    """Of H, added to its diagonal. The reference code's 1e-5 is for float64."""
    shorter: Fraction = 0.8
    """What a step that doesn't do is multiplied with; the reference code's."""
    tries: Size = 15
    """How many lengths are tried before θ stays where it is; the reference code's."""


class Taken(NamedTuple):
    """A step: where it led, and the mean loss and divergence before and after."""

    meta: Meta
    before: float
    after: float
    divergence: float
    tries: int
    """The length that was taken, counted from 1; 0 for none."""


def trust_region_step(learner: MetaLearner, meta: Meta, episodes: Episode, how: TRPO) -> Taken:
    """One step from `meta`; `episodes` hold the trajectories to adapt to and those of the adapted policies.

    Raises:
        ModelError: the learner isn't one of policies.
    """
    objective = learner.objective
    if not isinstance(objective, PolicyGradient):
        raise ModelError(f"TRPO takes a learner of policies; its objective is a {type(objective).__name__}.")

    def run(form: Form) -> Taken:
        # The Hessian differentiates once more, which the written-out backward passes can't.
        return _step(
            learner, objective, meta, episodes, how, "stacked" if form in ("dual", "hybrid") else form
        )

    return settled(learner, episodes, run)


def _step(
    learner: MetaLearner, objective: PolicyGradient, meta: Meta, episodes: Episode, how: TRPO, form: Form
) -> Taken:
    query = episodes.query
    apart = Episode(episodes.support, query._replace(y=objective.only_divergence(query.y)))
    some = Episode(episodes.support, Labelled(*(part[:, :: how.every] for part in apart.query)))
    names = learner.trainable(meta)
    start = {name: meta[name].detach() for name in names}

    def slope(judged: Episode, *, again: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        leaves = {name: weight.clone().requires_grad_() for name, weight in start.items()}
        loss = _mean_loss(learner, meta | leaves, judged, form)
        at = list(leaves.values())
        found = torch.autograd.grad(loss, at, create_graph=again, materialize_grads=True)
        return loss.detach(), _row(found), at

    before, g, _ = slope(episodes, again=False)
    _, pull, at = slope(some, again=True)

    def product(v: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        curved = torch.autograd.grad(pull @ v, at, retain_graph=True, materialize_grads=True)
        return _row(curved) + how.damping * v

    x = solve(product, g, how.solver_steps)
    bend = float(x @ product(x))
    if not (math.isfinite(bend) and bend > 0):
        return Taken(meta, float(before), float(before), 0.0, 0)
    x = x * math.sqrt(2 * how.bound / bend)
    # As it is judged below, without dropout: else a step that changes nothing could pass for a better one.
    here, _ = _judged(learner, objective, meta, episodes, apart, form)
    for number in range(how.tries):
        moved = meta | _moved(start, x * how.shorter**number)
        after, divergence = _judged(learner, objective, moved, episodes, apart, form)
        if after < here and divergence <= how.bound:
            return Taken(moved, float(before), after, divergence, number + 1)
    return Taken(meta, float(before), float(before), 0.0, 0)


def _mean_loss(learner: MetaLearner, meta: Meta, judged: Episode, form: Form) -> Tensor:
    with training(), torch.enable_grad():
        return task_losses(learner, meta, judged, form=form).mean()


def _judged(
    learner: MetaLearner, objective: PolicyGradient, meta: Meta, episodes: Episode, apart: Episode, form: Form
) -> tuple[float, float]:
    """The mean loss and the mean divergence, from one forward pass."""
    told = outputs(learner, meta, episodes, form=form)
    query, only = episodes.query.blanked(), apart.query.blanked()
    return float(objective.loss(told, query).mean()), float(objective.loss(told, only).mean())


def _row(parts: tuple[Tensor, ...]) -> Float[Tensor, " p"]:
    return torch.cat([part.reshape(-1) for part in parts])


def _moved(start: Meta, by: Float[Tensor, " p"]) -> Meta:
    parts = by.split([weight.numel() for weight in start.values()])
    return {
        name: weight - part.view_as(weight) for (name, weight), part in zip(start.items(), parts, strict=True)
    }
