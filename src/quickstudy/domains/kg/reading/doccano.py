"""Doccano's exports for sequence labelling, as JSON Lines or a list.

{"id": 1, "text": "…", "label": [[0, 2, "person"]]}                                    also "labels"
{"id": 1, "text": "…", "entities": [{"id": 7, "label": "person", "start_offset": 0, "end_offset": 2}, …],
 "relations": [{"from_id": 7, "to_id": 8, "type": "works_for"}]}
"""

from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation
from quickstudy.domains.kg.reading.rows import (
    Notes,
    Rows,
    as_list,
    as_object,
    document,
    one_each,
    part,
    span_of,
    span_of_three,
)


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    return one_each(path, _annotated)


def _annotated(path: Path, row: int, value: Any) -> Annotated:
    record = as_object(value, 'an object such as {"text": "…", "label": [[0, 2, "person"]]}')
    text = record.get("text", record.get("data"))
    doc = document(path, row, text, record.get("id"))
    threes = record.get("label", record.get("labels"))
    spans = [span_of_three(three) for three in as_list(threes, "a list of labels such as [0, 2, type]")]
    number: dict[Any, int] = {}
    for entity in as_list(record.get("entities"), "a list of entities"):
        spans.append(span_of(entity, "label", "start_offset", "end_offset"))
        name = part(entity, "id", int, "an entity")
        if name in number:
            raise DataError(f"two entities have the id {name}.")
        number[name] = len(spans) - 1
    relations = []
    for relation in as_list(record.get("relations"), "a list of relations"):
        relation = as_object(relation, 'a relation such as {"from_id": 7, "to_id": 8, "type": "works_for"}')
        ends = [part(relation, end, int, "a relation") for end in ("from_id", "to_id")]
        for end in ends:
            if end not in number:
                raise DataError(f"a relation speaks of the entity {end}, and there is none of this id.")
        relations.append(
            Relation(number[ends[0]], number[ends[1]], part(relation, "type", str, "a relation"))
        )
    return Annotated(doc, tuple(spans), tuple(relations))
