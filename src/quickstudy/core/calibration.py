"""Are answers as sure as they are right? Expected calibration error over many answers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quickstudy.core.errors import DataError

BINS = 15


class Answers(NamedTuple):
    """Answers pooled over tasks: the probability given to each, and whether it was right."""

    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def pooled(cls, parts: list["Answers"]) -> "Answers":
        """All answers of several groups."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def accuracy(self) -> float:
        """The share of right answers, in percent."""
        return float(np.mean(self.right) * 100)

    @property
    def ece(self) -> float:
        """See `expected_error`."""
        return expected_error(self.confidence, self.right)


def expected_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error, from 0 to 1: Σ_b n_b / n · |mean confidence_b - share right_b|.

    Bins are of equal width over (0, 1], the upper edge included: Guo et al. 2017, arXiv:1706.04599, equation 3.

    Args:
        confidence: the probability of each answer given.
        right: whether it was right.

    Raises:
        DataError: no answers, lengths that differ, or a probability outside of [0, 1].
    """
    p, hit = _checked(confidence, right)
    place = _places(p, bins)
    gap = np.bincount(place, p - hit, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


class Bin(NamedTuple):
    """Answers whose probability lies between two edges."""

    confidence: float
    """Their mean probability."""
    right: float
    """The share that is right."""
    n: int


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> list[Bin]:
    """Probability against share right, in bins of equal width; those that hold no answer are left out.

    Raises:
        DataError: as `expected_error`.
    """
    p, hit = _checked(confidence, right)
    place = _places(p, bins)
    counts = np.bincount(place, minlength=bins)
    sums, hits = np.bincount(place, p, bins), np.bincount(place, hit, bins)
    return [Bin(float(s / n), float(h / n), int(n)) for s, h, n in zip(sums, hits, counts, strict=True) if n]


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, hit = np.asarray(confidence, np.float64).ravel(), np.asarray(right, np.float64).ravel()
    if not len(p) or len(p) != len(hit):
        raise DataError(
            f"{len(p)} probabilities came with {len(hit)} answers; expected as many, at least one."
        )
    if not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise DataError("a probability lies outside of [0, 1].")
    return p, hit


def _places(p: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
