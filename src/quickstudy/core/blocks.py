"""One block of a convolutional network in an inner loop: its passes up and down, and the adjoints of both.

A block is a layer, a norm with scale γ and shift β, max pooling and a ReLU. Pooling is done first of all, on the
layer's output z, wherever the network has it: maxima commute with whatever keeps order (where γ < 0, minima are taken).
What follows meets a quarter of the numbers. With z centred, s = 1/σ, p = pool(z), U for putting numbers back where the
maxima stood, and Σ over the M numbers that share a mean,

    y = relu(γ s p + β)      dz = U(γ s g) - (s/M) Σ γ g - z (s²/M) Σ γ g s p      g = dy where y > 0

which are a constant, a multiple of z, and few large numbers. The adjoints have the same form.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.core.layers import Convolution, Dense, Norm, Patches, Pool, Rows, aten, put, take
from quickstudy.core.net import one_row


class Own(NamedTuple):
    """A block's parameters, one of each for every task, or derivatives by them. None where it has none."""

    weight: Tensor
    bias: Tensor | None = None
    """[tasks, out]. None before batch norm too, which takes it away again: its derivative is zero."""
    scale: Tensor | None = None
    """γ [tasks, out]."""
    shift: Tensor | None = None
    """β [tasks, out]."""

    def each(self, function: Callable[..., Tensor], *others: "Own") -> "Own":
        """A function of each parameter that there is, and of the same of others."""
        of = zip(self, *others, strict=True)
        return Own(*(None if some[0] is None else function(*some) for some in of))  # pyright: ignore[reportArgumentType]

    @property
    def affine(self) -> tuple[Tensor, Tensor]:
        """γ and β, where there is a norm."""
        assert self.scale is not None and self.shift is not None
        return self.scale, self.shift


class Block(NamedTuple):
    """A layer and what follows it, up to the next layer."""

    layer: Convolution | Dense
    norm: Norm | None = None
    pool: Pool | None = None
    rectified: bool = True
    """Whether a ReLU follows; only the last layer has none."""
    first: bool = False
    """Whether its inputs are the images, by which nobody differentiates."""

    def of(self, own: Own, x: Any) -> "Pass":
        """The block applied to x: to `Patches` if it's the first and has batch norm, to rows otherwise."""
        if self.norm is None:
            return Pass(self, own, x)
        return (First if isinstance(x, Patches) else Normed)(self, own, x, self.norm)


class Pass:
    """A block without norm applied to x, and what it takes to go back, and back through that.

    In this order: `backward` takes the derivative by y to those by x and by the parameters. `pull` is its adjoint: it
    takes the derivatives of the outer loss (hats) by what `backward` gave to that by what `backward` took. `push` is
    the adjoint of the forward pass. Both add to the parameters' hats, which are at first those after the step (equally
    those of the step's updates), and in the end those before it.
    """

    def __init__(self, block: Block, own: Own, x: Any) -> None:
        self.block, self.own, self.x = block, own, x
        before = self._forward()
        self.y: Rows = before.relu_() if block.rectified else before

    def _forward(self) -> Rows:
        z = self.block.layer.apply(self.x, self.own.weight, self.own.bias)
        self.shape = z.shape
        return self._pooled(z)

    def backward(self, dy: Rows) -> tuple[Rows | None, Own]:
        g = self._gated(dy)
        dx, dw = self._down(self._unpooled(g))
        return dx, Own(dw, None if self.own.bias is None else _total(g))

    def pull(self, hats: Own, x_hat: Rows | None) -> Rows:
        return self._gated(take(self._forth(hats, x_hat), self.at, self.y))

    def push(self, hats: Own, y_hat: Rows) -> Rows | None:
        v = self._gated(y_hat)
        if hats.bias is not None:
            hats.bias.add_(_total(v))
        return self._up(hats, self._unpooled(v))

    def _pooled(self, z: Rows) -> Rows:
        p, self.at = (z, None) if self.block.pool is None else self.block.pool.of(z, self.own.scale)
        return p

    def _unpooled(self, a: Rows) -> Rows:
        return a if self.at is None else put(a.new_zeros(self.shape), self.at, a)

    def _gated(self, g: Rows) -> Rows:
        return aten.threshold_backward(g, self.y, 0) if self.block.rectified else g

    def _down(self, dz: Rows) -> tuple[Rows | None, Tensor]:
        """The derivatives by x and by the weight."""
        layer, w, self.dz = self.block.layer, self.own.weight, dz
        return None if self.block.first else layer.back(self.x, w, dz), layer.weigh(self.x, w, dz)

    def _forth(self, hats: Own, x_hat: Rows | None) -> Rows:
        """The hat of dz."""
        layer, self.x_hat = self.block.layer, x_hat
        e = layer.apply(self.x, hats.weight, hats.bias)
        if x_hat is not None:
            e += layer.apply(x_hat, self.own.weight)
            self.bent = layer.back(self.x, hats.weight, self.dz)
        return e

    def _up(self, hats: Own, z_hat: Rows) -> Rows | None:
        """The hat of x, from that of z; the weight's is added."""
        layer, w, x, dz = self.block.layer, self.own.weight, self.x, z_hat
        if self.x_hat is not None:  # one product of twice the images for both terms: less than twice the work
            x, dz = torch.cat([x, self.x_hat]), torch.cat([z_hat, self.dz])
        hats.weight.add_(layer.weigh(x, w, dz))
        return None if self.x_hat is None else layer.back(self.x, w, z_hat) + self.bent


class Normed(Pass):
    """The same with a norm.

    Let e be the hat of dz, e' what of it stands where the maxima stood, and m(·) the mean over M numbers. The hat of g
    is a norm's derivative again, and what else dz depends on (s, z and γ) adds three terms to the hat of z:

        ĝ = γ h + β̂ + s p γ̂                  h = s (e' - m(e) - s p m(e s z))
        U(s (γ̂ - γ s m(e s z)) g)      - e s² m(γ g s p)      - z s² m(γ g h)

    the first two of which are hats of s z, and pass through the norm's derivative themselves. All means are sums over
    channels of a few small tensors: those over whole images are taken of e and e z alone.
    """

    s: Tensor
    """1/σ, [1, 1, 1, tasks, out] for batch norm, [images, 1, 1, tasks, out] for others; so are all sums and means."""
    m: int
    """How many numbers have one mean."""
    z: Rows
    """The layer's outputs, centred."""

    def __init__(self, block: Block, own: Own, x: Any, norm: Norm) -> None:
        self.norm = norm
        super().__init__(block, own, x)

    def _forward(self) -> Rows:
        scale, shift = self.own.affine
        self.p = self._measured()
        if self.m == 1 and self.norm.groups is None:
            raise one_row()
        return torch.addcmul(shift, self.p, scale * self.s)

    def backward(self, dy: Rows) -> tuple[Rows | None, Own]:
        s, scale = self.s, self.own.affine[0]
        g = self.g = self._gated(dy)
        self.sums = self._sums(g)
        means = [self._mean(scale * part) for part in self.sums]
        self.curve = -s * s * means[1]
        dx, dw, db = self._spread(g * (scale * s), -s * means[0], self.curve)
        shift, scale = (_total(part) for part in self.sums)
        return dx, Own(dw, db, scale, shift)

    def pull(self, hats: Own, x_hat: Rows | None) -> Rows:
        s, scale, g = self.s, self.own.affine[0], self.g
        scale_hat, shift_hat = hats.affine
        e, *sums = self._seen(hats, x_hat)
        level, tilt = self._mean(sums[0]), self._mean(sums[1]) * s
        self.turn = scale_hat - scale * s * tilt
        g_hat = torch.addcmul(shift_hat - scale * s * level, e, scale * s).addcmul_(self.p, s * self.turn)
        by_scale = s * (self.norm.part(g * e) - level * self.sums[0] - tilt * self.sums[1])
        self.kept = level, tilt, self._mean(scale * by_scale)
        scale_hat.add_(_total(by_scale))
        return self._gated(g_hat)

    def push(self, hats: Own, y_hat: Rows) -> Rows | None:
        s, scale, (level, tilt, twist) = self.s, self.own.affine[0], self.kept
        v = self._gated(y_hat)
        sums = self._sums(v)
        for hat, part in zip(hats.affine, reversed(sums), strict=True):
            hat.add_(_total(part))
        means = [
            self._mean(scale * new + self.turn * old) + self.curve / s * passed
            for new, old, passed in zip(sums, self.sums, (level, tilt), strict=True)
        ]
        a = (v * (scale * s)).addcmul_(self.g, s * self.turn)
        return self._gathered(hats, a, -s * means[0], -s * s * (means[1] + twist))

    def _sums(self, g: Rows) -> tuple[Tensor, Tensor]:
        """Σ g and Σ g s p by channel: the derivatives by β and γ, while they are apart."""
        return self.norm.part(g), self.norm.part(g * self.p) * self.s

    def _mean(self, parts: Tensor) -> Tensor:
        return self.norm.whole(parts) / self.m

    def _measured(self) -> Rows:
        """p; it finds out s, M and where the maxima stand."""
        z = self.block.layer.apply(self.x, self.own.weight, self.own.bias)
        images, height, width, _, channels = z.shape
        self.m = self.norm.count(height, width, images, channels)
        self.z = z.sub_(self._mean(self.norm.part(z)))
        self.s = torch.rsqrt(self._mean(self.norm.part(z * z)) + self.norm.eps)
        return self._pooled(z)

    def _spread(self, a: Rows, level: Tensor, slope: Tensor) -> tuple[Rows | None, Tensor, Tensor | None]:
        """The derivatives by x, weight and bias from that by z, which is U(a) + level + slope z."""
        dz = put(torch.addcmul(level, self.z, slope), self.at, a)
        return *self._down(dz), None if self.own.bias is None else _total(dz)

    def _seen(self, hats: Own, x_hat: Rows | None) -> tuple[Rows, Tensor, Tensor]:
        """e', and the sums of e and e z by channel."""
        self.e = self._forth(hats, x_hat)
        return take(self.e, self.at, self.p), self.norm.part(self.e), self.norm.part(self.e * self.z)

    def _gathered(self, hats: Own, a: Rows, level: Tensor, slope: Tensor) -> Rows | None:
        """The hat of x from that of z, which is U(a) + level + slope z + curve e; those of parameters are added."""
        z_hat = put(torch.addcmul(level, self.z, slope).addcmul_(self.e, self.curve), self.at, a)
        if hats.bias is not None:
            hats.bias.add_(_total(z_hat))
        return self._up(hats, z_hat)


class First(Normed):
    """The first layer, before batch norm: whatever is linear in z goes through the Gram matrix of `Patches`."""

    x: Patches

    def _measured(self) -> Rows:
        w = self._columns(self.own.weight)
        self.m = self.x.images * self.x.height * self.x.width
        by_z = self.x.times_gram(w)
        variance = ((w * by_z).sum(1) / self.m).clamp_(min=0)
        self.s = torch.rsqrt(variance + self.norm.eps).to(w.dtype)[None, None, None]
        self.by_z = by_z.to(w.dtype)
        p, self.places = self.x.pooled(w, self.block.pool, self.own.affine[0])
        return p

    def _spread(self, a: Rows, level: Tensor, slope: Tensor) -> tuple[None, Tensor, None]:
        dw = self.x.weigh(a, self.places, self.by_z).addcmul_(self.by_z, _row(slope))
        return None, dw.mT.reshape(self.own.weight.shape), None

    def _seen(self, hats: Own, x_hat: Rows | None) -> tuple[Rows, Tensor, Tensor]:
        w = self._columns(hats.weight)
        self.by_e = self.x.times_gram(w).to(w.dtype)
        tilt = (w * self.by_z).sum(1)[None, None, None]
        return self.x.taken(w, self.places, self.p), torch.zeros_like(tilt), tilt

    def _gathered(self, hats: Own, a: Rows, level: Tensor, slope: Tensor) -> None:
        dw = self.x.weigh(a, self.places, self.by_z).addcmul_(self.by_z, _row(slope))
        hats.weight.add_(dw.addcmul_(self.by_e, _row(self.curve)).mT.reshape(hats.weight.shape))

    def _columns(self, w: Tensor) -> Tensor:
        return w.flatten(2).mT


def _row(x: Tensor) -> Tensor:
    return x[0, 0, 0].unsqueeze(1)


def _total(x: Tensor) -> Tensor:
    """The sum over images and positions, [tasks, out]."""
    return x.sum((0, 1, 2))
