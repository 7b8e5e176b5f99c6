"""What heads on embeddings share: the network, whose parameters `meta` holds as "net.…"."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Meta, MetaLearner, part, prefixed
from quickstudy.core.net import Net, features, initial
from quickstudy.core.objective import Classify


@dataclass(frozen=True, kw_only=True)
class EmbeddingLearner(MetaLearner):
    """A learner whose head is fitted to embeddings."""

    net: Net | None = None
    """The embedding f, inputs to features [n, d]; None takes the inputs as they are."""

    def embedding(self, seed: int) -> Meta:
        """The network's part of `meta`."""
        return {} if self.net is None else prefixed(initial(self.net, seed), "net.")

    def embed(self, meta: Meta, x: Tensor) -> Float[Tensor, "n d"]:
        return features(self.net, part(meta, "net."), x)

    def targets(self, rows: Labelled) -> Float[Tensor, "n k"]:
        """What a regression fits: rows of the identity for classes, else the answers; zero where masked."""
        if isinstance(self.objective, Classify):
            return self.objective.one_hot(rows)
        return rows.y * rows.mask.unsqueeze(-1)


def with_one(z: Float[Tensor, "n d"]) -> Tensor:
    """One more feature, a constant that carries the intercept."""
    return torch.cat([z, torch.ones_like(z[:, :1])], -1)
