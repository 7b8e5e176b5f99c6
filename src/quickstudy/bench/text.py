"""`quickstudy bench text`: everything that the main job must show, on published data, beside its rivals.

    quickstudy bench text --data FOLDER               all rows, about half an hour on one core
    quickstudy bench text --only core.1,core.4        some of them
    quickstudy bench text --quick                     see that it works; nothing is written

Nothing is tuned here: priors are learned with the library's defaults, and every draw is seeded.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from quickstudy.bench import data as published
from quickstudy.bench import leaks
from quickstudy.bench.runs import write_run
from quickstudy.core.errors import DataError, MissingExtra, did_you_mean

SUITE = "text"
ROWS: dict[str, str] = {
    "core.1": "BANKING77, ProtAugment splits, prior of CLINC150 alone",
    "core.2": "the same, prior of the split's training classes too",
    "core.3": "BANKING77, all 77 intents, through the classifier",
    "core.4": "HuffPost, published class split",
    "core.5": "time and accuracy against SetFit",
    "core.6": "time to adapt and predict, features cached",
    "core.8": "calibration on unseen classes: takes the answers of core.1 and core.3",
}
NAMES: dict[str, tuple[str, ...]] = {
    "banking77": ("core.1", "core.2", "core.3"),
    "huffpost": ("core.4",),
    "setfit": ("core.5",),
    "speed": ("core.6",),
    "calibration": ("core.8",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites asked for, print their tables, write benchmarks/runs/text.json.

    Raises:
        DataError: no data folder, a file that is missing or isn't the published one, an unknown row.
        MissingExtra: core.5 was asked for and setfit isn't installed.
    """
    given = _parser().parse_args(arguments)
    wanted = chosen(given.only)
    folder = published.folder(given.data)
    console = Console()
    from quickstudy.bench.text_play import Clock, Setting

    setting = Setting(
        show=console.print, seed=given.seed, quick=given.quick, tune=given.tune_encoder,
        encoder=given.encoder, episodes=given.episodes,
    )  # fmt: skip
    clock, spent = Clock(), {}
    rows, audits = [], []
    errors: dict[str, float] = {}
    for name, suite in _suites(given, wanted, folder, setting).items():
        own = Clock()
        console.rule(name)
        try:
            findings = suite()
        except MissingExtra as problem:
            if given.only:
                raise
            console.print(f"left out: {problem}")
            continue
        rows += findings.rows
        audits += findings.audits
        errors |= findings.calibration
        spent[name] = own.seconds
    if "core.8" in wanted:
        rows.append(calibration(errors, clock.seconds, given.seed))
        console.print(f"core.8.1: {rows[-1]['value']:.4f} · {rows[-1]['note']}")
    if audits:
        console.print(leaks.as_table(audits))
    console.print("Seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()))
    if given.quick and given.out is None:
        console.print(
            "Nothing was written: the figures of --quick mean nothing. Leave it away, or give --out FOLDER."
        )
        return 0
    for row in rows:
        row["command"] += _flags(given)
    console.print(f"Written: {write_run(SUITE, rows, given.out).name}")
    return 0


def chosen(only: str | None) -> set[str]:
    """The rows that `--only` names. Raises DataError for a word that names none."""
    if not only:
        return set(ROWS)
    found: set[str] = set()
    for word in only.split(","):
        word = word.strip().lower()
        row = ".".join(word.split(".")[:2])
        if word in NAMES:
            found |= set(NAMES[word])
        elif row in ROWS:
            found.add(row)
        else:
            known = [*ROWS, *NAMES]
            raise DataError(
                f"--only names {word!r}.{did_you_mean(word, known)} There are: {', '.join(known)}."
            )
    return found


def calibration(errors: dict[str, float], seconds: float, seed: int) -> dict[str, Any]:
    """core.8: the worst calibration error of core.1's and core.3's answers, on classes that the prior never met.

    Args:
        errors: calibration errors, each under the row it belongs to and its task; other rows' stand in the note.
    """
    from quickstudy.bench.text_play import plain
    from quickstudy.core.report import Estimate

    counted = {name: error for name, error in errors.items() if name.startswith(("core.1 ", "core.3 "))}
    if not counted:
        raise DataError("core.8 takes the answers of core.1 and core.3; none were given.")
    worst = max(counted, key=lambda name: counted[name])
    others = {name: error for name, error in errors.items() if name not in counted}
    note = f"15 bins; the worst of {_listed(counted)}" + (
        f"; not counted: {_listed(others)}" if others else ""
    )
    estimate = Estimate(counted[worst], float("nan"), len(counted))
    command = "quickstudy bench text --only core.8"
    return plain("core.8.1", estimate, unit="ECE", command=command, seconds=seconds, seeds=[seed], note=note)


def _listed(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {error:.4f}" for name, error in errors.items())


def _suites(given: argparse.Namespace, wanted: set[str], folder: Path, setting: Any) -> dict[str, Any]:
    """What to run, by name, in order. Data are read when a suite begins."""
    from quickstudy.bench import peers, text_episodes, text_ways

    foreign = ("banking", "credit_cards")  # the domains of CLINC150 that are near BANKING77
    episodes = {"core.1", "core.2"} & wanted | ({"core.1"} if "core.8" in wanted else set())
    suites: dict[str, Any] = {}
    if episodes:
        suites[" and ".join(sorted(episodes))] = lambda: text_episodes.banking77(
            setting, published.clinc150(folder), published.clinc150(folder, without_domains=foreign),
            *published.protaugment(folder), rows=episodes,
        )  # fmt: skip
    if {"core.3", "core.8"} & wanted:
        suites["core.3"] = lambda: text_ways.all_ways(
            setting, published.clinc150(folder), *published.banking77(folder)
        )
    if "core.4" in wanted:
        suites["core.4"] = lambda: text_episodes.huffpost(setting, *published.huffpost(folder))
    if "core.5" in wanted:
        suites["core.5"] = lambda: peers.against_setfit(
            setting, published.clinc150(folder), *published.banking77(folder), threads=given.threads,
            steps=given.setfit_steps, full=given.full_setfit,
        )  # fmt: skip
    if "core.6" in wanted:
        suites["core.6"] = lambda: text_ways.speed(
            setting, setting.teach([published.clinc150(folder)], tune=False), published.banking77(folder)[0]
        )
    return suites


def _flags(given: argparse.Namespace) -> str:
    """The options that change figures, as they are typed."""
    said = {"seed": 0, "encoder": "minilm", "episodes": 600, "threads": 1}
    text = "".join(
        f" --{name} {getattr(given, name)}" for name, usual in said.items() if getattr(given, name) != usual
    )
    return text + ("" if given.tune_encoder else " --no-tune-encoder") + (" --quick" if given.quick else "")


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name}  {about}" for name, about in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="quickstudy bench text",
        description="Benchmarks of text classification on published data.",
        epilog=f"rows:\n{rows}\nor by data: {', '.join(NAMES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", metavar="FOLDER", help=f"published data sets; default: the variable {published.VARIABLE}")
    add("--only", metavar="ROWS", help="rows or data sets, separated by commas; default: all")
    add("--quick", action="store_true", help="a few episodes of one split, to see that it works")
    add("--seed", type=int, default=0, help="of every draw (%(default)s)")
    add("--encoder", default="minilm", help="name or folder of the encoder (%(default)s)")
    add("--episodes", type=int, default=600, help="of each class split and shot (%(default)s)")
    add(
        "--tune-encoder", action=argparse.BooleanOptionalAction, default=True,
        help="whether priors come with a tuned encoder; without one is shown beside",
    )  # fmt: skip
    add("--threads", type=int, default=1, help="of both sides of core.5 (%(default)s)")
    add("--setfit-steps", type=int, metavar="N", help="train SetFit for N steps; default: 50 times our time")
    add("--full-setfit", action="store_true", help="train SetFit whole; takes many hours")
    add("--out", type=Path, metavar="FOLDER", help="where to write text.json; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
