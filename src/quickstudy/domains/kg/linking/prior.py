"""What the links of earlier fields taught: where a ranker of candidates starts from, before it is adapted to a field.

A row of `link.SIGNS` for each mention and candidate; a task is some mentions of one field, their rows labelled by
whether the candidate is the right one. MAML (Finn et al. 2017, arXiv:1703.03400) learns the weights that a few steps on
another field's rows make good ones.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.encoder import Encoder, identity
from quickstudy.core.engine import meta_train
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import CheckpointError, DataError, QuickstudyError
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec
from quickstudy.domains.kg.linking.link import SIGNS, Pairs, labelled, pair
from quickstudy.domains.kg.linking.worlds import World
from quickstudy.learners import MAML
from quickstudy.nets import MLP

LEARNER = MAML(
    objective=Classify(ways=2), net=MLP(inputs=len(SIGNS), outputs=2, hidden=(32,)), steps=3, rate=0.1
)
CAREFUL = 20
"""Steps when it is used: more than it was trained with, since a catalogue's own names are many. With 3, of 915 names of
skills that were in no catalogue 51 were linked at .9; with 10 or more none is, and less is suggested."""
STEPS, RATE, TASKS = 400, 3e-3, 8
"""Of meta-training; tasks a batch."""
SUPPORT, QUERY = 10, 30
"""Mentions of a task to adapt to, and to be judged by."""


@dataclass(frozen=True)
class LinkPrior:
    """Made by `learn`, from fields whose links are known."""

    encoder: str
    """Name of the encoder whose meanings it compares."""
    identity: str
    """Which files these were."""
    learner: MAML
    """A classifier of two classes over `SIGNS`: no, yes."""
    meta: Meta
    record: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, for people to read."""

    @classmethod
    def learn(
        cls,
        worlds: Sequence[World],
        encoder: Encoder,
        *,
        learner: MAML = LEARNER,
        steps: int = STEPS,
        seed: int = 0,
        record: Mapping[str, Any] | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> "LinkPrior":
        """Meta-train over tasks drawn from the worlds.

        Raises:
            DataError: no world has mentions enough for a task.
        """
        tasks = [
            task for number, world in enumerate(worlds) for task in _tasks(world, encoder, seed + number)
        ]
        if not tasks:
            raise DataError(f"no field has {SUPPORT + QUERY} mentions with candidates, which make a task.")

        def sample(step: int) -> Episode:
            drawn = random.Random(seed * 1_000_003 + step).sample(tasks, min(TASKS, len(tasks)))
            return stack(drawn)

        meta = learner.init(seed)
        for step in meta_train(learner, sample, steps=steps, rate=RATE, decay=True, seed=seed, meta=meta):
            meta = step.meta
            if progress is not None:
                progress(step.number, step.loss)
        careful = replace(learner, steps=CAREFUL)
        return cls(getattr(encoder, "name", ""), identity(encoder), careful, meta, dict(record or {}))

    def save(self, folder: str | PathLike[str], *, card: str = "") -> None:
        """Write it to a folder, beside it a card for people to read. Raises as `save_folder`."""
        record = {
            "kind": "prior",
            "of": "links",
            "encoder": self.encoder,
            "identity": self.identity,
            "learner": self.learner.to_json(),
            "signs": list(SIGNS),
            "made": dict(self.record),
        }
        save_folder(Path(folder), self.meta, record, extra_files={"README.md": card} if card else {})

    @classmethod
    def shipped(cls) -> "LinkPrior":
        """The one that comes with quickstudy, for the encoder "minilm"; its folder's README.md says what it saw."""
        return _shipped()

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "LinkPrior":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        tensors, record = load_folder(Path(folder), kind="prior")
        if record.get("of") != "links" or record.get("signs") != list(SIGNS):
            raise CheckpointError(f"{folder}: this prior isn't one of links, or of another version's.")
        try:
            learner = Spec.from_json(record["learner"])
            if not isinstance(learner, MAML):
                raise CheckpointError(f"{folder}: its learner is a {type(learner).__name__}.")
            learner.check(tensors)
            made = dict(record.get("made") or {})
            return cls(str(record["encoder"]), str(record["identity"]), learner, tensors, made)
        except (KeyError, TypeError, ValueError, QuickstudyError) as problem:
            raise CheckpointError(f"{folder}: the prior's record or tensors are wrong: {problem}") from None


def rows(world: World, encoder: Encoder, mentions: Sequence[int] | None = None) -> Labelled:
    """The pairs of mentions and candidates, y = 1 for the right one; of some mentions, by their numbers."""
    return _rows(world, pair(world.catalogue, encoder, world.mentions, world.documents), mentions)


def _rows(world: World, pairs: Pairs, mentions: Sequence[int] | None = None) -> Labelled:
    chosen = range(len(world.ids)) if mentions is None else mentions
    some = Pairs([pairs.candidates[i] for i in chosen], [pairs.rows[i] for i in chosen])
    return labelled(world.catalogue, some, [world.ids[i] for i in chosen])


def _tasks(world: World, encoder: Encoder, seed: int) -> list[Episode]:
    pairs = pair(world.catalogue, encoder, world.mentions, world.documents)
    order = [i for i, some in enumerate(pairs.candidates) if some]
    random.Random(seed).shuffle(order)
    size = SUPPORT + QUERY
    return [
        Episode(
            _rows(world, pairs, order[start : start + SUPPORT]),
            _rows(world, pairs, order[start + SUPPORT : start + size]),
        )
        for start in range(0, len(order) - size + 1, size)
    ]


@lru_cache(maxsize=1)
def _shipped() -> LinkPrior:
    with resources.as_file(resources.files("quickstudy.domains.kg") / "shipped" / "links") as folder:
        return LinkPrior.load(folder)
