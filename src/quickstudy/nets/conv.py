"""The four-block convolutional network of few-shot image classification."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d

from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.net import MeanOfPositions
from quickstudy.core.spec import Size, Spec

BLOCKS = 4
EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Conv4(Spec):
    """Four blocks of 3×3 convolution, norm, halving and ReLU: images [n, channels, height, width] -> [n, k].

    The embedding of Vinyals et al. 2016, arXiv:1606.04080; prototypical networks and MAML have it too. It pools before
    the ReLU and not after it: the ReLU keeps order, so values and gradients are the same, and it meets a quarter of the
    numbers.
    """

    image: Annotated[tuple[Size, Size], Field(min_length=2)] = (28, 28)
    """Height and width in pixels."""
    channels: Size = 1
    filters: Size = 64
    """Of each block; the papers' 64. MAML has 32 on miniImagenet."""
    outputs: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Outputs of a linear layer on top; None gives the embedding itself."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Batch norm takes its statistics from the images that pass together, in training and in use; `stored` makes a
    network of it that doesn't. Group and layer norm look at one image at a time."""
    groups: Size = 8
    """Of group norm; they divide `filters`."""
    halve: Literal["pool", "stride"] = "pool"
    """2×2 max pooling; or convolutions with a stride of 2, a quarter of the work, and the mean over positions at the
    end, as MAML has it on Omniglot."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm == "group" and self.filters % self.groups:
            raise DataError(
                f"Conv4 of {self.filters} filters can't have {self.groups} groups; give a divisor."
            )
        if self.halve == "pool" and min(self.image) < 2**BLOCKS:
            raise DataError(
                f"Conv4 pools {BLOCKS} times, which leaves nothing of {self.image[0]}×{self.image[1]} pixels. "
                f'Give images of {2**BLOCKS} pixels or more, or halve="stride".'
            )

    @property
    def features(self) -> int:
        """The length of the embedding."""
        height, width = (1, 1) if self.halve == "stride" else (size // 2**BLOCKS for size in self.image)
        return self.filters * height * width

    def build(self) -> nn.Module:
        widths = [self.channels] + [self.filters] * BLOCKS
        parts: list[nn.Module] = [self._block(*pair) for pair in pairwise(widths)]
        parts += [MeanOfPositions()] if self.halve == "stride" else [nn.Flatten()]
        parts += [] if self.outputs is None else [nn.Linear(self.features, self.outputs)]
        net = nn.Sequential(*parts)
        if self.norm in ("batch", "none"):  # torch's group norm can't be mapped over tasks in this layout
            # What passes through takes the layout of the weights: on a CPU, channels last is a third faster.
            net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return net

    def _block(self, inputs: int, outputs: int) -> nn.Sequential:
        parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=self._stride, padding=1)]
        if self.norm == "batch":  # running statistics would leak from one task into the next
            parts.append(nn.BatchNorm2d(outputs, eps=EPS, track_running_stats=False))
        elif self.norm != "none":
            parts.append(nn.GroupNorm(1 if self.norm == "layer" else self.groups, outputs))
        parts += [nn.MaxPool2d(2)] if self.halve == "pool" else []
        return nn.Sequential(*parts, nn.ReLU())

    @property
    def _stride(self) -> int:
        return 2 if self.halve == "stride" else 1

    def stored(
        self, params: dict[str, Tensor], images: Float[Tensor, "n c h w"]
    ) -> tuple["Conv4", dict[str, Tensor]]:
        """The network with batch norm's statistics stored, and its parameters: answers no longer hang together.

        The statistics are those of `images`, block by block, and go into the convolutions, so that no norm is left to
        compute. This is what batch norm does in evaluation, without the moving averages.

        Args:
            params: of this network, which has batch norm.
            images: a few hundred training images or more.
        """
        if self.norm != "batch":
            raise ModelError(f'Only batch norm has statistics to store; this Conv4 has norm="{self.norm}".')
        plain = replace(self, norm="none")
        module, folded = plain.build(), {name: p for name, p in params.items() if ".1." not in name}
        assert isinstance(module, nn.Sequential)
        x = images
        with torch.no_grad():
            for i in range(BLOCKS):
                weight, bias = params[f"{i}.0.weight"], params[f"{i}.0.bias"]
                raw = conv2d(x, weight, bias, stride=self._stride, padding=1)
                variance, mean = torch.var_mean(raw, (0, 2, 3), correction=0)
                scale = params[f"{i}.1.weight"] * (variance + EPS).rsqrt()
                own = {
                    "0.weight": weight * scale.reshape(-1, 1, 1, 1),
                    "0.bias": (bias - mean) * scale + params[f"{i}.1.bias"],
                }
                x = functional_call(module[i], own, (x,))
                folded |= {f"{i}.{name}": value for name, value in own.items()}
        return plain, folded
