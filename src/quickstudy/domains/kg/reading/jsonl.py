"""Our own labelled examples: one JSON object a line.

    {"text": "Jo works for Acme.", "spans": [{"start": 0, "end": 2, "type": "person"}, …],
     "relations": [{"head": 0, "tail": 1, "type": "works_for"}], "id": "a", "complete": true}

Head and tail are numbers of spans, from 0. A span may say the id that it has in a catalogue: "link". Instead of text
and spans, "marked" may hold the text with marks in it (marks.py); its spans count in the order of their beginnings.
"""

from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.document import Annotated, Span
from quickstudy.domains.kg.marks import unmarked
from quickstudy.domains.kg.reading.rows import (
    Notes,
    Rows,
    as_list,
    as_object,
    document,
    one_each,
    part,
    relations_of,
    span_of,
)

_KEYS = ("text", "marked", "spans", "relations", "id", "complete", "meta")


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    return one_each(path, _annotated)


def _annotated(path: Path, row: int, value: Any) -> Annotated:
    record = as_object(value, 'an object such as {"text": "…", "spans": […]}')
    for key in record:
        if key not in _KEYS:
            raise DataError(
                f"the key {key!r} is unknown.{did_you_mean(key, _KEYS)} Known: {', '.join(_KEYS)}."
            )
    given = as_list(record.get("spans"), "a list of spans")
    if ("marked" in record) == ("text" in record) or ("marked" in record and given):
        raise DataError('expected "text" with "spans", or "marked" alone.')
    if "marked" in record:
        text, marks = unmarked(part(record, "marked", str, "the row"))
        spans, links = [Span(*mark) for mark in marks], {}
    else:
        text, spans = record["text"], [span_of(span, "type") for span in given]
        links = {i: str(span["link"]) for i, span in enumerate(given) if span.get("link") is not None}
    complete = record.get("complete", False)
    if not isinstance(complete, bool):
        raise DataError(f"complete is {complete!r}; expected true or false.")
    return Annotated(
        document(path, row, text, record.get("id")), tuple(spans), relations_of(record), complete, links
    )
