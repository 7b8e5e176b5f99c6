"""How good a graph is with 1, 2, 5, … labelled examples a type, and what a few more would buy.

    points = measure(examples, gold, learn, shots=(1, 2, 5))     # learn: labelled documents -> GraphModel
    forecast(points, more=5)                                     # now, then, and the gain with its 95% interval

Few points bear no curve of many parameters. Each of a grid of exponents c gives a line in k^-c,

    F1(k) = a - b k^-c + noise,   a ~ N(70, 30²),  b ~ N(40, 30²),  noise: the points' own spread and 2 points

which has a closed form; the exponents are weighed by how well they explain the points (their evidence), and the
interval is that of the mixture. Hestness et al. 2017, arXiv:1712.00409 find learning curves to be of this form.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.learning.evaluate import BY_PLACE, Evaluation, evaluate
from quickstudy.domains.kg.use import GraphModel

EXPONENTS = np.linspace(0.1, 1.5, 15)
MODEL_ERROR = 2.0
"""Points of F1 by which a true curve may be off the form, at each number of examples."""
SHOTS = (1, 2, 5, 10)
SCORES = ("triples", "entities")


class Point(NamedTuple):
    """What was measured with so many examples a type."""

    shots: int
    scores: Mapping[str, tuple[float, ...]]
    """F1 in points of 'triples' (by place) and 'entities' (borders and type), one a draw of examples."""
    examples: int
    """Labelled documents of the last draw."""

    def estimate(self, what: str) -> Estimate:
        """Mean and 95% interval over draws."""
        return Estimate.of(self.scores[what])


class Forecast(NamedTuple):
    """What more labels would buy."""

    shots: int
    """Examples a type, now."""
    more: int
    now: float
    """F1 by the curve, in points."""
    then: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Curve:
    """Points, and what the fitted curve says between and beyond them."""

    what: str
    points: tuple[Point, ...]

    def at(self, shots: Sequence[float]) -> list[Estimate]:
        """F1 at numbers of examples a type, with intervals for where the curve runs."""
        mixture = _fit(self._shots, self._means, self._spread)
        return [
            _mixed(mixture, np.array([[1.0, -(float(k) ** -c)] for c in EXPONENTS]), bounded=True)
            for k in shots
        ]

    def forecast(self, more: int = 5) -> Forecast:
        """What `more` examples of each type would buy, beyond those of the last point."""
        if more < 1:
            raise DataError(f"more is {more}; a forecast is of at least one example more.")
        mixture = _fit(self._shots, self._means, self._spread)
        last = self._shots[-1]
        rows = np.array([[0.0, float(last) ** -c - float(last + more) ** -c] for c in EXPONENTS])
        now, then = self.at([last, last + more])
        return Forecast(int(last), more, now.mean, then, _mixed(mixture, rows))

    @property
    def _shots(self) -> np.ndarray:
        return np.array([point.shots for point in self.points], float)

    @property
    def _means(self) -> np.ndarray:
        return np.array([np.mean(point.scores[self.what]) for point in self.points])

    @property
    def _spread(self) -> np.ndarray:
        """Variances of the means: that of the draws, pooled over points as few draws say little of it."""
        values = [np.array(point.scores[self.what]) for point in self.points]
        free = sum(len(v) - 1 for v in values)
        pooled = sum(((v - v.mean()) ** 2).sum() for v in values) / free if free else 25.0
        return np.array([pooled / len(v) for v in values]) + MODEL_ERROR**2


def curve(points: Sequence[Point], what: str = "triples") -> Curve:
    """The curve of one of `SCORES`.

    Raises:
        DataError: fewer than three points, or one without draws: no curve goes through them.
    """
    ordered = tuple(sorted(points))
    if len({point.shots for point in ordered}) < 3 or any(not point.scores.get(what) for point in ordered):
        raise DataError(f"{len(ordered)} points; a curve needs {what} at three numbers of examples or more.")
    return Curve(what, ordered)


def measure(
    examples: Sequence[Annotated],
    gold: Sequence[Annotated],
    learn: Callable[[Sequence[Annotated]], GraphModel],
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """Learn from so many examples a type and judge on `gold`; numbers that the examples don't reach are left out.

    Args:
        draws: how often examples are drawn for each number.
        progress: is told how many models were judged, and of how many.

    Raises:
        DataError: no number of examples can be reached.
    """
    counted = Counter(kind for one in examples for kind in _kinds(one))
    most = min(counted.values(), default=0)
    chosen = [k for k in sorted(set(shots)) if k <= most]
    if not chosen:
        rare = min(counted, key=counted.__getitem__, default="")
        raise DataError(f"{rare!r} has {most} examples; none of {', '.join(map(str, shots))} can be drawn.")
    points, done = [], 0
    for k in chosen:
        judged: list[Evaluation] = []
        size = 0
        for draw in range(draws):
            support = draw_examples(examples, k, seed * 1000 + draw)
            size = len(support)
            judged.append(evaluate(learn(support), gold))
            done += 1
            if progress is not None:
                progress(done, len(chosen) * draws)
        scores = {
            "triples": tuple(one.triples[BY_PLACE].f1.mean for one in judged),
            "entities": tuple(one.entities["borders and type"].f1.mean for one in judged),
        }
        points.append(Point(k, scores, size))
    return points


def draw_examples(examples: Sequence[Annotated], shots: int, seed: int = 0) -> list[Annotated]:
    """Documents that hold at least `shots` of each type and relation, as far as there are so many; the rarest first."""
    rows = list(examples)
    random.Random(seed).shuffle(rows)
    whole = Counter(kind for row in rows for kind in _kinds(row))
    held: Counter[str] = Counter()
    chosen: list[int] = []
    for kind in sorted(whole, key=lambda kind: (whole[kind], kind)):
        for number, row in enumerate(rows):
            if held[kind] >= shots:
                break
            if number not in chosen and kind in _kinds(row):
                chosen.append(number)
                held.update(_kinds(row))
    return [rows[number] for number in sorted(chosen)]


def picture(curves: Sequence[Curve], title: str = "", more: int = 5) -> bytes:
    """Points, fitted curves with their bands, and the forecast, as PNG. Raises MissingExtra without matplotlib."""
    from quickstudy.core import picture as pictures

    lines: dict[str, dict[int, Estimate]] = {}
    guessed: set[str] = set()
    for one in curves:
        lines[f"{one.what}: measured"] = {point.shots: point.estimate(one.what) for point in one.points}
        last = int(one.points[-1].shots)
        told = f"{one.what}: forecast"
        lines[told] = dict(zip((last, last + more), one.at([last, last + more]), strict=True))
        guessed.add(told)
    return pictures.curves(title or "F1 against labelled examples a type", lines, ["F1"], guessed)


def _kinds(one: Annotated) -> list[str]:
    return [span.type for span in one.spans] + [f"{relation.type} (relation)" for relation in one.relations]


class _Mixture(NamedTuple):
    weights: np.ndarray
    means: np.ndarray
    """Of a and b for each exponent, [exponents, 2]."""
    covariances: np.ndarray
    """[exponents, 2, 2]"""


def _fit(shots: np.ndarray, means: np.ndarray, variances: np.ndarray) -> _Mixture:
    """Bayesian linear regression for each exponent, and their weights by evidence."""
    prior_mean, prior = np.array([70.0, 40.0]), np.diag([30.0**2, 30.0**2])
    logs, centers, covariances = [], [], []
    for c in EXPONENTS:
        x = np.stack([np.ones_like(shots), -(shots**-c)], 1)
        total = x @ prior @ x.T + np.diag(variances)
        off = means - x @ prior_mean
        solved = np.linalg.solve(total, off)
        logs.append(-0.5 * (off @ solved + np.linalg.slogdet(total)[1]))
        gain = prior @ x.T
        centers.append(prior_mean + gain @ solved)
        covariances.append(prior - gain @ np.linalg.solve(total, gain.T))
    weights = np.exp(np.array(logs) - max(logs))
    return _Mixture(weights / weights.sum(), np.array(centers), np.array(covariances))


def _mixed(mixture: _Mixture, rows: np.ndarray, *, bounded: bool = False) -> Estimate:
    """Mean and central 95% of row · (a, b), a row for each exponent; within 0 to 100 where `bounded`."""
    rng, n = np.random.default_rng(0), 20_000
    center = (rows * mixture.means).sum(1)
    spread = np.sqrt(np.maximum(np.einsum("ei,eij,ej->e", rows, mixture.covariances, rows), 0))
    which = rng.choice(len(rows), n, p=mixture.weights)
    drawn = center[which] + spread[which] * rng.standard_normal(n)
    drawn = np.clip(drawn, 0, 100) if bounded else drawn
    low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975)))
    return Estimate(float(drawn.mean()), (high - low) / 2, n, (low, high))
