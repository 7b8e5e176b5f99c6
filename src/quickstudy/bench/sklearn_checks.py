"""scikit-learn's own estimator checks on the text classifier, and which of them can't be for text.

`check_estimator` feeds rows of numbers. To an estimator that says it takes one column of texts it applies the checks
that need no data, and no other. So all of them also run on `OnNumbers`: the same classifier behind a line that writes
each row of numbers as a text.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import InputTags

from quickstudy.domains.text.use import FewShotTextClassifier

COUNT = "a text has no number of features"
NUMBERS = "asks how bad numbers in X are refused; X holds no numbers here, and each of these is refused as 'not a text'"
NOT_FOR_TEXT = {
    "check_n_features_in": COUNT,
    "check_n_features_in_after_fitting": COUNT,
    "check_estimators_partial_fit_n_features": COUNT,
    "check_classifiers_train": COUNT,
    "check_complex_data": NUMBERS,
    "check_dtype_object": NUMBERS,
    "check_estimators_empty_data_messages": NUMBERS,
    "check_estimators_nan_inf": NUMBERS,
    "check_fit2d_predict1d": "asks that one column is refused; one column of texts is what this takes",
}
NEEDS_SETUP = {"check_array_api_input": "runs only with SCIPY_ARRAY_API=1, and is about arrays of numbers"}


@dataclass(frozen=True)
class Checked:
    """How the checks went, by name; a name may stand more than once."""

    as_it_is: dict[str, list[str]]
    """On the classifier itself."""
    on_numbers: dict[str, list[str]]
    """On rows of numbers written as texts."""

    @property
    def unexplained(self) -> list[str]:
        """Checks that didn't pass, without a reason that is listed here."""
        return sorted(
            {*self.as_it_is.get("failed", ()), *self.as_it_is.get("skipped", ())}
            | set(self.on_numbers.get("failed", ())) - set(NOT_FOR_TEXT)
            | set(self.on_numbers.get("skipped", ())) - set(NEEDS_SETUP)
        )


def as_text(row: np.ndarray) -> str:
    """A row of numbers as words; near numbers share some of theirs."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    near = (int(np.clip(round(float(v)) + step, -12, 12)) + 12 for v in row[:26] for step in (-1, 0, 1))
    return " ".join(letters[place // 3] + letters[value] * 4 for place, value in enumerate(near))


def as_texts(X: Any) -> Any:
    """Rows of finite numbers as texts; anything else as it is."""
    X = X.to_numpy() if hasattr(X, "to_numpy") else X if hasattr(X, "toarray") else np.asarray(X)
    plain = isinstance(X, np.ndarray) and X.ndim == 2 and X.size and X.dtype.kind in "fiu"
    return [as_text(row) for row in X] if plain and np.isfinite(X).all() else X


class OnNumbers(FewShotTextClassifier):
    """The classifier behind `as_texts`; nothing else is changed."""

    def fit(self, X: Any, y: Any, descriptions: Any = None) -> "OnNumbers":
        return super().fit(as_texts(X), y, descriptions)

    def predict(self, X: Any) -> np.ndarray:
        return super().predict(as_texts(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(as_texts(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        return super().score(as_texts(X), y, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, descriptions: Any = None) -> "OnNumbers":
        return super().partial_fit(as_texts(X), y, classes, descriptions)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags(two_d_array=True)
        return tags


def run() -> Checked:
    """Run all checks, with an encoder that needs no files. About ten seconds."""
    return Checked(
        _by_status(FewShotTextClassifier(None, encoder="tiny")),
        _by_status(OnNumbers(None, encoder="tiny")),
    )


def _by_status(estimator: FewShotTextClassifier) -> dict[str, list[str]]:
    from sklearn.utils.estimator_checks import check_estimator

    found: dict[str, list[str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the checks themselves warn of
        for result in check_estimator(estimator, on_fail=None, on_skip=None):
            found.setdefault(result["status"], []).append(result["check_name"])
    return found
