"""The text of a PDF, page by page, by pypdf (extra `kg`). Offsets count in this text; pages have an empty line between.

Nothing is put right: a word that is broken at the end of a line stays so. A page that is a picture has no text; it
takes an OCR program, such as ocrmypdf, to write it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickstudy.core.errors import DataError, missing_extra
from quickstudy.files.source import shortened

_OCR = "If they are scanned, write the text into it first: ocrmypdf in.pdf out.pdf"


def text_of_pdf(path: Path) -> Iterator[str]:
    """The text in pieces, a page each. A warning names pages without text.

    Raises:
        DataError: it is encrypted, no PDF, damaged, or all of its pages are without text.
        MissingExtra: pypdf isn't installed.
    """
    try:
        import pypdf
    except ImportError:
        raise missing_extra("pypdf", "kg") from None
    with _quiet():
        try:
            reader = pypdf.PdfReader(path)
            locked = reader.is_encrypted and not reader.decrypt("")
            count = 0 if locked else len(reader.pages)
        except Exception as problem:  # damage shows as anything: KeyError, RecursionError, …
            raise _unreadable(path, problem) from None
    if locked:
        raise DataError("the PDF needs a password: save a copy without one (qpdf --decrypt).", file=path)
    empty: list[int] = []
    for number in range(count):
        with _quiet():
            try:
                text = reader.pages[number].extract_text()
            except Exception as problem:
                raise _unreadable(path, problem, f" on page {number + 1}") from None
        text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        if text.strip():
            yield text.rstrip() + "\n\n"
        else:
            empty.append(number + 1)
    pages = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
    if len(empty) == count:
        raise DataError(f"a PDF without text, on any of its {count} pages. {_OCR}", file=path)
    if empty:
        warnings.warn(
            f"{path}: no text on {len(empty)} of {count} pages ({pages}). {_OCR}", UserWarning, stacklevel=2
        )


def _unreadable(path: Path, problem: Exception, where: str = "") -> DataError:
    kind = type(problem).__name__
    if kind == "DependencyError":  # AES without the package cryptography
        return DataError(f"the PDF is encrypted ({shortened(problem)}): save a copy that isn't.", file=path)
    said = f"{kind}: {shortened(problem)}"
    return DataError(f"no PDF that can be read{where} ({said}). Is it cut off? Save it again.", file=path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pypdf's own remarks, which it logs to the terminal."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(
        logging.CRITICAL + 1
    )  # its modules' loggers go by this level; by a filter here they wouldn't
    try:
        yield
    finally:
        logger.setLevel(before)
