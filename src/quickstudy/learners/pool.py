"""A pool of learners: each adapts on its own, their opinions are multiplied.

    log p(y | x) = Σ_i w_i log p_i(y | x) + const

The logarithmic opinion pool: Genest & Zidek 1986, doi:10.1214/ss/1177013825, section 3.2; as a product of experts:
Hinton 2002, doi:10.1162/089976602760128018. A learned prior and logistic regression err on different examples.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.explain import without
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import Net
from quickstudy.core.objective import Classify


@dataclass(frozen=True, kw_only=True)
class Pool(MetaLearner):
    """Several classifiers asked together; `meta` and `fast` hold member i's entries under "i."."""

    objective: Classify
    members: tuple[MetaLearner, ...]
    """Learners with the pool's objective."""
    weights: tuple[float, ...]
    """Of each member's log-probabilities; above 0, up to a million. Their sum sets how sure the pool is."""

    paper: ClassVar[str] = (
        "Genest & Zidek 1986. Combining Probability Distributions. Statistical Science 1. doi:10.1214/ss/1177013825"
    )
    maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members or len(self.members) != len(self.weights):
            raise DataError(
                f"Pool has {len(self.members)} members and {len(self.weights)} weights; give one weight to each member."
            )
        if any(member.objective != self.objective for member in self.members):
            raise DataError("Pool: a member has another objective than the pool.")
        if told := [type(member).__name__ for member in self.members if member.transductive]:
            raise DataError(
                f"Pool: {told[0]} answers by what else is asked; expected members that answer each input on its own."
            )
        if not all(0 < weight <= 1e6 for weight in self.weights):
            raise DataError(f"Pool: weights are {self.weights}; expected numbers above 0, up to a million.")

    def init(self, seed: int = 0) -> Meta:
        return joined([member.init(seed) for member in self.members])

    def trainable(self, meta: Meta) -> list[str]:
        own = [member.trainable(part) for member, part in zip(self.members, self._parts(meta), strict=True)]
        return [f"{i}.{name}" for i, names in enumerate(own) for name in names]

    def row_width(self) -> int | None:
        return next((width for member in self.members if (width := member.row_width()) is not None), None)

    def nets(self) -> list[Net]:
        return [net for member in self.members for net in member.nets()]

    def check_answers(self, rows: Labelled, name: str, *, trains: bool = False) -> None:
        for member in self.members:
            member.check_answers(rows, name, trains=trains)

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        pairs = zip(self.members, self._parts(meta), strict=True)
        return joined([member.adapt(part, support) for member, part in pairs])

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        parts = zip(self.members, self._parts(meta), self._parts(fast), strict=True)
        return self.pooled([member.predict(own, quick, x) for member, own, quick in parts])

    def pooled(self, outputs: list[Float[Tensor, "*n ways"]]) -> Float[Tensor, "*n ways"]:
        """The pool's outputs from its members'."""
        opinions = [torch.log_softmax(out, -1) for out in outputs]
        return sum(
            (weight * opinion for weight, opinion in zip(self.weights, opinions, strict=True)),
            start=torch.zeros_like(opinions[0]),
        )

    def left_out(self, meta: Meta, support: Labelled, x: Tensor, output: int) -> Float[Tensor, "n ways"]:
        """Each member's quick way, if it has one; as exact as theirs."""
        pairs = zip(self.members, self._parts(meta), strict=True)
        return self.pooled([without(member, own, support, x, output) for member, own in pairs])

    def _parts(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        named = {name: name.partition(".") for name in tensors}
        return [
            {named[name][2]: value for name, value in tensors.items() if named[name][0] == str(i)}
            for i in range(len(self.members))
        ]


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Members' `meta` or `fast` as the pool's."""
    return {f"{i}.{name}": value for i, part in enumerate(parts) for name, value in part.items()}
