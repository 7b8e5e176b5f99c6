"""How a relation is formed from its examples in the space of the embedding, by learners of the core.

Both read pairs, 1 for an example and 0 for the same head with a drawn tail, and were meta-trained on known relations
played as new ones. A former of another kind, such as a network over the graph around a pair, needs `Former` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.engine import adapt, meta_train
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify, Regress
from quickstudy.domains.kg.completion.embedding import joined, turned
from quickstudy.domains.kg.completion.evidence import Known, Pairs
from quickstudy.domains.kg.completion.graph import Numbers
from quickstudy.learners import BayesianRidge, MetaR
from quickstudy.nets import MLP

DRAWN = 20
"""Drawn tails for each example."""


class Told(NamedTuple):
    """Pairs and whether the relation holds between them."""

    heads: Numbers
    tails: Numbers
    holds: np.ndarray


def told(known: Known, support: Pairs, seed: int = 0) -> Told:
    """The examples, and their heads with tails drawn evenly or by how many triples they have."""
    draw = np.random.default_rng([seed, *support.heads.tolist(), *support.tails.tolist()])
    shape, degree = (len(support.heads), DRAWN // 2), known.graph.degree
    drawn = np.concatenate(
        [
            draw.integers(len(degree), size=shape),
            draw.choice(len(degree), size=shape, p=degree / degree.sum()),
        ],
        1,
    )
    heads = np.concatenate([support.heads, np.repeat(support.heads, drawn.shape[1])])
    holds = np.concatenate([np.ones(len(support.heads)), np.zeros(drawn.size)])
    return Told(heads, np.concatenate([support.tails, drawn.ravel()]), holds)


@dataclass(frozen=True)
class ClosedForm:
    """A relation's ComplEx vector as the posterior mean of a linear model: the score is linear in it."""

    learner: BayesianRidge
    meta: Meta
    name: str = "closed form"

    @classmethod
    def learn(cls, known: Known, relations: Sequence[Pairs], seed: int = 0) -> "ClosedForm":
        """The prior of the vector, from relations of which all pairs are given; one that knows nothing from none."""
        width = known.embedding.entities.shape[1]
        learner = BayesianRidge(objective=Regress(dim=1), width=width)
        tasks = [cls.rows(known, pairs, seed) for pairs in relations]
        return cls(learner, learner.estimate(tasks) if tasks else learner.init(seed))

    @staticmethod
    def rows(known: Known, support: Pairs, seed: int = 0) -> Labelled:
        table, some = known.embedding.entities, told(known, support, seed)
        x = joined(table[some.heads], table[some.tails])
        return Labelled.of(x, torch.from_numpy(some.holds).float().unsqueeze(-1))

    def scores(self, known: Known, support: Pairs, heads: Numbers) -> Float[Tensor, "heads n"]:
        fast = adapt(self.learner, self.meta, self.rows(known, support))
        table = known.embedding.entities
        return turned(table[heads], fast["weights"][:-1, 0]) @ table.t()


@dataclass(frozen=True)
class Vector:
    """MetaR on the embedding: a vector read off the examples by a network, mended by one step of gradient."""

    learner: MetaR
    meta: Meta
    name: str = "metar"

    @classmethod
    def learn(
        cls, known: Known, relations: Sequence[Pairs], seed: int = 0, steps: int = 300, size: int = 64
    ) -> "Vector":
        """Meta-train on relations of which all pairs are given: one to five of them to adapt to, others to judge by."""
        width = known.embedding.entities.shape[1]
        one_end = MLP(inputs=width, outputs=size, hidden=())
        learner = MetaR(
            objective=Classify(ways=2), head=one_end, tail=one_end, score="product",
            relation=MLP(inputs=2 * size, outputs=size, hidden=(size,)),
        )  # fmt: skip

        def sample(step: int) -> Episode:
            draw = np.random.default_rng([seed, step])
            shots, tasks = int(draw.integers(1, 6)), []
            for which in draw.choice(len(relations), size=8):
                heads, tails = relations[which]
                order = draw.permutation(len(heads))[: shots + 10]
                parts = order[:shots], order[shots:]
                tasks.append(Episode(*(cls.rows(known, Pairs(heads[p], tails[p]), step) for p in parts)))
            return stack(tasks)

        if not relations:
            return cls(learner, learner.init(seed))
        *_, last = meta_train(learner, sample, steps=steps, rate=3e-3, decay=True, seed=seed)
        return cls(learner, last.meta)

    @staticmethod
    def rows(known: Known, support: Pairs, seed: int = 0) -> Labelled:
        table, some = known.directions, told(known, support, seed)
        scale = table.shape[1] ** 0.5
        x = torch.cat([table[some.heads], table[some.tails]], 1) * scale
        return Labelled.of(x, torch.from_numpy(some.holds).long())

    def scores(self, known: Known, support: Pairs, heads: Numbers) -> Float[Tensor, "heads n"]:
        fast = adapt(self.learner, self.meta, self.rows(known, support))
        table = known.directions * known.directions.shape[1] ** 0.5
        with torch.no_grad():
            related, not_related = (
                self.learner.between(self.meta, fast, table[heads], table, of) for of in (1, 0)
            )
        return related - not_related
