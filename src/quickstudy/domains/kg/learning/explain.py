"""Why a triple is in the graph: the sentences that say it, what spoke for it, and what holds its entities together.

    told = explain(store, triple, model)
    told.sentences[0].rests_on                 # 'examples 3 and 7': without one of them it would go to review

Influence is exact, not approximated: what a relation learns from a labelled document is closed form, so it is learned
again without each document in turn (`RelationClassifier.without`), which gives what learning from nothing would give.

    effect_i = logit P(relation; all examples) - logit P(relation; all but document i)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import holding, sentences
from quickstudy.domains.kg.graph.query import relation_number, resolve
from quickstudy.domains.kg.graph.records import Name, Said, Triple
from quickstudy.domains.kg.graph.settle import HOLDS
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.relations.classifier import RelationClassifier
from quickstudy.domains.kg.relations.pairs import Pair, marked
from quickstudy.domains.kg.use import GraphModel

LEAST = 0.01
"""An effect, in log-odds, below which an example is said to have none."""


class Spoke(NamedTuple):
    """What a labelled document did for an answer."""

    example: int
    """Its number among those that the model was learned from, from 0."""
    id: str
    text: str
    """Of it the two names most alike, in brackets, with what stands around them."""
    says: str
    """The relation that these two were labelled with; empty for none; for one turned round that it is."""
    effect: float
    """In log-odds; above 0 it spoke for the answer. Infinite for the only example of a relation."""
    without: float
    """The probability of the triple without it."""


@dataclass(frozen=True)
class Sentence:
    """A sentence that says a triple."""

    said: Said
    probability: float | None
    """Of the triple, by this sentence, as the model would judge it today; None without a model, or where the model
    doesn't know the relation."""
    spoke: tuple[Spoke, ...]
    """All labelled documents that had an effect, the strongest first."""
    precision: float | None = None
    """What the model asserts from."""

    @property
    def rests_on(self) -> list[int]:
        """Examples without any one of which the relation would fall below the stated precision."""
        if self.probability is None or self.precision is None or self.probability < self.precision:
            return []
        return [one.example for one in self.spoke if one.without < self.precision]


class Bond(NamedTuple):
    """Why two entities, or an entity and an entry of the catalogue, are one, or are not."""

    one: str
    other: str
    together: bool
    score: float
    why: str
    by: str
    """The model; or 'decision 7', with who made it."""


class Inferred(NamedTuple):
    """Why a triple was proposed."""

    model: str
    score: float
    why: str


@dataclass(frozen=True)
class Explanation:
    """All that speaks for a triple."""

    triple: Triple
    sentences: tuple[Sentence, ...]
    head: tuple[Bond, ...]
    """What holds together the names of the head."""
    tail: tuple[Bond, ...]
    inferred: tuple[Inferred, ...]
    paths: tuple[tuple[Triple, ...], ...]
    """How else the two hang together, for what was inferred."""
    decisions: tuple[str, ...]
    """What reviewers decided on the triple itself, the oldest first."""


def explain(
    store: GraphStore,
    triple: Triple | tuple[Name, str, Name],
    model: GraphModel | None = None,
    *,
    most: int = 3,
) -> Explanation:
    """Say why a triple is in the graph.

    Args:
        model: the one that read the documents; without it, examples can't be named.
        most: sentences that are explained, the surest first.

    Raises:
        DataError: the graph has no such triple, entity or relation.
    """
    head, relation, tail = triple[:3]
    found = store.triple(head, relation, tail)
    if found is None:
        raise DataError(f"the graph has no triple {_name(head)!r} {relation} {_name(tail)!r}.")
    ends = resolve(store, head), resolve(store, tail)
    told = [_sentence(store, said, model) for said in store.said(found)[:most]]
    inferred = _inferred(store, ends[0], relation_number(store, relation), ends[1])
    paths: Sequence[tuple[Triple, ...]] = ()
    if inferred and ends[0] != ends[1]:
        paths = [path for path in store.paths(found.head, found.tail, limit=6) if len(path) > 1]
    held = [tuple(bonds(store, end)) for end in ends]
    decided = tuple(_decided(store, found))
    return Explanation(found, tuple(told), held[0], held[1], tuple(inferred), tuple(paths), decided)


def bonds(store: GraphStore, entity: Name | int) -> list[Bond]:
    """What holds the names of an entity together, and what was said to hold and is overruled: decisions first, then
    the surest.
    """
    here = entity if isinstance(entity, int) else resolve(store, entity)
    rows = store.rows(
        "WITH RECURSIVE near (number) AS (SELECT number FROM entities WHERE number = ?1 OR merged_into = ?1 UNION "
        f"SELECT CASE WHEN one = near.number THEN other ELSE one END FROM near JOIN bonds ON {HOLDS} AND "
        "(one = near.number AND other < 0 OR other = near.number AND one < 0)) "
        "SELECT DISTINCT one, other, together, score, why, model, decision FROM bonds JOIN near "
        "ON one = number OR other = number ORDER BY decision DESC, score DESC, one, other",
        (here,),
    )
    who = {decision.number: decision for decision in store.log()} if any(row[-1] for row in rows) else {}
    found = []
    for one, other, together, score, why, model, decision in rows:
        by = store.named(model) if not decision else f"decision {decision}"
        if decision in who and who[decision].who:
            by += f" of {who[decision].who}"
        why = who[decision].note if decision in who else why
        found.append(Bond(_called(store, one), _called(store, other), bool(together), score, why, by))
    return found


def pair_of(store: GraphStore, said: Said) -> Pair:
    """The pair of a sentence as a model reads it: the sentences that hold its two mentions."""
    text = store.document(said.document).text
    pieces = list(sentences(text))
    start, end = min(said.head.start, said.tail.start), max(said.head.end, said.tail.end)
    touched = holding(pieces, start, end)
    first, last = (pieces[touched[0]].start, pieces[touched[-1]].end) if touched else (start, end)
    return marked(text, (said.head.start, said.head.end), (said.tail.start, said.tail.end), first, last)


def spoken(
    model: GraphModel,
    pair: Pair,
    kind: str,
    ends: tuple[str, str],
    sure: tuple[float, float] = (1.0, 1.0),
) -> tuple[float, list[Spoke]]:
    """The probability that a triple is right by a pair, and what each labelled document did for its relation.

    Args:
        ends: the types of head and tail.
        sure: the probabilities of the two mentions; they stay as they are whatever is left out.

    Raises:
        DataError: the model knows no example of the relation.
    """
    relations = model.relations
    if relations is None or kind not in relations.types:
        raise DataError(f"the model has no example of {kind!r}.")
    vector = relations.pairs.encode([pair])
    x = relations.prior.features(vector)
    before = _odds(relations, x, kind, ends)

    def whole(odds: float) -> float:
        return model.scale.triple(*sure, _probability(odds)) if odds > -math.inf else 0.0

    labelled = (*relations.examples, *relations.others)
    cosines = torch.cat([relations.x @ x[0], relations.unrelated @ x[0]])
    found = []
    for number in sorted({example.origin for example in labelled}):
        other, after = relations.without(number), -math.inf
        if other is not None and kind in other.types:
            after = _odds(other, other.prior.features(vector), kind, ends)
        if abs(before - after) < LEAST:
            continue
        # What spoke for it is one of its relation, if the document has one; what spoke against it, anything else.
        own = [i for i, e in enumerate(labelled) if e.origin == number]
        alike = [i for i in own if (labelled[i].type == kind) == (before > after)] or own
        best = labelled[max(alike, key=lambda row: float(cosines[row]))]
        id = model.examples[number].document.id if number >= 0 else ""
        says = best.type or ("not the other way round" if best.turned else "")
        found.append(Spoke(number, id, bracketed(best.pair), says, before - after, whole(after)))
    return whole(before), sorted(found, key=lambda one: -abs(one.effect))


def bracketed(pair: Pair, around: int = 40) -> str:
    """The two names of a pair in brackets, and so many characters on either side."""
    text, marks = pair.text, sorted([pair.head, pair.tail])
    begin, end = max(0, marks[0][0] - around), min(len(text), marks[1][1] + around)
    parts, at = ["…" if begin else ""], begin
    for a, b in marks:
        if a >= at:
            parts += [text[at:a], "[", text[a:b], "]"]
            at = b
    return " ".join("".join([*parts, text[at:end], "…" if end < len(text) else ""]).split())


def _sentence(store: GraphStore, said: Said, model: GraphModel | None) -> Sentence:
    if model is None or model.relations is None or said.relation not in model.relations.types:
        return Sentence(said, None, ())
    at = {(m.start, m.end): m for m in store.mentions(said.document)}
    head, tail = at[said.head.start, said.head.end], at[said.tail.start, said.tail.end]
    ends, sure = (head.type, tail.type), (head.score, tail.score)
    probability, spoke = spoken(model, pair_of(store, said), said.relation, ends, sure)
    return Sentence(said, probability, tuple(spoke), model.precision)


def _odds(relations: RelationClassifier, x: torch.Tensor, kind: str, ends: tuple[str, str]) -> float:
    admitted = torch.tensor(
        [[relations.schema.admits(other, *ends) or other == kind for other in relations.types]]
    )
    return float(relations.log_odds(x, kind, admitted, [ends]))


def _probability(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def _called(store: GraphStore, number: int) -> str:
    """An end of a bond: an entity as it was said, or an entry of the catalogue."""
    if number < 0:
        row = store.one("SELECT id, name FROM catalogue WHERE number = ?", (-number,))
        return f"{row[0]} ({row[1]})" if row and row[1] else row[0] if row else "?"
    row = store.one("SELECT name FROM entities WHERE number = ?", (number,))
    return row[0] if row else "?"


def _inferred(store: GraphStore, head: int, relation: int, tail: int) -> list[Inferred]:
    members = "SELECT number FROM entities WHERE number = {0} OR merged_into = {0}"
    rows = store.rows(
        f"SELECT model, score, why FROM proposals WHERE head IN ({members.format('?1')}) AND relation = ?2 "
        f"AND tail IN ({members.format('?3')}) ORDER BY score DESC",
        (head, relation, tail),
    )
    return [Inferred(store.named(model), score, why) for model, score, why in rows]


def _decided(store: GraphStore, triple: Triple) -> list[str]:
    told = []
    ends = [{(name, end.type) for name in store.names(end)["names"]} for end in (triple.head, triple.tail)]
    for one in store.log():
        body = one.body
        if one.undone or one.kind not in ("accept", "reject") or "document" in body:
            continue
        if body["relation"] == triple.relation and all(
            tuple(body[name]) in end for name, end in zip(("head", "tail"), ends, strict=True)
        ):
            note = f": {one.note}" if one.note else ""
            told.append(f"decision {one.number}, {one.at}, {one.who or 'somebody'}: {one.kind}{note}")
    return told


def _name(name: Name) -> str:
    return name if isinstance(name, str) else name[0]
