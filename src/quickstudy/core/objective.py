"""Objectives: what an output means, how wrong it is, and how to score it.

Every method takes leading task dimensions or none, and ignores rows whose mask is False. Ranking and sequences are
objectives too and will stand beside these two.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.spec import Size, Spec

# The logit of a class that no support example carries, below the others where they are negative: small enough that its
# probability is exactly 0 in float64, finite so that no derivative turns into nan.
ABSENT = -1e4


class Slope(NamedTuple):
    """The derivative of a loss with respect to outputs, and the derivative of that."""

    of: Callable[[Tensor], tuple[Tensor, Tensor]]
    """outputs -> (the derivative, what `pull` has to know)."""
    pull: Callable[[Tensor, Tensor], Tensor]
    """(what `of` said, g) -> the Hessian's product with g."""


@dataclass(frozen=True)
class Objective(Spec, ABC):
    """How outputs are read; `outputs` is the number of columns a learner has to give out."""

    needs_rows: ClassVar[bool] = True
    """Whether a task without one row of support means nothing."""

    @property
    @abstractmethod
    def outputs(self) -> int: ...

    @abstractmethod
    def row_losses(self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "..."]) -> Float[Tensor, "*t n"]:
        """The loss of each row."""

    @abstractmethod
    def slope(self, labelled: Labelled, scale: float = 1.0) -> "Slope":
        """`scale` times the derivative of `loss` with respect to outputs, in closed form; what is constant once."""

    @abstractmethod
    def row_scores(self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "..."]) -> Float[Tensor, "*t n"]:
        """The score of each row, bigger is better (accuracy in percent; negative squared error)."""

    def restrict(self, outputs: Tensor, present: Tensor) -> Tensor:
        """Silence what the support knows nothing about; nothing to do unless outputs are classes."""
        return outputs

    def present(self, support: Labelled) -> Bool[Tensor, "*t k"]:
        """Which outputs the support speaks about."""
        shape = (*support.mask.shape[:-1], self.outputs)
        return torch.ones(shape, dtype=torch.bool, device=support.mask.device)

    @abstractmethod
    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        """Refuse answers that mean nothing here. Raises DataError.

        Args:
            name: "support" or "query".
            described: whether a row may describe a class; its number is then `ways` higher.
        """

    def fitting(self, outputs: Tensor) -> Float[Tensor, "n k"]:
        """A network's outputs, if there are as many as the objective reads.

        Raises:
            ModelError: they have another shape; torch would broadcast some of those and say nothing.
        """
        if outputs.ndim != 2 or outputs.shape[1] != self.outputs:
            raise ModelError(
                f"The network gives outputs of shape {list(outputs.shape)} for one task's rows; {self} reads "
                f"[{len(outputs) if outputs.ndim else 1}, {self.outputs}]. Give its last layer {self.outputs} "
                f"output{'s' if self.outputs > 1 else ''}, one row for each input."
            )
        return outputs

    def loss(self, outputs: Float[Tensor, "*t n k"], labelled: Labelled) -> Float[Tensor, "*t"]:
        """Mean loss over the real rows of each task. Raises ModelError as `score`."""
        return mean(self.row_losses(self._read(outputs, labelled), labelled.y), labelled.mask)

    def score(self, outputs: Float[Tensor, "*t n k"], labelled: Labelled) -> Float[Tensor, "*t"]:
        """Mean score over the real rows of each task.

        Raises:
            ModelError: the outputs, of a learner that doesn't ask `fitting`, have another shape.
        """
        return mean(self.row_scores(self._read(outputs, labelled), labelled.y), labelled.mask)

    def _read(self, outputs: Any, labelled: Labelled) -> Tensor:
        expected = (*labelled.mask.shape, self.outputs)
        if not isinstance(outputs, Tensor) or outputs.shape != expected:
            held = (
                f"outputs of shape {list(outputs.shape)}"
                if isinstance(outputs, Tensor)
                else f"a {type(outputs).__name__}"
            )
            raise ModelError(
                f"The learner's `predict` gives {held}; {self} reads one tensor of shape {list(expected)}, a row of "
                f"{self.outputs} for each input."
            )
        return outputs


@dataclass(frozen=True)
class Classify(Objective):
    """One of `ways` classes; outputs are logits, the loss is cross-entropy in nats, the score accuracy in percent.

    A task may hold fewer classes than `ways`: those absent from the support get no probability.
    """

    ways: Size

    @property
    def outputs(self) -> int:
        return self.ways

    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        if self.ways < 2:
            raise DataError("Classify(ways=1): one class leaves nothing to tell apart; take two or more.")
        y = labelled.y
        if y.dtype != torch.int64:
            kind = str(y.dtype).removeprefix("torch.")
            raise DataError(
                f"The {name}'s answers are {kind}; Classify reads class numbers, int64: y.long()."
            )
        if y.shape != labelled.mask.shape:
            raise DataError(
                f"The {name}'s answers have shape {list(y.shape)}; Classify reads one class number a row, "
                f"{list(labelled.mask.shape)}: y.squeeze(-1), or y.argmax(-1) of one-hot rows."
            )
        least, most = torch.aminmax(torch.where(labelled.mask, y, 0))
        if int(least) < 0 or int(most) >= self.ways * (2 if described else 1):
            wrong = int(least) if int(least) < 0 else int(most)
            raise DataError(
                f"The {name} holds class number {wrong}; Classify(ways={self.ways}) reads 0 to {self.ways - 1}."
            )

    def one_hot(self, labelled: Labelled) -> Float[Tensor, "*t n k"]:
        """Rows of the identity for each label, zero where masked; a form that has a rule under vmap."""
        classes = torch.arange(self.ways, device=labelled.y.device)
        dtype = labelled.x.dtype if labelled.x.is_floating_point() else torch.get_default_dtype()
        return ((labelled.y.unsqueeze(-1) == classes) & labelled.mask.unsqueeze(-1)).to(dtype)

    def present(self, support: Labelled) -> Bool[Tensor, "*t k"]:
        return self.one_hot(support).sum(-2) > 0

    def restrict(self, outputs: Tensor, present: Tensor) -> Tensor:
        known = present.unsqueeze(-2)
        top = torch.where(known, outputs.detach(), -torch.inf).amax(-1, keepdim=True)
        below = torch.where(top.isfinite(), top, 0.0).clamp(max=0.0)
        return torch.where(known, outputs, ABSENT + 2 * below)  # twice, lest it be rounded to the same number

    def row_losses(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n"]
    ) -> Float[Tensor, "*t n"]:
        return -torch.log_softmax(outputs, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def slope(self, labelled: Labelled, scale: float = 1.0) -> "Slope":
        target = self.one_hot(labelled)
        share = scale / count(labelled.mask).unsqueeze(-1).to(target.dtype)
        weight, target = labelled.mask.unsqueeze(-1) * share, target * share

        def of(outputs: Tensor) -> tuple[Tensor, Tensor]:
            p = torch.softmax(outputs, -1)
            return p * weight - target, p

        def pull(p: Tensor, g: Tensor) -> Tensor:
            pg = p * g
            return pg.sub_(p * pg.sum(-1, keepdim=True)).mul_(weight)

        return Slope(of, pull)

    def row_scores(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n"]
    ) -> Float[Tensor, "*t n"]:
        right = (outputs.argmax(-1) == y).to(outputs.dtype) * 100.0
        return torch.where(outputs.isnan().any(-1), torch.nan, right)  # NaN would count as class 0


@dataclass(frozen=True)
class Regress(Objective):
    """`dim` real numbers; the loss is the squared error averaged over them, the score its negative."""

    dim: Size = 1

    @property
    def outputs(self) -> int:
        return self.dim

    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        expected = (*labelled.mask.shape, self.dim)
        if not labelled.y.is_floating_point() or labelled.y.shape != expected:
            kind = str(labelled.y.dtype).removeprefix("torch.")
            advice = ": y.unsqueeze(-1)" if self.dim == 1 and labelled.y.shape == expected[:-1] else ""
            raise DataError(
                f"The {name}'s answers are {kind} of shape {list(labelled.y.shape)}; {self} reads real numbers of "
                f"shape {list(expected)}{advice}."
            )

    def row_losses(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n k"]
    ) -> Float[Tensor, "*t n"]:
        return (outputs - y).pow(2).mean(-1)

    def slope(self, labelled: Labelled, scale: float = 1.0) -> "Slope":
        size = count(labelled.mask).unsqueeze(-1).to(labelled.y.dtype)
        weight = labelled.mask.unsqueeze(-1) * (2.0 * scale / (self.dim * size))
        return Slope(lambda outputs: ((outputs - labelled.y) * weight, outputs), lambda _, g: g * weight)

    def row_scores(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n k"]
    ) -> Float[Tensor, "*t n"]:
        return -self.row_losses(outputs, y)


@dataclass(frozen=True)
class Rank(Objective):
    """The right one of a row's `candidates`, which are others in each row; outputs are a score for each of them.

    The loss is the cross-entropy of a softmax over the row (ListNet's for one right answer: Cao et al. 2007,
    doi:10.1145/1273496.1273513), the score the reciprocal rank in percent, a tie counting half. A task without examples
    is fine: what is right there follows from what candidates are like in general.
    """

    candidates: Size
    needs_rows: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        return self.candidates

    @property
    def _chosen(self) -> Classify:
        """The same as a choice among columns."""
        return Classify(ways=self.candidates)

    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        if labelled.mask.numel():
            self._chosen.check(labelled, name)

    def row_losses(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n"]
    ) -> Float[Tensor, "*t n"]:
        return self._chosen.row_losses(outputs, y)

    def slope(self, labelled: Labelled, scale: float = 1.0) -> "Slope":
        return self._chosen.slope(labelled, scale)

    def row_scores(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n"]
    ) -> Float[Tensor, "*t n"]:
        right = outputs.gather(-1, y.unsqueeze(-1))
        above, beside = (outputs > right).sum(-1), (outputs == right).sum(-1) - 1
        rank = 1 + above + beside.to(outputs.dtype) / 2
        return torch.where(outputs.isnan().any(-1), torch.nan, 100.0 / rank)  # NaN would come first


def count(mask: Bool[Tensor, "*t n"]) -> Shaped[Tensor, "*t 1"]:
    """How many rows are real, at least 1 so that an empty task divides by something."""
    return mask.sum(-1, keepdim=True).clamp(min=1)


def mean(values: Float[Tensor, "*t n"], mask: Bool[Tensor, "*t n"]) -> Float[Tensor, "*t"]:
    """Mean over the real rows. `where` and not a product, since a padded row may hold inf."""
    return torch.where(mask, values, 0.0).sum(-1) / count(mask).squeeze(-1)
