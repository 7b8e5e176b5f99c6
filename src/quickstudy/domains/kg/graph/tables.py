"""The file of a graph: its tables. How such a file is opened, and what is refused, says `core.database`."""

import sqlite3
from pathlib import Path

from quickstudy.core.database import Database, reading, writing

APPLICATION = 0x71736B67
"""'qskg': SQLite's application_id, by which the file is known."""
VERSION = 3
"""SQLite's user_version: of the tables below."""

# Numbers stand for names everywhere: types, relations and models in `words`, entities in `entities`.
# A triple is written with the entities that it counts for (head, tail: after merging) and with those that were said,
# where they differ (0: they don't). Undoing a merge is then a matter of these columns; nothing is extracted again.
_FIRST = (
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
# So that a document costs the same however many decisions there are.
_OF_DECISIONS = (
    "CREATE INDEX verdicts_tail ON verdicts (tail)",
    "CREATE INDEX decisions_undo ON decisions (number) WHERE kind = 'undo'",
)

# That an entity may be an entry of the catalogue (0: that none is like it), too unsure to say so: a reviewer is asked,
# and what was looked up once isn't again.
_OF_LINKS = (
    "CREATE TABLE suggested (entity INTEGER NOT NULL, entry INTEGER NOT NULL, model INTEGER NOT NULL, "
    "score REAL NOT NULL, why TEXT NOT NULL, PRIMARY KEY (entity, model)) STRICT, WITHOUT ROWID",
)

MIGRATIONS: dict[int, tuple[str, ...]] = {1: _OF_DECISIONS, 2: _OF_LINKS}
"""Version -> the statements that make the next version of it."""
SCHEMAS: dict[int, tuple[str, ...]] = {
    1: _FIRST,
    2: (*_FIRST, *_OF_DECISIONS),
    3: (*_FIRST, *_OF_DECISIONS, *_OF_LINKS),
}
"""Version -> its tables, for each that can still be opened."""
TABLES = SCHEMAS[VERSION]


def open_file(path: Path, *, create: bool = True, check: bool = False) -> sqlite3.Connection:
    """A connection to a store, made where it isn't there and `create`; see `Database.open`."""
    advice = "Documents that are added to a graph make it; or mend the path."
    kind = Database("graph", APPLICATION, VERSION, SCHEMAS, MIGRATIONS, advice)
    return kind.open(path, create=create, check=check)


__all__ = ("APPLICATION", "MIGRATIONS", "SCHEMAS", "TABLES", "VERSION", "open_file", "reading", "writing")
