"""Matching networks with full context embeddings: every embedding is made in the light of the whole support.

    g_i = h→_i + h←_i + f(x_i),   h→, h← = LSTMs over f(x_1), …, f(x_n), forwards and backwards
    h_k = LSTM(f(x), [h_{k-1}, r_{k-1}], c_{k-1}) + f(x),   r_k = Σ_i softmax_i(h_k · g_i) g_i
    a_i(x) = softmax_i(s cos(h_K, g_i))         p(y | x) = Σ_i a_i(x) y_i

Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, arXiv:1606.04080, appendices A.1 and A.2. States start from
0, so that the first reading r_0 is the mean of the g_i. The support is read in the order in which it comes, and answers
depend on that order. The cells are matrix products, as torch's own have no rule under vmap.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Fast, Meta, in_precision_of, part, prefixed
from quickstudy.core.net import features, initial
from quickstudy.core.spec import Size, Steps
from quickstudy.learners.cells import lstm
from quickstudy.learners.matching import Matching, attention


@dataclass(frozen=True, kw_only=True)
class MatchingFCE(Matching):
    """Matching networks with full context embeddings."""

    width: Size
    """d: how many features the net's embeddings have."""
    reads: Steps = 5
    """K, how often a query reads the support; a fixed number in the paper, which section 2.1.2 leaves open."""

    symmetric: ClassVar[frozenset[str]] = frozenset({"labels"})

    def init(self, seed: int = 0) -> Meta:
        cells = initial(_Cells(self.width), seed + 1)  # by torch's own rule, ± 1 / √d
        net = super().init(seed)
        return net | prefixed(in_precision_of(net, cells), "lstm.")

    def embed(self, meta: Meta, support: Labelled) -> Float[Tensor, "n d"]:
        z = self._plain(meta, support.x)
        forwards = self._read(part(meta, "lstm.forwards."), z, support, range(len(z)))
        return z + forwards + self._read(part(meta, "lstm.backwards."), z, support, range(len(z))[::-1])

    def asked(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n d"]:
        z, cell = self._plain(meta, x), part(meta, "lstm.asked.")
        h = c = torch.zeros_like(z)
        for _ in range(self.reads):
            reading = attention(h @ fast["keys"].t(), fast["mask"]) @ fast["keys"]
            h, c = lstm(cell, torch.cat([z, reading], -1), (h, c))
            h = h + z
        return h if self.reads else z

    def _plain(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        z = features(self.net, part(meta, "net."), x)
        if z.shape[1:] != (self.width,):
            raise ModelError(
                f"MatchingFCE has width={self.width}; its net gives features of shape {list(z.shape[1:])}."
            )
        return z

    def _read(self, cell: Fast, z: Tensor, support: Labelled, order: range) -> Float[Tensor, "n d"]:
        h = c = torch.zeros_like(z[:1])
        states = [h] * len(z)
        for i in order:
            new = lstm(cell, z[i : i + 1], (h, c))
            # Padding is passed over: the state after it is the state before it.
            h, c = (torch.where(support.mask[i], *pair) for pair in zip(new, (h, c), strict=True))
            states[i] = h
        return torch.cat(states)


@dataclass(frozen=True)
class _Cells:
    """The three cells, as torch draws and names their parameters. The third takes a reading beside its input."""

    width: int

    def build(self) -> nn.Module:
        sizes = {"forwards": self.width, "backwards": self.width, "asked": 2 * self.width}
        return nn.ModuleDict({name: nn.LSTMCell(size, self.width) for name, size in sizes.items()})
