"""`quickstudy learn` and `quickstudy adapt`."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from quickstudy.app import actions, bank_actions, results, screen
from quickstudy.app.cli_options import OF_DOMAIN, OfDomain
from quickstudy.domains import find

Out = Annotated[Path, Parameter(name=["--out", "-o"])]


def learn(
    data: Path,
    /,
    *,
    out: Out,
    tune_encoder: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    steps: int | None = None,
    seed: int = 0,
    encoder: str = "minilm",
    valid: Path | None = None,
    resume: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    restart: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    checkpoint_every: int = 10,
    common: OfDomain = OF_DOMAIN,
) -> int:
    """Meta-train: make a prior from a folder of past tasks.

    Each table, and each folder of classes, within the folder is one past task. Ctrl-C leaves a checkpoint beside the
    result: --resume goes on from it to the same numbers, --restart discards it.

    Args:
        data: folder of data sets.
        out: folder for the prior.
        tune_encoder: tune the encoder too, by low-rank adapters: slower, and better.
        steps: how many steps of tuning.
        seed: of everything drawn at random.
        encoder: name or folder of the encoder to learn for; see `quickstudy encoders`.
        valid: folder of data sets to choose by how much tuning to keep; each needs 15 texts of each of five labels, or
            of all that it has.
        resume: go on from the checkpoint of a run that was stopped, which needs the same data and settings.
        restart: discard the checkpoint of a run that was stopped, and begin anew.
        checkpoint_every: steps between two checkpoints.
    """
    common.start()
    chosen: dict[str, Any] = {"encoder": encoder, "tune_encoder": tune_encoder, "steps": steps, "seed": seed}
    chosen |= {"resume": resume, "restart": restart, "checkpoint_every": checkpoint_every}
    actions.check_run(out, **chosen)
    try:
        with screen.bar("learn") as move:

            def progress(step: int, steps: int, loss: float) -> None:
                move("tuning the encoder", step, steps)

            move("reading and encoding", 0, 0)
            result = actions.learn(data, out, valid=valid, progress=progress, domain=common.domain, **chosen)
    except KeyboardInterrupt:
        kept = actions.checkpoint_folder(out)
        if not tune_encoder or not kept.is_dir():
            why = "before the first step of tuning" if tune_encoder else "before the prior was saved"
            screen.note(f"stopped {why}: there is nothing to resume, start anew")
            return 130
        command = ["quickstudy", "learn", str(data), "--out", str(out), "--tune-encoder", "--resume"]
        settings = {"--steps": steps, "--seed": seed or None, "--valid": valid}
        settings |= {"--encoder": encoder if encoder != "minilm" else None}
        settings |= {"--domain": common.domain if common.domain != find().name else None}
        for name, value in settings.items():
            command += [] if value is None else [name, str(value)]
        screen.note(f"stopped; the state is in {kept}. Go on with:\n  {shlex.join(command)}")
        return 130
    common.show(result, _learned)
    return 0


def _learned(result: results.Learned) -> None:
    made = screen.table("learned from", "classes", "examples", numbers=(1, 2))
    for source in result.sources:
        made.add_row(*(str(source.get(key, "")) for key in ("name", "classes", "examples")))
    tuned = ", encoder tuned" if result.tuned else ""
    screen.say(made, f"Prior for {result.encoder}{tuned}: {result.prior}  ({result.seconds:.1f} s)")
    screen.type_next(result.next)


def adapt(
    examples: Path,
    /,
    *,
    out: Out,
    text: str | None = None,
    label: str | None = None,
    descriptions: Path | None = None,
    prior: str = "default",
    encoder: str | None = None,
    coverage: float | None = None,
    names: Annotated[bool | None, Parameter(negative="--no-names")] = None,
    tune: Annotated[bool | None, Parameter(negative="--no-tune")] = None,
    keep: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    seed: int = 0,
    common: OfDomain = OF_DOMAIN,
) -> int:
    """Learn a classifier from a few labelled examples of each category.

    It is judged on examples held out of those given, beside what the frozen encoder does without experience; where
    they speak for that baseline, it is what is saved.

    Args:
        examples: CSV, TSV, JSONL or Parquet with the columns text and label, or a folder with one folder a label.
        out: folder for the model. It will hold the examples' texts.
        text: name of the column with the texts.
        label: name of the column with the labels.
        descriptions: file that says what labels mean: JSON {label: words}, or a table.
        prior: "default" (the shipped one), "none", or a folder that `quickstudy learn` wrote.
        encoder: name or folder of the encoder; by default the one that the prior was learned on.
        coverage: answer "none of these" outside of this share (such as .95) of what belongs to a category.
        names: whether labels count as examples; by default if they are words.
        tune: tune the encoder on these examples too, and keep that if it helps on those held out; takes a minute or
            more. By default for 10 labels or more with 5 examples each or more, on average.
        keep: keep the task in your bank too, its texts included; see `quickstudy bank`. Without this, nothing is kept.
        seed: of the folds that more than 15 examples are judged by.
    """
    common.start()
    before = _saved(out)
    try:
        with screen.bar("adapt", plain=False) as move:
            move("learning your examples", 0, 0)
            result = actions.adapt(
                examples, out, text=text, label=label, descriptions=descriptions, prior=prior, encoder=encoder,
                coverage=coverage, names=names, tune=tune, seed=seed, domain=common.domain,
            )  # fmt: skip
    except KeyboardInterrupt:
        if _saved(out) != before:
            screen.note(f"stopped; the model was saved already: {out}")
        else:
            screen.note("stopped; nothing was saved" + (f", and {out} is as it was" if before else ""))
        return 130
    if keep:
        kept = bank_actions.add(out, domain=common.domain, consent=bank_actions.KEPT)
        result = replace(result, kept=(kept.done or kept.known)[0])
    common.show(result, _adapted)
    return 0


def _saved(folder: Path) -> tuple[int, int] | None:
    """What tells one model in a folder from the next; a model is replaced whole."""
    try:
        record = (folder / "record.json").stat()
    except OSError:
        return None
    return record.st_ino, record.st_mtime_ns


def _adapted(result: results.Adapted) -> None:
    for odd in result.notes:
        screen.note(f"note: {odd}")
    counts = result.examples.values()
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    screen.say(f"{sum(counts)} examples, {len(counts)} labels, {each} of each; encoder {result.encoder}", "")
    if result.methods:
        made = screen.table("method", "held-out accuracy, %", "", numbers=(1,))
        for method in sorted(
            result.methods, key=lambda m: m.accuracy.mean if m.accuracy else 0, reverse=True
        ):
            said = "chosen" if method.name == result.chosen else "baseline" if method.baseline else ""
            made.add_row(method.name, str(method.accuracy), said, style="bold" if said == "chosen" else "")
        screen.say(made)
    else:
        screen.say(f"Chosen: {result.chosen}")
    screen.say(f"{result.gain_text}.")
    screen.say(f"Why: {result.reason}.", f"Saved: {result.model}  ({result.seconds:.1f} s)")
    if result.kept:
        screen.say(f"Kept in your bank as {result.kept}; forgotten by: quickstudy bank forget {result.kept}")
    screen.type_next(result.next)
