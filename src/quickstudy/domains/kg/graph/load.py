"""A graph from a file: RDF (N-Triples, Turtle, JSON-LD), GraphML, or a folder of Neo4j's CSV.

What `export` wrote comes back as it was, names with all their signs; its triples are given ones then. What wasn't
asserted (a 'status' of proposed, review or rejected, or a triple that RDF only quotes) isn't brought in.
"""

import csv
import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.export import (
    ENTITIES,
    ENTITY_COLUMNS,
    RELATIONSHIP_COLUMNS,
    RELATIONSHIPS,
    Form,
    form_of,
)
from quickstudy.domains.kg.graph.facts import Plain
from quickstudy.domains.kg.graph.rdf import oxigraph, plain
from quickstudy.domains.kg.graph.settle import ASSERTED, STATUSES
from quickstudy.files.source import existing, shortened

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

_LONGEST = 1_000_000
_CHUNK = 1 << 16


def load(store: "GraphStore", path: str | PathLike[str], form: Form | None = None) -> int:
    """Add the triples of a file to a graph, all of them or, where the file is broken, none.

    Args:
        form: by default as the suffix says.

    Returns:
        How many triples the file had.

    Raises:
        DataError: with the line where the file can't be read.
    """
    with store.writing():
        return store.add(triples_of(path, form))


def triples_of(path: str | PathLike[str], form: Form | None = None) -> Iterator[Plain]:
    """The asserted triples of a file, as they are read. Arguments and errors are those of `load`."""
    path = existing(path)
    form = form_of(path, form)
    if form == "cypher":
        raise DataError(
            "a Cypher script is a program, and isn't run. Export GraphML, CSV or RDF instead.", file=path
        )
    readers = {"graphml": _graphml, "neo4j": _neo4j}
    if path.is_dir() != (form == "neo4j"):
        raise DataError("Neo4j's CSV is a folder, every other format a file.", file=path)
    return readers[form](path) if form in readers else _rdf(path, form)


def _rdf(path: Path, form: Form) -> Iterator[Plain]:
    ox = oxigraph()
    formats = {
        "ntriples": ox.RdfFormat.N_TRIPLES,
        "turtle": ox.RdfFormat.TURTLE,
        "jsonld": ox.RdfFormat.JSON_LD,
    }
    try:
        # Blank nodes of two files are never the same, whatever they are called.
        yield from plain(ox.parse(path=str(path), format=formats[form], rename_blank_nodes=True))
    except (SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{error}.", file=path) from None


def _neo4j(folder: Path) -> Iterator[Plain]:
    names: dict[str, tuple[str, str]] = {}
    for key, name, kind, _ in _table(folder / ENTITIES, ENTITY_COLUMNS):
        names[key] = (name, kind)
    path = folder / RELATIONSHIPS
    for number, row in enumerate(_table(path, RELATIONSHIP_COLUMNS), 2):
        head, relation, tail, status, *_ = row
        for end in (head, tail):
            if end not in names:
                raise DataError(f"{end!r} isn't an :ID of {ENTITIES}.", file=path, row=number)
        if _asserted(status, path, number):
            yield names[head], relation, names[tail]


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    existing(path)
    csv.field_size_limit(
        max(csv.field_size_limit(), _LONGEST)
    )  # one for the whole process, so only ever raised
    number = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if tuple(header) != columns:
                raise DataError(f"the header is {header}; expected {list(columns)}.", file=path, row=1)
            for number, row in enumerate(rows, 2):
                if len(row) != len(columns):
                    raise DataError(
                        f"{len(row)} cells came; expected {len(columns)}, as in the header.",
                        file=path,
                        row=number,
                    )
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{error}.", file=path, row=number + 1) from None


def _asserted(status: str, path: Path, row: int | None) -> bool:
    if status and status not in STATUSES:
        raise DataError(f"the status {status!r}; known are {', '.join(STATUSES)}.", file=path, row=row)
    return not status or status in ASSERTED


class _GraphML:
    """Handlers of expat: a node is kept by its id, a finished edge goes to `ready`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.nodes: dict[str, tuple[str, str]] = {}
        self.ready: list[Plain] = []
        self._keys: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._data: str | None = None
        self._parts: list[str] = []
        self._size = 0

    def problem(self, what: str) -> DataError:
        return DataError(what, file=self.path, row=self.parser.CurrentLineNumber)

    def _refuse(self, *_: Any) -> None:
        raise self.problem(
            "the file has a DOCTYPE, by which a few lines can become gigabytes. Remove it; GraphML needs none."
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "key":
            self._keys[attributes.get("id", "")] = attributes.get("attr.name", attributes.get("id", ""))
        elif tag in ("node", "edge"):
            self._open = {f"@{name}": value for name, value in attributes.items()}
        elif tag == "data":
            key = attributes.get("key", "")
            self._data, self._parts, self._size = self._keys.get(key, key), [], 0

    def _text(self, text: str) -> None:
        if self._data is not None:
            self._parts.append(text)
            self._size += len(text)
            if self._size > _LONGEST:
                raise self.problem(f"a value is longer than {_LONGEST:,} characters.")

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "data" and self._data is not None:
            self._open[self._data] = "".join(self._parts)
            self._data = None
        elif tag == "node":
            self._node(self._open)
        elif tag == "edge":
            self._edge(self._open)

    def _node(self, data: dict[str, str]) -> None:
        if "@id" not in data:
            raise self.problem("a node has no id.")
        name = data.get("name") or data.get("label") or data["@id"]
        exact = self._exact(data.get("exact")) if "exact" in data else [name, data.get("type", "")]
        if not (isinstance(exact, list) and len(exact) == 2 and all(isinstance(part, str) for part in exact)):
            raise self.problem("'exact' of a node is no pair of name and type.")
        self.nodes[data["@id"]] = (exact[0], exact[1])

    def _edge(self, data: dict[str, str]) -> None:
        relation = data.get("relation") or data.get("label")
        relation = self._exact(data["exact_relation"]) if "exact_relation" in data else relation
        ends = [data.get("@source", ""), data.get("@target", "")]
        for end in ends:
            if end not in self.nodes:
                raise self.problem(f"an edge joins {shortened(end)!r}, which is no node above it.")
        if not isinstance(relation, str):
            raise self.problem("an edge has no 'relation' (or 'label'), so nobody knows what it says.")
        if _asserted(data.get("status", ""), self.path, self.parser.CurrentLineNumber):
            self.ready.append((self.nodes[ends[0]], relation, self.nodes[ends[1]]))

    def _exact(self, text: str | None) -> Any:
        try:
            return json.loads(text or "")
        except (ValueError, RecursionError):
            raise self.problem("an 'exact' name is no JSON.") from None


def _graphml(path: Path) -> Iterator[Plain]:
    reader = _GraphML(path)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                reader.parser.Parse(chunk, False)
                yield from reader.ready
                reader.ready.clear()
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DataError(f"no XML that can be read ({error}).", file=path, row=error.lineno) from None
    yield from reader.ready
