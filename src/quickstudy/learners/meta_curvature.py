"""Meta-curvature: inner gradients pass through learned matrices, one for each mode of each weight.

    θ' = θ - α MC(∇_θ L(θ; support)),      MC(G) = G ×₁ M_out ×₂ M_in ×₃ M_filter

Park & Oliva 2019, arXiv:1902.03356, section 3. G ×ₙ M multiplies M with the n-th mode of G, so that a linear layer's
gradient becomes M_out G M_inᵀ, and a bias's M_out g. All matrices start at the identity, which is MAML; their Kronecker
product stands for a curvature of the whole weight that would be too large to keep.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, inner_gradient, inner_step, part, prefixed
from quickstudy.core.net import initial
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class MetaCurvature(NetLearner):
    """Meta-curvature. A weight [out, in, …] adds out² + in² numbers to `meta`: mind layers with very many inputs."""

    steps: Steps = 5
    """Inner steps, which share their matrices; the paper's 1 (Omniglot) to 5."""
    rate: Rate = 0.1
    """Inner learning rate α, which stays; as MAML's."""
    second_order: bool = True
    """Differentiate through the inner steps; matrices are learned either way."""

    paper: ClassVar[str] = "Park & Oliva 2019. Meta-Curvature. arXiv:1902.03356"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        weights = initial(self.net, seed)
        return prefixed(weights, "net.") | {
            f"mode{mode}.{name}": torch.eye(size, dtype=weight.dtype)
            for name, weight in weights.items()
            for mode, size in enumerate(modes(weight))
        }

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        leading = support.mask.ndim - 1

        def step(weights: Fast, modes: Fast) -> Fast:
            slope = inner_gradient(self.support_loss, weights, support, second_order=self.second_order)
            matrices = [part(modes, f"mode{mode}.") for mode in range(3)]
            return {
                name: weight
                - self.rate * curved(slope[name], [m[name] for m in matrices if name in m], leading)
                for name, weight in weights.items()
            }

        weights, modes = part(meta, "net."), {name: m for name, m in meta.items() if name.startswith("mode")}
        for _ in range(self.steps):
            weights = inner_step(step, weights, modes, second_order=self.second_order)
        return self.adapted(weights, support)


def modes(weight: Tensor) -> list[int]:
    """How long each mode of a weight is: outputs, inputs, and all places of the filter as one."""
    sizes = list(weight.shape)
    return sizes if len(sizes) < 3 else [*sizes[:2], prod(sizes[2:])]


def curved(gradient: Tensor, matrices: list[Tensor], leading: int) -> Tensor:
    """The gradient [*tasks, out, in, …] with each mode multiplied by its matrix [*tasks, size, size].

    Args:
        leading: how many dimensions of tasks there are, 0 or 1.
    """
    result = gradient.flatten(leading + 2) if gradient.ndim > leading + 2 else gradient
    for mode, matrix in enumerate(matrices):
        front = result.movedim(leading + mode, leading)
        product = matrix @ front.reshape(*front.shape[: leading + 1], -1)
        result = product.reshape(front.shape).movedim(leading, leading + mode)
    return result.reshape(gradient.shape)
