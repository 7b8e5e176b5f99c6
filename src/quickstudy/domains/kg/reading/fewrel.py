"""FewRel's JSON, {relation: [{"tokens", "h", "t"}, …]}, and OpenNRE's lines {"token" or "text", "h", "t", "relation"}.

FewRel's h and t are [name, id in Wikidata, the numbers of the tokens, at each place where it is named]: the relation is
between the first places. OpenNRE's are {"name", "id", "pos": [start, end]}, counted in tokens or, with "text", in
characters. Neither says types of entities: they are "entity", or what the schema says of the relation.
"""

from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.reading.rows import (
    UNTYPED,
    Notes,
    Rows,
    as_list,
    as_object,
    as_tokens,
    document,
    joined,
    pair,
    part,
    records,
    token_span,
)

Places = list[tuple[int, int]]


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says; FewRel's rows count through the file, from 1."""
    count = 0
    for row, value in records(path):
        if isinstance(value, dict) and "h" not in value:
            for relation, items in value.items():
                for item in as_list(items, "a list of sentences for each relation"):
                    count += 1
                    yield count, lambda row=count, item=item, kind=relation: _fewrel(path, row, item, kind)
        else:
            yield row, lambda row=row, value=value: _opennre(path, row, value)


def _fewrel(path: Path, row: int, value: Any, relation: str) -> Annotated:
    record = as_object(value, 'an object such as {"tokens": […], "h": […], "t": […]}')
    text, places = joined(as_tokens(record.get("tokens")))
    heads, tails = (_mentions(record.get(end), places, end) for end in ("h", "t"))
    spans = sorted({*heads[0], *tails[0]})
    if heads[0][0] == tails[0][0]:
        raise DataError(f"h and t are the same words, {text[slice(*heads[0][0][:2])]!r}.")
    number = {span: i for i, span in enumerate(spans)}
    links = {number[span]: name for found, name in (tails, heads) for span in found if name}
    first = Relation(number[heads[0][0]], number[tails[0][0]], relation)
    return Annotated(document(path, row, text), tuple(spans), (first,), links=links)


def _mentions(value: Any, places: Places, end: str) -> tuple[list[Span], str]:
    expected = f'{end} such as ["river wye", "Q19695", [[10, 11]]]'
    given = as_list(value, expected)
    if len(given) != 3 or not isinstance(given[1], str):
        raise DataError(f"expected {expected}; {len(given)} items came.")
    spans = []
    for numbers in as_list(given[2], expected):
        numbers = as_list(numbers, expected)
        if not numbers or not all(type(number) is int for number in numbers):
            raise DataError(f"expected {expected}.")
        spans.append(token_span(places, min(numbers), max(numbers) + 1, UNTYPED))
    if not spans:
        raise DataError(f"{end} has no place in the sentence; expected {expected}.")
    return spans, given[1]


def _opennre(path: Path, row: int, value: Any) -> Annotated:
    record = as_object(value, 'an object such as {"token": […], "h": {…}, "t": {…}, "relation": "…"}')
    tokens = record.get("token", record.get("tokens"))
    text, places = joined(as_tokens(tokens)) if tokens is not None else (record.get("text"), None)
    doc = document(path, row, text, record.get("id"))
    ends = [as_object(record.get(end), f'{end} such as {{"name": "…", "pos": [0, 2]}}') for end in ("h", "t")]
    head, tail = (_placed(doc, end, places) for end in ends)
    links = {i: str(end["id"]) for i, end in enumerate(ends) if end.get("id")}
    return pair(doc, head, tail, part(record, "relation", str, "the row"), links)


def _placed(doc: Document, end: dict[str, Any], places: Places | None) -> Span:
    pos = as_list(end.get("pos"), "pos such as [0, 2]")
    if len(pos) != 2 or not all(type(number) is int for number in pos):
        raise DataError(f"pos is {pos}; expected a start and an end such as [0, 2].")
    start, stop = pos
    return Span(start, stop, UNTYPED) if places is None else token_span(places, start, stop, UNTYPED)
