"""MetaLearner: the one interface of every algorithm. Fields are hyper-parameters, methods are pure.

A learner is written as for one task. `meta` is what was learned across tasks, `fast` what was learned within one; both
are flat dictionaries of tensors. The engine runs a learner over many tasks (see `quickstudy.core.engine`):

* a learner without an inner loop is mapped over tasks as it stands;
* a learner with one (`inner_loop = True`) gets all tasks stacked, and must touch parameters only by elementwise
  arithmetic and by `descend` or `inner_gradient`, which work for one task and for many alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingImports]

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.net import Net, NetSpec, apply, initial, over_tasks, plain_attention
from quickstudy.core.objective import Objective
from quickstudy.core.recompute import recomputed
from quickstudy.core.spec import Spec

Meta = dict[str, Tensor]
Fast = dict[str, Tensor]


class PlainSGD(NamedTuple):
    """An inner loop that is `steps` of gradient descent at one rate on the whole of `net`, from the meta-parameters."""

    net: Net
    steps: int
    rate: float
    second_order: bool


@dataclass(frozen=True, kw_only=True)
class MetaLearner(Spec, ABC):
    """What every learner has; see the module's docstring for the contract."""

    objective: Objective
    """What outputs mean, and how many there are."""

    paper: ClassVar[str]
    """Authors, year, title, arXiv id."""
    inner_loop: ClassVar[bool] = False
    """Whether `adapt` follows gradients."""
    maps: ClassVar[bool] = True
    """Whether vmap can run it over tasks; otherwise the engine takes them one by one."""
    transductive: ClassVar[bool] = False
    """Whether answers depend on which other inputs are asked about; the engine then shows `predict` no padding."""
    describes: ClassVar[bool] = False
    """Whether a row of a support may describe a class, as its y says by a number `ways` higher: see `Gaussian`."""
    symmetric: ClassVar[frozenset[str]] = frozenset({"order", "labels"})
    """Changes of the support that change nothing else: its order; the numbering of its classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = next(field.type for field in fields(self) if field.name == "objective")
        if not isinstance(self.objective, wanted):  # pyright: ignore[reportArgumentType]
            if isinstance(self.objective, Objective):
                advice = f"{type(self).__name__} doesn't answer so; docs/choose.md says which learners do."
            else:
                advice = (
                    "The loss is the objective's: Classify(ways=5) for classes, Regress(dim=1) for numbers."
                )
            names = [f"{getattr(one, '__name__', one)}(…)" for one in get_args(wanted) or (wanted,)]
            raise DataError(
                f"{type(self).__name__}.objective is {str(self.objective)[:80]}; expected {' or '.join(names)}. "
                f"{advice}"
            )

    @abstractmethod
    def init(self, seed: int = 0) -> Meta:
        """What is known before any task was seen."""

    @abstractmethod
    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        """Learn one task from its support [n, …]."""

    @abstractmethod
    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        """Outputs (logits, or real numbers) for inputs [n, …] of the adapted task."""

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        """What meta-training lowers: the outer loss after adapting to the support."""
        return self.outer_loss(meta, named(self, "adapt", self.adapt(meta, episode.support)), episode)

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        """How good `fast` is: by default the loss of the query's predictions. A forward pass only."""
        return self.objective.loss(self.predict(meta, fast, episode.query.x), episode.query)

    def trainable(self, meta: Meta) -> list[str]:
        """Which entries of `meta` follow the meta-gradient; by default all that are floating point."""
        return [name for name, value in meta.items() if value.is_floating_point()]

    def nets(self) -> list[Net]:
        """The networks that it runs, by default each field that is one: their layers decide which forms are exact."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if isinstance(value, NetSpec | nn.Module)]

    def row_width(self) -> int | None:
        """How many numbers an input has, where features are taken as they are; None where a network says it."""
        return None

    def left_out(self, meta: Meta, support: Labelled, x: Tensor, output: int) -> Float[Tensor, "n k"] | None:
        """Outputs for one input x […] without each of the support's rows, where adapting anew can be avoided.

        None where it can't. The learner says what is approximate about it; only `output`'s log-odds count.
        """
        return None

    def check(self, meta: Meta) -> None:
        """Refuse a `meta` that isn't one of this learner's, before any network is built: a file may ask for a huge one.

        Raises:
            ModelError: an entry that `init` gives is missing or has another shape, or one is there that it lacks.
        """
        if not isinstance(meta, dict):
            raise ModelError(
                f"What {type(self).__name__} knows is a {type(meta).__name__}; expected a dictionary of tensors, as "
                "learner.init() and a step's `meta` are. Of a module: dict(module.named_parameters())."
            )
        # A spec is always the same; a module's parameters may have been frozen since.
        expected = self._same_shapes or _shapes(self)
        for name, shape in expected.items():
            if name not in meta:
                raise ModelError(f"{type(self).__name__} needs the tensor {name!r}, which is missing.")
            if list(meta[name].shape) != shape:
                raise ModelError(
                    f"{type(self).__name__} needs {name!r} of shape {shape}; it has {list(meta[name].shape)}."
                )
        if unknown := sorted(meta.keys() - expected.keys()):
            raise ModelError(
                f"{type(self).__name__} has no tensor {unknown[0]!r}. Of a module's state_dict() give its parameters "
                "alone: dict(module.named_parameters())."
            )

    @cached_property
    def _same_shapes(self) -> dict[str, list[int]]:
        """What `check` expects, looked up once; nothing where a network is a module."""
        return {} if any(isinstance(net, nn.Module) for net in self.nets()) else _shapes(self)

    def check_answers(self, rows: Labelled, name: str, *, trains: bool = False) -> None:
        """Refuse answers that it can't read, of stacked tasks. Raises DataError.

        Args:
            name: "support" or "query".
            trains: whether they are there to meta-train on.
        """
        self.objective.check(rows, name, described=name == "support" and self.describes)

    def plain_sgd(self) -> PlainSGD | None:
        """Says that `adapt` is nothing but plain gradient descent, so that the engine may use a faster equal form."""
        return None


@dataclass(frozen=True, kw_only=True)
class FeatureLearner(MetaLearner):
    """A learner that takes features as they are, in rows of `dim` numbers."""

    dim: int

    def row_width(self) -> int:
        return self.dim


@dataclass(frozen=True, kw_only=True)
class NetLearner(MetaLearner):
    """A learner whose `meta` and `fast` are the parameters of a network that maps inputs to outputs."""

    net: Net
    """The network: a spec from `quickstudy.nets`, or any `nn.Module`."""

    def init(self, seed: int = 0) -> Meta:
        return initial(self.net, seed)

    def forward(self, weights: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        """Outputs for inputs of one task under `weights`: what a learner of more than a net's parameters overrides."""
        return apply(self.net, weights, x)

    def support_loss(self, fast: Fast, support: Labelled) -> Float[Tensor, ""]:
        """The loss of one task's support under parameters `fast`, silent about classes that the support lacks."""
        outputs = self.objective.fitting(self.forward(fast, support.x))
        return self.objective.loss(self.objective.restrict(outputs, self.objective.present(support)), support)

    def adapted(self, weights: Fast, support: Labelled) -> Fast:
        """Adapted weights together with which outputs the support spoke about."""
        return prefixed(weights, "net.") | {"present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        outputs = self.objective.fitting(self.forward(part(fast, "net."), x))
        return self.objective.restrict(outputs, fast["present"])


def _shapes(learner: MetaLearner) -> dict[str, list[int]]:
    with torch.device("meta"):  # shapes without memory
        return {name: list(value.shape) for name, value in named(learner, "init", learner.init()).items()}


def named(learner: MetaLearner, method: str, found: Any) -> dict[str, Tensor]:
    """What a learner's `init` or `adapt` gave. Raises ModelError unless it is tensors by name."""
    if not isinstance(found, dict):
        held = f"a {type(found).__name__}"
    elif strange := [value for value in found.values() if not isinstance(value, Tensor)]:
        held = f"a dictionary that holds a {type(strange[0]).__name__}"
    else:
        return found
    raise ModelError(
        f"{type(learner).__name__}.{method} gives {held}; expected a dictionary of tensors by name, such as "
        '{"net.weight": weight}.'
    )


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors, `prefix` before each name: a network's parameters beside others. `part` undoes it."""
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def in_precision_of(net: Meta, own: Meta) -> Meta:
    """A learner's own parameters as numbers of the kind that its network's are: products want one kind."""
    kind = next((value.dtype for value in net.values() if value.is_floating_point()), None)
    return {name: value.to(kind) for name, value in own.items()}


def inner_gradient(
    loss: Callable[[Fast, Labelled], Tensor],
    fast: Fast,
    support: Labelled,
    *,
    fixed: Fast | None = None,
    second_order: bool = True,
) -> Fast:
    """The gradient of a support loss with respect to `fast`, for one task or for stacked tasks.

    The one primitive that inner loops are made of. For stacked tasks only the *forward* is mapped by vmap; the gradient
    is plain autograd of the summed task losses, which is each task's own gradient as tasks share nothing.
    (`vmap` over `torch.func.grad` would differentiate wrongly through layer, batch and instance norm when the result is
    differentiated again.)

    Args:
        loss: the loss of *one* task, a pure function of its parameters and its support.
        fast: parameters, [tasks, …] when the support is [tasks, n, …].
        fixed: parameters that the loss needs but that don't move here; the meta-gradient still reaches them.
        second_order: keep the graph, so that a meta-gradient flows through the step.
    """
    return loss_and_gradient(loss, fast, support, fixed=fixed, second_order=second_order)[1]


def loss_and_gradient(
    loss: Callable[[Fast, Labelled], Tensor],
    fast: Fast,
    support: Labelled,
    *,
    fixed: Fast | None = None,
    second_order: bool = True,
) -> tuple[Float[Tensor, "*tasks"], Fast]:
    """`inner_gradient` with the loss of each task, which no gradient flows through."""
    differentiated = any(t.requires_grad for t in (*fast.values(), *(fixed or {}).values(), support.x))
    keep = second_order and torch.is_grad_enabled() and differentiated
    # A first-order step still lets the meta-gradient reach the parameters it started from (they enter additively), so
    # the gradient itself is all that is cut.
    # Views, since one entry may have been made from another (a head from the body's prototypes): the gradient is the
    # partial one, all other entries held.
    at = {
        k: v.view_as(v) if keep and v.requires_grad else v.detach().requires_grad_() for k, v in fast.items()
    }
    fixed = {k: v if keep else v.detach() for k, v in (fixed or {}).items()}
    # Fused attention kernels have no second derivative; which kernel runs is chosen in the forward pass.
    with torch.enable_grad(), plain_attention if keep else nullcontext():
        losses = (over_tasks(loss) if support.mask.ndim > 1 else loss)(fixed | at, support)
        total = losses.sum()
        if not total.requires_grad:
            if is_batchedtensor(support.x) or torch.is_inference_mode_enabled():
                why = (
                    "tasks are mapped over, as is done with learners without an inner loop: write inner_loop = True "
                    "into the learner's class"
                    if is_batchedtensor(support.x)
                    else "torch.inference_mode() is on: torch.no_grad() does instead"
                )
                raise ModelError(f"An inner step has no gradient to follow: {why}.")
            raise ModelError(
                "An inner step has no gradient to follow: the support's loss doesn't depend on the parameters in a way "
                "that can be differentiated. Look for detach(), argmax, round, .numpy() or torch.no_grad() in the "
                "network's forward pass."
            )
        grads = torch.autograd.grad(total, list(at.values()), create_graph=keep, allow_unused=True)
    return losses.detach(), {
        k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(at.items(), grads, strict=True)
    }


def per_task(function: Callable[..., Tensor], support: Labelled, *arguments: Any) -> Tensor:
    """A forward pass inside `adapt`: `function(*arguments)` for one task, mapped over tasks when they are stacked.

    Args:
        function: of one task; it may run the network.
        support: tells whether tasks are stacked.
        arguments: each with the leading dimension of tasks that `meta`, `fast` and the support have.
    """
    return (function if support.mask.ndim == 1 else over_tasks(function))(*arguments)


def reshaped(rate: Float[Tensor, "*tasks"], weight: Tensor) -> Tensor:
    """One number per task, in a shape that multiplies each task's weight [*tasks, …]."""
    return rate.reshape((*rate.shape, *[1] * (weight.ndim - rate.ndim)))


def descend(
    loss: Callable[[Fast, Labelled], Tensor],
    fast: Fast,
    support: Labelled,
    *,
    steps: int,
    rate: float,
    second_order: bool,
    fixed: Fast | None = None,
) -> Fast:
    """Gradient descent on a support loss:  θ ← θ - rate ∇_θ L(θ; support),  `steps` times; see `inner_gradient`."""

    def step(fast: Fast, fixed: Fast) -> Fast:
        gradient = inner_gradient(loss, fast, support, fixed=fixed, second_order=second_order)
        return {name: weight - rate * gradient[name] for name, weight in fast.items()}

    for _ in range(steps):
        fast = inner_step(step, fast, fixed or {}, second_order=second_order)
    return fast


def inner_step(
    step: Callable[[Fast, Fast], Fast], fast: Fast, fixed: Fast, *, second_order: bool = True
) -> Fast:
    """`step(fast, fixed)`: one step of an inner loop, which may be computed again instead of being kept.

    Args:
        step: a function of these two alone: no meta-gradient reaches what else it uses.
        second_order: False where the graph of a step is hardly worth computing again.
    """
    again = _again.get()
    if again is None:
        return step(fast, fixed)
    again.met = True
    worth = second_order and torch.is_grad_enabled()
    return recomputed(step, fast, fixed) if worth else step(fast, fixed)


class Again:
    """That inner steps are to be computed again."""

    met = False
    """Whether there was any."""


_again: ContextVar[Again | None] = ContextVar("quickstudy_again", default=None)


@contextmanager
def recomputing(on: bool) -> Iterator[Again | None]:
    """Within this block, with `on`, an `inner_step` keeps no more than what it began at."""
    token = _again.set(again := Again() if on else None)
    try:
        yield again
    finally:
        _again.reset(token)
