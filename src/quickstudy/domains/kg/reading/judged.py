"""What labelled texts without a relation say, beside others that have some: that their names aren't related."""

from collections.abc import Sequence
from dataclasses import replace

from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.relations.pairs import candidates

FORMATS = ("inline", "jsonl", "brat", "doccano", "label-studio")
"""Those that have relations where somebody labels them. Others say of all texts that they were labelled whole, or of
none."""


def judged(labelled: Sequence[Annotated]) -> list[Annotated]:
    """Texts of one file, or of several that belong together: if any has a relation, the names of those that have none
    are unrelated, as far as they stand in one sentence or in two that follow each other.
    """
    if not any(one.relations for one in labelled):
        return list(labelled)
    return [
        replace(one, unrelated=tuple(tuple(place) for place, _ in candidates(one, across=1)))
        if _silent(one)
        else one
        for one in labelled
    ]


def _silent(one: Annotated) -> bool:
    """Whether it has names, and nothing is said of how they are related."""
    return len(one.spans) > 1 and not (one.relations or one.unrelated or one.complete or one.partial)
