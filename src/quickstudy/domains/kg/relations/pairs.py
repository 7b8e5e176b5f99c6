"""Two entities in a text become a vector: what says how the text relates them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, holding, sentences
from quickstudy.domains.kg.entities.words import batches
from quickstudy.encoders.text import TextEncoder
from quickstudy.encoders.tokens import Encoding
from quickstudy.nets.span_bert import BETWEEN, HEAD, TAIL, SpanBert

CONTEXT = 300
"""Characters kept on either side of a pair: more wouldn't fit into what an encoder reads at once."""
GAP = " … "
"""In place of what is left out between two marks that stand too far apart for it."""


class Pair(NamedTuple):
    """A text, and which characters of it are the head and which the tail."""

    text: str
    head: tuple[int, int]
    tail: tuple[int, int]

    def turned(self) -> "Pair":
        """The same with head and tail exchanged."""
        return Pair(self.text, self.tail, self.head)


class Candidate(NamedTuple):
    """Two spans of a document, by number, that a relation may join."""

    head: int
    tail: int


def candidates(
    annotated: Annotated, *, across: int = 0, furthest: int = 400
) -> Iterator[tuple[Candidate, Pair]]:
    """All ordered pairs of spans that stand in one sentence and don't overlap.

    Args:
        across: how many sentence ends may lie between the two.
        furthest: characters between the two, at most.
    """
    text, spans = annotated.text, annotated.spans
    found = list(sentences(text))
    places = [holding(found, span.start, span.end) for span in spans]
    inside: dict[int, list[int]] = {}  # of each sentence, the spans that touch it
    for number, touched in enumerate(places):
        for place in touched:
            inside.setdefault(place, []).append(number)
    for head, one in enumerate(spans):
        if not places[head]:
            continue
        around = range(places[head][0] - across, places[head][-1] + across + 1)
        for tail in sorted({number for place in around for number in inside.get(place, ())}):
            other = spans[tail]
            if head == tail or one.overlaps(other):
                continue
            first, last = min(places[head][0], places[tail][0]), max(places[head][-1], places[tail][-1])
            apart = max(one.start, other.start) - min(one.end, other.end)
            inner = max(len(places[head]), len(places[tail])) - 1  # a span may itself hold a "sentence end"
            if last - first - inner > across or apart > furthest:
                continue
            yield Candidate(head, tail), marked(text, one[:2], other[:2], found[first].start, found[last].end)


def marked(
    text: str, head: tuple[int, int], tail: tuple[int, int], start: int = 0, end: int | None = None
) -> Pair:
    """The pair in `text[start:end]`, less what is further than CONTEXT from it."""
    end = len(text) if end is None else end
    start = max(start, min(head[0], tail[0]) - CONTEXT)
    end = min(end, max(head[1], tail[1]) + CONTEXT)
    return Pair(text[start:end], (head[0] - start, head[1] - start), (tail[0] - start, tail[1] - start))


class Packed(NamedTuple):
    """Pairs as the network takes them, each text once."""

    ids: Int[Tensor, "m token"]
    """Token ids + 1 of each text; zeros are padding."""
    of: Int[Tensor, " n"]
    """The number of each pair's text."""
    roles: Int[Tensor, "n token"]
    """Of each pair, what the tokens of its text are to it."""


def pack_once(encoder: TextEncoder, pairs: Sequence[Pair]) -> Packed:
    """Pairs as the input of `SpanBert.shared`.

    Where an encoder wouldn't read on to the end of both marks, the text is cut until it does: around them, then between
    them, and at last they themselves.

    Raises:
        DataError: a mark that is empty, or outside of its text.
    """
    for row, pair in enumerate(pairs):
        for start, end in (pair.head, pair.tail):
            if not 0 <= start < end <= len(pair.text):
                raise DataError(
                    f"a mark goes from {start} to {end} in a text of {len(pair.text)} characters; pairs are counted "
                    "from 0.",
                    row=row,
                )
    of, encodings = _encodings(encoder, pairs)
    if lost := [row for row, pair in enumerate(pairs) if not _read(encoder, pair, encodings[of[row]])]:
        fitted = dict(zip(lost, _fitted(encoder, [pairs[row] for row in lost]), strict=True))
        pairs = [fitted.get(row, pair) for row, pair in enumerate(pairs)]
        of, encodings = _encodings(encoder, pairs)
    longest = max((len(e.ids) for e in encodings), default=0)
    ids = torch.zeros(len(encodings), longest, dtype=torch.int32)
    places = torch.zeros(len(encodings), longest, 2, dtype=torch.int32)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int32) + 1
        places[row, : len(encoding.ids)] = torch.tensor(encoding.offsets, dtype=torch.int32)
    return Packed(ids, torch.tensor(of, dtype=torch.long), _roles(places[of], pairs))


def _encodings(encoder: TextEncoder, pairs: Sequence[Pair]) -> tuple[list[int], Sequence[Encoding]]:
    """The number of each pair's text, and the tokens of each text."""
    number: dict[str, int] = {}
    of = [number.setdefault(pair.text, len(number)) for pair in pairs]
    return of, encoder.encodings(list(number))


def _read(encoder: TextEncoder, pair: Pair, encoding: Encoding) -> bool:
    """Whether the tokens of a pair's text go on to the end of both marks."""
    if len(encoding.ids) < encoder.max_length:
        return True
    return max(pair.head[1], pair.tail[1]) <= max(end for _, end in encoding.offsets)


def _fitted(encoder: TextEncoder, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose marks an encoder doesn't read, with the longest texts of which it does."""
    whole = max(len(pair.text) for pair in pairs)
    sizes = [(around, whole, whole) for around in _smaller(CONTEXT)]
    sizes += [(0, between, whole) for between in _smaller(whole)] + [(0, 0, mark) for mark in _smaller(whole)]
    found, left = list(pairs), list(range(len(pairs)))
    for size in sizes:
        for row in left:
            found[row] = _cut(pairs[row], *size)
        encodings = encoder.encodings([found[row].text for row in left])
        left = [row for row, e in zip(left, encodings, strict=True) if not _read(encoder, found[row], e)]
        if not left:
            break
    return found


def _smaller(size: int) -> Iterator[int]:
    """Sizes down to 0, each three quarters of the one before."""
    while size:
        yield size
        size = size * 3 // 4
    yield 0


def _cut(pair: Pair, around: int, between: int, mark: int) -> Pair:
    """A pair with fewer characters around its marks, beside each of them where a gap is made between, and of each mark
    (of which one stays at least).
    """
    head, tail = ((start, min(end, start + max(1, mark))) for start, end in (pair.head, pair.tail))
    (begin, first), (second, end) = sorted((head, tail))
    begin, end = max(0, begin - around), min(len(pair.text), max(first, end) + around)
    if second - first <= 2 * between:
        text, moved = pair.text[begin:end], begin
    else:
        text = pair.text[begin : first + between] + GAP + pair.text[second - between : end]
        moved = second - between - (first + between - begin) - len(GAP)
    back = [moved if start >= second else begin for start, _ in (head, tail)]
    return Pair(text, *((start - by, end - by) for (start, end), by in zip((head, tail), back, strict=True)))


def pack(encoder: TextEncoder, pairs: Sequence[Pair]) -> Int[Tensor, "n token 2"]:
    """Pairs as the input of `SpanBert`: token ids + 1 and roles, padded with zeros. Raises as `pack_once`."""
    ids, of, roles = pack_once(encoder, pairs)
    return torch.stack([ids[of], roles], -1)


def _roles(places: Int[Tensor, "n token 2"], pairs: Sequence[Pair]) -> Int[Tensor, "n token"]:
    """From where tokens stand; special tokens and padding stand nowhere."""
    if not pairs:
        return torch.zeros(places.shape[:2], dtype=torch.int32)
    start, end = places.unbind(-1)
    head, tail = (
        torch.tensor(marks, dtype=torch.int32) for marks in zip(*(p[1:] for p in pairs), strict=True)
    )
    inside = [(mark[:, :1] < end) & (start < mark[:, 1:]) for mark in (head, tail)]
    after, before = torch.minimum(head[:, 1:], tail[:, 1:]), torch.maximum(head[:, :1], tail[:, :1])
    between = ~(inside[0] | inside[1]) & (after <= start) & (end <= before)
    roles = HEAD * inside[0].int() + TAIL * inside[1].int() + BETWEEN * between.int()
    return roles * (start < end)


class PairEncoder:
    """Vectors of pairs, by an encoder that may have been tuned for them."""

    def __init__(self, encoder: TextEncoder, layers: Sequence[int] | None = None) -> None:
        """`layers`: whose states are read; by default the middle of the upper half and the last: 4 and 6 of 6."""
        self.encoder = encoder
        self.net = SpanBert.load(encoder.weights.config, encoder.model.state_dict(), encoder.name)
        self.net.layers = tuple(layers or default_layers(encoder))
        self.dim = self.net.dim

    def encode(self, pairs: Sequence[Pair]) -> Float[Tensor, "n dim"]:
        """Vectors of pairs, in float32."""
        found = torch.empty(len(pairs), self.dim)
        for begin in range(0, len(pairs), 2048):
            ids, of, roles = pack_once(self.encoder, pairs[begin : begin + 2048])
            lengths = (ids > 0).sum(-1)
            for texts in batches(lengths.tolist()):
                width, number = int(lengths[texts].max()), torch.full((len(ids),), -1)
                number[texts] = torch.arange(len(texts))
                rows = (number[of] >= 0).nonzero().squeeze(-1)
                with torch.inference_mode():
                    vectors = self.net.shared(ids[texts, :width], number[of[rows]], roles[rows, :width])
                found[begin + rows] = vectors
        return found


def default_layers(encoder: TextEncoder) -> tuple[int, ...]:
    """Two thirds up, and the top."""
    depth = encoder.weights.config.num_hidden_layers
    return tuple(sorted({max(1, round(depth * 2 / 3)), depth}))
