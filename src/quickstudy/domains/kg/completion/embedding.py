"""A vector for each entity and relation of the graph: ComplEx, by a sampled softmax over tails.

    score(h, r, t) = Re Σ_i h_i r_i conj(t_i)
    min  -log softmax(score(h, r, ·))_t + λ Σ_i (|h_i|³ + |r_i|³ + |t_i|³)     over triples and their inverses

Trouillon et al. 2016, arXiv:1606.06357, equation 9; inverse relations and the cubed norms are those of Lacroix,
Usunier & Obozinski 2018, arXiv:1806.07297, equations 2 and 4. They put the softmax over all entities; here a batch
shares some drawn ones, whose logits are raised to count for all, which takes a core a tenth of the time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from quickstudy.domains.kg.completion.graph import Graph


class Embedding(NamedTuple):
    """Complex vectors as rows of real parts, then imaginary ones."""

    entities: Float[Tensor, "n d"]
    relations: Float[Tensor, "slots d"]
    """Of each slot: relations, then the same from tail to head; zero for one without triples."""


class Training(NamedTuple):
    """How the vectors are trained."""

    size: int = 64
    """Complex numbers a vector."""
    epochs: int = 20
    batch: int = 1000
    drawn: int = 500
    """Entities a batch is told from."""
    rate: float = 0.1
    """Adagrad's."""
    penalty: float = 0.005
    """λ."""


TRAINING = Training()


def train(
    graph: Graph,
    training: Training = TRAINING,
    *,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Embedding:
    """Vectors of a graph's entities and relations.

    Args:
        progress: told the epoch, from 1, and its mean loss.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = _both_ways(graph)
    count, width = len(graph.entities), 2 * training.size
    tables = [torch.randn(n, width, generator=draw) * 0.1 for n in (count, graph.slots)]
    seen = [torch.zeros_like(table) for table in tables]  # Adagrad's sums of squares
    drawn = min(training.drawn, count)
    raise_by = float(np.log(max(1, count - 1) / drawn))
    for epoch in range(1, training.epochs + 1):
        total = 0.0
        for part in torch.randperm(len(rows), generator=draw).split(training.batch):
            batch, others = rows[part], torch.randint(count, (drawn,), generator=draw)
            used, at = torch.cat([batch[:, 0], batch[:, 2], others]).unique(return_inverse=True)
            slots, of = batch[:, 1].unique(return_inverse=True)
            entity, slot = (t[i].requires_grad_() for t, i in zip(tables, (used, slots), strict=True))
            head, tail, far = entity[at[: len(part)]], entity[at[len(part) : -drawn]], entity[at[-drawn:]]
            turn = slot[of]
            asked = turned(head, turn)
            own = batch[:, 2:] == others  # a drawn entity may be the very tail
            near = (asked * tail).sum(-1, keepdim=True)
            logits = torch.cat([near, (asked @ far.t() + raise_by).masked_fill(own, -1e4)], 1)
            loss = cross_entropy(logits, torch.zeros(len(part), dtype=torch.int64))
            price = sum(cubed(vector) for vector in (head, turn, tail)) / len(part)
            grads = torch.autograd.grad(loss + training.penalty * price, (entity, slot))
            for table, sums, where, grad in zip(tables, seen, (used, slots), grads, strict=True):
                sums[where] += grad * grad
                table[where] -= training.rate * grad / (sums[where].sqrt() + 1e-10)
            total += loss.item() * len(part)
        if progress:
            progress(epoch, total / len(rows))
    tables[1][torch.from_numpy(graph.sizes == 0)] = 0.0
    return Embedding(*tables)


def _both_ways(graph: Graph) -> Int[Tensor, "n 3"]:
    head, relation, tail = torch.from_numpy(graph.triples).unbind(1)
    there = torch.stack([head, relation, tail], 1)
    return torch.cat([there, torch.stack([tail, relation + len(graph.relations), head], 1)])


def turned(head: Float[Tensor, "*n d"], relation: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """The complex product; its inner product with a tail's vector is the score."""
    (a, b), (c, d) = head.chunk(2, -1), relation.chunk(2, -1)
    return torch.cat([a * c - b * d, a * d + b * c], -1)


def joined(head: Float[Tensor, "*n d"], tail: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """What a relation's vector is multiplied with: the score is linear in it."""
    (a, b), (c, d) = head.chunk(2, -1), tail.chunk(2, -1)
    return torch.cat([a * c + b * d, a * d - b * c], -1)


def cubed(vector: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Σ |v_i|³ over complex entries."""
    real, imaginary = vector.chunk(2, -1)
    return (real * real + imaginary * imaginary).clamp(min=1e-9).pow(1.5).sum()
