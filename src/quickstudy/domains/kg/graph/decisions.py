"""What reviewers decide: a log that is only ever added to, and from which the graph can be made again.

    store.accept(triple, by="ann")              or a sentence of it: store.accept(store.said(triple)[0], by="ann")
    store.correct(said, relation="based_in")    the sentence says another relation, or the other way round
    store.merge(Entity("US", "place"), Entity("United States", "place"))
    store.split(...)                            the opposite: of two entities, or of mentions from an entity
    store.undo()                                the last decision, or one by its number; undoing can be undone

A decision names entities, or a document with the words, their offsets and what stands around them. So it also holds for
what a new extraction finds, and for a text that changed elsewhere. Functions are methods of `GraphStore`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from quickstudy.core.errors import CheckpointError, DataError, QuickstudyError
from quickstudy.domains.kg.graph.query import resolve, triple
from quickstudy.domains.kg.graph.records import Entity, Found, Said, Slice, Triple
from quickstudy.domains.kg.graph.settle import Edge, canonical, clear, regroup, restate, settle

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

AROUND = 30
"""Characters before and after a mention by which it is known again when its offsets have changed."""
ENOUGH = 10
"""Of these, how many on one side are enough where the other side has changed."""


class Decision(NamedTuple):
    """A line of the log."""

    number: int
    at: str
    """Date and time, UTC."""
    who: str
    kind: str
    """accept, reject, correct, merge, split, undo; mention, pair or whole (`labels`)."""
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
    if not turned and relation in (None, what.relation):
        raise DataError(
            "nothing to correct: it says this relation already. Give another one, or turn it round."
        )
    change = {"relation": relation or what.relation, "turned": turned}
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


def undo(store: "GraphStore", number: int | None = None, *, by: str = "", note: str = "") -> int:
    """Undo a decision; the last one that stands, without a number. Returns the number of this decision.

    Raises:
        DataError: there is none, or it is undone already.
    """
    undone = _undone(store)
    if number is None:
        row = store.rows("SELECT number FROM decisions WHERE kind != 'undo' ORDER BY number DESC")
        number = next((n for (n,) in row if n not in undone), None)
        if number is None:
            raise DataError("no decision is left to undo.")
    elif store.one("SELECT 1 FROM decisions WHERE number = ?", (number,)) is None:
        raise DataError(f"there is no decision {number}.")
    elif number in undone:
        raise DataError(f"decision {number} is undone already. To bring it back, undo that undoing.")
    return decide(store, "undo", {"decision": number}, by, note, [])


def log(store: "GraphStore") -> list[Decision]:
    """All decisions, the oldest first."""
    undone = _undone(store)
    return [
        Decision(number, at, who, kind, json.loads(body), note, number in undone)
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


def apply(store: "GraphStore", document: int) -> set[Edge]:
    """Replay the decisions on what was found in a document. Returns the triples whose support may have changed."""
    db = store.db
    statements = "SELECT s.number, h, r, t FROM statements s JOIN sentences n ON n.number = sentence WHERE document = ?"
    edges = {tuple(row[1:]) for row in db.execute(statements, (document,))}
    db.execute("UPDATE mentions SET entity = found WHERE document = ? AND entity != found", (document,))
    of_it = "WHERE sentence IN (SELECT number FROM sentences WHERE document = ?)"
    db.execute(f"UPDATE statements SET verdict = 0, r = found_relation {of_it}", (document,))
    turned: set[int] = set()
    moved: dict[int, tuple[str, str]] = {}
    decided = db.execute(
        "SELECT d.number, kind, body FROM documents n JOIN decision_documents c ON c.document = n.id "
        "JOIN decisions d ON d.number = c.decision WHERE n.number = ? ORDER BY d.number",
        (document,),
    ).fetchall()
    if decided:
        undone = _undone(store)
        id, text = db.execute(
            "SELECT id, text FROM documents JOIN texts ON document = number WHERE number = ?", (document,)
        ).fetchone()
        for number, kind, body in decided:
            if number not in undone:
                with _sound(store, number):
                    _replay(store, document, id, text, kind, json.loads(body), turned, moved)
    for mention, entity in moved.items():  # the last decision on each: no other entity is made on the way
        db.execute("UPDATE mentions SET entity = ? WHERE number = ?", (store.entity(*entity), mention))
    entity = "(SELECT entity FROM mentions WHERE mentions.number = {})"
    ends = entity.format("found_head"), entity.format("found_tail")
    db.execute(f"UPDATE statements SET h = {ends[0]}, t = {ends[1]} {of_it}", (document,))
    db.executemany("UPDATE statements SET h = t, t = h WHERE number = ?", [(number,) for number in turned])
    return edges | {tuple(row[1:]) for row in db.execute(statements, (document,))}


def _replay(
    store: "GraphStore",
    document: int,
    id: str,
    text: str,
    kind: str,
    body: dict,
    turned: set[int],
    moved: dict[int, tuple[str, str]],
) -> None:
    """Do what a decision says about a document: to its statements at once, to `turned` and `moved` for the caller."""
    db = store.db
    if kind == "split":
        for part in body["mentions"]:
            if part["document"] == id:
                name, type = body["into"]
                moved |= dict.fromkeys(_known_again(store, document, text, part["mention"]), (name, type))
        return
    if kind == "mention":
        again, to = _known_again(store, document, text, body["mention"]), body["to"]
        if to is not None:
            moved |= dict.fromkeys(again, (" ".join(to["text"].split()), to["type"]))
            return
        of_it = "sentence IN (SELECT number FROM sentences WHERE document = ?)"
        for end in ("found_head", "found_tail"):
            db.executemany(
                f"UPDATE statements SET verdict = -1 WHERE {end} = ? AND {of_it}",
                [(number, document) for number in again],
            )
        return
    heads, tails = (set(_known_again(store, document, text, body[end])) for end in ("head", "tail"))
    found = store.known_word(body["found"])
    for head in heads:
        for number, tail in db.execute(
            "SELECT number, found_tail FROM statements WHERE found_relation = ? AND found_head = ? AND sentence IN "
            "(SELECT number FROM sentences WHERE document = ?)", (found, head, document),
        ).fetchall():  # fmt: skip
            if tail in tails:
                verdict = -1 if kind == "reject" else 1
                db.execute("UPDATE statements SET verdict = ? WHERE number = ?", (verdict, number))
                if kind == "correct":
                    db.execute(
                        "UPDATE statements SET r = ? WHERE number = ?", (store.word(body["relation"]), number)
                    )
                    (turned.add if body["turned"] else turned.discard)(number)


def _known_again(store: "GraphStore", document: int, text: str, mention: dict) -> list[int]:
    """Numbers of the mentions that a decision speaks of: the same words with the same text around them, at the same
    place if there is one; or at least with the same text on one side, as what stands near may have changed.
    """
    start, words, around = mention["start"], mention["text"], mention["around"]
    found = store.db.execute(
        "SELECT number, start, end FROM mentions WHERE document = ? AND end - start = ?",
        (document, len(words)),
    ).fetchall()
    same = [(number, a, _around(text, a, b)) for number, a, b in found if text[a:b] == words]
    alike = [(number, a) for number, a, near in same if near == around]
    if not alike:
        alike = [
            (number, a)
            for number, a, near in same
            if any(x == y and len(x) >= ENOUGH for x, y in zip(near, around, strict=True))
        ]
    return [number for number, a in alike if a == start] or [number for number, _ in alike]


def _around(text: str, start: int, end: int) -> list[str]:
    return [text[max(0, start - AROUND) : start], text[end : end + AROUND]]


def known_by(store: "GraphStore", document: str, found: Found | Slice) -> dict[str, Any]:
    """By what a mention is known again. Raises DataError where the document doesn't say so."""
    text = store.document(document).text
    if text[found.start : found.end] != found.text:
        raise DataError(
            f"document {document!r} doesn't say {found.text!r} at {found.start}: has it changed meanwhile?"
        )
    kind = {"type": found.type} if isinstance(found, Found) else {}
    return {"start": found.start, "text": found.text, "around": _around(text, found.start, found.end)} | kind


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
    stands = number not in _undone(store)
    with _sound(store, number):
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
    elif kind == "pair":
        if body["relation"] is None:
            return
        head, tail = (store.entity(*body[end]["entity"]) for end in ("head", "tail"))
        edge = (head, store.word(body["relation"]), tail)
        if stands or not body["known"]:
            settle(db, [edge], {edge} if stands else frozenset(), frozenset() if stands else {edge})
        clear(db, [] if stands else [head, tail])
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


@contextmanager
def _sound(store: "GraphStore", number: int) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, QuickstudyError):
            raise
        raise CheckpointError(f"{store.path} is damaged: decision {number} can't be read.") from None


def _undone(store: "GraphStore") -> set[int]:
    """Numbers of the decisions that don't stand. The latest undoing counts first, as it may undo an earlier one."""
    undone: set[int] = set()
    for number, body in store.rows(
        "SELECT number, body FROM decisions WHERE kind = 'undo' ORDER BY number DESC"
    ):
        if number not in undone:
            undone.add(json.loads(body)["decision"])
    return undone
