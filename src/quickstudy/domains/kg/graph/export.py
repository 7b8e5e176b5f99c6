"""A graph as a file that others read: RDF, GraphML, Neo4j's CSV, a Cypher script.

What is written takes the place of an older file whole or not at all. The order is that of the names, so that the same
graph gives the same file. By default only asserted triples are written.
"""

import csv
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO
from xml.sax.saxutils import escape, quoteattr

from quickstudy.core.atomic import replacing
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.graph.rdf import PREFIXES, described, key, oxigraph
from quickstudy.domains.kg.graph.records import Entity, Triple
from quickstudy.domains.kg.graph.settle import ASSERTED

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

Form = Literal["ntriples", "turtle", "jsonld", "graphml", "neo4j", "cypher"]
FORMS: dict[str, Form] = {
    ".nt": "ntriples", ".ttl": "turtle", ".jsonld": "jsonld", ".graphml": "graphml", ".cypher": "cypher", "": "neo4j",
}  # fmt: skip
"""Suffix -> format; Neo4j's CSV is a folder of two files."""
PROVENANCES = ("star", "reified", "none")
ENTITIES, RELATIONSHIPS = "entities.csv", "relationships.csv"
ENTITY_COLUMNS = (":ID", "name", "type", ":LABEL")
RELATIONSHIP_COLUMNS = (":START_ID", ":TYPE", ":END_ID", "status", "score:double", "inferred:boolean")
# What XML can't hold at all, and what its readers would change.
NO_XML = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\ufffe\uffff]")


def export(
    store: "GraphStore",
    path: str | PathLike[str],
    form: Form | None = None,
    *,
    status: Iterable[str] = ASSERTED,
    provenance: Literal["star", "reified", "none"] | None = None,
) -> int:
    """Write the graph to a file, or, for Neo4j, to a folder.

    Args:
        form: by default as the path's suffix says: .nt, .ttl, .jsonld, .graphml, .cypher, none for Neo4j's CSV.
        status: which triples. N-Triples and JSON-LD without provenance only know asserted ones.
        provenance: of RDF: the sentences of each triple, by RDF 1.2's triple terms (star), by RDF 1.1's reification,
            or none. By default star for Turtle, none for N-Triples, reified for JSON-LD, which has no triple terms.

    Returns:
        The number of triples that were written.

    Raises:
        DataError: the format or the provenance isn't known, or the format can't hold what was asked for; the file can't
            be written.
    """
    path, status = Path(path), (status,) if isinstance(status, str) else tuple(status)
    form = form_of(path, form)
    if provenance is not None and provenance not in PROVENANCES:
        known = ", ".join(PROVENANCES)
        raise DataError(
            f"the provenance {provenance!r} isn't known.{did_you_mean(provenance, PROVENANCES)} Known: {known}.",
            file=path,
        )
    _harmless(store, path, form)
    how = provenance or {"turtle": "star", "jsonld": "reified"}.get(form, "none")
    if form in ("ntriples", "turtle", "jsonld"):
        if how == "none" and not set(status) <= set(ASSERTED):
            raise DataError(
                "in RDF without provenance every triple counts as asserted, which these don't. Write them with "
                "provenance, or leave them out.",
                file=path,
            )
        if how == "star" and form == "jsonld":
            raise DataError("JSON-LD has no triple terms: provenance is reified or none.", file=path)
        oxigraph()
    elif provenance not in (None, "none"):
        raise DataError(f"{form} has no place for provenance; Turtle has.", file=path)
    writers: dict[str, Callable[[TextIO, Iterator[Entity], Iterator[Triple]], int]] = {
        "graphml": _graphml, "cypher": _cypher,
    }  # fmt: skip
    try:
        with store.reading():
            if form == "neo4j":
                with replacing(path) as folder:
                    return _neo4j(folder, store.entities(status), store.triples(status))
            with _replaced(path) as new:
                if form not in writers:
                    return _rdf(store, new, form, status, how)
                with open(new, "x", encoding="utf-8", newline="\n") as file:
                    return writers[form](file, store.entities(status), store.triples(status))
    except OSError as error:
        raise DataError(f"can't be written: {error.strerror or error}.", file=path) from error


def form_of(path: Path, form: str | None) -> Form:
    """The format that is asked for, or that the suffix says. Raises DataError."""
    form = FORMS.get(path.suffix.lower()) if form is None else form
    if form not in FORMS.values():
        came = f"the format {form!r}" if form else f"the suffix {path.suffix!r}"
        known = ", ".join(f"{name} ({suffix or 'a folder'})" for suffix, name in FORMS.items())
        raise DataError(
            f"{came} isn't known.{did_you_mean(form or '', FORMS.values())} Known: {known}.", file=path
        )
    return form  # pyright: ignore[reportReturnType]


def _harmless(store: "GraphStore", path: Path, form: Form) -> None:
    """Raise DataError where something else would be lost than an older export."""
    if path.exists() and path.samefile(store.path):
        raise DataError("that is the graph itself.", file=path)
    if form != "neo4j":
        if path.is_dir():
            raise DataError("a folder stands there; a file is to be written.", file=path)
    elif path.exists() and not (
        path.is_dir() and {child.name for child in path.iterdir()} <= {ENTITIES, RELATIONSHIPS}
    ):
        raise DataError(
            "something else than an earlier export stands there. Give the name of a new folder.", file=path
        )
    if not path.absolute().parent.is_dir():
        raise DataError(f'there is no folder "{path.parent}".', file=path)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the path's place when the block ends well."""
    new = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _rdf(store: "GraphStore", path: Path, form: Form, status: Iterable[str], provenance: str) -> int:
    ox = oxigraph()
    formats = {
        "ntriples": ox.RdfFormat.N_TRIPLES,
        "turtle": ox.RdfFormat.TURTLE,
        "jsonld": ox.RdfFormat.JSON_LD,
    }
    prefixes = PREFIXES if form == "turtle" else None
    names = form != "ntriples" or provenance != "none"
    ox.serialize(described(store, status, provenance, names), str(path), formats[form], prefixes=prefixes)
    counts = store.counts()
    return sum(counts[f"triples {one}"] for one in set(status))


def _graphml(file: TextIO, entities: Iterator[Entity], triples: Iterator[Triple]) -> int:
    """GraphML. A name with signs that XML doesn't have stands without them, and a second time, as JSON, with them."""
    file.write(
        '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    )
    for use, names in (
        ("node", ("name", "type", "exact")),
        ("edge", ("relation", "exact_relation", "status")),
    ):
        for name in names:
            file.write(f'<key id="{name}" for="{use}" attr.name="{name}" attr.type="string"/>\n')
    file.write('<key id="score" for="edge" attr.name="score" attr.type="double"/>\n')
    file.write('<key id="inferred" for="edge" attr.name="inferred" attr.type="boolean"/>\n')
    file.write('<graph edgedefault="directed">\n')
    for entity in entities:
        file.write(
            f"<node id={quoteattr(key(entity))}>{_data('name', entity.name)}{_data('type', entity.type)}"
        )
        if NO_XML.search(entity.name + entity.type):
            file.write(_data("exact", json.dumps([*entity])))
        file.write("</node>\n")
    count = 0
    for count, triple in enumerate(triples, 1):  # noqa: B007
        ends = f"source={quoteattr(key(triple.head))} target={quoteattr(key(triple.tail))}"
        file.write(f"<edge {ends}>{_data('relation', triple.relation)}")
        if NO_XML.search(triple.relation):
            file.write(_data("exact_relation", json.dumps(triple.relation)))
        file.write(_data("status", triple.status) + _data("inferred", str(triple.inferred).lower()))
        file.write(("" if triple.score is None else _data("score", repr(triple.score))) + "</edge>\n")
    file.write("</graph>\n</graphml>\n")
    return count


def _data(name: str, value: str) -> str:
    shown = escape(NO_XML.sub("\N{REPLACEMENT CHARACTER}", value), {"\r": "&#13;"})
    return f'<data key="{name}">{shown}</data>'


def _neo4j(folder: Path, entities: Iterator[Entity], triples: Iterator[Triple]) -> int:
    """Two tables for `neo4j-admin database import full --multiline-fields=true`."""
    with open(folder / ENTITIES, "x", encoding="utf-8", newline="") as file:
        table = csv.writer(file)  # lines end in \r\n: only so it quotes names with either in them
        table.writerow(ENTITY_COLUMNS)
        # A semicolon would part labels from one another; the type's own column keeps it.
        table.writerows((key(e), e.name, e.type, e.type.replace(";", ",")) for e in entities)
    count = 0
    with open(folder / RELATIONSHIPS, "x", encoding="utf-8", newline="") as file:
        table = csv.writer(file)  # lines end in \r\n: only so it quotes names with either in them
        table.writerow(RELATIONSHIP_COLUMNS)
        for count, t in enumerate(triples, 1):  # noqa: B007
            score = "" if t.score is None else repr(t.score)
            row = (key(t.head), t.relation, key(t.tail), t.status, score, str(t.inferred).lower())
            table.writerow(row)
    return count


def _cypher(file: TextIO, entities: Iterator[Entity], triples: Iterator[Triple]) -> int:
    file.write("CREATE INDEX entity_name IF NOT EXISTS FOR (n:Entity) ON (n.name, n.type);\n")
    for entity in entities:
        file.write(f"MERGE ({_cypher_node('', entity)});\n")
    count = 0
    for count, t in enumerate(triples, 1):  # noqa: B007
        score = "" if t.score is None else f", r.score = {t.score!r}"
        file.write(
            f"MATCH ({_cypher_node('a', t.head)}), ({_cypher_node('b', t.tail)}) "
            f"MERGE (a)-[r:{cypher_name(t.relation)} {{relation: {cypher_text(t.relation)}}}]->(b) "
            f"SET r.status = {cypher_text(t.status)}, r.inferred = {str(t.inferred).lower()}{score};\n"
        )
    return count


def _cypher_node(variable: str, entity: Entity) -> str:
    return f"{variable}:Entity {{name: {cypher_text(entity.name)}, type: {cypher_text(entity.type)}}}"


def cypher_text(text: str) -> str:
    r"""A string of Cypher.

    Some versions of Neo4j read \\uXXXX before anything else, even after a backslash that escapes: a name with that in
    it could end the string and go on as a command. So no backslash ever stands before a u.
    """
    safe = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return "'" + re.sub(r"\\(?=[uU])", lambda _: "\\' + '", safe) + "'"


def cypher_name(name: str) -> str:
    """A relation's name as Cypher's type of a relationship; signs that could end the quoting become underscores."""
    return "`" + (re.sub(r"[\\`\x00-\x1f\x7f-\x9f]", "_", name) or "_") + "`"
