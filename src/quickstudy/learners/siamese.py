"""Siamese networks: learn to tell whether two examples are of one class; a query goes with its likeliest partner.

    p(same | x, x') = σ(β + Σ_j α_j |z_j - z'_j|),   z = f(x) / ‖f(x)‖
    L = -mean over pairs of one class log p - mean over pairs of two classes log (1 - p)

Koch, Zemel & Salakhutdinov 2015, ICML deep learning workshop (https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf),
sections 3.1 and 3.2; the decision is that of section 4.3. Two things are ours. The paper bounds features by sigmoid
units, we cut embeddings to length 1, so that the distance has a scale known before training. And it shows no β, without
which no pair is likelier than even as long as distance speaks against it.

The pairs are all those of an episode's rows, both kinds with the same total weight, or the rarer kind would hardly
count. If a query belongs to exactly one of the classes, p(k | x) ∝ p_k / (1 - p_k), so outputs are log-odds. A class
speaks through its likeliest example, as the paper asks for the most similar one; a mean would punish a class whose
examples differ.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner, in_precision_of, part, prefixed
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify, mean
from quickstudy.core.spec import Positive, Size


@dataclass(frozen=True, kw_only=True)
class Siamese(MetaLearner):
    """Siamese networks; the net maps inputs to embeddings [n, d]."""

    objective: Classify
    net: Net
    """The embedding f."""
    width: Size
    """d: how many features an embedding has."""
    scale: Positive = 10.0
    """s: β starts from s and each α_j from -s / √d, so that equal inputs have log-odds s and unrelated ones, whose
    distance is about 1.1 √d, below 0. The paper draws its last layer at random; but where all log-odds start near 0,
    training collapses the embedding."""

    paper: ClassVar[str] = (
        "Koch, Zemel & Salakhutdinov 2015. Siamese Neural Networks for One-shot Image Recognition. ICML deep learning "
        "workshop. https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf"
    )

    def init(self, seed: int = 0) -> Meta:
        net = initial(self.net, seed)
        own = {
            "weight": torch.full((self.width,), -self.scale / math.sqrt(self.width)),
            "bias": torch.tensor(self.scale),
        }
        return in_precision_of(net, own) | prefixed(net, "net.")

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        one_hot = self.objective.one_hot(support)
        return {"z": self._embed(meta, support.x), "one_hot": one_hot, "present": one_hot.sum(0) > 0}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        odds = self._log_odds(meta, self._embed(meta, x), fast["z"])
        member = fast["one_hot"].t() > 0
        best = torch.where(member, odds.unsqueeze(1), -torch.inf).amax(-1)
        return self.objective.restrict(best, fast["present"])

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        rows = Labelled(*(torch.cat(pair) for pair in zip(*episode, strict=True)))
        z, one_hot = self._embed(meta, rows.x), self.objective.one_hot(rows)
        odds = self._log_odds(meta, z, z)
        real = rows.mask & rows.mask.unsqueeze(-1) & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        same = (one_hot @ one_hot.t() > 0) & real
        alike = mean(-logsigmoid(odds).flatten(), same.flatten())
        return alike + mean(-logsigmoid(-odds).flatten(), (real & ~same).flatten())

    def _log_odds(self, meta: Meta, a: Tensor, b: Tensor) -> Float[Tensor, "n m"]:
        return (a.unsqueeze(1) - b).abs() @ meta["weight"] + meta["bias"]

    def _embed(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        z = features(self.net, part(meta, "net."), x)
        if z.shape[1:] != (self.width,):
            raise ModelError(
                f"Siamese has width={self.width}; its net gives features of shape {list(z.shape[1:])}."
            )
        return normalize(z, dim=-1)
