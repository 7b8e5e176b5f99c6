"""What reviewers decided holds: after a rebuild, a new extraction, a changed text; and it can be undone."""

import random

import pytest
from kg_graphs import ACME, ADA, BORN, LONDON, LOVELACE, WORKS, dump, put, said, small

from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.document import Document, Span
from quickstudy.domains.kg.graph.facts import Entry, Link, Proposal, Same
from quickstudy.domains.kg.graph.records import Entity, Slice
from quickstudy.domains.kg.graph.store import GraphStore


@pytest.fixture
def store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


def test_a_verdict_on_a_triple_and_its_undoing(store):
    triple = store.triple(ADA, "born_in", LONDON)
    number = store.reject(triple, by="ann", note="wrong Ada")
    assert store.triple(*triple[:3]).status == "rejected" and triple[0].name not in {
        h for h, *_ in said(store)
    }
    store.accept(triple, by="bob")
    assert store.triple(*triple[:3]).status == "accepted"
    assert store.undo() == 3 and store.triple(*triple[:3]).status == "rejected"
    store.undo(3)  # the undoing is undone
    assert store.triple(*triple[:3]).status == "accepted"
    store.undo()
    store.undo(number)
    assert store.triple(*triple[:3]) == triple
    assert [(d.kind, d.who, d.undone) for d in store.log()] == [
        ("reject", "ann", True), ("accept", "bob", True), ("undo", "", True), ("undo", "", False),
        ("undo", "", False), ("undo", "", False),
    ]  # fmt: skip
    with pytest.raises(DataError, match="no decision is left"):
        store.undo()
    with pytest.raises(DataError, match="decision 1 is undone already"):
        store.undo(1)
    with pytest.raises(DataError, match="no decision 99"):
        store.undo(99)


def test_a_verdict_on_a_sentence_leaves_the_others(store):
    put(store, "c", "Acme sits in London.", (ACME, "based_in", LONDON), score=0.95)
    first, second = store.said((ACME, "based_in", LONDON))
    store.reject(first)
    assert store.triple(ACME, "based_in", LONDON).status == "extracted"
    assert store.triple(ACME, "based_in", LONDON).score == 0.9
    store.reject(second)
    assert store.triple(ACME, "based_in", LONDON).status == "rejected"
    assert {s.verdict for s in store.said((ACME, "based_in", LONDON))} == {"rejected"}
    store.undo(1)
    store.accept(first)
    assert store.triple(ACME, "based_in", LONDON).status == "accepted"


def test_a_correction_moves_the_sentence_to_another_triple(store):
    (found,) = store.said((ADA, "born_in", LONDON))
    store.correct(found, relation="birthplace", turned=True)
    right = store.triple(LONDON, "birthplace", ADA)
    assert right.status == "accepted" and store.said(right)[0].sentence.text == BORN
    assert store.triple(ADA, "born_in", LONDON) is None
    store.reject(store.said(right)[0])
    assert store.triple(LONDON, "birthplace", ADA).status == "rejected"
    store.undo()
    store.undo()
    assert store.triple(LONDON, "birthplace", ADA) is None and store.said((ADA, "born_in", LONDON)) == [found]
    with pytest.raises(DataError, match="nothing to correct"):
        store.correct(found, relation="born_in")
    with pytest.raises(DataError, match="a sentence is corrected"):
        store.correct(right, relation="x")


def test_merging_moves_triples_and_undoing_brings_them_back(store):
    before = dump(store)
    store.merge(LOVELACE, ADA)
    assert said(store) == {
        ("Ada Lovelace", "born_in", "London"), ("Ada Lovelace", "works_for", "Acme"), ("Acme", "based_in", "London"),
    }  # fmt: skip
    assert (
        store.neighbours("Lovelace") == store.neighbours("Ada Lovelace")
        and len(store.neighbours("Lovelace")) == 2
    )
    assert store.said((LOVELACE, "works_for", ACME))[0].head.text == "Lovelace"
    store.undo()
    assert dump(store) == before


def test_two_rows_of_one_triple_share_their_status(store):
    put(store, "c", "Lovelace was born in London.", (LOVELACE, "born_in", LONDON), certain=False, score=0.4)
    assert store.triple(LOVELACE, "born_in", LONDON).status == "review"
    store.merge(LOVELACE, ADA)
    assert [t.status for t in store.neighbours(ADA, "born_in")] == ["extracted"]
    assert len(store.said((ADA, "born_in", LONDON))) == 2
    store.reject(store.triple(ADA, "born_in", LONDON))
    assert store.neighbours(ADA, "born_in") == [] and store.neighbours(LONDON, "born_in") == []
    store.undo(1)  # of the merge: the verdict was on Ada Lovelace's
    assert store.triple(ADA, "born_in", LONDON).status == "rejected"
    assert store.triple(LOVELACE, "born_in", LONDON).status == "review"


def test_what_stays_behind_when_a_merge_is_undone_has_its_own_status_again(store):
    store.reopen()
    put(store, "a", BORN, (ADA, "born_in", LONDON), certain=False, score=0.3)
    put(store, "c", "Lovelace was born in London.", (LOVELACE, "born_in", LONDON))
    store.merge(LOVELACE, ADA)
    assert store.triple(ADA, "born_in", LONDON).status == "extracted"
    store.undo()
    assert store.triple(ADA, "born_in", LONDON).status == "review"
    assert store.triple(LOVELACE, "born_in", LONDON).status == "extracted"


def test_a_merge_may_bring_a_new_name(store):
    store.merge(ADA, Entity("Augusta Ada King", "person"))
    assert store.search("Ada Lovelace") == [Entity("Augusta Ada King", "person")]
    with pytest.raises(DataError, match="no entity 'Nobody'"):
        store.merge(Entity("Nobody", "person"), ADA)
    with pytest.raises(DataError, match="merged with itself"):
        store.merge(ADA, ADA)


def test_a_split_keeps_models_from_merging_and_the_latest_decision_holds(store):
    pairs = [Same(LOVELACE, ADA, 0.99, "ends alike")]
    store.same(pairs, "matcher-1")
    assert store.names(ADA)["names"] == ["Ada Lovelace", "Lovelace"]
    store.split(LOVELACE, ADA)
    assert store.names(ADA)["names"] == ["Ada Lovelace"]
    store.same(pairs, "matcher-2")
    assert store.names(ADA)["names"] == ["Ada Lovelace"]
    store.merge(LOVELACE, ADA)
    assert store.names(ADA)["names"] == ["Ada Lovelace", "Lovelace"]
    store.undo()
    store.undo()
    store.same([], "matcher-1")
    assert len(store.names(ADA)["names"]) == 2  # the other model still says so
    store.same([], "matcher-2")
    assert len(store.names(ADA)["names"]) == 1


def test_a_split_holds_against_what_follows_by_other_ways(store):
    a, b, c = (Entity(f"n{i}", "t") for i in range(3))
    store.add([(a, "r", b), (b, "r", c)])
    store.split(a, c)
    store.same([Same(a, b, 0.9), Same(b, c, 0.8)], "m")
    assert store.names(a)["names"] == ["n0", "n1"] and store.names(c)["names"] == ["n2"]


def test_mentions_are_split_from_their_entity(store):
    put(store, "c", "London wrote White Fang.", (LONDON, "wrote", Entity("White Fang", "book")))
    before = dump(store)
    (found, _) = store.mentions("c")
    jack = Entity("Jack London", "person")
    store.split([("c", found)], jack)
    assert store.triple(jack, "wrote", "White Fang").status == "extracted"
    assert ("London", "wrote", "White Fang") not in said(store) and store.mentions("c")[0].entity == jack
    store.rebuild()
    assert store.mentions("c")[0].entity == jack
    store.undo()
    assert dump(store) == before
    with pytest.raises(DataError, match="no mention"):
        store.split([], jack)
    with pytest.raises(DataError, match="changed meanwhile"):
        store.split([("a", found)], jack)


def test_decisions_hold_after_a_new_extraction_and_a_text_that_changed_elsewhere(store):
    store.merge(LOVELACE, ADA)
    (first,) = store.said((ADA, "works_for", ACME))
    store.correct(first, relation="employed_by")
    store.reject(store.said((ACME, "based_in", LONDON))[0])
    store.split([("a", store.mentions("a")[1])], Entity("London, Ontario", "place"))
    expected = said(store)
    store.reopen()
    put(store, "a", BORN, (ADA, "born_in", LONDON), model="m2")
    put(store, "b", WORKS, (LOVELACE, "works_for", ACME), (ACME, "based_in", LONDON), model="m2")
    assert said(store) == expected
    longer = "A long sentence that nobody reads stands before it. " + WORKS
    put(store, "b", longer, (LOVELACE, "works_for", ACME), (ACME, "based_in", LONDON), model="m2")
    assert said(store) == expected == {
        ("Ada Lovelace", "born_in", "London, Ontario"), ("Ada Lovelace", "employed_by", "Acme"),
    }  # fmt: skip
    other = "Lovelace left. Lovelace worked for Bell, then Acme, not based in London."
    put(store, "b", other, (LOVELACE, "works_for", ACME))
    assert ("Ada Lovelace", "works_for", "Acme") in said(store)  # it isn't the sentence that was corrected


def test_a_decision_survives_the_document_and_its_entities(store):
    store.reject(store.triple(ACME, "based_in", LONDON))
    store.merge(LOVELACE, ADA)
    store.withdraw("a")
    store.withdraw("b")
    assert said(store) == set()
    put(store, "b", WORKS, (LOVELACE, "works_for", ACME), (ACME, "based_in", LONDON))
    assert said(store) == {("Ada Lovelace", "works_for", "Acme")}


def test_same_as_cycles_of_a_catalogue_are_one_thing(store):
    store.catalogue([
        Entry("A", "Acme Corp", "firm", same_as=("B", "A")), Entry("B", "ACME", same_as=("C",)),
        Entry("C", "Acme", same_as=("A", "elsewhere")), Entry("D", "Acme Rockets", same_as=("elsewhere",)),
        Entry("E", "Other"),
    ])  # fmt: skip
    rockets = Entity("Acme Rockets", "firm")
    store.add([(rockets, "in", LONDON)])
    store.link([Link(ACME, "A", 0.9), Link(rockets, "D", 0.8)], "linker")
    assert store.names("Acme")["names"] == ["Acme", "Acme Rockets"]
    assert store.names("Acme")["catalogue"] == ["A", "B", "C", "D", "elsewhere"]
    store.catalogue([Entry("D", "Acme Rockets")])
    assert store.names("Acme")["names"] == ["Acme"]
    with pytest.raises(DataError, match="no entry 'Z'"):
        store.link([Link(ACME, "Z", 1.0)], "linker")
    with pytest.raises(DataError, match="has no id"):
        store.catalogue([Entry(" ", "x")])


def test_a_damaged_log_is_told(store):
    store.merge(LOVELACE, ADA)
    store.db.execute("UPDATE decisions SET body = '{\"one\": 3}'")
    with pytest.raises(CheckpointError, match="decision 1 can't be read"):
        store.rebuild()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_was_done_a_rebuild_gives_the_same(tmp_path, seed):
    """Random documents, decisions, models and undoings: what was kept up to date is what a rebuild makes of it all."""
    pick = random.Random(seed)
    names = [Entity(f"n{i}", "t") for i in range(4)]
    with GraphStore(tmp_path / "g.db") as store:
        for _ in range(40):
            for _ in range(3):
                step(store, pick, names)
            before = dump(store)
            store.rebuild()
            assert dump(store) == before
        assert store.rows("PRAGMA integrity_check") == [("ok",)]


ACTIONS = ("put", "put", "put", "judge", "said", "correct", "merge", "split", "mention", "undo", "undo", "same",
           "propose", "add", "withdraw", "again", "mend", "relate", "whole")  # fmt: skip


def step(store: GraphStore, pick: random.Random, names: list[Entity]) -> None:
    one, other = pick.sample(names, 2)
    everything = list(
        store.triples(status=("rejected", "proposed", "review", "extracted", "given", "accepted"))
    )
    action = pick.choice(ACTIONS)
    try:
        if action == "put":
            a, b, c = pick.sample(names, 3)
            text = " ".join(name.name for name in (a, b, c)) + pick.choice((".", "!", " indeed."))
            put(
                store,
                pick.choice("abcd"),
                text,
                (a, pick.choice("rs"), b),
                (b, "r", c),
                certain=pick.random() < 0.5,
            )
        elif action == "judge" and everything:
            pick.choice((store.accept, store.reject))(pick.choice(everything))
        elif action in ("said", "correct") and everything:
            found = store.said(pick.choice(everything))
            if found and action == "said":
                pick.choice((store.accept, store.reject))(found[0])
            elif found:
                store.correct(found[0], relation=pick.choice("rst"), turned=True)
        elif action == "merge":
            store.merge(one, other)
        elif action == "split":
            store.split(one, other)
        elif action == "mention":
            id = pick.choice("abcd")
            store.split([(id, pick.choice(store.mentions(id)))], pick.choice(names))
        elif action == "mend":
            id = pick.choice("abcd")
            found = pick.choice(store.mentions(id))
            to = (
                None
                if pick.random() < 0.3
                else Span(found.start, found.end + pick.choice((0, 1)), pick.choice("tu"))
            )
            store.mend(id, found, to)
        elif action == "relate":
            id = pick.choice("abcd")
            there = store.mentions(id)
            store.relate(id, pick.choice(there), pick.choice(there), pick.choice(("r", "u", None)))
        elif action == "whole":
            id = pick.choice("abcd")
            text = store.document(id).text
            store.whole(id, Slice(0, len(text), text))
        elif action == "undo":
            store.undo(pick.choice(store.log()).number)
        elif action == "same":
            store.same([Same(one, other, pick.random())], pick.choice("pq"))
        elif action == "propose":
            store.propose([Proposal(one, "r", other, pick.random())], "p")
        elif action == "add":
            store.add([(one, pick.choice("rs"), other)])
        elif action == "withdraw":
            store.withdraw(pick.choice("abcd"))
        elif action == "again":
            store.put(Document("a", "nothing"))
    except (DataError, LookupError):
        pass  # something that isn't there
