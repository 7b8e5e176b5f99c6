"""What standing decisions say about a document, done again on what was found in it: after every extraction, and after
every decision. Mentions are known again by their words, their place and what stands around them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quickstudy.core.errors import CheckpointError, QuickstudyError
from quickstudy.domains.kg.document import holding, sentences
from quickstudy.domains.kg.graph.settle import Edge

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

AROUND = 30
"""Characters before and after a mention by which it is known again when its offsets have changed."""
ENOUGH = 10
"""Of these, how many on one side are enough where the other side has changed."""
REVIEWER = "a reviewer"
"""Stands for a model's version at the sentences and mentions that a reviewer added."""
OF_IT = "WHERE sentence IN (SELECT number FROM sentences WHERE document = ?)"


@dataclass
class _Replay:
    """A document whose decisions are replayed, and what of them is only done at the end."""

    store: "GraphStore"
    document: int
    id: str
    text: str
    turned: set[int] = field(default_factory=set)
    """Statements that are read from tail to head."""
    moved: dict[int, tuple[str, str]] = field(default_factory=dict)
    """What mentions name instead: the last decision on each, so that no other entity is made on the way."""
    last: dict[int, int] = field(default_factory=dict)
    """Of each mention, the last decision that says what it is."""


def apply(store: "GraphStore", document: int) -> set[Edge]:
    """Replay the decisions on what was found in a document. Returns the triples whose support may have changed."""
    db = store.db
    statements = "SELECT s.number, h, r, t FROM statements s JOIN sentences n ON n.number = sentence WHERE document = ?"
    edges = {tuple(row[1:]) for row in db.execute(statements, (document,))}
    _forget_added(store, document)
    db.execute("UPDATE mentions SET entity = found WHERE document = ? AND entity != found", (document,))
    db.execute(f"UPDATE statements SET verdict = 0, r = found_relation {OF_IT}", (document,))
    decided = db.execute(
        "SELECT d.number, kind, body FROM documents n JOIN decision_documents c ON c.document = n.id "
        "JOIN decisions d ON d.number = c.decision WHERE n.number = ? ORDER BY d.number",
        (document,),
    ).fetchall()
    if decided:
        taken_back = undone(store)
        row = db.execute(
            "SELECT id, text FROM documents JOIN texts ON document = number WHERE number = ?", (document,)
        )
        replay = _Replay(store, document, *row.fetchone())
        standing = [one for one in decided if one[0] not in taken_back]
        for number, kind, body in standing:
            if kind == "mention":
                with sound(store, number):
                    for one in _known_again(replay, json.loads(body)["mention"]):
                        replay.last[one] = number
        for number, kind, body in standing:
            with sound(store, number):
                _do(replay, number, kind, json.loads(body))
        for mention, entity in replay.moved.items():
            db.execute("UPDATE mentions SET entity = ? WHERE number = ?", (store.entity(*entity), mention))
    entity = "(SELECT entity FROM mentions WHERE mentions.number = {})"
    ends = entity.format("found_head"), entity.format("found_tail")
    db.execute(f"UPDATE statements SET h = {ends[0]}, t = {ends[1]} {OF_IT}", (document,))
    if decided:
        db.executemany("UPDATE statements SET h = t, t = h WHERE number = ?", [(n,) for n in replay.turned])
    return edges | {tuple(row[1:]) for row in db.execute(statements, (document,))}


def _forget_added(store: "GraphStore", document: int) -> None:
    """Remove what earlier replays added; what of it still stands is added again."""
    added = store.known_word(REVIEWER)
    if added is None:
        return
    which = "SELECT number FROM sentences WHERE document = ? AND model = ?"
    store.db.execute(f"DELETE FROM statements WHERE sentence IN ({which})", (document, added))
    for table in ("sentences", "mentions"):
        store.db.execute(f"DELETE FROM {table} WHERE document = ? AND model = ?", (document, added))


def _do(replay: _Replay, number: int, kind: str, body: dict[str, Any]) -> None:
    """Do what a decision says: to statements at once, to the rest at the end."""
    if kind == "split":
        for part in body["mentions"]:
            if part["document"] == replay.id:
                name, type = body["into"]
                replay.moved |= dict.fromkeys(_known_again(replay, part["mention"]), (name, type))
    elif kind == "mention":
        _mend(replay, number, body)
    elif kind == "name":
        _name(replay, body["name"])
    elif kind == "pair":
        if body["relation"] is not None:
            _add(replay, body)
    elif kind in ("accept", "reject", "correct"):
        _judge(replay, kind, body)


def _mend(replay: _Replay, number: int, body: dict[str, Any]) -> None:
    again, to = _known_again(replay, body["mention"]), body["to"]
    if to is not None:
        replay.moved |= dict.fromkeys(again, (" ".join(to["text"].split()), to["type"]))
        return
    # A later decision may have said that it is a name after all.
    none = [(replay.document, one) for one in again if replay.last.get(one, number) == number]
    for end in ("found_head", "found_tail"):
        replay.store.db.executemany(f"UPDATE statements SET verdict = -1 {OF_IT} AND {end} = ?", none)
    replay.store.db.executemany(  # what only a reviewer had added is gone
        "DELETE FROM mentions WHERE document = ?1 AND number = ?2 AND model = ?3 "
        "AND NOT EXISTS (SELECT 1 FROM statements WHERE ?2 IN (found_head, found_tail))",
        [(*one, replay.store.word(REVIEWER)) for one in none],
    )


def _name(replay: _Replay, name: dict[str, Any]) -> None:
    """A name that was missed. What a model finds there or across it since then is that name."""
    start = _place(replay, name)
    if start is None:
        return
    crossing = replay.store.db.execute(
        "SELECT number FROM mentions WHERE document = ? AND start < ? AND end > ?",
        (replay.document, start + len(name["text"]), start),
    ).fetchall()
    words, kind = name["entity"]
    replay.moved |= dict.fromkeys([number for (number,) in crossing], (words, kind))
    if not crossing:
        _marked(replay, name)


def _judge(replay: _Replay, kind: str, body: dict[str, Any]) -> None:
    store, db = replay.store, replay.store.db
    heads, tails = (set(_known_again(replay, body[end])) for end in ("head", "tail"))
    found = store.known_word(body["found"])
    for head in heads:
        for number, tail in db.execute(
            "SELECT number, found_tail FROM statements WHERE found_relation = ? AND found_head = ? AND sentence IN "
            "(SELECT number FROM sentences WHERE document = ?)", (found, head, replay.document),
        ).fetchall():  # fmt: skip
            if tail in tails:
                verdict = -1 if kind == "reject" else 1
                db.execute("UPDATE statements SET verdict = ? WHERE number = ?", (verdict, number))
                if kind == "correct":
                    db.execute(
                        "UPDATE statements SET r = ? WHERE number = ?", (store.word(body["relation"]), number)
                    )
                    (replay.turned.add if body["turned"] else replay.turned.discard)(number)


def _add(replay: _Replay, body: dict[str, Any]) -> None:
    """A statement of the reviewer's own, which goes with the document, where that still says both names."""
    ends = [_known_again(replay, body[end])[:1] or _marked(replay, body[end]) for end in ("head", "tail")]
    if not all(ends):
        return
    db, store = replay.store.db, replay.store
    numbers = [end[0] for end in ends]
    places = [
        db.execute("SELECT start, end FROM mentions WHERE number = ?", (n,)).fetchone() for n in numbers
    ]
    pieces = list(sentences(replay.text))
    touched = holding(pieces, min(start for start, _ in places), max(end for _, end in places))
    sentence = db.execute(
        "INSERT INTO sentences (document, start, end, model) VALUES (?, ?, ?, ?)",
        (replay.document, pieces[touched[0]].start, pieces[touched[-1]].end, store.word(REVIEWER)),
    ).lastrowid
    relation = store.word(body["relation"])
    db.execute(
        "INSERT INTO statements (sentence, found_head, found_relation, found_tail, score, certain, verdict, h, r, t) "
        "VALUES (?, ?, ?, ?, 1.0, 1, 1, 0, ?, 0)",
        (sentence, numbers[0], relation, numbers[1], relation),
    )


def _marked(replay: _Replay, mention: dict[str, Any]) -> list[int]:
    """A mention of the reviewer's own, where the text says it and no model found it."""
    words, start = mention["text"], _place(replay, mention)
    if start is None:
        return []
    store, entity = replay.store, replay.store.entity(*mention["entity"])
    number = store.db.execute(
        "INSERT INTO mentions (document, start, end, type, score, model, found, entity) "
        "VALUES (?, ?, ?, ?, 1.0, ?, ?, ?)",
        (
            replay.document,
            start,
            start + len(words),
            store.word(mention["type"]),
            store.word(REVIEWER),
            entity,
            entity,
        ),
    ).lastrowid
    return [number or 0]


def _place(replay: _Replay, mention: dict[str, Any]) -> int | None:
    """Where the text says what a decision speaks of, nearest to where it was then."""
    words, text, start = mention["text"], replay.text, -1
    places = []
    while (start := text.find(words, start + 1)) >= 0:
        if _near(around(text, start, start + len(words)), mention["around"]):
            places.append(start)
    return min(places, key=lambda place: abs(place - mention["start"]), default=None)


def _known_again(replay: _Replay, mention: dict[str, Any]) -> list[int]:
    """Numbers of the mentions that a decision speaks of: the same words with the same text around them, at the same
    place if there is one; or at least with the same text on one side, as what stands near may have changed.
    """
    start, words, text = mention["start"], mention["text"], replay.text
    found = replay.store.db.execute(
        "SELECT number, start, end FROM mentions WHERE document = ? AND end - start = ?",
        (replay.document, len(words)),
    ).fetchall()
    same = [(number, a, around(text, a, b)) for number, a, b in found if text[a:b] == words]
    alike = [(number, a) for number, a, near in same if near == mention["around"]]
    alike = alike or [(number, a) for number, a, near in same if _near(near, mention["around"])]
    return [number for number, a in alike if a == start] or [number for number, _ in alike]


def _near(one: list[str], other: list[str]) -> bool:
    """Whether two mentions have the same text around them, on one side at least."""
    return one == other or any(x == y and len(x) >= ENOUGH for x, y in zip(one, other, strict=True))


def around(text: str, start: int, end: int) -> list[str]:
    """What stands before and after a stretch of text."""
    return [text[max(0, start - AROUND) : start], text[end : end + AROUND]]


@contextmanager
def sound(store: "GraphStore", number: int) -> Iterator[None]:
    """Raises CheckpointError for a decision that isn't one."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, QuickstudyError):
            raise
        raise CheckpointError(f"{store.path} is damaged: decision {number} can't be read.") from None


def undone(store: "GraphStore") -> set[int]:
    """Numbers of the decisions that don't stand. The latest undoing counts first, as it may undo an earlier one."""
    found: set[int] = set()
    for number, body in store.rows(
        "SELECT number, body FROM decisions WHERE kind = 'undo' ORDER BY number DESC"
    ):
        if number not in found:
            found.add(json.loads(body)["decision"])
    return found
