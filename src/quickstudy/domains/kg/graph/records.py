"""What questions to a graph are asked with and answered by."""

from typing import Literal, NamedTuple


class Entity(NamedTuple):
    """A thing with a name."""

    name: str
    type: str


class Triple(NamedTuple):
    """That an entity has a relation to another."""

    head: Entity
    relation: str
    tail: Entity
    status: str
    """One of settle.STATUSES."""
    score: float | None
    """The probability that it is right, of its best sentence; None for what was given."""
    inferred: bool
    """Nobody said so: it was inferred, whatever a reviewer made of it since."""


class Slice(NamedTuple):
    """`text[start:end]` of a document, and these very characters."""

    start: int
    end: int
    text: str


class Said(NamedTuple):
    """A sentence that says a triple."""

    document: str
    source: str
    sentence: Slice
    head: Slice
    tail: Slice
    relation: str
    """As it was extracted; a reviewer may have corrected it."""
    score: float
    certain: bool
    verdict: Literal["", "accepted", "rejected"]
    model: str
    """The version of what found it, or `replay.REVIEWER`."""
    now: str = ""
    """The relation that it says after correction."""


class Found(NamedTuple):
    """A mention, and the entity that it was merged into."""

    start: int
    end: int
    text: str
    type: str
    score: float
    entity: Entity


Name = str | tuple[str, str]
"""An entity's name, alone or with its type (`Entity`)."""
Direction = Literal["both", "out", "in"]
