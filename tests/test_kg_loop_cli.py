"""The commands that make a graph better: what they print, write and refuse."""

import json
import signal
import subprocess
import sys

import kg_field
import pytest
from kg_field import document
from kg_graphs import ACME, ADA, LONDON, small

from quickstudy.app import kg_review
from quickstudy.app.cli import main
from quickstudy.domains.kg.graph.facts import Proposal
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.use import extract


def run(capsys, *arguments, code=0):
    assert main(["kg", *map(str, arguments)]) == code
    return capsys.readouterr()


@pytest.fixture(scope="module", name="model")
def saved_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    kg_field.learned([document(i) for i in range(12)], precision=0.9).save(folder)
    return folder


@pytest.fixture(name="graph")
def read_graph(tmp_path):
    path = tmp_path / "g.db"
    with GraphStore(path) as store:
        store.put_all([document(i, firms=1 + i // 12).document for i in range(24)])
        extract(store, kg_field.learned([document(i) for i in range(12)], precision=0.9))
    return path


@pytest.fixture(name="gold")
def gold_file(tmp_path):
    path = tmp_path / "gold.jsonl"
    rows = []
    for i in range(12):
        one = document(i, firms=1)
        spans = [{"start": s.start, "end": s.end, "type": s.type} for s in one.spans]
        said = [{"head": r.head, "tail": r.tail, "type": r.type} for r in one.relations]
        rows.append(
            json.dumps({"id": f"g{i}", "text": one.text, "spans": spans, "relations": said, "complete": True})
        )
    path.write_text("\n".join(rows) + "\n")
    return path


def test_answers_from_a_file_are_decisions(graph, model, tmp_path, capsys):
    answers = tmp_path / "answers.txt"
    answers.write_text("y\nn\ns\n?\nu\ny\n")
    said = run(capsys, "review", graph, "--model", model, "--answers", answers, "--by", "ann", "-n", "6").out
    assert "Does it say:" in said and "taken back" in said and "Triples that wait:" in said
    with GraphStore(graph) as store:
        decided = store.log()
    assert decided and {d.who for d in decided} == {"ann"}
    told = json.loads(run(capsys, "review", graph, "--answers", answers, "--json").out)
    assert set(told) >= {"asked", "counts", "waiting", "next"}
    answers.write_text("perhaps\nr nothing\n")
    refused = run(capsys, "review", graph, "--model", model, "--answers", answers, code=2).err
    assert "none of 2 answers could be taken" in refused
    wrong = run(capsys, "review", graph, "--only", "statements", code=2).err
    assert 'Did you mean "statement"?' in wrong
    assert "can't be read" in run(capsys, "review", graph, "--answers", tmp_path / "none.txt", code=2).err


@pytest.mark.slow
def test_a_review_that_is_stopped_keeps_what_was_answered(graph):
    command = [sys.executable, "-m", "quickstudy.app.cli", "kg", "review", str(graph)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as process:  # fmt: skip
        process.stdin.write("y\n")
        process.stdin.flush()
        asked = 0
        while asked < 2:  # the second question comes when the first answer is written
            asked += process.stdout.readline().startswith("[")
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    with GraphStore(graph) as store:
        assert [decision.kind for decision in store.log()] == ["accept"]


def test_decisions_are_learned_again(graph, model, tmp_path, capsys):
    assert "no decision in this graph" in run(
        capsys, "relearn", graph, "--model", model, "--to", tmp_path / "m2", code=2
    ).err  # fmt: skip
    answers = tmp_path / "answers.txt"
    answers.write_text("y\n" * 30)
    run(capsys, "review", graph, "--model", model, "--answers", answers, "--only", "statement", "-n", "30")
    said = run(capsys, "relearn", graph, "--model", model, "--to", tmp_path / "m2").out
    assert "labelled pieces from decisions" in said and (tmp_path / "m2" / "examples.json").is_file()
    assert "extract" in said


def test_a_model_is_judged_beside_the_frozen_encoder(model, gold, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")  # a narrower table breaks its rows' names
    out = tmp_path / "report"
    said = run(capsys, "evaluate", model, gold, "--out", out, "--forecast", "--draws", "1").out
    assert "entities: borders and type" in said and "frozen encoder" in said
    assert "Calibration error of entities" in said and "5 more examples a type beyond 5" in said
    names = {path.name for path in out.iterdir()}
    assert names == {"report.json", "report.md", "report.png", "evaluation.json", "curve.png"}
    told = json.loads((out / "evaluation.json").read_text())
    assert set(told) == {"this model", "frozen encoder", "points"} and len(told["points"]) == 3
    plain = json.loads(run(capsys, "evaluate", model, gold, "--no-frozen", "--json").out)
    assert plain["scores"]["documents"] == 12


def test_links_to_a_catalogue_are_judged_by_the_labels_ids(model, gold, tmp_path, capsys):
    rows = [json.loads(line) for line in gold.read_text().splitlines()]
    names = sorted({row["text"][s["start"] : s["end"]] for row in rows for s in row["spans"]})
    for row in rows:
        for s in row["spans"]:  # every id but the first is that of another entry which is the same
            number = names.index(row["text"][s["start"] : s["end"]])
            s["link"] = f"Q{number}" if number == 0 else f"same{number}"
    gold.write_text("\n".join(map(json.dumps, rows)) + "\n")
    firms = tmp_path / "firms.csv"
    told = [f"Q{i},{name.upper()},same{i}\nsame{i},{name} again," for i, name in enumerate(names)]
    firms.write_text("id,name,same_as\n" + "\n".join(told) + "\n")
    plain = json.loads(
        run(capsys, "evaluate", model, gold, "--no-frozen", "--catalogue", firms, "--json").out
    )
    entities = plain["scores"]["entities"]
    right, found, there = entities["linked"]["right, found, truth"]
    assert right == entities["borders and type"]["right, found, truth"][0] > 0 and found >= right
    assert there == sum(len(row["spans"]) for row in rows)
    firms.write_text("id,name\nX1,Nobody\n")
    wrong = run(capsys, "evaluate", model, gold, "--no-frozen", "--catalogue", firms, code=2).err
    assert "no label has an id of this catalogue" in " ".join(wrong.split())


def test_a_triple_is_explained(graph, model, tmp_path, capsys):
    with GraphStore(graph) as store:
        triple = next(iter(store.triples(status=("review", "extracted"))))
    ends = (
        f"{triple.head.name} ({triple.head.type})",
        triple.relation,
        f"{triple.tail.name} ({triple.tail.type})",
    )
    said = run(capsys, "explain", graph, *ends, "--model", model).out
    assert "The model at hand:" in said and "example" in said and f"[{triple.head.name}]" in said
    told = json.loads(run(capsys, "explain", graph, *ends, "--json").out)
    assert told["model"] is None and told["lines"]
    with small(tmp_path / "s.db") as store:
        store.propose([Proposal(ADA, "lives_in", LONDON, 0.4, "as others do")], "inference")
    said = run(capsys, "explain", tmp_path / "s.db", "ada lovelace", "lives_in", "London").out
    assert (
        "inferred by inference with 0.40: as others do" in said
        and "beside it: Ada Lovelace —born_in→ London" not in said
    )
    assert "no relation" in run(capsys, "explain", tmp_path / "s.db", "Acme", "x", "London", code=2).err


def test_a_neighbourhood_is_drawn(tmp_path, capsys):
    small(tmp_path / "s.db").close()
    for kind in ("svg", "png", "html"):
        said = run(capsys, "draw", tmp_path / "s.db", "Acme", "--to", tmp_path / f"acme.{kind}").out
        assert "3 entities, 2 triples" in said and (tmp_path / f"acme.{kind}").stat().st_size > 1000
    assert ".svg, .png or .html" in run(
        capsys, "draw", tmp_path / "s.db", "Acme", "--to", tmp_path / "a.gif", code=2
    ).err  # fmt: skip
    assert "no status" in run(
        capsys, "draw", tmp_path / "s.db", "Acme", "--to", tmp_path / "a.svg", "--status", "sure", code=2
    ).err  # fmt: skip
    assert kg_review.draw(tmp_path / "s.db", ACME.name, tmp_path / "deep" / "a.svg").entities == 3
