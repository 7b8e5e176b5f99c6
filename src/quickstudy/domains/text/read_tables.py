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
from quickstudy.domains.text.read_source import LIMIT, TextSource, existing, quoted, shortened, suffix_of

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


def open_table(source: Any, limit: int = LIMIT) -> Table:
    """The table in a file, a pandas DataFrame, or a `(texts, labels)` pair; DataError when it is none of these."""
    if isinstance(source, str | PathLike):
        return _open_file(existing(source), limit)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        names = [str(name) for name in source.columns]
        return Table("DataFrame", names, lambda wanted: _in_memory(
            list(source.index), [source.iloc[:, names.index(name)] for name in wanted]))  # fmt: skip
    if (
        isinstance(source, tuple)
        and len(source) == 2
        and not any(isinstance(part, str | bytes) for part in source)
    ):
        texts, labels = (part.tolist() if hasattr(part, "tolist") else list(part) for part in source)
        if len(texts) != len(labels):
            raise DataError(f"{len(texts)} texts came with {len(labels)} labels: give one label a text.")
        pair = {"text": texts, "label": labels}
        return Table("examples", list(pair), lambda wanted: _in_memory(
            range(len(texts)), [pair[name] for name in wanted]))  # fmt: skip
    raise DataError(
        f"came {type(source).__name__}; expected the path of a table or a folder, a pandas DataFrame, "
        "or a pair (texts, labels)."
    )


def _in_memory(index: Sequence[Any], columns: Sequence[Any]) -> Iterator[Row]:
    # tolist turns numpy's and pandas' scalars into Python's.
    lists = [column.tolist() if hasattr(column, "tolist") else column for column in columns]
    return zip(index, zip(*lists, strict=True), strict=True)


def _open_file(path: Path, limit: int) -> Table:
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
    return _csv(source, DELIMITERS[suffix]) if suffix in DELIMITERS else _json(source)


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
        raise DataError("the file is empty; expected a header such as text,label and a row an example.",
                        file=source.path)  # fmt: skip

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        at = [header.index(name) for name in wanted]
        for row, record in records:
            if len(record) == len(header):
                yield row, [record[i] for i in at]
            else:
                name = {"\t": "tab"}.get(delimiter, delimiter)
                yield row, Bad(f"{len(record)} cells where the header has {len(header)} "
                               f"(a text with {name} in it needs quotes around it)")  # fmt: skip

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


def _json(source: TextSource) -> Table:
    items = _json_list(source) if source.starts_with("[") else _json_lines(source)
    row, first = next(items, (1, None))
    if first is None:
        raise DataError("the file is empty; expected an object an example.", file=source.path)
    if isinstance(first, Bad):
        raise DataError(f"{first}.", file=source.path, row=row)

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for row, item in chain([(row_of_first, first)], items):
            absent = [] if isinstance(item, Bad) else [name for name in wanted if name not in item]
            if isinstance(item, Bad):
                yield row, item
            else:
                yield row, Bad(f"no {quoted(absent)} here") if absent else [item[name] for name in wanted]

    row_of_first = row
    return Table(str(source.path), list(first), rows)


def _json_lines(source: TextSource) -> Iterator[tuple[int, Any]]:
    for line in source.lines():
        if not line.isspace():
            try:
                yield source.row, _as_object(json.loads(line))
            except (ValueError, RecursionError) as error:
                yield source.row, Bad(f"not a JSON object on one line ({error})")
        source.row += 1


def _json_list(source: TextSource) -> Iterator[tuple[int, Any]]:
    """Items of a JSON list one by one: such a list is often a single line, whatever its size."""
    chunks, decode, space = source.chunks(), json.JSONDecoder().raw_decode, re.compile(r"\s*")
    text, at = "", 0

    def next_character() -> str:
        nonlocal text, at
        while True:
            at = space.match(text, at).end()  # type: ignore[union-attr]
            if at < len(text):
                return text[at]
            text, at = next(chunks, ""), 0
            if not text:
                raise source.error("the JSON list is cut off: its closing ] is missing.")

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

    opened = next_character()
    while opened in "[,":
        at += 1
        if next_character() == "]":
            break
        yield source.row, _as_object(item())
        source.row += 1
        opened = next_character()
    if text[at] != "]":
        raise source.error(f'not JSON: "{text[at]}" where a comma or ] should stand.')


def _as_object(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    return Bad(f'came {json_kind(value)}; expected an object such as {{"text": "...", "label": "..."}}')


def json_kind(value: Any) -> str:
    """What a person calls a JSON value of this type."""
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )


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
                f"the Parquet file is damaged ({shortened(error)}).", file=path, row=row + 1
            ) from None

    return Table(str(path), file.schema_arrow.names, rows)


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Bad(f"byte 0x{error.object[error.start]:02x} at place {error.start} of the text is not UTF-8")
