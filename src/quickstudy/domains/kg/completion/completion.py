"""Triples of a new relation, from one to five of them and the graph so far.

    completion = Completion.learn(triples)                      # or a GraphStore; types=… where known
    relation = completion.adapt("born_in", [("Ada", "London")])
    relation.rank("Grace")                                      # the best tails, and what speaks for each

What is proposed is never asserted: `propose` writes it to a store as proposals, apart from what was extracted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Episode
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.completion import store
from quickstudy.domains.kg.completion.embedding import TRAINING, Training, train
from quickstudy.domains.kg.completion.evidence import Known, Pairs, weigh
from quickstudy.domains.kg.completion.formers import ClosedForm, Vector
from quickstudy.domains.kg.completion.graph import NO_TYPES, Graph, Numbers, Plain, shown
from quickstudy.domains.kg.completion.paths import NONE, lead, paths
from quickstudy.domains.kg.completion.scorer import Scorer
from quickstudy.domains.kg.completion.tasks import SHOTS, episode, left_out, pairs_of, plays
from quickstudy.domains.kg.schema import RelationType

LEAST = 12
"""Triples that a known relation has at least, to be played as a new one."""
HELD, PLAYED = 0.3, 60
"""The share of triples that the embedding does without, so that relations can be played; relations at most."""
PAIRS = 60
"""Of a relation, that its forms are learned from."""


class Ranked(NamedTuple):
    """A tail that may go with a head."""

    tail: str
    score: float
    """The share of the scorer's softmax over all candidates of this head: sure of this tail rather than of another, if
    the head has one at all. Not a calibrated probability."""
    why: str
    """The signs that raise it most, the strongest first."""


class Proposed(NamedTuple):
    """A triple that was inferred."""

    head: str
    relation: str
    tail: str
    score: float
    """That of its tail, times how much the head is like those of the examples."""
    why: str


@dataclass(frozen=True)
class Completion:
    """What a graph taught about its relations."""

    known: Known
    scorer: Scorer

    @classmethod
    def learn(
        cls,
        triples: Graph | Sequence[Plain],
        types: Mapping[str, Sequence[str]] = NO_TYPES,
        *,
        played: Sequence[str] | None = None,
        training: Training = TRAINING,
        times: int = 4,
        scorer: Scorer | None = None,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> "Completion":
        """Learn from a graph: vectors of its entities, how relations are formed, and what signs are worth.

        Args:
            types: of each entity, where known.
            played: relations to learn from by playing them as new; None takes small ones of up to a third of all
                triples. The embedding is trained without them.
            times: draws of examples from each of them, with one and with five.
            scorer: of an earlier graph, in place of one learned here.
            progress: told what is being done.

        Raises:
            DataError: fewer than two entities, or no relation with triples enough to be played; one that is to be
                played and has too few.
        """
        graph = triples if isinstance(triples, Graph) else Graph.of(triples, types)
        if len(graph.entities) < 2:
            raise DataError(
                f"a graph of one entity, {', '.join(map(shown, graph.entities))}, has nothing to propose."
            )
        say = progress or (lambda _: None)
        held = _played(graph) if played is None else [_playable(graph, name) for name in played]
        say(f"vectors of {len(graph.entities)} entities, without {len(held)} relations that are played")
        plain = Known(graph, train(graph.without(held), training, seed=seed))
        if scorer is None:
            if not held:
                raise DataError(
                    "a scorer is learned from relations that are played; name some, or give a scorer."
                )
            say(f"what signs are worth, from {len(held)} relations played as new")
            scorer = Scorer.learn(experience(plain, held, times, seed), seed=seed)
        known = formed(plain, held, seed)
        return cls(known, scorer)

    def save(self, folder: Path | str) -> None:
        """Write it to a folder, whole or not at all. Raises CheckpointError, ModelError for a foreign former."""
        store.save(self.known, self.scorer, folder)

    @classmethod
    def load(cls, folder: Path | str) -> "Completion":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        return cls(*store.load(folder))

    def adapt(
        self, relation: str, support: Sequence[tuple[str, str]], kind: RelationType | None = None
    ) -> "NewRelation":
        """Learn a relation from pairs of head and tail.

        Args:
            kind: which types it joins, by the schema; only such are proposed. And whether it is symmetric: then an
                example holds the other way round as well.

        Raises:
            DataError: the graph has the relation already, there is no pair or one twice, an entity is unknown, or of a
                type that the relation doesn't join.
        """
        graph = self.known.graph
        if relation in graph.relations and graph.sizes[graph.relations.index(relation)]:
            held = int(graph.sizes[graph.relations.index(relation)])
            raise DataError(
                f"the graph has the relation {relation!r} already, with {held} triples. Learn the completion from a "
                "graph without them to propose more of it, or give the new relation another name."
            )
        if not support:
            raise DataError(f"{relation!r} has no example; give one to five pairs of head and tail.")
        if twice := [pair for i, pair in enumerate(support) if pair in support[:i]]:
            raise DataError(f"{relation!r}: the pair {_told(twice[0])} stands there twice.")
        found = Pairs(*(np.array([graph.number(pair[end]) for pair in support]) for end in (0, 1)))
        ends: tuple[Sequence[str], Sequence[str]] = (kind.head, kind.tail) if kind else ((), ())
        admitted = [
            graph.of_types(types) if types else np.ones(len(graph.entities), dtype=bool) for types in ends
        ]
        for end, numbers, some, types in zip(("head", "tail"), found, admitted, ends, strict=True):
            for pair, number in zip(support, numbers.tolist(), strict=True):
                if not some[number]:
                    raise DataError(
                        f"{relation!r}: the {end} of {_told(pair)} is {' and '.join(graph.types_of(number))}; the "
                        f"schema asks for {' or '.join(types)}. Correct the pair or the schema."
                    )
        draw = np.random.default_rng(0)
        fast = self.scorer.adapt(left_out(self.known, found, (), draw))
        return NewRelation(
            self, relation, found, fast, *admitted, symmetric=kind is not None and kind.symmetric
        )


@dataclass(frozen=True)
class NewRelation:
    """A relation as its examples show it."""

    completion: Completion
    name: str
    support: Pairs
    fast: dict[str, Tensor]
    heads: np.ndarray
    """Whether the schema lets an entity be a head, [entities]."""
    tails: np.ndarray
    symmetric: bool = False
    """Whether it holds of B and A where it holds of A and B."""

    def scores(self, heads: Numbers) -> Float[Tensor, "heads n"]:
        """The score of every entity as a tail of each head; what the schema forbids is far below."""
        return self._scored(weigh(self.completion.known, self.support, heads))

    def _scored(self, signs: Float[Tensor, "heads n signs"]) -> Float[Tensor, "heads n"]:
        told = self.completion.scorer.scores(self.fast, signs)
        return told.masked_fill(torch.from_numpy(~self.tails), -1e9)

    def rank(self, head: str, most: int = 10) -> list[Ranked]:
        """The best tails of a head that isn't among the examples with them, the best first.

        Raises:
            DataError: the graph has no such entity.
        """
        graph = self.completion.known.graph
        number = graph.number(head)
        return self._ranked(np.array([number]), most)[0]

    def propose(
        self, heads: Sequence[str] | None = None, *, most: int = 100, each: int = 1, least: float = 0.0
    ) -> list[Proposed]:
        """Triples of the relation, the surest first.

        Args:
            heads: whom to propose for; None takes the entities most like the examples' heads, up to `most`.
            most: triples in all.
            each: tails a head.
            least: score below which nothing is proposed.
        """
        graph = self.completion.known.graph
        if heads is None:
            chosen = [
                int(i) for i in np.argsort(-self.likeness, kind="stable")[:most] if self.likeness[i] > 0
            ]
        else:
            chosen = [graph.number(name) for name in heads]
        found: list[Proposed] = []
        for start in range(0, len(chosen), 32):
            part = np.array(chosen[start : start + 32])
            for head, ranked in zip(part.tolist(), self._ranked(part, each), strict=True):
                for one in ranked:
                    score = one.score * float(self.likeness[head])
                    if score >= least:
                        found.append(Proposed(graph.entities[head], self.name, one.tail, score, one.why))
        return sorted(found, key=lambda one: (-one.score, one.head, one.tail))[:most]

    @cached_property
    def likeness(self) -> np.ndarray:
        """How much each entity is like the examples' heads, by types and slots, 0 to 1; 0 where the schema forbids."""
        graph, heads = self.completion.known.graph, self.support.heads
        alike = graph.seats.likeness(graph.seats.profile(heads))
        if graph.kinds is not None:
            alike = (alike + graph.kinds.likeness(graph.kinds.profile(heads))) / 2
        return np.where(self.heads, alike.clip(0, 1), 0.0)

    def _ranked(self, heads: Numbers, most: int) -> list[list[Ranked]]:
        signs = weigh(self.completion.known, self.support, heads)
        scores = self._scored(signs)
        graph, found = self.completion.known.graph, []
        taken = set(zip(self.support.heads.tolist(), self.support.tails.tolist(), strict=True))
        taken |= {(tail, head) for head, tail in taken} if self.symmetric else set()
        for head, row, told in zip(heads.tolist(), scores, signs, strict=True):
            share = row.softmax(-1)
            order = [
                i
                for i in row.argsort(descending=True)[: most + len(taken)].tolist()
                if (head, i) not in taken
            ]
            found.append([
                Ranked(graph.entities[i], float(share[i]), self._why(head, i, told))
                for i in order[:most]
                if self.tails[i]
            ])  # fmt: skip
        return found

    def _why(self, head: int, tail: int, signs: Float[Tensor, "n signs"]) -> str:
        """The signs without which the tail would score least, an average candidate's put in their place."""
        names, row = self.completion.known.signs, signs[tail]
        without = row.repeat(len(names), 1)
        without[torch.arange(len(names)), torch.arange(len(names))] = signs.mean(0)
        told = self.completion.scorer.scores(self.fast, torch.cat([row[None], without])[None])[0]
        drop = told[0] - told[1:]
        best = [i for i in drop.argsort(descending=True)[:3].tolist() if drop[i] > 0]
        return ", ".join(f"{names[i]}{self._path(head, tail) if 'paths' in names[i] else ''}" for i in best)

    def _path(self, head: int, tail: int) -> str:
        """The best path from the head to the tail, in brackets."""
        graph = self.completion.known.graph
        some = paths(graph, self.support.heads, self.support.tails)
        for i in range(len(some.first)):
            one = type(some)(*(part[i : i + 1] for part in some))
            if lead(graph, one, np.array([head]))[0, 0, tail] > 0:
                steps = [slot for slot in (int(one.first[0]), int(one.second[0])) if slot != NONE]
                return f" ({' → '.join(graph.slot_name(slot) for slot in steps)})"
        return ""


def formed(known: Known, played: Sequence[int], seed: int = 0) -> Known:
    """The same with both ways to form a relation, learned from relations that the embedding hasn't seen."""
    some = []
    for relation in played:
        for backwards in (False, True):
            pairs = pairs_of(known.graph, relation, backwards)
            order = np.random.default_rng([seed, relation]).permutation(len(pairs.heads))[:PAIRS]
            some.append(Pairs(pairs.heads[order], pairs.tails[order]))
    return replace(known, formers=(ClosedForm.learn(known, some, seed), Vector.learn(known, some, seed)))


def experience(known: Known, played: Sequence[int], times: int, seed: int = 0) -> list[Episode]:
    """Episodes of known relations, in both directions, with one and with five examples.

    Those of one half come with forms learned from the other: a form looks better than it is on relations that it was
    learned from, and would be trusted too much.
    """
    found = []
    for half, other in ((played[::2], played[1::2]), (played[1::2], played[::2])):
        if not half:
            continue
        strange = formed(known, other, seed)
        for relation in half:
            for backwards in (False, True):
                pairs = pairs_of(known.graph, relation, backwards)
                for shots in (1, 5):
                    key = [seed, relation, int(backwards)]
                    some = plays(pairs, shots, most=8, times=times, seed=key, hidden=(relation,))
                    found += [episode(strange, play, seed) for play in some]
    return found


def _told(pair: tuple[str, str]) -> str:
    """A pair as a person reads it."""
    return repr(tuple(map(shown, pair)))


def _playable(graph: Graph, name: str) -> int:
    """The number of a relation with triples enough to be played as a new one. Raises DataError."""
    relation = graph.relation(name)
    if (held := int(graph.sizes[relation])) <= SHOTS:
        raise DataError(
            f"{name!r} can't be played as a new relation: it has {held} triples, and a played relation needs "
            f"{SHOTS + 1} or more, {SHOTS} to adapt to and others to be judged by. Name others, or add triples."
        )
    return relation


def _played(graph: Graph) -> list[int]:
    """Small relations with triples enough, up to `HELD` of all triples, the smallest first."""
    sizes = graph.sizes[: len(graph.relations)]
    fit = [int(r) for r in np.argsort(sizes, kind="stable") if sizes[r] >= LEAST]
    share = np.cumsum([sizes[r] for r in fit]) / max(1, len(graph.triples))
    found = [r for r, so_far in zip(fit, share, strict=True) if so_far <= HELD][:PLAYED]
    if not found:
        raise DataError(
            f"no relation of the graph can be played as a new one: that takes one of {LEAST} triples or more that is "
            f"at most {HELD:.0%} of all {len(graph.triples)}. Add triples, or relations of other kinds."
        )
    return found
