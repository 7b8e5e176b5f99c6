"""Implicit MAML: solve a task's proximal problem, then ask how its solution follows the starting point.

    φ_i = argmin_φ L_i(φ; support) + λ/2 ‖φ - θ‖²        θ ← θ - β Σ_i (I + H_i/λ)⁻¹ ∇_φ L_i(φ_i; query)

Rajeswaran, Finn, Kakade & Levine 2019, arXiv:1909.04630, equation 3, lemma 1, algorithms 1 and 2. H_i is the Hessian of
the support's loss at φ_i. Memory doesn't grow with the number of inner steps, and any solver may take their place.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.implicit import proximal_minimiser
from quickstudy.core.learner import Fast, Meta, NetLearner, inner_gradient
from quickstudy.core.spec import Positive, Rate, Steps


@dataclass(frozen=True, kw_only=True)
class IMAML(NetLearner):
    """iMAML with gradient descent as its inner solver."""

    steps: Steps = 16
    """Inner steps; the authors' 16 (5-way Omniglot), all on the regularised loss; their code takes the pull in one step
    at the end. The meta-gradient is exact only where they reach the minimum."""
    rate: Rate = 0.1
    """Inner learning rate; the authors' code takes .1. Below 2 / (λ + the largest curvature of the loss): above it the
    steps overshoot, and the loss rises from batch to batch. Then take a lower rate, and more steps."""
    strength: Positive = 2.0
    """λ, how strongly the solution is pulled towards the start; the paper's 2 (Omniglot)."""
    solver_steps: Steps = 5
    """Of conjugate gradients; the authors' 5. Their code damps the system, to 2 I + H / (λ + 10) by default; ours
    doesn't."""

    paper: ClassVar[str] = (
        "Rajeswaran, Finn, Kakade & Levine 2019. Meta-Learning with Implicit Gradients. arXiv:1909.04630"
    )
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = meta
        with torch.no_grad():
            for _ in range(self.steps):
                slope = inner_gradient(self.support_loss, fast, support, second_order=False)
                fast = {
                    name: weight - self.rate * (slope[name] + self.strength * (weight - meta[name]))
                    for name, weight in fast.items()
                }
        fast = proximal_minimiser(
            self.support_loss,
            fast,
            meta,
            support,
            strength=self.strength,
            solver_steps=self.solver_steps,
        )
        return self.adapted(fast, support)
