"""Questions to a graph that join triples: paths between two entities, and patterns with variables.

Functions are methods of `GraphStore`. Both are given up after a time, as anybody may ask what would take for ever.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.graph.query import find, of_one_moment, relation_number, resolve
from quickstudy.domains.kg.graph.records import Entity, Name, Triple

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

Pattern = tuple[Name, str, Name]
"""Head, relation, tail; what begins with '?' is a variable."""


@of_one_moment
def paths(
    store: "GraphStore",
    start: Name,
    end: Name,
    longest: int = 3,
    *,
    directed: bool = False,
    limit: int = 100,
    seconds: float = 30,
) -> list[tuple[Triple, ...]]:
    """Paths of asserted triples from one entity to another, the shortest first, none through an entity twice.

    Args:
        longest: triples in a path, 1 to 6.
        directed: go from head to tail only.

    Raises:
        DataError: no such entity, or it took longer than `seconds`.
    """
    if not 1 <= longest <= 6:
        raise DataError(f"longest is 1 to 6 triples; this is {longest}.")
    values = {"start": resolve(store, start), "end": resolve(store, end), "limit": limit}
    found: list[str] = []
    with _within(store, seconds):
        for length in range(1, longest + 1):
            if len(found) < limit:
                given = values | {"before": length - 1, "limit": limit - len(found)}
                found += [steps for (steps,) in store.rows(_walks(directed), given) if steps not in found]
    return [_path(store, steps) for steps in found]


def _walks(directed: bool) -> str:
    """Walks of `before` steps, and one more to the end. A step is 'head:relation:tail;', seen is ',1,2,'."""
    ways = (("head", "tail"),) if directed else (("head", "tail"), ("tail", "head"))
    step = "x.head || ':' || x.relation || ':' || x.tail || ';'"
    onward = " UNION ALL ".join(
        f"SELECT x.{b}, depth + 1, seen || x.{b} || ',', steps || {step} FROM walk JOIN triples x ON x.{a} = walk.at "
        f"WHERE depth < :before AND x.status >= 3 AND x.{b} != :end AND instr(seen, ',' || x.{b} || ',') = 0"
        for a, b in ways
    )
    last = " UNION ".join(
        f"SELECT steps || {step} FROM walk JOIN triples x ON x.{a} = walk.at AND x.{b} = :end "
        "WHERE depth = :before AND x.status >= 3"
        for a, b in ways
    )
    return (
        "WITH RECURSIVE walk (at, depth, seen, steps) AS "
        f"(SELECT :start, 0, ',' || :start || ',', '' UNION ALL {onward}) "
        f"SELECT * FROM ({last}) LIMIT :limit"
    )


def _path(store: "GraphStore", steps: str) -> tuple[Triple, ...]:
    path = []
    for step in steps.rstrip(";").split(";"):
        head, relation, tail = map(int, step.split(":"))
        made = find(store, head, relation, tail)
        if made is not None:
            path.append(made)
    return tuple(path)


@of_one_moment
def match(
    store: "GraphStore", patterns: Sequence[Pattern], limit: int = 10_000, seconds: float = 30
) -> list[dict[str, Entity | str]]:
    """All ways to fill the variables so that every pattern is an asserted triple.

        store.match([("?who", "works_for", "?firm"), ("?firm", "based_in", "Paris")])

    Args:
        patterns: head, relation, tail; what begins with '?' is a variable. At most 16.
        limit: of answers.

    Returns:
        For each answer, variable (with its '?') -> entity, or, where it stands for a relation, its name.

    Raises:
        DataError: an entity or relation that isn't there, a variable that stands for both, or it took too long.
    """
    if not 1 <= len(patterns) <= 16:
        raise DataError(f"1 to 16 patterns are expected; these are {len(patterns)}.")
    columns: dict[str, tuple[str, bool]] = {}
    conditions, values = [], []
    for number, pattern in enumerate(patterns):
        if len(pattern) != 3:
            raise DataError(f"pattern {number} is {pattern!r}; expected (head, relation, tail).")
        conditions.append(f"t{number}.status >= 3")
        for part, column in zip(pattern, ("head", "relation", "tail"), strict=True):
            place, is_relation = f"t{number}.{column}", column == "relation"
            if not (isinstance(part, str) and part.startswith("?")):
                conditions.append(f"{place} = ?")
                values.append(relation_number(store, str(part)) if is_relation else resolve(store, part))
            elif part not in columns:
                columns[part] = place, is_relation
            elif columns[part][1] != is_relation:
                raise DataError(f"{part} stands for an entity in one place and for a relation in another.")
            else:
                conditions.append(f"{place} = {columns[part][0]}")
    # Cross joins would keep this order of patterns; SQLite chooses a better one by itself.
    tables = ", ".join(f"triples t{number}" for number in range(len(patterns)))
    chosen = ", ".join(f"{place} AS v{i}" for i, (place, _) in enumerate(columns.values())) or "1 AS v0"
    inner = f"SELECT DISTINCT {chosen} FROM {tables} WHERE {' AND '.join(conditions)} LIMIT ?"
    with _within(store, seconds):
        found = store.rows(inner, (*values, limit))
        if not columns or not found:
            return [{} for _ in found]
        cells = [
            store.all_named(numbers) if is_relation else store.entities_of(numbers)
            for numbers, (_, is_relation) in zip(zip(*found, strict=True), columns.values(), strict=True)
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


@contextmanager
def _within(store: "GraphStore", seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    store.db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        yield
    except CheckpointError as error:
        if "interrupted" not in str(error):
            raise
        raise DataError(
            f"no answer within {seconds:g} seconds. Ask for less, or allow more seconds."
        ) from None
    finally:
        store.db.set_progress_handler(None, 0)
