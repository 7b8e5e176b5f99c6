"""The parts of a convolutional block for many tasks at once, each with its transposes; see `quickstudy.core.blocks`.

Activations are laid out [images, height, width, tasks, channels], contiguous: a network whose channels are those of all
tasks, "channels last", in which torch's convolutions and poolings are the fastest. Weights are [tasks, out, …, in].
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

aten: Any = torch.ops.aten
CACHED = 2**18
"""Numbers worked on at once where the whole isn't needed together: 1 MB in single precision stays in a core's cache."""

Pair = tuple[int, int]
Rows = Float[Tensor, "_images _height _width _tasks _channels"]


class Convolution(NamedTuple):
    """Weights [tasks, out, height, width, in]. Each transpose takes x or w for its shape alone."""

    stride: Pair
    padding: Pair
    dilation: Pair

    def apply(self, x: Rows, w: Tensor, bias: Float[Tensor, "tasks out"] | None = None) -> Rows:
        flat = None if bias is None else bias.flatten()
        z = aten.convolution(_images(x), _kernels(w), flat, *self, False, (0, 0), len(w))
        return _rows(z, len(w))

    def back(self, x: Rows, w: Tensor, dz: Rows) -> Rows:
        """The derivative by x."""
        return _rows(self._transposes(x, w, dz, (True, False, False))[0], len(w))

    def weigh(self, x: Rows, w: Tensor, dz: Rows) -> Tensor:
        """The derivative by w."""
        return self._transposes(x, w, dz, (False, True, False))[1].permute(0, 2, 3, 1).reshape(w.shape)

    def _transposes(self, x: Rows, w: Tensor, dz: Rows, wanted: tuple[bool, bool, bool]) -> Any:
        shared = (*self, False, (0, 0), len(w), wanted)
        return aten.convolution_backward(_images(dz), _images(x), _kernels(w), None, *shared)


def _images(x: Rows) -> Float[Tensor, "images channels height width"]:
    return x.flatten(3).permute(0, 3, 1, 2)


def _kernels(w: Tensor) -> Tensor:
    return w.flatten(0, 1).permute(0, 3, 1, 2)


def _rows(images: Tensor, tasks: int) -> Rows:
    return images.permute(0, 2, 3, 1).contiguous().unflatten(3, (tasks, -1))


class Dense(NamedTuple):
    """A linear layer on all positions, weights [tasks, out, height · width, in]; or on the mean over positions."""

    mean: bool = False

    def apply(self, x: Rows, w: Tensor, bias: Float[Tensor, "tasks out"] | None = None) -> Rows:
        h, w = self._inputs(x), w.flatten(2).mT
        z = torch.bmm(h, w) if bias is None else torch.baddbmm(bias.unsqueeze(1), h, w)
        return z.transpose(0, 1)[:, None, None]

    def back(self, x: Rows, w: Tensor, dz: Rows) -> Rows:
        """The derivative by x."""
        images, height, width, tasks, channels = x.shape
        dh = torch.bmm(dz[:, 0, 0].transpose(0, 1), w.flatten(2)).transpose(0, 1)
        if self.mean:
            return (dh / (height * width))[:, None, None].expand(x.shape)
        return dh.reshape(images, tasks, height, width, channels).permute(0, 2, 3, 1, 4)

    def weigh(self, x: Rows, w: Tensor, dz: Rows) -> Tensor:
        """The derivative by w."""
        return torch.bmm(dz[:, 0, 0].permute(1, 2, 0), self._inputs(x)).view_as(w)

    def _inputs(self, x: Rows) -> Float[Tensor, "tasks images features"]:
        x = x.mean((1, 2), keepdim=True) if self.mean else x
        return x.permute(3, 0, 1, 2, 4).flatten(2)


class Norm(NamedTuple):
    """Batch norm, or group norm."""

    groups: int | None
    """Of channels; each has statistics of its own in every image. None for batch norm."""
    eps: float

    def count(self, height: int, width: int, images: int, channels: int) -> int:
        """How many numbers a mean is taken over."""
        return height * width * (images if self.groups is None else channels // self.groups)

    def part(self, x: Rows) -> Rows:
        """Sums over what one channel has of a mean."""
        return x.sum((0, 1, 2) if self.groups is None else (1, 2), keepdim=True)

    def whole(self, parts: Rows) -> Rows:
        """Sums over all of a mean, from `part`s; the same for each of its channels."""
        if self.groups is None:
            return parts
        each = parts.shape[-1] // self.groups
        return parts.unflatten(-1, (self.groups, each)).sum(-1).repeat_interleave(each, -1)


class Pool(NamedTuple):
    """Max pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool

    def of(self, z: Rows, scale: Float[Tensor, "tasks channels"] | None = None) -> tuple[Rows, Tensor]:
        """The number of each window that is the largest once multiplied by `scale`, and its place in z's memory."""
        # Of equal numbers the first one counts, as in torch. A scale of zero makes all of them equal.
        ordered = z if scale is None or bool((scale > 0).all()) else z * scale.sign()
        top, place = aten.max_pool2d_with_indices(_images(ordered), *self)
        _, height, width, tasks, channels = z.shape
        step = tasks * channels  # from one position to the next, in memory
        image = torch.arange(0, z.numel(), height * width * step, device=z.device)
        channel = torch.arange(step, device=z.device)
        first = image.reshape(-1, 1, 1, 1) + channel
        at = torch.add(first, place.permute(0, 2, 3, 1), alpha=step).flatten()
        top = _rows(top, tasks)
        return (top if ordered is z else take(z, at, top)), at


def take(z: Tensor, at: Int[Tensor, "places"] | None, like: Tensor) -> Tensor:
    """What stands at places `at` of z's memory."""
    return z if at is None else z.view(-1).index_select(0, at).view_as(like)


def put(z: Tensor, at: Int[Tensor, "places"] | None, a: Tensor) -> Tensor:
    """Adds `a` to z at places `at`, in place; windows that overlap add to one place twice."""
    if at is None:
        return z.add_(a)
    z.view(-1).scatter_add_(0, at, a.flatten())
    return z


class Patches:
    """Images as the rows that a convolution multiplies with its weights, centred, and their Gram matrix.

    For a first layer before batch norm: images stay the same through an inner loop, and norm takes means away. With
    rows X of one task, its weights W and z = X W, all that norm needs of z are small products:

        Σ z² = diag(Wᵀ G W)      Xᵀ z = G W      G = Xᵀ X

    so z itself is computed a few images at a time, pooled while it's in the cache, and never kept.
    """

    def __init__(self, images: Float[Tensor, "tasks n c h w"], layer: Convolution, kernel: Pair) -> None:
        tasks, self.images, channels, *_ = images.shape
        (up, left), (height, width) = layer.padding, kernel
        x = pad(images, (left, left, up, up))
        spans = [d * (k - 1) for d, k in zip(layer.dilation, kernel, strict=True)]
        sizes = zip(x.shape[3:], spans, layer.stride, strict=True)
        self.height, self.width = ((size - span - 1) // stride + 1 for size, span, stride in sizes)
        t, n, c, h, w = x.stride()
        windows = x.as_strided(
            (tasks, height, width, channels, self.images, self.height, self.width),
            (t, layer.dilation[0] * h, layer.dilation[1] * w, c, n, layer.stride[0] * h, layer.stride[1] * w),
        )
        x = windows.reshape(tasks, height * width * channels, -1)
        self.x: Float[Tensor, "tasks features places"] = x.sub_(x.mean(-1, keepdim=True))
        # In double precision, as small differences of large sums are to come: images are smooth, weights are not.
        self.gram = torch.stack([one @ one.mT for one in (task.double() for task in x)])

    def times_gram(self, w: Float[Tensor, "tasks features out"]) -> Float[Tensor, "tasks features out"]:
        """G W, in double precision."""
        return torch.bmm(self.gram, w.double())

    def pooled(
        self, w: Float[Tensor, "tasks features out"], pool: Pool | None, scale: Float[Tensor, "tasks out"]
    ) -> tuple[Rows, list[Tensor | None]]:
        """The pooled X W, and for each chunk of it the places of the maxima."""
        p, places = w.new_empty(0), []
        for task, chunk, x in self._chunks(w):
            z = self._rows(x.mT @ w[task])
            top, at = (z, None) if pool is None else pool.of(z, scale[task : task + 1])
            if not places:
                p = w.new_empty(self.images, *top.shape[1:3], *scale.shape)
            p[chunk, :, :, task] = top[:, :, :, 0]
            places.append(at)
        return p, places

    def taken(self, w: Float[Tensor, "tasks features out"], places: list[Tensor | None], like: Rows) -> Rows:
        """X W where the maxima were."""
        p = torch.empty_like(like)
        for (task, chunk, x), at in zip(self._chunks(w), places, strict=True):
            p[chunk, :, :, task] = take(self._rows(x.mT @ w[task]), at, like[chunk, :, :, task : task + 1])[
                :, :, :, 0
            ]
        return p

    def weigh(self, a: Rows, places: list[Tensor | None], w: Tensor) -> Float[Tensor, "tasks features out"]:
        """Xᵀ U(a), where U puts the pooled `a` back where the maxima were; w lends its shape."""
        total = torch.zeros_like(w)
        for (task, chunk, x), at in zip(self._chunks(w), places, strict=True):
            own = a[chunk, :, :, task]
            u = (
                own.reshape(-1, w.shape[-1])
                if at is None
                else put(w.new_zeros(x.shape[-1], w.shape[-1]), at, own)
            )
            total[task].addmm_(x, u)
        return total

    def _chunks(self, w: Tensor) -> Iterator[tuple[int, slice, Float[Tensor, "features places"]]]:
        """(task, images, their part of X), such that X W fits into the cache."""
        places = self.height * self.width
        size = max(1, CACHED // (places * w.shape[-1]))
        for task in range(len(w)):
            for start in range(0, self.images, size):
                end = min(start + size, self.images)
                yield task, slice(start, end), self.x[task, :, start * places : end * places]

    def _rows(self, z: Float[Tensor, "places out"]) -> Rows:
        return z.view(-1, self.height, self.width, 1, z.shape[-1])
