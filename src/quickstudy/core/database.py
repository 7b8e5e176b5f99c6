"""Files that SQLite keeps for quickstudy: how they are opened, what is refused, how several processes share one.

Such a file may come from anybody. SQLite's own rules for that are kept (sqlite.org/security.html): nothing in its
schema is trusted, and a file is refused unless its schema is, word for word, the one that this version writes. So there
is no trigger, view or function in it that could run.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quickstudy.core.errors import CheckpointError, DataError

WAIT = 60.0
"""Seconds that a writer waits for another one."""
_SQLITES_OWN = {"CREATE TABLE sqlite_sequence(name,seq)", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"}


@dataclass(frozen=True)
class Database:
    """A kind of file: what it is called, its marks, and its tables."""

    what: str
    """One word for people: graph, bank."""
    application: int
    """SQLite's application_id, by which the file is known."""
    version: int
    """SQLite's user_version: of the tables that are written now."""
    schemas: Mapping[int, tuple[str, ...]]
    """Version -> its tables, for each that can still be opened."""
    migrations: Mapping[int, tuple[str, ...]]
    """Version -> the statements that make the next version of it."""

    advice: str = "mend the path."
    """What to do where there is no such file."""

    def open(self, path: Path, *, create: bool = True, check: bool = False) -> sqlite3.Connection:
        """A connection; the file is made where it isn't there and `create`, and brought to this version where it is
        older.

        Args:
            check: look through the whole file for damage (SQLite's quick_check), which takes a while for a large one.

        Raises:
            DataError: there is no such file or folder.
            CheckpointError: the file is another one, is of a newer version, was tampered with or is damaged.
        """
        if path.is_dir():
            raise DataError(f"a folder; expected the file of a {self.what}.", file=path)
        if not path.exists() and not create:
            raise DataError(f"not found. {self.advice}", file=path)
        if not path.parent.is_dir():
            raise DataError(f'there is no folder "{path.parent}".', file=path)
        with reading(path):
            if path.exists() and path.stat().st_size and _head(path) != b"SQLite format 3\0":
                raise CheckpointError(f"{path} is no SQLite file, so it is no {self.what} of quickstudy.")
            # autocommit: transactions are begun by name, so that reading takes no lock that outlives it.
            db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, cached_statements=256)
        try:
            with reading(path):
                _configure(db)
                self._bring_up(db, path)
                _to_wal(db)
                if check and (said := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise CheckpointError(f"{path} is damaged: {said}. Take a copy made earlier.")
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up(self, db: sqlite3.Connection, path: Path) -> None:
        version = self._known(db, path)
        if version == self.version:
            return
        with writing(db, path):
            version = self._known(db, path)  # another process may have been faster
            steps = (
                [self.migrations[older] for older in range(version, self.version)]
                if version
                else [self.schemas[self.version]]
            )
            for statement in (statement for step in steps for statement in step):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {self.application}")
            db.execute(f"PRAGMA user_version = {self.version}")
        self._known(db, path)

    def _known(self, db: sqlite3.Connection, path: Path) -> int:
        """The version, 0 for an empty file. Raises CheckpointError for what isn't of a version known here."""
        alone = not db.in_transaction
        if alone:
            db.execute("BEGIN")  # all of it at one moment: another process may be making the file
        try:
            application, version = _marks(db)
            if (application, version) == (0, 0) and not db.execute(
                "SELECT count(*) FROM sqlite_master"
            ).fetchone()[0]:
                return 0
            if application != self.application:
                raise CheckpointError(
                    f"{path} is an SQLite file of another program, no {self.what} of quickstudy."
                )
            if version > self.version:
                raise CheckpointError(
                    f"{path} is a {self.what} of version {version}; this quickstudy knows up to {self.version}. Update "
                    "quickstudy."
                )
            if version not in self.schemas:
                raise CheckpointError(f"{path} is a {self.what} of version {version}, which never was one.")
            self._refuse_changed(db, version, path)
            return version
        finally:
            if alone:
                db.execute("ROLLBACK")

    def _refuse_changed(self, db: sqlite3.Connection, version: int, path: Path) -> None:
        expected = {" ".join(statement.split()) for statement in self.schemas[version]}
        found = {
            " ".join(sql.split())
            for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        }
        found -= _SQLITES_OWN
        if found != expected:
            odd = sorted(found - expected) or [f"without {text}" for text in sorted(expected - found)]
            raise CheckpointError(
                f"{path} has other tables than a {self.what} of version {version}: {odd[0][:120]!r}. Somebody changed "
                "it, so it isn't opened."
            )


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
    return f"{path} is damaged, or no file of quickstudy ({said})."


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


def _marks(db: sqlite3.Connection) -> tuple[int, int]:
    return db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
