"""The graph as RDF, and SPARQL over it, by pyoxigraph (extra `sparql`).

An entity is `urn:quickstudy:entity:TYPE/NAME` and a relation `urn:quickstudy:relation:NAME`, percent-encoded, so that
nothing is lost on the way back. What came from other RDF keeps its form: an entity without a type whose name is an IRI
is that IRI; a literal is an entity of the type '^^DATATYPE' or '@LANGUAGE', a blank node one of the type '_:'.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from quickstudy.core.errors import DataError, missing_extra
from quickstudy.domains.kg.graph.records import Entity, Triple
from quickstudy.domains.kg.graph.settle import ASSERTED

if TYPE_CHECKING:
    from pyoxigraph import Triple as RdfTriple

    from quickstudy.domains.kg.graph.store import GraphStore

BASE = "urn:quickstudy:"
ENTITY, RELATION, TYPE, TERM, BLANK = (
    f"{BASE}{part}:" for part in ("entity", "relation", "type", "term", "blank")
)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
SAME = "http://www.w3.org/2004/02/skos/core#exactMatch"
STRING = "http://www.w3.org/2001/XMLSchema#string"
PREFIXES = {"rdf": RDF, "e": ENTITY, "r": RELATION, "t": TYPE, "q": TERM}
_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`]+")
# SERVICE would let a question fetch from any address. Where a string, an IRI or a comment ends can't be told without a
# whole parser: `<` may begin an IRI or mean 'less', and what follows may be a comment or not. So no end is looked for:
# the word goes nowhere into a query but within a name, which no keyword follows at once (SERVICEx:y has one, too).
_SERVICE = re.compile(
    r"(?P<name>[?$]\w+|[:%](?:[\w:%-]|\\[_~.!$&'()*+,;=/?#@%-])+)|(?P<letter>S)ERVICE", re.IGNORECASE
)


def oxigraph() -> Any:
    """The library. Raises MissingExtra where it isn't installed."""
    try:
        import pyoxigraph
    except ImportError:
        raise missing_extra("pyoxigraph", "sparql") from None
    return pyoxigraph


def node(entity: tuple[str, str]) -> Any:
    """An entity as a term of RDF."""
    ox, (name, kind) = oxigraph(), entity
    if kind == "" and _IRI.fullmatch(name) and not name.startswith(BASE):
        try:
            return ox.NamedNode(name)
        except ValueError:  # such as a wrong percent-encoding
            pass
    if kind == "_:" and re.fullmatch(r"\w+", name, re.ASCII):
        return ox.BlankNode(name)
    try:
        if re.fullmatch(r"@[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*", kind):
            return ox.Literal(name, language=kind[1:])
        if kind.startswith("^^") and _IRI.fullmatch(kind[2:]):
            return ox.Literal(name, datatype=ox.NamedNode(kind[2:]))
    except ValueError:
        pass
    return ox.NamedNode(f"{ENTITY}{key(entity)}")


def key(entity: tuple[str, str]) -> str:
    """TYPE/NAME, percent-encoded: unique, and nothing in it needs to be escaped."""
    return f"{quote(entity[1], safe='')}/{quote(entity[0], safe='')}"


def relation_node(relation: str) -> Any:
    """A relation as a term of RDF: an IRI stays one."""
    ox = oxigraph()
    if _IRI.fullmatch(relation) and not relation.startswith(BASE):
        try:
            return ox.NamedNode(relation)
        except ValueError:
            pass
    return ox.NamedNode(RELATION + quote(relation, safe=""))


def entity_of(term: Any) -> Entity:
    """The entity that a term stands for."""
    ox = oxigraph()
    if isinstance(term, ox.NamedNode):
        if term.value.startswith(ENTITY):
            kind, _, name = term.value[len(ENTITY) :].partition("/")
            return Entity(unquote(name), unquote(kind))
        if term.value.startswith(BLANK):
            return Entity(unquote(term.value[len(BLANK) :]), "_:")
        return Entity(term.value, "")
    if isinstance(term, ox.BlankNode):
        return Entity(term.value, "_:")
    return Entity(term.value, f"@{term.language}" if term.language else f"^^{term.datatype.value}")


def relation_of(term: Any) -> str:
    """The relation that a term stands for."""
    return unquote(term.value[len(RELATION) :]) if term.value.startswith(RELATION) else term.value


def named(rdf: Any) -> "RdfTriple":
    """The same with IRIs for blank nodes, which are others each time that they are sent; a name stays what it is."""
    ox = oxigraph()
    head, tail = (
        ox.NamedNode(BLANK + quote(end.value, safe="")) if isinstance(end, ox.BlankNode) else end
        for end in (rdf.subject, rdf.object)
    )
    return ox.Triple(head, rdf.predicate, tail)


def statement(triple: Triple | tuple[tuple[str, str], str, tuple[str, str]]) -> "RdfTriple":
    """A triple in RDF. Raises DataError where its head is a literal, which no RDF allows."""
    ox, head = oxigraph(), node(triple[0])
    if isinstance(head, ox.Literal):
        raise DataError(f"{triple[0][0]!r} is a literal, which can't be the head of a triple in RDF.")
    return ox.Triple(head, relation_node(triple[1]), node(triple[2]))


def described(
    store: "GraphStore", status: Iterable[str], provenance: str, names: bool = True
) -> Iterator["RdfTriple"]:
    """The graph: names and types of entities, then triples, each with the sentences that say it.

    Triples that aren't asserted are only quoted, never said.

    Args:
        provenance: 'star' (RDF 1.2's triple terms), 'reified' (RDF 1.1's statements) or 'none'.
        names: with rdfs:label, type and ids in the catalogue.
    """
    ox, status = oxigraph(), tuple(status)
    if names:
        for entity in store.entities(status):
            here = node(entity)
            if isinstance(here, ox.NamedNode) and here.value.startswith(ENTITY):
                yield ox.Triple(here, ox.NamedNode(LABEL), ox.Literal(entity.name))
                yield ox.Triple(
                    here, ox.NamedNode(f"{RDF}type"), ox.NamedNode(TYPE + quote(entity.type, safe=""))
                )
                for id in store.names(entity)["catalogue"]:
                    same = ox.NamedNode(id) if _IRI.fullmatch(id) else ox.Literal(id)
                    yield ox.Triple(here, ox.NamedNode(SAME), same)
    records = 0
    for triple in store.triples(status):
        rdf = statement(triple)
        if triple.status in ASSERTED:
            yield rdf
        if provenance != "none":
            for record in _records(store, triple):
                records += 1
                yield from _record(rdf, ox.BlankNode(f"s{records}"), record, provenance)


def _records(store: "GraphStore", triple: Triple) -> Iterator[dict[str, Any]]:
    whole = {"status": triple.status, "inferred": triple.inferred}
    found = store.said(triple)
    if not found:
        yield whole | ({} if triple.score is None else {"score": triple.score})
    for said in found:
        offsets = {
            f"{name}_{side}": value
            for name in ("sentence", "head", "tail")
            for side, value in zip(("start", "end"), getattr(said, name)[:2], strict=True)
        }
        yield (
            whole
            | offsets
            | {
                "document": said.document,
                "sentence": said.sentence.text,
                "score": said.score,
                "model": said.model,
            }
            | ({"verdict": said.verdict} if said.verdict else {})
        )


def _record(rdf: Any, name: Any, record: dict[str, Any], provenance: str) -> Iterator["RdfTriple"]:
    ox = oxigraph()
    if provenance == "star":
        yield ox.Triple(name, ox.NamedNode(f"{RDF}reifies"), rdf)
    else:
        yield ox.Triple(name, ox.NamedNode(f"{RDF}type"), ox.NamedNode(f"{RDF}Statement"))
        for part in ("subject", "predicate", "object"):
            yield ox.Triple(name, ox.NamedNode(RDF + part), getattr(rdf, part))
    for term, value in sorted(record.items()):
        yield ox.Triple(name, ox.NamedNode(TERM + term), ox.Literal(value))


def plain(rdf: Iterable[Any]) -> Iterator[tuple[Entity, str, Entity]]:
    """The triples that RDF says, without what `described` adds about entities and provenance."""
    ox = oxigraph()
    about = {f"{RDF}reifies", f"{RDF}subject", f"{RDF}predicate", f"{RDF}object"}
    for one in rdf:
        predicate, tail = one.predicate.value, one.object
        if predicate in about or predicate.startswith(TERM) or isinstance(tail, ox.Triple):
            continue
        if predicate == f"{RDF}type" and isinstance(tail, ox.NamedNode) and tail.value == f"{RDF}Statement":
            continue
        ours = isinstance(one.subject, ox.NamedNode) and one.subject.value.startswith(ENTITY)
        if ours and predicate in (LABEL, SAME, f"{RDF}type"):
            continue
        yield entity_of(one.subject), relation_of(one.predicate), entity_of(tail)


class Sparql:
    """The asserted triples of a graph as they are now, to be asked in SPARQL."""

    def __init__(self, store: "GraphStore") -> None:
        ox = oxigraph()
        self._store = ox.Store()
        with store.reading():
            self._store.bulk_extend(
                ox.Quad(one.subject, one.predicate, one.object) for one in described(store, ASSERTED, "none")
            )

    def query(self, text: str) -> bool | list[dict[str, Entity | str]] | list[tuple[Entity, str, Entity]]:
        """What ASK (a bool), SELECT (a dict an answer, of what has a value) or CONSTRUCT (triples) gives.

        The prefixes e: (entities), r: (relations), t: (types) and rdf: are known.

        Raises:
            DataError: it is no SPARQL query, or it asks another server (SERVICE).
        """
        ox = oxigraph()
        asked = _SERVICE.sub(_spelt, text)
        try:
            found = self._store.query(asked, prefixes=PREFIXES)
            if isinstance(found, ox.QueryBoolean):
                return bool(found)
            if isinstance(found, ox.QueryTriples):
                return list(plain(found))
            names = [variable.value for variable in found.variables]
            return [{name: _answer(row[name]) for name in names if row[name] is not None} for row in found]
        except (SyntaxError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, DataError):
                raise
            hint = " SERVICE asks another server; only this graph can be asked." if asked != text else ""
            raise DataError(f"SPARQL: {error}.{hint}") from None


def _spelt(found: re.Match[str]) -> str:
    """The word with its first letter as an escape: the same in a string, an IRI or a comment, and no keyword."""
    return found[0] if found["name"] else f"\\u{ord(found['letter']):04x}{found[0][1:]}"


def _answer(term: Any) -> Entity | str:
    ox = oxigraph()
    if isinstance(term, ox.Literal):
        return term.value
    if isinstance(term, ox.NamedNode) and not term.value.startswith(ENTITY):
        for prefix in (RELATION, TYPE):
            if term.value.startswith(prefix):
                return unquote(term.value[len(prefix) :])
    if isinstance(term, ox.Triple):
        return str(term)
    return entity_of(term)


def sparql(store: "GraphStore", query: str) -> Any:
    """Ask once. For many questions keep a `Sparql`: making it reads the whole graph."""
    return Sparql(store).query(query)
