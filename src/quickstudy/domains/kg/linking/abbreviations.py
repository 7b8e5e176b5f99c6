"""Abbreviations that a text defines: "extensively drug-resistant tuberculosis (XDR-TB)".

Schwartz & Hearst 2003, A Simple Algorithm for Identifying Abbreviation Definitions in Biomedical Text, PSB: the
shortest piece before the bracket in which the letters of the short form stand in order, the first of them at a word's
beginning.
"""

import re
from collections.abc import Iterator

_BRACKETS = re.compile(r"[(\[]([^()\[\]\n]{2,40})[)\]]")


def definitions(text: str) -> dict[str, str]:
    """Long forms by short form, as the text writes them; the first definition of each counts."""
    found: dict[str, str] = {}
    for match in _BRACKETS.finditer(text):
        for short, before in _candidates(text, match):
            if (long := _long_form(short, before)) is not None:
                found.setdefault(short, long)
                break
    return found


def _candidates(text: str, match: re.Match[str]) -> Iterator[tuple[str, str]]:
    """(short form, what its long form should end): the bracket holds the one, or else the other."""
    inside = re.split(r"[;,]", match[1])[0].strip()
    before = text[max(0, match.start() - 300) : match.start()].rstrip()
    if _is_short(inside):
        most = min(len(inside) + 5, 2 * len(inside))  # words that a long form may have
        yield inside, " ".join(before.split()[-most:])
    last = before.split()[-1] if before else ""
    if _is_short(last) and len(match[1].split()) > 1:
        yield last, match[1]


def _is_short(word: str) -> bool:
    return (
        2 <= len(word) <= 10 and len(word.split()) <= 2 and word[0].isalnum() and any(map(str.isalpha, word))
    )


def _long_form(short: str, before: str) -> str | None:
    at = len(before)
    for place in range(len(short) - 1, -1, -1):
        letter = short[place].lower()
        if not letter.isalnum():
            continue
        at -= 1
        while at >= 0 and (before[at].lower() != letter or (place == 0 and not _begins(before, at))):
            at -= 1
        if at < 0:
            return None
    start = before.rfind(" ", 0, at + 1) + 1
    long = before[start:].strip()
    return long if len(long) > len(short) and short not in long.split() else None


def _begins(text: str, at: int) -> bool:
    """Whether a word begins there; X may stand for "ex"."""
    start = at - 1 if text[max(0, at - 1) : at + 1].lower() == "ex" else at
    return start == 0 or not text[start - 1].isalnum()
