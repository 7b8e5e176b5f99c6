"""Affine maps, one per task, in the forms that gradient descent on a layer needs (see `quickstudy.core.dual`).

`Weights` and `History` are two forms of a layer: both know the map itself (`times`), its transpose (`back`) and a step
of gradient descent (`plus`, which leaves the map as it was: a backward pass needs every state). `Sum` is the derivative
by a layer, to which the backward pass adds step by step.
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
    """A map x Wᵀ + b for each task, laid out as in `nn.Linear`: a last layer's few rows are then long ones."""

    weight: Float[Tensor, "tasks out in"]
    bias: Float[Tensor, "tasks 1 out"] | None

    def times(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The map of x; with `onto`, that plus x Wᵀ, in place."""
        if onto is not None:
            return onto.baddbmm_(x, self.weight.mT)
        return (
            torch.bmm(x, self.weight.mT) if self.bias is None else torch.baddbmm(self.bias, x, self.weight.mT)
        )

    def back(self, y: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product y W, added to `onto` in place if given."""
        return torch.bmm(y, self.weight) if onto is None else onto.baddbmm_(y, self.weight)

    def plus(self, x: Tensor, y: Tensor) -> "Weights":
        """A new map whose weights are W + yᵀ x and whose bias is b + Σ y."""
        bias = None if self.bias is None else self.bias + y.sum(1, keepdim=True)
        return Weights(torch.baddbmm(self.weight, y.mT, x), bias)


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
        return Weights(self.weight.expand(tasks, -1, -1), bias).plus(x, y)


class Sum:
    """A sum of outer products Σ yᵀ x for each task, and of y: the derivative by a layer's weights and bias.

    A few rows at a time would read and write all of it for little arithmetic (at a width of 512, a third of the whole
    time), so rows are kept as they are while they are few, and added up together.
    """

    def __init__(self, x: Tensor, y: Tensor, biased: bool) -> None:
        self.bias = y.sum(1, keepdim=True) if biased else None
        self.weight: Tensor | None = None  # [tasks, out, in]; None is zero
        self.few = SHORT * min(x.shape[-1], y.shape[-1])
        self.rows: tuple[Tensor, Tensor] | None = None
        self._keep(x, y)

    def times(self, x: Tensor) -> Tensor:
        """The product x Wᵀ + b."""
        z = None if self.weight is None else _onto(self.bias, x, self.weight.mT)
        if self.rows is None:
            assert z is not None
            return z
        inputs, errors = self.rows
        gram = torch.bmm(x, inputs.mT)
        return _onto(self.bias, gram, errors) if z is None else z.baddbmm_(gram, errors)

    def back(self, y: Tensor) -> Tensor:
        """The product y W."""
        v = None if self.weight is None else torch.bmm(y, self.weight)
        if self.rows is None:
            assert v is not None
            return v
        inputs, errors = self.rows
        return _onto_(v, torch.bmm(y, errors.mT), inputs)

    def add_(self, x: Tensor, y: Tensor, v: Tensor, u: Tensor) -> None:
        """Add yᵀ x + uᵀ v to the weights and Σ y to the bias, in place."""
        if self.bias is not None:
            self.bias.add_(y.sum(1, keepdim=True))
        if self.weight is not None and 2 * x.shape[1] > self.few:
            self.weight.baddbmm_(y.mT, x).baddbmm_(u.mT, v)
        else:
            before = () if self.rows is None else (self.rows,)
            self._keep(*(torch.cat(part, 1) for part in zip(*before, (x, y), (v, u), strict=True)))

    def total(self) -> tuple[Tensor, Tensor | None]:
        """Summed over tasks, in the layout of `nn.Linear`."""
        weight = None if self.weight is None else self.weight.sum(0)
        if self.rows is not None:
            x, y = (part.flatten(0, 1) for part in self.rows)
            weight = y.t() @ x if weight is None else weight.addmm_(y.t(), x)
        assert weight is not None
        return weight, None if self.bias is None else self.bias.sum((0, 1))

    def _keep(self, x: Tensor, y: Tensor) -> None:
        if x.shape[1] <= self.few:
            self.rows = x, y
            return
        self.rows, self.weight = None, _onto_(self.weight, y.mT, x)


def _onto(start: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if start is None else torch.baddbmm(start, a, b)


def _onto_(start: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if start is None else start.baddbmm_(a, b)
