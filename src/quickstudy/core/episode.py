"""Episode: a task as torch sees it; ragged tasks are padded, and a mask says which rows are real."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from quickstudy.core.errors import DataError


class Labelled(NamedTuple):
    """Inputs with their answers. A row whose mask is False is padding and must change nothing."""

    x: Shaped[Tensor, "..."]
    """Inputs [*tasks, n, …]: features [n, d], images [n, c, h, w], token ids [n, length]."""
    y: Shaped[Tensor, "..."]
    """int64 class numbers, or float targets [*tasks, n, out] for regression."""
    mask: Bool[Tensor, "*tasks n"]

    @classmethod
    def of(cls, x: Any, y: Any, mask: Tensor | None = None) -> "Labelled":
        """Labelled rows that are all real unless a mask is given. Arrays and lists become tensors.

        Raises:
            DataError: see `checked`.
        """
        try:
            x, y = torch.as_tensor(x), torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError) as problem:
            raise DataError(
                f"Inputs and answers are tensors, arrays or lists of numbers ({problem}). Number classes from 0: "
                "{name: number for number, name in enumerate(sorted(set(labels)))}."
            ) from None
        mask = (
            torch.ones(y.shape[: 1 if y.is_floating_point() else y.ndim], dtype=torch.bool)
            if mask is None
            else mask
        )
        return cls(x, y, mask).checked()

    def checked(self) -> "Labelled":
        """The same rows, if they are some.

        Raises:
            DataError: `x`, `y` and `mask` have different numbers of rows, or the mask is none.
        """
        x, y, mask = self
        if not isinstance(mask, Tensor):
            raise DataError(f"The mask is a {type(mask).__name__}; expected a tensor: torch.as_tensor(mask).")
        if mask.dtype != torch.bool:
            kind = str(mask.dtype).removeprefix("torch.")
            raise DataError(f"The mask is {kind}; expected bool, True for rows that are real: mask.bool().")
        if x.shape[: mask.ndim] != mask.shape or y.shape[: mask.ndim] != mask.shape:
            several = y.ndim > 1 and not y.is_floating_point() and len(y) == len(x)
            raise DataError(
                f"x {list(x.shape)}, y {list(y.shape)} and mask {list(mask.shape)} don't have the same rows."
                + (
                    " Of one-hot rows give the class numbers: y.argmax(-1); targets are real: y.float()."
                    if several
                    else ""
                )
            )
        return self

    def trimmed(self) -> "Labelled":
        """One task without its padding rows."""
        return (
            self.checked()
            if bool(self.mask.all())
            else Labelled(self.x[self.mask], self.y[self.mask], self.mask[self.mask])
        )

    def blanked(self) -> "Labelled":
        """The same rows, zero where masked.

        Padding may hold anything, NaN and class numbers that don't exist included, and no sum over rows can weigh it
        out: 0 · NaN is NaN.
        """
        if bool(self.checked().mask.all()):
            return self

        def blank(t: Tensor) -> Tensor:
            real = self.mask.reshape(*self.mask.shape, *[1] * (t.ndim - self.mask.ndim))
            return torch.where(real, t, t.new_zeros(()))

        return Labelled(blank(self.x), blank(self.y), self.mask)

    def taken(self, which: int | slice | Tensor) -> "Labelled":
        """Some of the rows; where tasks are stacked, some of the tasks, or one."""
        return Labelled(self.x[which], self.y[which], self.mask[which])

    def padded(self, rows: int) -> "Labelled":
        """One task with zero rows, masked, up to `rows`."""
        extra = rows - len(self.mask)
        if extra < 0:
            raise DataError(f"Can't pad {len(self.mask)} rows to {rows}.")
        grow = [torch.cat([t, t.new_zeros(extra, *t.shape[1:])]) for t in self] if extra else list(self)
        return Labelled(*grow)


class Episode(NamedTuple):
    """A task to learn from (support) and to be judged by (query)."""

    support: Labelled
    query: Labelled

    def blanked(self) -> "Episode":
        """The same task or tasks with zeros for padding; see `Labelled.blanked`."""
        return Episode(self.support.blanked(), self.query.blanked())

    def taken(self, which: int | slice | Tensor) -> "Episode":
        """Some of stacked tasks, or one."""
        return Episode(self.support.taken(which), self.query.taken(which))


def stack(episodes: Sequence[Episode]) -> Episode:
    """Stack ragged tasks into one batch [tasks, rows, …], padding with masked zeros."""
    if not episodes:
        raise DataError("No episode to stack.")

    def batch(parts: list[Labelled]) -> Labelled:
        rows = max(len(part.mask) for part in parts)
        padded = [part if len(part.mask) == rows else part.padded(rows) for part in parts]
        return Labelled(*(torch.stack(column) for column in zip(*padded, strict=True)))

    return Episode(batch([e.support for e in episodes]), batch([e.query for e in episodes]))


def unstack(episodes: Episode) -> list[Episode]:
    """The tasks of a batch, one by one, padding left in."""
    return [episodes.taken(task) for task in range(len(episodes.support.mask))]
