"""The hybrid form: gradient descent on a convolutional network, with both backward passes written out.

Inner loops take a few tasks at a time, as one network with grouped convolutions whose channels are those of all tasks.
Queries have many more rows and take one task after the other. The meta-gradient is the adjoint of the whole inner loop
(see `quickstudy.core.blocks`), three quarters of which nobody has to compute:

* the second derivative of a convolution is made of convolutions, which torch computes with images for kernels;
* that of a norm followed by pooling comes down to sums over what was pooled;
* images stay the same through an inner loop, so the first layer's outputs needn't be kept, nor its statistics summed.

A task's meta-gradient is computed along with its loss, so no more than one chunk's activations are ever held.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quickstudy.core.blocks import Block, Own, Pass
from quickstudy.core.dual import keep_freed_memory, speaks_for
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.layers import Convolution, Dense, Norm, Pair, Patches, Pool, Rows
from quickstudy.core.learner import Fast, Meta, MetaLearner, PlainSGD
from quickstudy.core.net import Net, NetSpec, over_tasks, plain_parts, skeleton

TASKS = 4
"""Tasks in a chunk: where more of them are no faster."""
FEW = 64
"""Numbers in a patch, up to which the first layer lays out its patches."""


class Link(NamedTuple):
    """A block, and where the network has its parameters."""

    block: Block
    names: tuple[str, str | None, str | None, str | None]
    """As in `Own`; None for what it hasn't, or what makes no difference."""
    shape: torch.Size
    """Of the weight: [out, in, …]."""
    channels: int
    """Of the inputs."""

    def own(self, params: Meta, tasks: int) -> Own:
        """Its parameters for each of so many tasks, from those of the network."""
        out, *size = self.shape
        weight, *rest = (None if name is None else params[name].detach() for name in self.names)
        assert weight is not None
        weight = weight.reshape(out, self.channels, *(size[1:] or (-1,))).movedim(1, -1)
        return Own(weight, *rest).each(lambda t: t.expand(tasks, *t.shape).contiguous())

    def named(self, own: Own) -> dict[str, Tensor]:
        """The way back, [tasks, …] each."""
        tensors = (own.weight.movedim(-1, 2).reshape(-1, *self.shape), *own[1:])
        return {n: t for n, t in zip(self.names, tensors, strict=True) if n is not None and t is not None}


Chain = tuple[Link, ...]
"""A network."""
Owns = list[Own]
"""The parameters of all its blocks."""

_LETTERS: dict[type[nn.Module], str] = {
    nn.Conv2d: "C", nn.BatchNorm2d: "N", nn.GroupNorm: "N", nn.InstanceNorm2d: "N", nn.ReLU: "R", nn.MaxPool2d: "P",
    nn.AdaptiveAvgPool2d: "A", nn.Flatten: "F", nn.Linear: "L",
}  # fmt: skip
_CHAIN, _BLOCK = re.compile("(CN?(RP?|PR))+A?F(LR)*L"), re.compile("C[NRP]*|A?FLR?|LR?")


def chain_of(net: Net) -> Chain | None:
    """The chain of blocks that a network is; None if it isn't one.

    An `nn.Sequential`, nested or not: convolutions, each followed by a batch, group or instance norm or none and by a
    ReLU, with max pooling on either side of it or none; then `nn.Flatten`, after `nn.AdaptiveAvgPool2d(1)` or not, and
    linear layers with ReLUs between them.
    """
    # A spec's layers never change; a module may get a hook at any time.
    return _chain_of_module(skeleton(net)) if isinstance(net, nn.Module) else _chain_of_spec(net)


@lru_cache(maxsize=64)
def _chain_of_spec(net: NetSpec) -> Chain | None:
    return _chain_of_module(skeleton(net))


def _chain_of_module(module: nn.Module) -> Chain | None:
    parts = plain_parts(module)
    word = "".join(_LETTERS.get(type(part), "?") for _, part in parts or ())
    if not parts or not _CHAIN.fullmatch(word) or not all(_is_usual(part) for _, part in parts):
        return None
    links: list[Link] = []
    for found in _BLOCK.finditer(word):
        by_letter = dict(zip(found.group(), parts[slice(*found.span())], strict=True))
        link = _link(by_letter, links[-1].shape[0] if links else None)
        if link is None:
            return None
        links.append(link)
    return tuple(links)


def _link(parts: dict[str, tuple[str, Any]], channels: int | None) -> Link | None:
    """One block from its layers by letter; `channels` come in from the one before it."""
    name, layer = parts.get("C") or parts["L"]
    norm_name, norm = parts.get("N", ("", None))
    norm = None if norm is None else _norm(norm)
    pool = _pool(parts["P"][1]) if "P" in parts else None
    if "C" in parts:
        moves = _convolution(layer)
        into = layer.in_channels
    else:
        moves = Dense(mean="A" in parts)
        into = channels or layer.in_features
        if layer.in_features % into or (moves.mean and layer.in_features != into):
            return None
    block = Block(moves, norm, pool, "R" in parts, channels is None)
    biased = layer.bias is not None and not (norm and norm.groups is None)
    scale, shift = (f"{norm_name}.{kind}" if norm else None for kind in ("weight", "bias"))
    names = (f"{name}.weight", f"{name}.bias" if biased else None, scale, shift)
    return Link(block, names, layer.weight.shape, into)


def _is_usual(part: Any) -> bool:
    """Whether a layer's options are those that a block knows."""
    if not all(p.requires_grad for p in part.parameters()):
        return False
    match part:
        case nn.Conv2d():
            return part.groups == 1 and part.padding_mode == "zeros" and part.padding != "same"
        case nn.BatchNorm2d() | nn.GroupNorm() | nn.InstanceNorm2d():
            return part.affine
        case nn.MaxPool2d():
            return not part.return_indices
        case nn.AdaptiveAvgPool2d():
            return part.output_size in (1, (1, 1))
        case nn.Flatten():
            return (part.start_dim, part.end_dim) == (1, -1)
    return True


def _convolution(layer: nn.Conv2d) -> Convolution:
    padding = (0, 0) if isinstance(layer.padding, str) else layer.padding  # the word is "valid"
    return Convolution(*(_pair(x) for x in (layer.stride, padding, layer.dilation)))


def _norm(layer: Any) -> Norm:
    if isinstance(layer, nn.BatchNorm2d):
        return Norm(None, layer.eps)
    return Norm(layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.num_features, layer.eps)


def _pool(layer: nn.MaxPool2d) -> Pool:
    kernel, *rest = (_pair(x) for x in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return Pool(kernel, *rest, layer.ceil_mode)  # pyright: ignore[reportCallIssue]


def _pair(x: Any) -> Pair:
    return (x, x) if isinstance(x, int) else tuple(x)


def applies(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether the learner's answers have a hybrid form on these inputs, which must not be differentiated themselves."""
    fixed = all(
        part.x.ndim == 5 and part.x.is_floating_point() and not part.x.requires_grad for part in episodes
    )
    sgd = learner.plain_sgd() if fixed and speaks_for(type(learner)) else None
    chain = chain_of(sgd.net) if sgd else None
    if chain is None or any(part.x.shape[2] != chain[0].channels for part in episodes):
        return False
    across_rows = any(link.block.norm and link.block.norm.groups is None for link in chain)
    return not across_rows or all(bool(part.mask.all()) for part in episodes)


def applies_to_loss(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether what meta-training lowers has one too: the loss of those answers, or any loss of first-order steps."""
    if type(learner).loss is not MetaLearner.loss or not applies(learner, episodes):
        return False
    return _asks_for_answers(learner) or not _sgd(learner).second_order


def _asks_for_answers(learner: MetaLearner) -> bool:
    return type(learner).outer_loss is MetaLearner.outer_loss


def pays(episodes: Episode) -> bool:
    """Whether it's the fastest form, too: on a CPU."""
    return episodes.support.x.device.type == "cpu"


def task_losses(learner: MetaLearner, meta: Meta, episodes: Episode) -> Float[Tensor, "tasks"]:
    """What meta-training lowers, task by task, as in the other forms; differentiable once in `meta`."""
    if not _asks_for_answers(learner):
        fast = adapt(learner, meta, episodes.support)
        return over_tasks(learner.outer_loss, (None, 0, 0))(meta, fast, episodes)
    descent = _Descent(learner)
    params = [meta[name] for name in descent.names]
    wanted = torch.is_grad_enabled() and any(p.requires_grad for p in params)
    return _Differentiable.apply(descent, episodes, wanted, *params)  # pyright: ignore[reportReturnType]


def adapt(learner: MetaLearner, meta: Meta, support: Labelled) -> Fast:
    """What the learner learns of stacked tasks. The meta-gradient reaches `meta` as if steps were constants."""
    descent = _Descent(learner)
    with torch.no_grad():
        parts = [descent.learn(meta, part)[0] for part in _chunks(support)]
        ends = [descent.named(owns) for owns in parts]
    tasks = len(support.mask)
    fast = {name: start.expand(tasks, *start.shape) for name, start in meta.items()}
    for name in descent.names:
        end = torch.cat([part[name] for part in ends])
        moves = torch.is_grad_enabled() and meta[name].requires_grad
        fast[name] = fast[name] + (end - fast[name].detach()) if moves else end
    return learner.adapted(fast, support)  # pyright: ignore[reportAttributeAccessIssue]


def outputs(learner: MetaLearner, meta: Meta, episodes: Episode) -> Float[Tensor, "tasks queries k"]:
    """The query's outputs after each task's inner loop; nothing is differentiated through."""
    descent, found = _Descent(learner), []
    with torch.no_grad():
        for support, query in zip(*map(_chunks, episodes), strict=True):
            owns, _ = descent.learn(meta, support)
            told = [descent.answer(own, x) for own, x in _one_by_one(owns, query)]
            found.append(learner.objective.restrict(torch.cat(told), learner.objective.present(support)))
    return torch.cat(found)


class _Differentiable(torch.autograd.Function):
    """Hands the meta-gradients to autograd."""

    @staticmethod
    def forward(ctx: Any, descent: "_Descent", episodes: Episode, wanted: bool, *params: Tensor) -> Tensor:
        meta = dict(zip(descent.names, params, strict=True))
        chunks = zip(*map(_chunks, episodes), strict=True)
        losses, gradients = zip(
            *(descent.differentiated(meta, Episode(*part), wanted) for part in chunks), strict=True
        )
        ctx.gradients = [torch.cat([part[name] for part in gradients]) for name in meta] if wanted else []
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return None, None, None, *(torch.tensordot(grads[0], each, 1) for each in ctx.gradients)


class _Step(NamedTuple):
    """What the adjoint needs of one inner step."""

    passes: list[Pass]
    known: Tensor
    """What the objective's slope has to know."""


class _Descent:
    """Gradient descent on a few tasks at once; queries one task at a time; and the adjoint of both."""

    def __init__(self, learner: MetaLearner) -> None:
        self.objective, self.sgd = learner.objective, _sgd(learner)
        chain = chain_of(self.sgd.net)
        if chain is None:
            raise ValueError(f"{type(learner).__name__} on this network has no hybrid form.")
        self.chain = chain
        self.names = [name for link in chain for name in link.names if name]
        keep_freed_memory()

    def named(self, owns: Owns) -> dict[str, Tensor]:
        """By the network's names, [tasks, …] each."""
        return {n: t for link, own in zip(self.chain, owns, strict=True) for n, t in link.named(own).items()}

    def learn(self, meta: Meta, support: Labelled, keep: bool = False) -> tuple[Owns, list[_Step]]:
        """Parameters after the inner loop; and, to `keep`, its steps."""
        owns = [link.own(meta, len(support.mask)) for link in self.chain]
        x, present = self._laid_out(support.x), self.objective.present(support)
        slope = self.objective.slope(support, -self.sgd.rate)
        tape = []
        for _ in range(self.sgd.steps):
            passes, told = self._upward(owns, x)
            update, known = slope.of(self.objective.restrict(told, present))
            updates = self._downward(passes, update)
            if keep:
                tape.append(_Step(passes, known))
            del passes
            owns = [own.each(torch.add, update) for own, update in zip(owns, updates, strict=True)]
        return owns, tape

    def answer(self, owns: Owns, x: Tensor) -> Float[Tensor, "tasks n k"]:
        """Outputs for images [tasks, n, channels, height, width]."""
        return self._upward(owns, self._laid_out(x))[1]

    def differentiated(self, meta: Meta, episodes: Episode, wanted: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Each task's loss and, if it's wanted, its meta-gradient."""
        support, query = episodes
        owns, tape = self.learn(meta, support, keep=wanted and self.sgd.second_order)
        present, losses, hats = self.objective.present(support), [], []
        for task, (own, x) in enumerate(_one_by_one(owns, query)):
            passes, told = self._upward(own, self._laid_out(x))
            asked = Labelled(*(t[task : task + 1] for t in query))
            told = self.objective.restrict(told, present[task : task + 1])
            losses.append(self.objective.loss(told, asked))
            if wanted:
                hats.append(self._downward(passes, self.objective.slope(asked).of(told)[0]))
            del passes
        if not wanted:
            return torch.cat(losses), {}
        ends = [own.each(lambda *t: torch.cat(t), *more) for own, *more in zip(*hats, strict=True)]
        del hats
        slope = self.objective.slope(support, -self.sgd.rate)
        while tape:
            passes, known = tape.pop()
            hat: Any = None
            for block, own in zip(passes, ends, strict=True):
                hat = block.pull(own, hat)
            hat = _as_rows(slope.pull(known, _as_outputs(hat)))
            for block, own in zip(reversed(passes), reversed(ends), strict=True):
                hat = block.push(own, hat)
        return torch.cat(losses), self.named(ends)

    def _upward(self, owns: Owns, x: Any) -> tuple[list[Pass], Float[Tensor, "tasks n k"]]:
        passes = []
        for link, own in zip(self.chain, owns, strict=True):
            passes.append(link.block.of(own, x))
            x = passes[-1].y
        return passes, _as_outputs(x)

    def _downward(self, passes: list[Pass], update: Float[Tensor, "tasks n k"]) -> Owns:
        """The derivatives by all parameters."""
        owns: Owns = []
        dy: Any = _as_rows(update)
        for block in reversed(passes):
            dy, own = block.backward(dy)
            owns.append(own)
        return owns[::-1]

    def _laid_out(self, x: Float[Tensor, "tasks n c h w"]) -> Any:
        """Images as the first block wants them."""
        block, _, shape, _ = self.chain[0]
        patch = shape[1:].numel()
        if isinstance(block.layer, Convolution) and block.norm and block.norm.groups is None and patch <= FEW:
            return Patches(x, block.layer, (shape[2], shape[3]))
        return x.permute(1, 3, 4, 0, 2).contiguous()


def _sgd(learner: MetaLearner) -> PlainSGD:
    sgd = learner.plain_sgd()
    if sgd is None:
        raise ValueError(f"{type(learner).__name__} isn't plain gradient descent, so it has no hybrid form.")
    return sgd


def _chunks(part: Labelled) -> list[Labelled]:
    tasks = range(0, len(part.mask), TASKS)
    return [Labelled(*(t[start : start + TASKS] for t in part)) for start in tasks]


def _one_by_one(owns: Owns, part: Labelled) -> Iterator[tuple[Owns, Tensor]]:
    """Each task's own parameters and its inputs."""
    for task in range(len(part.mask)):
        here = slice(task, task + 1)
        yield [Own(*(None if t is None else t[here] for t in own)) for own in owns], part.x[here]  # pyright: ignore[reportArgumentType]


def _as_outputs(x: Rows) -> Float[Tensor, "tasks n k"]:
    return x[:, 0, 0].transpose(0, 1)


def _as_rows(x: Float[Tensor, "tasks n k"]) -> Rows:
    return x.transpose(0, 1)[:, None, None]
