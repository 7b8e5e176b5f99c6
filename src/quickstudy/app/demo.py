"""The main job in a minute, on bundled data: experience with assistants' intents helps with a bank's.

1. Meta-train on CLINC150 (intents of an assistant, less those that the bank has too): a prior, and a tuned encoder.
2. Adapt to tasks drawn from the 77 intents of BANKING77: see `demo_tasks`.
3. Save what was learned, and a file of examples to go on with.
"""

import csv
import io
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from quickstudy.app import actions
from quickstudy.app.demo_tasks import FEW, SHOTS, UNNAMED, Bank, measure
from quickstudy.app.judge import save_report
from quickstudy.app.results import Demonstrated
from quickstudy.bench.leaks import Audit, audit, normalised
from quickstudy.core import atomic
from quickstudy.core.errors import QuickstudyError
from quickstudy.core.task import spell_out
from quickstudy.data import sample
from quickstudy.domains.text.learn import Tuning, learn
from quickstudy.domains.text.read import Examples
from quickstudy.domains.text.use import FewShotTextClassifier

Progress = Callable[[str, int, int], None]
ENCODER = "minilm"
PER_CLASS = 16
"""Sentences of each past intent that are learned from; more take longer and change little."""
TUNING = Tuning(steps=40)
"""Shorter than the default, so that it takes a minute."""


def demo(
    folder: Path | str = "quickstudy-demo",
    *,
    tune_encoder: bool = True,
    episodes: int = 100,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Demonstrated:
    """Run the demo and write what it made to `folder`.

    Raises:
        MissingExtra: the encoder isn't installed.
        QuickstudyError: the folder can't be written.
    """
    began, folder = time.perf_counter(), Path(folder)
    actions.at_least(0, seed=seed)
    actions.at_least(1, episodes=episodes)
    progress("reading the past: intents of an assistant", 0, 0)
    past, left_out, audited = past_apart_from(_bank())
    prior = learn(
        [past], encoder=ENCODER, tune_encoder=tune_encoder, tuning=TUNING, seed=seed,
        progress=lambda step, steps, loss: progress("tuning the encoder on past tasks", step, steps),
    )  # fmt: skip
    progress("reading the new: 77 intents of a bank", 0, 0)
    bank = Bank.of(prior, ENCODER)
    report = measure(bank, episodes, seed, progress)
    report.settings |= {
        "learned from": f"CLINC150 sample, {len(past.classes)} intents × {PER_CLASS} sentences (CC BY 3.0)",
        "left out of it": ", ".join(left_out) or "nothing",
        "leak audit": audited.text(),
        "judged on": "BANKING77 sample, intents never seen (CC BY 4.0)",
        "encoder": ENCODER + (", tuned on the past tasks" if tune_encoder else ", frozen"),
        "ours": "what `adapt` chooses by held-out examples, the frozen baselines included",
        "label names": "every method but chance has each label's name as one more example, except where unnamed",
        "command": f"quickstudy demo --episodes {episodes} --seed {seed}"
        + ("" if tune_encoder else " --no-tune-encoder"),
    }
    progress("explaining answers", 0, 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuickstudyError(atomic.write_problem(error, folder, 0)) from error
    classes = np.random.default_rng([seed, 3]).choice(len(bank.classes), FEW, replace=False)
    examples = [(text, bank.classes[c]) for c in classes for text in bank.texts["train"][c][:SHOTS]]
    questions = [(text, bank.classes[c]) for c in classes for text in bank.texts["test"][c]]
    model = FewShotTextClassifier(prior).fit([text for text, _ in examples], [label for _, label in examples])
    shown = _least_sure(model, questions)
    prior.save(folder / "prior")
    model.save(folder / "model")
    _write_table(folder / "examples.csv", examples)
    _write_table(folder / "questions.csv", questions)
    files = save_report(report, folder)
    return Demonstrated(
        report=report,
        verdict=f"One example each, unnamed: {report.verdict(UNNAMED)}",
        left_out=left_out,
        audit=audited.text(),
        answers=[actions.explain(model, text, most=2) for text, _ in shown],
        truth=[truth for _, truth in shown],
        folder=str(folder),
        files=[*(Path(file).name for file in files), "examples.csv", "questions.csv", "prior", "model"],
        seconds=time.perf_counter() - began,
        next=_next(folder, questions[-1][0]),
    )


def past_apart_from(target: Examples) -> tuple[Examples, list[str], Audit]:
    """The bundled CLINC150 without the intents that the target has too: (the past, what was left out, the audit).

    An intent is left out when the target has its name (all words of it, two or more, in one name) or one of its
    sentences. Of the others the first sentences are taken; they are in random order.
    """
    by_label: dict[str, list[str]] = {}
    for row in sample("clinc150"):
        by_label.setdefault(row["label"], []).append(row["text"])
    names = [_words(label) for label in target.classes]
    sentences = {normalised(text) for text in target.texts}

    def is_there(label: str) -> bool:
        words, own = _words(label), {normalised(text) for text in by_label[label]}
        return any(words == name or (len(words) > 1 and words < name) for name in names) or bool(
            own & sentences
        )

    left_out = sorted(label for label in by_label if is_there(label))
    pairs = [
        (text, label) for label, own in by_label.items() if label not in left_out for text in own[:PER_CLASS]
    ]
    past = Examples([text for text, _ in pairs], [label for _, label in pairs], source="CLINC150 (sample)")
    (past,), audited = audit("demo", [past], target)  # takes near duplicates out, too
    return past, left_out, audited


def _bank() -> Examples:
    rows = list(sample("banking77"))
    return Examples([r["text"] for r in rows], [r["label"] for r in rows], source="BANKING77 (sample)")


def _words(label: str) -> set[str]:
    return set(normalised(spell_out(label)).split())


def _least_sure(model: FewShotTextClassifier, questions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of three intents, the question that the model is least sure of: there is something to explain."""
    found: dict[str, tuple[float, str]] = {}
    for (text, truth), answer in zip(
        questions, model.predictions([text for text, _ in questions]), strict=True
    ):
        found[truth] = min(found.get(truth, (2.0, "")), (answer.probability, text))
    hardest = sorted((probability, text, truth) for truth, (probability, text) in found.items())
    return [(text, truth) for _, text, truth in hardest[:3]]


def _write_table(path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("text", "label"), *pairs])
    try:
        atomic.write_file(path, text.getvalue())
    except OSError as error:
        raise QuickstudyError(atomic.write_problem(error, path, len(text.getvalue()))) from error


def _next(folder: Path, question: str) -> list[str]:
    def path(name: str) -> str:
        return shlex.quote(str(folder / name))

    return [
        f"quickstudy predict {path('model')} --text {shlex.quote(question)}",
        f"quickstudy adapt {path('examples.csv')} --out my-model",
        f"quickstudy evaluate my-model {path('questions.csv')}",
        "quickstudy adapt YOUR_FILE.csv --out my-model     # a table with the columns text and label",
    ]
