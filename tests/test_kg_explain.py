"""Why a triple is there: what each labelled document did for it, exactly; what holds names together."""

import math

import pytest
import torch
from kg_field import SCHEMA, document, encoder, learned, model
from kg_graphs import ACME, ADA, LONDON, LOVELACE, small

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.facts import Entry, Link, Proposal, Same
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.explain import bonds, explain, pair_of, spoken
from quickstudy.domains.kg.use import GraphModel, extract

EXAMPLES = [document(i) for i in range(18)]


@pytest.fixture(scope="module", name="graph")
def extracted(tmp_path_factory):
    with GraphStore(tmp_path_factory.mktemp("graph") / "g.db") as store:
        store.put_all([document(i, firms=1).document for i in range(12)])
        extract(store, model())
        yield store


@pytest.fixture(name="store")
def small_store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


def test_influence_is_that_of_learning_again_without_the_example(graph):
    triple = next(iter(graph.triples()))
    told = explain(graph, triple, model()).sentences[0]
    assert told.said.relation == triple.relation and told.spoke
    assert told.probability == pytest.approx(told.said.score, abs=1e-4)
    ends, pair = ("person", "firm"), pair_of(graph, told.said)
    at = {(m.start, m.end): m.score for m in graph.mentions(told.said.document)}
    sure = tuple(at[end.start, end.end] for end in (told.said.head, told.said.tail))
    for one in (told.spoke[0], told.spoke[-1]):
        other = learned([e for i, e in enumerate(EXAMPLES) if i != one.example])
        assert one.without == pytest.approx(spoken(other, pair, triple.relation, ends, sure)[0], abs=1e-5)
        odds = []
        for some in (model().relations, other.relations):
            x = some.prior.features(some.pairs.encode([pair]))
            admitted = torch.ones(1, len(some.types), dtype=torch.bool)
            odds.append(float(some.log_odds(x, triple.relation, admitted, [ends])))
        assert one.effect == pytest.approx(odds[0] - odds[1], abs=1e-3)
    effects = [abs(one.effect) for one in told.spoke]
    assert effects == sorted(effects, reverse=True)


def test_it_rests_on_examples_without_which_it_would_go_to_review(graph):
    few = learned([document(0), document(1), document(2), document(3)])
    triple = next(t for t in graph.triples(status=("review", "extracted")) if t.relation == "sued")
    said = graph.said(triple)[0]
    told = explain(graph, triple, few).sentences[0]
    at = {(m.start, m.end): m.score for m in graph.mentions(said.document)}
    sure = at[said.head.start, said.head.end], at[said.tail.start, said.tail.end]
    by_hand = []
    for i in range(4):
        other = learned([document(n) for n in range(4) if n != i])
        left, _ = spoken(other, pair_of(graph, said), "sued", ("person", "firm"), sure)
        if left < few.precision:
            by_hand.append(i)
    assert sorted(told.rests_on) == (by_hand if told.probability >= few.precision else [])


def test_the_only_example_of_a_relation_is_all_it_rests_on(graph):
    one = learned([document(0), document(1), document(2)])  # one that sued
    triple = next(t for t in graph.triples(status=("review", "extracted")) if t.relation == "sued")
    (told,) = [s for s in explain(graph, triple, one).sentences[0].spoke if s.example == 1]
    assert told.effect == math.inf and told.without == 0.0 and told.id == "d1" and told.says == "sued"
    assert told.text == "[Bo] went to court and sued [bolt] again !"


def test_without_is_the_same_to_the_last_digit():
    relations = model().relations
    for number in (0, 5, 17):
        left = relations.without(number)
        fresh = learned([e for i, e in enumerate(EXAMPLES) if i != number]).relations
        assert torch.allclose(left.x, fresh.x, atol=1e-6) and left.types == fresh.types
        assert torch.allclose(left.certainty.weights, fresh.certainty.weights, atol=1e-4)
        assert {e.origin for e in left.examples} == set(range(18)) - {number}
    only = learned([document(0)]).relations
    assert only.without(0) is None


def test_influence_without_priors_is_that_of_learning_again(graph):
    """What such a model is centred on follows from its examples, and from those that are left."""

    def bare(examples):
        return GraphModel.learn(examples, SCHEMA, encoder(), prior=None, relation_prior=None, precision=0.3)

    examples = [document(i) for i in (0, 2, 4, 1)]  # one that sued
    few = bare(examples)
    said = graph.said(
        next(t for t in graph.triples(status=("review", "extracted")) if t.relation == "works_for")
    )[0]
    pair, ends = pair_of(graph, said), ("person", "firm")
    _, spoke = spoken(few, pair, "works_for", ends)
    by_example = {one.example: one.without for one in spoke}
    for number in (0, 3):
        other = bare([one for i, one in enumerate(examples) if i != number])
        assert by_example[number] == pytest.approx(spoken(other, pair, "works_for", ends)[0], abs=1e-3)


def test_merges_have_their_evidence(store):
    store.same([Same(LOVELACE, ADA, 0.6, "the same surname")], model="linker")
    store.catalogue([Entry("Q7259", "Ada Lovelace", "person")])
    store.link([Link(ADA, "Q7259", 0.9, "the same letters")], model="linker")
    told = explain(store, (ADA, "works_for", ACME))
    why = {(b.one, b.other): (b.score, b.why, b.by) for b in told.head}
    assert why[("Lovelace", "Ada Lovelace")] == (0.6, "the same surname", "linker")
    assert why[("Ada Lovelace", "Q7259 (Ada Lovelace)")] == (0.9, "the same letters", "linker")
    store.split(LOVELACE, ADA, by="ann", note="her mother")
    first = bonds(store, LOVELACE)[0]
    assert (first.together, first.why, first.by) == (False, "her mother", "decision 1 of ann")


def test_what_was_inferred_shows_its_model_its_reason_and_other_paths(store):
    store.propose([Proposal(LOVELACE, "lives_in", LONDON, 0.4, "as those who work there")], model="inference")
    told = explain(store, (LOVELACE, "lives_in", LONDON))
    assert told.sentences == () and told.inferred[0][:] == ("inference", 0.4, "as those who work there")
    assert [t.relation for t in told.paths[0]] == ["works_for", "based_in"]
    store.reject(told.triple, by="bo", note="never")
    (decided,) = explain(store, told.triple).decisions
    assert decided.startswith("decision 1, ") and decided.endswith("bo: reject: never")


def test_a_triple_that_is_not_there(store):
    with pytest.raises(DataError, match="no triple 'Ada Lovelace' based_in 'London'"):
        explain(store, (ADA, "based_in", LONDON))
    assert explain(store, (ADA, "born_in", LONDON), model()).sentences[0].probability is None
