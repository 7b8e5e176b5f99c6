"""The forms in which the engine runs learners over tasks, and which of them it takes by itself.

Four forms of the same computation, equal to rounding:

* ``dual``: closed-form inner backward, first layer never materialised (`quickstudy.core.dual`); the fastest;
* ``hybrid``: the same for convolutions, a few tasks at a time, queries one by one (`quickstudy.core.convolve`);
* ``stacked``: all tasks at once, vmap over forward passes only; works for any network with vmap rules;
* ``loop``: one task after the other; works for everything. Padding is cut away where it would enter batch statistics.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core import convolve, dual
from quickstudy.core.episode import Episode, Labelled, unstack
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner, named
from quickstudy.core.net import Unmappable, generator_lock, has, over_tasks

Form = Literal["auto", "dual", "hybrid", "stacked", "loop"]
T = TypeVar("T")

_NO_VMAP_RULE = (nn.RNNBase, nn.RNNCellBase)
_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_unmappable: WeakSet[nn.Module] = WeakSet()
"""Networks that were found to take tasks one by one alone."""


def choose_form(learner: MetaLearner, episodes: Episode) -> Form:
    """The fastest form that is exact for this learner on these tasks."""
    if dual.applies_to_loss(learner, episodes) and dual.pays(episodes):
        return "dual"
    if convolve.applies_to_loss(learner, episodes) and convolve.pays(episodes):
        return "hybrid"
    ragged = _ragged(episodes)
    if _mixes(learner):
        return "loop"
    if not learner.maps or (ragged and learner.transductive):
        return "loop"
    if any_has(learner, *_NO_VMAP_RULE) or any(net in _unmappable for net in _modules(learner)):
        return "loop"
    if ragged and any_has(learner, *_BATCH_STATISTICS):
        return "loop"  # padded rows would enter the batch statistics
    if any_has(learner, *_CONVOLUTIONS) and episodes.support.x.device.type == "cpu":
        return "loop"  # vmap makes grouped convolutions of them, which CPUs run up to three times as slowly
    return "stacked"


def task_losses(
    learner: MetaLearner, meta: Meta, episodes: Episode, *, form: Form = "auto", seed: int = 0
) -> Float[Tensor, "tasks"]:
    """What meta-training lowers, task by task, differentiable in `meta`.

    Args:
        learner: any learner.
        meta: what it knows so far.
        episodes: stacked tasks, x [tasks, rows, …].
        form: how to compute it; "auto" takes the fastest exact one.
        seed: of dropout. Tasks of one batch share their dropout masks, which makes all forms agree.

    Raises:
        ModelError: the form asked for can't run this learner.
    """
    episodes = episodes.blanked()
    if form == "auto":
        return settled(
            learner, episodes, lambda form: task_losses(learner, meta, episodes, form=form, seed=seed)
        )
    if form == "dual":  # nothing random in it, and seeding takes a while
        if not dual.applies_to_loss(learner, episodes):
            raise no_form(learner, "dual")
        return dual.task_losses(learner, meta, episodes)
    if form == "hybrid":  # likewise
        if not convolve.applies_to_loss(learner, episodes):
            raise no_form(learner, "hybrid")
        return convolve.task_losses(learner, meta, episodes)
    check_stacked(learner, episodes, form)
    with _seeded(seed):
        if form == "loop":
            return torch.stack([_one_loss(learner, meta, episode, seed) for episode in unstack(episodes)])
        return stacked_losses(learner, meta, episodes)


def settled(learner: MetaLearner, episodes: Episode, run: Callable[[Form], T]) -> T:
    """What `run` gives in the fastest exact form; one by one if a network turns out to take tasks no other way."""
    form = choose_form(learner, episodes)
    try:
        return run(form)
    except Unmappable:
        if form == "loop":
            raise
        found = run("loop")  # which says what is wrong, where that is something else
        _unmappable.update(_modules(learner))
        return found


def _modules(learner: MetaLearner) -> list[nn.Module]:
    return [net for net in learner.nets() if isinstance(net, nn.Module)]


def stacked_losses(learner: MetaLearner, meta: Meta, episodes: Episode) -> Float[Tensor, "tasks"]:
    """The losses with all tasks stacked; differentiable, with no decision that depends on what tensors hold."""
    if _mixes(learner):
        raise ModelError(
            f"{type(learner).__name__} has an inner loop and a `loss` of its own, which hides its steps' gradients "
            "from the stacked form; use form='loop' or 'auto', or override `outer_loss` instead."
        )
    if not learner.inner_loop:
        return over_tasks(learner.loss, (None, 0))(meta, episodes)
    fast = adapt_all(learner, meta, episodes.support)
    return over_tasks(learner.outer_loss, (None, 0, 0))(meta, fast, episodes)


def _mixes(learner: MetaLearner) -> bool:
    """Whether `loss`, mapped over tasks, would follow inner gradients, which can't be seen from within."""
    return learner.inner_loop and type(learner).loss is not MetaLearner.loss


def _ragged(episodes: Episode) -> bool:
    return not all(bool(part.mask.all()) for part in episodes)


def check_stacked(learner: MetaLearner, episodes: Episode, form: Form) -> None:
    """Refuse the stacked form on padded tasks where rows hang together. Raises ModelError."""
    if form == "stacked" and _ragged(episodes):
        if learner.transductive:
            raise ModelError(
                f"{type(learner).__name__} answers by what else is asked, and in the stacked form padding would be "
                "part of that; use form='loop' or 'auto'."
            )
        if any_has(learner, *_BATCH_STATISTICS):
            raise ModelError(
                "Padding would enter batch norm's statistics in the stacked form; use form='loop' or 'auto', tasks of "
                "one size, or stored_norms(network)."
            )


def any_has(learner: MetaLearner, *kinds: type[nn.Module]) -> bool:
    """Whether one of the learner's networks has a layer of these kinds."""
    return any(has(net, *kinds) for net in learner.nets())


def _one_loss(learner: MetaLearner, meta: Meta, episode: Episode, seed: int) -> Tensor:
    torch.manual_seed(seed)  # the same dropout masks as in the stacked form
    if learner.transductive or any_has(learner, *_BATCH_STATISTICS):
        episode = Episode(episode.support.trimmed(), episode.query.trimmed())
    return learner.loss(meta, episode)


def adapt_all(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    """What the learner learns of all tasks, stacked."""
    if not learner.inner_loop:
        return over_tasks(lambda meta, one: named(learner, "adapt", learner.adapt(meta, one)), (None, 0))(
            meta, support
        )
    # Every meta-parameter once per task, by a view: nothing is copied.
    stacked = {k: v.expand(len(support.mask), *v.shape) for k, v in meta.items()}
    return named(learner, "adapt", learner.adapt(stacked, support))


def no_form(learner: MetaLearner, form: Form) -> ModelError:
    """What to say when a form was asked for that there isn't."""
    return ModelError(f"{type(learner).__name__} has no {form} form here; use form='stacked' or 'auto'.")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with generator_lock, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone, which takes a tenth of the time
        yield
