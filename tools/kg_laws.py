"""Learn how sure mentions are, by how a recogniser was made: what `quickstudy.domains.kg.entities.sure.MADE` holds.

    python tools/kg_laws.py --data FOLDER

For each way, recognisers are learned from a few sentences of the train parts of CoNLL04, BC5CDR and CrossNER, and asked
for their dev parts; each has one vote. Beside each law, the calibration error of the mentions that it was learned from,
before and after. The law of triples: `quickstudy bench kg_end_to_end --only scale`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from quickstudy.bench import data as published
from quickstudy.bench.kg_corpora import crossner
from quickstudy.bench.kg_entities import schema_of, support
from quickstudy.bench.kg_fields import SCHEMAS, Field, sampled
from quickstudy.core.calibration import expected_error
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.entities.prior import Prior
from quickstudy.domains.kg.entities.recogniser import learn
from quickstudy.domains.kg.entities.sure import Sure, logit
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import load_encoder

CELLS = [
    *((name, shots, seed) for name in SCHEMAS for shots in (5, 20) for seed in (0, 1)),
    *((name, shots, 0) for name in ("politics", "science", "ai") for shots in (1, 2, 5)),
]
BARE = [(name, shots, 0) for name in SCHEMAS for shots in (5, 20)]
EVERYTHING = Sure((99.0, 0.0, 0.0))
"""Nothing that was found is left out."""


class Mentions(NamedTuple):
    """What was found in one field."""

    place: np.ndarray
    kind: np.ndarray
    right: np.ndarray


def field(data: Path, name: str, shots: int, seed: int) -> tuple[Schema, list[Annotated], list[Annotated]]:
    """Its types, sentences to learn from, and documents to ask for."""
    if name in SCHEMAS:
        one = Field.of(name, data)
        return (
            one.schema,
            one.draw(shots, seed),
            sampled(one.part("dev"), 120 if name == "BC5CDR" else None),
        )
    train = crossner(data, name, "train")
    return schema_of(train), support(train, shots, seed), list(crossner(data, name, "dev").documents)[:200]


def law(cells: Sequence[Mentions]) -> Sure:
    """Logistic regression, one vote a field."""
    x = np.concatenate([np.stack([logit_of(c.place), logit_of(c.kind)], 1) for c in cells])
    votes = np.concatenate([np.full(len(c.right), 1000 / len(c.right)) for c in cells])
    found = LogisticRegression(C=1000.0).fit(x, np.concatenate([c.right for c in cells]), votes)
    b, c = (round(float(weight), 2) for weight in found.coef_[0])
    return Sure((round(float(found.intercept_[0]), 2), b, c))


def logit_of(p: np.ndarray) -> np.ndarray:
    return np.array([logit(float(one)) for one in p])


def main() -> int:
    """Learn and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="FOLDER", help="published data sets")
    data = published.folder(parser.parse_args().data)
    torch.set_num_threads(1)
    encoder, prior = load_encoder("minilm", cache=False), Prior.shipped()
    found: dict[str, list[Mentions]] = {}
    for known, cells in ((prior, CELLS), (None, BARE)):
        for name, shots, seed in cells:
            schema, examples, asked = field(data, name, shots, seed)
            model = replace(learn(examples, schema, known, encoder, seed=seed), sure=EVERYTHING)
            rows = [
                (one.place, max(one.types.values()), one.span in set(document.spans))
                for document, own in zip(asked, model.find_all([d.document for d in asked]), strict=True)
                for one in own
            ]
            made = Mentions(*(np.array(column) for column in zip(*rows, strict=True)))
            found.setdefault(model.report["made"], []).append(made)
            print(f"{name}, {shots} a type, seed {seed}: {model.report['made']}", file=sys.stderr, flush=True)
    for way, cells in found.items():
        learned = law(cells)
        p, t, right = (np.concatenate(column) for column in zip(*cells, strict=True))
        after = [learned.probability(*both) for both in zip(p.tolist(), t.tolist(), strict=True)]
        told = f"{expected_error(p * t, right):.3f} before, {expected_error(after, right):.3f} after"
        print(f"{way!r}: {learned.weights}  # calibration error {told}, {len(cells)} fields")
    return 0


if __name__ == "__main__":
    sys.exit(main())
