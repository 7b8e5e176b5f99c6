"""Learning tasks and answering in them, as in use: no gradient is kept, and as many tasks go as memory holds."""

from collections.abc import Callable
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core import convolve, dual
from quickstudy.core.checks import check_finite, check_part, check_tasks, out_of_memory, too_big, untouched
from quickstudy.core.episode import Episode, Labelled, unstack
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.forms import Form, adapt_all, check_stacked, no_form, settled
from quickstudy.core.learner import Fast, Meta, MetaLearner, named
from quickstudy.core.net import Unmappable, over_tasks


def adapt(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    """Learn one task (support [n, …]) or stacked tasks ([tasks, n, …]); nothing is differentiated through.

    Raises:
        DataError: tasks that can't be learned from.
        ModelError: `meta` isn't this learner's, padding would enter a network's statistics, a task is too big.
    """
    if isinstance(support, Episode):
        raise DataError("adapt learns from a support alone; give episode.support.")
    learner.check(meta)
    return _adapt(learner, meta, support)


def _adapt(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    alone = support.mask.ndim == 1
    support = support.trimmed() if alone else support.blanked()
    tasks = Labelled(*(t.unsqueeze(0) for t in support)) if alone else support
    check_part(learner, meta, tasks, "support")
    check_finite(support, "support")
    both = Episode(tasks, tasks)
    hybrid = convolve.applies(learner, both) and convolve.pays(both)
    if not (alone or hybrid or learner.transductive):  # of transductive ones only the answers hang together
        check_stacked(learner, both, "stacked")

    def run(part: Labelled) -> Fast:
        if hybrid:
            return convolve.adapt(learner, meta, part)
        if alone:
            own = named(learner, "adapt", learner.adapt(meta, support))
            return {name: value.unsqueeze(0) for name, value in own.items()}
        return settled(learner, Episode(part, part), lambda form: _adapt_in(form, learner, meta, part))

    with torch.no_grad(), untouched(learner, (tasks,)):
        fast = _as_fit(learner, (tasks,), run)
    return {name: value[0] for name, value in fast.items()} if alone else fast


def _adapt_in(form: Form, learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    if form != "loop":
        return adapt_all(learner, meta, support)
    each = [named(learner, "adapt", learner.adapt(meta, support.taken(i))) for i in range(len(support.mask))]
    return {name: torch.stack([fast[name] for fast in each]) for name in each[0]}


def _as_fit(learner: MetaLearner, parts: tuple[Labelled, ...], run: Callable[..., Fast]) -> Fast:
    """What `run` gives of stacked tasks, as many at once as memory holds: all of them, half, a quarter, …"""
    tasks = len(parts[0].mask)
    try:
        return run(*parts)
    except (RuntimeError, MemoryError) as problem:
        if not too_big(problem):
            raise
        if tasks == 1:
            out_of_memory(learner, parts, problem, trains=False)
    halves = slice(tasks // 2), slice(tasks // 2, None)
    first, second = (_as_fit(learner, tuple(part.taken(half) for part in parts), run) for half in halves)
    return {name: torch.cat([first[name], second[name]]) for name in first}


def predict(learner: MetaLearner, meta: Meta, fast: Fast, x: Tensor, *, many: bool = False) -> Tensor:
    """Outputs for x [n, …] of one adapted task, or [tasks, n, …] when `many`; nothing is differentiated through.

    Raises:
        DataError: x is no tensor.
        ModelError: `fast` isn't what `adapt` gave for these tasks.
    """
    if not isinstance(x, Tensor):
        raise DataError(f"predict's inputs are of {type(x).__name__}; expected a tensor: torch.as_tensor(x).")
    if fast is meta and meta:
        raise ModelError(
            "predict has `meta` twice; the third argument is what was learned of the task: adapt(learner, meta, "
            "support)."
        )
    if many and any(len(value) != len(x) for value in fast.values()):
        raise ModelError(
            f"predict has inputs of {len(x)} tasks, but `fast` is of another number of them, or of one task alone. "
            "Give what `adapt` gave for these tasks, or many=False."
        )
    with torch.no_grad():
        if not many:
            return learner.predict(meta, fast, x)
        if learner.maps:
            with suppress(Unmappable):
                return over_tasks(learner.predict, (None, 0, 0))(meta, fast, x)
        return torch.stack(
            [learner.predict(meta, {k: v[task] for k, v in fast.items()}, x[task]) for task in range(len(x))]
        )


def outputs(
    learner: MetaLearner, meta: Meta, episodes: Episode, *, form: Form = "auto", blank: bool = True
) -> Float[Tensor, "tasks q k"]:
    """Adapt to every task and predict its query, in the fastest exact form; nothing is differentiated through.

    Args:
        blank: False where masked rows are known to hold sane numbers, which saves a copy of all tasks.
    """
    check_tasks(learner, meta, episodes)
    episodes = episodes.blanked() if blank else episodes

    def run(support: Labelled, query: Labelled) -> Fast:
        return {"outputs": _outputs_in(form, learner, meta, Episode(support, query))}

    with untouched(learner, episodes):
        return _as_fit(learner, episodes, run)["outputs"]


def _outputs_in(form: Form, learner: MetaLearner, meta: Meta, episodes: Episode) -> Tensor:
    if form == "auto":
        if dual.applies(learner, episodes) and dual.pays(episodes):
            form = "dual"
        elif convolve.applies(learner, episodes) and convolve.pays(episodes):
            form = "hybrid"
        else:
            return settled(learner, episodes, lambda form: _outputs_in(form, learner, meta, episodes))
    check_stacked(learner, episodes, form)
    if form == "loop":
        return torch.stack([_outputs_alone(learner, meta, one) for one in unstack(episodes)])
    with torch.no_grad():
        if form == "stacked":
            fast = adapt_all(learner, meta, episodes.support)
            return predict(learner, meta, fast, episodes.query.x, many=True)
        closed = dual if form == "dual" else convolve
        if not closed.applies(learner, episodes):
            raise no_form(learner, form)
        return closed.outputs(learner, meta, episodes)


def _outputs_alone(learner: MetaLearner, meta: Meta, episode: Episode) -> Float[Tensor, "q k"]:
    """One task's outputs, computed without its padding; zero in the padded rows of the query."""
    fast, mask = _adapt(learner, meta, episode.support.trimmed()), episode.query.mask
    real = predict(learner, meta, fast, episode.query.trimmed().x)
    if bool(mask.all()):
        return real
    out = real.new_zeros(len(mask), real.shape[-1])
    out[mask] = real
    return out
