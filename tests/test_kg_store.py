"""The store of a graph: documents come and go, two processes work on it, one is killed, a file is somebody else's."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kg_graphs import ACME, ADA, BORN, LONDON, LOVELACE, WORKS, dump, put, said, small

from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph import tables as store_tables
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture
def store(tmp_path):
    with small(tmp_path / "g.db") as store:
        yield store


def test_a_triple_shows_where_it_was_said(store):
    (found,) = store.said((ACME, "based_in", LONDON))
    assert found.document == "b" and found.sentence.text == WORKS and found.model == "m1"
    assert [WORKS[part.start : part.end] for part in (found.head, found.tail)] == ["Acme", "London"]
    assert (found.head.text, found.tail.text, found.score) == ("Acme", "London", 0.9)


def test_offsets_slice_to_the_exact_text_in_any_script(tmp_path):
    text = "Zoë 😀\r\n lives\x00 in\u2028 東京, 🇫🇷."
    with GraphStore(tmp_path / "g.db") as store:
        put(store, "odd", text, (Entity("Zoë 😀", "person"), "in", Entity("東京", "place")))
        (found,) = store.said(next(store.triples()))
        assert text[slice(*found.tail[:2])] == found.tail.text == "東京"
        assert found.sentence.text == text == store.document("odd").text


def test_one_record_of_provenance_a_sentence(store):
    assert store.rows("SELECT count(*) FROM sentences") == [(2,)]
    assert store.rows("SELECT count(*) FROM statements") == [(3,)]


def test_putting_the_same_text_again_is_no_work(store):
    before = store.db.total_changes
    assert store.put(Document("a", BORN)) == "same"
    assert store.claim(10) == [] and store.db.total_changes == before


def test_another_text_replaces_what_followed_from_the_old_one(store):
    assert store.put(Document("a", "Ada Lovelace died in Paris.")) == "changed"
    assert ("Ada Lovelace", "born_in", "London") not in said(store)
    assert store.search("Ada") == []
    put(store, "a", "Ada Lovelace died in Paris.", (ADA, "died_in", Entity("Paris", "place")))
    assert said(store) == {
        ("Ada Lovelace", "died_in", "Paris"), ("Lovelace", "works_for", "Acme"), ("Acme", "based_in", "London"),
    }  # fmt: skip


def test_withdrawing_keeps_what_another_document_supports(store):
    put(store, "c", "Acme sits in London.", (ACME, "based_in", LONDON), certain=False, score=0.4)
    store.withdraw("b")
    assert said(store) == {("Ada Lovelace", "born_in", "London")}
    kept = store.triple(ACME, "based_in", LONDON)
    assert kept.status == "review" and kept.score == 0.4
    assert [s.document for s in store.said(kept)] == ["c"]
    assert store.search("Lovelace") == [ADA]
    store.withdraw("a")
    store.withdraw("c")
    for table in ("mentions", "sentences", "statements", "triples", "entities", "texts"):
        assert store.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
    with pytest.raises(DataError, match="no document 'c'"):
        store.withdraw("c")


def test_extracting_again_replaces_and_keeps_what_stays(store):
    entity = store.rows("SELECT number FROM entities WHERE name = 'Acme'")
    assert store.reopen("m1") == 0 and store.reopen("m2") == 2
    assert len(list(store.triples())) == 3  # until they are replaced
    put(store, "b", WORKS, (ACME, "based_in", LONDON), model="m2")
    assert said(store) == {("Ada Lovelace", "born_in", "London"), ("Acme", "based_in", "London")}
    assert store.rows("SELECT number FROM entities WHERE name = 'Acme'") == entity
    assert store.said((ACME, "based_in", LONDON))[0].model == "m2"


def test_a_failed_document_is_not_tried_for_ever(store):
    store.put(Document("c", "x"))
    (claim,) = store.claim()
    assert store.fail(claim, "too long") and store.claim() == []
    assert store.failed() == {"c": "too long"} and store.counts()["documents failed"] == 1
    assert store.reopen("m1") == 1 and store.failed() == {}


def test_review_and_inference_are_kept_apart(store):
    from quickstudy.domains.kg.graph.facts import Proposal

    put(store, "c", "Acme and London.", (LONDON, "likes", ACME), certain=False, score=0.3)
    store.propose([Proposal(ADA, "works_for", ACME, 0.7, "she lives near")], "link-1")
    store.propose([Proposal(ACME, "based_in", LONDON, 0.99)], "link-2")
    asserted = said(store)
    assert ("London", "likes", "Acme") not in asserted and (
        "Ada Lovelace",
        "works_for",
        "Acme",
    ) not in asserted
    assert said(store, status="review") == {("London", "likes", "Acme")}
    (proposed,) = store.triples("proposed")
    assert proposed.inferred and proposed[:3] == (ADA, "works_for", ACME) and store.said(proposed) == []
    extracted = store.triple(ACME, "based_in", LONDON)
    assert extracted.status == "extracted" and not extracted.inferred and extracted.score == 0.9
    assert store.neighbours(ADA, "works_for") == []
    assert store.match([("?x", "works_for", ACME)]) == [{"?x": LOVELACE}]
    decision = store.accept(proposed)
    store.propose([], "link-1")  # what a reviewer decided on isn't the model's to take back
    assert store.triple(*proposed[:3]).inferred and store.triple(*proposed[:3]).status == "accepted"
    store.undo(decision)
    assert store.triple(*proposed[:3]).status == "proposed"
    store.propose([], "link-1")
    assert store.triple(*proposed[:3]) is None


def test_a_statement_or_mention_out_of_range_is_refused(tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        store.put(Document("a", "Ada is here."))
        (claim,) = store.claim()
        ada = Mention(0, 3, "person")
        for mentions, statements, says in (
            ([Mention(0, 99, "person")], [], "0 to 99"),
            ([Mention(3, 4, "person")], [], "blanks"),
            ([ada], [Statement(0, "r", 1, (0, 12))], "mentions 0 and 1"),
            ([ada], [Statement(0, "r", -1, (0, 12))], "mentions 0 and -1"),
            ([ada, Mention(7, 11, "place")], [Statement(0, "r", 1, (0, 5))], "doesn't hold"),
            ([ada._replace(score=float("nan"))], [], "score nan"),
        ):
            with pytest.raises(DataError, match=says):
                store.finish(claim, mentions, statements, "m")
        assert store.counts()["mentions"] == 0
        with pytest.raises(DataError, match="half of a character"):
            store.put(Document("b", "a\ud800b"))
        with pytest.raises(DataError, match="two documents have the id 'x'"):
            store.put_all([Document("x", "1"), Document("x", "2")])
        with pytest.raises(DataError, match="an id and a text"):
            store.put(Document(" ", "1"))


def test_a_claim_that_ran_out_or_whose_text_changed_writes_nothing(tmp_path):
    with GraphStore(tmp_path / "g.db") as store, GraphStore(tmp_path / "g.db") as other:
        store.put(Document("a", "Ada."))
        (late,) = store.claim(lease=-1)
        (claim,) = other.claim()
        assert not store.finish(late, [Mention(0, 3, "person")], [], "m")
        assert not store.renew(late) and not store.fail(late, "x")
        assert other.renew(claim) and store.claim() == []
        store.put(Document("a", "Ada again."))
        assert not other.finish(claim, [Mention(0, 3, "person")], [], "m")
        assert store.counts()["mentions"] == 0 and store.counts()["documents waiting"] == 1


def test_a_transaction_that_fails_leaves_no_trace(store):
    before = dump(store)

    class Stop(Exception):
        pass

    def fail() -> None:
        with store.writing():
            store.put(Document("c", "x"))
            store.add([(("n", "new type"), "new relation", ("m", "new type"))])
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert dump(store) == before
    store.add(
        [(("n", "other"), "new relation", ("m", "new type"))]
    )  # names of the undone step aren't remembered
    assert ("n", "new relation", "m") in said(store)
    assert store.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_a_50_mb_document(tmp_path):
    text = "Ada was born in London. " * 2_200_000
    with GraphStore(tmp_path / "g.db") as store:
        put(store, "big", text, (Entity("Ada", "person"), "born_in", LONDON))
        assert store.said(next(store.triples()))[0].head.text == "Ada"
        assert store.put(Document("big", text)) == "same"


WORKER = """
import sys, time
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.store import GraphStore
store, slow = GraphStore(sys.argv[1]), float(sys.argv[2])
done = 0
while claims := store.claim(3):
    for claim in claims:
        text = claim.document.text
        time.sleep(slow)
        a, b = text.split(" knows ")
        found = [Mention(0, len(a), "p"), Mention(len(text) - len(b), len(text), "p")]
        done += store.finish(claim, found, [Statement(0, "knows", 1, (0, len(text)))], "m")
        print(done, flush=True)
"""


def worker(path: Path, slow: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(slow)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def whole(path: Path, documents: int) -> None:
    with GraphStore(path, check=True) as store:
        counts = store.counts()
        assert counts["documents done"] == documents and counts["documents waiting"] == 0
        assert counts["statements"] == counts["triples extracted"] == documents
        assert counts["mentions"] == 2 * documents
        assert all(len(store.said(triple)) == 1 for triple in store.triples())


@pytest.mark.slow
def test_two_processes_share_the_work_and_do_nothing_twice(tmp_path):
    path = tmp_path / "g.db"
    with GraphStore(path) as store:
        store.put_all(Document(f"d{i}", f"Ann {i} knows Bob {i}") for i in range(60))
    workers = [worker(path, 0.005) for _ in range(2)]
    done = [int((p.communicate(timeout=60)[0].split() or ["0"])[-1]) for p in workers]
    assert sum(done) == 60 and [p.returncode for p in workers] == [0, 0]
    whole(path, 60)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_process_that_is_killed_loses_nothing_and_does_nothing_twice(tmp_path):
    path = tmp_path / "g.db"
    with GraphStore(path) as store:
        store.put_all(Document(f"d{i}", f"Ann {i} knows Bob {i}") for i in range(40))
    for kill_after in (1, 4, 9):
        process = worker(path, 0.02)
        assert process.stdout
        for _ in range(kill_after):
            process.stdout.readline()
        time.sleep(0.003 * kill_after)  # anywhere: while it sleeps, or while it writes
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    with GraphStore(path) as store:
        assert 14 <= store.counts()["documents done"] < 40
    last = worker(path, 0)
    last.communicate(timeout=60)
    whole(path, 40)  # what the killed ones had claimed too, without waiting for their leases


@pytest.mark.slow
def test_many_open_a_new_store_at_once(tmp_path):
    code = textwrap.dedent("""
        import sys
        from quickstudy.domains.kg.document import Document
        from quickstudy.domains.kg.graph.store import GraphStore
        with GraphStore(sys.argv[1]) as store:
            for i in range(20):
                store.put(Document(f"{sys.argv[2]}-{i}", "x"))
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "g.db"), str(i)],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        for i in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    with GraphStore(tmp_path / "g.db") as store:
        assert store.counts()["documents waiting"] == 80


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "g.db"
    small(path).close()
    edit(path, "PRAGMA user_version = 99")
    with pytest.raises(CheckpointError, match=r"version 99.*Update quickstudy"):
        GraphStore(path)


def first_version(path: Path) -> dict[str, list]:
    """A store as the first version wrote it, and what is in it."""
    with small(path) as store:
        store.reject(next(store.triples()))
        store.undo()
        store.merge(LOVELACE, ADA)
        content = dump(store)
    later = ("INDEX verdicts_tail", "INDEX decisions_undo", "TABLE suggested")
    edit(path, *(f"DROP {what}" for what in later), "PRAGMA user_version = 1")
    return content


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "g.db"
    content = first_version(path)
    with ThreadPoolExecutor(4) as several:  # at once: one of them does it
        opened = [
            store.result() for store in [several.submit(lambda: dump(GraphStore(path))) for _ in range(4)]
        ]
    assert opened == [content] * 4
    with GraphStore(path, check=True) as store:
        assert store.rows("PRAGMA user_version") == [(store_tables.VERSION,)]
        store.undo()
        assert ("Lovelace", "works_for", "Acme") in said(store)
        before = dump(store)
        store.rebuild()
        assert dump(store) == before


def test_a_store_of_the_first_version_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "g.db"
    first_version(path)
    edit(path, "CREATE VIEW evil AS SELECT * FROM words")
    with pytest.raises(CheckpointError, match="other tables than a graph of version 1"):
        GraphStore(path)


def test_an_older_store_is_brought_up_to_a_version_to_come(tmp_path, monkeypatch):
    path, now = tmp_path / "g.db", store_tables.VERSION
    first_version(path)
    extra = "CREATE TABLE extra (number INTEGER PRIMARY KEY) STRICT"
    monkeypatch.setattr(store_tables, "VERSION", now + 1)
    monkeypatch.setitem(store_tables.SCHEMAS, now + 1, (*store_tables.TABLES, extra))
    monkeypatch.setitem(store_tables.MIGRATIONS, now, (extra,))
    with GraphStore(path) as store:
        assert store.rows("PRAGMA user_version") == [(now + 1,)] and store.rows("SELECT * FROM extra") == []
        assert len(list(store.triples())) == 3
    with GraphStore(path):
        pass


def edit(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("change", [
    "CREATE TRIGGER evil AFTER INSERT ON words BEGIN DELETE FROM documents; END",
    "CREATE VIEW evil AS SELECT * FROM words",
    "ALTER TABLE words ADD COLUMN more TEXT",
    "DROP TABLE verdicts",
    "DROP INDEX bonds_other",
    "CREATE TABLE sqlitestat (x)",
])  # fmt: skip
def test_a_file_with_other_tables_is_refused(tmp_path, change):
    path = tmp_path / "g.db"
    small(path).close()
    edit(path, change)
    with pytest.raises(CheckpointError, match="other tables"):
        GraphStore(path)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database")
    with pytest.raises(CheckpointError, match="no SQLite file"):
        GraphStore(tmp_path / "text")
    edit(tmp_path / "other", "CREATE TABLE x (y)")
    with pytest.raises(CheckpointError, match="another program"):
        GraphStore(tmp_path / "other")
    with pytest.raises(DataError, match="a folder"):
        GraphStore(tmp_path)
    with pytest.raises(DataError, match="not found"):
        GraphStore(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(DataError, match="no folder"):
        GraphStore(tmp_path / "no" / "g.db")
    (tmp_path / "empty").touch()
    GraphStore(tmp_path / "empty").close()


def test_a_damaged_page_is_an_error_that_can_be_read(tmp_path):
    path = tmp_path / "g.db"
    small(path).close()
    data, noise, refused = path.read_bytes(), random.Random(0), 0
    pages = len(data) // 4096
    for page in range(pages):
        path.write_bytes(data[: page * 4096] + noise.randbytes(4096) + data[(page + 1) * 4096 :])
        for check in (True, False):
            try:
                with GraphStore(path, check=check) as store:
                    dump(store)
                    store.rebuild()
            except CheckpointError:
                refused += check
        for beside in ("g.db-wal", "g.db-shm"):
            (tmp_path / beside).unlink(missing_ok=True)
    assert refused == pages


def test_names_from_a_file_are_never_run(store):
    evil = "x'; DROP TABLE words; --\"`"
    store.add([((evil, evil), evil, ("%_\\", "?"))])
    assert [t.relation for t in store.neighbours(evil)] == [evil]
    assert store.match([("?a", evil, "?b")]) == [{"?a": Entity(evil, evil), "?b": Entity("%_\\", "?")}]
    assert store.search("%") == [Entity("%_\\", "?")] and store.search("drop table") == [Entity(evil, evil)]
    assert store.rows("PRAGMA integrity_check") == [("ok",)]


def test_given_triples_need_no_sentence_and_are_there_once(store):
    new = [((f"n{i}", "t"), "next", (f"n{i + 1}", "t")) for i in range(10)]
    assert store.add([*new, *new], batch=7) == 20
    assert store.add([(ACME, "based_in", LONDON)]) == 1
    assert len(list(store.triples())) == 13 and store.counts()["triples given"] == 11
    store.withdraw("b")
    assert store.triple(ACME, "based_in", LONDON).status == "given"
    with pytest.raises(DataError, match="lacks a name"):
        store.add([(("", "t"), "r", ("b", "t"))])


def test_many_triples_are_read_as_they_come(store):
    rows = store.triples()
    first = next(rows)
    store.add([(("zz", "t"), "r", ("zzz", "t"))])  # while another question is under way
    assert first.head.name == "Acme" and len(list(rows)) >= 2
