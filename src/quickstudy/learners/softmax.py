"""Softmax regression to convergence in a fixed number of Newton's steps, and differentiable in what it was fitted to.

    min_W  Σ_i -log softmax(W z_i)[y_i] + λ/2 ‖W‖²        W = Σ_i a_i z_iᵀ,   λ a_i = onehot(y_i) - softmax(K a)_i

In the dual, K = Z Zᵀ [n, n] is all that is needed of the embeddings, however wide. A step costs ways · n³ and not
(ways · n)³: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, algorithm 3.3.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.objective import ABSENT

HALVINGS = 8
"""Fractions of a Newton step that are tried: 1, 1/2, …, 2⁻⁷."""


def fit(
    kernel: Float[Tensor, "n n"],
    y: Float[Tensor, "n k"],
    penalty: Float[Tensor, ""],
    steps: int,
) -> Float[Tensor, "n k"]:
    """The coefficients a.

    Solved without a graph; one more Newton step with one then has the derivative of the solution itself: where the
    residual r is 0, that of a - J⁻¹ r is -J⁻¹ dr, the implicit function theorem, whatever path led there.

    Args:
        y: labels, one-hot; a row of zeros takes no part, nor does a class that no row has.
        penalty: λ.
        steps: Newton's; about 10 suffice, 20 with a λ that leaves the data all but separated.
    """
    allowed = (y.sum(-1, keepdim=True) > 0) & (y.sum(0) > 0)
    with torch.no_grad():
        a = torch.zeros_like(y)
        for _ in range(steps):
            a = _damped(kernel, y, allowed, penalty, a)
        solve = _newton(kernel, _probabilities(kernel @ a, allowed), penalty)
    return a - solve(penalty * a - y + _probabilities(kernel @ a, allowed))


def coupled(
    kernel: Float[Tensor, "n n"], weight: Float[Tensor, "n k"]
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A solver of  x / w + K x + v 1ᵀ = h,  x 1 = 0  for x [n, k] and v [n]; where a weight w is 0, x is.

    With Q_i = diag(w_i) - w_i w_iᵀ / Σ w_i for each row, x is (Q⁻¹ + K)⁻¹ h: classes owe each other only through v.
    """
    root = weight.t().sqrt().unsqueeze(-1)
    unit = torch.eye(len(kernel)).to(kernel)
    each = root * torch.linalg.solve(unit + root * kernel * root.mT, root * unit)  # (w⁻¹ + K)⁻¹, a class each
    unused = (weight.sum(-1) == 0).to(kernel.dtype)
    total = each.sum(0) + unit * unused

    def solve(h: Tensor) -> tuple[Tensor, Tensor]:
        alone = each @ h.t().unsqueeze(-1)
        v = torch.linalg.solve(total, alone.sum(0))
        return (alone - each @ v).squeeze(-1).t(), v.squeeze(-1)

    return solve


def _damped(kernel: Tensor, y: Tensor, allowed: Tensor, penalty: Tensor, a: Tensor) -> Tensor:
    """One Newton step, as far as the residual shrinks most: loss differences would drown in rounding at the end."""
    outputs = kernel @ a
    p = _probabilities(outputs, allowed)
    move = _newton(kernel, p, penalty)(y - p - penalty * a)
    far = 0.5 ** torch.arange(HALVINGS).to(a).reshape(-1, 1, 1)
    tried = _probabilities(outputs + far * (kernel @ move), allowed)
    left = (penalty * (a + far * move) - y + tried).pow(2).sum((-1, -2))
    best = (torch.arange(HALVINGS, device=a.device) == left.argmin()).reshape(-1, 1, 1)
    return a + (far * best).sum() * move


def _newton(kernel: Tensor, p: Tensor, penalty: Tensor) -> Callable[[Tensor], Tensor]:
    """A solver of (λ + Q K) x = r, with Q the curvature of each row's softmax."""
    solve = coupled(kernel / penalty, p)
    return lambda r: (r - solve(kernel @ r / penalty)[0]) / penalty


def _probabilities(outputs: Tensor, allowed: Tensor) -> Tensor:
    return torch.where(allowed, outputs, ABSENT).softmax(-1) * allowed
