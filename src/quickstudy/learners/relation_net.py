"""Relation networks: a learned module, and no fixed distance, says how a query relates to a class.

    F_k = mean_i f(x_i),  y_i = k         r_k(x) = σ(g([F_k, f(x)]))
    L = mean over queries of Σ_k (r_k(x) - 1[y = k])²

Sung, Yang, Zhang, Xiang, Torr & Hospedales 2018, arXiv:1711.06025, equations 1 and 2. The paper sums the examples of a
class; their mean is the same up to scale, and lets the number of examples vary. The squared error is least where r is a
probability; if a query is of exactly one class, then p(k | x) ∝ r_k / (1 - r_k), so outputs are the log-odds of r.

Regression is ours, in the paper's form: targets weigh the mean in place of labels, and the score is regressed to them.

    F = [mean_i y_i f(x_i), mean_i f(x_i)]         y(x) = g([F, f(x)])
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Fast, Meta, MetaLearner, part, prefixed
from quickstudy.core.net import Net, apply, initial
from quickstudy.core.objective import Classify, count, mean


@dataclass(frozen=True, kw_only=True)
class RelationNet(MetaLearner):
    """Relation networks: an embedding and a relation module, trained together.

    Both have to be given. The relation module's input is twice as wide as the embedding for classes, and three times as
    wide for regression; it has one output:

        embed = MLP(inputs=16, outputs=40)
        RelationNet(objective=Classify(ways=5), net=embed, relation=MLP(inputs=2 * 40, outputs=1))
        RelationNet(objective=Regress(), net=embed, relation=MLP(inputs=3 * 40, outputs=1))
    """

    net: Net
    """The embedding f, of any shape [n, d, …]."""
    relation: Net
    """The relation module g: it takes a class's embedding and a query's, joined to [n, 2 d, …], and gives 1 output,
    without the paper's last sigmoid. For regression it takes [n, 3 d, …], whatever the number of targets."""

    paper: ClassVar[str] = "Sung et al. 2018. Learning to Compare: Relation Network. arXiv:1711.06025"

    def init(self, seed: int = 0) -> Meta:
        relation = initial(self.relation, seed + 1)
        return prefixed(initial(self.net, seed), "net.") | prefixed(relation, "relation.")

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = apply(self.net, part(meta, "net."), support.x)
        real = support.mask.unsqueeze(-1).to(z.dtype)
        if isinstance(self.objective, Classify):
            one_hot = self.objective.one_hot(support).to(z.dtype)
            parts = [one_hot / one_hot.sum(0).clamp(min=1)]
        else:
            parts = [
                weight * real / count(support.mask) for weight in (support.y, torch.ones_like(support.y))
            ]
        means = [(part.t() @ z.flatten(1)).unflatten(1, z.shape[1:]) for part in parts]
        return {"features": torch.cat(means, 1), "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        z, features = apply(self.net, part(meta, "net."), x), fast["features"]
        joined = torch.cat(
            [
                features.expand(len(z), *features.shape),
                z.unsqueeze(1).expand(-1, len(features), *z.shape[1:]),
            ],
            2,
        )
        scores = apply(self.relation, part(meta, "relation."), joined.flatten(0, 1))
        if scores.shape[1:] != (1,):
            raise ModelError(
                f"RelationNet's relation module gives outputs of shape {list(scores.shape[1:])}; expected [1], a score."
            )
        return self.objective.restrict(scores.reshape(len(z), -1), fast["present"])

    def outer_loss(self, meta: Meta, fast: Fast, episode: Episode) -> Float[Tensor, ""]:
        outputs, query = self.predict(meta, fast, episode.query.x), episode.query
        if not isinstance(self.objective, Classify):
            return self.objective.loss(outputs, query)
        # A class that the support lacks has r = 0.
        errors = outputs.sigmoid() - self.objective.one_hot(query)
        return mean(errors.pow(2).sum(-1), query.mask)
