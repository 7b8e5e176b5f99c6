"""Examples of relations: labelled pairs, and pairs that a labelled document says are unrelated."""

from collections.abc import Sequence
from typing import NamedTuple

from quickstudy.domains.kg.document import Annotated, holding, sentences
from quickstudy.domains.kg.relations.pairs import Candidate, Pair, candidates
from quickstudy.domains.kg.schema import Schema


class Example(NamedTuple):
    """A labelled pair; no relation where `type` is None."""

    pair: Pair
    type: str | None
    head_type: str = ""
    tail_type: str = ""
    origin: int = -1
    """Number of the labelled document that it is from, where that is known."""
    turned: bool = False
    """Whether it says no more than that a related one doesn't hold the other way round."""


def turned_round(related: Sequence[Example], schema: Schema) -> list[Example]:
    """Related pairs the other way round, as unrelated, but for those that are related so as well: one works for the
    other, which employs it; or it is symmetric.
    """
    known = {e.pair for e in related}
    known |= {e.pair.turned() for e in related if schema.relations[e.type or ""].symmetric}
    return [
        Example(e.pair.turned(), None, e.tail_type, e.head_type, e.origin, True)
        for e in related
        if e.pair.turned() not in known
    ]


def labelled_pairs(annotated: Annotated, *, across: int = 0) -> list[Example]:
    """All pairs of a labelled document: related as it says; unrelated where their sentence says something else.

    A sentence without any relation says nothing but of pairs that the document calls unrelated, unless it is
    `complete`; of a `partial` one, only pairs that it names.
    """
    said: dict[Candidate, list[str]] = {}
    for head, tail, kind in annotated.relations:
        said.setdefault(Candidate(head, tail), []).append(kind)
    found, apart = list(sentences(annotated.text)), set(annotated.unrelated)
    touched = {
        place
        for ends in said
        for end in ends
        for place in holding(found, annotated.spans[end].start, annotated.spans[end].end)
    }
    examples = []
    for place, pair in candidates(annotated, across=across):
        kinds = annotated.spans[place.head].type, annotated.spans[place.tail].type
        for kind in said.get(place, []):
            examples.append(Example(pair, kind, *kinds))
        if place in said or Candidate(place.tail, place.head) in said:
            continue
        where = holding(found, annotated.spans[place.head].start, annotated.spans[place.head].end)
        whole = annotated.complete or any(number in touched for number in where)
        if place in apart or (whole and not annotated.partial):
            examples.append(Example(pair, None, *kinds))
    return examples
