"""What past experience is worth on a field's own examples: with it and without, on examples held out, paired.

The examples are divided into a few parts; of each, entities and relations are learned from the others, once with what
past fields taught and once by the frozen encoder alone, and both are asked for the part. Where the frozen one does
clearly better, experience is left out: it may be of fields too far away.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.document import Annotated, Relation
from quickstudy.domains.kg.entities import recogniser
from quickstudy.domains.kg.entities.prior import Prior
from quickstudy.domains.kg.learning import score
from quickstudy.domains.kg.learning.score import Count, Score, counted
from quickstudy.domains.kg.relations.classifier import RelationClassifier, Said
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.pairs import Candidate, candidates
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder

PARTS = 3
FOUR_OF_FIVE = 0.84
"""Standard deviations below which a fifth of a normal distribution lies."""
DOCUMENTS = "documents"
"""The part of a `Worth` that says what documents without labels add to relations."""
LEAST = 9
"""Fewer labelled documents than this say nothing."""


@dataclass(frozen=True)
class Worth:
    """Of one part, entities or relations between given entities: F1 in points on examples held out."""

    part: str
    experienced: Score
    frozen: Score
    gain: Estimate
    """Paired: F1 with experience less that without; its interval is over documents."""

    @property
    def keeps(self) -> bool:
        """Whether experience is used: it isn't where the frozen encoder did better, by more than chance alone would
        have it in four of five draws of documents. A handful of examples seldom says so much.
        """
        spread = (self.gain.high - self.gain.low) / (2 * 1.96)
        return not self.gain.mean < -FOUR_OF_FIVE * spread


def of_entities(
    examples: Sequence[Annotated],
    schema: Schema,
    prior: Prior | None,
    encoder: TextEncoder,
    *,
    against: Prior | None = None,
    tuned: bool | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Worth | None:
    """What experience is worth for entities; None without any, or with too few examples to say.

    Args:
        against: less experience, that it is compared with; by default none, and then nothing is tuned without it.
        tuned: whether the networks are tuned on the examples.
        progress: is told how many parts are done, and of how many.
    """
    if prior is None or len(examples) < LEAST:
        return None
    counts: tuple[list[Count], list[Count]] = ([], [])
    for number, (seen, held) in enumerate(_parts(examples, seed)):
        if progress is not None:
            progress(number, PARTS)
        if not any(one.spans for one in seen):
            return None
        ways = (
            recogniser.learn(seen, schema, prior, encoder, tuned=tuned, seed=seed),
            recogniser.learn(
                seen, schema, against, encoder, tuned=False if against is None else tuned, seed=seed
            ),
        )
        for learned, into in zip(ways, counts, strict=True):
            found = learned.find_all([one.document for one in held])
            into += [
                counted(score.entities(e.span for e in here), score.entities(one.spans))
                for here, one in zip(found, held, strict=True)
            ]
    return _worth("entities", counts)


def of_relations(
    examples: Sequence[Annotated],
    schema: Schema,
    prior: RelationPrior | None,
    learn: Callable[[Sequence[Annotated], RelationPrior | None], RelationClassifier | None],
    *,
    against: RelationPrior | None = None,
    across: int = 0,
    part: str = "relations between given entities",
    seed: int = 0,
) -> Worth | None:
    """The same for the relations between the entities that are labelled, of pairs that were judged.

    Args:
        learn: learns relations from examples, with a prior or, given None, without.
    """
    if prior is None or len(examples) < LEAST:
        return None
    symmetric = {name for name, kind in schema.relations.items() if kind.symmetric}
    counts: tuple[list[Count], list[Count]] = ([], [])
    for seen, held in _parts(examples, seed):
        for given, into in zip((prior, against), counts, strict=True):
            try:
                learned = learn(seen, given)
            except DataError:  # no relation is left in this part
                return None
            if learned is None:
                return None
            asked = [Annotated(one.document, one.spans) for one in held]
            for said, one in zip(learned.extract_all(asked, across=across), held, strict=True):
                found = replace(one, relations=tuple(_judged(said, one, across)))
                into.append(counted(*(score.triples(x, score.places(x), symmetric) for x in (found, one))))
    return _worth(part, counts)


def _judged(said: Sequence[Said], one: Annotated, across: int) -> Iterator[Relation]:
    """What was found, but for pairs of which the labels say nothing: there nobody knows whether it is right.

    A related pair, turned round, was judged in a document that was labelled wholly; in a `partial` one, of its own
    relation alone.
    """
    labelled = labelled_pairs(one, across=across)
    known, related = {e.pair for e in labelled}, {(e.pair, e.type) for e in labelled if e.type}
    turned = {pair.turned() for pair, _ in related}
    pairs = dict(candidates(one, across=across))
    for head, tail, kind, *_ in said:
        pair = pairs[Candidate(head, tail)]
        back = (pair.turned(), kind) in related if one.partial else pair in turned
        if pair in known or back:
            yield Relation(head, tail, kind)


def _worth(part: str, counts: tuple[list[Count], list[Count]]) -> Worth:
    ours, theirs = counts
    return Worth(part, Score.of(ours), Score.of(theirs), score.gain(ours, theirs))


def _parts(examples: Sequence[Annotated], seed: int) -> list[tuple[list[Annotated], list[Annotated]]]:
    """For each part, the other examples and those of the part. Labels of one text are held out together."""
    order = list(dict.fromkeys(one.text for one in examples))
    random.Random(seed).shuffle(order)
    held = [set(order[part::PARTS]) for part in range(PARTS)]
    return [
        ([one for one in examples if one.text not in mine], [one for one in examples if one.text in mine])
        for mine in held
    ]
