"""A network's weights as one row of coordinates, for methods that treat all of them alike."""

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled


def flatten(weights: dict[str, Tensor], support: Labelled) -> Float[Tensor, "*tasks p"]:
    """All weights in one row, or in one row a task where the support's tasks are stacked."""
    tasks = support.mask.shape[:-1]
    rows = [weight.reshape(*tasks, -1) for weight in weights.values()]
    return torch.cat(rows, -1) if rows else torch.zeros(*tasks, 0)


def unflatten(row: Float[Tensor, "*tasks p"], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`: weights of the names and shapes of `like`."""
    tasks = row.shape[:-1].numel()
    parts = row.split([weight.numel() // tasks for weight in like.values()], -1)
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}
