"""The dual form: gradient descent on a multilayer perceptron without ever forming the first layer's adapted weights.

Inputs stay the same through an inner loop, so after k steps of size a the first layer is  W_k = W_0 - Xᵀ E_k,  where X
are the support's inputs [shots, d] and  E_k = a Σ δ  sums the errors at its output [shots, hidden]. Hence

    X_q W_k = X_q W_0 - (X_q Xᵀ) E_k

one product with the shared W_0 for all tasks at once, and Gram matrices as small as the support. Deeper layers see other
inputs at each step, so there the history of (input, error) pairs takes the place of Xᵀ E while it is shorter than the
layer is wide, and the weights themselves otherwise. The inner backward pass is written out; the meta-gradient is
autograd through it. This is the kernel view of gradient descent (e.g. Irie et al. 2022, arXiv:2202.05798), made
differentiable again.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from quickstudy.core.episode import Episode
from quickstudy.core.learner import MetaLearner, PlainSGD
from quickstudy.core.net import NetSpec, skeleton


class Layer(NamedTuple):
    weight: str
    bias: str | None
    activation: Callable[[Tensor], Tensor] | None
    slope: Callable[[Tensor], Tensor] | None
    """The activation's derivative, as a function of the layer's output *before* the activation."""


_ACTIVATIONS: dict[type[nn.Module], tuple[Callable, Callable]] = {
    nn.ReLU: (torch.relu, lambda z: (z > 0).to(z.dtype)),
    nn.Tanh: (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    nn.Sigmoid: (torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z))),
}


def layers_of(net: NetSpec | nn.Module) -> list[Layer] | None:
    """The layers of an `nn.Sequential` of linear layers and activations; None for any other network."""
    module = skeleton(net)
    if type(module) is not nn.Sequential:
        return None
    layers: list[Layer] = []
    for name, part in module.named_children():
        if type(part) is nn.Linear and all(p.requires_grad for p in part.parameters()):
            layers.append(Layer(f"{name}.weight", f"{name}.bias" if part.bias is not None else None, None, None))
        elif type(part) in _ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = layers[-1]._replace(activation=_ACTIVATIONS[type(part)][0], slope=_ACTIVATIONS[type(part)][1])
        else:
            return None
    # Two linear layers in a row, or an activation at the end, are legal but not worth a form of their own.
    shaped = layers and layers[-1].activation is None and all(layer.activation for layer in layers[:-1])
    return layers if shaped else None


def applies(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether the learner's inner loop has a dual form on these inputs."""
    sgd = learner.plain_sgd()
    plain = type(learner).loss is MetaLearner.loss and type(learner).outer_loss is MetaLearner.outer_loss
    return plain and sgd is not None and episodes.support.x.ndim == 3 and layers_of(sgd.net) is not None


def task_losses(learner: MetaLearner, params: dict[str, Tensor], episodes: Episode) -> Float[Tensor, "tasks"]:
    """The query loss of each task after its inner loop, equal to the generic form up to rounding.

    Args:
        params: the network's parameters, shared by all tasks.
        episodes: stacked tasks, support [tasks, shots, d] and query [tasks, queries, d].
    """
    sgd = learner.plain_sgd()
    layers = layers_of(sgd.net) if sgd else None
    if sgd is None or layers is None:
        raise ValueError(f"{type(learner).__name__} on this network has no dual form.")
    present = learner.objective.present(episodes.support)
    outputs = _query_outputs(learner, sgd, layers, params, episodes, present)
    return learner.objective.loss(learner.objective.restrict(outputs, present), episodes.query)


def _query_outputs(
    learner: MetaLearner, sgd: PlainSGD, layers: list[Layer], params: dict[str, Tensor], episodes: Episode, present: Tensor
) -> Float[Tensor, "tasks q k"]:
    support, query = episodes
    keep = sgd.second_order and torch.is_grad_enabled()
    start = params if keep else {k: v.detach() for k, v in params.items()}
    first = _FirstLayer(start, layers[0], support.x, sgd.steps)
    rows = sgd.steps * support.x.shape[1]
    deeper = [
        (_LowRank if 2 * rows <= 1.5 * min(params[layer.weight].shape) else _Full)(start, layer) for layer in layers[1:]
    ]
    with torch.set_grad_enabled(keep):
        for _ in range(sgd.steps):
            z, h = [first.at_support()], []
            for layer, state in zip(layers, deeper, strict=False):
                h.append(layer.activation(z[-1]))  # pyright: ignore[reportOptionalCall]
                z.append(state.forward(h[-1]))
            delta = learner.objective.slope(learner.objective.restrict(z[-1], present), support) * sgd.rate
            for i in reversed(range(len(deeper))):
                back = deeper[i].backward(delta) * layers[i].slope(z[i])  # pyright: ignore[reportOptionalCall]
                deeper[i].step(h[i], delta)
                delta = back
            first.step(delta)
    if not keep:
        # First order: the meta-gradient reaches the starting weights as if the steps had been constants.
        for state in (first, *deeper):
            state.rebase(params)
    out = first.forward(query.x)
    for layer, state in zip(layers, deeper, strict=False):
        out = state.forward(layer.activation(out))  # pyright: ignore[reportOptionalCall]
    return out


class _Layer:
    """A linear layer in the middle of an inner loop. `delta` below is the error at its output times the rate."""

    def __init__(self, params: dict[str, Tensor], layer: Layer) -> None:
        self.names = layer
        self.rebase(params)

    def rebase(self, params: dict[str, Tensor]) -> None:
        self.weight = params[self.names.weight]
        self.bias = params[self.names.bias] if self.names.bias else None
        self.one = 0.0 if self.bias is None else 1.0  # the bias is a weight on a constant input of 1


class _FirstLayer(_Layer):
    def __init__(self, params: dict[str, Tensor], layer: Layer, x: Tensor, steps: int) -> None:
        super().__init__(params, layer)
        self.x = x
        self.error: Tensor | None = None
        self.start = linear(x, self.weight, self.bias) if steps else x
        self.gram = torch.bmm(x, x.mT) + self.one if steps > 1 else x

    def at_support(self) -> Tensor:
        return self.start if self.error is None else torch.baddbmm(self.start, self.gram, self.error, alpha=-1.0)

    def step(self, delta: Tensor) -> None:
        self.error = delta if self.error is None else self.error + delta

    def forward(self, x: Tensor) -> Tensor:
        z = linear(x, self.weight, self.bias)
        return z if self.error is None else torch.baddbmm(z, torch.bmm(x, self.x.mT) + self.one, self.error, alpha=-1.0)


class _LowRank(_Layer):
    inputs: Tensor | None = None
    errors: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        z = linear(h, self.weight, self.bias)
        if self.inputs is None or self.errors is None:
            return z
        return torch.baddbmm(z, torch.bmm(h, self.inputs.mT) + self.one, self.errors, alpha=-1.0)

    def backward(self, delta: Tensor) -> Tensor:
        back = linear(delta, self.weight.t())
        if self.inputs is None or self.errors is None:
            return back
        return torch.baddbmm(back, torch.bmm(delta, self.errors.mT), self.inputs, alpha=-1.0)

    def step(self, h: Tensor, delta: Tensor) -> None:
        self.inputs = h if self.inputs is None else torch.cat([self.inputs, h], 1)
        self.errors = delta if self.errors is None else torch.cat([self.errors, delta], 1)


class _Full(_Layer):
    moved: Tensor | None = None
    moved_bias: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        z = linear(h, self.weight, self.bias)
        if self.moved is None:
            return z
        z = torch.baddbmm(z, h, self.moved, alpha=-1.0)
        return z if self.moved_bias is None else z - self.moved_bias

    def backward(self, delta: Tensor) -> Tensor:
        back = linear(delta, self.weight.t())
        return back if self.moved is None else torch.baddbmm(back, delta, self.moved.mT, alpha=-1.0)

    def step(self, h: Tensor, delta: Tensor) -> None:
        self.moved = torch.bmm(h.mT, delta) if self.moved is None else torch.baddbmm(self.moved, h.mT, delta)
        if self.bias is not None:
            change = delta.sum(1, keepdim=True)
            self.moved_bias = change if self.moved_bias is None else self.moved_bias + change
