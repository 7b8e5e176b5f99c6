"""The engine: every loop over tasks and steps lives here and in `quickstudy.core.answers`, and no learner knows which
form it runs in.

See `quickstudy.core.forms` for the forms of the computation. ``dual`` and ``stacked`` can run compiled, for long runs
of tasks of one shape (`quickstudy.core.compiled`).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core import compiled, cores, dual
from quickstudy.core.answers import adapt as adapt  # of the engine as others see it
from quickstudy.core.answers import outputs as outputs
from quickstudy.core.answers import predict as predict
from quickstudy.core.checkpoint import TrainingState
from quickstudy.core.checks import (
    check_batch,
    check_run,
    check_tasks,
    diverged,
    finite,
    no_derivative,
    out_of_memory,
    too_big,
    untouched,
)
from quickstudy.core.episode import Episode
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.forms import (
    Form,
    check_stacked,
    settled,
    stacked_losses,
    task_losses,
)
from quickstudy.core.learner import Meta, MetaLearner, named, recomputing
from quickstudy.core.net import autocast, training

Sample = Callable[[int], Episode]
"""A batch of tasks as a pure function of the step's number, so that a resumed run meets the same tasks."""


def meta_gradient(
    learner: MetaLearner,
    meta: Meta,
    episodes: Episode,
    *,
    form: Form = "auto",
    chunk: int | None = None,
    seed: int = 0,
    compile: bool = False,
    recompute: bool = False,
    mixed: bool = False,
) -> tuple[float, Meta]:
    """The mean loss over tasks and its gradient with respect to the trainable part of `meta`.

    Args:
        chunk: tasks at once, which bounds memory; None for all, or as many as hold 17 MB in the dual form, or one at a
            time in the loop form; the hybrid form has a bound of its own. Where memory runs out, half as many.
        compile: trace and compile the step on first use (seconds to a minute), then run it two to three times as fast;
            for thousands of steps of the same shapes. A `CompileWarning` says why where that can't be.
        recompute: keep no more of an inner step than the weights it began at, and compute it again on the way back:
            memory of one step instead of all, for half as much time again. For learners whose inner loop is made of
            `descend` or `inner_step`: others have nothing to compute again, and refuse it. The dual form, which
            bounds its memory by itself, stays as it is.
        mixed: bfloat16 where torch's autocast takes it: for large networks on a GPU. Gradients are then right to two or
            three digits.

    Returns:
        (loss, gradients by name).

    Raises:
        DataError: tasks that can't be learned from or judged by.
        ModelError: nothing follows a gradient, a form that can't be, or a single task is too big.
    """
    if isinstance(learner, MetaLearner):
        learner.check(meta)
    return _meta_gradient(
        learner,
        meta,
        episodes,
        form=form,
        chunk=chunk,
        seed=seed,
        compile=compile,
        recompute=recompute,
        mixed=mixed,
    )


def _meta_gradient(
    learner: MetaLearner,
    meta: Meta,
    episodes: Episode,
    *,
    form: Form,
    chunk: int | None,
    seed: int,
    compile: bool,
    recompute: bool,
    mixed: bool,
) -> tuple[float, Meta]:
    names = learner.trainable(meta)
    if not names:
        raise ModelError(f"{type(learner).__name__} has nothing that follows a gradient; `evaluate` it.")
    if form not in get_args(Form):
        raise ModelError(f"form={form!r}; there are {', '.join(map(repr, get_args(Form)))}.")
    if chunk is not None and (not isinstance(chunk, Integral) or chunk < 1):
        raise ModelError(f"chunk={chunk}; expected 1 task or more at once, or None.")
    if compile and (recompute or mixed):
        raise ModelError("compile=True has no recompute or mixed form; leave one of them out.")
    check_tasks(learner, meta, episodes, trains=True)
    tasks = len(episodes.support.mask)
    used = chunk or tasks  # tasks at once, at the last try

    def run(form: Form) -> tuple[float, Meta]:
        nonlocal used
        # The dual form bounds its memory by itself, in a fraction of the time that computing again takes.
        if form == "dual" and mixed:
            form = "stacked"
        elif form == "hybrid" and (mixed or recompute):
            form = "loop"
        size = chunk
        if size is None and form == "dual" and dual.applies_to_loss(learner, episodes):
            size = dual.at_once(learner, meta, episodes)
        used = size = size or (1 if form == "loop" else tasks)
        leaves = {k: v.detach().requires_grad_(k in names) for k, v in meta.items()}
        total = 0.0
        for start in range(0, tasks, size):
            part = episodes if size >= tasks else episodes.taken(slice(start, start + size))
            if compile and (found := _compiled_gradient(learner, meta, names, part, form, tasks)) is not None:
                total += found[0]
                for name, value in found[1].items():
                    before = leaves[name].grad
                    leaves[name].grad = value if before is None else before + value
                continue
            with autocast(meta, mixed):
                loss = task_losses(learner, leaves, part, form=form, seed=seed).sum() / tasks
            if again and not again.met and form != "dual":
                raise ModelError(
                    f"recompute=True computes inner steps again, and {type(learner).__name__} took none that can be: "
                    "those of `descend` and `inner_step`, such as MAML's, with steps of 1 or more. Leave it out."
                )
            if not loss.requires_grad:
                raise ModelError(
                    f"{type(learner).__name__}'s loss doesn't hang on what it learns: the network stops the gradient. "
                    "Look for detach(), .numpy() or torch.no_grad() in it."
                )
            loss.backward()
            total += float(loss.detach())
        zero = torch.zeros_like
        return total, {k: g if (g := leaves[k].grad) is not None else zero(leaves[k]) for k in names}

    with training(), recomputing(recompute) as again, torch.enable_grad(), untouched(learner, episodes):
        try:
            return settled(learner, episodes, run) if form == "auto" else run(form)
        except (RuntimeError, MemoryError) as problem:
            if (told := no_derivative(learner, problem)) is not None:
                raise told from problem
            if not too_big(problem):
                raise
            if used == 1:
                out_of_memory(learner, episodes, problem)
    return _meta_gradient(
        learner, meta, episodes, form=form, chunk=math.ceil(used / 2), seed=seed, compile=compile,
        recompute=recompute, mixed=mixed,
    )  # fmt: skip


def _compiled_gradient(
    learner: MetaLearner, meta: Meta, names: list[str], episodes: Episode, form: Form, tasks: int
) -> tuple[float, Meta] | None:
    check_stacked(learner, episodes, form)
    episodes = episodes.blanked()
    # A trace can't look at what tensors hold, so this is looked up before.
    silent = not bool(learner.objective.present(episodes.support).all())

    def losses(meta: Meta, episodes: Episode) -> Tensor:
        if form == "dual":
            return dual.task_losses(learner, meta, episodes, silent=silent) / tasks
        if form == "stacked":
            return stacked_losses(learner, meta, episodes) / tasks
        raise compiled.Refused(f"form {form!r} takes tasks one by one.")

    return compiled.gradient((learner, form, silent, tasks), losses, meta, names, episodes)


class Scores(NamedTuple):
    """How well each task went: `score` in the objective's unit (accuracy in percent), `loss` likewise."""

    score: Float[Tensor, "tasks"]
    loss: Float[Tensor, "tasks"]


def evaluate(learner: MetaLearner, meta: Meta, batches: Iterable[Episode], *, form: Form = "auto") -> Scores:
    """Adapt to every task's support and judge by its query. Their interval: `report.Estimate.of(scores.score)`.

    Raises:
        DataError: there is no batch, or tasks that can't be learned from or judged by.
        ModelError: `meta` isn't this learner's, or a single task is too big.
    """
    if isinstance(batches, Episode) or callable(batches) or not isinstance(batches, Iterable):
        raise DataError("evaluate takes batches of tasks: [episode], or map(sampler, range(10)).")
    learner.check(meta)
    scores, losses = [], []
    for batch in batches:
        check_batch(batch, "The batches")
        episodes = batch.blanked()
        out = outputs(learner, meta, episodes, form=form, blank=False)
        scores.append(learner.objective.score(out, episodes.query))
        losses.append(learner.objective.loss(out, episodes.query))
    if not scores:
        raise DataError("There was no batch to judge by; give one or more.")
    return Scores(torch.cat(scores), torch.cat(losses))


@dataclass(frozen=True)
class Step:
    """One step of meta-training: its number (from 1), the loss before it, and what is known after it."""

    number: int
    loss: float
    meta: Meta
    slots: dict[str, Tensor]
    """The optimiser's moments and counts after the step, copied: they stay those of this step."""
    made: dict[str, str] = field(default_factory=dict, kw_only=True)
    """What a run that goes on from here must share: the kind of learner, the optimiser, the seed."""

    def state(self, **fingerprints: str) -> TrainingState:
        """Everything that a resumed run needs; `fingerprints` name the encoder, data and settings it must share."""
        tensors = {f"meta.{k}": v.detach().clone() for k, v in self.meta.items()}
        tensors |= {f"optimiser.{name}": value.clone() for name, value in self.slots.items()}
        return TrainingState(
            step=self.number, tensors=tensors, record={"fingerprints": dict(fingerprints), "made": self.made}
        )


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
    recompute: bool = False,
    mixed: bool = False,
    threads: int | None = None,
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
        meta: what to start from instead of `learner.init(seed)`; not together with `resume`, which holds its own.
        resume: a state to go on from; the run ends at the same numbers as one that was never stopped.
        form, chunk, compile, recompute, mixed: see `meta_gradient`.
        threads: for each step; None takes one where work is small, else as many as torch is set to.

    Raises:
        DivergedError: a loss or gradient that isn't finite; the last step given is the last good one.
        CheckpointError: `resume` is of another kind of learner, another optimiser or another seed.
        DataError, ModelError: as `meta_gradient`.
    """
    check_run(
        learner, sample, optimiser=optimiser, rate=rate, weight_decay=weight_decay, clip=clip,
        whole={"steps": steps, "warmup": warmup, "seed": seed, "threads": 1 if threads is None else threads},
    )  # fmt: skip
    made = {"learner": type(learner).__name__, "optimiser": optimiser, "seed": str(seed)}
    if resume is not None:
        check_resumed(resume, meta, made)
    if meta is not None:
        learner.check(meta)
    meta = dict(meta if meta is not None else named(learner, "init", learner.init(seed)))
    if resume is not None:
        meta = {
            k.removeprefix("meta."): v.clone() for k, v in resume.tensors.items() if k.startswith("meta.")
        }
        learner.check(meta)
    names = tuple(learner.trainable(meta))
    if not names:
        instead = "use its `estimate`" if hasattr(learner, "estimate") else "use it as it is"
        if not meta and learner.nets():
            instead = "every parameter of its network is frozen; net.requires_grad_(True) frees them"
        raise ModelError(f"{type(learner).__name__} learns nothing by gradient; {instead}.")
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
        episodes, own = sample(number), seed * 1_000_003 + number
        check_batch(episodes, f"sample({number})")
        with cores.threads(cores.threads_for(meta, episodes) if threads is None else threads):
            loss, gradient = _meta_gradient(
                learner, meta, episodes, form=form, chunk=chunk, seed=own, compile=compile, recompute=recompute,
                mixed=mixed,
            )  # fmt: skip
        if not finite(loss, gradient):
            with training(), torch.no_grad():
                losses = task_losses(learner, meta, episodes, form=form, seed=own)
            raise diverged(learner, number + 1, losses)
        if number == 0 and not any(slope.any() for slope in gradient.values()):
            warnings.warn(
                f"The first meta-gradient of {type(learner).__name__} is 0 everywhere, so nothing was learned by it. "
                "Look for round, sign, floor or another step function in the network's forward pass, whose derivative "
                "is 0, or for a unit that says nothing on any input.",
                UserWarning,
                stacklevel=2,
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
        yield Step(number + 1, loss, meta, slots, made=made)


def check_resumed(resume: TrainingState, meta: Meta | None, made: dict[str, str]) -> None:
    """Whether a run may go on from a state. Raises CheckpointError, or ModelError where `meta` is given, too."""
    if not isinstance(resume, TrainingState):
        raise CheckpointError(
            f"resume is a {type(resume).__name__}; expected a training state: load_state(folder, {{}})."
        )
    if meta is not None:
        raise ModelError("`resume` holds the meta-parameters to go on from; leave `meta` out, or `resume`.")
    before = resume.record.get("made") or {}
    if not isinstance(before, dict):
        raise CheckpointError(f"The state says that it was made with {str(before)[:80]!r}; it is damaged.")
    wrong = [
        f"{name} {before[name]}, not {now}" for name, now in made.items() if before.get(name, now) != now
    ]
    if wrong:
        raise CheckpointError(
            f"This state was made with {'; '.join(wrong)}. Going on would mix two runs: go on with what it was made "
            "with, or start a new run from what it learned, by `meta`."
        )


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
