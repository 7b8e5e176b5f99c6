"""Which column holds what, and its cells as clean text."""

import math
import re
from collections.abc import Sequence
from typing import Any

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.task import blank, lone_surrogate
from quickstudy.files.source import LIMIT, quoted, shortened
from quickstudy.files.tables import Bad, Table

# Names by which a column is found, the likeliest first; upper case, spaces and hyphens don't matter.
TEXT_NAMES = ("text", "sentence", "utterance", "query", "content", "question", "message", "comment", "review",
              "document", "body", "raw", "input", "tweet", "post", "title", "headline", "example")  # fmt: skip
LABEL_NAMES = ("label_name", "label_text", "label", "labels", "category", "class", "intent", "target", "topic",
               "sentiment", "class_name", "output", "y")  # fmt: skip
DESCRIPTION_NAMES = ("label_description", "description", "definition")
BAD_ROWS = 5  # named in one error


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def find(
    table: Table,
    role: str,
    given: str | None,
    names: Sequence[str],
    taken: Sequence[str | None] = (),
) -> str | None:
    """The column for a role: the given one (else DataError), or the first known name; None when there is none."""
    if given is not None:
        found = [name for name in table.columns if name == given] or [
            name for name in table.columns if _plain(name) == _plain(given)
        ]
        if len(found) == 1:
            return found[0]
        raise DataError(
            f'no column "{shortened(given)}" for the {role}: there are {quoted(table.columns)}.'
            f"{did_you_mean(given, table.columns)}",
            file=table.name,
            row=table.header,
        )
    free = {_plain(name): name for name in reversed(table.columns) if name not in taken}
    return next((free[name] for name in names if name in free), None)


def header_is_data(table: Table) -> bool:
    """Whether the columns' names read like sentences: then the header is missing."""
    return any(len(name.split()) > 3 or name.endswith((".", "?", "!")) for name in table.columns)


def not_found(table: Table, role: str, names: Sequence[str]) -> DataError:
    """The error for a role (text, label, description) that no column's name tells."""
    if header_is_data(table):
        hint = f'Is the header missing? Then add a first row such as "text,label": it is {quoted(table.columns)}.'
    else:
        known = {*TEXT_NAMES, *LABEL_NAMES, *DESCRIPTION_NAMES}
        free = [name for name in table.columns if _plain(name) not in known]
        close = next((name for name in free if did_you_mean(_plain(name), names[:8])), None)
        guess = f' Did you mean "{close}"?' if close else ""
        hint = f'There are {quoted(table.columns)}.{guess} Name it: {role}="{close or "..."}", or rename it "{role}".'
    return DataError(f"no column is known to hold the {role}. {hint}", file=table.name, row=table.header)


def collect(
    table: Table, columns: Sequence[str], limit: int = LIMIT, may_be_empty: str | None = None
) -> tuple[list[Any], list[list[str]]]:
    """Row numbers and each column's clean texts; DataError naming the first bad rows, or that there are no rows."""
    rows: list[Any] = []
    kept: list[list[str]] = [[] for _ in columns]
    bad: list[tuple[Any, str]] = []
    for row, values in table.rows(columns):
        cells = values if isinstance(values, Bad) else _clean_row(columns, values, limit, may_be_empty)
        if isinstance(cells, Bad):
            bad.append((row, cells))
            if len(bad) == BAD_ROWS:
                break
        else:
            rows.append(row)
            for column, cell in zip(kept, cells, strict=True):
                column.append(cell)
    if bad:
        also = "".join(f"; row {row}: {problem}" for row, problem in bad[1:])
        raise DataError(f"{bad[0][1]}{also}.", file=table.name, row=bad[0][0])
    if not rows:
        raise DataError("holds no example.", file=table.name)
    return rows, kept


def _clean_row(
    columns: Sequence[str], values: Sequence[Any], limit: int, may_be_empty: str | None
) -> list[str] | Bad:
    cells = [clean_text(value, limit) for value in values]
    for i, name in enumerate(columns):
        if name == may_be_empty and isinstance(cells[i], Bad) and cells[i] in (_EMPTY, _MISSING):
            cells[i] = ""
    wrong = [f'"{name}" {cell}' for name, cell in zip(columns, cells, strict=True) if isinstance(cell, Bad)]
    return Bad(" and ".join(wrong)) if wrong else cells


_EMPTY, _MISSING = Bad("is empty"), Bad("is missing (null or NaN)")


def clean_text(value: Any, limit: int = LIMIT) -> str:
    """One cell as text without white space at its ends, or a `Bad` that says why not ("is empty", ...)."""
    if getattr(value, "ndim", None) == 0:  # a numpy scalar
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return _MISSING
    if isinstance(value, float) and math.isnan(value):
        return _MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return Bad(f"is {type(value).__name__} ({shortened(value)}); expected text or a number")
    if isinstance(value, Bad):
        return Bad(f"cannot be read: {value}")
    value = value.strip()
    if len(value) > limit:
        return Bad(f"is longer than {limit:,} characters")
    if "\0" in value:
        return Bad("holds a NUL character")
    if lone_surrogate(value):
        return Bad("holds half of a surrogate pair, which no encoding can write")
    return _EMPTY if blank(value) else value


def one_each(
    table: Table, rows: Sequence[Any], labels: Sequence[str], texts: Sequence[str]
) -> dict[str, str]:
    """Each label's one description, empty ones left out; DataError when a label has two."""
    descriptions: dict[str, str] = {}
    for row, label, text in zip(rows, labels, texts, strict=True):
        if text and descriptions.setdefault(label, text) != text:
            raise DataError(
                f'a second description of "{shortened(label)}": "{shortened(text)}", before '
                f'"{shortened(descriptions[label])}". Keep one; rename the column if it does not describe the label.',
                file=table.name, row=row,
            )  # fmt: skip
    return descriptions
