"""A field's graph from a few labelled documents: learn its entities and relations, read documents, fill a store.

model = GraphModel.learn(examples, schema, encoder)        # examples: `read_annotated`, schema: `Schema.read`
with GraphStore("graph.db") as store:
store.put_all(read_documents("documents"))
extract(store, model)
store.neighbours("Acme plc")
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from quickstudy.core.atomic import write_file
from quickstudy.core.encoder import identity
from quickstudy.core.errors import CheckpointError, DataError, QuickstudyError
from quickstudy.core.untrusted import Refused, parse_json
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span, holding, sentences
from quickstudy.domains.kg.entities import recogniser as entities
from quickstudy.domains.kg.entities.prior import Prior
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.relations.classifier import RelationClassifier, labelled_pairs, learn_relations
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder

EXAMPLES, ENTITIES, RELATIONS = "examples.json", "entities", "relation_prior"
LIMIT = 64 * 2**20
"""Bytes of kept examples, at most."""


class Reading(NamedTuple):
    """What was found in a document, as a store keeps it."""

    mentions: list[Mention]
    statements: list[Statement]


@dataclass(frozen=True)
class GraphModel:
    """Finds the entities of a schema in documents, and the relations that these say between them."""

    schema: Schema
    examples: tuple[Annotated, ...]
    """What it was learned from."""
    recogniser: Recogniser
    relations: RelationClassifier | None
    """None where no example has a relation."""
    relation_prior: RelationPrior | None
    precision: float
    """A triple at least so probable goes into the graph; below it, it is for review."""

    @classmethod
    def learn(
        cls,
        examples: Sequence[Annotated],
        schema: Schema,
        encoder: TextEncoder,
        *,
        prior: Prior | None = None,
        relation_prior: RelationPrior | None = None,
        precision: float = 0.9,
        seed: int = 0,
        progress: Callable[[int, float], None] | None = None,
    ) -> "GraphModel":
        """Learn from labelled documents.

        Args:
            prior: what past corpora taught about entities; None starts from the frozen encoder.
            relation_prior: what earlier relations taught; needed where the examples have relations.

        Raises:
            DataError: offsets, types or relations that can't be, or no example with a span.
            ModelError: a prior of another encoder.
        """
        given = tuple(example.checked(schema) for example in examples)
        named = [example for example in given if not example.partial]
        recogniser = entities.learn(named, schema, prior, encoder, seed=seed, progress=progress)
        return cls(
            schema, given, recogniser, _related(given, schema, encoder, relation_prior, precision, seed),
            relation_prior, precision,
        )  # fmt: skip

    @property
    def version(self) -> str:
        """Twelve hex digits of all that its answers follow from: a store notes which model found what."""
        tuned = b"".join(
            tensor.numpy().tobytes() for _, tensor in sorted(self.recogniser.tuned.parts()[0].items())
        )
        told = json.dumps([_record(one) for one in self.examples] + [self.schema.to_json(), self.precision])
        parts = (told.encode(), tuned, identity(self.recogniser.encoder).encode())
        return sha256(b"\0".join(parts)).hexdigest()[:12]

    def read(self, documents: Sequence[Document]) -> list[Reading]:
        """The mentions and statements of each document."""
        return [
            self._stated(document, [e.span for e in found], [e.score for e in found])
            for document, found in zip(documents, self.recogniser.find_all(documents), strict=True)
        ]

    def _stated(self, document: Document, spans: Sequence[Span], scores: Sequence[float]) -> Reading:
        mentions = [Mention(*span, score) for span, score in zip(spans, scores, strict=True)]
        if self.relations is None or len(spans) < 2:
            return Reading(mentions, [])
        pieces, statements = list(sentences(document.text)), []
        for said in self.relations.extract(Annotated(document, tuple(spans))):
            ends = (spans[said.head], spans[said.tail])
            touched = holding(pieces, min(s.start for s in ends), max(s.end for s in ends))
            where = pieces[touched[0]].start, pieces[touched[-1]].end
            statements.append(
                Statement(said.head, said.type, said.tail, where, float(said.probability), said.sure)
            )
        return Reading(mentions, statements)

    def save(self, folder: Path | str) -> None:
        """Write it to a folder; the examples come last, so that half a model is none."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.recogniser.save(folder / ENTITIES)
        if self.relation_prior is not None:
            self.relation_prior.save(folder / RELATIONS)
        record = {
            "schema": self.schema.to_json(),
            "precision": self.precision,
            "relations": self.relation_prior is not None,
            "examples": [_record(one) for one in self.examples],
        }
        write_file(folder / EXAMPLES, json.dumps(record, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path | str, encoder: TextEncoder) -> "GraphModel":
        """Read what `save` wrote; relations are learned anew from the examples, in moments.

        Raises:
            CheckpointError: the folder holds no model, or a damaged one.
            ModelError: it was made with another encoder.
        """
        folder = Path(folder)
        try:
            if (folder / EXAMPLES).stat().st_size > LIMIT:
                raise Refused(f"{EXAMPLES} is larger than {LIMIT:,} bytes")
            record = parse_json((folder / EXAMPLES).read_bytes(), depth=10)
        except OSError as error:
            raise CheckpointError(f"{folder} holds no graph model: {EXAMPLES}: {error.strerror}.") from None
        except Refused as problem:
            raise CheckpointError(f"{folder}: {problem}.") from None
        try:
            schema, precision = Schema.of(record["schema"]), float(record["precision"])
            examples = tuple(_annotated(one).checked(schema) for one in record["examples"])
        except (KeyError, TypeError, ValueError, AttributeError) as problem:  # DataError is a ValueError
            raise CheckpointError(f"{folder}: its examples can't be read: {problem}") from None
        recogniser = Recogniser.load(folder / ENTITIES, encoder)
        prior = RelationPrior.load(folder / RELATIONS) if record.get("relations") is True else None
        return cls(
            schema, examples, recogniser, _related(examples, schema, encoder, prior, precision, 0), prior, precision
        )  # fmt: skip


def extract(
    store: GraphStore,
    model: GraphModel,
    *,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Counter[str]:
    """Read all documents of a store that wait, a few at a time, and write what was found.

    Several processes may do so at once. One that is stopped gives back what it hadn't finished; one that is killed
    leaves it to the next.

    Args:
        batch: documents that are claimed and read together.
        progress: is told how many documents were finished.

    Returns:
        How many were "done" and how many "failed"; `store.failed()` says why.
    """
    done: Counter[str] = Counter()
    while claims := store.claim(batch):
        try:
            readings = _readings(model, [claim.document for claim in claims])
            for claim, reading in zip(claims, readings, strict=True):
                if isinstance(reading, Reading):
                    done["done"] += store.finish(claim, *reading, model=model.version)
                else:
                    done["failed"] += store.fail(claim, reading)
        except BaseException:
            store.release(claims)  # those that are finished already aren't ours to give back, and stay so
            raise
        if progress is not None:
            progress(len(claims))
    return done


def _readings(model: GraphModel, documents: Sequence[Document]) -> list[Reading | str]:
    """What was found in each document, or what went wrong with it; one that can't be read doesn't stop the others."""
    try:
        return list(model.read(documents))
    except QuickstudyError as problem:
        if len(documents) == 1:
            return [str(problem)]
        return [reading for document in documents for reading in _readings(model, [document])]


def _related(
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    prior: RelationPrior | None,
    precision: float,
    seed: int,
) -> RelationClassifier | None:
    if not any(example.relations for example in examples):
        return None
    if prior is None:
        raise DataError("the examples have relations; give relation_prior, what earlier relations taught.")
    pairs = [
        pair._replace(origin=number)
        for number, example in enumerate(examples)
        for pair in labelled_pairs(example)
    ]
    return learn_relations(pairs, schema, prior, encoder, precision=precision, seed=seed)


def _record(one: Annotated) -> dict:
    document = one.document
    return {
        "id": document.id,
        "text": document.text,
        "source": document.source,
        "spans": [list(span) for span in one.spans],
        "relations": [list(relation) for relation in one.relations],
        "complete": one.complete,
        **({"partial": True, "unrelated": [list(ends) for ends in one.unrelated]} if one.partial else {}),
    }


def _annotated(record: dict) -> Annotated:
    texts = [record["id"], record["text"], record["source"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("id, text and source of an example are text")
    spans = tuple(Span(*_checked(span, int, int, str)) for span in record["spans"])
    relations = tuple(Relation(*_checked(relation, int, int, str)) for relation in record["relations"])
    unrelated = tuple((a, b) for a, b in (_checked(ends, int, int) for ends in record.get("unrelated", [])))
    partial = record.get("partial") is True
    return Annotated(
        Document(*texts), spans, relations, record["complete"] is True, partial=partial, unrelated=unrelated
    )


def _checked(row: list, *kinds: type) -> list:
    if len(row) != len(kinds) or any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
        raise TypeError(f"{str(row)[:60]} is no span or relation")
    return row
