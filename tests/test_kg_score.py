"""Scores of graphs: counted as anybody would by hand, with intervals that hold what they say."""

import math

import numpy as np
import pytest

from quickstudy.core.calibration import expected_error, reliability
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.learning import score
from quickstudy.domains.kg.learning.evaluate import BY_ID, BY_NAME, BY_PLACE, compare, report
from quickstudy.domains.kg.learning.score import Count, Score, gain, mean_gain, pseudo_values
from quickstudy.domains.kg.schema import Schema

TEXT = "Aspirin caused asthma. ASA, that is aspirin, eased pain."
SCHEMA = Schema.of({
    "entities": ["drug", "disease"],
    "relations": {"causes": {"head": "drug", "tail": "disease"}, "like": {"symmetric": True}},
})  # fmt: skip


def span(words: str, kind: str, nth: int = 0) -> Span:
    start = -1
    for _ in range(nth + 1):
        start = TEXT.index(words, start + 1)
    return Span(start, start + len(words), kind)


def said(
    *relations: Relation, spans: tuple[Span, ...] = (), links: dict[int, str] | None = None
) -> Annotated:
    return Annotated(Document("d", TEXT), spans, relations, True, links or {})


ASPIRIN, ASTHMA, ASA = span("Aspirin", "drug"), span("asthma", "disease"), span("ASA", "drug")
AGAIN, PAIN = span("aspirin", "drug"), span("pain", "disease")
GOLD = said(
    Relation(0, 1, "causes"), Relation(0, 3, "like"),
    spans=(ASPIRIN, ASTHMA, ASA, AGAIN, PAIN), links={0: "D1", 1: "D2", 2: "D1", 3: "D1", 4: "D3"},
)  # fmt: skip


def test_precision_recall_and_f1_are_those_of_the_sums():
    found = Score.of([Count(1, 2, 1), Count(2, 2, 5), Count(0, 0, 0)])
    assert (found.precision.mean, found.recall.mean) == (75.0, 50.0)
    assert found.f1.mean == pytest.approx(60.0) and found.total == Count(3, 4, 6)
    assert found.f1.low <= 60 <= found.f1.high and found.f1.n == 3
    assert Score.of([Count(0, 0, 0), Count(0, 0, 3)]).f1.mean == 0.0
    assert math.isnan(Score.of([Count(1, 1, 1)]).f1.half)
    with pytest.raises(DataError, match="no document"):
        Score.of([])


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held, rounds = np.random.default_rng(0), 0, 200
    for _ in range(rounds):  # a finder that is right with .7 on documents of one to six
        truth = rng.integers(1, 7, size=60)
        right = rng.binomial(truth, 0.7)
        made = Score.of(
            [Count(int(r), int(t), int(t)) for r, t in zip(right, truth, strict=True)], resamples=400
        )
        held += made.f1.low <= 70 <= made.f1.high
    assert 0.89 <= held / rounds <= 0.99


def test_a_gain_is_paired():
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 9, size=80)
    hard = rng.integers(0, 2, size=80)  # of some documents nobody finds anything
    theirs = [Count(int(h * t // 2), int(t), int(t)) for h, t in zip(hard, truth, strict=True)]
    ours = [Count(min(c.right + (c.right > 0), c.truth), c.found, c.truth) for c in theirs]
    better = gain(ours, theirs)
    assert better.excludes_zero and better.mean == pytest.approx(
        Score.of(ours).f1.mean - Score.of(theirs).f1.mean
    )
    assert better.half < Score.of(ours).f1.half
    assert gain(ours, ours).mean == gain(ours, ours).half == 0
    runs = mean_gain([(ours, theirs), (theirs, theirs)])
    assert runs.mean == pytest.approx(better.mean / 2) and runs.low <= 0 <= runs.high
    with pytest.raises(DataError, match="expected the same"):
        gain(ours, theirs[1:])


def test_the_jackknife_has_f1_as_its_mean():
    counts = [Count(i % 3, 3, 2 + i % 2) for i in range(60)]
    values = pseudo_values(counts)
    assert np.mean(values) == pytest.approx(Score.of(counts).f1.mean, abs=0.2)


def test_ends_count_by_place_by_name_and_by_id():
    found = said(Relation(0, 1, "causes"), Relation(1, 0, "like"), spans=(AGAIN, ASTHMA))
    assert score.triples(found, score.places(found)) != score.triples(GOLD, score.places(GOLD))
    one = compare([found], [GOLD], SCHEMA)
    assert one.entities["borders and type"].total == Count(2, 2, 5)
    assert one.triples[BY_PLACE].total == Count(0, 2, 2)
    assert one.triples[BY_NAME].total == Count(1, 2, 2)  # the case of letters doesn't count
    assert one.triples[BY_ID].total == Count(1, 2, 2)
    other = said(Relation(0, 1, "causes"), Relation(2, 1, "causes"), spans=(ASPIRIN, ASTHMA, ASA))
    assert compare([other], [GOLD], SCHEMA).triples[BY_ID].total == Count(1, 1, 2)  # said twice of one thing
    assert compare([other], [GOLD], SCHEMA).triples[BY_PLACE].total == Count(1, 2, 2)
    assert one.kinds["causes"].total == Count(0, 1, 1) and one.types["drug"].total == Count(1, 1, 3)


def test_a_symmetric_relation_counts_in_either_direction():
    turned = said(Relation(1, 0, "like"), Relation(3, 2, "causes"), spans=(ASPIRIN, AGAIN, ASTHMA, PAIN))
    assert compare([turned], [GOLD], SCHEMA).kinds["like"].total == Count(1, 1, 1)


def test_only_what_is_asserted_counts():
    found = said(Relation(0, 1, "causes"), Relation(2, 1, "causes"), spans=(ASPIRIN, ASTHMA, ASA))
    one = compare([found], [GOLD], SCHEMA, sure=[[False, True]])
    assert one.triples[BY_PLACE].total == Count(0, 1, 2)
    assert one.triples["with those for review"].total == Count(1, 2, 2)


def test_linked_counts_where_both_have_ids():
    found = said(spans=(ASPIRIN, ASTHMA), links={0: "D1", 1: "D9"})
    assert compare([found], [GOLD], SCHEMA).entities["linked"].total == Count(1, 2, 5)
    assert "linked" not in compare([said(spans=(ASPIRIN,))], [GOLD], SCHEMA).entities


def test_a_report_compares_in_pairs():
    empty = compare([said()] * 12, [GOLD] * 12, SCHEMA)
    full = compare([GOLD] * 12, [GOLD] * 12, SCHEMA)
    made = report({"frozen": empty, "ours": full}, baselines=["frozen"])
    assert made.rows[1].metrics["triple F1"].mean == 100
    assert made.beats(made.rows[1], made.rows[0], "triple F1")
    assert made.from_json(made.to_json()).to_json() == made.to_json()


def test_reliability_is_what_the_calibration_error_sums():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=500)
    right = rng.uniform(size=500) < p**2
    bins = reliability(p, right, 15)
    assert sum(b.n for b in bins) == 500
    assert sum(abs(b.confidence - b.right) * b.n for b in bins) / 500 == pytest.approx(
        expected_error(p, right)
    )
    with pytest.raises(DataError, match="outside"):
        reliability([1.5], [1])
