"""What earlier fields in a bank are worth to a new one (kg.11): triples of CoNLL04 with 0, 1, 3 and 6 of them.

    quickstudy bench kg_bank

The new field is CoNLL04, with a few labelled sentences of each type and relation of its train part, none of which
stands in another part. The six earlier fields have other types and none of its documents: Wikipedia's names, European
politics, the biology of cancer, and relations of Wikipedia, of the New York Times and of KBP37. Each seed draws its
own sentences and its own order of the fields, so that one earlier field is any of the six. Triples count from the
score on from which F1 is expected to be highest, as the scores themselves have it. All starts from the frozen
encoder: a shipped prior would be experience as well. What a bank teaches is estimated in closed form; then the
encoder is tuned on the new field's own sentences, with and without a bank, as `kg learn --bank` does.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from quickstudy.bank.entry import Entry
from quickstudy.bank.store import TaskBank
from quickstudy.bench import data as published
from quickstudy.bench import relation_data
from quickstudy.bench.kg_cells import OURS, compared
from quickstudy.bench.kg_cells import counts as from_best_cut
from quickstudy.bench.kg_corpora import crossner, sources
from quickstudy.bench.kg_fields import PARTS, Field, sampled
from quickstudy.bench.runs import write_run
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.banked import judged_experience
from quickstudy.domains.kg.calibrate import LEAST
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.entities import recogniser
from quickstudy.domains.kg.experience import Experience, Seen
from quickstudy.domains.kg.kept import field_entry
from quickstudy.domains.kg.learning import score
from quickstudy.domains.kg.reading.rows import UNTYPED
from quickstudy.domains.kg.relations.related import learn_related
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel
from quickstudy.encoders.text import TextEncoder, load_encoder

SUITE, COMMAND = "kg_bank", "quickstudy bench kg_bank"
COUNTS = (0, 1, 3, 6)
SHOTS = 5
SEEDS = 10
"""So many that steps of a point or two can be told: with 4, the interval of a gain is 9 points wide."""
QUICK = 20
"""Sentences judged with --quick; all of the part's otherwise."""
MOST = 300
"""Labelled sentences of an earlier field."""
CONSENT = "published data, kept in a bank that lasts as long as the benchmark"


@dataclass(frozen=True)
class Run:
    """One seed's answers with so many earlier fields: counts of each test document, by what is counted."""

    fields: tuple[str, ...]
    counts: Mapping[str, Sequence[score.Count]]

    def f1(self, what: str) -> float:
        right, found, truth = (sum(column) for column in zip(*self.counts[what], strict=True))
        return 200 * right / max(1, found + truth)


WHAT = ("triples", "entities", "relations between labelled entities")


def earlier(data: Path, target: Sequence[Annotated]) -> dict[str, tuple[list[Annotated], bool, str]]:
    """Six labelled fields by name: documents, whether only some entities are marked, licence. None of the target's."""
    known = {relation_data.plain(one.text) for one in target}
    whole = {corpus.name: corpus for corpus in sources(data)}
    politics = [d for part in ("train", "dev") for d in crossner(data, "politics", part).documents]
    made = {
        "names of Wikipedia (wikigold)": (whole["wikigold"].documents, False, "CC BY 4.0"),
        "politics (CrossNER)": (politics, False, "MIT"),
        "cancer (BioNLP13CG)": (whole["BioNLP13CG-IOB"].documents, False, "CC BY 4.0"),
        "Wikipedia's relations (FewRel)": (_pairs(relation_data.fewrel(data, "val_wiki")), True, "MIT"),
        "New York Times' relations (FewRel)": (_pairs(relation_data.fewrel(data, "val_nyt")), True, "MIT"),
        "people's and firms' relations (KBP37)": (_pairs(relation_data.kbp37(data)), True, "unclear"),
    }
    found = {}
    for name, (documents, partial, licence) in made.items():
        apart = [one for one in documents if relation_data.plain(one.text) not in known]
        found[name] = (sampled(apart, MOST), partial, licence)
    return found


def _pairs(related: relation_data.Related) -> list[Annotated]:
    """Marked pairs as documents: related ones with types of the relation's ends. One that isn't related says that alone
    (`partial`), as nobody told of what type its ends are.
    """
    found = []
    for number, (pair, label) in enumerate(zip(related.pairs, related.labels, strict=True)):
        document = Document(f"{related.name} {number}", pair.text)
        if label == relation_data.NONE:
            ends = (Span(*pair.head, UNTYPED), Span(*pair.tail, UNTYPED))
            found.append(Annotated(document, ends, partial=True, unrelated=((0, 1),)))
        else:
            ends = (Span(*pair.head, f"{label} head"), Span(*pair.tail, f"{label} tail"))
            found.append(Annotated(document, ends, (Relation(0, 1, label),)))
    return found


def schema_of(documents: Sequence[Annotated], name: str) -> Schema:
    """The types and relations that documents have, by their names alone."""
    kinds = sorted({span.type for one in documents for span in one.spans})
    relations = sorted({relation.type for one in documents for relation in one.relations})
    return Schema.of({"name": name, "entities": kinds, "relations": {relation: {} for relation in relations}})


def entries(data: Path, target: Sequence[Annotated], encoder: TextEncoder) -> list[Entry]:
    """The earlier fields as a bank keeps them."""
    return [
        field_entry(
            documents, schema_of(documents, name), encoder,
            name=name, consent=CONSENT, licence=licence, partial=partial,
        )
        for name, (documents, partial, licence) in earlier(data, target).items()
    ]  # fmt: skip


def measured(
    examples: Sequence[Annotated],
    schema: Schema,
    known: Sequence[Entry],
    test: Sequence[Annotated],
    encoder: TextEncoder,
    folder: Path,
    seen: dict[str, Seen],
    seed: int,
) -> Run:
    """Learn a field with some entries in a bank, and judge it."""
    told = Experience(None, None, ())
    if known:
        with TaskBank(folder / f"{len(list(folder.iterdir()))}.sqlite") as bank:
            for entry in known:
                bank.add(entry)
            told, _ = judged_experience(bank, examples, schema, encoder, seen=seen, seed=seed)
    names = recogniser.learn(examples, schema, told.entities, encoder, seed=seed)
    relations = learn_related(examples, schema, encoder, told.relations, 0.9, 0, seed)
    assert relations is not None  # every relation has its examples
    model = GraphModel(schema, tuple(examples), names, relations, told.relations, 0.9)
    read = model.read([one.document for one in test])
    given = relations.extract_all([Annotated(one.document, one.spans) for one in test], least=LEAST)
    triples, between = [], []
    for one, reading, asked in zip(test, read, given, strict=True):
        spans = [Span(*mention[:3]) for mention in reading.mentions]
        said = ((spans[s.head], s.relation, spans[s.tail], s.score) for s in reading.statements)
        triples.append(compared(one, spans, said))
        sure = (
            (one.spans[s.head], s.type, one.spans[s.tail], model.scale.triple(1.0, 1.0, s.probability))
            for s in asked
        )
        between.append(compared(one, one.spans, sure))
    counts = {
        "triples": from_best_cut(triples, OURS),
        "relations between labelled entities": from_best_cut(between, OURS),
        "entities": [
            score.Count(right, found, there) for right, found, there in (c["entities"] for c in triples)
        ],
    }
    return Run(tuple(entry.name for entry in known), counts)


def curve(
    data: Path, part: str, seeds: Sequence[int], most: int | None, say: Callable[[str], None]
) -> dict[int, list[Run]]:
    """For each number of earlier fields, the answers of each seed."""
    field, encoder = Field.of("CoNLL04", data), load_encoder("minilm", cache=False)
    test = sampled(field.part(part), most)
    known = entries(data, [one for name in PARTS for one in field.part(name)], encoder)
    found: dict[int, list[Run]] = {count: [] for count in COUNTS}
    seen: dict[str, Seen] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            examples = field.draw(SHOTS, seed, whole=True)
            order = random.Random(seed).sample(known, len(known))
            for count in COUNTS:
                run = measured(examples, field.schema, order[:count], test, encoder, Path(folder), seen, seed)
                found[count].append(run)
                told = ", ".join(f"{what} {run.f1(what):.1f}" for what in WHAT)
                say(f"seed {seed}, {len(examples)} sentences, {count} earlier fields: {told}")
    return found


def rows(
    found: Mapping[int, Sequence[Run]], part: str, seeds: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    """kg.11.1, and a row for each point of the curve."""
    n = len(next(iter(found.values()))[0].counts["triples"])
    means = {count: Estimate.of([run.f1("triples") for run in runs]) for count, runs in found.items()}
    gains = {
        count: score.mean_gain(
            [
                (run.counts["triples"], bare.counts["triples"])
                for run, bare in zip(runs, found[0], strict=True)
            ]
        )
        for count, runs in found.items()
        if count
    }
    ordered = [means[count].mean for count in COUNTS]
    rises = ordered == sorted(set(ordered))
    whole = gains[COUNTS[-1]]
    shared = {"n": n, "seeds": list(seeds), "command": COMMAND, "seconds": round(seconds, 1)}
    note = (
        f"CoNLL04 {part}, {SHOTS} labelled sentences of each type and relation, from the frozen encoder and no shipped "
        f"prior; a bank of at most {MOST} labelled sentences a field, in an order drawn by each seed; 1 if each step "
        f"rises and the gain with {COUNTS[-1]} fields is above 0: {whole.text(2, sign=True)} points of triple F1, "
        "paired; experience in closed form, the encoder tuned on the new field's sentences in either case"
    )
    made: list[dict[str, Any]] = [
        {"id": "kg.11.1", "value": float(rises and whole.low > 0), "unit": "yes/no", "note": note, **shared,
         "baselines": {f"{count} fields": round(value, 2) for count, value in zip(COUNTS, ordered, strict=True)}},
    ]  # fmt: skip
    for count, estimate in means.items():
        row = {
            "id": f"kg.11.fields{count}", "value": round(estimate.mean, 2), "unit": "F1", **shared,
            "ci95": [round(estimate.low, 2), round(estimate.high, 2)] if len(seeds) > 1 else None,
            "baselines": {
                what: round(sum(run.f1(what) for run in found[count]) / len(seeds), 2) for what in WHAT[1:]
            },
            "note": f"triples of CoNLL04 {part} with {count} earlier fields in the bank; beside it, F1 of the parts",
        }  # fmt: skip
        if count:
            gain = gains[count]
            row["gain"] = {
                "value": round(gain.mean, 2), "ci95": [round(gain.low, 2), round(gain.high, 2)], "over": "0 fields"
            }  # fmt: skip
        made.append(row)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write benchmarks/runs/kg_bank.json unless --quick or --part dev. Raises DataError."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="A field after 0, 1, 3 and 6 others (kg.11).")
    parser.add_argument(
        "--data", metavar="FOLDER", help=f"published data sets; default: {published.VARIABLE}"
    )
    parser.add_argument("--part", default="test", choices=("dev", "test"), help="choices were made on dev")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="how many draws of sentences and orders (%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few documents, to see that it works; writes nothing"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console, begun = Console(), time.process_time()
    seeds = range(2 if given.quick else given.seeds)
    most = QUICK if given.quick else None
    found = curve(published.folder(given.data), given.part, seeds, most, console.print)
    made = rows(found, given.part, seeds, time.process_time() - begun)
    for row in made:
        row["command"] += "" if given.seeds == SEEDS else f" --seeds {given.seeds}"
        console.print(f"{row['id']}: {row['value']:g} {row['unit']} · {row.get('gain', '')}")
    if given.part == "test" and not given.quick:
        console.print(f"Written: {write_run(SUITE, made).name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
