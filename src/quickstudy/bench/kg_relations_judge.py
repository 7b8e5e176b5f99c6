"""How kg_relations judges: episodes of a reported part, the nearest mean in them, and questions without a relation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.relations.certainty import evidence, likeness, prototypes
from quickstudy.domains.kg.relations.prior import RelationPrior


@dataclass(frozen=True)
class Method:
    """Features of the reported pairs under one way."""

    name: str
    x: Float[Tensor, "n d"]
    prior: RelationPrior
    named: Float[Tensor, "relations d"] | None = None
    """What stands for the relations' names."""


def episodes(
    y: Int[np.ndarray, " n"],
    ways: int,
    shots: int,
    queries: int,
    number: int,
    seed: int,
    strangers: bool = False,
) -> list[tuple[Int[np.ndarray, "w k"], Int[np.ndarray, "w q"], Int[np.ndarray, " m"]]]:
    """Rows of (support, query) by relation, and as many queries of other relations, or none."""
    rng = np.random.default_rng([seed, ways, shots])
    rows = [np.flatnonzero(y == c) for c in range(int(y.max()) + 1)]
    drawn = []
    for _ in range(number):
        order = rng.permutation(len(rows))
        picked = np.stack([rng.choice(rows[c], shots + queries, replace=False) for c in order[:ways]])
        other = np.array([], dtype=np.int64)
        if strangers:
            other = np.array([rng.choice(rows[rng.choice(order[ways:])]) for _ in range(ways * queries)])
        drawn.append((picked[:, :shots], picked[:, shots:], other))
    return drawn


def centers(
    method: Method, support: Int[np.ndarray, "w k"], y: Int[np.ndarray, " n"]
) -> Float[Tensor, "w d"]:
    """The direction of the mean of each relation's examples, its name among them where the method has it."""
    rows = torch.from_numpy(support.ravel())
    own = torch.arange(len(support)).repeat_interleave(support.shape[1])
    named = None if method.named is None else method.named[torch.from_numpy(y[support[:, 0]])]
    return prototypes(method.x[rows], own, len(support), named)


def accuracy(method: Method, drawn: Sequence[tuple[Any, Any, Any]], y: Int[np.ndarray, " n"]) -> list[float]:
    """Accuracy of the nearest mean direction in each episode, in points."""
    found = []
    for support, query, _ in drawn:
        center = centers(method, support, y)
        best = (method.x[torch.from_numpy(query)] @ center.t()).argmax(-1)
        found.append(100 * float((best == torch.arange(len(support)).unsqueeze(1)).float().mean()))
    return found


def scored(
    method: Method, drawn: Sequence[tuple[Any, Any, Any]], y: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "e q"], Any]:
    """Log-odds that a question has the best relation, those of the episode's relations first; and whether it has."""
    scores, rights, x = [], [], method.x
    for support, query, other in drawn:
        center = centers(method, support, y)
        rows = torch.from_numpy(np.concatenate([query[:, 0], other]))
        own = torch.arange(len(support)).repeat_interleave(support.shape[1])
        alike = likeness(x[torch.from_numpy(support.ravel())], own, center)
        often = method.prior.usual(x[rows])
        phi, best = evidence(x[rows] @ center.t(), float(support.shape[1]), alike=alike, usual=often)
        scores.append(method.prior.certainty.logit(phi).numpy())
        truth = torch.cat([torch.arange(len(support)), torch.full((len(other),), -1)])
        rights.append((best == truth).numpy())
    return np.stack(scores), np.stack(rights)


def auroc(score: Float[np.ndarray, "e q"], number: int) -> Estimate:
    """How often a question with a relation scores above one without, in points, over all questions.

    The interval is that of 200 draws of episodes with replacement (Efron's bootstrap).
    """
    half = score.shape[1] // 2

    def area(chosen: Float[np.ndarray, "e q"]) -> float:
        none = np.sort(chosen[:, half:].ravel())
        below = np.searchsorted(none, chosen[:, :half].ravel(), "left")
        upto = np.searchsorted(none, chosen[:, :half].ravel(), "right")
        return 100 * float((below + upto).mean()) / 2 / len(none)

    rng = np.random.default_rng(0)
    draws = [area(score[rng.integers(len(score), size=len(score))]) for _ in range(200)]
    mean = area(score)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(mean, float(high - low) / 2, number, (min(mean, float(low)), max(mean, float(high))))
