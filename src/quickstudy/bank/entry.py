"""What a bank keeps of a task: enough to learn from it again, and by whose word it is kept.

A field of knowledge may be several tasks at once (its entity types, its relations): these are the parts of one entry,
kept and forgotten together. A domain says how its models become entries by a `Keeper`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.errors import DataError
from quickstudy.core.task import blank, lone_surrogate

MOST_EACH = 40
"""Examples of a label whose features are kept: more say little about how examples scatter."""
MOST_UNLABELLED = 400
MOST_ROWS, MOST_FEATURES, MOST_LABELS = 200_000, 65_536, 5_000
MOST_MATERIAL = 64 * 2**20
"""Bytes of an entry's material as JSON."""
DEPTH = 12
"""Levels that the material's JSON may have."""
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Part:
    """One task in tensors: what a closed-form head is learned from."""

    name: str
    """"" where the entry is one task; else what its labels are: entities, relations."""
    labels: tuple[str, ...]
    x: Tensor = field(repr=False)
    """Features [n, d] of examples, by the frozen encoder, so that all that know the encoder can compare them."""
    y: Tensor = field(repr=False)
    """Label numbers [n]; -1 for examples of none."""
    told: Tensor | None = field(default=None, repr=False)
    """Features [labels, d] of names or descriptions, where there are."""

    @property
    def shots(self) -> int:
        """Labelled examples."""
        return int((self.y >= 0).sum())

    def checked(self) -> "Part":
        """The same, if it can be a task. Raises DataError."""
        where = f"the part {self.name!r}"
        if self.name and not _WORD.fullmatch(self.name):
            raise DataError(
                f"{self.name!r} names a part of an entry; expected a plain word such as entities."
            )
        if not 1 <= len(self.labels) <= MOST_LABELS or len(set(self.labels)) != len(self.labels):
            raise DataError(
                f"{where} has {len(self.labels)} labels; expected 1 to {MOST_LABELS:,}, each once."
            )
        for label in self.labels:
            _text(label, f"a label of {where}", 500)
        x, y = self.x, self.y
        if x.ndim != 2 or not x.is_floating_point() or y.shape != x.shape[:1] or y.is_floating_point():
            raise DataError(
                f"{where} has features {list(x.shape)} of {x.dtype} and label numbers {list(y.shape)} of {y.dtype}; "
                "expected [n, d] real and [n] whole numbers."
            )
        if not 1 <= len(x) <= MOST_ROWS or not 1 <= x.shape[1] <= MOST_FEATURES:
            raise DataError(
                f"{where} has features {list(x.shape)}; expected 1 to {MOST_ROWS:,} rows of 1 to {MOST_FEATURES:,}."
            )
        if int(y.min()) < -1 or int(y.max()) >= len(self.labels) or int(y.max()) < 0:
            raise DataError(
                f"{where} has label numbers from {int(y.min())} to {int(y.max())} and {len(self.labels)} labels; "
                "expected one example or more, numbers from 0, and -1 for none."
            )
        told = self.told
        if told is not None and (
            told.shape != (len(self.labels), x.shape[1]) or not told.is_floating_point()
        ):
            raise DataError(
                f"{where} has descriptions {list(told.shape)}; expected {[len(self.labels), x.shape[1]]}."
            )
        for tensor in (x, *([] if told is None else [told])):
            if not bool(torch.isfinite(tensor.half()).all()):  # they are kept in float16
                raise DataError(f"{where} has features that aren't finite, or beyond 65,504.")
        return self


def fewer(part: Part, each: int = MOST_EACH, unlabelled: int = MOST_UNLABELLED) -> Part:
    """The first examples of each label, so many at most."""
    seen: dict[int, int] = {}
    keep = []
    for row, label in enumerate(part.y.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= (each if label >= 0 else unlabelled):
            keep.append(row)
    return Part(part.name, part.labels, part.x[keep], part.y[keep], part.told)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A task, or a field of several, as a bank keeps it."""

    domain: str
    name: str
    consent: str
    """By whose word it is kept: without any, nothing is."""
    encoder: str
    identity: str
    """Which encoder's files made the features; those of another can't be compared."""
    parts: tuple[Part, ...]
    material: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the domain needs to learn from it again by another encoder: texts and labels, as JSON."""
    description: str = ""
    source: str = ""
    licence: str = ""
    kept: str = field(default_factory=lambda: date.today().isoformat())
    """The day, as 2026-11-30."""

    @property
    def id(self) -> str:
        """Twelve hex digits of what is learned from: the same task, whatever it is called, is one entry."""
        digest = sha256()
        told = {"domain": self.domain, "identity": self.identity, "material": self.material}
        digest.update(canonical(told))
        for part in self.parts:
            digest.update(canonical([part.name, *part.labels]))
            digest.update(part.y.long().contiguous().numpy().tobytes())
            if not self.material:  # else features follow from it, up to how a machine rounds
                digest.update(part.x.half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def part(self, name: str) -> Part | None:
        """The part of that name, None where it has none."""
        return next((part for part in self.parts if part.name == name), None)

    def checked(self) -> "Entry":
        """The same, if a bank can keep it.

        Raises:
            DataError: no consent, no part, a text that is none or too long, labels or features that can't be.
        """
        if not _WORD.fullmatch(self.domain):
            raise DataError(f"{self.domain!r} names a domain; expected a plain word such as text.")
        if not isinstance(self.consent, str) or blank(self.consent):
            raise DataError(
                "An entry says nothing of consent, so it isn't kept. Say by whose word: consent='asked for by --keep'."
            )
        for what, text, most in (
            ("name", self.name, 200), ("consent", self.consent, 2000), ("encoder", self.encoder, 300),
        ):  # fmt: skip
            _text(text, f"its {what}", most)
        for what, text in (
            ("description", self.description),
            ("source", self.source),
            ("licence", self.licence),
        ):
            _text(text, f"its {what}", 10_000, empty=True)
        if not re.fullmatch(r"[0-9a-f]{8,128}", self.identity):
            raise DataError(f"an encoder's identity is hex digits, not {self.identity[:60]!r}.")
        try:
            date.fromisoformat(self.kept)
        except ValueError:
            raise DataError(
                f"it was kept on {self.kept[:40]!r}; expected a day such as 2026-11-30."
            ) from None
        names = [part.name for part in self.parts]
        if not names or len(set(names)) != len(names):
            raise DataError(f"an entry has one part or more, each with a name of its own; this has {names}.")
        for part in self.parts:
            part.checked()
        try:
            size = len(canonical(self.material))
        except (TypeError, ValueError, RecursionError) as problem:
            raise DataError(f"its material isn't plain JSON: {problem}") from None
        if size > MOST_MATERIAL:
            raise DataError(
                f"its material is {size / 1e6:,.0f} MB; at most {MOST_MATERIAL / 1e6:,.0f} MB are kept."
            )
        return self


@dataclass(frozen=True)
class Keeper:
    """How a domain's saved models become entries."""

    domain: str
    knows: Callable[[Path], bool]
    """Whether a folder holds a model of the domain."""
    entry: Callable[..., Entry]
    """(folder, *, name, consent, description, source, licence) -> entry. Raises as the model's loading does."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: the same value gives the same bytes. Raises ValueError for NaN, TypeError for no JSON."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()


def _text(text: Any, what: str, most: int, *, empty: bool = False) -> None:
    if not isinstance(text, str) or lone_surrogate(text) or (blank(text) and not (empty and not text)):
        raise DataError(f"{what} is {str(text)[:60]!r}; expected words.")
    if len(text) > most:
        raise DataError(f"{what} has {len(text):,} characters; at most {most:,} are kept.")
