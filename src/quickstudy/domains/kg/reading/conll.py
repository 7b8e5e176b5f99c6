"""CoNLL: a token a line, its tag in the last column, an empty line after each sentence.

Columns are separated by tabs, or else by blanks. Tags are O, or a letter and a type: B I (IOB1, IOB2), B I E S and
B I L U (one letter for the last and the only token), B M E S. One rule reads them all, as conlleval does: B, S and U
begin a mention; I, M, E and L go on with one of their type, or begin one where there is none; E, L, S and U end it.
The text is the tokens joined by blanks. A sentence is a document, or, where lines with -DOCSTART- part them, all
sentences up to the next, with an empty line between them.
"""

import re
from pathlib import Path

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Span
from quickstudy.domains.kg.reading.rows import ROW_LIMIT, LeftOut, Notes, Rows, document, joined, token_span
from quickstudy.files.source import TextSource, shortened

TAG = re.compile(r"O|[BIESLUM]-\S.*")
BEGIN = "-DOCSTART-"

Line = tuple[int, str]


def columns(line: str) -> list[str]:
    """The columns of a line."""
    line = line.rstrip("\r\n")
    return line.split("\t") if "\t" in line else line.split()


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    source = TextSource(path, ROW_LIMIT)
    parts: list[list[Line]] = [[]]  # sentences of the document that is being read
    whole = any(line.startswith(BEGIN) for _, line in TextSource(path, ROW_LIMIT).numbered())
    for line in source.lines():
        begins = line.startswith(BEGIN)
        if begins or not line.strip():
            if parts[-1]:
                parts.append([])
            if (begins or not whole) and parts[0]:
                yield parts[0][0][0], lambda p=parts[:-1]: _annotated(path, p)
                parts = [[]]
        elif not _is_comment(line):
            parts[-1].append((source.row, line))
        source.row += 1
    if parts[0]:
        yield parts[0][0][0], lambda: _annotated(path, [part for part in parts if part])


def _is_comment(line: str) -> bool:
    return line.startswith("# ") and not TAG.fullmatch(columns(line)[-1])


def _annotated(path: Path, parts: list[list[Line]]) -> Annotated:
    text, spans = "", []
    for lines in parts:
        tokens, tags = [], []
        for row, line in lines:
            cells = columns(line)
            if len(cells) < 2:
                raise DataError(
                    f"{shortened(line)!r} has one column; a token and its tag are expected.",
                    file=path,
                    row=row,
                )
            if not TAG.fullmatch(cells[-1]):
                raise DataError(
                    f"{shortened(cells[-1])!r}, the last column of {shortened(line)!r}, is no tag such as O, "
                    "B-person or I-person.",
                    file=path,
                    row=row,
                )
            tokens.append(cells[0])
            tags.append(cells[-1])
        sentence, places = joined(tokens)
        text += "\n\n" if text else ""
        for span in (token_span(places, *found) for found in spans_of(tags)):
            spans.append(Span(len(text) + span.start, len(text) + span.end, span.type))
        text += sentence
    if not text.strip() and not spans:
        raise LeftOut("a sentence of blanks")
    return Annotated(document(path, parts[0][0][0], text), tuple(spans), complete=True)


def spans_of(tags: list[str]) -> list[tuple[int, int, str]]:
    """(first token, token after the last, type) of each mention, by the rule above."""
    spans: list[tuple[int, int, str]] = []
    start, kind = -1, ""
    for i, tag in enumerate([*tags, "O"]):
        letter, name = tag[0], tag[2:]
        if start >= 0 and (letter in "OBSU" or name != kind):
            spans.append((start, i, kind))
            start = -1
        if start < 0 and letter != "O":
            start, kind = i, name
        if letter in "ELSU":
            spans.append((start, i + 1, kind))
            start = -1
    return spans
