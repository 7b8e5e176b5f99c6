"""Judge a model on labelled texts, beside frozen baselines that learned from the same examples."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.app import actions
from quickstudy.app.answers import NONE
from quickstudy.app.results import ClassScore, Confusion, Evaluated, Method, Strangers
from quickstudy.core.calibration import expected_error
from quickstudy.core.errors import MissingExtra, did_you_mean
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.core.report import Report
from quickstudy.core.untrusted import harmless
from quickstudy.domains import sorting

OURS = "this model"
CAUGHT, REFUSED = "strangers caught", "refused wrongly"
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

    A model that may answer 'none of these' (adapted with a coverage) is judged on strangers too: texts that carry this
    label. They are right when they get no other. The baselines answer every text, so they are compared on the others.

    Args:
        model: a folder, or a classifier.
        source: a file, a folder with one folder a class, or a pandas frame.
        report: a folder for report.json, report.md and report.png (left out without matplotlib).

    Raises:
        DataError: what is wrong with the texts; a label that the model never saw, naming file and row.
    """
    what = sorting(domain)
    data = what.load("read_examples")(source, text=text, label=label)
    folder, model = model, actions.load(model, domain=domain)
    labels = list(model.task_.labels)
    truth = _numbers(data, labels, refuses=getattr(model, "coverage", None) is not None)
    known = truth >= 0
    answers = [a for i in range(0, len(truth), BATCH) for a in model.predictions(data.texts[i : i + BATCH])]
    taken = np.array([-1 if a.label is None else labels.index(a.label) for a in answers])
    scores: dict[str, np.ndarray] = {}
    errors: dict[str, float] = {}
    if known.any():
        likeliest = np.array([list(a.probabilities.values()) for a in answers]).argmax(1)
        sure = np.array([a.probability for a in answers])
        scores[OURS] = (taken == truth)[known] * 100.0
        errors[OURS] = expected_error(sure[known], (likeliest == truth)[known])
        asked = [one for one, belongs in zip(data.texts, known, strict=True) if belongs]
        for name, probabilities in what.load("baselines")(model, asked).items():
            right = probabilities.argmax(1) == truth[known]
            scores[name] = right * 100.0
            errors[name] = expected_error(probabilities.max(1), right)
    methods = [
        Method(name, name != OURS, Estimate.share(int((s > 0).sum()), len(s)), errors[name])
        for name, s in scores.items()
    ]
    best = max(list(scores)[1:], key=lambda name: scores[name].mean(), default=None)
    wrong = Counter((t, a) for t, a in zip(truth.tolist(), taken.tolist(), strict=True) if t != a)
    numbers = [*range(len(labels)), *([] if known.all() else [-1])]
    names = [*labels, NONE]  # so that number -1 is NONE
    learned = set(model.task_.support)
    name = str(folder) if isinstance(folder, str | Path) else "the model"
    return Evaluated(
        model=name,
        source=data.source,
        texts=len(truth),
        answered=float((taken[known] >= 0).mean() * 100) if known.any() else math.nan,
        methods=methods,
        gain=None if best is None else paired_share(scores[OURS], scores[best]),
        strangers=None if known.all() else _strangers(truth, taken),
        classes=[_class_score(names[i], truth == i, taken == i) for i in numbers],
        confusions=[Confusion(names[t], names[a], times) for (t, a), times in wrong.most_common(10)],
        seen=sum(one in learned for one in data.texts),
        report=[] if report is None else _save(Path(report), name, data.source, scores, errors, truth, taken),
    )


def _numbers(data: Any, labels: list[str], *, refuses: bool) -> np.ndarray:
    """The number of each text's label; -1 for strangers, of a model that `refuses` them.

    Raises DataError for a label that the model can't give.
    """
    numbers = {label: i for i, label in enumerate(labels)} | ({NONE: -1} if refuses else {})
    for i, given in enumerate(data.labels):
        if given in numbers:
            continue
        if given == NONE:
            raise data.error(
                i,
                f'the label "{NONE}" can\'t be judged: this model answers every text. Leave the row out, or adapt '
                "the model with a coverage, such as --coverage 0.95.",
            )
        raise data.error(
            i,
            f'the label "{given}" was never seen by this model.{did_you_mean(given, numbers)} It knows '
            f"{', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}. Leave the row out, or "
            "adapt with examples of it.",
        )
    return np.array([numbers[given] for given in data.labels])


def _strangers(truth: np.ndarray, taken: np.ndarray) -> Strangers:
    """How strangers, of number -1, and the others were told apart."""

    def share(of: np.ndarray) -> Estimate:
        return Estimate.share(int(of.sum()), len(of))

    known = truth >= 0
    return Strangers(
        texts=int((~known).sum()),
        caught=share(taken[~known] < 0),
        refused=share(taken[known] < 0) if known.any() else None,
        right=share(taken == truth),
    )


def _class_score(label: str, true: np.ndarray, taken: np.ndarray) -> ClassScore:
    hits = int((true & taken).sum())
    return ClassScore(
        label,
        int(true.sum()),
        100 * hits / int(taken.sum()) if taken.any() else None,
        100 * hits / int(true.sum()) if true.any() else None,
    )


def _save(
    folder: Path,
    model: str,
    source: str,
    scores: dict[str, np.ndarray],
    errors: dict[str, float],
    truth: np.ndarray,
    taken: np.ndarray,
) -> list[str]:
    """The report's files; without the picture where matplotlib isn't installed."""
    shown = [harmless(Path(path).name) for path in (model, source)]
    report = Report(
        " on ".join(shown), settings=dict(zip(("model", "texts"), shown, strict=True)), counted="texts",
        shares=("accuracy", CAUGHT, REFUSED), lower_is_better=("ECE", REFUSED),
    )  # fmt: skip
    known = truth >= 0
    for name in scores or {OURS: None}:
        told = {"accuracy": scores[name]} if scores else {}
        if name == OURS and not known.all():
            told |= {CAUGHT: (taken[~known] < 0) * 100.0}
            told |= {REFUSED: (taken[known] < 0) * 100.0} if scores else {}
        row = report.add(name, told, baseline=name != OURS)
        if name in errors:
            row.metrics["ECE"] = Estimate(errors[name], math.nan, int(known.sum()))
    return save_report(report, folder)


def save_report(report: Report, folder: Path) -> list[str]:
    """Save a report, without its picture where matplotlib isn't installed. Returns the files' names."""
    try:
        return [str(path) for path in report.save(folder)]
    except MissingExtra:
        return [str(path) for path in report.save(folder, picture=False)]
