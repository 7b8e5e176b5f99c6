"""Walks of one or two edges that lead from heads of a relation to their tails, and where they lead from others.

    w_p = mean over support of P_p(t | h)          evidence(c | h) = Σ_p w_p P_p(c | h) / Σ_p w_p

P_p(c | h) is the chance that a walk from h ends at c when it takes the slots of path p and chooses evenly among the
edges of each. Case-based reasoning over paths: Das, Godbole, Dhuliawala, Zaheer & McCallum 2020, arXiv:2006.14198,
section 2.3; they take paths of similar entities, we those of the relation's own examples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quickstudy.domains.kg.completion.graph import Graph, Numbers

MOST_EDGES = 500
"""A walk that chooses among more edges than that is left out."""
MOST_PATHS = 100
NONE = -1
"""In place of a second slot, where a path has one edge."""


class Paths(NamedTuple):
    """Paths with how well they lead from the support's heads to its tails."""

    first: Numbers
    second: Numbers
    """A slot, or NONE."""
    weight: np.ndarray
    """[paths]: w_p."""
    told: np.ndarray
    """[paths]: w_p times the nats by which the path beats the frequency of the tail among all that its last slot
    leads to: paths that lead everybody to the same place say little."""


def paths(graph: Graph, heads: Numbers, tails: Numbers, hidden: Sequence[int] = ()) -> Paths:
    """The paths between these heads and their tails, the best first.

    Args:
        hidden: slots that no path may use.
    """
    found: list[np.ndarray] = []
    for head, tail in zip(heads.tolist(), tails.tolist(), strict=True):
        found.append(_between(graph, head, tail, hidden))
    rows = np.concatenate(found) if found else np.zeros((0, 4))
    if not len(rows):
        none = np.zeros(0, dtype=np.int64)
        return Paths(none, none, np.zeros(0), np.zeros(0))
    key, which = np.unique(rows[:, 0] * (graph.slots + 1) + rows[:, 1] + 1, return_inverse=True)
    weight = np.bincount(which, rows[:, 2]) / len(heads)
    told = np.bincount(which, rows[:, 3]) / len(heads)
    best = np.argsort(-weight, kind="stable")[:MOST_PATHS]
    key = key[best].astype(np.int64)
    return Paths(key // (graph.slots + 1), key % (graph.slots + 1) - 1, weight[best], told[best])


def _between(graph: Graph, head: int, tail: int, hidden: Sequence[int]) -> np.ndarray:
    """(first slot, second or NONE, chance, chance times what it tells) of each path from head to tail, [paths, 4]."""
    slot, middle = graph.around(head)
    keep = ~np.isin(slot, hidden)
    slot, middle = slot[keep], middle[keep]
    chance = 1.0 / np.bincount(slot, minlength=graph.slots)[slot]
    straight = middle == tail
    one = np.stack([slot[straight], np.full(straight.sum(), NONE), chance[straight]], 1)
    from_tail, other = graph.around(tail)
    keep = ~np.isin(from_tail, hidden) & (other != head) & (other != tail)
    from_tail, other = from_tail[keep], other[keep]
    order = np.argsort(other, kind="stable")
    from_tail, other = from_tail[order], other[order]
    first = np.searchsorted(other, middle)
    many = np.searchsorted(other, middle, side="right") - first
    row = np.repeat(np.arange(len(middle)), many)
    at = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many)
    second = graph.back(from_tail[at])
    choice = graph.span(middle[row], second)[1]
    two = np.stack([slot[row], second, chance[row] / np.maximum(choice, 1)], 1)
    rows = np.concatenate([one, two])
    if not len(rows):
        return np.zeros((0, 4))
    key, which = np.unique(rows[:, 0] * (graph.slots + 1) + rows[:, 1] + 1, return_inverse=True)
    total = np.bincount(which, rows[:, 2])
    last = np.where(
        key % (graph.slots + 1) == 0, key // (graph.slots + 1), key % (graph.slots + 1) - 1
    ).astype(np.int64)
    held = graph.span(np.full(len(last), tail), graph.back(last))[1]
    usual = held / np.maximum(graph.sizes[last], 1)
    told = total * np.log(np.maximum(total, 1e-9) / np.maximum(usual, 1e-9)).clip(min=0)
    return np.stack([key // (graph.slots + 1), key % (graph.slots + 1) - 1, total, told], 1)


def lead(graph: Graph, some: Paths, heads: Numbers) -> np.ndarray:
    """Where the paths lead from these heads: evidence by `weight` and by `told`, [2, heads, entities]."""
    entities, asked = len(graph.entities), len(heads)
    total = np.zeros((2, asked * entities))
    if not len(some.first):
        return total.reshape(2, asked, entities)
    start = np.repeat(heads, len(some.first))
    path = np.tile(np.arange(len(some.first)), asked)
    walk, end, chance = graph.follow(start, some.first[path], MOST_EDGES)
    path, query = path[walk], walk // len(some.first)
    more = some.second[path] != NONE
    far_walk, far, far_chance = graph.follow(end[more], some.second[path[more]], MOST_EDGES)
    ends = np.concatenate([end[~more], far])
    paths_of = np.concatenate([path[~more], path[more][far_walk]])
    query = np.concatenate([query[~more], query[more][far_walk]])
    chances = np.concatenate([chance[~more], chance[more][far_walk] * far_chance])
    for row, weight in enumerate((some.weight, some.told)):
        share = weight / max(float(weight.sum()), 1e-9)
        total[row] = np.bincount(query * entities + ends, chances * share[paths_of], asked * entities)
    return total.reshape(2, asked, entities)
