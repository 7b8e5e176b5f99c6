"""The graph as relation inference reads it: numbered triples, walked from either end, and what ends have in common.

Relation r of n is r + n when walked from its tail to its head. A slot is a relation walked from one side, so an
entity's slots say what it takes part in: types that need no schema.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from quickstudy.core.errors import DataError, did_you_mean

Numbers = np.ndarray
"""int64, one dimension."""
Plain = tuple[str, str, str]
"""Head, relation, tail, by name."""
NO_TYPES: Mapping[str, Sequence[str]] = MappingProxyType({})
BETWEEN = "\x1f"
"""Between name and type of an entity that is called by both, as names alone may be those of several: no text that was
read holds it."""


@dataclass(frozen=True)
class Traits:
    """What entities have, as weighted marks: types, or slots. Mark i: entity `row[i]` has trait `column[i]`."""

    row: Numbers
    column: Numbers
    weight: np.ndarray
    """How much a mark says: rare traits more than frequent ones."""
    entities: int
    traits: int

    @classmethod
    def of(cls, row: Numbers, column: Numbers, entities: int, traits: int) -> "Traits":
        """Marks weighed by the logarithm of how few entities share a trait."""
        held = np.bincount(column, minlength=traits)
        rare = np.log((1 + entities) / (1 + held)) + 0.1
        return cls(row, column, rare[column], entities, traits)

    def without(self, columns: Sequence[int]) -> "Traits":
        """The same but for some traits."""
        keep = ~np.isin(self.column, columns)
        return Traits(self.row[keep], self.column[keep], self.weight[keep], self.entities, self.traits)

    @cached_property
    def _unit(self) -> np.ndarray:
        """The weights of each entity's marks, brought to length 1."""
        length = np.sqrt(np.bincount(self.row, self.weight**2, self.entities))
        return self.weight / np.maximum(length[self.row], 1e-9)

    def profile(self, entities: Numbers) -> np.ndarray:
        """What these entities have, their mean [traits]."""
        times = np.bincount(entities, minlength=self.entities)[self.row]
        return np.bincount(self.column, self._unit * times, self.traits) / max(1, len(entities))

    def likeness(self, profile: np.ndarray) -> np.ndarray:
        """The cosine of each entity with a profile, [entities]; 0 for one without traits."""
        length = max(float(np.sqrt((profile**2).sum())), 1e-9)
        return np.bincount(self.row, self._unit * profile[self.column], self.entities) / length

    def sharing(self, entities: Numbers) -> np.ndarray:
        """1 for each entity that has a trait of one of these, [entities]."""
        theirs = np.zeros(self.traits, dtype=bool)
        theirs[self.column[np.isin(self.row, entities)]] = True
        found = np.zeros(self.entities)
        found[self.row[theirs[self.column]]] = 1.0
        return found


@dataclass(frozen=True)
class Graph:
    """Triples by number, each once."""

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: np.ndarray
    """[n, 3]: head, relation, tail."""
    kinds: Traits | None = None
    """The entities' types; None where nobody gave any."""
    types: tuple[str, ...] = ()
    """Their names."""

    @classmethod
    def of(cls, triples: Iterable[Plain], types: Mapping[str, Sequence[str]] = NO_TYPES) -> "Graph":
        """A graph of triples by name.

        Args:
            types: of each entity, where known.

        Raises:
            DataError: no triple, or one that isn't three names.
        """
        found = list(dict.fromkeys(_checked(number, triple) for number, triple in enumerate(triples)))
        if not found:
            raise DataError("a graph of no triples has nothing to infer from; give some.")
        entities = tuple(sorted({name for head, _, tail in found for name in (head, tail)}))
        relations = tuple(sorted({relation for _, relation, _ in found}))
        place, number = _numbered(entities), _numbered(relations)
        rows = np.array([(place[h], number[r], place[t]) for h, r, t in found], dtype=np.int64)
        return cls(entities, relations, rows, *_kinds(entities, types))

    @cached_property
    def place(self) -> dict[str, int]:
        """The number of each entity."""
        return _numbered(self.entities)

    @cached_property
    def _edges(self) -> tuple[np.ndarray, Numbers]:
        """(start * slots + slot, end) of every triple in both directions, sorted."""
        head, relation, tail = self.triples.T
        key = np.concatenate(
            [head * self.slots + relation, tail * self.slots + relation + len(self.relations)]
        )
        end = np.concatenate([tail, head])
        order = np.lexsort((end, key))
        return key[order], end[order]

    @property
    def slots(self) -> int:
        """Relations in both directions."""
        return 2 * len(self.relations)

    @cached_property
    def degree(self) -> Numbers:
        """Triples of each entity."""
        return np.bincount(self.triples[:, [0, 2]].ravel(), minlength=len(self.entities))

    @cached_property
    def sizes(self) -> Numbers:
        """Edges of each slot."""
        return np.bincount(self._edges[0] % self.slots, minlength=self.slots)

    @cached_property
    def seats(self) -> Traits:
        """Which slots an entity takes part in, seen from it."""
        entity, slot, _ = self.seated
        return Traits.of(entity, slot, len(self.entities), self.slots)

    @cached_property
    def seated(self) -> tuple[Numbers, Numbers, Numbers]:
        """(entity, slot, how often) of every slot that an entity takes part in."""
        key, times = np.unique(self._edges[0], return_counts=True)
        return key // self.slots, key % self.slots, times

    def number(self, name: str) -> int:
        """An entity's number. Raises DataError, saying which name is close."""
        if name not in self.place:
            meant = did_you_mean(shown(name), map(shown, self.entities))
            raise DataError(f"the graph has no entity {shown(name)!r}.{meant}")
        return self.place[name]

    def relation(self, name: str) -> int:
        """A relation's number. Raises DataError, saying which name is close."""
        if name not in self.relations:
            raise DataError(f"the graph has no relation {name!r}.{did_you_mean(name, self.relations)}")
        return self.relations.index(name)

    def slot_name(self, slot: int) -> str:
        """A relation's name, with a mark where it is walked from its tail."""
        half = len(self.relations)
        return self.relations[slot] if slot < half else f"{self.relations[slot - half]}⁻¹"

    def types_of(self, entity: int) -> list[str]:
        """The names of an entity's types."""
        return (
            [] if self.kinds is None else [self.types[i] for i in self.kinds.column[self.kinds.row == entity]]
        )

    def of_types(self, names: Sequence[str]) -> np.ndarray:
        """Which entities have one of these types, or none that is known: [entities], bool.

        Raises:
            DataError: no entity has any of them.
        """
        found = np.ones(len(self.entities), dtype=bool)
        if self.kinds is None:
            return found
        there = [self.types.index(name) for name in names if name in self.types]
        if names and not there:
            meant = [told for name in names if (told := did_you_mean(name, self.types))]
            raise DataError(
                f"no entity of the graph is a {' or '.join(map(repr, names))}.{''.join(meant[:1])}"
            )
        right = np.isin(self.kinds.column, there)
        found[self.kinds.row] = False
        found[self.kinds.row[right]] = True
        return found

    def back(self, slot: Numbers) -> Numbers:
        """The same relations, walked from the other end."""
        half = len(self.relations)
        return np.where(slot < half, slot + half, slot - half)

    def around(self, entity: int) -> tuple[Numbers, Numbers]:
        """(slot, end) of all edges from an entity."""
        key, end = self._edges
        first, last = np.searchsorted(key, [entity * self.slots, (entity + 1) * self.slots])
        return key[first:last] % self.slots, end[first:last]

    def span(self, start: Numbers, slot: Numbers) -> tuple[Numbers, Numbers]:
        """Where the ends of these walks' edges begin, and how many there are."""
        key = start * self.slots + slot
        first = np.searchsorted(self._edges[0], key)
        return first, np.searchsorted(self._edges[0], key, side="right") - first

    def follow(self, start: Numbers, slot: Numbers, most: int) -> tuple[Numbers, Numbers, np.ndarray]:
        """All ends of walks over one edge, each choosing evenly among its edges.

        Args:
            most: walks with more edges to choose from are left out: they say next to nothing.

        Returns:
            (which walk, end, the chance of that edge), one row an end.
        """
        first, many = self.span(start, slot)
        many = np.where(many > most, 0, many)
        walk = np.repeat(np.arange(len(many)), many)
        offset = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        return walk, self._edges[1][first[walk] + offset], 1.0 / many[walk]

    def without(self, relations: Sequence[int]) -> "Graph":
        """The same entities and relations but for the triples of some relations."""
        keep = ~np.isin(self.triples[:, 1], relations)
        return Graph(self.entities, self.relations, self.triples[keep], self.kinds, self.types)


def shown(entity: str) -> str:
    """What an entity is called, as a person reads it: with its type in brackets where that is part of it."""
    name, _, kind = entity.partition(BETWEEN)
    return f"{name} ({kind})" if kind else name


def _checked(number: int, triple: Plain) -> Plain:
    if (
        not isinstance(triple, tuple | list)
        or len(triple) != 3
        or not all(isinstance(p, str) and p.strip() for p in triple)
    ):
        raise DataError(
            f"triple {number} is {str(triple)[:80]!r}; expected three names: head, relation, tail."
        )
    return triple[0], triple[1], triple[2]


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _kinds(
    entities: Sequence[str], types: Mapping[str, Sequence[str]]
) -> tuple[Traits | None, tuple[str, ...]]:
    marks = [
        (i, kind) for i, name in enumerate(entities) for kind in dict.fromkeys(types.get(name, ())) if kind
    ]
    if not marks:
        return None, ()
    names = tuple(sorted({kind for _, kind in marks}))
    number = _numbered(names)
    row, column = np.array([(i, number[kind]) for i, kind in marks], dtype=np.int64).T
    return Traits.of(row, column, len(entities), len(names)), names
