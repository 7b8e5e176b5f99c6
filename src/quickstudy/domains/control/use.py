"""A policy for a new task: adapt it to a few episodes, then let it act; and how well all of this goes on many tasks."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.engine import adapt, predict
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.domains.control.collect import (
    Sampling,
    collect,
    finite,
    nothing,
    policies,
    policy_objective,
)  # fmt: skip
from quickstudy.domains.control.encode import actions, features, width_of
from quickstudy.domains.control.environments import spaces
from quickstudy.domains.control.rollout import roll_out
from quickstudy.domains.control.tasks import Family


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy that has adapted to one task."""

    learner: MetaLearner
    meta: Meta
    fast: Fast
    sees: spaces.Space
    moves: spaces.Space
    episodes: int
    """That it has adapted to."""
    before: float
    """Their mean return."""

    def act(self, observation: Any, generator: torch.Generator | None = None) -> Any:
        """An action for one observation, as the environment takes it: the likeliest, or with a generator one drawn."""
        outputs = predict(
            self.learner, self.meta, self.fast, features(self.sees, np.asarray(observation)[None])
        )
        objective = policy_objective(self.learner)
        drawn = objective.likeliest(outputs) if generator is None else objective.sample(outputs, generator)
        return actions(self.moves, drawn)[0]


def adapt_policy(
    learner: MetaLearner,
    meta: Meta,
    family: Family,
    task: Any,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> AdaptedPolicy:
    """Act out `sampling.trajectories` episodes of one task, and adapt to them."""
    sampling, objective = sampling or Sampling(), policy_objective(learner)
    learner.check(meta)
    if not sampling.trajectories:
        raise ModelError("Sampling(trajectories=0) leaves nothing to adapt to; give one or more.")
    with closing(family.vector([task], sampling.trajectories)) as env:
        sees, moves = env.single_observation_space, env.single_action_space
        start = policies(learner, meta, nothing(objective, 1, width_of(sees)))
        told = finite(roll_out(start, objective, env, 1, horizon=sampling.horizon, seed=seed))
    support = told.labelled(objective, sampling.advantages(told))
    fast = adapt(learner, meta, Labelled(*(part[0] for part in support)))
    return AdaptedPolicy(learner, meta, fast, sees, moves, sampling.trajectories, float(told.returns))


class Returns(NamedTuple):
    """Mean returns of each task."""

    before: Float[Tensor, "tasks"]
    """Of the policy that adaptation begins at."""
    after: Float[Tensor, "tasks"]
    """Of the adapted one."""


def evaluate_policy(
    learner: MetaLearner,
    meta: Meta,
    family: Family,
    tasks: Sequence[Any],
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Returns:
    """Adapt to every task, and act out what was learned; `sampling.tasks` at a time."""
    sampling = sampling or Sampling()
    learner.check(meta)
    if not len(tasks):
        raise DataError("There is no task to evaluate on; give one or more: family.draw(20, seed).")
    before, after = [], []
    for start in range(0, len(tasks), sampling.tasks):
        some = tasks[start : start + sampling.tasks]
        found = collect(learner, meta, family, some, replace(sampling, tasks=len(some)), seed=(seed, start))
        before.append(found.after if found.before is None else found.before)
        after.append(found.after)
    return Returns(torch.cat(before), torch.cat(after))
