"""`quickstudy kg review`, `relearn`, `evaluate`, `explain`, `draw` and `demo`: make a graph better, and show it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from quickstudy.app import kg_results, kg_review, screen
from quickstudy.app.actions import at_least
from quickstudy.app.cli_options import COMMON, Common
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.settle import STATUSES
from quickstudy.domains.kg.learning.draw import SHOWN
from quickstudy.domains.kg.learning.queue import KINDS

Word = Annotated[str, Parameter(allow_leading_hyphen=True)]


def review(
    store: Path,
    /,
    *,
    model: Path | None = None,
    n: Annotated[int, Parameter(name="-n")] = 20,
    only: list[str] | None = None,
    answers: Path | None = None,
    by: str = "",
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Answer what the graph is least sure of, a line each; one question in five is drawn at random, to measure.

    Each answer is a decision at once: stop whenever you like, with q or Ctrl-C. `?` lists what can be answered. In a
    pipe, answers are read from it.

    Args:
        store: file of the graph.
        model: folder of the model that read it: its schema names types and relations, and `e` explains.
        n: questions, at most.
        only: kinds of questions: statement, pair, merge, link, mention or proposal; may be given several times.
        answers: file with answers, a line each.
        by: your name, to stand with the decisions.
        seed: of what is drawn at random.
    """
    common.start()
    at_least(1, n=n)
    typed = answers is None and sys.stdin.isatty()
    lines = kg_review.answers_of(answers) if answers else _typed() if typed else iter(sys.stdin)
    said = screen.note if common.json else screen.say
    result = kg_review.review(store, lines, said, model=model, most=n, kinds=only or KINDS, by=by, seed=seed)
    common.show(result, _reviewed)
    return 0


def _typed() -> Iterator[str]:
    """Lines from a terminal; Ctrl-C and Ctrl-D end them, as everything answered before is kept."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            screen.say("")
            return


def _reviewed(result: kg_results.Reviewed) -> None:
    counts = ", ".join(f"{number} {what}" for what, number in result.counts.items()) or "nothing answered"
    waits = ", ".join(f"{number} {what}" for what, number in result.waiting.items())
    screen.say("", f"{counts}. Triples that wait: {waits}.")
    for what, share in result.measured.items():
        screen.say(
            f"Right of the {share.n} statements {what} that were drawn at random so far: {share.text()}%."
        )
    if not result.asked:
        screen.say("There was nothing to ask.")
    if result.next:
        screen.type_next(result.next)


def relearn(
    store: Path,
    /,
    *,
    model: Path,
    to: Annotated[Path, Parameter(name=["--to", "--out", "-o"])],
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Learn a model again with what was decided in a graph; says what that gained on what was drawn at random.

    Args:
        store: file of the graph.
        model: folder of the model that it was read with.
        to: folder for the new model.
        seed: of everything drawn at random.
    """
    common.start()
    with screen.bar("relearn") as move:
        result = kg_review.relearn(store, model, to, seed=seed, progress=move)
    common.show(result, _relearnt)
    return 0


def _relearnt(result: kg_results.Relearnt) -> None:
    screen.say(f"{result.taught} labelled pieces from decisions, {result.drawn} of them drawn at random.")
    if result.lost:
        screen.say(
            f"{result.lost} decisions speak of texts that changed or went, or of types that the schema hasn't."
        )
    for what, gain in result.gain.items():
        before = result.before[what]
        screen.say(
            f"{what}: {before:.1f} before, {gain.text(sign=True)} points by the chosen labels ({gain.n} drawn)."
        )
    if result.answers and result.kept:
        screen.say(f"How sure it is follows {result.answers} triples that were drawn at random.")
    if not result.gain:
        screen.say("Too few were drawn at random to say what it gained.")
    if result.kept:
        screen.say(f"Saved: {result.model}  ({result.seconds:.1f} s)")
        screen.type_next(result.next)
    else:
        screen.say("It would be worse, so the old model stays and nothing was saved.")


def evaluate(
    model: Path,
    /,
    gold: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    catalogue: Path | None = None,
    frozen: bool = True,
    forecast: Annotated[bool, Parameter(negative="")] = False,
    more: int = 5,
    draws: int = 2,
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Judge a model on labelled documents that it hasn't seen: entities, relations, triples, and how sure it is.

    Args:
        model: folder of the model.
        gold: files with labels, in any of the formats that examples may have.
        out: folder for the report, its picture and all figures as JSON.
        catalogue: link what is found to these entities, as `kg extract` does, and judge the ids that the labels have.
        frozen: judge beside it what the same examples teach the encoder without any experience.
        forecast: learn from 1, 2, 5 and 10 of its examples a type too, and say what more would buy.
        more: examples of each type that the forecast is for.
        draws: how often examples are drawn for each of these numbers.
        seed: of everything drawn at random.
    """
    common.start()
    at_least(1, more=more, draws=draws)
    with screen.bar("evaluate") as move:
        result = kg_review.evaluate(
            model,
            gold,
            out=out,
            catalogue=catalogue,
            frozen=frozen,
            forecast=forecast,
            more=more,
            draws=draws,
            seed=seed,
            progress=move,
        )
    common.show(result, show_evaluated)
    return 0


def show_evaluated(result: kg_results.Evaluated) -> None:
    """The table of scores, calibration, and what more labels would buy."""
    made = screen.table("", "precision", "recall", "F1", "95%", "right / found / there", numbers=(1, 2, 3))
    for part, rows in result.scores.items():
        if part in ("documents", "expected calibration error", "reliability"):
            continue
        for name, row in rows.items():
            f1 = row["F1"]
            made.add_row(
                f"{part}: {name}", *(f"{row[figure][0]:.1f}" for figure in ("precision", "recall", "F1")),
                f"{f1[1]:.1f} to {f1[2]:.1f}", " / ".join(map(str, row["right, found, truth"])),
            )  # fmt: skip
    screen.say(made, result.report.table())
    for what, error in result.scores["expected calibration error"].items():
        screen.say(f"Calibration error of {what}: {error:.3f}")
    for what, one in result.forecasts.items():
        screen.say(
            f"{one.more} more examples a type beyond {one.shots} would bring {what} F1 from {one.now:.1f} to "
            f"{one.then.mean:.1f} ({one.then.low:.1f} to {one.then.high:.1f}): {one.gain.mean:+.1f} "
            f"({one.gain.low:+.1f} to {one.gain.high:+.1f})."
        )
    for file in result.files:
        screen.say(file)


def explain(
    store: Path,
    head: Word,
    relation: Word,
    tail: Word,
    /,
    *,
    model: Path | None = None,
    n: Annotated[int, Parameter(name="-n")] = 3,
    common: Common = COMMON,
) -> int:
    """Say why a triple is in the graph: its sentences, the labelled examples it rests on, what holds names together.

    Args:
        store: file of the graph.
        head: name of its head.
        relation: its relation.
        tail: name of its tail.
        model: folder of the model that read it; without it, examples can't be named.
        n: sentences.
    """
    common.start()
    at_least(1, n=n)
    result = kg_review.explain(store, (head, relation, tail), model=model, most=n)
    common.show(result, lambda one: screen.say(*one.lines))
    return 0


def draw(
    store: Path,
    name: Word,
    /,
    *,
    to: Annotated[Path, Parameter(name=["--to", "--out", "-o"])],
    hops: int = 1,
    n: Annotated[int, Parameter(name="-n")] = 24,
    status: list[str] | None = None,
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Draw the neighbourhood of an entity: .svg, .png, or .html, a page that shows sentences and needs nothing else.

    Args:
        store: file of the graph.
        name: the entity's name.
        to: file to write.
        hops: triples from it, at most.
        n: entities in the picture, at most.
        status: which triples: rejected, proposed, review, extracted, given or accepted; may be given several times. By
            default all but the rejected.
        seed: of the layout.
    """
    common.start()
    at_least(1, hops=hops)
    at_least(2, n=n)
    for one in status or ():
        if one not in STATUSES:
            raise DataError(f"{one!r} is no status; there are {', '.join(STATUSES)}.", file="--status")
    result = kg_review.draw(store, name, to, hops=hops, most=n, status=status or SHOWN, seed=seed)
    common.show(result, _drawn)
    return 0


def _drawn(result: Any) -> None:
    more = f"; {result.left_out} triples had no room (-n)" if result.left_out else ""
    screen.say(f"{result.file}: {result.entities} entities, {result.triples} triples{more}")


def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("quickstudy-kg-demo"),
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Learn side effects of drugs from ten labelled abstracts, read thirty others, say how good the graph is.

    Args:
        out: folder for everything: schema, abstracts, model, graph, report and picture. A graph in it is made anew.
        seed: of everything drawn at random.
    """
    from quickstudy.app import kg_demo

    common.start()
    with screen.bar("demo") as move:
        result = kg_demo.demo(out, seed=seed, progress=move)
    common.show(result, show_demonstrated)
    return 0


def show_demonstrated(result: kg_results.KgDemonstrated) -> None:
    """What was found, how good it is, one triple with its explanation, and what to type next."""
    counts = result.counts
    screen.say(
        f"A graph of {counts['documents done']} abstracts: {counts['entities']} entities, "
        f"{counts['triples extracted']} triples asserted, {counts['triples review']} for review.",
        result.report.table(),
        f"Triple F1 counts those for review too; of those asserted alone it is {result.triples.text()}.",
    )
    for what, error in result.scores["expected calibration error"].items():
        screen.say(f"Calibration error of {what}: {error:.3f}")
    screen.say("", "The surest triple, and why it is there:", *result.explained)
    screen.say("", f"In {result.folder}: {', '.join(result.files)}  ({result.seconds:.0f} s)")
    screen.type_next(result.next)
