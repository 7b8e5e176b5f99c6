"""What reviewers decided, as labelled examples: the graph's log teaches entities and relations alike.

A decision on a sentence teaches the relation of its two mentions, yes or no. It teaches entities only where the
reviewer said that a whole sentence is marked rightly (`GraphStore.whole`): of others it isn't known what was
overlooked. Decisions on a triple as such teach nothing, since it may be right whatever a sentence says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.document import Annotated, Document, Relation, Sentence, Span, holding, sentences
from quickstudy.domains.kg.graph.decisions import Decision
from quickstudy.domains.kg.graph.replay import ENOUGH
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.schema import Schema

RANDOM = "drawn at random"
"""The note of a decision on what the queue drew without regard to anything: only such ones measure honestly."""
ASSERTED, DOUBTED = f"{RANDOM}, asserted", f"{RANDOM}, for review"
"""The same, with what the graph held it for."""
DECISIONS = "decisions on "
"""Begins the source of an example that was made of decisions; the document's id follows."""
Place = tuple[int, int]
Edge = tuple[Place, str | None, Place]
"""Head, relation and tail; no relation says that there is none."""


class Labels(NamedTuple):
    """Examples from decisions."""

    chosen: list[Annotated]
    """From what was asked because it taught most."""
    drawn: list[Annotated]
    """From what was drawn at random, so that it also measures."""
    lost: int
    """Decisions on texts that aren't there any more, or that say nothing that the schema knows."""


class _Verdict(NamedTuple):
    """What was last decided on something that a text is held to say."""

    edge: Edge
    """What it says, after corrections."""
    holds: bool
    random: bool
    """Whether it was drawn at random."""


@dataclass
class _Told:
    """What was decided on one document."""

    text: str
    types: dict[Place, str]
    """Of mentions, as they were found."""
    mended: dict[Place, Span | None] = field(default_factory=dict)
    said: dict[Edge, _Verdict] = field(default_factory=dict)
    """By what was found, or added: a text may say several things of the same two."""
    whole: dict[Place, tuple[list[Place], bool]] = field(default_factory=dict)
    """Sentence -> its mentions; and whether it was drawn at random."""


def labels(store: GraphStore, schema: Schema) -> Labels:
    """All that the decisions which stand teach; where two contradict each other, the later one.

    A relation that is rejected takes no other from its two mentions.
    """
    told: dict[str, _Told] = {}
    lost = 0
    for decision in store.log():
        if decision.undone or "document" not in decision.body:
            continue
        id = decision.body["document"]
        if id not in told:
            try:
                text = store.document(id).text
            except DataError:  # withdrawn since
                lost += 1
                continue
            told[id] = _Told(text, {(m.start, m.end): m.type for m in store.mentions(id)})
        lost += not _note(told[id], decision)
    chosen: list[Annotated] = []
    drawn: list[Annotated] = []
    for id, one in told.items():
        for example, random in _examples(id, one, schema):
            if example is None:
                lost += 1
            else:
                (drawn if random else chosen).append(example)
    return Labels(chosen, drawn, lost)


def measured(store: GraphStore) -> dict[str, Estimate]:
    """How often the graph is right, by what was drawn at random, in percent with Wilson's interval.

    Of 'asserted' statements, and of those 'for review'. Decisions count that stand; what wasn't drawn is left out.
    """
    counted: dict[str, list[bool]] = {}
    for decision in store.log():
        for note, name in ((ASSERTED, "asserted"), (DOUBTED, "for review")):
            if (
                decision.note == note
                and not decision.undone
                and decision.kind in ("accept", "reject", "correct")
            ):
                counted.setdefault(name, []).append(decision.kind == "accept")
    return {name: Estimate.share(sum(rights), len(rights)) for name, rights in counted.items()}


def _note(told: _Told, decision: Decision) -> bool:
    """Take a decision down; False where the text doesn't say any more what it speaks of."""
    body, random = decision.body, decision.note.startswith(RANDOM)
    if decision.kind == "mention":
        place = _again(told, body["mention"])
        if place is None:
            return False
        to = body["to"]
        told.mended[place] = to and Span(place[0] + to["shift"][0], place[1] + to["shift"][1], to["type"])
        return True
    if decision.kind == "name":  # by itself it teaches nothing: what else was missed isn't known
        return _again(told, body["name"]) is not None
    if decision.kind == "whole":
        place, held = _again(told, body["sentence"]), [_again(told, one) for one in body["mentions"]]
        if place is None or None in held:
            return False
        told.whole[place] = ([one for one in held if one], random)
        return True
    if decision.kind not in ("accept", "reject", "correct", "pair"):
        return False
    head, tail = _again(told, body["head"]), _again(told, body["tail"])
    if head is None or tail is None:
        return False
    if decision.kind == "pair":
        _add(told, (head, body["relation"], tail), random)
        return True
    found: Edge = (head, body["found"], tail)
    before = told.said.pop(found, None)
    says = before.edge if before else found
    if decision.kind == "correct":
        says = (tail, body["relation"], head) if body["turned"] else (head, body["relation"], tail)
    told.said[found] = _Verdict(says, decision.kind != "reject", random)
    return True


def _add(told: _Told, added: Edge, random: bool) -> None:
    """Take down a relation that was missed, or that there is none: the later contradicts the earlier."""
    ends, relation = {added[0], added[2]}, added[1]
    for known, verdict in list(told.said.items()):
        if {known[0], known[2]} == ends and (relation is None or verdict.edge[1] is None):
            del told.said[known]
    told.said.pop(added, None)
    told.said[added] = _Verdict(added, relation is not None, random)


def _pairs(told: _Told) -> Iterator[tuple[Edge, bool]]:
    """What a text says of two mentions, and whether that was drawn at random: all relations that stand; only where none
    does, either way, and one was rejected, that there is none.
    """
    standing = {one.edge: one.random for one in told.said.values() if one.holds}
    related = {frozenset((head, tail)) for head, _, tail in standing}
    denied: dict[Edge, bool] = {
        (head, None, tail): random
        for (head, _, tail), holds, random in told.said.values()
        if not holds and frozenset((head, tail)) not in related
    }
    yield from (standing | denied).items()


def _again(told: _Told, known: dict[str, Any]) -> Place | None:
    """Where a text says today what a decision was about; its type is taken down where the decision has it."""
    text, start, words = told.text, known["start"], known["text"]
    before, after = known["around"]

    def fits(at: int, least: int) -> bool:
        near = text[max(0, at - len(before)) : at], text[at + len(words) : at + len(words) + len(after)]
        whole = near == (before, after)
        return whole or any(a == b and len(a) >= least for a, b in zip(near, (before, after), strict=True))

    place = None
    if text[start : start + len(words)] == words and fits(start, ENOUGH):
        place = start, start + len(words)
    else:
        at = text.find(words)
        while at >= 0 and not fits(at, ENOUGH):
            at = text.find(words, at + 1)
        place = (at, at + len(words)) if at >= 0 else None
    if place is not None and "type" in known:
        told.types.setdefault(place, known["type"])
    return place


def _examples(id: str, told: _Told, schema: Schema) -> Iterator[tuple[Annotated | None, bool]]:
    """Examples, and whether they were drawn at random; None for what the schema doesn't know."""
    pieces = list(sentences(told.text))

    def span(place: Place) -> Span | None:
        if place in told.mended:
            return told.mended[place]
        kind = told.types.get(place)
        return None if kind is None else Span(*place, kind)

    for (start, end), (held, random) in told.whole.items():
        spans = [
            found for place in held if (found := span(place)) and start <= found.start and found.end <= end
        ]
        if any(found.type not in schema.entities for found in spans):
            yield None, random
            continue
        # With two spans or more `complete` would say that they aren't related, which nobody said.
        yield _cut(id, told.text, start, end, spans, (), (), complete=len(spans) < 2), random
    grouped: dict[tuple[Place, bool], list[tuple[Span, Span, str | None]]] = {}
    for (one, said, other), random in _pairs(told):
        head, tail = span(one), span(other)
        if head is None or tail is None or head.overlaps(tail):
            continue
        known = head.type in schema.entities and tail.type in schema.entities
        if not known or (said is not None and schema.misfit(said, head.type, tail.type)):
            yield None, random
            continue
        touched = holding(pieces, min(head.start, tail.start), max(head.end, tail.end))
        where = pieces[touched[0]].start, pieces[touched[-1]].end
        grouped.setdefault((where, random), []).append((head, tail, said))
    for ((start, end), random), pairs in grouped.items():
        spans = sorted({one for head, tail, _ in pairs for one in (head, tail)})
        place = {one: number for number, one in enumerate(spans)}
        related = tuple(Relation(place[h], place[t], said) for h, t, said in pairs if said is not None)
        unrelated = tuple((place[h], place[t]) for h, t, said in pairs if said is None)
        yield _cut(id, told.text, start, end, spans, related, unrelated, partial=True), random


def _cut(
    id: str,
    text: str,
    start: int,
    end: int,
    spans: Sequence[Span],
    relations: tuple[Relation, ...],
    unrelated: tuple[Place, ...],
    complete: bool = False,
    partial: bool = False,
) -> Annotated:
    """A stretch of a document as a labelled document of its own."""
    own = Document(f"{id}#{start}", text[start:end], f"{DECISIONS}{id}")
    moved = tuple(Span(a - start, b - start, kind) for a, b, kind in spans)
    return Annotated(own, moved, relations, complete, partial=partial, unrelated=unrelated)


def sentence_of(text: str, start: int, end: int) -> Sentence:
    """The sentence, or sentences, that a stretch of a text touches."""
    pieces = list(sentences(text))
    touched = holding(pieces, start, end)
    return Sentence(pieces[touched[0]].start, pieces[touched[-1]].end) if touched else Sentence(start, end)
