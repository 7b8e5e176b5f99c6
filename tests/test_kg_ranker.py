"""The learned ranker behind `--catalogue`: what it plays with, links, suggests and remembers, and what people say."""

import json
from dataclasses import replace
from types import SimpleNamespace

import kg_field
import pytest
import torch
from kg_graphs import ACME, ADA, LONDON, LOVELACE, dump, put, small

from quickstudy.app import kg_decide, kg_extract
from quickstudy.app.cli import main
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.document import Annotated, Document, Span
from quickstudy.domains.kg.graph.facts import Entry as Told
from quickstudy.domains.kg.graph.facts import Link, Same
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.labelled import as_record, from_record
from quickstudy.domains.kg.learning.question import question
from quickstudy.domains.kg.learning.queue import Linked, queue
from quickstudy.domains.kg.learning.review import Reviewing
from quickstudy.domains.kg.linking import across, ranker, worlds
from quickstudy.domains.kg.linking.across import read_catalogue
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry
from quickstudy.domains.kg.linking.prior import LinkPrior
from quickstudy.domains.kg.linking.ranker import Ranker, told_of
from quickstudy.encoders.text import load_encoder

DISEASES = Catalogue([
    Entry("D1", ("kidney failure", "renal insufficiency"), "disease"), Entry("D2", ("heart attack",), "disease"),
    Entry("D3", ("liver cirrhosis", "hepatic fibrosis"), "disease"), Entry("D4", ("stroke",), "disease"),
    Entry("D5", ("seizures", "epileptic fits"), "disease"), Entry("D6", ("memory loss", "amnesia"), "disease"),
    Entry("D7", ("low blood pressure", "hypotension"), "disease"), Entry("C1", ("ibuprofen",), "chemical"),
])  # fmt: skip
THINGS = "solar pumps|heat pumps|steel pipes|city traffic|rail traffic|fish waste|chemical waste|guide dogs|police dogs"
SKILLS = [
    f"{verb} {thing}"
    for verb in ("install", "repair", "plan", "handle", "sell", "inspect")
    for thing in THINGS.split("|")
]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("minilm")


@pytest.fixture(scope="module", name="shipped")
def shipped_ranker(encoder):
    return Ranker.shipped(DISEASES, encoder)


@pytest.fixture(name="store")
def small_store(tmp_path):
    with small(tmp_path / "g.db") as store:
        store.catalogue([Told("Q7259", "Ada Lovelace"), Told("Q84", "London"), Told("Q90", "Paris")])
        yield store


def played(number: int, id: str, name: str) -> Annotated:
    return Annotated(Document(f"d{number}", name), (Span(0, len(name), "disease"),), (), True, {0: id})


def test_what_is_played_with_documents_has_an_answer_or_none():
    past = [played(i, f"old{i}", f"old disease {i}") for i in range(5)]
    new = [
        played(9 + i, f"new{i % 10}", f"new disease {i % 10}{' of a kind' * (i // 10)}") for i in range(20)
    ]
    world = worlds.of_documents(past, [*new, played(99, "old1", "an old disease")], seed=3)
    there = {entry.id for entry in world.catalogue.entries}
    assert {f"old{i}" for i in range(5)} < there and world.ids[-1] == "old1"
    gone = {f"new{i}" for i in range(10)} - there
    assert 0 < len(gone) < 10
    # Of a new id that came, its second name is asked for; of one that didn't, both, and the answer is none.
    assert len(world.mentions) == 10 - len(gone) + 2 * len(gone) + 1
    assert sum(id is None for id in world.ids) == 2 * len(gone)
    assert all(world.documents[m.document].text == m.text for m in world.mentions)


def test_what_is_played_with_a_catalogue_takes_names_and_entries_out():
    kinds = set()
    for seed in range(20):
        world = worlds.of_names(DISEASES, 4, seed=seed)
        assert len(world.mentions) == 4 or any(world.ids)
        left = {entry.id: entry for entry in world.catalogue.entries}
        for mention, id in zip(world.mentions, world.ids, strict=True):
            [whose] = [entry for entry in DISEASES.entries if mention.text in entry.names]
            assert (id == whose.id) == (whose.id in left) and (id is None) == (whose.id not in left)
            if id is not None and len(world.mentions) == 4:  # its name is taken out where it has another
                assert (mention.text in left[id].names) == (len(whose.names) == 1)
            kinds.add((id is None, len(whose.names)))
        assert any(world.ids)
    assert len(kinds) == 4
    assert worlds.of_names(Catalogue([Entry("1", ("one",))]), 40).ids == ["1"]


def test_a_ranker_finds_what_no_letters_say(shipped):
    asked = [
        Entity("renal failure", "disease"),
        Entity("cerebral stroke", "disease"),
        Entity("cirrhosis", "disease"),
    ]
    found = shipped.look_up(asked, [""] * 3)
    assert [one.id for one in found] == ["D1", "D4", "D3"]
    assert all(0.3 < one.score <= 1 and "by meaning" in one.why for one in found)
    stranger = shipped.look_up([Entity("Zyxwv", "disease")], [""])[0]
    assert stranger.score < min(one.score for one in found)


def test_entries_of_another_type_are_no_candidates(shipped):
    [one] = shipped.look_up([Entity("ibuprofen poisoning", "disease")], [""])
    assert one.id != "C1"
    alone = Ranker.shipped(
        Catalogue([Entry("1", ("aspirin",), "drug"), Entry("2", ("gout",), "illness")]),
        load_encoder("minilm"),
    )
    [one] = alone.look_up([Entity("aspirins taken", "chemical")], [""])  # the catalogue has words of its own
    assert one.id == "1"


def test_it_adapts_to_a_field_whose_names_are_all_alike_but_none_the_same(encoder):
    """Where every name stands for another thing, one that is like it is another still: the catalogue shows it."""
    catalogue = Catalogue(Entry(str(i), (name,)) for i, name in enumerate(SKILLS) if i % 5)
    asked = [Entity(name, "") for name in SKILLS[::5]]
    texts = [""] * len(asked)
    adapted = Ranker.shipped(catalogue, encoder)
    before = Ranker(catalogue, encoder, LinkPrior.shipped())
    weights = {
        f"net.{name}": weight for name, weight in before.past.meta.items()
    }  # as earlier fields left them
    before.linker = replace(adapted.linker, fast={**adapted.linker.fast, **weights})
    ours, theirs = (torch.tensor([one.score for one in r.look_up(asked, texts)]) for r in (adapted, before))
    assert ours.max() < 0.5 < theirs.min()


def test_what_reviewers_say_teaches_it(encoder):
    asked = Entity("renal failure", "disease")

    def score(*told):
        return Ranker(DISEASES, encoder, LinkPrior.shipped(), told).look_up([asked], [""])[0].score

    said = (("hepatic failure", "D3"), ("cardiac failure", "D1"), ("bladder failure", "D1"))
    wrong = [ranker.Told(Entity(name, "disease"), "", id, False) for name, id in said]
    assert score(*wrong) < score() < score(*(one._replace(right=True) for one in wrong))
    versions = {
        Ranker(DISEASES, encoder, LinkPrior.shipped(), told).version for told in ((), wrong, wrong[:1])
    }
    assert len(versions) == 3


def test_an_entry_that_was_denied_gives_way_to_the_next(encoder):
    asked = Entity("renal failure", "disease")

    def best(*denied):
        told = [ranker.Told(asked, "", id, False) for id in denied]
        return Ranker(DISEASES, encoder, LinkPrior.shipped(), told).look_up([asked], [""])[0].id

    assert best() == "D1"
    assert (second := best("D1")) not in ("", "D1")
    assert best("D1", second) not in ("D1", second)


def test_labels_and_decisions_are_what_it_is_told(store):
    labelled = Annotated(
        Document("x", "gout and flu"),
        (Span(0, 4, "disease"), Span(9, 12, "disease")),
        (),
        True,
        {0: "Q84", 1: "?"},
    )
    store.identify(LOVELACE, "Q7259")
    store.deny(LONDON, "Q90")
    store.undo(store.identify(ACME, "Q90"))
    catalogue = Catalogue([Entry("Q7259", ("Ada",)), Entry("Q84", ("London",)), Entry("Q90", ("Paris",))])
    told = told_of(store, [labelled], catalogue)
    assert [(one.entity.name, one.id, one.right) for one in told] == [
        ("gout", "Q84", True), ("Lovelace", "Q7259", True), ("London", "Q90", False)
    ]  # fmt: skip
    assert all(one.entity.name in one.text for one in told)


def test_a_prior_is_learned_saved_and_read_back(tmp_path):
    tiny = load_encoder("tiny")
    past = [played(i, f"id{i}", f"disease number {i}") for i in range(30)]
    new = [played(100 + i, f"id{i % 60}", f"number {i % 60} disease{'s' * (i // 60)}") for i in range(120)]
    world = worlds.of_documents(past, new)
    seen = []
    made = LinkPrior.learn(
        [world], tiny, steps=3, record={"who": "test"}, progress=lambda *step: seen.append(step)
    )
    assert [number for number, _ in seen] == [1, 2, 3]
    made.save(tmp_path / "links", card="# card")
    read = LinkPrior.load(tmp_path / "links")
    assert read.learner == made.learner and read.record == {"who": "test"} and read.identity == made.identity
    assert all(torch.equal(made.meta[name], tensor) for name, tensor in read.meta.items())
    with pytest.raises(DataError, match="40 mentions"):
        LinkPrior.learn([worlds.of_names(DISEASES, 4)], tiny, steps=1)


@pytest.mark.parametrize(
    "change", [{"of": "relations"}, {"signs": ["a"]}, {"learner": {"type": "Nothing"}}, {"learner": None}]
)
def test_a_folder_that_holds_no_such_prior_is_refused(tmp_path, change):
    made = LinkPrior.shipped()
    made.save(tmp_path / "links")
    record = json.loads((tmp_path / "links" / "record.json").read_text())
    (tmp_path / "links" / "record.json").write_text(json.dumps(record | change))
    with pytest.raises(CheckpointError):
        LinkPrior.load(tmp_path / "links")


def test_the_ranker_that_is_shipped_knows_one_encoder():
    assert Ranker.shipped(DISEASES, load_encoder("tiny-bert", cache=False, dtype="float32")) is None


# -- In the store


def test_a_reviewer_says_what_an_entity_is(store):
    before = dump(store)
    number = store.identify(ADA, "Q7259", by="ann")
    assert store.names(ADA)["catalogue"] == ["Q7259"]
    store.identify(LOVELACE, "Q7259")  # two that are one entry are one
    assert sorted(store.names(ADA)["names"]) == ["Ada Lovelace", "Lovelace"]
    after = dump(store)
    store.rebuild()
    assert dump(store) == after
    store.undo()
    assert store.names(LOVELACE)["catalogue"] == []
    store.undo(number)
    assert store.names(ADA)["catalogue"] == []
    assert {k: v for k, v in dump(store).items() if "decision" not in k} == {
        k: v for k, v in before.items() if "decision" not in k
    }


def test_a_denied_link_stays_denied_whatever_a_model_says(store):
    store.link([Link(LONDON, "Q84", 0.99)], "m")
    assert store.names(LONDON)["catalogue"] == ["Q84"]
    store.deny(LONDON, "Q84")
    assert store.names(LONDON)["catalogue"] == []
    store.link([Link(LONDON, "Q84", 0.99)], "m")
    assert store.names(LONDON)["catalogue"] == []
    with pytest.raises(DataError, match=r"no entry 'Q85'.*Did you mean"):
        store.deny(LONDON, "Q85")
    with pytest.raises(DataError, match="Nobody"):
        store.identify(Entity("Nobody", "person"), "Q84")


def test_suggestions_are_asked_once_and_decided(store):
    store.suggest(
        [
            Link(ADA, "Q7259", 0.8, "ranked"),
            Link(LOVELACE, "Q7259", 0.5),
            Link(ACME, "Q90", 0.1),
            Link(LONDON, "", 0.0),
        ],
        "r1",
    )
    items = queue(store, kinds=["link"])
    assert [(item.what.entity, item.what.score) for item in items if isinstance(item.what, Linked)] == [
        (ADA, 0.8),
        (LOVELACE, 0.5),
    ]
    asked = "\n".join(question(store, items[0]))
    assert "Is it?  Ada Lovelace (person)  =  Ada Lovelace [Q7259]" in asked and "because: ranked" in asked
    one = Reviewing(store, ["person"], ["born_in"], by="ann")
    assert one.answer(items[0], "1 person") == "expected one of: y(es, it is that)  n(o)  u s q ?"
    assert one.answer(items[0], "w").startswith("expected one of")
    assert one.answer(items[0], "y") is None and one.answer(items[1], "n") is None
    assert one.counts == {"linked": 1, "not linked": 1}
    assert store.names(ADA)["catalogue"] == ["Q7259"] and queue(store, kinds=["link"]) == []
    one.answer(items[1], "u")
    assert [item.what.entity for item in queue(store, kinds=["link"])] == [LOVELACE]


def test_links_that_a_model_made_and_isnt_sure_of_are_asked_about(store):
    store.link([Link(LONDON, "Q84", 0.8, "written nearly as"), Link(ADA, "Q7259", 0.99)], "m")
    [item] = queue(store, kinds=["link"])
    assert item.what.entity == LONDON and item.why == "linked with 0.80"
    Reviewing(store, [], []).answer(item, "n")
    assert store.names(LONDON)["catalogue"] == [] and queue(store, kinds=["link"]) == []


def test_a_question_about_a_merge_takes_no_mending(store):
    store.same([Same(LOVELACE, ADA, 0.5)], "m")
    [item] = queue(store, kinds=["merge"])
    assert Reviewing(store, ["person"], []).answer(item, "1 person").startswith("expected one of")


def test_what_was_looked_up_is_not_looked_up_again(store, encoder):
    catalogue = Catalogue([Entry("Q7259", ("Countess Augusta Ada King",)), Entry("Q84", ("Greater London",))])
    store.catalogue([Told("Q7259", "Countess"), Told("Q84", "Greater London")])
    one = Ranker.shipped(catalogue, encoder)
    asked = []
    real = one.look_up
    one.look_up = lambda some, *more: (asked.extend(some), real(some, *more))[1]
    strangers = [ADA, LONDON, ACME]
    first = ranker.settle(store, one, strangers)
    assert asked == strangers and {link.entity for link in first} <= set(strangers)
    put(store, "new", "Bo Ray met Ada Lovelace.", (Entity("Bo Ray", "person"), "knows", ADA))
    second = ranker.settle(store, one, [*strangers, Entity("Bo Ray", "person"), Entity("gone", "person")])
    assert asked == [*strangers, Entity("Bo Ray", "person"), Entity("gone", "person")]
    assert second[: len(first)] == first
    store.withdraw("new")
    assert Entity("Bo Ray", "person") not in {link.entity for link in store.suggested()}
    other = Ranker.shipped(Catalogue([Entry("Q84", ("London, England",))]), encoder)
    ranker.settle(store, other, [LONDON])  # another catalogue: what the first thought goes
    assert {link.entity for link in store.suggested()} == {LONDON}


def test_linking_with_a_ranker_keeps_what_names_say(store, encoder):
    rows = [("Q84", ("London",), "place"), ("Q1", ("Acme Corporation of Ohio", "Acme Rockets"), "firm")]
    catalogue = Catalogue(Entry(*row) for row in rows)
    one = Ranker.shipped(catalogue, encoder)
    assert one.look_up([ACME], [""])[0].score < 0.9  # with two entries there is hardly anything to go by

    def rank(strangers):
        return ranker.settle(store, one, strangers)

    done = across.settle(store, catalogue, rank=rank, precision=0.05)
    assert store.names(LONDON)["catalogue"] == ["Q84"] and store.names(ACME)["catalogue"] == ["Q1"]
    assert (done.linked, done.strangers, done.suggested) == (2, 2, 0)
    sure = across.settle(store, catalogue, rank=rank, precision=0.9)
    assert (sure.linked, sure.strangers) == (1, 3) and store.names(ACME)["catalogue"] == []
    assert sure.suggested == sum(link.score >= across.LEAST for link in store.suggested())


# -- By command


def test_names_are_linked_and_unlinked_by_command(store, capsys):
    store.close()
    path = str(store.path)
    assert main(["kg", "link", path, "Lovelace", "Q7259", "--by", "ann"]) == 0
    assert main(["kg", "unlink", path, "London", "Q84", "--note", "the one in Ontario"]) == 0
    assert "Decision 2" in capsys.readouterr().out
    assert main(["kg", "decisions", path]) == 0
    said = capsys.readouterr().out
    assert "identify" in said and "deny" in said and "Lovelace · Q7259" in said
    assert main(["kg", "merges", path, "Lovelace"]) == 0 and "decision 1" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="all that was said of either is said of a person now"):
        kg_decide.merge(path, "Acme", "Lovelace")
    assert main(["kg", "link", path, "London", "Q85"]) == 2
    assert "Did you mean" in capsys.readouterr().err


def test_a_model_on_another_encoder_links_by_names_and_says_so(tmp_path, capsys):
    kg_field.model().save(tmp_path / "model")
    (tmp_path / "firms.csv").write_text("id,name,type\nF1,Acme,firm\n")
    (tmp_path / "a.txt").write_text(kg_field.document(0).text)
    command = [
        "kg",
        "extract",
        str(tmp_path / "g.db"),
        str(tmp_path / "a.txt"),
        "--model",
        str(tmp_path / "model"),
    ]
    command += ["--catalogue", str(tmp_path / "firms.csv")]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "linked by their names alone" in " ".join((told.out + told.err).split())
    assert main([*command, "--no-rank"]) == 0
    told = capsys.readouterr()
    assert "linked by their names alone" not in " ".join((told.out + told.err).split())


def test_extract_suggests_what_a_reviewer_then_decides(tmp_path, encoder, monkeypatch):
    """With the encoder that is shipped; what is found in the documents is written by hand: nothing is learned."""
    catalogue = tmp_path / "c.csv"
    rows = [
        f"{entry.id},{entry.names[0]},{entry.type},{'|'.join(entry.names[1:])}" for entry in DISEASES.entries
    ]
    catalogue.write_text("\n".join(["id,name,type,aliases", *rows]) + "\n")
    sick = Entity("renal failure", "disease")
    with GraphStore(tmp_path / "g.db") as store:
        put(store, "a", "Nephrosis led to renal failure.", (Entity("Nephrosis", "disease"), "causes", sick))
        notes = []
        ranking = kg_extract._ranking(
            store, SimpleNamespace(recogniser=SimpleNamespace(encoder=encoder), examples=(), precision=0.95, seed=0),
            read_catalogue(catalogue), notes, lambda *_: None,
        )  # fmt: skip
        done = across.settle(store, read_catalogue(catalogue), rank=ranking, precision=0.95)
        assert not notes and done.linked == 0 and done.suggested >= 1
        [item] = [item for item in queue(store, kinds=["link"]) if item.what.entity == sick]
        assert item.what.id == "D1" and "renal failure" in item.what.sentence.text
        Reviewing(store, [], []).answer(item, "y")
        assert (
            store.names(sick)["catalogue"] == ["D1"] and "renal insufficiency" in store.names(sick)["aliases"]
        )


def test_a_model_keeps_the_links_of_its_examples():
    one = Annotated(Document("x", "gout"), (Span(0, 4, "disease"),), (), True, {0: "D9"})
    assert from_record(as_record(one)) == one
    assert "links" not in as_record(replace(one, links={}))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        from_record(as_record(one) | {"links": {"a": "D9"}})


def test_an_entity_is_one_entry_and_the_reviewer_says_which(store):
    store.link([Link(LONDON, "Q84", 0.99), Link(ADA, "Q7259", 0.99)], "m")
    store.identify(LONDON, "Q90")
    assert store.names(LONDON)["catalogue"] == ["Q90"]
    store.identify(LONDON, "Q84")  # the last one holds
    assert store.names(LONDON)["catalogue"] == ["Q84"]
    store.undo()
    assert store.names(LONDON)["catalogue"] == ["Q90"]
    store.identify(LOVELACE, "Q90")  # what a model takes for another entry isn't fused with it
    store.same([Same(LOVELACE, ADA, 0.95)], "names")
    assert store.names(ADA)["catalogue"] == ["Q7259"] and store.names(LOVELACE)["catalogue"] == ["Q90"]
    before = dump(store)
    store.rebuild()
    assert dump(store) == before


def test_what_was_denied_shows_nowhere(store):
    store.same([Same(LOVELACE, ADA, 0.95)], "names")
    store.link([Link(LOVELACE, "Q7259", 0.8), Link(ADA, "Q7259", 0.8)], "m")
    store.deny(LOVELACE, "Q7259")
    whole = store.names(LOVELACE)["names"] == store.names(ADA)["names"]
    assert store.names(LOVELACE)["catalogue"] == (
        ["Q7259"] if whole and store.names(ADA)["catalogue"] else []
    )
    catalogue = Catalogue([Entry("Q84", ("Londinium on the Thames",), "place")])
    store.catalogue([Told("Q84", "Londinium on the Thames", "place")])
    sure = Link(LONDON, "Q84", 0.99)
    done = across.settle(store, catalogue, rank=lambda some: [sure] if LONDON in some else [])
    assert (done.linked, done.suggested) == (1, 0)
    store.deny(LONDON, "Q84")
    done = across.settle(store, catalogue, rank=lambda some: [sure])
    assert (done.linked, done.suggested) == (0, 0) and store.names(LONDON)["catalogue"] == []
    store.identify(ACME, "Q84")
    asked = []
    across.settle(store, catalogue, rank=lambda some: asked.extend(some) or [])
    assert ACME not in asked  # a reviewer said what it is


def test_suggestions_of_an_earlier_catalogue_go(store):
    store.suggest([Link(ADA, "Q7259", 0.8)], "an earlier one")
    across.settle(store, Catalogue([Entry("Q84", ("London",))]))
    assert store.suggested() == [] and queue(store, kinds=["link"]) == []


def test_an_entity_of_a_linked_group_is_not_asked_about(store):
    store.same([Same(LOVELACE, ADA, 0.95)], "names")
    store.suggest([Link(LOVELACE, "Q90", 0.8)], "r")
    assert len(queue(store, kinds=["link"])) == 1
    store.identify(ADA, "Q7259")
    assert queue(store, kinds=["link"]) == []


def test_strangers_to_a_small_catalogue_arent_suggested(encoder):
    some = Ranker.shipped(
        Catalogue([Entry("1", ("Georgia",)), Entry("2", ("Sakartvelo",)), Entry("3", ("Aspirin",))]), encoder
    )
    found = some.look_up([Entity(name, "") for name in ("!!", "photosynthesis", "Ann Lee", "Sony")], [""] * 4)
    assert [one.id for one in found] == [""] * 4 and {one.score for one in found} == {0.0}


def test_what_stands_around_an_entity_is_read_once_a_document(store):
    asked = [ADA, Entity("Nobody", "person"), LONDON, ACME]
    first, none, second, third = ranker.texts_of(store, asked)
    assert "Ada" in first and none == "" and "London" in second and "Acme" in third


# -- A name that was missed


def test_a_name_is_added_to_each_place_that_says_it(store):
    text = "Jo Ray signed it here today. " * 2
    put(store, "c", text, (Entity("Jo Ray", "person"), "signed", Entity("it", "thing")))
    second = text.rindex("Jo Ray")
    store.name("c", Span(second, second + 6, "person"))
    assert [m.start for m in store.mentions("c") if m.text == "Jo Ray"] == [0, second]


def test_an_added_name_that_is_none_after_all_goes(store):
    put(store, "c", "Jo Ray met Ada Lovelace.", (ADA, "born_in", ADA))
    store.name("c", Span(0, 6, "person"))
    [found] = [m for m in store.mentions("c") if m.text == "Jo Ray"]
    store.mend("c", found, None)
    assert [m.text for m in store.mentions("c") if m.text == "Jo Ray"] == []
    put(
        store, "c", "Jo Ray met Ada Lovelace. ", (Entity("Jo Ray", "firm"), "knows", ADA)
    )  # a model finds it, others don't
    put(store, "c", "Jo Ray met Ada Lovelace.", (ADA, "born_in", ADA))
    store.rebuild()


def test_what_a_model_finds_across_an_added_name_is_that_name(store):
    text = "Yesterday evening we met Jo Ray in London."
    put(store, "c", text, (LONDON, "in", LONDON))
    start = text.index("Jo Ray")
    store.name("c", Span(start, start + 6, "person"))
    put(store, "c", f"{text} ", (Entity("met Jo Ray", "firm"), "in", LONDON))
    [found] = [m for m in store.mentions("c") if "Jo Ray" in m.text]
    assert found.entity == Entity("Jo Ray", "person")
    with pytest.raises(DataError, match="needs a type"):
        store.name("c", Span(0, 2, " "))


def test_whole_words_are_marked(store):
    put(
        store,
        "c",
        "Johnson thanked Jo Ray and Annabel praised Jo.",
        (Entity("Jo Ray", "person"), "in", Entity("Annabel", "person")),
    )
    item = next(i for i in queue(store, kinds=["statement"]) if i.what.document == "c")
    one = Reviewing(store, ["person", "event venue"], [])
    assert one.answer(item, "+ event venue Jo").startswith("noted: 'Jo' is a event venue")
    assert [m.start for m in store.mentions("c") if m.text == "Jo"] == [43]
