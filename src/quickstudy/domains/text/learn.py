"""Meta-training for text: many past labelling tasks in, a `Prior` for the next one out.

1. Optionally the encoder is tuned: low-rank adapters, episodes of classes that are hard to tell apart (GE2E loss).
2. The Gaussian learner's covariances are estimated in closed form over all classes.
3. Its confidence is calibrated on episodes of classes that it was not estimated on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.checkpoint import load_state, save_state
from quickstudy.core.dataset import MetaDataset, Shots
from quickstudy.core.engine import evaluate, meta_train
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, DivergedError
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.domains.text.calibrate import calibration, clusters
from quickstudy.domains.text.prior import Experienced, Prior, encoder_for
from quickstudy.domains.text.read import Examples
from quickstudy.domains.text.tasks import words_for
from quickstudy.encoders.text import TextEncoder, resolve_dtype
from quickstudy.learners import GE2E, Gaussian
from quickstudy.nets.lora import Adapter, LoRA

TRIAL_WAYS, TRIAL_SHOTS, TRIAL_QUERIES = 5, (1, 5), 10
"""The tasks that are drawn from `valid`, to choose by."""

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss) while the encoder is tuned."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the encoder is tuned. Chosen on validation classes of BANKING77; more steps forget more than they teach."""

    spec: LoRA = field(default_factory=LoRA)
    every_layer: bool = True
    """Adapt every layer of the encoder, however deep it is; otherwise those that `spec` names."""
    steps: int = 60
    rate: float = 1e-3
    warmup: int = 10
    ways: int = 45
    """Classes in an episode."""
    groups: int = 3
    """Clusters of similar classes that an episode's classes come from: hard negatives."""
    cluster: int = 15
    """Classes in a cluster, about."""
    rows: int = 90
    """Examples in an episode, about: 2 to 5 of each class."""
    name_share: float = 0.5
    """How often a class's name stands in as one more example."""
    temperature: float = 0.07
    dtype: str | None = None
    """Of the products in the encoder: None is the faster on this machine, "float32" the same on every machine."""


def learn(
    datasets: Sequence[Examples],
    *,
    encoder: str | TextEncoder = "minilm",
    tune_encoder: bool = False,
    tuning: Tuning | None = None,
    steps: int | None = None,
    most_examples: int = 50,
    valid: Sequence[Examples] | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    progress: Progress | None = None,
) -> Prior:
    """Learn a prior from past labelling tasks.

    Args:
        datasets: past tasks; each counts alike, whatever its size.
        encoder: the encoder to learn for.
        tune_encoder: also tune the encoder (about half a minute for 60 steps); otherwise only the closed form.
        tuning: how; `steps` replaces its number of steps.
        most_examples: of each class, so many are used at most.
        valid: tasks to choose by (how much of the tuned features to blend in); none takes the default. Each needs
            five categories, or all that it has, with 15 different texts each.
        checkpoint: a folder for the state of tuning, written every `checkpoint_every` steps and on interruption.
        resume: go on from `checkpoint`; the result is that of an uninterrupted run.

    Raises:
        DataError: nothing to learn from, or nothing to choose by.
        CheckpointError: the checkpoint is damaged, or was made with other data, settings or another encoder.
    """
    texts = [_usable(examples, most_examples, seed) for examples in datasets]
    if not texts:
        raise DataError("No data set to learn from.")
    trials = [_trial(examples, most_examples, seed) for examples in valid or ()] if tune_encoder else []
    base = encoder_for(encoder) if isinstance(encoder, str) else encoder
    tuning = replace(tuning or Tuning(), **({} if steps is None else {"steps": steps}))
    adapter = None
    if tune_encoder:
        adapter = tune(
            texts, base, tuning, seed=seed, checkpoint=checkpoint, every=checkpoint_every, resume=resume,
            chosen_by={"validation tasks": _print(trials) if trials else "none"}, progress=progress,
        )  # fmt: skip
    blend = _best_blend(texts, trials, base, adapter, seed) if adapter is not None and trials else 1.0
    settings = {"seed": seed, "tuned": tune_encoder, "steps": tuning.steps if tune_encoder else 0}
    return estimate(
        datasets,
        base,
        adapter,
        blend,
        tuning=tuning,
        most_examples=most_examples,
        seed=seed,
        settings=settings,
    )


def estimate(
    datasets: Sequence[Examples],
    base: TextEncoder,
    adapter: Adapter | None,
    blend: float = 1.0,
    *,
    tuning: Tuning | None = None,
    most_examples: int = 50,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> Prior:
    """The prior of past tasks for an encoder that is tuned already (or not: adapter None): all but the tuning.

    Args:
        tuning: how the encoder was tuned; only the size of its clusters counts here.
        settings: how it was made, for people to read.

    The other arguments and what is raised: as `learn`.
    """
    texts = [_usable(examples, most_examples, seed) for examples in datasets]
    felt = Experienced(base, adapter, blend)
    tasks = [_featured(data, felt) for data in texts]
    learner, meta = _estimate(tasks, base.dim)
    subject = (tuning or Tuning()).cluster
    meta |= calibration(tasks, lambda known: _estimate(known, base.dim)[1], subject=subject, seed=seed)
    landmarks, familiar_from = _landmarks([_featured(data, Experienced(base, None, 0.0)) for data in texts])
    return Prior(
        learner, meta, base.name, base.identity, adapter, blend, landmarks, familiar_from,
        tuple({"name": _source(d), "classes": len(set(d.labels)), "examples": len(d)} for d in datasets),
        {**(settings or {}), "most_examples": most_examples},
    )  # fmt: skip


def _estimate(tasks: Sequence[MetaDataset], dim: int) -> tuple[Gaussian, Meta]:
    """The Gaussian learner, its covariances estimated from all classes; not yet calibrated."""
    learner = Gaussian(objective=Classify(ways=2), dim=dim)
    meta = learner.estimate([Labelled.of(t.x, t.y) for t in tasks], [t.names for t in tasks])
    # As a file will hold it, so that what is used now and what is loaded later are the same.
    return learner, {name: value.half().float() if value.ndim == 2 else value for name, value in meta.items()}


def _landmarks(tasks: Sequence[MetaDataset], cluster: int = 15) -> tuple[Tensor, float]:
    """Class means, and how near to the others' the most outlying cluster of classes is: nearer still is familiar."""
    means = [torch.stack([t.x[rows].mean(0) for rows in t.rows()]) for t in tasks]
    landmarks = normalize(torch.cat(means), dim=-1)
    group = torch.cat(
        [torch.tensor(clusters(m.numpy(), cluster)) + 1000 * place for place, m in enumerate(means)]
    )
    if len(group.unique()) < 2:
        return landmarks, 1.0  # too few classes to say what they have in common: nothing counts as familiar
    x = torch.cat([t.x for t in tasks])
    owner = torch.cat([group[start + t.y] for start, t in zip(_starts(means), tasks, strict=True)])
    nearest = [(x[owner == g] @ landmarks[group != g].t()).max(-1).values.mean() for g in group.unique()]
    return landmarks.half().float(), float(torch.stack(nearest).min())


def _starts(parts: Sequence[Tensor]) -> list[int]:
    return [sum(map(len, parts[:i])) for i in range(len(parts))]


def tune(
    texts: Sequence[Examples],
    base: TextEncoder,
    tuning: Tuning,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    every: int = 10,
    resume: bool = False,
    chosen_by: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Adapter:
    """Tune low-rank adapters by GE2E on episodes of similar classes.

    `chosen_by` is what else the run's result depends on: a checkpoint of another is refused.
    """
    depth = base.weights.config.num_hidden_layers
    layers = tuple(i for i in range(depth) if tuning.every_layer or i in tuning.spec.layers)
    spec = replace(tuning.spec, layers=layers)
    net, _ = base.tunable(spec, seed=seed, dtype=tuning.dtype)
    net.chunk = 32
    data = _packed(texts, base, tuning)
    per_source = {
        group: 1 / sum(g.split("/")[0] == group.split("/")[0] for g in set(data.groups))
        for group in data.groups
    }
    smallest = min(len(data.classes), tuning.ways, tuning.groups * tuning.cluster)
    examples = max(2, min(5, tuning.rows // smallest, *(len(rows) for rows in data.rows())))
    shots = Shots(
        ways=tuning.ways,
        shots=examples - 1,
        queries=1,
        tasks=1,
        groups=tuning.groups,
        name_share=tuning.name_share,
    )
    sample = data.sampler(shots, seed, odds=per_source)
    learner = GE2E(objective=Classify(ways=tuning.ways), net=net, temperature=tuning.temperature)
    prints = {
        "encoder": f"{base.name}/{base.identity[:16]}",
        "data": _print(texts),
        "settings": _digest([tuning.spec.to_json(), {k: v for k, v in vars(tuning).items() if k != "spec"}]),
        "seed": str(seed),
        "numbers": str(resolve_dtype(tuning.dtype)),
        **chosen_by,
    }
    state = load_state(checkpoint, prints) if resume and checkpoint is not None else None
    run = meta_train(
        learner, lambda step: _trimmed(sample(step)), steps=tuning.steps, rate=tuning.rate, warmup=tuning.warmup,
        decay=True, seed=seed, resume=state, form="loop",
    )  # fmt: skip
    meta = (
        {k.removeprefix("meta."): v for k, v in state.tensors.items() if k.startswith("meta.")}
        if state
        else {}
    )
    step = None
    try:
        for step in run:
            meta = step.meta
            if checkpoint is not None and step.number % every == 0:
                save_state(checkpoint, step.state(**prints))
            if progress is not None:
                progress(step.number, tuning.steps, step.loss)
    except (KeyboardInterrupt, DivergedError):  # what was good last is kept
        if checkpoint is not None and step is not None:
            save_state(checkpoint, step.state(**prints))
        raise
    # As a file will hold it, so that what is used now and what is loaded later are the same.
    return Adapter(spec, {name: value.half().float() for name, value in meta.items()}, base=base.identity)


def _best_blend(
    texts: Sequence[Examples],
    trials: Sequence[Examples],
    base: TextEncoder,
    adapter: Adapter,
    seed: int,
) -> float:
    """How much of the tuned features to blend in, by accuracy at one and five shots on the validation tasks."""
    score: dict[float, float] = {}
    for blend in (1.0, 0.5, 2.0, 4.0, 0.0):
        felt = Experienced(base, adapter, blend)
        learner, meta = _estimate([_featured(data, felt) for data in texts], base.dim)
        found = []
        for trial in (_featured(data, felt) for data in trials):
            ways = min(TRIAL_WAYS, len(trial.classes))
            judge = replace(learner, objective=Classify(ways=ways))
            for k in TRIAL_SHOTS:
                sample = trial.sampler(Shots(ways=ways, shots=k, queries=TRIAL_QUERIES, tasks=100), seed)
                found.append(float(evaluate(judge, meta, [sample(0), sample(1)]).score.mean()))
        score[blend] = float(np.mean(found))
    return max(score, key=lambda blend: score[blend])  # the first of equals


def _packed(texts: Sequence[Examples], base: TextEncoder, tuning: Tuning) -> MetaDataset:
    """All data sets as one: inputs are packed token ids, classes are grouped into clusters of similar ones."""
    every, y, classes, groups, names = [], [], [], [], []
    for place, data in enumerate(texts):
        own = sorted(set(data.labels))
        number = {label: i for i, label in enumerate(own)}
        numbers = np.array([number[label] for label in data.labels])
        features = base.encode(data.texts).numpy()
        centers = np.stack([features[numbers == i].mean(0) for i in range(len(own))])
        groups += [f"{place}/{cluster}" for cluster in clusters(centers, tuning.cluster)]
        y.append(numbers + len(classes))
        classes += own
        every += data.texts
        names += [words_for(label, data.descriptions) for label in own]
    packed = base.pack([*every, *(name or "-" for name in names)]).to(torch.int32)
    for i, name in enumerate(names):
        if name is None:
            packed[len(every) + i] = 0  # a row of padding: `_trimmed` masks it
    return MetaDataset(
        packed[: len(every)],
        torch.from_numpy(np.concatenate(y)),
        tuple(classes),
        tuple(groups),
        packed[len(every) :],
    )


def _featured(data: Examples, encoder: Experienced) -> MetaDataset:
    own = sorted(set(data.labels))
    number = {label: i for i, label in enumerate(own)}
    names = [words_for(label, data.descriptions) for label in own]
    told = [name for name in names if name is not None]
    x = encoder.encode([*data.texts, *told])
    named = x.new_full((len(own), x.shape[1]), torch.nan)  # stays for a class whose name is a code
    named[[i for i, name in enumerate(names) if name is not None]] = x[len(data.texts) :]
    y = torch.tensor([number[label] for label in data.labels])
    return MetaDataset(x[: len(y)], y, tuple(own), names=named if told else None)


def _trial(data: Examples, most: int, seed: int) -> Examples:
    """A validation task as it is used. Raises DataError where `_best_blend` couldn't draw tasks from it."""
    trial = _usable(data, most, seed, "A task of `valid`")
    sizes = Counter(trial.labels)
    ways, need = min(TRIAL_WAYS, len(sizes)), max(TRIAL_SHOTS) + TRIAL_QUERIES
    short = {label: size for label, size in sizes.items() if size < need}
    if len(sizes) - len(short) < ways:
        listed = ", ".join(f"{label} {size}" for label, size in list(short.items())[:5])
        raise DataError(
            f"A task of `valid` needs {ways} categories with at least {need} different texts each, "
            f"{max(TRIAL_SHOTS)} to learn from and {TRIAL_QUERIES} to judge by; {len(sizes) - len(short)} of "
            f"{len(sizes)} have that many ({listed}{' …' if len(short) > 5 else ''}). Add texts, or leave `valid` out.",
            file=data.source,
        )
    return trial


def _usable(data: Examples, most: int, seed: int, what: str = "A past task") -> Examples:
    """Distinct texts with one label, at most `most` of each class, of classes with two or more."""
    rng = np.random.default_rng(seed)
    bad = set(data.conflicts())
    by_label: dict[str, list[str]] = {}
    for text, label in dict.fromkeys(zip(data.texts, data.labels, strict=True)):
        if text not in bad:
            by_label.setdefault(label, []).append(text)
    kept = {
        label: [own[i] for i in sorted(rng.permutation(len(own))[:most])]
        for label, own in sorted(by_label.items())
        if len(own) > 1
    }
    if len(kept) < 2:
        raise DataError(f"{what} needs two categories with two different texts each.", file=data.source)
    texts = [text for own in kept.values() for text in own]
    labels = [label for label, own in kept.items() for _ in own]
    return Examples(texts, labels, {k: v for k, v in data.descriptions.items() if k in kept}, data.source)


def _trimmed(episode: Episode) -> Episode:
    """Without the columns that are padding in every row; a row of nothing but padding is masked."""
    longest = max(int((part.x != 0).sum(-1).max()) for part in episode)
    parts = (
        part._replace(x=part.x[..., :longest], mask=part.mask & (part.x != 0).any(-1)) for part in episode
    )
    return Episode(*parts)


def _source(data: Examples) -> str:
    return Path(data.source).name


def _print(tasks: Sequence[Examples]) -> str:
    return _digest([[task.texts, task.labels, task.descriptions] for task in tasks])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
