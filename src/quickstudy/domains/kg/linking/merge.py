"""Which entities of a graph are one, across documents: by their names alone, each with the reason for a reviewer.

    Seizures, seizure, SEIZURES        the same name but for case, a hyphen or a plural
    Acme plc, Acme                     the same firm, where no other firm has that name with another legal form
    XML, Extensible Markup Language    documents define the one by the other, and none defines it otherwise

These are bonds of the store: a reviewer's `split` stands above them, and they are made anew from the whole graph each
time. Entities of different types are never merged.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from quickstudy.domains.kg.graph.facts import Same
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.linking.abbreviations import definitions
from quickstudy.domains.kg.linking.within import without_form

LETTERS, FORM, SHORT = 0.95, 0.8, 0.9
"""Scores of the three reasons: bonds of a higher one count first where a decision keeps two of a group apart."""
_LEAST = 4
"""Letters of a name whose case doesn't count: US isn't us."""


class Defined(NamedTuple):
    """What documents say a short form stands for."""

    long: Counter[str]
    """Long form, in small letters -> documents."""
    first: str
    """The first document."""


def alike(entities: Iterable[Entity], defined: dict[str, Defined]) -> list[Same]:
    """The pairs of entities that are one by their names.

    Args:
        defined: short form -> what documents say it stands for; see `read_definitions`.
    """
    by_type: dict[str, list[str]] = defaultdict(list)
    for name, kind in sorted(set(entities)):
        by_type[kind].append(name)
    found = []
    for kind, names in by_type.items():
        best: dict[frozenset[str], Same] = {}  # of several reasons the best
        for one, other, score, why in (
            *_by_letters(names),
            *_by_definition(names, defined),
            *_by_form(names),
        ):
            best.setdefault(frozenset((one, other)), Same(Entity(one, kind), Entity(other, kind), score, why))
        found += best.values()
    return found


def read_definitions(documents: Iterable[tuple[str, str]]) -> dict[str, Defined]:
    """All short forms that documents, given as (id, text), define."""
    found: dict[str, Defined] = {}
    for id, text in documents:
        for short, long in definitions(text).items():
            found.setdefault(short, Defined(Counter(), id)).long[" ".join(long.casefold().split())] += 1
    return found


Pairs = Iterator[tuple[str, str, float, str]]


def _by_letters(names: list[str]) -> Pairs:
    for way, why in (
        (_folded, "the same name but for case or a hyphen"),
        (_singular, "the same name in the plural"),
    ):
        groups: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if (key := way(name)) is not None:
                groups[key].append(name)
        for first, *others in groups.values():
            for other in others:
                yield other, first, LETTERS, why


def _folded(name: str) -> str | None:
    """Small letters, hyphens as blanks; None for a name too short for its case not to count."""
    plain = " ".join(re.sub(r"[-‐‑–]", " ", name).casefold().split())
    return plain if sum(map(str.isalpha, plain)) >= _LEAST else None


def _singular(name: str) -> str | None:
    """The same without the plural's s of its last word; None for what has capitals further on, as names do."""
    plain = _folded(name)
    if (
        plain is None
        or any(word != word.lower() for word in name.split()[1:])
        or name[1:] != name[1:].lower()
    ):
        return None
    if name[:1].isupper() and len(name.split()) == 1:  # "Seizures" begins a sentence, but "Andrews" is a name
        return None
    return (
        plain[:-1]
        if len(plain) > 4 and plain.endswith("s") and not plain.endswith(("ss", "us", "is"))
        else plain
    )


def _by_form(names: list[str]) -> Pairs:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name[:1].isupper():
            groups[_folded(without_form(name)) or name].append(name)
    for group in groups.values():
        bare = [name for name in group if without_form(name) == name]
        full = {_folded(name.replace(".", "").replace(",", "")) for name in group} - {
            _folded(name) for name in bare
        }
        if len(full) != 1:  # Acme plc and Acme Inc. may be two firms, and Acme either
            continue
        first, *others = [name for name in group if name not in bare] + bare
        for other in others:
            yield other, first, FORM, "the same name without its legal form, and no other firm has it"


def _by_definition(names: list[str], defined: dict[str, Defined]) -> Pairs:
    folded = {name.casefold(): name for name in names}
    for short in names:
        if short in defined and len(defined[short].long) == 1:
            ((long, count),) = defined[short].long.items()
            if long in folded and folded[long] != short:
                where = f"{defined[short].first}" + (f" and {count - 1} more" if count > 1 else "")
                yield short, folded[long], SHORT, f"{short} stands for {folded[long]}: {where}"
