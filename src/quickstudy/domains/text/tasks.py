"""From texts and labels to a `Task`, refusing what can't be learned from."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.task import Task, spell_out

_WORD = re.compile(r"[^\W\d_]{3,}")


def task_from(
    X: Any, y: Any, descriptions: Mapping[Any, str] | None = None, *, least_classes: int = 2
) -> tuple[Task, np.ndarray]:
    """A task and its classes: `task.labels[i]` is `str(classes[i])`.

    Raises:
        DataError: no text, an empty text, something that isn't text, lengths that differ, too few categories, a label
            that is missing, a description of an unknown category.
    """
    texts = checked_texts(X)
    labels = _labels(y)
    if len(labels) != len(texts):
        raise DataError(f"X has {len(texts)} texts but y has {len(labels)} labels; they must pair up.")
    classes = np.unique(labels)
    names = [str(c) for c in classes.tolist()]
    if len(classes) < least_classes:
        raise DataError(
            f"y holds one class only ({names[0]!r}); sorting needs at least two. "
            "Add examples of another one, if only of 'other'."
        )
    told = {str(label): text for label, text in (descriptions or {}).items()}
    for label, text in told.items():
        if label not in names:
            raise DataError(
                f"`descriptions` describes {label!r}, which no example carries.{did_you_mean(label, names)}"
            )
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"The description of {label!r} is {text!r}; expected words.")
    given = [str(label) for label in labels.tolist()]
    return Task(texts, given, labels=tuple(names), label_descriptions=told), classes


def checked_texts(X: Any) -> list[str]:
    """The texts of X as a list. Raises DataError for one that is empty or isn't text, naming its position."""
    if isinstance(X, str):
        raise DataError(f"Expected a list of texts, got one text. Write [{X[:30]!r}] for a single one.")
    texts = list(_column(X, "X"))
    if not texts:
        raise DataError("Found array with 0 sample(s) (no texts) while a minimum of 1 is required.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"X[{i}] is {_brief(text)}, expected a text (str). One text per row, in one column."
            )
        if not text.strip():
            raise DataError(f"X[{i}] is empty; there is nothing to learn from or to sort.")
    return [str(text) for text in texts]


def _labels(y: Any) -> np.ndarray:
    """The labels as an array [n] of the type they came in. Raises DataError: missing, mixed or continuous ones."""
    if y is None:
        raise DataError(
            "The classifier requires y to be passed, but the target y is None. Give each text a label."
        )
    if getattr(y, "ndim", 1) == 2 and y.shape[1] == 1:
        from sklearn.exceptions import DataConversionWarning

        what = "A column-vector y was passed when a 1d array was expected. Give y.ravel()."
        warnings.warn(what, DataConversionWarning, stacklevel=4)
    labels = list(_column(y, "y"))
    for i, label in enumerate(labels):
        if label is None or label != label or (isinstance(label, str) and not label.strip()):
            raise DataError(f"y[{i}] is {label!r}; every text needs a label.")
        if isinstance(label, float) and not label.is_integer():
            raise DataError(f"Unknown label type: continuous. y[{i}] is {label!r}; expected categories.")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise DataError(
            "y mixes text with other labels, such as '1' with 1. Make them all text or all numbers."
        )
    # Text has one form; numbers keep their width, so that answers come in the type that was given.
    return np.asarray(labels, dtype=y.dtype if isinstance(y, np.ndarray) and y.dtype.kind in "iufb" else None)


def speaks(task: Task, use_names: bool | None) -> bool:
    """Whether labels say something about their categories: words do, codes don't, descriptions always."""
    if use_names is not None:
        return use_names
    return all(words_for(label, task.label_descriptions) for label in task.labels)


def words_for(label: str, descriptions: Mapping[str, str]) -> str | None:
    """The description of a label, or its name in words; None for a code such as "7b"."""
    return descriptions.get(label) or (spell_out(label) if _WORD.search(label) else None)


def _column(values: Any, name: str) -> Iterable[Any]:
    if hasattr(values, "to_numpy"):  # a pandas or polars column, or a frame of one column
        values = values.to_numpy()
    if hasattr(values, "todense"):
        raise DataError(f"{name} is a sparse matrix; expected texts.")
    if hasattr(values, "__array__"):
        values = np.asarray(values)
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise DataError(
                f"{name} has shape {values.shape}; expected one column. Reshape your data to one text per row."
            )
        return values.tolist()
    if not isinstance(values, Sequence | Iterable):
        raise DataError(f"{name} is {_brief(values)}; expected a list of texts.")
    return values


def _brief(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
