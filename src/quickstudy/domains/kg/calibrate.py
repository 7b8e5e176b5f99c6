"""How probable a triple is, from how sure its parts are: its two mentions, and that the text relates them.

    P = σ(a + b logit(h t)) σ(c + d logit(r))

with h and t the probabilities of head and tail, and r that of the relation if both are right. The plain product takes
each part for as sure as it says; but mentions that the network was tuned on are surer than they should be. The four
numbers are learned on triples of other fields (`learn_calibration`); where a field has answers of its own, such as a
reviewer's, they move them, and from `MANY` on an isotonic step function follows them where no such law can.

Platt 1999; isotonic regression for probabilities: Zadrozny & Elkan 2002, by pool adjacent violators (Ayer et al. 1955).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

MANY = 400
"""So many own answers are followed by an isotonic step function."""
STRENGTH = 10.0
"""How strongly own answers have to pull: a few dozen of them count as much as other fields."""
CLIP = 1e-3
"""Probabilities nearer to 0 or 1 than this say no more."""


Weights = tuple[float, float, float, float]


class Answer(NamedTuple):
    """A triple whose truth is known: how sure its parts were, and whether it is right."""

    head: float
    tail: float
    relation: float
    right: bool


@dataclass(frozen=True)
class Calibration:
    """What makes a probability of three."""

    weights: Weights = (0.0, 1.0, 0.0, 1.0)
    """a to d; by default P is the product."""
    steps: tuple[tuple[float, float], ...] = ()
    """Of the isotonic function, if there is one: where each step begins, and its height."""

    def triple(self, head: float, tail: float, relation: float) -> float:
        """The probability that a triple is right, from 0 to 1. Mentions of probability 1 are given, and not doubted."""
        a, b, c, d = self.weights
        ends = 1.0 if head * tail == 1 else _sigmoid(a + b * _logit(head * tail))
        p = ends * _sigmoid(c + d * _logit(relation))
        return _step(self.steps, p) if self.steps else p

    def refined(self, answers: Sequence[Answer]) -> "Calibration":
        """Moved by a field's own answers: they must not be those that the model was learned from."""
        if not answers:
            return self
        weights = _fit(answers, self.weights, STRENGTH)
        moved = Calibration(weights)
        if len(answers) < MANY:
            return moved
        scored = sorted((moved.triple(*answer[:3]), answer.right) for answer in answers)
        return Calibration(weights, isotonic([p for p, _ in scored], [right for _, right in scored]))


LEAST = 0.15
"""Triples less probable than this aren't even for review. Where probabilities hold, most of F1 is found by saying all
from half of it on (Lipton et al. 2014, arXiv:1402.1892), and a few dozen labelled sentences give an F1 of about .3. On
the dev parts of CoNLL04 and BC5CDR .15 was best of .05 to .4, statement by statement; where a triple of an abstract
counts once, as on BC5CDR, it is too low."""
SCALE = Calibration((-1.04, 1.02, -0.11, 0.71))
"""Learned on the dev parts of CoNLL04 and BC5CDR, 5 and 20 sentences a type: `quickstudy bench kg_end_to_end --only
scale` prints it."""


def learn_calibration(fields: Sequence[Sequence[Answer]]) -> Calibration:
    """Learn a to d from answers of other fields, one vote each."""
    most = max((len(field) for field in fields), default=0)
    start = Calibration().weights
    if not most:
        return Calibration()
    shares = [most / len(field) for field in fields for _ in field]
    return Calibration(_fit([answer for field in fields for answer in field], start, 1.0, shares))


def isotonic(p: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """The rising step function nearest to the answers, by pool adjacent violators; `p` in rising order."""
    blocks: list[list[float]] = []  # where it begins, sum, count
    for x, y in zip(p, right, strict=True):
        if blocks and blocks[-1][0] == x:
            blocks[-1][1] += y
            blocks[-1][2] += 1
        else:
            blocks.append([x, float(y), 1.0])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            _, total, count = blocks.pop()
            blocks[-1][1] += total
            blocks[-1][2] += count
    # One more answer of each kind keeps a step of few answers from saying never or always.
    return tuple((x, (total + 1) / (count + 2)) for x, total, count in blocks)


def _step(steps: Sequence[tuple[float, float]], p: float) -> float:
    value = steps[0][1]
    for begin, height in steps:
        if begin > p:
            break
        value = height
    return value


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _logit(p: float) -> float:
    p = min(1 - CLIP, max(CLIP, p))
    return math.log(p / (1 - p))


def _fit(
    answers: Sequence[Answer],
    start: Weights,
    strength: float,
    shares: Sequence[float] | None = None,
) -> Weights:
    """The likeliest a to d, drawn to `start`; b and d are never below 0."""
    ends, said = (
        torch.tensor([_logit(of(answer)) for answer in answers], dtype=torch.float64)
        for of in (lambda one: one.head * one.tail, lambda one: one.relation)
    )
    right = torch.tensor([float(a.right) for a in answers], dtype=torch.float64)
    share = None if shares is None else torch.tensor(list(shares), dtype=torch.float64)
    origin = torch.tensor(start, dtype=torch.float64)
    weights = origin.clone().requires_grad_(True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Float[Tensor, ""]:
        solver.zero_grad()
        a, b, c, d = weights
        p = (a + b.clamp(min=0) * ends).sigmoid() * (c + d.clamp(min=0) * said).sigmoid()
        value = binary_cross_entropy(p.clamp(1e-9, 1 - 1e-9), right, weight=share, reduction="sum")
        value = value + strength / 2 * (weights - origin).pow(2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    a, b, c, d = weights.detach().tolist()
    return a, max(0.0, b), c, max(0.0, d)
