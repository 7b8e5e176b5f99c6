"""Toy tasks, small and deterministic, with something to learn across them; shared by tests of core and learners."""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.task import Task


def blobs(
    *,
    tasks: int = 4,
    ways: int = 3,
    shots: int = 4,
    queries: int = 6,
    dim: int = 6,
    noise: float = 0.3,
    offset: float = 0.0,
    seed: int = 0,
) -> Episode:
    """Gaussian classes. Their centres differ only in the first half of the features; the second half is loud noise.

    What past tasks can teach is to look at the first half; and, where all features share an `offset`, to take it off.
    """
    draw = torch.Generator().manual_seed(seed)
    useful = dim // 2
    loudness = torch.tensor([noise] * useful + [1.2] * (dim - useful))
    centres = torch.randn(tasks, ways, dim, generator=draw)
    centres[..., useful:] = 0.0

    def part(each: int) -> Labelled:
        y = torch.arange(ways).repeat(each).expand(tasks, -1)
        here = centres.gather(1, y.unsqueeze(-1).expand(-1, -1, dim))
        return whole(here + offset + loudness * torch.randn(here.shape, generator=draw), y.clone())

    return Episode(part(shots), part(queries))


def blob_sampler(**shape) -> Callable[[int], Episode]:
    """Batch `step` of blobs."""
    return lambda step: blobs(seed=10_000 + step, **shape)


def sinusoids(*, tasks: int = 4, shots: int = 8, queries: int = 10, seed: int = 0) -> Episode:
    """y = a sin(x + b): the amplitude and phase are the task."""
    draw = torch.Generator().manual_seed(seed)
    a = 0.5 + 2.0 * torch.rand(tasks, 1, 1, generator=draw)
    b = math.pi * torch.rand(tasks, 1, 1, generator=draw)

    def part(rows: int) -> Labelled:
        x = 6.0 * torch.rand(tasks, rows, 1, generator=draw) - 3.0
        return whole(x, a * torch.sin(x + b))

    return Episode(part(shots), part(queries))


def whole(x: Tensor, y: Tensor) -> Labelled:
    """Rows that are all real."""
    return Labelled(x, y, torch.ones(x.shape[:2], dtype=torch.bool))


def one(episodes: Episode, task: int) -> Episode:
    """One task of a batch, without its padding."""
    return Episode(*(Labelled(*(t[task][part.mask[task]] for t in part)) for part in episodes))


def with_garbage(part: Labelled, rows: int, seed: int = 0) -> Labelled:
    """The same stacked tasks with `rows` more rows, masked, that hold large numbers and plausible labels."""
    draw = torch.Generator().manual_seed(seed)
    tasks = len(part.mask)
    x = 100.0 * torch.randn(tasks, rows, *part.x.shape[2:], generator=draw).to(part.x.dtype)
    y = part.y[:, :1].expand(tasks, rows, *part.y.shape[2:])
    mask = torch.zeros(tasks, rows, dtype=torch.bool)
    return Labelled(torch.cat([part.x, x], 1), torch.cat([part.y, y], 1), torch.cat([part.mask, mask], 1))


class Words:
    """A tiny encoder: a text is the mean of its words' vectors, and a word's vector comes from its hash."""

    dim = 24
    fingerprint = identity = hashlib.sha256(b"toy words").hexdigest()

    def encode(self, items: Sequence[str]) -> Tensor:
        if not items:
            return torch.zeros(0, self.dim)
        return torch.stack(
            [torch.stack([self._word(word) for word in item.split()]).mean(0) for item in items]
        )

    def _word(self, word: str) -> Tensor:
        return torch.tensor(
            [byte / 128.0 - 1.0 for byte in hashlib.sha256(word.encode()).digest()[: self.dim]]
        )


def sentences() -> Task:
    """A task of three intents, each with words of its own."""
    return Task(
        support=["my card is lost", "lost my card again", "send money abroad", "send money home",
                 "exchange rate today", "which exchange rate"],
        support_labels=["lost_card", "lost_card", "transfer", "transfer", "rate", "rate"],
        query=["card lost", "money abroad"],
        query_labels=["lost_card", "transfer"],
        id="toy",
    )  # fmt: skip
