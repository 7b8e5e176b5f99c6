"""Known relations played as new ones: a few triples to adapt to, others to be judged by, the rest unseen.

An episode's rows are lists of candidates, the right one first (`Rank`): the support's are its own examples, each ranked
by the others, the query's are other triples of the relation, ranked by the whole support. A single example has no
others to be ranked by, so such an episode's support is empty.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quickstudy.core.episode import Episode, Labelled
from quickstudy.domains.kg.completion.evidence import Known, Pairs, weigh
from quickstudy.domains.kg.completion.graph import Graph

SHOTS = 5
"""Examples of a play, at most: a relation that is played as a new one has a triple more at least, to be judged by."""
LIST = 100
"""Candidates of a row in meta-training."""
_HARD = (
    "type",
    "frequent in types",
    "slots",
    "frequent in slots",
    "vector like theirs",
    "like known relations",
    "paths",
    "closed form",
)
"""Signs by which half of a row's candidates are chosen: the right one must be told from these."""
_TOP = 60


@dataclass(frozen=True)
class Play:
    """A known relation as a new one."""

    support: Pairs
    query: Pairs
    truth: dict[int, set[int]]
    """All tails of each head."""
    hidden: tuple[int, ...] = ()
    """The relation, where the graph still has its triples."""


def pairs_of(graph: Graph, relation: int, backwards: bool = False) -> Pairs:
    """All pairs of a relation; backwards, tails are heads."""
    rows = graph.triples[graph.triples[:, 1] == relation]
    head, tail = (rows[:, 2], rows[:, 0]) if backwards else (rows[:, 0], rows[:, 2])
    return Pairs(head.copy(), tail.copy())


def truth_of(pairs: Pairs) -> dict[int, set[int]]:
    """All tails of each head."""
    found: dict[int, set[int]] = {}
    for head, tail in zip(pairs.heads.tolist(), pairs.tails.tolist(), strict=True):
        found.setdefault(head, set()).add(tail)
    return found


def plays(
    pairs: Pairs, shots: int, *, most: int, times: int, seed: Sequence[int], hidden: tuple[int, ...] = ()
) -> Iterator[Play]:
    """Draws of `shots` examples with up to `most` other triples to be judged by.

    The triples judged by are the same whatever the shots are, up to `SHOTS`, so that shots can be compared.
    """
    truth = truth_of(pairs)
    for time in range(times):
        order = np.random.default_rng([*seed, time]).permutation(len(pairs.heads))
        support, query = order[:shots], order[SHOTS : SHOTS + most]
        yield Play(
            Pairs(pairs.heads[support], pairs.tails[support]),
            Pairs(pairs.heads[query], pairs.tails[query]),
            truth,
            hidden,
        )


def episode(known: Known, play: Play, seed: int = 0) -> Episode:
    """A play as lists of candidates."""
    draw = np.random.default_rng([seed, *play.support.heads.tolist()])
    return Episode(left_out(known, play.support, play.hidden, draw), _lists(known, play, play.query, draw))


def left_out(known: Known, support: Pairs, hidden: Sequence[int], draw: np.random.Generator) -> Labelled:
    """Each example ranked by the others; a masked row where there are no others."""
    count = len(support.heads)
    if count < 2:
        x = torch.zeros(1, LIST, len(known.signs))
        return Labelled(x, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
    rows, truth = [], truth_of(support)
    for i in range(count):
        rest = np.delete(np.arange(count), i)
        play = Play(Pairs(support.heads[rest], support.tails[rest]), support, truth, tuple(hidden))
        rows.append(_lists(known, play, Pairs(support.heads[[i]], support.tails[[i]]), draw))
    return Labelled(*(torch.cat(part) for part in zip(*rows, strict=True)))


def _lists(known: Known, play: Play, query: Pairs, draw: np.random.Generator) -> Labelled:
    signs = weigh(known, play.support, query.heads, play.hidden)
    hard = [known.signs.index(name) for name in _HARD if name in known.signs]
    some = min(_TOP, signs.shape[1])
    top = torch.stack([signs[..., i].topk(some).indices for i in hard], 1).numpy()
    rows = []
    for row, head, tail, near in zip(signs, query.heads.tolist(), query.tails.tolist(), top, strict=True):
        rows.append(row[_candidates(known.graph, tail, play.truth[head], near, draw)])
    y = torch.zeros(len(rows), dtype=torch.int64)
    return Labelled.of(torch.stack(rows), y)


def _candidates(
    graph: Graph, tail: int, right: set[int], near: np.ndarray, draw: np.random.Generator
) -> list[int]:
    """The tail, then wrong ones: half by their signs, the others evenly and by how many triples they have."""
    count = len(graph.entities)
    chosen = np.concatenate(
        [
            draw.permuted(near, axis=1)[:, : LIST // 8].ravel(),
            draw.choice(count, LIST // 2, p=graph.degree / graph.degree.sum()),
            draw.integers(count, size=LIST // 4),
        ]
    )
    wrong = [one for one in draw.permutation(np.unique(chosen)).tolist() if one not in right]
    wrong = wrong or [one for one in range(count) if one != tail] or [tail]
    times = -(-(LIST - 1) // len(wrong))
    return [tail, *(wrong * times)[: LIST - 1]]
