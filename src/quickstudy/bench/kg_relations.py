"""`quickstudy bench kg_relations`: few-shot relations on FewRel, by what other relations taught (kg.1, kg.2, kg.3).

    quickstudy bench kg_relations                       all rows
    quickstudy bench kg_relations --only kg.1           one row
    quickstudy bench kg_relations --quick               see that it works; nothing is written

Nothing is learned from the reported part: not its sentences, not its relations (nor those of the same meaning in other
data sets). kg.1 and kg.2 don't see the mean of its features either. kg.3 knows 200 pairs of the part, without their
relations, that no episode draws. They are of the sort that is asked for, as FewRel marks it: from documents alone one
collects pairs of names that merely stand together, and what such are worth stands beside it. Beside the examples a
method has the relations' names and descriptions, as Wikidata has them, and a user's schema would; a gain is over the
frozen encoder with these. FewRel-80's sentences have no marks; which names their relations join is guessed
(`relation_marks.py`).
Settings were chosen with val_nyt as the target, never with val_wiki: kg.2 isn't blind.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console

from quickstudy.bench import data as published
from quickstudy.bench import kg_corpora
from quickstudy.bench import relation_data as given
from quickstudy.bench.kg_relations_judge import Method, accuracy, auroc, episodes, scored
from quickstudy.bench.relation_data import NONE, Related
from quickstudy.bench.relation_marks import guess_marks, learn_names
from quickstudy.bench.runs import write_run
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.estimate import Estimate, paired
from quickstudy.domains.kg.relations.certainty import COHORT, FEWEST
from quickstudy.domains.kg.relations.experience import learn_relation_prior
from quickstudy.domains.kg.relations.names import named
from quickstudy.domains.kg.relations.pairs import Pair, PairEncoder
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.relations.strangers import strangers
from quickstudy.domains.kg.relations.tune import Earlier, RelationTuning
from quickstudy.encoders.text import TextEncoder, load_encoder

SUITE, COMMAND = "kg_relations", "quickstudy bench kg_relations"
ROWS = {
    "kg.1": "FewRel val_wiki: 5w1s / 5w5s / 10w1s / 10w5s",
    "kg.2": "FewRel val_nyt: 5w1s / 5w5s",
    "kg.3": "none of the above at 50%, val_wiki 5w5s: AUROC / accuracy",
}
SAME: dict[str, dict[str, set[str]]] = {
    "val_wiki": {
        "KBP37": {"per:spouse", "org:members"},
        "FewRel-80": {
            "crosses", "original language of work", "competition class", "part of", "sport", "constellation",
            "position played on team / speciality", "located in or next to body of water", "voice type", "follows",
            "spouse", "military rank", "mother", "member of", "child", "main subject",
        },
    },
    "val_nyt": {
        "KBP37": {"per:employee_of", "org:top_members/employees", "org:members", "org:subsidiaries"},
        "CoNLL04": {"Work_For"},
        "FewRel-80": {
            "position played on team / speciality", "member of", "main subject", "competition class", "military rank",
            "performer", "characters", "record label", "director", "child", "voice type", "mother", "father",
            "developer", "manufacturer", "publisher", "has part", "taxon rank", "subsidiary", "screenwriter", "league",
            "participating team",
        },
    },
}  # fmt: skip
"""Relations of other data sets that say the same as one of the reported part; for val_nyt also what is akin to them."""
WEIGHTS = {"FewRel val_nyt": 1.5, "FewRel val_wiki": 1.5, "KBP37": 1.0, "CoNLL04": 0.5, "FewRel-80": 4.0}
"""How often episodes of tuning come from a data set."""
MARKED, KEPT = 70, 40
"""Sentences of each of FewRel-80's relations whose marks are guessed, and pairs of it that are kept."""
FROZEN, COVARIANCE, TUNED, UNNAMED = "frozen", "learned covariance", "tuned", "without names"
FROZEN_NAMED, FROZEN_FIELD = "frozen, names", "frozen, names, the field's pairs"
FROZEN_TOGETHER, TOGETHER = "frozen, names merely together", "names merely together"
OURS, FIELD = "without the field's pairs", "tuned, learned covariance, names, the field's pairs"
BASELINES = (FROZEN, COVARIANCE, TUNED, UNNAMED, FROZEN_NAMED)
FIELDS = (FROZEN_FIELD, FROZEN_TOGETHER, TOGETHER)


@dataclass(frozen=True)
class Setting:
    """How a run is made."""

    data: Path
    encoder: TextEncoder
    tuning: RelationTuning
    seeds: tuple[int, ...]
    episodes: int
    each: int
    """Pairs of a relation that episodes draw from."""
    console: Console


def sources(data: Path, target: Related, part: str, encoder: TextEncoder) -> list[Related]:
    """What may be learned from, for a reported part: other sentences, and relations that it doesn't have."""
    other = "val_nyt" if part == "val_wiki" else "val_wiki"
    found = [given.fewrel(data, other), given.kbp37(data), given.conll04(data)]
    same, known = SAME[part], [pair.text for pair in target.pairs]
    found = [one.without({*target.relations, *same.get(one.name, set())}).unlike(known) for one in found]
    unmarked = given.fewrel80(data, without=same["FewRel-80"], unlike=known, each=MARKED)
    whole = next(one for one in kg_corpora.sources(data) if one.name == "wikigold")
    finder = learn_names(encoder, [pair for one in found[:2] for pair in one.pairs], whole.documents)
    return [*found, guess_marks(*unmarked, finder, PairEncoder(encoder), each=KEPT)]


def learn(setting: Setting, earlier: Sequence[Related]) -> list[RelationPrior]:
    """The prior of the frozen encoder, and that of the tuned one."""
    known = as_earlier(earlier, setting.data)
    return [
        learn_relation_prior(known, setting.encoder, setting.tuning, tune_encoder=tune, seeds=setting.seeds)
        for tune in (False, True)
    ]


def as_earlier(found: Sequence[Related], data: Path) -> list[Earlier]:
    """Data sets as the domain takes them."""
    return [
        Earlier(
            one.pairs,
            [None if label == NONE else label for label in one.labels],
            WEIGHTS[one.name],
            names_of(one, data),
        )
        for one in found
    ]


def names_of(found: Related, data: Path) -> dict[str, Pair]:
    """What the name and description of each relation make."""
    return {label: named(*both) for label, both in given.relation_names(data, found.relations).items()}


def methods(
    setting: Setting, target: Related, others: Sequence[Pair], learned: Sequence[RelationPrior]
) -> list[Method]:
    """Frozen and tuned features of the reported pairs, each centred on the sources, without and with covariance; with
    the relations' names; and placed in the field by other pairs. How sure one is, each has from sources with names: a
    threshold without would be another.
    """
    said, found = list(names_of(target, setting.data).values()), []
    titles = (
        (FROZEN, COVARIANCE, FROZEN_NAMED, FROZEN_FIELD, FROZEN_TOGETHER),
        (TUNED, UNNAMED, OURS, FIELD, TOGETHER),
    )
    apart = [one for pair in others for one in strangers(pair)]
    apart = [apart[i] for i in np.random.default_rng(0).permutation(len(apart))[:COHORT]]
    for (bare, damped, named_, placed, together), prior in zip(titles, learned, strict=True):
        read = prior.pair_encoder(setting.encoder)
        raw, names = read.encode(target.pairs), prior.names(read.encode(said))
        plain = replace(prior, damping=torch.zeros_like(prior.damping))
        field, loose = prior.of_field(read.encode(others)), prior.of_field(read.encode(apart))
        found += [
            Method(bare, plain.features(raw), plain),
            Method(damped, prior.features(raw), prior),
            Method(named_, prior.features(raw), prior, names),
            Method(placed, field.features(raw), field, names),
            Method(together, loose.features(raw), loose, names),
        ]
    return found


def few_shot(setting: Setting, part: str, row: str, cells: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """kg.1 and kg.2: accuracy on one part of FewRel."""
    begin = time.perf_counter()
    whole = given.fewrel(setting.data, part)
    earlier = sources(setting.data, whole, part, setting.encoder)
    target, others = _sampled(whole, setting.each)
    learned = learn(setting, earlier)
    ways_of, record = methods(setting, target, others, learned), learned[1].record
    y = _numbers(target)
    seconds = time.perf_counter() - begin
    rows = []
    for place, (ways, shots) in enumerate(cells, start=1):
        drawn = episodes(y, ways, shots, 1, setting.episodes, 0)
        scores = {method.name: accuracy(method, drawn, y) for method in ways_of}
        told = {name: Estimate.of(values) for name, values in scores.items()}
        setting.console.print(
            f"{part} {ways}-way {shots}-shot: " + ", ".join(f"{n} {e}" for n, e in told.items())
        )
        gain = paired(scores[OURS], scores[FROZEN_NAMED])
        note = (
            f"{ways}-way {shots}-shot, one question a relation, {len(target.pairs)} of {len(whole.pairs)} pairs; "
            f"learned from {_named(earlier)}; tuned {record['steps']} steps, "
            f"{record['CPU-s']} CPU-s; centred on the sources' means; beside the examples a relation's name and "
            f"description, as Wikidata has them, are given, but to the baselines without names; {_also(told, others)}"
            f"{'' if part == 'val_wiki' else '; settings were chosen on this part'}"
        )
        rows.append(
            _row(f"{row}.{place}", told[OURS], "points", setting, seconds, note)
            | {
                "baselines": {n: round(told[n].mean, 2) for n in BASELINES},
                "gain": {"value": gain.mean, "ci95": (gain.low, gain.high), "over": FROZEN_NAMED},
            }
        )
    if part == "val_wiki":
        rows += _none(setting, ways_of, y, target, seconds)
    return rows


def _none(
    setting: Setting, ways_of: Sequence[Method], y: Int[np.ndarray, " n"], target: Related, seconds: float
) -> list[dict[str, Any]]:
    """kg.3: half of the questions have none of the five relations."""
    drawn = episodes(y, 5, 5, 1, setting.episodes, 1, strangers=True)
    areas, rights, notes = {}, {}, {}
    for method in ways_of:
        score, right = scored(method, drawn, y)
        level = 0.0  # even odds, by a certainty learned from sources: on relations that tuning hadn't met
        areas[method.name] = auroc(score, setting.episodes)
        answered = score > level
        asked = np.arange(score.shape[1]) < 5
        correct = np.where(asked, answered & right, ~answered)
        rights[method.name] = (100 * correct.mean(1)).tolist()
        said = answered & ~asked
        notes[method.name] = f"false answers {100 * said.sum() / (~asked).sum() / len(score):.1f}%"
    told = {name: Estimate.of(values) for name, values in rights.items()}
    setting.console.print("none of the above, AUROC: " + ", ".join(f"{n} {e}" for n, e in areas.items()))
    setting.console.print("accuracy: " + ", ".join(f"{n} {e} ({notes[n]})" for n, e in told.items()))
    note = (
        "val_wiki, 5-way 5-shot, the relations' names and 200 other pairs of the part without their relations, of the "
        f"sort that is asked for; half of the questions of other relations; {notes[FIELD]} of those; with pairs of "
        f"names that merely stand together in the same sentences, as documents have them, {notes[TOGETHER]}; "
    )
    rows = []
    for place, (found, what) in enumerate(
        ((areas, "AUROC over all questions"), (told, "answers from even odds on, as learned from sources")), 1
    ):
        rows.append(
            _row(f"kg.3.{place}", found[FIELD], "points", setting, seconds, note + what)
            | {"baselines": {n: round(found[n].mean, 2) for n in (*BASELINES, OURS, *FIELDS)}}
        )
    gain = paired(rights[FIELD], rights[FROZEN_FIELD])
    rows[-1]["gain"] = {"value": gain.mean, "ci95": (gain.low, gain.high), "over": FROZEN_FIELD}
    return rows


def _row(row: str, found: Estimate, unit: str, setting: Setting, seconds: float, note: str) -> dict[str, Any]:
    return {
        "id": row,
        "value": found.mean,
        "ci95": (found.low, found.high),
        "unit": unit,
        "n": setting.episodes,
        "seeds": list(setting.seeds),
        "command": COMMAND,
        "seconds": round(seconds, 1),
        "note": note,
    }


def _also(told: dict[str, Estimate], others: Sequence[Pair]) -> str:
    """What pairs of the field would add, where there are some left."""
    if len(others) < FEWEST:
        return "all pairs are asked for, so none is left to be the field's"
    return f"with {len(others)} pairs of the part that nobody labelled {told[FIELD]}"


def _named(earlier: Sequence[Related]) -> str:
    return ", ".join(f"{one.name} ({len(one.relations)} relations)" for one in earlier)


def _numbers(target: Related) -> Int[np.ndarray, " n"]:
    number = {name: i for i, name in enumerate(target.relations)}
    return np.array([number[label] for label in target.labels])


def _sampled(target: Related, each: int) -> tuple[Related, list[Pair]]:
    """So many pairs of each relation, drawn once for all, or the whole of a relation that has fewer; and others of the
    part, whatever their relations.
    """
    y, rng = np.array(target.labels), np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(y == name))[:each] for name in target.relations]
    left = np.setdiff1d(np.arange(len(y)), np.concatenate(rows))
    others = [target.pairs[i] for i in rng.permutation(left)[:COHORT]]
    return target.rows(sorted(int(i) for part in rows for i in part)), others


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows asked for and write benchmarks/runs/kg_relations.json.

    Raises DataError for an unknown row, and for a folder without the data.
    """
    options = _parser().parse_args(arguments)
    words = (
        ["kg.1", "kg.2", "kg.3"] if not options.only else [w.strip().lower() for w in options.only.split(",")]
    )
    for word in words:
        if word not in ROWS:
            raise DataError(f"--only names {word!r}.{did_you_mean(word, ROWS)} There are: {', '.join(ROWS)}.")
    torch.set_num_threads(options.threads)
    tuning = RelationTuning(**({} if options.steps is None else {"steps": options.steps}))
    seeds = tuple(int(seed) for seed in str(options.seeds).split(","))
    setting = Setting(
        published.folder(options.data),
        load_encoder("minilm", cache=False),
        replace(tuning, steps=2) if options.quick else tuning,
        seeds,
        50 if options.quick else options.episodes,
        20 if options.quick else options.each,
        Console(),
    )
    if {"kg.1", "kg.3"} & set(words):
        found = few_shot(setting, "val_wiki", "kg.1", ((5, 1), (5, 5), (10, 1), (10, 5)))
        _write(
            [row for row in found if any(row["id"].startswith(f"{word}.") for word in words)],
            options,
            setting,
        )
    if "kg.2" in words:
        _write(few_shot(setting, "val_nyt", "kg.2", ((5, 1), (5, 5))), options, setting)
    return 0


def _write(rows: list[dict[str, Any]], options: argparse.Namespace, setting: Setting) -> None:
    for row in rows:
        row["command"] = f"{COMMAND} --only {row['id'].rpartition('.')[0]}{_flags(options)}"
    if not options.quick or options.out is not None:
        setting.console.print(f"Written: {write_run(SUITE, rows, options.out).name}")


def _flags(options: argparse.Namespace) -> str:
    """The options that change figures, as they are typed."""
    said = {"seeds": "0", "steps": None, "episodes": 2000, "each": 100, "threads": 1}
    text = "".join(
        f" --{name} {getattr(options, name)}"
        for name, usual in said.items()
        if getattr(options, name) != usual
    )
    return text + (" --quick" if options.quick else "")


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:6} {about}" for name, about in ROWS.items())
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Few-shot relations.",
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="ROWS", help="rows, separated by commas; default: kg.1,kg.2,kg.3")
    add("--data", metavar="FOLDER", help=f"published data sets; default: the variable {published.VARIABLE}")
    add("--steps", type=int, metavar="N", help="steps of tuning; default: RelationTuning's")
    add(
        "--seeds",
        default="0",
        help="of tuning, separated by commas: their adapters are averaged (%(default)s)",
    )
    add("--episodes", type=int, default=2000, help="of each figure (%(default)s)")
    add("--each", type=int, default=100, help="pairs of a relation that episodes draw from (%(default)s)")
    add("--quick", action="store_true", help="two steps and few tasks, to see that it works")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help="where to write the run file; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
