"""Learn a model again with what reviewers decided, and say what that was worth.

    again = relearn(model, store)
    again.gain["relations"]            # of labels drawn at random, which the judged model hasn't seen
    again.model                        # learned from all of them; decisions stand in the graph whatever it finds

What was drawn at random measures, the rest teaches: a model that has learned from the chosen labels alone is compared
with the old one on the drawn ones. Where it is worse beyond doubt, the old model stays (`kept` is False). How sure that
model is of what was drawn, and how often it is right, moves the new one's calibration (`calibrate.refined`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.domains.kg.calibrate import Answer
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning import score
from quickstudy.domains.kg.learning.labels import DECISIONS, labels
from quickstudy.domains.kg.relations.examples import Example, labelled_pairs
from quickstudy.domains.kg.relations.related import learn_related
from quickstudy.domains.kg.use import GraphModel

FAINT = 0.01
"""Relations less probable than this say nothing of calibration."""
LEAST = 5
"""With fewer labels drawn at random than this, no gain is stated."""


@dataclass(frozen=True)
class Relearned:
    """A model that was learned again."""

    model: GraphModel
    """The new one; the old one where it isn't `kept`."""
    kept: bool
    taught: int
    """Labelled pieces from decisions, those that measured included."""
    drawn: int
    """Of these, the ones that were drawn at random."""
    lost: int
    """Decisions on texts that changed or went, or of types that the schema hasn't."""
    gain: dict[str, Estimate] = field(default_factory=dict)
    """New - old on what was drawn, in points: 'relations', of pairs judged rightly; 'entities', F1 of names in
    sentences whose names were all confirmed. Left out where there are too few."""
    before: dict[str, float] = field(default_factory=dict)
    """The old model's figures, of the same kinds."""
    answers: int = 0
    """Triples drawn at random that its calibration follows."""


def relearn(
    model: GraphModel,
    store: GraphStore,
    *,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Relearned:
    """Learn again from the model's examples and the decisions of a graph, with what it was given of earlier fields.

    Args:
        seed: of tuning.
        progress: is told the steps of tuning, and the loss.

    Raises:
        DataError: no decision says anything of a sentence.
    """
    found = labels(store, model.schema)
    if not found.chosen and not found.drawn:
        raise DataError(
            "no decision in this graph says anything of a sentence yet; `quickstudy kg review` asks for some."
            + (f" ({found.lost} speak of texts that changed or went.)" if found.lost else "")
        )
    old = [one for one in model.examples if not one.document.source.startswith(DECISIONS)]

    def learned(more: Sequence[Annotated]) -> GraphModel:
        return _learned(model, [*old, *more], seed, progress)

    gain: dict[str, Estimate] = {}
    before: dict[str, float] = {}
    base = learned(()) if len(old) < len(model.examples) else model
    answers: list[Answer] = []
    if found.drawn:
        judged = learned(found.chosen) if found.chosen else base
        gain, before = compared(base, judged, found.drawn) if found.chosen else ({}, {})
        answers = answered(judged, found.drawn)
    kept = is_kept(gain)
    new = replace(learned([*found.chosen, *found.drawn]), answers=tuple(answers)) if kept else model
    taught = len(found.chosen) + len(found.drawn)
    return Relearned(new, kept, taught, len(found.drawn), found.lost, gain, before, len(answers))


def answered(model: GraphModel, drawn: Sequence[Annotated]) -> list[Answer]:
    """What a model that hasn't seen them says of pairs that a reviewer judged, how sure it is, and whether it is right.

    Its names have to be those that were judged: of others it isn't known whether they are right.
    """
    judged = [one for one in drawn if one.partial]
    if model.relations is None or not judged:
        return []
    read = model.recogniser.find_all([one.document for one in judged])
    marked = [Annotated(d.document, tuple(e.span for e in es)) for d, es in zip(judged, read, strict=True)]
    told = model.relations.extract_all(marked, across=model.across, least=FAINT)
    answers: list[Answer] = []
    for one, es, said in zip(judged, read, told, strict=True):
        number = {span: i for i, span in enumerate(one.spans)}
        unrelated = {frozenset(ends) for ends in one.unrelated}
        for s in said:
            ends = number.get(es[s.head].span, -1), number.get(es[s.tail].span, -1)
            turned = model.schema.relations[s.type].symmetric and (*ends[::-1], s.type) in one.relations
            right = turned or (*ends, s.type) in one.relations
            # What a text says from tail to head wasn't judged by saying what it says from head to tail.
            if right or frozenset(ends) in unrelated or any(r[:2] == ends for r in one.relations):
                answers.append(Answer(es[s.head].score, es[s.tail].score, s.probability, right))
    return answers


def is_kept(gain: Mapping[str, Estimate]) -> bool:
    """Whether nothing became worse beyond doubt."""
    return all(one.high >= 0 for one in gain.values())


def compared(
    old: GraphModel, new: GraphModel, drawn: Sequence[Annotated]
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """What a model gained on labels that neither has seen, and the old one's figures."""
    gain: dict[str, Estimate] = {}
    before: dict[str, float] = {}
    pairs = [pair for one in drawn if one.partial for pair in labelled_pairs(one)]
    if len(pairs) >= LEAST:
        rights = [_rights(model, pairs) for model in (old, new)]
        gain["relations"] = paired_share(rights[1], rights[0])
        before["relations"] = 100 * sum(rights[0]) / len(pairs)
    whole = [one for one in drawn if not one.partial and one.spans]
    if len(whole) >= LEAST:
        counts = [_counts(model, whole) for model in (old, new)]
        gain["entities"] = score.gain(counts[1], counts[0])
        before["entities"] = score.Score.of(counts[0]).f1.mean
    return gain, before


def _learned(
    model: GraphModel, examples: Sequence[Annotated], seed: int, progress: Callable[[int, float], None] | None
) -> GraphModel:
    """From other examples, all else alike. Names are only learned again where other sentences are marked wholly."""
    encoder = model.recogniser.encoder
    if [one for one in examples if not one.partial] != [one for one in model.examples if not one.partial]:
        # A frozen one has a prior, too, but it is blank: given as experience, it would count for some.
        frozen = str(model.recogniser.report.get("made")).startswith("frozen")
        return GraphModel.learn(
            examples, model.schema, encoder, prior=None if frozen else model.recogniser.past,
            relation_prior=model.relation_prior, precision=model.precision, across=model.across, seed=seed,
            progress=progress,
        )  # fmt: skip
    relations = None
    # Decisions may speak of relations across sentences alone, where this model doesn't look.
    if any(pair.type for one in examples for pair in labelled_pairs(one, across=model.across)):
        relations = learn_related(
            examples, model.schema, encoder, model.relation_prior, model.precision, model.across, seed
        )
    return replace(model, examples=tuple(examples), relations=relations, seed=seed)


def _rights(model: GraphModel, pairs: Sequence[Example]) -> list[bool]:
    """Whether each pair is judged as the reviewer did: its relation likelier than not, or none."""
    if model.relations is None:
        return [pair.type is None for pair in pairs]
    ends = [(pair.head_type, pair.tail_type) for pair in pairs]  # by which the head judges
    admitted = torch.tensor(
        [[model.schema.admits(kind, end[0], end[1]) for kind in model.relations.types] for end in ends]
    )
    best, probability = model.relations.judge([pair.pair for pair in pairs], admitted, ends)
    said = [
        model.relations.types[int(kind)] if p >= 0.5 else None
        for kind, p in zip(best, probability, strict=True)
    ]
    return [kind == pair.type for kind, pair in zip(said, pairs, strict=True)]


def _counts(model: GraphModel, whole: Sequence[Annotated]) -> list[score.Count]:
    found = model.recogniser.find_all([one.document for one in whole])
    return [
        score.counted(score.entities(e.span for e in some), score.entities(one.spans))
        for some, one in zip(found, whole, strict=True)
    ]
