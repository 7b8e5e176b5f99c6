"""What reviewers say of a text beyond yes and no: other names, other borders, names and relations that were missed, and
that nothing is missing. Decisions like those of `decisions`, in the same log.

    store.mend(document, mention, Span(12, 20, "firm"))     it goes from 12 to 20, and is a firm
    store.mend(document, mention, None)                     it is no entity: what was said of it is rejected
    store.name(document, Span(30, 38, "person"))            a name that was missed
    store.relate(document, head, tail, "works_for")         the text says so of the two; None: it says nothing of them
    store.whole(document, sentence)                         all entities of the sentence are marked, and rightly so

Functions are methods of `GraphStore`.
"""

from typing import TYPE_CHECKING

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Span
from quickstudy.domains.kg.graph.decisions import decide, known_by
from quickstudy.domains.kg.graph.records import Found, Slice

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore


def mend(
    store: "GraphStore", document: str, found: Found, to: Span | None, *, by: str = "", note: str = ""
) -> int:  # fmt: skip
    """Say where a mention really begins and ends and of what type it is, or (None) that it is no entity.

    Borders and type as they were found confirm it. Returns the decision's number.

    Raises:
        DataError: the new borders hold nothing but blanks or lie outside of the text.
    """
    text, change = store.document(document).text, None
    if to is not None:
        if not 0 <= to.start < to.end <= len(text) or not text[to.start : to.end].strip():
            raise DataError(
                f"{to.start} to {to.end} isn't a stretch of document {document!r}, which has {len(text)} characters."
            )
        shift = [to.start - found.start, to.end - found.end]
        change = {"shift": shift, "type": to.type, "text": text[to.start : to.end]}
    body = {"document": document, "mention": known_by(store, document, found), "to": change}
    return decide(store, "mention", body, by, note, [document])


def name(store: "GraphStore", document: str, span: Span, *, by: str = "", note: str = "") -> int:
    """Say that a text has a name that wasn't found. It is a mention from then on, until the document goes or changes.

    Returns the decision's number.

    Raises:
        DataError: the span lies outside of the text, holds nothing but blanks, or crosses a mention that is there.
    """
    text = store.document(document).text
    if not 0 <= span.start < span.end <= len(text) or not text[span.start : span.end].strip():
        raise DataError(
            f"{span.start} to {span.end} isn't a stretch of document {document!r}, which has {len(text)} characters."
        )
    if not span.type.strip():
        raise DataError(f"{text[span.start : span.end]!r} needs a type.")
    for found in store.mentions(document):
        if found.start < span.end and span.start < found.end:
            raise DataError(
                f"{text[span.start : span.end]!r} crosses {found.text!r}, which was found: mend that mention instead."
            )
    words = text[span.start : span.end]
    known = known_by(store, document, Slice(span.start, span.end, words))
    body = known | {"type": span.type, "entity": [" ".join(words.split()), span.type]}
    return decide(store, "name", {"document": document, "name": body}, by, note, [document])


def relate(
    store: "GraphStore",
    document: str,
    head: Found,
    tail: Found,
    relation: str | None,
    *,
    by: str = "",
    note: str = "",
) -> int:
    """Say that a text relates two mentions between which nothing was found; None: that it doesn't.

    The document says the triple of a missed relation from then on, accepted, until it goes or changes. Returns the
    decision's number.

    Raises:
        DataError: both are the same mention, or the relation has no name.
    """
    if (head.start, head.end) == (tail.start, tail.end):
        raise DataError(f"{head.text!r} can't be related to itself.")
    if relation is not None and not relation.strip():
        raise DataError("a relation needs a name; None says that there is none.")
    ends = {
        name: known_by(store, document, end) | {"entity": [*end.entity]}
        for name, end in (("head", head), ("tail", tail))
    }
    body = {"document": document, **ends, "relation": relation}
    return decide(store, "pair", body, by, note, [document])


def whole(store: "GraphStore", document: str, sentence: Slice, *, by: str = "", note: str = "") -> int:
    """Say that all entities of a sentence are marked, with the right borders and types, and nothing else is.

    It says so of what is marked then, with the decisions made before. Returns the decision's number.
    """
    held = [
        known_by(store, document, found)
        for found in store.mentions(document)
        if sentence.start <= found.start and found.end <= sentence.end
    ]
    body = {"document": document, "sentence": known_by(store, document, sentence), "mentions": held}
    return decide(store, "whole", body, by, note, [])
