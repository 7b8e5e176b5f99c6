"""Pairs of a field that nobody labelled, from its documents; relations are placed by them (`RelationPrior`)."""

import random
from collections.abc import Callable, Iterable, Sequence

from quickstudy.domains.kg.document import Annotated, Document, sentences
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.parts import parts
from quickstudy.domains.kg.relations.certainty import COHORT
from quickstudy.domains.kg.relations.pairs import Pair, candidates
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema

PIECE = 2_000
"""Characters that are read at a time: a few sentences from many places say more than many from one."""
READ = 240
"""So many pieces are read, at most."""
EACH = 4
"""So many pairs of a piece count, if others have enough: those of one sentence are much alike."""
AT_ONCE = 24


def _plain(text: str) -> set[str]:
    """Sentences, whatever their blanks."""
    return {" ".join(text[one.start : one.end].split()) for one in sentences(text)}


def some_pieces(
    documents: Iterable[Document], labelled: Sequence[Annotated] = (), *, most: int = READ, seed: int = 0
) -> list[Document]:
    """So many pieces of documents that aren't labelled, each as likely; what is held at once is these and one document.

    Source: Vitter 1985, "Random Sampling with a Reservoir", algorithm R; which place one has is left to chance too.
    """
    draw, kept, known = random.Random(seed), list[Document](), {one.text for one in labelled}
    pieces = (piece for one in documents if one.text not in known for _, piece in parts(one, PIECE))
    for number, piece in enumerate(pieces):
        place = draw.randrange(number + 1)
        if len(kept) < most:
            kept.append(piece)
            kept[place], kept[-1] = kept[-1], kept[place]
        elif place < most:
            kept[place] = piece
    return kept


def placed_by(
    prior: RelationPrior,
    documents: Sequence[Document],
    recogniser: Recogniser,
    schema: Schema,
    *,
    across: int = 0,
    labelled: Sequence[Annotated] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> RelationPrior:
    """A prior placed in the field of these documents; as it was where no labelled one has a relation, and where pairs
    are too few. The arguments are those of `field_pairs`.
    """
    if not any(one.relations for one in labelled):
        return prior
    pairs = field_pairs(
        documents, recogniser, schema, across=across, labelled=labelled, seed=seed, progress=progress
    )
    return prior.of_field(prior.pair_encoder(recogniser.encoder).encode(pairs))


def field_pairs(
    documents: Sequence[Document],
    recogniser: Recogniser,
    schema: Schema,
    *,
    across: int = 0,
    labelled: Sequence[Annotated] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Pair]:
    """Pairs of the names that are found, of types that a relation admits; at most `COHORT`, from as many places as can
    be.

    Args:
        labelled: documents none of whose sentences is read, wherever else it stands.
        seed: which pieces are read, and which of their pairs are taken.
        progress: is told how many pieces were read.
    """
    draw = random.Random(seed)
    known = {plain for one in labelled for plain in _plain(one.text)}
    pieces = some_pieces(documents, labelled, seed=seed)
    found: dict[Pair, None] = {}
    more: list[Pair] = []
    for begin in range(0, len(pieces), AT_ONCE):
        if progress is not None:
            progress(begin)
        some = pieces[begin : begin + AT_ONCE]
        for piece, entities in zip(some, recogniser.find_all(some), strict=True):
            marked = Annotated(piece, tuple(one.span for one in entities))
            possible = [
                pair
                for place, pair in candidates(marked, across=across)
                if known.isdisjoint(_plain(pair.text))
                and schema.possible(marked.spans[place.head].type, marked.spans[place.tail].type)
            ]
            draw.shuffle(possible)
            found |= dict.fromkeys(possible[:EACH])
            more += possible[EACH:]
        if len(found) >= COHORT:
            break
    draw.shuffle(more)  # where there are few places, more of each
    return list(dict.fromkeys([*found, *more]))[:COHORT]
