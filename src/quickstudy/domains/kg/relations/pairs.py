"""Two entities in a text become a vector: what says how the text relates them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, holding, sentences
from quickstudy.encoders.text import TextEncoder
from quickstudy.nets.span_bert import BETWEEN, HEAD, TAIL, SpanBert

CONTEXT = 300
"""Characters kept on either side of a pair: more wouldn't fit into what an encoder reads at once."""


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
    for head, one in enumerate(spans):
        for tail, other in enumerate(spans):
            if head == tail or one.overlaps(other) or not places[head] or not places[tail]:
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


def pack(encoder: TextEncoder, pairs: Sequence[Pair]) -> Int[Tensor, "n token 2"]:
    """Pairs as the input of `SpanBert`: token ids + 1 and roles, padded with zeros.

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
    encodings = list(encoder.encodings([pair.text for pair in pairs])) if pairs else []
    packed = torch.zeros(len(pairs), max((len(e.ids) for e in encodings), default=0), 2, dtype=torch.int32)
    for row, (pair, encoding) in enumerate(zip(pairs, encodings, strict=True)):
        packed[row, : len(encoding.ids), 0] = torch.tensor(encoding.ids, dtype=torch.int32) + 1
        packed[row, : len(encoding.ids), 1] = torch.tensor(
            [_role(pair, a, b) for a, b in encoding.offsets], dtype=torch.int32
        )
    return packed


def _role(pair: Pair, start: int, end: int) -> int:
    if start == end:  # a special token
        return 0
    inside = [mark[0] < end and start < mark[1] for mark in (pair.head, pair.tail)]
    gap = min(pair.head[1], pair.tail[1]), max(pair.head[0], pair.tail[0])
    between = not any(inside) and gap[0] <= start and end <= gap[1]
    return HEAD * inside[0] + TAIL * inside[1] + BETWEEN * between


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
            with torch.inference_mode():
                vectors = self.net(pack(self.encoder, pairs[begin : begin + 2048]))
            found[begin : begin + 2048] = vectors
        return found


def default_layers(encoder: TextEncoder) -> tuple[int, ...]:
    """Two thirds up, and the top."""
    depth = encoder.weights.config.num_hidden_layers
    return tuple(sorted({max(1, round(depth * 2 / 3)), depth}))
