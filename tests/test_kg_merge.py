"""Which names are one thing: within a document, across documents, and in a catalogue; and what reviewers say of it."""

import json
import random
import re

import pytest

from quickstudy.app import cli, kg_decide, kg_graph
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Document, Span
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.records import Entity, Slice
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.linking import across, within
from quickstudy.domains.kg.linking.across import linked, read_catalogue, settle
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry
from quickstudy.domains.kg.linking.merge import alike, read_definitions
from quickstudy.domains.kg.linking.within import entity_names, without_form
from quickstudy.domains.kg.parts import parts, together
from quickstudy.domains.kg.schema import EntityType

TYPES = {
    "person": EntityType(),
    "firm": EntityType(),
    "format": EntityType(),
    "boss": EntityType("A person who leads."),
}


def named(text: str, *spans: tuple[str, str]) -> list[str]:
    """The entity of each (words, type), looked for from left to right."""
    found, at = [], 0
    for words, kind in spans:
        at = text.index(words, at)
        found.append(Span(at, at + len(words), kind))
        at += len(words)
    return entity_names(text, found, TYPES)


def test_short_forms_that_a_document_defines_are_the_long_ones():
    text = "Extensible Markup Language (XML) is old. XML is long."
    spans = [("Extensible Markup Language", "format"), ("XML", "format"), ("XML", "format")]
    assert named(text, *spans) == ["Extensible Markup Language"] * 3
    assert named(text, ("XML", "format")) == ["XML"]  # the long one isn't marked here


@pytest.mark.parametrize("short", ["Ray", "Jo", "Ms Ray", "Dr. Ray", "Mr. Jo Ray"])
def test_a_persons_short_name_is_the_one_persons_who_has_it(short):
    assert named(f"Jo Ray left. {short} said so.", ("Jo Ray", "person"), (short, "person"))[1] == "Jo Ray"
    assert named(f"Jo Ray left. {short} said so.", ("Jo Ray", "boss"), (short, "boss"))[1] == "Jo Ray"
    two = (("Jo Ray", "person"), ("Jo Ray-Fox", "person"), ("Al Ray", "person"), ("Ray", "person"))
    assert named("Jo Ray met Jo Ray-Fox and Al Ray. Ray said so.", *two)[3] == "Ray"


def test_only_persons_have_short_names_of_that_kind():
    assert named("New York isn't York.", ("New York", "format"), ("York", "format"))[1] == "York"


def test_a_firm_without_its_legal_form_is_the_firm():
    spans = [("Acme Holdings, Inc.", "firm"), ("Acme", "firm"), ("Bolt", "firm")]
    assert named("Acme Holdings, Inc. bought more. Acme sold Bolt.", *spans)[1:] == [
        "Acme Holdings, Inc.",
        "Bolt",
    ]
    both = [("Acme plc", "firm"), ("Acme AG", "firm"), ("Acme", "firm")]
    assert named("Acme plc sued Acme AG. Acme won.", *both)[2] == "Acme"
    assert without_form("Company") == "Company" and without_form("BASF S.E.") == "BASF"


def test_names_of_a_long_document_are_looked_up(monkeypatch):
    """Thousands of names: each is cut down once, not once for each of the others."""
    people = [f"{one}{other} Ray" for one in "ABCDEFGHIJ" for other in "abcdefghijklmnopqrst"]
    seen = []
    monkeypatch.setattr(within, "without_form", lambda name: seen.append(name) or without_form(name))
    firsts = [name.split()[0] for name in people]
    spans = [(name, "person") for name in (*people, *firsts, "Ray", "Ms Ray", "Aa Fox")]
    found = named(". ".join(name for name, _ in spans), *spans)
    assert found[:200] == people and found[201:400] == people[1:]
    assert found[200] == firsts[0] and found[400:402] == ["Ray", "Ms Ray"]  # two or more have these
    assert len(seen) == len(set(spans))


def test_what_names_are_short_for_is_what_a_look_at_every_pair_says():
    words = ("Jo", "Ray", "ray", "Mr", "Dr.", "plc", "AG", "Acme", "Acme,", "X", "3M", "de")
    rng = random.Random(0)
    for _ in range(300):
        names = [" ".join(rng.choices(words, k=rng.choice((1, 1, 2, 2, 3, 5)))) for _ in range(8)]
        kind = rng.choice(("person", "firm"))
        ways = [{one for one in names if _shortened(name, one, kind == "person")} for name in names]
        expected = [those.pop() if len(those) == 1 else name for name, those in zip(names, ways, strict=True)]
        assert named("; ".join(names), *((name, kind) for name in names)) == expected


def _shortened(name: str, other: str, person: bool) -> bool:
    title = re.compile(r"(?:(?:Mr|Dr)\.? )+")
    if person and title.match(name):
        bare = title.sub("", name)
        return not title.match(other) and bare in (other, other.split()[-1])
    if len(name) >= len(other) or not name[0].isupper() or "3" in name:
        return False
    parts = other.split()
    return without_form(other) == name or (
        person and len(name) > 1 and 2 <= len(parts) <= 4 and name in (parts[0], parts[-1])
    )


def merged(kind: str, *names: str, texts: tuple[tuple[str, str], ...] = ()) -> set[frozenset[str]]:
    pairs = alike([Entity(name, kind) for name in names], read_definitions(texts))
    assert all(pair.why and 0 < pair.score < 1 for pair in pairs)
    return {frozenset((pair.one.name, pair.other.name)) for pair in pairs}


def test_names_that_differ_in_writing_alone_are_one():
    assert merged("disease", "seizures", "Seizures", "seizure", "strokes") == {
        frozenset(("seizures", "Seizures")), frozenset(("seizure", "seizures")),
    }  # fmt: skip
    assert merged("disease", "COVID-19", "Covid 19") == {frozenset(("COVID-19", "Covid 19"))}
    assert (
        merged("x", "US", "us", "C++", "C#", "C", "$3.5m", "$35m", "Andrew", "Andrews", "virus", "viru")
        == set()
    )


def test_firms_are_merged_where_no_other_has_the_name():
    assert merged("firm", "Acme plc", "Acme") == {frozenset(("Acme plc", "Acme"))}
    assert merged("firm", "Acme plc", "Acme PLC", "Acme") == {
        frozenset(("Acme plc", "Acme PLC")), frozenset(("Acme PLC", "Acme")),
    }  # fmt: skip
    assert merged("firm", "Acme plc", "Acme Inc.", "Acme") == set()


def test_abbreviations_are_merged_where_all_documents_agree():
    one, other = (
        ("a", "Magnetic resonance imaging (MRI) helps."),
        ("b", "Mean reversion index (MRI) is another."),
    )
    names = ("MRI", "magnetic resonance imaging")
    assert merged("x", *names, texts=(one,)) == {frozenset(names)}
    assert merged("x", *names, texts=(one, other)) == set()


@pytest.fixture
def graph(tmp_path):
    """Two documents that call a firm by three names, and one of a person of the same name."""
    with GraphStore(tmp_path / "g.db") as store:
        for id, name, other in (("a", "Acme plc", "Bolt"), ("b", "ACME PLC", "Corvo"), ("c", "Acme", "Dyne")):
            text = f"{name} bought {other}."
            start = text.index(other)
            store.put(Document(id, text))
            mentions = [Mention(0, len(name), "firm"), Mention(start, start + len(other), "firm")]
            said = [Statement(0, "acquired", 1, (0, len(text)))]
            store.finish(store.claim(1)[0], mentions, said, model="m")
        settle(store)
    return tmp_path / "g.db"


def test_decisions_say_what_they_are_about(graph, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    with GraphStore(graph) as store:
        text = store.document("a").text
        store.whole("a", Slice(0, len(text), text))
        store.split([("a", store.mentions("a")[1])], ("Corvo", "firm"))
    assert cli.main(["kg", "decisions", str(graph)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "whole Acme plc bought Bolt." in shown and "split Bolt · Corvo" in shown


def test_merges_are_evidence_and_can_be_undone(graph, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert len(kg_graph.show(graph, "Acme plc").triples) == 3
    told = {(one.one, one.other): one.why for one in kg_decide.merges(graph, "Acme")}
    assert any("legal form" in why for why in told.values()) and any("case" in why for why in told.values())
    number = kg_decide.split(graph, "Acme", "Acme plc", by="ann", note="another firm")
    assert [one.triple.tail.name for one in kg_graph.show(graph, "Acme plc").triples] == ["Bolt", "Corvo"]
    with GraphStore(graph) as store:
        settle(store)  # another extraction changes nothing of it
    assert len(kg_graph.show(graph, "Acme plc").triples) == 2
    [decision] = kg_decide.decisions(graph)
    assert (decision.kind, decision.who, decision.note) == ("split", "ann", "another firm")
    assert cli.main(["kg", "decisions", str(graph)]) == 0 and "Acme · Acme plc" in capsys.readouterr().out
    kg_decide.undo(graph, number)
    assert len(kg_graph.show(graph, "Acme").triples) == 3
    kg_decide.merge(graph, "Bolt", "Corvo")
    assert (
        len(kg_graph.show(graph, "Bolt").triples) == 1 and kg_graph.show(graph, "Bolt").entity.name == "Corvo"
    )
    assert cli.main(["kg", "merges", str(graph), "Bolt"]) == 0 and "decision 3" in capsys.readouterr().out


CATALOGUE = Catalogue([
    Entry("Q1", ("Acme Holdings plc", "Acme plc"), "firm", ("Q9",)),
    Entry("Q9", ("Acme, of London",), "firm", ("Q8",)),
    Entry("Q8", ("ACME",), "firm", ("Q1",)),  # a circle
    Entry("Q2", ("Corvo",), "person"),
    Entry("Q3", ("Huntington's disease",)),
    Entry("Q4", ("diabetes type 1",)),
    Entry("Q5", ("magnetic resonance imaging",)),
    Entry("Q6", ("Bolt",), "firm"),
    Entry("Q7", ("Bolt",), "firm"),
])  # fmt: skip


def test_entities_are_linked_where_something_fits():
    entities = [
        *(Entity(name, "firm") for name in ("Acme plc", "acme", "Corvo", "Bolt", "Nothing like it")),
        *(Entity(name, "x") for name in ("Huntingtons disease", "diabetes type 2", "MRI")), Entity("Ann", "person"),
    ]  # fmt: skip
    defined = read_definitions([("a", "Magnetic resonance imaging (MRI) helps.")])
    told = {link.entity.name: (link.id, link.why) for link in linked(entities, CATALOGUE, defined)}
    assert {name: id for name, (id, _) in told.items()} == {
        "Acme plc": "Q1", "acme": "Q1", "Huntingtons disease": "Q3", "MRI": "Q5",
    }  # fmt: skip
    assert told["MRI"][1] == "short for magnetic resonance imaging"


def test_names_written_nearly_as_an_entry_are_found_among_many(monkeypatch):
    """As many as a look at each pair finds; no products are made for those that are like none."""
    rng = random.Random(0)

    def misspelt(name: str, times: int) -> str:
        letters = list(name)
        for _ in range(times):
            at = rng.randrange(len(letters))
            letters[at : at + 1] = rng.choice(("", "x", "ß", letters[at] + "i", letters[at].upper()))
        return "".join(letters)

    ends = ("plc", "Institute 2", "of the Arts and Sciences")
    names = [
        f"{''.join(rng.choices('aeioulnrst', k=rng.randint(1, 9))).title()} {rng.choice(ends)}"
        for _ in range(300)
    ]
    names += [misspelt(name, 1) for name in names[:100]]
    asked = [misspelt(rng.choice(names), rng.randint(0, 4)) for _ in range(300)] + ["", "Ray", "Institute 3"]
    like = [any(across._likeness(name, one) >= across.LIKE for one in names) for name in asked]
    assert 100 < sum(like) < 250
    assert list(map(across._Spellings(names).near, asked)) == like
    monkeypatch.setattr(across, "_FEW", 0)  # too many share a piece: looked at with all names
    vague = list(map(across._Spellings(names).near, asked))
    assert all(one >= other for one, other in zip(vague, like, strict=True)) and not vague[-3]

    catalogue = Catalogue(Entry(str(i), (name,)) for i, name in enumerate(names))
    entities = [Entity(name, "x") for name in asked if name]
    found = linked(entities, catalogue)
    monkeypatch.setattr(across._Spellings, "near", lambda self, name: True)
    assert found == linked(entities, catalogue) and sum("nearly" in link.why for link in found) > 50
    monkeypatch.undo()
    strangers = Catalogue([Entry("1", ("Acme Institute",))])
    assert linked([Entity("Bolt Foundation", "x")], strangers) == [] and strangers._index is None


def test_linked_names_are_one_entity_with_the_catalogues_id(graph):
    with GraphStore(graph) as store:
        store.split(Entity("Acme", "firm"), Entity("Dyne", "firm"))
        assert settle(store, CATALOGUE, merge=False).linked == 3
        assert store.names("Acme")["catalogue"] == ["Q1", "Q8", "Q9"]
        assert len(store.neighbours("ACME PLC")) == 3


def test_a_catalogue_is_a_table_or_rdf(tmp_path):
    (tmp_path / "c.csv").write_text(
        "id,name,aliases,same_as\nQ1,Acme plc,Acme|ACME,Q2\nQ2,Acme Holdings,,Q1\n"
    )
    [entry] = read_catalogue(tmp_path / "c.csv").entries
    assert entry.id == "Q1" and set(entry.names) == {"Acme plc", "Acme", "ACME", "Acme Holdings"}
    with pytest.raises(DataError, match="nowhere"):
        read_catalogue(tmp_path / "nowhere.csv")
    pytest.importorskip("pyoxigraph")
    (tmp_path / "c.ttl").write_text(
        "@prefix skos: <http://www.w3.org/2004/02/skos/core#> . @prefix owl: <http://www.w3.org/2002/07/owl#> . "
        '<urn:1> a <urn:x#firm> ; skos:altLabel "Acme" ; skos:prefLabel "Acme plc" ; owl:sameAs <urn:2>, <urn:9> . '
        '<urn:2> skos:prefLabel "ACME"@en ; owl:sameAs <urn:1> .'
    )
    [entry] = read_catalogue(tmp_path / "c.ttl").entries
    assert (entry.id, entry.names[0], entry.type) == ("urn:1", "Acme plc", "firm") and len(entry.names) == 3
    (tmp_path / "d.ttl").write_text("<urn:1> <urn:2>")
    with pytest.raises(DataError, match="no RDF that can be read"):
        read_catalogue(tmp_path / "d.ttl")


@pytest.mark.parametrize("longest", [50, 200, 10_000])
def test_parts_of_a_document_hold_all_of_its_sentences(longest):
    text = "  ".join(f"Sentence number {i} is here." for i in range(40))
    document = Document("d", text)
    found = list(parts(document, longest))
    assert all(text[begin : begin + len(part.text)] == part.text for begin, part in found)
    assert "".join("".join(part.text for _, part in found).split()) == "".join(text.split())
    assert all(len(part.text) <= longest for _, part in found) or longest == 10_000
    groups = list(together([document, Document("e", ""), document], 300, longest))
    assert [number for group in groups for number, _, _ in group] == sorted(
        number for group in groups for number, _, _ in group
    ) and json.dumps([begin for group in groups for _, begin, _ in group])
