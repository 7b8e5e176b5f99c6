"""`quickstudy kg` as people run it: the file of a graph, what can be asked of it, every bad input by its message."""

import json

import pytest

from quickstudy.app import cli, kg_graph
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.domains.kg.schema import Schema


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run `quickstudy kg …` in this process, in tmp_path: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("QUICKSTUDY_DEBUG", raising=False)

    def start(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["kg", *map(str, arguments)])
        return code, *capsys.readouterr()

    return start


TEXT = "Ada runs Acme plc. Acme plc bought Bolt. Bolt is in Leeds."


@pytest.fixture
def graph(tmp_path):
    """The file of a small graph: three sentences, one of which is for review."""
    places = [("Ada", "person"), ("Acme plc", "company"), ("Acme plc", "company"), ("Bolt", "company")]
    places += [("Bolt", "company"), ("Leeds", "place")]
    mentions, at = [], 0
    for words, kind in places:
        at = TEXT.index(words, at)
        mentions.append(Mention(at, at + len(words), kind, 0.9))
        at += len(words)
    said = [
        Statement(0, "works_for", 1, (0, 18), 0.97),
        Statement(2, "acquired", 3, (19, 40), 0.95),
        Statement(4, "based_in", 5, (41, 58), 0.6, certain=False),
    ]
    with GraphStore(tmp_path / "graph.db") as store:
        store.put(Document("news", TEXT, "news.txt"))
        [claim] = store.claim(1)
        store.finish(claim, mentions, said, model="m1")
    return tmp_path / "graph.db"


def test_new_writes_a_schema_and_examples_that_fit_it(call, tmp_path):
    code, out, err = call("new", "finance.yaml")
    assert (code, err) == (0, "") and "quickstudy kg learn --schema finance.yaml" in out
    schema = Schema.read(tmp_path / "finance.yaml")
    labelled = read_annotated(tmp_path / "finance-examples.txt", schema)
    seen = {span.type for one in labelled for span in one.spans}
    said = {relation.type for one in labelled for relation in one.relations}
    assert (seen, said) == (set(schema.entities), set(schema.relations)) and len(labelled) >= 12
    code, _, err = call("new", "finance.yaml")
    assert code == 2 and "finance-examples.txt: there is one already" in err
    assert read_annotated(tmp_path / "finance-examples.txt", schema) == labelled


def test_documents_come_in_change_and_go(call, tmp_path):
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "a.txt").write_text("Ada runs Acme.")
    (tmp_path / "news" / "b.csv").write_text("id,text\nw1,Bolt is in Leeds.\nw2,\n")
    code, out, err = call("add", "g.db", "news")
    assert code == 0 and "2 new, 0 changed, 0 as before; 2 wait to be read: g.db" in out
    assert "left out 1 without words: w2" in err
    (tmp_path / "news" / "a.txt").write_text("Ada left Acme.")
    assert "0 new, 1 changed, 1 as before" in call("add", "g.db", "news")[1]
    told = json.loads(call("status", "g.db", "--json")[1])
    assert told["counts"]["documents waiting"] == 2 and told["failed"] == {}
    assert call("withdraw", "g.db", "w1")[0] == 0
    code, _, err = call("withdraw", "g.db", "a.txt", "w7")
    assert code == 2 and "no document 'w7'" in err
    assert json.loads(call("status", "g.db", "--json")[1])["counts"]["documents waiting"] == 1


def test_a_file_that_became_shorter_leaves_no_old_pieces(call, tmp_path):
    report = tmp_path / "report.txt"
    report.write_text("Acme grew. " * 130_000)
    assert call("add", "g.db", "report.txt")[0] == 0

    def ids():
        with GraphStore(tmp_path / "g.db") as store:
            return [id for (id,) in store.rows("SELECT id FROM documents ORDER BY id")]

    assert ids() == ["report.txt#1", "report.txt#2"]
    report.write_text("Now short.")
    code, _, err = call("add", "g.db", "report.txt")
    assert code == 0 and "2 pieces of files that are cut otherwise now were withdrawn" in " ".join(
        err.split()
    )
    assert ids() == ["report.txt"]
    report.write_text("Acme grew. " * 130_000)
    assert call("add", "g.db", "report.txt")[0] == 0 and ids() == ["report.txt#1", "report.txt#2"]
    assert call("withdraw", "g.db", "report.txt")[0] == 0 and ids() == []


def test_a_hub_is_shown_by_its_surest_triples_with_all_of_them_counted(tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        store.add([(("Hub", "firm"), "sells", (f"thing {i}", "thing")) for i in range(12_000)])
        store.add([((f"owner {i}", "person"), "owns", ("Hub", "firm")) for i in range(5)])
        found = kg_graph.show(store, "Hub", most=20)
        assert len(found.triples) == 20 and found.more == 12_005 - 20
        assert store.degree("Hub", direction="in") == 5 and store.degree("Hub", "sells") == 12_000
        store.put(Document("d", "Hub sells tea. Hub sells jam."))
        [claim] = store.claim(1)
        places = [(0, 3, "firm"), (10, 13, "thing"), (15, 18, "firm"), (25, 28, "thing")]
        said = [Statement(0, "sells", 1, (0, 14), 0.6, certain=False)]
        said.append(Statement(2, "sells", 3, (15, 29), 0.9, certain=False))
        store.finish(claim, [Mention(*place, 0.9) for place in places], said, model="m")
        asked = store.neighbours("Hub", status=("review",), limit=1, surest=True)
        assert [triple.tail.name for triple in asked] == ["jam"]


def test_two_documents_of_one_name_are_pointed_out(call, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(f"This is {folder}.")
    assert call("add", "g.db", "x")[0] == 0
    code, _, err = call("add", "g.db", "y")
    assert code == 2 and "another document called 'a.txt', from x/a.txt" in " ".join(err.split())
    (tmp_path / "x" / "a.txt").rename(tmp_path / "x" / "b.txt")
    code, _, err = call("add", "g.db", "y")
    assert code == 0 and "'a.txt', from x/a.txt, now from y/a.txt" in err
    (tmp_path / "x" / "b.txt").rename(tmp_path / "x" / "a.txt")
    code, _, err = call("add", "h.db", "x", "y")
    assert code == 2 and "two documents have the id 'a.txt' and different texts" in err


def test_an_entity_is_shown_with_the_sentences(call, graph):
    assert call("show", graph, "Acme")[1].startswith("Acme plc (company)\n")
    code, out, err = call("show", graph, "acme PLC")
    assert (code, err) == (0, "")
    assert out.startswith("Acme plc (company)\n")
    assert "[Acme plc] bought [Bolt].  (news)" in out and "0.95" in out and "Leeds" not in out
    code, out, _ = call("show", graph, "Leeds")
    assert "No triple of this kind counts.\nFor review" in out and "kg review" in out and "Bolt" in out
    assert call("show", graph)[1].rstrip().endswith("lists an entity's.")
    told = json.loads(call("show", graph, "Bolt", "--status", "review", "--json")[1])
    [one] = told["triples"]
    assert one["triple"]["tail"] == {"name": "Leeds", "type": "place"} and one["triple"]["score"] == 0.6
    assert one["said"][0]["sentence"] == {"start": 41, "end": 58, "text": "Bolt is in Leeds."}
    code, out, _ = call("show", graph)
    assert out.strip().splitlines()[2].split() == ["Acme", "plc", "company", "2"]


def test_paths_and_patterns(call, graph):
    assert call("path", graph, "Ada", "bolt")[1] == "Ada —works_for→ Acme plc —acquired→ Bolt\n"
    assert call("path", graph, "Bolt", "Ada")[1] == "Bolt ←acquired— Acme plc ←works_for— Ada\n"
    assert "No path of 3 triples" in call("path", graph, "Bolt", "Ada", "--directed")[1]
    out = call("query", graph, "?who", "works_for", "?firm", "?firm", "acquired", "Bolt")[1]
    assert out.split()[:2] == ["?who", "?firm"] and "Ada" in out and "Acme plc" in out
    assert call("query", graph, "Ada", "works_for", "Acme plc")[1] == "yes\n"
    assert call("query", graph, "Ada", "acquired", "Acme plc")[1] == "no\n"


def test_sparql(call, graph):
    pytest.importorskip("pyoxigraph")
    asked = "SELECT ?who WHERE { ?who r:works_for ?firm . ?firm r:acquired ?other }"
    told = json.loads(call("query", graph, "--sparql", asked, "--json")[1])
    assert told["rows"] == [[{"name": "Ada", "type": "person"}]]
    code, _, err = call("query", graph, "--sparql", "SELEKT")
    assert code == 2 and err.startswith("error: SPARQL:")


@pytest.mark.parametrize("file", ["out.graphml", "out.ttl", "out"])
def test_a_graph_goes_out_and_comes_in(call, graph, file, tmp_path):
    if file.endswith("ttl"):
        pytest.importorskip("pyoxigraph")
    assert call("export", graph, file)[1] == f"2 triples: {file}; 1 more wait for review (--status review)\n"
    assert call("import", "again.db", file)[1] == "2 triples: again.db\n"
    with GraphStore(tmp_path / "again.db") as again, GraphStore(graph) as store:
        assert [t[:3] for t in again.triples()] == [t[:3] for t in store.triples()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ad", "g.db"], "no command 'ad' of kg. Did you mean \"add\"?"),
        (["add", "g.db"], "no documents were given"),
        (["add", "g.db", "nowhere.txt"], "nowhere.txt"),
        (["status", "nowhere.db"], "nowhere.db: not found"),
        (["show", "graph.db", "l"], "With these words in it there are: \"Leeds\", \"Bolt\", \"Acme"),
        (["show", "graph.db", "Aida"], "no entity 'Aida'. Did you mean \"Ada\"?"),
        (["show", "graph.db", "Ada", "--relation", "work_for"], "Did you mean \"works_for\"?"),
        (["show", "graph.db", "Ada", "--status", "sure"], "'sure' is no status"),
        (["show", "graph.db", "Ada", "-n", "0"], "-n is 0; expected 1 or more"),
        (["path", "graph.db", "Ada", "Bolt", "--longest", "9"], "longest is 1 to 6"),
        (["query", "graph.db", "?who", "works_for"], "a pattern has three parts"),
        (["query", "graph.db"], "give either patterns or --sparql"),
        (["export", "graph.db", "out.xlsx"], "the suffix '.xlsx' isn't known"),
        (["import", "graph.db", "news.cypher"], "news.cypher"),
        (["push", "graph.db", "localhost"], "no address; expected http://"),
        (["propose", "graph.db", "knows"], "no triple of 'knows' is asserted"),
        (["propose", "graph.db", "knows", "--example", "Ada - Bolt"], "'Ada - Bolt' is no example"),
        (["propose", "graph.db", "knows", "--example", "Aida -> Bolt"], "Did you mean \"Ada\"?"),
        (["propose", "graph.db", "knows", "--most", "0"], "--most is 0; expected 1 or more"),
        (["new", "schema.json"], "its file is .yaml or .yml"),
        (["learn", "--schema", "s.yaml", "--examples", "x.txt", "--to", "graph.db"], "graph.db: a file; what is saved"),
        (["relearn", "graph.db", "--model", "m", "--to", "graph.db/m"], "graph.db: a file; what is saved"),
        (["learn", "--schema", "s.yaml", "--examples", "x.txt", "--to", "."], "with other things in it (graph.db"),
        (["learn", "--schema", ".", "--examples", "x.txt", "--to", "m"], "a folder; a schema is a .yaml or .json file"),
        (["relearn", "graph.db", "--model", "empty", "--to", "empty"], "the old model; it stays, to go back to"),
        (["split", "graph.db", "Ada", "Ada B", "--document", "new"], "new"),
        (["split", "graph.db", "Nobody", "Ada B", "--document", "news"], "the graph has no entity 'Nobody'"),
        (["merge", "graph.db", "Ada", "Nobody"], "the graph has no entity 'Nobody'"),
        (["merges", "graph.db", "Nobody"], "the graph has no entity 'Nobody'"),
        (["import", "g.db", "empty.nt"], "it holds no triple, so nothing was added"),
        (["import", "graph.db", "empty.nt"], "it holds no triple, so nothing was added"),
        (["import", "graph.db", "nowhere.nt"], "nowhere.nt: not found"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_message(call, graph, arguments, says, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.nt").write_text("")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and not (tmp_path / "g.db").exists()
    assert err.startswith("error: ") and "Traceback" not in err
    assert says in " ".join(err.split())


def test_two_of_one_name_are_told_apart_by_their_documents(call, graph, tmp_path):
    with GraphStore(graph) as store:
        store.put(Document("other", TEXT.replace("plc", "plc.")))
        [claim] = store.claim(1)
        marks = [Mention(0, 3, "person", 0.9), Mention(9, 17, "company", 0.9)]
        store.finish(claim, marks, [Statement(0, "works_for", 1, (0, 18), 0.9)], model="m1")
    assert call("split", graph, "Ada", "Ada (of Leeds)", "--document", "other", "--by", "ann")[0] == 0
    with GraphStore(graph) as store:
        found = {said.document: triple.head for triple in store.triples() for said in store.said(triple)
                 if triple.relation == "works_for"}  # fmt: skip
    assert found == {"news": ("Ada", "person"), "other": ("Ada (of Leeds)", "person")}
    assert call("undo", graph)[0] == 0
    with GraphStore(graph) as store:
        assert len(store.said((("Ada", "person"), "works_for", ("Acme plc", "company")))) == 2


def test_the_type_tells_entities_of_one_name_apart(call, graph, tmp_path):
    with GraphStore(graph) as store:
        store.add([(("Bolt", "person"), "works_for", ("Acme plc", "company"))])
        assert kg_graph.entity(store, "Bolt (person)") == ("Bolt", "person")
    code, _, err = call("show", graph, "Bolt")
    assert code == 2 and 'write "Bolt (company)" or "Bolt (person)"' in err
    assert "works_for" in call("show", graph, "Bolt (person)")[1]
