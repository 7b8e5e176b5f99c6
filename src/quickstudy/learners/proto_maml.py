"""Proto-MAML: prototypical networks whose last layer, written as a linear one, goes on learning by gradient.

    c_k = mean_i f_θ(x_i),  y_i = k        W_k = 2 c_k,  b_k = -‖c_k‖²
    (θ, W, b)' = (θ, W, b) - α ∇ L(θ, W, b; support)

Triantafillou et al. 2020, arXiv:1903.03096, section 3.2. Logits f(x) W_kᵀ + b_k differ from -‖f(x) - c_k‖² by the same
number for all classes, so that without a step this is a prototypical network. The meta-gradient flows through the
prototypes, too.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, NetLearner, descend, part, per_task, prefixed
from quickstudy.core.net import Net, features
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Rate, Steps
from quickstudy.learners.prototypical import class_means


@dataclass(frozen=True, kw_only=True)
class ProtoMAML(NetLearner):
    """Proto-MAML. `meta` is the embedding alone, so one serves tasks of any number of classes."""

    objective: Classify
    net: Net
    """The embedding f, [n, …] -> [n, d]."""
    steps: Steps = 5
    """Inner steps of embedding and head; the paper searches them for each set of training data, up to 10."""
    rate: Rate = 0.1
    """Inner learning rate α; searched likewise in the paper. With large embeddings it must be small: see b."""
    second_order: bool = True
    """Differentiate through the inner steps; the paper doesn't, to spare its ResNet the memory."""

    paper: ClassVar[str] = "Triantafillou et al. 2020. Meta-Dataset. arXiv:1903.03096"
    inner_loop: ClassVar[bool] = True

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        prototypes = per_task(self.prototypes, support, meta, support)
        head = {"weight": 2 * prototypes, "bias": -prototypes.pow(2).sum(-1)}
        fast = descend(
            self.support_loss,
            prefixed(meta, "net.") | prefixed(head, "head."),
            support,
            steps=self.steps,
            rate=self.rate,
            second_order=self.second_order,
        )
        return fast | {"present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        return self.objective.restrict(self.forward(fast, x), fast["present"])

    def forward(self, weights: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        return (
            features(self.net, part(weights, "net."), x) @ weights["head.weight"].t() + weights["head.bias"]
        )

    def prototypes(self, meta: Meta, support: Labelled) -> Float[Tensor, "ways d"]:
        """The mean embedding of each class of one task."""
        return class_means(features(self.net, meta, support.x), self.objective.one_hot(support))[0]
