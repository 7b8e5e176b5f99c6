"""The support vector machine of Crammer & Singer 2001 (JMLR 2), solved in its dual, differentiable in the kernel.

    min_b  ½ tr((Y - b)ᵀ K (Y - b)) + Σ_i b_i,y_i      b_i in the simplex over the classes allowed

K is C Z Zᵀ, and the weights of the classes are C Zᵀ (Y - b). A row i is beyond its margin where b_i = Y_i.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.learners.softmax import coupled

BARRIER = 1e-12
"""What the interior point method lowers the product of each b with its slack to; less would drown in rounding."""


def fit(kernel: Float[Tensor, "n n"], y: Float[Tensor, "n k"], steps: int) -> Float[Tensor, "n k"]:
    """The solution b. Which of its entries are free is found without a graph; the free ones solve a linear system.

    Args:
        y: labels, one-hot; a row of zeros takes no part, nor does a class that no row has.
        steps: of the interior point method; more than it needs change nothing.
    """
    with torch.no_grad():
        allowed = (y.sum(-1, keepdim=True) > 0) & (y.sum(0) > 0)
        # How far a change of b moves outputs, about.
        reach = (kernel.diagonal().sum() / allowed.any(-1).sum().clamp(min=1)).clamp(min=1)
        b, slack = _interior_point(kernel, y, allowed, y + (_alike(allowed, y) - y) / reach, steps)
        # Either b or its slack is almost 0. A row's largest b is what the others leave.
        classes = torch.arange(y.shape[-1], device=y.device)
        largest = classes == torch.where(allowed, b, -1.0).argmax(-1, keepdim=True)
        free = allowed & ~largest & (b * reach > slack)
        b = torch.where(free, b, 0.0)
        b = (b + largest * (1 - b.sum(-1, keepdim=True))) * allowed
        # Directions in which b may move: from the row's largest to another that is free.
        unit = torch.eye(y.shape[-1]).to(y)
        ways = free.unsqueeze(-1) * (unit - largest.unsqueeze(-2).to(y.dtype))
        size, each = y.numel(), ways.flatten(0, 1)
        curvature = (each @ each.t()).reshape(*y.shape, *y.shape) * kernel.unsqueeze(-2).unsqueeze(-1)
        # Equal rows have no unique b (their weights do): a trace of ridge, about a solution, then decides.
        ridge = torch.where(free.flatten(), 1e-14 * reach, 1.0)
        factors = torch.linalg.lu_factor(curvature.reshape(size, size) + torch.diag_embed(ridge))
        b = b - _step(kernel, y, b, ways, factors)
    return b - _step(kernel, y, b, ways, factors)


def _step(
    kernel: Tensor, y: Tensor, b: Tensor, ways: Float[Tensor, "n k k"], factors: tuple[Tensor, Tensor]
) -> Float[Tensor, "n k"]:
    """Newton's step along the free directions: once to the solution, once more for the derivative there."""
    slope = (ways * (kernel @ (b - y) + y).unsqueeze(-2)).sum(-1)
    move = torch.linalg.lu_solve(*factors, slope.reshape(-1, 1)).reshape(slope.shape)
    return (ways * move.unsqueeze(-1)).sum(-2)


def _alike(allowed: Tensor, y: Tensor) -> Tensor:
    """The same b for all classes that a row may have."""
    return allowed.to(y.dtype) / allowed.sum(-1, keepdim=True).clamp(min=1)


def _interior_point(
    kernel: Tensor, y: Tensor, allowed: Tensor, b: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Mehrotra's predictor and corrector from a start: b and its slack, both positive where allowed."""
    gradient = kernel @ (b - y) + y
    level = 1 - torch.where(allowed, gradient, torch.inf).amin(-1, keepdim=True)
    level = torch.where(allowed.any(-1, keepdim=True), level, 0.0)
    size = allowed.sum().clamp(min=1)
    for _ in range(steps):
        slack = torch.where(allowed, kernel @ (b - y) + y + level, 1.0).clamp(min=1e-15)
        solve = coupled(kernel, b / slack)
        barrier = (b * slack).sum() / size
        # As if the barrier could vanish at once; how far that goes says how far to lower it.
        db, v = solve(-slack)
        dslack = torch.where(allowed, kernel @ db + v.unsqueeze(-1), 0.0)
        far = _room(b, db, slack, dslack, allowed)
        reached = (torch.where(allowed, (b + far * db) * (slack + far * dslack), 0.0)).sum() / size
        goal = (barrier * (reached / barrier).pow(3)).clamp(min=BARRIER)
        h = torch.where(allowed, (goal - db * dslack) / b - slack, 0.0)
        db, v = solve(h)
        dslack = torch.where(allowed, kernel @ db + v.unsqueeze(-1), 0.0)
        far = 0.99 * _room(b, db, slack, dslack, allowed)
        b, level = b + far * db, level + far * v.unsqueeze(-1)
    return b, torch.where(allowed, kernel @ (b - y) + y + level, 1.0)


def _room(b: Tensor, db: Tensor, slack: Tensor, dslack: Tensor, allowed: Tensor) -> Tensor:
    """The longest step, at most 1, that leaves b and its slack positive."""
    at, along = torch.stack([b, slack]), torch.stack([db, dslack])
    falls = allowed & (along < 0)
    return torch.where(falls, -at / torch.where(falls, along, -1.0), 1.0).amin().clamp(max=1.0)
