"""Networks as pure functions of their parameters: `apply(net, params, x)`.

A net is either a spec with a `build` method (see `quickstudy.nets`), which can be saved, or any `nn.Module` of the
user's. Only parameters that require grad are meta-learned; frozen ones stay where they are and are shared.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, backends, nn
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    TransformType,
    get_interpreter_stack,
    is_batchedtensor,
)
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from quickstudy.core.errors import DataError, ModelError

_training: ContextVar[bool] = ContextVar("quickstudy_training", default=False)
generator_lock = threading.RLock()
"""Held while torch's global generator is seeded and drawn from: it is one for all threads."""


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


def in_training() -> bool:
    """Whether networks run in training mode here."""
    return _training.get()


def autocast(like: dict[str, Tensor], on: bool) -> AbstractContextManager[Any]:
    """bfloat16 where torch takes it to be safe, on the device of these parameters."""
    if not on:
        return nullcontext()
    device = next(iter(like.values())).device.type
    # Its cache would hand weights of one graph to the next: each inner step has new ones.
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def full_precision(like: Tensor) -> AbstractContextManager[Any]:
    """No bfloat16 in here, on the device of this tensor: no solver of linear systems takes it."""
    return torch.autocast(like.device.type, enabled=False)


def initial(net: Net, seed: int) -> dict[str, Tensor]:
    """The trainable parameters to start from.

    A spec is built anew from `seed`; a module's own parameters are copied, whatever the seed.
    """
    if isinstance(net, nn.Module):
        module = net
    else:
        with generator_lock, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _built(net)
    lazy = next(
        (name for name, p in module.named_parameters() if isinstance(p, UninitializedParameter)), None
    )
    if lazy is not None:
        raise ModelError(
            f"{_named(net)} has lazy layers, and {lazy!r} has no shape yet. Run it once on a few inputs: net(x)."
        )
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def _built(net: Any) -> nn.Module:
    if isinstance(net, type):
        raise ModelError(f"A network is the class {net.__name__} itself; give one of it: {net.__name__}(…).")
    if not isinstance(net, NetSpec):
        raise ModelError(
            f"A network is {str(net)[:80]!r}, a {type(net).__name__}; expected an nn.Module, or a spec with "
            "`build` such as quickstudy.nets.MLP(…)."
        )
    return net.build()


def features(net: Net | None, params: dict[str, Tensor], x: Tensor) -> Float[Tensor, "n d"]:
    """The network's output, or the inputs themselves where there is none, as one row of features for each input.

    Raises:
        ModelError: it's none; also as `apply`.
    """
    z = x if net is None else apply(net, params, x)
    if z.ndim != 2 or len(z) != len(x):
        raise ModelError(
            f"{'Inputs have' if net is None else _named(net) + ' gives'} features of shape {list(z.shape)} for "
            f"{len(x)} rows; expected [{len(x)}, d], one row of features each. Flatten what has more dimensions: "
            "nn.Flatten() as the last layer."
        )
    return z


def apply(net: Net, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network's output for inputs [n, …] of one task, with `params` in place of its own.

    Raises:
        Unmappable: it looks into its numbers, so that tasks can't pass together.
        ModelError: it can't take these inputs, gives something else than a tensor, or changes a buffer.
    """
    module = skeleton(net, _training.get())
    if is_batchedtensor(x) and _differentiated_within(module):
        raise ModelError(
            f"{_named(net)} has norm layers and is differentiated by torch.func.grad while tasks are mapped over: the "
            "meta-gradient would be wrong, and nothing would say so. Take quickstudy.core.learner.inner_gradient or "
            "descend, and write inner_loop = True into the learner's class."
        )
    if _watched(module) and any(map(is_batchedtensor, (x, *params.values()))):
        raise Unmappable(
            f"{_named(net)} has backward hooks, which aren't called where tasks are mapped over."
        )
    buffers = _buffers(module)
    before = [buffer._version for _, _, buffer in buffers]
    try:
        out = functional_call(module, params, (x,))
    except ValueError as problem:
        if "more than 1 value per channel" not in str(problem):
            raise
        raise one_row() from problem
    except RuntimeError as problem:
        if isinstance(problem, torch.OutOfMemoryError) or "allocate memory" in str(problem):
            raise
        if is_batchedtensor(x) or any(map(is_batchedtensor, params.values())):  # alone, it may well run
            raise Unmappable(f"{_named(net)} can't run on many tasks at once: {problem}") from problem
        kind = str(x.dtype).removeprefix("torch.")
        hint = " Inputs are [rows, …]; where each row is one number: x.unsqueeze(-1)." if x.ndim == 1 else ""
        raise ModelError(
            f"{_named(net)} can't take inputs of shape {list(x.shape)}, {kind}: {problem}.{hint}"
        ) from problem
    changed = False
    for (owner, name, buffer), version in zip(buffers, before, strict=True):
        if owner._buffers.get(name) is not buffer:
            owner._buffers[name], changed = buffer, True
        changed |= buffer._version != version
    if changed:
        raise ModelError(
            f"{_named(net)} changes a buffer while it runs, which would leak from one task into the next. Give what "
            "changes as an output, or leave it out."
        )
    if not isinstance(out, Tensor):
        raise ModelError(
            f"{_named(net)} gives a {type(out).__name__}; expected one tensor, a row of outputs for each input. "
            "Wrap it in a module that returns that alone."
        )
    return out


def _differentiated_within(module: nn.Module) -> bool:
    """Whether we are in a `torch.func.grad` through norm layers whose second derivative under vmap is wrong."""
    stack = get_interpreter_stack()
    return (
        stack is not None
        and any(level.key() == TransformType.Grad for level in stack)
        and any(isinstance(part, _NORMS) for part in module.modules())
    )


_NORMS = (nn.LayerNorm, nn.modules.batchnorm._NormBase)


class Unmappable(ModelError):
    """A network that takes one task at a time alone: its control flow depends on numbers, or a layer has no rule."""


def _named(net: Net) -> str:
    return f"The network ({type(net).__name__})"


def one_row() -> DataError:
    """What to say when batch norm would take statistics of a single number."""
    return DataError(
        "Batch norm takes its statistics from the rows that pass through the network together; one row has none. "
        "Give two rows or more at once, or build the network with layer norm."
    )


def skeleton(net: Net, training: bool = False) -> nn.Module:
    """The module behind a net, in a fixed mode; built once and never changed. Use its structure, not its weights."""
    return (_skeletons.of_module if isinstance(net, nn.Module) else _skeletons.of_spec)(net, training)


class _Skeletons(threading.local):
    """Each thread has its own: `functional_call` puts the parameters into the module while it runs."""

    def __init__(self) -> None:
        self.of_spec = lru_cache(maxsize=64)(_skeleton_of_spec)
        self.of_module = lru_cache(maxsize=8)(_skeleton_of_module)


def _skeleton_of_spec(net: Any, training: bool) -> nn.Module:
    # It is kept, so it must hold numbers even where it is first asked for by what builds for shapes alone.
    with generator_lock, torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return _checked(_built(net)).train(training)


def _skeleton_of_module(net: nn.Module, training: bool) -> nn.Module:
    # A copy, for its own train/eval flag, that shares every tensor with the original, but for what a run of it left
    # behind, such as an activation: that belongs to a graph, and can't be copied.
    shared = {id(t): t for t in [*net.parameters(), *net.buffers()]}
    left = [
        t for part in net.modules() for t in vars(part).values() if isinstance(t, Tensor) and not t.is_leaf
    ]
    shared |= {id(t): t.detach() for t in left}
    return _checked(copy.deepcopy(net, shared)).train(training)


_skeletons = _Skeletons()


@lru_cache(maxsize=128)
def _buffers(skeleton: nn.Module) -> tuple[tuple[nn.Module, str, Tensor], ...]:
    """Each buffer with the module that owns it and its name there."""
    return tuple(
        (owner, name, buffer)
        for owner in skeleton.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None and not buffer.is_inference()
    )


@lru_cache(maxsize=128)
def _watched(skeleton: nn.Module) -> bool:
    return any(part._backward_hooks or part._backward_pre_hooks for part in skeleton.modules())


def _checked(module: nn.Module) -> nn.Module:
    """A skeleton whose batch norms take the statistics of the rows that pass together: running ones would leak."""
    part: Any
    for name, part in module.named_modules():
        if not getattr(part, "track_running_stats", False):
            continue
        seen = getattr(part, "num_batches_tracked", None)
        if seen is not None and int(seen):
            raise ModelError(
                f"Layer {name!r} ({type(part).__name__}) carries statistics of {int(seen):,} batches. To normalise by "
                "those, wrap the network in quickstudy.nets.stored_norms(network); to normalise by the rows of a task, "
                "as MAML does, build the layer with track_running_stats=False."
            )
        part.track_running_stats = False
        part.running_mean = part.running_var = part.num_batches_tracked = None
    return module


def has(net: Net, *kinds: type[nn.Module]) -> bool:
    """Whether any layer of the net is of one of these kinds."""
    return any(isinstance(part, kinds) for part in skeleton(net).modules())


def parameters_of(net: Net, *kinds: type[nn.Module]) -> set[str]:
    """The names of the parameters that layers of these kinds own. A spec is built without memory for it."""
    if isinstance(net, nn.Module):
        module = net
    else:
        with generator_lock, torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = _built(net)
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    return {f"{name}.{own}".lstrip(".") for name, layer in layers for own in layer._parameters}


class MeanOfPositions(nn.Module):
    """Images [n, k, h, w] -> [n, k]. torch's own pooling does the same, but maps slowly over tasks in channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


def plain_parts(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of an `nn.Sequential`, nested or not, by name; None if one does more, or stands there twice."""
    if type(module) is not nn.Sequential:
        return None
    parts = list(_flat(module, ""))
    own = [id(p) for _, part in parts for p in part.parameters()]
    alone = len({id(part) for _, part in parts}) == len(parts) and len(set(own)) == len(own)
    return parts if alone and all(_does_what_it_says(part) for _, part in parts) else None


def _flat(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential or _hooked(module):
        yield name, module
        return
    for key, part in module._modules.items():
        if part is not None:
            yield from _flat(part, f"{name}.{key}" if name else key)


def _hooked(module: nn.Module) -> bool:
    of = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(of)


def _does_what_it_says(part: nn.Module) -> bool:
    own = set(dict(part.named_parameters(recurse=False)))
    more = any(buffer is not None for buffer in part._buffers.values()) or any(part.children())
    return not (_hooked(part) or more) and own <= {"weight", "bias"}


class _PlainAttention:
    """Attention by its plain formula, for as long as anybody is inside.

    torch's fused kernels for CPUs have no second derivative and no rule under vmap. The choice is one for the whole
    process, so threads that overlap must share it: the first one in makes it, the last one out takes it back.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._inside = 0
        self._before: list[bool] = []

    def __enter__(self) -> None:
        with self._turn:
            if not self._inside:
                self._before = [enabled() for enabled, _ in _FUSED]
                for _, enable in _FUSED:
                    enable(False)
            self._inside += 1

    def __exit__(self, *error: Any) -> None:
        with self._turn:
            self._inside -= 1
            if not self._inside:
                for (_, enable), before in zip(_FUSED, self._before, strict=True):
                    enable(before)


# What `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` switches, without its 0.1 ms; and nn.MultiheadAttention's own.
_FUSED: list[tuple[Callable[[], bool], Callable[[bool], None]]] = [
    (backends.cuda.flash_sdp_enabled, backends.cuda.enable_flash_sdp),
    (backends.cuda.mem_efficient_sdp_enabled, backends.cuda.enable_mem_efficient_sdp),
    (backends.cuda.cudnn_sdp_enabled, backends.cuda.enable_cudnn_sdp),
    (backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled),
]
plain_attention = _PlainAttention()


def over_tasks(function: Callable[..., Any], in_dims: Any = 0) -> Callable[..., Any]:
    """`torch.vmap`, with the same dropout masks for every task, and attention in a form that it can map."""

    def mapped(*args: Any) -> Any:
        with plain_attention:
            return torch.vmap(function, in_dims=in_dims, randomness="same")(*args)

    return mapped
