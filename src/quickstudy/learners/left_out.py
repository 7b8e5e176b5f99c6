"""What a softmax regression would answer without one of its rows, for all rows at once: one Newton step each.

    W_-i - W = H_-i⁻¹ (g_i ⊗ x_i),   g_i = p_i - onehot(y_i),   H_-i = H - S_i ⊗ x_i x_iᵀ,   S_i = diag(p_i) - p_i p_iᵀ

Approximate leave-one-out: Rad & Maleki 2020, arXiv:1801.10243; Beirami et al. 2017, arXiv:1711.05323. As W_-i - W is
H⁻¹ ((I + S_i D_i) g_i ⊗ x_i) with D_i = x_iᵀ H_-i⁻¹ x_i, only H⁻¹ times the input asked about has to be solved for
(Koh & Liang 2017, arXiv:1703.04730, without their omission of D_i, which makes effects two to ten times too small
where examples are few). H⁻¹ is exact, by conjugate gradients; the approximations are the single step, D_i without
what classes owe each other, and a common shift of all classes beyond the `MOST` likeliest.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

MOST = 8
"""Classes whose outputs are followed one by one: the likeliest ones, and the one that is asked about."""
STEPS, MOST_STEPS = 8, 200
"""Newton's, and conjugate gradients', at most."""
FREE = 1e-6
"""Penalty of the intercepts, which the regression leaves free; some is needed for H to have an inverse."""


class Fit(NamedTuple):
    """A softmax regression at its minimum."""

    x: Float[Tensor, "n d"]
    """The rows, with a column of ones for the intercept."""
    truth: Float[Tensor, "n k"]
    """The labels, one-hot."""
    p: Float[Tensor, "n k"]
    """The probabilities that it gives its own rows."""
    weights: Float[Tensor, "k d"]
    penalty: Float[Tensor, " d"]
    inverse: Float[Tensor, "k d d"]
    """Of H's diagonal blocks, one a class: what conjugate gradients are preconditioned by."""

    @classmethod
    def polished(
        cls,
        x: Float[Tensor, "n dim"],
        y: Int[Tensor, " n"],
        weights: Float[Tensor, "k d"],
        inverse_penalty: float,
    ) -> "Fit | None":
        """The minimum near a solver's weights (intercepts last); None where Newton's steps don't lead to one.

        Solvers stop while their gradient is about as large as one row's: then what the row did is lost in the rest.
        """
        x = torch.cat([x, torch.ones_like(x[:, :1])], -1)
        truth = one_hot(y, len(weights)).to(x.dtype)
        penalty = torch.full_like(x[0], 1 / inverse_penalty)
        penalty[-1] = FREE
        weights = weights - weights.mean(0)
        p = (x @ weights.t()).softmax(-1)
        inverse = x.new_empty(len(weights), len(penalty), len(penalty))
        for block, curvature in zip(inverse, (p * (1 - p)).t(), strict=True):
            factor, broken = torch.linalg.cholesky_ex((x.t() * curvature) @ x + penalty.diag())
            if broken:
                return None
            torch.cholesky_inverse(factor, out=block)
        before = float("inf")
        for _ in range(STEPS):
            fit = cls(x, truth, p, weights, penalty, inverse)
            slope = (p - truth).t() @ x + weights * penalty
            size = float(slope.norm())
            if size < 1e-3 * float((p - truth).norm()):
                return fit
            if not size < before:
                return None
            weights, before = weights - fit.solve(slope.unsqueeze(0), tolerance=3e-2)[0], size
            p = (x @ weights.t()).softmax(-1)
        return None

    def changes(self, x: Float[Tensor, " dim"], asked: int) -> Float[Tensor, "n k"]:
        """How leaving each row out changes the logits of one input."""
        x = torch.cat([x, x.new_ones(1)])
        likely = (self.weights @ x).softmax(-1)
        followed = likely.topk(min(MOST, len(likely))).indices
        if not (followed == asked).any():
            followed[-1] = asked
        # One side for each followed class, and one for all others by their share.
        others = likely.index_fill(0, followed, 0)
        sides = torch.cat(
            [torch.eye(len(likely), dtype=x.dtype)[followed], others[None] / others.sum().clamp(min=1e-30)]
        )
        bent = self.solve(sides.unsqueeze(-1) * x, tolerance=1e-2) @ self.x.t()
        curvature, g = self.p * (1 - self.p), self.p - self.truth
        reach = torch.stack([(self.x @ one * self.x).sum(-1) for one in self.inverse], -1)
        # A block with its row inside turns into one without it (Sherman & Morrison); its own share is below 1.
        moved = reach / (1 - curvature * reach).clamp(min=1e-3) * g
        push = g + self.p * (moved - (self.p * moved).sum(-1, keepdim=True))
        change = (bent * push.t()).sum(1).t()
        every = change[:, -1:].repeat(1, len(likely))
        every[:, followed] = change[:, :-1]
        return every

    def solve(self, right: Float[Tensor, "m k d"], *, tolerance: float) -> Float[Tensor, "m k d"]:
        """H⁻¹ times each right side, by conjugate gradients until what is left has `tolerance` times its norm.

        Sides and solutions sum to 0 over classes: a shift of all of them changes no answer, and H can't see it.
        """

        def curved(v: Tensor) -> Tensor:
            u = self.p * (v @ self.x.t()).transpose(-1, -2)
            u = u - self.p * u.sum(-1, keepdim=True)
            return u.transpose(-1, -2) @ self.x + v * self.penalty

        def eased(v: Tensor) -> Tensor:
            z = (v.transpose(0, 1) @ self.inverse).transpose(0, 1)
            return z - z.mean(1, keepdim=True)

        left = right - right.mean(1, keepdim=True)
        solution, goal = torch.zeros_like(left), tolerance**2 * _dot(left, left)
        step = eased(left)
        size = _dot(left, step)
        for _ in range(MOST_STEPS):
            if (_dot(left, left) <= goal).all():
                break
            along = curved(step)
            rate = size / _dot(step, along).clamp(min=1e-30)
            solution, left = solution + rate * step, left - rate * along
            z = eased(left)
            size, before = _dot(left, z), size
            step = z + size / before.clamp(min=1e-30) * step
        return solution


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-1, -2), keepdim=True)
