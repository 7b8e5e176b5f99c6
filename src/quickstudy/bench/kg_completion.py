"""`quickstudy bench kg_completion`: triples of held-out relations from one and five of them, on three graphs (kg.7).

A held-out relation's triples are in no part of what is learned from. From one or five of them the tails of others are
ranked among all entities, known right ones set aside (filtered). All methods rank the same candidates for the same
heads. What a baseline may choose (which filter of types, one known relation or the five nearest) is chosen for it on
the validation relations, for each graph and number of examples.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from quickstudy.bench import data as published
from quickstudy.bench.kg_graphs import GRAPHS, held_out, read
from quickstudy.bench.runs import write_run
from quickstudy.bench.text_play import Clock
from quickstudy.domains.kg.completion.completion import Completion, experience, formed
from quickstudy.domains.kg.completion.embedding import train, turned
from quickstudy.domains.kg.completion.evidence import Known, degree, like_known, nearest, weigh
from quickstudy.domains.kg.completion.graph import Graph
from quickstudy.domains.kg.completion.scorer import Scorer
from quickstudy.domains.kg.completion.tasks import Play, left_out, pairs_of, plays

SUITE, COMMAND = "kg_completion", "quickstudy bench kg_completion"
SHOTS = (1, 5)
TIMES, QUERIES = 3, 20
"""Draws of examples from each held-out relation; triples judged by in each."""
DRAWS = {"codex_s": 3, "codex_m": 2, "fb15k237": 1}
"""Draws from each relation that is played as new, with each number of examples and in each direction."""
FAR = 1e3
"""What puts a candidate that a filter leaves out behind all others."""
OURS = "ours"
DEGREE = ("degree + type", "degree + slots", "frequency in slots", "frequency in slots + type")
STILL = tuple(
    f"{which}{only}" for which in ("nearest relation", "five nearest") for only in ("", " + type", " + slots")
)
"""What the two baselines may be: neither adapts anything to the examples but by choosing among what is there."""

Scores = Float[Tensor, "heads n"]


@dataclass(frozen=True)
class Judged:
    """Reciprocal ranks in percent, a mean for each held-out relation, of each method from so many examples."""

    of: dict[tuple[str, int], np.ndarray]

    def value(self, method: str, shots: int) -> float:
        return float(self.of[method, shots].mean())

    def best(self, methods: Sequence[str], shots: int) -> str:
        """The method with the highest mean."""
        return max((m for m in methods if (m, shots) in self.of), key=lambda m: self.value(m, shots))


def methods(completion: Completion, play: Play) -> dict[str, Scores]:
    """What each method says of all entities as tails of the heads that are asked for."""
    known, support, heads = completion.known, play.support, play.query.heads
    signs = weigh(known, support, heads)
    sign = {name: signs[..., i] for i, name in enumerate(known.signs)}
    fast = completion.scorer.adapt(left_out(known, support, (), np.random.default_rng(0)))
    found = {OURS: completion.scorer.scores(fast, signs)}
    popular = torch.from_numpy(degree(known.graph, ())).float().log1p().expand(len(heads), -1)
    typed = FAR * sign["type shared"] if known.graph.kinds is not None else None
    seated = FAR * (sign["slots"] > 0.3).float()
    which, _ = nearest(known, support, (), 1)
    table = known.embedding.entities
    one = turned(table[heads], known.embedding.relations[which[0]]) @ table.t()
    some = like_known(known, support, heads, ()).clamp(min=1e-30).log()
    for name, scores in (
        ("degree", popular), ("frequency in slots", sign["frequent in slots"]), ("nearest relation", one),
        ("five nearest", some),
    ):  # fmt: skip
        found[name] = scores
        found[f"{name} + slots"] = scores + seated
        if typed is not None:
            found[f"{name} + type"] = scores + typed
    return {name: scores for name, scores in found.items() if name in (OURS, *DEGREE, *STILL)}


def reciprocal(scores: Scores, play: Play) -> float:
    """The mean reciprocal rank in percent, other right tails set aside, a tie counting half."""
    found = []
    for row, head, tail in zip(scores, play.query.heads.tolist(), play.query.tails.tolist(), strict=True):
        own, row = row[tail].item(), row.clone()
        row[[other for other in play.truth[head] if other != tail]] = -torch.inf
        beside = (int((row == own).sum()) - 1) / 2
        found.append(100 / (1 + int((row > own).sum()) + beside))
    return float(np.mean(found))


def judge(completion: Completion, full: Graph, relations: Sequence[int], seed: int, times: int) -> Judged:
    """All methods on the same draws of held-out relations."""
    found: dict[tuple[str, int], list[list[float]]] = {}
    for shots in SHOTS:
        for relation in relations:
            each: dict[str, list[float]] = {}
            key = [seed, 1, relation]
            for play in plays(pairs_of(full, relation), shots, most=QUERIES, times=times, seed=key):
                for name, scores in methods(completion, play).items():
                    each.setdefault(name, []).append(reciprocal(scores, play))
            for name, some in each.items():
                found.setdefault((name, shots), []).append(some)
    return Judged({key: np.array([np.mean(some) for some in rows]) for key, rows in found.items()})


def gain(ours: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """By how many percent our mean is above another's, and 95% over relations drawn anew (paired)."""
    drawn = np.random.default_rng(seed).integers(len(ours), size=(10_000, len(ours)))
    value, many = ours.mean() / other.mean(), ours[drawn].mean(1) / other[drawn].mean(1)
    low, high = np.quantile(many, (0.025, 0.975))
    return 100 * (value - 1), (100 * (low - 1), 100 * (high - 1))


@dataclass(frozen=True)
class Outcome:
    """What a graph's test relations said, beside the baselines that its validation relations chose."""

    name: str
    test: Judged
    chosen: dict[int, tuple[str, str]]
    """Of each number of examples, degree + type and no adaptation."""

    def better(self, shots: int) -> str:
        """The better of both baselines on the test relations."""
        return self.test.best(self.chosen[shots], shots)

    def gain(self, shots: int) -> tuple[float, tuple[float, float]]:
        return gain(self.test.of[OURS, shots], self.test.of[self.better(shots), shots])


def taught(graph: Graph, name: str, played: Sequence[int], kept: Path | None, seed: int) -> Completion:
    """A graph's vectors and ways to form relations, with a scorer of its own; kept in a folder, where one is given."""
    folder = None if kept is None else kept / f"{name}-{seed}"
    if folder is not None and folder.is_dir():
        return Completion.load(folder)
    vectors = train(graph.without(played), GRAPHS[name], seed=seed)
    known = Known(graph, vectors)
    scorer = Scorer.learn(experience(known, played, DRAWS[name], seed), seed=seed)
    completion = Completion(formed(known, played, seed), scorer)
    if folder is not None:
        completion.save(folder)
    return completion


def outcome(
    data: Path,
    name: str,
    *,
    part: str,
    kept: Path | None,
    seed: int,
    quick: bool,
    show: Callable[[Any], None],
) -> Outcome:
    """What a graph's relations say: learned without them, chosen on the validation relations, judged on the others."""
    full = read(data, name)
    held = held_out(full, name)
    played = held.played[:3] if quick else held.played
    graph = full.without([*held.test, *held.validation])
    completion = taught(graph, name, played, kept, seed)
    few = slice(2 if quick else None)
    validation = judge(completion, full, held.validation[few], seed, 1 if quick else 2)
    chosen = {shots: (validation.best(DEGREE, shots), validation.best(STILL, shots)) for shots in SHOTS}
    times = 1 if quick else TIMES
    judged = validation if part == "validation" else judge(completion, full, held.test[few], seed, times)
    found = Outcome(name, judged, chosen)
    title = f"{name}, {part}: {len(judged.of[OURS, 1])} relations, {len(full.entities):,} candidates: MRR, %"
    table = Table("", *(f"{shots} triple{'s' * (shots > 1)}" for shots in SHOTS), title=title)
    for method in dict.fromkeys(method for method, _ in judged.of):
        marks = ("*" if method in chosen[shots] else "" for shots in SHOTS)
        table.add_row(
            method, *(f"{judged.value(method, k):.1f}{m}" for k, m in zip(SHOTS, marks, strict=True))
        )
    show(table)
    for shots in SHOTS:
        value, (low, high) = found.gain(shots)
        show(f"{name}, {shots}: {value:+.0f}% ({low:+.0f} to {high:+.0f}) over {found.better(shots)}")
    return found


def rows(found: Sequence[Outcome], seed: int, seconds: float, kept: bool) -> list[dict[str, Any]]:
    """kg.7.1 and kg.7.2: the least gain of the graphs."""
    made = []
    for number, shots in enumerate(SHOTS, 1):
        least = min(found, key=lambda one: one.gain(shots)[0])
        value, (low, high) = least.gain(shots)
        told = []
        for one in found:
            gained, (a, b) = one.gain(shots)
            told.append(
                f"{one.name}: ours {one.test.value(OURS, shots):.1f}, "
                + ", ".join(f"{method} {one.test.value(method, shots):.1f}" for method in one.chosen[shots])
                + f", {gained:+.0f}% ({a:+.0f} to {b:+.0f}), {len(one.test.of[OURS, shots])} relations"
            )
        made.append(
            {
                "id": f"kg.7.{number}", "value": round(value, 4), "ci95": [round(low, 4), round(high, 4)], "unit": "%",
                "n": sum(len(one.test.of[OURS, shots]) for one in found), "seeds": [seed], "seconds": round(seconds, 1),
                "baselines": {
                    f"{one.name}: {method}": round(one.test.value(method, shots), 2)
                    for one in found
                    for method in one.chosen[shots]
                },
                "note": f"the least gain of the graphs, {least.name}'s, over the better of both baselines; tails among "
                f"all entities, filtered, MRR in %; 95% over relations. {'; '.join(told)}. Held-out relations by a "
                f"hash of their names; {TIMES} draws of examples from each, {QUERIES} triples judged by in each; which "
                "baselines was chosen for them on validation relations"
                + ("; what the graphs taught was kept from a run before, its time isn't counted" if kept else ""),
            }
        )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn, judge, print, and write the run file when all graphs were tested. Raises DataError."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Relations from one and five triples (kg.7).")
    parser.add_argument(
        "--data", metavar="FOLDER", help="published data sets; default: the variable QUICKSTUDY_DATA"
    )
    parser.add_argument("--only", action="append", choices=tuple(GRAPHS), help="a graph; may be repeated")
    parser.add_argument(
        "--part", default="test", choices=("validation", "test"), help="choices: on the former"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    parser.add_argument(
        "--keep", metavar="FOLDER", help="keep what each graph taught there, and go on from it"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few relations, to see that it works; writes nothing"
    )
    given = parser.parse_args(arguments)
    console, clock, data = Console(), Clock(), published.folder(given.data)
    names = tuple(dict.fromkeys(given.only or GRAPHS))
    kept = None if given.keep is None else Path(given.keep)
    resumed = kept is not None and kept.is_dir()
    found = [
        outcome(
            data, name, part=given.part, kept=kept, seed=given.seed, quick=given.quick, show=console.print
        )
        for name in names
    ]
    if given.part == "test" and not given.quick and len(names) == len(GRAPHS):
        command = COMMAND + (f" --seed {given.seed}" if given.seed else "")
        measured = [row | {"command": command} for row in rows(found, given.seed, clock.seconds, resumed)]
        console.print(f"Written: {write_run(SUITE, measured).name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
