"""CoNLL04 and what is written like it: sentences in tokens with entities and relations.

JSON, as SpERT has it: {"tokens": […], "entities": [{"type", "start", "end"}], "relations": [{"type", "head", "tail"}]},
ends not included, head and tail numbers of entities. And the text of multi-head selection:

    #doc 5121
    0    Jo      B-Peop    ['Work_For']    [3]

a token's number, the token, its tag, and, at the last token of an entity, its relations and the last tokens that they
lead to. Texts are the tokens joined by blanks.
"""

import re
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation
from quickstudy.domains.kg.reading.conll import TAG, spans_of
from quickstudy.domains.kg.reading.rows import (
    ROW_LIMIT,
    Notes,
    Rows,
    as_list,
    as_object,
    as_tokens,
    document,
    joined,
    part,
    records,
    relations_of,
    token_span,
)
from quickstudy.files.source import TextSource, shortened

_NAMES = re.compile(r"\[(?:'[^']*'(?:, )?)+\]")
_NUMBERS = re.compile(r"\[(?:\d{1,9}(?:, )?)+\]")


def rows(path: Path, notes: Notes) -> Rows:
    """Read either form."""
    source = TextSource(path, ROW_LIMIT)
    if not source.starts_with("#doc"):
        for row, value in records(path):
            yield row, lambda row=row, value=value: _from_json(path, row, value)
        return
    lines: list[tuple[int, str]] = []
    for line in source.lines():
        if line.startswith("#doc") and lines:
            yield lines[0][0], lambda lines=lines: _from_lines(path, lines)
            lines = []
        if line.strip():
            lines.append((source.row, line.rstrip("\r\n")))
        source.row += 1
    yield lines[0][0], lambda: _from_lines(path, lines)


def _from_json(path: Path, row: int, value: Any) -> Annotated:
    record = as_object(value, 'an object such as {"tokens": […], "entities": […], "relations": […]}')
    text, places = joined(as_tokens(record.get("tokens")))
    spans = []
    for entity in as_list(record.get("entities"), "a list of entities"):
        entity = as_object(entity, 'an entity such as {"type": "Peop", "start": 0, "end": 2}')
        start, end = (part(entity, key, int, "an entity") for key in ("start", "end"))
        spans.append(token_span(places, start, end, part(entity, "type", str, "an entity")))
    id = record.get("id", record.get("orig_id"))
    return Annotated(document(path, row, text, id), tuple(spans), relations_of(record), complete=True)


def _from_lines(path: Path, lines: list[tuple[int, str]]) -> Annotated:
    first, title = lines[0]
    tokens, tags, said = [], [], []
    for number, (row, line) in enumerate(lines[1:]):
        cells = line.split("\t")
        if len(cells) != 5 or cells[0] != str(number) or not TAG.fullmatch(cells[2]):
            raise DataError(
                f"{shortened(line)!r} should be the token's number, here {number}, the token, a tag such as B-Peop, "
                "and lists of its relations and of the tokens that they lead to.",
                file=path,
                row=row,
            )
        if not (_NAMES.fullmatch(cells[3]) and _NUMBERS.fullmatch(cells[4])):
            raise DataError(
                f"{shortened(line)!r} ends in no lists such as ['Live_In'] and [7].", file=path, row=row
            )
        names, ends = re.findall(r"'([^']*)'", cells[3]), [int(end) for end in re.findall(r"\d+", cells[4])]
        if len(names) != len(ends):
            raise DataError(f"{len(names)} relations lead to {len(ends)} tokens.", file=path, row=row)
        tokens.append(cells[1])
        tags.append(cells[2])
        said += [(row, number, end, name) for name, end in zip(names, ends, strict=True) if name != "N"]
    text, places = joined(tokens)
    found = spans_of(tags)
    by_last = {end - 1: i for i, (_, end, _) in enumerate(found)}
    relations = []
    for row, head, tail, name in said:
        for end in (head, tail):
            if end not in by_last:
                problem = f"{name} leads from token {head} to {tail}, and no entity ends at {end}."
                raise DataError(problem, file=path, row=row)
        relations.append(Relation(by_last[head], by_last[tail], name))
    spans = tuple(token_span(places, *span) for span in found)
    doc = document(path, first, text, title.removeprefix("#doc").strip() or None)
    return Annotated(doc, spans, tuple(relations), complete=True)
