"""MetaDataset: the experience that tasks are drawn from, and samplers that draw them without keeping state.

Two kinds of experience share one interface, `sampler(shots, seed)(step) -> Episode`:

* `MetaDataset`: items with classes; a task is a few classes, a few items each (topics, relations, species);
* `TaskDataset`: each task is its own small data set (a user, a learner, a function to regress).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from quickstudy.core.engine import Sample
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DataError

Count = int | tuple[int, int]
"""A number, or a range (both ends included) from which each task draws its own."""


@dataclass(frozen=True)
class Shots:
    """The shape of tasks: `ways` classes with `shots` support and `queries` query items each, `tasks` tasks a batch."""

    ways: Count = 5
    shots: Count = 5
    queries: int = 15
    tasks: int = 16
    groups: int | None = None
    """Draw a task's classes from so many groups (domains, data sets), for harder negatives; None draws from all."""
    name_share: float = 0.0
    """Share of a task's classes whose name stands in the support as one more example."""

    def __post_init__(self) -> None:
        for name, least, most in (("ways", 1, 2), ("shots", 1, 1), ("queries", 0, 0), ("tasks", 1, 1)):
            given = getattr(self, name)
            ranged = name in ("ways", "shots") and isinstance(given, tuple) and len(given) == 2
            low, high = given if ranged else (given, given)
            if not (isinstance(low, Integral) and isinstance(high, Integral)):
                kinds = "a whole number" + (", or a range of two" if name in ("ways", "shots") else "")
                raise DataError(f"Shots({name}={given!r}); expected {kinds}.")
            if low < least or high < max(low, most):
                what = {"ways": "classes", "shots": "examples a class"}.get(name, name)
                raise DataError(
                    f"Shots({name}={given}): tasks need {max(least, most)} {what} or more"
                    f"{'; a range has its smaller number first' if high < low else ''}."
                )

        if not 0 <= self.name_share <= 1:
            raise DataError(f"Shots(name_share={self.name_share}); expected a share from 0 to 1.")
        if self.groups is not None and self.groups < 1:
            raise DataError(f"Shots(groups={self.groups}); expected 1 or more, or None for all.")

    @property
    def most_ways(self) -> int:
        """How many outputs a learner needs."""
        return _most(self.ways)

    @property
    def most_shots(self) -> int:
        """Support items a class, at most."""
        return _most(self.shots)


class _Kin(NamedTuple):
    """Whose child a class is: the data set that it comes from, and its number there."""

    origin: int
    number: Any


_origins = count()


@dataclass(frozen=True)
class MetaDataset:
    """Items with classes. Arrays and lists are taken, too, and become tensors.

    Args:
        x: inputs [N, …], all of them, once; tasks are rows of it.
        y: class numbers [N].
        classes: the name of each class number.
        groups: where each class comes from (a data set, a domain); by default all from one place.
        names: an optional input [classes, …] for each class's name or description.
        decode: what makes inputs of the rows of x that a task draws, where x is stored in another form: images as
            bytes, a quarter of the memory.
        kin: a number for each class; classes of the same number were made of one another (turned, mirrored), so that
            `split` keeps them together. By default each class has its own. What is made of a data set (`rotated`,
            `only`) is kin to it even after `join`; numbers given to two data sets are not.
    """

    x: Shaped[Tensor, "..."]
    y: Int[Tensor, " n"]
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    names: Shaped[Tensor, "..."] | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    kin: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        for name in ("x", "y", "names"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _tensor(getattr(self, name), name))
        if self.y.ndim != 1 or self.y.is_floating_point() or self.y.is_complex():
            kind = str(self.y.dtype).removeprefix("torch.")
            raise DataError(
                f"y is {kind} of shape {list(self.y.shape)}; expected class numbers, one for each row of x: "
                "y.long().flatten(), where it holds whole numbers. To regress, take a TaskDataset."
            )
        object.__setattr__(self, "y", self.y.long())
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.x) != len(self.y):
            raise DataError(f"x has {len(self.x)} rows but y has {len(self.y)}.")
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise DataError(
                f"y holds class numbers {int(self.y.min())} to {int(self.y.max())}, "
                f"but there are {len(self.classes)} classes."
            )
        object.__setattr__(self, "groups", tuple(self.groups) or ("",) * len(self.classes))
        if self.names is not None and len(self.names) != len(self.classes):
            raise DataError(
                f"{len(self.classes)} classes but {len(self.names)} names; give one to each class."
            )
        if len(self.groups) != len(self.classes):
            raise DataError(
                f"{len(self.classes)} classes but {len(self.groups)} groups; name one group per class."
            )
        here = next(_origins)
        kin = tuple(self.kin) or range(len(self.classes))
        object.__setattr__(self, "kin", tuple(k if isinstance(k, _Kin) else _Kin(here, k) for k in kin))
        if len(self.kin) != len(self.classes):
            raise DataError(
                f"{len(self.classes)} classes but {len(self.kin)} numbers of kin; give one to each class."
            )

    def rows(self) -> list[Int[Tensor, " m"]]:
        """The row numbers of each class."""
        order = torch.argsort(self.y, stable=True)
        return list(order.split(torch.bincount(self.y, minlength=len(self.classes)).tolist()))

    def only(self, classes: Sequence[int]) -> "MetaDataset":
        """The data set of these classes alone, renumbered in the order given."""
        chosen = list(classes)
        if strange := [c for c in chosen if not isinstance(c, Integral) or not 0 <= c < len(self.classes)]:
            raise DataError(
                f"There is no class number {strange[0]!r}; there are 0 to {len(self.classes) - 1}."
            )
        number = torch.full((len(self.classes),), -1, dtype=torch.long)
        number[chosen] = torch.arange(len(chosen))
        keep = number[self.y] >= 0
        return replace(
            self,
            x=self.x[keep],
            y=number[self.y[keep]],
            classes=tuple(self.classes[c] for c in chosen),
            groups=tuple(self.groups[c] for c in chosen),
            names=None if self.names is None else self.names[chosen],
            kin=tuple(self.kin[c] for c in chosen),
        )

    def split(self, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0) -> "Split":
        """Split by class at random: no class is in two parts, nor is one that was made of it (`kin`).

        Raises DataError for fractions below 0 or of more than 1 together.
        """
        families = list(dict.fromkeys(self.kin))
        parts = [{families[i] for i in part} for part in _parted(len(families), fractions, seed)]
        return Split(*(self.only([c for c, own in enumerate(self.kin) if own in part]) for part in parts))

    def join(self, other: "MetaDataset") -> "MetaDataset":
        """Both data sets as one; classes of the same name stay apart.

        Raises:
            DataError: they are stored in different forms.
        """
        if self.decode is not other.decode:
            raise DataError("The two data sets have different `decode`; store their rows in one form first.")
        both_named = self.names is not None and other.names is not None
        return MetaDataset(
            torch.cat([self.x, other.x]),
            torch.cat([self.y, other.y + len(self.classes)]),
            self.classes + other.classes,
            self.groups + other.groups,
            torch.cat([self.names, other.names]) if both_named else None,  # pyright: ignore[reportArgumentType]
            self.decode,
            self.kin + other.kin,
        )

    def sampler(self, shots: Shots, seed: int = 0, *, odds: Mapping[str, float] | None = None) -> Sample:
        """Draw tasks: batch number `step` is a pure function of (seed, step).

        Args:
            odds: how likely each group is to be drawn, where tasks come from `shots.groups` of them; by default alike.
                Groups too small for the ways asked for give tasks of fewer ways.

        Raises:
            DataError: too few classes, or a class too small for the shots and queries asked for.
        """
        if not isinstance(shots, Shots):
            raise DataError(f"A sampler got {shots!r}; expected Shots(ways=5, shots=1).")
        if seed < 0:
            raise DataError(f"seed={seed}; expected 0 or more.")
        rows = [r.numpy() for r in self.rows()]
        need = shots.most_shots + shots.queries
        usable = [c for c, r in enumerate(rows) if len(r) >= need]
        groups = sorted({self.groups[c] for c in usable})
        members = [[c for c in usable if self.groups[c] == group] for group in groups]
        if odds is not None and (set(groups) - set(odds) or not sum(odds[group] for group in groups) > 0):
            raise DataError(
                f"odds={dict(odds)}; expected a number for each of {', '.join(groups)}, not all of them 0."
            )
        chance = np.array([1.0 if odds is None else odds[group] for group in groups])
        drawn = min(shots.groups or len(members), len(members))
        fewest = sum(sorted(map(len, members))[:drawn])
        if fewest < (2 if shots.groups else shots.most_ways):
            raise DataError(
                f"Tasks of {shots.most_ways} classes with {need} items each ({shots.most_shots} to learn from, "
                f"{shots.queries} to judge by) can't be drawn: {len(usable)} of {len(rows)} classes have that many. "
                "Ask for fewer ways, shots or queries."
            )
        if shots.name_share and self.names is None:
            raise DataError("`name_share` asks for classes' names, and this data set has none.")

        def sample(step: int) -> Episode:
            rng = np.random.default_rng([seed, step])
            ways = [_draw(rng, shots.ways) for _ in range(shots.tasks)]
            k = [_draw(rng, shots.shots) for _ in range(shots.tasks)]
            picked = []
            for w, s in zip(ways, k, strict=True):
                pool = usable
                if drawn < len(members):
                    chosen = rng.choice(len(members), drawn, replace=False, p=chance / chance.sum())
                    pool = [c for g in chosen for c in members[g]]
                picked.append(self._task(rng, rows, pool, shots, min(w, len(pool)), s))
            return stack(picked)

        return sample

    def _task(
        self,
        rng: np.random.Generator,
        rows: list[np.ndarray],
        pool: list[int],
        shots: Shots,
        ways: int,
        k: int,
    ) -> Episode:
        classes = rng.choice(pool, ways, replace=False)
        items = np.stack([rng.choice(rows[c], k + shots.queries, replace=False) for c in classes])
        label = torch.arange(ways)

        def part(chosen: np.ndarray) -> Labelled:
            # Shot by shot, as the field writes tasks: the first `ways` rows hold one item of each class.
            x = self.x[torch.from_numpy(chosen.T.reshape(-1))]
            return Labelled.of(x if self.decode is None else self.decode(x), label.repeat(chosen.shape[1]))

        support, query = part(items[:, :k]), part(items[:, k:])
        if shots.name_share and self.names is not None:
            told = torch.from_numpy(rng.random(ways) < shots.name_share)
            named = Labelled(self.names[torch.from_numpy(classes)], label, told)
            support = Labelled(*(torch.cat(pair) for pair in zip(support, named, strict=True)))
        return Episode(support, query)


@dataclass(frozen=True)
class Split:
    """Three parts that share no class: to meta-train on, to choose by, to report."""

    train: MetaDataset
    valid: MetaDataset
    test: MetaDataset


@dataclass(frozen=True)
class TaskDataset:
    """Tasks as they are: one `Labelled` each (a user's ratings, a learner's answers), of any number of rows."""

    tasks: tuple[Labelled, ...]

    def split(
        self, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0
    ) -> tuple["TaskDataset", ...]:
        """Split by task at random: no user, learner or function is in two parts. Raises DataError as there."""
        parts = _parted(len(self.tasks), fractions, seed)
        return tuple(TaskDataset(tuple(self.tasks[i] for i in part)) for part in parts)

    def sampler(self, shots: Shots, seed: int = 0) -> Sample:
        """Draw `shots.tasks` tasks; of each, `shots.shots` rows to learn from and up to `shots.queries` to judge by."""
        big = [task.trimmed() for task in self.tasks if int(task.mask.sum()) > shots.most_shots]
        if not big:
            raise DataError(
                f"No task has more than {shots.most_shots} rows, so none is left to judge by. Ask for fewer."
            )

        def sample(step: int) -> Episode:
            rng = np.random.default_rng([seed, step])
            chosen = []
            for i in rng.integers(len(big), size=shots.tasks):
                task, k = big[i], _draw(rng, shots.shots)
                order = torch.from_numpy(rng.permutation(len(task.mask))[: k + shots.queries])
                part = [Labelled(*(t[rows] for t in task)) for rows in (order[:k], order[k:])]
                chosen.append(Episode(*part))
            return stack(chosen)

        return sample


def _parted(number: int, fractions: tuple[float, float, float], seed: int) -> list[np.ndarray]:
    """0 to `number` - 1 in random order, cut into three."""
    if len(fractions) != 3 or not min(fractions) >= 0 or not abs(sum(fractions) - 1) < 1e-9:
        raise DataError(f"The fractions are {fractions}; expected three shares that sum to 1.")
    if seed < 0:
        raise DataError(f"seed={seed}; expected 0 or more.")
    cuts = (np.cumsum(fractions)[:2] * number).round().astype(int)
    return np.split(np.random.default_rng(seed).permutation(number), cuts)


def _tensor(values: Any, name: str) -> Tensor:
    """Arrays and lists as tensors."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise DataError(
            f"{name} is a {type(values).__name__} that isn't made of numbers in rows of one shape: {problem}. Encode "
            "texts and other items first (see quickstudy.core.encoder)."
        ) from problem
    if not found.ndim:
        raise DataError(f"{name} is a single number; expected a row for each item.")
    return found


def _most(count: Count) -> int:
    return count[1] if isinstance(count, tuple) else count


def _draw(rng: np.random.Generator, count: Count) -> int:
    return int(rng.integers(count[0], count[1] + 1)) if isinstance(count, tuple) else count
