"""Three environments with Gymnasium's interface, many copies advanced together in numpy, each copy with its own task.

`VectorBandit`, `VectorGrid` and `VectorPointNavigation` are vector environments; `Bandit`, `Grid` and `PointNavigation`
are the same with one copy. All begin an episode anew in the step after the one that ended it, as Gymnasium does by
default (`AutoresetMode.NEXT_STEP`): the last observation of an episode is given out, and not the first of the next.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from quickstudy.core.errors import DataError, missing_extra

try:
    import gymnasium
    from gymnasium import Env, spaces
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError:
    raise missing_extra("gymnasium", "rl") from None

HORIZON = 100
STEP = 0.1
"""How far a point moves at most, in x and in y."""
NEAR = 0.01
"""A point that is so near to its goal has reached it."""
MOVES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])


class Together(VectorEnv):
    """Many copies advanced together. A kind of environment says how copies begin, move and are seen."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, seen: spaces.Space, moves: spaces.Space, horizon: int) -> None:
        if horizon < 1:
            raise DataError(f"An episode of {horizon} steps is none; horizon must be at least 1.")
        self.num_envs, self.horizon = num_envs, horizon
        self.single_observation_space, self.single_action_space = seen, moves
        self.observation_space, self.action_space = (batch_space(one, num_envs) for one in (seen, moves))
        self._age, self._ended = np.zeros(num_envs, int), np.ones(num_envs, bool)

    @abstractmethod
    def begin(self, which: np.ndarray) -> None:
        """Put the copies of this mask at the beginning of an episode."""

    @abstractmethod
    def move(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let every copy act once; rewards, and who has come to an end."""

    @abstractmethod
    def see(self) -> np.ndarray:
        """What every copy sees, in new memory."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)  # pyright: ignore[reportAbstractUsage]
        self._restart(np.ones(self.num_envs, bool))
        return self.see(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        reward, terminated = self.move(np.asarray(actions))
        self._age += 1
        truncated = self._age >= self.horizon
        again = self._ended
        if again.any():  # these take no notice of their action
            self._restart(again)
            reward, terminated, truncated = (
                np.where(again, 0.0, reward),
                terminated & ~again,
                truncated & ~again,
            )
        self._ended = terminated | truncated
        return self.see(), reward, terminated, truncated, {}

    def _restart(self, which: np.ndarray) -> None:
        self.begin(which)
        self._age[which] = 0
        self._ended = self._ended & ~which


class Alone(Env):
    """One copy of a vector environment, as a plain environment."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, one: Together) -> None:
        self._one = one
        self.observation_space, self.action_space = one.single_observation_space, one.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._one.np_random = self.np_random
        seen, _ = self._one.reset()
        return seen[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._one._ended[0]:
            raise DataError("This episode has come to an end; reset the environment.")
        seen, reward, terminated, truncated, _ = self._one.step(np.asarray(action)[None])
        return seen[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


class VectorBandit(Together):
    """Arms that pay 1 or 0, each with its own probability; there is nothing to see. Duan et al. 2016, arXiv:1611.02779,
    section 3.1.
    """

    def __init__(self, num_envs: int = 1, chances: Any = (0.2, 0.8), horizon: int = 10) -> None:
        """`chances`: of the arms, [arms], or [num_envs, arms] where copies differ."""
        self.chances = _tasks(chances, num_envs, "chances")
        super().__init__(num_envs, spaces.Discrete(1), spaces.Discrete(int(self.chances.shape[1])), horizon)

    def begin(self, which: np.ndarray) -> None:
        pass

    def move(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = self.chances[np.arange(self.num_envs), actions]
        return (self.np_random.random(self.num_envs) < chance).astype(float), np.zeros(self.num_envs, bool)

    def see(self) -> np.ndarray:
        return np.zeros(self.num_envs, np.int64)


class VectorGrid(Together):
    """A walk on a square grid from its middle to a goal that is not shown: -1 for each step, until the goal is reached.

    Actions: stay, down, up, right, left; walls hold. What is seen is the number of the cell, row · side + column.
    """

    def __init__(self, num_envs: int = 1, goal: Any = (0, 0), side: int = 5, horizon: int = 20) -> None:
        """`goal`: row and column, [2], or [num_envs, 2] where copies differ."""
        self.goal, self.side = _tasks(goal, num_envs, "goal"), side
        if self.goal.shape[1] != 2 or (self.goal < 0).any() or (self.goal >= side).any():
            raise DataError(f"goal is {goal}; expected a row and a column from 0 to {side - 1}.")
        self.place = np.zeros((num_envs, 2), int)
        super().__init__(num_envs, spaces.Discrete(side * side), spaces.Discrete(len(MOVES)), horizon)

    def begin(self, which: np.ndarray) -> None:
        self.place[which] = self.side // 2

    def move(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.place = np.clip(self.place + MOVES[actions], 0, self.side - 1)
        return np.full(self.num_envs, -1.0), (self.place == self.goal).all(1)

    def see(self) -> np.ndarray:
        return self.place @ np.array([self.side, 1])


class VectorPointNavigation(Together):
    """A point that walks from the origin of the plane to a goal that is not shown.

    An action is a velocity, cut to ±.1 in x and in y; a reward minus the squared distance to the goal; an episode ends
    within .01 of it, or at the horizon. Finn, Abbeel & Levine 2017, arXiv:1703.03400, section 5.3.
    """

    def __init__(self, num_envs: int = 1, goal: Any = (0.5, 0.5), horizon: int = HORIZON) -> None:
        """`goal`: x and y, [2], or [num_envs, 2] where copies differ."""
        self.goal = _tasks(goal, num_envs, "goal")
        if self.goal.shape[1] != 2:
            raise DataError(f"goal is {goal}; expected x and y.")
        self.place = np.zeros((num_envs, 2))
        far = STEP * horizon * 1.001
        super().__init__(
            num_envs,
            spaces.Box(-far, far, (2,), np.float32),
            spaces.Box(-STEP, STEP, (2,), np.float32),
            horizon,
        )

    def begin(self, which: np.ndarray) -> None:
        self.place[which] = 0.0

    def move(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.place = self.place + np.clip(actions, -STEP, STEP)
        squared = ((self.place - self.goal) ** 2).sum(1)
        return -squared, squared < NEAR * NEAR

    def see(self) -> np.ndarray:
        return self.place.astype(np.float32)


class Bandit(Alone):
    """One bandit; see `VectorBandit`."""

    def __init__(self, chances: Sequence[float] = (0.2, 0.8), horizon: int = 10) -> None:
        super().__init__(VectorBandit(1, chances, horizon))


class Grid(Alone):
    """One grid; see `VectorGrid`."""

    def __init__(self, goal: Sequence[int] = (0, 0), side: int = 5, horizon: int = 20) -> None:
        super().__init__(VectorGrid(1, goal, side, horizon))


class PointNavigation(Alone):
    """One point; see `VectorPointNavigation`."""

    def __init__(self, goal: Sequence[float] = (0.5, 0.5), horizon: int = HORIZON) -> None:
        super().__init__(VectorPointNavigation(1, goal, horizon))


def register() -> None:
    """Make the environments known to `gymnasium.make` and `gymnasium.make_vec` as quickstudy/Bandit-v0 and so on."""
    for kind in (Bandit, Grid, PointNavigation):
        name = f"quickstudy/{kind.__name__}-v0"
        if name not in gymnasium.registry:
            entry = f"{__name__}:{kind.__name__}"
            gymnasium.register(name, entry, vector_entry_point=entry.replace(":", ":Vector"))


def _tasks(values: Any, copies: int, name: str) -> np.ndarray:
    """One row of numbers for each copy."""
    rows = np.asarray(values)
    if rows.ndim not in (1, 2) or (rows.ndim == 2 and len(rows) != copies):
        raise DataError(
            f"{name} has the shape {rows.shape}; expected one row, or one for each of {copies} copies."
        )
    return np.broadcast_to(rows, (copies, rows.shape[-1]))
