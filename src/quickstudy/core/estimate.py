"""A mean and its 95% interval, and the paired difference of two methods.

Two methods are compared by the interval of their differences on the same episodes (`paired`), never by whether
their own intervals overlap: most of the spread comes from the episodes, and the pairing takes it out. Values that are
right or wrong have intervals of their own kind (`Estimate.share`, `paired_share`), since few of them fit no bell curve.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from quickstudy.core import shares
from quickstudy.core.errors import DataError

Scores: TypeAlias = Iterable[Any]  # numbers, one an episode: a sequence, an array or a 1-D tensor


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values, plus or minus `half`: half the width of its 95% interval (NaN when there is none)."""

    mean: float
    half: float
    n: int
    bounds: Sequence[float] | None = None
    """The interval's two ends (kept as a tuple) where they don't lie `half` from the mean; None where they do."""

    def __post_init__(self) -> None:
        if self.bounds is not None:
            low, high = self.bounds  # JSON gives a list
            object.__setattr__(self, "bounds", (low, high))

    @classmethod
    def of(cls, values: Scores) -> "Estimate":
        """The mean of independent values with Student's t interval, in the values' own unit.

        For values that are right or wrong, such as single rows, take `share`.

        Raises DataError when there are none, or one is NaN or infinite.
        """
        scores = numbers(values)
        mean, n = math.fsum(scores) / len(scores), len(scores)
        if n < 2:
            return cls(mean, math.nan, n)
        from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

        return cls(mean, float(stdtrit(n - 1, 0.975)) * statistics.stdev(scores) / math.sqrt(n), n)

    @classmethod
    def over_groups(cls, groups: Iterable[Scores]) -> "Estimate":
        """The mean over groups (class splits) of each group's mean, the groups being the independent values."""
        return cls.of([cls.of(group).mean for group in groups])

    @classmethod
    def share(cls, hits: int, n: int) -> "Estimate":
        """`hits` of `n` independent rows as a percentage with Wilson's interval (`shares.wilson`), asymmetric.

        Raises DataError unless 0 ≤ hits ≤ n and n ≥ 1.
        """
        if not 0 <= hits <= n or n < 1:
            raise DataError(f"a share wants hits from 0 to n and n of at least 1, got {hits} of {n}")
        return cls._between(100 * hits / n, n, shares.wilson(hits, n))

    @classmethod
    def _between(cls, mean: float, n: int, ends: tuple[float, float]) -> "Estimate":
        """From the ends of an interval of shares."""
        low, high = (100 * end for end in ends)
        return cls(mean, (high - low) / 2, n, (low, high))

    @property
    def low(self) -> float:
        return self.mean - self.half if self.bounds is None else self.bounds[0]

    @property
    def high(self) -> float:
        return self.mean + self.half if self.bounds is None else self.bounds[1]

    @property
    def excludes_zero(self) -> bool:
        """Is 0 outside of the interval? Never when there is none."""
        return self.low > 0 or self.high < 0

    def text(self, digits: int = 1, *, sign: bool = False) -> str:
        """Write as '87.4 ± 0.6', or '+0.5 ± 0.2' with `sign`; as '75 (30 to 95)' where the interval has `bounds`.

        More digits are written where the interval would read as 0, or a signed one as if it held 0 when it doesn't;
        none where it has bounds and is wider than 10, since they would only look exact.
        """
        if self.bounds is not None:
            return self._between_text(digits, "+" if sign else "")
        while digits < 4 and (
            0 < self.half < 0.5 * 10**-digits
            or (sign and self.excludes_zero and abs(round(self.mean, digits)) <= round(self.half, digits))
        ):
            digits += 1
        mean = f"{self.mean + 0.0:{'+' if sign else ''}.{digits}f}"
        return mean if math.isnan(self.half) else f"{mean} ± {self.half:.{digits}f}"

    def _between_text(self, digits: int, sign: str) -> str:
        digits = 0 if self.half > 5 else digits
        nearest = min(abs(self.low), abs(self.high))
        while digits < 4 and sign and nearest and round(nearest, digits) == 0:
            digits += 1  # an end that would read as 0 hides on which side of it it lies
        mean, low, high = (
            f"{value if round(value, digits) else 0.0:{sign}.{digits}f}"
            for value in (self.mean, self.low, self.high)
        )
        return f"{mean} ({low} to {high})"

    def __str__(self) -> str:
        return self.text()


def paired(ours: Scores, theirs: Scores) -> Estimate:
    """The mean difference ours - theirs with its interval; values at the same place come from the same episode.

    Raises DataError when the two differ in length.
    """
    left, right = numbers(ours), numbers(theirs)
    if len(left) != len(right):
        raise DataError(f"paired scores must come from the same episodes, got {len(left)} and {len(right)}")
    return Estimate.of([a - b for a, b in zip(left, right, strict=True)])


def paired_share(ours: Scores, theirs: Scores) -> Estimate:
    """The difference ours - theirs of two shares on the same rows, in points, with Tango's interval (`shares.tango`).

    Args:
        ours: a value a row: 0 for wrong, anything else for right (True, 1, 100).
        theirs: the same for the same rows.

    Raises DataError when the two differ in length.
    """
    left, right = ([value != 0 for value in numbers(values)] for values in (ours, theirs))
    if len(left) != len(right):
        raise DataError(f"paired outcomes must come from the same rows, got {len(left)} and {len(right)}")
    won = sum(a > b for a, b in zip(left, right, strict=True))
    lost = sum(a < b for a, b in zip(left, right, strict=True))
    n = len(left)
    return Estimate._between(100 * (won - lost) / n, n, shares.tango(won, lost, n))


def numbers(values: Any) -> list[float]:
    """The values as finite floats. Raises DataError naming what isn't one."""
    try:
        numbers = [float(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    except (TypeError, ValueError):
        raise DataError(f"scores must be a flat sequence of numbers, got {values!r:.80}") from None
    if not numbers:
        raise DataError("there are no scores to take the mean of")
    if bad := [i for i, number in enumerate(numbers) if not math.isfinite(number)]:
        raise DataError(
            f"score {bad[0]} of {len(numbers)} is {numbers[bad[0]]}; finite numbers were expected"
        )
    return numbers
