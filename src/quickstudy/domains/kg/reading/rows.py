"""What all readers of labelled examples share: rows, JSON values that are checked as they are taken, tokens to text.

A reader is a function `rows(path, notes)` that gives, for each document of a file, the row where it begins and a
function that makes it. That function raises DataError for what is wrong with this one alone, and LeftOut for what isn't
meant to be read; the file goes on after either. What a reader passes over is counted in `notes`, for one warning.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.files.source import TextSource, shortened, whole_text
from quickstudy.files.tables import Bad, json_items

ROW_LIMIT = 2**22
"""Bytes of a line, or characters of an item of a JSON list: a labelled document is shorter."""
FILE_LIMIT = 2**26
"""Characters of a file that has to be read at once, as it is one JSON object."""

UNTYPED = "entity"
"""The type of a mention where a format says none."""
NO_RELATION = frozenset({"no_relation", "other", "none", "na", "n/a", "no relation"})
"""In lower case: what data sets call two mentions that have no relation."""

Notes = Counter[str]
Rows = Iterator[tuple[int | str, Callable[[], Annotated]]]


class LeftOut(Exception):
    """A row that isn't meant as an example; the message says why."""


def document(path: Path, row: int | str, text: Any, id: Any = None) -> Document:
    """A document of a row; by default it is called after the file and the row."""
    if not isinstance(text, str) or isinstance(text, Bad):
        raise DataError(f"the text is {_shown(text)}; words are expected.")
    if id is not None and (not isinstance(id, str | int) or isinstance(id, bool | Bad)):
        raise DataError(f"the id is {_shown(id)}; a text or a whole number is expected.")
    name = f"{path.name}:{row}" if id is None or id == "" else str(id)
    return Document(name, text, str(path))


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Bad) else shortened(json.dumps(value, default=str))


# -- JSON ----------------------------------------------------------------------------------------------------------


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON file, with their row: the lines of JSON Lines, the items of a list, or the one object."""
    source = TextSource(path, FILE_LIMIT)
    if not source.starts_with("[") and not _is_json_lines(source):
        yield 1, whole_json(path)
        return
    yield from json_items(path, ROW_LIMIT)


def one_each(path: Path, read: Callable[[Path, int, Any], Annotated]) -> Rows:
    """A document of each value of a JSON file, by a function of path, row and value."""
    for row, value in records(path):
        yield row, partial(read, path, row, value)


def whole_json(path: Path) -> Any:
    """The one value that a file holds. Raises DataError."""
    try:
        return json.loads(whole_text(path, FILE_LIMIT))
    except RecursionError:
        raise DataError("not JSON that can be read: nested too deep.", file=path) from None
    except ValueError as error:
        raise DataError(f"not JSON ({error}).", file=path, row=getattr(error, "lineno", None)) from None


def _is_json_lines(source: TextSource) -> bool:
    """Whether the first line that isn't blank is a whole JSON value of a row's size, not the start of a longer one."""
    first = next((line for _, line in source.numbered() if not line.isspace()), "{")
    if len(first) > ROW_LIMIT:
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first.strip() not in ("{", "}") and first.rstrip().endswith(
            "}"
        )  # a line that is broken, or cut
    return True


def as_object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object. Raises DataError saying `what` is expected."""
    if isinstance(value, dict):
        return value
    raise DataError(f"{value}." if isinstance(value, Bad) else f"{_shown(value)} came; expected {what}.")


def as_list(value: Any, what: str) -> list[Any]:
    """A JSON list; none for null. Raises DataError saying `what` is expected."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise DataError(f"{value}." if isinstance(value, Bad) else f"{_shown(value)} came; expected {what}.")


def part(record: dict[str, Any], name: str, kind: type, of: str) -> Any:
    """The value of a key: a text that isn't empty, or a whole number. Raises DataError."""
    if name not in record:
        raise DataError(f"{of} has no {name!r}: {_shown(record)}.")
    value = record[name]
    if isinstance(value, Bad) or not isinstance(value, kind) or isinstance(value, bool) or value == "":
        expected = "a whole number" if kind is int else "a text"
        raise DataError(f"{name!r} of {of} is {_shown(value)}; expected {expected}.")
    return value


def span_of(record: Any, label: str, start: str = "start", end: str = "end") -> Span:
    """A span from a JSON object with these keys."""
    record = as_object(record, f'a span such as {{"{start}": 0, "{end}": 4, "{label}": "person"}}')
    first, last = part(record, start, int, "a span"), part(record, end, int, "a span")
    return Span(first, last, part(record, label, str, "a span"))


def span_of_three(value: Any) -> Span:
    """A span from a list [start, end, type]."""
    three = as_list(value, 'a span such as [0, 4, "person"]')
    if len(three) != 3:
        raise DataError(f'{_shown(value)} came; expected a span such as [0, 4, "person"].')
    return span_of(dict(zip(("start", "end", "type"), three, strict=True)), "type")


def relations_of(record: dict[str, Any]) -> tuple[Relation, ...]:
    """The "relations" of a JSON object, each with type and the numbers of its spans, head and tail."""
    relations = []
    for relation in as_list(record.get("relations"), "a list of relations"):
        relation = as_object(relation, 'a relation such as {"head": 0, "tail": 1, "type": "works_for"}')
        head, tail = (part(relation, end, int, "a relation") for end in ("head", "tail"))
        relations.append(Relation(head, tail, part(relation, "type", str, "a relation")))
    return tuple(relations)


# -- tokens --------------------------------------------------------------------------------------------------------

_CHINESE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff65\U00020000-\U0003ffff]")


def joined(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Tokens joined by blanks, and where each stands in the text.

    No blank stands between two signs of Chinese or Japanese; nor anywhere in such a text that comes sign by sign.
    """
    single = all(len(token) == 1 for token in tokens) and any(map(_CHINESE.match, tokens))
    parts, places, length, before = [], [], 0, ""
    for token in tokens:
        together = not before or single or (_CHINESE.match(before[-1:]) and _CHINESE.match(token))
        parts.append(token if together else f" {token}")
        length += len(parts[-1])
        places.append((length - len(token), length))
        before = token or before
    return "".join(parts), places


def token_span(places: Sequence[tuple[int, int]], start: int, end: int, kind: str) -> Span:
    """The span of the tokens from number `start` up to, not with, number `end`."""
    if not 0 <= start < end <= len(places):
        raise DataError(
            f"{kind} goes from token {start} up to {end}; expected 0 ≤ start < end ≤ {len(places)}, their number."
        )
    return Span(places[start][0], places[end - 1][1], kind)


def as_tokens(value: Any) -> list[str]:
    """A list of texts. Raises DataError."""
    tokens = as_list(value, "a list of tokens")
    for token in tokens:
        if not isinstance(token, str) or isinstance(token, Bad):
            raise DataError(f"the token {_shown(token)} is no text.")
    return tokens


def pair(doc: Document, head: Span, tail: Span, kind: str, links: dict[int, str] | None = None) -> Annotated:
    """A document with two mentions, in the order of the text, and their relation if `kind` is one."""
    if head == tail:
        raise DataError(f"head and tail are the same words, {doc.text[head.start : head.end][:40]!r}.")
    first, second = sorted((head, tail))
    number = {first: 0, second: 1}
    found = () if kind.lower() in NO_RELATION else (Relation(number[head], number[tail], kind),)
    names = {} if links is None else {number[(head, tail)[end]]: name for end, name in links.items()}
    return Annotated(doc, (first, second), found, links=names)
