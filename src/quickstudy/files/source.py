"""Text files in pieces of bounded size, so that a 1 GB line is refused before it is in memory."""

import codecs
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError, did_you_mean

LIMIT = (
    2**20
)  # bytes a line, characters a field: a text to classify is far shorter, a file without lines longer
_FOREIGN = {  # first bytes -> what the file is; the longer beginning stands before the shorter
    codecs.BOM_UTF32_LE: "in UTF-32: save it as UTF-8",
    codecs.BOM_UTF32_BE: "in UTF-32: save it as UTF-8",
    codecs.BOM_UTF16_LE: "in UTF-16 (Excel's 'Unicode text'): save it as UTF-8, in Excel as 'CSV UTF-8'",
    codecs.BOM_UTF16_BE: "in UTF-16: save it as UTF-8",
    b"PK\x03\x04": "an Excel workbook or a zip file under another name: save it as 'CSV UTF-8'",
    b"\x1f\x8b": "packed with gzip: add .gz to its name",
    b"PAR1": "a Parquet file: rename it to .parquet",
}


class TextSource:
    """The UTF-8 text of a file in bounded pieces. Whoever reads keeps `row`; errors name file, row and byte."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self.limit, self.row, self._taken = path, limit, 1, 0

    def error(self, problem: str) -> DataError:
        return DataError(problem, file=self.path, row=self.row)

    def lines(self) -> Iterator[str]:
        """Lines with their ends. Raises DataError at the first that is too long, not UTF-8, or holds a NUL."""
        with self._open() as file:
            while data := file.readline(self.limit + 1):
                self._taken += len(data)
                if len(data) > self.limit:
                    raise self.error(
                        f"a line longer than {self.limit:,} bytes. Is this a text file, one row a line?"
                    )
                if b"\0" in data:
                    raise self.error(
                        f"a NUL byte at offset {self._taken - len(data) + data.index(0)}: the file is damaged, or "
                        "not UTF-8 text (UTF-16?). Save it as UTF-8."
                    )
                try:
                    yield data.decode()
                except UnicodeDecodeError as error:
                    raise self._not_utf8(error) from None

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Lines with their rows; keeps `row`."""
        for line in self.lines():
            yield self.row, line
            self.row += 1

    def chunks(self) -> Iterator[str]:
        """The text in pieces of up to 64 kB, none of them empty, wherever its lines end."""
        decoder, last = codecs.getincrementaldecoder("utf-8")(), False
        with self._open() as file:
            while not last:
                data = file.read(2**16)
                self._taken, last, broken = self._taken + len(data), not data, None
                try:
                    text = decoder.decode(data, last)
                except UnicodeDecodeError as error:
                    text, broken = error.object[: error.start].decode(), error
                if text:
                    yield text
                if broken:  # only now, so that `row` has come to the byte
                    raise self._not_utf8(broken)

    def starts_with(self, character: str) -> bool:
        """Whether this is the first character that isn't white space (within the first 64 bytes)."""
        with self._open() as file:
            return file.peek(64)[:64].lstrip().startswith(character.encode())

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with (gzip.open if self.path.suffix.lower() == ".gz" else open)(self.path, "rb") as file:
                head = file.peek(4)
                for beginning, what in _FOREIGN.items():
                    if head.startswith(beginning):
                        raise DataError(f"the file is {what}.", file=self.path)
                self._taken = len(file.read(3)) if head.startswith(codecs.BOM_UTF8) else 0
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(f"the .gz is damaged or cut off ({error}).") from None
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}.", file=self.path) from None

    def _not_utf8(self, error: UnicodeDecodeError) -> DataError:
        data, at = error.object, error.start
        around = shortened(data[max(0, at - 20) : at + 20].decode("cp1252", errors="replace"))
        return self.error(
            f"byte 0x{data[at]:02x} at offset {self._taken - len(data) + at} is not UTF-8. Convert the file from its "
            f'own encoding; if it is Windows-1252 this reads "{around}", and this converts it: '
            "iconv -f WINDOWS-1252 -t UTF-8 old > new"
        )


def whole_text(path: Path, limit: int = LIMIT) -> str:
    """All of a short text file; DataError when it has more than `limit` characters."""
    source = TextSource(existing(path), limit)
    parts, size = [], 0
    for line in source.lines():
        parts.append(line)
        size += len(line)
        if size > limit:
            raise source.error(f"the text is longer than {limit:,} characters.")
        source.row += 1
    return "".join(parts)


def existing(path: str | PathLike[str]) -> Path:
    """The path, when a regular file or a folder is there; else DataError, with the closest name in its folder."""
    path = Path(path)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise DataError("neither a file nor a folder.", file=path)
    if path.is_symlink():
        raise DataError("a symbolic link that leads nowhere.", file=path)
    if not path.parent.is_dir():
        raise DataError(f'not found: there is no folder "{path.parent}".', file=path)
    raise DataError(
        f"not found.{did_you_mean(path.name, [child.name for child in path.parent.iterdir()])}", file=path
    )


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and those below, sorted, without hidden ones. DataError for a link that leads out of it."""
    files = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_symlink() and not existing(path).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"a symbolic link that leads out of {folder}: copy the original.", file=path)
        if not path.is_dir():
            files.append(existing(path))
    return files


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in lower case, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def quoted(words: Sequence[Any]) -> str:
    """Words in quotes, separated by commas, cut after eight."""
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(f'"{shortened(word)}"' for word in words[:8]) + more


def shortened(value: Any) -> str:
    """One line of at most 60 characters, to quote in an error."""
    line = " ".join(str(value)[:400].split())
    return line if len(line) <= 60 else line[:57] + "..."
