"""Stop a run of meta-training, go on with it, and end at the same numbers to the bit.

python examples/resume.py
"""

import tempfile
from pathlib import Path

import torch

from quickstudy import MLP, Classify, MetaDataset, Prototypical, Shots, meta_train
from quickstudy.core.checkpoint import load_state, save_state

draw = torch.Generator().manual_seed(0)
data = MetaDataset(
    x=torch.randn(400, 16, generator=draw) + torch.randn(20, 16, generator=draw).repeat_interleave(20, 0),
    y=torch.arange(20).repeat_interleave(20),
    classes=tuple(f"class {i}" for i in range(20)),
)
tasks = data.sampler(Shots(ways=5, shots=1, queries=5, tasks=8), seed=0)
learner = Prototypical(objective=Classify(ways=5), net=MLP(inputs=16, outputs=16, hidden=(32,)))

*_, whole = meta_train(learner, tasks, steps=40, decay=True)

with tempfile.TemporaryDirectory() as folder:
    place = Path(folder) / "checkpoint"
    for step in meta_train(learner, tasks, steps=40, decay=True):
        if step.number == 15:
            save_state(place, step.state(data="toy"))
            break
    state = load_state(place, {"data": "toy"})  # another fingerprint would be refused
*_, resumed = meta_train(learner, tasks, steps=40, decay=True, resume=state)
print(
    "resumed at step",
    state.step,
    "and ended equal:",
    all(torch.equal(resumed.meta[k], whole.meta[k]) for k in whole.meta),
)
