"""brat: a .txt and, beside it, an .ann with one annotation a line. A folder holds many of such pairs.

T lines are mentions, R lines relations. An event (E) becomes one relation a role, from its trigger to what fills the
role. N lines give mentions their ids in a catalogue. A mention in several pieces is taken from its first to its last
character; attributes (A, M), equivalences (*) and notes (#) have no place in a graph. Both are said in a warning.
"""

import re
from pathlib import Path

from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.reading.rows import FILE_LIMIT, LeftOut, Notes, Rows, document
from quickstudy.files.source import TextSource, files_below, shortened, whole_text

_MENTION = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")
_LONGEST = FILE_LIMIT // 4


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says, from a folder or from one of the two files."""
    if path.is_file():
        yield path.name, lambda: _annotated(path.with_suffix(".ann"), path.stem, notes)
        return
    files = files_below(path)
    for file in files:
        if file.suffix == ".ann":
            name = file.relative_to(path).with_suffix("").as_posix()
            yield name, lambda file=file, name=name: _annotated(file, name, notes)
        elif file.suffix == ".txt" and file.with_suffix(".ann") not in files:
            yield file.name, _left_out


def _left_out() -> Annotated:
    raise LeftOut("a .txt without an .ann beside it")


def _annotated(path: Path, name: str, notes: Notes) -> Annotated:
    doc = document(path, name, whole_text(path.with_suffix(".txt"), _LONGEST), name)
    source = TextSource(path)
    spans: list[Span] = []
    number: dict[str, int] = {}  # span of T1, and of the trigger of E1
    later: dict[str, tuple[int, str]] = {}  # what speaks of mentions, which may stand below it
    for line in source.lines():
        key, _, rest = line.rstrip("\r\n").partition("\t")
        kind = key[:1]
        if key in number or key in later:
            raise source.error(f"{key} stands twice.")
        if kind == "T":
            number[key] = len(spans)
            spans.append(_mention(source, doc.text, rest, notes))
        elif kind and kind in "ERN":
            later[key] = source.row, rest
        elif kind and kind in "AM*#":
            what = {"#": "note", "*": "equivalence"}.get(kind, "attribute")
            notes[f"{what} passed over"] += 1
        elif line.strip():
            raise source.error(
                f"{shortened(line)!r} is no line of brat; they begin with T, R, E, A, M, N, * or #."
            )
        source.row += 1
    for key, (source.row, rest) in later.items():
        if key[0] == "E":
            number[key] = _spanned(source, rest.partition(" ")[0].rpartition(":")[2], number)
    relations: list[Relation] = []
    links: dict[int, str] = {}
    for key, (source.row, rest) in later.items():
        if key[0] == "N":
            _link(source, rest, number, links, notes)
        else:
            relations += _relations(source, key, rest, number)
    return Annotated(doc, tuple(spans), tuple(relations), links=links)


def _mention(source: TextSource, text: str, rest: str, notes: Notes) -> Span:
    where, _, said = rest.partition("\t")
    found = _MENTION.fullmatch(where)
    if not found:
        raise source.error(
            f"{shortened(rest)!r} is no mention; expected a type, start and end, a tab, the words."
        )
    pieces = [tuple(map(int, piece.split())) for piece in found[2].split(";")]
    start, end = min(first for first, _ in pieces), max(last for _, last in pieces)
    if not 0 <= start < end <= len(text):
        raise source.error(
            f"{shortened(said)!r} goes from {start} to {end}; the text has {len(text):,} characters."
        )
    there = " ".join(text[first:last] for first, last in pieces)
    if said and there.split() != said.split():
        raise source.error(
            f"{shortened(said)!r} should stand at {start}, where the text has {shortened(there)!r}. Was the text "
            "changed after it was labelled?"
        )
    notes["mention in pieces, taken from the first to the last"] += len(pieces) > 1
    return Span(start, end, found[1])


def _relations(source: TextSource, key: str, rest: str, number: dict[str, int]) -> list[Relation]:
    kind, *ends = rest.split()
    roles = [end.rpartition(":") for end in ends]
    if key[0] == "E":
        return [Relation(number[key], _spanned(source, name, number), role) for role, _, name in roles]
    if len(roles) != 2:
        raise source.error(
            f"{shortened(rest)!r} is no relation; expected one such as works_for Arg1:T1 Arg2:T2."
        )
    head, tail = (_spanned(source, name, number) for _, _, name in roles)
    return [Relation(head, tail, kind)]


def _spanned(source: TextSource, name: str, number: dict[str, int]) -> int:
    if name not in number:
        raise source.error(f"speaks of {shortened(name)!r}, and there is no such mention.")
    return number[name]


def _link(source: TextSource, rest: str, number: dict[str, int], links: dict[int, str], notes: Notes) -> None:
    parts = rest.partition("\t")[0].split(" ", 2)
    if len(parts) != 3:
        raise source.error(
            f"{shortened(rest)!r} is no reference; expected one such as Reference T1 Wikidata:Q42."
        )
    span = _spanned(source, parts[1], number)
    if span in links:
        notes["second id of a mention passed over"] += 1
    links.setdefault(span, parts[2])
