"""The dual form: gradient descent on a multilayer perceptron without ever forming the first layer's adapted weights.

Inputs stay the same through an inner loop, so after k steps the first layer is  W_k = W_0 + Xᵀ E_k,  where X are the
support's inputs [shots, d] and  E_k = -rate · Σ δ  sums the errors at its output [shots, hidden]. Hence

    X_q W_k = X_q W_0 + (X_q Xᵀ) E_k

one product with the shared W_0 for all tasks at once, and Gram matrices as small as the support: the kernel view of
gradient descent (e.g. Irie et al. 2022, arXiv:2202.05798). Deeper layers see other inputs at each step, so there the
history of (input, error) pairs takes the place of Xᵀ E while it is short, and weights of each task's own afterwards.

The inner loop's backward pass is written out, and so is the backward pass through the whole inner loop, which gives the
meta-gradient. One step of a layer with input h, output z, and u = -rate · (error at z) reads

    z = h W + b      v = u Wᵀ      W' = W + hᵀ u      b' = b + Σ u

and its adjoint, where ĝ marks the derivative of the outer loss by g,

    û = v̂ W + h Ŵ' + b̂'      ĥ = u Ŵ'ᵀ + ẑ Wᵀ      Ŵ = Ŵ' + v̂ᵀ u + hᵀ ẑ      b̂ = b̂' + Σ ẑ

Sums are formed in place by the matrix products: three quarters of the time of autograd on the same forward pass. Only
the objective's slope is left to autograd.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from quickstudy.core.affine import SHORT, History, Sum, Weights
from quickstudy.core.episode import Episode
from quickstudy.core.learner import MetaLearner
from quickstudy.core.net import NetSpec, plain_parts, skeleton
from quickstudy.core.objective import Objective, Slope

aten: Any = torch.ops.aten  # derivatives in one kernel: autograd's own
MANY_ROWS = 128
HELD = 2**22
"""Numbers that the tasks worked on at once may hold, 17 MB in single precision: fewer tasks at once take longer only
where a task is so small that this isn't reached."""


class Activation(NamedTuple):
    """A pointwise function h = f(z); its derivatives are functions of h, the only thing that is kept."""

    of_: Callable[[Tensor], Tensor]
    """z -> h, in the memory of z."""
    pull: Callable[[Tensor, Tensor], Tensor]
    """(g, h) -> g · f', in one pass."""
    bend: Callable[[Tensor], Tensor] | None
    """h -> f''; None where it is zero."""


class Layer(NamedTuple):
    """A linear layer, by the names of its parameters."""

    weight: str
    bias: str | None
    activation: Activation | None
    """What comes after it; None for the last layer."""
    inputs: int
    outputs: int


_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.relu_, lambda g, h: aten.threshold_backward(g, h, 0), None),
    nn.Tanh: Activation(torch.tanh_, aten.tanh_backward, lambda h: 2 * h * (h * h - 1)),
    nn.Sigmoid: Activation(torch.sigmoid_, aten.sigmoid_backward, lambda h: h * (1 - h) * (1 - 2 * h)),
}


def layers_of(net: NetSpec | nn.Module) -> list[Layer] | None:
    """The layers of an `nn.Sequential` of linear layers and activations; None for any other network."""
    # A spec's layers never change; a module may get a hook at any time.
    return _layers_of_module(skeleton(net)) if isinstance(net, nn.Module) else _layers_of_spec(net)


@lru_cache(maxsize=64)
def _layers_of_spec(net: NetSpec) -> list[Layer] | None:
    return _layers_of_module(skeleton(net))


def _layers_of_module(module: nn.Module) -> list[Layer] | None:
    parts = plain_parts(module)
    if parts is None:
        return None
    layers: list[Layer] = []
    for name, part in parts:
        if type(part) is nn.Linear and all(p.requires_grad for p in part.parameters()):
            bias = None if part.bias is None else f"{name}.bias"
            layers.append(Layer(f"{name}.weight", bias, None, part.in_features, part.out_features))
        elif type(part) in _ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = layers[-1]._replace(activation=_ACTIVATIONS[type(part)])
        else:
            return None
    # Two linear layers in a row, or an activation at the end, are legal but not worth a form of their own.
    shaped = layers and layers[-1].activation is None and all(layer.activation for layer in layers[:-1])
    return layers if shaped else None


def applies(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether the learner's answers have a dual form on these inputs, which must not be differentiated themselves."""
    fixed = all(part.x.ndim == 3 and not part.x.requires_grad for part in episodes)
    fixed = fixed and all(part.x.is_floating_point() for part in episodes)
    spoken = fixed and speaks_for(type(learner)) and knows_slope(type(learner.objective))
    sgd = learner.plain_sgd() if spoken else None
    layers = layers_of(sgd.net) if sgd else None
    if layers is None:
        return False
    # Where numbers don't fit, the other forms say what is wrong.
    fits = all(part.x.shape[-1] == layers[0].inputs for part in episodes)
    return fits and layers[-1].outputs == learner.objective.outputs


def applies_to_loss(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether what meta-training lowers has one too: it must be the loss of those answers."""
    plain = type(learner).loss is MetaLearner.loss and type(learner).outer_loss is MetaLearner.outer_loss
    return plain and applies(learner, episodes)


def pays(episodes: Episode) -> bool:
    """Whether the dual form is the faster one, too: not where a support has far more rows than features.

    A step then multiplies a Gram matrix of rows² numbers where the weights have rows · features. With 25 sinusoids (one
    feature) it takes .6 of the stacked form's time at 100 rows, 1.5 of it at 400.
    """
    *_, rows, features = episodes.support.x.shape
    return rows <= max(MANY_ROWS, 2 * features)


def at_once(learner: MetaLearner, meta: dict[str, Tensor], episodes: Episode) -> int:
    """How many tasks to work on at once, in equal parts, for the memory of a meta-gradient to stay bounded."""
    sgd = learner.plain_sgd()
    layers = layers_of(sgd.net) if sgd else None
    if sgd is None or layers is None:
        raise ValueError(f"{type(learner).__name__} on this network has no dual form.")
    support, queries = episodes.support.x.shape[1], episodes.query.x.shape[1]
    shapes = [meta[layer.weight].shape for layer in layers]
    states = sgd.steps if sgd.second_order else 1
    held = (states * support + queries) * sum(out for out, _ in shapes) * 2  # inputs and errors
    for out, into in shapes[1:]:  # beyond a few rows each task has weights of its own, at each step
        if sgd.steps * support > SHORT * min(out, into):
            held += (states + 1) * out * into
    tasks = len(episodes.support.mask)
    parts = math.ceil(tasks / max(1, HELD // max(1, held)))
    return math.ceil(tasks / parts)


@lru_cache(maxsize=64)
def speaks_for(kind: type[MetaLearner]) -> bool:
    """Whether `plain_sgd` is said of this very class: a subclass that adapts otherwise may have inherited it."""
    return _says_last(kind, "plain_sgd", ("adapt", "predict", "forward", "support_loss", "adapted"))


@lru_cache(maxsize=64)
def knows_slope(kind: type[Objective]) -> bool:
    """Whether an objective's `slope` is that of its own loss: a subclass with another may have inherited it."""
    return _says_last(kind, "slope", ("row_losses", "loss", "restrict", "present"))


def _says_last(kind: type, method: str, others: Sequence[str]) -> bool:
    """Whether no class overrides one of `others` after the one that gave `method`."""

    def depth(method: str) -> int:
        return next(i for i, base in enumerate(kind.__mro__) if method in vars(base))

    return depth(method) <= min(depth(name) for name in others if hasattr(kind, name))


def task_losses(
    learner: MetaLearner, params: dict[str, Tensor], episodes: Episode, *, silent: bool | None = None
) -> Float[Tensor, "tasks"]:
    """The query loss of each task after its inner loop, as in the generic form; differentiable once in `params`.

    Args:
        params: the network's parameters, shared by all tasks.
        episodes: stacked tasks, support [tasks, shots, d] and query [tasks, queries, d].
        silent: whether some output is one that a support knows nothing about; None looks, which a trace can't.
    """
    return learner.objective.loss(outputs(learner, params, episodes, silent=silent), episodes.query)


def outputs(
    learner: MetaLearner, params: dict[str, Tensor], episodes: Episode, *, silent: bool | None = None
) -> Float[Tensor, "tasks queries k"]:
    """The query's outputs after each task's inner loop; takes what `task_losses` takes, differentiable likewise."""
    sgd = learner.plain_sgd()
    layers = layers_of(sgd.net) if sgd else None
    if sgd is None or layers is None:
        raise ValueError(f"{type(learner).__name__} on this network has no dual form.")
    keep_freed_memory()
    objective, (support, query) = learner.objective, episodes
    present = objective.present(support)
    silent = not bool(present.all()) if silent is None else silent

    slope = objective.slope(support, -sgd.rate)

    def update(outputs: Tensor) -> tuple[Tensor, Tensor]:
        return slope.of(objective.restrict(outputs, present) if silent else outputs)

    keep = sgd.second_order and torch.is_grad_enabled()
    activations = [layer.activation for layer in layers[:-1] if layer.activation]
    loop = _InnerLoop(activations, Slope(update, slope.pull), support.x, query.x, sgd.steps, keep)
    names = [name for layer in layers for name in (layer.weight, layer.bias)]
    told: Any = _Differentiable.apply(loop, *[params[name] if name else None for name in names])
    return objective.restrict(told, present) if silent else told


@cache
def keep_freed_memory() -> None:
    """Let the next step reuse this one's memory; otherwise up to a third of its time goes into page faults.

    glibc returns freed memory beyond twice the largest block freed so far, of at most 32 MB. This one is never written.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class _Differentiable(torch.autograd.Function):
    """Hands the written-out backward pass to autograd."""

    @staticmethod
    def forward(ctx: Any, loop: "_InnerLoop", *params: Tensor | None) -> Tensor:
        ctx.loop = loop
        return loop.forward(params[::2], params[1::2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return None, *ctx.loop.backward(grads[0])


class _Step(NamedTuple):
    """What the backward pass needs of one inner step; the lists have one entry for each layer after the first.

    In the module's letters: (W, b), h, u, v; and what the objective's slope has to know.
    """

    maps: list[History | Weights]
    inputs: list[Tensor]
    updates: list[Tensor]
    pulled: list[Tensor]
    known: Tensor


class _InnerLoop:
    """Gradient descent on all tasks at once, then the query's outputs; and its adjoint."""

    def __init__(
        self,
        activations: list[Activation],
        update: Slope,
        x: Tensor,
        query: Tensor,
        steps: int,
        keep: bool,
    ) -> None:
        """`update` turns the support's outputs into the last layer's u; `keep`: differentiate through the steps."""
        self.activations, self.update, self.support, self.query = activations, update, x, query
        self.steps, self.keep = steps, keep
        self.tape: list[_Step] = []

    def forward(self, weights: Sequence[Any], biases: Sequence[Any]) -> Float[Tensor, "tasks queries k"]:
        x = self.support
        one = 0.0 if biases[0] is None else 1.0  # the bias is a weight on a constant input of 1
        self.biased = [bias is not None for bias in biases]
        self.gram, self.cross = torch.bmm(x, x.mT).add_(one), torch.bmm(self.query, x.mT).add_(one)
        start = linear(x, weights[0], biases[0])
        maps: list[History | Weights] = [History(w, b) for w, b in zip(weights[1:], biases[1:], strict=True)]
        error = None
        for _ in range(self.steps):
            z = start.clone() if error is None else torch.baddbmm(start, self.gram, error)
            inputs, z = self._upward(maps, z)
            u, known = self.update.of(z)
            updates, pulled = [], []
            for act, layer, h in zip(self.activations[::-1], maps[::-1], inputs[::-1], strict=True):
                updates.insert(0, u)
                pulled.insert(0, layer.back(u))
                u = act.pull(pulled[0], h)
            if self.keep:
                self.tape.append(_Step(maps, inputs, updates, pulled, known))
            maps = [layer.plus(h, u) for layer, h, u in zip(maps, inputs, updates, strict=True)]
            error = u if error is None else error + u
        z = linear(self.query, weights[0], biases[0])
        self.maps = maps
        self.inputs, z = self._upward(maps, z if error is None else z.baddbmm_(self.cross, error))
        return z

    def _upward(self, maps: Sequence[History | Weights], z: Tensor) -> tuple[list[Tensor], Tensor]:
        """Every later layer's input, and the outputs, from the first layer's output."""
        inputs = []
        for act, layer in zip(self.activations, maps, strict=True):
            inputs.append(act.of_(z))
            z = layer.times(inputs[-1])
        return inputs, z

    def backward(self, grad: Float[Tensor, "tasks queries k"]) -> list[Tensor | None]:
        """The derivative by each weight and bias, in order, from that by the query's outputs."""
        g, sums = grad, []
        for i in reversed(range(len(self.maps))):
            act, layer, h, biased = self.activations[i], self.maps[i], self.inputs[i], self.biased[i + 1]
            sums.insert(0, Sum(h, g, biased))
            g = act.pull(layer.back(g), h)
        rows = g.flatten(0, 1)
        first = [rows.t() @ self.query.flatten(0, 1), rows.sum(0) if self.biased[0] else None]
        if self.tape:
            rows = self._through_steps(torch.bmm(self.cross.mT, g), sums).flatten(0, 1)
            first[0].addmm_(rows.t(), self.support.flatten(0, 1))
            first[1] = rows.sum(0).add_(first[1]) if self.biased[0] else None
        return first + [part for layer in sums for part in layer.total()]

    def _through_steps(self, error: Tensor, sums: list[Sum]) -> Float[Tensor, "tasks shots hidden"]:
        """The derivative by X W_0, from those by E and by the later layers' last weights.

        `sums` holds the latter and ends as the derivative by their first weights.
        """
        total = torch.zeros_like(error)
        for maps, inputs, updates, pulled, known in reversed(self.tape):
            g, back, before, after = error, [], [], []
            for act, layer, s, h, u in zip(self.activations, maps, sums, inputs, updates, strict=True):
                before.append(g)
                after.append(act.pull(g, h))
                back.append(s.back(u))
                g = layer.times(after[-1], s.times(h))
            g = self.update.pull(known, g)
            for i in reversed(range(len(maps))):
                act, h = self.activations[i], inputs[i]
                h_hat = maps[i].back(g, back[i])
                sums[i].add_(h, g, after[i], updates[i])
                g = act.pull(h_hat, h)
                if act.bend is not None:
                    g.addcmul_(before[i] * pulled[i], act.bend(h))
            total += g
            error.baddbmm_(self.gram, g)
        return total
