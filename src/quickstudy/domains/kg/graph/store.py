"""The graph of a field in one SQLite file: what was said, where, how surely, and what reviewers decided.

    with GraphStore("graph.db") as store:
        store.put(Document("note-1", "Ada Lovelace was born in London."))
        for claim in store.claim(10):
            store.finish(claim, mentions, statements, model="…")       # all of a document, or nothing
        store.neighbours("London"); store.match([("?who", "born_in", "London")])

Writing is exactly-once: what was found in a document and the mark that it is done are one transaction, so a process
that is killed leaves the document waiting, never half done. Several processes may work on one file; a thread needs a
store of its own.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from quickstudy.core.errors import CheckpointError, DataError, did_you_mean
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph import (
    claims,
    decisions,
    export,
    facts,
    labels,
    load,
    patterns,
    push,
    query,
    rdf,
)
from quickstudy.domains.kg.graph.query import each_of
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.tables import open_file, reading, writing

_ENTITY = partial(tuple.__new__, Entity)
KEPT = 200_000
"""Names of entities that an open graph keeps at hand, about 50 MB of them."""


class GraphStore:
    """A graph, opened from a file, which is made where it isn't there."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True, check: bool = False) -> None:
        """Open the file.

        Args:
            create: make it where it isn't there; else that is a DataError.
            check: look through all of it for damage, which takes a while.

        Raises:
            DataError: there is no such file or folder.
            CheckpointError: it is no graph, of a newer version, damaged or changed by hand.
        """
        self.path = Path(path)
        self.db = open_file(self.path, create=create, check=check)
        self._words: dict[str, int] = {}
        self._named: dict[int, str] = {}
        self._ends: dict[int, Entity] = {}
        self._seen = -1  # SQLite's data_version when _ends was filled
        self._moment = False

    def close(self) -> None:
        """Close the file; what SQLite keeps beside it goes with the last process that closes it."""
        self.db.close()

    def __enter__(self) -> "GraphStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What can be asked, and what reviewers can do: see the functions themselves.
    neighbours = query.neighbours
    search = query.search
    triple = query.triple
    triples = query.triples
    said = query.said
    names = query.names
    entities = query.entities
    counts = query.counts
    waiting = query.waiting
    degree = query.degree
    mentions = query.mentions
    paths = patterns.paths
    match = patterns.match
    claim = claims.claim
    renew = claims.renew
    release = claims.release
    finish = claims.finish
    fail = claims.fail
    reopen = claims.reopen
    failed = claims.failed
    add = facts.add
    propose = facts.propose
    same = facts.same
    link = facts.link
    suggest = facts.suggest
    suggested = facts.suggested
    catalogue = facts.catalogue
    accept = decisions.accept
    reject = decisions.reject
    correct = decisions.correct
    merge = decisions.merge
    split = decisions.split
    identify = decisions.identify
    deny = decisions.deny
    undo = decisions.undo
    mend = labels.mend
    name = labels.name
    relate = labels.relate
    whole = labels.whole
    log = decisions.log
    rebuild = decisions.rebuild
    export = export.export
    load = load.load
    push = push.push
    sparql = rdf.sparql

    def put(self, document: Document) -> str:
        """Add a document, or bring it up to date.

        Returns:
            'new'; 'same' where its text is known, and nothing is to do; 'changed' where it had another text: what
            followed from that is gone, and the document waits to be extracted again.
        """
        if not isinstance(document.text, str) or not isinstance(document.id, str) or not document.id.strip():
            raise DataError("a document needs an id and a text.", file=document.source or None)
        with self.writing():
            digest = sha256(document.text.encode()).digest()
            row = self.db.execute(
                "SELECT number, sha256, source FROM documents WHERE id = ?", (document.id,)
            ).fetchone()
            if row is not None and row[1] == digest:
                if row[2] != document.source:
                    self.db.execute(
                        "UPDATE documents SET source = ? WHERE number = ?", (document.source, row[0])
                    )
                return "same"
            if row is None:
                number = self.db.execute(
                    "INSERT INTO documents (id, source, sha256, state) VALUES (?, ?, ?, 0)",
                    (document.id, document.source, digest),
                ).lastrowid
                self.db.execute("INSERT INTO texts VALUES (?, ?)", (number, document.text))
                return "new"
            claims.forget(self, row[0])
            self.db.execute(
                "UPDATE documents SET source = ?, sha256 = ?, state = 0, owner = NULL, until = NULL, model = NULL, "
                "problem = NULL WHERE number = ?",
                (document.source, digest, row[0]),
            )
            self.db.execute("UPDATE texts SET text = ? WHERE document = ?", (document.text, row[0]))
            return "changed"

    def put_all(self, documents: Iterable[Document], batch: int = 200) -> Counter[str]:
        """Put many, `batch` in a transaction. Returns how many were new, same and changed.

        Raises:
            DataError: two of them have the same id and different texts.
        """
        done: Counter[str] = Counter()
        rest = iter(documents)
        # Which came already is kept in a file of SQLite's own, as there may be millions.
        self.db.execute("CREATE TEMP TABLE IF NOT EXISTS came (id TEXT PRIMARY KEY, sha256 BLOB)")
        self.db.execute("DELETE FROM came")
        while part := list(islice(rest, batch)):
            with self.writing():
                self._refuse_two_texts(part)
                done.update([self.put(document) for document in part])
        self.db.execute("DELETE FROM came")
        return done

    def _refuse_two_texts(self, documents: Iterable[Document]) -> None:
        for document in documents:
            row = document.id, sha256(document.text.encode(errors="surrogatepass")).digest()
            self.db.execute("INSERT OR IGNORE INTO came VALUES (?, ?)", row)
            if self.db.execute("SELECT id, sha256 FROM came WHERE id = ?", row[:1]).fetchone() != row:
                raise DataError(
                    f"two documents have the id {document.id!r} and different texts. Give each an id of its own.",
                    file=document.source or None,
                )

    def withdraw(self, id: str) -> None:
        """Remove a document and what follows from it alone; triples that others support stay.

        Raises:
            DataError: there is no such document.
        """
        with self.writing():
            number = self.document_number(id)
            claims.forget(self, number)
            self.db.execute("DELETE FROM texts WHERE document = ?", (number,))
            self.db.execute("DELETE FROM documents WHERE number = ?", (number,))

    def document(self, id: str) -> Document:
        """A document by its id. Raises DataError."""
        found = "SELECT id, text, source FROM documents JOIN texts ON document = number WHERE number = ?"
        return Document(*self.rows(found, (self.document_number(id),))[0])

    # Below: for the modules beside this one.

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: all of the block, or nothing.

        Raises:
            DataError: within `reading`, whose end would undo it.
        """
        if self._moment:
            raise DataError("a graph that is being read can't be written to; read to the end first.")
        self._ends.clear()  # the number of an entity that is removed may be given to another one
        try:
            with self._part() if self.db.in_transaction else writing(self.db, self.path):
                yield
        except BaseException:
            self._words.clear()  # some of them may have been made within it
            self._named.clear()
            raise
        finally:
            self._ends.clear()

    @contextmanager
    def _part(self) -> Iterator[None]:
        """A block within a transaction: where it fails, and the one around it goes on, nothing of it stays either."""
        with reading(self.path):
            self.db.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK TO part")
                raise
            finally:
                if self.db.in_transaction:
                    self.db.execute("RELEASE part")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within the block is the graph of one moment, whatever others write meanwhile."""
        if self.db.in_transaction:
            yield
            return
        with reading(self.path):
            self.db.execute("BEGIN")
            self._moment = True
            try:
                (version,) = self.db.execute("PRAGMA data_version").fetchone()
                if version != self._seen or len(self._ends) > KEPT:
                    self._ends.clear()
                    self._seen = version
                yield
            finally:
                self._moment = False
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple]:
        """What a query gives; CheckpointError for a damaged file."""
        with reading(self.path):
            return self.db.execute(sql, values).fetchall()

    def one(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> tuple | None:
        """The first row of a query."""
        with reading(self.path):
            return self.db.execute(sql, values).fetchone()

    def word(self, word: str) -> int:
        """The number of a type, a relation or a model; it is given one where it has none, within a transaction."""
        number = self.known_word(word)
        if number is None:
            number = self.db.execute("INSERT INTO words (word) VALUES (?)", (word,)).lastrowid or 0
            self._words[word] = number
        return number

    def known_word(self, word: str) -> int | None:
        """The number of a type, a relation or a model; None where it has none."""
        if word not in self._words:
            row = self.one("SELECT number FROM words WHERE word = ?", (word,))
            if row is None:
                return None
            self._words[word] = row[0]
        return self._words[word]

    def named(self, number: int) -> str:
        """The type, relation or model of a number."""
        if number not in self._named:
            row = self.one("SELECT word FROM words WHERE number = ?", (number,))
            if row is None:
                raise CheckpointError(f"{self.path} is damaged: nothing has the name {number}.")
            self._named[number] = row[0]
        return self._named[number]

    def entity(self, name: str, kind: str) -> int:
        """The number of an entity by name and type; it is given one where it has none, within a transaction."""
        number = self.word(kind)
        row = self.db.execute(
            "SELECT number FROM entities WHERE name = ? AND type = ?", (name, number)
        ).fetchone()
        if row:
            return row[0]
        return (
            self.db.execute("INSERT INTO entities (name, type) VALUES (?, ?)", (name, number)).lastrowid or 0
        )

    def all_named(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """The types, relations or models of numbers."""
        try:
            return each_of(self._named, numbers)
        except KeyError:
            for number in set(numbers):
                self.named(number)
            return each_of(self._named, numbers)

    def entities_of(self, numbers: Sequence[int]) -> tuple[Entity, ...]:
        """Name and type of entities, within `reading`. They are kept until somebody writes, this process or another."""
        try:
            return each_of(self._ends, numbers)
        except KeyError:
            absent = set(numbers).difference(self._ends)
        found = self.rows(
            "SELECT number, name, type FROM entities WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(absent)),),  # as they stand in the table
        )
        if len(found) < len(absent):
            lost = absent.difference(number for number, _, _ in found)
            raise CheckpointError(f"{self.path} is damaged: there is no entity {min(lost)}.")
        present, names, kinds = zip(*found, strict=True)
        self._ends.update(
            zip(present, map(_ENTITY, zip(names, self.all_named(kinds), strict=True)), strict=True)
        )
        return each_of(self._ends, numbers)

    def document_number(self, id: str) -> int:
        """The number of a document. Raises DataError."""
        row = self.one("SELECT number FROM documents WHERE id = ?", (id,))
        if row is None:
            near = [other for (other,) in self.rows("SELECT id FROM documents LIMIT 10000")]
            raise DataError(f"the graph has no document {id!r}.{did_you_mean(id, near)}")
        return row[0]
