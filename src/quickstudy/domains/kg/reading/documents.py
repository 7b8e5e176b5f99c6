"""Documents as people have them, one by one: text, Markdown, tables with a column of texts, web pages, PDF, folders.

A text of any size passes in bounded memory: one that is longer than `longest` characters comes in pieces, cut where a
paragraph, or else a line or a word, ends. A piece is a document of its own, `report.txt#1`, `report.txt#2`, …
"""

import re
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.reading.html import text_of_html
from quickstudy.domains.kg.reading.pdf import text_of_pdf
from quickstudy.files.source import TextSource, existing, files_below, quoted, shortened, suffix_of
from quickstudy.files.tables import SUFFIXES, Bad, Table, open_table

LONGEST = 1_000_000
"""Characters of a document, by default."""
ROW_LIMIT = 2**22
"""Bytes of a table's line: a text in it isn't cut, as it is read at once."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _text(path: Path) -> Iterator[str]:
    source = TextSource(path)
    for chunk in source.chunks():
        if "\0" in chunk:
            source.row += chunk[: chunk.index("\0")].count("\n")
            raise source.error(
                "a NUL byte: the file is damaged, or not UTF-8 text (UTF-16?). Save it as UTF-8."
            )
        source.row += chunk.count("\n")
        yield chunk


TEXTS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _text,
    ".text": _text,
    ".md": _text,
    ".html": text_of_html,
    ".htm": text_of_html,
    ".xhtml": text_of_html,
    ".pdf": text_of_pdf,
}
"""Suffix -> what gives the text of such a file in pieces; tables (`files.tables`) hold several."""
_ADVICE = {
    ".docx": "save it as PDF or plain text",
    ".doc": "save it as PDF or plain text",
    ".odt": "save it as PDF or plain text",
    ".rtf": "save it as PDF or plain text",
    ".xlsx": "save it as 'CSV UTF-8'",
    ".xls": "save it as 'CSV UTF-8'",
    ".epub": "convert it to .html or .txt",
    ".zip": "unpack it first",
}


def read_documents(
    path: str | PathLike[str],
    *,
    text: str | None = None,
    id: str | None = None,
    longest: int = LONGEST,
    bad: Literal["raise", "warn"] = "raise",
) -> Iterator[Document]:
    """Documents from a file, or from all files of a folder in the order of their names.

    path: .txt, .md, .html, .pdf (one document each); .csv, .tsv, .jsonl, .json, .parquet (one a row); text also as .gz.
    text, id: names of the columns; by default "text" and, if there is one, "id". Without ids, documents are called
        after their file (in a folder with the path below it), and the row where it holds several.
    longest: characters of a document; longer ones come in pieces.
    bad: 'raise' at the first file or row that can't be read, or 'warn' and leave it out.
    A document without words is left out, and a warning names it. Raises DataError, for an id that comes twice too.
    """
    path = existing(path)
    if longest < 1:
        raise DataError(f"longest is {longest}; a document has at least one character.")
    return _documents(path, text, id, longest, bad == "warn")


def _documents(
    path: Path, text: str | None, id: str | None, longest: int, forgive: bool
) -> Iterator[Document]:
    named = [(file, file.relative_to(path).as_posix()) for file in files_below(path)] if path.is_dir() else []
    named = named if path.is_dir() else [(path, path.name)]
    if not named:
        raise DataError("the folder holds no document.", file=path)
    if not forgive:
        _refuse_unknown([file for file, _ in named])
    seen: dict[str, str] = {}
    for file, name in named:
        empty, wrong = _Tally(file, "without words"), _Tally(file, "that can't be used")
        try:
            _refuse_unknown([file])
            read = _rows(file, name, text, id) if suffix_of(file) in SUFFIXES else _whole(file, name, longest)
            for one in read:
                problem = one if isinstance(one, DataError) else None
                if isinstance(one, Document) and one.id in seen:
                    problem = DataError(f"the id {one.id!r} stands in {seen[one.id]} already.", file=file)
                if problem and not forgive:
                    raise problem
                if problem:
                    wrong.add(problem)
                elif isinstance(one, Document) and not one.text.strip():
                    empty.add(one.id)
                elif isinstance(one, Document):
                    seen[one.id] = str(file)
                    yield one
        except DataError as problem:
            if not forgive:
                raise
            wrong.add(problem)
        finally:  # also where no more is asked for
            empty.warn()
            wrong.warn()
    if not seen and not forgive:  # forgiving, each thing that was left out has been told of
        raise DataError("holds no document with words in it.", file=path)


class _Tally:
    """What is left out of a file, for one warning."""

    def __init__(self, file: Path, why: str) -> None:
        self.file, self.why, self.first, self.count = file, why, [], 0

    def add(self, what: object) -> None:
        self.count += 1
        self.first += [str(what)] if self.count <= 5 else []

    def warn(self) -> None:
        if self.count:
            more = f", and {self.count - 5} more" if self.count > 5 else ""
            said = f"{self.file}: left out {self.count} {self.why}: {'; '.join(self.first)}{more}"
            warnings.warn(said, UserWarning, stacklevel=3)


def _refuse_unknown(files: list[Path]) -> None:
    unknown = [file for file in files if suffix_of(file) not in TEXTS and suffix_of(file) not in SUFFIXES]
    if unknown:
        suffix = suffix_of(unknown[0])
        advice = f" ({_ADVICE[suffix]})" if suffix in _ADVICE else ""
        more = f" There are {len(unknown) - 1} more such files." if len(unknown) > 1 else ""
        raise DataError(
            f"no document that can be read{advice}; expected one of {', '.join([*TEXTS, *SUFFIXES])}.{more}",
            file=unknown[0],
        )


_MARKS = re.compile(r"\[\w[\w -]{0,40}\]\{[^{}.#\n][^{}\n]{0,200}\}")


def _whole(file: Path, name: str, longest: int) -> Iterator[Document]:
    pieces = _pieces(TEXTS[suffix_of(file)](file), longest)
    first = next(pieces, "")
    if len(marks := _MARKS.findall(first)) > 2:
        warnings.warn(
            f"{file}: it has marks such as {marks[0]!r}, which are read as words here. Are these labelled examples?",
            UserWarning,
            stacklevel=2,
        )
    second = next(pieces, None)
    if second is None:
        yield Document(name, first, str(file))
        return
    yield Document(f"{name}#1", first, str(file))
    yield Document(f"{name}#2", second, str(file))
    for number, piece in enumerate(pieces, 3):
        yield Document(f"{name}#{number}", piece, str(file))


def _pieces(chunks: Iterator[str], longest: int) -> Iterator[str]:
    """The chunks joined, and cut where there are more than `longest` characters."""
    held: list[str] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size <= longest:
            continue
        text, at = "".join(held), 0
        while len(text) - at > longest:
            end = _cut(text, at, at + longest)
            if text[at:end].strip():
                yield text[at:end]
            at = end
        held, size = [text[at:]], len(text) - at
    if (rest := "".join(held)).strip():
        yield rest


def _cut(text: str, start: int, end: int) -> int:
    """Where to cut: after the last end of a paragraph, line or word in the second half, or at the end."""
    for gap in ("\n\n", "\n", ". ", " "):
        at = text.rfind(gap, start + (end - start) // 2, end)
        if at > start:
            return at + len(gap)
    return end


def _rows(file: Path, name: str, text: str | None, id: str | None) -> Iterator[Document | DataError]:
    """Documents of a table, and what is wrong with a row in its place."""
    table = open_table(file, ROW_LIMIT, '{"text": "..."}')
    columns = [_column(table, "text", text)]
    if id is not None or "id" in table.columns:
        columns.append(_column(table, "id", id))
    for row, values in table.rows(columns):
        try:
            yield _of_row(file, f"{name}:{row}", values)
        except DataError as problem:
            yield DataError(str(problem), file=file, row=row)


def _of_row(file: Path, name: str, values: Any) -> Document:
    for value in (values, *values):
        if isinstance(value, Bad):
            raise DataError(f"{value}.")
    text, id = values[0], values[1] if len(values) > 1 else name
    if not isinstance(text, str):
        raise DataError(f"the text is {shortened(repr(text))}; words are expected.")
    if _SURROGATE.search(text):
        raise DataError("the text holds half a sign (a surrogate), which can't be stored as UTF-8.")
    if not isinstance(id, str | int) or isinstance(id, bool) or not str(id).strip():
        raise DataError(f"the id is {shortened(repr(id))}; a name is expected.")
    return Document(str(id), text, str(file))


def _column(table: Table, usual: str, given: str | None) -> str:
    wanted = given or usual
    if wanted in table.columns:
        return wanted
    if given is None and len(table.columns) == 1:
        return table.columns[0]
    raise DataError(
        f'there is no column "{wanted}".{did_you_mean(wanted, table.columns)} There are {quoted(table.columns)}: name '
        f"the one that is meant by {usual}=.",
        file=table.name,
        row=table.header,
    )
