"""What quickstudy can do, as functions with plain arguments and results; they print nothing.

The command line calls them, and so do service and studio. A model is a folder, or a classifier that is loaded already.
"""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

from quickstudy.app.results import (
    Adapted,
    Answer,
    Explained,
    Learned,
    Method,
    Spoke,
    Suggestion,
)
from quickstudy.core import atomic
from quickstudy.core.errors import CheckpointError, DataError, ModelError, did_you_mean
from quickstudy.core.task import blank
from quickstudy.domains import Domain, EncoderInfo, find, sorting

Progress = Callable[[int, int, float], None]


def learn(
    data: str | Path,
    out: str | Path,
    *,
    encoder: str = "minilm",
    tune_encoder: bool = False,
    steps: int | None = None,
    seed: int = 0,
    valid: str | Path | None = None,
    resume: bool = False,
    restart: bool = False,
    checkpoint_every: int = 10,
    progress: Progress | None = None,
    domain: str | None = None,
) -> Learned:
    """Meta-train: make a prior from a folder of past tasks, and save it to `out`.

    While the encoder is tuned, `checkpoint_folder(out)` holds the state to resume from; it goes when all is saved. One
    that is there already has to be resumed, or discarded by `restart`.

    Raises:
        DataError: what is wrong with the data, naming file and row.
        CheckpointError: nothing to resume from, a checkpoint of another run or one in the way, or no room to save.
    """
    began = time.perf_counter()
    checkpoint = check_run(
        out, encoder=encoder, tune_encoder=tune_encoder, steps=steps, seed=seed, resume=resume, restart=restart,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    place, what = Path(out), sorting(domain)
    read = what.load("read_datasets")
    tasks = read(data)
    trials = read(valid) if valid is not None else None
    if restart and checkpoint is not None:
        _forget(checkpoint)
    prior = what.load("learn")(
        tasks, encoder=encoder, tune_encoder=tune_encoder, steps=steps, seed=seed, valid=trials, resume=resume,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress,
    )  # fmt: skip
    prior.save(place, card=_prior_card(prior))
    if checkpoint is not None:
        _forget(checkpoint)
    return Learned(
        str(place), prior.encoder, prior.adapter is not None, list(prior.sources), time.perf_counter() - began,
        [f"quickstudy adapt EXAMPLES.csv --prior {shlex.quote(str(place))} --out my-model{_option(what)}"],
    )  # fmt: skip


def check_run(
    out: str | Path,
    *,
    encoder: str,
    tune_encoder: bool,
    steps: int | None,
    seed: int,
    resume: bool,
    restart: bool,
    checkpoint_every: int,
) -> Path | None:
    """Refuse a run of `learn` that its settings alone rule out, before anything is read.

    Returns the folder of its checkpoint, None where it has none. Raises: as `learn`.
    """
    at_least(0, seed=seed)
    at_least(1, steps=steps, checkpoint_every=checkpoint_every)
    if tune_encoder and encoder == "tiny":
        raise ModelError(
            "The encoder 'tiny' has no layers that could be tuned; leave --tune-encoder out, or take 'tiny-bert'."
        )
    if resume and restart:
        raise ModelError("--resume goes on with a stopped run, --restart discards it. Give one of them.")
    if (resume or restart) and not tune_encoder:
        option, does = ("--resume", "goes on tuning") if resume else ("--restart", "begins anew to tune")
        raise ModelError(
            f"{option} {does} the encoder, and this run doesn't tune it. Add --tune-encoder, or leave {option} out."
        )
    if not tune_encoder:
        return None
    checkpoint = checkpoint_folder(out)
    found = atomic.recover(checkpoint)
    if resume and not found.is_dir():
        raise CheckpointError(
            f"There is nothing to resume: no folder {checkpoint}. Leave --resume out to start anew."
        )
    if not (resume or restart) and (found / "record.json").exists():
        raise CheckpointError(
            f"{checkpoint} holds the state of a run that was stopped. Go on with that run by --resume, or discard its "
            "state and begin anew by --restart."
        )
    return checkpoint


def checkpoint_folder(out: str | Path) -> Path:
    """Where `learn` keeps the state of an unfinished run: beside its result."""
    place = Path(out)
    return place.with_name(place.name + ".checkpoint")


def adapt(
    examples: Any,
    out: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    descriptions: str | Path | None = None,
    prior: str | Path | None = "default",
    encoder: str | None = None,
    coverage: float | None = None,
    names: bool | None = None,
    tune: bool | None = None,
    seed: int = 0,
    domain: str | None = None,
) -> Adapted:
    """Learn a classifier from a few labelled examples, and save it to `out`.

    Args:
        examples: a file, a folder with one folder a class, or a pandas frame.
        text, label: names of the columns, where they aren't known ones.
        descriptions: a file that says what labels mean.
        prior: "default", a folder that `learn` wrote, or None (or "none") to start from nothing.
        coverage: answer 'none of these' outside of this share of what belongs to a category.
        names: whether labels count as examples; None decides by whether they are words.
        tune: whether to tune the encoder on these examples too; None decides by their number.

    Raises:
        DataError: what is wrong with the examples, naming file and row.
        CheckpointError, ModelError: the prior is damaged or of another encoder, or there is no room to save.
    """
    began = time.perf_counter()
    at_least(0, seed=seed)
    _check_coverage(coverage)
    what = sorting(domain)
    data = what.load("read_examples")(examples, text=text, label=label)
    if descriptions is not None:
        data = data.with_descriptions(what.load("read_descriptions")(descriptions))
    data.check_classes()
    prior = None if prior is None or str(prior) == "none" else prior
    model = what.load("model")(
        prior,
        encoder=encoder,
        coverage=coverage,
        use_names=names,
        tune="auto" if tune is None else tune,
        random_state=seed,
    )
    model.fit(data.texts, data.labels, data.descriptions)
    model.save(out)
    choice = model.choice_
    place, asked, more = shlex.quote(str(out)), shlex.quote(_short_one(data.texts)), _option(what)
    return Adapted(
        model=str(out),
        source=data.source,
        examples=dict(Counter(data.labels)),
        encoder=model.encoder_name_,
        prior=None if prior is None else str(prior),
        chosen=choice.chosen.name,
        reason=choice.reason,
        methods=[Method(name, name.startswith("frozen"), score) for name, score in choice.accuracy.items()],
        gain=choice.gain,
        gain_text=choice.gain_text,
        names_used=len(model.adapted_.items) > len(data),
        coverage=coverage,
        notes=_oddities(data),
        seconds=time.perf_counter() - began,
        next=[
            f"quickstudy predict {place} --text {asked}{more}",
            f"quickstudy explain {place} --text {asked}{more}",
            f"quickstudy predict {place} NEW.csv --out ANSWERS.csv{more}",
            f"quickstudy suggest {place} NEW.csv -n 5{more}",
        ],
    )


def load(model: Any, *, domain: str | None = None) -> Any:
    """The classifier in a folder; one that is loaded already comes back as it is."""
    return sorting(domain).load("model").load(model) if isinstance(model, str | Path) else model


def predict(
    model: Any, texts: Iterable[str], *, batch: int = 256, domain: str | None = None
) -> Iterator[Answer]:
    """Sort texts, one answer for each, as they come: `batch` of them are read at a time.

    A blank one gets the answer 'none of these' with probability 0, so that answers line up with what was asked.
    """
    model, texts = load(model, domain=domain), iter(texts)
    while some := list(islice(texts, batch)):
        asked = [text for text in some if not _blank(text)]
        found: Iterator[Any] = iter(model.predictions(asked) if asked else ())
        for text in some:
            yield Answer(text, None, 0.0, {}) if _blank(text) else Answer(text, *next(found))


def explain(
    model: Any, text: str, *, label: str | None = None, most: int | None = 5, domain: str | None = None
) -> Explained:
    """Say which examples spoke for an answer, the predicted one unless `label` names another.

    `most` (1 or more) counts on either side: so many that spoke for it most, then so many that spoke against it most.
    """
    at_least(1, n=most)
    model = load(model, domain=domain)
    if label is not None and label not in (known := model.task_.labels):
        raise DataError(
            f"There is no label {label!r}.{did_you_mean(label, known)} There are: {', '.join(known)}."
        )
    whole = model.explain(text, label=label, most=None)
    (answer,) = predict(model, [text])
    examples = set(zip(model.task_.support, model.task_.support_labels, strict=True))
    spoke = [
        Spoke(str(i.item), i.label, i.effect, (i.item, i.label) not in examples) for i in whole.influences
    ]
    speakers = [one for one in spoke if one.effect >= 0][:most]  # they come sorted by effect
    opponents = [one for one in reversed(spoke) if one.effect < 0][:most]
    return Explained(answer, whole.label, [*speakers, *opponents])


def suggest(
    model: Any, source: Any, *, n: int = 5, text: str | None = None, domain: str | None = None
) -> list[Suggestion]:
    """The `n` unlabelled texts whose label would teach the model most, best first."""
    texts = sorting(domain).load("read_items")(source, text=text)
    model = load(model, domain=domain)
    chosen = [int(i) for i in model.suggest(texts, n)]
    answers = predict(model, [texts[i] for i in chosen])
    return [Suggestion(i, a.text, a.label, a.probability) for i, a in zip(chosen, answers, strict=True)]


def encoders(*, domain: str | None = None) -> list[EncoderInfo]:
    """The encoders that are known by name; a folder or a Hugging Face id will do as well."""
    return find(domain).load("encoders")()


def at_least(least: int, **numbers: int | None) -> None:
    """Raise DataError for a number that is too small, by its name; None is none."""
    for name, number in numbers.items():
        if number is not None and number < least:
            raise DataError(f"`{name}` is {number}; expected {least} or more.")


def _check_coverage(coverage: Any) -> None:
    if coverage is not None and not (isinstance(coverage, Real) and 0 < float(coverage) < 1):
        raise DataError(
            f"`coverage` is {coverage!r}; expected a number between 0 and 1, such as 0.95. "
            "Leave it out to have every text answered."
        )


def _option(domain: Domain) -> str:
    """What a command needs to reach this domain."""
    return "" if domain is find() else f" --domain {shlex.quote(domain.name)}"


def _short_one(texts: Sequence[str]) -> str:
    """An example that can be typed again: the first that is short and has no control characters."""
    return next((text for text in texts if len(text) <= 80 and text.isprintable()), "…")


def _blank(item: Any) -> bool:
    return isinstance(item, str) and blank(item)


def _oddities(data: Any) -> list[str]:
    """What a person should know about their examples."""
    found = []
    for text, labels in list(data.conflicts().items())[:5]:
        found.append(f'"{text[:60]}" stands under {" and ".join(labels)}: one text can have one label only.')
    if twice := sum(times - 1 for times in data.duplicates().values()):
        found.append(
            f"{twice} example{'s' if twice > 1 else ''} stand{'' if twice > 1 else 's'} there twice."
        )
    single = [label for label, times in Counter(data.labels).items() if times == 1]
    if single and len(single) < len(data.classes):
        found.append(
            f"{len(single)} of {len(data.classes)} labels have one example only: {', '.join(single[:5])}."
        )
    return found + _alike(data.classes)


def _alike(labels: Iterable[str]) -> list[str]:
    """Labels that are probably one, written in two ways; those without a letter (-1, 1) aren't compared."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        if any(character.isalpha() for character in label):
            groups.setdefault(_unpunctuated(label.casefold()), []).append(label)
    found = []
    for group in groups.values():
        if len(group) > 1:
            ways = {  # the first that suffices
                "case": str.casefold,
                "spaces": _unspaced,
                "case and spaces": lambda label: _unspaced(label.casefold()),
                "punctuation": _unpunctuated,
            }
            how = next((way for way, key in ways.items() if len({key(label) for label in group}) == 1), None)
            said = how or "case and punctuation"
            found.append(f"{len(group)} labels differ only by {said}: {', '.join(group)}.")
    return found[:5]


def _unspaced(label: str) -> str:
    return " ".join(label.split())


def _unpunctuated(label: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", label))


def _prior_card(prior: Any) -> str:
    """The README.md beside a prior."""
    rows = "\n".join(f"| {s.get('name')} | {s.get('classes')} | {s.get('examples')} |" for s in prior.sources)
    return (
        f"# A prior for quickstudy\n\nWhat past labelling tasks taught, for the encoder `{prior.encoder}`. Use it with "
        "`quickstudy adapt --prior THIS_FOLDER`.\n\n"
        f"| learned from | classes | examples |\n|---|---:|---:|\n{rows}\n\nSettings: `{prior.settings}`\n"
    )


def _forget(checkpoint: Path) -> None:
    """Remove a checkpoint that is of no more use, and only what it is made of."""
    with suppress(OSError):  # what can't be removed is refused, with its name, by the next run
        for name in ("tensors.safetensors", "record.json"):
            (checkpoint / name).unlink(missing_ok=True)
        if checkpoint.is_dir() and not any(checkpoint.iterdir()):
            checkpoint.rmdir()


def evaluate(model: Any, source: Any, **settings: Any) -> Any:
    """Judge a model on labelled texts; see `quickstudy.app.judge.evaluate`."""
    from quickstudy.app import judge

    return judge.evaluate(model, source, **settings)


__all__: Sequence[str] = (
    "adapt", "check_run", "checkpoint_folder", "encoders", "evaluate", "explain", "learn", "load", "predict", "suggest",
)  # fmt: skip
