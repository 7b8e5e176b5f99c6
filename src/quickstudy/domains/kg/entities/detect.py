"""Where entities stand: each word begins one (B), goes on with it (I), or is outside (O).

    p(y | word) ∝ exp(W h)        W = argmin Σ -log p(y_i | h_i) + λ/2 ‖W - W₀‖²

W₀ is what past corpora taught (`tune`), so λ says how much the new examples may change it; it is chosen by leaving out
sentences. Scores of pairs of neighbouring labels, counted in past corpora, join in, and of which type a word is, as far
as its own examples say; the best path gives the spans (`paths`). The layout is that of Ramshaw & Marcus 1995,
arXiv:cmp-lg/9505040; a prior mean for adaptation: Chelba & Acero 2004.

A span inside of another is found by a second detector, which is learned where the examples have such spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.domains.kg.entities.paths import NEVER, Place, best_places, chances, marks
from quickstudy.domains.kg.entities.tune import I, O, tags, with_one

STRENGTHS = (1.0, 10.0, 100.0)
"""Values of λ to choose from."""
FOLDS = 4
WORDS = 2_000
"""With more words than this, λ is chosen on the first so many."""
WORD_STRENGTH = 10.0
"""λ of the types of words: 3 and 30 are alike on the dev parts of CoNLL04, BC5CDR and CrossNER's politics; at 3, AI
loses .7 of F1, where it gains .3 at 30."""


@dataclass(frozen=True)
class WordTypes:
    """Of which type a word is, given that it is of an entity."""

    weights: Float[Tensor, "type dim_and_one"]
    often: Float[Tensor, " type"]
    """Log of each type's share of such words."""

    def chances(self, states: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n type"]:
        """Logs of probabilities."""
        return F.log_softmax(with_one(states) @ self.weights.t(), -1)


def word_types(
    states: Sequence[Float[Tensor, "word dim"]], spans: Sequence[Sequence[tuple[int, int, int]]], ways: int
) -> WordTypes:
    """From the words of labelled spans; there must be one."""
    words = [(row[a:b], kind) for row, found in zip(states, spans, strict=True) for a, b, kind in found]
    kinds = torch.cat([torch.full((len(x),), kind) for x, kind in words])
    x = torch.cat([x for x, _ in words])
    counts = torch.bincount(kinds, minlength=ways) + 1.0
    weights = fit([x], [kinds], torch.zeros(ways, x.shape[1] + 1), WORD_STRENGTH)
    return WordTypes(weights, counts.div(counts.sum()).log())


@dataclass(frozen=True)
class Detector:
    """Scores of words, and of neighbouring labels."""

    weights: Float[Tensor, "3 dim_and_one"]
    pairs: Float[Tensor, "3 3"]
    """Added to the score of a label (column) after another (row)."""

    def find(
        self, states: Float[Tensor, "word dim"], kinds: WordTypes | None = None
    ) -> list[tuple[Place, float]]:
        """The spans of one sentence's best path, each with the probability that it is one, from 0 to 1."""
        return self.find_all(states.unsqueeze(0), [len(states)], kinds)[0]

    def find_all(
        self,
        states: Float[Tensor, "sentence word dim"],
        lengths: Sequence[int],
        kinds: WordTypes | None = None,
    ) -> list[list[tuple[Place, float]]]:
        """The same of many sentences, padded to the longest."""
        if not sum(lengths):
            return [[] for _ in lengths]
        scores = F.log_softmax(with_one(states) @ self.weights.t(), -1)
        alone = (torch.zeros(*states.shape[:2], 1), torch.zeros(1))
        types, often = alone if kinds is None else (kinds.chances(states), kinds.often)
        given = marks(scores, types, often, self.pairs, torch.tensor(lengths))
        places = best_places(given)
        return [list(zip(*both, strict=True)) for both in zip(places, chances(given, places), strict=True)]


def fit(
    states: Sequence[Float[Tensor, "word dim"]],
    labels: Sequence[Int[Tensor, " word"]],
    start: Float[Tensor, "label dim_and_one"],
    strength: float,
) -> Float[Tensor, "label dim_and_one"]:
    """W for labelled sentences: convex, so where it starts from doesn't matter to what it finds."""
    x, y = with_one(torch.cat(list(states))), torch.cat(list(labels))
    weights = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weights.t(), y, reduction="sum")
        value = value + strength / 2 * (weights - start).pow(2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weights.detach()


def choose_strength(
    states: Sequence[Float[Tensor, "word dim"]],
    labels: Sequence[Int[Tensor, " word"]],
    start: Float[Tensor, "3 dim_and_one"],
) -> float:
    """λ of the least loss on sentences left out in turn; the largest for fewer than two sentences."""
    kept, total = 0, 0
    while kept < len(states) and total < WORDS:
        total, kept = total + len(states[kept]), kept + 1
    states, labels = states[:kept], labels[:kept]
    if kept < 2:
        return STRENGTHS[-1]
    folds = [range(i, kept, FOLDS) for i in range(min(FOLDS, kept))]
    losses = []
    for strength in STRENGTHS:
        value = 0.0
        for out in folds:
            rest = [i for i in range(kept) if i not in out]
            weights = fit([states[i] for i in rest], [labels[i] for i in rest], start, strength)
            x, y = with_one(torch.cat([states[i] for i in out])), torch.cat([labels[i] for i in out])
            value += float(F.cross_entropy(x @ weights.t(), y, reduction="sum"))
        losses.append(value)
    return STRENGTHS[losses.index(min(losses))]


def pair_scores(labels: Sequence[Int[Tensor, " word"]], weight: float = 0.5) -> Float[Tensor, "3 3"]:
    """Scores log p(next | label) - log p(next), from counts, times `weight`; I after O never is."""
    count = torch.ones(3, 3)
    for row in labels:
        for before, after in zip(row[:-1].tolist(), row[1:].tolist(), strict=True):
            count[before, after] += 1
    after = count / count.sum(1, keepdim=True)
    scores = weight * (after.log() - (count.sum(0) / count.sum()).log())
    scores[O, I] = NEVER
    return scores


def levels(spans: Sequence[tuple[int, int, int]]) -> tuple[list, list]:
    """Spans that lie in no other, and those that do."""
    inner = [s for s in spans if any(o[:2] != s[:2] and o[0] <= s[0] and s[1] <= o[1] for o in spans)]
    return [s for s in spans if s not in inner], inner


def labels_of(lengths: Sequence[int], spans: Sequence[Sequence[tuple[int, int, int]]]) -> list[Tensor]:
    """B, I or O for the words of each sentence."""
    return [tags(length, found) for length, found in zip(lengths, spans, strict=True)]
