"""spaCy's training examples as JSON: texts with their entities' offsets, in any of the shapes that it has had.

[["Jo works for Acme.", {"entities": [[0, 2, "PERSON"]]}], …]          as in its guides
{"classes": […], "annotations": [[text, {"entities": […]}], …]}        as annotation tools export them
{"text": "…", "entities": [[0, 2, "PERSON"]]}                          a line each; also {"start", "end", "label"}
"""

from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.reading.rows import (
    LeftOut,
    Notes,
    Rows,
    as_list,
    as_object,
    document,
    records,
    span_of,
    span_of_three,
)

BINARY = (
    "spaCy's binary form (DocBin) is read by spaCy alone. Write JSON Lines with it: "
    'for doc in DocBin().from_disk("train.spacy").get_docs(nlp.vocab): print(json.dumps({"text": doc.text, "entities": '
    "[[e.start_char, e.end_char, e.label_] for e in doc.ents]}))"
)


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    for row, value in records(path):
        if isinstance(value, dict) and "annotations" in value:
            for number, item in enumerate(as_list(value["annotations"], "a list of annotations"), 1):
                yield number, lambda row=number, item=item: _annotated(path, row, item)
        else:
            yield row, lambda row=row, value=value: _annotated(path, row, value)


def _annotated(path: Path, row: int, value: Any) -> Annotated:
    if value is None:  # annotation tools write it for a text that was passed by
        raise LeftOut("null, no example")
    if isinstance(value, list):
        if len(value) != 2:
            raise DataError(f'{len(value)} items came; expected [text, {{"entities": […]}}].')
        record = {**as_object(value[1], 'an object such as {"entities": […]}'), "text": value[0]}
    else:
        record = as_object(value, 'an object such as {"text": "…", "entities": […]}')
    if "entities" not in record:
        raise DataError('no "entities" here; an empty list says that there are none.')
    found = as_list(record["entities"], "a list of entities")
    spans = [span_of(item, "label") if isinstance(item, dict) else span_of_three(item) for item in found]
    return Annotated(document(path, row, record.get("text"), record.get("id")), tuple(spans))
