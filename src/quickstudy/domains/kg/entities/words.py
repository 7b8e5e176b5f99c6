"""Sentences become words with states: which characters a word has, what it looks like, and what the encoder says of it.

Words are those of `document.words`; a span is a run of whole words, so its text is always a slice of the document.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.task import blank
from quickstudy.domains.kg.document import Document, Span, sentences, trimmed, words
from quickstudy.encoders.text import TextEncoder
from quickstudy.encoders.tokens import Encoding
from quickstudy.nets.lora import LoRA
from quickstudy.nets.word_bert import WordBatch, WordBert

SHAPES = 27
"""How many shapes of words there are, 0 (none) included."""
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Sentence:
    """The words of one sentence, ready for the network."""

    offsets: tuple[tuple[int, int], ...]
    """Where in its document each word stands, in characters."""
    ids: tuple[int, ...]
    word: tuple[int, ...]
    """For each token the number of its word, from 1; 0 for special tokens."""
    shape: tuple[int, ...]
    """For each word, what it looks like."""

    def __len__(self) -> int:
        return len(self.offsets)

    def first(self, words: int) -> "Sentence":
        """The same without the words after the first so many; their tokens stay to be read."""
        word = tuple(w if w <= words else 0 for w in self.word)
        return Sentence(self.offsets[:words], self.ids, word, self.shape[:words])

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """The words that the characters from `start` to `end` touch: (first, last + 1), or None for none."""
        first = bisect_right([e for _, e in self.offsets], start)
        last = bisect_left([s for s, _ in self.offsets], end)
        return (first, last) if first < last else None

    def spans(self, given: Sequence[Span]) -> list[tuple[int, int, str]]:
        """Those of a document's spans that lie in this sentence, in words."""
        inside = self.offsets[0][0], self.offsets[-1][1]
        found = ((self.span(s.start, s.end), s) for s in given if s.start >= inside[0] and s.end <= inside[1])
        return [(*place, s.type) for place, s in found if place is not None]


def shape(word: str, first: bool, glued: bool) -> int:
    """What a word looks like, from 1: its letters' case, digits, signs; whether it begins the sentence.

    Args:
        first: whether no word with a letter stands before it in its sentence.
        glued: whether no blank stands before it.
    """
    if word.isdigit():
        kind = 0 if len(word) == 4 else 1
    elif not word[0].isalnum():
        kind = 2 if word in "-/–&'’" else 3 if word in '([{"“' else 4
    elif any(letter.isdigit() for letter in word):
        kind = 5
    elif word.isupper():
        kind = 6 if len(word) == 1 else 7
    elif word[0].isupper():
        kind = (8 if first else 9) if word[1:].islower() else 10
    else:
        kind = 11 if word.islower() else 12
    return 1 + 2 * kind + glued


def split(documents: Sequence[Document], encoder: TextEncoder) -> list[list[Sentence]]:
    """The sentences of each document, tokenised.

    A sentence without any word is left out; one of more tokens than the encoder takes goes on in a further one.
    """
    found: list[list[Sentence]] = [[] for _ in documents]
    pending = [
        (number, piece.start, piece.end) for number, d in enumerate(documents) for piece in sentences(d.text)
    ]
    while pending := [
        (n, start, end) for n, start, end in pending if not blank(documents[n].text[start:end])
    ]:
        encodings = encoder.encodings([documents[n].text[start:end] for n, start, end in pending])
        rest = []
        for (number, start, end), encoding in zip(pending, encodings, strict=True):
            read = _sentence(documents[number].text, start, end, encoding)
            if len(encoding.ids) >= encoder.max_length and len(read) > 1:
                read = read.first(len(read) - 1)  # the last word may have lost some of its tokens
                after = read.offsets[-1][1]
                rest.append((number, *trimmed(documents[number].text, after, end)))
            if len(read):
                found[number].append(read)
        pending = rest
    return [sorted(pieces, key=lambda piece: piece.offsets[0]) for pieces in found]


def _sentence(text: str, start: int, end: int, encoding: Encoding) -> Sentence:
    """The words of `text[start:end]` up to the last that has a token."""
    offsets = words(text, start, end)
    starts = [begin - start for begin, _ in offsets]
    ends = [last - start for _, last in offsets]
    word = []
    for begin, last in encoding.offsets:
        at = bisect_right(starts, begin)
        word.append(at if last > begin and at and begin < ends[at - 1] else 0)
    shapes, begun = [], False
    for begin, last in offsets:
        letters = text[begin:last]
        shapes.append(shape(letters, not begun, begin > start and not text[begin - 1].isspace()))
        begun = begun or letters[0].isalpha()
    known = max(word, default=0)
    return Sentence(tuple(offsets[:known]), tuple(encoding.ids), tuple(word), tuple(shapes[:known]))


def batch_of(chosen: Sequence[Sentence]) -> WordBatch:
    """Sentences padded to the longest."""
    longest = max(len(s.ids) for s in chosen)

    def rows(values: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in values])

    ids, word = rows([s.ids for s in chosen]), rows([s.word for s in chosen])
    shapes = rows([[s.shape[w - 1] if w else 0 for w in s.word] for s in chosen])
    mask = torch.arange(longest) < torch.tensor([len(s.ids) for s in chosen]).unsqueeze(-1)
    return WordBatch(ids, word, shapes, mask, max(map(len, chosen)))


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers, shortest first, so many that a padded batch holds about BATCH_TOKENS."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def states(network: WordBert, chosen: Sequence[Sentence]) -> list[Float[Tensor, "word dim"]]:
    """States of each sentence's words, in the order given."""
    found: list[Tensor] = [torch.empty(0)] * len(chosen)
    for rows in batches([len(s.ids) for s in chosen]):
        out = network(batch_of([chosen[row] for row in rows]))
        for row, state in zip(rows, out, strict=True):
            found[row] = state[: len(chosen[row])].clone()
    return found


def network(
    encoder: TextEncoder,
    *,
    layers: Sequence[int] | None = None,
    shapes: Float[Tensor, "shape dim"] | None = None,
    spec: LoRA | None = None,
    adapter: Mapping[str, Tensor] | None = None,
    mixed: bool = False,
    merged: bool = False,
    seed: int = 0,
) -> tuple[WordBert, dict[str, Tensor]]:
    """A network from sentences to word states, and those of its parameters that tuning changes.

    Args:
        layers: whose states are averaged; the upper half by default.
        shapes: vectors of word shapes; zeros by default.
        spec: where low-rank adapters are attached; None attaches none, and nothing requires a gradient.
        adapter: values of those adapters; by default such that change nothing.
        mixed: multiply in bfloat16.
        merged: add the adapters to the weights once, so that a pass costs no more than without; nothing can be tuned.
    """
    depth = encoder.weights.config.num_hidden_layers
    layers = tuple(range(depth - depth // 2 + 1, depth + 1)) if layers is None else tuple(layers)
    shapes = torch.zeros(SHAPES, encoder.dim) if shapes is None else shapes.clone()
    weights = encoder.frozen.weights.state
    if merged and spec is not None and adapter is not None:
        weights = spec.merged(weights, adapter)
    base = WordBert.of(encoder.weights.config, weights, shapes, layers, mixed=mixed)
    if spec is None or merged:
        return base, {}
    tuned, tensors = spec.attach(base, adapter, seed=seed)
    tuned.shapes = torch.nn.Parameter(shapes)
    return tuned, {**tensors, "shapes": tuned.shapes}
