"""More images than there are: classes mirrored, drawings distorted anew each time that a task draws them."""

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quickstudy.core.dataset import MetaDataset
from quickstudy.core.engine import Sample
from quickstudy.core.episode import Episode
from quickstudy.core.errors import DataError


def mirrored(data: MetaDataset) -> MetaDataset:
    """Every class twice, as it is and left for right: "…/mirrored" is a class of its own.

    Raises:
        DataError: what is no data set of images [n, channels, height, width].
    """
    need_images(data, "mirrored")
    seen = replace(data, x=data.x.flip(-1), classes=tuple(f"{name}/mirrored" for name in data.classes))
    return replace(data.join(seen), names=None, kin=data.kin * 2)


def distorted(
    sample: Sample,
    *,
    turn: float = 10.0,
    shear: float = 0.3,
    scale: float = 0.2,
    shift: float = 2 / 28,
    chance: float = 0.5,
    seed: int = 0,
) -> Sample:
    """The tasks of `sample` with every image, support and query, turned, sheared, scaled and shifted by chance.

    Koch, Zemel & Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition", section 3.3, whose
    ranges are the defaults; their shift is of two pixels in 105. Bounds are those of the part that is looked at: one
    that is a fifth smaller shows all of it a quarter larger. What comes in from outside of an image is 0. Batch number
    `step` is a pure function of (seed, step), as the sampler's is; distort what is distorted already by another seed.

    Args:
        sample: draws tasks of images [tasks, n, channels, height, width].
        turn: at most so many degrees either way; 0 leaves turning out, as for the others.
        shear: at most this slope, along each axis.
        scale: each axis by at most this part, larger or smaller.
        shift: along each axis by at most this part of its length.
        chance: of each of these that an image has it.

    Raises:
        DataError: a data set in place of its sampler, a bound that is none; and when tasks are drawn, inputs that
            aren't images.
    """
    if not callable(sample):
        raise DataError(
            f"`distorted` got a {type(sample).__name__}; expected what draws tasks, a function from a step's number to "
            "an Episode: distorted(data.sampler(shots))."
        )
    for name, value, limit in (("turn", turn, 180), ("shift", shift, 1), ("chance", chance, 1)):
        if not 0 <= value <= limit:
            raise DataError(f"{name}={value}; expected 0 to {limit}.")
    # By a whole one an image may fall together to a line.
    for name, value in (("shear", shear), ("scale", scale)):
        if not 0 <= value < 1:
            raise DataError(f"{name}={value}; expected 0 or more, and below 1.")

    def drawn(step: int) -> Episode:
        episode, draw = sample(step), np.random.default_rng([seed, step, 0xD15])

        def by(bound: float, n: int) -> Float[Tensor, "n"]:
            return torch.from_numpy(draw.uniform(-bound, bound, n) * (draw.random(n) < chance))

        def changed(x: Tensor) -> Tensor:
            if x.ndim != 5 or not x.is_floating_point():
                raise DataError(
                    f"`distorted` got inputs {list(x.shape)}, {x.dtype}; expected images, [tasks, n, channels, height, "
                    "width], of floating point."
                )
            n, (height, width) = x.shape[0] * x.shape[1], x.shape[-2:]
            if n == 0:
                return x
            angle, one = by(math.radians(turn), n), torch.ones(n, dtype=torch.float64)
            turned = _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
            sheared = _matrix(one, by(shear, n), by(shear, n), one)
            scaled = torch.diag_embed(torch.stack([1 + by(scale, n), 1 + by(scale, n)], -1))
            # An image spans from -1 to 1.
            moved = 2 * torch.stack([by(shift, n), by(shift, n)], -1)
            # A turn is one of pixels, which are as wide as high, and a grid is of shares of each axis.
            aspect = torch.tensor([[1.0, height / width], [width / height, 1.0]], dtype=torch.float64)
            theta = torch.cat([turned @ sheared @ scaled * aspect, moved[:, :, None]], -1).to(x)
            grid = functional.affine_grid(theta, [n, *x.shape[2:]], align_corners=False)
            return functional.grid_sample(x.flatten(0, 1), grid, align_corners=False).view_as(x)

        return Episode(*(part._replace(x=changed(part.x)) for part in episode))

    return drawn


def need_images(data: MetaDataset, caller: str) -> None:
    """Raise DataError unless `data` is a MetaDataset whose rows are stored as images [n, channels, height, width]."""
    if not isinstance(data, MetaDataset):
        raise DataError(
            f"`{caller}` got a {type(data).__name__}; expected a MetaDataset, from which tasks are drawn afterwards: "
            f"{caller}(MetaDataset(x, y, classes)).sampler(shots)."
        )
    if data.x.ndim != 4:
        add = " Where there is one channel: x.unsqueeze(1)." if data.x.ndim == 3 else ""
        raise DataError(
            f"`{caller}` got inputs {list(data.x.shape)}; expected images, [n, channels, height, width].{add}"
        )


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Float[Tensor, "n 2 2"]:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
