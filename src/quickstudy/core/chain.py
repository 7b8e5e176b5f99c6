"""Networks of images as chains of blocks, for `quickstudy.core.convolve`."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.core.blocks import Block, Own
from quickstudy.core.layers import Convolution, Dense, Norm, Pair, Pool
from quickstudy.core.learner import Meta
from quickstudy.core.net import MeanOfPositions, Net, NetSpec, plain_parts, skeleton


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

_LETTERS: dict[type[nn.Module], str] = {
    nn.Conv2d: "C", nn.BatchNorm2d: "N", nn.GroupNorm: "N", nn.InstanceNorm2d: "N", nn.ReLU: "R", nn.MaxPool2d: "P",
    nn.AdaptiveAvgPool2d: "A", nn.Flatten: "F", MeanOfPositions: "M", nn.Linear: "L",
}  # fmt: skip
_CHAIN, _BLOCK = re.compile("(CN?(RP?|PR))+(A?F|M)(LR)*L"), re.compile("C[NRP]*|(?:A?F|M)LR?|LR?")


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
        moves = Dense(mean="A" in parts or "M" in parts)
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
