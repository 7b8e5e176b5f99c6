"""Affine maps, one per task, in the two forms that gradient descent on a layer needs (see `quickstudy.core.dual`).

Both know the map itself (`times`), its transpose (`back`) and a step of gradient descent (`plus`, which leaves the map
as it was: a backward pass needs every state).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

# A history is used up to this share of the layer's narrower side. Measured with 16 tasks: at 5 rows a step it halves
# the time of layers 512 wide and makes no difference at 64; at 25 rows a step the share hardly matters.
SHORT = 0.25


class Weights(NamedTuple):
    """A map x W + b for each task."""

    weight: Float[Tensor, "tasks in out"]
    bias: Float[Tensor, "tasks 1 out"] | None

    def times(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The map of x; with `onto`, that plus x W, in place."""
        if onto is not None:
            return onto.baddbmm_(x, self.weight)
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)

    def back(self, y: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product y Wᵀ, added to `onto` in place if given."""
        return torch.bmm(y, self.weight.mT) if onto is None else onto.baddbmm_(y, self.weight.mT)

    def plus(self, x: Tensor, y: Tensor) -> "Weights":
        """A new map whose weights are W + xᵀ y and whose bias is b + Σ y."""
        bias = None if self.bias is None else self.bias + y.sum(1, keepdim=True)
        return Weights(torch.baddbmm(self.weight, x.mT, y), bias)

    def add_(self, x: Tensor, y: Tensor, v: Tensor, u: Tensor) -> None:
        """Add xᵀ y + vᵀ u to the weights and Σ y to the bias, in place."""
        self.weight.baddbmm_(x.mT, y).baddbmm_(v.mT, u)
        if self.bias is not None:
            self.bias.add_(y.sum(1, keepdim=True))

    def total(self) -> tuple[Tensor, Tensor | None]:
        """Summed over tasks, in the layout of `nn.Linear`."""
        return self.weight.sum(0).t(), None if self.bias is None else self.bias.sum((0, 1))


class History(NamedTuple):
    """The same map in dual form: what all tasks share, and the additions to it as rows."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None
    inputs: Float[Tensor, "tasks rows in"] | None = None
    errors: Float[Tensor, "tasks rows out"] | None = None

    def times(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        z = linear(x, self.weight, self.bias) if onto is None else onto.add_(linear(x, self.weight))
        if self.inputs is None or self.errors is None:
            return z
        gram = torch.bmm(x, self.inputs.mT)
        if self.bias is not None and onto is None:
            gram += 1.0
        return z.baddbmm_(gram, self.errors)

    def back(self, y: Tensor, onto: Tensor | None = None) -> Tensor:
        v = y @ self.weight if onto is None else onto.add_(y @ self.weight)
        if self.inputs is None or self.errors is None:
            return v
        return v.baddbmm_(torch.bmm(y, self.errors.mT), self.inputs)

    def plus(self, x: Tensor, y: Tensor) -> "History | Weights":
        if self.inputs is not None and self.errors is not None:
            x, y = torch.cat([self.inputs, x], 1), torch.cat([self.errors, y], 1)
        if x.shape[1] <= SHORT * min(self.weight.shape):
            return self._replace(inputs=x, errors=y)
        tasks = len(x)
        bias = None if self.bias is None else self.bias.expand(tasks, 1, -1)
        return Weights(self.weight.t().expand(tasks, -1, -1), bias).plus(x, y)
