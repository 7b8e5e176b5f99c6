"""'None of these', and which example to label next."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Labelled


@dataclass(frozen=True)
class Abstention:
    """A score of how well a text fits its likeliest category, and the threshold below which it fits none."""

    centroids: Float[Tensor, "k d"]
    threshold: float

    def fits(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Whether each text is near enough to some category."""
        return self.scores(x) >= self.threshold

    def scores(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The largest cosine to any category's mean; it tells strangers better than the margin between categories."""
        return (normalize(x, dim=-1) @ self.centroids.t()).max(-1).values

    @classmethod
    def fit(cls, support: Labelled, ways: int, examples: int, coverage: float) -> "Abstention":
        """A threshold that answers the share `coverage` of texts that do belong to a category.

        Judged on the support's examples (its first rows), each scored against means that leave it out. The quantile is
        the conformal one (Vovk et al. 2005): with n examples, coverages up to n / (n + 1) hold on average. Beyond that
        the threshold is the least score of any example, and fewer are answered.
        """
        x, y = normalize(support.x, dim=-1), support.y % ways
        counts = torch.bincount(y, minlength=ways)
        sums = torch.zeros(ways, x.shape[1], dtype=x.dtype).index_add(0, y, x)
        centroids = normalize(sums, dim=-1)
        x, y = x[:examples], y[:examples]
        cosine = x @ centroids.t()
        without = (x * normalize(sums[y] - x, dim=-1)).sum(-1)
        cosine[torch.arange(examples), y] = torch.where(counts[y] > 1, without, -1.0)
        held = cosine.max(-1).values.sort().values
        rank = int((1 - coverage) * (len(held) + 1))
        return cls(centroids, float(held[rank - 1]) if rank else float(held[0]) - 1e-6)


def suggest(
    x: Float[Tensor, "n d"], probabilities: Float[Tensor, "n k"], support: Labelled, n: int
) -> Int[Tensor, " n"]:
    """Positions of the `n` texts to label next: unsure, typical of the rest, and unlike each other and the known.

    Greedy over margin-uncertainty × density × distance to what is labelled or already chosen.
    """
    x = normalize(x, dim=-1)
    top = probabilities.topk(min(2, probabilities.shape[1]), -1).values
    unsure = 1 - (top[:, 0] - top[:, -1]).to(x.dtype)
    density = ((x @ normalize(x.sum(0), dim=0)) + 1) / 2
    nearest = (x @ normalize(support.x, dim=-1).t()).max(-1).values
    chosen: list[int] = []
    for _ in range(min(n, len(x))):
        value = unsure.clamp(min=1e-6) * density * (1 - nearest).clamp(min=1e-6)
        value[chosen] = -1
        chosen.append(int(value.argmax()))
        nearest = torch.maximum(nearest, x @ x[chosen[-1]])
    return torch.tensor(chosen)
