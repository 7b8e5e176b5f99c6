"""The kinds of tasks that `quickstudy bench choose` compares learners on, and the networks for each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.bench.classic_sinusoid import WORST
from quickstudy.bench.settings import Nets, regresses
from quickstudy.core.dataset import MetaDataset, Shots, Split
from quickstudy.core.engine import Sample
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classify, Objective, Regress
from quickstudy.domains.synthetic import GaussianClasses, Sinusoids
from quickstudy.learners import NeuralProcess
from quickstudy.nets import MLP, Conv4

WAYS, QUERIES, WIDTH = 5, 15, 32
PAST = 200
"""Classes of a data set that closed forms learn from, at most."""
TITLES = {
    "gaussian": "Gaussian classes",
    "text": "intents, hashed n-grams",
    "minilm": "intents, MiniLM",
    "omniglot": "Omniglot",
    "sinusoid": "sinusoids",
}
"""By kind. The first two and the last need no data beyond the package's."""
PLAIN = ("gaussian", "text", "sinusoid")
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of task."""

    name: str
    objective: Objective
    shots: tuple[int, int]
    """That learners are judged at; what is chosen is chosen at the second."""
    steps: int = 200
    """Of meta-training."""
    draw: Callable[[int, Shots, int], Sample]
    """A sampler of TRAIN, VALID or TEST tasks, of this shape and from this seed."""
    past: Callable[[int], list[Labelled]]
    """Data sets for what is estimated in closed form, from a seed."""
    nets: Callable[[tuple[int, ...]], Nets]
    """The networks; given are the hidden layers of an embedding."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of learners that have them, by "Learner.field"."""
    bayes: Callable[[Episode], Tensor] | None = None
    """The best possible answers, where they are known."""
    flat: Callable[[Tensor], Tensor] | None = None
    """What makes vectors of inputs that aren't, for learners without a network of the user's."""
    worst: float = math.inf
    """The most that an error counts for, so that one task on which descent breaks doesn't hide all others."""

    def takes(self, kind: type[MetaLearner]) -> bool:
        """Whether a learner can learn such tasks."""
        if isinstance(self.objective, Regress):
            return regresses(kind)
        return self.flat is None or kind is not NeuralProcess

    def own_fields(self, kind: type[MetaLearner]) -> dict[str, Any]:
        """The fields that this kind of task asks of a learner."""
        prefix = f"{kind.__name__}."
        return {name.removeprefix(prefix): v for name, v in self.fields.items() if name.startswith(prefix)}


def vectors(
    dim: int, outputs: int, width: int, hidden: tuple[int, ...], layers: tuple[int, ...] = ()
) -> Nets:
    """Perceptrons: a hidden layer below the outputs; an embedding with one or without, which is linear then."""
    return Nets(
        dim,
        width,
        lambda more: MLP(inputs=dim + more, outputs=width, hidden=hidden),
        lambda more: MLP(inputs=dim + more, outputs=outputs, hidden=layers or (width,)),
        (width,),
    )


@cache
def kind_of(name: str, data: str | None = None) -> Kind:
    """The kind of this name. Raises DataError where its data are missing, MissingExtra where its encoder is."""
    if name == "gaussian":
        return _gaussian()
    if name == "sinusoid":
        return _sinusoid()
    return _omniglot(data) if name == "omniglot" else _intents(name)


def _gaussian() -> Kind:
    family = GaussianClasses()

    def draw(part: int, shots: Shots, seed: int) -> Sample:
        return family.sampler(shots, 3 * seed + part)

    def past(seed: int) -> list[Labelled]:
        sample = draw(0, Shots(ways=20, shots=20, queries=1, tasks=1), seed)
        return [Labelled(*(t[0] for t in sample(step).support)) for step in range(100)]

    # Classes are Gaussian indeed and past ones are many, so that covariances need no shrinking; length counts.
    known = {"unit": False, "within_strength": 1.0, "between_strength": 1.0}
    return Kind(
        name="gaussian",
        objective=Classify(ways=WAYS),
        shots=(1, 5),
        draw=draw,
        past=past,
        nets=partial(vectors, family.dim, WAYS, WIDTH),
        fields={f"Gaussian.{name}": value for name, value in known.items()},
        bayes=lambda task: family.bayes(task.support, task.query.x, WAYS),
    )


def _sinusoid() -> Kind:
    def draw(part: int, shots: Shots, seed: int) -> Sample:
        return Sinusoids().sampler(shots, 3 * seed + part)

    def nets(hidden: tuple[int, ...]) -> Nets:
        return vectors(1, 1, 40, (40,), (40, 40))

    return Kind(
        name="sinusoid",
        worst=WORST,
        objective=Regress(),
        shots=(5, 10),
        steps=400,
        draw=draw,
        past=lambda _: [],
        nets=nets,
    )


def _intents(name: str) -> Kind:
    from quickstudy import load_encoder
    from quickstudy.data import sample

    rows = sample("clinc150")
    intents = sorted({row["label"] for row in rows})
    encoder = load_encoder("tiny") if name == "text" else load_encoder("minilm")
    x = encoder.encode([row["text"] for row in rows])
    y = torch.tensor([intents.index(row["label"]) for row in rows])
    nets = partial(vectors, x.shape[1], WAYS, WIDTH)
    return _of(name, MetaDataset(x, y, tuple(intents)).split(seed=0), nets)


def _omniglot(data: str | None) -> Kind:
    from quickstudy.bench import data as published

    split = published.omniglot(published.folder(None if data is None else Path(data)))

    def nets(hidden: tuple[int, ...]) -> Nets:
        def conv(outputs: int | None, more: int) -> Conv4:
            return Conv4(filters=16, channels=1 + more, outputs=outputs)

        return Nets(784, Conv4(filters=16).features, partial(conv, None), partial(conv, WAYS), (WIDTH,))

    return _of("omniglot", split, nets, lambda x: x.flatten(-3))


def _of(
    name: str,
    split: Split,
    nets: Callable[[tuple[int, ...]], Nets],
    flat: Callable[[Tensor], Tensor] | None = None,
) -> Kind:
    def draw(part: int, shots: Shots, seed: int) -> Sample:
        return (split.train, split.valid, split.test)[part].sampler(shots, seed)

    def past(seed: int) -> list[Labelled]:
        train = split.train.only(range(min(PAST, len(split.train.classes))))
        x = train.x if train.decode is None else train.decode(train.x)
        return [Labelled.of(x if flat is None else flat(x), train.y)]

    return Kind(
        name=name,
        objective=Classify(ways=WAYS),
        shots=(1, 5),
        draw=draw,
        past=past,
        nets=nets,
        flat=flat,
    )
