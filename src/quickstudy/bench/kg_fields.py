"""Two published fields to build a graph of: CoNLL04 (news) and BC5CDR (chemicals that cause diseases).

What may be labelled are single sentences of the train part that stand in no other part (`Field.draw`): of CoNLL04's
test texts one in twelve stands in its train part too. CoNLL04's triples are (head, relation, tail) of exact
spans within a sentence: Roth & Yih 2004, split of Gupta et al. 2016. BC5CDR's relations are said of a whole abstract
and of MeSH ids (Li et al. 2016, doi:10.1093/database/baw068): a sentence that holds mentions of both ids is taken to
say it, and triples are judged per abstract: a mention with the exact borders and type of a labelled one stands for
that one's id, any other for its own words, so that it can only be wrong. Pairs that never share a sentence stay in the
truth: nobody here can find them, and recall says so.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from quickstudy.bench.relation_data import plain
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span, sentences
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.domains.kg.relations.pairs import candidates
from quickstudy.domains.kg.schema import Schema

UNRELATED = "unrelated"
"""What a sentence counts as an example of where two of its mentions could be related by type, and aren't."""
SCHEMAS = {
    "CoNLL04": {
        "entities": {"Peop": "people", "Org": "organizations", "Loc": "locations", "Other": "other names"},
        "relations": {
            "Work_For": {"head": "Peop", "tail": "Org", "description": "a person works for an organization"},
            "Live_In": {"head": "Peop", "tail": "Loc", "description": "a person lives in a place"},
            "OrgBased_In": {"head": "Org", "tail": "Loc", "description": "an organization is based in a place"},
            "Located_In": {"head": "Loc", "tail": "Loc", "description": "a place lies in a larger one"},
            "Kill": {"head": "Peop", "tail": "Peop", "description": "a person kills another"},
        },
    },
    "BC5CDR": {
        "entities": {"Chemical": "chemicals and drugs", "Disease": "diseases, symptoms and side effects"},
        "relations": {
            "CID": {"head": "Chemical", "tail": "Disease", "description": "a chemical induces a disease"}
        },
    },
}  # fmt: skip
PARTS = ("train", "dev", "test")
_FILES = {
    "CoNLL04": ("relations/conll04/{}.txt", "conll04"),
    "BC5CDR": ("linking/bc5cdr_el/CDR_{}.PubTator.txt.gz", "pubtator"),
}


class Triple(NamedTuple):
    """What a document says, in a form that labels and answers share."""

    head: str
    relation: str
    tail: str


@dataclass(frozen=True)
class Field:
    """A field with labels."""

    name: str
    schema: Schema
    data: Path

    @classmethod
    def of(cls, name: str, data: Path) -> "Field":
        return cls(name, Schema.of({"name": name} | SCHEMAS[name]), data)

    def part(self, part: str) -> list[Annotated]:
        """The documents of one of `PARTS`. To learn from, take `draw`: texts of the train part stand in others too."""
        path, format = _FILES[self.name]
        path = self.data / path.format(part)
        if not path.exists():
            path = path.with_name(path.name + ".gz")
        return read_annotated(path, self.schema, format)

    def rows(self, whole: bool = False) -> list[Annotated]:
        """What may be labelled: the train part's sentences, or whole documents, that stand in no part that is reported.

        Texts are the same if they are so by letters and digits; of a whole document, no sentence stands there either.
        """
        reported = [one for part in ("dev", "test") for one in self.part(part)]
        known = {plain(one.text) for one in (*reported, *alone(reported))} - {""}
        train = self.part("train")
        return [
            row
            for row in (train if whole else alone(train))
            if known.isdisjoint(plain(one.text) for one in (row, *alone([row])))
        ]

    def draw(self, shots: int, seed: int, whole: bool = False) -> list[Annotated]:
        """Rows to label: at least `shots` that hold each type, each relation and unrelated mentions.

        The rarest is served first, and what a row holds besides counts too.

        Args:
            whole: documents as they are, not their sentences.
        """
        order = self.rows(whole)
        random.Random(seed).shuffle(order)
        holds = [_kinds(row, self.schema) for row in order]
        there = Counter(kind for kinds in holds for kind in kinds)
        held: Counter[str] = Counter()
        chosen: list[int] = []
        wanted = [*self.schema.entities, *self.schema.relations, UNRELATED]
        for kind in sorted(wanted, key=lambda kind: there[kind]):
            for i, kinds in enumerate(holds):
                if held[kind] >= shots:
                    break
                if i not in chosen and kind in kinds:
                    chosen.append(i)
                    held.update(kinds)
        return [order[i] for i in sorted(chosen)]


def alone(documents: Iterable[Annotated]) -> list[Annotated]:
    """Each sentence of labelled documents as a document of its own, with what is labelled within it."""
    found = []
    for one in documents:
        for number, piece in enumerate(sentences(one.text)):
            kept = [i for i, s in enumerate(one.spans) if piece.start <= s.start and s.end <= piece.end]
            place = {i: k for k, i in enumerate(kept)}
            spans = (one.spans[i] for i in kept)
            found.append(
                Annotated(
                    Document(f"{one.document.id}.{number}", one.text[piece.start : piece.end]),
                    tuple(Span(s.start - piece.start, s.end - piece.start, s.type) for s in spans),
                    tuple(
                        Relation(place[r.head], place[r.tail], r.type)
                        for r in one.relations
                        if r.head in place and r.tail in place
                    ),
                    complete=True,
                    links={place[i]: one.links[i] for i in kept if i in one.links},
                )
            )
    return found


def unrelated(one: Annotated, schema: Schema) -> list[tuple[int, int]]:
    """Pairs of mentions in one sentence that some relation's types would admit, and that aren't related."""
    said = {(r.head, r.tail) for r in one.relations}
    said |= {(tail, head) for head, tail in said}
    kinds = [span.type for span in one.spans]
    return [
        (head, tail)
        for (head, tail), _ in candidates(one)
        if (head, tail) not in said
        and any(schema.admits(r, kinds[head], kinds[tail]) for r in schema.relations)
    ]


def _kinds(one: Annotated, schema: Schema) -> set[str]:
    kinds = {span.type for span in one.spans} | {relation.type for relation in one.relations}
    return kinds | ({UNRELATED} if unrelated(one, schema) else set())


def truth(one: Annotated) -> set[Triple]:
    """The triples that are labelled in a document."""
    return {
        Triple(head, r.type, tail)
        for r in one.relations
        for head in _ends(one, one.spans[r.head])
        for tail in _ends(one, one.spans[r.tail])
    }  # fmt: skip


def told(one: Annotated, head: Span, relation: str, tail: Span) -> Triple:
    """An answer about a labelled document, as the triple that it stands for."""
    options = [Triple(h, relation, t) for h in _ends(one, head) for t in _ends(one, tail)]
    right = truth(one)
    return next((option for option in options if option in right), options[0])


def _ends(one: Annotated, span: Span) -> list[str]:
    """What a mention stands for: ids where its like is labelled with some, else where it stands or what it says."""
    if not one.links:
        return [f"{span.start}-{span.end} {span.type}"]
    number = next((i for i, s in enumerate(one.spans) if s == span), None)
    ids = "" if number is None else one.links.get(number, "")
    return (
        sorted(ids.split("|"))
        if ids and ids != "-1"
        else [f"{one.text[span.start : span.end].lower()} {span.type}"]
    )


def sampled(documents: Sequence[Annotated], most: int | None) -> list[Annotated]:
    """At most so many documents, drawn once for all; in their order."""
    if most is None or most >= len(documents):
        return list(documents)
    return [documents[i] for i in sorted(random.Random(0).sample(range(len(documents)), most))]


def bare(one: Annotated) -> Annotated:
    """The same without its relations."""
    return replace(one, relations=())
