"""What kind of thing a span is: a learner of the core on features of the span and of its type's name.

    x = u / ‖u‖,   u = mean of the states of the span's words

A type's name and description, read by the same network, count as examples of the type. The words beside a span have
spoken to its states already: as features of their own they cost 2 points (CrossNER's dev part, politics, one seed).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.core import engine
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec
from quickstudy.domains.kg.schema import EntityType
from quickstudy.learners import Gaussian, Logistic, ProtoMAML

FOLDS = 5
MANY = 400
"""From so many spans on, one fold says enough."""


def told(name: str, kind: EntityType) -> list[str]:
    """Texts that say what a type is: its name in words, then its description, then names of such things."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", name).strip().lower()
    return [plain, *([kind.description] if kind.description else []), *kind.examples]


@dataclass(frozen=True)
class Typing:
    """A learner that was adapted to the types."""

    learner: MetaLearner
    meta: Meta
    fast: Fast
    name: str
    losses: Mapping[str, float]
    """What each candidate lost on examples left out, in nats; empty where there were too few to choose by."""

    def probabilities(self, x: Float[Tensor, "span dim"]) -> Float[Tensor, "span type"]:
        if not len(x):
            return torch.zeros(0, self.learner.objective.outputs)
        return engine.predict(self.learner, self.meta, self.fast, x).softmax(-1)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON record, for a folder that holds more than this."""
        tensors = {f"meta.{k}": v for k, v in self.meta.items()} | {
            f"fast.{k}": v for k, v in self.fast.items()
        }
        return tensors, {"learner": self.learner.to_json(), "name": self.name, "losses": dict(self.losses)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], record: Any, ways: int, dim: int, where: str) -> "Typing":
        """From what `parts` gave. Raises CheckpointError for anything else."""
        if not isinstance(record, dict):
            raise CheckpointError(f"{where}: its typing is a {type(record).__name__}, expected an object.")
        learner = Spec.from_json(record.get("learner"))
        if not isinstance(learner, Gaussian | Logistic | ProtoMAML) or learner.objective.ways != max(ways, 2):
            raise CheckpointError(
                f"{where}: its typing isn't a Gaussian, Logistic or ProtoMAML learner of {ways} types."
            )
        meta, fast = (
            {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in ("meta.", "fast.")
        )
        learner.check(meta)
        typing = cls(learner, meta, fast, str(record.get("name")), {})
        try:
            typing.probabilities(torch.zeros(1, dim))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{where}: its typing isn't whole: {error}.") from None
        return typing


def learn(
    x: Float[Tensor, "span dim"],
    y: Int[Tensor, " span"],
    names: Float[Tensor, "name dim"],
    of: Int[Tensor, " name"],
    ways: int,
    prior: tuple[Gaussian, Meta] | None = None,
    maml: tuple[ProtoMAML, Meta] | None = None,
    *,
    seed: int = 0,
) -> Typing:
    """Adapt the learner that does best on examples left out.

    Args:
        x, y: features of labelled spans, and numbers of their types.
        names, of: features of what describes types, and whose description each is.
        ways: how many types there are.
        prior: a closed-form learner over such features, and what past types taught it.
        maml: the same of one that goes on by gradient steps.
    """
    ways = max(ways, 2)  # learners tell things apart: beside an only type stands one that nothing is of
    candidates: dict[str, tuple[MetaLearner, Meta]] = {
        f"logistic regression, C = {c:g}": (Logistic(objective=Classify(ways=ways), inverse_penalty=c), {})
        for c in (30.0, 100.0)
    }
    for name, known in (("Gaussian types with a learned prior", prior), ("Proto-MAML", maml)):
        if known is not None:
            candidates[name] = replace(known[0], objective=Classify(ways=ways)), known[1]
    folds = _folds(y, seed)
    losses: dict[str, float] = {}
    if folds:
        for name, (learner, meta) in candidates.items():
            value = 0.0
            for out in folds:
                kept = torch.ones(len(y), dtype=torch.bool)
                kept[out] = False
                fast = _adapted(learner, meta, x[kept], y[kept], names, of)
                logits = engine.predict(learner, meta, fast, x[out])
                value += float(F.cross_entropy(logits.clamp(min=-50), y[out], reduction="sum"))
            losses[name] = value / sum(map(len, folds))
    best = min(losses, key=losses.__getitem__) if losses else next(iter(candidates))
    learner, meta = candidates[best]
    fast = _adapted(learner, meta, x, y, names, of)
    return Typing(learner, meta, fast, best, losses)


def _adapted(learner: MetaLearner, meta: Meta, x: Tensor, y: Tensor, names: Tensor, of: Tensor) -> Fast:
    # By its number, a row says that it describes a type; a network takes it for a plain example.
    ways = 0 if isinstance(learner, ProtoMAML) else learner.objective.outputs
    return engine.adapt(learner, meta, Labelled.of(torch.cat([x, names]), torch.cat([y, of + ways])))


def _folds(y: Int[Tensor, " span"], seed: int) -> list[Tensor]:
    """Row numbers to leave out in turn, every type spread over all of them."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(y[order], stable=True)]
    if len(y) < 2 * FOLDS:
        return []
    return [order[i::FOLDS] for i in range(1 if len(y) > MANY else FOLDS)]
