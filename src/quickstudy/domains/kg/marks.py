r"""Sentences with their mentions marked in the text, the way that is quickest to write by hand.

    [company]{Acme plc} named [person]{Jo Ray} its head.

Marks may stand within marks. A backslash before `[`, `]`, `{`, `}` or `\` takes the sign as it is.
"""

import re

from quickstudy.core.errors import DataError

_SIGN = re.compile(r"\\([\[\]{}\\])|\[([^\[\]{}\\\n]{1,100})\]\{|\}")


def unmarked(marked: str) -> tuple[str, list[tuple[int, int, str]]]:
    r"""The text without its marks; and (start, end, name) of each, in the order of their beginnings.

    >>> unmarked(r"[company]{Acme plc} named [person]{Jo}.")
    ('Acme plc named Jo.', [(0, 8, 'company'), (15, 17, 'person')])

    Raises DataError for a mark that isn't closed, or a } that closes none.
    """
    parts: list[str] = []
    length, at = 0, 0
    opened: list[int] = []
    spans: list[tuple[int, int, str]] = []
    for sign in _SIGN.finditer(marked):
        between = marked[at : sign.start()] + (sign[1] or "")
        parts.append(between)
        length, at = length + len(between), sign.end()
        if sign[2]:
            opened.append(len(spans))
            spans.append((length, -1, sign[2].strip()))
        elif not sign[1]:
            if not opened:
                around = marked[max(0, sign.start() - 30) : sign.end()]
                raise DataError(f"a }} closes no mark, after {around!r}. One that is meant is written \\}}.")
            start, _, name = spans[opened[-1]]
            spans[opened.pop()] = (start, length, name)
    text = "".join([*parts, marked[at:]])
    if opened:
        start, _, name = spans[opened[-1]]
        raise DataError(f"the mark [{name}]{{ is never closed by a }}; it begins {text[start:][:30]!r}.")
    return text, spans


def marked(text: str, spans: list[tuple[int, int, str]]) -> str:
    """The inverse of `unmarked`, for spans that are nested or apart."""
    signs: list[tuple[int, int, int, str]] = []
    for start, end, name in spans:
        signs += [(start, 1, -end, f"[{name}]{{"), (end, 0, -start, "}")]
    parts, at = [], 0
    for place, _, _, sign in sorted(signs):
        parts += [_plain(text[at:place]), sign]
        at = place
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    return re.sub(r"([\[\]{}\\])", r"\\\1", text)
