"""What speaks for a tail of a new relation: a row of `SIGNS` for each candidate, from the relation's examples.

Signs of the tail alone (is it such a thing as the examples' tails?) are the same for all heads; signs of head and tail
say whether this tail goes with that head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.domains.kg.completion.embedding import Embedding, turned
from quickstudy.domains.kg.completion.graph import Graph, Numbers
from quickstudy.domains.kg.completion.paths import lead, paths

TAIL_SIGNS = (
    "known triples", "type", "type shared", "frequent in types", "slots", "slot shared", "frequent in slots",
    "vector like theirs", "tail of an example", "head of an example",
)  # fmt: skip
PAIR_SIGNS = (
    "like known relations", "paths", "telling paths", "neighbour", "shared neighbours", "vector like the head's",
    "moved as theirs", "tail of a like head", "the head itself",
)  # fmt: skip
NEAREST = 5
"""Known relations that a new one is compared with."""
_COMPARED = 500


class Pairs(NamedTuple):
    """Examples of a relation by number."""

    heads: Numbers
    tails: Numbers


class Former(Protocol):
    """What forms a relation from its examples: MetaR's vector, a closed form, a network over the graph to come."""

    @property
    def name(self) -> str:
        """As a sign is called."""
        ...

    def scores(self, known: "Known", support: Pairs, heads: Numbers) -> Float[Tensor, "heads entities"]:
        """How much each entity looks like the tail of each head; on any scale."""
        ...


@dataclass(frozen=True)
class Known:
    """What is known before the new relation: the graph, vectors of it, and ways to form a relation."""

    graph: Graph
    embedding: Embedding
    formers: tuple[Former, ...] = ()

    @property
    def signs(self) -> tuple[str, ...]:
        """The names of all signs, in their order."""
        return (*TAIL_SIGNS, *PAIR_SIGNS, *(former.name for former in self.formers), "examples")

    @cached_property
    def directions(self) -> Float[Tensor, "n d"]:
        """The entities' vectors, centred and of length 1."""
        table = self.embedding.entities
        return normalize(table - table.mean(0), dim=-1)


def weigh(
    known: Known, support: Pairs, heads: Numbers, hidden: Sequence[int] = ()
) -> Float[Tensor, "heads n signs"]:
    """All signs of all entities as tails of these heads.

    Args:
        hidden: relations whose triples must not be seen, where the new relation is played by a known one.
    """
    graph = known.graph
    slots = [*hidden, *(r + len(graph.relations) for r in hidden)]
    of_tail = torch.from_numpy(np.stack(_tail_signs(known, support, slots), -1)).float()
    of_pair = torch.stack(_pair_signs(known, support, heads, slots), -1)
    formed = [standard(former.scores(known, support, heads)) for former in known.formers]
    shape = (len(heads), len(graph.entities), 1)
    shots = torch.full(shape, float(np.log(len(support.heads))))
    return torch.cat(
        [of_tail.expand(len(heads), -1, -1), of_pair, *(f.unsqueeze(-1) for f in formed), shots], -1
    )


def standard(scores: Float[Tensor, "heads n"]) -> Float[Tensor, "heads n"]:
    """Scores of each head's candidates with mean 0 and deviation 1."""
    spread = scores.std(-1, keepdim=True, correction=0).clamp(min=1e-6)
    return (scores - scores.mean(-1, keepdim=True)) / spread


def degree(graph: Graph, slots: Sequence[int]) -> np.ndarray:
    """Triples of each entity but for those of hidden slots, [entities]."""
    unseen = graph.triples[np.isin(graph.triples[:, 1], slots)][:, [0, 2]].ravel()
    return graph.degree - np.bincount(unseen, minlength=len(graph.entities))


def _tail_signs(known: Known, support: Pairs, slots: Sequence[int]) -> list[np.ndarray]:
    graph, tails = known.graph, support.tails
    count = len(graph.entities)
    seats, none = graph.seats.without(slots), np.zeros(count)
    popular = degree(graph, slots)
    of_kind = [none, none, none] if graph.kinds is None else [
        graph.kinds.likeness(graph.kinds.profile(tails)), graph.kinds.sharing(tails),
        # One triple more for each, so that an entity without any has a chance.
        logged(_frequent(tails, graph.kinds.row, graph.kinds.column, 1 + popular[graph.kinds.row], count)),
    ]  # fmt: skip
    entity, slot, times = graph.seated
    seen = ~np.isin(slot, slots)
    mean = normalize(known.directions[tails].mean(0), dim=-1)
    return [
        np.log1p(popular) / 5,
        *of_kind,
        seats.likeness(seats.profile(tails)),
        seats.sharing(tails),
        logged(_frequent(tails, entity[seen], slot[seen], times[seen], count)),
        (known.directions @ mean).double().numpy(),
        np.bincount(tails, minlength=count) / len(tails),
        np.bincount(support.heads, minlength=count) / len(tails),
    ]


def logged(chance: np.ndarray) -> np.ndarray:
    """Chances on a scale that tells 1 from .1 as .01 from .001, 1 for certain and 0 for 1e-6 or less."""
    return 1 + np.log10(chance + 1e-6) / 6


def _frequent(tails: Numbers, entity: Numbers, group: Numbers, times: Numbers, count: int) -> np.ndarray:
    """Σ_g p(g | the examples' tails) p(entity | g) over groups, each as likely beforehand, [entities].

    Args:
        entity, group, times: that an entity is so often in a group, a slot or a type.
        count: entities in all.
    """
    size = np.bincount(group, times)
    share = times / size[group]
    mixed = np.zeros(len(size))
    for tail in tails.tolist():
        at = entity == tail
        mixed[group[at]] += share[at] / max(share[at].sum(), 1e-9) / len(tails)
    return np.bincount(entity, share * mixed[group], count)


def _pair_signs(known: Known, support: Pairs, heads: Numbers, slots: Sequence[int]) -> list[Tensor]:
    graph, table, unit = known.graph, known.embedding.entities, known.directions
    count = len(graph.entities)
    walked = lead(graph, paths(graph, support.heads, support.tails, slots), heads)
    near, shared = _neighbours(graph, heads, slots)
    moved = table[heads] + (table[support.tails] - table[support.heads]).mean(0)
    alike = torch.softmax(5 * unit[heads] @ unit[support.heads].t(), -1)
    itself = torch.zeros(len(heads), count)
    itself[torch.arange(len(heads)), torch.from_numpy(heads)] = 1.0
    return [
        torch.from_numpy(logged(like_known(known, support, heads, slots).double().numpy())).float(),
        *torch.from_numpy(logged(walked)).float(),
        torch.from_numpy(near).float(),
        torch.from_numpy(np.log1p(shared)).float(),
        unit[heads] @ unit.t(),
        normalize(moved - table.mean(0), dim=-1) @ unit.t(),
        alike @ (unit[support.tails] @ unit.t()),
        itself,
    ]


def _neighbours(graph: Graph, heads: Numbers, slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Whether an entity is a neighbour of the head, and Σ 1 / log(2 + degree) over the neighbours that both have."""
    count = len(graph.entities)
    near, shared = np.zeros((2, len(heads), count))
    weight = 1 / np.log(2 + graph.degree)
    for i, head in enumerate(heads.tolist()):
        slot, end = graph.around(head)
        end = np.unique(end[~np.isin(slot, slots)])
        near[i, end] = 1.0
        end = end[graph.degree[end] <= 500]  # the neighbours of a hub have little in common
        for middle in end.tolist():
            slot, far = graph.around(middle)
            shared[i, np.unique(far[~np.isin(slot, slots)])] += weight[middle]
    return near, shared


def nearest(known: Known, support: Pairs, slots: Sequence[int], most: int = NEAREST) -> tuple[Tensor, Tensor]:
    """(slots, probabilities) of the known relations that explain the examples best, told from drawn entities."""
    table, graph = known.embedding.entities, known.graph
    drawn = torch.randint(len(table), (_COMPARED,), generator=torch.Generator().manual_seed(0))
    turn = turned(table[support.heads].unsqueeze(1), known.embedding.relations)  # [examples, slots, d]
    own = (turn * table[support.tails].unsqueeze(1)).sum(-1, keepdim=True)
    others = turn @ table[drawn].t()
    fits = own.squeeze(-1) - torch.cat([own, others], -1).logsumexp(-1)
    total = fits.sum(0)
    total[~known.embedding.relations.any(-1)] = -torch.inf
    total[list(slots)] = -torch.inf
    best = total.topk(min(most, graph.slots))
    return best.indices, best.values.softmax(-1)


def like_known(
    known: Known, support: Pairs, heads: Numbers, slots: Sequence[int], most: int = NEAREST
) -> Float[Tensor, "heads n"]:
    """The chance of each tail under the known relations that explain the examples best."""
    table = known.embedding.entities
    which, chance = nearest(known, support, slots, most)
    total = torch.zeros(len(heads), len(table))
    for slot, share in zip(which.tolist(), chance.tolist(), strict=True):
        if share > 1e-4:
            told = turned(table[heads], known.embedding.relations[slot]) @ table.t()
            total += share * told.softmax(-1)
    return total
