"""The task bank: one SQLite file that keeps tasks by their owner's word, and finds those near a new one.

    with TaskBank() as bank:                               # in the user's data folder
        id = bank.add(entry)                               # an Entry says by whose word it is kept
        bank.nearest(part, identity)                       # which stored tasks are near, and what their heads explain
        bank.forget(id)                                    # not a byte of it stays in the file

An entry is one transaction, so a process that is killed leaves all of it or nothing. Several processes may work on one
file; a thread needs a bank of its own. Nothing is written but by `add` and `load`, nothing removed but by `forget`.
"""

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.bank import share
from quickstudy.bank.embed import Embedding, embed, nearness
from quickstudy.bank.entry import DEPTH, Entry, Part, canonical
from quickstudy.bank.near import Neighbour, explained, weighed
from quickstudy.bank.tables import BANK, default_path
from quickstudy.core.database import WAIT, reading, writing
from quickstudy.core.errors import CheckpointError, DataError, ModelError, did_you_mean
from quickstudy.core.untrusted import Refused, parse_json

LEAST_PREFIX = 4
"""Digits of an id that are enough where they are one entry's only."""
_ABOUT = "id, domain, name, description, source, licence, consent, kept, encoder, identity"


@dataclass(frozen=True)
class PartSummary:
    """What a list says of one task of an entry."""

    name: str
    labels: tuple[str, ...]
    shots: int
    """Labelled examples."""


@dataclass(frozen=True)
class Summary:
    """What a list says of an entry."""

    id: str
    domain: str
    name: str
    description: str
    source: str
    licence: str
    consent: str
    kept: str
    encoder: str
    identity: str
    parts: tuple[PartSummary, ...]


class TaskBank:
    """A bank, opened from a file, which is made where it isn't there and `create`."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, create: bool = True, check: bool = False
    ) -> None:
        """Open the file.

        Args:
            path: by default $QUICKSTUDY_BANK, or bank.sqlite in the user's data folder.
            create: make it where it isn't there; else that is a DataError.
            check: look through all of it for damage, which takes a while.

        Raises:
            DataError: there is no such file or folder.
            CheckpointError: it is no bank, of a newer version, damaged or changed by hand.
        """
        self.path = default_path() if path is None else Path(path)
        if path is None and create:
            with reading(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        self.db = BANK.open(self.path, create=create, check=check)
        self.db.execute("PRAGMA secure_delete = ON")

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def __enter__(self) -> "TaskBank":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    export = share.export
    load = share.load

    def add(self, entry: Entry) -> tuple[str, bool]:
        """Keep an entry.

        Returns:
            Its id, and whether it is new: the same task under another name isn't kept twice.

        Raises:
            DataError: it says nothing of consent, or can't be a task.
            CheckpointError: the disk is full, or the file damaged.
        """
        entry = entry.checked()
        rows = [_row(place, part) for place, part in enumerate(entry.parts)]
        body = canonical(entry.material).decode()
        about = (
            entry.id, entry.domain, entry.name, entry.description, entry.source, entry.licence, entry.consent,
            entry.kept, entry.encoder, entry.identity,
        )  # fmt: skip
        with writing(self.db, self.path):
            if self.db.execute("SELECT 1 FROM entries WHERE id = ?", (entry.id,)).fetchone():
                return entry.id, False
            marks = ", ".join("?" * len(about))
            number = self.db.execute(f"INSERT INTO entries ({_ABOUT}) VALUES ({marks})", about).lastrowid
            self.db.execute("INSERT INTO material VALUES (?, ?)", (number, body))
            self.db.executemany(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [(number, *row) for row in rows]
            )
        return entry.id, True

    def summaries(self, domain: str | None = None) -> list[Summary]:
        """What is kept, the oldest first; of one domain, where it is named."""
        with reading(self.path):
            found = self.db.execute(
                f"SELECT number, {_ABOUT} FROM entries WHERE ?1 IS NULL OR domain = ?1 ORDER BY number",
                (domain,),
            ).fetchall()
            return [Summary(*row[1:], parts=self._parts(row[0])) for row in found]

    def __len__(self) -> int:
        with reading(self.path):
            return self.db.execute("SELECT count(*) FROM entries").fetchone()[0]

    def find(self, name: str) -> str:
        """The id of an entry by its id, the beginning of that, or its name. Raises DataError, saying what is near."""
        with reading(self.path):
            if self.db.execute("SELECT 1 FROM entries WHERE id = ?", (name,)).fetchone():
                return name
            known = dict(self.db.execute("SELECT id, name FROM entries ORDER BY number").fetchall())
        begins = [id for id in known if len(name) >= LEAST_PREFIX and id.startswith(name)]
        called = [id for id, other in known.items() if other == name]
        for fits in (begins, called):
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise DataError(
                    f"{name!r} stands for {len(fits)} entries: {', '.join(fits[:5])}. Give one of these ids."
                )
        if not known:
            raise DataError(f"The bank {self.path} is empty, so there is no {name!r} in it.")
        near = did_you_mean(name, [*known, *known.values()])
        raise DataError(
            f"The bank has no entry {name!r}.{near} `quickstudy bank list` shows those that it has."
        )

    def entry(self, name: str) -> Entry:
        """An entry with its features and material, checked again. Raises DataError, and CheckpointError for damage."""
        id = self.find(name)
        with reading(self.path):
            row = self.db.execute(f"SELECT number, {_ABOUT} FROM entries WHERE id = ?", (id,)).fetchone()
            if row is None:
                raise DataError(f"The entry {id} was forgotten a moment ago.")
            number, about = row[0], dict(zip(_ABOUT.split(", "), row[1:], strict=True))
            body = self.db.execute("SELECT body FROM material WHERE entry = ?", (number,)).fetchone()
            stored = self.db.execute(
                "SELECT name, labels, dim, x, y, told FROM parts WHERE entry = ? ORDER BY place", (number,)
            ).fetchall()
        try:
            parts = tuple(_part(*one) for one in stored)
            material = parse_json(body[0].encode(), depth=DEPTH)
            del about["id"]
            made = Entry(**about, parts=parts, material=material).checked()
        except (ValueError, TypeError, RuntimeError) as problem:  # Refused and DataError are ValueErrors
            raise CheckpointError(f"{self.path}: the entry {id} is damaged: {problem}") from None
        if made.id != id:
            raise CheckpointError(
                f"{self.path}: the entry {id} isn't what was kept under this id; it is damaged."
            )
        return made

    def forget(self, name: str) -> str:
        """Remove an entry; not a byte of it stays in the file or beside it. Returns its id.

        Raises:
            DataError: there is no such entry.
            CheckpointError: other processes kept reading, so its bytes may still be there; forget again then.
        """
        id = self.find(name)
        with writing(self.db, self.path):  # secure_delete: freed pages are written over with zeros
            [number] = self.db.execute("SELECT number FROM entries WHERE id = ?", (id,)).fetchone() or [None]
            for table, column in (("parts", "entry"), ("material", "entry"), ("entries", "number")):
                self.db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
        self._scrub()
        return id

    def _scrub(self) -> None:
        """Write the log back and cut it off, so that what it held of deleted entries is gone too."""
        deadline = time.monotonic() + WAIT
        with reading(self.path):
            self.db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)  # VACUUM attaches the copy that it makes
            try:
                self.db.execute("VACUUM")
            finally:
                self.db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            while self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise CheckpointError(
                        f"{self.path}: the entry is forgotten, but another process kept reading, so its bytes may "
                        "still lie in what SQLite keeps beside the file. Run `quickstudy bank forget` again later."
                    )
                time.sleep(0.05)

    def embedding(self, id: str, part: str = "") -> Embedding:
        """The embedding of a part of an entry. Raises DataError."""
        with reading(self.path):
            row = self.db.execute(
                "SELECT embedding FROM parts JOIN entries ON entry = number WHERE id = ? AND parts.name = ?",
                (self.find(id), part),
            ).fetchone()
        if row is None:
            raise DataError(f"The entry {id!r} has no part {part!r}.")
        return self._embedding(id, row[0])

    def _embedding(self, id: str, data: bytes) -> Embedding:
        try:
            return Embedding.of(_tensor(data, "<f4"))
        except ValueError as problem:  # DataError is one
            raise CheckpointError(f"{self.path}: the embedding of {id} is damaged: {problem}") from None

    def nearest(
        self,
        part: Part,
        identity: str,
        *,
        domain: str,
        most: int = 10,
        without: str | Collection[str] | None = None,
    ) -> list[Neighbour]:
        """The stored tasks that are nearest to a new one, with what their heads explain of it; the heaviest first.

        Only features of one encoder and one kind can be compared: those of the same domain and part.

        Args:
            part: the new task; it need not be in the bank.
            identity: of the encoder that made its features.
            most: so many, the nearest by their embeddings.
            without: the id of an entry that isn't asked, such as the task itself; or ids of several.

        Raises:
            ModelError: the bank holds such tasks, and all are of other encoders.
        """
        own = embed(part.checked())
        apart = {without} if isinstance(without, str) else set(without or ())
        with reading(self.path):
            rows = self.db.execute(
                "SELECT id, entries.name, identity, encoder, embedding FROM parts JOIN entries ON entry = number "
                "WHERE domain = ? AND parts.name = ?",
                (domain, part.name),
            ).fetchall()
        rows = [row for row in rows if row[0] not in apart]
        same = [row for row in rows if row[2] == identity]
        if rows and not same:
            others = sorted({f"{row[3]} ({row[2][:12]}…)" for row in rows})
            raise ModelError(
                f"The tasks in the bank were encoded by {', '.join(others)}, this one by another encoder "
                f"({identity[:12]}…): features can't be compared. Take that encoder, or keep these tasks again by "
                "this one."
            )
        near = [(nearness(own, self._embedding(row[0], row[4])), row) for row in same]
        near.sort(key=lambda pair: (-pair[0], pair[1][0]))
        found = []
        for alike, (id, name, *_) in near[:most]:
            stored = self.entry(id).part(part.name)
            assert stored is not None
            found.append(Neighbour(id, name, part.name, alike, explained(stored, part.x, part.y)))
        return weighed(found)

    def entries(self, domain: str | None = None) -> Iterator[Entry]:
        """All entries, one after the other."""
        for one in self.summaries(domain):
            yield self.entry(one.id)

    def _parts(self, number: int) -> tuple[PartSummary, ...]:
        rows = self.db.execute(
            "SELECT name, labels, shots FROM parts WHERE entry = ? ORDER BY place", (number,)
        ).fetchall()
        try:
            return tuple(PartSummary(name, tuple(json.loads(labels)), shots) for name, labels, shots in rows)
        except ValueError:
            raise CheckpointError(
                f"{self.path} is damaged: labels of entry {number} can't be read."
            ) from None


def _row(place: int, part: Part) -> tuple[Any, ...]:
    labels = canonical(list(part.labels)).decode()
    told = None if part.told is None else _bytes(part.told, "<f2")
    made = _bytes(embed(part).vector(), "<f4")
    return (
        place, part.name, labels, part.x.shape[1], part.shots, _bytes(part.x, "<f2"), _bytes(part.y, "<i4"), told, made
    )  # fmt: skip


def _part(name: str, labels: str, dim: int, x: bytes, y: bytes, told: bytes | None) -> Part:
    names = parse_json(labels.encode(), depth=2)
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise Refused("its labels aren't a list of words")
    return Part(
        name, tuple(names), _tensor(x, "<f2").reshape(-1, dim), _tensor(y, "<i4").long(),
        None if told is None else _tensor(told, "<f2").reshape(-1, dim),
    )  # fmt: skip


def _bytes(tensor: Tensor, dtype: str) -> bytes:
    return tensor.detach().cpu().numpy().astype(dtype).tobytes()


def _tensor(data: bytes, dtype: str) -> Tensor:
    array = np.frombuffer(data, dtype)
    return torch.from_numpy(array.astype("int64" if dtype == "<i4" else "float32"))
