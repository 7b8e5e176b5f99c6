"""Which stored tasks are near a new one, and how well the head of each explains the new one's examples.

This is the edge of the task graph: a learner over that graph (a Meta-GNN) reads `Neighbour` and nothing else.

A stored task's head is the softmax of scaled cosines to its prototypes; θ_i(z) is its answer for a new example i. Of
the new examples, P(y | z) = Σ_i θ_i(z) [y_i = y] / Σ_i θ_i(z), and what they lose by  p_i = Σ_z P(y_i | z) θ_i(z)  is
LEEP (Nguyen et al. 2020, arXiv:2002.12462, equations 1 and 2). Ours leaves example i out of P, since a handful of
examples would else explain themselves, and counts in shares of what the labels' own frequencies lose:

    explained = 1 - Σ_i log p_i / Σ_i log p(y_i)        0: nothing, 1: all of it
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from quickstudy.bank.entry import Part

SCALES = (4.0, 8.0, 16.0, 32.0)
"""What cosines are multiplied by; chosen on the stored task's own examples, each left out."""
SMOOTH = 1.0
"""So many examples' worth of the labels' frequencies are added to every P(y | z)."""
FLOOR = 0.05
"""Least that `explained` counts for in a weight: a task may teach how examples scatter, and explain none of them."""


@dataclass(frozen=True)
class Neighbour:
    """A stored task beside a new one."""

    id: str
    name: str
    part: str
    nearness: float
    """Of the two embeddings, 0 to 1."""
    explained: float
    """Share of the new labels' uncertainty that its head takes away, at most 1; below 0 it misleads."""
    weight: float = 0.0
    """Its share when a prior is made of neighbours; all shares together are 1."""


def explained(stored: Part, x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> float:
    """How much of the uncertainty of labels y the head of a stored task takes away, each example left out."""
    known = y >= 0
    x, y = x[known], y[known]
    if len(y.unique()) < 2 or len(y) < 3:
        return 0.0
    center, means, scale = _head(stored)
    theta = (scale * normalize(x.float() - center, dim=-1) @ means.t()).softmax(-1).double()
    label = y.unique(return_inverse=True)[1]
    truth = one_hot(label).double()
    joint = theta.t() @ truth  # [z, label]
    counts = truth.sum(0)
    chance = (counts - truth + SMOOTH / len(counts)) / (len(y) - 1 + SMOOTH)  # without the example itself
    frequent = (chance * truth).sum(-1)
    # Of P(y | z) the example's own label alone is asked for: [n, z], not [n, z, label].
    said, all_said = joint.t()[label] - theta, joint.sum(-1) - theta
    p = (theta * (said + SMOOTH * frequent.unsqueeze(-1)) / (all_said + SMOOTH)).sum(-1)
    base = -frequent.log().sum()
    return float(1 + p.log().sum() / base)


def weighed(found: Iterable[Neighbour]) -> list[Neighbour]:
    """With weights, in proportion to nearness times what is explained; the heaviest first."""
    found = list(found)
    raw = [one.nearness * max(one.explained, FLOOR) for one in found]
    total = sum(raw) or 1.0
    done = [
        Neighbour(one.id, one.name, one.part, one.nearness, one.explained, weight / total)
        for one, weight in zip(found, raw, strict=True)
    ]
    return sorted(done, key=lambda one: (-one.weight, one.id, one.part))


def _head(stored: Part) -> tuple[Float[Tensor, " d"], Float[Tensor, "ways d"], float]:
    """Where a stored task's features are centred, the directions of its prototypes, and the scale of cosines."""
    known = stored.y >= 0
    x, y = stored.x[known].float(), stored.y[known].unique(return_inverse=True)[1]
    ways = int(y.max()) + 1
    center = x.mean(0)
    x = normalize(x - center, dim=-1)
    sums = torch.zeros(ways, x.shape[1]).index_add(0, y, x)
    means = normalize(sums, dim=-1)
    judged = torch.bincount(y)[y] > 1
    if ways < 2 or not bool(judged.any()):
        return center, means, SCALES[1]
    cosine = x @ means.t()
    cosine[torch.arange(len(x)), y] = (x * normalize(sums[y] - x, dim=-1)).sum(-1)
    losses = [float(cross_entropy(scale * cosine[judged], y[judged])) for scale in SCALES]
    return center, means, SCALES[losses.index(min(losses))]
