"""`quickstudy bench kg_end_to_end`: a graph from a few labelled sentences, from the text to its triples.

    quickstudy bench kg_end_to_end --spacy PYTHON     all rows
    quickstudy bench kg_end_to_end --only kg.12       one row
    quickstudy bench kg_end_to_end --keep FOLDER      what was read stays there, and a stopped run goes on from it

kg.8   triple F1 on CoNLL04 and BC5CDR (`kg_fields` says what counts), from 5 and 20 sentences that hold each type, each
       relation and unrelated mentions. Beside it, from the same sentences: ours without anything learned before, the
       bare encoder's; and a pipeline of spaCy's parts (`spacy_run`), from nothing and from the weights of its small
       English pipeline, which was made of much labelled news. A triple counts from the score on from which F1 is
       expected to be highest (`calibrate.best_cut`); spaCy's from whichever of three is best for it on these texts.
kg.9   what is held for likelier than not of labelled mentions in one sentence that no label relates.
kg.10  calibration of the triples that were read, and whether their offsets slice to their words.
kg.12  speed on text that nobody labelled, and the memory that 100,000 sentences take.

Settings were chosen on the dev parts, and so were the laws that make probabilities of scores (`entities.sure`,
`calibrate`), with CrossNER's. Nothing else was learned from either field but the sentences drawn, none of which
stands in the dev or test part; the relations met before include some of CoNLL04's by other sentences (FewRel's val_nyt
says of people where they live).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from quickstudy.bench import child
from quickstudy.bench import data as published
from quickstudy.bench.kg_cells import (
    BARE,
    OURS,
    SPACY,
    STARTED,
    Cell,
    Setting,
    answers,
    cell,
    count,
    counts,
    fields,
)
from quickstudy.bench.runs import write_run
from quickstudy.core.calibration import expected_error
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.estimate import Estimate
from quickstudy.domains.kg.calibrate import LEAST, learn_law
from quickstudy.domains.kg.learning.score import Score, mean_gain
from quickstudy.domains.kg.use import GraphModel
from quickstudy.encoders.text import load_encoder

SUITE, COMMAND = "kg_end_to_end", "quickstudy bench kg_end_to_end"
ROWS = ("kg.8", "kg.9", "kg.10", "kg.12")
LAW = "scale"
"""No row: prints the law of triples' scores that is shipped (`calibrate.SCALE`), learned on both dev parts."""
SHOTS = (5, 20)
RESAMPLES = 1000
SPOKEN = 5.0
"""Percent of related pairs that have to be asserted for the false ones to mean something."""
WHOLE = 100_000
"""Sentences that memory is judged over."""
Cells = dict[tuple[str, int, int], Cell]
"""By field, sentences a type, and seed."""


def read(setting: Setting, methods: Sequence[str]) -> dict[str, Cells]:
    """Every method in every field, from every number of sentences, for every seed."""
    found: dict[str, Cells] = {method: {} for method in methods}
    for field in fields(setting.data):
        for shots in SHOTS:
            for seed in setting.seeds:
                for method in methods:
                    made = found[method][field.name, shots, seed] = cell(setting, field, shots, seed, method)
                    f1 = Score.of(counts(made["documents"], method)).f1
                    setting.show(
                        f"{field.name}, {shots} a type ({made['sentences']} sentences), seed {seed}, {method}: triple "
                        f"F1 {f1}, entities {_entities([made]):.1f}, {made['seconds']:.0f} s"
                    )
    return found


def against(setting: Setting, cells: dict[str, Cells]) -> list[dict[str, Any]]:
    """kg.8: yes or no; and a row for each field and number of sentences."""
    rows, won = [], True
    rivals = [method for method in cells if method != OURS]
    for field in fields(setting.data):
        for shots in SHOTS:
            runs = {
                method: [made[field.name, shots, seed] for seed in setting.seeds]
                for method, made in cells.items()
            }
            said = {method: [counts(run["documents"], method) for run in own] for method, own in runs.items()}
            f1 = {method: [Score.of(run, resamples=2).f1.mean for run in own] for method, own in said.items()}
            gains = {rival: mean_gain(zip(said[OURS], said[rival], strict=True)) for rival in rivals}
            won = won and all(gain.low > 0 for gain in gains.values())
            asserted = [
                Score.of([count(one, 0.9) for one in run["documents"]], resamples=2) for run in runs[OURS]
            ]
            told = Estimate(float(np.mean(f1[OURS])), float("nan"), len(said[OURS][0]))
            whole = _over_runs(said[OURS], told.mean)
            worst = min(gains, key=lambda rival: gains[rival].low)
            parts = [Score.of(run, resamples=2) for run in said[OURS]]
            rows.append({
                "id": f"kg.8.{field.name.lower()}-{shots}", "value": told.mean, "ci95": whole, "unit": "F1",
                "baselines": {rival: round(float(np.mean(f1[rival])), 2) for rival in rivals},
                "gain": {"value": gains[worst].mean, "ci95": (gains[worst].low, gains[worst].high), "over": worst},
                "n": told.n,
                "note": f"precision {_mean(p.precision.mean for p in parts)}, recall "
                f"{_mean(p.recall.mean for p in parts)}; those asserted at the default precision of .9: precision "
                f"{_mean(p.precision.mean for p in asserted)}, recall {_mean(p.recall.mean for p in asserted)}; "
                + "; ".join(f"{m}: entity F1 {_entities(own):.1f}" for m, own in runs.items()) + "; gains: "
                + ", ".join(f"{gain.text(sign=True)} over {rival}" for rival, gain in gains.items()),
                "seconds": sum(made["seconds"] for own in runs.values() for made in own),
            })  # fmt: skip
            setting.show(f"{rows[-1]['id']}: {rows[-1]['value']:.1f}; {rows[-1]['note']}")
    verdict = {
        "id": "kg.8.1", "value": float(won), "unit": "yes/no", "n": len(rows), "baselines": {},
        "note": "every gain's interval above 0: " + "; ".join(
            f"{row['id']} {row['value']:.1f} beside {row['baselines']}" for row in rows
        ),
        "seconds": sum(row["seconds"] for row in rows),
    }  # fmt: skip
    return [verdict, *rows]


def falsely(setting: Setting, cells: Cells) -> list[dict[str, Any]]:
    """kg.9: of sentences and relations whose types both stand there, none related, how many get one at even odds.

    No row where less than `SPOKEN` of what is related is said: who says nothing says nothing false.
    """
    told = {what: _shares(setting, cells, what) for what in ("sentences", "pairs", "related")}
    share, drawn = told["sentences"]
    low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975)))
    single = "; ".join(
        f"{field} from {shots}: {_share(cells, field, shots, 'sentences', setting):.1f}% of sentences, "
        f"{_share(cells, field, shots, 'pairs', setting):.1f}% of pairs, "
        f"{_share(cells, field, shots, 'related', setting):.1f}% of related pairs found"
        for field, shots in sorted({key[:2] for key in cells})
    )
    row = {
        "id": "kg.9.1", "value": share, "ci95": (min(low, share), max(high, share)), "unit": "%",
        "n": len(next(iter(cells.values()))["documents"]), "baselines": {},
        "note": "mean over two fields, from 5 and 20 sentences a type, labelled mentions given, held for likelier "
        f"than not; of unrelated pairs {told['pairs'][0]:.1f}%; recall beside it, of related pairs: "
        f"{told['related'][0]:.1f}%. {single}",
        "seconds": sum(made["seconds"] for made in cells.values()),
    }  # fmt: skip
    if told["related"][0] < SPOKEN:
        setting.show(
            f"kg.9 says nothing yet, as hardly anything is asserted: {row['note']}; false {share:.1f}%"
        )
        return []
    return [row]


def calibration(setting: Setting, cells: Cells) -> list[dict[str, Any]]:
    """kg.10: expected calibration error of triples, pooled; and the share of exact offsets."""
    rng = np.random.default_rng(0)
    each = {key: _pooled(made["documents"]) for key, made in cells.items()}
    value = expected_error(*_pooled([one for made in cells.values() for one in made["documents"]]))
    drawn = []
    for _ in range(200):
        chosen = [
            made["documents"][i]
            for made in cells.values()
            for i in rng.integers(len(made["documents"]), size=len(made["documents"]))
        ]
        drawn.append(expected_error(*_pooled(chosen)))
    low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975)))
    parts = {}
    for field, shots, _ in cells:
        pooled = [each[field, shots, seed] for seed in setting.seeds]
        p, right = (np.concatenate(column) for column in zip(*pooled, strict=True))
        parts[f"{field} from {shots}"] = expected_error(p, right)
    slices = np.sum([one["slices"] for made in cells.values() for one in made["documents"]], 0)
    shared = {"baselines": {}, "seconds": sum(made["seconds"] for made in cells.values())}
    total = sum(len(one["said"]) for made in cells.values() for one in made["documents"])
    return [
        {"id": "kg.10.1", "value": value, "ci95": (min(low, value), max(high, value)), "unit": "ECE", "n": total,
         "note": "triples read end to end, those for review too, 15 bins; "
         + ", ".join(f"{name} {error:.3f}" for name, error in parts.items())} | shared,
        {"id": "kg.10.2", "value": 100 * float(slices[0] / max(1, slices[1])), "unit": "%", "n": int(max(1, slices[1])),
         "note": "statements of a store: head, tail and sentence slice the document to their words"}
        | shared,
    ]  # fmt: skip


def speed(setting: Setting, wanted: int, threads: int) -> list[dict[str, Any]]:
    """kg.12, with a model of CoNLL04 from 20 sentences a type. Memory is told of 100,000 sentences or not at all."""
    [field] = [one for one in fields(setting.data) if one.name == "CoNLL04"]
    examples = field.draw(20, 0)
    program = [str(Path(__file__).with_name("kg_speed.py"))]
    with TemporaryDirectory() as name:
        folder = Path(name)
        GraphModel.learn(examples, field.schema, setting.encoder).save(folder / "model")
        job = {"data": str(setting.data), "model": str(folder / "model"), "store": str(folder / "graph.db"),
               "sentences": wanted, "threads": threads}  # fmt: skip
        told = child.answer(
            sys.executable, program, folder, job, threads=threads, environment=child.with_source()
        )
    shared = {"n": told["sentences"], "baselines": {}, "seconds": told["seconds"]}
    first = [size for seen, size in told["memory"] if seen <= told["sentences"] / 5]
    rest = [size for seen, size in told["memory"] if seen > told["sentences"] * 4 / 5]
    row = {
        "id": "kg.12.1", "value": told["sentences"] / told["cpu"], "unit": "sentences/s",
        "note": f"sentences a second of computing, one thread, from text to store: {told['documents']} documents of "
        f"MedQuAD, TAT-QA and the code of the District of Columbia, {told['counts'].get('mentions', 0)} mentions; "
        f"{told['sentences'] / told['seconds']:.0f} on the wall of a shared machine",
    }  # fmt: skip
    if told["sentences"] < WHOLE:
        return [row | shared]
    grown = max(rest) - max(first)
    flat = {
        "id": "kg.12.2", "value": float(grown < max(50.0, max(first) / 10)), "unit": "yes/no",
        "note": f"{told['sentences']} sentences: at most {max(first):.0f} MB over the first fifth, {max(rest):.0f} MB "
        "over the last; flat is less than a tenth more",
    }  # fmt: skip
    return [row | shared, flat | shared]


def _entities(runs: Sequence[Cell]) -> float:
    right, found, there = np.sum([one["entities"] for run in runs for one in run["documents"]], 0)
    return 200 * float(right / max(1, found + there))


def _mean(values: Any) -> str:
    return f"{np.mean(list(values)):.1f}"


def _over_runs(runs: Sequence[Sequence[Any]], mean: float) -> tuple[float, float]:
    """The interval of mean F1, runs and documents drawn with replacement."""
    nothing = [[one._replace(right=0) for one in run] for run in runs]
    spread = mean_gain(zip(runs, nothing, strict=True))
    return min(mean, spread.low), max(mean, spread.high)


def _pooled(documents: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    said = [row for one in documents for row in one["said"] if row[0] >= LEAST]
    return np.array([p for p, _ in said]), np.array([right for _, right in said])


def _share(cells: Cells, field: str, shots: int, what: str, setting: Setting) -> float:
    total = np.sum([
        one["named"][what] for seed in setting.seeds for one in cells[field, shots, seed]["documents"]
    ], 0)  # fmt: skip
    return 100 * float(total[1] / max(1, total[0]))


def _shares(setting: Setting, cells: Cells, what: str) -> tuple[float, np.ndarray]:
    """The mean over fields and numbers of sentences, and the same of resampled documents and seeds."""
    groups = sorted({key[:2] for key in cells})
    rng = np.random.default_rng(0)
    drawn = np.zeros(RESAMPLES)
    for group in groups:
        tables = np.array(
            [[one["named"][what] for one in cells[*group, seed]["documents"]] for seed in setting.seeds]
        )
        weights = rng.multinomial(
            tables.shape[1], np.full(tables.shape[1], 1 / tables.shape[1]), size=RESAMPLES
        )
        seeds = rng.multinomial(len(tables), np.full(len(tables), 1 / len(tables)), size=RESAMPLES)
        sums = np.einsum("rd,rs,sdk->rk", weights, seeds, tables)
        drawn += 100 * sums[:, 1] / np.maximum(1, sums[:, 0]) / len(groups)
    mean = float(np.mean([_share(cells, *group, what, setting) for group in groups]))
    return mean, drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows asked for and write benchmarks/runs/kg_end_to_end.json.

    Raises DataError for an unknown row, and for a folder without the data.
    """
    options = _parser().parse_args(arguments)
    words = ROWS if not options.only else [word.strip().lower() for word in options.only.split(",")]
    for word in words:
        if word not in (*ROWS, LAW):
            raise DataError(
                f"--only names {word!r}.{did_you_mean(word, ROWS)} There are: {', '.join((*ROWS, LAW))}."
            )
    if "kg.8" in words and not options.spacy:
        raise DataError("kg.8 wants --spacy PYTHON, one that has spaCy and scikit-learn.")
    torch.set_num_threads(options.threads)
    encoder = load_encoder("minilm", cache=False)
    setting = Setting(
        published.folder(options.data), encoder, tuple(int(seed) for seed in str(options.seeds).split(",")),
        options.documents, options.spacy, options.pretrained, options.keep, options.part, Console().print,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    if LAW in words:
        learned = learn_law([one for field in fields(setting.data) for one in answers(setting, field)])
        setting.show([round(number, 2) for number in learned])
    if {"kg.8", "kg.9", "kg.10"} & set(words):
        cells = read(setting, (OURS, BARE, STARTED, SPACY) if "kg.8" in words else (OURS,))
        rows += against(setting, cells) if "kg.8" in words else []
        rows += falsely(setting, cells[OURS]) if "kg.9" in words else []
        rows += calibration(setting, cells[OURS]) if "kg.10" in words else []
    if "kg.12" in words:
        rows += speed(setting, options.sentences, options.threads)
    for row in rows:
        number = ".".join(row["id"].split(".")[:2])
        row |= {"seeds": list(setting.seeds), "command": f"{COMMAND} --only {number}{_flags(options)}"}
        setting.show(row)
    if rows and (options.part == "test" or options.out is not None):
        setting.show(f"Written: {write_run(SUITE, rows, options.out).name}")
    return 0


def _flags(options: argparse.Namespace) -> str:
    """The options that change figures, as they are typed."""
    usual = vars(_parser().parse_args([]))
    said = ("seeds", "documents", "pretrained", "sentences", "threads", "part")
    text = "".join(
        f" --{name} {getattr(options, name)}" for name in said if getattr(options, name) != usual[name]
    )
    return text + (" --spacy PYTHON" if options.spacy else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="A graph from a few labelled sentences.")
    add = parser.add_argument
    add(
        "--only",
        metavar="ROWS",
        help=f"of {', '.join(ROWS)}, separated by commas; or {LAW}: prints the law that is shipped",
    )
    add("--data", metavar="FOLDER", help=f"published data sets; default: the variable {published.VARIABLE}")
    add("--seeds", default="0,1,2", help="of the sentences drawn and of tuning (%(default)s)")
    add("--documents", type=int, default=120, help="of BC5CDR, drawn once; all of CoNLL04 (%(default)s)")
    add("--spacy", metavar="PYTHON", help="a Python that has spaCy and scikit-learn, for kg.8")
    add(
        "--pretrained",
        default="en_core_web_sm",
        help="package of spaCy's weights (%(default)s)",
    )
    add("--keep", type=Path, metavar="FOLDER", help="where what was read stays, and is taken from again")
    add("--part", default="test", choices=("dev", "test"), help="dev: nothing is written (%(default)s)")
    add("--sentences", type=int, default=WHOLE, help="of kg.12 (%(default)s)")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help="where to write the run file; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
