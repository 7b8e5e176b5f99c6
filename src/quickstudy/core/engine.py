"""The engine: every loop over tasks and steps lives here, and no learner knows which form it runs in.

Four forms of the same computation, equal to rounding:

* ``dual``: closed-form inner backward, first layer never materialised (`quickstudy.core.dual`); the fastest;
* ``hybrid``: the same for convolutions, a few tasks at a time, queries one by one (`quickstudy.core.convolve`);
* ``stacked``: all tasks at once, vmap over forward passes only; works for any network with vmap rules;
* ``loop``: one task after the other; works for everything. Padding is cut away where it would enter batch statistics.

``dual`` and ``stacked`` can run compiled, for long runs of tasks of one shape (`quickstudy.core.compiled`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core import compiled, convolve, dual
from quickstudy.core.checkpoint import TrainingState
from quickstudy.core.episode import Episode, Labelled, unstack
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.net import generator_lock, has, over_tasks, training

Form = Literal["auto", "dual", "hybrid", "stacked", "loop"]
Sample = Callable[[int], Episode]
"""A batch of tasks as a pure function of the step's number, so that a resumed run meets the same tasks."""

_NO_VMAP_RULE = (nn.RNNBase, nn.RNNCellBase)
_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)


def choose_form(learner: MetaLearner, episodes: Episode) -> Form:
    """The fastest form that is exact for this learner on these tasks."""
    if dual.applies_to_loss(learner, episodes) and dual.pays(episodes):
        return "dual"
    if convolve.applies_to_loss(learner, episodes) and convolve.pays(episodes):
        return "hybrid"
    ragged = _ragged(episodes)
    if not learner.maps or (ragged and learner.transductive):
        return "loop"
    if _any_has(learner, *_NO_VMAP_RULE):
        return "loop"
    if ragged and _any_has(learner, *_BATCH_STATISTICS):
        return "loop"  # padded rows would enter the batch statistics
    if _any_has(learner, *_CONVOLUTIONS) and episodes.support.x.device.type == "cpu":
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
    form = choose_form(learner, episodes) if form == "auto" else form
    if form == "dual":  # nothing random in it, and seeding takes a while
        if not dual.applies_to_loss(learner, episodes):
            raise _none(learner, "dual")
        return dual.task_losses(learner, meta, episodes)
    if form == "hybrid":  # likewise
        if not convolve.applies_to_loss(learner, episodes):
            raise _none(learner, "hybrid")
        return convolve.task_losses(learner, meta, episodes)
    _check_stacked(learner, episodes, form)
    with _seeded(seed):
        if form == "loop":
            return torch.stack([_one_loss(learner, meta, episode, seed) for episode in unstack(episodes)])
        return _stacked_losses(learner, meta, episodes)


def _stacked_losses(learner: MetaLearner, meta: Meta, episodes: Episode) -> Float[Tensor, "tasks"]:
    if not learner.inner_loop or type(learner).loss is not MetaLearner.loss:
        return over_tasks(learner.loss, (None, 0))(meta, episodes)
    fast = _adapt_all(learner, meta, episodes.support)
    return over_tasks(learner.outer_loss, (None, 0, 0))(meta, fast, episodes)


def meta_gradient(
    learner: MetaLearner,
    meta: Meta,
    episodes: Episode,
    *,
    form: Form = "auto",
    chunk: int | None = None,
    seed: int = 0,
    compile: bool = False,
) -> tuple[float, Meta]:
    """The mean loss over tasks and its gradient with respect to the trainable part of `meta`.

    Args:
        chunk: tasks at once, which bounds memory; None for all, or as many as hold 17 MB in the dual form, or one at a
            time in the loop form; the hybrid form has a bound of its own.
        compile: trace and compile the step on first use (seconds to a minute), then run it two to three times as fast;
            for thousands of steps of the same shapes. A `CompileWarning` says why where that can't be.

    Returns:
        (loss, gradients by name).
    """
    names = learner.trainable(meta)
    if not names:
        raise ModelError(
            f"{type(learner).__name__} has nothing that follows a gradient; use its `estimate`, or `evaluate`."
        )
    leaves = {k: v.detach().requires_grad_(k in names) for k, v in meta.items()}
    tasks = len(episodes.support.mask)
    form = choose_form(learner, episodes) if form == "auto" else form
    if chunk is None and form == "dual" and dual.applies_to_loss(learner, episodes):
        chunk = dual.at_once(learner, meta, episodes)
    size = chunk or (1 if form == "loop" else tasks)
    total = 0.0
    with training(), torch.enable_grad():
        for start in range(0, tasks, size):
            part = _slice(episodes, slice(start, start + size))
            if compile and (found := _compiled_gradient(learner, meta, names, part, form, tasks)) is not None:
                total += found[0]
                for name, value in found[1].items():
                    before = leaves[name].grad
                    leaves[name].grad = value if before is None else before + value
                continue
            loss = task_losses(learner, leaves, part, form=form, seed=seed).sum() / tasks
            loss.backward()
            total += float(loss.detach())
    zero = torch.zeros_like
    return total, {k: g if (g := leaves[k].grad) is not None else zero(leaves[k]) for k in names}


def _compiled_gradient(
    learner: MetaLearner, meta: Meta, names: list[str], episodes: Episode, form: Form, tasks: int
) -> tuple[float, Meta] | None:
    _check_stacked(learner, episodes, form)
    episodes = episodes.blanked()
    # A trace can't look at what tensors hold, so this is looked up before.
    silent = not bool(learner.objective.present(episodes.support).all())

    def losses(meta: Meta, episodes: Episode) -> Tensor:
        if form == "dual":
            return dual.task_losses(learner, meta, episodes, silent=silent) / tasks
        if form == "stacked":
            return _stacked_losses(learner, meta, episodes) / tasks
        raise compiled.Refused(f"form {form!r} takes tasks one by one.")

    return compiled.gradient((learner, form, silent, tasks), losses, meta, names, episodes)


def adapt(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    """Learn one task (support [n, …]) or stacked tasks ([tasks, n, …]); nothing is differentiated through."""
    alone = support.mask.ndim == 1
    support = support.trimmed() if alone else support.blanked()
    tasks = Labelled(*(t.unsqueeze(0) for t in support)) if alone else support
    with torch.no_grad():
        if convolve.applies(learner, Episode(tasks, tasks)) and convolve.pays(Episode(tasks, tasks)):
            fast = convolve.adapt(learner, meta, tasks)
            return {name: value[0] for name, value in fast.items()} if alone else fast
        return learner.adapt(meta, support) if alone else _adapt_all(learner, meta, support)


def predict(learner: MetaLearner, meta: Meta, fast: Fast, x: Tensor, *, many: bool = False) -> Tensor:
    """Outputs for x [n, …] of one adapted task, or [tasks, n, …] when `many`; nothing is differentiated through."""
    with torch.no_grad():
        if not many:
            return learner.predict(meta, fast, x)
        return over_tasks(learner.predict, (None, 0, 0))(meta, fast, x)


def outputs(
    learner: MetaLearner, meta: Meta, episodes: Episode, *, form: Form = "auto", blank: bool = True
) -> Float[Tensor, "tasks q k"]:
    """Adapt to every task and predict its query, in the fastest exact form; nothing is differentiated through.

    Args:
        blank: False where masked rows are known to hold sane numbers, which saves a copy of all tasks.
    """
    episodes = episodes.blanked() if blank else episodes
    if form == "dual" or (form == "auto" and dual.applies(learner, episodes) and dual.pays(episodes)):
        if not dual.applies(learner, episodes):
            raise _none(learner, "dual")
        with torch.no_grad():
            return dual.outputs(learner, meta, episodes)
    if form == "hybrid" or (
        form == "auto" and convolve.applies(learner, episodes) and convolve.pays(episodes)
    ):
        if not convolve.applies(learner, episodes):
            raise _none(learner, "hybrid")
        return convolve.outputs(learner, meta, episodes)
    form = choose_form(learner, episodes) if form == "auto" else form
    _check_stacked(learner, episodes, form)
    if form != "loop":
        with torch.no_grad():
            fast = _adapt_all(learner, meta, episodes.support)
        return predict(learner, meta, fast, episodes.query.x, many=True)
    return torch.stack([_outputs_alone(learner, meta, one) for one in unstack(episodes)])


class Scores(NamedTuple):
    """How well each task went: `score` in the objective's unit (accuracy in percent), `loss` likewise."""

    score: Float[Tensor, "tasks"]
    loss: Float[Tensor, "tasks"]


def evaluate(learner: MetaLearner, meta: Meta, batches: Iterable[Episode], *, form: Form = "auto") -> Scores:
    """Adapt to every task's support and judge by its query. Their interval: `report.Estimate.of(scores.score)`."""
    scores, losses = [], []
    for batch in batches:
        episodes = batch.blanked()
        out = outputs(learner, meta, episodes, form=form, blank=False)
        scores.append(learner.objective.score(out, episodes.query))
        losses.append(learner.objective.loss(out, episodes.query))
    return Scores(torch.cat(scores), torch.cat(losses))


@dataclass(frozen=True)
class Step:
    """One step of meta-training: its number (from 1), the loss before it, and what is known after it."""

    number: int
    loss: float
    meta: Meta
    slots: dict[str, Tensor]
    """The optimiser's moments and counts after the step, copied: they stay those of this step."""

    def state(self, **fingerprints: str) -> TrainingState:
        """Everything that a resumed run needs; `fingerprints` name the encoder, data and settings it must share."""
        tensors = {f"meta.{k}": v.detach().clone() for k, v in self.meta.items()}
        tensors |= {f"optimiser.{name}": value.clone() for name, value in self.slots.items()}
        return TrainingState(step=self.number, tensors=tensors, record={"fingerprints": dict(fingerprints)})


def meta_train(
    learner: MetaLearner,
    sample: Sample,
    *,
    steps: int,
    rate: float = 1e-3,
    warmup: int = 0,
    decay: bool = False,
    weight_decay: float = 0.0,
    optimiser: Literal["adam", "sgd"] = "adam",
    clip: float | None = None,
    seed: int = 0,
    meta: Meta | None = None,
    resume: TrainingState | None = None,
    form: Form = "auto",
    chunk: int | None = None,
    compile: bool = False,
) -> Iterator[Step]:
    """Meta-train, one step per iteration: stop by leaving the loop, save by `step.state()`.

    Args:
        sample: `sample(k)` gives the k-th batch of tasks, k = 0, 1, …
        steps: how many steps in all, those before a resumption included.
        rate: the outer learning rate; it rises over `warmup` steps and, with `decay`, falls linearly to a tenth.
        weight_decay: decoupled for adam (AdamW), added to the gradient for sgd.
        optimiser: "adam" or "sgd", the latter with momentum .9.
        clip: bound on the norm of the whole meta-gradient.
        seed: of the initial meta-parameters and of dropout.
        meta: what to start from instead of `learner.init(seed)`.
        resume: a state to go on from; the run ends at the same numbers as one that was never stopped.
        form, chunk, compile: see `meta_gradient`.
    """
    meta = dict(meta if meta is not None else learner.init(seed))
    if resume is not None:
        meta = {
            k.removeprefix("meta."): v.clone() for k, v in resume.tensors.items() if k.startswith("meta.")
        }
        learner.check(meta)
    names = tuple(learner.trainable(meta))
    if not names:
        raise ModelError(f"{type(learner).__name__} learns nothing by gradient; use its `estimate` instead.")
    # The optimiser moves its own copies, so that no tensor handed in or given out ever changes.
    leaves = [meta[name].detach().clone().requires_grad_() for name in names]
    # foreach and fused variants sum in another order on some machines; the plain one is the same everywhere.
    outer = (
        torch.optim.AdamW(leaves, lr=rate, weight_decay=weight_decay, foreach=False)
        if optimiser == "adam"
        else torch.optim.SGD(leaves, lr=rate, momentum=0.9, weight_decay=weight_decay, foreach=False)
    )
    if resume is not None:
        _restore(outer, names, resume)
    for number in range(resume.step if resume else 0, steps):
        loss, gradient = meta_gradient(
            learner,
            meta,
            sample(number),
            form=form,
            chunk=chunk,
            seed=seed * 1_000_003 + number,
            compile=compile,
        )
        for leaf, name in zip(leaves, names, strict=True):
            leaf.grad = gradient[name]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(leaves, clip)
        for group in outer.param_groups:
            group["lr"] = rate * _schedule(number, steps, warmup, decay)
        outer.step()
        meta = meta | {name: leaf.detach().clone() for name, leaf in zip(names, leaves, strict=True)}
        state = outer.state_dict()["state"]
        slots = {
            f"{names[i]}.{slot}": torch.as_tensor(value).detach().clone()
            for i, own in state.items()
            for slot, value in own.items()
        }
        yield Step(number + 1, loss, meta, slots)


def _restore(outer: torch.optim.Optimizer, names: tuple[str, ...], resume: TrainingState) -> None:
    state = outer.state_dict()
    for i, name in enumerate(names):
        prefix = f"optimiser.{name}."
        slots = {k.removeprefix(prefix): v.clone() for k, v in resume.tensors.items() if k.startswith(prefix)}
        if slots:
            state["state"][i] = slots
    outer.load_state_dict(state)


def _schedule(number: int, steps: int, warmup: int, decay: bool) -> float:
    rise = min(1.0, (number + 1) / warmup) if warmup else 1.0
    return rise * (1.0 - 0.9 * number / max(1, steps) if decay else 1.0)


def _ragged(episodes: Episode) -> bool:
    return not all(bool(part.mask.all()) for part in episodes)


def _check_stacked(learner: MetaLearner, episodes: Episode, form: Form) -> None:
    if form == "stacked" and learner.transductive and _ragged(episodes):
        raise ModelError(
            f"{type(learner).__name__} answers by what else is asked, and in the stacked form padding would be part of "
            "that; use form='loop' or 'auto'."
        )


def _any_has(learner: MetaLearner, *kinds: type[nn.Module]) -> bool:
    return any(has(net, *kinds) for net in learner.nets())


def _one_loss(learner: MetaLearner, meta: Meta, episode: Episode, seed: int) -> Tensor:
    torch.manual_seed(seed)  # the same dropout masks as in the stacked form
    if learner.transductive or _any_has(learner, *_BATCH_STATISTICS):
        episode = Episode(episode.support.trimmed(), episode.query.trimmed())
    return learner.loss(meta, episode)


def _outputs_alone(learner: MetaLearner, meta: Meta, episode: Episode) -> Float[Tensor, "q k"]:
    """One task's outputs, computed without its padding; zero in the padded rows of the query."""
    fast, mask = adapt(learner, meta, episode.support.trimmed()), episode.query.mask
    real = predict(learner, meta, fast, episode.query.trimmed().x)
    if len(real) == len(mask):
        return real
    out = real.new_zeros(len(mask), real.shape[-1])
    out[mask] = real
    return out


def _adapt_all(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    if not learner.inner_loop:
        return over_tasks(learner.adapt, (None, 0))(meta, support)
    # Every meta-parameter once per task, by a view: nothing is copied.
    return learner.adapt({k: v.expand(len(support.mask), *v.shape) for k, v in meta.items()}, support)


def _none(learner: MetaLearner, form: Form) -> ModelError:
    return ModelError(f"{type(learner).__name__} has no {form} form here; use form='stacked' or 'auto'.")


def _slice(episodes: Episode, rows: slice) -> Episode:
    return Episode(*(Labelled(*(t[rows] for t in part)) for part in episodes))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with generator_lock, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone, which takes a tenth of the time
        yield
