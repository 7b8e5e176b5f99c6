"""Batch norm with stored statistics, for networks of one's own."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.core.errors import ModelError

_KINDS = (nn.modules.batchnorm._BatchNorm,)


class StoredNorm(nn.Module):
    """What batch norm does in evaluation: statistics are constants, so that rows don't hang together.

    Its parameters have batch norm's names, so that parameters trained with one fit the other.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("variance", variance.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        x = (x - self.mean.reshape(shape)) * (self.variance.reshape(shape) + self.eps).rsqrt()
        x = x if self.weight is None else x * self.weight.reshape(shape)
        return x if self.bias is None else x + self.bias.reshape(shape)


def stored_norms(
    net: nn.Module, x: Tensor | None = None, params: dict[str, Tensor] | None = None
) -> nn.Module:
    """A copy of a network whose batch norms normalise by stored statistics; its parameters keep their names.

    Args:
        net: any module; the weights are shared with it.
        x: inputs [n, …], a few hundred or more, whose statistics are to be stored; None takes the running statistics
            that the layers carry, such as those of a pre-trained network.
        params: the network's parameters after meta-training, which `x` passes through; default: its own.

    Raises:
        ModelError: there is no batch norm, or without `x` one that carries no statistics.
    """
    shared = {id(t): t for t in [*net.parameters(), *net.buffers()]}
    made = copy.deepcopy(net, shared).eval()
    norms = {name: part for name, part in made.named_modules() if isinstance(part, _KINDS)}
    if not norms:
        raise ModelError(f"{type(net).__name__} has no batch norm, so there are no statistics to store.")
    found = _running(norms) if x is None else _of(made, norms, x, params)
    for name, norm in norms.items():
        owner, _, own = name.rpartition(".")
        stored = StoredNorm(norm, *found[name])
        if not name:
            return stored
        setattr(made.get_submodule(owner), own, stored)
    return made


def _running(norms: dict[str, nn.modules.batchnorm._BatchNorm]) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for name, norm in norms.items():
        if norm.running_mean is None or norm.running_var is None or not int(norm.num_batches_tracked or 0):
            raise ModelError(
                f"Layer {name!r} ({type(norm).__name__}) carries no running statistics; give inputs to take them from: "
                "stored_norms(net, x)."
            )
        found[name] = (norm.running_mean, norm.running_var)
    return found


def _of(
    net: nn.Module,
    norms: dict[str, nn.modules.batchnorm._BatchNorm],
    x: Tensor,
    params: dict[str, Tensor] | None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Statistics of each layer's inputs, each layer normalising by its own as in training."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str):
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (rows,) = inputs
            variance, mean = torch.var_mean(rows, (0, *range(2, rows.ndim)), correction=0)
            found[name] = (mean, variance)

        return hook

    handles = []
    for name, norm in norms.items():
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        handles.append(norm.register_forward_pre_hook(look(name)))
    with torch.no_grad():
        functional_call(net, params or {}, (x,))
    for handle in handles:
        handle.remove()
    if unused := sorted(set(norms) - set(found)):
        raise ModelError(f"The inputs didn't pass through {', '.join(map(repr, unused))}.")
    return found
