"""How probable a triple is, from how sure its parts are: its two mentions, and that the text relates them.

    P = σ(a + b logit(h t)) σ(c + d logit(r)),   c = c₀ + c₁ log(n / 100)

with h and t the probabilities of head and tail (`entities.sure` sees to these, so a = 0 and b = 1), r that of the
relation if both are right, and n the number of labelled pairs that relations were learned from: from few of them, it
is less probable than it seems. c₀, c₁ and d are learned on triples of BC5CDR's and CoNLL04's dev parts (`learn_law`),
so kg.10, on their test parts, doesn't say how well they hold elsewhere. Where a field has answers of its own, such as a
reviewer's, they move a to d, and from `MANY` on an isotonic step function follows them where no such law can.

Platt 1999; isotonic regression for probabilities: Zadrozny & Elkan 2002, by pool adjacent violators (Ayer et al. 1955).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from quickstudy.core.errors import DataError

MANY = 400
"""So many own answers are followed by an isotonic step function."""
VOTE = 500.0
"""A field's answers count as much as so many; a prior of one such answer draws the law to none."""
STRENGTH = 10.0
"""How strongly own answers have to pull: a few dozen of them count as much as other fields."""
CLIP = 1e-3
"""Probabilities nearer to 0 or 1 than this say no more."""


def check_precision(precision: float) -> None:
    """Raise DataError where the precision that is asked of triples is no share."""
    if not 0 < precision < 1:
        raise DataError(f"precision is {precision}; expected a share between 0 and 1, such as .9.")


Weights = tuple[float, float, float, float]


class Answer(NamedTuple):
    """A triple whose truth is known: how sure its parts were, and whether it is right."""

    head: float
    tail: float
    relation: float
    right: bool

    @classmethod
    def of(cls, row: list) -> "Answer":
        """As JSON has it. Raises TypeError or ValueError for what is none."""
        head, tail, relation, right = row
        sure = float(head), float(tail), float(relation)
        if type(right) is not bool or not all(0 <= p <= 1 for p in sure):
            raise ValueError(f"{str(row)[:60]} is no answer: three probabilities, and whether it is right")
        return cls(*sure, right)


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


class Law(NamedTuple):
    """How sure to be of relations, by how many pairs they were learned from."""

    shift: float = 0.0
    """c₀."""
    labels: float = 0.0
    """c₁."""
    slope: float = 1.0
    """d."""

    def of(self, labelled: int) -> Calibration:
        """For relations that were learned from so many labelled pairs."""
        return Calibration((0.0, 1.0, self.shift + self.labels * _size(labelled), self.slope))


LEAST = 0.08
"""Triples less probable than this aren't even for review."""
SCALE = Law(-0.82, 0.36, 0.73)
"""Learned on the dev parts of CoNLL04 and BC5CDR, 5 and 20 sentences a type, two draws. `quickstudy bench
kg_end_to_end --only scale` learns it anew."""
SEEN = (30, 1500)
"""Numbers of labelled pairs that SCALE was learned from; it goes no further."""
BEYOND = 1.5
"""So many times as many triples are expected to be true as probabilities from LEAST on sum to: others were missed."""


def learn_law(cells: Sequence[tuple[int, Sequence[Answer]]]) -> Law:
    """Learn c₀, c₁ and d from other fields: of each, from how many pairs it was learned, and answers. One vote each."""
    told = [(n, answers) for n, answers in cells if answers]
    if not told:
        return Law()
    rows = [(one, _size(n), VOTE / len(answers)) for n, answers in told for one in answers]
    ends, said, right, size, share = (
        torch.tensor(column, dtype=torch.float64)
        for column in zip(
            *((a.head * a.tail, _logit(a.relation), float(a.right), n, w) for a, n, w in rows), strict=True
        )
    )
    start = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def chances(law: Float[Tensor, " 3"]) -> Float[Tensor, " n"]:
        return ends * (law[0] + law[1] * size + law[2].clamp(min=0) * said).sigmoid()

    shift, labels, slope = _solved(chances, start, right, 1.0, share).tolist()
    return Law(shift, labels, max(0.0, slope))


def best_cut(probabilities: Sequence[float]) -> float:
    """The probability from which on all are to be said, so that F1 is expected to be highest; 1 for none.

    Where the p_i hold, saying the n likeliest gives an F1 of about  2 Σ_i≤n p_i / (n + BEYOND Σ p_i):  the highest
    lies where p is half of it (Ye et al. 2012, arXiv:1206.4625; Lipton et al. 2014, arXiv:1402.1892).
    """
    ranked = sorted(probabilities, reverse=True)
    truth, right, best, cut = BEYOND * sum(ranked), 0.0, 0.0, 1.0
    for n, p in enumerate(ranked, 1):
        right += p
        if (f1 := 2 * right / (n + truth)) > best:
            best, cut = f1, p
    return cut


def isotonic(p: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """The rising step function nearest to the answers, by pool adjacent violators; `p` in rising order.

    One more answer of each kind keeps a step of few answers from saying never or always. That moves such steps
    furthest, and may put one below the step before it: then these two are pooled as well.
    """
    same: dict[float, list[bool]] = {}
    for x, y in zip(p, right, strict=True):
        same.setdefault(x, []).append(y)
    blocks = [_Block(x, sum(answers), len(answers)) for x, answers in same.items()]
    blocks = _pooled(_pooled(blocks, lambda b: b.right / b.count), _height)
    return tuple((block.begin, _height(block)) for block in blocks)


class _Block(NamedTuple):
    """Answers that share a step."""

    begin: float
    right: int
    count: int


def _height(block: _Block) -> float:
    return (block.right + 1) / (block.count + 2)


def _pooled(blocks: Sequence[_Block], height: Callable[[_Block], float]) -> list[_Block]:
    """Neighbours are joined until heights rise."""
    kept: list[_Block] = []
    for block in blocks:
        kept.append(block)
        while len(kept) > 1 and height(kept[-2]) >= height(kept[-1]):
            one, other = kept[-2:]
            kept[-2:] = [_Block(one.begin, one.right + other.right, one.count + other.count)]
    return kept


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


def _size(labelled: int) -> float:
    return math.log(min(SEEN[1], max(SEEN[0], labelled)) / 100)


def _fit(answers: Sequence[Answer], start: Weights, strength: float) -> Weights:
    """The likeliest a to d, drawn to `start`; b and d are never below 0."""
    ends, said = (
        torch.tensor([_logit(of(answer)) for answer in answers], dtype=torch.float64)
        for of in (lambda one: one.head * one.tail, lambda one: one.relation)
    )
    right = torch.tensor([float(a.right) for a in answers], dtype=torch.float64)

    def chances(weights: Float[Tensor, " 4"]) -> Float[Tensor, " n"]:
        a, b, c, d = weights
        return (a + b.clamp(min=0) * ends).sigmoid() * (c + d.clamp(min=0) * said).sigmoid()

    origin = torch.tensor(start, dtype=torch.float64)
    a, b, c, d = _solved(chances, origin, right, strength, torch.ones_like(right)).tolist()
    return a, max(0.0, b), c, max(0.0, d)


def _solved(
    chances: Callable[[Tensor], Tensor],
    start: Float[Tensor, " k"],
    right: Float[Tensor, " n"],
    strength: float,
    share: Float[Tensor, " n"],
) -> Float[Tensor, " k"]:
    """The likeliest weights of a law, drawn to `start`."""
    weights = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Float[Tensor, ""]:
        solver.zero_grad()
        p = chances(weights).clamp(1e-9, 1 - 1e-9)
        value = binary_cross_entropy(p, right, weight=share, reduction="sum")
        value = value + strength / 2 * (weights - start).pow(2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weights.detach()
