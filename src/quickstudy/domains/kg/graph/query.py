"""Questions to a graph: neighbours, names, triples, and the sentences that a triple rests on.

Functions are methods of `GraphStore`. An entity is asked for by its name, or, where several types have that name, by
`Entity(name, type)`; each name of merged entities finds them all. What isn't asserted (to be reviewed, proposed,
rejected) is only shown where its status is asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.graph.records import Direction, Entity, Found, Name, Said, Slice, Triple
from quickstudy.domains.kg.graph.settle import (
    ASSERTED,
    HOLDS,
    MEMBERS,
    PROPOSED,
    STATUSES,
    canonical,
    entries_of,
    status_name,
)  # fmt: skip
from quickstudy.domains.kg.graph.tables import reading

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore


T = TypeVar("T")
P = ParamSpec("P")
_COLUMNS = "relation, status, max(score), max(own)"
_TRIPLE = partial(tuple.__new__, Triple)
"""A triple of a tuple of its parts, in a third of the time that Triple(*parts) takes."""


def of_one_moment(
    ask: Callable[Concatenate["GraphStore", P], T],
) -> Callable[Concatenate["GraphStore", P], T]:
    """A question whose answer is the graph of one moment, although it takes several steps."""

    @wraps(ask)
    def asked(store: "GraphStore", *args: P.args, **options: P.kwargs) -> T:
        with store.reading():
            return ask(store, *args, **options)

    return asked


@of_one_moment
def neighbours(
    store: "GraphStore",
    entity: Name,
    relation: str | None = None,
    direction: Direction = "both",
    status: Iterable[str] = ASSERTED,
    limit: int = 10_000,
    surest: bool = False,
) -> list[Triple]:
    """Triples of an entity: those that start from it (out), lead to it (in), or both.

    Args:
        limit: so many at most; `degree` says how many there are.
        surest: the surest of them, those first, in place of their order by relation.

    Raises:
        DataError: there is no such entity, relation, direction or status; it says which are close.
    """
    here, values, where = _asked(store, entity, relation, direction, status)
    found: list[Triple] = []
    for outward in (True, False):
        if direction == ("in" if outward else "out"):
            continue
        own, other = ("head", "tail") if outward else ("tail", "head")
        loop = "AND head != tail" if direction == "both" and not outward else ""
        order = "status DESC, coalesce(score, 1) DESC, " if surest else ""
        sql = (
            f"SELECT relation, {other}, status, score, own, said_head | said_tail FROM triples "
            f"WHERE {own} = ? {where} {loop} ORDER BY {order}relation, {other} LIMIT ?"
        )
        rows = store.rows(sql, (*values, limit if surest else max(0, limit - len(found))))
        if surest:
            rows.sort(key=itemgetter(0, 1))
        found += _joined(store, rows, here, outward=outward)
    if surest:
        found.sort(
            key=lambda one: (-STATUSES.index(one.status), -(1.0 if one.score is None else one.score), one[:3])
        )
    return found[:limit]


@of_one_moment
def degree(
    store: "GraphStore",
    entity: Name,
    relation: str | None = None,
    direction: Direction = "both",
    status: Iterable[str] = ASSERTED,
) -> int:
    """How many triples an entity has; arguments and errors are those of `neighbours`."""
    _, values, where = _asked(store, entity, relation, direction, status)
    ways = {"out": ("head",), "in": ("tail",), "both": ("head", "tail")}[direction]
    loop = "AND head != tail" if direction == "both" else ""
    return sum(
        store.rows(
            f"SELECT count(*) FROM (SELECT DISTINCT head, relation, tail FROM triples WHERE {end} = ? {where} "
            f"{loop if end == 'tail' else ''})",
            values,
        )[0][0]
        for end in ways
    )


def _asked(
    store: "GraphStore", entity: Name, relation: str | None, direction: Direction, status: Iterable[str]
) -> tuple[int, tuple[int, ...], str]:
    """The entity, the values of a condition, and what it says of relation and status."""
    if direction not in ("both", "out", "in"):
        raise DataError(f"direction is both, out or in; this is {direction!r}.")
    where, here = f"AND {_status(status)}", resolve(store, entity)
    if relation is None:
        return here, (here,), where
    return here, (here, relation_number(store, relation)), f"AND relation = ? {where}"


def _joined(store: "GraphStore", rows: list[tuple], here: int, *, outward: bool) -> Iterable[Triple]:
    """Rows of an entity as triples, column by column: relation, other end, status, score, own status, and whether an
    end of it was merged.

    Somebody whom everybody knows has a hundred thousand of them, so nothing here runs row by row in Python.
    """
    if not rows:
        return ()
    relations, others, statuses, scores, owns, merged = zip(*rows, strict=True)
    if any(merged):
        relations, others, statuses, scores, owns = zip(*_once(rows), strict=True)
    named = store.entities_of((here, *others))
    center, *ends = named
    cells = [center] * len(ends), store.all_named(relations), ends, each_of(STATUSES, statuses)
    head, relation, tail, status = cells if outward else (ends, cells[1], cells[0], cells[3])
    return map(_TRIPLE, zip(head, relation, tail, status, scores, map(PROPOSED.__eq__, owns), strict=True))


def _once(rows: list[tuple]) -> list[tuple]:
    """Rows of one triple, which merging makes several of and which stand beside one another, as one."""
    one = []
    for (relation, other), group in groupby(rows, key=itemgetter(0, 1)):
        _, _, statuses, scores, owns, _ = zip(*group, strict=True)
        score = max((score for score in scores if score is not None), default=None)
        one.append((relation, other, statuses[0], score, max(owns)))
    return one


@of_one_moment
def search(store: "GraphStore", text: str, limit: int = 20) -> list[Entity]:
    """Entities that have a name with this text in it: first those called so, then those that begin so, then the rest,
    shorter names first. Upper and lower case don't count. Aliases of the catalogue are names too.

    All names are looked through, which needs no index that would have to be kept.
    """
    text = " ".join(text.split())
    if not text:
        return []
    ways = {text, text.lower(), text.upper(), text.title()}  # LIKE knows the case of ASCII letters alone
    part = ["%" + w.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%" for w in sorted(ways)]
    like = " OR ".join([r"{0} LIKE ? ESCAPE '\'"] * len(part))
    sql = (
        f"WITH hit (number, name) AS (SELECT number, name FROM entities WHERE {like.format('name')} UNION ALL "
        f"SELECT CASE WHEN one > 0 THEN one ELSE other END, alias FROM aliases JOIN bonds ON {HOLDS} AND "
        f"(one = -entry AND other > 0 OR other = -entry AND one > 0) WHERE {like.format('alias')}) "
        "SELECT c.name, c.type, min(CASE WHEN lower(hit.name) = ? THEN 0 WHEN lower(substr(hit.name, 1, ?)) = ? THEN 1 "
        "ELSE 2 END) AS place FROM hit JOIN entities e ON e.number = hit.number JOIN entities c ON c.number = "
        "CASE e.merged_into WHEN 0 THEN e.number ELSE e.merged_into END "
        "GROUP BY c.number ORDER BY place, length(c.name), c.name, c.type LIMIT ?"
    )
    low = text.lower()
    return [
        Entity(name, store.named(kind))
        for name, kind, _ in store.rows(sql, (*part, *part, low, len(low), low, limit))
    ]


def entities(store: "GraphStore", status: Iterable[str] = ASSERTED) -> Iterator[Entity]:
    """All entities of triples of these statuses, in the order of their names, as they are read."""
    where = _status(status)
    sql = (
        "SELECT name, type FROM entities JOIN words ON words.number = type WHERE entities.number IN "
        f"(SELECT head FROM triples WHERE {where} UNION SELECT tail FROM triples WHERE {where}) ORDER BY name, word"
    )
    with reading(store.path):
        for name, kind in store.db.execute(sql):
            yield Entity(name, store.named(kind))


@of_one_moment
def triple(store: "GraphStore", head: Name, relation: str, tail: Name) -> Triple | None:
    """A triple of any status; None where the graph doesn't have it. Raises DataError for unknown names."""
    return find(store, resolve(store, head), relation_number(store, relation), resolve(store, tail))


def triples(
    store: "GraphStore", status: Iterable[str] = ASSERTED, relation: str | None = None
) -> Iterator[Triple]:
    """All triples of these statuses, in the order of their names, as they are read: however many there are."""
    only, values = (
        ("", ()) if relation is None else ("AND x.relation = ?", (relation_number(store, relation),))
    )
    sql = (
        "SELECT h.name, h.type, x.relation, t.name, t.type, x.status, max(x.score), max(x.own) FROM triples x "
        "JOIN entities h ON h.number = x.head JOIN entities t ON t.number = x.tail "
        "JOIN words hw ON hw.number = h.type JOIN words tw ON tw.number = t.type JOIN words w ON w.number = x.relation "
        f"WHERE x.{_status(status)} {only} GROUP BY x.head, x.relation, x.tail "
        "ORDER BY h.name, hw.word, w.word, t.name, tw.word"
    )
    with reading(store.path):
        for head, head_type, r, tail, tail_type, *rest in store.db.execute(sql, values):
            ends = Entity(head, store.named(head_type)), Entity(tail, store.named(tail_type))
            yield _made(store, ends[0], r, ends[1], *rest)


@of_one_moment
def said(store: "GraphStore", triple: Triple | tuple[Name, str, Name]) -> list[Said]:
    """The sentences that say a triple, the surest first, with offsets that slice to the exact text.

    Raises:
        DataError: for unknown names. A triple that was given or inferred has no sentence.
    """
    head, relation, tail = triple[:3]
    key = (resolve(store, head), relation_number(store, relation), resolve(store, tail))
    rows = store.rows(
        "SELECT d.number, d.id, d.source, n.start, n.end, hm.start, hm.end, tm.start, tm.end, s.found_relation, "
        "s.score, s.certain, s.verdict, n.model, s.r FROM triples x JOIN statements s ON "
        "s.h = CASE x.said_head WHEN 0 THEN x.head ELSE x.said_head END AND s.r = x.relation AND "
        "s.t = CASE x.said_tail WHEN 0 THEN x.tail ELSE x.said_tail END JOIN sentences n ON n.number = s.sentence "
        "JOIN documents d ON d.number = n.document JOIN mentions hm ON hm.number = s.found_head "
        "JOIN mentions tm ON tm.number = s.found_tail WHERE x.head = ? AND x.relation = ? AND x.tail = ? "
        "ORDER BY s.score DESC, d.id, n.start, hm.start, tm.start",
        key,
    )
    texts: dict[int, str] = {}
    found = []
    for number, id, source, *offsets, found_relation, score, certain, verdict, model, now in rows:
        if number not in texts:
            row = store.one("SELECT text FROM texts WHERE document = ?", (number,))
            texts[number] = row[0] if row else ""
        whole = texts[number]
        sentence, first, second = (
            Slice(a, b, whole[a:b]) for a, b in zip(offsets[::2], offsets[1::2], strict=True)
        )
        judged = {1: "accepted", -1: "rejected"}.get(verdict, "")
        found.append(
            Said(id, source, sentence, first, second, store.named(found_relation), score, bool(certain),
                 judged, store.named(model), store.named(now))  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
    return found


@of_one_moment
def names(store: "GraphStore", entity: Name) -> dict[str, list[str]]:
    """All that an entity is called: 'names' by the documents, 'catalogue' ids, and their 'aliases'."""
    here = resolve(store, entity)
    members = MEMBERS.format("?1")
    called = store.rows(f"SELECT DISTINCT name FROM entities WHERE number IN ({members})", (here,))
    ids, aliases = [], set()
    for entry in entries_of(store.db, here):
        ids += [row[0] for row in store.rows("SELECT id FROM catalogue WHERE number = ?", (entry,))]
        aliases |= {row[0] for row in store.rows("SELECT alias FROM aliases WHERE entry = ?", (entry,))}
    return {"names": sorted(name for (name,) in called), "catalogue": sorted(ids), "aliases": sorted(aliases)}


@of_one_moment
def mentions(store: "GraphStore", document: str) -> list[Found]:
    """What was found in a document, in its order, with the entity that each mention counts for."""
    number, text = store.document_number(document), store.document(document).text
    return [
        Found(start, end, text[start:end], store.named(kind), score, Entity(name, store.named(entity_type)))
        for start, end, kind, score, name, entity_type in store.rows(
            "SELECT m.start, m.end, m.type, m.score, c.name, c.type FROM mentions m "
            "JOIN entities e ON e.number = m.entity "
            "JOIN entities c ON c.number = coalesce(nullif(e.merged_into, 0), e.number) "
            "WHERE m.document = ? ORDER BY m.start, m.end, m.number",
            (number,),
        )
    ]


def waiting(store: "GraphStore") -> int:
    """How many documents wait to be read; takes no time, however large the graph is."""
    return store.rows("SELECT count(*) FROM documents WHERE state = 0")[0][0]


@of_one_moment
def counts(store: "GraphStore") -> dict[str, int]:
    """How many documents (waiting, done, failed), mentions, statements, entities, decisions, and triples a status."""
    found = {f"documents {state}": 0 for state in ("waiting", "done", "failed")}
    for state, number in store.rows(
        "SELECT state, count(*) FROM documents WHERE state IN (0, 1, 2) GROUP BY state"
    ):
        found[f"documents {('waiting', 'done', 'failed')[state]}"] = number
    for table, where in (
        ("mentions", ""),
        ("statements", ""),
        ("entities", " WHERE merged_into = 0"),
        ("decisions", ""),
    ):
        found[table] = store.rows(f"SELECT count(*) FROM {table}{where}")[0][0]
    found |= {f"triples {status}": 0 for status in STATUSES}
    for status, number in store.rows(
        "SELECT status, count(*) FROM (SELECT status FROM triples GROUP BY head, relation, tail) GROUP BY status"
    ):
        found[f"triples {status_name(status)}"] += number
    return found


def resolve(store: "GraphStore", name: Name) -> int:
    """The number of the entity that a name stands for, after merging.

    Raises:
        DataError: none has it, or several of different types.
    """
    given, kind = (name, None) if isinstance(name, str) else (name[0], name[1])
    rows = store.rows("SELECT number, type, merged_into FROM entities WHERE name = ?", (given,))
    if kind is not None:
        rows = [row for row in rows if store.named(row[1]) == kind]
    found = sorted({merged or number for number, _, merged in rows})
    if not found:
        near = [row[0] for row in store.rows(
            "SELECT name FROM entities WHERE name >= ?1 AND name < ?1 || char(1114111) LIMIT 2000", (given[:1],)
        )]  # fmt: skip
        what = f"{given!r}" if kind is None else f"{given!r} of the type {kind!r}"
        raise DataError(f"the graph has no entity {what}.{did_you_mean(given, near)}")
    if len(found) > 1:
        kinds = ", ".join(sorted(store.named(kind) for _, kind, _ in rows))
        raise DataError(f"several entities are called {given!r}: give the type too, one of {kinds}.")
    return found[0]


@of_one_moment
def entity_of(store: "GraphStore", number: int) -> Entity:
    """Name and type of an entity, after merging."""
    number = canonical(store.db, number)
    return store.entities_of((number,))[0]


def find(store: "GraphStore", head: int, relation: int, tail: int) -> Triple | None:
    """A triple by the numbers of what it joins."""
    row = store.one(
        f"SELECT {_COLUMNS} FROM triples WHERE head = ? AND relation = ? AND tail = ? GROUP BY relation",
        (head, relation, tail),
    )
    if row is None:
        return None
    _, status, score, own = row
    return _made(store, entity_of(store, head), relation, entity_of(store, tail), status, score, own)


def _made(
    store: "GraphStore", head: Entity, relation: int, tail: Entity, status: int, score: float | None, own: int
) -> Triple:
    return Triple(head, store.named(relation), tail, status_name(status), score, own == PROPOSED)


def relation_number(store: "GraphStore", relation: str) -> int:
    """The number of a relation. Raises DataError."""
    number = store.known_word(relation)
    if number is None:
        there = [
            store.named(row[0]) for row in store.rows("SELECT DISTINCT relation FROM triples LIMIT 1000")
        ]
        raise DataError(f"the graph has no relation {relation!r}.{did_you_mean(relation, there)}")
    return number


def _status(status: Iterable[str]) -> str:
    asked = (status,) if isinstance(status, str) else tuple(status)
    for one in () if asked == ASSERTED else asked:
        if one not in STATUSES:
            raise DataError(
                f"{one!r} is no status.{did_you_mean(one, STATUSES)} There are: {', '.join(STATUSES)}."
            )
    if asked == ASSERTED:
        return f"status BETWEEN {STATUSES.index(ASSERTED[0])} AND {STATUSES.index(ASSERTED[-1])}"
    return f"status IN ({', '.join(str(STATUSES.index(one)) for one in asked)})"


def each_of(table: Mapping[int, T] | Sequence[T], keys: Sequence[int]) -> tuple[T, ...]:
    """What a table has for each key, in one step of C. Raises KeyError or IndexError."""
    return itemgetter(*keys)(table) if len(keys) > 1 else tuple(table[key] for key in keys)
