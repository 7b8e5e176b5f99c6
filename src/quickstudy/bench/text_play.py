"""What the text suites share: a setting, methods that all play the same episodes, and rows made from their scores."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.bench.data import ClassSplit
from quickstudy.bench.leaks import Audit
from quickstudy.core import engine
from quickstudy.core.calibration import Answers
from quickstudy.core.dataset import MetaDataset, Shots
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, Report, paired
from quickstudy.core.report import Row as ReportRow
from quickstudy.core.task import spell_out
from quickstudy.domains.text.learn import learn
from quickstudy.domains.text.prior import Prior, encoder_for
from quickstudy.domains.text.read import Examples
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import Centroid, Gaussian, Logistic

WAYS = 5
TASKS = 20
"""Episodes in a batch; of a batch all classes are drawn before the next one's."""
CENTROID, LOGISTIC = "frozen centroid", "frozen logistic regression"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a suite is run."""

    show: Callable[[Any], None]
    """Takes lines and rich tables."""
    seed: int = 0
    quick: bool = False
    """A few episodes of one split, to see that it works; its figures mean nothing."""
    tune: bool = True
    """Whether priors come with a tuned encoder."""
    encoder: str = "minilm"
    episodes: int = 600
    """Episodes of each split and shot."""
    _taught: dict[str, Prior] = field(default_factory=dict, repr=False, compare=False)

    @property
    def base(self) -> TextEncoder:
        return encoder_for(self.encoder)

    @property
    def tasks(self) -> int:
        """Episodes of each split and shot, in this run."""
        return TASKS if self.quick else self.episodes

    def splits(self, splits: Sequence[ClassSplit]) -> list[ClassSplit]:
        return list(splits[:1] if self.quick else splits)

    def teach(
        self,
        datasets: Sequence[Examples],
        valid: Sequence[Examples] | None = None,
        *,
        tune: bool | None = None,
    ) -> Prior:
        """A prior from these data sets with the library's defaults: nothing is tuned for the benchmark.

        Several rows take the prior of CLINC150; it is learned once.
        """
        tune = self.tune if tune is None else tune
        said = json.dumps([tune, *([[d.texts, d.labels] for d in part or ()] for part in (datasets, valid))])
        key = hashlib.sha256(said.encode()).hexdigest()
        if key not in self._taught:
            steps = 2 if self.quick else None
            self._taught[key] = learn(
                datasets, encoder=self.encoder, tune_encoder=tune, valid=valid, seed=self.seed, steps=steps
            )
        return self._taught[key]


@dataclass
class Findings:
    """What a suite measured: rows for the run file, audits, and where figures of calibration come from."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    calibration: dict[str, float] = field(default_factory=dict)
    """Expected calibration error of our answers, by task."""


class Played(NamedTuple):
    """How one method did: accuracy of each episode in percent, and its answers."""

    accuracy: list[float]
    answers: Answers


@dataclass(frozen=True)
class Method:
    """A learner with its features of every sentence. With `names`, each class's name stands in the support too."""

    name: str
    learner: MetaLearner
    meta: Meta
    features: Float[Tensor, "sentences d"]
    names: Float[Tensor, "classes d"] | None = None
    baseline: bool = False

    def play(self, episodes: Iterable[Episode], y: Tensor) -> Played:
        """Play index episodes (see `index_episodes`); `y` is the class number of each sentence, over all classes."""
        accuracy, confidence, right = [], [], []
        for ids in episodes:
            episode = self._felt(ids, y)
            probability = torch.softmax(engine.outputs(self.learner, self.meta, episode).double(), -1)
            sure, answer = probability.max(-1)
            hit = answer == episode.query.y
            accuracy += (hit.double().mean(-1) * 100).tolist()
            confidence.append(sure.flatten())
            right.append(hit.flatten())
        return Played(accuracy, Answers(torch.cat(confidence).numpy(), torch.cat(right).numpy()))

    def _felt(self, ids: Episode, y: Tensor) -> Episode:
        support, query = (Labelled(self.features[part.x], part.y, part.mask) for part in ids)
        if self.names is not None:
            labels = ids.support.y[:, :WAYS]  # the first rows hold one item of each class
            # The Gaussian learner knows a name from an example; to the others it is one more example.
            own = labels + WAYS if isinstance(self.learner, Gaussian) else labels
            named = Labelled(
                self.names[y[ids.support.x[:, :WAYS]]], own, torch.ones_like(labels, dtype=torch.bool)
            )
            support = Labelled(*(torch.cat(pair, 1) for pair in zip(support, named, strict=True)))
        return Episode(support, query)


def index_episodes(
    examples: Examples, classes: Sequence[str], *, shots: int, queries: int, episodes: int, seed: int
) -> list[Episode]:
    """Episodes whose inputs are row numbers of `examples`, so that any number of encoders play the same ones."""
    dataset = numbered(examples)
    place = {label: i for i, label in enumerate(dataset.classes)}
    shape = Shots(ways=WAYS, shots=shots, queries=queries, tasks=min(TASKS, episodes))
    sample = dataset.only([place[label] for label in classes]).sampler(shape, seed)
    return [sample(step) for step in range(episodes // shape.tasks)]


def numbered(examples: Examples) -> MetaDataset:
    """Examples as row numbers and class numbers."""
    classes = examples.classes
    place = {label: i for i, label in enumerate(classes)}
    y = torch.tensor([place[label] for label in examples.labels])
    return MetaDataset(torch.arange(len(examples)), y, classes)


def class_names(examples: Examples) -> list[str]:
    """What each class is called, in words, in the order of `Examples.classes`."""
    return [examples.descriptions.get(label) or spell_out(label) for label in examples.classes]


def baselines(frozen: Tensor, names: Tensor | None = None) -> list[Method]:
    """The baselines that stand in every table."""
    objective = Classify(ways=WAYS)
    more = " + name" if names is not None else ""
    return [
        Method(CENTROID + more, Centroid(objective=objective), {}, frozen, names, True),
        Method(LOGISTIC + more, Logistic(objective=objective), {}, frozen, names, True),
    ]


def row(
    id: str,
    report: Report,
    ours: str,
    over: str,
    *,
    command: str,
    seconds: float,
    note: str = "",
    metric: str = "accuracy",
) -> dict[str, Any]:
    """A row of the run file from a report's rows; the interval is the one over episodes."""
    by_name = {r.name: r for r in report.rows}
    mine, theirs = by_name[ours], by_name[over]
    gain = report.difference(mine, theirs, metric)
    if gain is None:
        raise DataError(f"{ours} and {over} were not scored on the same episodes.")
    baselines = {r.name: round(r.metrics[metric].mean, 3) for r in report.rows if r.baseline}
    return plain(id, mine.metrics[metric], unit="points", command=command, seconds=seconds, seeds=report.seeds,
                 note=note, baselines=baselines, gain=(gain, over))  # fmt: skip


def plain(
    id: str,
    estimate: Estimate,
    *,
    unit: str,
    command: str,
    seconds: float,
    seeds: Sequence[int],
    note: str = "",
    baselines: dict[str, float] | None = None,
    gain: tuple[Estimate, str] | None = None,
) -> dict[str, Any]:
    """A row of the run file from an estimate."""
    made: dict[str, Any] = {
        "id": id, "value": _cut(estimate.mean), "unit": unit, "n": estimate.n, "seeds": list(seeds),
        "baselines": baselines or {}, "command": command, "seconds": round(seconds, 1),
    }  # fmt: skip
    if estimate.half == estimate.half:
        made["ci95"] = _interval(estimate)
    if gain is not None:
        made["gain"] = {"value": _cut(gain[0].mean), "over": gain[1]}
        if gain[0].half == gain[0].half:
            made["gain"]["ci95"] = _interval(gain[0])
    if note:
        made["note"] = note
    return made


def over_splits(row: ReportRow, metric: str = "accuracy") -> str:
    """The mean with its interval over class splits, in words; '' where there was one split only."""
    found = row.splits.get(metric)
    return f"{found.text()} over {found.n} class splits" if found else ""


def gain_over_splits(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    """The mean gain with its interval over class splits, in words; '' where there was one split only."""
    if len(ours) < 2:
        return ""
    gains = Estimate.of([paired(a, b).mean for a, b in zip(ours, theirs, strict=True)])
    return f"gain {gains.text(2, sign=True)} over {gains.n} class splits"


def audit_row(id: str, audits: Sequence[Audit], command: str, seconds: float) -> dict[str, Any]:
    """The audits as a row: how many sentences of the test part had to leave meta-training."""
    dropped = Estimate(float(sum(a.dropped for a in audits)), float("nan"), sum(a.train for a in audits))
    note = " ".join(f"[{a.name}] {a.text()}" for a in audits)
    return plain(id, dropped, unit="sentences dropped", command=command, seconds=seconds, seeds=[], note=note)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def _cut(value: float) -> float:
    return round(value, 4)


def _interval(estimate: Estimate) -> list[float]:
    # Rounded outwards, so that the rounded value stays inside.
    return [round(estimate.low - 1e-4, 4), round(estimate.high + 1e-4, 4)]
