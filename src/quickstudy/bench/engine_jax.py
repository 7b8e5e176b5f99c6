"""The same jobs in JAX: `jit` of the gradient of the mean over `vmap` of one task, which is what one writes there."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.bench.engine_jobs import Absent, Problem, Way
from quickstudy.core.objective import Regress

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
"""For XLA_FLAGS, to be set before JAX is imported."""


def jit_of_vmap(problem: Problem) -> Way:
    """Compiled once; tasks by vmap, but convolutions task by task, as XLA's grouped ones are dozens of times slower."""
    if find_spec("jax") is None:
        raise Absent("jax is not installed; `make peers` makes an interpreter that has it")
    os.environ.setdefault("XLA_FLAGS", ONE_THREAD)
    import jax
    import jax.numpy as jnp

    if problem.dtype == torch.float64:
        jax.config.update("jax_enable_x64", True)
    module, job = problem.module(), problem.job
    apply = _network(module)

    def array(t: Tensor) -> Any:
        return jnp.asarray(t.detach().numpy() if t.is_floating_point() else t.to(torch.int32).numpy())

    def loss(params: Any, x: Any, y: Any) -> Any:
        out = apply(params, x)
        if isinstance(job.objective, Regress):
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1))

    def task(params: Any, x: Any, y: Any, x_query: Any, y_query: Any) -> Any:
        fast = params
        for _ in range(job.steps):
            slopes = jax.grad(loss)(fast, x, y)
            fast = [weight - job.rate * slope for weight, slope in zip(fast, slopes, strict=True)]
        return loss(fast, x_query, y_query)

    images = any(isinstance(part, nn.Conv2d) for part in module.modules())

    def outer(params: Any, *tasks: Any) -> Any:
        if images:
            return jnp.mean(jax.lax.map(lambda one: task(params, *one), tasks))
        return jnp.mean(jax.vmap(task, in_axes=(None, 0, 0, 0, 0))(params, *tasks))

    program = jax.jit(jax.value_and_grad(outer))
    (x, y, _), (x_query, y_query, _) = problem.episodes
    params = [array(value) for value in problem.start.values()]
    tasks = [array(t) for t in (x, y, x_query, y_query)]
    return lambda: jax.block_until_ready(program(params, *tasks))[1]


def _network(module: nn.Module) -> Callable[[Any, Any], Any]:
    """A chain of torch layers as a function of a list of parameters, in JAX. Raises Absent for a layer it can't do."""
    layers: list[tuple[Callable[..., Any], int]] = []
    for layer in _flat(module):
        own = sum(1 for _ in layer.parameters())
        layers.append((_layer(layer), own))

    def apply(params: Sequence[Any], x: Any) -> Any:
        rest = list(params)
        for function, count in layers:
            x, rest = function(x, *rest[:count]), rest[count:]
        return x

    return apply


def _flat(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.Sequential):
        return [layer for part in module for layer in _flat(part)]
    return [module]


def _layer(layer: nn.Module) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def normed(x: Any, axes: tuple[int, ...], eps: float) -> Any:
        centred = x - x.mean(axes, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(axes, keepdims=True) + eps)

    def along(x: Any, weight: Any, bias: Any) -> Any:  # one weight a channel
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * weight.reshape(shape) + bias.reshape(shape)

    match layer:
        case nn.Linear():
            return lambda x, weight, bias: x @ weight.T + bias
        case nn.ReLU():
            return lambda x: jax.nn.relu(x)
        case nn.Tanh():
            return lambda x: jnp.tanh(x)
        case nn.GELU():
            return lambda x: jax.nn.gelu(x, approximate=False)
        case nn.Flatten():
            return lambda x: x.reshape(len(x), -1)
        case nn.LayerNorm():
            eps = layer.eps
            return lambda x, weight, bias: normed(x, (-1,), eps) * weight + bias
        case nn.RMSNorm():
            return lambda x, weight: (
                x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + jnp.finfo(x.dtype).eps) * weight
            )
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            eps = layer.eps
            return lambda x, weight, bias: along(normed(x, (0, *range(2, x.ndim)), eps), weight, bias)
        case nn.InstanceNorm2d():
            eps = layer.eps
            return lambda x, weight, bias: along(normed(x, (2, 3), eps), weight, bias)
        case nn.GroupNorm():
            groups, eps = layer.num_groups, layer.eps

            def group_norm(x: Any, weight: Any, bias: Any) -> Any:
                apart = normed(x.reshape(len(x), groups, -1), (-1,), eps)
                return along(apart.reshape(x.shape), weight, bias)

            return group_norm
        case nn.Conv2d(padding=(p, q)) if isinstance(p, int):
            padding = [(p, p), (q, q)]

            def convolve(x: Any, weight: Any, bias: Any) -> Any:
                return jax.lax.conv_general_dilated(x, weight, (1, 1), padding) + bias.reshape(1, -1, 1, 1)

            return convolve
        case nn.MaxPool2d(kernel_size=size):

            def pool(x: Any) -> Any:
                n, channels, height, width = x.shape[0], x.shape[1], x.shape[2] // size, x.shape[3] // size
                whole = x[:, :, : height * size, : width * size]
                return whole.reshape(n, channels, height, size, width, size).max((3, 5))

            return pool
    raise Absent(f"{type(layer).__name__} isn't written out in JAX here")
