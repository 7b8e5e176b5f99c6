"""Two encoders that need no files, for tests and demonstrations: the same on every machine, made in no time.

`HashEncoder` ("tiny"): hashed words and letter n-grams through a random projection; texts that share words are near
each other. `tiny_bert`: a real two-layer BERT with seeded random weights, to try what needs layers.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.nets.bert import Bert, BertConfig

DIM = 64


class HashEncoder:
    """Each word and letter n-gram (3 to 4) is hashed to 64 signs; a text is their sum, scaled to length 1.

    That is a random projection of the bag of n-grams (Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4): cosines
    are kept up to about ± 0.12. Sums of signs are whole numbers, so the result is the same to the bit everywhere.
    """

    name = "tiny"
    dim = DIM
    identity = fingerprint = hashlib.sha256(b"quickstudy tiny encoder 1").hexdigest()

    def encode(self, items: Sequence[str], progress: bool = False) -> Float[Tensor, "n dim"]:
        rows = np.zeros((len(items), DIM), np.float64)
        for row, text in zip(rows, items, strict=True):
            for gram, times in Counter(_grams(text)).items():
                row += times * _signs(gram)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return torch.from_numpy(rows.astype(np.float32))


def _grams(text: str) -> Iterator[str]:
    for word in text.lower().split():
        word = f" {word} "
        yield word
        for n in (3, 4):
            yield from (word[i : i + n] for i in range(len(word) - n + 1))


@lru_cache(maxsize=50_000)
def _signs(gram: str) -> np.ndarray:
    digest = hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=DIM // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float64) * 2 - 1


@dataclass(frozen=True)
class ByteEncoding:
    """A text as UTF-8 bytes + 3 between a first (1) and a last (2) token; 0 is padding."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def byte_tokens(texts: Sequence[str], max_length: int) -> list[ByteEncoding]:
    """The byte tokenizer of tiny-bert; each byte points to the character that it is part of. Letters are lowered."""
    encodings = []
    for text in texts:
        pairs = [
            (3 + byte, (i, i + 1))
            for i, letter in enumerate(text[:max_length])
            for byte in letter.lower().encode("utf-8", "replace")
        ][: max_length - 2]
        encodings.append(
            ByteEncoding([1, *(b for b, _ in pairs), 2], [(0, 0), *(o for _, o in pairs), (0, 0)])
        )
    return encodings


def tiny_bert(seed: int = 0) -> tuple[BertConfig, dict[str, Tensor]]:
    """Config and weights of a two-layer BERT that has learned nothing, in float32."""
    config = BertConfig(
        vocab_size=259,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.device("meta"):
        slots = Bert(config).state_dict()
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, slot in slots.items():
        if "LayerNorm" in name or name.endswith(".bias"):
            value = torch.full(slot.shape, float("LayerNorm.weight" in name))
        else:
            # Of unit gain, and with weak positions: so that different letters make different sentences.
            spread = 0.1 if "position" in name or "token_type" in name else 1.0
            fan = slot.shape[1] if name.startswith("encoder") else 1
            value = torch.randn(slot.shape, generator=generator) * spread * fan**-0.5
        weights[name] = value
    return config, weights
