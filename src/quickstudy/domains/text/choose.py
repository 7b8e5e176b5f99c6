"""Choose between experience and none: every candidate is judged on examples that it did not learn from.

The judge is the support itself: leave-one-out while it is small, folds when it is larger. Where experience gains
nothing over the frozen baseline, the baseline is what the user gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.explain import held_out
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.text.prior import Prior
from quickstudy.learners import Centroid, Logistic

LEAVE_ONE_OUT = 15
"""Supports up to this size are judged by leave-one-out; larger ones by five folds."""
FOLDS = 5
MANY = 100


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


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and why."""

    chosen: Candidate
    accuracy: dict[str, Estimate]
    """Held-out accuracy of each candidate, in percent; empty when nothing could be held out."""
    gain: Estimate | None
    """Accuracy of the best experienced candidate less that of the best frozen one, paired, in points."""
    reason: str
    temperature: float = 1.0
    """What the outputs are divided by before they are read as probabilities."""

    def as_record(self) -> dict[str, Any]:
        """The choice as plain JSON values."""

        def plain(e: Estimate) -> dict[str, float]:
            return {"mean": e.mean, "half": e.half, "n": e.n}

        return {
            "chosen": self.chosen.name,
            "accuracy": {name: plain(e) for name, e in self.accuracy.items()},
            "gain": plain(self.gain) if self.gain is not None else None,
            "reason": self.reason,
        }


def choose(
    candidates: Sequence[Candidate], y: Int[Tensor, " n"], *, familiar: bool = True, seed: int = 0
) -> Choice:
    """Judge the candidates on held-out support examples and take one.

    Experience is taken when it is right as often as the best frozen baseline and finds the right answers likelier;
    their log-likelihood is far less noisy on few examples than accuracy is. From MANY examples on, accuracy decides.

    Args:
        candidates: experienced ones first, then the frozen baselines; the first of each kind is its default.
        y: class numbers of the support's examples (the first rows of each candidate's support).
        familiar: whether the texts resemble what past tasks were about; decides where nothing can be held out.
    """
    ours = [c for c in candidates if c.experienced]
    frozen = [c for c in candidates if not c.experienced]
    judged = _judged_rows(y)
    if len(judged) < 2:
        why = "one example a class leaves nothing to hold out"
        if ours and familiar:
            return Choice(ours[0], {}, None, f"{why}; the texts resemble past tasks, so experience decides")
        return Choice(
            frozen[0], {}, None, f"{why}; the texts are unlike past tasks, so this is the frozen baseline"
        )
    folds = folds_of(y, seed)
    held = {c.name: _held_out(c, folds)[judged] for c in candidates}
    heat = {name: temperature(out, y[judged]) for name, out in held.items()}
    right = {name: (out.argmax(-1) == y[judged]).double() * 100 for name, out in held.items()}
    loss = {
        name: float(torch.nn.functional.cross_entropy(out.double() / heat[name], y[judged]))
        for name, out in held.items()
    }
    accuracy = {name: Estimate.of(values) for name, values in right.items()}

    def merit(candidate: Candidate) -> tuple[float, ...]:
        name = candidate.name
        return (accuracy[name].mean, -loss[name]) if len(judged) >= MANY else (-loss[name],)

    baseline = max(frozen, key=merit)
    if not ours:
        return Choice(baseline, accuracy, None, "no past tasks to learn from", heat[baseline.name])
    # Of the experienced ones, those that are right as often; of these, the best.
    able = [c for c in ours if accuracy[c.name].mean >= accuracy[baseline.name].mean]
    best = max(able or ours, key=merit)
    gain = paired(right[best.name], right[baseline.name])
    if not able:
        chosen, reason = baseline, "past tasks don't help here, so this is the frozen baseline"
    elif merit(best) <= merit(baseline):
        chosen, reason = (
            baseline,
            "past tasks don't make the right answers likelier, so this is the frozen baseline",
        )
    else:
        chosen, reason = best, "past tasks make the right answers likelier here"
    return Choice(chosen, accuracy, gain, reason, heat[chosen.name])


def _judged_rows(y: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Rows whose class keeps an example when they are held out."""
    return (torch.bincount(y)[y] > 1).nonzero().squeeze(-1)


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


def _held_out(candidate: Candidate, folds: Int[Tensor, " n"]) -> Float[Tensor, "n ways"]:
    """Outputs for every example from a learner that never saw its fold; rows that describe classes always stay."""
    support = candidate.support
    always = torch.full((len(support.mask) - len(folds),), -1)
    return held_out(candidate.learner, candidate.meta, support, torch.cat([folds, always]))[: len(folds)]


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
    as_names = torch.cat([y, torch.arange(ways) + ways]) if told else y
    as_examples = as_names % ways
    classify = Classify(ways=ways)
    found = []
    if prior is not None:
        learner = prior.for_ways(ways)
        found += [
            Candidate("learned prior", learner, prior.meta, Labelled.of(experienced, as_names), True),
            logistic(experienced, y, ways),
        ]
    return [
        *found,
        Candidate(
            "frozen + centroid", Centroid(objective=classify), {}, Labelled.of(frozen, as_examples), False
        ),
        Candidate(
            "frozen + logistic regression",
            Logistic(objective=classify),
            {},
            Labelled.of(frozen, as_examples),
            False,
        ),
    ]


def logistic(features: Float[Tensor, "rows d"], y: Int[Tensor, " n"], ways: int) -> Candidate:
    """Logistic regression on experienced features, descriptions (if rows are left) counted as examples."""
    labels = torch.cat([y, torch.arange(ways)]) if len(features) > len(y) else y
    learner = Logistic(objective=Classify(ways=ways))
    return Candidate("tuned encoder + logistic regression", learner, {}, Labelled.of(features, labels), True)


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
