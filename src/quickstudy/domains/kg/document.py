"""What the domain works on: documents, and what people or models say is in them. Offsets count characters of the text.

A span's text is always a slice of its document: nothing is normalised, so every triple can be shown where it was said.
"""

import re
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
    marked in it is none; sentences without any say nothing unless `complete`.
    """

    document: Document
    spans: tuple[Span, ...] = ()
    relations: tuple[Relation, ...] = ()
    complete: bool = False
    """Whether all of the document was labelled: sentences without a span then hold none."""
    links: dict[int, str] = field(default_factory=dict)
    """Span number -> the id that it has in a catalogue."""

    @property
    def text(self) -> str:
        return self.document.text

    def of(self, span: int) -> str:
        """The words of a span, by its number."""
        start, end, _ = self.spans[span]
        return self.text[start:end]

    def checked(self, schema: Schema | None = None) -> "Annotated":
        """The same, if offsets lie in the text and, where a schema is given, types are its own.

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
                )
            if not self.text[start:end].strip():
                raise DataError(
                    f"span {number} ({kind}), {start} to {end}, holds nothing but blanks.", file=where
                )
            if schema is not None and kind not in schema.entities:
                raise DataError(
                    f"span {number}, {self.text[start:end][:40]!r}, is of the type {kind!r}, which the schema doesn't "
                    f"have.{did_you_mean(kind, schema.entities)} It has: {', '.join(schema.entities)}.",
                    file=where,
                )
        for number, (head, tail, kind) in enumerate(self.relations):
            for end, name in ((head, "head"), (tail, "tail")):
                if not 0 <= end < len(self.spans):
                    raise DataError(
                        f"relation {number} ({kind}): its {name} is span {end}; there are {len(self.spans)}, from 0.",
                        file=where,
                    )
            if head == tail:
                raise DataError(f"relation {number} ({kind}) leads from span {head} to itself.", file=where)
            if schema is not None:
                schema.check_relation(kind, self.spans[head].type, self.spans[tail].type, where)
        return self


class Sentence(NamedTuple):
    """A piece of a text, `text[start:end]`."""

    start: int
    end: int


# An end is a full stop, question or exclamation mark (with closing quotes or brackets) before a blank and what may
# begin a sentence; or an empty line. A stop after a single letter, a title or an abbreviation ends nothing.
_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s+[\"'“‘(\[]*[A-Z0-9À-ÖØ-Þ])|[。！？]+[”’」』）]*)|\n\s*\n")
_NO_END = re.compile(
    r"(?:^|[\s(\[])(?:[A-Za-zÀ-ÖØ-Þ]|[Dd]r|[Mm]rs?|Ms|Prof|St|Jr|Sr|vs|[Cc]f|e\.g|i\.e|etc|al|[Ff]igs?|[Ee]qs?|[Nn]os?|[Vv]ol|"
    r"[Pp]p?|approx|ca|Inc|Ltd|Co|Corp|[Aa]rt|[Ss]ec|U\.S|U\.K|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.$"
)


def sentences(text: str, longest: int = 1000) -> Iterator[Sentence]:
    """The sentences of a text, without the blanks around them. One that is longer than `longest` characters is cut at
    the last blank before that.
    """
    begin = 0
    for end in _END.finditer(text):
        if end[0].strip() == "." and _NO_END.search(text, begin, end.end()):
            continue
        yield from _pieces(text, begin, end.end(), longest)
        begin = end.end()
    yield from _pieces(text, begin, len(text), longest)


def _pieces(text: str, start: int, end: int, longest: int) -> Iterator[Sentence]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > longest:
        cut = text.rfind(" ", start + 1, start + longest + 1)
        cut = start + longest if cut < 0 else cut
        yield Sentence(start, cut)
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield Sentence(start, end)


def words(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Offsets of words: runs of letters and digits; one by one, other signs and letters of scripts without blanks."""
    return [match.span() for match in _WORD.finditer(text, start, len(text) if end is None else end)]


_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]|_"
)


def holding(found: Sequence[Sentence], start: int, end: int) -> range:
    """Numbers of the sentences that a span touches."""
    first = next((i for i, sentence in enumerate(found) if sentence.end > start), len(found))
    last = first
    while last < len(found) and found[last].start < end:
        last += 1
    return range(first, last)
