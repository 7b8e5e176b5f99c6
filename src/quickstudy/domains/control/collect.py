"""Experience of a batch of tasks: act out, adapt, act out again; and how much of it there is."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from quickstudy.core.engine import adapt, predict
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.forms import Form, settled
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.policy import PolicyGradient
from quickstudy.core.spec import Size, Spec, Steps
from quickstudy.domains.control.encode import width_of
from quickstudy.domains.control.rollout import Trajectories, advantages, roll_out
from quickstudy.domains.control.tasks import Family

Discount = Annotated[float, Field(ge=0, le=1)]


class NotFinite(ModelError):
    """Something acted out isn't a finite number; the message is a clause that names the task."""

    def __init__(self, problem: str, task: int) -> None:
        super().__init__(problem)
        self.task = task


Act = Callable[[Tensor], Tensor]
"""Observations [tasks, copies, d] -> the outputs of each task's policy."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Spec):
    """What is acted out in a step of meta-training, and how it is judged."""

    tasks: Size = 20
    """In a batch; the paper's for points."""
    trajectories: Steps = 20
    """Episodes to adapt to, in each task; the paper's for points."""
    judged: Size | None = None
    """Episodes of the adapted policy, in each task; None for as many."""
    horizon: Size = 100
    """Steps after which an episode is cut off; the paper's for points."""
    discount: Discount = 0.99
    """Of rewards, γ; the reference code's."""
    smoothing: Discount = 1.0
    """λ of the generalised advantage; 1 is the return less the baseline, as in the paper."""
    bootstrap: bool = False
    """Whether an episode that is cut off is worth at its end what the baseline expects; see `advantages`."""

    def advantages(self, found: Trajectories) -> Float[Tensor, "tasks copies time"]:
        return advantages(found, discount=self.discount, smoothing=self.smoothing, bootstrap=self.bootstrap)


class Found(NamedTuple):
    """What a batch of tasks gave: episodes for a learner, and each task's mean return before and after adaptation."""

    episodes: Episode
    before: Float[Tensor, "tasks"] | None
    """None where nothing was adapted to."""
    after: Float[Tensor, "tasks"]
    steps: int
    """That were taken in environments."""


def collect(
    learner: MetaLearner,
    meta: Meta,
    family: Family,
    tasks: Sequence[Any],
    sampling: Sampling,
    *,
    seed: Sequence[int],
    **how: float,
) -> Found:
    """Act out, adapt, act out again.

    Args:
        seed: of all that is drawn.
        how: what `objective.rows` takes for the trajectories of adapted policies: a clip, a weight.
    """
    objective, number = policy_objective(learner), len(tasks)
    first, second = (int(s) for s in np.random.SeedSequence(list(seed)).generate_state(2) >> 1)
    copies = sampling.trajectories if sampling.judged is None else sampling.judged
    if not copies:
        raise ModelError("No trajectory is judged; say how many by Sampling(judged=…).")
    support, before, steps = None, None, 0
    if sampling.trajectories:
        with closing(family.vector(tasks, sampling.trajectories)) as env:
            start = policies(
                learner, meta, nothing(objective, number, width_of(env.single_observation_space))
            )
            told = finite(roll_out(start, objective, env, number, horizon=sampling.horizon, seed=first))
        support, before = told.labelled(objective, sampling.advantages(told)), told.returns
        steps = int(told.mask.sum())
    with closing(family.vector(tasks, copies)) as env:
        if support is None:
            support = nothing(objective, number, width_of(env.single_observation_space))
        act = policies(learner, meta, support)
        told = finite(roll_out(act, objective, env, number, horizon=sampling.horizon, seed=second))
    query = told.labelled(objective, sampling.advantages(told), **how)
    return Found(Episode(support, query), before, told.returns, steps + int(told.mask.sum()))


def policies(learner: MetaLearner, meta: Meta, support: Labelled) -> Act:
    """Each task's policy, adapted to its part of the support."""

    def run(form: Form) -> Act:
        if form == "loop":
            own = [adapt(learner, meta, Labelled(*one)) for one in zip(*support, strict=True)]
            return lambda x: torch.stack(
                [predict(learner, meta, fast, rows) for fast, rows in zip(own, x, strict=True)]
            )
        fast = adapt(learner, meta, support)
        # To see that it can, before there is an episode.
        predict(learner, meta, fast, support.x[:, :1], many=True)
        return lambda x: predict(learner, meta, fast, x, many=True)

    return settled(learner, Episode(support, support), run)


def nothing(objective: PolicyGradient, tasks: int, inputs: int) -> Labelled:
    """A support of one masked row a task: no experience, from which a learner gives its policy to begin with."""
    dtype = torch.get_default_dtype()
    y = torch.zeros(tasks, 1, objective.columns, dtype=dtype)
    return Labelled(torch.zeros(tasks, 1, inputs, dtype=dtype), y, torch.zeros(tasks, 1, dtype=torch.bool))


def finite(found: Trajectories) -> Trajectories:
    """The same. Raises NotFinite, naming the task by its place in the batch, for what isn't a finite number."""
    first: tuple[int, str, int] | None = None  # in time: what comes after is its consequence
    for name, values in (
        ("observations", found.x), ("policy's outputs", found.outputs), ("rewards", found.reward.unsqueeze(-1))
    ):  # fmt: skip
        wrong = (~values.isfinite().all(-1) & found.mask).any(1)
        if bool(wrong.any()):
            time, task = wrong.mT.nonzero()[0].tolist()
            if first is None or time < first[0]:
                first = time, name, task
    if first is not None:
        time, name, task = first
        raise NotFinite(f"the {name} of task {task} aren't finite (step {time} of an episode, from 0)", task)
    return found


def policy_objective(learner: MetaLearner) -> PolicyGradient:
    """The learner's objective. Raises ModelError when it isn't one of policies."""
    if not isinstance(learner.objective, PolicyGradient):
        raise ModelError(
            f"The objective is a {type(learner.objective).__name__}; policies want DiscreteActions or "
            "GaussianActions, as `actor(family)` gives them."
        )
    return learner.objective
