"""A catalogue that mentions are linked to: ids with their names, and which names look like a mention."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.encoder import Encoder
from quickstudy.core.errors import DataError
from quickstudy.files.tables import Bad, open_table

_BLOCK = 16
"""Mentions whose products with all names are held at a time: 12 bytes each, 30 MB of 150,000 names."""


@dataclass(frozen=True)
class Entry:
    """A thing with an id."""

    id: str
    names: tuple[str, ...]
    """What it is called; the first is how it is shown."""
    type: str = ""
    """Of entity; empty for any."""
    same_as: tuple[str, ...] = ()
    """Ids of entries that are the same thing."""


class Candidate(NamedTuple):
    """An entry that a mention may be, by the name of it that looks most like the mention."""

    entry: int
    """Its number in the catalogue."""
    name: int
    """The name's number among all names of the catalogue."""
    cosine: float
    """Of letters n-grams."""


class Catalogue:
    """Entries, and an index over the letters of their names.

    Entries that are the same as one another, in chains or circles, count as one, under the id that comes first.

    Raises:
        DataError: an id twice, an entry without a name, or the same as an id that isn't there.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        given = list(entries)
        number = {entry.id: i for i, entry in enumerate(given)}
        if len(number) < len(given):
            seen: set[str] = set()
            twice = next(entry.id for entry in given if entry.id in seen or seen.add(entry.id))
            raise DataError(f"The catalogue holds the id {twice!r} twice; join the two entries' names.")
        for entry in given:
            if not any(name.strip() for name in entry.names):
                raise DataError(f"The catalogue's entry {entry.id!r} has no name.")
            for other in entry.same_as:
                if other not in number:
                    raise DataError(
                        f"The catalogue's entry {entry.id!r} is the same as {other!r}, which isn't there."
                    )
        self.entries = _joined(given, number)
        self.names: list[str] = []
        self.owner: list[int] = []
        for i, entry in enumerate(self.entries):
            for name in dict.fromkeys(name.strip() for name in entry.names if name.strip()):
                self.names.append(name)
                self.owner.append(i)
        self._index: Any = None
        self._vectors: Tensor | None = None

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "Catalogue":
        """A catalogue from a table with the columns id and name, and if wanted type, aliases and same_as.

        Aliases and ids of the same thing are separated by `|`, or a list; a `|` in an id, a name or a type is a part
        of it. Rows of one id are one entry.

        Raises:
            DataError: says which row is wrong.
        """
        table = open_table(path, like='{"id": "Q42", "name": "…", "aliases": "a|b", "type": "person"}')
        if missing := [name for name in ("id", "name") if name not in table.columns]:
            raise DataError(f"no column {missing[0]!r}; there are {', '.join(table.columns)}.", file=path)
        columns = [name for name in ("id", "name", "aliases", "type", "same_as") if name in table.columns]
        rows: dict[str, Entry] = {}
        for row, values in table.rows(columns):
            if isinstance(values, Bad):
                raise DataError(f"{values}.", file=path, row=row)
            told = {name: _words(name, value) for name, value in zip(columns, values, strict=True)}
            if not told["id"] or not told["name"]:
                raise DataError("an entry needs an id and a name.", file=path, row=row)
            for name in ("id", "type"):
                if len(told.get(name, [])) > 1:
                    came = ", ".join(map(repr, told[name]))
                    raise DataError(f"an entry has one {name}, but {came} came.", file=path, row=row)
            [id] = told["id"]
            before = rows.get(id)
            kind = "".join(told.get("type", []))
            if before is not None and kind and before.type and kind != before.type:
                raise DataError(
                    f"{id!r} is a {before.type} in an earlier row, here a {kind}.", file=path, row=row
                )
            names = (*(before.names if before else ()), *told["name"], *told.get("aliases", []))
            same = (*(before.same_as if before else ()), *told.get("same_as", []))
            rows[id] = Entry(id, names, kind or (before.type if before else ""), same)
        if not rows:
            raise DataError("the catalogue is empty.", file=Path(path))
        return cls(rows.values())

    def candidates(self, mentions: Sequence[str], most: int = 16) -> list[list[Candidate]]:
        """For each mention the entries with the names most like it by letters, best first, one name an entry."""
        if not mentions:
            return []
        vectors, names = self._letters()
        found = []
        for start in range(0, len(mentions), _BLOCK):
            block = vectors.transform([plain(m) for m in mentions[start : start + _BLOCK]])
            products = block @ names
            for row in range(products.shape[0]):
                begin, end = products.indptr[row : row + 2]
                found.append(self._best(products.indices[begin:end], products.data[begin:end], most))
        return found

    def _best(self, columns: np.ndarray, values: np.ndarray, most: int) -> list[Candidate]:
        """The entries of the names with the highest values, of equal ones the first name; only the top is sorted."""
        best: dict[int, Candidate] = {}
        top = most
        while len(values):
            rest = max(0, len(values) - top)
            high = np.flatnonzero(values >= np.partition(values, rest)[rest])
            for place in high[np.lexsort((columns[high], -values[high]))]:
                owner = self.owner[columns[place]]
                if owner not in best:
                    best[owner] = Candidate(owner, int(columns[place]), float(values[place]))
                    if len(best) == most:
                        return list(best.values())
            if not rest:
                break
            top *= 4  # several names of one entry were among them
        return list(best.values())

    def vectors(self, encoder: Encoder) -> Float[Tensor, "names d"]:
        """The names' sentence vectors, of length 1; computed once."""
        if self._vectors is None:
            self._vectors = torch.nn.functional.normalize(encoder.encode(self.names), dim=-1)
        return self._vectors

    def _letters(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        if self._index is None:
            vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
            rows = vectors.fit_transform([plain(name) for name in self.names])
            # By n-gram, as the products need it: turned once, not for each of them.
            self._index = vectors, rows.T.tocsr()
        return self._index


def plain(name: str) -> str:
    """A name as it is compared: small letters, signs as blanks, a plural's s cut off."""
    words = "".join(sign if sign.isalnum() else " " for sign in name.casefold()).split()
    return (
        " ".join(w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words)
        or name
    )


def _words(column: str, value: Any) -> list[str]:
    """What a cell says: a text of several things only where the column may hold several."""
    if isinstance(value, list):
        parts = value
    else:
        text = str("" if value is None else value)
        parts = text.split("|") if column in ("aliases", "same_as") else [text]
    return [text for part in parts if (text := str(part).strip())]


def _joined(given: list[Entry], number: dict[str, int]) -> list[Entry]:
    """Entries, those that are the same made one."""
    root = list(range(len(given)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, entry in enumerate(given):
        for other in entry.same_as:
            a, b = sorted((find(i), find(number[other])))
            root[b] = a
    together: dict[int, list[Entry]] = defaultdict(list)
    for i, entry in enumerate(given):
        together[find(i)].append(entry)
    joined = []
    for parts in together.values():
        kinds = {part.type for part in parts if part.type}
        if len(kinds) > 1:
            raise DataError(
                f"{' and '.join(p.id for p in parts)} are said to be the same, but are {', '.join(sorted(kinds))}."
            )
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        joined.append(Entry(parts[0].id, names, next(iter(kinds), ""), tuple(p.id for p in parts[1:])))
    return joined
