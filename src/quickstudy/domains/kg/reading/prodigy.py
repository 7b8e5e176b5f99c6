"""Prodigy's exports (`prodigy db-out`): JSON Lines with spans, relations and the answer.

Rows that were rejected or ignored are left out, which a warning says. A relation's ends are found by their offsets.
"""

from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.reading.rows import (
    LeftOut,
    Notes,
    Rows,
    as_list,
    as_object,
    document,
    one_each,
    part,
    span_of,
)


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    return one_each(path, _annotated)


def _annotated(path: Path, row: int, value: Any) -> Annotated:
    record = as_object(value, 'an object such as {"text": "…", "spans": […], "answer": "accept"}')
    answer = record.get("answer", "accept")
    if answer in ("reject", "ignore"):
        raise LeftOut(f"answered {answer!r}")
    if answer != "accept":
        raise DataError(f"the answer is {answer!r}; expected accept, reject or ignore.")
    doc = document(path, row, record.get("text"), record.get("id"))
    spans = [span_of(span, "label") for span in as_list(record.get("spans"), "a list of spans")]
    relations = []
    for relation in as_list(record.get("relations"), "a list of relations"):
        relation = as_object(
            relation, 'a relation such as {"head_span": {…}, "child_span": {…}, "label": "…"}'
        )
        head, tail = (_number(relation.get(end), spans, doc.text) for end in ("head_span", "child_span"))
        relations.append(Relation(head, tail, part(relation, "label", str, "a relation")))
    return Annotated(doc, tuple(spans), tuple(relations))


def _number(end: Any, spans: list[Span], text: str) -> int:
    """The number of a relation's end; one that only the relation labels is added to the spans."""
    end = as_object(end, 'the relation\'s "head_span" and "child_span", each with start and end')
    place = part(end, "start", int, "a relation's end"), part(end, "end", int, "a relation's end")
    label = end.get("label")
    for number, span in enumerate(spans):
        if span[:2] == place and label in (None, "", span.type):
            return number
    if label in (None, ""):
        raise DataError(
            f"a relation leads to {text[slice(*place)][:40]!r}, which isn't labelled as an entity."
        )
    spans.append(span_of(end, "label"))
    return len(spans) - 1
