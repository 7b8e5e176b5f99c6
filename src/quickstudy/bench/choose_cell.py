"""One learner on one kind of task: choose its settings, meta-train, judge; and what that took.

It runs in a process of its own, forked from one that has imported everything and computed nothing, so that the memory
measured first is all that the learner needs.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import quickstudy.learners
from quickstudy.bench.choose_tasks import QUERIES, TEST, TRAIN, VALID, Kind, kind_of
from quickstudy.bench.memory import peak_added
from quickstudy.bench.settings import HIDDEN, Setting, built, setting
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import Sample, adapt, evaluate, meta_gradient, meta_train, predict
from quickstudy.core.episode import Episode, Labelled, unstack
from quickstudy.core.errors import DivergedError, ModelError
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, paired
from quickstudy.learners import Centroid

TASKS = 8
"""Of a step of meta-training."""
BATCH = 50
"""Tasks that are judged at once."""
JUDGED, CHOSEN = 600, 100
"""Tasks to judge by, and to choose settings by."""
OUTER = (3e-3, 1e-2)
"""Outer rates; the first is that of the runs that choose the learner's own fields."""
LEAST = 1e-4
"""An outer rate below which a training that diverges isn't tried again."""
SHORT = 30
"""Steps of a run that chooses."""
REPEATS = 20
"""How often the time of one task is taken; the least counts."""


class Job(NamedTuple):
    """What to measure."""

    learner: str
    kind: str
    data: str | None = None
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class Cell:
    """What was found at one number of shots."""

    shots: int
    score: Estimate
    gain: Estimate | None
    """Over the nearest centroid, task by task; None in regression."""
    beside: dict[str, float]
    """Scores on the same tasks: of the nearest centroid; of the best possible answers, where they are known."""
    chosen: str
    """Fields and rate, in words."""
    adapt: float
    """Milliseconds of CPU time to adapt to one task and answer its queries."""
    train: float = 0.0
    """CPU-seconds of meta-training, without those of choosing; it is the same for both numbers of shots."""
    memory: float = 0.0
    """Megabytes that a step of meta-training and adapting to a task add, at the worst moment."""
    seconds: float = 0.0
    """Half of everything, by the clock."""


@dataclass(frozen=True)
class Choice:
    """A learner with its fields, and the outer rate."""

    learner: MetaLearner
    fields: Mapping[str, Any]
    rate: float = OUTER[0]
    words: str = field(default="", compare=False)


def measured(job: Job) -> list[Cell]:
    """All of one learner on one kind of task, the fewest shots first."""
    torch.set_num_threads(1)
    kind, learner = kind_of(job.kind, job.data), getattr(quickstudy.learners, job.learner)
    asked = setting(learner, numbers=not isinstance(kind.objective, Classify))
    began = time.perf_counter()
    peak = _memory(kind, learner, asked, job)  # first of all, see above
    number = 20 if job.quick else CHOSEN
    few, valid = (_tasks(kind, VALID, shots, number, job.seed + 1, learner) for shots in kind.shots)
    choice = _chosen(kind, learner, asked, valid, job)
    steps = 5 if job.quick else kind.steps
    while (found := _lasting(kind, choice, asked, steps, [*few, *valid], job)) is None:
        # What did well in a short run may diverge in the long one.
        if choice.rate < LEAST:
            raise ModelError(
                f"{job.learner} diverges on {job.kind} at every outer rate down to {choice.rate:g}."
            )
        choice = replace(choice, rate=choice.rate / 3, words=f"{choice.words} diverged, a third of it")
    meta, train = found
    cells = [_cell(kind, choice, meta, shots, job) for shots in kind.shots]
    took = time.perf_counter() - began
    return [replace(cell, train=train, memory=peak, seconds=took / len(cells)) for cell in cells]


def _make(kind: Kind, learner: type[MetaLearner], asked: Setting, given: Mapping[str, Any]) -> MetaLearner:
    fields = {name: value for name, value in given.items() if name != HIDDEN}
    nets = kind.nets(given.get(HIDDEN, ()))
    return built(learner, kind.objective, nets, **{**asked.fixed, **kind.own_fields(learner), **fields})


def _chosen(kind: Kind, learner: type[MetaLearner], asked: Setting, valid: list[Episode], job: Job) -> Choice:
    """The learner's fields first, then the outer rate: each the best on validation tasks after a short training."""
    found: dict[tuple[int, float], float] = {}

    def value(number: int, rate: float) -> float:
        if (number, rate) not in found:
            one = _make(kind, learner, asked, asked.tried[number])
            found[number, rate] = -float("inf")
            with suppress(DivergedError):
                meta, _ = _taught(kind, one, asked, 2 if job.quick else SHORT, rate, job.seed)
                score = float(_scores(kind, one, meta, valid).mean())
                found[number, rate] = score if score == score else -float("inf")
        return found[number, rate]

    best, rate, one = 0, OUTER[0], _make(kind, learner, asked, asked.tried[0])
    if len(asked.tried) > 1:
        best = max(range(len(asked.tried)), key=lambda number: value(number, rate))
    if trains := bool(one.trainable(one.init(job.seed))):
        rate = max(OUTER, key=lambda rate: value(best, rate))
    given = asked.tried[best]
    words = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in given.items()
    ]
    words += [f"outer rate {rate:g}"] if trains else []
    return Choice(_make(kind, learner, asked, given), given, rate, ", ".join(words))


def _cell(kind: Kind, choice: Choice, meta: Meta, shots: int, job: Job) -> Cell:
    learner, number = choice.learner, 20 if job.quick else JUDGED
    test = _tasks(kind, TEST, shots, number, job.seed + 2, type(learner))
    scores, gain, beside = _scores(kind, learner, meta, test), None, {}
    if isinstance(kind.objective, Classify):
        same = kind.flat is None  # drawing takes longer than judging
        flat = test if same else _tasks(kind, TEST, shots, number, job.seed + 2, Centroid)
        centroid = evaluate(Centroid(objective=kind.objective), {}, flat).score
        gain, beside["Centroid"] = paired(scores, centroid), float(centroid.mean())
    else:
        scores = -scores  # the squared error
    if kind.bayes is not None:
        best = [kind.objective.score(kind.bayes(batch), batch.query) for batch in test]
        beside["Bayes"] = float(torch.cat(best).mean())
    one = next(iter(unstack(test[0])))
    quickest = min(_seconds(lambda: _answer(learner, meta, one)) for _ in range(REPEATS)) * 1e3
    return Cell(shots, Estimate.of(scores), gain, beside, choice.words, quickest)


def _scores(kind: Kind, learner: MetaLearner, meta: Meta, tasks: list[Episode]) -> Float[Tensor, "tasks"]:
    scores = evaluate(learner, meta, tasks).score
    return scores.where(~scores.isnan(), -kind.worst).clamp(min=-kind.worst)


def _lasting(
    kind: Kind, choice: Choice, asked: Setting, steps: int, valid: list[Episode], job: Job
) -> tuple[Meta, float] | None:
    """What `_taught` gives; None if training diverges, or leaves validation tasks without an answer."""
    try:
        meta, train = _taught(kind, choice.learner, asked, steps, choice.rate, job.seed)
    except DivergedError:
        return None
    return (meta, train) if evaluate(choice.learner, meta, valid).loss.isfinite().all() else None


def _taught(
    kind: Kind, learner: MetaLearner, asked: Setting, steps: int, rate: float, seed: int
) -> tuple[Meta, float]:
    """What past tasks teach, and the CPU-seconds that it took; drawing them doesn't count."""
    meta, past = learner.init(seed), kind.past(seed) if hasattr(learner, "estimate") else []
    sample = cache(_sample(kind, TRAIN, _shape(kind, asked), seed, type(learner)))
    trains = bool(learner.trainable(meta))
    for step in range(steps if trains else 0):
        sample(step)
    start = time.process_time()
    if hasattr(learner, "estimate"):
        meta = learner.estimate(past)  # pyright: ignore[reportAttributeAccessIssue]
    if trains:
        for step in meta_train(learner, sample, steps=steps, rate=rate, decay=True, seed=seed, meta=meta):
            meta = step.meta
    return meta, time.process_time() - start


def _memory(kind: Kind, learner: type[MetaLearner], asked: Setting, job: Job) -> float:
    one = _make(kind, learner, asked, asked.tried[0])
    meta, past = one.init(job.seed), kind.past(job.seed) if hasattr(one, "estimate") else []

    def use(tasks: int, past: list[Labelled]) -> Callable[[], None]:
        sample = _sample(kind, TRAIN, replace(_shape(kind, asked), tasks=tasks), job.seed, learner)(0)
        new = next(iter(unstack(sample)))

        def compute() -> None:
            if past:
                one.estimate(past)  # pyright: ignore[reportAttributeAccessIssue]
            if one.trainable(meta):
                meta_gradient(one, meta, sample)
            _answer(one, meta, new)

        return compute

    use(1, [])()  # libraries load on first use
    return peak_added(use(TASKS, past))


def _shape(kind: Kind, asked: Setting) -> Shots:
    return Shots(shots=asked.shots or kind.shots, queries=QUERIES, tasks=TASKS)


def _tasks(
    kind: Kind,
    part: int,
    shots: int,
    number: int,
    seed: int,
    learner: type[MetaLearner],
) -> list[Episode]:
    sample = _sample(kind, part, Shots(shots=shots, queries=QUERIES, tasks=min(BATCH, number)), seed, learner)
    return [sample(step) for step in range(number // min(BATCH, number))]


def _sample(kind: Kind, part: int, shape: Shots, seed: int, learner: type[MetaLearner]) -> Sample:
    """Inputs as vectors where the learner has no network."""
    sample, flat = kind.draw(part, shape, seed), kind.flat
    if flat is None or "net" in learner.__dataclass_fields__ or learner.__name__ == "Pool":
        return sample

    def flattened(step: int) -> Episode:
        return Episode(*(part._replace(x=flat(part.x)) for part in sample(step)))

    return flattened


def _answer(learner: MetaLearner, meta: Meta, episode: Episode) -> Tensor:
    return predict(learner, meta, adapt(learner, meta, episode.support), episode.query.x)


def _seconds(compute: Callable[[], Any]) -> float:
    start = time.process_time()
    compute()
    return time.process_time() - start
