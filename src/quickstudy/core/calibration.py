"""Are answers as sure as they are right? The expected calibration error."""

from collections.abc import Sequence
from typing import Any


def calibration_error(
    confidences: Sequence[float] | Any, right: Sequence[bool] | Any, bins: int = 15
) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart, on average over answers.

        ECE = Σ_b  n_b / n · |accuracy of bin b − mean confidence of bin b|

    Naeini et al. 2015 (AAAI), with the 15 bins of equal width of Guo et al. 2017, arXiv:1706.04599, equation 3. For few
    answers it is biased upwards: with 100 of them, perfect calibration shows about .05.

    Args:
        confidences: probability of the answer given, [n] within 0 to 1.
        right: whether it was right, [n].
    """
    import numpy as np

    confidence, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(place, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / max(1, len(confidence)))
