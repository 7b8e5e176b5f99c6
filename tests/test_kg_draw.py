"""Pictures of a neighbourhood: whole, telling apart what is sure and what isn't, and harmless."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from kg_graphs import ACME, ADA, LONDON, LOVELACE, put, small

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.facts import Proposal
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.learning.draw import LOOKS, SHOWN, neighbourhood
from quickstudy.domains.kg.learning.layout import places

EVIL = Entity('<script>alert("&")</script>\x1b[2J', "firm")


@pytest.fixture(name="store")
def small_store(tmp_path):
    with small(tmp_path / "g.db") as store:
        put(store, "c", f"Acme sued {EVIL.name} & won <b>.", (ACME, "sued", EVIL), certain=False, score=0.6)
        store.propose(
            [Proposal(LOVELACE, "lives_in", LONDON, 0.4), Proposal(ACME, "owns", ACME, 0.2)], "inference"
        )
        store.reject(store.triple(ADA, "born_in", LONDON))
        yield store


def test_every_status_looks_different_and_is_in_the_picture(store):
    drawn = neighbourhood(store, "Acme", hops=2, status=(*SHOWN, "rejected"))
    assert {e.triple.status for e in drawn.edges} == {"extracted", "review", "proposed", "rejected"}
    root = ElementTree.fromstring(drawn.svg())
    classes = [g.get("class") for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("class")]
    assert sorted(classes) == sorted(e.triple.status for e in drawn.edges)
    assert len({(colour, dashes) for colour, _, dashes, _ in LOOKS.values()}) == len(LOOKS)
    assert len({dashes for _, _, dashes, _ in LOOKS.values()}) >= 4  # told apart without colour, too
    assert "waits for review" in drawn.svg() and ">given<" not in drawn.svg()
    assert drawn.png().startswith(b"\x89PNG")
    assert {e.triple.status for e in neighbourhood(store, "Acme", hops=2).edges}.isdisjoint({"rejected"})


def test_where_it_was_said_is_shown_on_hover_and_in_the_table(store):
    drawn = neighbourhood(store, "Acme")
    root = ElementTree.fromstring(drawn.svg())
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    (told,) = [t for t in titles if t.startswith("Lovelace works_for Acme")]
    assert (
        "extracted 0.90" in told
        and "“Lovelace worked for Acme, based in London.”" in told
        and "b, model m1" in told
    )
    page = drawn.html()
    assert "<mark>Lovelace</mark> worked for <mark>Acme</mark>" in page


def test_a_page_runs_nothing_loads_nothing_and_escapes_everything(store):
    page = neighbourhood(store, "Acme").html()
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\b(src|href)=|@import|url\((?!#)", page)


def test_signs_that_xml_does_not_have_are_replaced(store):
    odd = Entity("\ufffeodd\uffff\x0c\ud7ff", "kind\uffff")
    put(store, "x", f"Acme knows {odd.name}.", (ACME, "knows\uffff", odd))
    drawn = neighbourhood(store, "Acme")
    ElementTree.fromstring(drawn.svg())
    for text in (drawn.svg(), drawn.html()):
        assert "\N{REPLACEMENT CHARACTER}odd" in text and not re.search("[\ufffe\uffff\x0c]", text)


def test_what_does_not_fit_is_counted(store):
    put(store, "d", "Acme " + " ".join(f"N{i}" for i in range(30)),
        *[(ACME, "knows", Entity(f"N{i}", "firm")) for i in range(30)])  # fmt: skip
    drawn = neighbourhood(store, "Acme", most=10)
    assert len(drawn.nodes) == 10 and drawn.left_out >= 20 and drawn.nodes[0] == ACME
    assert f"{drawn.left_out} more neighbours" in drawn.html()
    with pytest.raises(DataError, match="no entity 'Acne'"):
        neighbourhood(store, "Acne")


def test_names_do_not_overlap():
    rng = np.random.default_rng(0)
    for n in (2, 12, 40):
        sizes = [(float(w), 40.0) for w in rng.uniform(60, 200, n)]
        at = places(sizes, [(0, i) for i in range(1, n)], 90.0)
        assert (at[0] == at[0]).all() and np.isfinite(at).all()
        for a in range(n):
            for b in range(a):
                gap = np.abs(at[a] - at[b]) - (np.array(sizes[a]) + sizes[b]) / 2
                assert gap.max() > 0
    assert (places([(50, 30)] * 3, [(0, 1)], 90.0) == places([(50, 30)] * 3, [(0, 1)], 90.0)).all()
