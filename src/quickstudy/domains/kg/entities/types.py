"""What kind of thing a span is: a learner of the core on features of the span and of its type's name.

    x = u / ‖u‖,   u = mean of the states of the span's words

A type's name and description, read by the same network, count as examples of the type. The words beside a span have
spoken to its states already: as features of their own they cost 2 points (CrossNER's dev part, politics, one seed).
"""

from collections.abc import Mapping, Sequence
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
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.entities.tune import features
from quickstudy.domains.kg.entities.words import split, states
from quickstudy.domains.kg.schema import EntityType
from quickstudy.domains.kg.schema import words as spoken
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import Gaussian, Logistic, ProtoMAML
from quickstudy.nets.word_bert import WordBert

FOLDS = 5
SCALES = tuple(2 ** (k / 4) for k in range(-24, 13))
LEAST = -12.0
"""A log-probability counts for no less than this, so that one mark that is wrong doesn't decide."""
MANY = 2000
"""From so many spans on, one fold says enough."""
SURE = 2.0
"""Standard errors by which a learner must do better than the first candidate."""


def told(name: str, kind: EntityType) -> list[str]:
    """Texts that say what a type is: its name in words, then its description, then names of such things."""
    return [spoken(name), *([kind.description] if kind.description else []), *kind.examples]


def read(network: WordBert, texts: Sequence[str], encoder: TextEncoder) -> list[Float[Tensor, " dim"] | None]:
    """Features of each text that describes a type, of all its sentences together; None for one without a word."""
    pieces = split([Document(str(i), text) for i, text in enumerate(texts)], encoder)
    seen = iter(states(network, [piece for own in pieces for piece in own]))
    whole = [torch.cat([next(seen) for _ in own]) if own else None for own in pieces]
    return [None if words is None else features(words, [(0, len(words))])[0] for words in whole]


@dataclass(frozen=True)
class Typing:
    """A learner that was adapted to the types."""

    learner: MetaLearner
    meta: Meta
    fast: Fast
    name: str
    losses: Mapping[str, float]
    """What each candidate lost on examples left out, in nats; empty where there were too few to choose by."""
    scale: float = 1.0
    """Logits are multiplied by it: how sure the learner may be, by examples left out."""

    def probabilities(self, x: Float[Tensor, "span dim"]) -> Float[Tensor, "span type"]:
        if not len(x):
            return torch.zeros(0, self.learner.objective.outputs)
        return (self.scale * engine.predict(self.learner, self.meta, self.fast, x)).softmax(-1)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON record, for a folder that holds more than this."""
        tensors = {f"meta.{k}": v for k, v in self.meta.items()} | {
            f"fast.{k}": v for k, v in self.fast.items()
        }
        record = {"learner": self.learner.to_json(), "name": self.name, "scale": self.scale}
        return tensors, {**record, "losses": dict(self.losses)}

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
        scale = record.get("scale", 1.0)
        if not isinstance(scale, int | float) or not 0 < scale < 1e6:
            raise CheckpointError(
                f"{where}: the scale of its typing is {scale!r}, expected a number above 0."
            )
        typing = cls(learner, meta, fast, str(record.get("name")), {}, float(scale))
        try:
            typing.probabilities(torch.zeros(1, dim))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{where}: its typing isn't whole: {error}.") from None
        return typing


def learn(
    x: Float[Tensor, "span dim"],
    y: Int[Tensor, " span"],
    sentence: Int[Tensor, " span"],
    names: Float[Tensor, "name dim"],
    of: Int[Tensor, " name"],
    ways: int,
    prior: tuple[Gaussian, Meta] | None = None,
    maml: tuple[ProtoMAML, Meta] | None = None,
) -> Typing:
    """Adapt the learner that types of past corpora speak for, or one that does clearly better on what is left out.

    With five examples a type, what sentences left out say is mostly chance: on CrossNER's dev parts it was wrong about
    politics by 12 points. So the first candidate is displaced only by one that is better by `SURE` standard errors.

    Args:
        x, y: features of labelled spans, and numbers of their types.
        sentence: in which sentence each stands; sentences are left out whole, as they often tell of one thing.
        names, of: features of what describes types, and whose description each is.
        ways: how many types there are. One without any example is told by what describes it alone.
        prior: a closed-form learner over such features, and what past types taught it.
        maml: the same of one that goes on by gradient steps.
    """
    ways = max(ways, 2)  # learners tell things apart: beside an only type stands one that nothing is of
    candidates: dict[str, tuple[MetaLearner, Meta]] = {}
    for name, known in (("Gaussian types with a learned prior", prior), ("Proto-MAML", maml)):
        if known is not None:
            candidates[name] = replace(known[0], objective=Classify(ways=ways)), known[1]
    for c in (100.0, 30.0):
        name = f"logistic regression, C = {c:g}"
        candidates[name] = Logistic(objective=Classify(ways=ways), inverse_penalty=c), {}
    best, scale, losses = next(iter(candidates)), 1.0, {}
    if folds := _folds(sentence):
        asked = torch.cat(folds)
        lost, scales = {}, {}
        for name, (learner, meta) in candidates.items():
            answers = []
            for out in folds:
                kept = torch.ones(len(y), dtype=torch.bool)
                kept[out] = False
                fast = _adapted(learner, meta, x[kept], y[kept], names, of)
                answers.append(engine.predict(learner, meta, fast, x[out]))
            scales[name], lost[name] = _sure(torch.cat(answers), y[asked])
        losses = {name: float(rows.mean()) for name, rows in lost.items()}
        clear = [name for name in losses if _clearly(lost[best] - lost[name], sentence[asked])]
        best = min(clear, key=losses.__getitem__, default=best)
        scale = scales[best]
    learner, meta = candidates[best]
    fast = _adapted(learner, meta, x, y, names, of)
    return Typing(learner, meta, fast, best, losses, scale)


def _sure(
    logits: Float[Tensor, "span type"], y: Int[Tensor, " span"]
) -> tuple[float, Float[Tensor, " span"]]:
    """The scale of `SCALES` at which the logits lose least, and what each row loses there, in nats.

    So a learner isn't passed over for being too sure of answers that are right more often than another's.
    """
    found = []
    for scale in SCALES:
        chances = (scale * logits).log_softmax(-1).clamp(min=LEAST)
        found.append((scale, F.nll_loss(chances, y, reduction="none")))
    return min(found, key=lambda both: float(both[1].mean()))


def _clearly(gain: Float[Tensor, " span"], sentence: Int[Tensor, " span"]) -> bool:
    """Whether the mean gain is above `SURE` standard errors, spans of one sentence counting as one draw."""
    total = torch.zeros(int(sentence.max()) + 1).index_add(0, sentence, gain - gain.mean())
    return float(gain.sum()) > SURE * float(total.pow(2).sum().sqrt())


def _adapted(learner: MetaLearner, meta: Meta, x: Tensor, y: Tensor, names: Tensor, of: Tensor) -> Fast:
    # By its number, a row says that it describes a type; a network takes it for a plain example.
    ways = 0 if isinstance(learner, ProtoMAML) else learner.objective.outputs
    return engine.adapt(learner, meta, Labelled.of(torch.cat([x, names]), torch.cat([y, of + ways])))


def _folds(sentence: Int[Tensor, " span"]) -> list[Tensor]:
    """Rows to leave out in turn, those of a sentence together; none where there are too few to say anything."""
    if len(sentence) < 2 * FOLDS or len(sentence.unique()) < FOLDS:
        return []
    # Numbered anew, as those without a span have numbers too: every fifth may be the only one that has some.
    fold = sentence.unique(return_inverse=True)[1] % FOLDS
    parts = [(fold == k).nonzero().squeeze(1) for k in range(1 if len(sentence) > MANY else FOLDS)]
    return [part for part in parts if len(part)]
