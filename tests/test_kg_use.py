"""From labelled documents to a graph in a file: learn, read, extract, save, go on."""

import json
from dataclasses import replace

import kg_field
import pytest
from kg_field import SCHEMA, document

from quickstudy.app import kg_actions
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg import use
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.relations import classifier
from quickstudy.domains.kg.relations.classifier import Said
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, extract
from quickstudy.domains.kg.worth import of_relations


@pytest.fixture(scope="module", name="encoder")
def tiny_encoder():
    return kg_field.encoder()


@pytest.fixture(scope="module", name="model")
def learned_model():
    return kg_field.model()


def said(reading, text):
    return {(text[m.start : m.end], m.type) for m in reading.mentions}


def test_it_reads_what_it_learned(model):
    new = [document(i).document for i in range(18, 30)]
    readings = model.read(new)
    right = sum(
        said(reading, one.text) == {(document(i).of(0), "person"), (document(i).of(1), "firm")}
        for i, (reading, one) in enumerate(zip(readings, new, strict=True), 18)
    )
    assert right >= 9
    for reading, one in zip(readings, new, strict=True):
        for statement in reading.statements:
            start, end = statement.sentence
            assert one.text[start:end].strip() == one.text[start:end] != ""
            assert SCHEMA.admits(
                statement.relation, *(reading.mentions[i].type for i in (statement.head, statement.tail))
            )
    assert sum(len(reading.statements) for reading in readings) >= 6


def test_a_graph_is_extracted_once_and_goes_on_where_it_was(model, tmp_path, monkeypatch):
    texts = [document(i).document for i in range(18, 30)]
    whole = GraphStore(tmp_path / "whole.db")
    whole.put_all(texts)
    assert extract(whole, model, batch=5) == {"done": 12}
    assert extract(whole, model) == {}
    with GraphStore(tmp_path / "stopped.db") as store:
        store.put_all(texts)
        finish, seen = store.finish, []

        def stopped(claim, *rest, **more):
            if len(seen) == 7:
                raise KeyboardInterrupt
            seen.append(claim)
            return finish(claim, *rest, **more)

        store.finish = stopped
        with pytest.raises(KeyboardInterrupt):
            extract(store, model, batch=5)
        del store.finish
        assert extract(store, model, batch=5) == {"done": 5}
        assert store.counts() == whole.counts()
    assert whole.counts()["documents done"] == 12
    whole.close()


def test_large_documents_wait_for_no_other_until_they_are_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(use, "TOGETHER", 50)  # characters: each of these documents is a turn of its own
    read = GraphModel.read

    def stopped(self, documents, progress=None):
        if documents[0].id == "d3":
            raise KeyboardInterrupt
        return read(self, documents, progress)

    monkeypatch.setattr(GraphModel, "read", stopped)
    with GraphStore(tmp_path / "graph.db") as store:
        store.put_all([document(i).document for i in range(6)])
        told = []
        with pytest.raises(KeyboardInterrupt):
            extract(store, model, progress=told.append)
        assert told == [1, 1, 1] and store.counts()["documents done"] == 3
        assert [claim.document.id for claim in store.claim(9)] == ["d3", "d4", "d5"]


def test_a_document_that_cannot_be_read_stops_no_other(model, tmp_path, monkeypatch):
    read = Recogniser.find_all

    def broken(self, documents):
        if any("sued" in d.text for d in documents):
            raise DataError("it has a word that nobody can read.")
        return read(self, documents)

    monkeypatch.setattr(Recogniser, "find_all", broken)
    with GraphStore(tmp_path / "graph.db") as store:
        store.put_all([document(i).document for i in range(6)])
        told = []
        assert extract(store, model, progress=told.append) == {"done": 3, "failed": 3}
        assert sum(told) == 6
        assert set(store.failed().values()) == {"it has a word that nobody can read."}


def test_a_model_comes_back_as_it_was_saved(model, encoder, tmp_path):
    model.save(tmp_path / "model")
    again = GraphModel.load(tmp_path / "model", encoder)
    new = [document(i).document for i in range(18, 30)]
    assert again.version == model.version and again.read(new) == model.read(new)


def test_relations_are_learned_again_by_the_seed_of_learning(encoder, tmp_path, monkeypatch):
    # With few negatives kept, the seed says which.
    monkeypatch.setattr(classifier, "MOST_NEGATIVES", 2)
    examples = [document(i) for i in range(8)]

    def learned(seed):
        return GraphModel.learn(
            examples, SCHEMA, encoder, prior=None, relation_prior=kg_field.relation_prior(), seed=seed
        )

    models = [learned(seed) for seed in range(3)]
    assert models[1].relations.others != models[0].relations.others
    for seed, model in enumerate(models):
        model.save(tmp_path / "model")
        again = GraphModel.load(tmp_path / "model", encoder)
        assert again.seed == model.seed == seed and again.version == model.version
        assert again.relations.others == model.relations.others
    path = tmp_path / "model" / use.EXAMPLES
    record = json.loads(path.read_text())
    del record["seed"]  # as models were kept before
    path.write_text(json.dumps(record))
    assert GraphModel.load(tmp_path / "model", encoder).relations.others == models[0].relations.others


def knows(number, **more):
    """Three persons of whom the first knows the second, as the labels have it, in one sentence."""
    names = kg_field.PEOPLE[number % 6], kg_field.PEOPLE[(number + 1) % 6], kg_field.PEOPLE[(number + 2) % 6]
    text = "{} knows {} , as {} does .".format(*names)
    spans = tuple(Span(text.index(name), text.index(name) + len(name), "person") for name in names)
    return Annotated(Document(f"k{number}", text), spans, (Relation(0, 1, "knows"),), **more)


@pytest.mark.parametrize("partial", [False, True])
def test_worth_counts_a_symmetric_relation_once_and_only_what_was_judged(encoder, partial):
    """Said is what the labels say, the other way round; and something of the second and the third."""
    people = Schema.of({"entities": ["person"], "relations": {"knows": {"symmetric": True}}})

    class Told:
        def extract_all(self, documents, *, across=0):
            said = [Said(1, 0, "knows", 0.9, True), Said(1, 2, "knows", 0.9, True)]
            return [said for _ in documents]

    examples = [knows(i, partial=partial) for i in range(12)]
    prior = kg_field.relation_prior()
    made = of_relations(examples, people, prior, lambda some, kept: Told())
    # Where all pairs of the sentence were judged, the second is wrong.
    assert made.experienced.recall.mean == 100 and made.experienced.total.found == (12 if partial else 24)
    assert made.experienced.f1.mean == pytest.approx(100 if partial else 200 / 3)


def test_a_save_that_fails_leaves_the_old_model_and_other_files_alone(model, encoder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    model.save(folder)
    other = replace(model, precision=0.5)

    def full(path, chunks):
        raise OSError("no room")

    monkeypatch.setattr(use, "write_new", full)
    with pytest.raises(OSError, match="no room"):
        other.save(folder)
    monkeypatch.undo()
    assert GraphModel.load(folder, encoder).precision == model.precision
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    other.save(folder)
    assert GraphModel.load(folder, encoder).precision == 0.5
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "a.txt").write_text("mine")
    with pytest.raises(DataError, match=r"papers: a folder with other things in it \(a.txt\)"):
        model.save(papers)
    assert (papers / "a.txt").read_text() == "mine" and len(list(papers.iterdir())) == 1


def test_entities_alone(encoder, tmp_path):
    bare = [Annotated(d.document, d.spans, (), True) for d in (document(i) for i in range(8))]
    model = GraphModel.learn(bare, SCHEMA, encoder)
    assert model.relations is None
    assert all(reading.statements == [] for reading in model.read([bare[0].document]))
    model.save(tmp_path / "model")
    assert GraphModel.load(tmp_path / "model", encoder).relations is None
    assert len(model.version) == 12


def test_the_examples_of_relations_in_a_schema_are_learned(encoder, tmp_path):
    schema = Schema.of({
        "entities": ["person", "firm"],
        "relations": {"works_for": {
            "head": "person", "tail": "firm",
            "examples": ["[head]{Ada} works for [tail]{Bolt}.", "At [tail]{Acme} [head]{Jo} has a job."],
        }, "sued": {"head": "firm", "tail": "firm"}},
    })  # fmt: skip
    bare = [
        Annotated(Document(str(i), f"Jo {i} met Firm {i}."), (Span(0, 4, "person"), Span(9, 15, "firm")))
        for i in range(4)
    ]
    model = GraphModel.learn(bare, schema, encoder)
    assert model.relations.types == ("works_for",) and len(model.examples) == 6
    assert [one.id for one in (e.document for e in model.examples[4:])] == [
        "schema: works_for 1",
        "schema: works_for 2",
    ]
    assert [(e.of(0), e.of(1)) for e in model.examples[4:]] == [("Ada", "Bolt"), ("Jo", "Acme")]
    assert kg_actions.counted(model.examples, schema) == (
        {"person": 4, "firm": 4},
        {"works_for": 2, "sued": 0},
    )
    model.save(tmp_path / "model")
    again = GraphModel.load(tmp_path / "model", encoder)
    assert again.version == model.version and len(again.examples) == 6
    assert len(GraphModel.learn(model.examples, schema, encoder).examples) == 6  # none is learned twice


def test_without_a_prior_relations_start_from_the_frozen_encoder(encoder, tmp_path):
    model = GraphModel.learn([document(i) for i in range(8)], SCHEMA, encoder)
    assert model.relation_prior is None and model.relations.types == tuple(kg_field.SAID)
    model.save(tmp_path / "model")
    new = [document(i).document for i in range(18, 24)]
    again = GraphModel.load(tmp_path / "model", encoder)
    assert again.relation_prior is None and again.relations.types == model.relations.types
    assert [len(reading.mentions) for reading in again.read(new)] == [
        len(r.mentions) for r in model.read(new)
    ]
    assert GraphModel.load(tmp_path / "model").recogniser.encoder.name == "tiny-bert"  # as the folder says


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("schema"),
        lambda r: r.update(precision="high"),
        lambda r: r["examples"][0].update(text=5),
        lambda r: r["examples"][0].update(spans=[[0, 99999, "person"]]),
        lambda r: r["examples"][0].update(spans=[[0, 1]]),
        lambda r: r["examples"][0].update(relations=[[0, 7, "sued"]]),
        lambda r: r.update(examples=5),
    ],
)
def test_a_damaged_model_is_refused(model, encoder, tmp_path, change):
    model.save(tmp_path / "model")
    path = tmp_path / "model" / use.EXAMPLES
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError):
        GraphModel.load(tmp_path / "model", encoder)
    with pytest.raises(CheckpointError, match="holds no graph model"):
        GraphModel.load(tmp_path / "nothing", encoder)
