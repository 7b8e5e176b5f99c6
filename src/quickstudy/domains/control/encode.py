"""Observations and actions as numbers that a network reads and gives out, and the objective that fits an action."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import DataError
from quickstudy.core.policy import DiscreteActions, GaussianActions, PolicyGradient
from quickstudy.domains.control.environments import spaces


def width_of(space: spaces.Space) -> int:
    """How many numbers `features` makes of an observation. Raises DataError for a space it doesn't know."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    raise DataError(
        f"Observations are of {space}; expected a Box or Discrete. Wrap the environment in FlattenObservation."
    )


def features(space: spaces.Space, seen: np.ndarray) -> Tensor:
    """Observations [n, …] as numbers [n, d]: a Box flat, Discrete as rows of the identity."""
    dtype = torch.get_default_dtype()
    if isinstance(space, spaces.Discrete):
        return torch.eye(int(space.n), dtype=dtype)[torch.as_tensor(seen - space.start, dtype=torch.int64)]
    return torch.as_tensor(np.asarray(seen).reshape(len(seen), -1), dtype=dtype)


def objective_for(space: spaces.Space) -> PolicyGradient:
    """How actions of a space are drawn and judged. Raises DataError for a space that has no such objective."""
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(int(space.n))
    if isinstance(space, spaces.Box):
        return GaussianActions(int(np.prod(space.shape)))
    raise DataError(f"Actions are of {space}; expected a Box or Discrete.")


def actions(space: spaces.Space, drawn: Tensor) -> Any:
    """Drawn actions [n, a] as an environment takes them: whole numbers of Discrete; of a Box, cut to its bounds."""
    if isinstance(space, spaces.Discrete):
        return drawn[:, 0].numpy().astype(np.int64) + space.start
    assert isinstance(space, spaces.Box)
    return np.clip(drawn.numpy().reshape(len(drawn), *space.shape), space.low, space.high).astype(space.dtype)
