"""What each sign is worth: weights of signs, meta-trained on known relations played as new ones.

MAML on lists of candidates: the weights start where they serve relations on the whole, and a relation's own examples,
each ranked by the others, turn them towards the signs that tell for this one. From a single example they stay.
A hidden layer learns the played relations by heart where these are few (docs/log.md), so there is none by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.engine import adapt, meta_train, predict
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.learner import Fast, Meta
from quickstudy.core.objective import Rank
from quickstudy.domains.kg.completion.tasks import LIST
from quickstudy.learners import MAML
from quickstudy.nets import Candidates

STEPS, TASKS = 600, 16
"""Of meta-training; tasks a step."""


@dataclass(frozen=True)
class Scorer:
    """Signs to one score."""

    learner: MAML
    meta: Meta
    center: Float[Tensor, "signs"]
    spread: Float[Tensor, "signs"]
    """What signs are brought to mean 0 and deviation 1 by."""

    @classmethod
    def learn(
        cls,
        episodes: Sequence[Episode],
        *,
        seed: int = 0,
        hidden: tuple[int, ...] = (),
        inner: int = 3,
        rate: float = 0.03,
        steps: int = STEPS,
    ) -> "Scorer":
        """Meta-train on plays of known relations.

        Args:
            hidden: layers between signs and score; none weighs each sign by itself.
            inner, rate: steps on a relation's own examples, and how large.
        """
        seen = torch.cat([episode.query.x.flatten(0, 1) for episode in episodes])
        center, spread = seen.mean(0), seen.std(0).clamp(min=1e-3)
        learner = MAML(
            objective=Rank(candidates=LIST),
            net=Candidates(inputs=len(center), hidden=hidden),
            steps=inner,
            rate=rate,
        )
        even = [_brought(episode, center, spread) for episode in episodes]

        def sample(step: int) -> Episode:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
            return stack([even[i] for i in torch.randint(len(even), (TASKS,), generator=draw).tolist()])

        *_, last = meta_train(
            learner, sample, steps=steps, rate=3e-3, decay=True, weight_decay=0.01, seed=seed, form="stacked"
        )
        return cls(learner, last.meta, center, spread)

    def adapt(self, support: Labelled) -> Fast:
        """The network of one relation, from lists of its own examples."""
        learner = replace(self.learner, objective=Rank(candidates=support.x.shape[1]))
        return adapt(learner, self.meta, support._replace(x=self._brought(support.x)))

    def scores(self, fast: Fast, signs: Float[Tensor, "heads n signs"]) -> Float[Tensor, "heads n"]:
        """The score of each candidate of each head."""
        learner = replace(self.learner, objective=Rank(candidates=signs.shape[1]))
        there = {"present": torch.ones(signs.shape[1], dtype=torch.bool)}
        return predict(learner, self.meta, fast | there, self._brought(signs))

    def _brought(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.spread


def _brought(episode: Episode, center: Tensor, spread: Tensor) -> Episode:
    return Episode(*(part._replace(x=(part.x - center) / spread) for part in episode))
