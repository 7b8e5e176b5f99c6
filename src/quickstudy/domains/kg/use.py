"""A field's graph from a few labelled documents: learn its entities and relations, read documents, fill a store.

model = GraphModel.learn(examples, schema, encoder)        # examples: `read_annotated`, schema: `Schema.read`
with GraphStore("graph.db") as store:
store.put_all(read_documents("documents"))
extract(store, model)
store.neighbours("Acme plc")
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from quickstudy.core.atomic import folder_for, recover, replacing, write_new
from quickstudy.core.encoder import identity
from quickstudy.core.errors import CheckpointError, QuickstudyError
from quickstudy.core.memory import give_back
from quickstudy.core.untrusted import Refused, parse_json
from quickstudy.domains.kg.calibrate import LEAST, SCALE, Answer, Calibration, check_precision
from quickstudy.domains.kg.document import Annotated, Document, Span, holding, sentences
from quickstudy.domains.kg.entities import recogniser as entities
from quickstudy.domains.kg.entities.prior import Prior
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.field import placed_by
from quickstudy.domains.kg.graph.claims import Claim, Mention, Statement
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.labelled import as_record, from_record
from quickstudy.domains.kg.linking.within import entity_names
from quickstudy.domains.kg.parts import TOGETHER, together
from quickstudy.domains.kg.relations.classifier import RelationClassifier, Said
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.relations.related import learn_related
from quickstudy.domains.kg.relations.told import told_by
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.worth import DOCUMENTS, Worth, of_entities, of_relations
from quickstudy.encoders.text import TextEncoder, load_encoder

EXAMPLES, ENTITIES, RELATIONS = "examples.json", "entities", "relation_prior"
LIMIT = 64 * 2**20
"""Bytes of kept examples, at most."""
RENEW = 60.0
"""Seconds after which claims on documents are renewed, so that nobody else takes what is still being read."""
Shipped = Literal["shipped"]


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
    across: int = 0
    """How many sentence ends may lie between the two ends of a relation."""
    worth: tuple[Worth, ...] = ()
    """What experience was worth on examples held out, of each part, where `learn` judged it."""
    seed: int = 0
    """Of learning: relations are learned again by it when the model is loaded."""
    answers: tuple[Answer, ...] = ()
    """Triples of the field whose truth is known and that it wasn't learned from: how sure it is follows them."""

    @cached_property
    def scale(self) -> Calibration:
        """Makes a triple's probability of those of its parts."""
        return SCALE.of(0 if self.relations is None else self.relations.labelled).refined(self.answers)

    @classmethod
    def learn(
        cls,
        examples: Sequence[Annotated],
        schema: Schema,
        encoder: TextEncoder,
        *,
        prior: "Prior | Shipped | None" = "shipped",
        relation_prior: "RelationPrior | Shipped | None" = "shipped",
        documents: Sequence[Document] = (),
        precision: float = 0.9,
        across: int = 0,
        judge: bool = False,
        judge_documents: bool | None = None,
        seed: int = 0,
        progress: Callable[[int, float], None] | None = None,
        judging: Callable[[int, int], None] | None = None,
        placing: Callable[[int], None] | None = None,
    ) -> "GraphModel":
        """Learn from labelled documents, and from the examples of relations in the schema.

        Args:
            prior: what past corpora taught about entities; None starts from the frozen encoder. By default the one that
                comes with quickstudy, or None where that is of another encoder.
            relation_prior: the same of earlier relations.
            documents: of the field, without labels: some are read for pairs (`RelationPrior.of_field`). Without a prior
                they say nothing.
            across: how many sentence ends may lie between the two ends of a relation: 1 looks in neighbouring
                sentences too.
            judge: see first what priors and documents are worth on examples held out, and leave out what does harm
                there. Learns each part three times more, and the frozen encoder's.
            judge_documents: the same for documents alone; None does as `judge`.
            progress, judging, placing: are told the steps and loss of tuning; how many parts were judged, of how many;
                and how many pieces of documents were read.

        Raises:
            DataError: offsets, types or relations that can't be, no example with a span, or a precision that is none.
            ModelError: a prior of another encoder.
        """
        check_precision(precision)
        given = tuple(e.checked(schema) for e in (*examples, *told_by(schema, {e.text for e in examples})))
        past = shipped_prior(Prior, encoder) if isinstance(prior, str) else prior
        told = shipped_prior(RelationPrior, encoder) if isinstance(relation_prior, str) else relation_prior
        named = [example for example in given if not example.partial]
        worth: list[Worth] = []
        tuned = None
        if judge and (told_of := of_entities(named, schema, past, encoder, seed=seed, progress=judging)):
            past, tuned = (past, None) if told_of.keeps else (None, False)
            worth.append(told_of)
        recogniser = entities.learn(named, schema, past, encoder, tuned=tuned, seed=seed, progress=progress)

        def again(some: Sequence[Annotated], kept: RelationPrior | None) -> RelationClassifier | None:
            return learn_related(some, schema, encoder, kept, precision, across, seed)

        if judge and (told_of := of_relations(given, schema, told, again, across=across, seed=seed)):
            told = told if told_of.keeps else None
            worth.append(told_of)
        if documents and told is not None:
            placed = placed_by(
                told,
                documents,
                recogniser,
                schema,
                across=across,
                labelled=given,
                seed=seed,
                progress=placing,
            )
            if (
                (judge if judge_documents is None else judge_documents)
                and placed is not told
                and (
                    told_of := of_relations(
                        given, schema, placed, again, against=told, across=across, part=DOCUMENTS, seed=seed
                    )
                )
            ):
                worth.append(told_of)
                placed = placed if told_of.keeps else told
            told = placed
        return cls(
            schema, given, recogniser, learn_related(given, schema, encoder, told, precision, across, seed),
            told, precision, across, tuple(worth), seed,
        )  # fmt: skip

    @property
    def version(self) -> str:
        """Twelve hex digits of all that its answers follow from: a store notes which model found what."""
        tuned = b"".join(
            tensor.numpy().tobytes() for _, tensor in sorted(self.recogniser.tuned.parts()[0].items())
        )
        # A seed of 0 is left out: models from before it was kept have their version still.
        told = json.dumps([
            *map(as_record, self.examples), self.schema.to_json(), self.precision, self.across,
            self.scale.weights, self.scale.steps, *([self.seed] if self.seed else []),
        ])  # fmt: skip
        parts = (told.encode(), tuned, self._past(), identity(self.recogniser.encoder).encode())
        return sha256(b"\0".join(parts)).hexdigest()[:12]

    def _past(self) -> bytes:
        """What identifies the priors: typing's network, and all that earlier relations taught."""
        digest = sha256()
        kept: list[dict[str, Any]] = [self.recogniser.past.parts()[0]]
        if (prior := self.relation_prior) is not None:
            kept.append({"center": prior.center, "directions": prior.directions, "damping": prior.damping})
            kept.append({"certainty": prior.certainty.weights})
            # Left out where there is none: models from before they were have their version still.
            kept += [{"more": more} for more in (prior.naming, prior.cohort) if more is not None]
            kept.append(dict(prior.adapter.tensors) if prior.adapter else {})
            digest.update(repr((prior.layers, prior.blend)).encode())
        for tensors in kept:
            for name, tensor in sorted(tensors.items()):
                digest.update(name.encode() + tensor.half().numpy().tobytes())
        return digest.digest()

    def read(
        self, documents: Sequence[Document], progress: Callable[[], None] | None = None
    ) -> list[Reading]:
        """The mentions and statements of each document, which may be of any length.

        Args:
            progress: is called now and then while it reads.
        """
        spans: list[list[Span]] = [[] for _ in documents]
        scores: list[list[float]] = [[] for _ in documents]
        said: list[list[tuple[int, Said]]] = [[] for _ in documents]
        for group in together(documents):
            if progress is not None:
                progress()
            found = self.recogniser.find_all([part for _, _, part in group])
            marked = [
                Annotated(part, tuple(e.span for e in here))
                for (_, _, part), here in zip(group, found, strict=True)
            ]
            related = [[]] * len(group)
            if self.relations is not None:
                related = self.relations.extract_all(marked, across=self.across, least=LEAST)
            for (number, begin, _), here, ones in zip(group, found, related, strict=True):
                said[number] += [(len(spans[number]), one) for one in ones]
                spans[number] += [Span(e.span.start + begin, e.span.end + begin, e.span.type) for e in here]
                scores[number] += [e.score for e in here]
        return [self._told(*of) for of in zip(documents, spans, scores, said, strict=True)]

    def _told(
        self,
        document: Document,
        spans: Sequence[Span],
        scores: Sequence[float],
        said: Sequence[tuple[int, Said]],
    ) -> Reading:
        """What was found, as a store keeps it: mentions with the names of their entities, statements with sentences."""
        names = entity_names(document.text, spans, self.schema.entities)
        mentions = [
            Mention(*span, score, name) for span, score, name in zip(spans, scores, names, strict=True)
        ]
        pieces, statements = list(sentences(document.text)) if said else [], []
        for first, one in said:
            head, tail = first + one.head, first + one.tail
            score = self.scale.triple(scores[head], scores[tail], one.probability)
            if score < LEAST:
                continue
            ends = (spans[head], spans[tail])
            touched = holding(pieces, min(s.start for s in ends), max(s.end for s in ends))
            where = pieces[touched[0]].start, pieces[touched[-1]].end
            statements.append(Statement(head, one.type, tail, where, score, score >= self.precision))
        return Reading(mentions, statements)

    def save(self, folder: Path | str) -> None:
        """Write it to a folder, whole or not at all; a model that is there is replaced. Raises as `folder_for`."""
        folder = folder_for(folder, EXAMPLES)
        folder.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "schema": self.schema.to_json(),
            "precision": self.precision,
            "across": self.across,
            "seed": self.seed,
            "relations": self.relation_prior is not None,
            "encoder": self.recogniser.encoder.name,
            "examples": [as_record(one) for one in self.examples],
            "answers": [list(one) for one in self.answers],
        }
        with replacing(folder) as new:
            self.recogniser.save(new / ENTITIES)
            if self.relation_prior is not None:
                self.relation_prior.save(new / RELATIONS)
            write_new(new / EXAMPLES, [json.dumps(record, ensure_ascii=False).encode()])

    @classmethod
    def load(cls, folder: Path | str, encoder: TextEncoder | None = None) -> "GraphModel":
        """Read what `save` wrote; relations are learned anew from the examples, in moments.

        Args:
            encoder: the one that it was learned with; without it, the one of that name is loaded.

        Raises:
            CheckpointError: the folder holds no model, or a damaged one.
            ModelError: it was made with another encoder.
        """
        folder = recover(Path(folder))
        try:
            if (folder / EXAMPLES).stat().st_size > LIMIT:
                raise Refused(f"{EXAMPLES} is larger than {LIMIT:,} bytes")
            record = parse_json((folder / EXAMPLES).read_bytes(), depth=10)
        except OSError as error:
            raise CheckpointError(f"{folder} holds no graph model: {EXAMPLES}: {error.strerror}.") from None
        except Refused as problem:
            raise CheckpointError(f"{folder / EXAMPLES}: {problem}.") from None
        try:
            schema, precision = Schema.of(record["schema"]), float(record["precision"])
            across, seed = int(record.get("across", 0)), int(record.get("seed", 0))
            examples = tuple(from_record(one).checked(schema) for one in record["examples"])
            answers = tuple(Answer.of(row) for row in record.get("answers", []))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:  # DataError is a ValueError
            raise CheckpointError(f"{folder}: {EXAMPLES} can't be read: {problem}") from None
        encoder = encoder or _encoder(record.get("encoder"), folder)
        recogniser = Recogniser.load(folder / ENTITIES, encoder)
        prior = RelationPrior.load(folder / RELATIONS) if record.get("relations") is True else None
        return cls(
            schema, examples, recogniser, learn_related(examples, schema, encoder, prior, precision, across, seed),
            prior, precision, across, seed=seed, answers=answers,
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
        batch: documents that are claimed together, and read so where they are short.
        progress: is told how many documents were finished.

    Returns:
        How many were "done" and how many "failed"; `store.failed()` says why.
    """
    done: Counter[str] = Counter()
    version = model.version
    while claims := store.claim(batch):
        renewed = time.monotonic()

        def renew(claims: Sequence[Claim] = tuple(claims)) -> None:
            nonlocal renewed
            if time.monotonic() - renewed > RENEW:
                for claim in claims:
                    store.renew(claim)
                renewed = time.monotonic()

        try:
            for some in _in_turn(claims):
                readings = _readings(model, [claim.document for claim in some], renew)
                for claim, reading in zip(some, readings, strict=True):
                    if isinstance(reading, Reading):
                        done["done"] += store.finish(claim, *reading, model=version)
                    else:
                        done["failed"] += store.fail(claim, reading)
                if progress is not None:
                    progress(len(some))
        except BaseException:
            store.release(claims)  # those that are finished already aren't ours to give back, and stay so
            raise
        give_back()
    return done


def _in_turn(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """As many as are read at a time: large documents wait for no other until they are written."""
    some: list[Claim] = []
    for claim in claims:
        if some and sum(len(one.document.text) for one in (*some, claim)) > TOGETHER:
            yield some
            some = []
        some.append(claim)
    yield some


def _readings(
    model: GraphModel, documents: Sequence[Document], progress: Callable[[], None]
) -> list[Reading | str]:
    """What was found in each document, or what went wrong with it; one that can't be read doesn't stop the others."""
    try:
        return list(model.read(documents, progress))
    except QuickstudyError as problem:
        if len(documents) == 1:
            return [str(problem)]
        return [reading for document in documents for reading in _readings(model, [document], progress)]


def _encoder(name: Any, folder: Path) -> TextEncoder:
    if not isinstance(name, str):
        raise CheckpointError(f"{folder} doesn't say which encoder it was learned with.")
    found = load_encoder(name)
    if not isinstance(found, TextEncoder):
        raise CheckpointError(f"{folder}: the encoder {name!r} has no word states.")
    return found


def shipped_prior(kind: Any, encoder: TextEncoder) -> Any:
    """The prior that comes with quickstudy, if it was learned on this encoder."""
    found = kind.shipped() if hasattr(kind, "shipped") else None
    return found if found is not None and found.identity == encoder.frozen.identity else None
