"""Sentences with <e1>…</e1> and <e2>…</e2>, as SemEval-2010 task 8 and KBP37 have them, and their relation below.

    8001    "The most common <e1>audits</e1> were about <e2>waste</e2>."
    Message-Topic(e1,e2)
    Comment: …

Types of entities aren't said: they are "entity", or what the schema says of the relation. Other and no_relation are two
mentions without a relation.
"""

import re
from pathlib import Path

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Span
from quickstudy.domains.kg.reading.rows import (
    NO_RELATION,
    ROW_LIMIT,
    UNTYPED,
    Notes,
    Rows,
    document,
    pair,
)
from quickstudy.files.source import TextSource, shortened

SENTENCE = re.compile(r"(?!Comment)(\S+)\t\s*(.*\S)\s*")
_RELATION = re.compile(r"(\S+)\((e[12]),\s?(e[12])\)")
_SIGN = re.compile(r"<(/?)(e[12])>")


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    source = TextSource(path, ROW_LIMIT)
    lines: list[str] = []
    first = 0
    for line in source.lines():
        starts = SENTENCE.fullmatch(line.rstrip("\r\n"))
        if lines and starts:
            yield first, lambda lines=lines, row=first: _annotated(path, row, lines)
            lines = []
        if line.strip():
            first = first if lines else source.row
            lines.append(line.strip("\r\n"))
        source.row += 1
    if lines:
        yield first, lambda: _annotated(path, first, lines)


def _annotated(path: Path, row: int, lines: list[str]) -> Annotated:
    found = SENTENCE.fullmatch(lines[0])
    if not found:
        raise DataError(
            f"{shortened(lines[0])!r} is no sentence; expected a number, a tab, and the sentence."
        )
    if len(lines) < 2:
        raise DataError("the sentence has no line with its relation below it.")
    relation = lines[1].strip()
    extra = [line for line in lines[2:] if not line.lower().startswith("comment")]
    if extra:
        raise DataError(f"{shortened(extra[0])!r} stands below the relation {shortened(relation)!r}.")
    marked = found[2]
    if len(marked) > 1 and marked[0] == marked[-1] == '"':
        marked = marked[1:-1].strip()
    text, ends = _unmarked(marked)
    doc = document(path, row, text, found[1])
    directed = _RELATION.fullmatch(relation)
    if directed is None and relation.lower() not in NO_RELATION:
        raise DataError(
            f"{shortened(relation)!r} is no relation; expected one such as Cause-Effect(e1,e2), or Other."
        )
    if directed is None:
        return pair(doc, ends["e1"], ends["e2"], relation)
    return pair(doc, ends[directed[2]], ends[directed[3]], directed[1])


def _unmarked(marked: str) -> tuple[str, dict[str, Span]]:
    """The text without its marks, nor the blank that some put within them; and what each stood around."""
    parts: list[str] = []
    length, at = 0, 0
    places: dict[str, list[int]] = {}
    for sign in _SIGN.finditer(marked):
        between = marked[at : sign.start()]
        parts.append(between)
        length, at = length + len(between), sign.end()
        places.setdefault(sign[2], []).append(length)
        if len(places[sign[2]]) != (2 if sign[1] else 1):
            raise DataError(f"{sign[0]} stands where it can't, after {marked[: sign.start()][-30:]!r}.")
    if sorted(places) != ["e1", "e2"] or any(len(place) != 2 for place in places.values()):
        raise DataError(f"expected one <e1>…</e1> and one <e2>…</e2> in {shortened(marked)!r}.")
    return "".join([*parts, marked[at:]]), {
        name: Span(place[0], place[1], UNTYPED) for name, place in places.items()
    }
