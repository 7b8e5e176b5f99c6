"""learners.11: a network of one's own, with batch norm and dropout, under MAML: what it learns, and the same twice.

As `examples/own_module.py`. Everything that moves must be alike to the last bit: weights, losses, scores.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import evaluate, meta_train
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.synthetic import GaussianClasses
from quickstudy.learners import MAML

STEPS = 60
SHOTS = Shots(ways=5, shots=5, queries=15, tasks=8)


def network(seed: int) -> nn.Module:
    """What a user brings: nothing here is ours, batch norm is as torch makes it, and weights are as it draws them."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip


def same_twice(*, quick: bool, seed: int, show: Callable[[Any], None]) -> list[dict[str, Any]]:
    """learners.11: one row; its gain is over the network before meta-training."""
    clock, steps = Clock(), 3 if quick else STEPS
    (meta, losses, before, after), again = _run(steps, seed), _run(steps, seed)
    same = all(torch.equal(meta[name], again[0][name]) for name in meta)
    same = same and (losses == again[1]) and torch.equal(after, again[3])
    said = f"{Estimate.of(before)} before, {Estimate.of(after)} after {steps} steps of {SHOTS.tasks} tasks"
    show(f"A module of one's own: {said}; {'the same' if same else 'NOT the same'} twice")
    row = plain(
        "learners.11.1",
        Estimate.of([float(same)]),
        unit="yes/no",
        command="",
        seconds=clock.seconds,
        seeds=[seed],
        gain=(paired(after, before), "the network before meta-training"),
        note="A perceptron with torch's BatchNorm1d and dropout, MAML of 3 steps at .1; weights, losses and scores of "
        f"two runs compared bit by bit; Gaussian classes, 5-way 5-shot: {said}",
    )
    return [row]


def _run(steps: int, seed: int) -> tuple[Meta, list[float], Tensor, Tensor]:
    """What was learned, the losses on the way, and scores before and after."""
    tasks = GaussianClasses(dim=16)
    test = list(map(tasks.sampler(replace(SHOTS, tasks=50), seed + 1), range(4)))
    learner = MAML(objective=Classify(ways=5), net=network(seed), steps=3, rate=0.1)
    meta = learner.init(seed)
    before, losses = evaluate(learner, meta, test).score, []
    for step in meta_train(learner, tasks.sampler(SHOTS, seed), steps=steps, rate=3e-3, seed=seed):
        meta = step.meta
        losses.append(step.loss)
    return meta, losses, before, evaluate(learner, meta, test).score
