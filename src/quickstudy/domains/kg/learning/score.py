"""How much of what was said was found: precision, recall and F1 with intervals over documents.

    precision = right / found,   recall = right / truth,   F1 = 2 right / (found + truth)

summed over documents before dividing (micro averages). Intervals are the percentile bootstrap's over documents (Efron
1979), since what stands in one document succeeds or fails together; two methods are compared on the same resamples.
Everything is in points, 0 to 100. For tests, sets and models of any kind:

    count = counted(found, truth)                        one a document, from sets of anything hashable
    Score.of(counts).f1                                  an Estimate: mean and 95% interval
    gain(ours, theirs)                                   the paired difference of F1
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.document import Annotated, Span

RESAMPLES = 2000


class Count(NamedTuple):
    """Of one document, how many were found, how many of these are right, and how many there are."""

    right: int
    found: int
    truth: int


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 in points over `n` documents, each with its interval."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    total: Count

    @classmethod
    def of(cls, counts: Sequence[Count], *, seed: int = 0, resamples: int = RESAMPLES) -> "Score":
        """From the counts of each document. Nothing found and nothing to be found is 0, not 100.

        Raises:
            DataError: there is no document.
        """
        table = _table(counts)
        drawn = _resampled(table, seed, resamples)
        points = _points(table.sum(0, keepdims=True))[0]
        spread = _points(drawn)
        made = [_estimate(points[i], spread[:, i], len(table)) for i in range(3)]
        return cls(made[0], made[1], made[2], Count(*map(int, table.sum(0))))

    def to_json(self) -> dict[str, list]:
        """Plain values: each figure with the ends of its interval, and the counts."""
        told: dict[str, list] = {
            name: [round(value, 3) for value in (one.mean, one.low, one.high)]
            for name, one in (("precision", self.precision), ("recall", self.recall), ("F1", self.f1))
        }
        return told | {"right, found, truth": list(self.total)}


def counted(found: Collection[Hashable], truth: Collection[Hashable]) -> Count:
    """Of one document; what stands twice counts once."""
    ours, theirs = set(found), set(truth)
    return Count(len(ours & theirs), len(ours), len(theirs))


def gain(
    ours: Sequence[Count], theirs: Sequence[Count], *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The difference of F1, ours - theirs, in points, on the same documents.

    Raises:
        DataError: they don't count the same documents.
    """
    left, right = _table(ours), _table(theirs)
    if left.shape != right.shape or (left[:, 2] != right[:, 2]).any():
        raise DataError(f"counts of {len(left)} and {len(right)} documents, or of others; expected the same.")
    drawn = [_points(_resampled(table, seed, resamples))[:, 2] for table in (left, right)]
    whole = [_points(table.sum(0, keepdims=True))[0, 2] for table in (left, right)]
    return _estimate(whole[0] - whole[1], drawn[0] - drawn[1], len(left))


def mean_gain(pairs: Iterable[tuple[Sequence[Count], Sequence[Count]]], *, seed: int = 0) -> Estimate:
    """The mean of `gain` over several runs (seeds) on the same documents.

    Runs are resampled, and the documents once for all of them.
    """
    runs = [(_table(ours), _table(theirs)) for ours, theirs in pairs]
    if not runs:
        raise DataError("there is no run to take the mean of.")
    spread = np.stack([
        np.subtract(*(_points(_resampled(table, seed, RESAMPLES))[:, 2] for table in run)) for run in runs
    ])  # fmt: skip
    points = [np.subtract(*(_points(table.sum(0, keepdims=True))[0, 2] for table in run)) for run in runs]
    chosen = np.random.default_rng(seed).integers(len(runs), size=(RESAMPLES, len(runs)))
    drawn = np.take_along_axis(spread, chosen.T, 0).mean(0)
    return _estimate(float(np.mean(points)), drawn, len(runs[0][0]))


def pseudo_values(counts: Sequence[Count]) -> list[float]:
    """What each document contributes to F1, in points: n F1 - (n - 1) F1 without it (the jackknife, Tukey 1958).

    F1 of one document alone is rough, and undefined where nothing is to be found; these have F1 as their mean, but for
    terms in 1 / n, and can be compared in pairs like any other scores.
    """
    table = _table(counts)
    whole, n = table.sum(0, keepdims=True), len(table)
    left = _points(whole - table)[:, 2]
    return list(map(float, n * _points(whole)[0, 2] - (n - 1) * left))


# What a document is asked for: sets whose members say where something stands, or what it is called.


def borders(spans: Iterable[Span]) -> set[Hashable]:
    """Spans by where they stand."""
    return {(span.start, span.end) for span in spans}


def entities(spans: Iterable[Span]) -> set[Hashable]:
    """Spans by where they stand and of what type they are."""
    return {tuple(span) for span in spans}


def places(one: Annotated) -> list[Hashable]:
    """A key for each span: where it stands, and its type."""
    return [tuple(span) for span in one.spans]


def names(one: Annotated) -> list[Hashable]:
    """A key for each span: its words without regard to case, and its type."""
    return [(" ".join(one.of(i).lower().split()), span.type) for i, span in enumerate(one.spans)]


def concepts(one: Annotated, gold: Annotated) -> list[Hashable]:
    """A key for each span: the id that it has in `links`; else the one that the gold document gives to a span there,
    or to the same words; else its words.

    By it, what a text says of two things counts once, wherever it says so, as BC5CDR's relations are given.
    """
    ids, called = gold.links, {}
    for number, id in sorted(ids.items()):
        called.setdefault(names(gold)[number], id)
    at = {span[:2]: number for number, span in enumerate(gold.spans)}
    found: list[Hashable] = []
    for number, (name, span) in enumerate(zip(names(one), one.spans, strict=True)):
        there = ids.get(at.get(span[:2], -1))
        found.append(one.links.get(number) or there or called.get(name) or name)
    return found


def triples(
    one: Annotated, keys: Sequence[Hashable], symmetric: Collection[str] = ()
) -> set[tuple[Hashable, str, Hashable]]:
    """The triples of a document, its spans known by their keys. Those of symmetric relations count once."""
    said = set()
    for head, tail, kind in one.relations:
        ends = [keys[head], keys[tail]]
        if kind in symmetric:
            ends.sort(key=repr)
        said.add((ends[0], kind, ends[1]))
    return said


def by_kind(
    found: Sequence[Collection[Hashable]], truth: Sequence[Collection[Hashable]], place: int
) -> Mapping[str, list[Count]]:
    """The counts of each type or relation, which stands at `place` of the members."""
    kinds = sorted({member[place] for row in (*found, *truth) for member in row})  # pyright: ignore[reportIndexIssue]
    return {
        kind: [
            counted(*({m for m in row if m[place] == kind} for row in pair))  # pyright: ignore[reportIndexIssue]
            for pair in zip(found, truth, strict=True)
        ]
        for kind in kinds
    }


def _table(counts: Sequence[Count]) -> np.ndarray:
    if not counts:
        raise DataError("there is no document to score.")
    return np.array(counts, np.float64)


def _resampled(table: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Sums over documents drawn with replacement, [resamples, 3]; the same draws for the same seed and length."""
    rng, n = np.random.default_rng(seed), len(table)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return weights @ table


def _points(sums: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 in points of sums [rows, 3]."""
    right, found, truth = sums.T
    return 100 * np.stack([
        right / np.maximum(found, 1), right / np.maximum(truth, 1), 2 * right / np.maximum(found + truth, 1)
    ], -1)  # fmt: skip


def _estimate(mean: float, drawn: np.ndarray, n: int) -> Estimate:
    if n < 2:
        return Estimate(float(mean), float("nan"), n)
    low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975)))
    return Estimate(float(mean), (high - low) / 2, n, (low, high))
