"""`quickstudy predict`, `explain`, `evaluate` and `suggest`: what an adapted model is used for."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import actions, answers, results, screen
from quickstudy.app.cli_options import OF_DOMAIN, OfDomain
from quickstudy.core.errors import DataError
from quickstudy.domains import sorting

LEGEND = (
    "Effect: what having the example adds to the answer's log-odds; + spoke for it, - against it, strongest first. "
    "0.7 doubles the odds, 2.3 makes them ten times as high."
)
Typed = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


def predict(
    model: Path,
    source: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    text: Typed = None,
    text_column: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    format: str | None = None,
    common: OfDomain = OF_DOMAIN,
) -> int:
    """Sort texts: those of a file, one typed in, or lines from a pipe as they come.

    There is one answer for each line of a pipe or a .txt; a blank line gets "none of these" with probability 0.

    Args:
        model: folder that `quickstudy adapt` wrote.
        source: CSV, TSV, JSONL, Parquet or .txt (one text a line); - for lines on stdin.
        text: one text.
        text_column: name of the column with the texts.
        out: file for the answers (.csv or .jsonl), written whole or not at all; by default they go to stdout.
        format: csv or jsonl, on stdout.
    """
    common.start()
    if (source is None) == (text is None):
        raise DataError("give either a file (- for stdin) or --text, and not both.", file="predict")
    if format not in (None, "csv", "jsonl"):
        raise DataError(f"unknown format {format!r}; expected csv or jsonl.", file="--format")
    how = answers.format_of(out) if out is not None else format or "csv"
    if text is not None:
        texts = iter([[answers.typed(text)]])
    elif source == "-":
        texts = answers.piped(sys.stdin.buffer)
    else:
        texts = iter([sorting(common.domain).load("read_items")(source, text=text_column, blank=True)])
    loaded = actions.load(model, domain=common.domain)

    def each() -> Iterator[results.Answer]:
        for some in texts:
            yield from actions.predict(loaded, some)
            if out is None and not common.json:
                sys.stdout.flush()  # the reader of a pipe waits for it

    if out is not None:
        count = 0

        def counted() -> Iterator[results.Answer]:
            nonlocal count
            for answer in each():
                count += 1
                yield answer

        answers.save(answers.lines(counted(), how), out)
        summary = {"out": str(out), "answers": count}
        common.show(summary, lambda _: screen.note(f"{count} answers: {out}"))
    elif common.json:
        common.show({"model": str(model), "answers": list(each())}, print)
    elif text is not None and format is None:
        (answer,) = each()
        screen.say(_headline(answer))
    else:
        answers.stream(answers.lines(each(), how))
    return 0


def explain(
    model: Path, /, *, text: Typed, label: str | None = None, n: Annotated[int, Parameter(name="-n")] = 5,
    common: OfDomain = OF_DOMAIN,
) -> int:  # fmt: skip
    """Show which examples spoke for an answer and which against it, by leaving out each in turn.

    Args:
        model: folder that `quickstudy adapt` wrote.
        text: the text to sort.
        label: explain this label instead of the one that was given.
        n: so many examples for it, and so many against it.
    """
    common.start()
    result = actions.explain(model, answers.typed(text or ""), label=label, most=n, domain=common.domain)
    common.show(result, show_explained)
    return 0


def show_explained(result: results.Explained, *, legend: bool = True) -> None:
    """The answer, and a table of the examples behind it."""
    screen.say(_headline(result.answer))
    asked = "" if result.label == result.answer.label else f' for "{result.label}"'
    made = screen.table("example", "its label", f"effect{asked}", numbers=(2,))
    for spoke in result.examples:
        kind = "  (the label's name)" if spoke.is_name else ""
        made.add_row(f"{screen.short(spoke.text)}{kind}", spoke.label, f"{spoke.effect:+.2f}")
    screen.say(made, *([LEGEND] if legend else []))


def evaluate(
    model: Path, labelled: Path, /, *, text: str | None = None, label: str | None = None, report: Path | None = None,
    common: OfDomain = OF_DOMAIN,
) -> int:  # fmt: skip
    """Judge a model on labelled texts that it has not seen, beside frozen baselines with the same examples.

    A model that was adapted with --coverage is judged on strangers too: label them "none of these".

    Args:
        model: folder that `quickstudy adapt` wrote.
        labelled: table with the columns text and label, or a folder with one folder a label.
        text: name of the column with the texts.
        label: name of the column with the labels.
        report: folder for a report: report.json, report.md and report.png.
    """
    common.start()
    result = actions.evaluate(model, labelled, text=text, label=label, report=report, domain=common.domain)
    common.show(result, _evaluated)
    return 0


def _evaluated(result: results.Evaluated) -> None:
    if result.seen:
        screen.note(f"note: the model learned from {result.seen} of these texts, so the figures flatter it.")
    found = result.strangers
    known = result.texts - (found.texts if found else 0)
    screen.say(f"{known} texts, {len(result.classes) - (found is not None)} labels")
    if result.methods:
        made = screen.table("method", "accuracy, %", "ECE", numbers=(1, 2))
        for method in result.methods:
            made.add_row(
                method.name,
                str(method.accuracy),
                f"{method.error:.3f}",
                style="dim" if method.baseline else "",
            )
        screen.say(made)
    if result.gain is not None:
        screen.say(
            f"Gain over the best baseline: {result.gain.text(sign=True)} points (paired, 95% interval)"
        )
    if result.answered < 100:
        refused = round(known * (1 - result.answered / 100))
        screen.say(
            f"{refused} of {known} ({100 - result.answered:.1f}%) were answered 'none of these', and count as wrong."
        )
    if found is not None:
        caught = round(found.texts * found.caught.mean / 100)
        screen.say(
            f"Besides, {found.texts} strangers: {caught} caught, that is {found.caught}%.",
            f"Right in all, strangers among them: {found.right}% of {result.texts} texts.",
        )
    classes = screen.table("label", "texts", "precision, %", "recall, %", numbers=(1, 2, 3))
    for score in result.classes:
        classes.add_row(score.label, str(score.texts), _percent(score.precision), _percent(score.recall))
    screen.say(classes)
    if result.confusions:
        confused = screen.table("label", "taken for", "texts", numbers=(2,))
        for pair in result.confusions:
            confused.add_row(pair.label, pair.taken_for, str(pair.texts))
        screen.say(confused)
    for file in result.report:
        screen.say(file)


def suggest(
    model: Path, unlabelled: Path, /, *, n: Annotated[int, Parameter(name="-n")] = 5, text: str | None = None,
    common: OfDomain = OF_DOMAIN,
) -> int:  # fmt: skip
    """Say which texts to label next: unsure ones, typical of the rest, and unlike each other.

    Args:
        model: folder that `quickstudy adapt` wrote.
        unlabelled: table with a column text, or .txt with one text a line.
        n: how many.
        text: name of the column with the texts.
    """
    common.start()
    found = actions.suggest(model, unlabelled, n=n, text=text, domain=common.domain)
    common.show({"suggestions": found}, lambda _: _suggested(found))
    return 0


def _suggested(found: list[results.Suggestion]) -> None:
    made = screen.table("no.", "text", "guess", "probability", numbers=(0, 3))
    for one in found:
        made.add_row(
            str(one.position + 1), screen.short(one.text), one.guess or answers.NONE, f"{one.probability:.2f}"
        )
    screen.say(made)


def _headline(answer: results.Answer) -> str:
    said = answer.label if answer.label is not None else f"{answers.NONE} (nearest: {_likeliest(answer)})"
    return f"{said}  {answer.probability:.0%}"


def _likeliest(answer: results.Answer) -> str:
    return max(answer.probabilities, key=answer.probabilities.__getitem__)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
