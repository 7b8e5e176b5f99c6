"""Inner steps that are computed again on the way back, instead of being kept.

The graph of an inner step holds every activation of its forward and backward pass. Here a step keeps the parameters it
began at and the state of the random generator (for dropout), and no more; the backward pass runs it again. So memory is
that of one step, whatever their number, and steps take about a third more time (Chen et al. 2016, arXiv:1604.06174).
"""

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Tensors = dict[str, Tensor]
Step = Callable[[Tensors, Tensors], Tensors]


def recomputed(step: Step, fast: Tensors, fixed: Tensors) -> Tensors:
    """`step(fast, fixed)`, whose graph keeps nothing but what it was given; differentiable once."""
    names = [*fast], [*fixed]
    out: Any = _Again.apply(step, names, *fast.values(), *fixed.values())
    return dict(zip(fast, out, strict=True))


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, step: Step, names: tuple[list[str], list[str]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.step, ctx.names = step, names
        ctx.save_for_backward(*tensors)
        ctx.random = torch.get_rng_state()
        device = tensors[0].device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        # A device's own thread may run the backward pass, and would find networks in evaluation mode there.
        ctx.context = copy_context()
        return tuple(_run(step, names, tensors).values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        tensors = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(ctx.saved_tensors)]

        def gradients() -> tuple[Tensor | None, ...]:
            device, kind, on = ctx.autocast
            again = torch.autocast(device, kind, enabled=on, cache_enabled=False)
            with torch.random.fork_rng(devices=[]), torch.enable_grad(), again:
                torch.set_rng_state(ctx.random)
                out = _run(ctx.step, ctx.names, tensors)
                return torch.autograd.grad(
                    list(out.values()), [tensors[i] for i in wanted], grads, allow_unused=True
                )

        found: list[Tensor | None] = [None] * len(tensors)
        for i, gradient in zip(wanted, ctx.context.run(gradients), strict=True):
            found[i] = gradient
        return None, None, *found


def _run(step: Step, names: tuple[list[str], list[str]], tensors: Any) -> Tensors:
    fast, fixed = names
    return step(
        dict(zip(fast, tensors[: len(fast)], strict=True)),
        dict(zip(fixed, tensors[len(fast) :], strict=True)),
    )
