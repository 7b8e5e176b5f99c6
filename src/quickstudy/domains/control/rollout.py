"""Trajectories: many episodes of many tasks at once, and by how much each step was better than usual.

The advantage is the discounted return less what a baseline expects there, or the generalised advantage (Schulman et al.
2016, arXiv:1506.02438, equation 16). The baseline is linear in features of the observation and of the time, fitted to
each task's own returns (Duan et al. 2016, arXiv:1604.06778, their linear feature baseline).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.objective import mean
from quickstudy.core.policy import PolicyGradient
from quickstudy.domains.control.encode import actions, features
from quickstudy.domains.control.environments import AutoresetMode, VectorEnv

PENALTY = 1e-5
"""Of the baseline's ridge regression; the reference code's."""


class Trajectories(NamedTuple):
    """Episodes of several tasks, `copies` of each side by side; what comes after an episode's end is masked."""

    x: Float[Tensor, "tasks copies time d"]
    action: Float[Tensor, "tasks copies time a"]
    outputs: Float[Tensor, "tasks copies time k"]
    """Of the policy that acted."""
    reward: Float[Tensor, "tasks copies time"]
    mask: Bool[Tensor, "tasks copies time"]
    last: Float[Tensor, "tasks copies d"]
    """What was seen after the last step."""
    terminated: Bool[Tensor, "tasks copies"]
    """Whether the episode came to its end; otherwise it was cut off."""

    @property
    def returns(self) -> Float[Tensor, "tasks"]:
        """The mean sum of rewards of a task's episodes."""
        return torch.where(self.mask, self.reward, 0.0).sum(-1).mean(-1)

    def labelled(self, objective: PolicyGradient, advantage: Tensor, **how: float) -> Labelled:
        """A row for each step, [tasks, copies · time, …]; `how` is what `objective.rows` takes."""
        y = objective.rows(self.action, advantage.to(self.x.dtype), self.outputs, **how)
        return Labelled(*(t.flatten(1, 2) for t in (self.x, y, self.mask)))


def roll_out(
    act: Callable[[Tensor], Tensor],
    objective: PolicyGradient,
    env: VectorEnv,
    tasks: int,
    *,
    horizon: int,
    seed: int,
) -> Trajectories:
    """One episode in every environment, cut off after `horizon` steps.

    Args:
        act: observations [tasks, copies, d] -> outputs of each task's policy.
        env: its environments are `copies` of the first task, then of the second one, and so on; any mode of autoreset.
        seed: of the environments and of the actions drawn.
    """
    number, draw = env.num_envs, torch.Generator().manual_seed(seed)
    seen, _ = env.reset(seed=seed)
    going, ended = np.ones(number, bool), np.zeros(number, bool)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    rewards, masks = [], []
    last: np.ndarray | None = None
    for _ in range(horizon):
        x = features(env.single_observation_space, seen).unflatten(0, (tasks, -1))
        outputs = act(x)
        action = objective.sample(outputs, draw)
        seen, reward, terminated, truncated, told = env.step(
            actions(env.single_action_space, action.flatten(0, 1))
        )
        steps.append((x, action, outputs))
        rewards.append(np.where(going, reward, 0.0))
        masks.append(going)
        over = terminated | truncated
        shown, seen = _after(env, seen, over, told)
        last = shown if last is None else np.where(_column(going, shown), shown, last)
        ended |= going & terminated
        going = going & ~over
        if not going.any():
            break
    assert last is not None
    x, action, outputs = (torch.stack(part, 2) for part in zip(*steps, strict=True))

    def over_time(values: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(values, -1)).unflatten(0, (tasks, -1))

    return Trajectories(
        x,
        action,
        outputs,
        over_time(rewards).to(x.dtype),
        over_time(masks),
        features(env.single_observation_space, last).unflatten(0, (tasks, -1)),
        torch.from_numpy(ended).unflatten(0, (tasks, -1)),
    )


def advantages(
    found: Trajectories, *, discount: float, smoothing: float = 1.0, bootstrap: bool = False
) -> Float[Tensor, "tasks copies time"]:
    """By how much each step was better than the baseline expects, brought to mean 0 and deviation 1 in each task.

    Args:
        discount: of rewards, γ.
        smoothing: λ of the generalised advantage; 1 is the return less the baseline.
        bootstrap: whether an episode that was cut off goes on as the baseline expects. False: what is cut off is worth
            nothing, as in the papers, to whom the horizon is part of the task. An episode that ended has nothing more.
    """
    real = found.mask
    reward = torch.where(real, found.reward, 0.0).double()
    returns = _summed(reward, discount, real)
    value = baseline(found, returns)
    after = value[..., 1:]
    final = real & ~torch.cat([real[..., 1:], torch.zeros_like(real[..., :1])], -1)
    nothing = final & (found.terminated.unsqueeze(-1) if bootstrap else torch.ones_like(final))
    surprise = reward + discount * torch.where(nothing, 0.0, after) - value[..., :-1]
    better = _summed(torch.where(real, surprise, 0.0), discount * smoothing, real)
    return _standard(better, real)


def baseline(
    found: Trajectories, returns: Float[Tensor, "tasks copies time"]
) -> Float[Tensor, "tasks copies time_and_1"]:
    """The return that is to be expected at each step and after the last one, by ridge regression in each task.

    The features are those of Duan et al.: the observation, its square, the time / 100 with its square and cube, and 1.
    """
    seen = torch.cat([found.x, found.x[..., -1:, :]], -2).double()
    length = found.mask.sum(-1, keepdim=True)  # an episode's last observation comes right after its last step
    here = torch.arange(seen.shape[-2]) == length
    seen = torch.where(here.unsqueeze(-1), found.last.double().unsqueeze(-2), seen).clamp(-10, 10)
    time = (torch.arange(seen.shape[-2], dtype=torch.float64) / 100).expand(seen.shape[:-1]).unsqueeze(-1)
    known = torch.cat([seen, seen**2, time, time**2, time**3, torch.ones_like(time)], -1)
    rows = torch.where(found.mask.unsqueeze(-1), known[..., :-1, :], 0.0).flatten(1, 2)
    ridge = PENALTY * torch.eye(rows.shape[-1], dtype=torch.float64)
    weights = torch.linalg.solve(rows.mT @ rows + ridge, rows.mT @ returns.flatten(1, 2).unsqueeze(-1))
    return (known.flatten(1, 2) @ weights).squeeze(-1).unflatten(1, known.shape[1:3])


def _after(env: VectorEnv, seen: np.ndarray, over: np.ndarray, told: dict[str, Any]) -> tuple[Any, Any]:
    """What was seen after a step, be it an episode's last one, and what to act on next."""
    mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    if not over.any() or mode == AutoresetMode.NEXT_STEP:
        return seen, seen
    if mode == AutoresetMode.SAME_STEP:  # `seen` is of the next episode already
        shown = np.array(seen)
        for i in np.flatnonzero(over):
            shown[i] = told["final_obs"][i]
        return shown, seen
    return np.array(seen), env.reset(options={"reset_mask": over})[0]


def _summed(values: Tensor, discount: float, real: Tensor) -> Tensor:
    """Σ_k discount^k values[t + k], over the steps that are real."""
    sums = torch.zeros_like(values)
    ahead = torch.zeros_like(values[..., 0])
    for t in reversed(range(values.shape[-1])):
        ahead = torch.where(real[..., t], values[..., t] + discount * ahead, 0.0)
        sums[..., t] = ahead
    return sums


def _standard(values: Float[Tensor, "tasks copies time"], real: Tensor) -> Tensor:
    rows, mask = values.flatten(1), real.flatten(1)
    off = torch.where(mask, rows - mean(rows, mask).unsqueeze(-1), 0.0)
    deviation = mean(off.pow(2), mask).sqrt().unsqueeze(-1)
    return (off / (deviation + 1e-8)).reshape(values.shape)


def _column(which: np.ndarray, like: np.ndarray) -> np.ndarray:
    return which.reshape(-1, *[1] * (like.ndim - 1))
