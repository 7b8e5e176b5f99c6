"""Explanations: which support examples spoke for an answer, by leaving each of them out.

    effect_i = logit p(label | x; whole support) - logit p(label | x; support without i),  logit p = log p / (1 - p)

In log-odds, because a probability near 1 hardly moves, nor does its logarithm, whichever example is left out: every
effect on a sure answer would be 0.

Exact by default, not an approximation of influence (Cook 1977; Koh & Liang 2017, arXiv:1703.04730 approximate it):
because an episode has a mask, leave-one-out tasks are adapted many at once. Learner, meta and temperature stay as they
are, also where the row left out had a part in choosing or fitting them. A learner that would have to be solved
from nothing for each row may offer a quicker way (`MetaLearner.left_out`); what is approximate about it is said there.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quickstudy.core import engine
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.net import over_tasks

MEMORY = 16 * 2**20
"""Bytes that the inputs of the tasks adapted at once may take; what a learner makes of them takes a few times that.
More is slower: it leaves the processor's cache."""


@torch.no_grad()
def leave_one_out(
    learner: MetaLearner, meta: Meta, support: Labelled, x: Tensor, *, chunk: int | None = None
) -> Float[Tensor, "n q k"]:
    """Outputs for x [q, …] after adapting without each of the n support rows: exact, by adapting anew.

    Memory holds `chunk` tasks at once, by default as many as fit in `MEMORY`.
    """
    n = len(support.mask)
    # The inputs are views of one support; the first thing that a learner does to them makes copies.
    row = support.x[0].numel() + 2 * learner.objective.outputs
    chunk = chunk or min(256, max(1, MEMORY // (n * row * support.x.element_size())))
    parts = []
    support = support.blanked()  # once here, and not for each of the n tasks
    for start in range(0, n, chunk):
        left = torch.arange(start, min(n, start + chunk))
        mask = support.mask.expand(len(left), n) & (torch.arange(n) != left.unsqueeze(1))
        if learner.maps and not learner.inner_loop:
            # Only the mask differs: what a learner makes of the inputs alone is then made once.
            parts.append(over_tasks(partial(_masked, learner, meta, support, x))(mask))
        else:
            parts.append(engine.outputs(learner, meta, _repeat(support, mask, x), blank=False))
    return torch.cat(parts)


def held_out(
    learner: MetaLearner, meta: Meta, support: Labelled, folds: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Outputs for every support row from a learner that never saw its fold.

    Args:
        folds: the fold of each row; `torch.arange(n)` is leave-one-out. A row of fold -1 is never held out, and its
            output stays 0.
    """
    result: Tensor | None = None
    for fold in folds[folds >= 0].unique():
        rows = folds == fold
        task = Episode(
            Labelled(*(t.unsqueeze(0) for t in support._replace(mask=support.mask & ~rows))),
            Labelled(*(t[rows].unsqueeze(0) for t in support)),
        )
        out = engine.outputs(learner, meta, task)[0]
        result = out.new_zeros(len(rows), out.shape[-1]) if result is None else result
        result[rows] = out
    assert result is not None
    return result


def influence(
    learner: MetaLearner, meta: Meta, support: Labelled, x: Tensor, output: int, *, temperature: float = 1.0
) -> Float[Tensor, " n"]:
    """How much each support row raised the log-odds of class `output` for one input x […]."""
    support = support.blanked()  # a learner's shortcut must not meet what padding holds
    whole = engine.predict(learner, meta, engine.adapt(learner, meta, support), x.unsqueeze(0))
    left = without(learner, meta, support, x, output)
    before, after = (log_odds(out / temperature, output) for out in (whole, left))
    return before - after


def log_odds(logits: Float[Tensor, "*rows k"], output: int) -> Float[Tensor, "*rows"]:
    """The log-odds log p / (1 - p) of a class from logits: from p they would be infinite once it rounds to 1."""
    others = torch.arange(logits.shape[-1]) != output
    return logits[..., output] - logits[..., others].logsumexp(-1)


def without(
    learner: MetaLearner, meta: Meta, support: Labelled, x: Tensor, output: int
) -> Float[Tensor, "n k"]:
    """Outputs for one input x […] without each support row: the learner's own quick way, or by adapting anew."""
    with torch.no_grad():
        quick = learner.left_out(meta, support, x, output)
    return leave_one_out(learner, meta, support, x.unsqueeze(0))[:, 0] if quick is None else quick


def _masked(learner: MetaLearner, meta: Meta, support: Labelled, x: Tensor, mask: Tensor) -> Tensor:
    return learner.predict(meta, learner.adapt(meta, support._replace(mask=mask)), x)


def _repeat(support: Labelled, mask: Tensor, x: Tensor) -> Episode:
    tasks = len(mask)
    x = x.expand(tasks, *x.shape)
    query = Labelled(x, torch.zeros(x.shape[:2], dtype=torch.long), torch.ones(x.shape[:2], dtype=torch.bool))
    repeated = Labelled(
        support.x.expand(tasks, *support.x.shape), support.y.expand(tasks, *support.y.shape), mask
    )
    return Episode(repeated, query)
