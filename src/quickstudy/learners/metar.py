"""MetaR: a relation is a vector that a network reads off its examples, and that their gradient then mends.

    R = mean_i g([f(h_i), f(t_i)])        R' = R - β ∇_R L(R; support)        score(h, t) = -‖f(h) + R' - f(t)‖

Chen, Zhang, Zhang, Chen & Chen 2019, arXiv:1909.01515, equations 1 to 7. An input is a pair, the head's features and
then the tail's. Theirs knows one relation and corrupted pairs of it, ours one for each class: a class for pairs that
are unrelated does for theirs. Two relations differ by translations in a way that doesn't ask for the head, so the score
may also be that of DistMult, Σ f(h) R' f'(t), with maps of their own for heads and tails.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner, descend, part, per_task, prefixed
from quickstudy.core.net import Net, apply, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Rate, Steps
from quickstudy.learners.prototypical import class_means


@dataclass(frozen=True, kw_only=True)
class MetaR(MetaLearner):
    """MetaR. An adapted task is a vector for each relation."""

    objective: Classify
    head: Net
    """f of heads: half of an input's features to an embedding."""
    tail: Net
    """f of tails, likewise. The paper has one table of embeddings for both."""
    relation: Net
    """g: two embeddings, joined, to one; the paper's has two hidden layers."""
    score: Literal["translation", "product"] = "translation"
    """The paper's, or DistMult's."""
    steps: Steps = 1
    """Inner steps; the paper's 1."""
    rate: Rate = 1.0
    """Inner learning rate β; the authors' code has 5, of a margin loss with embeddings of length 1."""
    second_order: bool = True
    """Differentiate through the inner steps."""

    paper: ClassVar[str] = (
        "Chen et al. 2019. Meta Relational Learning for Few-Shot Link Prediction. arXiv:1909.01515"
    )
    inner_loop: ClassVar[bool] = True

    def init(self, seed: int = 0) -> Meta:
        parts = (("head.", self.head), ("tail.", self.tail), ("relation.", self.relation))
        return {
            name: value
            for i, (prefix, net) in enumerate(parts)
            for name, value in prefixed(initial(net, seed + i), prefix).items()
        }

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = descend(
            self._loss,
            {"relations": per_task(self._read, support, meta, support)},
            support,
            fixed=meta,
            steps=self.steps,
            rate=self.rate,
            second_order=self.second_order,
        )
        return fast | {"present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        return self.objective.restrict(self._scores(fast["relations"], *self._ends(meta, x)), fast["present"])

    def between(
        self, meta: Meta, fast: Fast, heads: Float[Tensor, "n f"], tails: Float[Tensor, "m f"], of: int
    ) -> Float[Tensor, "n m"]:
        """The scores of all pairs under relation `of`: `predict` without an input for each."""
        h, t = apply(self.head, part(meta, "head."), heads), apply(self.tail, part(meta, "tail."), tails)
        relation = fast["relations"][of]
        return (h * relation) @ t.t() if self.score == "product" else -torch.cdist(h + relation, t)

    def _read(self, meta: Meta, support: Labelled) -> Float[Tensor, "ways d"]:
        """The relation of each class of one task as the network reads it."""
        read = apply(self.relation, part(meta, "relation."), torch.cat(self._ends(meta, support.x), -1))
        return class_means(read, self.objective.one_hot(support))[0]

    def _loss(self, fast: Fast, support: Labelled) -> Float[Tensor, ""]:
        outputs = self._scores(fast["relations"], *self._ends(fast, support.x))
        return self.objective.loss(self.objective.restrict(outputs, self.objective.present(support)), support)

    def _ends(self, meta: Meta, x: Float[Tensor, "n f2"]) -> tuple[Tensor, Tensor]:
        half = x.shape[-1] // 2
        return (
            apply(self.head, part(meta, "head."), x[..., :half]),
            apply(self.tail, part(meta, "tail."), x[..., half:]),
        )

    def _scores(self, relations: Tensor, h: Tensor, t: Tensor) -> Float[Tensor, "n ways"]:
        if self.score == "product":
            return (h * t) @ relations.t()
        missed = (h - t).unsqueeze(-2) + relations
        return -(missed.pow(2).sum(-1) + 1e-12).sqrt()
