"""A model judged on documents that it hasn't seen: its parts, end to end, how sure it is, and what was wrong."""

from dataclasses import replace

import pytest
from kg_field import SCHEMA, document, learned, model

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.learning.evaluate import BY_NAME, BY_PLACE, OWN, evaluate, report
from quickstudy.domains.kg.learning.score import counted, entities, gain
from quickstudy.domains.kg.relations.classifier import RelationClassifier

GOLD = [document(i, firms=1) for i in range(12)]


@pytest.fixture(scope="module", name="judged")
def judged_model():
    return evaluate(model(), GOLD)


def test_its_figures_are_those_of_what_it_read(judged):
    readings = model().read([one.document for one in GOLD])
    spans = [{(m.start, m.end, m.type) for m in reading.mentions} for reading in readings]
    by_hand = [counted(some, entities(one.spans)) for some, one in zip(spans, GOLD, strict=True)]
    assert judged.counts["borders and type"] == by_hand
    assert judged.entities["borders and type"].f1.mean > 70
    assert judged.entities["borders"].f1.mean >= judged.entities["borders and type"].f1.mean
    assert judged.triples[BY_PLACE].total.truth == len(GOLD)
    assert set(judged.kinds) == {"works_for", "sued"} and set(judged.types) == {"person", "firm"}
    asserted = sum(s.certain for reading in readings for s in reading.statements)
    assert judged.triples[BY_PLACE].total.found == asserted
    assert len(judged.statements) == sum(len(reading.statements) for reading in readings) >= asserted
    assert judged.triples[BY_NAME].f1.mean >= judged.triples[BY_PLACE].f1.mean


def test_relations_are_judged_apart_from_entities(judged):
    assert judged.relations["asserted"].recall.mean >= judged.triples[BY_PLACE].recall.mean
    assert judged.relations["with those for review"].total.found >= judged.relations["asserted"].total.found


def test_it_says_how_sure_it_was(judged):
    assert set(judged.error) == {"entities", "triples"}
    assert sum(b.n for b in judged.reliability["entities"]) == len(judged.mentions)
    told = judged.to_json()
    assert told["documents"] == 12 and 0 <= told["expected calibration error"]["triples"] <= 1


def test_it_saves_the_houses_report_and_compares_in_pairs(judged, tmp_path):
    few = evaluate(learned([document(0), document(1)]), GOLD)
    made = report({"two examples": few, "eighteen": judged}, baselines=["two examples"])
    files = {file.name for file in made.save(tmp_path / "report")}
    assert files == {"report.json", "report.md", "report.png"}
    difference = gain(judged.counts[BY_PLACE], few.counts[BY_PLACE])
    assert difference.mean == pytest.approx(judged.triples[BY_PLACE].f1.mean - few.triples[BY_PLACE].f1.mean)


def test_what_it_was_learned_from_is_no_measure():
    with pytest.raises(DataError, match="was learned from document 'd3'"):
        evaluate(model(), [*GOLD, document(3)])
    with pytest.raises(DataError, match="0 are labelled"):
        evaluate(model(), [])


def test_sentences_that_a_reviewer_judged_are_no_measure_either():
    piece = Annotated(
        Document("g#5", GOLD[0].text, "decisions on g"), GOLD[0].spans, GOLD[0].relations, partial=True
    )
    taught = learned([*(document(i) for i in range(12)), piece])
    whole = Annotated(Document("g", f"Note. {GOLD[0].text}"))
    with pytest.raises(DataError, match="was learned from document 'g'"):
        evaluate(taught, [whole])


def test_a_short_sentence_gives_away_its_own_document_alone():
    def taught(text: str):
        heading = Annotated(Document("g#0", text, "decisions on g"))
        return replace(model(), examples=(*model().examples, heading))

    short, long = "Background", "x" * OWN
    for text, id, refused in ((short, "h", False), (short, "g", True), (long, "h", True)):
        gold = replace(GOLD[0], document=Document(id, f"{GOLD[0].text} {text}"))
        if refused:
            with pytest.raises(DataError, match=f"was learned from document {id!r}"):
                evaluate(taught(text), [gold])
        else:
            assert evaluate(taught(text), [gold]).documents == 1


def test_relations_between_given_entities_are_looked_for_as_far_as_the_model_looks(monkeypatch):
    asked = []
    extract = RelationClassifier.extract

    def noted(self, annotated, **more):
        asked.append(more.get("across", 0))
        return extract(self, annotated, **more)

    monkeypatch.setattr(RelationClassifier, "extract", noted)
    evaluate(replace(model(), across=1), GOLD[:2])
    assert asked == [1, 1]


def test_a_model_of_entities_alone_is_judged_too():
    bare = learned([Annotated(d.document, d.spans, (), True) for d in (document(i) for i in range(8))])
    judged = evaluate(bare, GOLD)
    assert judged.triples[BY_PLACE].total.found == 0 and "triples" not in judged.error
    assert SCHEMA.relations.keys() == judged.kinds.keys()
