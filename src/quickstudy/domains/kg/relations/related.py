"""Relations from labelled documents, as a graph's model learns them."""

from collections.abc import Sequence

from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.relations.classifier import RelationClassifier, learn_relations
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder


def learn_related(
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    prior: RelationPrior | None,
    precision: float,
    across: int,
    seed: int,
) -> RelationClassifier | None:
    """Relations from labelled documents; None where these have none. Without a prior, from the frozen encoder."""
    if not any(example.relations for example in examples):
        return None
    pairs = [
        pair._replace(origin=number)
        for number, example in enumerate(examples)
        for pair in labelled_pairs(example, across=across)
    ]
    prior = prior or RelationPrior.blank(encoder, [p.pair for p in pairs], [p.type for p in pairs])
    return learn_relations(pairs, schema, prior, encoder, precision=precision, seed=seed)
