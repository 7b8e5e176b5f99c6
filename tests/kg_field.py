"""A tiny field for the tests of graphs: persons work for firms or sue them; and a model that learns it in seconds."""

from functools import cache

import torch

from quickstudy.core.episode import Labelled
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.entities.prior import Source, learn_prior
from quickstudy.domains.kg.entities.tune import Tuning
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.pairs import PairEncoder
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.lora import LoRA

PEOPLE, FIRMS = ["Ada", "Bo", "Cy", "Dora", "Eli", "Fay"], ["acme", "bolt", "corp", "dyne", "enco", "fizz"]
SAID = {"works_for": "{} is employed as a clerk by {} .", "sued": "{} went to court and sued {} again !"}
SCHEMA = Schema.of({
    "entities": ["person", "firm"],
    "relations": {name: {"head": "person", "tail": "firm"} for name in SAID},
})  # fmt: skip


def document(number: int, kind: str = "", firms: int = 0) -> Annotated:
    """There are twelve; those of other `firms` (1, 2) are of the same people with others."""
    kind = kind or list(SAID)[number % 2]
    person, firm = PEOPLE[number % 6], FIRMS[(number // 2 + number + firms) % 6]
    text = SAID[kind].format(person, firm)
    start = text.rindex(firm)
    spans = (Span(0, len(person), "person"), Span(start, start + len(firm), "firm"))
    return Annotated(Document(f"d{number}", text), spans, (Relation(0, 1, kind),), complete=True)


@cache
def encoder():
    return load_encoder("tiny-bert", cache=False, dtype="float32")


@cache
def relation_prior():
    pairs = PairEncoder(encoder())
    known = [e for i in range(36) for e in labelled_pairs(document(i, firms=i % 3)) if e.type]
    x = pairs.encode([e.pair for e in known])
    y = torch.tensor([list(SAID).index(e.type or "") for e in known])
    return RelationPrior.estimate(pairs, [Labelled.of(x, y)], directions=8)


@cache
def past():
    """What past corpora taught about entities."""
    tuning = Tuning(
        spec=LoRA(rank=4, alpha=8.0, layers=(0, 1)),
        steps=200,
        batch=8,
        rate=3e-3,
        head_rate=1e-2,
        dropout=0.0,
    )
    return learn_prior([Source("past", [document(i) for i in range(30, 70)])], encoder(), tuning)


def learned(examples, precision=0.3):
    return GraphModel.learn(
        examples, SCHEMA, encoder(), prior=past(), relation_prior=relation_prior(), precision=precision
    )


@cache
def model():
    """Learned from documents 0 to 17."""
    return learned([document(i) for i in range(18)])
