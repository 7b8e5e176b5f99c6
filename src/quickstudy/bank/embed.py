"""A task as a vector, made from its support alone: so a task that nobody has met has one too.

    e = (m, log s_w, log s_b, t, log classes, log shots, log tr Σ_w, log tr Σ_b)

With x scaled to length 1: m is the mean of the class means (prototypes), s_w and s_b the spread of each feature within
classes and between prototypes, t the mean of the descriptions' features (0 where there are none). That a task is
embedded by statistics of its support, never by its number: Task2Vec's aim (Achille et al. 2019, arXiv:1902.03545) with
the sufficient statistics of the closed-form heads in place of a network's Fisher information.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from quickstudy.bank.entry import Part
from quickstudy.core.errors import DataError

SIZES = 4
FLOOR = 1e-4
"""Least spread of a feature: that of classes with one example is unknown, and counts as this."""


class Embedding(NamedTuple):
    """The parts of e."""

    center: Float[Tensor, " d"]
    within: Float[Tensor, " d"]
    between: Float[Tensor, " d"]
    told: Float[Tensor, " d"]
    sizes: Float[Tensor, " 4"]

    def vector(self) -> Float[Tensor, " 4d_and_4"]:
        """All of it, one after the other."""
        return torch.cat(list(self))

    @classmethod
    def of(cls, vector: Tensor) -> "Embedding":
        """From what `vector` gave. Raises DataError for another length."""
        dim, rest = divmod(len(vector) - SIZES, 4)
        if vector.ndim != 1 or dim < 1 or rest:
            raise DataError(f"an embedding has 4 d + {SIZES} numbers; this has {list(vector.shape)}.")
        return cls(*vector.split([dim, dim, dim, dim, SIZES]))


def embed(part: Part) -> Embedding:
    """The embedding of a task; rows of no label count for nothing."""
    known = part.y >= 0
    x, y = normalize(part.x[known].float(), dim=-1), part.y[known]
    numbers, place = y.unique(return_inverse=True)
    counts = torch.bincount(place).float()
    means = torch.zeros(len(numbers), x.shape[1]).index_add(0, place, x) / counts.unsqueeze(1)
    degrees = max(1, len(x) - len(numbers))
    within = (x - means[place]).pow(2).sum(0) / degrees
    between = (means - means.mean(0)).pow(2).sum(0) / max(1, len(numbers) - 1)
    told = torch.zeros(x.shape[1])
    if part.told is not None:
        told = normalize(part.told.float(), dim=-1).mean(0)
    sizes = torch.stack(
        [
            torch.tensor(float(len(numbers))),
            counts.mean(),
            within.sum().clamp(min=FLOOR),
            between.sum().clamp(min=FLOOR),
        ]
    ).log()
    return Embedding(
        means.mean(0),
        within.clamp(min=FLOOR**2).sqrt().log(),
        between.clamp(min=FLOOR**2).sqrt().log(),
        told,
        sizes,
    )


def nearness(one: Embedding, other: Embedding) -> float:
    """How alike two tasks are, from 0 to 1: the mean over the parts of e that both have.

    Directions are compared by their cosine, spreads by their correlation over features, sizes by how many times one
    goes into the other.
    """
    if len(one.center) != len(other.center):
        raise DataError(
            f"features of {len(one.center)} and of {len(other.center)} numbers can't be compared."
        )
    alike = [cosine_similarity(one.center, other.center, dim=0)]
    for mine, theirs in ((one.within, other.within), (one.between, other.between)):
        if float(mine.std()) > 0 and float(theirs.std()) > 0:
            alike.append(cosine_similarity(mine - mine.mean(), theirs - theirs.mean(), dim=0))
    if float(one.told.norm()) > 0 and float(other.told.norm()) > 0:
        alike.append(cosine_similarity(one.told, other.told, dim=0))
    alike.append((-(one.sizes - other.sizes).abs().mean()).exp())
    return float(torch.stack(alike).clamp(0, 1).mean())
