"""MAML on a network of one's own, with batch norm and dropout.

    python examples/own_module.py

Two runs end at the same numbers: what dropout drops is drawn from the step's seed.
"""

import torch
from torch import nn

from quickstudy import MAML, Classify, Estimate, Shots, evaluate, meta_train
from quickstudy.domains.synthetic import GaussianClasses

torch.manual_seed(0)  # a module draws its own weights, when it is made
network = nn.Sequential(
    nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5),
)  # fmt: skip
tasks = GaussianClasses(dim=16)
sample = tasks.sampler(Shots(ways=5, shots=5, queries=15, tasks=8), seed=0)
test = [tasks.sampler(Shots(ways=5, shots=5, queries=15, tasks=50), seed=1)(step) for step in range(4)]
learner = MAML(objective=Classify(ways=5), net=network, steps=3, rate=0.1)
found = []
for _ in range(2):
    meta = learner.init()
    found.append([str(Estimate.of(evaluate(learner, meta, test).score))])
    for step in meta_train(learner, sample, steps=60, rate=3e-3):
        meta = step.meta
    found[-1].append(str(Estimate.of(evaluate(learner, meta, test).score)))
print("before, after:", *found[0])
print("the same twice:", found[0] == found[1])
