"""What past tasks are worth: a prior from nine domains of CLINC150, used on the tenth.

python examples/own_experience.py [ENCODER]        the default, "tiny", takes seconds; "minilm" is the real thing
"""

import sys

import torch

from quickstudy import (
    Centroid,
    Classify,
    Estimate,
    Examples,
    MetaDataset,
    Shots,
    evaluate,
    load_encoder,
    paired,
)
from quickstudy.data import sample
from quickstudy.domains.text.learn import learn

ENCODER = sys.argv[1] if len(sys.argv) > 1 else "tiny"
NEW = "banking"

rows = [row for i, row in enumerate(sample("clinc150")) if i % 40 < 20]  # half of each intent, to be quick
past = [
    Examples(
        [r["text"] for r in rows if r["domain"] == d],
        [r["label"] for r in rows if r["domain"] == d],
        source=d,
    )
    for d in sorted({r["domain"] for r in rows} - {NEW})
]
prior = learn(past, encoder=ENCODER)

new = [r for r in rows if r["domain"] == NEW]
classes = tuple(sorted({r["label"] for r in new}))
data = MetaDataset(
    load_encoder(ENCODER).encode([r["text"] for r in new]),
    y=torch.tensor([classes.index(r["label"]) for r in new]),
    classes=classes,
)
tasks = data.sampler(Shots(ways=5, shots=1, queries=10, tasks=50), seed=0)
frozen = evaluate(Centroid(objective=Classify(ways=5)), {}, map(tasks, range(4))).score
ours = evaluate(prior.for_ways(5), prior.meta, map(tasks, range(4))).score
print(f"{NEW}, 5 intents, 1 example each, {len(ours)} tasks, encoder {ENCODER}")
print(f"frozen + centroid  {Estimate.of(frozen)} % right")
print(f"learned prior      {Estimate.of(ours)} % right")
print(f"gain, paired       {paired(ours, frozen).text(sign=True)} points")
