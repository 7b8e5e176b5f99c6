"""What reviewers are asked, what their answers do at once, and what they teach."""

import pytest
from kg_field import SCHEMA, document
from kg_graphs import ACME, ADA, LONDON, LOVELACE, dump, put, small

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.graph.facts import Proposal, Same
from quickstudy.domains.kg.graph.records import Entity, Slice
from quickstudy.domains.kg.graph.replay import REVIEWER
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.labels import RANDOM, labels, measured
from quickstudy.domains.kg.learning.question import marked, question
from quickstudy.domains.kg.learning.queue import Item, Pair, queue
from quickstudy.domains.kg.learning.review import HELP, Reviewing, run
from quickstudy.domains.kg.schema import Schema

FIELD = Schema.of({
    "entities": ["person", "place", "firm"],
    "relations": {
        "born_in": {"head": "person", "tail": "place"}, "works_for": {"head": "person", "tail": "firm"},
        "based_in": {"head": "firm", "tail": "place"}, "employs": {"head": "firm", "tail": "person"},
    },
})  # fmt: skip


@pytest.fixture(name="store")
def small_store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


@pytest.fixture(name="unsure")
def unsure_store(tmp_path):
    """Twenty-four statements of the tiny field, half of them for review."""
    with GraphStore(tmp_path / "unsure.db") as store:
        for i in range(24):
            one = document(i, firms=i // 12)
            ends = [Entity(one.of(n), span.type) for n, span in enumerate(one.spans)]
            score = round(0.5 + i / 48, 3)
            put(
                store,
                f"d{i}",
                one.text,
                (ends[0], one.relations[0].type, ends[1]),
                certain=i >= 12,
                score=score,
            )
        yield store


def reviewing(store, **more):
    return Reviewing(store, list(FIELD.entities), list(FIELD.relations), by="ann", **more)


def item_of(store, head, relation, tail, **more):
    return Item("statement", store.said((head, relation, tail))[0], "", **more)


def test_yes_and_no_are_written_at_once_and_taken_back(store):
    one, before = reviewing(store), dump(store)
    item = item_of(store, ADA, "born_in", LONDON)
    assert one.answer(item, "y") is None
    with GraphStore(store.path) as other:  # another process sees it
        assert other.triple(ADA, "born_in", LONDON).status == "accepted" and other.log()[-1].who == "ann"
    assert "taken back: decision 1 (accepted)" in one.answer(item, "u") and dump(store) == before
    one.answer(item, "n")
    assert store.triple(ADA, "born_in", LONDON).status == "rejected"
    assert one.counts == {"accepted": 0, "rejected": 1}
    assert "nothing was decided" in reviewing(store).answer(item, "u")


def test_another_relation_and_the_other_direction(store):
    one = reviewing(store)
    item = item_of(store, LOVELACE, "works_for", ACME)
    assert "which relation" in one.answer(item, "r")
    assert "Did you mean" in one.answer(item, "r bron_in")
    assert "nothing to correct" in one.answer(item, "r work")
    assert one.answer(item, "t emp") is None  # a beginning is enough
    assert store.triple(ACME, "employs", LOVELACE).status == "accepted"
    assert store.triple(LOVELACE, "works_for", ACME) is None


def test_a_relation_that_does_not_join_such_types_is_refused(store):
    person, firm = LOVELACE[1], ACME[1]
    schema = Schema.of({
        "name": "work", "entities": [person, firm, "place"],
        "relations": {
            "works_for": {"head": person, "tail": firm}, "born_in": {"head": person, "tail": "place"},
            "employs": {"head": firm, "tail": person}, "married": {"head": person, "tail": person, "symmetric": True},
        },
    })  # fmt: skip
    one = Reviewing(store, list(schema.entities), list(schema.relations), schema=schema)
    item, before = item_of(store, LOVELACE, "works_for", ACME), dump(store)
    assert f"here it leads from {person} to {firm}" in one.answer(item, "r born_in")
    assert "mend it first" in one.answer(item, "r employs") and "mend it first" in one.answer(
        item, "t works_for"
    )
    assert dump(store) == before and one.counts == {}
    assert one.answer(item, "t employs") is None
    assert store.triple(ACME, "employs", LOVELACE).status == "accepted"


def test_other_types_and_borders_of_a_name(store):
    one, item = reviewing(store), item_of(store, LOVELACE, "works_for", ACME)
    before = dump(store)
    assert "'Acme' is a place" in one.answer(item, "2 place")
    assert store.triple(LOVELACE, "works_for", ("Acme", "place")).status == "extracted"
    assert "doesn't say 'Acme plc'" in one.answer(item, "2 = Acme plc")
    assert "'Lovelace worked' is a person" in one.answer(item, "1 = Lovelace  worked")
    assert store.triple(("Lovelace worked", "person"), "works_for", ("Acme", "place")) is not None
    assert "which" not in (one.answer(item, "1 -") or "") and one.counts["names mended"] == 3
    assert store.triple(("Lovelace worked", "person"), "works_for", ("Acme", "place")).status == "rejected"
    store.rebuild()
    assert store.triple(("Lovelace worked", "person"), "works_for", ("Acme", "place")).status == "rejected"
    for _ in range(3):
        one.answer(item, "u")
    assert dump(store) == before


def test_a_mended_name_holds_after_a_new_extraction(store):
    one, item = reviewing(store), item_of(store, ADA, "born_in", LONDON)
    one.answer(item, "2 firm")
    store.reopen()
    put(store, "a", "Ada Lovelace was born in London. Yes!", (ADA, "born_in", LONDON), model="m2")
    assert store.triple(ADA, "born_in", ("London", "firm")) is not None


def test_a_relation_that_was_missed_is_said_by_its_document_until_that_goes(store):
    put(store, "c", "Lovelace met Acme. London.", (LOVELACE, "met", ACME), (LOVELACE, "met", LONDON))
    head, tail, _, place = store.mentions("b")
    before = dump(store)
    assert store.relate("b", head, place, "born_in") == 1
    for _ in range(2):
        found = store.triple(LOVELACE, "born_in", LONDON)
        assert found.status == "accepted"
        [said] = store.said(found)
        assert (said.document, said.head.text, said.tail.text, said.model) == (
            "b",
            "Lovelace",
            "London",
            REVIEWER,
        )
        store.rebuild()
    store.undo()
    assert dump(store) == before
    store.relate("b", tail, head, None)
    assert dump(store) == before
    with pytest.raises(DataError, match="to itself"):
        store.relate("b", head, head, "born_in")
    # Others say it too: theirs isn't taken back with it.
    store.add([(LOVELACE, "born_in", LONDON)])
    store.relate("b", head, place, "born_in")
    store.undo()
    assert store.triple(LOVELACE, "born_in", LONDON).status == "given"


def test_two_documents_say_a_missed_relation_each_for_itself(store):
    put(store, "c", "Lovelace met Acme. London.", (LOVELACE, "met", ACME), (LOVELACE, "met", LONDON))
    first, second = (
        store.relate(
            id,
            *(next(m for m in store.mentions(id) if m.entity == one) for one in (LOVELACE, LONDON)),
            "born_in",
        )
        for id in ("b", "c")
    )
    assert [said.document for said in store.said((LOVELACE, "born_in", LONDON))] == ["b", "c"]
    store.undo(first)
    assert [said.document for said in store.said((LOVELACE, "born_in", LONDON))] == ["c"]
    store.undo(store.undo(second))
    store.withdraw("c")
    assert store.triple(LOVELACE, "born_in", LONDON) is None


def test_a_missed_relation_holds_where_a_new_model_misses_its_names(store):
    head, _, _, place = store.mentions("b")
    store.relate("b", head, place, "born_in")
    store.reopen()
    [claim] = [claim for claim in store.claim(9) if claim.document.id == "b"]
    store.finish(claim, [], [], model="blind")
    assert [m.text for m in store.mentions("b")] == ["Lovelace", "London"]
    assert store.triple(LOVELACE, "born_in", LONDON).status == "accepted"
    store.undo()
    assert store.mentions("b") == [] and LOVELACE not in store.search("Lovelace")


def test_what_was_no_name_may_be_one_after_all(store):
    one, item = reviewing(store), item_of(store, ADA, "born_in", LONDON)
    one.answer(item, "2 -")
    assert store.triple(ADA, "born_in", LONDON).status == "rejected"
    one.answer(item, "2 place")
    assert store.triple(ADA, "born_in", LONDON).status != "rejected"


def test_a_correction_starts_from_the_last_one(store):
    said = item_of(store, ADA, "born_in", LONDON).what
    store.correct(said, relation="lives_in")
    [now] = store.said((ADA, "lives_in", LONDON))
    store.correct(now, turned=True)
    assert store.triple(LONDON, "lives_in", ADA) is not None
    with pytest.raises(DataError, match="says this relation already"):
        store.correct(store.said((LONDON, "lives_in", ADA))[0], relation="lives_in")
    store.correct(store.said((LONDON, "lives_in", ADA))[0], relation="born_in")
    assert store.triple(ADA, "born_in", LONDON) is not None


def test_merges_mentions_and_proposals_are_asked_too(store):
    store.same([Same(LOVELACE, ADA, 0.6, "the same surname")], model="linker")
    store.propose([Proposal(ACME, "born_in", LONDON, 0.4, "as Ada was")], model="inference")
    items = queue(store, most=30)
    kinds = {item.kind: item for item in items}
    assert set(kinds) == {"statement", "merge", "mention", "proposal"} | ({"pair"} & set(kinds))
    assert "the same surname" in "\n".join(question(store, kinds["merge"]))
    one = reviewing(store)
    one.answer(kinds["merge"], "n")
    assert store.search("Lovelace")[0] == LOVELACE and not [i for i in queue(store) if i.kind == "merge"]
    one.answer(kinds["merge"], "u")
    one.answer(kinds["merge"], "y")
    assert store.search("Lovelace")[0] == ADA
    one.answer(kinds["proposal"], "n")
    assert not [i for i in queue(store) if i.kind == "proposal"]
    one.answer(kinds["mention"], "y")
    left = [i.what.found for i in queue(store) if i.kind == "mention"]
    assert kinds["mention"].what.found not in left
    assert one.counts["names confirmed"] == 1
    assert "expected one of" in one.answer(kinds["merge"], "r born_in")
    assert queue(store, kinds=["merge"]) == []
    with pytest.raises(DataError, match="Did you mean"):
        queue(store, kinds=["merges"])


def test_yes_is_no_answer_to_how_two_are_related(store):
    said, one = store.said((ACME, "based_in", LONDON))[0], reviewing(store)
    at = {m.entity: m for m in store.mentions(said.document)}
    item = Item("pair", Pair(said.document, said.sentence, at[ACME], at[LONDON], ("based_in",)), "")
    assert one.answer(item, "y").startswith("expected one of: n(othing)") and store.log() == []
    assert one.answer(item, "r") is None and one.counts == {"added": 1}  # there is but one relation


def test_the_rarest_relation_comes_first_and_one_in_five_is_drawn(unsure):
    items = queue(unsure, most=40, kinds=["statement"], labelled={"sued": 50})
    assert len({(i.what.document, i.what.head, i.what.tail) for i in items}) == len(items) >= 10
    assert [i.random for i in items][:10] == ([False] * 4 + [True]) * 2
    first = [i.what.relation for i in items if not i.random]
    rare = first.count("works_for")
    assert rare >= 2 and first[:rare] == ["works_for"] * rare
    assert all(not i.what.certain for i in items if not i.random)
    again = queue(unsure, most=40, kinds=["statement"], labelled={"sued": 50})
    assert again == items
    done = items[0]
    unsure.accept(done.what)
    assert done.what not in [i.what for i in queue(unsure, most=40)]


def test_answers_come_from_a_file_and_their_end_is_no_error(unsure):
    items, said = queue(unsure, most=6, kinds=["statement"]), []
    one = Reviewing(unsure, list(SCHEMA.entities), list(SCHEMA.relations))
    counts = run(one, items, iter(["y", "?", "what", "n", "u", "y", "s"]), said.append)
    assert counts == {"accepted": 2, "skipped": 1}
    assert HELP in said and any("taken back" in text for text in said)
    assert [d.kind for d in unsure.log()] == ["accept", "reject", "undo", "accept"]
    assert run(Reviewing(unsure, [], []), items, iter(["q", "y"]), said.append) == {}


def test_what_is_asked_shows_both_names_and_obeys_no_control_signs(tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        text = "Ada \x1b[2J Lovelace was born in London."
        store.put(Document("a", text))
        (claim,) = store.claim()
        from quickstudy.domains.kg.graph.claims import Mention, Statement

        start = text.index("London")
        mentions = [Mention(0, 19, "person"), Mention(start, start + 6, "place")]
        store.finish(claim, mentions, [Statement(0, "born_in", 1, (0, len(text)), 0.6, False)], "m")
        (item,) = queue(store, kinds=["statement"])
        shown = "\n".join(question(store, item))
        assert "\x1b" not in shown and "2[London]" in shown and "1[Ada" in shown


def test_marks_may_cross():
    sentence = Slice(0, 12, "A B C D E F!")
    store_mention = lambda a, b: type("M", (), {"start": a, "end": b, "text": "", "type": ""})()  # noqa: E731
    assert marked(sentence, [store_mention(0, 3), store_mention(2, 5)]) == "1[A B] C D E F!"


def test_what_was_drawn_measures_the_graph(unsure):
    one = Reviewing(unsure, list(SCHEMA.entities), list(SCHEMA.relations))
    items = queue(unsure, most=40, kinds=["statement"])
    for item in items:
        one.answer(item, "y" if item.what.certain else "n")
    found = measured(unsure)
    drawn = [item for item in items if item.random]
    assert sum(share.n for share in found.values()) == len(drawn) >= 3
    assert found["asserted"].mean == 100 and found["asserted"].low < 100
    assert found.get("for review", found["asserted"]).mean in (0.0, 100.0)
    one.answer(items[-1], "u")
    last = 1 if items[-1].random else 0
    assert sum(share.n for share in measured(unsure).values()) == len(drawn) - last


def test_decisions_become_examples(store):
    one = reviewing(store)
    one.answer(item_of(store, ADA, "born_in", LONDON), "y")
    one.answer(item_of(store, LOVELACE, "works_for", ACME), "n")
    one.answer(item_of(store, ACME, "based_in", LONDON, random=True), "y")
    one.answer(item_of(store, ADA, "born_in", LONDON), "w")
    made = labels(store, FIELD)
    assert made.lost == 0 and sum(d.note.startswith(RANDOM) for d in store.log()) == 1
    pairs = {one.document.id.split("#")[0]: one for one in made.chosen if one.partial}
    assert pairs["a"].relations == (Relation(0, 1, "born_in"),) and pairs["a"].of(1) == "London"
    assert pairs["b"].relations == () and pairs["b"].unrelated == ((0, 1),)
    (drawn,) = made.drawn
    assert drawn.relations == (Relation(0, 1, "based_in"),) and drawn.of(0) == "Acme"
    (whole,) = [one for one in made.chosen if not one.partial]
    assert {whole.of(i) for i in range(len(whole.spans))} == {"Ada Lovelace", "London"} and not whole.complete
    store.undo(1)
    assert "a" not in {o.document.id.split("#")[0] for o in labels(store, FIELD).chosen if o.partial}


def test_examples_follow_names_that_were_mended_and_texts_that_changed(store):
    one, item = reviewing(store), item_of(store, ADA, "born_in", LONDON)
    one.answer(item, "y")
    one.answer(item, "1 = Ada")
    one.answer(item, "w")
    store.put(Document("a", "Note. " + store.document("a").text))
    made = labels(store, FIELD)
    assert made.lost == 0 and {made.chosen[0].of(i) for i in range(2)} == {"Ada", "London"}
    assert all(example.text == "Ada Lovelace was born in London." for example in made.chosen)
    store.put(Document("a", "Something else altogether."))
    assert labels(store, FIELD).chosen == [] and labels(store, FIELD).lost == 3
    store.withdraw("a")
    assert labels(store, FIELD).lost == 3


def test_a_relation_that_the_schema_has_not_is_lost(store):
    reviewing(store).answer(item_of(store, ADA, "born_in", LONDON), "y")
    other = Schema.of({"entities": ["person", "place"], "relations": {"died_in": {}}})
    assert labels(store, other) == ([], [], 1)


def test_partial_examples_teach_only_what_was_judged():
    from quickstudy.domains.kg.relations.examples import labelled_pairs

    text = "Ada met Bo and Cy."
    spans = (Span(0, 3, "p"), Span(8, 10, "p"), Span(15, 17, "p"))
    one = Annotated(Document("a", text), spans, (Relation(0, 1, "met"),), partial=True, unrelated=((1, 2),))
    told = {(text[slice(*e.pair.head)], text[slice(*e.pair.tail)]): e.type for e in labelled_pairs(one)}
    assert told == {("Ada", "Bo"): "met", ("Bo", "Cy"): None}
    with pytest.raises(DataError, match="unrelated are the spans 1 and 9"):
        Annotated(Document("a", text), spans, partial=True, unrelated=((1, 9),)).checked()
    assert Entity("Ada", "p").name == one.of(0)


def test_a_name_that_was_missed_is_added_taught_and_taken_back(store):
    put(store, "c", "Bo Ray met Ada Lovelace of Acme.", (ADA, "works_for", ACME))
    one = reviewing(store, schema=FIELD)
    item = next(i for i in queue(store, kinds=["statement"]) if i.what.document == "c")
    assert one.answer(item, "+ person") == "which name? + TYPE WORDS, such as: + person Jo Ray"
    assert "doesn't say 'Cy'" in one.answer(item, "+ person Cy")
    assert "crosses 'Ada Lovelace'" in one.answer(item, "+ person Lovelace of")
    assert "no type" in one.answer(item, "+ robot Bo Ray")
    assert one.answer(item, "+pe Bo Ray") is not None and one.answer(item, "+ pe Bo Ray").startswith(
        "'Bo Ray' crosses"
    )
    assert one.counts == {"names added": 1}
    found = {m.text: m for m in store.mentions("c")}
    assert found["Bo Ray"].entity == Entity("Bo Ray", "person") and found["Bo Ray"].score == 1.0
    assert one.answer(item, "w").startswith("noted: all names") and one.answer(item, "y") is None
    [whole] = [e for e in labels(store, FIELD).chosen + labels(store, FIELD).drawn if not e.partial]
    assert {(whole.of(i), s.type) for i, s in enumerate(whole.spans)} >= {
        ("Bo Ray", "person"),
        ("Acme", "firm"),
    }
    store.relate("c", found["Bo Ray"], found["Acme"], "works_for")  # what was added can be related
    assert store.triple(Entity("Bo Ray", "person"), "works_for", ACME).status == "accepted"
    before = dump(store)
    store.rebuild()
    assert dump(store) == before
    put(
        store, "c", "Now Bo Ray met Ada Lovelace of Acme.", (ADA, "works_for", ACME)
    )  # read again, elsewhere in the text
    assert [m.start for m in store.mentions("c") if m.text == "Bo Ray"] == [4]
    put(store, "c", "Now Bo Ray met Ada Lovelace of Acme!", (Entity("Bo Ray", "firm"), "knows", ADA))
    assert [m.type for m in store.mentions("c") if m.text == "Bo Ray"] == [
        "firm"
    ]  # a model found it meanwhile
    [number] = [d.number for d in store.log() if d.kind == "name"]
    put(store, "c", "Bo Ray met Ada Lovelace of Acme.", (ADA, "works_for", ACME))
    store.undo(number)
    assert "Bo Ray" not in {m.text for m in store.mentions("c")} or store.triple(
        Entity("Bo Ray", "person"), "works_for", ACME
    )  # the relation marks its own ends
    store.undo(next(d.number for d in store.log() if d.kind == "pair"))
    assert "Bo Ray" not in {m.text for m in store.mentions("c")}


@pytest.mark.parametrize(
    "span", [Span(5, 5, "person"), Span(0, 999, "person"), Span(6, 7, "person"), Span(-3, 2, "person")]
)
def test_a_name_that_cant_be_is_refused(store, span):
    put(store, "c", "Bo Ray met Ada Lovelace.", (ADA, "born_in", ADA))
    with pytest.raises(DataError):
        store.name("c", span)
    assert store.log() == []
