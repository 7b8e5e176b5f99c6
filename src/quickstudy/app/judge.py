"""Judge a model on labelled texts, beside frozen baselines that learned from the same examples."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.app import actions
from quickstudy.app.answers import NONE
from quickstudy.app.results import ClassScore, Confusion, Evaluated, Method
from quickstudy.bench.calibration import expected_error
from quickstudy.core.errors import MissingExtra, did_you_mean
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.core.report import Report
from quickstudy.domains import find

OURS = "this model"
BATCH = 1024


def evaluate(
    model: Any,
    source: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    report: str | Path | None = None,
    domain: str | None = None,
) -> Evaluated:
    """Judge a model on labelled texts.

    Args:
        model: a folder, or a classifier.
        source: a file, a folder with one folder a class, or a pandas frame.
        report: a folder for report.json, report.md and report.png (left out without matplotlib).

    Raises:
        DataError: what is wrong with the texts; a label that the model never saw, naming file and row.
    """
    what = find(domain)
    data = what.load("read_examples")(source, text=text, label=label)
    folder, model = model, actions.load(model, domain=domain)
    labels = list(model.task_.labels)
    for i, given in enumerate(data.labels):
        if given not in labels:
            raise data.error(
                i,
                f'the label "{given}" was never seen by this model.{did_you_mean(given, labels)} It knows '
                f"{', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}. Leave the row out, or "
                "adapt with examples of it.",
            )
    truth = np.array([labels.index(given) for given in data.labels])
    answers = [a for i in range(0, len(truth), BATCH) for a in model.predictions(data.texts[i : i + BATCH])]
    taken = np.array([-1 if a.label is None else labels.index(a.label) for a in answers])
    likeliest = np.array(
        [max(range(len(labels)), key=list(a.probabilities.values()).__getitem__) for a in answers]
    )
    scores = {OURS: (taken == truth) * 100.0}
    errors = {OURS: expected_error([a.probability for a in answers], likeliest == truth)}
    for name, probabilities in what.load("baselines")(model, data.texts).items():
        right = probabilities.argmax(1) == truth
        scores[name] = right * 100.0
        errors[name] = expected_error(probabilities.max(1), right)
    methods = [
        Method(name, name != OURS, Estimate.share(int((s > 0).sum()), len(s)), errors[name])
        for name, s in scores.items()
    ]
    best = max(list(scores)[1:], key=lambda name: scores[name].mean())
    wrong = Counter(
        (labels[t], labels[a] if a >= 0 else NONE) for t, a in zip(truth, taken, strict=True) if t != a
    )
    known = set(model.task_.support)
    name = str(folder) if isinstance(folder, str | Path) else "the model"
    return Evaluated(
        model=name,
        source=data.source,
        texts=len(truth),
        answered=float((taken >= 0).mean() * 100),
        methods=methods,
        gain=paired_share(scores[OURS], scores[best]),
        classes=[_class_score(labels[i], truth == i, taken == i) for i in range(len(labels))],
        confusions=[Confusion(t, a, times) for (t, a), times in wrong.most_common(10)],
        seen=sum(one in known for one in data.texts),
        report=[] if report is None else _save(Path(report), name, data.source, scores, errors),
    )


def _class_score(label: str, true: np.ndarray, taken: np.ndarray) -> ClassScore:
    hits = int((true & taken).sum())
    return ClassScore(
        label,
        int(true.sum()),
        100 * hits / int(taken.sum()) if taken.any() else None,
        100 * hits / int(true.sum()) if true.any() else None,
    )


def _save(folder: Path, model: str, source: str, scores: Any, errors: dict[str, float]) -> list[str]:
    """The report's files; without the picture where matplotlib isn't installed."""
    settings = {"model": Path(model).name, "texts": Path(source).name}
    report = Report(
        f"{Path(model).name} on {Path(source).name}", settings=settings, counted="texts", shares=("accuracy",)
    )
    for name, values in scores.items():
        row = report.add(name, {"accuracy": values}, baseline=name != OURS)
        row.metrics["ECE"] = Estimate(errors[name], math.nan, len(values))
    report.lower_is_better = ("ECE",)
    return save_report(report, folder)


def save_report(report: Report, folder: Path) -> list[str]:
    """Save a report, without its picture where matplotlib isn't installed. Returns the files' names."""
    try:
        return [str(path) for path in report.save(folder)]
    except MissingExtra:
        return [str(path) for path in report.save(folder, picture=False)]
