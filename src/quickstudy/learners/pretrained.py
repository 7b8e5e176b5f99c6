"""Pre-training on all past tasks together, then a linear probe: the baseline that meta-learning has to beat.

    min_f  Σ_tasks min_W  L(W f(X), Y) + λ ‖W‖²        at a new task:  min_W of the same, f frozen

All rows of a past task are fitted, support and query alike: nothing asks how well a task generalises. Each task has a
head of its own, as class numbers mean something else in each, and as functions differ; it is solved for, and by the
envelope theorem the gradient of the inner minimum is that at the head found, held fixed. With `head`, one head is
shared and learned with f instead: plain supervised pre-training, for labels that mean the same everywhere.

Chen, Liu, Kira, Wang & Huang 2019, arXiv:1904.04232, section 3.2 (Baseline), and Tian, Wang, Krishnan, Tenenbaum &
Isola 2020, arXiv:2003.11539, section 3.2, who train one head over the classes of all past tasks.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Fast, Meta, part, prefixed
from quickstudy.core.net import Net, apply, initial, skeleton
from quickstudy.core.objective import Classify, Rank, Regress, count, mean
from quickstudy.core.spec import Positive, Steps
from quickstudy.learners.embedding import EmbeddingLearner, with_one
from quickstudy.learners.ridge import least_squares
from quickstudy.learners.softmax import fit


@dataclass(frozen=True, kw_only=True)
class Pretrained(EmbeddingLearner):
    """Multi-task pre-training and a linear probe: ridge regression, or logistic regression for classes."""

    objective: Classify | Regress | Rank
    head: Net | None = None
    """A head for all past tasks, from f's features to their answers: as many outputs as there are past classes, which
    are then numbered across tasks in training (`TaskDataset((Labelled.of(x, y),))` draws such batches). None: each
    past task has its own."""
    penalty: Positive = 1.0
    """λ, of the probe and of past tasks' heads; scikit-learn's default, which the second paper's probe has."""
    steps: Steps = 10
    """Newton's, in logistic regression; with a λ of .1 or more, the last of 10 change nothing."""

    paper: ClassVar[str] = "Tian et al. 2020. Rethinking Few-Shot Image Classification. arXiv:2003.11539"

    def init(self, seed: int = 0) -> Meta:
        head = {} if self.head is None else prefixed(initial(self.head, seed + 1), "head.")
        return self.embedding(seed) | head

    def check_answers(self, rows: Labelled, name: str, *, trains: bool = False) -> None:
        if not trains or self.head is None or not isinstance(self.objective, Classify):
            super().check_answers(rows, name)
        else:  # classes are numbered across tasks
            wide = [
                part.out_features for part in skeleton(self.head).modules() if isinstance(part, nn.Linear)
            ]
            least, most = (int(n) for n in torch.aminmax(torch.where(rows.mask, rows.y, 0)))
            if least < 0 or (wide and most >= max(self.objective.ways, wide[-1])):
                raise DataError(
                    f"The {name} holds class number {least if least < 0 else most}; Pretrained's head has "
                    f"{wide[-1] if wide else 'some'} outputs, one for each past class, from 0."
                )

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        weights = self._probe(self.embed(meta, support.x), support)
        return {"weights": weights, "present": self.objective.present(support)}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n k"]:
        return self.objective.restrict(with_one(self.embed(meta, x)) @ fast["weights"], fast["present"])

    def loss(self, meta: Meta, episode: Episode) -> Float[Tensor, ""]:
        """What is left after fitting a head to the whole task, or the shared head's loss on it."""
        rows = Labelled(*(torch.cat(pair) for pair in zip(*episode, strict=True)))
        z = self.embed(meta, rows.x)
        if self.head is not None:
            told = apply(self.head, part(meta, "head."), z)
            if not isinstance(self.objective, Classify):
                return self.objective.loss(self.objective.fitting(told), rows)
            return mean(self.objective.row_losses(told, rows.y), rows.mask)  # an output for each past class
        weights = self._probe(z.detach(), rows)
        outputs = self.objective.restrict(with_one(z) @ weights, self.objective.present(rows))
        share = 1 / (2 if isinstance(self.objective, Classify) else self.objective.outputs)
        price = share * self.penalty * weights.pow(2).sum() / count(rows.mask).squeeze(-1)
        return self.objective.loss(outputs, rows) + price

    def _probe(self, z: Float[Tensor, "n d"], rows: Labelled) -> Float[Tensor, "d_and_1 k"]:
        exact, y = (with_one(z) * rows.mask.unsqueeze(-1)).double(), self.targets(rows)
        penalty = exact.new_tensor(self.penalty)
        if isinstance(self.objective, Classify):
            weights = exact.t() @ fit(exact @ exact.t(), y.double(), penalty, self.steps)
        else:
            weights = least_squares(exact, y, penalty)
        return weights.to(z.dtype)
