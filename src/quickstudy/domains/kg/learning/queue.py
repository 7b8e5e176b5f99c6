"""What to ask a reviewer next: most informative first, and one in five at random, by which the graph is measured.

    for item in queue(store, most=20): ...

Of statements, the relation with fewest labels comes first; within it, the one that is unsure, like many others and
unlike what was asked already:

    value = 4 p (1 - p) · density · (1 - likeness to those asked)

with p the statement's probability and likeness the cosine of bags of words of the two sentences. Between them stand
doubtful merges, links to the catalogue and mentions, what was inferred, and pairs of entities between which nothing was
found: most of these are none of the relations, and labels of that kind keep mere company in a sentence from being taken
for one. The draw at random is from all statements that nobody judged, sure ones too.
"""

import random as chance
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.document import sentences, words
from quickstudy.domains.kg.graph.records import Entity, Found, Said, Slice, Triple
from quickstudy.domains.kg.graph.settle import MEMBERS, PROPOSED, REVIEW
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.labels import sentence_of
from quickstudy.domains.kg.linking.across import LEAST

Kind = Literal["statement", "pair", "merge", "link", "mention", "proposal"]
KINDS: tuple[Kind, ...] = ("statement", "pair", "merge", "link", "mention", "proposal")
RATE: dict[Kind, int] = {"statement": 6, "pair": 2, "merge": 2, "link": 2, "mention": 2, "proposal": 2}
"""How many of each come in a round, as far as there are such."""
EVERY = 5
"""Of so many statements one is drawn at random."""
DOUBTFUL = 0.9
"""Mentions, merges and links at least so probable are asked about no more."""
POOL = 2000
"""Statements, the most unsure of them, that are compared with one another."""
FEATURES = 512


class Together(NamedTuple):
    """Two entities that a model takes for one."""

    one: Entity
    other: Entity
    score: float
    why: str


class Linked(NamedTuple):
    """An entity and the entry of the catalogue that it may be."""

    entity: Entity
    id: str
    name: str
    """The entry's."""
    score: float
    why: str
    document: str
    """Which mentions the entity first."""
    sentence: Slice


class Pair(NamedTuple):
    """Two mentions of one sentence between which nothing was found."""

    document: str
    sentence: Slice
    head: Found
    tail: Found
    relations: tuple[str, ...]
    """What may lead from the one to the other, by their types."""


class Doubtful(NamedTuple):
    """A mention that may be none."""

    document: str
    sentence: Slice
    found: Found


class Item(NamedTuple):
    """A question."""

    kind: Kind
    what: Said | Pair | Together | Linked | Doubtful | Triple
    why: str
    """Why it is asked."""
    random: bool = False


def queue(
    store: GraphStore,
    *,
    most: int = 20,
    labelled: Mapping[str, int] | None = None,
    kinds: Collection[str] = KINDS,
    seed: int = 0,
) -> list[Item]:
    """The questions that come next.

    Args:
        labelled: how many examples of each relation there are, beside the decisions in the graph.
        kinds: which kinds of questions.
        seed: of what is drawn at random.

    Raises:
        DataError: an unknown kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise DataError(
                f"{kind!r} is no kind of question.{did_you_mean(kind, KINDS)} There are: {', '.join(KINDS)}."
            )
    sources: dict[Kind, Iterator[Item]] = {
        "statement": _statements(store, labelled or {}, most, seed),
        "pair": _pairs(store, most, seed),
        "merge": _merges(store),
        "link": _links(store),
        "mention": _mentions(store),
        "proposal": _proposals(store),
    }
    open_: dict[Kind, Iterator[Item]] = {kind: sources[kind] for kind in KINDS if kind in kinds}
    found: list[Item] = []
    while open_ and len(found) < most:
        for kind in list(open_):
            for _ in range(RATE[kind]):
                item = next(open_[kind], None)
                if item is None:
                    del open_[kind]
                    break
                found.append(item)
    return found[:most]


def _statements(store: GraphStore, labelled: Mapping[str, int], most: int, seed: int) -> Iterator[Item]:
    """The informative ones, and after every four of them one at random; those alone, where no doubt is left."""
    numbers = [n for (n,) in store.rows("SELECT number FROM statements WHERE verdict = 0 ORDER BY number")]
    drawn = iter(chance.Random(seed).sample(numbers, min(len(numbers), 2 * most)))
    unsure = store.rows(
        "SELECT s.number, s.r, s.score, d.number, n.start, n.end FROM statements s JOIN sentences n "
        "ON n.number = s.sentence JOIN documents d ON d.number = n.document WHERE s.verdict = 0 AND NOT s.certain "
        "ORDER BY abs(s.score - 0.5), d.id, n.start, s.found_head, s.found_tail LIMIT ?",
        (POOL,),
    )
    told = Counter(dict(labelled)) + Counter(store.named(r) for r in _decided(store))
    informative = _informative([(row[2], store.named(row[1]), _bag(store, row)) for row in unsure], told)
    asked: set[int] = set()
    turn = 0
    while True:
        random, picked, why = turn % EVERY == EVERY - 1, None, ""
        if not random:
            place, why = next(((p, w) for p, w in informative if unsure[p][0] not in asked), (None, ""))
            picked, random = (None, True) if place is None else (unsure[place][0], False)
        if random:  # also where no doubt is left
            picked, why = next((n for n in drawn if n not in asked), None), "drawn at random, to measure"
        if picked is None:
            return
        turn += 1
        asked.add(picked)
        said = _said(store, picked)
        if said is not None:
            yield Item("statement", said, why, random)


def _informative(
    pool: Sequence[tuple[float, str, np.ndarray]], labelled: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Numbers of the pool, rarest relation first, and why."""
    if not pool:
        return
    x = np.stack([bag for _, _, bag in pool])
    likeness = x @ x.T
    near = np.sort(likeness, 1)[:, -11:-1]
    density = near.mean(1) if near.size else np.ones(len(pool))
    p = np.array([score for score, _, _ in pool])
    value, open_ = 4 * p * (1 - p) * (0.05 + density), np.ones(len(pool), bool)
    seen, count = np.zeros(len(pool)), labelled.copy()
    kinds = np.array([kind for _, kind, _ in pool])
    while open_.any():
        kind = min(sorted(set(kinds[open_])), key=lambda name: count[name])
        score = np.where(open_ & (kinds == kind), value * (1.05 - seen), -1.0)
        best = int(score.argmax())
        open_[best] = False
        seen = np.maximum(seen, likeness[best])
        yield best, f"unsure ({p[best]:.2f}), {count[kind]} label{'s' if count[kind] != 1 else ''} of {kind}"
        count[kind] += 1


def _bag(store: GraphStore, row: Sequence) -> np.ndarray:
    """A sentence's words, hashed: a vector of length 1."""
    found = store.one(
        "SELECT substr(text, ?, ?) FROM texts WHERE document = ?", (row[4] + 1, row[5] - row[4], row[3])
    )
    text = found[0] if found else ""
    vector = np.zeros(FEATURES)
    for start, end in words(text):
        vector[crc32(text[start:end].lower().encode()) % FEATURES] += 1
    return vector / (np.linalg.norm(vector) or 1.0)


def _decided(store: GraphStore) -> list[int]:
    """The relations of the statements that were judged."""
    return [r for (r,) in store.rows("SELECT r FROM statements WHERE verdict != 0")]


def _said(store: GraphStore, statement: int) -> Said | None:
    row = store.one(
        "SELECT h.name, hw.word, w.word, t.name, tw.word, d.id, hm.start, tm.start FROM statements s "
        "JOIN entities h ON h.number = s.h JOIN words hw ON hw.number = h.type JOIN words w ON w.number = s.r "
        "JOIN entities t ON t.number = s.t JOIN words tw ON tw.number = t.type "
        "JOIN mentions hm ON hm.number = s.found_head JOIN mentions tm ON tm.number = s.found_tail "
        "JOIN documents d ON d.number = hm.document WHERE s.number = ?",
        (statement,),
    )
    if row is None:
        return None
    head, kind, relation, tail, other, id, first, second = row
    for said in store.said(((head, kind), relation, (tail, other))):
        if (said.document, said.head.start, said.tail.start) == (id, first, second):
            return said
    return None


def _merges(store: GraphStore) -> Iterator[Item]:
    """What a model merged, the least sure first, where no decision speaks of the two."""
    rows = store.rows(
        "SELECT a.name, aw.word, b.name, bw.word, x.score, x.why FROM bonds x JOIN entities a ON a.number = x.one "
        "JOIN words aw ON aw.number = a.type JOIN entities b ON b.number = x.other JOIN words bw ON bw.number = b.type "
        "WHERE x.decision = 0 AND x.together AND x.score < ? AND NOT EXISTS (SELECT 1 FROM bonds y WHERE y.decision "
        "AND (y.one = x.one AND y.other = x.other OR y.one = x.other AND y.other = x.one)) ORDER BY x.score, 1, 3",
        (DOUBTFUL,),
    )
    for one, kind, other, other_kind, score, why in rows:
        yield Item(
            "merge",
            Together(Entity(one, kind), Entity(other, other_kind), score, why),
            f"merged with {score:.2f}",
        )


def _links(store: GraphStore) -> Iterator[Item]:
    """Links that a model made, the least sure first, then those that it only suggests, the likeliest first: where no
    decision speaks of the two, and the entity isn't linked.
    """
    entity = "JOIN entities e ON e.number = {0} JOIN words w ON w.number = e.type"
    group = f"({MEMBERS.format('coalesce(nullif(e.merged_into, 0), e.number)')})"
    decided = (
        "EXISTS (SELECT 1 FROM bonds y WHERE y.one = e.number AND y.decision AND y.other = -c.number) OR "
        f"EXISTS (SELECT 1 FROM bonds y WHERE y.one IN {group} AND y.decision AND y.together AND y.other < 0)"
    )
    rows = store.rows(
        "SELECT e.number, e.name, w.word, c.id, c.name, x.score, x.why, 'linked', 0, x.score FROM bonds x "
        f"JOIN catalogue c ON c.number = -x.other {entity.format('x.one')} "
        f"WHERE x.decision = 0 AND x.together AND x.score < ?1 AND NOT ({decided}) UNION ALL "
        "SELECT e.number, e.name, w.word, c.id, c.name, s.score, s.why, 'may be', 1, -s.score FROM suggested s "
        f"JOIN catalogue c ON c.number = s.entry {entity.format('s.entity')} WHERE s.score >= ?2 AND NOT ({decided}) "
        f"AND NOT EXISTS (SELECT 1 FROM bonds z WHERE z.one IN {group} AND z.other < 0 AND z.together "
        "AND NOT EXISTS (SELECT 1 FROM bonds no WHERE no.one = z.one AND no.other = z.other "
        "AND no.decision > z.decision AND NOT no.together)) "
        "ORDER BY 9, 10, 2",
        (DOUBTFUL, LEAST),
    )
    for number, name, kind, id, called, score, why, how, _, _ in rows:
        held = store.one(
            "SELECT d.id, m.start, m.end FROM mentions m JOIN documents d ON d.number = m.document "
            "WHERE m.entity = ? ORDER BY m.document, m.start LIMIT 1",
            (number,),
        )
        if held is not None:
            near = _around(store, *held)
            one = Linked(Entity(name, kind), id, called, score, why, held[0], near)
            yield Item("link", one, f"{how} with {score:.2f}")


def _mentions(store: GraphStore) -> Iterator[Item]:
    """Mentions that may be none, the most doubtful first, one of each name; not those that were mended already."""
    done = {
        (d.body["document"], d.body["mention"]["start"])
        for d in store.log()
        if d.kind == "mention" and not d.undone
    } | {
        (d.body["document"], held["start"])
        for d in store.log()
        if d.kind == "whole" and not d.undone
        for held in d.body["mentions"]
    }
    rows = store.rows(
        "SELECT d.id, m.start, m.end, min(abs(m.score - 0.5)), m.score FROM mentions m JOIN documents d "
        "ON d.number = m.document WHERE m.score < ? GROUP BY m.found ORDER BY 4, d.id, m.start",
        (DOUBTFUL,),
    )
    for id, start, end, _, score in rows:
        if (id, start) in done:
            continue
        found = next((m for m in store.mentions(id) if (m.start, m.end) == (start, end)), None)
        if found is not None:
            yield Item(
                "mention", Doubtful(id, _around(store, id, start, end), found), f"a name with {score:.2f}"
            )


def _proposals(store: GraphStore) -> Iterator[Item]:
    """What was inferred, the likeliest first."""
    for one in sorted(store.triples(status=("proposed",)), key=lambda t: -(t.score or 0.0)):
        yield Item("proposal", one, f"inferred with {one.score or 0.0:.2f}; no sentence says so")


def _pairs(store: GraphStore, most: int, seed: int) -> Iterator[Item]:
    """Pairs of one sentence whose types some relation joins and between which nothing was found, in random order."""
    admitted: dict[tuple[str, str], set[str]] = {}
    for relation, head, tail in store.rows(
        "SELECT DISTINCT s.found_relation, h.type, t.type FROM statements s JOIN mentions h ON h.number = found_head "
        "JOIN mentions t ON t.number = found_tail"
    ):
        admitted.setdefault((store.named(head), store.named(tail)), set()).add(store.named(relation))
    said = set(store.rows(
        "SELECT d.id, h.start, t.start FROM statements JOIN mentions h ON h.number = found_head "
        "JOIN mentions t ON t.number = found_tail JOIN documents d ON d.number = h.document"
    ))  # fmt: skip
    for one in store.log():
        if one.kind == "pair" and not one.undone:
            said.add((one.body["document"], one.body["head"]["start"], one.body["tail"]["start"]))
    documents = [id for (id,) in store.rows("SELECT id FROM documents WHERE state = 1 ORDER BY id")]
    chance.Random(seed).shuffle(documents)
    for id in documents if admitted else ():
        found, text = store.mentions(id), store.document(id).text
        for piece in sentences(text):
            inside = [m for m in found if piece.start <= m.start and m.end <= piece.end]
            free = [
                Pair(
                    id,
                    Slice(*piece, text[piece.start : piece.end]),
                    a,
                    b,
                    tuple(sorted(admitted[a.type, b.type])),
                )
                for a in inside
                for b in inside
                if a.end <= b.start or b.end <= a.start
                if (a.type, b.type) in admitted
                and not {(id, a.start, b.start), (id, b.start, a.start)} & said
                if a.entity != b.entity
            ]
            if free:  # the nearest two of a sentence look most as if they had to do with one another
                chosen = min(free, key=lambda p: (abs(p.head.start - p.tail.start), p.head.start))
                yield Item("pair", chosen, "nothing was found between the two")


def _around(store: GraphStore, id: str, start: int, end: int) -> Slice:
    text = store.document(id).text
    piece = sentence_of(text, start, end)
    return Slice(*piece, text[piece.start : piece.end])


def waiting(store: GraphStore) -> dict[str, int]:
    """How many triples wait for a reviewer: 'review' and 'proposed'."""
    return {
        name: store.rows(
            "SELECT count(*) FROM (SELECT 1 FROM triples WHERE status = ? GROUP BY head, relation, tail)",
            (status,),
        )[0][0]
        for name, status in (("review", REVIEW), ("proposed", PROPOSED))
    }
