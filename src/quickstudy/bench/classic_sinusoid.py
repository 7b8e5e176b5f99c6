"""learners.7: sinusoids from five points, MAML with the settings of Finn et al. 2017, arXiv:1703.03400, section 5.1.

Their figures 3 and 6 are curves without numbers, so no number of theirs stands beside ours. What does: pre-training on
the same tasks, fine-tuned at its best rate; and the oracle, which is told amplitude and phase.

Where points lie close together far from zero, descent at the paper's rate is unstable, and after ten steps a task in
some hundreds is off by millions, for every method that descends. So that such a task counts as one and not as all, no
error counts for more than WORST, and notes say how many tasks reached it.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from quickstudy.bench.classic_train import Run, train
from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import evaluate
from quickstudy.core.episode import Episode
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Regress
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.synthetic import Sinusoids
from quickstudy.learners import MAML
from quickstudy.nets import MLP

STEPS = 70_000
PAPERS = Shots(shots=10, queries=10, tasks=25)
"""Of meta-training: the paper's K = 10, judged by ten more points; its batch of 25 is its code's."""
AFTER = (1, 5, 10)
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""That pre-training is fine-tuned at; the best one on other tasks counts."""
WORST = 50.0
"""The error of the answer that is furthest off among sinusoids: amplitude 5, opposite phase, 10² / 2."""


def network(inputs: int) -> MLP:
    """The paper's: two hidden layers of 40."""
    return MLP(inputs=inputs, outputs=1, hidden=(40, 40))


def sinusoids(run: Run) -> list[dict[str, Any]]:
    """Train MAML, pre-training and the oracle on the same tasks, and judge all three on the same new ones."""
    clock = Clock()
    steps, quick, seed = 50 if run.quick else run.steps or STEPS, run.quick, run.seed
    learner = MAML(objective=Regress(), net=network(1), steps=1, rate=0.01)
    blunt, told = (replace(learner, net=network(inputs), steps=0) for inputs in (1, 3))
    family, oracle = Sinusoids(), Sinusoids(told=True)

    def trained(name: str, kind: MAML, tasks: Sinusoids) -> Meta:
        return train(name, kind, tasks.sampler(PAPERS, seed), run, steps=steps, every=5000, shots=PAPERS)

    ours = trained("sinusoid-maml", learner, family)
    pretrained = trained("sinusoid-pretrained", blunt, family)
    knows = trained("sinusoid-oracle", told, oracle)

    found: dict[int, dict[int, dict[str, Tensor]]] = {}  # examples -> steps -> method -> errors of tasks
    rates: dict[int, float] = {}
    for shots in (5, 10, 20):
        test = _tasks(family, shots, seed + 1, quick)
        tuning = _tasks(family, shots, seed + 2, quick)
        found[shots] = {}
        for number in (0, *AFTER):
            best = min(
                RATES, key=lambda r: float(_errors(replace(blunt, steps=number, rate=r), pretrained, tuning).mean())
            )  # fmt: skip
            if shots == 5:
                rates[number] = best
            found[shots][number] = {
                "MAML": _errors(replace(learner, steps=number), ours, test),
                "pre-training, fine-tuned": _errors(
                    replace(blunt, steps=number, rate=best), pretrained, test
                ),
                "oracle": _errors(told, knows, _tasks(oracle, shots, seed + 1, quick)),
            }
    run.show(_table(found))
    return [
        _row(found, number, rates[number], i, steps, seed, clock.seconds) for i, number in enumerate(AFTER, 1)
    ]


def _tasks(family: Sinusoids, shots: int, seed: int, quick: bool) -> list[Episode]:
    sample = family.sampler(Shots(shots=shots, queries=50, tasks=100), seed)
    return [sample(step) for step in range(1 if quick else 20)]


def _errors(learner: MAML, meta: Meta, tasks: list[Episode]) -> Float[Tensor, "tasks"]:
    """The mean squared error of each task, at most WORST."""
    return evaluate(learner, meta, tasks).loss.nan_to_num(nan=WORST).clamp(max=WORST)


def _table(found: dict[int, dict[int, dict[str, Tensor]]]) -> Table:
    table = Table("examples", "steps", *found[5][1], title="Sinusoids, mean squared error")
    for shots, by_steps in found.items():
        for number, by_method in by_steps.items():
            errors = (Estimate.of(error).text(3) for error in by_method.values())
            table.add_row(str(shots), str(number), *errors)
    return table


def _row(
    found: dict[int, dict[int, dict[str, Tensor]]],
    number: int,
    rate: float,
    place: int,
    steps: int,
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    ours, rival, oracle = found[5][number].values()
    name = "pre-training, fine-tuned"
    others = ", ".join(
        f"{shots}-shot {Estimate.of(found[shots][number]['MAML']).text(3)}" for shots in found if shots != 5
    )
    lost, theirs = (int((errors == WORST).sum()) for errors in (ours, rival))
    return plain(
        f"learners.7.{place}",
        Estimate.of(ours),
        unit="MSE",
        command="",
        seconds=seconds,
        seeds=[seed],
        baselines={
            name: round(float(rival.mean()), 4),
            "oracle": round(float(oracle.mean()), 4),
            "MAML before any step": round(float(found[5][0]["MAML"].mean()), 4),
        },
        gain=(paired(rival, ours), name),
        note=f"{steps} steps of 25 tasks, 10-shot, α .01, 1 inner step, Adam .001, 2×40, as in the paper; its figures "
        "3 and 6 are curves without numbers; judged by 50 points a task; the gain is by how much the error is lower; "
        f"pre-training fine-tuned at rate {rate:g}, the best of {len(RATES)} on other tasks; an error counts for "
        f"{WORST:g} at most, which {lost} of {len(ours):,} tasks reach, and {theirs} of pre-training's; {others}",
    )
