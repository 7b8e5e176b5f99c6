"""Networks as pure functions of their parameters: `apply(net, params, x)`.

A net is either a spec with a `build` method (see `quickstudy.nets`), which can be saved, or any `nn.Module` of the
user's. Only parameters that require grad are meta-learned; frozen ones stay where they are and are shared.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.core.errors import ModelError

_training: ContextVar[bool] = ContextVar("quickstudy_training", default=False)


@runtime_checkable
class NetSpec(Protocol):
    """A description of a network that can be built and written to JSON."""

    def build(self) -> nn.Module:
        """A new module, its parameters drawn from torch's global generator."""
        ...


Net = NetSpec | nn.Module


@contextmanager
def training() -> Iterator[None]:
    """Within this block networks run in training mode (dropout on); elsewhere in evaluation mode.

    A context variable and not `module.train()`, so that two threads may share a network.
    """
    token = _training.set(True)
    try:
        yield
    finally:
        _training.reset(token)


def initial(net: Net, seed: int) -> dict[str, Tensor]:
    """The trainable parameters to start from.

    A spec is built anew from `seed`; a module's own parameters are copied, whatever the seed.
    """
    if isinstance(net, nn.Module):
        module = net
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = net.build()
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def apply(net: Net, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network's output for inputs [n, …] of one task, with `params` in place of its own."""
    return functional_call(skeleton(net, _training.get()), params, (x,))


def skeleton(net: Net, training: bool = False) -> nn.Module:
    """The module behind a net, in a fixed mode; built once and never changed. Use its structure, not its weights."""
    return _skeleton_of_module(net, training) if isinstance(net, nn.Module) else _skeleton_of_spec(net, training)


@lru_cache(maxsize=64)
def _skeleton_of_spec(net: Any, training: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return _checked(net.build()).train(training)


@lru_cache(maxsize=8)
def _skeleton_of_module(net: nn.Module, training: bool) -> nn.Module:
    # A copy, for its own train/eval flag, that shares every tensor with the original.
    shared = {id(t): t for t in [*net.parameters(), *net.buffers()]}
    return _checked(copy.deepcopy(net, shared)).train(training)


def _checked(module: nn.Module) -> nn.Module:
    for name, part in module.named_modules():
        if getattr(part, "track_running_stats", False):
            raise ModelError(
                f"Layer {name!r} ({type(part).__name__}) keeps running statistics, which would leak between tasks. "
                "Build it with track_running_stats=False, or use layer norm."
            )
    return module


def has(net: Net, *kinds: type[nn.Module]) -> bool:
    """Whether any layer of the net is of one of these kinds."""
    return any(isinstance(part, kinds) for part in skeleton(net).modules())
