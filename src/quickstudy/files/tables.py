"""Tables as people have them, row by row: CSV, TSV, JSON Lines, a JSON list, Parquet, .gz of these, a frame.

Rows count as a spreadsheet shows them: the header of a CSV is row 1; a line of JSON Lines, an item of a JSON
list and a row of Parquet count from 1; a frame's rows go by its index, and those of sequences from 0.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError, missing_extra
from quickstudy.files.source import LIMIT, TextSource, existing, quoted, shortened, suffix_of

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
_ELSEWHERE = {
    ".xlsx": "save it from the spreadsheet as 'CSV UTF-8'",
    ".xls": "save it from the spreadsheet as 'CSV UTF-8'",
    ".ods": "save it from the spreadsheet as 'CSV UTF-8'",
    ".zip": "unpack it first",
    ".txt": "it has no labels: give a table, or a folder with one sub-folder of .txt files a class",
}
_CSV_ERRORS = {  # part of the csv module's message -> what a person can do
    "unexpected end": "a quote opened in this row is never closed.",
    "field limit": "a field is longer than {limit:,} characters, or a quote opened in this row is never closed.",
    "expected after": 'text goes on after a closing quote: inside a quoted field, double each quote ("").',
    "new-line": "a line ends in a bare carriage return: save the file with normal line ends.",
}


EXAMPLE = '{"text": "...", "label": "..."}'
"""What an object of JSON should look like, as errors show it."""


class Bad(str):
    """Why a row or a cell can't be used; stands in place of its value."""


Row = tuple[Any, Sequence[Any] | Bad]


@dataclass(frozen=True)
class Table:
    """A table's name for errors, its columns, and `rows(columns)`: row number and those columns' raw values.

    `rows` can be called once: a file is read as it goes. `header` is the row of the columns' names, if they
    have one.
    """

    name: str
    columns: Sequence[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    header: int | None = None

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated:
            raise DataError(
                f"the column {quoted(repeated)} stands more than once: rename one of them.",
                file=self.name,
                row=self.header,
            )


def open_table(source: Any, limit: int = LIMIT, like: str = EXAMPLE) -> Table:
    """The table in a file, a pandas DataFrame, or a `(texts, labels)` pair; DataError when it is none of these.

    `like` is what errors say that JSON should look like.
    """
    if isinstance(source, str | PathLike):
        return _open_file(existing(source), limit, like)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        names = [str(name) for name in source.columns]
        columns = [source.iloc[:, i] for i in range(len(names))]
        return _in_memory("DataFrame", names, columns, list(source.index))
    if isinstance(source, tuple) and len(source) == 2 and all(_is_column(part) for part in source):
        texts, labels = source
        if len(texts) != len(labels):
            raise DataError(f"{len(texts)} texts came with {len(labels)} labels: give one label a text.")
        return _in_memory("examples", ["text", "label"], source, range(len(texts)))
    kind = type(source)
    raise DataError(
        f"came {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
        + "; expected the path of a table or a folder, a pandas DataFrame, or a pair (texts, labels)."
    )


def json_items(path: Path, limit: int = LIMIT) -> Iterator[tuple[int, Any]]:
    """Each line of JSON Lines, or each item of a JSON list, with its row from 1: any value, `Bad` where it is broken.

    An object within a value is `Bad` where a key stands twice in it. Raises DataError where the file can't be read on.
    """
    source = TextSource(path, limit)
    return _json_list(source) if source.starts_with("[") else _json_lines(source)


def _is_column(part: Any) -> bool:
    return (
        hasattr(part, "__len__") and hasattr(part, "__getitem__") and not isinstance(part, str | bytes | dict)
    )


def _in_memory(name: str, names: Sequence[str], columns: Sequence[Any], index: Sequence[Any]) -> Table:
    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        chosen = [columns[names.index(column)] for column in wanted]
        # tolist turns the scalars of numpy and pandas into Python's.
        lists = [column.tolist() if hasattr(column, "tolist") else column for column in chosen]
        return zip(index, zip(*lists, strict=True), strict=True)

    return Table(name, names, rows)


def _open_file(path: Path, limit: int, like: str) -> Table:
    suffix = suffix_of(path)
    if path.is_dir() or suffix not in SUFFIXES:
        what = "a folder" if path.is_dir() else f'a "{suffix}" file' if suffix else "a file without suffix"
        hint = f": {_ELSEWHERE[suffix]}" if suffix in _ELSEWHERE else ""
        raise DataError(
            f"came {what}{hint}; expected one of {', '.join(SUFFIXES)} (text also as .gz).", file=path
        )
    if suffix in (".parquet", ".pq"):
        return _parquet(path)
    source = TextSource(path, limit)
    return _csv(source, DELIMITERS[suffix]) if suffix in DELIMITERS else _json(source, like)


def _csv(source: TextSource, delimiter: str) -> Table:
    lines = source.lines()
    first = next(lines, "")
    if delimiter not in first:  # European Excel writes semicolons into a .csv
        delimiter = max((delimiter, ";", "\t", ",", "|"), key=first.count)
    # The limit is one for the whole process: it is only ever raised, so as not to break another reader.
    csv.field_size_limit(max(csv.field_size_limit(), source.limit))
    reader = csv.reader(chain([first], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    records = _records(source, reader)
    first_row, header = next(records, (1, []))
    header = [name.strip() for name in header]
    if not any(header):
        raise DataError(
            "the file is empty; expected a header such as text,label and a row an example.", file=source.path
        )

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        at = [header.index(name) for name in wanted]
        for row, record in records:
            if len(record) == len(header):
                yield row, [record[i] for i in at]
            else:
                sign = "a tab" if delimiter == "\t" else f'"{delimiter}"'
                yield (
                    row,
                    Bad(
                        f"{len(header)} cells expected, as in the header, but {len(record)} came "
                        f"(a text with {sign} in it needs quotes around it)"
                    ),
                )

    # Columns without a name (a frame's index, cells left by a spreadsheet) can't be asked for.
    return Table(str(source.path), [name for name in header if name], rows, first_row)


def _records(source: TextSource, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    try:
        for record in reader:
            if record not in ([], [""]):  # a blank line counts as a row, and is none
                yield source.row, record
            source.row += 1
    except csv.Error as error:
        problem = next((hint for part, hint in _CSV_ERRORS.items() if part in str(error)), f"{error}.")
        raise source.error(problem.format(limit=csv.field_size_limit())) from None


def _json(source: TextSource, like: str) -> Table:
    values = _json_list(source) if source.starts_with("[") else _json_lines(source)
    items = ((row, _as_object(value, like)) for row, value in values)
    first = next(items, None)
    if first is None:
        raise DataError("the file is empty; expected an object an example.", file=source.path)
    if isinstance(first[1], Bad):
        raise DataError(f"{first[1]}.", file=source.path, row=first[0])

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for row, item in chain([first], items):
            if isinstance(item, Bad):
                yield row, item
            elif absent := [name for name in wanted if name not in item]:
                yield row, Bad(f"no {quoted(absent)} here")
            else:
                yield row, [item[name] for name in wanted]

    return Table(str(source.path), list(first[1]), rows)


def _json_lines(source: TextSource) -> Iterator[tuple[int, Any]]:
    for line in source.lines():
        if not line.isspace():
            try:
                yield source.row, json.loads(line, object_pairs_hook=_once_each)
            except (ValueError, RecursionError) as error:
                yield source.row, Bad(f"not a JSON object on one line ({error})")
        source.row += 1


def _json_list(source: TextSource) -> Iterator[tuple[int, Any]]:
    """Items of a JSON list one by one: such a list is often a single line, whatever its size."""
    chunks, decode, space = source.chunks(), _DECODER.raw_decode, re.compile(r"\s*")
    text, at = "", 0

    def next_character() -> str:  # that isn't white space; '' at the end
        nonlocal text, at
        while True:
            at = space.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if at < len(text):
                return text[at]
            text, at = next(chunks, ""), 0
            if not text:
                return ""

    def item() -> Any:
        nonlocal text, at
        while True:
            try:
                value, at = decode(text, at)
                return value
            except RecursionError:
                raise source.error("not JSON that can be read: nested too deep.") from None
            except ValueError as error:
                # An item cut by the end of the piece fails at its end, or at the start of an open string.
                message, place = getattr(error, "msg", str(error)), getattr(error, "pos", 0)
                if not message.startswith("Unterminated") and place < len(text) - 16:
                    raise source.error(f"not JSON ({message}).") from None
                if len(text) - at > source.limit:
                    raise source.error(
                        f"an item longer than {source.limit:,} characters, or a quote that is never closed."
                    ) from None
                more = next(chunks, "")
                if not more:
                    raise source.error(f"not JSON ({message}): is the file cut off?") from None
                text, at = text[at:] + more, 0

    while next_character() in ("[", ","):
        at += 1
        if next_character() == "]":
            break
        yield source.row, item()
        source.row += 1
    if (found := next_character()) != "]":
        raise source.error(f'not JSON: "{found}" where a comma or ] should stand; is the file cut off?')
    at += 1
    if next_character():
        raise source.error("something stands after the end of the JSON list: remove it, or make it one list.")


def _once_each(pairs: list[tuple[str, Any]]) -> Any:
    """An object; a `Bad` where a key stands twice, of whose values Python would keep the last."""
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return Bad(f'the key "{shortened(twice)}" stands twice in this object: keep one')


_DECODER = json.JSONDecoder(object_pairs_hook=_once_each)


def _as_object(value: Any, like: str) -> Any:
    if isinstance(value, dict | Bad):
        return value
    return Bad(f"came {_json_kind(value)}; expected an object such as {like}")


def _json_kind(value: Any) -> str:
    return {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }.get(type(value), "a number")


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise missing_extra("pyarrow", "parquet") from None
    try:
        file = ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file that can be read ({shortened(error)}).", file=path) from None

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        row = 0
        try:
            with file:
                for batch in file.iter_batches(1024, columns=list(wanted)):
                    for values in zip(*(batch.column(name) for name in wanted), strict=True):
                        row += 1
                        yield row, [_python_value(value) for value in values]
        except (ArrowException, OSError) as error:
            raise DataError(
                f"the Parquet file is damaged after row {row} ({shortened(error)}).", file=path
            ) from None

    return Table(str(path), file.schema_arrow.names, rows)


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Bad(f"byte 0x{error.object[error.start]:02x} at place {error.start} of the text is not UTF-8")
