"""What past types teach the learners that tell types: how spans of one type scatter, and where steps should start.

Each past corpus is a pool of spans of its types; a task is some of its types with a few spans of each.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quickstudy.core.engine import meta_train
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.entities import tune
from quickstudy.domains.kg.entities.tune import features
from quickstudy.domains.kg.entities.words import states
from quickstudy.learners import Gaussian, ProtoMAML
from quickstudy.nets.mlp import MLP
from quickstudy.nets.word_bert import WordBert

SPANS = 40
"""At most so many spans of each type."""
WAYS, QUERIES, TASKS = 10, 5, 8
"""Types at most, queries of each, and tasks a batch."""
SHOTS = (1, 2, 5, 10)
STEPS, RATE = 200, 1e-3
"""Of meta-training."""
LENGTH = 4.0
"""Features of length 1 are multiplied by this to begin with, so that the logits of prototypes are of use."""


def pools_of(net: WordBert, tasks: Sequence[tune.Labelled], seed: int) -> list[Labelled]:
    """For each corpus the features of spans of the types that have two or more; corpora of one type are left out."""
    generator = torch.Generator().manual_seed(seed)
    pools = []
    for task in tasks:
        count = [0] * task.ways
        chosen: dict[int, list[tuple[int, int, int]]] = {}
        for row in torch.randperm(len(task.sentences), generator=generator).tolist():
            for span in task.spans[row]:
                if count[span[2]] < SPANS:
                    count[span[2]] += 1
                    chosen.setdefault(row, []).append(span)
        if not chosen:
            continue
        seen = states(net, [task.sentences[row] for row in chosen])
        x = torch.cat([features(s, [f[:2] for f in o]) for s, o in zip(seen, chosen.values(), strict=True)])
        y = torch.tensor([s[2] for spans in chosen.values() for s in spans])
        often = torch.tensor([n > 1 for n in count])[y]
        if len(y[often].unique()) > 1:
            number = {int(k): i for i, k in enumerate(y[often].unique())}
            pools.append(Labelled.of(x[often], torch.tensor([number[int(k)] for k in y[often]])))
    return pools


def closed_form(pools: Sequence[Labelled], dim: int) -> tuple[Gaussian, Meta] | None:
    """The Gaussian learner with covariances from past types; None where there are none."""
    learner = Gaussian(objective=Classify(ways=2), dim=dim)
    return (learner, learner.estimate(list(pools))) if pools else None


def by_gradient(
    pools: Sequence[Labelled], dim: int, seed: int = 0, steps: int = STEPS
) -> tuple[ProtoMAML, Meta] | None:
    """Proto-MAML over a linear map of the features, meta-trained from the identity; None where there are no types."""
    if not pools:
        return None
    net = MLP(inputs=dim, outputs=dim, hidden=())
    learner = ProtoMAML(objective=Classify(ways=WAYS), net=net, steps=5, rate=0.01)
    meta = {
        k: LENGTH * torch.eye(dim) if v.ndim == 2 else torch.zeros(dim) for k, v in learner.init(seed).items()
    }
    for step in meta_train(
        learner,
        _sampler(pools, seed),
        steps=steps,
        rate=RATE,
        warmup=steps // 10,
        decay=True,
        clip=1.0,
        seed=seed,
        meta=meta,
    ):
        meta = step.meta
    return learner, meta


def _sampler(pools: Sequence[Labelled], seed: int) -> Callable[[int], Episode]:
    rows = [[(pool.y == k).nonzero().squeeze(1) for k in range(int(pool.y.max()) + 1)] for pool in pools]

    def sample(step: int) -> Episode:
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)

        def draw(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        shots = SHOTS[draw(len(SHOTS))]
        episodes = []
        for _ in range(TASKS):
            number = draw(len(pools))
            x, kinds = pools[number].x, rows[number]
            near, far = [], []
            order = torch.randperm(len(kinds), generator=generator)[:WAYS].tolist()
            for label, kind in enumerate(order):
                held = kinds[kind][torch.randperm(len(kinds[kind]), generator=generator)]
                known = min(shots, len(held) - 1)
                near += [(label, row) for row in held[:known].tolist()]
                far += [(label, row) for row in held[known : known + QUERIES].tolist()]
            episodes.append(Episode(_rows(x, near), _rows(x, far)))
        return stack(episodes)

    return sample


def _rows(x: Tensor, chosen: Sequence[tuple[int, int]]) -> Labelled:
    return Labelled.of(x[[row for _, row in chosen]], torch.tensor([label for label, _ in chosen]))
