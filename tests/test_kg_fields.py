"""Fields to build a graph of: which sentences are labelled, and which triples an answer stands for."""

from dataclasses import replace
from pathlib import Path

from quickstudy.bench.kg_fields import SCHEMAS, Field, Triple, alone, told, truth, unrelated
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.schema import Schema

NEWS = Schema.of(SCHEMAS["CoNLL04"])
TEXT = "Ann Ray works for Acme in Rome. Bob lives in Bonn. It rained."


def spans(text: str, *marks: tuple[str, str]) -> tuple[Span, ...]:
    return tuple(Span(text.index(words), text.index(words) + len(words), kind) for words, kind in marks)


def news() -> Annotated:
    marks = ("Ann Ray", "Peop"), ("Acme", "Org"), ("Rome", "Loc"), ("Bob", "Peop"), ("Bonn", "Loc")
    said = Relation(0, 1, "Work_For"), Relation(3, 4, "Live_In")
    return Annotated(Document("n", TEXT), spans(TEXT, *marks), said, complete=True)


def renamed(one: Annotated, number: int) -> Annotated:
    return replace(one, document=Document(f"{one.document.id}{number}", one.text))


def parts(monkeypatch, schema: Schema, **given: list[Annotated]) -> Field:
    """A field of these parts; those that aren't given are empty."""
    monkeypatch.setattr(Field, "part", lambda _, part: given.get(part, []))
    return Field("news", schema, Path())


def test_sentences_keep_what_is_labelled_within_them():
    first, second, third = alone([news()])
    assert [first.of(i) for i in range(3)] == ["Ann Ray", "Acme", "Rome"] and first.relations == (
        Relation(0, 1, "Work_For"),
    )
    assert [second.of(i) for i in range(2)] == ["Bob", "Bonn"] and second.relations == (
        Relation(0, 1, "Live_In"),
    )
    assert third.spans == () and third.complete


def test_unrelated_pairs_are_those_that_types_admit():
    one = news()
    found = {(one.of(head), one.of(tail)) for head, tail in unrelated(one, NEWS)}
    assert found == {
        ("Ann Ray", "Rome"),
        ("Acme", "Rome"),
    }  # not Bob and Bonn, who are related; nor across sentences


def test_every_kind_is_drawn_as_often_as_was_asked(monkeypatch):
    schema = Schema.of({
        "entities": ["Peop", "Org", "Loc"],
        "relations": {name: SCHEMAS["CoNLL04"]["relations"][name] for name in ("Work_For", "Live_In")},
    })  # fmt: skip
    field = parts(monkeypatch, schema, train=[renamed(news(), i) for i in range(6)])
    chosen = field.draw(3, seed=0)
    kinds = [r.type for row in chosen for r in row.relations]
    assert kinds.count("Work_For") == 3 and kinds.count("Live_In") == 3 and len(chosen) == 6
    assert field.draw(3, seed=0) == chosen != field.draw(3, seed=1)


def test_nothing_is_drawn_that_stands_in_a_part_that_is_reported(monkeypatch):
    again = Annotated(Document("t", "ANN RAY works for Acme, in Rome!"))  # the same by letters and digits
    held = {"dev": [Annotated(Document("v", "Then a word. Bob lives in Bonn."))], "test": [again]}
    train = [renamed(news(), i) for i in range(3)]
    for part in ("dev", "test"):
        field = parts(monkeypatch, NEWS, train=train, **{part: held[part]})
        sentence = {"dev": "Bob lives in Bonn.", "test": "Ann Ray works for Acme in Rome."}[part]
        drawn = {row.text for row in field.draw(2, seed=0)}
        assert drawn and sentence not in drawn, "not even where it is one sentence of a document"
        assert sentence not in {row.text for row in field.rows()}
        assert field.rows(whole=True) == [], "nor a document that holds it"
    assert parts(monkeypatch, NEWS, train=train).rows(whole=True) == train


def test_an_answer_stands_for_a_triple_of_exact_spans():
    one = news()
    assert told(one, one.spans[0], "Work_For", one.spans[1]) in truth(one)
    assert told(one, Span(0, 3, "Peop"), "Work_For", one.spans[1]) not in truth(one)
    assert told(one, one.spans[0]._replace(type="Org"), "Work_For", one.spans[1]) not in truth(one)
    assert told(one, one.spans[1], "Work_For", one.spans[0]) not in truth(one)


def test_mentions_with_an_id_stand_for_the_id():
    text = "Lithium caused tremor. Later LI+ caused shaking, too, and rash."
    marks = (
        ("Lithium", "Chemical"),
        ("tremor", "Disease"),
        ("LI+", "Chemical"),
        ("shaking", "Disease"),
        ("rash", "Disease"),
    )
    links = {0: "D1", 1: "D2", 2: "D1", 3: "D2|D3"}
    one = Annotated(Document("d", text), spans(text, *marks), (Relation(0, 1, "CID"),), links=links)
    s = one.spans
    assert truth(one) == {Triple("D1", "CID", "D2")}
    assert told(one, s[2], "CID", s[3]) == Triple("D1", "CID", "D2")
    assert told(one, s[2], "CID", s[4]) == Triple("D1", "CID", "rash Disease")
    assert told(one, Span(0, 4, "Chemical"), "CID", s[1]) not in truth(one)
