"""Implicit gradients: how a minimiser follows what it is pulled towards, without a graph of the way that led to it.

    φ* = argmin_φ L(φ) + λ/2 ‖φ - θ‖²        dφ*/dθ = (I + H/λ)⁻¹,  H = ∇²L(φ*)

Rajeswaran, Finn, Kakade & Levine 2019, arXiv:1909.04630, lemma 1. The system is solved by conjugate gradients (Hestenes
& Stiefel 1952, doi:10.6028/jres.049.044), which need products with H and never H itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.core.coordinates import flatten, unflatten
from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, inner_gradient

Product = Callable[[Tensor], Tensor]


def proximal_minimiser(
    loss: Callable[[Fast, Labelled], Tensor],
    found: Fast,
    start: Meta,
    support: Labelled,
    *,
    strength: float,
    solver_steps: int,
) -> Fast:
    """The weights `found`, with the derivative by `start` that the minimiser of the proximal problem has.

    Args:
        loss: L of *one* task.
        found: φ*, by whatever way it was found; exact as far as it is the minimiser.
        start: θ.
        support: stacked tasks, or one.
        strength: λ.
        solver_steps: of conjugate gradients; 0 takes dφ*/dθ for the identity, as first-order MAML does.
    """
    if not (torch.is_grad_enabled() and any(weight.requires_grad for weight in start.values())):
        return found
    at = {name: weight.detach().requires_grad_() for name, weight in found.items()}
    # Once and here, not in the backward pass: dropout draws its mask where the engine has seeded it.
    slope = flatten(inner_gradient(loss, at, support), support)

    def product(v: Tensor) -> Tensor:
        """(I + H/λ) v."""
        if not slope.requires_grad:  # the loss has no curvature that torch knows of
            return v
        # Tasks share nothing, so the derivative of the sum holds each task's own.
        curved = torch.autograd.grad(
            (slope * v).sum(), list(at.values()), retain_graph=True, materialize_grads=True
        )
        return v + flatten(dict(zip(at, curved, strict=True)), support) / strength

    solved = _Implicit.apply(
        flatten(start, support),
        flatten(at, support).detach(),
        # Where the loss is convex, I + H/λ is I or more. Below half of it the pull hardly holds the loss: `found` is no
        # minimum that one could follow, and few steps would go far.
        lambda g: solve(product, g, solver_steps, least=0.5),
    )
    return unflatten(solved, at)


class _Implicit(torch.autograd.Function):
    """φ* as a function of θ whose derivative is symmetric and known by how to multiply with it."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, found: Tensor, derivative: Product) -> Tensor:
        ctx.derivative = derivative
        return found.view_as(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with torch.enable_grad():
            return ctx.derivative(gradient), None, None


def solve(
    product: Product, b: Float[Tensor, "*tasks p"], steps: int, *, least: float = 0.0
) -> Float[Tensor, "*tasks p"]:
    """A x = b for a symmetric positive definite A, known by x ↦ A x: `steps` of conjugate gradients from x = 0.

    For stacked tasks each has its own A. A task stops at a direction d along which A turns out to be too flat, d·A d at
    most `least` of d·d, and keeps what it has (Steihaug 1983, doi:10.1137/0720042): from 0 that is shorter than the
    solution, however few the steps. Without a step, or where the first direction is flat, x = b.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    size = residual.pow(2).sum(-1, keepdim=True)
    tiny = torch.finfo(b.dtype).tiny  # where a task is solved to the last digit, 0 / 0 must not come up
    for _ in range(steps):
        image = product(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        going = curvature > least * direction.pow(2).sum(-1, keepdim=True)
        length = torch.where(going, size / torch.where(going, curvature, 1.0), 0.0)
        x, residual = x + length * direction, residual - length * image
        before, size = size, residual.pow(2).sum(-1, keepdim=True)
        direction = torch.where(going, residual + size / before.clamp(min=tiny) * direction, 0.0)
    return torch.where((x == 0).all(-1, keepdim=True), b, x)
