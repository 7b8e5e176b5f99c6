"""After documents were read: which of the graph's entities are one, and which are in the user's catalogue.

Both are written to the store as bonds with a score and a reason, in place of those of before, so that the graph is the
same in whatever order documents came. What a reviewer decided stands above them. What fits no entry is linked to none.
"""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache, cached_property
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.graph import facts
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.linking.catalogue import Catalogue, plain
from quickstudy.domains.kg.linking.merge import Defined, alike, read_definitions
from quickstudy.domains.kg.linking.within import entity_names, without_form
from quickstudy.domains.kg.schema import EntityType

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

NAMES, CATALOGUE = "names", "catalogue links"
"""Under which model's name the store keeps merges and links."""
LIKE = 0.93
"""Share of letters in order that a name has in common with an entry's that is taken for a way of writing it."""
LEAST = 0.3
"""Probability of an entry below which no reviewer is asked about it."""
_SHORTEST = 6
"""Letters of an entry's name that another may be nearly the same as."""
_FEW = 1000
"""Names that share a piece with one; with more, its products with all names are as cheap as a closer look."""
_ROUNDED = 1e-9
"""What a product of floats may be off, in letters."""


class Merged(NamedTuple):
    """What `settle` did."""

    merged: int
    """Names that are said to be another entity's."""
    linked: int
    """Names that are an entry of the catalogue."""
    strangers: int
    """Names that are none."""
    suggested: int = 0
    """Of these, names that may be one: a reviewer is asked."""


def settle(
    store: "GraphStore",
    catalogue: Catalogue | None = None,
    *,
    merge: bool = True,
    rank: Callable[[Sequence[Entity]], list[facts.Link]] | None = None,
    precision: float = 0.9,
) -> Merged:
    """Merge entities by their names, and link them to a catalogue, where one is given.

    Args:
        merge: else entities stay apart but for what the catalogue and reviewers say.
        rank: gives the likeliest entries of entities whose names say nothing (`ranker.settle`), and suggests them.
        precision: where such an entry is at least so probable, the entity is linked to it.
    """
    with store.reading():
        entities = _entities(store)
        defined = read_definitions(store.db.execute(  # one text at a time, however many there are
            "SELECT id, text FROM documents JOIN texts ON document = number WHERE state = 1 ORDER BY id"
        ))  # fmt: skip
    pairs = alike(entities, defined) if merge else []
    links: list[facts.Link] = []
    known: set[Entity] = set()
    denied: set[tuple[Entity, str]] = set()
    maybe = 0
    if catalogue is not None:
        store.catalogue(_entries(catalogue))
        known, denied = _decided(store)
        links, strangers = ByName(catalogue).sorted([e for e in entities if e not in known], defined)
        if rank is None:
            store.suggest([], "")  # what was suggested of another catalogue goes
        ranked = [] if rank is None else [x for x in rank(strangers) if (x.entity, x.id) not in denied]
        links += [link for link in ranked if link.score >= precision]
        maybe = sum(LEAST <= link.score < precision for link in ranked)
    with store.writing():
        there = set(_entities(store))  # another process may have read a document again meanwhile
        store.same([pair for pair in pairs if {pair.one, pair.other} <= there], NAMES)
        if catalogue is not None:
            store.link([link for link in links if link.entity in there], CATALOGUE)
    linked_ = len({x.entity for x in links if (x.entity, x.id) not in denied} | known)
    return Merged(len(pairs), linked_, len(entities) - linked_ if catalogue is not None else 0, maybe)


def _decided(store: "GraphStore") -> tuple[set[Entity], set[tuple[Entity, str]]]:
    """Entities that a reviewer linked; and links that one denied."""
    rows = store.rows(
        "SELECT e.name, w.word, c.id, b.together FROM bonds b JOIN entities e ON e.number = b.one "
        "JOIN words w ON w.number = e.type JOIN catalogue c ON c.number = -b.other WHERE b.decision "
        "ORDER BY b.decision"
    )
    last = {(Entity(name, kind), id): bool(together) for name, kind, id, together in rows}
    return {one for (one, _), right in last.items() if right}, {
        one for one, right in last.items() if not right
    }


def _entities(store: "GraphStore") -> list[Entity]:
    rows = store.rows(
        "SELECT e.name, w.word FROM entities e JOIN words w ON w.number = e.type "
        "WHERE e.number IN (SELECT entity FROM mentions)"
    )
    return [Entity(name, kind) for name, kind in rows]


def _entries(catalogue: Catalogue) -> Iterable[facts.Entry]:
    for one in catalogue.entries:
        yield facts.Entry(one.id, one.names[0], one.type, tuple(one.names[1:]), tuple(one.same_as))


class ByName:
    """Links to a catalogue by the letters of names alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.exact: dict[str, set[int]] = defaultdict(set)
        self.loose: dict[str, set[int]] = defaultdict(set)
        for name, owner in zip(catalogue.names, catalogue.owner, strict=True):
            self.exact[name].add(owner)
            self.loose[plain(without_form(name))].add(owner)
        self.types = {entry.type for entry in catalogue.entries}

    @cached_property
    def spellings(self) -> "_Spellings":
        return _Spellings(self.catalogue.names)

    @cached_property
    def ids(self) -> dict[str, str]:
        """Of all ids, that of the entry, as those that are the same count as one."""
        return {id: entry.id for entry in self.catalogue.entries for id in (entry.id, *entry.same_as)}

    def links(
        self, entities: Sequence[Entity], defined: Mapping[str, Defined] | None = None
    ) -> list[facts.Link]:
        """The entry of each entity that has one: of its very name, of its name but for case, signs and plural, of what
        it is short for, or of a name that is nearly the same. Where several entries fit alike, it is none.
        """
        return self.sorted(entities, defined)[0]

    def sorted(
        self, entities: Sequence[Entity], defined: Mapping[str, Defined] | None = None
    ) -> tuple[list[facts.Link], list[Entity]]:
        """The links, and the strangers: entities whose name is none of the catalogue's, of no type and nearly."""
        # Types part things where catalogue and graph name them alike; a catalogue with words of its own says nothing.
        apart = bool({kind for _, kind in entities} & self.types)
        entries = self.catalogue.entries

        def fits(entity: Entity, owner: int) -> bool:
            return not apart or entries[owner].type in ("", entity.type)

        found, rest = [], []
        for entity in dict.fromkeys(entities):
            long, name = _long(entity.name, defined or {}), plain(without_form(entity.name))
            ways = [
                (self.exact.get(entity.name, set()), 0.99, "the very name"),
                (self.loose.get(name, set()), 0.95, "the name but for case, signs or plural"),
                (self.loose.get(plain(long), set()) if long else set(), 0.9, f"short for {long}"),
            ]
            for owners, score, why in ways:
                fitting = [owner for owner in owners if fits(entity, owner)]
                if len(fitting) == 1:
                    found.append(facts.Link(entity, entries[fitting[0]].id, score, why))
                if owners:  # of another type, or of several things: none of those below fits better
                    break
            else:
                rest.append(entity)
        strangers = rest
        # A product with all names is dear, and most strangers are written as none of them: those are not looked for.
        rest = [entity for entity in rest if self.spellings.near(entity.name)]
        near = self.catalogue.candidates([entity.name for entity in rest], 1)
        for entity, some in zip(rest, near, strict=True):
            for candidate in some:
                name = self.catalogue.names[candidate.name]
                if fits(entity, candidate.entry) and (alike := _likeness(entity.name, name)) >= LIKE:
                    id = entries[candidate.entry].id
                    found.append(
                        facts.Link(entity, id, round(0.85 * alike, 3), f"written nearly as {name!r}")
                    )
        known = {link.entity for link in found}
        return found, [entity for entity in strangers if entity not in known]

    def of(self, said: Annotated, types: Mapping[str, EntityType]) -> dict[int, str]:
        """The ids of a document's spans, by their number, by what that document alone says."""
        names = entity_names(said.text, said.spans, types)
        entities = [Entity(name, span.type) for name, span in zip(names, said.spans, strict=True)]
        defined = read_definitions([(said.document.id, said.text)])
        known = {link.entity: link.id for link in self.links(entities, defined)}
        return {i: known[entity] for i, entity in enumerate(entities) if entity in known}


def linked(
    entities: Sequence[Entity], catalogue: Catalogue, defined: Mapping[str, Defined] | None = None
) -> list[facts.Link]:
    """As `ByName.links`."""
    return ByName(catalogue).links(entities, defined)


def _likeness(one: str, other: str) -> float:
    """Share of letters in order that two names have in common; 0 for short ones, and where numbers differ."""
    if len(other) < _SHORTEST or _digits(one) != _digits(other):
        return 0.0
    return SequenceMatcher(None, one.casefold(), other.casefold(), autojunk=False).ratio()


def _digits(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", name))


class _Spellings:
    """Whether a name is written nearly as one of many, without a look at each (Li et al. 2011, Pass-Join, VLDB 5).

    Two names are alike by `LIKE` where at most so many letters stand in one of them alone. Each name is cut into two
    pieces more than that, so that at least two stand whole in whatever is like it, not far from their places; the piece
    that most names share ("University of") can be left out.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._sizes: set[tuple[int, tuple[str, ...]]] = set()
        keys, owners = array("q"), array("q")
        for number, name in enumerate(names):
            if len(name) >= _SHORTEST:
                text, digits = name.casefold(), _digits(name)
                self._sizes.add((len(text), digits))
                for piece, (begin, end) in enumerate(_pieces(len(text))):
                    keys.append(hash((len(text), piece, digits, text[begin:end])))
                    owners.append(number)
        order = np.argsort(np.array(keys, np.int64))
        self._keys = np.array(keys, np.int64)[order]
        self._owners = np.array(owners, np.int64)[order]

    def near(self, name: str) -> bool:
        """Whether one of the names may be as like it as `LIKE`; False only where none is."""
        text, digits = name.casefold(), _digits(name)
        keys: list[int] = []
        of: list[tuple[int, int]] = []  # each key's length of name and number of piece
        for size in range(int(len(text) * LIKE / (2 - LIKE)), _longest(len(text)) + 1):
            shared = math.ceil(LIKE * (len(text) + size) / 2 - _ROUNDED)
            if shared > min(len(text), size) or (size, digits) not in self._sizes:
                continue
            for piece, (begin, end) in enumerate(_pieces(size)):
                # No further from its place than letters were left out before it, or put in.
                first = max(0, begin - (size - shared))
                last = min(len(text) - (end - begin), begin + (len(text) - shared))
                for at in range(first, last + 1):
                    keys.append(hash((size, piece, digits, text[at : at + end - begin])))
                    of.append((size, piece))
        asked = np.array(keys, np.int64)
        starts = np.searchsorted(self._keys, asked, "left").tolist()
        ends = np.searchsorted(self._keys, asked, "right").tolist()
        counts: Counter[tuple[int, int]] = Counter()
        for one, start, end in zip(of, starts, ends, strict=True):
            counts[one] += end - start
        commonest: dict[int, int] = {}
        for (size, piece), _ in counts.most_common():
            commonest.setdefault(size, piece)
        found: set[int] = set()
        for (size, piece), start, end in zip(of, starts, ends, strict=True):
            if start < end and piece != commonest[size]:
                found.update(self._owners[start:end].tolist())
                if len(found) > _FEW:
                    return True
        some = [self.names[number] for number in sorted(found)]
        enough = _sharing(text, [one.casefold() for one in some])
        return any(_likeness(name, some[i]) >= LIKE for i in enough)


def _longest(size: int) -> int:
    """Letters that a name may have at most to be like one of so many."""
    return int(size * (2 - LIKE) / LIKE + _ROUNDED)


@cache
def _pieces(size: int) -> list[tuple[int, int]]:
    """Beginnings and ends of the pieces of a name of so many letters."""
    count = int((1 - LIKE) * (size + _longest(size)) + _ROUNDED) + 2
    return [(i * size // count, (i + 1) * size // count) for i in range(count)]


def _sharing(text: str, others: Sequence[str]) -> np.ndarray:
    """Which of the others have enough letters in common with a text, in any order, to be like it."""
    texts = [text, *others]
    sizes = np.array([len(one) for one in texts])
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32) % 64
    counts = np.bincount(np.repeat(np.arange(len(texts)), sizes) * 64 + letters, minlength=64 * len(texts))
    counts = counts.reshape(-1, 64)  # letters that fall together only make a name seem more alike
    shared = np.minimum(counts[1:], counts[0]).sum(1)
    return np.flatnonzero(2 * shared >= LIKE * (sizes[1:] + sizes[0]) - _ROUNDED)


def _long(name: str, defined: Mapping[str, Defined]) -> str:
    told = defined.get(name)
    return next(iter(told.long)) if told is not None and len(told.long) == 1 else ""


def read_catalogue(path: str | PathLike[str]) -> Catalogue:
    """A catalogue from a table (`Catalogue.read`) or from RDF: .ttl, .nt, .rdf, .jsonld (extra `sparql`).

    Of RDF, labels are names (rdfs:label, skos:prefLabel, skos:altLabel, schema.org's and FOAF's name), and owl:sameAs
    and skos:exactMatch say that two are the same, where both have names.

    Raises:
        DataError: it can't be read.
    """
    suffix = str(path).rpartition(".")[2].lower()
    return _rdf(path, suffix) if suffix in ("ttl", "nt", "rdf", "jsonld") else Catalogue.read(path)


_NAMES = {
    "http://www.w3.org/2000/01/rdf-schema#label", "http://www.w3.org/2004/02/skos/core#prefLabel",
    "http://www.w3.org/2004/02/skos/core#altLabel", "http://schema.org/name", "https://schema.org/name",
    "http://schema.org/alternateName", "https://schema.org/alternateName", "http://xmlns.com/foaf/0.1/name",
}  # fmt: skip
_PREFERRED = ("#label", "#prefLabel", "/name")
_SAME = {"http://www.w3.org/2002/07/owl#sameAs", "http://www.w3.org/2004/02/skos/core#exactMatch"}
_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"


def _rdf(path: str | PathLike[str], suffix: str) -> Catalogue:
    from quickstudy.domains.kg.graph.rdf import oxigraph
    from quickstudy.domains.kg.linking.catalogue import Entry
    from quickstudy.files.source import existing

    ox, file = oxigraph(), existing(path)
    formats = {
        "ttl": ox.RdfFormat.TURTLE, "nt": ox.RdfFormat.N_TRIPLES, "rdf": ox.RdfFormat.RDF_XML,
        "jsonld": ox.RdfFormat.JSON_LD,
    }  # fmt: skip
    names: dict[str, dict[str, bool]] = defaultdict(dict)
    same: dict[str, list[str]] = defaultdict(list)
    kinds: dict[str, str] = {}
    try:
        for one in ox.parse(path=str(file), format=formats[suffix]):
            subject, predicate, value = one.subject, one.predicate.value, one.object
            if not isinstance(subject, ox.NamedNode):
                continue
            if predicate in _NAMES and isinstance(value, ox.Literal):
                names[subject.value].setdefault(value.value, predicate.endswith(_PREFERRED))
            elif predicate in _SAME and isinstance(value, ox.NamedNode):
                same[subject.value].append(value.value)
            elif predicate == _TYPE and isinstance(value, ox.NamedNode):
                kinds.setdefault(subject.value, re.split(r"[#/:]", value.value)[-1])
    except (SyntaxError, OSError, ValueError) as problem:
        raise DataError(f"no RDF that can be read: {problem}.", file=file) from None
    if not names:
        raise DataError("holds no labels (rdfs:label, skos:prefLabel, …), so nothing has a name.", file=file)
    return Catalogue(
        Entry(
            id, tuple(sorted(of, key=lambda name: not of[name])), kinds.get(id, ""),
            tuple(other for other in same[id] if other in names and other != id),
        )
        for id, of in names.items()
    )  # fmt: skip
