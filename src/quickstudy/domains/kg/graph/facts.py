"""What comes to a graph from elsewhere than its documents: triples that are given, proposed or imported, entities that
a model or a catalogue takes for the same. Functions are methods of `GraphStore`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.settle import GIVEN, Edge, clear, judged, regroup, settle

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

_KEPT = 500_000
"""Entities whose numbers `add` keeps at hand, about 100 MB of them."""
Plain = tuple[tuple[str, str], str, tuple[str, str]]
"""A triple: name and type of its head, relation, name and type of its tail."""


class Proposal(NamedTuple):
    """A triple that was inferred."""

    head: Entity
    relation: str
    tail: Entity
    score: float
    why: str = ""
    """What speaks for it, for a reviewer."""


class Same(NamedTuple):
    """That two entities are one, as a model thinks."""

    one: Entity
    other: Entity
    score: float
    why: str = ""


class Link(NamedTuple):
    """That an entity is an entry of the catalogue, as a model thinks."""

    entity: Entity
    id: str
    score: float
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """A thing of a catalogue that the user brings."""

    id: str
    name: str
    type: str = ""
    aliases: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()
    """Ids of entries that are the same thing, in this catalogue or another; cycles are no matter."""


_TEMPORARY = (
    "CREATE TEMP TABLE IF NOT EXISTS newcomers (name TEXT, type INTEGER)",
    "CREATE TEMP TABLE IF NOT EXISTS incoming (head INTEGER, relation INTEGER, tail INTEGER)",
)
_NEW_ENTITIES = "INSERT OR IGNORE INTO entities (name, type) SELECT name, type FROM newcomers"
_NUMBERS = (
    "SELECT n.name, w.word, e.number FROM newcomers n CROSS JOIN entities e ON e.name = n.name AND e.type = n.type "
    "CROSS JOIN words w ON w.number = e.type"
)
_ENDS = (
    "FROM incoming i CROSS JOIN entities h ON h.number = i.head CROSS JOIN entities t ON t.number = i.tail"
)
_GIVEN = f"INSERT OR IGNORE INTO triples VALUES (?, ?, ?, 0, 0, {GIVEN}, {GIVEN}, 1, NULL)"
_NEW_TRIPLES = (
    "INSERT OR IGNORE INTO triples SELECT coalesce(nullif(h.merged_into, 0), h.number) AS a, i.relation AS r, "
    "coalesce(nullif(t.merged_into, 0), t.number) AS b, CASE h.merged_into WHEN 0 THEN 0 ELSE h.number END, "
    f"CASE t.merged_into WHEN 0 THEN 0 ELSE t.number END, {GIVEN}, {GIVEN}, 1, NULL {_ENDS} "
    "ORDER BY a, r, b"
)
# A graph that only holds given triples, as one does that is being imported.
_PLAIN = (
    "SELECT NOT EXISTS (SELECT 1 FROM statements) AND NOT EXISTS (SELECT 1 FROM proposals) "
    "AND NOT EXISTS (SELECT 1 FROM verdicts) AND NOT EXISTS (SELECT 1 FROM entities WHERE merged_into != 0)"
)
# Triples that were there by other support, of merged entities, or judged: their status takes more than an insertion.
_NOT_SIMPLE = (
    f"SELECT DISTINCT h.number, i.relation, t.number {_ENDS} JOIN triples x ON "
    "x.head = coalesce(nullif(h.merged_into, 0), h.number) AND x.relation = i.relation AND "
    "x.tail = coalesce(nullif(t.merged_into, 0), t.number) "
    "WHERE NOT x.given OR x.said_head OR x.said_tail OR EXISTS (SELECT 1 FROM verdicts)"
)


def add(store: "GraphStore", triples: Iterable[Plain], batch: int = 50_000) -> int:
    """Add triples that need no sentence, such as those of an imported graph; `batch` of them in a transaction.

    Triples that are there already count as given from now on. Returns how many came.

    Raises:
        DataError: a triple without a name or a relation.
    """
    came, rest, db = 0, iter(triples), store.db
    numbers: dict[tuple[str, str], int] = {}
    seen = -1
    for table in _TEMPORARY:
        db.execute(table)
    while part := list(islice(rest, batch)):
        with store.writing():
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version != seen or len(numbers) > _KEPT:  # another process may have removed some of them
                numbers, seen = {}, version
            edges = _numbered(store, part, numbers, came)
            if db.execute(_PLAIN).fetchone()[0]:
                db.executemany(_GIVEN, edges)
            else:
                db.executemany("INSERT INTO incoming VALUES (?, ?, ?)", edges)
                db.execute(_NEW_TRIPLES)
                odd = [tuple(row) for row in db.execute(_NOT_SIMPLE)]
                settle(db, odd, given=set(odd))
                db.execute("DELETE FROM incoming")
        came += len(part)
    return came


def _numbered(
    store: "GraphStore", triples: Sequence[Plain], numbers: dict[tuple[str, str], int], before: int
) -> Iterator[Edge]:
    """Triples by the numbers of what they join, which `numbers` keeps, in the order of the table, so that each of its
    pages is written once. New entities are given a number. Columns, as a million rows one by one take long.
    """
    names = [[triple[0] for triple in triples], [triple[2] for triple in triples]]
    ends = [[*map(numbers.get, column)] for column in names]
    if absent := {one for column, found in zip(names, ends, strict=True)
                  for one, number in zip(column, found, strict=True) if number is None}:  # fmt: skip
        if not all(name.strip() for name, _ in absent):
            number = next(i for i, (h, _, t) in enumerate(triples) if not h[0].strip() or not t[0].strip())
            raise DataError(f"triple {before + number}, {triples[number]!r}, lacks a name.")
        _number(store, absent, numbers)
        ends = [
            [numbers[one] if number is None else number for one, number in zip(column, found, strict=True)]
            for column, found in zip(names, ends, strict=True)
        ]
    relations = [triple[1] for triple in triples]
    words = {relation: store.word(relation) for relation in set(relations) if relation.strip()}
    if len(words) < len(set(relations)):
        number = next(i for i, relation in enumerate(relations) if not relation.strip())
        raise DataError(f"triple {before + number}, {triples[number]!r}, lacks a relation.")
    table = np.array([ends[0], [*map(words.__getitem__, relations)], ends[1]], dtype=np.int64)
    return zip(*table[:, np.lexsort(table[::-1])].tolist(), strict=True)


def _number(
    store: "GraphStore", absent: Iterable[tuple[str, str]], numbers: dict[tuple[str, str], int]
) -> None:
    db = store.db
    db.execute("DELETE FROM newcomers")
    rows = sorted((name, store.word(kind)) for name, kind in absent)
    db.executemany("INSERT INTO newcomers VALUES (?, ?)", rows)
    db.execute(_NEW_ENTITIES)
    numbers.update(((name, kind), number) for name, kind, number in db.execute(_NUMBERS))
    db.execute("DELETE FROM newcomers")


def propose(store: "GraphStore", proposals: Iterable[Proposal], model: str) -> None:
    """Write what a model inferred, in place of what it proposed before, but for what a reviewer decided on: that stays.
    Proposals never count as triples of the graph.

    Raises:
        DataError: an entity that the graph doesn't have.
    """
    with store.writing():
        number = store.word(model)
        old = {tuple(row) for row in store.db.execute(
            "SELECT head, relation, tail FROM proposals WHERE model = ?", (number,)
        )}  # fmt: skip
        old = {edge for edge in old if not judged(store.db, edge)}
        store.db.executemany(
            "DELETE FROM proposals WHERE head = ? AND relation = ? AND tail = ? AND model = ?",
            [(*edge, number) for edge in old],
        )
        edges = set()
        for head, relation, tail, score, why in proposals:
            edge = (_there(store, head), store.word(relation), _there(store, tail))
            edges.add(edge)
            store.db.execute(
                "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?, ?, ?)", (*edge, number, score, why)
            )
        settle(store.db, edges | old)
        clear(store.db, {end for head, _, tail in old for end in (head, tail)})


def same(store: "GraphStore", pairs: Iterable[Same], model: str) -> None:
    """Merge the entities that a model takes for the same, in place of what it said before.

    A reviewer's decision that two are not the same stands above any model. Raises DataError for an unknown entity.
    """
    with store.writing():  # from here on numbers stay what they are
        found = [(_there(store, p.one), _there(store, p.other), p.score, p.why) for p in pairs]
        _bind(store, found, model, "one > 0 AND other > 0")


def link(store: "GraphStore", links: Iterable[Link], model: str) -> None:
    """Link entities to entries of the catalogue, in place of what the model said before. Entities that are linked to
    the same entry are merged.

    Raises:
        DataError: an unknown entity or entry.
    """
    found = []
    with store.writing():  # from here on numbers stay what they are
        for entity, id, score, why in links:
            row = store.one("SELECT number FROM catalogue WHERE id = ?", (id,))
            if row is None:
                raise DataError(f"the catalogue has no entry {id!r}.")
            found.append((_there(store, entity), -row[0], score, why))
        _bind(store, found, model, "one > 0 AND other < 0")


def suggest(store: "GraphStore", links: Iterable[Link], model: str) -> None:
    """Keep what entities may be, for reviewers, in place of what other models said. An id of "" says that an entity
    was looked up, and nothing is like it. Raises as `link`.
    """
    with store.writing():
        number, rows = store.word(model), []
        store.db.execute("DELETE FROM suggested WHERE model != ?", (number,))
        for entity, id, score, why in links:
            row = store.one("SELECT number FROM catalogue WHERE id = ?", (id,)) if id else (0,)
            if row is None:
                raise DataError(f"the catalogue has no entry {id!r}.")
            rows.append((_there(store, entity), row[0], number, score, why))
        store.db.executemany("INSERT OR REPLACE INTO suggested VALUES (?, ?, ?, ?, ?)", rows)


def suggested(store: "GraphStore", model: str | None = None) -> list[Link]:
    """What entities may be, as a model thinks: all that it looked up. Without a model, what the last one thinks."""
    which = "" if model is None else " WHERE s.model = ?"
    rows = store.rows(
        "SELECT e.name, w.word, coalesce(c.id, ''), s.score, s.why FROM suggested s JOIN entities e "
        "ON e.number = s.entity JOIN words w ON w.number = e.type LEFT JOIN catalogue c ON c.number = s.entry"
        f"{which} ORDER BY s.score DESC, e.name, w.word",
        () if model is None else (store.known_word(model),),
    )
    return [Link(Entity(name, kind), id, score, why) for name, kind, id, score, why in rows]


def catalogue(store: "GraphStore", entries: Iterable[Entry]) -> int:
    """Add entries to the catalogue; one that is there is replaced. Returns how many came.

    An id under `same_as` that has no entry of its own still joins those that name it.
    """
    came, pairs = 0, []
    ends: set[int] = set()
    with store.writing():
        model = store.word("catalogue")
        for entry in entries:
            if not entry.id.strip():
                raise DataError(f"entry {came} of the catalogue, {entry.name!r}, has no id.")
            number = entry_number(store, entry.id)
            store.db.execute(
                "UPDATE catalogue SET name = ?, type = ? WHERE number = ?", (entry.name, entry.type, number)
            )
            store.db.execute("DELETE FROM aliases WHERE entry = ?", (number,))
            store.db.executemany(
                "INSERT OR IGNORE INTO aliases VALUES (?, ?)",
                [(number, alias) for alias in (entry.name, *entry.aliases)],
            )
            old = "FROM bonds WHERE one = ? AND model = ? AND decision = 0"
            ends |= {-number, *(row[0] for row in store.db.execute(f"SELECT other {old}", (-number, model)))}
            store.db.execute(f"DELETE {old}", (-number, model))
            pairs += [(-number, -entry_number(store, other)) for other in entry.same_as if other != entry.id]
            came += 1
        store.db.executemany(
            "INSERT OR REPLACE INTO bonds VALUES (?, ?, 0, ?, 1, 1.0, 'same as')",
            [(one, other, model) for one, other in pairs],
        )
        regroup(store.db, ends | {end for pair in pairs for end in pair})
    return came


def entry_number(store: "GraphStore", id: str) -> int:
    """The number of an entry, which is made where it isn't there."""
    row = store.db.execute("SELECT number FROM catalogue WHERE id = ?", (id,)).fetchone()
    if row:
        return row[0]
    return store.db.execute("INSERT INTO catalogue (id, name, type) VALUES (?, '', '')", (id,)).lastrowid or 0


def _bind(store: "GraphStore", pairs: list[tuple[int, int, float, str]], model: str, which: str) -> None:
    with store.writing():
        number = store.word(model)
        old = store.db.execute(
            f"SELECT one, other FROM bonds WHERE decision = 0 AND model = ? AND {which}", (number,)
        ).fetchall()
        store.db.execute(f"DELETE FROM bonds WHERE decision = 0 AND model = ? AND {which}", (number,))
        store.db.executemany(
            "INSERT OR REPLACE INTO bonds VALUES (?, ?, 0, ?, 1, ?, ?)",
            [(one, other, number, score, why) for one, other, score, why in pairs if one != other],
        )
        ends = {end for one, other in old for end in (one, other)} | {
            end for pair in pairs for end in pair[:2]
        }
        regroup(store.db, ends)


def _there(store: "GraphStore", entity: tuple[str, str]) -> int:
    """The number of an entity as it was said, whatever it is merged into. Raises DataError."""
    name, kind = entity[0], store.known_word(entity[1])
    row = store.one("SELECT number FROM entities WHERE name = ? AND type = ?", (name, kind))
    if row is None:
        raise DataError(f"the graph has no entity {name!r} of the type {entity[1]!r}.")
    return row[0]
