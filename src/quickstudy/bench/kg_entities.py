"""Entity recognition on CrossNER: 5 examples a type (kg.4) and all labels of a field (kg.5).

    python -m quickstudy.bench.kg_entities [--only kg.4 | kg.5] [--domains ai] [--part dev] [--seeds 5] [--prior FOLDER]

The prior is the shipped one, which `python tools/make_kg_priors.py entities` makes. The support is drawn from the
field's train part, rarest type first; F1 counts spans whose borders and type are right, over the whole test part.
Nothing is ever learned from CrossNER but the support itself. Baselines see the same support: the nearest token of it
(in the manner of NNShot, Yang & Katiyar 2020, arXiv:2010.02405), logistic regression of tokens, and both stages on the
frozen encoder, their detector starting from wikigold's.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.bench import data as folders
from quickstudy.bench.kg_corpora import Corpus, apart, crossner, reported, sources
from quickstudy.bench.runs import write_run
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.document import Annotated, Span
from quickstudy.domains.kg.entities.detect import fit, labels_of
from quickstudy.domains.kg.entities.prior import Prior, Source, labelled, learn_prior
from quickstudy.domains.kg.entities.recogniser import learn
from quickstudy.domains.kg.entities.tune import Tuning
from quickstudy.domains.kg.entities.words import network, split, states
from quickstudy.domains.kg.learning.score import Score, counted
from quickstudy.domains.kg.schema import EntityType, Schema
from quickstudy.encoders.text import TextEncoder, load_encoder

DOMAINS = ("politics", "science", "ai")
SHOTS = 5
MOST = 5000
"""Sentences of each corpus that a prior is learned from."""
WEIGHTS = {
    "wikigold": 6.0, "WNUT17": 2.0, "BTC": 1.5, "SEC filings": 0.5, "AnEM": 1.0, "BioNLP13CG-IOB": 2.0,
    "BioNLP11ID-IOB": 1.0, "BioNLP13PC-IOB": 1.0, "JNLPBA": 1.0, "SNIPS": 1.5, "FewRel val_wiki": 5.0,
    "FewRel val_nyt": 2.0,
}  # fmt: skip
"""How often a corpus is drawn; one that isn't named isn't used."""
TUNING = Tuning(steps=1200, rate=1.5e-3)
Spans = Sequence[Sequence[tuple[int, int, str]]]


def support(corpus: Corpus, shots: int | None, seed: int) -> list[Annotated]:
    """Sentences that hold at least `shots` spans of each type (None: all), the rarest type served first."""
    rows = list(corpus.documents)
    random.Random(seed).shuffle(rows)
    if shots is None:
        return rows
    whole = Counter(span.type for row in rows for span in row.spans)
    held: Counter[str] = Counter()
    chosen: list[Annotated] = []
    for kind in sorted(corpus.types, key=lambda kind: whole[kind]):
        for row in rows:
            if held[kind] >= shots:
                break
            if row not in chosen and any(span.type == kind for span in row.spans):
                chosen.append(row)
                held.update(span.type for span in row.spans)
    return chosen


def f1(found: Sequence[Sequence[Span]], truth: Sequence[Sequence[Span]]) -> float:
    """Micro F1 of exact spans and types, in points."""
    right = sum(len(set(a) & set(b)) for a, b in zip(found, truth, strict=True))
    return 200 * right / max(1, sum(map(len, found)) + sum(map(len, truth)))


class Frozen:
    """What the baselines work on: states of the encoder as it is."""

    def __init__(self, encoder: TextEncoder, data: Path) -> None:
        self.encoder = encoder
        self.network, _ = network(encoder, mixed=encoder.dtype is torch.bfloat16)
        news = next(c for c in sources(data) if c.name == "wikigold")
        task = labelled(news.documents[:800], news.types, encoder)
        labels = labels_of([len(s) for s in task.sentences], task.spans)
        start = torch.zeros(3, encoder.dim + 1)
        self.detector = fit(states(self.network, task.sentences), labels, start, 10.0)

    def tokens(self, documents: Sequence[Annotated]) -> tuple[list, list[Tensor], list[list[str]]]:
        """Sentences, their words' states, and for each word its type or O."""
        parts = split([d.document for d in documents], self.encoder)
        sentences = [(d, piece) for d, part in zip(documents, parts, strict=True) for piece in part]
        tags = []
        for document, piece in sentences:
            row = ["O"] * len(piece)
            for first, end, kind in piece.spans(document.spans):
                row[first:end] = [kind] * (end - first)
            tags.append(row)
        return sentences, states(self.network, [piece for _, piece in sentences]), tags


def _runs(piece: Any, tags: Sequence[str]) -> list[Span]:
    """Neighbouring words of one type are one span."""
    found, begin = [], 0
    for i in range(1, len(tags) + 1):
        if i == len(tags) or tags[i] != tags[begin]:
            if tags[begin] != "O":
                found.append(Span(piece.offsets[begin][0], piece.offsets[i - 1][1], tags[begin]))
            begin = i
    return found


def _by_document(
    sentences: list, tagged: list[list[str]], documents: Sequence[Annotated]
) -> list[list[Span]]:
    found: dict[int, list[Span]] = {id(d): [] for d in documents}
    for (document, piece), tags in zip(sentences, tagged, strict=True):
        found[id(document)] += _runs(piece, tags)
    return [found[id(d)] for d in documents]


def _around(rows: Sequence[Tensor]) -> list[Tensor]:
    """A word's state beside half of its neighbours'."""
    return [
        torch.cat([x, 0.5 * F.pad(x, (0, 0, 1, 0))[:-1], 0.5 * F.pad(x, (0, 0, 0, 1))[1:]], -1) for x in rows
    ]


def nearest(train: list[Tensor], tags: list[list[str]], test: list[Tensor]) -> list[list[str]]:
    """Each word takes the label of the word of the support that is nearest by cosine."""
    known, labels = F.normalize(torch.cat(train), dim=-1), [t for row in tags for t in row]
    return [[labels[int(i)] for i in (F.normalize(x, dim=-1) @ known.t()).argmax(-1)] for x in test]


def regression(train: list[Tensor], tags: list[list[str]], test: list[Tensor]) -> list[list[str]]:
    """Logistic regression of words' states and their neighbours'."""
    from sklearn.linear_model import LogisticRegression

    train, test = [F.normalize(x, dim=-1) for x in train], [F.normalize(x, dim=-1) for x in test]
    model = LogisticRegression(C=10, max_iter=100, tol=1e-3)
    x, y = torch.cat(_around(train)).numpy(), [t for row in tags for t in row]
    model.fit(x, y)
    return [list(model.predict(x.numpy())) for x in _around(test)]


def schema_of(corpus: Corpus) -> Schema:
    """The types of a corpus, by their names alone."""
    return Schema(corpus.name, {name: EntityType() for name in corpus.types})


def measure(
    domain: str,
    shots: int | None,
    seeds: Sequence[int],
    part: str,
    prior: Prior,
    frozen: Frozen,
    data: Path,
    most: int | None = None,
) -> tuple[dict[str, list[float]], Estimate, int]:
    """F1 of each method for each seed; ours with its interval; how many test sentences there are.

    The interval is over seeds, that is over supports; for one seed, over test sentences.
    """
    train, test = crossner(data, domain, "train"), crossner(data, domain, part)
    test = replace(test, documents=test.documents[:most])
    truth = [list(d.spans) for d in test.documents]
    places, seen, _ = frozen.tokens(test.documents)
    schema, encoder, found = schema_of(train), frozen.encoder, {}
    answers: dict[str, Any] = {}
    bare = Prior(
        encoder.name, encoder.identity, prior.spec,
        {k: torch.zeros_like(v) for k, v in prior.adapter.items()},
        torch.zeros_like(prior.shapes), frozen.detector, prior.pairs,
    )  # fmt: skip
    for seed in seeds:
        examples = support(train, shots, seed)
        _, x, tags = frozen.tokens(examples)
        answers = {
            "nearest token": _by_document(places, nearest(x, tags, seen), test.documents),
            "token logistic regression": _by_document(places, regression(x, tags, seen), test.documents),
        }
        for name, known, tuned in (
            ("two stages, frozen encoder", bare, False),
            ("two stages, tuned on past corpora alone", prior, False),
            ("ours", prior, None),
        ):
            model = learn(examples, schema, known, encoder, tuned=tuned, seed=seed)
            answers[name] = [
                [e.span for e in row] for row in model.find_all([d.document for d in test.documents])
            ]
            parts = _parts(answers[name], truth)
            _say(f"  {domain} {shots} seed {seed}, {name}: {model.report}, spans {parts:.1f}")
        for name, rows in answers.items():
            found.setdefault(name, []).append(f1(rows, truth))
        _say(f"  {domain} {shots} seed {seed}", {k: round(v[-1], 1) for k, v in found.items()})
    ours = Estimate.of(found["ours"])
    if len(seeds) == 1:
        ours = Score.of([counted(a, b) for a, b in zip(answers["ours"], truth, strict=True)]).f1
    return found, ours, len(test.documents)


def _parts(found: Sequence[Sequence[Span]], truth: Sequence[Sequence[Span]]) -> float:
    """F1 of borders alone."""
    return f1(*([[s._replace(type="") for s in row] for row in rows] for rows in (found, truth)))


def past(data: Path, seed: int = 0) -> tuple[list[Source], dict[str, int]]:
    """What a prior is learned from: openly licensed corpora, without any sentence that a row is measured on.

    Also, how many such sentences each corpus had.
    """
    corpora, dropped = apart([c for c in sources(data) if c.name in WEIGHTS], reported(data))
    chosen = []
    for corpus in corpora:
        rows = list(corpus.documents)
        random.Random(seed).shuffle(rows)
        chosen.append(Source(corpus.name, rows[:MOST], WEIGHTS[corpus.name], corpus.partial, corpus.licence))
    return chosen, {name: count for name, count in dropped.items() if count}


def make_prior(data: Path, encoder: TextEncoder, seed: int = 0) -> Prior:
    """A prior from `past`. In bfloat16 on every processor, though on some that is slower than float32."""
    chosen, left_out = past(data, seed)
    made = learn_prior(chosen, encoder, TUNING, mixed=True, seed=seed, progress=_shown(TUNING.steps))
    return replace(made, settings={**made.settings, "left_out": left_out})


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def _shown(steps: int) -> Callable[[int, float], None]:
    begun = time.monotonic()

    def progress(step: int, loss: float) -> None:
        if step % 25 == 24:
            _say(f"  step {step + 1} of {steps}: loss {loss:.2f}, {time.monotonic() - begun:.0f} s")

    return progress


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the run file when the test part was measured."""
    parser = argparse.ArgumentParser(description="Entity recognition on CrossNER.")
    parser.add_argument("--data", help="the folder of data sets")
    parser.add_argument("--prior", help="the folder of a prior; by default the shipped one")
    parser.add_argument("--only", choices=("kg.4", "kg.5"), help="one of the rows")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--part", default="test", choices=("dev", "test"))
    parser.add_argument("--most", type=int, help="sentences to measure on; nothing is written then")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    data, encoder = folders.folder(given.data), load_encoder("minilm")
    prior = Prior.load(given.prior) if given.prior else Prior.shipped()
    frozen, rows = Frozen(encoder, data), []
    for row, shots in (("kg.4", SHOTS), ("kg.5", None)):
        if given.only not in (None, row):
            continue
        for domain in given.domains:
            begun = time.process_time()
            # With all labels, only the order of sentences and what chance does in tuning differ.
            seeds = list(range(given.seeds))
            found, ours, sentences = measure(
                domain, shots, seeds, given.part, prior, frozen, data, given.most
            )
            told = ", ".join(s["name"] for s in prior.sources)
            del found["ours"]
            row_id = f"{row}.{DOMAINS.index(domain) + 1}"
            rows.append({
                "id": row_id, "value": round(ours.mean, 2), "unit": "F1", "n": sentences, "seeds": seeds,
                "baselines": {k: round(sum(v) / len(v), 2) for k, v in found.items()},
                "command": f"python -m quickstudy.bench.kg_entities --only {row} --domains {domain} "
                f"--seeds {given.seeds}",
                "seconds": round(time.process_time() - begun, 1),
                "ci95": [round(ours.low, 2), round(ours.high, 2)],
                "note": f"CrossNER {domain} {given.part}; interval over {'seeds' if len(seeds) > 1 else 'sentences'}; "
                f"learned from before: {told}",
            })  # fmt: skip
            _say(rows[-1])
            if given.part == "test" and given.most is None and given.prior is None:
                write_run("kg_entities", rows)


if __name__ == "__main__":
    main()
