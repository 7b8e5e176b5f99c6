"""Tokenising: texts to padded batches of token ids, with texts of like length together."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer as Fast
from torch import Tensor

from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.task import blank

from . import weights as files

BATCH_TOKENS = 2048  # measured best of 1,024 to 8,192: the batch's activations stay in the CPU's cache


class Encoding(Protocol):
    """One tokenised text: ids with the special tokens, and where in the text each stands, in characters."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...


Tokenizer = Callable[[list[str]], Sequence[Encoding]]


def checked(texts: Sequence[str]) -> list[str]:
    """`texts` as a list. Raises DataError, naming the index, for one that is empty, blank, or no text."""
    if isinstance(texts, str | bytes):
        raise DataError(f"Expected a list of texts, got a single one ({texts[:40]!r}). Put it into a list.")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"expected a text, got {type(text).__name__} {text!r:.40}; rows are counted from 0.", row=i
            )
        if blank(text):
            raise DataError("the text is empty; remove it or fill it in. Rows are counted from 0.", row=i)
    return texts


def load_tokenizer(read: files.Weights) -> Tokenizer:
    """The tokenizer of a folder, cutting texts at its `max_length`. Raises ModelError if its file doesn't fit."""
    fast = parse_tokenizer(read.tokenizer, read.config.vocab_size, f"{read.source}/{files.TOKENIZER}")
    fast.enable_truncation(read.max_length)
    return fast.encode_batch


def parse_tokenizer(data: bytes, vocab_size: int, source: str) -> Fast:
    """A tokenizer from its file's bytes. Raises ModelError if it is none, or knows more tokens than `vocab_size`."""
    try:
        fast = Fast.from_str(data.decode("utf-8"))
    except Exception as problem:  # the package raises bare Exceptions
        raise ModelError(f"{source} can't be read: {problem}.") from problem
    if fast.get_vocab_size() > vocab_size:
        raise ModelError(
            f"{source}: the tokenizer knows {fast.get_vocab_size()} tokens, the weights {vocab_size}. "
            "The files are of different encoders."
        )
    fast.no_padding()
    return fast


def batches(encodings: Sequence[Encoding]) -> Iterator[list[int]]:
    """Row numbers, shortest texts first, so many that the padded batch holds BATCH_TOKENS."""
    batch: list[int] = []
    for row in sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids)):
        if batch and (len(batch) + 1) * len(encodings[row].ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(encodings: Sequence[Encoding]) -> tuple[Int[Tensor, "n token"], Bool[Tensor, "n token"]]:
    """(ids, mask), as wide as the longest text."""
    longest = max((len(e.ids) for e in encodings), default=0)
    ids = torch.tensor([e.ids + [0] * (longest - len(e.ids)) for e in encodings], dtype=torch.long)
    lengths = torch.tensor([len(e.ids) for e in encodings])
    return ids.reshape(len(encodings), longest), torch.arange(longest) < lengths.unsqueeze(-1)
