"""Meta-training of policies: trajectories, adaptation, trajectories of the adapted policies, a step of the outer loop.

Finn, Abbeel & Levine 2017, arXiv:1703.03400, algorithm 3. Any learner with an inner loop takes part, since policies are
an objective like any other (`quickstudy.core.policy`). With `Sampling(trajectories=0)` nothing is adapted to: what is
left is plain PPO or TRPO on all tasks together, which meta-learning has to beat.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch

from quickstudy.core.checkpoint import TrainingState
from quickstudy.core.checks import diverged, finite
from quickstudy.core.engine import Step, check_resumed, meta_train
from quickstudy.core.episode import Episode
from quickstudy.core.errors import DivergedError, ModelError
from quickstudy.core.forms import task_losses
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.spec import Positive, Rate, Size, Spec
from quickstudy.domains.control.collect import NotFinite, Sampling, collect, policy_objective
from quickstudy.domains.control.tasks import Family
from quickstudy.domains.control.trust_region import TRPO, trust_region_step


@dataclass(frozen=True, kw_only=True)
class PPO(Spec):
    """An outer loop that takes several clipped steps on the same trajectories (Schulman et al. 2017, arXiv:1707.06347).

    Each step adapts anew, to the trajectories that there are, from the weights it begins at.
    """

    epochs: Size = 5
    """Steps on the same trajectories."""
    rate: Rate = 1e-3
    """Of Adam."""
    clip: Positive = 0.2
    """ε; the paper's."""
    penalty: Rate = 0.0
    """κ, of the adapted policy's divergence from the one that acted."""
    norm: Positive | None = 1.0
    """Bound on the norm of the meta-gradient; None for none."""


@dataclass(frozen=True)
class PolicyStep(Step):
    """A step of meta-training, with mean returns over its tasks as they were before it."""

    before: float
    """Of the policy that adaptation begins at; NaN where nothing is adapted to."""
    after: float
    """Of the adapted policies."""
    divergence: float
    """Of adapted policies from those that acted, after the step; NaN for PPO, which doesn't look."""
    env_steps: int
    """Taken in environments, for this step alone."""


def meta_train_policy(
    learner: MetaLearner,
    family: Family,
    *,
    steps: int,
    outer: PPO | TRPO | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    meta: Meta | None = None,
    resume: TrainingState | None = None,
) -> Iterator[PolicyStep]:
    """Meta-train a policy, one batch of tasks per iteration: stop by leaving the loop, save by `step.state()`.

    Args:
        learner: any learner with an inner loop whose objective is of policies; see `actor`.
        family: what tasks are drawn from.
        steps: how many batches in all, those before a resumption included.
        outer: the outer loop; None for `TRPO()`, the paper's.
        sampling: what is acted out; None for `Sampling()`.
        seed: of everything that is drawn. Step k is a function of (seed, k) and of what is known before it.
        meta: what to start from instead of `learner.init(seed)`; not together with `resume`.
        resume: a state to go on from; the run ends at the same numbers as one that was never stopped.

    Raises:
        ModelError: the learner isn't one of policies.
        CheckpointError: `resume` is of another kind of learner, another outer loop or another seed.
        DivergedError: something isn't finite; it says in which step and which task.
    """
    outer, sampling = outer or TRPO(), sampling or Sampling()
    for name, given, kinds in (("outer", outer, (TRPO, PPO)), ("sampling", sampling, (Sampling,))):
        if not isinstance(given, kinds):
            expected = " or ".join(f"{kind.__name__}(…)" for kind in kinds)
            raise ModelError(f"{name}={given!r}; expected {expected}, or None.")
    policy_objective(learner)
    for name, value in {"steps": steps, "seed": seed}.items():
        if not isinstance(value, Integral) or value < 0:
            raise ModelError(f"{name}={value!r}; expected a whole number, 0 or more.")
    made = {"learner": type(learner).__name__, "outer": type(outer).__name__, "seed": str(seed)}
    if resume is not None:
        check_resumed(resume, meta, made)
    meta, state = dict(meta if meta is not None else learner.init(seed)), None
    learner.check(meta)
    if not learner.trainable(meta):
        raise ModelError(
            f"{type(learner).__name__} learns nothing by gradient; `evaluate_policy` it as it is, or take MAML."
        )
    if resume is not None:
        learner.check(
            {k.removeprefix("meta."): v for k, v in resume.tensors.items() if k.startswith("meta.")}
        )
        # A file has its own order of tensors, and sums over all of them round by it.
        ordered = {k: resume.tensors[k] for k in (f"meta.{name}" for name in meta)}
        state = replace(resume, tensors=ordered | resume.tensors)
        meta = {name: resume.tensors[f"meta.{name}"].clone() for name in meta}
    how = {"clip": outer.clip, "weight": outer.penalty} if isinstance(outer, PPO) else {}
    for number in range(resume.step if resume else 0, steps):
        try:
            tasks = family.draw(sampling.tasks, (seed, number))
            found = collect(learner, meta, family, tasks, sampling, seed=(seed, number), **how)
            if isinstance(outer, TRPO):
                taken = trust_region_step(learner, meta, found.episodes, outer)
                loss, moved, slots, divergence = taken.before, taken.meta, {}, taken.divergence
            else:
                last = _ppo(learner, meta, found.episodes, outer, number, seed, state)
                loss, moved, slots, divergence = last.loss, last.meta, last.slots, math.nan
            if not finite(loss, moved):
                with torch.no_grad():
                    losses = task_losses(learner, meta, found.episodes)
                raise diverged(learner, number + 1, losses)
        except NotFinite as problem:
            raise _diverged(number + 1, str(problem), [problem.task]) from None
        except DivergedError as problem:  # it counts PPO's steps
            raise _diverged(number + 1, _clause(problem.tasks), problem.tasks) from None
        meta = moved
        before = math.nan if found.before is None else float(found.before.mean())
        step = PolicyStep(
            number + 1,
            loss,
            meta,
            slots,
            before,
            float(found.after.mean()),
            divergence,
            found.steps,
            made=made,
        )
        state = step.state()
        yield step


def _ppo(
    learner: MetaLearner,
    meta: Meta,
    episodes: Episode,
    outer: PPO,
    number: int,
    seed: int,
    state: TrainingState | None,
) -> Step:
    """Steps on the same episodes; Adam goes on where it was after the batch before."""
    *_, last = meta_train(
        learner,
        lambda _: episodes,
        steps=(number + 1) * outer.epochs,
        rate=outer.rate,
        clip=outer.norm,
        seed=seed,
        meta=meta if state is None else None,
        resume=None if state is None else replace(state, step=number * outer.epochs),
    )
    return last


def _clause(tasks: Sequence[int]) -> str:
    if not tasks:
        return "the losses are finite, but not their gradient"
    return f"the loss of task {tasks[0]} isn't finite" + (
        f", nor of {len(tasks) - 1} more" if tasks[1:] else ""
    )


def _diverged(step: int, clause: str, tasks: Sequence[int]) -> DivergedError:
    return DivergedError(
        f"Step {step}: {clause}. Lower the learner's rate or the outer one, or look at the environment; what was known "
        "after the step before is still good.",
        step=step,
        tasks=tasks,
    )
