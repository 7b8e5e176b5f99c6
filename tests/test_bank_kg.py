"""Fields of a knowledge graph in the bank, and what they are worth to the next one."""

from dataclasses import replace

import pytest
import torch

from quickstudy.bank.store import TaskBank
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.core.estimate import Estimate
from quickstudy.core.objective import Classify
from quickstudy.domains.kg import banked, experience
from quickstudy.domains.kg.banked import learn_with
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.kept import ENTITIES, KEEPER, RELATIONS, entity_part, field_entry, field_of
from quickstudy.domains.kg.learning.score import Count, Score
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel
from quickstudy.domains.kg.worth import Worth
from quickstudy.encoders.text import load_encoder
from quickstudy.learners import Gaussian
from quickstudy.learners.scatter import joined

PEOPLE = ["Ada", "Bo", "Cy", "Dora", "Eli", "Fay", "Gus", "Hal"]
FIELDS = {
    "firms": (
        ["acme", "bolt", "corp", "dyne"],
        {"works_for": "{} is employed as a clerk by {} .", "sued": "{} sued {} !"},
    ),
    "towns": (
        ["arras", "bonn", "cadiz", "delft"],
        {"lives_in": "{} lives in the town of {} .", "left": "{} left {} !"},
    ),
    "films": (
        ["alien", "brazil", "casa", "diva"],
        {"made": "{} made the film {} .", "saw": "{} saw {} at night !"},
    ),
}


def schema(name: str) -> Schema:
    _, said = FIELDS[name]
    kinds = ["person", name.removesuffix("s")]
    relations = {relation: {"head": kinds[0], "tail": kinds[1]} for relation in said}
    return Schema.of({"name": name, "entities": kinds, "relations": relations})


def documents(name: str, many: int = 12, start: int = 0) -> list[Annotated]:
    things, said = FIELDS[name]
    found = []
    for i in range(start, start + many):
        relation = list(said)[i % 2]
        person, thing = PEOPLE[i % 8], things[(i // 8 + i // 2 + i) % 4]  # no text twice in 32
        text = said[relation].format(person, thing)
        at = text.index(thing, len(person))
        spans = (Span(0, len(person), "person"), Span(at, at + len(thing), name.removesuffix("s")))
        found.append(
            Annotated(Document(f"{name}{i}", text), spans, (Relation(0, 1, relation),), complete=True)
        )
    return found


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny-bert", cache=False, dtype="float32")


def entry(name: str, encoder, **about):
    given = {"name": name, "consent": "the test's", "licence": "CC0"} | about
    return field_entry(documents(name), schema(name), encoder, **given)


@pytest.fixture(scope="module")
def bank(encoder, tmp_path_factory):
    with TaskBank(tmp_path_factory.mktemp("bank") / "bank.sqlite") as made:
        for name in ("towns", "films"):
            made.add(entry(name, encoder))
        yield made


def test_a_field_is_two_tasks_and_can_be_learned_from_again(bank, encoder):
    kept = bank.entry("towns")
    assert [(part.name, part.labels) for part in kept.parts] == [
        (ENTITIES, ("person", "town")), (RELATIONS, ("left", "lives_in")),
    ]  # fmt: skip
    of_types, of_relations = kept.parts
    assert of_types.shots == 24 and of_relations.shots == 12
    torch.testing.assert_close(of_types.x.norm(dim=-1), torch.ones(24), atol=2e-3, rtol=0)
    source, told = field_of(kept)
    assert source.documents == documents("towns") and told == schema("towns") and source.licence == "CC0"


def test_all_of_a_description_is_read_and_partial_documents_teach_no_entities(encoder):
    given = schema("towns").to_json()
    features = []
    for second in ("It lies by a river.", "They eat apples at noon."):
        given["entities"] = {"person": {}, "town": {"description": f"Where people live. {second}"}}
        part = entity_part(documents("towns"), Schema.of(given), encoder)
        assert part is not None and part.told is not None
        features.append(part.told)
    assert torch.allclose(features[0][0], features[1][0], atol=1e-5)
    assert not torch.allclose(features[0][1], features[1][1], atol=1e-2)
    judged = [replace(one, complete=False, partial=True) for one in documents("towns")]
    assert entity_part(judged, schema("towns"), encoder) is None


def test_a_saved_graph_model_is_kept_by_its_keeper(encoder, tmp_path):
    GraphModel.learn(documents("firms", 6), schema("firms"), encoder, prior=None, relation_prior=None).save(
        tmp_path
    )
    assert KEEPER.knows(tmp_path)
    kept = KEEPER.entry(tmp_path, name="firms", consent="the test's")
    assert kept.id == field_entry(documents("firms", 6), schema("firms"), encoder, name="x", consent="y").id


def test_a_field_without_spans_is_not_kept(encoder):
    bare = [replace(one, spans=(), relations=()) for one in documents("firms", 2)]
    with pytest.raises(DataError, match="none of the 2 examples has a span"):
        field_entry(bare, schema("firms"), encoder, name="firms", consent="the test's")


@pytest.mark.parametrize("material", [{}, {"schema": {}, "examples": [], "partial": 1}, {"examples": 3}])
def test_material_that_is_no_field_is_refused(encoder, material):
    with pytest.raises(CheckpointError, match="no labelled field"):
        field_of(replace(entry("firms", encoder), material=material | {"examples": [{"id": 1}]}))


def test_the_fields_that_are_asked_have_weights(bank, encoder):
    near = experience.chosen(bank, documents("firms", 6), schema("firms"), encoder)
    for part in (ENTITIES, RELATIONS):
        own = [one for one in near if one.part == part]
        assert {one.name for one in own} <= {"towns", "films"} and own
        assert sum(one.weight for one in own) == pytest.approx(1)


def test_a_field_that_holds_one_of_the_examples_is_not_asked(bank, encoder):
    near = experience.chosen(bank, documents("towns", 3, start=8), schema("towns"), encoder)
    assert {one.name for one in near} == {"films"}


def test_a_field_that_is_not_asked_takes_no_other_ones_place(bank, encoder, monkeypatch):
    monkeypatch.setattr(experience, "MOST", 1)
    near = experience.chosen(bank, documents("towns", 3, start=8), schema("towns"), encoder)
    assert {one.name for one in near} == {"films"}, "the next nearest"


def test_the_task_itself_is_not_asked(bank, encoder):
    kept = bank.find("towns")
    near = experience.chosen(bank, documents("towns", 6, start=30), schema("towns"), encoder, without=kept)
    assert {one.name for one in near} == {"films"}


def test_what_the_nearest_fields_were_worth_is_told(bank, encoder):
    model, judged = learn_with(bank, documents("firms", 9), schema("firms"), encoder)
    [part] = [one for one in judged.judged if one.part == ENTITIES]
    assert part.gain.mean == pytest.approx(part.experienced.f1.mean - part.frozen.f1.mean)
    nearest = judged.neighbours[0]
    assert {one.name for one in judged.neighbours} == {"towns", "films"}
    assert model.recogniser.past.sources[0]["name"] == nearest.name
    told = judged.text()
    assert nearest.name in told and "on labels held out" in told
    assert judged.to_json()["fields"][0]["name"] == nearest.name


def test_an_empty_bank_changes_nothing(encoder, tmp_path):
    few = documents("firms", 9)
    with TaskBank(tmp_path / "bank.sqlite") as empty:
        model, judged = learn_with(empty, few, schema("firms"), encoder)
    assert judged.neighbours == () and judged.judged == () and "no field" in judged.text()
    bare = GraphModel.learn(few, schema("firms"), encoder, prior=None, relation_prior=None)
    asked = [one.document for one in documents("firms", 4, start=40)]
    assert model.read(asked) == bare.read(asked) and model.version == bare.version


def test_what_gains_nothing_is_switched_off(bank, encoder, monkeypatch):
    few = documents("firms", 9)

    def misled(entries, neighbours, encoder, **_):
        made = experience.learned(entries, neighbours, encoder)
        assert made.entities is not None
        return replace(made, entities=replace(made.entities, detector=-50 * made.entities.detector))

    monkeypatch.setattr(banked, "learned", misled)
    model, judged = learn_with(bank, few, schema("firms"), encoder)
    [part] = [one for one in judged.judged if one.part == ENTITIES]
    assert part.gain.mean <= 0 and "switched off" in judged.text()
    assert model.recogniser.past.sources == ()


def test_relations_start_from_the_fields_pairs(bank, encoder):
    told = [(bank.entry(name), 0.5) for name in ("towns", "films")]
    prior = experience.relation_prior(told, encoder)
    assert isinstance(prior, RelationPrior) and prior.record["bank"] == [
        bank.find("towns"),
        bank.find("films"),
    ]
    own = [part for e, _ in told if (part := e.part(RELATIONS)) is not None]
    mean = torch.stack([part.x[part.y >= 0].mean(0) for part in own]).mean(0)
    torch.testing.assert_close(prior.center, mean)
    assert experience.relation_prior([], encoder) is None


def test_on_top_of_a_prior_its_scatter_and_the_fields_are_averaged(bank, encoder):
    told = [(bank.entry("towns"), 1.0)]
    own = experience.relation_prior(told, encoder)
    assert own is not None
    both = experience._joined(own, own, 0.5)
    y = torch.randn(5, own.dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(both.features(y), own.features(y), atol=5e-3, rtol=0)
    # One that is placed in a field stays in it, and is as sure as with a cohort.
    placed = own.of_field(torch.randn(60, own.dim, generator=torch.Generator().manual_seed(1)))
    both = experience.relation_prior(told, encoder, placed)
    assert both is not None and placed.cohort is not None
    assert torch.equal(both.center, placed.center) and torch.equal(both.cohort, placed.cohort)
    torch.testing.assert_close(both.certainty.weights, placed.certainty.weights)


def test_two_gaussian_priors_are_joined():
    learner = Gaussian(objective=Classify(ways=2), dim=6)
    generator = torch.Generator().manual_seed(0)
    metas = []
    for scale in (1.0, 3.0):
        x = torch.randn(40, 6, generator=generator) * torch.tensor([scale, 1, 1, 1, 1, 1])
        y = torch.arange(4).repeat(10)
        metas.append(learner.estimate([Labelled.of(x + 2 * torch.eye(6)[:4][y], y)]))
    one, other = metas
    support = Labelled.of(torch.randn(8, 6, generator=generator), torch.arange(2).repeat(4))
    asked = torch.randn(5, 6, generator=generator)

    def answers(meta):
        return learner.predict(meta, learner.adapt(meta, support), asked)

    for share, same in ((0.0, one), (1.0, other)):
        torch.testing.assert_close(answers(joined(one, other, share)), answers(same), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answers(joined(one, one, 0.5)), answers(one), atol=1e-3, rtol=1e-3)
    half = joined(one, other, 0.5)
    back = torch.linalg.inv(half["basis"])
    within = sum(torch.linalg.inv(m["basis"]).t() @ torch.linalg.inv(m["basis"]) for m in metas) / 2
    torch.testing.assert_close(back.t() @ back, within, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("mean", "half", "used"), [(5.0, 10.0, True), (-1.0, 10.0, True), (-9.0, 10.0, False), (-1.0, 1.0, False)]
)
def test_a_loss_switches_off_where_it_is_more_than_chance(mean, half, used):
    score = Score.of([Count(1, 2, 2)] * 3)
    assert banked.gains(Worth("entities", score, score, Estimate(mean, half, 20))) is used
