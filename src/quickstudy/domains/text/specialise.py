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
from quickstudy.domains.text.choose import Candidate, Choice, pooled, temperature
from quickstudy.domains.text.learn import Progress, Tuning, tune
from quickstudy.domains.text.prior import Experienced, Prior
from quickstudy.domains.text.read import Examples
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import Logistic
from quickstudy.nets.lora import LoRA

NAME = "encoder tuned on the task + logistic regression"
LEAST_CLASSES, LEAST_SHOTS = 10, 5
"""Fewer categories, or fewer examples of each on average, gain less than the minute that tuning costs is worth."""
LEAST_HELD = 5
"""So many examples must be there to judge by."""
OWN = Tuning(spec=LoRA(targets=("query", "key", "value", "dense")), steps=45, ways=40, groups=99, cluster=1)
"""Every matrix of every layer, and classes drawn at random, chosen on held-out rows of BANKING77: query and value alone
gain .2 to .5 points less there (though all matrices overfit *past* tasks), and so do clusters of similar classes."""
BLEND = 1.0
"""Weight of the tuned features beside the frozen ones; chosen on validation rows of BANKING77, like `OWN`."""


def worthwhile(task: Task) -> bool:
    """Whether a task is of the kind that tuning pays for."""
    return len(task.labels) >= LEAST_CLASSES and len(task.support) >= LEAST_SHOTS * len(task.labels)


def specialise(
    task: Task,
    y: Int[Tensor, " n"],
    names: Sequence[str],
    prior: Prior | None,
    base: TextEncoder,
    choice: Choice,
    baseline: Candidate,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Experienced, Choice] | None:
    """Tune on four fifths of the examples and judge on the last; keep what helps, and learn the head from all.

    The encoder isn't tuned again on all of them: that took as long once more, and changed no figure (docs/log.md).

    Args:
        y: class numbers of the support.
        names: what describes each class, or nothing.
        prior: what past tasks taught, whose opinion is pooled with that of the regression where this is better.
        choice: what the tuned encoder has to beat.
        baseline: the best frozen candidate, against which the gain is told.

    Returns:
        The tuned encoder and the choice of it; None when it doesn't help.
    """
    out = _fifth(y, seed)
    if int(out.sum()) < LEAST_HELD:
        return None
    tuned = _tuned(task, ~out, base, seed, progress)
    heads = _heads(tuned, prior, [*task.support, *names], y, len(task.labels))
    truth = y[out]
    answers = {head.name: _held_out(head, out) for head in heads}
    best = min(heads, key=lambda head: _log_loss(answers[head.name], truth))
    ours, theirs, bare = answers[best.name], _held_out(choice.chosen, out), _held_out(baseline, out)
    if _log_loss(ours, truth) >= _log_loss(theirs, truth):
        return None
    right, before, frozen = (o.argmax(-1) == truth for o in (ours, theirs, bare))
    step = paired_share(right, before)
    told = f"tuning the encoder on your examples adds {step.text(sign=True)} points on a fifth held out"
    return tuned, replace(
        choice,
        chosen=best,
        accuracy=choice.accuracy | {best.name: Estimate.share(int(right.sum()), len(right))},
        gain=paired_share(right, frozen),
        reason=f"{choice.reason}; {told}",
        temperature=temperature(ours, truth),
        judged="a fifth, held out from tuning and learning",
    )


def keep(
    task: Task,
    y: Int[Tensor, " n"],
    names: Sequence[str],
    prior: Prior | None,
    encoder: Experienced,
    choice: Choice,
    tuned_on: int,
) -> Choice:
    """Learn further examples by the encoder as it was tuned on the first `tuned_on`, which may be most of them."""
    reason = f"the encoder tuned on the first {tuned_on} examples is kept until there are twice as many"
    heads = _heads(encoder, prior, [*task.support, *names], y, len(task.labels))
    [same] = [head for head in heads if head.name == choice.chosen.name] or heads[:1]
    return replace(choice, chosen=same, reason=reason, judged=f"a fifth of the first {tuned_on}")


def _heads(
    encoder: Experienced, prior: Prior | None, texts: Sequence[str], y: Int[Tensor, " n"], ways: int
) -> list[Candidate]:
    """Logistic regression on the tuned features, alone and pooled with the prior; names follow the examples."""
    told = torch.arange(ways) + ways if len(texts) > len(y) else y[:0]
    support = Labelled.of(encoder.encode(texts), torch.cat([y, told]))
    regression = Logistic(objective=Classify(ways=ways))
    alone = Candidate(NAME, regression, {}, support, True)
    if prior is None:
        return [alone]
    pool, meta = pooled(prior, regression)
    return [alone, Candidate(f"{NAME} and learned prior", pool, meta, support, True)]


def _fifth(y: Int[Tensor, " n"], seed: int) -> Bool[Tensor, " n"]:
    """One example in five of each class, none of a class that has fewer than two."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(y[order], stable=True)]
    out = torch.zeros(len(y), dtype=torch.bool)
    out[order[::5]] = True
    return out & (torch.bincount(y)[y] > 1)


def _tuned(task: Task, rows: Tensor, base: TextEncoder, seed: int, progress: Progress | None) -> Experienced:
    chosen = rows.nonzero().squeeze(-1).tolist()
    labels = [str(task.support_labels[i]) for i in chosen]
    told = {label: text for label, text in task.label_descriptions.items() if label in labels}
    own = Examples([task.support[i] for i in chosen], labels, told, "support")
    # From no adapter: on 770 examples, starting from the past tasks' adapter ends .2 points lower.
    adapter = tune([own], base, OWN, seed=seed, progress=progress)
    return Experienced(base, adapter, BLEND)


def _held_out(candidate: Candidate, out: Tensor) -> Tensor:
    support = candidate.support
    kept = torch.cat([~out, torch.ones(len(support.mask) - len(out), dtype=torch.bool)])
    fast = engine.adapt(candidate.learner, candidate.meta, support._replace(mask=support.mask & kept))
    return engine.predict(candidate.learner, candidate.meta, fast, support.x[: len(out)][out])


def _log_loss(out: Tensor, y: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(out.double() / temperature(out, y), y))
