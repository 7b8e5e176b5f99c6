"""Names for the same thing within one document: short forms that it defines, and short names of persons and firms.

    "Extensible Markup Language (XML) … XML"     the second is the first, as the document says so
    "Jo Ray, who … Ms Ray said"                  a person's last or first name, title or not, where one alone has it
    "Acme plc … Acme"                            a firm without its legal form, where one firm alone is called so

A mention gets the longer name as its entity, in this document alone: another document's Ray may be another person.
"""

import re
from collections.abc import Mapping, Sequence

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
    said: dict[str, dict[str, None]] = {}
    for name, span in zip(words, spans, strict=True):
        said.setdefault(span.type, {})[name] = None
    found = []
    for name, (_, _, kind) in zip(words, spans, strict=True):
        longer = long.get(name)
        if (
            longer is not None
        ):  # as it was marked, which may be a word more or less than the definition's guess
            fitting = [one for one in said[kind] if _same(one, longer)]
            found.append(fitting[0] if fitting else name)
            continue
        person = (
            bool(_PERSON.search(f"{kind} {types[kind].description}".replace("_", " ")))
            if kind in types
            else False
        )
        ways = {one for one in said[kind] if _short_of(name, one, person)}
        found.append(ways.pop() if len(ways) == 1 else name)
    return found


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _short_of(name: str, other: str, person: bool) -> bool:
    """Whether a name is another one's last or first word, if it is a person's, or the other without its legal form."""
    if person and _TITLE.match(name):
        bare = _TITLE.sub("", name)
        return not _TITLE.match(other) and (bare == other or (bare != "" and bare == other.split()[-1]))
    if len(name) >= len(other) or not name[:1].isupper() or any(sign.isdigit() for sign in name):
        return False
    if without_form(other) == name:
        return True
    parts = other.split()
    return person and len(name) > 1 and 2 <= len(parts) <= 4 and name in (parts[0], parts[-1])


def without_form(name: str) -> str:
    """A firm's name without the legal form at its end, and the comma before it; itself where it has none.

    >>> without_form("Acme Holdings, Inc.")
    'Acme'
    """
    parts = name.split()
    while len(parts) > 1 and parts[-1].replace(".", "").strip(",()").casefold() in LEGAL:
        parts.pop()
    return " ".join(parts).rstrip(",")
