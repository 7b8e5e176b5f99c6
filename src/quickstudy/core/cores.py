"""How many threads a step of meta-training gets."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from quickstudy.core.episode import Episode
from quickstudy.core.learner import Meta

SMALL = 2**17
"""Numbers that the widest layer gives for all tasks' rows, up to which one thread does. Measured on two cores: with
20,000 (sinusoids) two threads take 1.1 times as long as one, with 80,000 as long, with 200,000 two thirds of it."""


def threads_for(meta: Meta, episodes: Episode) -> int:
    """One for small work; otherwise as many as torch is set to."""
    most = torch.get_num_threads()
    widths = [value.shape[0] for value in meta.values() if value.ndim > 1]
    rows = sum(part.mask.numel() for part in episodes)
    shape = episodes.support.x.shape  # [tasks, n, d], [tasks, n, length, d] or [tasks, n, c, h, w]
    positions = math.prod(shape[3:]) if len(shape) > 4 else shape[2] if len(shape) == 4 else 1
    return 1 if rows * positions * max(widths, default=1) <= SMALL else most


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads within this block."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
