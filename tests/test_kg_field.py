"""Pairs of a field that nobody labelled: what they are taken from, how relations are placed by them, what stays."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from kg_field import FIRMS, PEOPLE, SCHEMA, document, encoder, past, relation_prior
from kg_field import model as taught
from torch.nn.functional import normalize

from quickstudy.app import kg_actions
from quickstudy.bank.store import TaskBank
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError
from quickstudy.domains.kg.banked import learn_with
from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.field import EACH, field_pairs, some_pieces
from quickstudy.domains.kg.graph.decisions import accept
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.relearn import relearn
from quickstudy.domains.kg.relations.certainty import (
    COHORT,
    FEWEST,
    Certainty,
    evidence,
    learn_certainty,
    likeness,
    prototypes,
    usual,
)
from quickstudy.domains.kg.relations.classifier import learn_relations
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, extract
from quickstudy.domains.kg.worth import DOCUMENTS

UNLABELLED = [Document(f"u{i}", f"{document(i, firms=i % 3).text[:-1]}in {i} .") for i in range(120)]
"""No two alike."""


def crowd(classes: int, each: int, seed: int) -> torch.Tensor:
    """Classes in which some pairs are like every other pair, by a direction that has nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)
    common, centers = torch.eye(30)[0], torch.randn(classes, 30, generator=generator)
    loud = torch.rand(classes * each, 1, generator=generator) * 12
    noise = 2.0 * torch.randn(classes * each, 30, generator=generator)
    return normalize(centers.repeat_interleave(each, 0) + noise + loud * common, dim=-1)


def test_a_pair_that_is_like_everything_is_no_sign_of_anything():
    """By the cohort, questions of other classes are told apart that no cosine alone tells."""
    past = Labelled.of(crowd(12, 30, 1), torch.arange(12).repeat_interleave(30))
    plain = learn_certainty([past])
    placed = learn_certainty([past], before=plain)
    assert plain.weights.shape == (7,) and placed.weights.shape == (8,) and placed.weights[7] > 0.3
    x = crowd(12, 30, 2).view(12, 30, 30)
    own = torch.arange(4).repeat_interleave(5)
    support, cohort = x[:4, :5].reshape(20, 30), x[4:, 20:].reshape(-1, 30)
    center = prototypes(support, own, 4)
    asked, other = x[:4, 5:].reshape(-1, 30), x[4:, :12].reshape(-1, 30)
    alike, areas = likeness(support, own, center), []
    for certainty, often in ((plain, None), (placed, cohort)):
        scores = []
        for query in (asked, other):
            phi, _ = evidence(
                query @ center.t(), 5.0, alike=alike, usual=None if often is None else usual(query, often)
            )
            scores.append(certainty.logit(phi))
        areas.append(float((scores[0][:, None] > scores[1]).float().mean()))
    assert areas[1] > areas[0] + 0.02


def test_z_is_the_best_cosine_in_deviations_of_those_to_the_cohort():
    x, cohort = crowd(2, 3, 0), crowd(2, 40, 1)
    cosine = x @ crowd(3, 1, 2).t()
    phi, best = evidence(cosine, 1.0, usual=usual(x, cohort))
    plain, same = evidence(cosine, 1.0)
    others = x @ cohort.t()
    assert torch.equal(phi[:, :-1], plain) and torch.equal(best, same)
    torch.testing.assert_close(phi[:, -1], (cosine.amax(-1) - others.mean(1)) / others.std(1) / 5)


def test_without_pairs_that_are_left_the_cohort_counts_for_nothing():
    few = Labelled.of(crowd(4, 4, 3), torch.arange(4).repeat_interleave(4))
    plain = learn_certainty([few])
    assert torch.equal(
        learn_certainty([few], before=plain).weights, torch.cat([plain.weights, torch.zeros(1)])
    )


def test_a_prior_is_placed_by_enough_pairs(tmp_path):
    prior, read = relation_prior(), relation_prior().pair_encoder(encoder())
    pairs = field_pairs(UNLABELLED, taught().recogniser, SCHEMA)
    x = read.encode(pairs)
    assert FEWEST <= len(x) <= COHORT
    assert prior.in_field is not None and prior.of_field(x[: FEWEST - 1]) is prior
    assert prior.usual(prior.features(x)) is None
    placed = prior.of_field(x)
    torch.testing.assert_close(placed.center, x.mean(0))
    assert placed.certainty is prior.in_field and placed.adapter is prior.adapter
    assert len(prior.of_field(x.repeat(6, 1)).cohort) == COHORT
    placed.save(tmp_path / "prior")
    again = RelationPrior.load(tmp_path / "prior")
    assert torch.equal(again.cohort, placed.cohort) and torch.equal(again.center, placed.center)
    assert torch.equal(again.certainty.weights, placed.certainty.weights)
    features = placed.features(x)
    assert torch.equal(again.usual(again.features(x)), placed.usual(features))
    # One that never learned to be placed stays as it was.
    assert replace(prior, in_field=None).of_field(x).cohort is None


@pytest.mark.parametrize("wrong", ["few pairs", "another width", "no cohort", "short weights"])
def test_a_cohort_that_does_not_fit_is_refused(tmp_path, wrong):
    x = relation_prior().pair_encoder(encoder()).encode(field_pairs(UNLABELLED, taught().recogniser, SCHEMA))
    relation_prior().of_field(x).save(tmp_path / "prior")
    tensors, record = load_folder(tmp_path / "prior", kind="prior")
    tensors = dict(tensors)
    if wrong == "few pairs":
        tensors["cohort"] = tensors["cohort"][:3]
    elif wrong == "another width":
        tensors["cohort"] = tensors["cohort"][:, :-1].contiguous()
    elif wrong == "no cohort":
        del tensors["cohort"]
    else:
        tensors["in_field"] = tensors["in_field"][:-1]
    for made in ("tensors", "format"):
        record.pop(made, None)
    save_folder(tmp_path / "prior", tensors, record)
    with pytest.raises(CheckpointError, match="don't fit together"):
        RelationPrior.load(tmp_path / "prior")


def test_pairs_are_of_types_that_may_be_related_and_of_texts_without_labels():
    labelled = [document(i) for i in range(18)]
    finder, texts = taught().recogniser, {one.text for one in labelled}
    both = [*UNLABELLED, *(one.document for one in labelled)]
    pairs = field_pairs(both, finder, SCHEMA, labelled=labelled)
    assert pairs == field_pairs(both, finder, SCHEMA, labelled=labelled)
    assert pairs != field_pairs(both, finder, SCHEMA, labelled=labelled, seed=1)
    assert pairs and not texts & {pair.text for pair in pairs}
    assert len(set(pairs)) == len(pairs)
    ends = [(pair.text[slice(*pair.head)], pair.text[slice(*pair.tail)]) for pair in pairs]
    assert sum(head in PEOPLE and tail in FIRMS for head, tail in ends) > 50
    assert not any(head in FIRMS and tail in PEOPLE for head, tail in ends)
    loose = {"entities": ["person", "firm", "place"], "relations": {"lies in": {"head": "place"}}}
    assert field_pairs(both, finder, Schema.of(loose)) == []


def test_a_text_with_many_names_says_no_more_than_others_that_are_enough(monkeypatch):
    names = " and ".join(f"{person} is employed as a clerk by acme" for person in ("Ada", "Bo", "Cy", "Dora"))
    long = Document("d", names + " .")
    alone = field_pairs([long], taught().recogniser, SCHEMA)
    assert len(alone) > EACH  # there is no other
    monkeypatch.setattr("quickstudy.domains.kg.field.COHORT", 60)
    pairs = field_pairs([long, *UNLABELLED], taught().recogniser, SCHEMA)
    assert len(pairs) == 60 and sum(pair.text in long.text for pair in pairs) <= EACH


def test_a_model_keeps_the_field_that_it_was_placed_in(tmp_path):
    examples = [document(i) for i in range(18)]

    def learned(documents):
        return GraphModel.learn(
            examples, SCHEMA, encoder(), prior=past(), relation_prior=relation_prior(), documents=documents,
            precision=0.3, judge=bool(documents),
        )  # fmt: skip

    model, plain = learned(UNLABELLED), learned(())
    assert model.relation_prior is not None and model.relation_prior.cohort is not None
    assert plain.version == taught().version != model.version
    model.save(tmp_path / "model")
    again = GraphModel.load(tmp_path / "model", encoder())
    assert again.version == model.version
    some = UNLABELLED[:6]
    assert again.read(some) == model.read(some)
    with GraphStore(tmp_path / "graph.db") as store:
        store.put_all(UNLABELLED[:12])
        extract(store, again)
        triple = next(iter(store.triples()))
        accept(store, store.said(triple)[0])
        new = relearn(again, store).model
    assert new.relation_prior is not None and torch.equal(
        new.relation_prior.cohort, model.relation_prior.cohort
    )


def test_a_tasks_own_examples_move_what_the_cohort_counts_for_little():
    """Related pairs turned round, which are never asked for, don't make a pair unsure for being unlike the field's."""
    read = relation_prior().pair_encoder(encoder())
    placed = relation_prior().of_field(read.encode(field_pairs(UNLABELLED, taught().recogniser, SCHEMA)))
    placed = replace(placed, certainty=Certainty(torch.tensor([-3.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 3.0])))
    examples = [pair for i in range(8) for pair in labelled_pairs(document(i))]
    assert all(one.type for one in examples)
    model = learn_relations(examples, SCHEMA, placed, encoder())
    assert 2 < model.certainty.weights[7] < 4 and len(model.unrelated) == 8


def test_one_kind_of_pair_alone_makes_no_noise():
    """A symmetric relation leaves no unrelated pair at all."""
    content = {"entities": ["person", "firm"], "relations": {"works_for": {"symmetric": True}}}
    read = relation_prior().pair_encoder(encoder())
    placed = relation_prior().of_field(read.encode(field_pairs(UNLABELLED, taught().recogniser, SCHEMA)))
    examples = [pair for i in (0, 2, 4) for pair in labelled_pairs(document(i))]
    model = learn_relations(examples, Schema.of(content), placed, encoder())
    assert not len(model.unrelated) and bool(model.certainty.weights.isfinite().all())


@pytest.mark.parametrize("judge", [False, True])
def test_documents_are_judged_beside_a_bank(tmp_path, judge):
    examples = [document(i) for i in range(18)]
    with TaskBank(tmp_path / "bank.sqlite") as bank:
        model, _ = learn_with(
            bank, examples, SCHEMA, encoder(), prior=past(), relation_prior=relation_prior(), documents=UNLABELLED,
            judge_documents=judge,
        )  # fmt: skip
    assert [one.part for one in model.worth] == [DOCUMENTS] * judge


def test_documents_say_nothing_without_experience():
    examples = [document(i) for i in range(8)]
    bare = GraphModel.learn(
        examples, SCHEMA, encoder(), prior=None, relation_prior=None, documents=UNLABELLED
    )
    assert bare.relation_prior is None and bare.relations is not None
    assert bare.relations.certainty.weights.shape == Certainty().weights.shape


def test_of_very_many_documents_the_first_are_taken_and_what_is_wrong_with_them_is_told(
    tmp_path, monkeypatch
):
    for name, text in (
        ("a.txt", "Ada came ."),
        ("b.pdf", "none"),
        ("c.txt", "Bo came ."),
        ("d.txt", "Cy came ."),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kg_actions, "MOST_READ", 2)
    said = []
    pieces, count = kg_actions._some(tmp_path, [], said, 0)
    assert sorted(one.id for one in pieces) == ["a.txt", "c.txt"] and count == 2
    assert len(said) == 1 and "b.pdf" in said[0]


def test_a_table_that_is_cut_tells_what_was_wrong_before(tmp_path, monkeypatch):
    table = tmp_path / "rows.jsonl"
    table.write_text('{"text": "Ada came."}\n{"text": 3}\n{"text": "Bo came."}\n{"text": "Cy came."}\n')
    monkeypatch.setattr(kg_actions, "MOST_READ", 2)
    said = []
    _, count = kg_actions._some(table, [], said, 0)
    assert count == 2 and len(said) == 1 and "left out 1" in said[0]


def test_pieces_of_documents_are_drawn_evenly_and_labelled_ones_never():
    def documents():
        yield from (Document(str(number), f"Text number {number}.") for number in range(50))

    labelled = [Annotated(Document("x", "Text number 7."))]
    drawn = Counter(
        one.id for seed in range(400) for one in some_pieces(documents(), labelled, most=10, seed=seed)
    )
    assert sum(drawn.values()) == 4000 and len(drawn) == 49 and "7" not in drawn
    assert min(drawn.values()) > 40 and max(drawn.values()) < 130  # 81.6 each are expected, give or take 8


def test_no_sentence_of_a_labelled_text_is_a_fields_pair():
    labelled = " ".join(document(number).text for number in range(3))
    inside = Document("long", f"It began so.  {labelled}\n\nIt ended so.")
    recogniser = taught().recogniser
    whole = Annotated(Document("whole", labelled.replace(" ", "  ")), (), complete=True)
    assert field_pairs([inside], recogniser, SCHEMA) != []
    assert field_pairs([inside], recogniser, SCHEMA, labelled=[whole]) == []
