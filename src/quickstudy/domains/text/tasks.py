"""From texts and labels to a `Task`, refusing what can't be learned from."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.task import Task, blank, lone_surrogate, spell_out

_WORD = re.compile(r"[^\W\d_]{3,}")


def task_from(
    X: Any, y: Any, descriptions: Mapping[Any, str] | None = None, *, least_classes: int = 2
) -> tuple[Task, np.ndarray]:
    """A task and its classes: `task.labels[i]` is `str(classes[i])`.

    Raises:
        DataError: no text, an empty text, something that isn't text, lengths that differ, too few categories, a label
            that is missing or can't be saved, a description of an unknown category.
    """
    texts = checked_texts(X)
    given = _labels(y, len(texts))
    if len({isinstance(label, str) for label in given}) > 1:
        raise DataError(
            "y mixes text with other labels, such as '1' with 1. Make them all text or all numbers."
        )
    # Text has one form; numbers keep their width, so that answers come in the type that was given.
    width = y.dtype if isinstance(y, np.ndarray) and y.dtype.kind in "iufb" else None
    labels = np.asarray(given, dtype=width)
    classes = np.unique(labels)
    names = [str(c) for c in classes.tolist()]
    if len(classes) < least_classes:
        raise DataError(
            f"y holds one class only ({names[0]!r}); sorting needs at least two. "
            "Add examples of another one, if only of 'other'."
        )
    told = {str(label): text for label, text in checked_descriptions(descriptions).items()}
    for label, text in told.items():
        if label not in names:
            raise DataError(
                f"`descriptions` describes {label!r}, which no example carries.{did_you_mean(label, names)}"
            )
        if not isinstance(text, str) or blank(text) or lone_surrogate(text):
            raise DataError(f"The description of {label!r} is {text!r}; expected words.")
    names_given = [str(label) for label in labels.tolist()]
    return Task(texts, names_given, labels=tuple(names), label_descriptions=told), classes


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
        if blank(text):
            raise DataError(f"X[{i}] is empty; there is nothing to learn from or to sort.")
        if lone_surrogate(text):
            raise DataError(
                f"X[{i}] is {text[:40]!r}, with half of a surrogate pair, which no encoding can write. Read it as "
                "UTF-8, or mend it."
            )
    return [str(text) for text in texts]


def checked_descriptions(descriptions: Any) -> Mapping[Any, str]:
    """The descriptions, none for None. Raises DataError for what isn't a mapping."""
    if descriptions is not None and not isinstance(descriptions, Mapping):
        raise DataError(
            f"descriptions is {_brief(descriptions)}; expected a mapping {{label: words}}, or None."
        )
    return descriptions or {}


def truth_for(y: Any, count: int, classes: np.ndarray, strangers: str | None = None) -> list[Any]:
    """The right labels of `count` texts, to compare with a model's answers.

    A label that the model never met is no error: no answer is right there. One of another type than the model's labels
    is, since it would be wrong everywhere; only `strangers` may stand beside them.

    Raises:
        DataError: as `task_from`, or labels of another type than `classes`.
    """
    labels = _labels(y, count)
    learned = classes.tolist()[0]
    for i, label in enumerate(labels):
        if label != strangers and isinstance(label, str) != isinstance(learned, str):
            raise DataError(
                f"y[{i}] is {_brief(label)}, but the model's labels are of type {type(learned).__name__}, such as "
                f"{learned!r}: none would be right. Give the labels in the type that they were learned in."
            )
    return labels


def _labels(y: Any, count: int) -> list[Any]:
    """The labels of `count` texts. Raises DataError: too few or many, missing, continuous or of an unknown type."""
    if y is None:
        raise DataError(
            "The classifier requires y to be passed, but the target y is None. Give each text a label."
        )
    if isinstance(y, str | bytes):
        raise DataError(f"y is {_brief(y)}; expected a list with a label for each text.")
    if getattr(y, "ndim", 1) == 2 and y.shape[1] == 1:
        from sklearn.exceptions import DataConversionWarning

        what = "A column-vector y was passed when a 1d array was expected. Give y.ravel()."
        warnings.warn(what, DataConversionWarning, stacklevel=4)
    labels = list(_column(y, "y"))
    for i, label in enumerate(labels):
        plain = label.item() if isinstance(label, np.generic) and label.dtype.kind in "biuf" else label
        if plain is None or _missing(plain) or (isinstance(plain, str) and blank(plain)):
            raise DataError(f"y[{i}] is {label!r}; every text needs a label.")
        if not isinstance(plain, str | bool | int | float):
            raise DataError(
                f"y[{i}] is {_brief(label)}, which can't be saved as a label; expected text, a whole number or a "
                "boolean. Turn it into text, such as str(label)."
            )
        if isinstance(plain, str) and lone_surrogate(plain):
            raise DataError(
                f"y[{i}] is {plain!r}, with half of a surrogate pair, which no encoding can write."
            )
        if isinstance(plain, float) and not plain.is_integer():
            raise DataError(f"Unknown label type: continuous. y[{i}] is {label!r}; expected categories.")
    if len(labels) != count:
        raise DataError(f"X has {count} texts but y has {len(labels)} labels; they must pair up.")
    return labels


def _missing(label: Any) -> bool:
    return type(label).__name__ in ("NAType", "NaTType") or (isinstance(label, float) and label != label)


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
        # Of times, `tolist` would make numbers.
        return list(values) if values.dtype.kind in "mM" else values.tolist()
    if not isinstance(values, Sequence | Iterable):
        raise DataError(f"{name} is {_brief(values)}; expected a list of texts.")
    return values


def _brief(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
