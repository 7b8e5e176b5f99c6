"""Sentences with marks, one a line, and below each, indented, the relations of what is marked in it.

    [company]{Acme plc} named [person]{Jo Ray} its head.
        works_for: Jo Ray -> Acme plc

A line that begins with # is a comment; empty lines don't count. Marks: marks.py.
"""

from pathlib import Path

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.marks import unmarked
from quickstudy.domains.kg.reading.rows import ROW_LIMIT, Notes, Rows, document
from quickstudy.files.source import TextSource, quoted, shortened


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    source = TextSource(path, ROW_LIMIT)
    sentence, below, first = "", [], 0
    for line in source.lines():
        if line.strip() and not line.startswith("#"):
            if line[0].isspace():
                below.append((source.row, line.strip()))
                if not sentence:
                    raise source.error("a relation, as the line is indented, with no sentence above it.")
            else:
                if sentence:
                    yield first, lambda s=sentence, b=below, r=first: _annotated(path, r, s, b)
                sentence, below, first = line.strip(), [], source.row
        source.row += 1
    if sentence:
        yield first, lambda: _annotated(path, first, sentence, below)


def _annotated(path: Path, row: int, sentence: str, below: list[tuple[int, str]]) -> Annotated:
    text, marks = unmarked(sentence)
    spans = [Span(*mark) for mark in marks]
    found = Annotated(document(path, row, text), tuple(spans))
    relations = []
    for at, line in below:
        kind, colon, ends = line.partition(": ")
        head, arrow, tail = ends.partition("->")
        if not (colon and arrow and kind.strip()):
            raise DataError(
                f"{shortened(line)!r} is no relation; expected one such as works_for: Jo Ray -> Acme plc",
                file=path,
                row=at,
            )
        first, second = (_number(found, end, path, at) for end in (head, tail))
        relations.append(Relation(first, second, kind.strip()))
    return Annotated(found.document, found.spans, tuple(relations))


def _number(found: Annotated, wanted: str, path: Path, row: int) -> int:
    """Which of the marked words these are; raises DataError where it is none, or more than one."""
    words = [found.of(number).strip() for number in range(len(found.spans))]
    fitting = [number for number, said in enumerate(words) if said == wanted.strip()]
    if len(fitting) == 1:
        return fitting[0]
    problem = (
        "isn't marked" if not fitting else f"is marked {len(fitting)} times, so which one is meant isn't said"
    )
    advice = (
        f"Marked are {quoted(words) or 'none'}."
        if not fitting
        else "Use JSON Lines, where spans have numbers."
    )
    raise DataError(
        f"{shortened(wanted.strip())!r} {problem} in the sentence above. {advice}", file=path, row=row
    )
