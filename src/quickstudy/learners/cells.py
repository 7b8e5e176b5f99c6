"""What learned optimisers, and matching networks, are made of: functions over rows [*tasks, p, features].

Written by products of matrices, so that one task and stacked tasks run alike: torch's own LSTM has no rule under vmap.
Parameters have the names and shapes of `torch.nn.LSTMCell` and `torch.nn.Linear`, with a leading dimension of tasks
where tasks are stacked.
"""

import torch
from jaxtyping import Float
from torch import Tensor

State = tuple[Tensor, Tensor]
"""An LSTM's output h and cell state c, [*tasks, p, hidden] each."""


def linear(weight: Tensor, bias: Tensor, x: Float[Tensor, "*tasks p i"]) -> Float[Tensor, "*tasks p o"]:
    """W x + b at each coordinate."""
    return x @ weight.transpose(-1, -2) + bias.unsqueeze(-2)


def lstm(cell: dict[str, Tensor], x: Float[Tensor, "*tasks p i"], state: State) -> State:
    """One step of an LSTM at each coordinate, the same LSTM for all of them, a state for each."""
    h, c = state
    weight = torch.cat([cell["weight_ih"], cell["weight_hh"]], -1)
    gates = linear(weight, cell["bias_ih"] + cell["bias_hh"], torch.cat([x, h], -1))
    write, keep, new, read = gates.chunk(4, -1)
    c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
    return read.sigmoid() * c.tanh(), c


def blank(row: Float[Tensor, "*tasks p"], hidden: int) -> State:
    """The state before the first step, for each coordinate of `row`."""
    zero = row.new_zeros(*row.shape, hidden)
    return zero, zero


def scaled(x: Float[Tensor, "*tasks p"], p: float = 10.0) -> Float[Tensor, "*tasks p 2"]:
    """A number of any magnitude as two of about 1: (log|x| / p, sign x) where |x| ≥ e⁻ᵖ, else (-1, eᵖ x).

    Andrychowicz et al. 2016, arXiv:1606.04474, appendix A.
    """
    size = x.abs().clamp(min=torch.e**-p)
    return torch.stack([size.log() / p, (x * torch.e**p).clamp(-1.0, 1.0)], -1)
