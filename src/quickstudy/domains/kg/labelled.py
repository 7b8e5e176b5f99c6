"""Labelled documents as plain values of JSON, in which a model and a bank keep them."""

from typing import Any

from quickstudy.domains.kg.document import Annotated, Document, Relation, Span


def as_record(one: Annotated) -> dict[str, Any]:
    """A labelled document as plain values of JSON."""
    document = one.document
    return {
        "id": document.id,
        "text": document.text,
        "source": document.source,
        "spans": [list(span) for span in one.spans],
        "relations": [list(relation) for relation in one.relations],
        "complete": one.complete,
        **({"links": {str(number): id for number, id in one.links.items()}} if one.links else {}),
        **({"partial": True, "unrelated": [list(ends) for ends in one.unrelated]} if one.partial else {}),
    }


def from_record(record: dict[str, Any]) -> Annotated:
    """What `as_record` made. Raises KeyError, TypeError for what it didn't."""
    texts = [record["id"], record["text"], record["source"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("id, text and source of an example are text")
    spans = tuple(Span(*_checked(span, int, int, str)) for span in record["spans"])
    relations = tuple(Relation(*_checked(relation, int, int, str)) for relation in record["relations"])
    unrelated = tuple((a, b) for a, b in (_checked(ends, int, int) for ends in record.get("unrelated", [])))
    partial = record.get("partial") is True
    links = {
        int(number): str(id) for number, id in record.get("links", {}).items() if int(number) < len(spans)
    }
    return Annotated(
        Document(*texts),
        spans,
        relations,
        record["complete"] is True,
        links,
        partial=partial,
        unrelated=unrelated,
    )


def _checked(row: list, *kinds: type) -> list:
    if len(row) != len(kinds) or any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
        raise TypeError(f"{str(row)[:60]} is no span or relation")
    return row
