"""Who works on which document, and what was found in it: written once, whoever is killed meanwhile.

What was found and the mark that the document is done are one transaction. A process that dies leaves the document
waiting; one that comes too late, because its claim ran out, writes nothing. Functions are methods of `GraphStore`.
"""

import os
import socket
import time
from collections.abc import Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.replay import apply
from quickstudy.domains.kg.graph.settle import Edge, clear, settle

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

LEASE = 600.0
"""Seconds after which a document that was claimed and not finished may be claimed by another process."""


class Mention(NamedTuple):
    """That `text[start:end]` names an entity."""

    start: int
    end: int
    type: str
    score: float = 1.0
    entity: str = ""
    """The entity's name; by default the words of the text, with single blanks."""


class Statement(NamedTuple):
    """That a sentence relates two mentions, given by their numbers among the document's."""

    head: int
    relation: str
    tail: int
    sentence: tuple[int, int]
    """Where it begins and ends in the text."""
    score: float = 1.0
    """Calibrated: the probability that it is right."""
    certain: bool = True
    """Whether the score is above the threshold of the target precision; else it is for review."""


class Claim(NamedTuple):
    """That a process works on a document."""

    document: Document
    owner: str
    sha256: bytes


def claim(store: "GraphStore", count: int = 1, lease: float = LEASE) -> list[Claim]:
    """Take up to `count` documents that wait, in the order in which they came, for this process to work on.

    No other process gets them within `lease` seconds, unless this one dies (which is seen on the same machine at
    once). An empty list: none is left, or others work on the rest.
    """
    owner, now = f"{socket.gethostname()}:{os.getpid()}:{token_hex(8)}", time.time()
    with store.writing():
        for (other,) in store.db.execute(
            "SELECT DISTINCT owner FROM documents WHERE owner IS NOT NULL"
        ).fetchall():
            if _dead(other):
                store.db.execute("UPDATE documents SET owner = NULL, until = NULL WHERE owner = ?", (other,))
        numbers = [row[0] for row in store.db.execute(
            "SELECT number FROM documents WHERE state = 0 AND (owner IS NULL OR until < ?) ORDER BY number LIMIT ?",
            (now, count),
        )]  # fmt: skip
        store.db.executemany(
            "UPDATE documents SET owner = ?, until = ? WHERE number = ?",
            [(owner, now + lease, number) for number in numbers],
        )
    found = "SELECT id, text, source, sha256 FROM documents JOIN texts ON document = number WHERE number = ?"
    claims = []
    for number in numbers:
        if row := store.one(found, (number,)):  # unless it was withdrawn meanwhile
            claims.append(Claim(Document(*row[:3]), owner, row[3]))
    return claims


def renew(store: "GraphStore", claim: Claim, lease: float = LEASE) -> bool:
    """Keep a claim for `lease` seconds from now. False: it isn't ours any more."""
    with store.writing():
        return (
            store.db.execute(
                "UPDATE documents SET until = ? WHERE id = ? AND owner = ? AND sha256 = ? AND state = 0",
                (time.time() + lease, claim.document.id, claim.owner, claim.sha256),
            ).rowcount
            == 1
        )


def finish(
    store: "GraphStore",
    claim: Claim,
    mentions: Sequence[Mention],
    statements: Sequence[Statement],
    model: str,
) -> bool:
    """Write what was found in a claimed document in place of what was known from it, and mark it done.

    Args:
        model: the version of what found it.

    Returns:
        False, and nothing is written, where the claim ran out and another process has it, or the text changed.

    Raises:
        DataError: offsets beyond the text, a statement about mentions that aren't there.
    """
    _check(claim.document, mentions, statements)
    with store.writing():
        number = _held(store, claim)
        if number is None:
            return False
        gone = _drop(store, number)
        edges = _write(store, number, claim.document.text, mentions, statements, store.word(model))
        edges |= apply(store, number)
        settle(store.db, edges | gone[0])
        clear(store.db, gone[1])
        store.db.execute(
            "UPDATE documents SET state = 1, owner = NULL, until = NULL, model = ?, problem = NULL "
            "WHERE number = ?",
            (store.word(model), number),
        )
    return True


def release(store: "GraphStore", claims: Sequence[Claim]) -> None:
    """Give back claims that won't be finished, for others to take at once."""
    with store.writing():
        store.db.executemany(
            "UPDATE documents SET owner = NULL, until = NULL WHERE id = ? AND owner = ?",
            [(claim.document.id, claim.owner) for claim in claims],
        )


def fail(store: "GraphStore", claim: Claim, problem: str) -> bool:
    """Mark a claimed document as one that couldn't be extracted, so that it isn't tried for ever."""
    with store.writing():
        number = _held(store, claim)
        if number is not None:
            store.db.execute(
                "UPDATE documents SET state = 2, owner = NULL, until = NULL, problem = ? WHERE number = ?",
                (problem, number),
            )
        return number is not None


def reopen(store: "GraphStore", model: str | None = None) -> int:
    """Let documents wait again: those done by another model than `model` (all, without one) and those that failed.

    What is known from them stays until it is replaced. Returns how many wait now.
    """
    with store.writing():
        store.db.execute(
            "UPDATE documents SET state = 0, problem = NULL WHERE state = 2 OR state = 1 AND "
            "(model IS NULL OR model != ?)",
            (0 if model is None else store.word(model),),
        )
        return store.db.execute("SELECT count(*) FROM documents WHERE state = 0").fetchone()[0]


def failed(store: "GraphStore") -> dict[str, str]:
    """Documents that couldn't be extracted, by id, with what went wrong."""
    return dict(store.rows("SELECT id, problem FROM documents WHERE state = 2 ORDER BY id"))


def _held(store: "GraphStore", claim: Claim) -> int | None:
    row = store.db.execute(
        "SELECT number FROM documents WHERE id = ? AND owner = ? AND sha256 = ? AND state = 0",
        (claim.document.id, claim.owner, claim.sha256),
    ).fetchone()
    return row[0] if row else None


def _write(
    store: "GraphStore",
    document: int,
    text: str,
    mentions: Sequence[Mention],
    statements: Sequence[Statement],
    model: int,
) -> set[Edge]:
    numbers: list[tuple[int, int]] = []
    for start, end, kind, score, name in mentions:
        entity = store.entity(name or " ".join(text[start:end].split()), kind)
        row = (document, start, end, store.word(kind), score, model, entity, entity)
        numbers.append((store.db.execute(
            "INSERT INTO mentions (document, start, end, type, score, model, found, entity) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row,
        ).lastrowid or 0, entity))  # fmt: skip
    sentences: dict[tuple[int, int], int] = {}
    edges = set()
    for head, relation, tail, (start, end), score, certain in statements:
        if (start, end) not in sentences:
            sentences[start, end] = store.db.execute(
                "INSERT INTO sentences (document, start, end, model) VALUES (?, ?, ?, ?)",
                (document, start, end, model),
            ).lastrowid or 0  # fmt: skip
        (h_mention, h), (t_mention, t), r = numbers[head], numbers[tail], store.word(relation)
        store.db.execute(
            "INSERT INTO statements (sentence, found_head, found_relation, found_tail, score, certain, verdict, "
            "h, r, t) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
            (sentences[start, end], h_mention, r, t_mention, score, bool(certain), h, r, t),
        )
        edges.add((h, r, t))
    return edges


def _drop(store: "GraphStore", document: int) -> tuple[set[Edge], set[int]]:
    """Remove what was found in a document; gives the triples and entities that it spoke of."""
    edges = {tuple(row) for row in store.db.execute(
        "SELECT h, r, t FROM statements JOIN sentences ON sentences.number = sentence WHERE document = ?", (document,)
    )}  # fmt: skip
    entities = {entity for row in store.db.execute(
        "SELECT found, entity FROM mentions WHERE document = ?", (document,)
    ) for entity in row}  # fmt: skip
    for table in (
        "statements WHERE sentence IN (SELECT number FROM sentences WHERE document = ?)",
        "sentences WHERE document = ?",
        "mentions WHERE document = ?",
    ):
        store.db.execute(f"DELETE FROM {table}", (document,))
    return edges, entities


def forget(store: "GraphStore", document: int) -> None:
    """Remove what was found in a document, and what followed from it alone."""
    edges, entities = _drop(store, document)
    settle(store.db, edges)
    clear(store.db, entities)


def _check(document: Document, mentions: Sequence[Mention], statements: Sequence[Statement]) -> None:
    size = len(document.text)
    for what, found in (("mention", mentions), ("statement", statements)):
        for number, one in enumerate(found):
            if not 0 <= one.score <= 1:
                raise DataError(
                    f"{what} {number} of document {document.id!r} has the score {one.score}; expected 0 to 1."
                )
    for number, mention in enumerate(mentions):
        if (
            not 0 <= mention.start < mention.end <= size
            or not document.text[mention.start : mention.end].strip()
        ):
            raise DataError(
                f"mention {number} goes from {mention.start} to {mention.end} of document {document.id!r}, which has "
                f"{size} characters; expected 0 ≤ start < end ≤ {size}, and more than blanks there."
            )
    for number, (head, relation, tail, (start, end), *_) in enumerate(statements):
        if not (0 <= head < len(mentions) and 0 <= tail < len(mentions)):
            raise DataError(
                f"statement {number} ({relation}) relates mentions {head} and {tail} of document {document.id!r}, "
                f"which has {len(mentions)}, from 0."
            )
        pair = (mentions[head], mentions[tail])
        if not 0 <= start < end <= size or any(m.start < start or m.end > end for m in pair):
            raise DataError(
                f"statement {number} ({relation}) of document {document.id!r}: its sentence, {start} to {end}, doesn't "
                f"hold its mentions or isn't within the text of {size} characters."
            )


def _dead(owner: str) -> bool:
    """Whether the process that claimed something ran on this machine and is gone. Elsewhere only the lease tells."""
    host, _, number = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not number.isdigit() or os.name != "posix":
        return False
    try:
        os.kill(int(number), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
