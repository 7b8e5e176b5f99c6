"""`quickstudy bench learners`: learners that learn how to learn, against SGD at equal steps (learners.9).

    quickstudy bench learners --only learners.9      about five minutes on one core
    quickstudy bench learners --only learners.10     policies that adapt, see `control.py`; about ten minutes
    quickstudy bench learners --only learners.11     a module of one's own, see `own_module.py`; seconds
    quickstudy bench learners --quick                see that it works; nothing is written

Sinusoids of Finn et al. 2017, arXiv:1703.03400, section 5.1, ten points each, a perceptron of two layers of 40. Each
learner is meta-trained on tasks drawn for ever, then judged on 1,000 new ones. SGD takes as many steps on the same
tasks, from three sets of weights:

* those drawn at random that the learner's own meta-training began at;
* those that the learner has learned to start from: only the rule by which they move differs;
* those that MAML learns from as many tasks as the learner has met.

From each, SGD's rate is the best of a row of rates on 1,000 tasks of its own, which are neither trained nor judged on.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from quickstudy.bench.own_module import same_twice
from quickstudy.bench.runs import write_run
from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import evaluate, meta_train
from quickstudy.core.episode import Episode
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.learner import Meta, MetaLearner, part
from quickstudy.core.objective import Regress
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.synthetic import Sinusoids
from quickstudy.learners import MAML, LearnedOptimiser, MetaLSTM, RelationNet
from quickstudy.nets import MLP

SUITE, COMMAND = "learners", "quickstudy bench learners"
ROWS = {
    "learners.9": "Relation network, Meta-LSTM and the coordinate-wise optimiser against SGD, on sinusoids",
    "learners.10": "MAML's policy after one step against a pre-trained one's, on point navigation",
    "learners.11": "a network of one's own with batch norm and dropout, under MAML: the same twice",
}
POINTS, INNER, JUDGED = 10, 5, 1000
"""Examples of a task, steps within a task, tasks to judge by."""
RATES = tuple(10 ** (k / 4) for k in range(-14, 1))
"""From .0003 to 1, four a decade."""
NET = MLP(inputs=1, outputs=1, hidden=(40, 40))
SGD = MAML(objective=Regress(), net=NET, steps=INNER, rate=0.01)
"""Plain gradient descent from given weights; meta-trained, at the paper's rate for ten points, it is MAML."""
OURS, SAME, RANDOM, LEARNED = (
    "ours",
    "SGD from the same start",
    "SGD from random weights",
    "SGD from MAML's weights",
)
Show = Callable[[Any], None]


class Contender(NamedTuple):
    """A learner, how it is meta-trained, and where its figure goes."""

    row: str
    learner: MetaLearner
    steps: int
    tasks: int
    """A step."""
    rate: float
    starts: bool = True
    """Whether it moves the weights of NET, from `net.…` in its meta; otherwise nothing has the same start."""


CONTENDERS = (
    Contender(
        "learners.9.1",
        RelationNet(
            objective=Regress(), net=MLP(inputs=1, outputs=40, hidden=(40,)),
            relation=MLP(inputs=120, outputs=1, hidden=(40, 40)),
        ),
        800, 4, 3e-3, starts=False,
    ),
    Contender("learners.9.2", MetaLSTM(objective=Regress(), net=NET, steps=INNER, rate=0.01), 800, 4, 3e-3),
    Contender("learners.9.3", LearnedOptimiser(objective=Regress(), net=NET, steps=INNER), 800, 4, 3e-3),
)  # fmt: skip


class Judged(NamedTuple):
    """The squared error on each task, and the rate that SGD was tuned to."""

    errors: Float[Tensor, "tasks"]
    rate: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows asked for, print their tables, write benchmarks/runs/learners.json.

    Raises DataError for an unknown row.
    """
    given = _parser().parse_args(arguments)
    for word in given.only.split(",") if given.only else ():
        if word not in ROWS:
            raise DataError(f"--only names {word!r}.{did_you_mean(word, ROWS)} There are: {', '.join(ROWS)}.")
    torch.set_num_threads(1)
    console = Console()
    for name in ROWS:
        if given.only and name not in given.only.split(","):
            continue
        rows = _suites()[name](quick=given.quick, seed=given.seed, show=console.print)
        if given.quick and given.out is None:
            continue
        for row in rows:
            seed = f" --seed {given.seed}" if given.seed else ""
            row["command"] = f"{COMMAND} --only {name}{seed}{' --quick' if given.quick else ''}"
        console.print(f"Written: {write_run(SUITE, rows, given.out).name}")
    if given.quick and given.out is None:
        console.print("Nothing was written: the figures of --quick mean nothing.")
    return 0


def _suites() -> dict[str, Callable[..., list[dict[str, Any]]]]:
    def policies(**how: Any) -> list[dict[str, Any]]:
        from quickstudy.bench.control import one_step  # here, as it wants Gymnasium

        return one_step(**how)

    return {"learners.9": against_sgd, "learners.10": policies, "learners.11": same_twice}


def against_sgd(*, quick: bool, seed: int, show: Show) -> list[dict[str, Any]]:
    """learners.9: one row a contender."""
    rows = []
    table = Table("learner", "error", "beside", "error", "rate", "less by",
                  title=f"Sinusoids, {POINTS} points, {INNER} steps: mean squared error of {JUDGED} tasks")  # fmt: skip
    for contender in CONTENDERS:
        clock = Clock()
        if quick:
            contender = contender._replace(steps=3)
        found = judged(contender, 20 if quick else JUDGED, seed)
        rows.append(_row(contender, found, seed, clock.seconds))
        ours = found.pop(OURS).errors
        said = [type(contender.learner).__name__, Estimate.of(ours).text(3)]
        for name, rival in found.items():
            less = paired(rival.errors, ours).text(3, sign=True)
            table.add_row(*said, name, f"{float(rival.errors.mean()):.3f}", f"{rival.rate:.3g}", less)
            said = ["", ""]
    show(table)
    return rows


def judged(contender: Contender, tasks: int, seed: int) -> dict[str, Judged]:
    """The learner first, then SGD from each of the starts, all on the same tasks."""
    learner, test, tuning = contender.learner, _tasks(tasks, seed + 1), _tasks(tasks, seed + 2)
    start = learner.init(seed)
    meta = _trained(learner, start, contender, seed)
    random = part(start, "net.") if contender.starts else SGD.init(seed)
    own = {SAME: part(meta, "net.")} if contender.starts else {}
    starts = own | {RANDOM: random, LEARNED: _trained(SGD, random, contender, seed)}
    return {OURS: Judged(evaluate(learner, meta, test).loss)} | {
        name: descended(weights, tuning, test) for name, weights in starts.items()
    }


def descended(weights: Meta, tuning: list[Episode], test: list[Episode]) -> Judged:
    """SGD from `weights` on `test`, at the rate that is best on `tuning`."""

    def errors(rate: float, tasks: list[Episode]) -> Tensor:
        return evaluate(replace(SGD, rate=rate), weights, tasks).loss.nan_to_num(nan=torch.inf)

    best = min(RATES, key=lambda rate: float(errors(rate, tuning).mean()))
    return Judged(errors(best, test), best)


def _trained(learner: MetaLearner, meta: Meta, contender: Contender, seed: int) -> Meta:
    sample = Sinusoids().sampler(Shots(shots=POINTS, queries=2 * POINTS, tasks=contender.tasks), seed)
    for step in meta_train(
        learner, sample, steps=contender.steps, rate=contender.rate, decay=True, seed=seed, meta=meta
    ):
        meta = step.meta
    return meta


def _tasks(number: int, seed: int) -> list[Episode]:
    """New tasks in batches of 20, judged by 50 points each."""
    sample = Sinusoids().sampler(Shots(shots=POINTS, queries=50, tasks=20), seed)
    return [sample(step) for step in range(number // 20)]


def _row(contender: Contender, found: dict[str, Judged], seed: int, seconds: float) -> dict[str, Any]:
    ours = found[OURS].errors
    rivals = {name: one for name, one in found.items() if name != OURS}
    over = next(iter(rivals))
    gains = "; ".join(
        f"{name} at rate {one.rate:.3g}, {paired(one.errors, ours).text(3, sign=True)}"
        for name, one in rivals.items()
    )
    return plain(
        contender.row,
        Estimate.of(ours),
        unit="MSE",
        command="",
        seconds=seconds,
        seeds=[seed],
        baselines={name: round(float(one.errors.mean()), 4) for name, one in rivals.items()},
        gain=(paired(rivals[over].errors, ours), over),
        note=f"{type(contender.learner).__name__}, {contender.steps} meta-steps of {contender.tasks} tasks, as many "
        f"for MAML; {INNER} steps on {POINTS} points, judged by 50 more of each task; the gain is by how much the "
        f"error is lower, task by task, and so are these: {gains}; each rate is the best of {len(RATES)} on tasks of "
        "its own",
    )


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:13} {about}" for name, about in ROWS.items())
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Learners that learn how to learn, against SGD; policies that adapt.",
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="ROWS", help="rows, separated by commas; default: all")
    add("--quick", action="store_true", help="a few steps and tasks, to see that it works")
    add("--seed", type=int, default=0, help="of every draw (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help="where to write learners.json; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
