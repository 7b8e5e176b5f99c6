"""Families of tasks: each task is an environment, and all of a family look alike from outside.

Any Gymnasium environments make one: say how tasks are drawn and how an environment is made of one. Meta-World's tasks,
which are set on an environment, are `SettableTasks`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.control.environments import (
    Bandit,
    Env,
    Grid,
    PointNavigation,
    VectorBandit,
    VectorEnv,
    VectorGrid,
    VectorPointNavigation,
    gymnasium,
    spaces,
)  # fmt: skip

Seed = Sequence[int] | int


class Family(ABC):
    """What tasks are drawn from. `draw` and `make` are all that a new one needs."""

    @abstractmethod
    def draw(self, number: int, seed: Seed) -> Sequence[Any]:
        """So many tasks, the same ones for the same seed; what a task is, is the family's own affair."""

    @abstractmethod
    def make(self, task: Any) -> Env:
        """A task's environment. All have the same spaces."""

    def vector(self, tasks: Sequence[Any], copies: int) -> VectorEnv:
        """The environments of all tasks, `copies` of each, one task after the other.

        Made of `make`, and stepped one by one; a family that can advance them together says how.
        """
        return self.together([partial(self.made, task) for task in tasks for _ in range(copies)])

    def together(self, makers: Sequence[Callable[[], Env]]) -> VectorEnv:
        """The environments that these give, stepped one by one; what is seen may be bounded otherwise in each.

        Raises DataError where their spaces differ in more than that: one policy couldn't act in all.
        """
        envs = [make() for make in makers]
        first = envs[0]
        for env in envs[1:]:
            if (
                not _alike(first.observation_space, env.observation_space)
                or env.action_space != first.action_space
            ):
                raise DataError(
                    f"Tasks of {type(self).__name__} differ in what is seen or done: {first.observation_space} and "
                    f"{first.action_space}, then {env.observation_space} and {env.action_space}; one policy acts in "
                    "all tasks of a family, so pad what is seen to one shape and give all the same actions."
                )
        return gymnasium.vector.SyncVectorEnv(
            [lambda env=env: env for env in envs], observation_mode="different"
        )

    def made(self, task: Any) -> Env:
        """What `make` gives. Raises DataError where it's no environment."""
        env = self.make(task)
        if not isinstance(env, gymnasium.Env):
            raise DataError(
                f"{type(self).__name__}.make gives a {type(env).__name__} for task {str(task)[:80]}; expected a "
                "gymnasium.Env."
            )
        return env


@dataclass(frozen=True, kw_only=True)
class Bandits(Family):
    """Bandits whose arms pay with probabilities drawn uniformly, as in Duan et al. 2016, arXiv:1611.02779."""

    arms: int = 5
    horizon: int = 10
    """Pulls in an episode."""

    def draw(self, number: int, seed: Seed) -> np.ndarray:
        return np.random.default_rng(seed).random((number, self.arms))

    def make(self, task: Any) -> Env:
        return Bandit(task, self.horizon)

    def vector(self, tasks: Any, copies: int) -> VectorEnv:
        return VectorBandit(len(tasks) * copies, np.repeat(tasks, copies, 0), self.horizon)


@dataclass(frozen=True, kw_only=True)
class GridGoals(Family):
    """Grids that differ by their goal, which is any cell but the one in the middle, where all begin."""

    side: int = 5
    horizon: int = 20

    def draw(self, number: int, seed: Seed) -> np.ndarray:
        middle = self.side // 2 * (self.side + 1)
        cells = np.random.default_rng(seed).integers(self.side**2 - 1, size=number)
        return np.stack(np.divmod(cells + (cells >= middle), self.side), 1)

    def make(self, task: Any) -> Env:
        return Grid(task, self.side, self.horizon)

    def vector(self, tasks: Any, copies: int) -> VectorEnv:
        return VectorGrid(len(tasks) * copies, np.repeat(tasks, copies, 0), self.side, self.horizon)


@dataclass(frozen=True, kw_only=True)
class PointGoals(Family):
    """Points in the plane that differ by their goal, drawn uniformly from a square of side 1 around the origin.

    Finn, Abbeel & Levine 2017, arXiv:1703.03400, section 5.3.
    """

    horizon: int = 100

    def draw(self, number: int, seed: Seed) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-0.5, 0.5, (number, 2))

    def make(self, task: Any) -> Env:
        return PointNavigation(task, self.horizon)

    def vector(self, tasks: Any, copies: int) -> VectorEnv:
        return VectorPointNavigation(len(tasks) * copies, np.repeat(tasks, copies, 0), self.horizon)


@dataclass(frozen=True, kw_only=True)
class SettableTasks(Family):
    """Environments that are told their task by `set_task`, as Meta-World's are.

        ml1 = metaworld.ML1("reach-v3")
        family = SettableTasks(kinds=ml1.train_classes, tasks=ml1.train_tasks)

    Environments are costly to make there, so they are kept and given another task when they are needed again. One
    family is for one thread.
    """

    kinds: Mapping[str, type[Env]]
    """Environments' classes by name; a task names its own as `env_name`, unless there is but one."""
    tasks: Sequence[Any]
    """All there are; `draw` takes some, each at most once while they last."""
    _kept: dict[str, list[Env]] = field(default_factory=dict, repr=False, compare=False)

    def draw(self, number: int, seed: Seed) -> list[Any]:
        rng, all_of_them = np.random.default_rng(seed), len(self.tasks)
        rounds = [rng.permutation(all_of_them) for _ in range(-(-number // all_of_them))]
        return [self.tasks[i] for i in np.concatenate(rounds)[:number]]

    def make(self, task: Any) -> Env:
        env = self.kinds[self._kind(task)]()
        env.set_task(task)  # pyright: ignore[reportAttributeAccessIssue]
        return env

    def vector(self, tasks: Sequence[Any], copies: int) -> VectorEnv:
        used: dict[str, int] = {}

        def taken(task: Any) -> Env:
            kept = self._kept.setdefault(kind := self._kind(task), [])
            used[kind] = used.get(kind, 0) + 1
            if used[kind] > len(kept):
                kept.append(_NeverClosed(self.make(task)))
            else:
                kept[used[kind] - 1].unwrapped.set_task(task)  # pyright: ignore[reportAttributeAccessIssue]
            return kept[used[kind] - 1]

        return self.together([partial(taken, task) for task in tasks for _ in range(copies)])

    def _kind(self, task: Any) -> str:
        if len(self.kinds) == 1:
            return next(iter(self.kinds))
        name = getattr(task, "env_name", None)
        if name not in self.kinds:
            raise DataError(f"A task names {name!r} as its environment.{did_you_mean(str(name), self.kinds)}")
        return str(name)


def _alike(one: spaces.Space, other: spaces.Space) -> bool:
    """Equal, but for a box's bounds."""
    boxes = isinstance(one, spaces.Box) and isinstance(other, spaces.Box)
    return (one.shape, one.dtype) == (other.shape, other.dtype) if boxes else one == other


class _NeverClosed(gymnasium.Wrapper):
    """An environment that is used again after the vector that holds it was closed."""

    def close(self) -> None:
        pass
