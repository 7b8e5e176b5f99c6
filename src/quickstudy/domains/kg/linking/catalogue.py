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

        Aliases and ids of the same thing are separated by `|`. Rows of one id are one entry.

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
            told = dict(zip(columns, (_words(value) for value in values), strict=True))
            if not told["id"] or not told["name"]:
                raise DataError("an entry needs an id and a name.", file=path, row=row)
            before = rows.get(told["id"][0])
            kind = (told.get("type") or [""])[0]
            if before is not None and kind and before.type and kind != before.type:
                raise DataError(
                    f"{told['id'][0]!r} is a {before.type} in an earlier row, here a {kind}.",
                    file=path,
                    row=row,
                )
            names = (*(before.names if before else ()), *told["name"], *told.get("aliases", []))
            same = (*(before.same_as if before else ()), *told.get("same_as", []))
            rows[told["id"][0]] = Entry(told["id"][0], names, kind or (before.type if before else ""), same)
        if not rows:
            raise DataError("the catalogue is empty.", file=Path(path))
        return cls(rows.values())

    def candidates(self, mentions: Sequence[str], most: int = 16) -> list[list[Candidate]]:
        """For each mention the entries with the names most like it by letters, best first, one name an entry."""
        if not mentions:
            return []
        vectors, names = self._letters()
        found = []
        for start in range(
            0, len(mentions), 256
        ):  # a block of products at a time: 256 × names numbers at most
            products = (
                vectors.transform([plain(m) for m in mentions[start : start + 256]]) @ names.T
            ).tocsr()
            for row in range(products.shape[0]):
                begin, end = products.indptr[row : row + 2]
                columns, values = products.indices[begin:end], products.data[begin:end]
                order = np.lexsort((columns, -values))
                best: dict[int, Candidate] = {}
                for place in order:
                    owner = self.owner[columns[place]]
                    if owner not in best:
                        best[owner] = Candidate(owner, int(columns[place]), float(values[place]))
                        if len(best) == most:
                            break
                found.append(list(best.values()))
        return found

    def vectors(self, encoder: Encoder) -> Float[Tensor, "names d"]:
        """The names' sentence vectors, of length 1; computed once."""
        if self._vectors is None:
            self._vectors = torch.nn.functional.normalize(encoder.encode(self.names), dim=-1)
        return self._vectors

    def _letters(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        if self._index is None:
            vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
            self._index = vectors, vectors.fit_transform([plain(name) for name in self.names])
        return self._index


def plain(name: str) -> str:
    """A name as it is compared: small letters, signs as blanks, a plural's s cut off."""
    words = "".join(sign if sign.isalnum() else " " for sign in name.casefold()).split()
    return (
        " ".join(w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words)
        or name
    )


def _words(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else str("" if value is None else value).split("|")
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
