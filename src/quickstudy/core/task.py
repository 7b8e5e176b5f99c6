"""Task: what one small job looks like to a person, before anything is a tensor."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unicodedata import category

from quickstudy.core.errors import DataError, did_you_mean

Item = Any
Label = str
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}


@dataclass(frozen=True)
class Task:
    """A few labelled items (the support) and perhaps some to judge by (the query).

    Raises:
        DataError: lengths differ, there is nothing to learn from, or a label occurs that no support item carries.
    """

    support: Sequence[Item]
    support_labels: Sequence[Label]
    query: Sequence[Item] = ()
    query_labels: Sequence[Label] | None = None
    labels: tuple[str, ...] = ()
    """Every label in the order of the learner's outputs; by default the sorted labels of the support."""
    id: str = ""
    source: str = ""
    """Where the items came from (a file's name, a data set), for people to read."""
    description: str = ""
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    """What a label means, in words. A label without one is described by its own name."""

    def __post_init__(self) -> None:
        _same_length("support", self.support, "support_labels", self.support_labels)
        if self.query_labels is not None:
            _same_length("query", self.query, "query_labels", self.query_labels)
        if not len(self.support):
            raise DataError("A task needs at least one labelled example in its support; this one has none.")
        seen = set(self.support_labels)
        object.__setattr__(self, "labels", tuple(self.labels) or tuple(sorted(seen)))
        if len(set(self.labels)) != len(self.labels):
            twice = [label for label, times in Counter(self.labels).items() if times > 1]
            raise DataError(f"Labels must be distinct; {twice[0]!r} stands more than once in `labels`.")
        for what, labels in (
            ("`labels` names", self.labels),
            ("`query_labels` holds", self.query_labels or ()),
            ("`label_descriptions` describes", self.label_descriptions),
        ):
            for label in labels:
                if label not in seen:
                    raise DataError(
                        f"{what} {label!r}, but no support example carries it.{did_you_mean(str(label), sorted(seen))} "
                        "Give at least one example of it, or leave it out."
                    )
        for label in seen - set(self.labels):
            raise DataError(f"A support example is labelled {label!r}, which `labels` leaves out.")

    def describe(self, label: Label) -> str:
        """The words for a label: its description, else its name with underscores and camel case spelt out."""
        return self.label_descriptions.get(label) or spell_out(label)


def spell_out(label: str) -> str:
    """Turn an identifier such as `card_arrival` or `cardArrival` into words.

    >>> spell_out("card_arrival"), spell_out("cardArrival"), spell_out("FAQ")
    ('card arrival', 'card Arrival', 'FAQ')
    """
    words, previous = [], ""
    for character in label.replace("_", " ").replace("-", " "):
        if character.isupper() and previous.islower():
            words.append(" ")
        words.append(character)
        previous = character
    return " ".join("".join(words).split()) or label


def blank(text: str) -> bool:
    r"""Whether a text shows nothing: no character but white space, control and format characters (U+200B, U+FEFF).

    >>> blank(" \u200b\n"), blank("\u200b.")
    (True, False)
    """
    return all(category(character) in _INVISIBLE for character in text)


def lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair (as a byte becomes that was no UTF-8), which can't be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _same_length(one: str, items: Sequence[Any], other: str, labels: Sequence[Any]) -> None:
    if len(items) != len(labels):
        raise DataError(f"`{one}` has {len(items)} items but `{other}` has {len(labels)}; they must pair up.")
