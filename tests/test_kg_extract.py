"""From documents to a graph by the command line: learn, extract in one process and several, stop, go on, link."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import kg_field
import pytest
from kg_field import document

import quickstudy
from quickstudy.app import cli, kg_extract, kg_graph
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.graph.tables import VERSION

COMMAND = [sys.executable, "-m", "quickstudy.app.cli", "kg"]
ENV = os.environ | {"PYTHONPATH": str(Path(quickstudy.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", name="model")
def saved_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    kg_field.model().save(folder)
    return folder


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run `quickstudy kg …` in this process, in tmp_path: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("QUICKSTUDY_DEBUG", raising=False)

    def start(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["kg", *map(str, arguments)])
        return code, *capsys.readouterr()

    return start


def texts(path: Path, count: int, first: int = 18) -> Path:
    """A table of documents like those that the model learned from."""
    rows = [{"id": f"n{i}", "text": document(i).text} for i in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def same(path: Path, other: Path) -> bool:
    """Whether two graphs are the same, but for what rounding does to scores where other documents are read together."""
    with GraphStore(path, create=False) as one, GraphStore(other, create=False) as two:
        rows = [list(store.triples(("extracted", "review"))) for store in (one, two)]
        alike = [t[:3] for t in rows[0]] == [t[:3] for t in rows[1]]
        near = alike and all(abs(a.score - b.score) < 0.02 for a, b in zip(*rows, strict=True))
        return near and all(
            one.counts()[what] == two.counts()[what] for what in ("documents done", "mentions")
        )


def test_a_model_is_learned_and_says_what_it_learned_from(call, tmp_path):
    call("new", "f.yaml")
    arguments = [
        "learn",
        "--schema",
        "f.yaml",
        "--examples",
        "f-examples.txt",
        "--to",
        "m",
        "--encoder",
        "tiny-bert",
    ]
    code, out, err = call(*arguments, "--no-experience", "--across", 1)
    assert code == 0 and "fewer than 5 examples of works_for (4)" in err
    assert "company               18" in out and "quickstudy kg extract graph.db DOCUMENTS --model m" in out
    (tmp_path / "few.txt").write_text("[person]{Jo} left [company]{Bolt}.\n")
    arguments[4] = "few.txt"
    told = json.loads(call(*arguments, "--no-experience", "--json")[1])
    assert told["entities"] == {"company": 1, "person": 1, "place": 0, "amount": 0} and told["judged"] == []
    assert any(note.startswith("no example of place, amount") for note in told["notes"])
    assert any("too few to hold some out" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        (
            "[compny]{Acme} grew.",
            "is of the type 'compny', which the schema doesn't have. Did you mean \"company\"?",
        ),
        ("[company]{Acme} hired [person]{Jo}.\n  works_for: Acme -> Jo", "The other way round it would fit."),
        ("[company]{Acme} hired [person]{Jo}.\n  work_for: Jo -> Acme", 'Did you mean "works_for"?'),
        ("[company]{Acme hired Jo.", "is never closed"),
        ("", "the file is empty"),
    ],
)
def test_bad_examples_are_one_message(call, tmp_path, examples, says):
    call("new", "f.yaml")
    (tmp_path / "bad.txt").write_text(examples)
    code, out, err = call(
        "learn", "--schema", "f.yaml", "--examples", "bad.txt", "--to", "m", "--encoder", "tiny-bert"
    )
    assert (code, out) == (2, "") and err.startswith("error: bad.txt") and says in err
    assert not (tmp_path / "m").exists()


def test_documents_become_a_graph(call, model, tmp_path):
    code, out, err = call("extract", "g.db", texts(tmp_path / "news.jsonl", 12), "--model", model)
    assert code == 0 and "12 documents were read" in out
    assert err.splitlines()[-2:] == ["extract: reading documents …", "extract: merging entities …"]
    told = json.loads(call("extract", "g.db", "--model", model, "--json")[1])
    assert (told["done"], told["failed"]) == (0, 0) and told["counts"]["documents done"] == 12
    code, out, _ = call("show", "g.db")
    assert code == 0 and "person" in out and "firm" in out


@pytest.mark.slow
def test_two_processes_make_the_same_graph_as_one(call, model, tmp_path):
    news = texts(tmp_path / "news.jsonl", 60)
    assert call("extract", "one.db", news, "--model", model, "--jobs", 1)[0] == 0
    code, out, err = call("extract", "two.db", news, "--model", model, "--jobs", 2, "--batch", 4)
    assert code == 0 and "60 documents were read" in out, err
    assert same(tmp_path / "one.db", tmp_path / "two.db")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("jobs", [1, 2])
def test_one_that_is_stopped_loses_nothing_and_goes_on(call, model, tmp_path, how, jobs):
    news = texts(tmp_path / "news.jsonl", 400)
    call("add", "g.db", news)
    arguments = ["extract", "g.db", "--model", str(model), "--jobs", str(jobs), "--batch", "2"]
    running = subprocess.Popen(
        [*COMMAND, *arguments],
        env=ENV,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    deadline = time.monotonic() + 120
    while kg_graph.status(tmp_path / "g.db").counts["documents done"] < 4:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    # As a terminal does, to all of them; or as the kernel does, to the one that was started.
    os.killpg(running.pid, how) if how is signal.SIGINT else os.kill(running.pid, how)
    _, err = running.communicate(timeout=60)
    if how is signal.SIGINT:
        assert running.returncode == 130
        assert f"Go on with:\n  quickstudy kg extract g.db --model {model}" in err
    while (
        jobs > 1 and how is signal.SIGKILL and workers(tmp_path)
    ):  # they end when they see that nobody waits for them
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = kg_graph.status(tmp_path / "g.db").counts["documents done"]
    assert 4 <= done < 400
    assert call("extract", "g.db", "--model", model, "--jobs", 1)[0] == 0
    assert call("extract", "whole.db", news, "--model", model, "--jobs", 1)[0] == 0
    assert same(tmp_path / "g.db", tmp_path / "whole.db")


def workers(folder: Path) -> list[str]:
    """Processes that work on a graph in this folder."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    mine = []
    for line in listed.splitlines():
        pid = line.split()[0]
        if "kg_worker" in line and pid.isdigit() and Path(f"/proc/{pid}/cwd").exists():
            mine += [pid] if Path(f"/proc/{pid}/cwd").resolve() == folder.resolve() else []
    return mine


@pytest.mark.slow
def test_two_extracts_at_once(call, model, tmp_path):
    news = texts(tmp_path / "news.jsonl", 60)
    call("add", "g.db", news)
    arguments = ["extract", "g.db", "--model", str(model), "--jobs", "1", "--batch", "2", "--json"]
    running = [
        subprocess.Popen([*COMMAND, *arguments], env=ENV, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [json.loads(one.communicate(timeout=300)[0]) for one in running]
    assert sum(one["done"] for one in told) == 60
    assert call("extract", "whole.db", news, "--model", model, "--jobs", 1)[0] == 0
    assert same(tmp_path / "g.db", tmp_path / "whole.db")


def test_a_long_document_is_read_in_parts(model, tmp_path):
    """As the same sentences in documents of their own are, each offset in its place."""
    lines = [document(i).text for i in range(18, 78)]
    found = kg_field.model().read(
        [Document("long", "\n\n".join(lines * 30)), *(Document(t, t) for t in lines)]
    )
    whole, apart = found[0], found[1:]
    text = "\n\n".join(lines * 30)
    assert (
        len(text) > 60_000
        and [text[m.start : m.end] for m in whole.mentions]
        == [line[m.start : m.end] for line, one in zip(lines, apart, strict=True) for m in one.mentions] * 30
    )
    assert len(whole.statements) == 30 * sum(len(one.statements) for one in apart)
    for one in whole.statements:
        sentence = text[slice(*one.sentence)]
        assert sentence in lines and all(
            text[m.start : m.end] in sentence for m in (whole.mentions[one.head], whole.mentions[one.tail])
        )


def test_a_document_read_by_another_model_is_read_again_only_if_asked(call, model, tmp_path):
    news = texts(tmp_path / "news.jsonl", 6)
    with GraphStore(tmp_path / "g.db") as store:
        store.put(Document("old", "Ada sued acme."))
        store.finish(store.claim(1)[0], [], [], model="another")
    code, out, err = call("extract", "g.db", news, "--model", model)
    assert code == 0 and "6 documents were read" in out and "1 documents were read by another model" in err
    assert "1 documents were read" in call("extract", "g.db", "--model", model, "--again")[1]


def test_bad_input_of_extract(call, model, tmp_path):
    texts(tmp_path / "news.jsonl", 2)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing of the kind")
    (tmp_path / "mixed.txt").write_bytes("Ada é ".encode() + "Zürich".encode("latin-1"))
    (tmp_path / "twice.csv").write_text("id,text\na,Ada sued acme.\na,Bo sued bolt.\n")
    (tmp_path / "empty").mkdir()
    for file, says in {
        "nowhere.txt": "nowhere.txt",
        "empty.txt": "no document with words",
        "broken.pdf": "broken.pdf",
        "mixed.txt": "mixed.txt",
        "twice.csv": "the id 'a' stands in",
        "news.docx": "news.docx",
    }.items():
        if file.endswith("docx"):
            (tmp_path / file).write_bytes(b"PK")
        code, out, err = call("extract", "g.db", file, "--model", model)
        assert (code, out) == (2, "") and says in err and "Traceback" not in err, file
    code, _, err = call("extract", "g.db", "news.jsonl", "--model", "empty")
    assert code == 2 and "holds no graph model" in err
    code, _, err = call("extract", "nowhere/g.db", "news.jsonl", "--model", model)
    assert code == 2 and 'there is no folder "nowhere"' in err


def test_what_cannot_be_read_is_left_out_if_asked(call, model, tmp_path):
    folder = tmp_path / "news"
    folder.mkdir()
    texts(folder / "good.jsonl", 3)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing of the kind")
    code, out, err = call("extract", "g.db", "news", "--model", model, "--skip-bad")
    assert code == 0 and "3 documents were read" in out and "left out 1 that can't be used" in err


@pytest.mark.slow
def test_a_document_of_50_mb_comes_in_pieces(call, tmp_path):
    (tmp_path / "big.txt").write_text("Ada is employed as a clerk by acme .\n\n" * (50 * 2**20 // 38))
    code, out, _ = call("add", "g.db", "big.txt")
    assert code == 0 and "53 new" in out


def test_a_store_of_a_newer_version_and_a_model_of_another_encoder_are_refused(call, model, tmp_path):
    texts(tmp_path / "news.jsonl", 2)
    call("add", "g.db", "news.jsonl")
    with GraphStore(tmp_path / "g.db") as store:
        store.db.execute(f"PRAGMA user_version = {VERSION + 1}")
    code, _, err = call("extract", "g.db", "news.jsonl", "--model", model)
    assert code == 2 and f"is a graph of version {VERSION + 1}" in err and "Update quickstudy" in err
    other = tmp_path / "other"
    kg_field.model().save(other)
    record = json.loads((other / "examples.json").read_text())
    (other / "examples.json").write_text(json.dumps(record | {"encoder": "tiny"}))
    code, _, err = call("extract", "h.db", "news.jsonl", "--model", other)
    assert code == 2 and "the encoder 'tiny' has no word states" in err


def test_a_process_that_fails_says_why(model, tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        store.put_all(document(i).document for i in range(4))
    (tmp_path / "broken").mkdir()
    with GraphStore(tmp_path / "g.db") as store, pytest.raises(ValueError, match="holds no graph model"):
        kg_extract._in_processes(store, tmp_path / "broken", 2, 4, 4, lambda *_: None)


def test_a_document_never_replaces_another_whose_file_is_there(call, model, tmp_path):
    for week, number in (("week1", 18), ("week2", 19)):
        (tmp_path / week).mkdir()
        (tmp_path / week / "report.txt").write_text(document(number).text)
    assert call("extract", "g.db", "week1", "--model", model)[0] == 0
    code, _, err = call("extract", "g.db", "week2", "--model", model)
    err = " ".join(err.split())
    assert code == 2 and "another document called 'report.txt'" in err and "week1" in err
    with GraphStore(tmp_path / "g.db", create=False) as store:
        assert store.document("report.txt").text == document(18).text
    # A file that was moved, and one that is changed where it lies, are the same document.
    (tmp_path / "week1" / "report.txt").unlink()
    assert call("extract", "g.db", "week2", "--model", model)[0] == 0
    (tmp_path / "week2" / "report.txt").write_text(document(20).text)
    assert call("extract", "g.db", "week2", "--model", model)[0] == 0
    with GraphStore(tmp_path / "g.db", create=False) as store:
        assert store.document("report.txt").text == document(20).text


def test_a_graph_of_which_nothing_is_sure_says_so(call, tmp_path):
    replace(kg_field.model(), precision=0.9999).save(tmp_path / "sure")
    code, out, err = call("extract", "g.db", texts(tmp_path / "d.jsonl", 3), "--model", "sure")
    assert code == 0 and "no triple is as sure as this model asks" in " ".join((out + err).split())
    code, out, _ = call("export", "g.db", "g.nt")
    assert code == 0 and "0 triples" in out and "wait for review" in out


def test_marks_of_labelled_examples_are_no_documents(call, model, tmp_path):
    line = "[person]{Ada} is employed as a clerk by [firm]{acme} .\n    works_for: Ada -> acme\n"
    (tmp_path / "marked.txt").write_text(line * 3)
    code, out, err = call("extract", "g.db", "marked.txt", "--model", model)
    assert code == 0 and "'[person]{Ada}'" in " ".join((out + err).split())
