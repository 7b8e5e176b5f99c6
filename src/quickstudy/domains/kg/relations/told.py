"""The examples of relations that a schema gives, as labelled documents."""

from collections.abc import Collection

from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.marks import unmarked
from quickstudy.domains.kg.schema import Schema

SOURCE = "schema"


def told_by(schema: Schema, known: Collection[str] = ()) -> list[Annotated]:
    """One document for each example of a relation, of which nothing is known but that relation (`partial`).

    Where an end may be of several types, it counts as of the first.

    Args:
        known: texts that are labelled already; such examples are left out.
    """
    found = []
    for name, relation in schema.relations.items():
        for number, example in enumerate(relation.examples, 1):
            text, marks = unmarked(example)
            if text in known:
                continue
            types = {"head": relation.head, "tail": relation.tail}
            spans = {
                end: Span(start, stop, (types[end] or tuple(schema.entities))[0])
                for start, stop, end in marks
            }
            document = Document(f"{SOURCE}: {name} {number}", text, SOURCE)
            ends = (spans["head"], spans["tail"])
            found.append(Annotated(document, ends, (Relation(0, 1, name),), partial=True))
    return found
