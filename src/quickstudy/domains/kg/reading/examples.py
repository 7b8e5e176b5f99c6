"""Labelled examples in the formats that people have them in -> `Annotated`, each checked to the character.

    read_annotated("examples.jsonl")                 the format is found by looking at the content
    read_annotated("train.txt", schema, "conll")     or named; types are checked against a schema

Nothing is dropped or repaired in silence but blanks at the ends of a mention: what can't be used is a DataError that
names file and row, and what isn't meant as an example is counted in a warning.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.document import Annotated, Span, trimmed
from quickstudy.domains.kg.reading import (
    brat,
    conll,
    conll04,
    doccano,
    fewrel,
    inline,
    jsonl,
    judged,
    label_studio,
    marked,
    prodigy,
    pubtator,
    spacy,
)
from quickstudy.domains.kg.reading.format import format_of
from quickstudy.domains.kg.reading.rows import UNTYPED, LeftOut, Notes, Rows
from quickstudy.domains.kg.schema import Schema
from quickstudy.files.source import existing

FORMATS: dict[str, Callable[[Path, Notes], Rows]] = {
    "jsonl": jsonl.rows,
    "inline": inline.rows,
    "conll": conll.rows,
    "brat": brat.rows,
    "spacy": spacy.rows,
    "prodigy": prodigy.rows,
    "doccano": doccano.rows,
    "label-studio": label_studio.rows,
    "fewrel": fewrel.rows,
    "conll04": conll04.rows,
    "pubtator": pubtator.rows,
    "marked": marked.rows,
}
"""Format -> its reader; each says in its docstring what it takes."""


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_annotated(
    path: str | PathLike[str],
    schema: Schema | None = None,
    format: str | None = None,
    *,
    complete: bool | None = None,
    bad: Literal["raise", "warn"] = "raise",
) -> list[Annotated]:
    """Documents with the spans, relations and ids that people labelled.

    path: a file, also .gz, or a folder of brat's.
    schema: types must be its own, and relations lead between the types that it says. Formats that don't say types of
        entities (fewrel, marked) take them from a relation that has one type at that end.
    format: one of `FORMATS`; by default found by looking at the content.
    complete: whether sentences without a span were labelled too, and hold none. By default what the format says: conll,
        conll04 and pubtator do, jsonl may, the others don't.
    bad: 'raise' at rows that can't be used, naming the first and how many more; or 'warn' and leave them out.
    If a text has a relation, names in texts of the same file that have none are unrelated, in formats that have
    relations where somebody labels them (`judged.py`). Spans may stand within others, but not run across their ends.
    Raises DataError and warns as the module says.
    """
    path = existing(path)
    if format is not None and format not in FORMATS:
        raise DataError(
            f"no format {format!r}.{did_you_mean(format, FORMATS)} There are: {', '.join(FORMATS)}."
        )
    notes: Notes = Counter()
    found: list[Annotated] = []
    row_of: dict[str, int | str] = {}
    problems: list[DataError] = []
    format = format or format_of(path)
    for row, make in _rows(FORMATS[format], path, notes):
        try:
            one = _checked(make(), schema, row)
            if one.document.id in row_of:
                earlier = row_of[one.document.id]
                raise DataError(f"the id {one.document.id!r} stands in row {earlier} already.")
        except LeftOut as why:
            notes[f"row left out: {why}"] += 1
        except DataError as problem:
            problems.append(problem if problem.file else DataError(str(problem), file=path, row=row))
        else:
            row_of[one.document.id] = row
            found.append(one if complete is None else replace(one, complete=complete))
    if problems and bad == "raise":
        raise _first(problems)
    if problems:
        notes[f"row left out that can't be used: {_first(problems)}"] = len(problems)
    if +notes:
        said = "; ".join(f"{count} × {note}" for note, count in (+notes).items())
        warnings.warn(f"{path}: {said}", UserWarning, stacklevel=2)
    if not found:
        raise DataError("holds no labelled example.", file=path)
    return judged.judged(found) if format in judged.FORMATS else found


def _rows(read: Callable[[Path, Notes], Rows], path: Path, notes: Notes) -> Rows:
    try:
        yield from read(path, notes)
    except DataError as problem:  # of the file as a whole
        raise problem if problem.file else DataError(str(problem), file=path) from None


def _first(problems: list[DataError]) -> DataError:
    """The first, with the rows of the others."""
    first, *others = problems
    if not others:
        return first
    rows = ", ".join(str(problem.row) for problem in others[:5]) + (", …" if len(others) > 5 else "")
    said = DataError(f"{first} And {len(others)} more that can't be used: row {rows}.")
    said.file, said.row = first.file, first.row
    return said


def _checked(one: Annotated, schema: Schema | None, row: int | str) -> Annotated:
    if not one.text.strip():
        raise DataError(f"the document {one.document.id!r} is empty.")
    if odd := _SURROGATE.search(one.text):
        raise DataError(
            f"the sign at {odd.start()} is half of one (a surrogate), which can't be stored as UTF-8."
        )
    spans = []
    for start, end, kind in one.spans:
        if 0 <= start < end <= len(one.text) and one.text[start:end].strip():  # else it is said below
            start, end = trimmed(one.text, start, end)
        spans.append(Span(start, end, kind))
    one = replace(one, spans=tuple(spans))
    one = (one if schema is None else _typed(one, schema)).checked(schema, row)
    _refuse_crossing(one)
    return one


def _refuse_crossing(one: Annotated) -> None:
    """Raise DataError for a span that stands twice, or that begins in another and ends outside."""
    opened: list[Span] = []
    for span in sorted(one.spans, key=lambda span: (span.start, -span.end, span.type)):
        while opened and opened[-1].end <= span.start:
            opened.pop()
        if opened and opened[-1].end < span.end:
            first, second = (f"{one.text[s.start : s.end][:40]!r} ({s.type}, {s.start} to {s.end})"
                             for s in (opened[-1], span))  # fmt: skip
            raise DataError(f"the spans {first} and {second} overlap, and neither holds the other.")
        if opened and opened[-1] == span:
            raise DataError(f"the span {one.text[span.start : span.end][:40]!r} ({span.type}) stands twice.")
        opened.append(span)


def _typed(one: Annotated, schema: Schema) -> Annotated:
    """The same with types of entities from the schema, where the format said none."""
    spans = list(one.spans)
    for number, (head, tail, kind) in enumerate(one.relations):
        if kind in schema.relations:
            said = schema.relations[kind]
            for end, types in ((head, said.head), (tail, said.tail)):
                untyped = 0 <= end < len(spans) and spans[end].type == UNTYPED not in schema.entities
                if untyped and len(types) == 1:
                    spans[end] = spans[end]._replace(type=types[0])
        elif any(span.type == UNTYPED for span in spans):
            raise DataError(f"relation {number}: {schema.misfit(kind, UNTYPED, UNTYPED)}")
    known = {name: spans[number].type for number, name in one.links.items() if spans[number].type != UNTYPED}
    for number, name in one.links.items():  # other mentions of the same
        if spans[number].type == UNTYPED not in schema.entities and name in known:
            spans[number] = spans[number]._replace(type=known[name])
    return replace(one, spans=tuple(spans))
