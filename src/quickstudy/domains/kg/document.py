"""What the domain works on: documents, and what people or models say is in them. Offsets count characters of the text.

A span's text is always a slice of its document: nothing is normalised, so every triple can be shown where it was said.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.schema import Schema


@dataclass(frozen=True)
class Document:
    """A text with a name."""

    id: str
    """Unique in a graph; by default the file's name, with the row where it holds several."""
    text: str
    source: str = ""
    """Where it came from: a path, an address."""


class Span(NamedTuple):
    """A mention: `text[start:end]`, of a type."""

    start: int
    end: int
    type: str

    def overlaps(self, other: "Span") -> bool:
        return self.start < other.end and other.start < self.end


class Relation(NamedTuple):
    """That the span numbered `head` has a relation to the one numbered `tail`, both of the same document."""

    head: int
    tail: int
    type: str


@dataclass(frozen=True)
class Annotated:
    """A document with spans and relations: labelled by a person, or found.

    Labels are taken to be complete within the sentences that hold any of them: where a sentence has spans, what isn't
    marked in it is none; sentences without any say nothing unless `complete`. Of `partial` ones, only what is said was
    judged: their spans teach no entities, and of two spans nothing is known that neither `relations` nor `unrelated`
    says.
    """

    document: Document
    spans: tuple[Span, ...] = ()
    relations: tuple[Relation, ...] = ()
    complete: bool = False
    """Whether all of the document was labelled: sentences without a span then hold none."""
    links: dict[int, str] = field(default_factory=dict)
    """Span number -> the id that it has in a catalogue."""
    partial: bool = False
    unrelated: tuple[tuple[int, int], ...] = ()
    """Numbers of spans, head and tail, of which somebody said that no relation leads from the one to the other."""

    @property
    def text(self) -> str:
        return self.document.text

    def of(self, span: int) -> str:
        """The words of a span, by its number."""
        start, end, _ = self.spans[span]
        return self.text[start:end]

    def checked(self, schema: Schema | None = None, row: int | str | None = None) -> "Annotated":
        """The same, if offsets lie in the text and, where a schema is given, types are its own.

        `row` is where it stands in its file, for errors.

        Raises:
            DataError: says which span or relation, with the words around it.
        """
        where, size = self.document.source or self.document.id, len(self.text)
        for number, (start, end, kind) in enumerate(self.spans):
            if not 0 <= start < end <= size:
                raise DataError(
                    f"span {number} ({kind}) goes from {start} to {end}; expected 0 ≤ start < end ≤ {size}, the length "
                    f"of document {self.document.id!r} in characters.",
                    file=where,
                    row=row,
                )
            if not self.text[start:end].strip():
                raise DataError(
                    f"span {number} ({kind}), {start} to {end}, holds nothing but blanks.",
                    file=where,
                    row=row,
                )
            if schema is not None and kind not in schema.entities:
                raise DataError(
                    f"span {number}, {self.text[start:end][:40]!r}, is of the type {kind!r}, which the schema doesn't "
                    f"have.{did_you_mean(kind, schema.entities)} It has: {', '.join(schema.entities)}.",
                    file=where,
                    row=row,
                )
        for number, (head, tail, kind) in enumerate(self.relations):
            for end, name in ((head, "head"), (tail, "tail")):
                if not 0 <= end < len(self.spans):
                    raise DataError(
                        f"relation {number} ({kind}): its {name} is span {end}; there are {len(self.spans)}, from 0.",
                        file=where,
                        row=row,
                    )
            if head == tail:
                raise DataError(
                    f"relation {number} ({kind}) leads from span {head} to itself.", file=where, row=row
                )
            if schema is not None:
                problem = schema.misfit(kind, self.spans[head].type, self.spans[tail].type)
                if problem:
                    words = f"{self.of(head)[:40]!r} → {self.of(tail)[:40]!r}"
                    raise DataError(f"relation {number}, {words}: {problem}", file=where, row=row)
        for head, tail in self.unrelated:
            if not (0 <= head < len(self.spans) and 0 <= tail < len(self.spans)) or head == tail:
                raise DataError(
                    f"unrelated are the spans {head} and {tail}, of {len(self.spans)} counted from 0.",
                    file=where,
                    row=row,
                )
        return self


class Sentence(NamedTuple):
    """A piece of a text, `text[start:end]`."""

    start: int
    end: int


# What may end a sentence. Every alternative takes its whole run at once and nothing has to follow, so a text of stops
# alone is passed over once; what stands around is looked at afterwards.
_STOP = re.compile(
    r"(?P<stop>[.!?…]+)[\"'”’»)\]]*"
    r"|[。！？｡]+[”’」』）】》]*|[।॥؟۔]+"  # of scripts that put no blank, or have no capitals
    r"|\n[^\S\n]*\n\s*"  # an empty line
    r"|^\#{1,6}[ \t][^\n]*\n"  # a heading of Markdown
    r"|\n(?=[ \t]*(?:[-*+•‣▪◦●–—]|\d{1,3}[.)]|\#{1,6})[ \t])",  # a line before an item of a list, or a heading
    re.MULTILINE,
)
_NEXT = re.compile(r"\s+[\"'“‘«(\[]*")
# The word with its apostrophe: the s of "St Anne's." is no initial.
_BEFORE = re.compile(r"(?:(?<=\w)'|[^\s\"'“‘«(\[/])*\Z")
_INITIALS = re.compile(r"(?:[^\W\d_]\.-?)*[^\W\d_]")
_TITLES = re.compile(
    r"Dr|Mrs?|M[sxt]|Prof|St|[JS]r|Gen|Sen|Rep|Gov|Lt|Col|Capt|Sgt|Rev|Hon|Pres|Inc|Ltd|Co|Corp|Bros|Dept|[Vv]s|[Cc]f|al|"
    r"viz|Ph\.D"
)
_NUMBERED = re.compile(  # where a number follows; else the same letters may be a word. A "P" is an initial.
    r"nos?|arts?|secs?|figs?|eqs?|vols?|(?-i:p)|pp|ch|ca|approx|refs?|tab|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 16


def sentences(text: str, longest: int = 1000) -> Iterator[Sentence]:
    """The sentences of a text, without the blanks around them: together they hold all that isn't blank.

    They end at a full stop, question or exclamation mark before a blank and what may begin a sentence (not after an
    initial, a title or an abbreviation), at an empty line, and before an item of a list. One that is longer than
    `longest` characters is cut at the last blank before that. Takes time in proportion to the text, whatever it holds.
    """
    if longest < 1:
        raise DataError(f"longest is {longest}; a sentence has at least one character.")
    begin = 0
    for end in _STOP.finditer(text):
        if end["stop"] and not _ends(text, begin, end):
            continue
        yield from _pieces(text, begin, end.end(), longest)
        begin = end.end()
    yield from _pieces(text, begin, len(text), longest)


def _ends(text: str, begin: int, end: re.Match[str]) -> bool:
    """Whether a sentence that begins at `begin` ends at a stop: judged by what follows, and by the word before."""
    gap = _NEXT.match(text, end.end())
    following = text[gap.end() : gap.end() + 1] if gap else ""
    if not following or following.islower() or not following.isalnum():
        return False
    if end[0] != ".":
        return True
    nearest = max(begin, end.start() - _LONGEST_ABBREVIATION)
    before = text[nearest : end.start()]
    word = _BEFORE.search(before)[0]  # pyright: ignore[reportOptionalSubscript]
    if word.isdigit() and len(word) <= 3:  # "1. Introduction" is one
        _, newline, line = before.rpartition("\n")
        return not (line.strip() == word and (newline or nearest == begin))
    if _NUMBERED.fullmatch(word):
        return not following.isdigit()
    return not _TITLES.fullmatch(word) and not (_INITIALS.fullmatch(word) and word.lower() != word.upper())


def _pieces(text: str, start: int, end: int, longest: int) -> Iterator[Sentence]:
    start, end = trimmed(text, start, end)
    while end - start > longest:
        cut = max(text.rfind(blank, start + 1, start + longest + 1) for blank in " \n\t")
        cut = start + longest if cut < 0 else cut
        yield Sentence(*trimmed(text, start, cut))
        start, _ = trimmed(text, cut, end)
    if start < end:
        yield Sentence(start, end)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The same stretch of a text without the blanks at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def words(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Offsets of words: runs of letters and digits, accents and vowel signs with them; one by one, other signs and
    letters of Chinese, Japanese and Korean. Together they hold all that isn't blank.
    """
    return [match.span() for match in _WORD.finditer(text, start, len(text) if end is None else end)]


SINGLE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts without blanks, as a regular expression's set: each counts as a word."""
_MARKS = "".join(
    chr(code) for code in range(0x300, 0x1E00) if unicodedata.category(chr(code)).startswith("M")
)
_WORD = re.compile(rf"[{SINGLE}]|[^\W_{SINGLE}](?:[^\W_{SINGLE}]|[{_MARKS}])*|[^\w\s]|_")


def holding(found: Sequence[Sentence], start: int, end: int) -> range:
    """Numbers of the sentences (in the order of the text) that a span touches."""
    first = bisect_right(found, start, key=lambda sentence: sentence.end)
    return range(first, max(first, bisect_left(found, end, key=lambda sentence: sentence.start)))
