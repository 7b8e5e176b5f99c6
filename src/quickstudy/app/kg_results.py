"""What the actions on knowledge graphs return: as `results`, plain values that `results.as_json` writes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.core.estimate import Estimate
    from quickstudy.core.report import Report
    from quickstudy.domains.kg.graph.records import Entity, Said, Triple
    from quickstudy.domains.kg.learning.curve import Forecast
    from quickstudy.domains.kg.learning.explain import Explanation


@dataclass(frozen=True)
class Begun:
    """Files to begin with."""

    schema: str
    examples: str
    next: list[str]


@dataclass(frozen=True)
class Added:
    """Documents that were put into a graph."""

    store: str
    new: int
    changed: int
    same: int
    waiting: int
    """Documents of the graph that are to be read, those of before too."""
    notes: list[str]
    next: list[str]


@dataclass(frozen=True)
class State:
    """What a graph holds."""

    store: str
    counts: dict[str, int]
    """See `domains.kg.graph.query.counts`."""
    models: dict[str, int]
    """Version of a model -> documents that it read."""
    failed: dict[str, str]
    """Document -> why it couldn't be read."""


@dataclass(frozen=True)
class Told:
    """A triple, and the sentences that say it, the surest first."""

    triple: "Triple"
    said: "list[Said]"


@dataclass(frozen=True)
class Shown:
    """An entity with its triples."""

    entity: "Entity"
    names: dict[str, list[str]]
    """'names' that documents use, 'catalogue' ids, and their 'aliases'."""
    triples: list[Told]
    more: int
    """Triples that were left off."""
    waiting: list[Told]
    """Triples that wait for a reviewer and don't count yet; empty where statuses were asked for."""


@dataclass(frozen=True)
class Merge:
    """That two names are one thing, or not."""

    one: str
    other: str
    """A name, or an id of the catalogue."""
    together: bool
    decision: int | None
    """The number of a reviewer's decision; None: a model says so."""
    score: float
    why: str


@dataclass(frozen=True)
class Main:
    """The entities of a graph that have most triples."""

    store: str
    entities: list[dict[str, Any]]
    """name, type, triples."""
    review: int
    """Triples of the graph that wait for a reviewer."""


@dataclass(frozen=True)
class Answers:
    """What a question to a graph gives."""

    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    """Entities as name and type, anything else as text; None where a column has no value."""
    truth: bool | None = None
    """Of an ASK."""


@dataclass(frozen=True)
class Judged:
    """What past experience was worth for a part of a graph model, on labelled texts held out: F1 in points."""

    part: str
    experienced: "Estimate"
    frozen: "Estimate"
    gain: "Estimate"
    """Paired."""
    kept: bool
    """Whether the model starts from experience; it doesn't where the frozen encoder did better."""


@dataclass(frozen=True)
class KgLearned:
    """A graph model, learned from a few labelled sentences and saved."""

    model: str
    """The folder."""
    version: str
    encoder: str
    texts: int
    """Labelled documents or sentences."""
    entities: dict[str, int]
    """Type -> examples."""
    relations: dict[str, int]
    judged: list[Judged]
    """Of each part; empty where there is nothing to judge by."""
    notes: list[str]
    """What is odd about the examples."""
    seconds: float
    next: list[str]
    bank: dict[str, Any] | None = None
    """Which fields of the bank were asked, and what they were worth."""
    bank_text: str = ""
    """The same in words."""
    kept: str | None = None
    """Its id in the bank, where it was asked to be kept."""


@dataclass(frozen=True)
class Extracted:
    """Documents that were read into a graph."""

    store: str
    model: str
    """Its version."""
    done: int
    failed: int
    """Documents; why, says `kg status`."""
    merged: int
    """Names that are said to be another entity's."""
    linked: int
    """Names that are an entry of the catalogue that was given."""
    strangers: int
    """Names that are none of its entries."""
    suggested: int
    """Of these, names that may be one, for a reviewer."""
    counts: dict[str, int]
    notes: list[str]
    seconds: float
    next: list[str]


@dataclass(frozen=True)
class Reviewed:
    """Answers that a reviewer gave."""

    store: str
    asked: int
    """Questions that there were."""
    counts: dict[str, int]
    """How many answers of each kind."""
    waiting: dict[str, int]
    """Triples that still wait: 'review' and 'proposed'."""
    measured: "dict[str, Estimate]"
    """How often the graph was right, of what was drawn at random in all reviews: `labels.measured`."""
    next: list[str]


@dataclass(frozen=True)
class Relearnt:
    """A model that was learned again with what reviewers decided."""

    model: str
    """The folder; empty where the new model would have been worse, and nothing was saved."""
    version: str
    kept: bool
    taught: int
    """Labelled pieces from decisions."""
    drawn: int
    """Of these, drawn at random."""
    lost: int
    """Decisions on texts that changed or went."""
    gain: "dict[str, Estimate]"
    """New less old on what was drawn, in points."""
    before: dict[str, float]
    answers: int
    """Triples drawn at random that the new model's probabilities follow."""
    seconds: float
    next: list[str]


@dataclass(frozen=True)
class Evaluated:
    """A model, judged on labelled documents."""

    scores: dict[str, Any]
    """Of each part and end to end, calibration too, as evaluation.json has them."""
    report: "Report"
    forecasts: "dict[str, Forecast]"
    """What more labels would buy, for triples and entities."""
    files: list[str]
    seconds: float


@dataclass(frozen=True)
class Explained:
    """Why a triple is in a graph."""

    explanation: "Explanation"
    model: str | None
    """Version of the model that explained."""
    lines: list[str]
    """The same, to be read."""


@dataclass(frozen=True)
class Drawn:
    """A picture of a neighbourhood."""

    file: str
    entities: int
    triples: int
    left_out: int


@dataclass(frozen=True)
class KgDemonstrated:
    """What the graph demo made and measured."""

    folder: str
    report: "Report"
    scores: dict[str, Any]
    """As in `Evaluated`."""
    triples: "Estimate"
    """F1 of the asserted triples alone, by place."""
    counts: dict[str, int]
    """What the graph holds."""
    waiting: dict[str, int]
    explained: list[str]
    """The surest triple: its sentence, and on which labelled examples it rests."""
    files: list[str]
    seconds: float
    next: list[str]
