"""How exact meta-gradients are, in float64: every learner, norm layer and form of the engine; and the peers' MAML.

The reference takes one task after the other and differentiates the learner's own loss by plain autograd; for MAML it is
the loop of `engine_jobs`, which knows neither learners nor the engine. A figure is the norm of the difference over the
norm of the reference.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

import quickstudy.learners
from quickstudy.bench import settings
from quickstudy.bench.engine_jobs import (
    COMPILED,
    FIVE_WAYS,
    VMAP,
    WAYS,
    Absent,
    Job,
    Problem,
    Way,
    compiled,
    engine,
    error,
    gradients,
    loop,
    vmap_over_grad,
)
from quickstudy.bench.engine_peers import PARALLEL, REORDERED, parallel_metalearn, peer_ways, versions
from quickstudy.core.engine import Form, meta_gradient
from quickstudy.core.episode import Episode, unstack
from quickstudy.core.errors import QuickstudyError
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.net import Net, training
from quickstudy.learners import MAML, NeuralProcess, Pool
from quickstudy.nets import MLP

NATIVE = "parallel-metalearn, torch's batch norm"
WIDTH, SIDE = 8, 6


def _perceptron(norm: str, more: int = 0) -> MLP:
    """With so many inputs more than the tasks have."""
    return MLP(inputs=WIDTH + more, outputs=WAYS, hidden=(12, 12), activation="tanh", norm=norm)  # pyright: ignore


def _convolution(norm: Callable[[int], nn.Module], more: int = 0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1 + more, 4, 3, padding=1),
        norm(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 9, WAYS),
    )


NETS: dict[str, Callable[..., Net]] = {
    **{norm: partial(_perceptron, norm) for norm in ("none", "layer", "batch", "group", "rms")},
    "batch, images": partial(_convolution, partial(nn.BatchNorm2d, track_running_stats=False)),
    "group, images": partial(_convolution, partial(nn.GroupNorm, 2)),
    "instance, images": partial(_convolution, partial(nn.InstanceNorm2d, affine=True)),
}
JOBS = {
    norm: Job(
        title="", net=net, shape=(1, SIDE, SIDE) if norm.endswith("images") else (WIDTH,), tasks=3, support=2 * WAYS,
        query=3 * WAYS, steps=2, rate=0.3,
    )
    for norm, net in NETS.items()
}  # fmt: skip
"""By norm layer."""
COMPILED_NORMS = ("none", "layer", "batch")
"""Compiling takes seconds; these reach both forms that can be compiled."""


@dataclass(frozen=True)
class Figure:
    """The relative difference of one meta-gradient."""

    who: str
    """A learner, or a peer."""
    norm: str
    form: str
    error: float


def compare() -> dict[str, Any]:
    """All figures of ours and of the peers, as JSON: "ours", "peers", "left_out" (name: reason), "versions"."""
    left_out: dict[str, str] = {}
    ours = [*own_figures(left_out), *compiled_figures(left_out)]
    peers = list(peer_figures(left_out))
    plain = {"ours": [vars(f) for f in ours], "peers": [vars(f) for f in peers]}
    return {**plain, "left_out": left_out, "versions": versions()}


def own_figures(left_out: dict[str, str]) -> Iterator[Figure]:
    """Every learner that follows a gradient, through every norm layer, in every form that runs it."""
    for name in sorted(quickstudy.learners.__all__):
        kind = getattr(quickstudy.learners, name)
        if not (inspect.isclass(kind) and issubclass(kind, MetaLearner)):
            continue
        for norm in norms(kind):
            problem = Problem(JOBS[norm], torch.float64)
            try:
                learner = built(kind, norm)
            except TypeError as reason:
                left_out[name] = str(reason)
                break
            torch.manual_seed(0)
            meta = {k: v.double() if v.is_floating_point() else v for k, v in learner.init(0).items()}
            if not learner.trainable(meta):
                break  # it has no meta-gradient
            try:
                expected = reference(learner, meta, problem.episodes)
            except (QuickstudyError, RuntimeError) as reason:
                left_out[f"{name}, {norm}"] = str(reason).splitlines()[0][:200]
                continue
            for form, found in forms(learner, meta, problem.episodes):
                yield Figure(name, norm, form, error(found, expected))
            if kind is MAML:  # once more, against a reference that shares no code with ours
                yield Figure("MAML, written out", norm, "auto", _against_loop(problem, engine))


def norms(kind: type[MetaLearner]) -> list[str]:
    """The norm layers, of JOBS, that a learner can meet: none without a network of the user's."""
    own = {f.name for f in fields(kind)}
    if kind is NeuralProcess:  # it joins inputs with codes, so they are rows of numbers
        return [norm for norm in NETS if not norm.endswith("images")]
    return list(NETS) if kind is Pool or "net" in own else ["none"]


def built(kind: type[MetaLearner], norm: str) -> MetaLearner:
    """A learner with its defaults on a network with this norm.

    Raises TypeError for a field that only its user can fill and that isn't known here.
    """

    def net(more: int = 0) -> Net:
        one = NETS[norm](more)
        return one.double() if isinstance(one, nn.Module) else one

    return settings.built(kind, FIVE_WAYS, settings.Nets(WIDTH, WAYS, net, net, (12,)))


def reference(learner: MetaLearner, meta: Meta, episodes: Episode) -> list[Tensor]:
    """The gradient of the mean loss: one task after the other, plain autograd."""
    names = learner.trainable(meta)
    leaves = {k: v.detach().clone().requires_grad_(k in names) for k, v in meta.items()}
    with training():
        for episode in unstack(episodes):
            torch.manual_seed(0)  # as the engine's: tasks of a batch share what is drawn
            (learner.loss(leaves, episode) / len(episodes.support.mask)).backward()
    return gradients([leaves[name] for name in names])


def forms(learner: MetaLearner, meta: Meta, episodes: Episode) -> Iterator[tuple[str, list[Tensor]]]:
    """The meta-gradient in every form that can run this learner."""
    for form in get_args(Form):
        if form == "auto" or (form == "stacked" and not learner.maps):
            continue
        try:
            found = meta_gradient(learner, meta, episodes, form=form)[1]
        except QuickstudyError:  # the engine says that this form isn't for it
            continue
        yield form, list(found.values())


def compiled_figures(left_out: dict[str, str]) -> Iterator[Figure]:
    """MAML, traced and compiled."""
    for norm in COMPILED_NORMS:
        problem = Problem(JOBS[norm], torch.float64)
        try:
            yield Figure("MAML", norm, "compiled", _against_loop(problem, compiled))
        except Absent as reason:
            left_out[COMPILED] = str(reason)
            return


def peer_figures(left_out: dict[str, str]) -> Iterator[Figure]:
    """The peers' MAML through every norm layer, and the obvious form in torch.func."""
    for norm, job in JOBS.items():
        problem = Problem(job, torch.float64)
        ways: dict[str, Callable[[Problem], Way]] = {VMAP: vmap_over_grad, **peer_ways(problem)}
        ways.pop(REORDERED, None)
        if norm.startswith("batch") and PARALLEL in ways:
            ways[NATIVE] = partial(parallel_metalearn, native_norm=True)
        for name, make in ways.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield Figure(name, norm, "", _against_loop(problem, make))
            except Absent as reason:
                left_out[name] = str(reason)


def _against_loop(problem: Problem, make: Callable[[Problem], Way]) -> float:
    return error(make(problem)(), loop(problem)())
