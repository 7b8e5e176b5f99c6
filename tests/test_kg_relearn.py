"""What reviewers decided is learned, judged on what was drawn at random, and kept only where it isn't worse."""

import json

import pytest
import torch
from kg_field import SCHEMA, document, encoder, learned
from kg_graphs import put

from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.calibrate import SCALE
from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.graph.records import Entity, Slice
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.evaluate import frozen
from quickstudy.domains.kg.learning.labels import RANDOM, labels
from quickstudy.domains.kg.learning.relearn import answered, is_kept, relearn
from quickstudy.domains.kg.use import EXAMPLES, GraphModel

FEW = [document(i) for i in range(4)]


@pytest.fixture(name="store")
def asked_store(tmp_path):
    """Statements of documents that the model hasn't seen; half of them are what the sentence doesn't say."""
    with GraphStore(tmp_path / "g.db") as store:
        for i in range(24):
            one = document(i, firms=1 + i // 12)
            ends = [Entity(one.of(n), span.type) for n, span in enumerate(one.spans)]
            said = one.relations[0].type
            claimed = said if i % 4 < 2 else {"sued": "works_for", "works_for": "sued"}[said]
            put(store, f"d{i}", one.text, (ends[0], claimed, ends[1]), certain=False, score=0.6)
        yield store


def review(store):
    """Answer everything; every third was drawn at random."""
    for i, triple in enumerate(sorted(store.triples(status=("review",)))):
        said = store.said(triple)[0]
        note = RANDOM if i % 3 == 0 else ""
        truth = "sued" if "sued" in said.sentence.text else "works_for"
        if said.relation == truth:
            store.accept(said, note=note)
        else:
            store.correct(said, relation=truth, note=note)


def test_decisions_teach_and_are_measured_on_what_was_drawn(store):
    old = learned(FEW)
    review(store)
    again = relearn(old, store)
    assert again.kept and again.lost == 0 and again.taught >= 20 and again.drawn >= 7
    assert again.gain["relations"].mean >= 0 and 0 <= again.before["relations"] < 100
    assert len(again.model.examples) == len(FEW) + again.taught
    assert again.model.recogniser is old.recogniser  # nobody said anything of names
    assert again.model.version != old.version
    twice = relearn(again.model, store)
    assert len(twice.model.examples) == len(again.model.examples)  # nothing is learned twice
    assert twice.model.version == again.model.version


def test_what_is_worse_beyond_doubt_is_not_kept():
    worse, unsure, better = (Estimate(mean, 4.0, 30) for mean in (-9.0, -2.0, 6.0))
    assert (
        is_kept({"relations": unsure}) and is_kept({"relations": better, "entities": unsure}) and is_kept({})
    )
    assert not is_kept({"relations": better, "entities": worse})


def test_whole_sentences_teach_names(store):
    old = learned(FEW)
    for i in range(4):
        sentence = store.said(next(iter(store.triples(status=("review",)))))[0].sentence
        store.whole("d0" if i == 0 else f"d{i}", sentence._replace(
            end=len(store.document(f"d{i}").text), text=store.document(f"d{i}").text
        ))  # fmt: skip
    again = relearn(old, store)
    assert again.model.recogniser is not old.recogniser and again.taught == 4 and again.gain == {}


def test_a_model_without_priors_learns_decisions_too_and_in_the_same_way(store):
    old = GraphModel.learn(FEW, SCHEMA, encoder(), prior=None, relation_prior=None, precision=0.3)
    review(store)
    again = relearn(old, store)
    assert again.kept and again.taught >= 20 and again.model.relation_prior is None
    assert again.model.relations.labelled > old.relations.labelled
    anew = GraphModel.learn(
        again.model.examples, SCHEMA, encoder(), prior=None, relation_prior=None, precision=0.3
    )
    assert torch.allclose(again.model.relations.x, anew.relations.x, atol=1e-5)
    text = store.document("d0").text
    store.whole("d0", Slice(0, len(text), text))
    named = relearn(old, store).model.recogniser
    assert named is not old.recogniser and named.report["made"] == old.recogniser.report["made"] == "frozen"


def test_decisions_beyond_the_sentence_teach_a_model_nothing_that_looks_in_one(store):
    """Nothing of relations is learned, and nothing goes wrong."""
    bare = [Annotated(one.document, one.spans, (), True) for one in FEW]
    old = learned(bare)
    put(
        store,
        "far",
        "Ada slept . Then acme sued .",
        (Entity("Ada", "person"), "sued", Entity("acme", "firm")),
    )
    (said,) = [s for t in store.triples() for s in store.said(t) if s.document == "far"]
    store.accept(said)
    again = relearn(old, store)
    assert again.taught == 1 and again.model.relations is None


def test_a_rejected_relation_takes_no_other_from_its_two_mentions(tmp_path):
    def taught():
        return [
            ({(one.of(h), kind, one.of(t)) for h, t, kind in one.relations}, len(one.unrelated))
            for one in labels(store, SCHEMA).chosen
        ]

    ada, acme = Entity("Ada", "person"), Entity("acme", "firm")
    with GraphStore(tmp_path / "two.db") as store:
        put(store, "two", "Ada sued acme , her employer .", (ada, "works_for", acme), (ada, "sued", acme))
        works, sued = (store.said((ada, kind, acme))[0] for kind in ("works_for", "sued"))
        store.accept(works)
        store.reject(sued)
        assert taught() == [({("Ada", "works_for", "acme")}, 0)]
        store.accept(sued)
        assert taught() == [({("Ada", "works_for", "acme"), ("Ada", "sued", "acme")}, 0)]
        store.reject(works)
        assert taught() == [({("Ada", "sued", "acme")}, 0)]
        store.correct(sued, relation="works_for")
        assert taught() == [({("Ada", "works_for", "acme")}, 0)]
        store.reject(sued)
        assert taught() == [(set(), 1)]  # now nothing stands
        head, tail = (next(m for m in store.mentions("two") if m.text == name) for name in ("Ada", "acme"))
        store.relate("two", head, tail, "sued")
        assert taught() == [({("Ada", "sued", "acme")}, 0)]
        store.relate("two", head, tail, None)
        assert taught() == [(set(), 1)]
        store.accept(works)
        assert taught() == [({("Ada", "works_for", "acme")}, 0)]


def test_without_a_decision_there_is_nothing_to_learn(store):
    with pytest.raises(DataError, match="no decision in this graph"):
        relearn(learned(FEW), store)
    assert SCHEMA.relations


def test_how_sure_a_model_is_follows_what_was_drawn_at_random(store, tmp_path):
    old = learned(FEW)
    review(store)
    again = relearn(old, store)
    answers = again.model.answers
    assert again.answers == len(answers) >= 3
    assert all(0 < p <= 1 for one in answers for p in one[:3])
    labelled = SCALE.of(again.model.relations.labelled)
    assert again.model.scale == labelled.refined(answers) != labelled
    again.model.save(tmp_path / "m")
    assert GraphModel.load(tmp_path / "m", encoder()).answers == answers
    assert GraphModel.load(tmp_path / "m", encoder()).version == again.model.version
    assert frozen(again.model).answers == ()  # they were given by another


def test_answers_are_right_where_the_reviewer_says_so_and_only_of_names_that_were_judged():
    model = learned(FEW)
    some = [document(i, firms=1) for i in range(12)]
    read = model.recogniser.find_all([one.document for one in some])
    one = next(one for one, es in zip(some, read, strict=True) if {e.span for e in es} == set(one.spans))
    held = Annotated(one.document, one.spans, one.relations, partial=True)
    [right] = answered(model, [held])
    [wrong] = answered(model, [Annotated(one.document, one.spans, (), partial=True, unrelated=((0, 1),))])
    assert right.right and not wrong.right and right[:3] == wrong[:3]
    turned = Relation(0, 1, "sued" if one.relations[0].type == "works_for" else "works_for")
    assert not answered(model, [Annotated(one.document, one.spans, (turned,), partial=True)])[0].right
    other = (Span(0, 1, "person"), one.spans[1])
    assert answered(model, [Annotated(one.document, other, (), partial=True, unrelated=((0, 1),))]) == []
    assert answered(model, [one]) == []  # a whole sentence doesn't say that its names are unrelated


@pytest.mark.parametrize(
    "row", [[0.5, 0.5, 1.5, True], [0.5, 0.5, True], [0.1, 0.1, 0.1, 1], ["a", 0, 0, True], 7]
)
def test_a_model_with_answers_that_are_none_is_refused(tmp_path, row):
    learned(FEW).save(tmp_path / "m")
    record = json.loads((tmp_path / "m" / EXAMPLES).read_text())
    (tmp_path / "m" / EXAMPLES).write_text(json.dumps(record | {"answers": [row]}))
    with pytest.raises(CheckpointError, match="can't be read"):
        GraphModel.load(tmp_path / "m", encoder())
