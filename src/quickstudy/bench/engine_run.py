"""Measure one job of the engine's benchmark, all ways in turns. A program of its own, for the Python with the peers.

    python -m quickstudy.bench.engine_run job.json result.json

job: {"job": a name of `engine_jobs.JOBS`, "seconds", "rounds", "memory"}; or {"job": "exact"}, see `engine_exact`
result: what `Measured.as_json` gives

Time is CPU time on one thread, and its minimum counts, since what lies above it on a shared machine is other people's
work. Memory is measured in processes of their own, where no freed block can hide what a way needs.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.bench.engine_jobs import (
    COMPILED,
    JAX,
    JOBS,
    OURS,
    STACKED,
    Absent,
    Job,
    Problem,
    Way,
    error,
    form_of,
    loop,
    own_ways,
)
from quickstudy.bench.engine_peers import peer_ways, versions
from quickstudy.bench.memory import peak_added
from quickstudy.core.errors import ModelError

LEAST_ROUNDS = 4
TURN = 0.02
"""A turn repeats a quick way until so many seconds have gone, which the clock can resolve."""
OWN = (OURS, COMPILED, STACKED)
UNMEASURED = (COMPILED, JAX)
"""Their memory is an arena's or a compiler's, and doesn't compare."""
PEAK_SIZE = 1024
"""Of the square matrices whose product gives the limit."""


@dataclass
class Timing:
    """Milliseconds of CPU time of a step, one figure a round, and what else is known of a way."""

    rounds: list[float]
    error: float = 0.0
    """Of its gradient, relative to the float64 loop's."""
    first: float = 0.0
    """Seconds of the first step, compilation included."""
    peak: float | None = None
    """Megabytes of memory above what was held before."""

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


@dataclass
class Measured:
    """What was found of one job."""

    job: str
    form: str
    """That the engine took."""
    ways: dict[str, Timing]
    absent: dict[str, str] = field(default_factory=dict)
    """Ways that couldn't take part, and why."""
    gigaflops: float = 0.0
    """Of one step by the plain loop, as torch counts them: products and convolutions alone."""
    limit: float = 0.0
    """Milliseconds that these would take at the measured peak of a matrix product."""
    peak_rate: float = 0.0
    """That peak, in gigaflops a second."""
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Measured":
        """Back from JSON."""
        return cls(**{**record, "ways": {name: Timing(**way) for name, way in record["ways"].items()}})


def makers(problem: Problem) -> dict[str, Callable[[Problem], Way]]:
    """All ways that take part in this job, by name."""
    every = own_ways(problem) | (peer_ways(problem) if problem.job.peers else {})
    return {name: make for name, make in every.items() if name not in problem.job.without}


def prepared(problem: Problem, name: str) -> Way:
    """One way, ready to run."""
    return makers(problem)[name](problem)


def run(name: str, job: Job, *, seconds: float, rounds: int, memory: bool = True) -> Measured:
    """Check every way's gradient, time all in turns, then measure their memory.

    Args:
        seconds: of computing, for the rounds of all ways together; there are LEAST_ROUNDS at least.
        rounds: there are so many at most.

    Raises:
        ModelError: one of our gradients differs from the loop's.
    """
    began = time.perf_counter()
    problem = Problem(job)
    found = Measured(name, form_of(problem), {}, dict(job.without), versions=versions())
    reference = loop(Problem(job, torch.float64))()
    ready: dict[str, Way] = {}
    for way, make in makers(problem).items():
        try:
            start = time.perf_counter()
            compute = make(problem)
            gradient = compute()
            first = time.perf_counter() - start
        except Absent as reason:
            found.absent[way] = str(reason)
            continue
        except Exception as problem_of_theirs:  # a peer of another age may trip over anything
            if way in OWN:
                raise
            said = str(problem_of_theirs).strip().partition("\n")[0][:200]
            found.absent[way] = f"{type(problem_of_theirs).__name__}: {said}"
            continue
        ready[way] = compute
        found.ways[way] = Timing([], error(gradient, reference), first)
        if way in OWN and not found.ways[way].error <= job.tolerance:
            raise ModelError(
                f"{name}, {way}: the gradient differs from the float64 loop's by {found.ways[way].error:.1e} of its "
                f"norm; expected at most {job.tolerance:.0e}."
            )
    del reference
    best = _in_turns(ready, found.ways, seconds=seconds, rounds=rounds)
    found.gigaflops = flops(job) / 1e9
    found.peak_rate = 2 * PEAK_SIZE**3 / best / 1e9
    found.limit = found.gigaflops / found.peak_rate * 1e3
    if memory:
        for way, peak in _peaks(job, [way for way in ready if way not in UNMEASURED]).items():
            found.ways[way].peak = peak
    found.seconds = time.perf_counter() - began
    return found


def _in_turns(ready: dict[str, Way], timings: dict[str, Timing], *, seconds: float, rounds: int) -> float:
    """Fill in every way's rounds; the fewest seconds of a matrix product, measured among them."""
    square = torch.randn(PEAK_SIZE, PEAK_SIZE)
    repeats = {}
    for name, compute in ready.items():
        repeats[name] = max(1, round(TURN / max(1e-6, _seconds(compute, 1))))
    best, start = float("inf"), time.process_time()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.process_time() - start > seconds:
            break
        for name, compute in ready.items():
            timings[name].rounds.append(_seconds(compute, repeats[name]) * 1e3)
        best = min(best, _seconds(lambda: square @ square, 1))
    return best


def _seconds(compute: Callable[[], Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        compute()
    return (time.process_time() - start) / repeats


def flops(job: Job) -> float:
    """Floating-point operations of one step by the plain loop."""
    one = loop(Problem(job, tasks=1))
    with FlopCounterMode(display=False) as counter:
        one()
    return float(counter.get_total_flops()) * job.tasks


def _peaks(job: Job, ways: list[str]) -> dict[str, float]:
    # A server that has imported everything forks a fresh process for each way.
    context = get_context("forkserver")
    context.set_forkserver_preload(["quickstudy.bench.engine_run"])
    found = {}
    for way in ways:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found[way] = pool.submit(partial(_peak, job, way)).result()
    return found


def _peak(job: Job, way: str) -> float:
    torch.set_num_threads(1)
    problem = Problem(job)
    compute = prepared(problem, way)
    prepared(Problem(job, tasks=1), way)()  # libraries load on first use
    problem.episodes  # noqa: B018  made before counting begins
    return peak_added(compute)


def main(arguments: list[str]) -> None:
    """Read the job, measure, write the result."""
    given, result = map(Path, arguments)
    asked = json.loads(given.read_text())
    torch.set_num_threads(1)
    name = asked.pop("job")
    if name == "exact":
        from quickstudy.bench.engine_exact import compare

        answer: Any = compare()
    else:
        answer = run(name, JOBS[name], **asked).as_json()
    result.write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
