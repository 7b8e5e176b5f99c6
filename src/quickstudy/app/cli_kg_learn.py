"""`quickstudy kg new` and `kg learn`: from a schema and labelled sentences to a model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import bank_actions, kg_actions, kg_results, screen
from quickstudy.app.cli_options import COMMON, Common


def new(file: Path, /, *, common: Common = COMMON) -> int:
    """Write a schema with comments, and beside it a file of labelled sentences, to change into your own.

    Args:
        file: .yaml or .yml to write; the sentences go to NAME-examples.txt. What is there already stays.
    """
    common.start()
    common.show(kg_actions.new(file), _begun)
    return 0


def _begun(result: kg_results.Begun) -> None:
    screen.say(f"A schema: {result.schema}", f"Labelled sentences for it: {result.examples}")
    screen.say("Change both into what your documents are about; as they are, they can be tried at once.")
    screen.type_next(result.next)


def learn(
    *,
    schema: Path,
    examples: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    to: Annotated[Path, Parameter(name=["--to", "--out", "-o"])],
    documents: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    encoder: str = "minilm",
    experience: bool = True,
    judge: bool = True,
    bank: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    keep: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    precision: float = 0.9,
    across: int = 0,
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Learn a schema's entities and relations from labelled sentences.

    Args:
        schema: .yaml or .json; `quickstudy kg new` writes one.
        examples: files with labelled sentences: our own, or as other tools export them.
        to: folder for the model. It will hold the examples' texts.
        documents: files or folders of your documents, without labels: some are read, so that it knows which pairs of
            names are usual there. Helps where you label no unrelated pairs, else hardly.
        encoder: name or folder of the encoder; see `quickstudy encoders`.
        experience: start from what past corpora and relations taught.
        judge: see what that is worth on examples held out, and leave it out where it does harm.
        bank: start from the fields of your bank too; says what they are worth on examples held out, and leaves out what
            gains nothing.
        keep: keep the field in your bank, its texts included; see `quickstudy bank`. Without this, nothing is kept.
        precision: a triple at least so probable goes into the graph; below it, it waits for review.
        across: look for relations across so many ends of sentences, too: 1 for neighbouring sentences.
        seed: of everything drawn at random.
    """
    common.start()
    with screen.bar("learn") as move:
        result = kg_actions.learn(
            schema, examples, to, documents=documents or (), encoder=encoder, experience=experience, judge=judge,
            bank=bank, precision=precision, across=across, seed=seed, progress=move,
        )  # fmt: skip
    if keep:
        kept = bank_actions.add(to, domain="kg", consent=bank_actions.KEPT)
        result = replace(result, kept=(kept.done or kept.known)[0])
    common.show(result, _learned)
    return 0


def _learned(result: kg_results.KgLearned) -> None:
    for odd in result.notes:
        screen.note(f"note: {odd}")
    made = screen.table("type", "examples", numbers=(1,))
    for kind, count in (*result.entities.items(), *result.relations.items()):
        made.add_row(kind, str(count))
    screen.say(made)
    if result.judged:
        screen.say(
            "What past fields were worth: F1 on labelled texts held out, in three parts, with 95% intervals"
        )
        worth = screen.table("part", "with experience", "frozen encoder", "gain", "", numbers=(1, 2, 3))
        for one in result.judged:
            kept = "used" if one.kept else "does harm here: left out"
            worth.add_row(
                one.part, one.experienced.text(1), one.frozen.text(1), one.gain.text(1, sign=True), kept
            )
        screen.say(worth)
    if result.bank_text:
        screen.say(result.bank_text)
    screen.say(f"Saved: {result.model}  ({result.seconds:.1f} s)")
    if result.kept:
        screen.say(f"Kept in your bank as {result.kept}; forgotten by: quickstudy bank forget {result.kept}")
    screen.type_next(result.next)
