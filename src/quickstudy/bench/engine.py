"""How long a meta-gradient step of second-order MAML takes, against a Python loop over tasks (row core.7).

    python benchmarks/engine.py

The loop is what one writes without a library, and no slower than it need be: `torch.autograd.grad(create_graph=True)`
on the network written out, one task after the other, one inner step after the other. Both run in one process on one
thread, in turns; CPU time is compared, and of that the minimum, since on a shared machine what lies above it is other
people's work. All gradients must agree.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, relu

from quickstudy.bench.runs import Row, write_run
from quickstudy.core.engine import Form, meta_gradient
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML
from quickstudy.nets import MLP

WIDTH, WAYS, QUERIES, TASKS = 384, 5, 15, 16
SHOTS = (1, 5)
LOOP = "loop of autograd"
LEARNER = MAML(
    objective=Classify(ways=WAYS), net=MLP(inputs=WIDTH, outputs=WAYS, hidden=(128, 128)), steps=5, rate=0.1
)
Gradient = dict[str, Tensor]


def tasks(shots: int, dtype: torch.dtype = torch.float32, number: int = TASKS) -> Episode:
    """Tasks of random features, as long as a sentence's features are; the time doesn't depend on what they hold."""
    g = torch.Generator().manual_seed(0)

    def part(rows: int) -> Labelled:
        x = torch.randn(number, rows, WIDTH, generator=g, dtype=torch.float64) / WIDTH**0.5
        y = torch.arange(rows).remainder(WAYS).expand(number, rows).clone()
        return Labelled(x.to(dtype), y, torch.ones(number, rows, dtype=torch.bool))

    return Episode(part(shots * WAYS), part(QUERIES * WAYS))


def network(params: Sequence[Tensor], x: Tensor) -> Tensor:
    """The perceptron, written out: `torch.func.functional_call` would add a sixth to the loop's time."""
    *hidden, last = zip(params[::2], params[1::2], strict=True)
    for weight, bias in hidden:
        x = relu(linear(x, weight, bias))
    return linear(x, *last)


def by_loop(meta: Gradient, episodes: Episode) -> Gradient:
    """The reference: one task after the other, nothing shared."""
    start = {name: weight.detach().requires_grad_() for name, weight in meta.items()}
    (x, y, _), (x_query, y_query, _) = episodes
    for i in range(len(y)):
        fast = list(start.values())
        for _ in range(LEARNER.steps):
            slopes = torch.autograd.grad(cross_entropy(network(fast, x[i]), y[i]), fast, create_graph=True)
            fast = [weight - LEARNER.rate * slope for weight, slope in zip(fast, slopes, strict=True)]
        (cross_entropy(network(fast, x_query[i]), y_query[i]) / len(y)).backward()
    return {name: weight.grad for name, weight in start.items() if weight.grad is not None}


def ways_to_compute(
    shots: int, dtype: torch.dtype = torch.float32, number: int = TASKS
) -> dict[str, Callable[[], Gradient]]:
    """The loop first, then the engine's forms; each call computes one meta-gradient."""
    meta = {name: weight.to(dtype) for name, weight in LEARNER.init(0).items()}
    episodes = tasks(shots, dtype, number)

    def engine(form: Form) -> Callable[[], Gradient]:
        return lambda: meta_gradient(LEARNER, meta, episodes, form=form)[1]

    return {LOOP: lambda: by_loop(meta, episodes), "dual": engine("dual"), "stacked": engine("stacked")}


def disagreement(shots: int, dtype: torch.dtype) -> float:
    """The largest relative error of the engine's gradients, of the whole gradient's norm."""
    loop, *ours = (compute() for compute in ways_to_compute(shots, dtype).values())
    size = _norm(loop)
    return max(_norm({name: g[name] - loop[name] for name in loop}) for g in ours) / size


def _norm(gradient: Gradient) -> float:
    return float(torch.stack([part.pow(2).sum() for part in gradient.values()]).sum().sqrt())


@dataclass(frozen=True)
class Timing:
    """Milliseconds of CPU time, one figure a round, and the peak of memory above what was held before, in MB."""

    rounds: list[float]
    peak: float

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def measure(shots: int, rounds: int) -> dict[str, Timing]:
    """Time every way in turns, so that all meet the same disturbances."""
    ways = ways_to_compute(shots)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):  # caches and allocators warm up
        for compute in ways.values():
            compute()
    for _ in range(rounds):
        for name, compute in ways.items():
            start = time.process_time()
            compute()
            spent[name].append((time.process_time() - start) * 1e3)
    # Memory: each way in a process of its own, where no freed block can hide what it needs.
    peaks = {}
    for name in ways:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks[name] = pool.submit(_peak, shots, name).result()
    return {name: Timing(spent[name], peaks[name]) for name in ways}


def _peak(shots: int, name: str) -> float:
    torch.set_num_threads(1)
    ways = ways_to_compute(shots)
    ways_to_compute(shots, number=1)[name]()  # libraries load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _megabytes("VmRSS")
    ways[name]()
    return max(0.0, _megabytes("VmHWM") - before)


def _megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write benchmarks/runs/engine.json."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="how often each way is timed (default 60)")
    parser.add_argument("--dry", action="store_true", help="print only, write no run file")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.time()
    for shots in SHOTS:
        for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            if (error := disagreement(shots, dtype)) > bound:
                said = f"gradients differ by {error:.1e} of their norm; expected at most {bound}"
                raise ModelError(f"{shots}-shot, {dtype}: {said}.")
    timings = {shots: measure(shots, chosen.rounds) for shots in SHOTS}
    Console().print(_table(timings, chosen.rounds))
    if not chosen.dry:
        seconds = time.time() - began
        ids = {
            1: "core.7.1",
            5: "core.7.five-shot",
        }  # the row's figure is at one shot, the harder case beside it
        write_run("engine", [_row(timings, shots, ids[shots], chosen.rounds, seconds) for shots in SHOTS])


def _ratio(timing: dict[str, Timing], name: str) -> float:
    return timing[LOOP].least / timing[name].least


def _table(timings: dict[int, dict[str, Timing]], rounds: int) -> Table:
    table = Table("", "form", "min, ms", "median, ms", "× loop (min)", "× loop (median)", "peak, MB",
                  title=f"Meta-gradient step, CPU time, {rounds} rounds")  # fmt: skip
    for shots, timing in timings.items():
        for name, t in timing.items():
            table.add_row(f"{shots}-shot", name, f"{t.least:.1f}", f"{t.median:.1f}", f"{_ratio(timing, name):.2f}",
                          f"{timing[LOOP].median / t.median:.2f}", f"{t.peak:.0f}")  # fmt: skip
    return table


def _row(timings: dict[int, dict[str, Timing]], shots: int, id: str, rounds: int, seconds: float) -> Row:
    timing = timings[shots]
    said = ", ".join(f"{n} {t.least:.1f} / {t.median:.1f} ms, + {t.peak:.0f} MB" for n, t in timing.items())
    return Row(
        id=id,
        value=round(_ratio(timing, "dual"), 2),
        unit="x",
        n=rounds,
        seeds=[0],
        baselines={"stacked form": round(_ratio(timing, "stacked"), 2), LOOP: 1.0},
        command=f"python benchmarks/engine.py --rounds {rounds}",
        seconds=round(seconds, 1),
        note=f"{shots}-shot; CPU time on one thread, the ratio of the least of {rounds} interleaved rounds "
        f"({timing[LOOP].median / timing['dual'].median:.2f} by medians); least / median, peak memory: {said}",
    )
