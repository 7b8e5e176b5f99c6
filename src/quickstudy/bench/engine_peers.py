"""The same jobs by the libraries that others use, each as its own documentation has it, and no slower than need be.

None of them is a dependency: `make peers` makes an interpreter that has them. Whatever a step needs but a gradient
doesn't (metrics, the outer optimiser, moving averages) is left out, in each library's favour.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.bench.engine_jax import jit_of_vmap
from quickstudy.bench.engine_jobs import JAX, LEARN2LEARN, Absent, Problem, Way, conv4, gradients

HIGHER, TORCHOPT, PARALLEL = "higher", "TorchOpt", "parallel-metalearn"
REORDERED = "learn2learn, our Conv4"
DISTRIBUTIONS = {
    HIGHER: "higher", TORCHOPT: "torchopt", PARALLEL: "parallel-metalearn", JAX: "jax", "torch": "torch",
}  # fmt: skip


def peer_ways(problem: Problem) -> dict[str, Callable[[Problem], Way]]:
    """All peers by name; calling one raises Absent where it isn't installed or can't do the job."""
    found = {
        LEARN2LEARN: learn2learn, HIGHER: higher, TORCHOPT: torchopt, PARALLEL: parallel_metalearn,
        JAX: jit_of_vmap,
    }  # fmt: skip
    if problem.job.plain is not None:
        found[REORDERED] = learn2learn_on_ours
    return found


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    if find_spec(LEARN2LEARN) is not None:
        _stub("learn2learn")
        found[LEARN2LEARN] = importlib.import_module("learn2learn._version").__version__
    for name, distribution in DISTRIBUTIONS.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def learn2learn(problem: Problem) -> Way:
    """learn2learn 0.2.0: clone, adapt, backward, task by task."""
    return _learn2learn(problem, problem.module())


def learn2learn_on_ours(problem: Problem) -> Way:
    """The same on a network that pools before the ReLU, as ours does: how much of our gain is the network's."""
    module = conv4(
        problem.start["0.weight" if "0.weight" in problem.start else "0.0.weight"].shape[0], pool_first=True
    )
    module.load_state_dict(dict(zip(module.state_dict(), problem.start.values(), strict=True)))
    return _learn2learn(problem, module.to(problem.dtype))


def _learn2learn(problem: Problem, module: nn.Module) -> Way:
    _needs("learn2learn")
    for package in ("learn2learn", "learn2learn.algorithms"):  # their imports ask for gym and torchvision
        _stub(package)
    library = importlib.import_module("learn2learn.algorithms.maml")
    maml, loss = library.MAML(module, lr=problem.job.rate, first_order=False), problem.loss
    tasks, steps = len(problem.episodes.support.mask), problem.job.steps

    def compute() -> list[Tensor]:
        module.zero_grad()
        for x, y, x_query, y_query in problem.each():
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(loss(learner(x), y))
            (loss(learner(x_query), y_query) / tasks).backward()
        return gradients(list(module.parameters()))

    return compute


def higher(problem: Problem) -> Way:
    """Higher 0.2.1: a functional copy and a differentiable SGD, task by task."""
    library = _imported("higher")
    module, loss = problem.module(), problem.loss
    tasks, steps = len(problem.episodes.support.mask), problem.job.steps
    inner = torch.optim.SGD(module.parameters(), lr=problem.job.rate)

    def compute() -> list[Tensor]:
        module.zero_grad()
        for x, y, x_query, y_query in problem.each():
            with library.innerloop_ctx(module, inner, copy_initial_weights=False) as (fast, descent):
                for _ in range(steps):
                    descent.step(loss(fast(x), y))
                (loss(fast(x_query), y_query) / tasks).backward()
        return gradients(list(module.parameters()))

    return compute


def torchopt(problem: Problem) -> Way:
    """TorchOpt: its differentiable MetaSGD, with the state taken back after each task."""
    library = _imported("torchopt")
    module, loss = problem.module(), problem.loss
    tasks, steps = len(problem.episodes.support.mask), problem.job.steps
    inner = library.MetaSGD(module, lr=problem.job.rate)
    leaves = list(module.parameters())

    def compute() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        start = (
            library.extract_state_dict(module, by="reference"),
            library.extract_state_dict(inner, by="reference"),
        )
        for x, y, x_query, y_query in problem.each():
            for _ in range(steps):
                inner.step(loss(module(x), y))
            outer = loss(module(x_query), y_query) / tasks
            library.recover_state_dict(module, start[0])
            library.recover_state_dict(inner, start[1])
            outer.backward()
        return gradients(leaves)

    return compute


def parallel_metalearn(problem: Problem, *, native_norm: bool = False) -> Way:
    """parallel-metalearn, its default backend (vmap), all tasks in one chunk.

    Args:
        native_norm: leave torch's batch norm in, where its own networks have a batch norm of their own.
    """
    _needs("metalearn")
    algorithms, optimisers, losses, layers = (
        _imported(f"metalearn.{part}")
        for part in ("algorithms", "inner_optimizers.optimizers", "loss.base", "nn_models.basic_layers")
    )
    model = _Wrapped(problem.module() if native_norm else _with_own_norm(problem.module(), layers.BatchNorm))
    leaves, loss = list(model.parameters()), problem.loss

    class Loss(losses.BaseLoss):
        def forward(self, out_dict: Any, targets: Any, model_states: Any = None, **more: Any) -> Any:
            value = loss(out_dict["logits"], targets["labels"])
            return value, value.detach()  # no metric: it would count against it

    class Still(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:  # the outer step is not timed
            return None

    inner = optimisers.InnerSGD(
        model.get_fast_weights(), first_order=False, inner_lr=problem.job.rate, max_inner_steps=problem.job.steps,
        learn_lr=False,
    ).to(problem.dtype)  # fmt: skip
    with torch.no_grad():  # it holds the rate in single precision
        for rate in inner.parameters():
            rate.fill_(problem.job.rate)
    tasks = len(problem.episodes.support.mask)
    maml = algorithms.MAML(
        model=model, optimizer=Still(leaves, lr=0.1), inner_optimizer=inner, support_loss_fn=Loss(),
        inner_steps=problem.job.steps, chunk_size=tasks,
    )  # fmt: skip
    (x, y, _), (x_query, y_query, _) = problem.episodes
    batch = (x, {"labels": y}, x_query, {"labels": y_query})

    def compute() -> list[Tensor]:
        maml.step(iter([batch]), training=True)
        return gradients(leaves)

    return compute


class _Wrapped(nn.Module):
    """A module as parallel-metalearn asks for it: outputs in a dictionary, and which parameters adapt."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, **flags: Any) -> dict[str, Any]:
        return {"logits": self.net(x), "buffers": {}}

    def get_fast_weights(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())


def _with_own_norm(module: nn.Module, norm: Callable[..., nn.Module]) -> nn.Module:
    """The module with its batch norms replaced by the library's own, which are written out and so are right.

    (Its own translator does the same; in 0.5.6 it passes its layer an argument that the layer doesn't have.)
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            own = norm(child.num_features, eps=child.eps, track_running_stats=False).to(child.weight.dtype)
            own.load_state_dict(child.state_dict())
            setattr(module, name, own)
        else:
            _with_own_norm(child, norm)
    return module


def _imported(name: str) -> ModuleType:
    _needs(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except Exception as problem:  # whatever a package of another age trips over
        raise Absent(f"importing {name} failed: {problem}") from problem


def _needs(package: str) -> None:
    if package not in sys.modules and find_spec(package) is None:
        raise Absent(f"{package} is not installed; `make peers` makes an interpreter that has it")


def _stub(package: str) -> None:
    """Put an empty package in place of one whose `__init__` can't be imported, so that its modules can."""
    if package in sys.modules:
        return
    parent, _, last = package.rpartition(".")
    if parent:
        folders = [str(Path(folder) / last) for folder in sys.modules[parent].__path__]
    else:
        spec = find_spec(package)
        folders = list((spec and spec.submodule_search_locations) or [])
    empty = ModuleSpec(package, loader=None, is_package=True)
    empty.submodule_search_locations = folders
    sys.modules[package] = module_from_spec(empty)
