"""Names for the same thing within one document: short forms that it defines, and short names of persons and firms.

    "Extensible Markup Language (XML) … XML"     the second is the first, as the document says so
    "Jo Ray, who … Ms Ray said"                  a person's last or first name, title or not, where one alone has it
    "Acme plc … Acme"                            a firm without its legal form, where one firm alone is called so

A mention gets the longer name as its entity, in this document alone: another document's Ray may be another person.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from quickstudy.domains.kg.document import Span
from quickstudy.domains.kg.linking.abbreviations import definitions
from quickstudy.domains.kg.schema import EntityType

LEGAL = frozenset(
    re.findall(
        r"\w+",
        "plc inc incorporated corp corporation ltd limited llc llp lp gmbh ag sa nv bv ab asa as oy oyj spa srl sarl "
        "kgaa kg company co se pty group holding holdings",
    )
)
"""Words at the end of a firm's name that are often left out, without dots."""
_PERSON = re.compile(
    r"\b(?:person|persons|people|peop|per|human|politician|scientist|researcher|writer|author|artist|musician|actor|"
    r"officer|patient|employee|lawyer|judge|player|director)\b",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Sir|Dame|Lord|Lady|Herr|Frau|Mme|Madame|Monsieur)\.? )+"
)


def entity_names(text: str, spans: Sequence[Span], types: Mapping[str, EntityType]) -> list[str]:
    """The name of each mention's entity: its own words, or the longer name that the document has for it."""
    words = [" ".join(text[start:end].split()) for start, end, _ in spans]
    long = {short: " ".join(form.split()) for short, form in definitions(text).items()}
    names: dict[str, dict[str, None]] = {}
    for name, span in zip(words, spans, strict=True):
        names.setdefault(span.type, {})[name] = None
    found: dict[tuple[str, str], str] = {}
    for kind, those in names.items():
        person = kind in types and bool(_PERSON.search(f"{kind} {types[kind].description}".replace("_", " ")))
        said = _Said(those, person)
        for name in those:
            longer = long.get(name)
            if longer is not None:  # as it was marked, which may be a word more or less than the guess
                found[name, kind] = said.written.get(longer.casefold(), name)
            else:
                ways = said.longer(name)
                found[name, kind] = ways.pop() if len(ways) == 1 else name
    return [found[name, span.type] for name, span in zip(words, spans, strict=True)]


class _Said:
    """A document's names of one type, to be looked up by what they may be shortened to: there may be thousands."""

    def __init__(self, names: Iterable[str], person: bool) -> None:
        self.person = person
        self.names = set(names)
        self.written: dict[str, str] = {}
        """By their small letters; of several the first that the document has."""
        self.formless: dict[str, list[str]] = defaultdict(list)
        self.first: dict[str, list[str]] = defaultdict(list)
        self.last: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.written.setdefault(name.casefold(), name)
            self.formless[without_form(name)].append(name)
            if person and (parts := name.split()):
                self.first[parts[0]].append(name)
                self.last[parts[-1]].append(name)

    def longer(self, name: str) -> set[str]:
        """The names whose last or first word this is, if they are persons', or this without their legal form."""
        if self.person and _TITLE.match(name):
            bare = _TITLE.sub("", name)
            alike = [*self.last.get(bare, ()), *([bare] if bare in self.names else ())]
            return {other for other in alike if not _TITLE.match(other)}
        if not name[:1].isupper() or any(sign.isdigit() for sign in name):
            return set()
        ways = {other for other in self.formless.get(name, ()) if len(other) > len(name)}
        if self.person and len(name) > 1:
            ends = (*self.first.get(name, ()), *self.last.get(name, ()))
            ways |= {other for other in ends if 2 <= len(other.split()) <= 4}
        return ways


def without_form(name: str) -> str:
    """A firm's name without the legal form at its end, and the comma before it; itself where it has none.

    >>> without_form("Acme Holdings, Inc.")
    'Acme'
    """
    parts = name.split()
    while len(parts) > 1 and parts[-1].replace(".", "").strip(",()").casefold() in LEGAL:
        parts.pop()
    return " ".join(parts).rstrip(",")
