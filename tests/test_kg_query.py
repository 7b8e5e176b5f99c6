"""Questions to a graph, against the same asked of plain Python sets."""

import itertools
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from kg_graphs import ACME, ADA, LONDON, LOVELACE, small

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph import rdf
from quickstudy.domains.kg.graph.facts import Entry, Link
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore


@pytest.fixture
def store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


@pytest.fixture
def tangle(tmp_path):
    """A random graph of 12 entities, also as a set of triples of names."""
    pick = random.Random(5)
    triples = {
        (f"e{pick.randrange(12)}", f"r{pick.randrange(3)}", f"e{pick.randrange(12)}") for _ in range(40)
    }
    with GraphStore(tmp_path / "t.db") as store:
        store.add([((a, "t"), r, (b, "t")) for a, r, b in triples])
        yield store, triples


def plain(found):
    return {(t.head.name, t.relation, t.tail.name) for t in found}


def test_neighbours(tangle):
    store, triples = tangle
    for name in {end for a, _, b in triples for end in (a, b)}:
        assert plain(store.neighbours(name, direction="out")) == {t for t in triples if t[0] == name}
        assert plain(store.neighbours(name, direction="in")) == {t for t in triples if t[2] == name}
        both = store.neighbours(name)
        assert plain(both) == {t for t in triples if name in (t[0], t[2])} and len(both) == len(plain(both))
        assert plain(store.neighbours(name, "r1")) == {
            t for t in triples if name in (t[0], t[2]) and t[1] == "r1"
        }
    assert len(store.neighbours("e1", limit=1)) == 1


def test_match_gives_what_a_loop_over_all_gives(tangle):
    store, triples = tangle
    expected = {
        (a, b, c)
        for (a, r, b), (b2, s, c) in itertools.product(triples, repeat=2)
        if (r, s, b) == ("r0", "r1", b2)
    }
    found = store.match([("?a", "r0", "?b"), ("?b", "r1", "?c")])
    assert {tuple(row[v].name for v in ("?a", "?b", "?c")) for row in found} == expected and len(
        found
    ) == len(expected)
    loops = {a for a, _, b in triples if a == b}
    assert {row["?a"].name for row in store.match([("?a", "?r", "?a")])} == loops
    relations = {r for a, r, b in triples if a == "e1"}
    assert {row["?r"] for row in store.match([("e1", "?r", "?any")])} == relations
    assert len(store.match([("?a", "?r", "?b")], limit=5)) == 5
    yes = next(iter(triples))
    assert store.match([yes]) == [{}]
    absent = next(
        t for t in itertools.product(("e1", "e2"), ("r0", "r1", "r2"), ("e1", "e2", "e3")) if t not in triples
    )
    assert store.match([absent]) == []


@pytest.mark.parametrize("directed", [True, False])
def test_paths_gives_what_a_search_in_a_set_gives(tangle, directed):
    store, triples = tangle
    steps = {(a, (a, r, b), b) for a, r, b in triples} | (
        set() if directed else {(b, (a, r, b), a) for a, r, b in triples}
    )

    def walk(here, end, seen, path):
        if here == end:
            yield path
        elif len(path) < 3:
            for a, triple, b in steps:
                if a == here and b not in seen:
                    yield from walk(b, end, seen | {b}, (*path, triple))

    for start, end in (("e0", "e5"), ("e3", "e4"), ("e7", "e2")):
        found = store.paths(start, end, directed=directed, limit=10_000)
        plain_paths = [tuple((t.head.name, t.relation, t.tail.name) for t in path) for path in found]
        assert sorted(plain_paths) == sorted(walk(start, end, {start}, ()))
        assert [len(p) for p in plain_paths] == sorted(map(len, plain_paths))
    assert len(store.paths("e0", "e5", limit=2, directed=directed)) <= 2


def test_a_name_of_two_types_asks_for_the_type(store):
    store.add([(("London", "person"), "wrote", ("White Fang", "book"))])
    with pytest.raises(DataError, match=r"several entities are called 'London'.*person, place"):
        store.neighbours("London")
    assert len(store.neighbours(("London", "person"))) == 1


@pytest.mark.parametrize(("ask", "says"), [
    (lambda s: s.neighbours("Londn"), 'no entity \'Londn\'. Did you mean "London"'),
    (lambda s: s.neighbours(("London", "firm")), "of the type 'firm'"),
    (lambda s: s.neighbours("London", "basd_in"), 'Did you mean "based_in"'),
    (lambda s: s.neighbours("London", direction="up"), "both, out or in"),
    (lambda s: s.neighbours("London", status="extract"), 'Did you mean "extracted"'),
    (lambda s: s.paths("London", "Acme", longest=7), "1 to 6"),
    (lambda s: s.match([]), "1 to 16 patterns"),
    (lambda s: s.match([("?x", "born_in")]), "expected \\(head, relation, tail\\)"),
    (lambda s: s.match([("?x", "?x", "?y")]), "an entity in one place and for a relation"),
])  # fmt: skip
def test_a_wrong_question_is_told_so(store, ask, says):
    with pytest.raises(DataError, match=says):
        ask(store)


def test_a_question_that_would_take_for_ever_is_given_up(tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        store.add(((f"a{i}", "t"), "r", (f"b{i}", "t")) for i in range(2000))
        with pytest.raises(DataError, match="no answer within"):
            store.match([(f"?a{i}", "r", f"?b{i}") for i in range(4)] + [("?x", "r", "?x")], seconds=0.2)
        assert len(store.match([("?a", "r", "?b")], seconds=30)) == 2000


def test_search(store):
    store.add(
        [
            (("École d'Été", "school"), "in", ("Greater London", "place")),
            (("100% sure", "x"), "r", ("Londonderry", "place")),
        ]
    )
    assert [e.name for e in store.search("london")] == ["London", "Londonderry", "Greater London"]
    assert store.search("lovelace") == [LOVELACE, ADA] and store.search("  ") == []
    assert [e.name for e in store.search("ÉCOLE")] == ["École d'Été"] == [e.name for e in store.search("été")]
    assert [e.name for e in store.search("0%")] == ["100% sure"] and store.search("_") == []
    assert len(store.search("o", limit=2)) == 2


def test_search_finds_merged_names_and_aliases(store):
    store.catalogue([Entry("Q1", "Acme Corporation", aliases=("ACME Corp.",))])
    store.link([Link(ACME, "Q1", 0.9)], "linker")
    store.merge(LOVELACE, ADA)
    assert store.search("acme corp") == [ACME] and store.search("Lovelace") == [ADA]
    assert store.names("Acme") == {
        "names": ["Acme"], "catalogue": ["Q1"], "aliases": ["ACME Corp.", "Acme Corporation"],
    }  # fmt: skip


def test_counts(store):
    counts = store.counts()
    assert counts["documents done"] == 2 and counts["mentions"] == 6 and counts["entities"] == 4
    assert (
        counts["triples extracted"] == 3 and sum(n for k, n in counts.items() if k.startswith("triples")) == 3
    )
    assert [e.name for e in store.entities()] == ["Acme", "Ada Lovelace", "London", "Lovelace"]
    assert store.mentions("a")[0].entity == Entity("Ada Lovelace", "person")
    assert store.triple(ADA, "born_in", ACME) is None and LONDON in list(store.entities())


# -- SPARQL


@pytest.fixture
def elsewhere():
    """An address that counts who asks there."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.came.append(self.path)
            self.send_error(500)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.came = []  # pyright: ignore[reportAttributeAccessIssue]
        server.address = f"http://127.0.0.1:{server.server_port}/"  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_server_of_these_tests_counts(elsewhere):
    graph = rdf.oxigraph().Store()
    with pytest.raises(OSError, match="500"):
        list(graph.query(f"SELECT * {{ SERVICE <{elsewhere.address}> {{ ?x ?y ?z }} }}"))
    assert elsewhere.came == ["/"]


@pytest.mark.parametrize("query", [
    "SELECT * { SERVICE <HERE> { ?x ?y ?z } }",
    "SELECT * { service silent <HERE> { ?x ?y ?z } }",
    "SELECT * { SERVICESILENT<HERE>{ ?x ?y ?z } }",
    "PREFIX h: <HERE> SELECT * { SERVICEh:x { ?x ?y ?z } }",
    "PREFIX p: <urn:p> SELECT * { OPTIONAL { ?s p:a\\# ?o } SERVICE <HERE> { ?x ?y ?z } }",
    "PREFIX p: <urn:p> SELECT * { OPTIONAL { ?s p:a\\' ?o } SERVICE <HERE> { ?x ?y ?z } OPTIONAL { ?s p:a\\' ?o } }",
    "SELECT * { # c\r SERVICE <HERE> { ?x ?y ?z } }",
    "SELECT * { VALUES ?g { <HERE> } FILTER(1<2&&EXISTS{SERVICE?g{?x?y?z}}&&3>2) }",
    "SELECT * { FILTER(1<2)SERVICE#>\n<HERE> { ?x ?y ?z } }",
    'SELECT * { FILTER(1<2#>"""\n) SERVICE <HERE> { ?x ?y ?z } #"""\n }',
    "SELECT * { <urn:a> <urn:b> '\\\\' . SERVICE <HERE> { ?x ?y ?z } <urn:a> <urn:b> '\\\\' }",
    "SELECT * { OPTIONAL { ?x ?y trueSERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { OPTIONAL { ?x ?y 1SERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { OPTIONAL { ?x e:p?trueSERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { OPTIONAL { ?x ?y e:a.SERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { OPTIONAL { ?x ?y e:%20SERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { OPTIONAL { ?x ?y ?zSERVICE <HERE> { ?x ?y ?z } } }",
    "SELECT * { \\u0053ERVICE <HERE> { ?x ?y ?z } }",
])  # fmt: skip
def test_no_query_reaches_another_server(store, elsewhere, query):
    with pytest.raises(DataError, match=r"SERVICE asks another server|SPARQL: "):
        store.sparql(query.replace("HERE", elsewhere.address))
    assert elsewhere.came == []


@pytest.mark.parametrize("query", [
    "SELECT ?x { ?x r:service ?service }",
    "SELECT ?x { ?x r:service 'Secret Service' }",
    'SELECT ?x { ?x r:service """Secret\nService""" } # of no service',
    "SELECT ?x { ?x r:service ?y FILTER(CONTAINS(STR(?y), 'Service') || ?y = <http://service/Service#service>) }",
    "SELECT ?x { VALUES ?x { e:firm\\/Secret%20Service } ?x r:service ?my_service }",
    "SELECT ?x { VALUES ?x { <urn:quickstudy:entity:firm/Secret%20Service> } ?x ?r ?y }",
    "SELECT ?x { ?x r:service ?y FILTER(STRENDS(STR(?x), '%20Service') && 'a\\\\service' != 'service') }",
])  # fmt: skip
def test_the_word_service_may_stand_in_names_strings_and_comments(store, query):
    firm = Entity("Secret Service", "firm")
    for text in ("Secret Service", "Secret\nService"):
        store.add([(firm, "service", (text, f"^^{rdf.STRING}"))])
    assert {row["x"] for row in store.sparql(query)} == {firm}


def test_an_error_of_the_sparql_library_says_so(store, monkeypatch):
    class Broken:
        def query(self, *_, **__):
            raise RuntimeError("out of order")

    asked = rdf.Sparql(store)
    monkeypatch.setattr(asked, "_store", Broken())
    with pytest.raises(DataError, match=r"SPARQL: out of order\.$"):
        asked.query("ASK {}")
