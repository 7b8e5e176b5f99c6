"""The file of a graph: its tables, how it is opened, what is refused.

A store may come from anybody. SQLite's own rules for such files are kept (sqlite.org/security.html): nothing in its
schema is trusted, and a file is refused unless its schema is, word for word, the one that this module writes. So there
is no trigger, view or function in it that could run.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickstudy.core.errors import CheckpointError, DataError

APPLICATION = 0x71736B67
"""'qskg': SQLite's application_id, by which the file is known."""
VERSION = 1
"""SQLite's user_version: of the tables below."""
WAIT = 60.0
"""Seconds that a writer waits for another one."""

# Numbers stand for names everywhere: types, relations and models in `words`, entities in `entities`.
# A triple is written with the entities that it counts for (head, tail: after merging) and with those that were said,
# where they differ (0: they don't). Undoing a merge is then a matter of these columns; nothing is extracted again.
TABLES = (
    "CREATE TABLE words (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT",
    # state: 0 waiting, 1 done, 2 failed. owner and until: who works on it, and until when (seconds since 1970).
    "CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL, "
    "sha256 BLOB NOT NULL, state INTEGER NOT NULL, owner TEXT, until REAL, model INTEGER, problem TEXT) STRICT",
    "CREATE INDEX documents_waiting ON documents (number) WHERE state = 0",
    "CREATE INDEX documents_owner ON documents (owner) WHERE owner IS NOT NULL",
    # Apart, so that a change of state doesn't write a text of 50 MB again.
    "CREATE TABLE texts (document INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",
    "CREATE TABLE entities (number INTEGER PRIMARY KEY, name TEXT NOT NULL, type INTEGER NOT NULL, "
    "merged_into INTEGER NOT NULL DEFAULT 0, UNIQUE (name, type)) STRICT",
    "CREATE INDEX entities_merged ON entities (merged_into) WHERE merged_into != 0",
    "CREATE TABLE mentions (number INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, "
    "end INTEGER NOT NULL, type INTEGER NOT NULL, score REAL NOT NULL, model INTEGER NOT NULL, "
    "found INTEGER NOT NULL, entity INTEGER NOT NULL) STRICT",
    "CREATE INDEX mentions_document ON mentions (document)",
    "CREATE INDEX mentions_entity ON mentions (entity)",
    "CREATE INDEX mentions_found ON mentions (found) WHERE found != entity",
    # One record of provenance a sentence, however many statements it holds.
    "CREATE TABLE sentences (number INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, "
    "end INTEGER NOT NULL, model INTEGER NOT NULL) STRICT",
    "CREATE INDEX sentences_document ON sentences (document)",
    # found_*: as extracted. h, r, t: the triple that it supports, after corrections and splits. verdict: -1, 0, 1.
    "CREATE TABLE statements (number INTEGER PRIMARY KEY, sentence INTEGER NOT NULL, found_head INTEGER NOT NULL, "
    "found_relation INTEGER NOT NULL, found_tail INTEGER NOT NULL, score REAL NOT NULL, certain INTEGER NOT NULL, "
    "verdict INTEGER NOT NULL, h INTEGER NOT NULL, r INTEGER NOT NULL, t INTEGER NOT NULL) STRICT",
    "CREATE INDEX statements_sentence ON statements (sentence)",
    "CREATE INDEX statements_triple ON statements (h, r, t)",
    # own: the status by what supports this row; status: of the triple, all its rows and verdicts taken together.
    "CREATE TABLE triples (head INTEGER NOT NULL, relation INTEGER NOT NULL, tail INTEGER NOT NULL, "
    "said_head INTEGER NOT NULL, said_tail INTEGER NOT NULL, status INTEGER NOT NULL, own INTEGER NOT NULL, "
    "given INTEGER NOT NULL, score REAL, PRIMARY KEY (head, relation, tail, said_head, said_tail)) "
    "STRICT, WITHOUT ROWID",
    # All that a look-up from the tail asks for, so that it needs no second one.
    "CREATE INDEX triples_tail ON triples (tail, relation, head, status, own, score)",
    "CREATE INDEX triples_review ON triples (status) WHERE status IN (1, 2)",
    "CREATE TABLE proposals (head INTEGER NOT NULL, relation INTEGER NOT NULL, tail INTEGER NOT NULL, "
    "model INTEGER NOT NULL, score REAL NOT NULL, why TEXT NOT NULL, PRIMARY KEY (head, relation, tail, model)) "
    "STRICT, WITHOUT ROWID",
    "CREATE TABLE catalogue (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
    "type TEXT NOT NULL) STRICT",
    "CREATE TABLE aliases (entry INTEGER NOT NULL, alias TEXT NOT NULL, PRIMARY KEY (entry, alias)) "
    "STRICT, WITHOUT ROWID",
    # That two are the same, or (together = 0) are not. An entry of the catalogue has its number with a minus.
    # decision: 0 for what a model or the catalogue says.
    "CREATE TABLE bonds (one INTEGER NOT NULL, other INTEGER NOT NULL, decision INTEGER NOT NULL, "
    "model INTEGER NOT NULL, together INTEGER NOT NULL, score REAL NOT NULL, why TEXT NOT NULL, "
    "PRIMARY KEY (one, other, decision, model)) STRICT, WITHOUT ROWID",
    "CREATE INDEX bonds_other ON bonds (other)",
    "CREATE TABLE verdicts (head INTEGER NOT NULL, relation INTEGER NOT NULL, tail INTEGER NOT NULL, "
    "decision INTEGER NOT NULL, accepted INTEGER NOT NULL, PRIMARY KEY (head, relation, tail, decision)) "
    "STRICT, WITHOUT ROWID",
    # Only ever added to. What it says is kept in names, texts and offsets: numbers change when a graph is rebuilt.
    "CREATE TABLE decisions (number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, "
    "kind TEXT NOT NULL, body TEXT NOT NULL, note TEXT NOT NULL) STRICT",
    "CREATE TABLE decision_documents (document TEXT NOT NULL, decision INTEGER NOT NULL, "
    "PRIMARY KEY (document, decision)) STRICT, WITHOUT ROWID",
)  # fmt: skip

MIGRATIONS: dict[int, tuple[str, ...]] = {}
"""Version -> the statements that make the next version of it."""
SCHEMAS: dict[int, tuple[str, ...]] = {VERSION: TABLES}
"""Version -> its tables, for each that can still be opened."""


_SQLITES_OWN = {"CREATE TABLE sqlite_sequence(name,seq)", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"}


def open_file(path: Path, *, create: bool = True, check: bool = False) -> sqlite3.Connection:
    """A connection to a store, made where it isn't there and `create`, brought to this version where it is older.

    Args:
        check: look through the whole file for damage (SQLite's quick_check), which takes a while for a large one.

    Raises:
        DataError: there is no such file or folder.
        CheckpointError: the file is no store, is of a newer version, was tampered with or is damaged.
    """
    if path.is_dir():
        raise DataError("a folder; expected the file of a graph.", file=path)
    if not path.exists() and not create:
        raise DataError(
            "not found. Documents that are added to a graph make it; or mend the path.", file=path
        )
    if not path.parent.is_dir():
        raise DataError(f'there is no folder "{path.parent}".', file=path)
    with reading(path):
        if path.exists() and path.stat().st_size and _head(path) != b"SQLite format 3\0":
            raise CheckpointError(f"{path} is no SQLite file, so it is no graph of quickstudy.")
        # autocommit: transactions are begun by name, so that reading takes no lock that outlives it.
        db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, cached_statements=256)
    try:
        with reading(path):
            _configure(db)
            _of_this_version(db, path)
            _to_wal(db)
            if check and (said := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise CheckpointError(f"{path} is damaged: {said}. Take a copy made earlier.")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def writing(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """A transaction: all of the block, or nothing of it. Blocks inside one another are one.

    Raises:
        CheckpointError: the disk is full, the file damaged or locked for a minute by another process.
    """
    if db.in_transaction:
        yield
        return
    with reading(path):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # SQLite has rolled back by itself after some errors
                db.execute("ROLLBACK")
            raise


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with the file becomes an error that a person understands: CheckpointError or DataError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise CheckpointError(explain(error, path)) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"a text holds {error.object[error.start]!a}, half of a character, which no UTF-8 file can. Remove it."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be opened: {error.strerror}.") from error


def explain(error: sqlite3.DatabaseError, path: Path) -> str:
    """What SQLite said, as a person can act on it."""
    said = str(error)
    if "locked" in said:
        return (
            f"{path}: another process has been writing for {WAIT:g} seconds. Try again when it has finished."
        )
    if "full" in said:
        return (
            f"{path}: no room on the disk ({said}). Nothing of this step was kept; free some space and go on."
        )
    if "readonly" in said or "unable to open" in said:
        return (
            f"{path} can't be opened for writing ({said}), nor can what SQLite keeps beside it (-wal, -shm)."
        )
    if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError | sqlite3.IntegrityError):
        return f"{path}: {said}."
    return f"{path} is damaged, or no graph of quickstudy ({said})."


def _head(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:  # a pipe would block for ever
        return file.read(16)


def _configure(db: sqlite3.Connection) -> None:
    db.enable_load_extension(False) if hasattr(db, "enable_load_extension") else None
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "cache_size = -32000"):
        db.execute(f"PRAGMA {pragma}")


def _to_wal(db: sqlite3.Connection) -> None:
    """Readers and one writer at a time don't wait for each other. With NORMAL, a process that is killed loses nothing;
    when the power fails, the last steps may be undone, whole ones.
    """
    deadline = time.monotonic() + WAIT
    while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError:  # this one step doesn't wait by itself
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    db.execute("PRAGMA synchronous = NORMAL")


def _of_this_version(db: sqlite3.Connection, path: Path) -> None:
    version = _known(db, path)
    if version == VERSION:
        return
    with writing(db, path):
        version = _known(db, path)  # another process may have been faster
        for older in range(version, VERSION):
            for statement in MIGRATIONS[older] if older else TABLES:
                db.execute(statement)
            if not older:
                break
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    _known(db, path)


def _known(db: sqlite3.Connection, path: Path) -> int:
    """The version, 0 for an empty file. Raises CheckpointError for what isn't a store of a version known here."""
    alone = not db.in_transaction
    if alone:
        db.execute("BEGIN")  # all of it at one moment: another process may be making the store
    try:
        application, version = _marks(db)
        if (application, version) == (0, 0) and not db.execute(
            "SELECT count(*) FROM sqlite_master"
        ).fetchone()[0]:
            return 0
        if application != APPLICATION:
            raise CheckpointError(f"{path} is an SQLite file of another program, no graph of quickstudy.")
        if version > VERSION:
            raise CheckpointError(
                f"{path} is a graph of version {version}; this quickstudy knows up to {VERSION}. Update quickstudy."
            )
        if version not in SCHEMAS:
            raise CheckpointError(f"{path} is a graph of version {version}, which never was one.")
        _refuse_changed(db, version, path)
        return version
    finally:
        if alone:
            db.execute("ROLLBACK")


def _marks(db: sqlite3.Connection) -> tuple[int, int]:
    return db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]


def _refuse_changed(db: sqlite3.Connection, version: int, path: Path) -> None:
    expected = {" ".join(statement.split()) for statement in SCHEMAS[version]}
    found = {
        " ".join(sql.split()) for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    }
    found -= _SQLITES_OWN
    if found != expected:
        odd = sorted(found - expected) or [f"without {text}" for text in sorted(expected - found)]
        raise CheckpointError(
            f"{path} has other tables than a graph of version {version}: {odd[0][:120]!r}. Somebody changed it, "
            "so it isn't opened."
        )
