"""learners.8: Gaussian classes, whose best possible answer is known. How far from it does each learner stay?

The same family, tasks and steps for all. What learns by gradient learns from tasks of the shape that it is judged on;
the closed-form prior learner estimates its covariances from past data sets and then learns its logits' scale so.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from quickstudy.bench.classic_train import Run
from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import evaluate, meta_train
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.synthetic import GaussianClasses
from quickstudy.learners import (
    ANIL,
    GE2E,
    MAML,
    Centroid,
    FineTune,
    Gaussian,
    Logistic,
    Prototypical,
    Reptile,
    Ridge,
)
from quickstudy.nets import MLP

WAYS, TASKS = 5, 50
STEPS = 1000
"""Of meta-training, of what learns by gradient alone."""
FAMILY = GaussianClasses()
OURS = "Gaussian"
CLASSIFY = Classify(ways=WAYS)
PAST = Shots(ways=20, shots=20, queries=1, tasks=1)
"""The shape of a past data set."""


class Recipe(NamedTuple):
    """A learner and the outer rate that it is meta-trained at."""

    learner: MetaLearner
    rate: float = 0.003


def recipes() -> dict[str, Recipe]:
    """Every learner, each with a network that suits the task: a linear embedding, or two layers of 64."""
    linear = MLP(inputs=FAMILY.dim, outputs=FAMILY.dim, hidden=())
    deep = MLP(inputs=FAMILY.dim, outputs=WAYS, hidden=(64, 64))
    shared: dict[str, Any] = {"objective": CLASSIFY}
    return {
        OURS: Recipe(
            # Past classes are many and Gaussian indeed, so that covariances need no shrinking.
            Gaussian(**shared, dim=FAMILY.dim, unit=False, within_strength=1.0, between_strength=1.0),
            rate=0.05,
        ),
        "Prototypical": Recipe(Prototypical(**shared, net=linear), rate=0.01),
        "GE2E": Recipe(GE2E(**shared, net=linear), rate=0.01),
        "Ridge": Recipe(Ridge(**shared, net=linear), rate=0.01),
        "MAML": Recipe(MAML(**shared, net=deep)),
        "ANIL": Recipe(ANIL(**shared, net=deep)),
        "Reptile": Recipe(Reptile(**shared, net=deep)),
        "FineTune": Recipe(FineTune(**shared, net=deep)),
        "Logistic": Recipe(Logistic(**shared)),
        "Centroid": Recipe(Centroid(**shared)),
    }


class Risk(NamedTuple):
    """Of each task: wrong answers in percent, and the loss in nats."""

    wrong: Float[Tensor, "tasks"]
    nats: Float[Tensor, "tasks"]


def excess(run: Run) -> list[dict[str, Any]]:
    """Excess risk over Bayes of every learner, at one and at five examples a class."""
    rows, quick, seed, show = [], run.quick, run.seed, run.show
    for place, shots in enumerate((1, 5), 1):
        clock = Clock()
        shape = Shots(ways=WAYS, shots=shots, queries=15, tasks=TASKS)
        sample = FAMILY.sampler(shape, seed + 1)
        test = [sample(step) for step in range(1 if quick else 20)]
        best = _bayes(test)
        risks: dict[str, Risk] = {}
        for name, recipe in recipes().items():
            risks[name] = _risk(recipe, shape, test, quick, seed)
            show(
                f"{shots}-shot {name}: +{paired(risks[name].wrong, best.wrong).text(2)} points, {clock.seconds:.0f} s"
            )
        show(_table(risks, best, shots))
        rows.append(_row(f"learners.8.{place}", risks, best, shots, seed, clock.seconds))
    return rows


def _bayes(test: list[Episode]) -> Risk:
    answers = [FAMILY.bayes(episode.support, episode.query.x, WAYS) for episode in test]
    told = list(zip(answers, test, strict=True))
    return Risk(
        torch.cat([100 - CLASSIFY.score(answer, episode.query) for answer, episode in told]),
        torch.cat([CLASSIFY.loss(answer, episode.query) for answer, episode in told]),
    )


def _risk(recipe: Recipe, shape: Shots, test: list[Episode], quick: bool, seed: int) -> Risk:
    learner, rate = recipe
    meta: Meta = learner.init(seed)
    if isinstance(learner, Gaussian):
        past = FAMILY.sampler(PAST, seed + 2)
        tasks = [Labelled(*(t[0] for t in past(step).support)) for step in range(20 if quick else 500)]
        meta = learner.estimate(tasks)
    if learner.trainable(meta):
        steps = 5 if quick else 200 if isinstance(learner, Gaussian) else STEPS
        sample = FAMILY.sampler(replace(shape, tasks=16), seed)
        for step in meta_train(learner, sample, steps=steps, rate=rate, decay=True, seed=seed, meta=meta):
            meta = step.meta
    scores = evaluate(learner, meta, test)
    return Risk(100 - scores.score, scores.loss)


def _table(risks: dict[str, Risk], best: Risk, shots: int) -> Table:
    said = f"Bayes errs in {Estimate.of(best.wrong).text(2)}% and loses {float(best.nats.mean()):.4f} nats"
    table = Table("", "excess error, points", "excess loss, nats", title=f"{WAYS}-way {shots}-shot; {said}")
    for name, risk in sorted(risks.items(), key=lambda item: float(item[1].wrong.mean())):
        table.add_row(
            name,
            paired(risk.wrong, best.wrong).text(2, sign=True),
            paired(risk.nats, best.nats).text(4, sign=True),
        )
    return table


def _row(
    id: str, risks: dict[str, Risk], best: Risk, shots: int, seed: int, seconds: float
) -> dict[str, Any]:
    ours = risks[OURS]
    nats = paired(ours.nats, best.nats)
    return plain(
        id,
        paired(ours.wrong, best.wrong),
        unit="points",
        command="",
        seconds=seconds,
        seeds=[seed],
        baselines={
            name: round(float((risk.wrong - best.wrong).mean()), 3) for name, risk in risks.items() if name != OURS
        },
        note=f"{WAYS}-way {shots}-shot, {FAMILY.dim} features; excess of wrong answers over Bayes, who errs in "
        f"{Estimate.of(best.wrong).text(2)}% and loses {float(best.nats.mean()):.4f} nats; the prior's excess loss is "
        f"{nats.text(4, sign=True)} nats; 500 past data sets of 20 classes for the prior, {STEPS:,} steps of 16 tasks "
        "for the others",
    )  # fmt: skip
