"""Implicit MAML: solve a task's proximal problem, then ask how its solution follows the starting point.

    φ_i = argmin_φ L_i(φ; support) + λ/2 ‖φ - θ‖²        θ ← θ - β Σ_i (I + H_i/λ)⁻¹ ∇_φ L_i(φ_i; query)

Rajeswaran, Finn, Kakade & Levine 2019, arXiv:1909.04630, equation 3, lemma 1, algorithms 1 and 2. H_i is the Hessian of
the support's loss at φ_i. Memory doesn't grow with the number of inner steps, and any solver may take their place.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.coordinates import flatten, unflatten
from quickstudy.core.episode import Labelled
from quickstudy.core.implicit import proximal_minimiser
from quickstudy.core.learner import Fast, Meta, NetLearner, loss_and_gradient, per_task
from quickstudy.core.net import in_training
from quickstudy.core.spec import Positive, Rate, Steps


@dataclass(frozen=True, kw_only=True)
class IMAML(NetLearner):
    """iMAML with gradient descent as its inner solver."""

    steps: Steps = 16
    """Inner steps; the authors' 16 (5-way Omniglot), all on the regularised loss; their code takes the pull in one step
    at the end. The meta-gradient is exact only where they reach the minimum."""
    rate: Rate = 0.1
    """Inner learning rate that each task starts with; the authors' code takes .1. A step that would raise a task's
    regularised loss isn't taken and halves that task's rate. The authors keep the rate: above 2 / (λ + the largest
    curvature of the loss) it overshoots, where the meta-gradient, that of a minimum, teaches weights that overshoot
    further."""
    strength: Positive = 2.0
    """λ, how strongly the solution is pulled towards the start; the paper's 2 (Omniglot)."""
    solver_steps: Steps = 5
    """Of conjugate gradients; the authors' 5. Their code damps the system, to 2 I + H / (λ + 10) by default; ours stops
    along directions in which I + H / λ is less than half of I."""

    paper: ClassVar[str] = (
        "Rajeswaran, Finn, Kakade & Levine 2019. Meta-Learning with Implicit Gradients. arXiv:1909.04630"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        with torch.no_grad():
            fast = self._descended(meta, support)
        fast = proximal_minimiser(
            self.support_loss,
            fast,
            meta,
            support,
            strength=self.strength,
            solver_steps=self.solver_steps,
        )
        return self.adapted(fast, support)

    def _descended(self, meta: Meta, support: Labelled) -> Fast:
        """Gradient descent on the regularised loss; but for rounding it never rises."""
        row = start = flatten(meta, support)
        rate = start.new_full(start.shape[:-1], self.rate)
        for _ in range(self.steps):
            # Both losses of a step are of one dropout mask: by two, the luckier one would decide.
            with _drawing_again(row):
                loss, slopes = loss_and_gradient(
                    self.support_loss, unflatten(row, meta), support, second_order=False
                )
            now = loss + self._pull(row, start)
            slope = flatten(slopes, support) + self.strength * (row - start)
            ahead = row - rate[..., None] * slope
            then = per_task(self.support_loss, support, unflatten(ahead, meta), support)
            then = then + self._pull(ahead, start)
            # Steps go on where the loss can't tell them apart any more: at the minimum, weights are still inexact.
            # What was no number before the step must be seen to be none.
            taken = (
                (then <= now + 10 * torch.finfo(now.dtype).eps * now.abs())
                | ~slope.sum(-1).isfinite()
                | now.isnan()
            )
            row = torch.where(taken[..., None], ahead, row)
            rate = torch.where(taken, rate, rate / 2)
        return unflatten(row, meta)

    def _pull(
        self, row: Float[Tensor, "*tasks p"], start: Float[Tensor, "*tasks p"]
    ) -> Float[Tensor, "*tasks"]:
        return self.strength / 2 * (row - start).pow(2).sum(-1)


def _drawing_again(like: Tensor) -> AbstractContextManager[Any]:
    """What is drawn in here is drawn again after it."""
    if not in_training():
        return nullcontext()
    return torch.random.fork_rng([like.device] if like.is_cuda else [])
