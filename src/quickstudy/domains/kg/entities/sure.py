"""How probable it is that a mention is right, from how sure the detector is of its words and the typing of its type.

    P = σ(a + b logit(d) + c logit(t))

A network that was tuned on a few sentences is surer than it should be, of spans and even more of types; how much is
nearly the same in every field, so the three numbers are learned on fields with many labels, one vote each, for each
way in which a recogniser is made. Platt 1999.
"""

import math
from dataclasses import dataclass

CLIP = 1e-3
"""Probabilities nearer to 0 or 1 than this say no more."""


@dataclass(frozen=True)
class Sure:
    """a, b and c."""

    weights: tuple[float, float, float] = (0.0, 1.0, 1.0)

    def probability(self, place: float, kind: float) -> float:
        """Of a mention, from 0 to 1.

        Args:
            place: probability that its words are an entity.
            kind: that it is of its type, if they are.
        """
        a, b, c = self.weights
        return 1 / (1 + math.exp(-(a + b * logit(place) + c * logit(kind))))


MADE = {
    "past": Sure((-1.31, 0.44, 0.2)),
    "tuned": Sure((-1.35, 0.39, 0.48)),
    "rich": Sure((-3.26, 0.53, 0.34)),
    "frozen": Sure((-2.39, 0.48, 0.31)),
    "frozen, tuned": Sure((-1.31, 0.99, 0.37)),
    "frozen, rich": Sure((-2.93, 0.62, 0.32)),
}
"""By how a recogniser was made: from what past corpora taught, or from the frozen encoder; untuned, its spans tuned on
the examples, or spans and types. Learned in the manner of `tools/kg_laws.py` on the dev parts of CoNLL04, BC5CDR, and
CrossNER's politics, science and AI, 1 to 20 examples a type; "frozen" ways on CoNLL04 and BC5CDR, one draw."""


def how_made(past: bool, tuned: bool, rich: bool) -> str:
    """The name of a way in `MADE`.

    Args:
        past: whether past corpora taught it.
        tuned: whether its network was tuned on the examples.
        rich: whether types were tuned, too.
    """
    way = "rich" if tuned and rich else "tuned" if tuned else "past"
    return way if past else "frozen" + (f", {way}" if tuned else "")


def logit(p: float) -> float:
    """Log-odds, clipped."""
    p = min(1 - CLIP, max(CLIP, p))
    return math.log(p / (1 - p))
