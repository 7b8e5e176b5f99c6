"""How good a model is on documents that people labelled: per part, and end to end.

    judged = evaluate(model, gold)          # gold: `read_annotated`, never what the model was learned from
    judged.triples["end to end"].f1         # ± its 95% interval over documents
    judged.report().save("report")          # the house's report, with a picture

A triple is right where both ends, their types and the relation are; ends count by their place in the text ('by place'),
or by what they are called, each once a document ('by name'), or by the ids of the labels where there are some
('by id'), as a graph has them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from quickstudy.core.calibration import Bin, expected_error, reliability
from quickstudy.core.errors import DataError
from quickstudy.core.report import Report
from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.entities.recogniser import learn
from quickstudy.domains.kg.learning import score
from quickstudy.domains.kg.learning.labels import DECISIONS
from quickstudy.domains.kg.learning.score import Count, Score, counted
from quickstudy.domains.kg.relations.related import learn_related
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, Reading

BY_PLACE, BY_NAME, BY_ID = "by place", "by name", "by id"
REVIEWED = "with those for review"
OWN = 60
"""Characters of a sentence from which on no other document says it by chance: one that does was learned from, wherever
the sentence was reviewed. Shorter ones, such as "Background", give away only the document that they are from."""


class Answer(NamedTuple):
    """A mention or a statement that was found: how sure it was, and whether it is right."""

    probability: float
    right: bool


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Keys are named as a table shows them; intervals are over `documents`."""

    documents: int
    entities: dict[str, Score]
    """'borders'; 'borders and type'; and 'linked', where labels and model have ids."""
    relations: dict[str, Score]
    """Between the labelled entities, so of this part alone: 'asserted', and 'with those for review'."""
    triples: dict[str, Score]
    """End to end, of those asserted: `BY_PLACE`, `BY_NAME`, `BY_ID`; 'with those for review' by place."""
    types: dict[str, Score]
    """Entities of each type."""
    kinds: dict[str, Score]
    """Triples of each relation, by place."""
    counts: dict[str, list[Count]] = field(repr=False)
    """Of each document, for paired comparisons with another model: `score.gain`."""
    mentions: list[Answer] = field(repr=False)
    statements: list[Answer] = field(repr=False)
    """All of them, also those for review."""

    @property
    def error(self) -> dict[str, float]:
        """Expected calibration error of mentions and statements, 0 to 1; left out where none was found."""
        both = {"entities": self.mentions, "triples": self.statements}
        return {name: expected_error(*_columns(found)) for name, found in both.items() if found}

    @property
    def reliability(self) -> dict[str, list[Bin]]:
        """Probability against the share that is right, in ten bins."""
        both = {"entities": self.mentions, "triples": self.statements}
        return {name: reliability(*_columns(found)) for name, found in both.items() if found}

    def tables(self) -> dict[str, dict[str, Score]]:
        """All scores by what they are of."""
        return {
            "entities": self.entities,
            "relations between given entities": self.relations,
            "triples, end to end": self.triples,
            "entities of each type": self.types,
            "triples of each relation": self.kinds,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "documents": self.documents,
            **{
                name: {row: one.to_json() for row, one in part.items()}
                for name, part in self.tables().items()
            },
            "expected calibration error": {name: round(value, 4) for name, value in self.error.items()},
            "reliability": {name: [list(b) for b in bins] for name, bins in self.reliability.items()},
        }


def evaluate(
    model: GraphModel,
    gold: Sequence[Annotated],
    *,
    link: Callable[[Annotated], Mapping[int, str]] | None = None,
    seed: int = 0,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Let a model read labelled documents, and compare.

    Args:
        link: gives the ids of a document's spans in a catalogue; without it nothing is linked.
        seed: of the intervals' resamples.
        batch: documents read at once.
        progress: is told how many documents were read.

    Raises:
        DataError: no document; a type or a relation that the model's schema doesn't have; or a document that the model
            was learned from, be it one sentence that a reviewer judged (`OWN`).
    """
    gold = [one.checked(model.schema) for one in gold]
    known = {example.text for example in model.examples}
    parts = [
        (e.text, e.document.source.removeprefix(DECISIONS))
        for e in model.examples
        if e.document.source.startswith(DECISIONS)
    ]
    for one in gold:
        if one.text in known or any(
            part in one.text and (len(part) >= OWN or id == one.document.id) for part, id in parts
        ):
            raise DataError(
                f"the model was learned from document {one.document.id!r}: what it says of it is no measure. Give "
                "documents that it hasn't seen.",
                file=one.document.source or None,
            )
    found: list[Annotated] = []
    sure: list[list[bool]] = []
    answers: tuple[list[Answer], list[Answer]] = ([], [])
    given: list[tuple[set, set]] = []
    for begin in range(0, len(gold), batch):
        part = gold[begin : begin + batch]
        for one, reading in zip(part, model.read([one.document for one in part]), strict=True):
            said, certain = said_by(reading, one)
            if link is not None:
                said = Annotated(said.document, said.spans, said.relations, True, dict(link(said)))
            found.append(said)
            sure.append(certain)
            _answered(answers, reading, said, one, model.schema)
            given.append(_between_given(model, one))
        if progress is not None:
            progress(len(part))
    return compare(found, gold, model.schema, sure=sure, given=given, answers=answers, seed=seed)


def frozen(model: GraphModel, seed: int = 0) -> GraphModel:
    """What the same examples teach the encoder as it came, without any experience: an honest baseline."""
    encoder, named = model.recogniser.encoder, [one for one in model.examples if not one.partial]
    bare = learn(named, model.schema, None, encoder, tuned=False, seed=seed)
    related = learn_related(model.examples, model.schema, encoder, None, model.precision, model.across, seed)
    return replace(
        model, recogniser=bare, relations=related, relation_prior=None, worth=(), seed=seed, answers=()
    )


def compare(
    found: Sequence[Annotated],
    gold: Sequence[Annotated],
    schema: Schema,
    *,
    sure: Sequence[Sequence[bool]] | None = None,
    given: Sequence[tuple[set, set]] | None = None,
    answers: tuple[list[Answer], list[Answer]] = ([], []),
    seed: int = 0,
) -> Evaluation:
    """Compare what any model found with what people labelled, document by document.

    Args:
        sure: which relations of each document are asserted; all of them, without it.
        given: of each document, the triples found between the labelled entities, those asserted and all of them.
        answers: mentions and statements with their probabilities.
    """
    if not gold or len(found) != len(gold):
        raise DataError(f"{len(found)} documents were read and {len(gold)} are labelled; expected as many.")
    symmetric = {name for name, kind in schema.relations.items() if kind.symmetric}
    asserted = [
        Annotated(
            one.document, one.spans,
            tuple(r for i, r in enumerate(one.relations) if sure is None or sure[n][i]), True, one.links,
        )
        for n, one in enumerate(found)
    ]  # fmt: skip
    keys: dict[str, Callable[[Annotated, Annotated], list]] = {
        BY_PLACE: lambda one, _: score.places(one),
        BY_NAME: lambda one, _: score.names(one),
    }
    if any(one.links for one in gold):
        keys[BY_ID] = score.concepts
    counts: dict[str, list[Count]] = {
        "borders": _each(lambda a, b: counted(score.borders(a.spans), score.borders(b.spans)), found, gold),
        "borders and type": _each(
            lambda a, b: counted(score.entities(a.spans), score.entities(b.spans)), found, gold
        ),
    }
    entities = ["borders", "borders and type"]
    if any(one.links for one in found) and any(one.links for one in gold):
        counts["linked"] = _each(lambda a, b: counted(_linked(a), _linked(b)), found, gold)
        entities.append("linked")
    pairs = {
        name: [
            tuple(score.triples(one, key(one, b), symmetric) for one in (a, b))
            for a, b in zip(asserted, gold, strict=True)
        ]
        for name, key in keys.items()
    }
    counts |= {name: [counted(*pair) for pair in rows] for name, rows in pairs.items()}
    loose = REVIEWED
    ends = list(keys)
    if sure is not None:
        counts[loose] = _each(
            lambda a, b: counted(*(score.triples(one, score.places(one), symmetric) for one in (a, b))),
            found,
            gold,
        )
        ends.append(loose)
    relations: dict[str, Score] = {}
    if given is not None:
        truth = [score.triples(one, score.places(one), symmetric) for one in gold]
        for place, name in enumerate(("asserted", loose)):
            rows = [counted(some[place], right) for some, right in zip(given, truth, strict=True)]
            counts[f"given, {name}"] = rows
            relations[name] = Score.of(rows, seed=seed)
    per_type = score.by_kind(
        [score.entities(one.spans) for one in found], [score.entities(one.spans) for one in gold], 2
    )
    columns = list(zip(*pairs[BY_PLACE], strict=True))
    return Evaluation(
        len(gold),
        {name: Score.of(counts[name], seed=seed) for name in entities},
        relations,
        {name: Score.of(counts[name], seed=seed) for name in ends},
        {name: Score.of(rows, seed=seed) for name, rows in per_type.items()},
        {name: Score.of(rows, seed=seed) for name, rows in score.by_kind(columns[0], columns[1], 1).items()},
        counts,
        *answers,
    )


def said_by(reading: Reading, one: Annotated) -> tuple[Annotated, list[bool]]:
    """What a model found in a document, as labels; and which of its relations it asserts."""
    spans = tuple(Span(m.start, m.end, m.type) for m in reading.mentions)
    relations = tuple(Relation(s.head, s.tail, s.relation) for s in reading.statements)
    return Annotated(one.document, spans, relations, True), [s.certain for s in reading.statements]


def report(
    rows: Mapping[str, Evaluation],
    *,
    title: str = "",
    baselines: Sequence[str] = (),
    triples: str = BY_PLACE,
    **settings: Any,
) -> Report:
    """The house's report over several models on the same documents.

    Figures and intervals are those of `Score`; differences are paired by documents (`score.pseudo_values`).

    Args:
        triples: which of `Evaluation.triples` is shown.
    """
    made = Report(
        title=title or "A graph from labelled documents", counted="documents", settings=dict(settings)
    )
    for name, one in rows.items():
        shown = {"triple F1": (triples, one.triples), "entity F1": ("borders and type", one.entities)}
        if one.relations:
            shown["relation F1 (entities given)"] = (
                "given, asserted",
                {"given, asserted": one.relations["asserted"]},
            )
        row = made.add(
            name,
            {metric: score.pseudo_values(one.counts[key]) for metric, (key, _) in shown.items()},
            baseline=name in baselines,
        )
        row.metrics.update({metric: scores[key].f1 for metric, (key, scores) in shown.items()})
    return made


def _each(
    count: Callable[[Annotated, Annotated], Count], found: Sequence[Annotated], gold: Sequence[Annotated]
) -> list[Count]:
    return [count(a, b) for a, b in zip(found, gold, strict=True)]


def _linked(one: Annotated) -> set:
    return {(*one.spans[number], id) for number, id in one.links.items()}


def _between_given(model: GraphModel, one: Annotated) -> tuple[set, set]:
    """The triples that the model finds between the labelled entities: those that it asserts, and all."""
    if model.relations is None:
        return set(), set()
    bare = Annotated(one.document, one.spans)
    said = model.relations.extract(bare, across=model.across)
    symmetric = {name for name, kind in model.schema.relations.items() if kind.symmetric}
    both = []
    for some in ([s for s in said if s.sure], said):
        relations = tuple(Relation(s.head, s.tail, s.type) for s in some)
        labels = Annotated(one.document, one.spans, relations)
        both.append(score.triples(labels, score.places(labels), symmetric))
    return both[0], both[1]


def _answered(
    answers: tuple[list[Answer], list[Answer]],
    reading: Reading,
    said: Annotated,
    one: Annotated,
    schema: Schema,
) -> None:
    right = score.entities(one.spans)
    answers[0].extend(
        Answer(m.score, tuple(s) in right) for m, s in zip(reading.mentions, said.spans, strict=True)
    )
    symmetric = {name for name, kind in schema.relations.items() if kind.symmetric}
    truth = score.triples(one, score.places(one), symmetric)
    keys = score.places(said)
    for statement, relation in zip(reading.statements, said.relations, strict=True):
        own = score.triples(Annotated(said.document, said.spans, (relation,)), keys, symmetric)
        answers[1].append(Answer(statement.score, own <= truth))


def _columns(answers: Sequence[Answer]) -> tuple[list[float], list[bool]]:
    return [a.probability for a in answers], [a.right for a in answers]
