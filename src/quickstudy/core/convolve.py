"""The hybrid form: gradient descent on a convolutional network, with both backward passes written out.

Inner loops take a few tasks at a time, as one network with grouped convolutions whose channels are those of all tasks.
Queries have many more rows and take one task after the other. The meta-gradient is the adjoint of the whole inner loop
(see `quickstudy.core.blocks`), three quarters of which nobody has to compute:

* the second derivative of a convolution is made of convolutions, which torch computes with images for kernels;
* that of a norm followed by pooling comes down to sums over what was pooled;
* images stay the same through an inner loop, so the first layer's outputs needn't be kept, nor its statistics summed.

A task's meta-gradient is computed along with its loss, so no more than one chunk's activations are ever held.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, max_pool2d

from quickstudy.core.blocks import Own, Pass
from quickstudy.core.chain import Chain, chain_of
from quickstudy.core.dual import keep_freed_memory, knows_slope, speaks_for
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.layers import Convolution, Patches, Rows
from quickstudy.core.learner import Fast, Meta, MetaLearner, PlainSGD
from quickstudy.core.net import over_tasks

TASKS = 8
"""Tasks at once, at most: more are no faster."""
HELD = 5 * 2**20
"""What inner loops keep for the adjoint is bounded: outputs of the first layer, over all steps and tasks at once. Of
what is behind them about two and a half times as much is kept, 50 MB in single precision."""
QUERIED = 2**20
"""Outputs of the first layer for the queries of several tasks at once."""
FEW = 64
"""Numbers in a patch, up to which a first layer lays out its patches."""

Owns = list[Own]
"""The parameters of all blocks."""


def applies(learner: MetaLearner, episodes: Episode) -> bool:
    """Whether the learner's answers have a hybrid form on these inputs, which must not be differentiated themselves."""
    fixed = all(
        part.x.ndim == 5 and part.x.is_floating_point() and not part.x.requires_grad for part in episodes
    )
    spoken = fixed and speaks_for(type(learner)) and knows_slope(type(learner.objective))
    sgd = learner.plain_sgd() if spoken else None
    chain = chain_of(sgd.net) if sgd else None
    if chain is None or any(part.x.shape[2] != chain[0].channels for part in episodes):
        return False
    # Where numbers don't fit, the other forms say what is wrong.
    if chain[-1].shape[0] != learner.objective.outputs or not all(
        _passes(chain, *part.x.shape[3:]) for part in episodes
    ):
        return False
    across_rows = any(link.block.norm and link.block.norm.groups is None for link in chain)
    return not across_rows or all(bool(part.mask.all()) for part in episodes)


@lru_cache(maxsize=256)
def _passes(chain: Chain, height: int, width: int) -> bool:
    """Whether the first linear layer takes what the layers before it make of images of this size."""
    x = torch.empty(1, 1, height, width, device="meta")
    for link in chain:
        layer, pool = link.block.layer, link.block.pool
        if not isinstance(layer, Convolution):
            return layer.mean or link.shape[1] == link.channels * x.numel()
        try:
            x = conv2d(x, x.new_empty(1, 1, *link.shape[2:]), None, *layer)
            x = x if pool is None else max_pool2d(x, *pool)
        except RuntimeError:  # nothing of it is left
            return False
    return True


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
        chunks = descent.chunks(support, keep=False)
        ends = [descent.named(descent.learn(meta, support.taken(rows))[0]) for rows in chunks]
    tasks = len(support.mask)
    fast = {name: start.expand(tasks, *start.shape).clone() for name, start in meta.items()}
    for name in descent.names:
        end = torch.cat([part[name] for part in ends])
        moves = torch.is_grad_enabled() and meta[name].requires_grad
        fast[name] = fast[name] + (end - fast[name].detach()) if moves else end
    return learner.adapted(fast, support)  # pyright: ignore[reportAttributeAccessIssue]


def outputs(learner: MetaLearner, meta: Meta, episodes: Episode) -> Float[Tensor, "tasks queries k"]:
    """The query's outputs after each task's inner loop; nothing is differentiated through."""
    descent, found = _Descent(learner), []
    with torch.no_grad():
        for rows in descent.chunks(episodes.support, keep=False):
            support, query = episodes.taken(rows)
            owns, _ = descent.learn(meta, support)
            told = descent.answers(owns, query.x)
            found.append(learner.objective.restrict(told, learner.objective.present(support)))
    return torch.cat(found)


class _Differentiable(torch.autograd.Function):
    """Hands the meta-gradients to autograd."""

    @staticmethod
    def forward(ctx: Any, descent: "_Descent", episodes: Episode, wanted: bool, *params: Tensor) -> Tensor:
        meta = dict(zip(descent.names, params, strict=True))
        losses, gradients = [], []
        for rows in descent.chunks(episodes.support, keep=wanted):
            part = episodes.taken(rows)
            loss, gradient = descent.differentiated(meta, part, wanted)
            losses.append(loss)
            gradients.append(gradient)
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

    def chunks(self, support: Labelled, keep: bool) -> Iterator[slice]:
        """Tasks to learn at once: as many as are fast, unless what is kept of them for the adjoint is too much."""
        return self._parts(support.x, HELD // max(1, self.sgd.steps if self._tapes(keep) else 1))

    def _tapes(self, keep: bool) -> bool:
        return keep and self.sgd.second_order

    def _parts(self, x: Float[Tensor, "tasks n c h w"], most: int) -> Iterator[slice]:
        """Slices of tasks, one at least, with so many outputs of the first layer at most."""
        tasks, rows, _, height, width = x.shape
        first = self.chain[0]
        each = rows * height * width * first.shape[0]
        if isinstance(first.block.layer, Convolution):
            each //= first.block.layer.stride[0] * first.block.layer.stride[1]
        size = min(TASKS, max(1, most // max(1, each)))
        return (slice(start, start + size) for start in range(0, tasks, size))

    def learn(self, meta: Meta, support: Labelled, keep: bool = False) -> tuple[Owns, list[_Step]]:
        """Parameters after the inner loop; and what the adjoint needs of its steps, to `keep`."""
        owns = [link.own(meta, len(support.mask)) for link in self.chain]
        x, present = self._laid_out(support.x), self.objective.present(support)
        slope = self.objective.slope(support, -self.sgd.rate)
        tape: list[_Step] = []
        for _ in range(self.sgd.steps):
            passes, told = self._upward(owns, x)
            update, known = slope.of(self.objective.restrict(told, present))
            updates = self._downward(passes, update)
            if self._tapes(keep):
                tape.append(_Step(passes, known))
            del passes  # before the next ones are made
            owns = [own.each(torch.add, update) for own, update in zip(owns, updates, strict=True)]
        return owns, tape

    def answers(self, owns: Owns, x: Float[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n k"]:
        parts = self._parts(x, QUERIED)
        return torch.cat([self._upward(_of(owns, rows), self._laid_out(x[rows]))[1] for rows in parts])

    def differentiated(self, meta: Meta, episodes: Episode, wanted: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Each task's loss and, if it's wanted, its meta-gradient."""
        support, query = episodes
        owns, tape = self.learn(meta, support, keep=wanted)
        present = self.objective.present(support)
        losses: list[Tensor] = []
        hats: list[Owns] = []
        for rows in self._parts(query.x, QUERIED):
            asked = query.taken(rows)
            passes, told = self._upward(_of(owns, rows), self._laid_out(asked.x))
            told = self.objective.restrict(told, present[rows])
            losses.append(self.objective.loss(told, asked))
            if wanted:
                update = self.objective.slope(asked).of(told)[0]
                # What `restrict` silenced is constant, even where a query has a class that its support lacks.
                hats.append(self._downward(passes, torch.where(present[rows].unsqueeze(-2), update, 0.0)))
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

    def named(self, owns: Owns) -> dict[str, Tensor]:
        """By the network's names, [tasks, …] each."""
        return {n: t for link, own in zip(self.chain, owns, strict=True) for n, t in link.named(own).items()}

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


def _of(owns: Owns, tasks: slice) -> Owns:
    return [own.each(lambda t: t[tasks]) for own in owns]


def _as_outputs(x: Rows) -> Float[Tensor, "tasks n k"]:
    return x[:, 0, 0].transpose(0, 1)


def _as_rows(x: Float[Tensor, "tasks n k"]) -> Rows:
    return x.transpose(0, 1)[:, None, None]
