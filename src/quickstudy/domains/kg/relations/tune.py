"""Tune an encoder for relations: low-rank adapters, episodes of earlier relations, from one data set each.

    L = mean_i  -log softmax_k( s · cos(z_i - μ, c_k - μ) )[y_i]

with z a pair's vector, c_k the mean of a relation's pairs without z_i itself, μ the mean of the episode's: the GE2E
loss of Wan et al. 2018, centred, as a classifier on these vectors is. Relations of one data set make harder episodes
than those of several. A relation turned round may stand beside the relation as one of its own (`turned`). Where
relations have names, each one's is among its pairs (`names.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from quickstudy.core.engine import meta_train
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.relations.pairs import Pair, default_layers, marked, pack
from quickstudy.encoders.text import TextEncoder, resolve_dtype
from quickstudy.learners import GE2E
from quickstudy.nets.lora import Adapter, LoRA
from quickstudy.nets.span_bert import HEAD, TAIL, SpanBert

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss)."""


class Earlier(NamedTuple):
    """A data set of earlier relations."""

    pairs: Sequence[Pair]
    labels: Sequence[str | None]
    """None says that a pair isn't related."""
    weight: float = 1.0
    """How often episodes come from it."""
    named: Mapping[str, Pair] | None = None
    """What the name of each relation makes (`names.named`); None where relations have none."""

    def names(self, relations: Iterable[str]) -> list[Pair]:
        """What the names of these relations make, or nothing. Raises DataError where one of them alone has none."""
        if self.named is None:
            return []
        relations = list(relations)
        if lost := [relation for relation in relations if relation not in self.named]:
            raise DataError(
                f"named={{…}} has no {lost[0]!r}, which is a label. Name every relation, or none: named=None."
            )
        return [self.named[relation] for relation in relations]


@dataclass(frozen=True, kw_only=True)
class RelationTuning:
    """How an encoder is tuned for relations; chosen by FewRel's val_nyt, not met in tuning."""

    spec: LoRA | None = None
    """Which layers are adapted. None: query, value and the dense layers everywhere, at rank 8."""
    steps: int = 120
    rate: float = 1e-3
    warmup: int = 5
    weight_decay: float = 0.01
    ways: int = 10
    """Relations in an episode."""
    shots: int = 3
    """Pairs of each."""
    scale: float = 8.0
    """s."""
    turned: float = 0.0
    """How often one of an episode's relations stands in both directions; not tried on held-out relations yet."""
    naming: float = 0.5
    """How often relations' names are among an episode's pairs: always, and those without names suffer."""
    most: int = 40
    """Pairs of a relation, at most."""
    context: int = 110
    """Characters read on either side of a pair while tuning."""
    dtype: str | None = None
    """Of the products in the encoder: None is the faster on this machine, "float32" the same on every machine."""


def tune_relations(
    earlier: Sequence[Earlier],
    encoder: TextEncoder,
    tuning: RelationTuning | None = None,
    *,
    seeds: Sequence[int] = (0,),
    progress: Progress | None = None,
) -> Adapter:
    """Tune adapters; of several seeds, the mean of their effects is kept where it fits into one of the same rank.

    Args:
        earlier: data sets of earlier relations.
        seeds: of the episodes and the adapter's start; runs begin at the first seed's start, so that they can be
            averaged.

    Raises:
        DataError: no data set with two relations of `shots` pairs.
    """
    tuning = tuning or RelationTuning()
    base = encoder.frozen
    depth = base.weights.config.num_hidden_layers
    spec = tuning.spec or LoRA(rank=8, targets=("query", "value", "dense"), layers=tuple(range(depth)))
    net, start = _network(base, spec, tuning, seeds[0])
    sets = [found for one in earlier if (found := _prepared(one, net, base, tuning)) is not None]
    if not sets:
        raise DataError(f"No data set of earlier relations has two with {tuning.shots} pairs each.")
    runs = []
    for seed in seeds:
        learner = GE2E(objective=Classify(ways=tuning.ways), net=net, temperature=1 / tuning.scale)
        meta = {name: value.detach().clone() for name, value in start.items()}
        run = meta_train(
            learner, _sampler(sets, tuning, seed), steps=tuning.steps, rate=tuning.rate, warmup=tuning.warmup,
            weight_decay=tuning.weight_decay, decay=True, seed=seed, meta=meta, form="loop",
        )  # fmt: skip
        for step in run:
            meta = step.meta
            if progress is not None:
                progress(step.number, tuning.steps, step.loss)
        runs.append(meta)
    mean = {name: torch.stack([run[name] for run in runs]).mean(0) for name in start}
    # As a file will hold it, so that what is used now and what is loaded later are the same.
    return Adapter(spec, {name: value.half().float() for name, value in mean.items()}, base=base.identity)


class _Set(NamedTuple):
    x: Tensor
    rows: list[Int[np.ndarray, " m"]]
    """Of each relation; where they have names, the name's first."""
    weight: float
    named: bool


def _network(base: TextEncoder, spec: LoRA, tuning: RelationTuning, seed: int) -> tuple[SpanBert, Meta]:
    mixed = resolve_dtype(tuning.dtype) is torch.bfloat16
    # Cast once here: autocast would cast frozen weights anew in every pass.
    state = {
        name: tensor.bfloat16() if mixed and tensor.ndim == 2 and name.startswith("encoder.") else tensor
        for name, tensor in base.weights.state.items()
    }
    net = SpanBert.load(base.weights.config, state, base.weights.source)
    net.mixed, net.layers, net.centred = mixed, default_layers(base), True
    net.start = min(spec.first, *net.layers)
    return spec.attach(net, seed=seed)


def _prepared(one: Earlier, net: SpanBert, base: TextEncoder, tuning: RelationTuning) -> _Set | None:
    """The states below the tuned layers, of the first pairs of each relation that has enough."""
    seen: dict[str, list[int]] = {}
    for row, label in enumerate(one.labels):
        if label is not None and len(seen.setdefault(label, [])) < tuning.most:
            seen[label].append(row)
    seen = {label: rows for label, rows in seen.items() if len(rows) >= tuning.shots}
    if len(seen) < 2:
        return None
    names = one.names(seen)
    pairs = []
    for number, rows in enumerate(seen.values()):
        pairs += names[number : number + 1]
        pairs += [_cropped(one.pairs[row], tuning.context) for row in rows]
    ends = np.cumsum([bool(names) + len(rows) for rows in seen.values()])
    x = pack(base, pairs)
    lengths = (x[..., 0] > 0).sum(-1)
    states = torch.zeros(*x.shape[:2], base.dim + 1, dtype=torch.float16)
    for rows in lengths.argsort().split(32):
        width = int(lengths[rows].max())
        states[rows, :width] = net.below(x[rows, :width])
    return _Set(states, np.split(np.arange(len(pairs)), ends[:-1]), one.weight, bool(names))


def _cropped(pair: Pair, context: int) -> Pair:
    start = max(0, min(pair.head[0], pair.tail[0]) - context)
    end = min(len(pair.text), max(pair.head[1], pair.tail[1]) + context)
    return marked(pair.text, pair.head, pair.tail, start, end)


def _sampler(sets: Sequence[_Set], tuning: RelationTuning, seed: int) -> Callable[[int], Episode]:
    chance = np.array([one.weight for one in sets])

    def sample(step: int) -> Episode:
        rng = np.random.default_rng([seed, step])
        one = sets[rng.choice(len(sets), p=chance / chance.sum())]
        ways = min(tuning.ways, len(one.rows))
        relations = rng.choice(len(one.rows), ways, replace=False)
        names = int(one.named and rng.random() < tuning.naming)
        drawn = [
            [*own[:names], *rng.choice(own[one.named :], tuning.shots, replace=False)]
            for own in (one.rows[c] for c in relations)
        ]
        rows, each = np.concatenate(drawn), tuning.shots + names
        y = torch.arange(ways).repeat_interleave(each)
        x = one.x[torch.from_numpy(rows)]
        if tuning.turned and rng.random() < tuning.turned:
            # The last relation gives way to the first one turned round.
            x[y == ways - 1] = _turned(x[y == 0])
        width = int((x[..., -1] != 0).sum(-1).max())
        x = x[:, :width].float()
        last = torch.arange(len(y)) % each == each - 1
        episode = Episode(Labelled.of(x[~last], y[~last]), Labelled.of(x[last], y[last]))
        return stack([episode])

    return sample


def _turned(x: Tensor) -> Tensor:
    """Head and tail exchanged in packed states."""
    x = x.clone()
    roles = x[..., -1].long()
    turned = (roles & ~(HEAD | TAIL)) + TAIL * (roles & HEAD > 0) + HEAD * (roles & TAIL > 0)
    x[..., -1] = turned.to(x.dtype)
    return x
