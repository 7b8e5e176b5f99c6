"""Texts in and answers out, a batch at a time: from a pipe as they come, to a file whole or not at all."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from quickstudy.app.results import Answer, as_json
from quickstudy.core import atomic
from quickstudy.core.errors import DataError, QuickstudyError
from quickstudy.core.task import blank, lone_surrogate
from quickstudy.core.untrusted import harmless

LIMIT = 2**20  # bytes a line
NONE = "none of these"
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def piped(stream: BinaryIO, name: str = "stdin") -> Iterator[list[str]]:
    """Texts from a pipe, one a line, in batches: as many as have come. A blank line is an empty text.

    Raises DataError, naming the line, for one that is too long or isn't UTF-8.
    """
    rest, row = b"", 0
    while True:
        # read1 gives what is there, so that answers come as soon as questions do.
        data = stream.read1(2**16) if hasattr(stream, "read1") else stream.read(2**16)  # pyright: ignore
        *lines, rest = (rest + data).split(b"\n") if data else ([rest, b""] if rest else [b""])
        texts = []
        for line in [*lines, *([rest] if len(rest) > LIMIT else [])]:
            row += 1
            if len(line) > LIMIT:
                raise DataError(
                    f"a line longer than {LIMIT:,} bytes; expected one text a line.", file=name, row=row
                )
            try:
                text = line.decode("utf-8-sig" if row == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise DataError(
                    f"byte 0x{byte:02x} is not UTF-8. Convert the input.", file=name, row=row
                ) from None
            texts.append(text)
        if texts:
            yield texts
        if not data:
            return


def typed(text: str) -> str:
    """A text from the command line. Raises DataError for one that is empty or isn't UTF-8."""
    if lone_surrogate(text):
        raise DataError("the text holds bytes that are not UTF-8.", file="--text")
    if blank(text):
        raise DataError("the text is empty; there is nothing to sort.", file="--text")
    return text.strip()


def format_of(out: Path) -> str:
    """How to write to this file. Raises DataError for a suffix that says nothing."""
    if out.suffix.lower() not in FORMATS:
        raise DataError(f"unknown format {out.suffix!r}; expected {', '.join(FORMATS)}.", file=out)
    return FORMATS[out.suffix.lower()]


def lines(answers: Iterable[Answer], how: str) -> Iterator[str]:
    """Answers as lines of CSV (with a header) or JSONL."""
    if how == "csv":
        yield _csv("text", "label", "probability")
    for answer in answers:
        if how == "csv":
            yield _csv(
                answer.text, NONE if answer.label is None else answer.label, f"{answer.probability:.4f}"
            )
        else:
            found = {"text": answer.text, "label": answer.label, "probability": round(answer.probability, 6)}
            yield as_json(found) + "\n"


def save(parts: Iterable[str], out: Path) -> None:
    """Write lines to a file as they come; it appears when all are there. Raises QuickstudyError without room."""
    size = 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        for part in parts:
            data = part.encode()
            size += len(data)
            yield data

    try:
        atomic.write_file(out, chunks())
    except OSError as error:
        raise QuickstudyError(atomic.write_problem(error, out, size)) from error


def stream(parts: Iterable[str]) -> None:
    """Write lines to stdout: to a program as they are, to a terminal without what could take hold of it."""
    shown = harmless if sys.stdout.isatty() else str
    for part in parts:
        sys.stdout.write(shown(part))
    sys.stdout.flush()


def _csv(*cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
