"""What the actions return: plain dataclasses that `as_json` turns into JSON, for CLI, service and studio alike."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.core.report import Estimate, Report


@dataclass(frozen=True)
class Learned:
    """A prior, made from past tasks."""

    prior: str
    """The folder it was saved to."""
    encoder: str
    tuned: bool
    """Whether the encoder was tuned, too."""
    sources: list[dict[str, Any]]
    seconds: float
    next: list[str]
    """Commands that make sense now."""


@dataclass(frozen=True)
class Method:
    """One way to learn a task, and how well it did on examples that it had not seen."""

    name: str
    baseline: bool
    accuracy: "Estimate | None"
    """In percent; None where nothing could be held out."""
    error: float | None = None
    """Calibration error (ECE) of its probabilities, where it was measured."""


@dataclass(frozen=True)
class Adapted:
    """A classifier, learned from a few examples and saved."""

    model: str
    source: str
    examples: dict[str, int]
    """How many of each label."""
    encoder: str
    prior: str | None
    chosen: str
    reason: str
    methods: list[Method]
    gain: "Estimate | None"
    """Held-out accuracy of the best experienced method less that of the best frozen one, in points."""
    gain_text: str
    """The same in words, also where there is nothing to measure it by."""
    names_used: bool
    """Whether labels, or their descriptions, counted as examples."""
    coverage: float | None
    notes: list[str]
    """What is odd about the examples."""
    seconds: float
    next: list[str]
    kept: str | None = None
    """Its id in the bank, where it was asked to be kept."""


@dataclass(frozen=True)
class Answer:
    """A text, sorted; label None means 'none of these'."""

    text: str
    label: str | None
    probability: float
    """Of the likeliest label, whether or not it was given out."""
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Spoke:
    """What an example did for an answer: the change of the answer's log-odds by having it."""

    text: str
    label: str
    effect: float
    is_name: bool = False
    """Whether it is no example but the label's own name or description."""


@dataclass(frozen=True)
class Explained:
    """An answer with the examples behind it: those that spoke for it, then those against it, the strongest first."""

    answer: Answer
    label: str
    """The label that is explained."""
    examples: list[Spoke]


@dataclass(frozen=True)
class ClassScore:
    """One class's figures, in percent; None where the denominator is 0."""

    label: str
    texts: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Confusion:
    """So many texts of one label were taken for another."""

    label: str
    taken_for: str
    texts: int


@dataclass(frozen=True)
class Strangers:
    """How a model that may answer 'none of these' did on texts that belong to no label; shares in percent."""

    texts: int
    caught: "Estimate"
    """Share of the strangers that were answered 'none of these', and so rightly."""
    refused: "Estimate | None"
    """Share of the texts with a label that were answered 'none of these', and so wrongly."""
    right: "Estimate"
    """Share of all texts that were answered rightly, strangers among them."""


@dataclass(frozen=True)
class Evaluated:
    """A model, judged on labelled texts that it did not learn from."""

    model: str
    source: str
    texts: int
    """All of them, strangers among them."""
    answered: float
    """Percent of the texts with a label that weren't answered 'none of these'; those count as wrong in `accuracy`."""
    methods: list[Method]
    """The model first, then frozen baselines that learned from the same examples: on the texts with a label, since
    baselines answer every text. Empty where all are strangers."""
    gain: "Estimate | None"
    """Its accuracy less that of the best baseline, paired, in points."""
    strangers: Strangers | None
    """None where no text was labelled 'none of these'."""
    classes: list[ClassScore]
    """Each label's, then that of 'none of these' where there are strangers."""
    confusions: list[Confusion]
    seen: int
    """Texts that the model had learned from; above 0, the figures flatter it."""
    report: list[str]
    """Files written."""


@dataclass(frozen=True)
class Suggestion:
    """A text whose label would teach much."""

    position: int
    """From 0, in the order of the file."""
    text: str
    guess: str | None
    probability: float


@dataclass(frozen=True)
class Demonstrated:
    """What the demo did."""

    report: "Report"
    verdict: str
    left_out: list[str]
    """Classes of the past that the new tasks have too, and that nothing was learned from."""
    audit: str
    """What the past has in common with the new tasks after that."""
    answers: list[Explained]
    truth: list[str]
    """The right label of each answer."""
    folder: str
    files: list[str]
    seconds: float
    next: list[str]


def plain(value: Any) -> Any:
    """A result as JSON values: NaN is null, a path its text, an estimate or a named tuple its
    fields, a report its content.
    """
    if hasattr(value, "to_json") and hasattr(value, "verdict"):
        return json.loads(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):  # a NamedTuple
        return {name: plain(inner) for name, inner in value._asdict().items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def as_json(value: Any) -> str:
    """One JSON object (or list), on one line.

    Escaped are control characters, those that JSON lets pass too, and bytes of a path that are no UTF-8.
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda control: f"\\u{ord(control[0]):04x}", text)
