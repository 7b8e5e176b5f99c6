"""core.3: all 77 intents of BANKING77 at once, through the classifier as a user calls it. core.6: how fast it is."""

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.bench.data import take
from quickstudy.bench.leaks import audit, normalised
from quickstudy.bench.text_play import (
    CENTROID,
    LOGISTIC,
    WAYS,
    Clock,
    Findings,
    Setting,
    audit_row,
    class_names,
    index_episodes,
    numbered,
    plain,
    row,
)
from quickstudy.core import engine
from quickstudy.core.calibration import Answers
from quickstudy.core.episode import Labelled
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, Report
from quickstudy.domains.text.prior import Prior
from quickstudy.domains.text.read import Examples
from quickstudy.domains.text.use import FewShotTextClassifier
from quickstudy.learners import Centroid, Logistic

OURS, UNTUNED = "ours: FewShotTextClassifier", "ours: the same, tune=False"
"""As it comes: it may tune the encoder on the task itself; and without that."""
SEEDS = 5


def all_ways(
    setting: Setting, clinc: Examples, train: Examples, test: Examples, shots: Sequence[int] = (5, 10)
) -> Findings:
    """core.3: a few sentences of each intent from the official training part, judged by the official test part.

    The prior met CLINC150 alone. Label names are given, as a user's own would be; a baseline has them too.
    The interval is over draws of the support; the test part is the same for all.
    """
    command = "quickstudy bench text --only core.3"
    findings, base, clock = Findings(), setting.base, Clock()
    both = Examples([*train.texts, *test.texts], [*train.labels, *test.labels], source="BANKING77")
    (clinc,), found = audit("core.3", [clinc], both, encode=base.encode)
    findings.audits.append(found)
    train, twice = without(train, test)
    note = audit_row("core.3.leaks", [found], command, clock.seconds)
    note["note"] += (
        f" {twice} sentences of the training part stand in the test part too; none is drawn as support."
    )
    findings.rows.append(note)
    prior = setting.teach([clinc])
    seeds = [setting.seed + i for i in range(2 if setting.quick else SEEDS)]
    for place, k in enumerate(shots, start=1):
        clock = Clock()
        report = Report(
            f"BANKING77, {len(train.classes)}-way {k}-shot, official test part ({setting.encoder})",
            seeds=seeds,
        )
        scores: dict[str, list[float]] = {}
        answers, fits, chosen = [], [], []
        for seed in seeds:
            support = take(train, draw(train, k, seed))
            for name, accuracy in _baselines(setting, support, test).items():
                scores.setdefault(name, []).append(accuracy)
            fit = Clock()
            model = FewShotTextClassifier(prior, random_state=seed).fit(support.texts, support.labels)
            fits.append(fit.seconds)
            chosen.append(model.choice_.chosen.name)
            answers.append(_answers(model, test))
            scores.setdefault(OURS, []).append(answers[-1].accuracy)
            quick = FewShotTextClassifier(prior, tune=False, random_state=seed)
            untuned = _answers(quick.fit(support.texts, support.labels), test)
            scores.setdefault(UNTUNED, []).append(untuned.accuracy)
            setting.show(f"  {k} shots, draw {seed}: {clock.seconds:.0f} s so far")
        ece = Answers.pooled(answers).ece
        for name, values in scores.items():
            note = f"ECE {ece:.3f}" if name == OURS else ""
            report.add(name, {"accuracy": values}, baseline=name not in (OURS, UNTUNED), note=note)
        setting.show(report.table())
        picks = ", ".join(f"{name} ({chosen.count(name)})" for name in dict.fromkeys(chosen))
        over = max((r.name for r in report.rows if r.baseline), key=lambda n: statistics.mean(scores[n]))
        fit_seconds = statistics.median(fits)
        setting.show(f"  chosen: {picks}; fit {fit_seconds:.1f} s; {clock.seconds:.0f} s in all")
        words = (
            f"with label names; interval over {len(seeds)} draws of the support; ECE {ece:.4f}; "
            f"chosen by held-out examples: {picks}; fit, median {fit_seconds:.2f} s; "
            f"with tune=False {Estimate.of(scores[UNTUNED]).text()}"
        )
        findings.rows.append(
            row(f"core.3.{place}", report, OURS, over, command=command, seconds=clock.seconds, note=words)
        )
        findings.calibration[f"core.3 {len(train.classes)}-way {k}-shot"] = ece
    return findings


def speed(setting: Setting, prior: Prior, examples: Examples) -> Findings:
    """core.6: adapt to five classes of five examples and predict 100 queries, features cached; median of many."""
    clock, runs = Clock(), 50 if setting.quick else 500
    x = prior.experienced(setting.base).encode(examples.texts)
    [ids] = index_episodes(examples, examples.classes, shots=5, queries=20, episodes=1, seed=setting.seed)
    support = Labelled(x[ids.support.x[0]], ids.support.y[0], ids.support.mask[0])
    query, learner = x[ids.query.x[0]], prior.for_ways(WAYS)

    def once() -> Tensor:
        return engine.predict(learner, prior.meta, engine.adapt(learner, prior.meta, support), query)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(50):
            once()
        taken = []
        for _ in range(runs):
            start = time.perf_counter()
            once()
            taken.append((time.perf_counter() - start) * 1000)
    finally:
        torch.set_num_threads(threads)
    middle = statistics.median(taken)
    low, high = np.quantile(taken, [0.05, 0.95])
    setting.show(
        f"Adapt + predict {len(query)} queries, 5-way 5-shot, features cached, one thread: median {middle:.3f} ms "
        f"of {runs} (5 to 95%: {low:.3f} to {high:.3f})"
    )
    findings = Findings()
    made = plain(
        "core.6.1", Estimate(middle, float("nan"), runs), unit="ms", seeds=[setting.seed],
        command="quickstudy bench text --only core.6", seconds=clock.seconds,
        note=f"median; 5 to 95% of runs: {low:.3f} to {high:.3f} ms; one thread",
    )  # fmt: skip
    findings.rows.append(made)
    return findings


def draw(examples: Examples, k: int, seed: int) -> list[int]:
    """Row numbers of `k` examples of each class, class by class."""
    rng = np.random.default_rng([seed, k])
    rows = numbered(examples).rows()
    return [int(i) for own in rows for i in rng.choice(own.numpy(), k, replace=False)]


def without(train: Examples, test: Examples) -> tuple[Examples, int]:
    """`train` without sentences that `test` has too (but for form), and how many those were."""
    seen = {normalised(text) for text in test.texts}
    kept = [i for i, text in enumerate(train.texts) if normalised(text) not in seen]
    return take(train, kept), len(train) - len(kept)


def _answers(model: FewShotTextClassifier, test: Examples) -> Answers:
    probability = model.predict_proba(test.texts)
    right = model.classes_[probability.argmax(1)] == np.asarray(test.labels)
    return Answers(probability.max(1), right)


def _baselines(setting: Setting, support: Examples, test: Examples) -> dict[str, float]:
    """Accuracy of the baselines on frozen features, with and without names."""
    base, objective = setting.base, Classify(ways=len(support.classes))
    place = {label: i for i, label in enumerate(support.classes)}
    x, names, query = (base.encode(texts) for texts in (support.texts, class_names(support), test.texts))
    y = torch.tensor([place[label] for label in support.labels])
    truth = torch.tensor([place[label] for label in test.labels])
    alone = Labelled.of(x, y)
    named = Labelled.of(torch.cat([x, names]), torch.cat([y, torch.arange(len(names))]))

    def accuracy(learner: MetaLearner, rows: Labelled) -> float:
        out = engine.predict(learner, {}, engine.adapt(learner, {}, rows), query)
        return float((out.argmax(-1) == truth).double().mean() * 100)

    centroid, logistic = Centroid(objective=objective), Logistic(objective=objective)
    return {
        CENTROID: accuracy(centroid, alone),
        f"{CENTROID} + name": accuracy(centroid, named),
        LOGISTIC: accuracy(logistic, alone),
        f"{LOGISTIC} + name": accuracy(logistic, named),
    }
