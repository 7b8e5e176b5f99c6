"""Tune the encoder on a task's own examples, and keep that only when it helps on examples held out.

Pays where there are many classes that are easily confused, and several examples of each: a few GE2E steps.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from quickstudy.core import engine
from quickstudy.core.episode import Labelled
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.core.objective import Classify
from quickstudy.core.task import Task
from quickstudy.domains.text.choose import Candidate, Choice, temperature
from quickstudy.domains.text.learn import Progress, Tuning, tune
from quickstudy.domains.text.prior import Experienced
from quickstudy.domains.text.read import Examples
from quickstudy.learners import Logistic

NAME = "encoder tuned on the task + logistic regression"
LEAST_CLASSES, LEAST_SHOTS = 10, 8
"""Fewer categories, or fewer examples of each on average, gain less than the minute or two that tuning costs is worth:
on 77 intents of five examples, pooling the prior with logistic regression gains as much in seconds."""
LEAST_HELD = 5
"""So many examples must be there to judge by."""
OWN = Tuning(steps=45, ways=40, groups=99, cluster=1)
"""Classes drawn at random: with so many, clusters of similar ones gained less on held-out rows of BANKING77."""
BLEND = 2.0
"""Weight of the tuned features beside the frozen ones; chosen on validation rows of BANKING77, like `OWN`."""


def worthwhile(task: Task) -> bool:
    """Whether a task is of the kind that tuning pays for."""
    return len(task.labels) >= LEAST_CLASSES and len(task.support) >= LEAST_SHOTS * len(task.labels)


def specialise(
    task: Task,
    y: Int[Tensor, " n"],
    names: Sequence[str],
    encoder: Experienced,
    choice: Choice,
    baseline: Candidate,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Experienced, Choice] | None:
    """Tune on four fifths of the examples and judge on the last; when it helps, tune on all of them.

    Args:
        y: class numbers of the support.
        names: what describes each class, or nothing.
        choice: what the tuned encoder has to beat.
        baseline: the best frozen candidate, against which the gain is told.

    Returns:
        The tuned encoder and the choice of it; None when it doesn't help.
    """
    out = _fifth(y, seed)
    if int(out.sum()) < LEAST_HELD:
        return None
    texts = [*task.support, *names]
    first = _tuned(task, ~out, encoder, seed, progress)
    candidate = _regression(first, texts, y, len(task.labels))
    ours, theirs = (_held_out(c, out) for c in (candidate, choice.chosen))
    heat = temperature(ours, y[out])
    if _log_loss(ours, y[out]) >= _log_loss(theirs, y[out]):
        return None
    right, before, bare = (o.argmax(-1) == y[out] for o in (ours, theirs, _held_out(baseline, out)))
    final = _tuned(task, torch.ones_like(out), encoder, seed, progress)
    step = paired_share(right, before)
    told = f"tuning the encoder on your examples adds {step.text(sign=True)} points on a fifth held out"
    return final, replace(
        choice,
        chosen=_regression(final, texts, y, len(task.labels)),
        accuracy=choice.accuracy | {NAME: Estimate.share(int(right.sum()), len(right))},
        gain=paired_share(right, bare),
        reason=f"{choice.reason}; {told}",
        temperature=heat,
    )


def keep(
    task: Task,
    y: Int[Tensor, " n"],
    names: Sequence[str],
    encoder: Experienced,
    choice: Choice,
    tuned_on: int,
) -> Choice:
    """Learn further examples by the encoder as it was tuned on the first `tuned_on`, which may be most of them."""
    texts = [*task.support, *names]
    reason = f"the encoder tuned on the first {tuned_on} examples is kept until there are twice as many"
    return replace(choice, chosen=_regression(encoder, texts, y, len(task.labels)), reason=reason)


def _regression(encoder: Experienced, texts: Sequence[str], y: Int[Tensor, " n"], ways: int) -> Candidate:
    """Logistic regression on the examples and, if there are any, on the names of the classes after them."""
    told = torch.arange(ways) + ways if len(texts) > len(y) else y[:0]
    support = Labelled.of(encoder.encode(texts), torch.cat([y, told]))
    return Candidate(NAME, Logistic(objective=Classify(ways=ways)), {}, support, True)


def _fifth(y: Int[Tensor, " n"], seed: int) -> Bool[Tensor, " n"]:
    """One example in five of each class, none of a class that has fewer than two."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(y[order], stable=True)]
    out = torch.zeros(len(y), dtype=torch.bool)
    out[order[::5]] = True
    return out & (torch.bincount(y)[y] > 1)


def _tuned(
    task: Task, rows: Tensor, encoder: Experienced, seed: int, progress: Progress | None
) -> Experienced:
    chosen = rows.nonzero().squeeze(-1).tolist()
    labels = [str(task.support_labels[i]) for i in chosen]
    told = {label: text for label, text in task.label_descriptions.items() if label in labels}
    own = Examples([task.support[i] for i in chosen], labels, told, "support")
    # From no adapter: on 770 examples, starting from the past tasks' adapter ends .2 points lower.
    adapter = tune([own], encoder.base, OWN, seed=seed, progress=progress)
    return Experienced(encoder.base, adapter, BLEND)


def _held_out(candidate: Candidate, out: Tensor) -> Tensor:
    support = candidate.support
    kept = torch.cat([~out, torch.ones(len(support.mask) - len(out), dtype=torch.bool)])
    fast = engine.adapt(candidate.learner, candidate.meta, support._replace(mask=support.mask & kept))
    return engine.predict(candidate.learner, candidate.meta, fast, support.x[: len(out)][out])


def _log_loss(out: Tensor, y: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(out.double() / temperature(out, y), y))
