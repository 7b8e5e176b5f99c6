"""A graph as a file and back, as SPARQL, and to servers: whatever signs its names have."""

import csv
import json
import re
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kg_graphs import ACME, ADA, BORN, LONDON, put, said, small

from quickstudy.core.errors import DataError, MissingExtra
from quickstudy.domains.kg.graph import rdf
from quickstudy.domains.kg.graph.export import cypher_name, cypher_text
from quickstudy.domains.kg.graph.facts import Entry, Link, Proposal
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore

FORMS = {"ntriples": "g.nt", "turtle": "g.ttl", "jsonld": "g.jsonld", "graphml": "g.graphml", "neo4j": "g"}
ODD = [
    'quote " and \' and `', "line\nend\r\n and\ttab", "back\\slash \\u0027 \\", "<tag attr='x'>&amp;]]>", " blanks  ",
    "Zoë 東京 😀 \u202e", "a/b?c=d#e%20%2F", "control \x01\x00\x7f\x85\u2028\ufffe", "semi;colon,comma|pipe", "?x",
    "_:b", "http://example.org/a b", "http://example.org/thing", "=1+1", "urn:quickstudy:entity:x/y", "%",
    "Title:Subtitle",
]  # fmt: skip


def triples_of(store):
    return {tuple(t[:3]) for t in store.triples()}


@pytest.fixture
def store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


@pytest.fixture
def odd(tmp_path):
    with GraphStore(tmp_path / "odd.db") as store:
        store.add(((name, kind), f"r {name}", (other, "t;x")) for name, other in pairwise(ODD)
                  for kind in ("", "type\n" + name))  # fmt: skip
        yield store


@pytest.mark.parametrize("form", FORMS)
def test_what_is_exported_comes_back(odd, tmp_path, form):
    path = tmp_path / FORMS[form]
    expected = triples_of(odd)
    assert odd.export(path) == len(expected) == 2 * (len(ODD) - 1)
    with GraphStore(tmp_path / "back.db") as back:
        assert back.load(path) == len(expected)
        assert triples_of(back) == expected
        again = tmp_path / f"again-{FORMS[form]}"
        back.export(again, form)
        if form in ("ntriples", "graphml"):
            assert again.read_bytes() == path.read_bytes().replace(b"extracted", b"given")
    assert not [p.name for p in tmp_path.iterdir() if ".new-" in p.name]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda s: s.strip())


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), max_size=4))
@example([("0", "0", "0", "0", "0")])
def test_any_names_come_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    with GraphStore(folder / "g.db") as store:
        store.add(((a, x), r, (b, y)) for a, x, r, b, y in rows)
        for form, name in FORMS.items():
            store.export(folder / name, form)
            with GraphStore(folder / f"{form}.db") as back:
                back.load(folder / name, form)
                assert triples_of(back) == triples_of(store), form


def test_foreign_rdf_keeps_its_form(tmp_path):
    source = tmp_path / "in.nt"
    lines = [
        '<http://x.org/a> <http://x.org/p> "text \\" \\n more"@en-gb .',
        '<http://x.org/a> <http://x.org/p> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .',
        '<http://x.org/a> <http://x.org/p> "plain" .',
        "<http://x.org/a> <http://www.w3.org/1999/02/22-rdf-syntax-ns#type> <mailto:b@x.org> .",
    ]
    source.write_text("\n".join(sorted(lines)) + "\n")
    with GraphStore(tmp_path / "g.db") as store:
        assert store.load(source) == 4
        store.export(tmp_path / "out.nt")
        assert sorted((tmp_path / "out.nt").read_text().splitlines()) == sorted(lines)
        source.write_text("_:b <http://x.org/p> _:c .")
        store.load(source)
        store.load(source)  # blank nodes of two files are never the same
        assert len(triples_of(store)) == 6


def test_what_a_reviewer_said_of_a_sentence_goes_along(store, tmp_path):
    put(store, "c", "Acme sits in London.", (ACME, "based_in", LONDON))
    store.reject(store.said((ACME, "based_in", LONDON))[0])
    store.export(tmp_path / "g.ttl")
    assert (tmp_path / "g.ttl").read_text().count('q:verdict "rejected"') == 1


def test_networkx_reads_and_writes_the_same_graphml(odd, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, on import
        networkx = pytest.importorskip("networkx")
    odd.export(tmp_path / "ours.graphml")
    graph = networkx.read_graphml(tmp_path / "ours.graphml", force_multigraph=True)
    assert graph.number_of_edges() == len(list(odd.triples()))
    networkx.write_graphml(graph, tmp_path / "theirs.graphml")
    with GraphStore(tmp_path / "back.db") as back:
        back.load(tmp_path / "theirs.graphml")
        assert [t[:3] for t in back.triples()] == [t[:3] for t in odd.triples()]


@pytest.mark.parametrize(
    ("name", "provenance"), [("g.ttl", "star"), ("g.ttl", "reified"), ("g.jsonld", "reified")]
)
def test_provenance_goes_along_in_rdf_and_is_no_triple_on_the_way_back(store, tmp_path, name, provenance):
    import pyoxigraph as ox

    put(store, "c", "Acme, not in London.", (ACME, "left", LONDON), certain=False, score=0.3)
    path = tmp_path / name
    every = ("review", "extracted")
    assert store.export(path, status=every, provenance=provenance) == 4
    graph = ox.Store()
    graph.bulk_extend(ox.parse(path=str(path)))
    pattern = "?s rdf:reifies <<( ?h ?r ?t )>>" if provenance == "star" else (
        "?s rdf:subject ?h ; rdf:predicate ?r ; rdf:object ?t")  # fmt: skip
    rows = graph.query(f"SELECT * {{ {pattern} ; q:sentence ?text ; q:head_start ?a ; q:head_end ?b ; q:document ?d }}"
                       .replace("} ;", ";"), prefixes=rdf.PREFIXES)  # fmt: skip
    found = {(row["d"].value, row["text"].value[int(row["a"].value) : int(row["b"].value)]) for row in rows}
    assert found == {("a", "Ada Lovelace"), ("b", "Lovelace"), ("b", "Acme"), ("c", "Acme")}
    with GraphStore(tmp_path / "back.db") as back:
        assert back.load(path) == 3  # what is for review is quoted, and not said
        assert said(back) == said(store)


def test_catalogue_ids_go_along_in_rdf(store, tmp_path):
    same = "https://www.wikidata.org/entity/Q7259"
    store.catalogue([Entry(same, "Ada Lovelace"), Entry("MESH 3", "Ada", same_as=(same,))])
    store.link([Link(ADA, "MESH 3", 1.0)], "m")
    store.export(tmp_path / "g.ttl")
    text = (tmp_path / "g.ttl").read_text()
    assert (
        "<https://www.wikidata.org/entity/Q7259>" in text and '"MESH 3"' in text and '"Ada Lovelace"' in text
    )


def test_inferred_triples_never_become_asserted_by_a_file(store, tmp_path):
    store.propose([Proposal(ADA, "works_for", ACME, 0.7)], "m")
    every = ("proposed", "extracted")
    for name in ("g.graphml", "neo", "g.ttl"):
        store.export(tmp_path / name, status=every)
        with GraphStore(tmp_path / f"{name}.db") as back:
            back.load(tmp_path / name)
            assert said(back) == said(store) and len(said(back)) == 3
    with pytest.raises(DataError, match="counts as asserted"):
        store.export(tmp_path / "g.nt", status=every)
    with pytest.raises(DataError, match="counts as asserted"):
        store.push("http://localhost:1/", "sparql", status=every)


def test_neo4js_tables(store, tmp_path):
    store.export(tmp_path / "neo")
    with open(tmp_path / "neo" / "entities.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {":ID": "firm/Acme", "name": "Acme", "type": "firm", ":LABEL": "firm"}
    with open(tmp_path / "neo" / "relationships.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0].values()] == ["firm/Acme", "based_in", "place/London", "extracted", "0.9", "false"]


def test_a_cypher_script(odd, tmp_path):
    odd.export(tmp_path / "g.cypher")
    script = (tmp_path / "g.cypher").read_text(encoding="utf-8")
    # Strings out, then quoted names: what is left must be our own words, and each statement end at its semicolon.
    bare = re.sub(r"`[^`]*`|'(?:\\.|[^'\\])*'", "NAME", script)
    ours = "CREATE INDEX entity_name IF NOT EXISTS FOR n Entity ON name type MERGE MATCH a b r relation SET status "
    assert set(re.findall(r"\w+", bare)) <= {*ours.split(), "inferred", "false", "NAME"}
    assert "\\u" not in script and "\\U" not in script
    assert cypher_text("a'b\\u0027\n") == "'a\\'b\\\\' + 'u0027\\n'"
    assert cypher_name("a`b\\u0060]") == "`a_b_u0060]`"


def test_a_failed_export_leaves_the_old_file(store, tmp_path):
    path = tmp_path / "g.ttl"
    path.write_text("old")
    store.add([(("text", "@en"), "r", ACME)])
    with pytest.raises(DataError, match="is a literal"):
        store.export(path)
    assert (
        path.read_text() == "old"
        and sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    )


def test_an_export_never_takes_the_place_of_something_else(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="something else"):
        store.export(tmp_path / "mine")
    with pytest.raises(DataError, match="the graph itself"):
        store.export(tmp_path / "g.db", "turtle")
    with pytest.raises(DataError, match="a folder stands there"):
        store.export(tmp_path / "mine", "turtle")
    with pytest.raises(DataError, match="no folder"):
        store.export(tmp_path / "no" / "g.ttl")
    with pytest.raises(DataError, match=r"suffix '\.tll'"):
        store.export(tmp_path / "g.tll")
    with pytest.raises(DataError, match='Did you mean "turtle"'):
        store.export(tmp_path / "g.ttl", "turtel")
    with pytest.raises(DataError, match="no triple terms"):
        store.export(tmp_path / "g.jsonld", provenance="star")
    with pytest.raises(DataError, match="no place for provenance"):
        store.export(tmp_path / "g.graphml", provenance="star")
    for came, says in (
        ("reifed", ' Did you mean "reified"?'), ("nonsense", ' Did you mean "none"?'), ("xyz", ""), ("", "")
    ):  # fmt: skip
        problem = f"the provenance '{came}' isn't known.{says} Known: star, reified, none."
        for name in ("g.ttl", "g.jsonld", "g.graphml"):
            with pytest.raises(DataError, match=re.escape(problem)):
                store.export(tmp_path / name, provenance=came)
            assert not (tmp_path / name).exists()
    store.export(tmp_path / "neo")
    store.export(tmp_path / "neo")


@pytest.mark.parametrize(("name", "text", "says"), [
    ("g.nt", "<http://a> <http://b> <c .", "line 1|IRI"),
    ("g.ttl", "@prefix : <http://x> . :a :b", "Parser|line|end"),
    ("g.graphml", "<graphml><graph><node id='a'>", "row 1: no XML"),
    ("g.graphml", "<!DOCTYPE x [<!ENTITY a 'b'>]><graphml/>", "DOCTYPE"),
    ("g.graphml", "<graphml><edge source='a' target='b'/></graphml>", "no node above it"),
    ("g.graphml", "<graphml><node id='a'/><edge source='a' target='a'/></graphml>", "no 'relation'"),
    ("g.graphml", "<graphml><node/></graphml>", "no id"),
    ("g.graphml", "<graphml><node id='a'><data key='exact'>[1,2]</data></node></graphml>", "no pair"),
    ("g.cypher", "MATCH (n) DETACH DELETE n", "is a program"),
    ("g.pdf", "x", "isn't known"),
])  # fmt: skip
def test_a_broken_file_brings_nothing_in(store, tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    before = triples_of(store)
    with pytest.raises(DataError, match=says):
        store.load(path)
    assert triples_of(store) == before


def test_a_broken_table_brings_nothing_in(store, tmp_path):
    store.export(tmp_path / "neo")
    table = tmp_path / "neo" / "relationships.csv"
    good = table.read_text()
    for bad, says in (
        (good + "firm/Acme,r,nobody/x,given,,false\n", r"row 5: 'nobody/x' isn't an :ID"),
        (good + "firm/Acme,r\n", "row 5: 2 cells"),
        (good + 'firm/Acme,"r\n', "row"),
        (good.replace(":TYPE", ":KIND"), "row 1: the header"),
        (good.replace("extracted", "sure"), "status 'sure'"),
    ):
        table.write_text(bad)
        with GraphStore(tmp_path / "new.db") as back:
            with pytest.raises(DataError, match=says):
                back.load(tmp_path / "neo")
            assert triples_of(back) == set()
    with pytest.raises(DataError, match="a folder"):
        store.load(table, "neo4j")


def test_sparql(store):
    rows = store.sparql("SELECT ?x ?y WHERE { ?x r:works_for ?y . ?y r:based_in e:place\\/London }")
    assert rows == [{"x": Entity("Lovelace", "person"), "y": ACME}]
    assert store.sparql("ASK { ?x r:born_in ?y }") is True
    assert store.sparql("CONSTRUCT { ?y r:home_of ?x } WHERE { ?x r:born_in ?y }") == [
        (LONDON, "home_of", ADA)
    ]
    assert store.sparql("SELECT ?r { ?x ?r ?y . ?x a t:firm FILTER(STRSTARTS(STR(?r), STR(r:))) }") == [
        {"r": "based_in"}
    ]
    assert store.sparql(
        'SELECT (COUNT(*) AS ?n) { ?x r:born_in ?y # SERVICE\n FILTER("SERVICE" != ?y) }'
    ) == [{"n": "1"}]
    for bad in (
        "SELECT * { SERVICE <http://127.0.0.1/> { ?s ?p ?o } }",
        "ASK { service SILENT ?x { ?s ?p ?o } }",
    ):
        with pytest.raises(DataError, match="SERVICE asks another server"):
            store.sparql(bad)
    with pytest.raises(DataError, match="SPARQL: "):
        store.sparql("SELECT nothing")
    with pytest.raises(DataError, match="SPARQL: "):
        store.sparql("DELETE WHERE { ?s ?p ?o }")


def test_without_pyoxigraph_the_extra_is_named(store, tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def absent(name, *rest):
        if name == "pyoxigraph":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"quickstudy\[sparql\]"):
        store.sparql("ASK {}")
    with pytest.raises(MissingExtra, match="sparql"):
        store.export(tmp_path / "g.ttl")
    assert store.export(tmp_path / "g.graphml") == 3


@pytest.fixture
def server():
    """A server that keeps what it is sent and answers as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.came.append((self.path, dict(self.headers), body))
            status, answer = self.server.answers.pop(0) if self.server.answers else (200, b'{"errors": []}')
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.came, server.answers = [], []  # pyright: ignore[reportAttributeAccessIssue]
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_push_to_neo4j(store, odd, server):
    assert store.push(server.address, "neo4j", user="neo", password="pass", database="my db", batch=2) == 3
    assert [path for path, *_ in server.came] == ["/db/my%20db/tx/commit"] * 2
    assert server.came[0][1]["Authorization"] == "Basic bmVvOnBhc3M="
    sent = [s for _, _, body in server.came for s in json.loads(body)["statements"]]
    rows = [
        (r["head"], s["parameters"]["relation"], r["tail"]) for s in sent for r in s["parameters"]["rows"]
    ]
    assert set(rows) == said(store)
    assert all("Lovelace" not in s["statement"] for s in sent)
    server.came.clear()
    odd.push(server.address, "neo4j")
    for body in (json.loads(body) for *_, body in server.came):
        for s in body["statements"]:
            assert s["statement"].count("`") == 2 and "\\" not in s["statement"]


def test_push_to_sparql(odd, server):
    import pyoxigraph as ox

    assert odd.push(server.address + "/update", "sparql", batch=7) == len(triples_of(odd))
    graph = ox.Store()
    for path, headers, body in server.came:
        assert path == "/update" and headers["Content-Type"] == "application/sparql-update"
        graph.update(body.decode())
    assert set(rdf.plain(graph)) == triples_of(odd)


def test_blank_nodes_are_the_same_at_every_push(store, server):
    import pyoxigraph as ox

    node = Entity("b0", "_:")
    store.add([(ACME, "address", node), (node, "city", LONDON), (node, "next", ("b1", "_:"))])
    graph, sizes = ox.Store(), []
    for batch in (1, 2, 1000):
        store.push(server.address, "sparql", batch=batch)
        for *_, body in server.came:
            graph.update(body.decode())
        sizes.append(len(graph))
        server.came.clear()
    assert sizes == [6, 6, 6]
    assert graph.query("ASK { ?firm r:address ?b . ?b r:city ?place ; r:next ?c }", prefixes=rdf.PREFIXES)
    assert set(rdf.plain(graph)) == triples_of(store)


def test_a_push_that_fails_says_how_far_it_came(store, server):
    server.answers += [(200, b'{"errors": []}'), (200, b'{"errors": [{"message": "no index"}]}')]
    with pytest.raises(DataError, match=r"no index.* 2 triples had been sent"):
        store.push(server.address, "neo4j", batch=2)
    for answer, says in (
        ((503, b"busy\x1b[2J"), r"503 .*busy\\x1b"), ((302, b""), "302"), ((200, b"<html>"), "as Neo4j does"),
    ):  # fmt: skip
        server.answers.append(answer)
        with pytest.raises(DataError, match=says):
            store.push(server.address, "neo4j")
    with pytest.raises(DataError, match="can't be reached"):
        store.push("http://127.0.0.1:1", "neo4j", seconds=2)
    for address in ("file:///etc/passwd", "localhost:7474", "ftp://x"):
        with pytest.raises(DataError, match="no address"):
            store.push(address, "sparql")
    with pytest.raises(DataError, match="neo4j or sparql"):
        store.push(server.address, "neo")
    assert BORN in store.document("a").text
