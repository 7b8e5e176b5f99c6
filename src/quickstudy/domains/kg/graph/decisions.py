"""What reviewers decide: a log that is only ever added to, and from which the graph can be made again.

    store.accept(triple, by="ann")              or a sentence of it: store.accept(store.said(triple)[0], by="ann")
    store.correct(said, relation="based_in")    the sentence says another relation, or the other way round
    store.merge(Entity("US", "place"), Entity("United States", "place"))
    store.split(...)                            the opposite: of two entities, or of mentions from an entity
    store.identify(Entity("US", "place"), "Q30")    it is that entry of the catalogue; store.deny(...): it isn't
    store.undo()                                the last decision, or one by its number; undoing can be undone

A decision names entities, or a document with the words, their offsets and what stands around them. So it also holds for
what a new extraction finds, and for a text that changed elsewhere. Functions are methods of `GraphStore`.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.graph.facts import entry_number
from quickstudy.domains.kg.graph.query import resolve, triple
from quickstudy.domains.kg.graph.records import Entity, Found, Said, Slice, Triple
from quickstudy.domains.kg.graph.replay import apply, around, sound, undone
from quickstudy.domains.kg.graph.settle import Edge, canonical, clear, regroup, restate, settle

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore


class Decision(NamedTuple):
    """A line of the log."""

    number: int
    at: str
    """Date and time, UTC."""
    who: str
    kind: str
    """accept, reject, correct, merge, split, identify, deny, undo; mention, name, pair or whole (`labels`)."""
    body: dict[str, Any]
    note: str
    undone: bool


def accept(store: "GraphStore", what: Triple | Said, *, by: str = "", note: str = "") -> int:
    """Accept a triple, or that a sentence says it. Returns the decision's number.

    Raises:
        DataError: the graph doesn't have it.
    """
    return _judge(store, "accept", what, by, note)


def reject(store: "GraphStore", what: Triple | Said, *, by: str = "", note: str = "") -> int:
    """Reject a triple, or that a sentence says it: other sentences may still. Returns the decision's number."""
    return _judge(store, "reject", what, by, note)


def correct(
    store: "GraphStore", what: Said, *, relation: str | None = None, turned: bool = False, by: str = "", note: str = ""
) -> int:  # fmt: skip
    """Say that a sentence says another relation between its two mentions, or the same from tail to head (`turned`).

    Returns the decision's number.

    Raises:
        DataError: nothing is to be corrected, or the graph doesn't have that sentence.
    """
    if not isinstance(what, Said):
        raise DataError("a sentence is corrected, not a triple: give one of store.said(triple).")
    says = what.now or what.relation
    if not turned and relation in (None, says):
        raise DataError(
            "nothing to correct: it says this relation already. Give another one, or turn it round."
        )
    change = {"relation": relation or says, "turned": turned}
    return decide(store, "correct", _reference(store, what) | change, by, note, [what.document])


def merge(store: "GraphStore", one: Entity, into: Entity, *, by: str = "", note: str = "") -> int:
    """Say that two entities are the same; the second's name stays, and may be a new one.

    Returns the decision's number. Raises DataError for a first one that isn't there.
    """
    resolve(store, one)
    return _bond(store, "merge", one, into, by, note)


def split(
    store: "GraphStore", what: Entity | Sequence[tuple[str, Found]], into: Entity, *, by: str = "", note: str = ""
) -> int:  # fmt: skip
    """Say that two entities are not the same; or that mentions, given as (document, mention), name another one.

    Returns the decision's number.

    Raises:
        DataError: no mention was given, or one isn't there.
    """
    if isinstance(what, Entity):
        resolve(store, what)
        resolve(store, into)
        return _bond(store, "split", what, into, by, note)
    if not what:
        raise DataError("no mention was given to split.")
    moved = [{"document": document, "mention": known_by(store, document, found)} for document, found in what]
    body = {"mentions": moved, "into": [*into]}
    return decide(store, "split", body, by, note, [document for document, _ in what])


def identify(store: "GraphStore", what: Entity, id: str, *, by: str = "", note: str = "") -> int:
    """Say that an entity is an entry of the catalogue. Entities that are the same entry are one.

    Returns the decision's number. Raises DataError for an entity or an entry that isn't there.
    """
    return _identity(store, "identify", what, id, by, note)


def deny(store: "GraphStore", what: Entity, id: str, *, by: str = "", note: str = "") -> int:
    """Say that an entity is not that entry of the catalogue, whatever a model says. As `identify`."""
    return _identity(store, "deny", what, id, by, note)


def undo(store: "GraphStore", number: int | None = None, *, by: str = "", note: str = "") -> int:
    """Undo a decision; the last one that stands, without a number. Returns the number of this decision.

    Raises:
        DataError: there is none, or it is undone already.
    """
    taken_back = undone(store)
    if number is None:
        row = store.rows("SELECT number FROM decisions WHERE kind != 'undo' ORDER BY number DESC")
        number = next((n for (n,) in row if n not in taken_back), None)
        if number is None:
            raise DataError("no decision is left to undo.")
    elif store.one("SELECT 1 FROM decisions WHERE number = ?", (number,)) is None:
        raise DataError(f"there is no decision {number}.")
    elif number in taken_back:
        raise DataError(f"decision {number} is undone already. To bring it back, undo that undoing.")
    return decide(store, "undo", {"decision": number}, by, note, [])


def log(store: "GraphStore") -> list[Decision]:
    """All decisions, the oldest first."""
    taken_back = undone(store)
    return [
        Decision(number, at, who, kind, json.loads(body), note, number in taken_back)
        for number, at, who, kind, body, note in store.rows(
            "SELECT number, at, who, kind, body, note FROM decisions ORDER BY number"
        )
    ]


def rebuild(store: "GraphStore") -> None:
    """Make the graph again from what was extracted and given, and replay all decisions that stand."""
    with store.writing():
        db = store.db
        db.execute("DELETE FROM bonds WHERE decision != 0")
        db.execute("DELETE FROM verdicts")
        edges: set[Edge] = set()
        for (document,) in db.execute("SELECT number FROM documents").fetchall():
            edges |= apply(store, document)
        for decision in log(store):
            if not decision.undone:
                _effect(store, decision.number)
        regroup(db, {row[0] for row in db.execute("SELECT one FROM bonds UNION SELECT other FROM bonds")})
        edges |= {tuple(row) for row in db.execute(
            "SELECT coalesce(nullif(said_head, 0), head), relation, coalesce(nullif(said_tail, 0), tail) FROM triples"
        )} | {tuple(row) for row in db.execute("SELECT head, relation, tail FROM proposals")}  # fmt: skip
        settle(db, edges)
        clear(db, [row[0] for row in db.execute("SELECT number FROM entities")])


def known_by(store: "GraphStore", document: str, found: Found | Slice) -> dict[str, Any]:
    """By what a mention is known again. Raises DataError where the document doesn't say so."""
    text = store.document(document).text
    if text[found.start : found.end] != found.text:
        raise DataError(
            f"document {document!r} doesn't say {found.text!r} at {found.start}: has it changed meanwhile?"
        )
    kind = {"type": found.type} if isinstance(found, Found) else {}
    return {"start": found.start, "text": found.text, "around": around(text, found.start, found.end)} | kind


def _reference(store: "GraphStore", said: Said) -> dict[str, Any]:
    head, tail = (known_by(store, said.document, end) for end in (said.head, said.tail))
    return {"document": said.document, "head": head, "tail": tail, "found": said.relation}


def _judge(store: "GraphStore", kind: str, what: Triple | Said, by: str, note: str) -> int:
    if isinstance(what, Said):
        return decide(store, kind, _reference(store, what), by, note, [what.document])
    head, relation, tail = what[:3]
    found = triple(store, head, relation, tail)
    if found is None:
        raise DataError(f"the graph has no triple {head[0]!r} {relation} {tail[0]!r}.")
    body = {"head": [*found.head], "relation": relation, "tail": [*found.tail]}
    return decide(store, kind, body, by, note, [])


def _bond(store: "GraphStore", kind: str, one: Entity, other: Entity, by: str, note: str) -> int:
    if tuple(one) == tuple(other):
        raise DataError(f"{one[0]!r} can't be {'merged with' if kind == 'merge' else 'split from'} itself.")
    return decide(store, kind, {"one": [*one], "other": [*other]}, by, note, [])


def _identity(store: "GraphStore", kind: str, what: Entity, id: str, by: str, note: str) -> int:
    resolve(store, what)
    if store.one("SELECT 1 FROM catalogue WHERE id = ?", (id,)) is None:
        ids = [row[0] for row in store.rows("SELECT id FROM catalogue LIMIT 10000")]
        advice = did_you_mean(id, ids) if ids else " Entries come with `kg extract --catalogue FILE`."
        raise DataError(f"the graph's catalogue has no entry {id!r}.{advice}")
    return decide(store, kind, {"entity": [*what], "entry": id}, by, note, [])


def decide(store: "GraphStore", kind: str, body: dict, by: str, note: str, documents: list[str]) -> int:
    """Add to the log and bring about what it says, both or neither.

    Args:
        documents: those whose statements and mentions it changes.
    """
    with store.writing():
        number = store.db.execute(
            "INSERT INTO decisions (at, who, kind, body, note) VALUES (?, ?, ?, ?, ?)",
            (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), by, kind, json.dumps(body, ensure_ascii=False), note),
        ).lastrowid or 0  # fmt: skip
        store.db.executemany(
            "INSERT OR IGNORE INTO decision_documents VALUES (?, ?)",
            [(document, number) for document in documents],
        )
        base = number
        while True:  # the decision that this one undoes, perhaps by undoing its undoing
            row = store.db.execute("SELECT kind, body FROM decisions WHERE number = ?", (base,)).fetchone()
            if row[0] != "undo":
                break
            base = json.loads(row[1])["decision"]
        _effect(store, base)
        for (document,) in store.db.execute(
            "SELECT n.number FROM decision_documents d JOIN documents n ON n.id = d.document WHERE decision = ?",
            (base,),
        ).fetchall():
            before = {row[0] for row in store.db.execute(
                "SELECT entity FROM mentions WHERE document = ?", (document,)
            )}  # fmt: skip
            settle(store.db, apply(store, document))
            clear(store.db, before)
    return number


def _effect(store: "GraphStore", number: int) -> None:
    """Make bonds and verdicts be as a decision says, or as without it, where it is undone."""
    kind, text = store.db.execute("SELECT kind, body FROM decisions WHERE number = ?", (number,)).fetchone()
    stands = number not in undone(store)
    with sound(store, number):
        body = json.loads(text)
        _bring_about(store, number, kind, body, stands)


def _bring_about(store: "GraphStore", number: int, kind: str, body: dict, stands: bool) -> None:
    db = store.db
    if "one" in body:
        one, other = store.entity(*body["one"]), store.entity(*body["other"])
        db.execute("DELETE FROM bonds WHERE one = ? AND other = ? AND decision = ?", (one, other, number))
        if stands:
            db.execute(
                "INSERT INTO bonds VALUES (?, ?, ?, 0, ?, 1.0, '')", (one, other, number, kind == "merge")
            )
        regroup(db, [one, other])
        clear(db, [] if stands else [one, other])
    elif kind in ("identify", "deny"):
        one, other = store.entity(*body["entity"]), -entry_number(store, body["entry"])
        db.execute("DELETE FROM bonds WHERE one = ? AND other = ? AND decision = ?", (one, other, number))
        if stands:
            db.execute(
                "INSERT INTO bonds VALUES (?, ?, ?, 0, ?, 1.0, '')", (one, other, number, kind == "identify")
            )
        regroup(db, [one, other])
        clear(db, [] if stands else [one])
    elif kind in ("accept", "reject") and "document" not in body:
        edge = (store.entity(*body["head"]), store.word(body["relation"]), store.entity(*body["tail"]))
        db.execute(
            "DELETE FROM verdicts WHERE head = ? AND relation = ? AND tail = ? AND decision = ?",
            (*edge, number),
        )
        if stands:
            db.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", (*edge, number, kind == "accept"))
        restate(db, (canonical(db, edge[0]), edge[1], canonical(db, edge[2])))
        clear(db, [] if stands else [edge[0], edge[2]])
