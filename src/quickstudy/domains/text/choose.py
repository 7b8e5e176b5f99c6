"""Choose between experience and none: every candidate is judged on examples that it did not learn from.

The judge is the support itself: leave-one-out while it is small, folds when it is larger. Where it speaks for the
frozen baseline, the baseline is what the user gets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.core.explain import held_out
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.domains.text.prior import Prior
from quickstudy.learners import Centroid, Logistic, Pool
from quickstudy.learners.pool import joined

LEAVE_ONE_OUT = 15
"""Supports up to this size are judged by leave-one-out; larger ones by five folds."""
FOLDS = 5
MANY = 100
FROZEN = "frozen + logistic regression"
PRIOR, TUNED = "learned prior", "experienced encoder + logistic regression"
POOL = f"{PRIOR} and logistic regression"


@dataclass(frozen=True)
class Candidate:
    """A learner with what it knows, and the support as it wants it."""

    name: str
    learner: MetaLearner
    meta: Meta
    support: Labelled
    """Examples first, then rows that describe classes; those are never held out."""
    experienced: bool
    """Whether past tasks had a say, in the features too."""
    members: tuple[str, ...] = ()
    """Of a pool: the candidates whose answers it takes, so that none is computed twice."""


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and why."""

    chosen: Candidate
    accuracy: dict[str, Estimate]
    """Held-out accuracy of each candidate, in percent; empty when nothing could be held out."""
    gain: Estimate | None
    """Accuracy of the best experienced candidate less that of the best frozen one, paired, in points.

    The rows are those that both were chosen by, so it flatters a little. None when nothing could be held out, and
    where there is no experience.
    """
    reason: str
    temperature: float = 1.0
    """What the outputs are divided by before they are read as probabilities."""
    judged: str = "each held out in turn"
    """How the examples that the gain was measured on were kept from the learner."""

    @property
    def gain_text(self) -> str:
        """The gain in words; there is always something to say."""
        if self.gain is None:
            why = "there is no experience" if self.accuracy else "it can't be measured on these examples"
            return f"Gain over the frozen baseline: {why}"
        rows = f"on {self.gain.n} examples, {self.judged}"
        return f"Gain over the frozen baseline: {self.gain.text(sign=True)} points of accuracy ({rows})"

    def as_record(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {
            "chosen": self.chosen.name,
            "accuracy": {name: asdict(estimate) for name, estimate in self.accuracy.items()},
            "gain": asdict(self.gain) if self.gain is not None else None,
            "reason": self.reason,
            "judged": self.judged,
        }


def choose(
    candidates: Sequence[Candidate], y: Int[Tensor, " n"], *, familiar: bool = True, seed: int = 0
) -> Choice:
    """Judge the candidates on held-out support examples and take one.

    They are compared by the log-likelihood of the right answers, which is far less noisy on few examples than
    accuracy is. A candidate displaces the default of its kind when it is better by more than the standard error of
    the difference: to follow every small difference costs accuracy (docs/log.md). So does the baseline displace
    experience, and also when it is the better one by both measures. From MANY examples on, any difference counts.

    Args:
        candidates: experienced ones first, then the frozen baselines; the first of each kind is its default.
        y: class numbers of the support's examples (the first rows of each candidate's support).
        familiar: whether the texts resemble what past tasks were about; decides where nothing can be held out.
    """
    ours = [c for c in candidates if c.experienced]
    frozen = [c for c in candidates if not c.experienced]
    judged = _judged_rows(y, candidates[0].support)
    if len(judged) < 2:
        why = "one example a class and no description leave nothing to hold out"
        if ours and familiar:
            return Choice(ours[0], {}, None, f"{why}; the texts resemble past tasks, so experience decides")
        unlike = "the texts are unlike past tasks" if ours else "there are no past tasks to learn from"
        return Choice(frozen[0], {}, None, f"{why}; {unlike}, so this is the frozen baseline")
    held = _all_held_out(candidates, y, judged, seed)
    heat = {name: temperature(out, y[judged]) for name, out in held.items()}
    right = {name: out.argmax(-1) == y[judged] for name, out in held.items()}
    accuracy = {name: Estimate.share(int(hits.sum()), len(judged)) for name, hits in right.items()}
    likelihood = {
        name: -torch.nn.functional.cross_entropy(out.double() / heat[name], y[judged], reduction="none")
        for name, out in held.items()
    }

    def better(one: Candidate, other: Candidate) -> bool:
        step = likelihood[one.name] - likelihood[other.name]
        error = 0.0 if len(judged) >= MANY else float(step.std() / len(step) ** 0.5)
        return float(step.mean()) > error

    def best(of: Sequence[Candidate]) -> Candidate:
        return reduce(lambda kept, one: one if better(one, kept) else kept, of)

    baseline = best(frozen)
    if not ours:
        return Choice(baseline, accuracy, None, "no past tasks to learn from", heat[baseline.name])
    experienced = best(ours)
    mean = {
        c.name: (accuracy[c.name].mean, float(likelihood[c.name].mean())) for c in (baseline, experienced)
    }
    worse = all(a > b for a, b in zip(mean[baseline.name], mean[experienced.name], strict=True))
    if worse or better(baseline, experienced):
        chosen, reason = baseline, "past tasks don't help on these examples, so this is the frozen baseline"
    else:
        chosen, reason = experienced, "nothing in these examples speaks against what past tasks taught"
        if better(experienced, baseline):
            reason = "past tasks make the right answers likelier here"
    return Choice(
        chosen,
        accuracy,
        paired_share(right[experienced.name], right[baseline.name]),
        reason,
        heat[chosen.name],
    )


def _judged_rows(y: Int[Tensor, " n"], support: Labelled) -> Int[Tensor, " m"]:
    """Rows whose class keeps an example, or is described, when they are held out."""
    described = len(support.y) > len(y)
    return torch.arange(len(y)) if described else (torch.bincount(y)[y] > 1).nonzero().squeeze(-1)


def folds_of(y: Int[Tensor, " n"], seed: int) -> Int[Tensor, " n"]:
    """A fold for each row: its own for leave-one-out, else stratified so that classes are spread over the folds."""
    if len(y) <= LEAVE_ONE_OUT:
        return torch.arange(len(y))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    order = order[torch.argsort(y[order], stable=True)]
    folds = torch.empty_like(y)
    folds[order] = torch.arange(len(y)) % FOLDS
    # Fewer than FOLDS examples of a class still land in different folds; a class of one is held out with its fold.
    return folds


def _all_held_out(
    candidates: Sequence[Candidate], y: Int[Tensor, " n"], judged: Int[Tensor, " m"], seed: int
) -> dict[str, Float[Tensor, "m ways"]]:
    """Each candidate's outputs for every judged row from a learner that never saw its fold.

    Rows that describe classes always stay.
    """
    folds, found = folds_of(y, seed), {}
    for candidate in sorted(candidates, key=lambda c: len(c.members)):
        if isinstance(candidate.learner, Pool):
            found[candidate.name] = candidate.learner.pooled([found[name] for name in candidate.members])
            continue
        always = torch.full((len(candidate.support.mask) - len(folds),), -1)
        out = held_out(candidate.learner, candidate.meta, candidate.support, torch.cat([folds, always]))
        found[candidate.name] = out[: len(folds)][judged]
    return {candidate.name: found[candidate.name] for candidate in candidates}


def candidates_for(
    prior: Prior | None,
    ways: int,
    y: Int[Tensor, " n"],
    frozen: Float[Tensor, "rows d"],
    experienced: Float[Tensor, "rows d"],
) -> list[Candidate]:
    """What a text task can be learned by: experienced learners first, then the frozen baselines.

    Args:
        y: class numbers of the examples.
        frozen, experienced: features of the examples, then (if rows are left) of each class's name or description.
    """
    told = len(frozen) > len(y)
    numbers = torch.cat([y, torch.arange(ways) + ways]) if told else y
    classify = Classify(ways=ways)
    plain, named = Labelled.of(frozen, numbers % ways), Labelled.of(experienced, numbers)
    regression = Logistic(objective=classify)
    baselines = [
        Candidate("frozen + centroid", Centroid(objective=classify), {}, plain, False),
        Candidate(FROZEN, regression, {}, plain, False),
    ]
    if prior is None:
        return baselines
    learner = prior.for_ways(ways)
    both, meta = pooled(prior, regression)
    # Without a tuned encoder the features are the frozen ones, and so is regression on them.
    found = [Candidate(TUNED, regression, {}, named, True)] if prior.adapter is not None else []
    members = (PRIOR, TUNED if found else FROZEN)
    return [
        Candidate(PRIOR, learner, prior.meta, named, True),
        *found,
        Candidate(POOL, both, meta, named, True, members),
        *baselines,
    ]


def pooled(prior: Prior, regression: Logistic) -> tuple[Pool, Meta]:
    """The prior's learner and a regression, asked together, with what the pool knows."""
    members = (prior.for_ways(regression.objective.ways), regression)
    return Pool(objective=regression.objective, members=members, weights=(0.5, 0.5)), joined([prior.meta, {}])


def temperature(out: Float[Tensor, "n ways"], y: Int[Tensor, " n"]) -> float:
    """What to divide held-out outputs by so that answers are as sure as they are right: least log-loss, 1 with no data.

    Guo et al. 2017, arXiv:1706.04599; a normal prior on its logarithm (deviation .25) keeps few examples from saying
    much.
    """
    if not len(y):
        return 1.0
    grid = torch.linspace(-3, 3, 121, dtype=torch.float64)
    costs = torch.stack(
        [
            torch.nn.functional.cross_entropy(out.double() / t.exp(), y, reduction="sum")
            + (t / 0.25) ** 2 / 2
            for t in grid
        ]
    )
    return float(grid[costs.argmin()].exp())
