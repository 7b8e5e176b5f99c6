"""95% intervals of shares, and of differences of paired shares, that hold for few rows.

Student's t takes the spread of the values seen for that of all values. Of four rows that are all right it says
100 ± 0, and of four with one right 25 ± 80. Score intervals ask which true shares would make the count seen
unlikely: they never leave 0 to 100% and never shrink to a point.
"""

import math

Z = 1.959963984540054
"""The normal distribution's 0.975 quantile."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The interval of a share of which `hits` of `n` independent rows were seen: (low, high), each from 0 to 1.

    Wilson 1927, J. Am. Stat. Assoc. 22:209; recommended for small n by Brown, Cai & DasGupta 2001, Stat. Sci. 16:101.
    """
    share = hits / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(middle - reach, 0.0) if hits else 0.0, min(middle + reach, 1.0) if hits < n else 1.0


def tango(only_ours: int, only_theirs: int, n: int) -> tuple[float, float]:
    """The interval of the difference of two shares seen on the same `n` rows: (low, high), each from -1 to 1.

    Holds 0 just when McNemar's test (without correction) finds no difference at 5%.

    Args:
        only_ours: rows right by ours and wrong by theirs.
        only_theirs: the other way round. The rows on which both agree count by `n` alone.

    Tango 1998, Stat. Med. 17:891, eqs. 6 to 8; recommended by Fagerland, Lydersen & Laake 2014, Stat. Med. 33:2850.
    """
    seen = (only_ours - only_theirs) / n

    def score(true: float) -> float:
        """How many standard errors what was seen lies above a true difference (none left to explain it: infinite)."""
        # The likeliest share of rows that are right by theirs only, given the true difference: a root of
        # 2n q² + b q + c = 0.
        b = (2 * n - only_ours + only_theirs) * true - only_ours - only_theirs
        c = -only_theirs * true * (1 - true)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = (2 * q + true * (1 - true)) / n
        return (seen - true) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, seen - true)

    return _crossing(score, Z, -1.0, seen), _crossing(score, -Z, seen, 1.0)


def _crossing(falling, level: float, low: float, high: float) -> float:
    """Where a falling function crosses `level` between two places; the end on its side where it doesn't."""
    for _ in range(60):  # halvings: to the last bit
        middle = (low + high) / 2
        if falling(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
