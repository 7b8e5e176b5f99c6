"""What the engine's benchmark computes: its jobs, and the ways to compute one that need nothing but torch.

A job is the meta-gradient of second-order MAML over a batch of tasks: a network, an objective, the number of tasks, of
rows, of inner steps. A way is a function that computes it once. All ways start from the same parameters and the same
tasks, and give one gradient for each parameter, in the order of the module's parameters. The outer optimiser's step is
nobody's and is not timed.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, linear, mse_loss, relu

from quickstudy.core.engine import Form, meta_gradient
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import CompileWarning
from quickstudy.core.forms import choose_form
from quickstudy.core.net import Net
from quickstudy.core.objective import Classify, Objective, Regress
from quickstudy.learners import MAML
from quickstudy.nets import MLP

Way = Callable[[], Sequence[Any]]
"""Computes one meta-gradient: torch tensors, or arrays that have come to rest."""
OURS, COMPILED, STACKED = "quickstudy", "quickstudy, compiled", "quickstudy, stacked form"
LOOP, VMAP = "loop of autograd", "vmap over grad"
LEARN2LEARN, JAX = "learn2learn", "JAX"
WAYS, QUERIES = 5, 15
FIVE_WAYS = Classify(ways=WAYS)


class Absent(Exception):
    """Raised by a way that can't be had here, with the reason."""


def conv4(filters: int, *, pool_first: bool = False) -> nn.Module:
    """Four blocks of convolution, batch norm, ReLU and pooling on 28×28 images, and a linear layer on top.

    Pooling before the ReLU gives the same values and gradients for less work, as the ReLU keeps order.
    """
    parts: list[nn.Module] = []
    for inputs in (1, filters, filters, filters):
        parts += [
            nn.Conv2d(inputs, filters, 3, padding=1),
            nn.BatchNorm2d(filters, track_running_stats=False),
        ]
        parts += [nn.MaxPool2d(2), nn.ReLU()] if pool_first else [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(filters, WAYS))


def own_conv4(filters: int) -> Net:
    """Our Conv4, where there is one."""
    try:
        from quickstudy.nets import Conv4  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        return conv4(filters, pool_first=True)
    return Conv4(filters=filters, outputs=WAYS)


def generic() -> nn.Module:
    """A module of somebody's own that has no dual form: layer norm and GELU."""
    return nn.Sequential(
        nn.Linear(384, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(),
        nn.Linear(64, WAYS),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One meta-gradient to compute."""

    title: str
    net: Callable[[], Net]
    """What we are given."""
    plain: Callable[[], nn.Module] | None = None
    """What everybody else is given, where it is not the same module: same parameters, same function."""
    objective: Objective = FIVE_WAYS
    shape: tuple[int, ...] = (384,)
    """Of one input."""
    tasks: int = 16
    support: int = WAYS
    """Rows in all, not for each class."""
    query: int = QUERIES * WAYS
    steps: int = 5
    rate: float = 0.1
    tolerance: float = 1e-5
    """Of a float32 gradient, against the loop in float64."""
    base: str = LEARN2LEARN
    """The way that the others are compared with."""
    eager: str = ""
    compiled: str = ""
    """Which rows the ratio goes to."""
    peers: bool = True
    """Whether other libraries take part."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Ways that take no part, and why."""


def mlp(width: int, inputs: int = 384, outputs: int = WAYS) -> MLP:
    """A perceptron of two hidden layers."""
    return MLP(inputs=inputs, outputs=outputs, hidden=(width, width))


# partial and not lambda: a job travels to other processes.
SINUSOID = Job(
    title="sinusoid, MLP 1-40-40-1, 10 + 10 points, 25 tasks", net=partial(mlp, 40, 1, 1),
    objective=Regress(), shape=(1,), tasks=25, support=10, query=10, rate=0.01,
    eager="learners.1.1", compiled="learners.1.2",
)  # fmt: skip
# In single precision a rounding turns over which of two pixels is the largest, here and there, and steps make much of
# it: the float32 loop itself is up to .003 off. In float64 all agree to 1e-12 (learners.12).
IMAGES = Job(
    title="", net=partial(conv4, 1), shape=(1, 28, 28), tolerance=1e-2,
    without={
        LOOP: "does what learn2learn does", VMAP: "parallel-metalearn does the same", JAX: "XLA compiles for minutes",
    },
)  # fmt: skip
LOOPED = Job(title="MLP 384-128-128-5, 1-shot, 16 tasks", net=partial(mlp, 128), base=LOOP, peers=False)
JOBS = {
    "sinusoid": SINUSOID,
    "mlp-16": Job(
        title="MLP 384-64-64-5, 1-shot, 16 tasks", net=partial(mlp, 64), eager="learners.2.1", compiled="learners.2.2"
    ),
    "mlp-64": Job(title="MLP 384-64-64-5, 1-shot, 64 tasks", net=partial(mlp, 64), tasks=64, eager="learners.2.3"),
    "mlp-128": Job(
        title="MLP 384-128-128-5, 5-shot, 64 tasks", net=partial(mlp, 128), tasks=64, support=5 * WAYS,
        eager="learners.3.1",
    ),
    "conv-32": replace(
        IMAGES, title="Conv4, 32 filters, 28×28, 1-shot, 16 tasks", net=partial(own_conv4, 32),
        plain=partial(conv4, 32), eager="learners.4.1",
    ),
    "conv-64": replace(
        IMAGES, title="Conv4, 64 filters, 28×28, 1-shot, 16 tasks", net=partial(own_conv4, 64),
        plain=partial(conv4, 64), eager="learners.4.2",
    ),
    "module": Job(
        title="own module, 384-64-64-5, layer norm, GELU, 1-shot, 16 tasks", net=generic, eager="learners.13.1",
        compiled="learners.13.2",
    ),
    "loop-1": replace(LOOPED, eager="core.7.1"),
    "loop-5": replace(
        LOOPED, title="MLP 384-128-128-5, 5-shot, 16 tasks", support=5 * WAYS, eager="core.7.five-shot"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A job with parameters and tasks, in one precision."""

    job: Job
    dtype: torch.dtype = torch.float32
    tasks: int = 0
    """0 for as many as the job has."""

    @cached_property
    def net(self) -> Net:
        net = self.job.net()
        return net.to(self.dtype) if isinstance(net, nn.Module) else net

    @cached_property
    def learner(self) -> MAML:
        return MAML(objective=self.job.objective, net=self.net, steps=self.job.steps, rate=self.job.rate)

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The parameters to start from; the same numbers in every precision."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = _module(self.job.net())
        return {name: p.detach().to(self.dtype) for name, p in module.named_parameters()}

    @cached_property
    def episodes(self) -> Episode:
        """Random tasks: classes are clouds around random centres; regression is a sine of random phase and height."""
        job, tasks = self.job, self.tasks or self.job.tasks
        g = torch.Generator().manual_seed(0)
        rows = job.support + job.query
        if isinstance(job.objective, Regress):
            x = torch.rand(tasks, rows, *job.shape, generator=g, dtype=torch.float64) * 10 - 5
            height, phase = torch.rand(2, tasks, 1, 1, generator=g, dtype=torch.float64)
            y = ((height * 4.9 + 0.1) * torch.sin(x + phase * math.pi)).to(self.dtype)
        else:
            y = torch.arange(rows).remainder(WAYS).expand(tasks, rows).clone()
            centres = torch.randn(tasks, WAYS, *job.shape, generator=g, dtype=torch.float64) / 2
            noise = torch.randn(tasks, rows, *job.shape, generator=g, dtype=torch.float64)
            x = (centres[torch.arange(tasks)[:, None], y] + noise) / (8 if len(job.shape) == 1 else 1)
        x, real = x.to(self.dtype), torch.ones(tasks, rows, dtype=torch.bool)
        parts = (slice(job.support), slice(job.support, rows))
        return Episode(*(Labelled(*(t[:, part].contiguous() for t in (x, y, real))) for part in parts))

    def module(self) -> nn.Module:
        """A module of its own for somebody else, with the parameters to start from."""
        module = (self.job.plain or (lambda: _module(self.job.net())))().to(self.dtype)
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), self.start.values(), strict=True):
                parameter.copy_(value)
        return module

    def each(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(x, y, x of the query, y of the query) of one task after the other."""
        (x, y, _), (x_query, y_query, _) = self.episodes
        return zip(x, y, x_query, y_query, strict=True)

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Mean over rows, by torch's own function."""
        return mse_loss if isinstance(self.job.objective, Regress) else cross_entropy


def _module(net: Net) -> nn.Module:
    return net if isinstance(net, nn.Module) else net.build()


def own_ways(problem: Problem) -> dict[str, Callable[[Problem], Way]]:
    """Ours and those written in plain torch, by name."""
    found: dict[str, Callable[[Problem], Way]] = {OURS: engine}
    if form_of(problem) == "dual":
        found[STACKED] = lambda p: engine(p, form="stacked")
    if problem.job.compiled:
        found[COMPILED] = compiled
    return found | {LOOP: loop, VMAP: vmap_over_grad}


def form_of(problem: Problem) -> Form:
    """The form that the engine takes by itself."""
    return choose_form(problem.learner, problem.episodes)


def engine(problem: Problem, form: Form = "auto", **options: Any) -> Way:
    """Ours."""
    learner, meta, episodes = problem.learner, problem.start, problem.episodes
    return lambda: list(meta_gradient(learner, meta, episodes, form=form, **options)[1].values())


def compiled(problem: Problem) -> Way:
    """Ours, traced and compiled. Raises Absent where the engine can't."""
    way = engine(problem, compile=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        way()
    if refused := [w for w in said if issubclass(w.category, CompileWarning)]:
        raise Absent(str(refused[0].message))
    return way


def forward(problem: Problem) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    """The network as a function of its parameters; a plain perceptron is written out.

    `torch.func.functional_call` would add a sixth to the loop's time there.
    """
    net = problem.net
    if isinstance(net, MLP) and (net.activation, net.norm, net.dropout) == ("relu", "none", 0):
        return perceptron
    module = problem.module()
    names = [name for name, _ in module.named_parameters()]

    def run(params: Sequence[Tensor], x: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, params, strict=True)), (x,))

    return run


def perceptron(params: Sequence[Tensor], x: Tensor) -> Tensor:
    """Linear layers with ReLU between them."""
    *hidden, last = zip(params[::2], params[1::2], strict=True)
    for weight, bias in hidden:
        x = relu(linear(x, weight, bias))
    return linear(x, *last)


def loop(problem: Problem) -> Way:
    """What one writes without a library: one task after the other, nothing shared. In float64, the reference."""
    net, loss = forward(problem), problem.loss
    steps, rate = problem.job.steps, problem.job.rate

    def compute() -> list[Tensor]:
        start = [value.detach().requires_grad_() for value in problem.start.values()]
        tasks = len(problem.episodes.support.mask)
        for x, y, x_query, y_query in problem.each():
            fast = start
            for _ in range(steps):
                slopes = torch.autograd.grad(loss(net(fast, x), y), fast, create_graph=True)
                fast = [weight - rate * slope for weight, slope in zip(fast, slopes, strict=True)]
            (loss(net(fast, x_query), y_query) / tasks).backward()
        return gradients(start)

    return compute


def vmap_over_grad(problem: Problem) -> Way:
    """The obvious form in torch.func: vmap of a task that calls grad. Wrong through norm layers, see docs/engine.md."""
    net, loss = forward(problem), problem.loss
    steps, rate = problem.job.steps, problem.job.rate
    (x, y, _), (x_query, y_query, _) = problem.episodes

    def task(params: list[Tensor], x: Tensor, y: Tensor, x_query: Tensor, y_query: Tensor) -> Tensor:
        fast = params
        for _ in range(steps):
            slopes = grad(lambda weights: loss(net(weights, x), y))(fast)
            fast = [weight - rate * slope for weight, slope in zip(fast, slopes, strict=True)]
        return loss(net(fast, x_query), y_query)

    def compute() -> list[Tensor]:
        start = [value.detach().requires_grad_() for value in problem.start.values()]
        vmap(task, in_dims=(None, 0, 0, 0, 0))(start, x, y, x_query, y_query).mean().backward()
        return gradients(start)

    return compute


def gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """What `backward` left, zero where it left nothing."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def error(found: Sequence[Any], reference: Sequence[Tensor]) -> float:
    """The relative error of a whole gradient, in its norm."""
    flat, expected = (
        torch.cat([torch.as_tensor(part).detach().double().flatten() for part in g])
        for g in (found, reference)
    )
    return float((flat - expected).norm() / expected.norm())
