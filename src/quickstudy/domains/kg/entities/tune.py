"""Tuning the encoder and two linear heads on labelled sentences of many corpora (what past fields taught) or of one.

For each corpus c, words get B, I or O by  (W + Δ_c) h + b,  where W is shared and Δ_c is drawn to zero: so W is the
prior mean that the detector of a new corpus starts from. Spans get their type among the corpus's own by the cosine
of their mean state to a learned vector of each type. Low-rank adapters and the vectors of word shapes follow both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.core.spec import Spec
from quickstudy.domains.kg.entities.words import Sentence, batch_of
from quickstudy.nets.lora import LoRA
from quickstudy.nets.word_bert import WordBert

SCALE = 16.0
"""What cosines are multiplied by to be logits."""
B, I, O = 0, 1, 2  # noqa: E741


@dataclass(frozen=True)
class Labelled:
    """Sentences of one corpus with the spans in each: first word, last + 1, number of the type."""

    sentences: Sequence[Sentence]
    spans: Sequence[Sequence[tuple[int, int, int]]]
    ways: int
    partial: bool = False
    """Whether some entities aren't marked: then it teaches types alone."""


@dataclass(frozen=True, kw_only=True)
class Tuning(Spec):
    """How long and how fast."""

    spec: LoRA = field(
        default_factory=lambda: LoRA(
            rank=16, alpha=32.0, targets=("query", "key", "value", "dense"), layers=(0, 1, 2, 3, 4, 5)
        )
    )
    below: int = 0
    """Adapters of the layers below this, and the vectors of shapes where it is above 0, stay as they are."""
    steps: int = 600
    batch: int = 16
    """Sentences a step, of one corpus."""
    rate: float = 1e-3
    """AdamW's, at its highest; it rises over a tenth of the steps and falls to zero."""
    head_rate: float = 3e-3
    """The same for both heads and for shapes."""
    decay: float = 0.01
    own: float = 0.1
    """How strongly Δ_c is drawn to zero."""
    typing: float = 1.0
    """Weight of the loss of types beside that of words."""
    dropout: float = 0.1
    """Share of states that are dropped before both heads."""


@dataclass
class Heads:
    """The detector's weights, shared and of each corpus, and the vectors of each corpus's types."""

    detector: Float[Tensor, "3 dim_and_one"]
    own: list[Float[Tensor, "3 dim_and_one"]]
    types: list[Float[Tensor, "ways dim"]]

    @classmethod
    def zero(cls, dim: int, tasks: Sequence[Labelled]) -> "Heads":
        zero = torch.zeros(3, dim + 1)
        return cls(zero.clone(), [zero.clone() for _ in tasks], [torch.zeros(t.ways, dim) for t in tasks])


def tags(sentence: int, spans: Sequence[tuple[int, int, int]]) -> Int[Tensor, " word"]:
    """B, I or O for each of a sentence's words; where spans overlap, the longest counts."""
    found = torch.full((sentence,), O)
    for start, end, _ in sorted(spans, key=lambda s: s[1] - s[0]):
        found[start:end] = I
        found[start] = B
        if end < sentence and found[end] == I:  # what is left of a shorter one
            found[end] = B
    return found


def pooled(states: Float[Tensor, "word dim"], spans: Sequence[tuple[int, int]]) -> Float[Tensor, "span dim"]:
    """The mean state of each span's words."""
    total = F.pad(states.cumsum(0), (0, 0, 1, 0))
    start, end = (torch.tensor([s[i] for s in spans], dtype=torch.long) for i in (0, 1))
    return (total[end] - total[start]) / (end - start).unsqueeze(-1)


def features(
    states: Float[Tensor, "word dim"], spans: Sequence[tuple[int, int]]
) -> Float[Tensor, "span dim"]:
    """What types are told by: the mean state of each span's words, of length 1."""
    return F.normalize(pooled(states, spans), dim=-1)


def with_one(states: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim_and_one"]:
    """States with a last feature of 1, which weighs a bias."""
    return F.pad(states, (0, 1), value=1.0)


def loss(
    network: WordBert, heads: Heads, task: Labelled, number: int, rows: Sequence[int], tuning: Tuning
) -> Float[Tensor, ""]:
    """That of some sentences of the corpus with this number."""
    states = F.dropout(network(batch_of([task.sentences[r] for r in rows])), tuning.dropout)
    total = states.new_zeros(())
    if not task.partial:
        logits = with_one(states) @ (heads.detector + heads.own[number]).t()
        truth = torch.full(logits.shape[:2], -100)
        for i, row in enumerate(rows):
            truth[i, : len(task.sentences[row])] = tags(len(task.sentences[row]), task.spans[row])
        total = total + F.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=-100)
        total = total + tuning.own * heads.own[number].pow(2).sum()
    found = [
        pooled(states[i], [s[:2] for s in task.spans[row]]) for i, row in enumerate(rows) if task.spans[row]
    ]
    if found and task.ways > 1 and tuning.typing:
        kind = torch.tensor([s[2] for row in rows for s in task.spans[row]])
        cosines = F.normalize(torch.cat(found), dim=-1) @ F.normalize(heads.types[number], dim=-1).t()
        total = total + tuning.typing * F.cross_entropy(SCALE * cosines, kind)
    return total


@torch.random.fork_rng(devices=[])
def tune(
    network: WordBert,
    parameters: dict[str, Tensor],
    heads: Heads,
    tasks: Sequence[Labelled],
    tuning: Tuning,
    *,
    weights: Sequence[float] = (),
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Change the network's parameters and the heads in place, by AdamW. The caller's random state stays as it is.

    Args:
        weights: how often each corpus is drawn; by default by the root of its number of sentences.
        progress: called with each step's number and loss.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # of dropout, which takes no other; put back at the end
    shares = torch.tensor(list(weights) or [math.sqrt(len(t.sentences)) for t in tasks])
    for value in (heads.detector, *heads.own, *heads.types):
        value.requires_grad_(True)
    shapes = [] if tuning.below else [parameters["shapes"]]
    low_rank = []
    for name, value in parameters.items():
        if name != "shapes" and int(name.split(".")[2]) >= tuning.below:
            low_rank.append(value)
        elif tuning.below:
            value.requires_grad_(False)
    alone = [heads.detector] if len(tasks) == 1 else [heads.detector, *heads.own]
    optimiser = torch.optim.AdamW(
        [
            {"params": low_rank, "lr": tuning.rate},
            {"params": [*alone, *heads.types, *shapes], "lr": tuning.head_rate, "weight_decay": 0.0},
        ],
        weight_decay=tuning.decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda k: min(1.0, (k + 1) / (0.1 * tuning.steps + 1), (tuning.steps - k) / (0.9 * tuning.steps)),
    )
    waiting: list[list[list[int]]] = [[] for _ in tasks]
    for step in range(tuning.steps):
        number = int(torch.multinomial(shares, 1, generator=generator))
        task = tasks[number]
        if not waiting[number]:
            waiting[number] = _pass(task.sentences, tuning.batch, generator)
        rows = waiting[number].pop()
        value = loss(network, heads, task, number, rows, tuning)
        if value.requires_grad:
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
            optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, float(value.detach()))
    for value in (heads.detector, *heads.own, *heads.types, *parameters.values()):
        value.requires_grad_(False)


def _pass(sentences: Sequence[Sentence], size: int, generator: torch.Generator) -> list[list[int]]:
    """Batches of row numbers, each row once, by chance; within groups of eight batches, like lengths together."""
    order = torch.randperm(len(sentences), generator=generator).tolist()
    found = []
    for begin in range(0, len(order), 8 * size):
        group = sorted(order[begin : begin + 8 * size], key=lambda row: len(sentences[row].ids))
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]
