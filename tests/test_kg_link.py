"""Abbreviations, catalogues, and links of mentions to their entries."""

import json

import pytest
import torch

from quickstudy.core.errors import DataError
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.linking.abbreviations import definitions
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry, plain
from quickstudy.domains.kg.linking.link import SIGNS, Linker, Mention, pair
from quickstudy.encoders.text import load_encoder
from quickstudy.learners import MAML
from quickstudy.nets import MLP


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is heparin-induced thrombocytopenia (HIT).", {"HIT": "heparin-induced thrombocytopenia"}),
        ("We gave Bisphenol A (BPA, 3 mg) to rats.", {"BPA": "Bisphenol A"}),
        (
            "Of extensively drug-resistant tuberculosis (XDR-TB) little is known.",
            {"XDR-TB": "extensively drug-resistant tuberculosis"},
        ),
        ("An NSAID (nonsteroidal anti-inflammatory drug) was given.", {"NSAID": "nonsteroidal anti-inflammatory drug"}),
        ("Ten rats (n = 5) of two (2) strains (see Table 1) and one (a).", {}),
        ("The group (GRP) met. Another grape (GRP) was eaten.", {"GRP": "group"}),
        ("(BPA)", {}),
        ("", {}),
        ("((((((" * 1000, {}),
    ],
)  # fmt: skip
def test_what_a_text_defines(text, found):
    assert definitions(text) == found


def test_long_forms_are_words_of_the_text():
    text = "Acute kidney injury (AKI) and chronic kidney disease [CKD]; chronic obstructive airways (COPD)."
    for short, long in definitions(text).items():
        assert short in text and long in text
    assert set(definitions(text)) == {"AKI", "CKD"}


COMPANIES = [
    Entry("1", ("Acme plc", "Acme"), "company"),
    Entry("2", ("Acme Mining Limited",), "company"),
    Entry("3", ("Mary Acme",), "person"),
    Entry("4", ("International Business Machines",), "company"),
]


def test_candidates_are_alike_by_their_letters_each_entry_once():
    catalogue = Catalogue(COMPANIES)
    (found,) = catalogue.candidates(["ACME PLC"])
    assert catalogue.entries[found[0].entry].id == "1"
    assert len({c.entry for c in found}) == len(found)
    assert [c.cosine for c in found] == sorted((c.cosine for c in found), reverse=True)
    assert catalogue.names[found[0].name] == "Acme plc" and found[0].cosine == pytest.approx(1.0)
    assert catalogue.candidates([]) == [] and catalogue.candidates(["ωωω"]) == [[]]
    many = Catalogue(Entry(str(i), (f"name {i}",)) for i in range(700))
    assert [len(some) for some in many.candidates(["name"] * 300, most=5)] == [5] * 300


@pytest.mark.parametrize("most", [1, 3, 40])
def test_candidates_are_the_best_of_all_names(most):
    ends = ("Ray", "Mining", "Mines", "Ray")  # of equal names the first counts
    names = [f"{one} {other}" for one in ("Acme", "Bolt", "Corvo") for other in ends]
    catalogue = Catalogue(Entry(str(i), tuple(names[i::5])) for i in range(5))
    asked = ["Acme Ray", "Mine", "Bolt", "zzz", "Corvo Mining"] * 5  # more than a block
    vectors, turned = catalogue._letters()
    for mention, found in zip(asked, catalogue.candidates(asked, most), strict=True):
        cosines = (vectors.transform([plain(mention)]) @ turned).toarray()[0].tolist()
        best: dict[int, tuple[int, int, float]] = {}
        for i in sorted(range(len(cosines)), key=lambda i: (-cosines[i], i)):
            if cosines[i]:
                best.setdefault(catalogue.owner[i], (catalogue.owner[i], i, cosines[i]))
        assert [tuple(one) for one in found] == list(best.values())[:most]


def test_the_same_things_are_one_entry_in_chains_and_circles():
    catalogue = Catalogue([
        Entry("a", ("One",), same_as=("b",)), Entry("b", ("Two",), same_as=("c",)),
        Entry("c", ("Three",), same_as=("a",)), Entry("d", ("Four",)),
    ])  # fmt: skip
    assert [(e.id, e.names) for e in catalogue.entries] == [("a", ("One", "Two", "Three")), ("d", ("Four",))]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([Entry("a", ("x",)), Entry("a", ("y",))], "'a' twice"),
        ([Entry("a", (" ",))], "'a' has no name"),
        ([Entry("a", ("x",), same_as=("z",))], "same as 'z', which isn't there"),
        ([Entry("a", ("x",), "p", ("b",)), Entry("b", ("y",), "q")], "said to be the same, but are p, q"),
    ],
)
def test_catalogues_that_make_no_sense(entries, message):
    with pytest.raises(DataError, match=message):
        Catalogue(entries)


def test_a_catalogue_from_files(tmp_path):
    rows = [
        ("1", "Acme plc", "Acme|ACM", "company", ""),
        ("1", "Acme Group", "", "", ""),
        ("2", "Bell", "", "", "1"),
    ]
    table = tmp_path / "names.csv"
    table.write_text("id,name,aliases,type,same_as\n" + "\n".join(map(",".join, rows)))
    lines = tmp_path / "names.jsonl"
    keys = ("id", "name", "aliases", "type", "same_as")
    lines.write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows))
    for path in (table, lines):
        (entry,) = Catalogue.read(path).entries
        assert (entry.id, entry.type) == ("1", "company")
        assert entry.names == ("Acme plc", "Acme", "ACM", "Acme Group", "Bell")


def test_only_aliases_and_same_as_are_several(tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("id,name,aliases,type,same_as\nD1|D2,A|B,C|D,x|y,\nD1,E,,x|y,\nD3,F,,,D1|D4\nD4,G,,,\n")
    whole, three = Catalogue.read(table).entries
    assert whole == Entry("D1|D2", ("A|B", "C", "D"), "x|y")
    assert three == Entry("D1", ("E", "F", "G"), "x|y", ("D3", "D4"))
    lines = tmp_path / "names.jsonl"
    lines.write_text(json.dumps({"id": ["D1"], "name": ["A", "B"], "same_as": ["D1"]}))
    assert Catalogue.read(lines).entries == [Entry("D1", ("A", "B"))]
    lines.write_text(json.dumps({"id": ["D1", "D2"], "name": "A"}))
    with pytest.raises(DataError, match="an entry has one id, but 'D1', 'D2' came"):
        Catalogue.read(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n1,x", "no column 'name'; there are id, label"),
        ("id,name\n1,", "row 2: an entry needs an id and a name"),
        ("id,name,type\n1,x,p\n1,y,q", "row 3: '1' is a p in an earlier row, here a q"),
        ("id,name\n", "is empty"),
    ],
)
def test_files_that_are_no_catalogue(tmp_path, text, message):
    path = tmp_path / "names.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Catalogue.read(path)


def test_names_are_compared_without_case_signs_and_plurals():
    assert plain("Heart-Attacks") == "heart attack" and plain("glass") == "glass" and plain("+") == "+"


DOCUMENTS = [
    Document("a", "International Business Machines (IBM) and Acme plc met. IBM gained; ACME lost."),
    Document("b", "Mary Acme left Acme Mining. The Frobnicators stayed."),
]
MENTIONS = [
    Mention("International Business Machines", "company"), Mention("IBM", "company"), Mention("ACME", "company"),
    Mention("Mary Acme", "person", 1), Mention("Acme Mining", "company", 1), Mention("Frobnicators", "company", 1),
]  # fmt: skip
IDS = ["4", "4", "1", "3", "2", None]


def linker(**more):
    learner = MAML(
        objective=Classify(ways=2), net=MLP(inputs=len(SIGNS), outputs=2, hidden=(16,)), steps=60, rate=0.5
    )
    return Linker.learn(
        Catalogue(COMPANIES), load_encoder("tiny"), learner, learner.init(0), MENTIONS, IDS, DOCUMENTS, **more
    )


def test_signs_are_shares_and_say_what_they_say():
    some, rows = pair(Catalogue(COMPANIES), load_encoder("tiny"), MENTIONS, DOCUMENTS)
    for candidates, row in zip(some, rows, strict=True):
        assert row.shape == (len(candidates), len(SIGNS)) and torch.isfinite(row).all()
        assert row.min() >= -1.001 and row.max() <= 1.001
    (right,) = [i for i, c in enumerate(some[1]) if c.entry == 3]
    told = dict(zip(SIGNS, rows[1][right].tolist(), strict=True))
    assert told["long form: same"] == 1 and told["same letters"] == 0 and told["initials"] == 1


def test_it_links_what_it_learned_and_what_a_text_abbreviates():
    links = linker().link(MENTIONS, DOCUMENTS)
    assert [link.id for link in links[:5]] == IDS[:5]
    assert links[1].name == "International Business Machines" and set(links[1].signs) == set(SIGNS)


def test_nothing_fits_below_the_threshold():
    sure = linker(threshold=0.5).link([Mention("Zyx", "company")], DOCUMENTS)[0]
    assert sure.id is None
    assert all(link.id is None for link in linker(threshold=1.0).link(MENTIONS[5:], DOCUMENTS))
    assert linker().link([], DOCUMENTS) == []
