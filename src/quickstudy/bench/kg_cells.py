"""What one method reads in one field, learned from sentences drawn for one seed, compared with the labels."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quickstudy.bench import child
from quickstudy.bench.kg_fields import Field, Triple, alone, sampled, told, truth, unrelated
from quickstudy.core.atomic import write_file
from quickstudy.domains.kg.calibrate import LEAST, Answer, best_cut
from quickstudy.domains.kg.document import Annotated, Span, holding, sentences
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.score import Count
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, Reading
from quickstudy.encoders.text import TextEncoder

OURS, BARE = "ours", "ours without meta-learning"
SPACY, STARTED = "spaCy's parts", "spaCy's parts from its English weights"
PEER: dict[str, Any] = {"passes": 60, "dropout": 0.2, "penalty": 10.0, "lexical": True}
"""How the peer is trained: chosen on CoNLL04's dev part, 5 and 20 sentences a type."""
SCALE_CELLS = ((5, 0), (5, 1), (20, 0), (20, 1))
"""Sentences a type and seeds that the law of triples' scores is learned from."""
EVEN = 0.5
"""What is likelier than not is held for asserted where mentions are given (kg.9)."""
Cell = dict[str, Any]
"""Of each document: "said", score and whether it is right of each triple; "truth", how many there are; "entities",
right, found and there. And of ours "slices", exact and all; and "named": of pairs that aren't related, of sentences
without a relation though both types are there, and of related pairs, how many there are and how many are asserted."""


@dataclass(frozen=True)
class Setting:
    """How a run is made."""

    data: Path
    encoder: TextEncoder
    seeds: tuple[int, ...]
    documents: int | None
    """So many of BC5CDR's at most, drawn once for all; CoNLL04's are all read."""
    spacy: str | None
    """A Python that has spaCy and scikit-learn."""
    pretrained: str
    """The package of spaCy's weights that `STARTED` starts from."""
    keep: Path | None
    part: str
    show: Callable[..., None]


def cell(setting: Setting, field: Field, shots: int, seed: int, method: str) -> Cell:
    """Learn and read, or take what an earlier run kept."""
    name = f"{field.name} {shots} {seed} {method} {setting.part} {setting.documents}".replace(" ", "-")
    return _kept(setting, name, lambda: _made(setting, field, shots, seed, method))


def _made(setting: Setting, field: Field, shots: int, seed: int, method: str) -> Cell:
    examples = field.draw(shots, seed)
    documents = sampled(field.part(setting.part), setting.documents if field.name == "BC5CDR" else None)
    begun = time.process_time()
    if method in (SPACY, STARTED):
        weights = setting.pretrained if method == STARTED else ""
        made = _peer(setting, field, examples, documents, seed, weights)
    else:
        model = _model(setting, field, examples, seed, method)
        learned = time.process_time() - begun
        read = ours(model, documents)
        made = {"learn": learned, "documents": read}
    own = time.process_time() - begun
    return made | {"sentences": len(examples), "seconds": own + made.get("apart", 0.0)}


def _model(
    setting: Setting, field: Field, examples: Sequence[Annotated], seed: int, method: str
) -> GraphModel:
    if method == BARE:
        return GraphModel.learn(
            examples, field.schema, setting.encoder, seed=seed, prior=None, relation_prior=None
        )
    return GraphModel.learn(examples, field.schema, setting.encoder, seed=seed)


def answers(setting: Setting, field: Field) -> list[tuple[int, list[Answer]]]:
    """Triples of a field's dev part whose truth is known, from models of 5 and of 20 sentences a type; of each model,
    how many labelled pairs it was learned from.
    """
    name = f"answers {field.name}".replace(" ", "-")
    made = _kept(setting, name, lambda: {"cells": [_answers(setting, field, *key) for key in SCALE_CELLS]})
    return [(n, [Answer(*row) for row in rows]) for n, rows in made["cells"]]


def _answers(setting: Setting, field: Field, shots: int, seed: int) -> tuple[int, list[list]]:
    documents = sampled(field.part("dev"), 120)
    examples = field.draw(shots, seed)
    model = GraphModel.learn(examples, field.schema, setting.encoder, seed=seed)
    if model.relations is None:
        return 0, []
    read = model.recogniser.find_all([one.document for one in documents])
    given = [Annotated(d.document, tuple(e.span for e in es)) for d, es in zip(documents, read, strict=True)]
    best: dict[
        tuple[int, Triple], list
    ] = {}  # a triple of a document counts once, as sure as its surest sentence
    for i, (one, es, said) in enumerate(
        zip(documents, read, model.relations.extract_all(given, least=0.01), strict=True)
    ):
        right = truth(one)
        for s in said:
            triple = told(one, es[s.head].span, s.type, es[s.tail].span)
            row = [es[s.head].score, es[s.tail].score, float(s.probability), triple in right]
            kept = best.setdefault((i, triple), row)
            if math.prod(row[:3]) > math.prod(kept[:3]):
                best[i, triple] = row
    return model.relations.labelled, list(best.values())


def fields(data: Path) -> list[Field]:
    """The fields that are measured."""
    return [Field.of(name, data) for name in ("CoNLL04", "BC5CDR")]


def ours(model: GraphModel, documents: Sequence[Annotated]) -> list[Cell]:
    """What a model reads of documents, and what it asserts between the labelled mentions."""
    found = []
    readings = model.read([one.document for one in documents])
    exact = slices(documents, readings)
    for one, reading, asserted, right in zip(
        documents, readings, _given(model, documents), exact, strict=True
    ):
        spans = [Span(*mention[:3]) for mention in reading.mentions]
        said = ((spans[s.head], s.relation, spans[s.tail], s.score) for s in reading.statements)
        found.append(
            compared(one, spans, said) | {"named": named(model.schema, one, asserted), "slices": right}
        )
    return found


def _given(model: GraphModel, documents: Sequence[Annotated]) -> list[set[tuple[int, int, str]]]:
    """What is likelier than not where mentions are given."""
    if model.relations is None:
        return [set() for _ in documents]
    bare = [Annotated(one.document, one.spans) for one in documents]
    return [
        {(s.head, s.tail, s.type) for s in said if model.scale.triple(1.0, 1.0, s.probability) >= EVEN}
        for said in model.relations.extract_all(bare, least=LEAST)
    ]


def compared(one: Annotated, spans: Sequence[Span], said: Any) -> Cell:
    """Triples and mentions that were found in a labelled document, each triple once, as sure as its surest sentence."""
    best: dict[Triple, float] = {}
    for head, relation, tail, score in said:
        triple = told(one, head, relation, tail)
        best[triple] = max(best.get(triple, 0.0), float(score))
    right, labelled = truth(one), set(one.spans)
    return {
        "said": [[score, triple in right] for triple, score in best.items()],
        "truth": len(right),
        "entities": [len(set(spans) & labelled), len(set(spans)), len(labelled)],
    }


def named(schema: Schema, one: Annotated, asserted: set[tuple[int, int, str]]) -> dict[str, list[int]]:
    """How many there are, and of how many something false (or, of those related, the truth) is asserted."""
    apart = {frozenset(pair) for pair in unrelated(one, schema)}
    claimed = {frozenset(row[:2]) for row in asserted}
    pieces = list(sentences(one.text))
    places: dict[
        tuple[int, str], int
    ] = {}  # a sentence and a relation that its types admit -> 1 if it is said falsely
    related = {(r.head, r.tail, r.type) for r in one.relations}
    said = {
        (place, r.type)
        for r in one.relations
        for end in r[:2]
        for place in holding(pieces, *one.spans[end][:2])
    }
    for head, tail in unrelated(one, schema):
        for place in holding(pieces, *one.spans[head][:2]):
            for kind in schema.relations:
                if (place, kind) not in said and schema.admits(
                    kind, one.spans[head].type, one.spans[tail].type
                ):
                    false = (head, tail, kind) in asserted
                    places[place, kind] = max(places.get((place, kind), 0), int(false))
    return {
        "pairs": [len(apart), len(apart & claimed)],
        "sentences": [len(places), sum(places.values())],
        "related": [len(related), len(related & asserted)],
    }


def slices(documents: Sequence[Annotated], readings: Sequence[Reading]) -> list[list[int]]:
    """Of the triples of each document, written to a store and read again: whose offsets slice the document to the words
    of head, tail and a sentence that holds both; and all.
    """
    counts = {one.document.id: [0, 0] for one in documents}
    text = {one.document.id: one.text for one in documents}
    with TemporaryDirectory() as folder, GraphStore(Path(folder) / "graph.db") as store:
        store.put_all([one.document for one in documents])
        read = {one.document.id: reading for one, reading in zip(documents, readings, strict=True)}
        for claim in iter(lambda: store.claim(64), []):
            for one in claim:
                store.finish(one, *read[one.document.id], model="measured")
        for triple in list(store.triples(("extracted", "review"))):
            for said in store.said(triple):
                whole, inner = text[said.document], said.sentence
                exact = all(
                    whole[part.start : part.end] == part.text != "" for part in (inner, said.head, said.tail)
                )
                inside = all(
                    inner.start <= part.start < part.end <= inner.end for part in (said.head, said.tail)
                )
                counts[said.document][0] += exact and inside
                counts[said.document][1] += 1
    return [counts[one.document.id] for one in documents]


def _peer(
    setting: Setting,
    field: Field,
    examples: Sequence[Annotated],
    documents: Sequence[Annotated],
    seed: int,
    weights: str,
) -> Cell:
    """A pipeline of spaCy's parts, trained on the same sentences, which reads the same sentences."""
    pieces = [alone([one]) for one in documents]
    job = PEER | {
        "train": [{"text": e.text, "spans": [list(s) for s in e.spans], "relations": [list(r) for r in e.relations]}
                  for e in examples],
        "test": [piece.text for own in pieces for piece in own],
        "admitted": {name: [list(r.head), list(r.tail)] for name, r in field.schema.relations.items()},
        "pretrained": weights,
        "seed": seed,
    }  # fmt: skip
    program = [str(Path(__file__).with_name("spacy_run.py"))]
    with TemporaryDirectory() as folder:
        made = child.answer(setting.spacy or "python", program, Path(folder), job, threads=1)
    told_of = iter(made["answers"])
    read = [_peer_said(one, told_of) for one in documents]
    return {
        "learn": made["train_seconds"],
        "documents": read,
        "versions": made["versions"],
        "lost": made["left_out"],
        "apart": made["train_seconds"] + made["seconds"],
    }


def _peer_said(one: Annotated, told_of: Iterator[dict[str, Any]]) -> Cell:
    spans: list[Span] = []
    said: list[tuple[Span, str, Span, float]] = []
    for piece in sentences(one.text):
        answer = next(told_of)
        own = [Span(start + piece.start, end + piece.start, kind) for start, end, kind in answer["spans"]]
        best: dict[tuple[int, int], tuple[float, str]] = {}
        for head, tail, kind, p in answer["relations"]:
            best[head, tail] = max(best.get((head, tail), (0.0, "")), (p, kind))
        said += [(own[head], kind, own[tail], p) for (head, tail), (p, kind) in best.items()]
        spans += own
    return compared(one, spans, said)


def counts(documents: Sequence[Cell], method: str) -> list[Count]:
    """Triples of each document from the score on from which F1 is expected to be highest. A peer's scores aren't
    calibrated: it has whichever of .15, .5 and that is best for it on these very documents.
    """
    cut = best_cut([score for one in documents for score, _ in one["said"] if score >= LEAST])
    if method not in (SPACY, STARTED):
        return [count(one, cut) for one in documents]
    tried = [[count(one, least) for one in documents] for least in (cut, 0.15, 0.5)]
    return max(
        tried, key=lambda told: sum(c.right for c in told) / max(1, sum(c.found + c.truth for c in told))
    )


def count(one: Cell, least: float) -> Count:
    """A document's triples from a score on."""
    said = [right for score, right in one["said"] if score >= least]
    return Count(sum(said), len(said), one["truth"])


def _kept(setting: Setting, name: str, make: Callable[[], Cell]) -> Cell:
    if setting.keep is None:
        return make()
    path = setting.keep / f"{name}.json"
    if not path.exists():
        setting.keep.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(make()).encode())
    return json.loads(path.read_text())
