"""Pairs of a field that nobody labelled, from its documents; relations are placed by them (`RelationPrior`)."""

import random
from collections.abc import Callable, Sequence

from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.parts import parts
from quickstudy.domains.kg.relations.certainty import COHORT
from quickstudy.domains.kg.relations.pairs import Pair, candidates
from quickstudy.domains.kg.schema import Schema

PIECE = 2_000
"""Characters that are read at a time: a few sentences from many places say more than many from one."""
READ = 240
"""So many pieces are read, at most."""
EACH = 4
"""So many pairs of a piece count: those of one sentence are much alike."""
AT_ONCE = 24


def field_pairs(
    documents: Sequence[Document],
    recogniser: Recogniser,
    schema: Schema,
    *,
    across: int = 0,
    labelled: Sequence[Annotated] = (),
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> list[Pair]:
    """Pairs of the names that are found, of types that a relation admits; at most `COHORT`, from as many places as can
    be.

    Args:
        labelled: documents whose texts are left out, also where they are sentences of others.
        seed: which pieces are read, and which of their pairs are taken.
        progress: is called before pieces are read.
    """
    draw, known = random.Random(seed), {one.text for one in labelled}
    pieces = [piece for one in documents if one.text not in known for _, piece in parts(one, PIECE)]
    draw.shuffle(pieces)
    found: dict[Pair, None] = {}
    for begin in range(0, min(len(pieces), READ), AT_ONCE):
        if progress is not None:
            progress()
        some = pieces[begin : begin + AT_ONCE]
        for piece, entities in zip(some, recogniser.find_all(some), strict=True):
            marked = Annotated(piece, tuple(one.span for one in entities))
            possible = [
                pair
                for place, pair in candidates(marked, across=across)
                if pair.text not in known
                and schema.possible(marked.spans[place.head].type, marked.spans[place.tail].type)
            ]
            draw.shuffle(possible)
            found |= dict.fromkeys(possible[:EACH])
        if len(found) >= COHORT:
            break
    return list(found)[:COHORT]
