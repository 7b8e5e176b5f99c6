"""Write what README and docs take from elsewhere: run files, the registries, the command line's help, stored outputs.

    python tools/make_tables.py             fill every part between <!-- begin: NAME --> and <!-- end: NAME -->
    python tools/make_tables.py --check     say which pages are behind; exit code 1 if any is
    python tools/make_tables.py --demo      run `quickstudy demo` first, and keep its output and picture (3 minutes)

Nothing between two markers is typed by hand. Run it after a benchmark wrote a run file, or a command's help changed.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from quickstudy.bench import bars, choose_table
from quickstudy.bench.runs import Row, Run
from quickstudy.bench.settings import regresses

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS, PICTURE = ROOT / "docs" / "outputs", ROOT / "docs" / "images" / "demo.png"
PART = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.S)
HEADLINES = ("core.2.1", "core.1.1", "core.5.1", "core.7.1")
WIDTH = 100  # of the help
DEMO_WIDTH = 112


def pages() -> list[Path]:
    """Every page that has parts to fill."""
    own = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in own if PART.search(page.read_text(encoding="utf-8"))]


def filled(text: str) -> str:
    """A page with its parts as they ought to be. Raises KeyError for a part that nothing here makes."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]().strip()}\n{part[3]}", text)


@cache
def _runs() -> list[Run]:
    return bars.load_runs(ROOT / "benchmarks" / "runs")


@cache
def _checks() -> list[bars.Check]:
    return bars.check(bars.load_bars(ROOT / "benchmarks" / "bars.toml"), _runs())


def _asked() -> list[Run]:
    """Run files of which something is asked; a survey has a page of its own."""
    return [run for run in _runs() if run.suite not in bars.SURVEYS]


def headline() -> str:
    """The measured line of the README: the first of HEADLINES that a run file holds."""
    found = {check.id: check for check in _checks() if check.value is not None}
    for row in HEADLINES:
        if row in found:
            c = found[row]
            what = c.what.partition(";")[0]
            return f"Measured: {what}: **{c.shown} {c.unit}** (`{c.command}`, row {c.id})."
    return "Not measured yet: `quickstudy bench text`."


def summary() -> str:
    """How many bars are met, and each that isn't, in words."""
    short = [c for c in _checks() if c.status == "short"]
    waiting = [c.id for c in _checks() if c.status == "not run"]
    lines = [f"{bars.summary(_checks())}."]
    lines += [f"- {c.id}, {c.what}: {c.shown} {c.unit}; {c.reason}." for c in short]
    lines += [f"- Without a run file: {', '.join(waiting)}."] if waiting else []
    return "\n".join([lines[0], "", *lines[1:]])


def table() -> str:
    """Every bar with its figure."""
    return bars.as_markdown(_checks())


def details() -> str:
    """Where each figure comes from: baselines, number of repetitions, command, commit, machine."""
    lines = [
        "| row | ours | baselines | n | command | commit | cores, torch |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in _asked():
        for row in run.rows:
            machine, commit = row.machine or run.machine, row.commit or run.commit
            commit = commit[:9] + ("+changes" if commit.endswith("+changes") else "")
            told = "; ".join(f"{name} {bars.figure(value)}" for name, value in row.baselines.items())
            cells = (row.id, f"{bars.figure(row.value)} {row.unit}", told, str(row.n), f"`{row.command}`", commit,
                     f"{machine.cores}, {machine.torch}")  # fmt: skip
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    notes = [f"- **{row.id}**: {row.note}" for run in _asked() for row in run.rows if row.note]
    return "\n".join([*lines, "", "Notes that the commands wrote:", "", *notes])


def engine() -> str:
    """The engine's speed from its run file."""
    from quickstudy.bench.engine_table import as_markdown

    return as_markdown([row for run in _runs() for row in run.rows])


def choose() -> str:
    """Every learner on tasks of classes."""
    return choose_table.table(
        _choose(), numbers=False, learners=sorted(import_module("quickstudy.learners").__all__)
    )


def choose_numbers() -> str:
    """Every learner that regresses on sinusoids."""
    learners = import_module("quickstudy.learners")
    named = sorted(name for name in learners.__all__ if regresses(getattr(learners, name)))
    return choose_table.table(_choose(), numbers=True, learners=named)


def choose_findings() -> str:
    """Who is best where, and who stays below the baselines."""
    return choose_table.findings(_choose())


def _choose() -> list[Row]:
    return [row for run in _runs() if run.suite == "choose" for row in run.rows]


def bank() -> str:
    """Triple F1 with more and more earlier fields in the bank, and that of the parts."""
    rows = [row for run in _runs() if run.suite == "kg_bank" for row in run.rows if ".fields" in row.id]
    if not rows:
        return "Not measured yet: `quickstudy bench kg_bank`."
    parts = list(rows[0].baselines)
    lines = [
        f"| earlier fields | triples, F1 | gain, paired | {' | '.join(parts)} | |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        low, high = row.ci95 or (row.value, row.value)
        gain = ""
        if row.gain and row.gain.ci95:
            gain = "{:+.1f} [{:+.1f}, {:+.1f}]".format(row.gain.value, *row.gain.ci95)
        told = " | ".join(f"{row.baselines[part]:.1f}" for part in parts)
        count = row.id.rpartition("fields")[2]
        bar = "█" * round(row.value)
        lines.append(f"| {count} | {row.value:.1f} [{low:.1f}, {high:.1f}] | {gain} | {told} | {bar} |")
    [main] = [row for run in _runs() for row in run.rows if row.id == "kg.11.1"]
    return "\n".join(
        [*lines, "", f"`{main.command}`, {len(main.seeds)} seeds, {main.n} documents; intervals are 95%."]
    )


def domains() -> str:
    """The domains, and what each is about."""
    from quickstudy.domains import domains as known

    return "\n".join(f"- `{name}`: {domain.about}." for name, domain in known().items())


def encoders() -> str:
    """The encoders known by name, from their registry."""
    from quickstudy.encoders.tiny import HashEncoder, tiny_bert
    from quickstudy.encoders.weights import PACKAGED

    lines = ["| name | what it is | dim | licence | weights' sha256 begins | how to get it |"]
    lines += ["|---|---|---:|---|---|---|"]
    for name, one in PACKAGED.items():
        dim, sha256 = re.search(r"(\d+) dimensions", one.about), next(iter(one.sha256.values()))
        lines.append(
            f"| `{name}` | {one.about} ({one.citation}) | {dim[1] if dim else ''} | {one.licence} | `{sha256[:12]}` "
            f"| `{one.install}` |"
        )
    tiny, bert = HashEncoder.dim, tiny_bert()[0].hidden_size
    lines.append(
        f"| `tiny` | hashed letter n-grams: for tests, knows nothing | {tiny} | Apache-2.0 | | built in |"
    )
    lines.append(
        f"| `tiny-bert` | two layers, random weights: for tests | {bert} | Apache-2.0 | | built in |"
    )
    return "\n".join(lines)


def encoder_speed() -> str:
    """What was measured on number formats: the docstring of the module that chooses by it."""
    return (import_module("quickstudy.encoders.text").__doc__ or "").partition("\n\n")[2]


def cli() -> str:
    """Every command's help, as the command line gives it."""
    from quickstudy.app.cli import words_of_all

    parts = ["```text", _help([]), "```"]
    for words in words_of_all():
        parts += ["", f"## {' '.join(words)}", "", "```text", _help([*words, "--help"]), "```"]
    return "\n".join(parts)


def _help(arguments: list[str]) -> str:
    from quickstudy.app.cli import main

    out, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(out):
            main(arguments)
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def demo() -> str:
    """The stored output of `quickstudy demo`: its table, what it concludes, and its first explanation."""
    lines = (OUTPUTS / "demo.txt").read_text(encoding="utf-8").splitlines()
    questions = [i for i, line in enumerate(lines) if line.startswith('"')]
    note, single, after = (
        next(i for i, line in enumerate(lines) if line.startswith(start))
        for start in ("±", "One example", "Never")
    )
    shown = [*lines[:note], *lines[single:after], "…", *lines[questions[0] : questions[1] - 1]]
    return "\n".join(["```console", "$ make demo", *(line for line in shown if line), "```"])


PARTS: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        headline, summary, table, details, engine, choose, choose_numbers, choose_findings, domains, encoders,
        encoder_speed, cli, demo, bank,
    )
}  # fmt: skip


def run_demo() -> None:
    """Run the demo in an empty folder; keep what it prints and, smaller, its picture."""
    from PIL import Image

    from quickstudy.app.cli import main

    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["COLUMNS"] = str(DEMO_WIDTH)
        with contextlib.redirect_stdout(out):
            if main(["demo"]):
                raise SystemExit("the demo failed")
        picture = Image.open(Path("quickstudy-demo") / "report.png").convert("RGB")
        picture.thumbnail((1400, 1400))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        picture.quantize(64).save(PICTURE, optimize=True)
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    text = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
    (OUTPUTS / "demo.txt").write_text(text + "\n", encoding="utf-8")


def main() -> int:
    """Fill the pages, or say which are behind."""
    if "--demo" in sys.argv:
        run_demo()
    behind = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            behind.append(page.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    print(
        f"{'behind' if '--check' in sys.argv else 'written'}: {', '.join(behind)}"
        if behind
        else "all up to date"
    )
    return int(bool(behind) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
