"""FewRel-80's sentences carry no marks: guess which two names of each its relation joins.

1. Which words are names: logistic regression on a word's states, learned on wikigold's entities and on the marked pairs
   of other data sets; words in a row make a name.
2. Which two of a sentence's names: expectation and maximisation. The pairs of one relation are alike, those of other
   names aren't; so each pair of a sentence is weighted by its cosine to the mean of its relation's, from likely names
   in the order of the text on, and sharper in each round.

Guesses are often wrong, in part or in direction; the likeliest of each relation are kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.bench.relation_data import Related
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.relations.pairs import Pair, PairEncoder
from quickstudy.encoders.text import TextEncoder

MOST, LIKELY, ROUNDS = 5, (0.35, 0.2, 0.1, 0.05), 8
"""Names of a sentence at most; from which chance on a word is in one, lower where there aren't two; rounds of (2)."""
_WORD = re.compile(r"\w+|[^\w\s]")


class Name(NamedTuple):
    """A span of a sentence, and how likely its words are in a name."""

    start: int
    end: int
    chance: float


@dataclass(frozen=True)
class NameFinder:
    """Step 1; made by `learn_names`."""

    encoder: TextEncoder
    model: LogisticRegression

    def names(self, texts: Sequence[str]) -> list[list[Name]]:
        """The likeliest names of each text in their order; fewer than two where nothing else is near one."""
        found = []
        for text, (words, states) in zip(texts, _words(self.encoder, texts), strict=True):
            chance = self.model.predict_proba(states.numpy())[:, 1] if words else np.array([])
            several = (_runs(text, words, chance, least) for least in LIKELY)
            several = next((names for names in several if len(names) > 1), [])
            found.append(sorted(sorted(several, key=lambda name: -name.chance)[:MOST]))
        return found


def learn_names(
    encoder: TextEncoder, marked: Sequence[Pair], whole: Sequence[Annotated], most: int = 1000
) -> NameFinder:
    """Learn which words are names, from so many texts at most of either kind.

    Args:
        marked: pairs; other names of their texts aren't marked, which makes all chances smaller.
        whole: documents whose entities are all marked.
    """
    rng = np.random.default_rng(0)
    chosen = [marked[i] for i in rng.permutation(len(marked))[:most]]
    texts = [pair.text for pair in chosen] + [one.text for one in whole[:most]]
    spans = [list(pair[1:]) for pair in chosen] + [[span[:2] for span in one.spans] for one in whole[:most]]
    x, y = [], []
    for own, (words, states) in zip(spans, _words(encoder, texts), strict=True):
        x.append(states)
        y += [any(start < end and begin < stop for begin, end in own) for start, stop in words]
    model = LogisticRegression(C=0.05, max_iter=200).fit(torch.cat(x).numpy(), np.array(y))
    return NameFinder(encoder, model)


def guess_marks(
    texts: Sequence[str], labels: Sequence[str], finder: NameFinder, pairs: PairEncoder, *, each: int
) -> Related:
    """Texts with a relation each -> the likeliest pairs of every relation, `each` at most."""
    joined = [
        [
            (Pair(text, one[:2], other[:2]), np.log(one.chance * other.chance) + (one < other))
            for one, other in permutations(names, 2)
        ]
        for text, names in zip(texts, finder.names(texts), strict=True)
    ]
    kept = [row for row, several in enumerate(joined) if several]
    x = pairs.encode([pair for row in kept for pair, _ in joined[row]])
    x = normalize(x - x.mean(0), dim=-1)
    bounds = np.cumsum([len(joined[row]) for row in kept])[:-1]
    vectors = torch.tensor_split(x, torch.from_numpy(bounds))
    start = [torch.tensor([float(score) for _, score in joined[row]]) for row in kept]
    weights = _weights(vectors, start, [labels[row] for row in kept])
    best = sorted(
        ((float(w.max()), joined[row][int(w.argmax())][0], labels[row])
         for w, row in zip(weights, kept, strict=True)),
        key=lambda guess: -guess[0],
    )  # fmt: skip
    found = Related("FewRel-80", tuple(pair for _, pair, _ in best), tuple(label for _, _, label in best))
    return found.most(each)


def _weights(
    vectors: Sequence[Float[Tensor, "pair d"]], start: Sequence[Float[Tensor, " pair"]], labels: Sequence[str]
) -> list[Float[Tensor, " pair"]]:
    """How likely each pair of a sentence is the one that its relation joins; they sum to 1."""
    relations = sorted(set(labels))
    of = torch.tensor([relations.index(label) for label in labels])
    weights = [score.softmax(0) for score in start]
    for number in range(ROUNDS):
        each = torch.stack([w @ x for w, x in zip(weights, vectors, strict=True)])
        sums = torch.zeros(len(relations), each.shape[1]).index_add(0, of, each)
        means = sums / torch.bincount(of).unsqueeze(1)
        means = normalize(means - each.mean(0), dim=-1)
        weights = [
            (6 * (1 + number) * (x @ means[own]) + 0.5 * score).softmax(0)
            for x, score, own in zip(vectors, start, of, strict=True)
        ]
    return weights


def _runs(
    text: str, words: list[tuple[int, int]], chance: Float[np.ndarray, " n"], least: float
) -> list[Name]:
    """Words in a row that are likely enough, less marks of punctuation at the ends."""
    found, row = [], []
    for place in range(len(words) + 1):
        if place < len(words) and chance[place] > least and (row or text[words[place][0]].isalnum()):
            row.append(place)
            continue
        while row and not text[words[row[-1]][0]].isalnum():
            row.pop()
        if row:
            found.append(Name(words[row[0]][0], words[row[-1]][1], float(chance[row].mean())))
        row = []
    return found


def _words(
    encoder: TextEncoder, texts: Sequence[str]
) -> list[tuple[list[tuple[int, int]], Float[Tensor, "word dim"]]]:
    """Of each text, where its words stand, and the mean state of each; words past an encoder's end are left out."""
    found = []
    for begin in range(0, len(texts), 512):
        chunk = texts[begin : begin + 512]
        states, _, offsets = encoder.tokens(chunk)
        for row, text in enumerate(chunk):
            starts, ends = offsets[row].unbind(-1)
            words, means = [], []
            for word in _WORD.finditer(text):
                inside = (starts < word.end()) & (ends > word.start())
                if bool(inside.any()):
                    words.append(word.span())
                    means.append(states[row, inside].mean(0))
            found.append((words, torch.stack(means) if means else torch.zeros(0, encoder.dim)))
    return found
