"""MAML's own example: regress a sinusoid of unknown amplitude and phase from ten points.

    python examples/sinusoids.py

Finn, Abbeel & Levine 2017, arXiv:1703.03400, section 5.1; fewer steps, so that it takes seconds.
"""

import math

import torch

from quickstudy import MAML, MLP, Episode, Estimate, Labelled, Regress, evaluate, meta_train


def sinusoids(step: int, tasks: int = 25, points: int = 10) -> Episode:
    """Batch number `step`, always the same one."""
    draw = torch.Generator().manual_seed(step)
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=draw)
    phase = math.pi * torch.rand(tasks, 1, 1, generator=draw)

    def part() -> Labelled:
        x = 10 * torch.rand(tasks, points, 1, generator=draw) - 5
        return Labelled(x, amplitude * torch.sin(x - phase), torch.ones(tasks, points, dtype=torch.bool))

    return Episode(part(), part())


def error(learner: MAML, meta: dict) -> Estimate:
    """Squared error after adapting, on tasks that training never draws."""
    return Estimate.of(evaluate(learner, meta, map(sinusoids, range(10_000, 10_010))).loss)


learner = MAML(objective=Regress(), net=MLP(inputs=1, outputs=1, hidden=(40, 40)), steps=1, rate=0.01)
meta = learner.init(0)
print("before:", error(learner, meta))
for step in meta_train(learner, sinusoids, steps=200, rate=1e-2):
    meta = step.meta
print("after: ", error(learner, meta))
