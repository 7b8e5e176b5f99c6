"""PubTator: title and abstract, then mentions with their ids, then relations of ids, an empty line after each document.

    6794356|t|Tricuspid valve regurgitation …
    6794356|a|A newborn with …
    6794356    0    29    Tricuspid valve regurgitation    Disease    D014262
    6794356    CID    D016651    D003490

The text is the title, a blank and the abstract. A relation is said of ids, anywhere in the document: it is read as one
of every two mentions of them that share a sentence, or else of the two that are nearest to each other. A mention
with the id -1 has none.
"""

import re
from bisect import bisect_right
from pathlib import Path

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation, Span, sentences
from quickstudy.domains.kg.reading.rows import ROW_LIMIT, Notes, Rows, document
from quickstudy.files.source import TextSource, shortened

HEAD = re.compile(r"([^|\s]+)\|([ta])\|(.*)")

Line = tuple[int, str]


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    source = TextSource(path, ROW_LIMIT)
    lines: list[Line] = []
    for line in source.lines():
        line = line.rstrip("\r\n")
        begins = (head := HEAD.fullmatch(line)) is not None and head[2] == "t"
        if lines and (begins or not line.strip()):
            yield lines[0][0], lambda lines=lines: _annotated(path, lines)
            lines = []
        if line.strip():
            lines.append((source.row, line))
        source.row += 1
    if lines:
        yield lines[0][0], lambda: _annotated(path, lines)


def _annotated(path: Path, lines: list[Line]) -> Annotated:
    heads = [head for _, line in lines[:2] if (head := HEAD.fullmatch(line))]
    if not heads or heads[0][2] != "t" or any(head[1] != heads[0][1] for head in heads):
        raise DataError(f"{shortened(lines[0][1])!r} is no title; expected one such as 6794356|t|Title …")
    name, text = heads[0][1], " ".join(head[3] for head in heads)
    spans: list[Span] = []
    links: dict[int, str] = {}
    mentions: dict[str, list[int]] = {}  # of each id
    said: list[tuple[int, str, str, str]] = []
    for row, line in lines[len(heads) :]:
        cells = line.split("\t")
        if cells[0] != name:
            raise DataError(f"{shortened(line)!r} stands in the document {name}.", file=path, row=row)
        if len(cells) >= 4 and not cells[1].isdecimal():
            said.append((row, cells[1], cells[2], cells[3]))
            continue
        number = len(spans)
        spans.append(_mention(path, row, text, cells))
        ids = cells[5].strip() if len(cells) > 5 else ""
        if ids and ids != "-1":
            links[number] = ids
            for id in re.split(r"[|;,]", ids):
                mentions.setdefault(id, []).append(number)
    starts = [sentence.start for sentence in sentences(text)] if said else []
    place = [bisect_right(starts, span.start) for span in spans]
    relations: list[Relation] = []
    for row, kind, *ends in said:
        for id in ends:
            if id not in mentions:
                raise DataError(f"{kind} speaks of {id}, which no mention has.", file=path, row=row)
        pairs = _pairs(spans, place, mentions[ends[0]], mentions[ends[1]])
        if not pairs:
            raise DataError(
                f"{kind} leads from {ends[0]} to {ends[1]}, which are one mention.", file=path, row=row
            )
        relations += [Relation(head, tail, kind) for head, tail in pairs]
    return Annotated(document(path, lines[0][0], text, name), tuple(spans), tuple(relations), True, links)


def _mention(path: Path, row: int, text: str, cells: list[str]) -> Span:
    if len(cells) < 5 or not (cells[1].isdecimal() and cells[2].isdecimal() and cells[4]):
        raise DataError(
            f"{shortened(chr(9).join(cells))!r} is no mention; expected id, start, end, words, type and id in a "
            "catalogue, with tabs between.",
            file=path,
            row=row,
        )
    start, end = int(cells[1]), int(cells[2])
    if text[start:end] != cells[3]:
        raise DataError(
            f"{shortened(cells[3])!r} should stand from {start} to {end}, where the text has "
            f"{shortened(text[start:end])!r}. Are the offsets counted in bytes?",
            file=path,
            row=row,
        )
    return Span(start, end, cells[4])


def _pairs(spans: list[Span], place: list[int], heads: list[int], tails: list[int]) -> list[tuple[int, int]]:
    """The mentions between which a relation of two ids holds: all in one sentence, else the nearest."""
    near: dict[int, list[int]] = {}
    for tail in tails:
        near.setdefault(place[tail], []).append(tail)
    together = [(head, tail) for head in heads for tail in near.get(place[head], ()) if head != tail]
    if together:
        return together
    following = sorted(tails, key=lambda tail: spans[tail].start)
    starts = [spans[tail].start for tail in following]
    apart = []
    for head in heads:
        at = bisect_right(starts, spans[head].start)
        apart += [(head, tail) for tail in following[max(0, at - 1) : at + 1] if tail != head]
    return sorted(apart, key=lambda ends: abs(spans[ends[0]].start - spans[ends[1]].start))[:1]
