"""Which names of a graph are one thing, and what people decided: plain arguments and results, as in `kg_graph`."""

import re
import warnings

from quickstudy.app.kg_graph import Graph, center, entity, opened
from quickstudy.app.kg_results import Merge
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.decisions import Decision
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore


def merges(store: Graph, name: str) -> list[Merge]:
    """Why the names of an entity are one: what models said, and what reviewers decided, with reasons."""
    with opened(store) as graph:
        here = center(graph, entity(graph, name))
        rows = graph.rows(
            "WITH RECURSIVE near (number) AS (SELECT e.number FROM entities e JOIN words w ON w.number = e.type "
            "WHERE e.name = ? AND w.word = ? UNION SELECT e.number FROM near JOIN entities e ON e.merged_into = "
            "near.number) SELECT one, other, together, decision, score, why FROM bonds "
            "WHERE one IN near OR other IN near ORDER BY decision DESC, score DESC",
            (here.name, here.type),
        )
        return [
            Merge(_member(graph, one), _member(graph, other), bool(together), decision or None, score, why)
            for one, other, together, decision, score, why in rows
        ]


def _member(graph: GraphStore, number: int) -> str:
    """An entity's or, where the number is negative, a catalogue entry's name."""
    table, key = ("catalogue", "id") if number < 0 else ("entities", "name")
    row = graph.one(f"SELECT {key} FROM {table} WHERE number = ?", (abs(number),))
    return row[0] if row else str(number)


def merge(store: Graph, one: str, into: str, *, by: str = "", note: str = "") -> int:
    """Decide that two entities are one, under the second's name. Returns the decision's number."""
    with opened(store) as graph:
        ends = _said_as(graph, one), _said_as(graph, into)
        number = graph.merge(*ends, by=by, note=note)
    if ends[0].type != ends[1].type:
        warnings.warn(
            f"{ends[0].name!r} was a {ends[0].type} and {ends[1].name!r} is a {ends[1].type}: all that was said of "
            f"either is said of a {ends[1].type} now.",
            UserWarning, stacklevel=2,
        )  # fmt: skip
    return number


def split(
    store: Graph, one: str, other: str, *, document: str | None = None, by: str = "", note: str = ""
) -> int:
    """Decide that two names are not the same thing, whatever a model says. Returns the decision's number.

    Args:
        document: then that what this document says of the one is said of the other, which may be a new name; it is of
            the one's type, or of that in brackets after it.

    Raises:
        DataError: no such entity, or the document doesn't mention it.
    """
    with opened(store) as graph:
        if document is None:
            return graph.split(_said_as(graph, one), _said_as(graph, other), by=by, note=note)
        here = center(graph, entity(graph, one))
        found = [(document, mention) for mention in graph.mentions(document) if mention.entity == here]
        if not found:
            raise DataError(f"{document!r} has no mention of {here.name!r}.")
        kinds = {graph.named(number) for (number,) in graph.rows("SELECT DISTINCT type FROM entities")}
        typed = re.fullmatch(r"(.+) \((.+)\)", other)
        into = Entity(typed[1], typed[2]) if typed and typed[2] in kinds else Entity(other, here.type)
        return graph.split(found, into, by=by, note=note)


def link(store: Graph, name: str, id: str, *, apart: bool = False, by: str = "", note: str = "") -> int:
    """Decide that an entity is an entry of the catalogue, or (`apart`) that it isn't. Returns the decision's number."""
    with opened(store) as graph:
        here = _said_as(graph, name)
        number = (graph.deny if apart else graph.identify)(here, id, by=by, note=note)
        # A catalogue with words of its own for types says nothing of the graph's.
        other = graph.one(
            "SELECT type FROM catalogue WHERE id = ? AND type IN (SELECT word FROM words WHERE number IN "
            "(SELECT type FROM entities))", (id,),
        )  # fmt: skip
    if not apart and other and other[0] != here.type:
        warnings.warn(
            f"{here.name!r} is a {here.type}, and the catalogue has {id!r} as a {other[0]}.",
            UserWarning,
            stacklevel=2,
        )
    return number


def _said_as(graph: GraphStore, words: str) -> Entity:
    """An entity as it is said, not as what it is merged into."""
    here = entity(graph, words)
    if not isinstance(here, str):
        return Entity(*here)
    rows = graph.rows(
        "SELECT w.word FROM entities e JOIN words w ON w.number = e.type WHERE e.name = ? ORDER BY e.merged_into",
        (here,),
    )
    return Entity(here, rows[0][0]) if rows else center(graph, here)


def undo(store: Graph, number: int | None = None, *, by: str = "", note: str = "") -> int:
    """Take back a decision; without a number, the last that stands. Returns the number of this one."""
    with opened(store) as graph:
        return graph.undo(number, by=by, note=note)


def decisions(store: Graph) -> list[Decision]:
    """All that reviewers decided, the oldest first."""
    with opened(store) as graph:
        return graph.log()
