"""From labelled documents to a graph in a file: learn, read, extract, save, go on."""

import json

import pytest
import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg import use
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.entities.prior import Source, learn_prior
from quickstudy.domains.kg.entities.recogniser import Recogniser
from quickstudy.domains.kg.entities.tune import Tuning
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.relations.classifier import labelled_pairs
from quickstudy.domains.kg.relations.pairs import PairEncoder
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, extract
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.lora import LoRA

PEOPLE, FIRMS = ["Ada", "Bo", "Cy", "Dora", "Eli", "Fay"], ["acme", "bolt", "corp", "dyne", "enco", "fizz"]
SAID = {"works_for": "{} is employed as a clerk by {} .", "sued": "{} went to court and sued {} again !"}
SCHEMA = Schema.of({
    "entities": ["person", "firm"],
    "relations": {name: {"head": "person", "tail": "firm"} for name in SAID},
})  # fmt: skip


def document(number: int, kind: str = "") -> Annotated:
    kind = kind or list(SAID)[number % 2]
    person, firm = PEOPLE[number % 6], FIRMS[(number // 2 + number) % 6]
    text = SAID[kind].format(person, firm)
    start = text.rindex(firm)
    spans = (Span(0, len(person), "person"), Span(start, start + len(firm), "firm"))
    return Annotated(Document(f"d{number}", text), spans, (Relation(0, 1, kind),), complete=True)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny-bert", cache=False, dtype="float32")


@pytest.fixture(scope="module")
def prior(encoder):
    pairs = PairEncoder(encoder)
    known = [e for i in range(24) for e in labelled_pairs(document(i)) if e.type]
    x = pairs.encode([e.pair for e in known])
    y = torch.tensor([list(SAID).index(e.type or "") for e in known])
    return RelationPrior.estimate(pairs, [Labelled.of(x, y)], directions=8)


@pytest.fixture(scope="module")
def model(encoder, prior):
    tuning = Tuning(
        spec=LoRA(rank=4, alpha=8.0, layers=(0, 1)),
        steps=200,
        batch=8,
        rate=3e-3,
        head_rate=1e-2,
        dropout=0.0,
    )
    past = learn_prior([Source("past", [document(i) for i in range(30, 70)])], encoder, tuning)
    return GraphModel.learn(
        [document(i) for i in range(18)], SCHEMA, encoder, prior=past, relation_prior=prior, precision=0.5
    )


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


def test_entities_alone(encoder, tmp_path):
    bare = [Annotated(d.document, d.spans, (), True) for d in (document(i) for i in range(8))]
    model = GraphModel.learn(bare, SCHEMA, encoder)
    assert model.relations is None
    assert all(reading.statements == [] for reading in model.read([bare[0].document]))
    model.save(tmp_path / "model")
    assert GraphModel.load(tmp_path / "model", encoder).relations is None
    assert len(model.version) == 12


def test_relations_need_what_earlier_relations_taught(encoder):
    with pytest.raises(DataError, match="give relation_prior"):
        GraphModel.learn([document(i) for i in range(8)], SCHEMA, encoder)


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
