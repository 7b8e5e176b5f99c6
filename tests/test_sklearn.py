"""scikit-learn's own checks, and its tools (pipelines, searches, cross-validation), on the text classifier.

Which checks can't be for text, and how the others are fed, stands in `quickstudy.bench.sklearn_checks`.
"""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import DataConversionWarning, NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from quickstudy.bench.sklearn_checks import NEEDS_SETUP, NOT_FOR_TEXT, OnNumbers, run
from quickstudy.core.errors import DataError
from quickstudy.domains.text.use import NONE, FewShotTextClassifier

PASSED, NOT_PASSED = 43, 11  # of 55 checks; check_classifiers_train runs three times


class OnCountedNumbers(OnNumbers):
    """The same, and numbers are refused as scikit-learn's transformers refuse them."""

    def fit(self, X, y, descriptions=None):
        return super().fit(validate_data(self, X), y, descriptions)

    def predict(self, X):
        return super().predict(validate_data(self, X, reset=False))

    def predict_proba(self, X):
        return super().predict_proba(validate_data(self, X, reset=False))


def tiny(**settings) -> FewShotTextClassifier:
    return FewShotTextClassifier(None, encoder="tiny", **settings)


def test_the_checks_that_apply_to_text_as_it_is_pass():
    with pytest.warns(SkipTestWarning, match="string=True"):
        results = check_estimator(tiny(), on_skip=None)
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.slow
def test_all_other_checks_pass_but_those_that_are_not_for_text():
    checked = run()
    assert set(checked.as_it_is) == {"passed"}
    passed, failed, skipped = (checked.on_numbers[status] for status in ("passed", "failed", "skipped"))
    assert set(failed) == set(NOT_FOR_TEXT)
    assert set(skipped) == set(NEEDS_SETUP)
    assert not set(passed) & set(NOT_FOR_TEXT)
    assert (len(passed), len(failed), len(passed + failed + skipped)) == (PASSED, NOT_PASSED, 55)
    assert checked.unexplained == []


@pytest.mark.slow
def test_the_classifier_check_passes_once_rows_are_counted():
    """What `check_classifiers_train` asks besides: shapes, accuracy, probabilities, decisions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the checks themselves warn of
        results = check_estimator(OnCountedNumbers(None, encoder="tiny"), on_fail=None, on_skip=None)
    status = {r["status"] for r in results if r["check_name"] == "check_classifiers_train"}
    assert status == {"passed"}


# Texts in scikit-learn's tools

TEXTS = [
    "where is my card", "my card has not come", "when will the card come", "card still not here", "was my card sent",
    "cancel the transfer", "stop my transfer", "undo a transfer", "revert that transfer", "take the transfer back",
]  # fmt: skip
LABELS = ["arrival"] * 5 + ["undo"] * 5


def test_cross_validation_and_search_take_lists_of_texts():
    assert cross_val_score(tiny(), TEXTS, LABELS, cv=3).mean() == 1.0
    search = GridSearchCV(tiny(), {"use_names": [True, False], "coverage": [None, 0.9]}, cv=2).fit(
        TEXTS, LABELS
    )
    assert search.predict(["the card is not here", "transfer back"]).tolist() == ["arrival", "undo"]
    assert search.n_splits_ == 2


class Lower(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [text.lower() for text in X]


def test_it_stands_at_the_end_of_a_pipeline():
    model = make_pipeline(Lower(), tiny()).fit([text.upper() for text in TEXTS], LABELS)
    assert model.score(TEXTS, LABELS) == 1.0
    assert model.predict_proba(TEXTS).shape == (10, 2)
    assert model.classes_.tolist() == ["arrival", "undo"]


def test_clone_gives_an_unfitted_copy_with_the_same_settings():
    model = tiny(coverage=0.9, use_names=False, random_state=3).fit(TEXTS, LABELS)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(TEXTS)
    assert copy.set_params(coverage=None).coverage is None


@pytest.mark.parametrize("state", [None, 7, np.random.RandomState(0)])
def test_any_random_state_will_do(state):
    texts, labels = TEXTS * 2, LABELS * 2
    assert tiny(random_state=state).fit(texts, labels).score(texts, labels) == 1.0


def test_pandas_columns_and_frames_of_one_column_work():
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS}, index=range(100, 110))
    model = tiny().fit(frame["text"], frame["label"])
    same = tiny().fit(frame[["text"]], frame["label"])
    assert model.predict(frame["text"]).tolist() == same.predict(frame[["text"]]).tolist() == LABELS
    assert model.score(frame["text"], frame["label"]) == 1.0


@pytest.mark.parametrize(
    "labels",
    [
        np.array(LABELS),
        np.array([0] * 5 + [7] * 5, dtype=np.int32),
        np.array([-1] * 5 + [1] * 5),
        np.array([False] * 5 + [True] * 5),
        np.array([0.0] * 5 + [1.0] * 5),
    ],
    ids=["str", "int32", "int64", "bool", "float"],
)
def test_answers_have_the_type_of_the_labels(labels):
    model = tiny().fit(TEXTS, labels)
    for answers in (
        model.predict(TEXTS),
        model.classes_,
        model.partial_fit(TEXTS[:1], labels[:1]).predict(TEXTS),
    ):
        assert answers.dtype == labels.dtype
    assert model.predict(TEXTS).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([1, "1"] * 5, "mixes text with other labels"),
        ([0.5, 1.5] * 5, "Unknown label type: continuous"),
        (["a"] * 10, r"one class only \('a'\)"),
        (["a", None] * 5, r"y\[1\] is None"),
        (["a", " "] * 5, r"y\[1\] is ' '"),
        (["a", "b"], "10 texts but y has 2 labels"),
        (None, "requires y"),
        ("abababab10", "y is str 'abababab10'; expected a list"),
        (
            [("a", 1), ("b", 2)] * 5,
            r"y\[0\] is tuple .* can't be saved .* expected text, a whole number or a boolean",
        ),
        (
            pd.to_datetime(["2026-01-01", "2026-01-02"] * 5),
            r"y\[0\] is datetime64 '2026-01-01.*can't be saved",
        ),
        (list(pd.to_datetime(["2026-01-01", "2026-01-02"] * 5)), r"y\[0\] is Timestamp"),
        ([Decimal(1), Decimal(2)] * 5, r"y\[0\] is Decimal '1'"),
        ([b"a", b"b"] * 5, r"y\[0\] is bytes"),
        ([1j, 2j] * 5, r"y\[0\] is complex"),
        ([1, pd.NA] * 5, r"y\[1\] is <NA>; every text"),
        (["a", "\u200b"] * 5, r"y\[1\] is '\\u200b'; every text needs a label"),
        (["a", "b\ud800"] * 5, r"y\[1\] is 'b\\ud800', with half of a surrogate pair"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(labels, says):
    with pytest.raises(DataError, match=says):
        tiny().fit(TEXTS, labels)


@pytest.mark.parametrize(
    "labels", [LABELS, [0] * 5 + [7] * 5, [False] * 5 + [True] * 5], ids=["str", "int", "bool"]
)
def test_score_is_the_share_of_right_answers_in_any_shape(labels):
    """By counting, not by the shape that numpy would make of it: a column of 10 against 10 answers is no 10 × 10."""
    model = tiny().fit(TEXTS, labels)
    truth = [labels[-1], *labels[1:]]
    assert model.score(TEXTS, truth) == 0.9
    assert model.score(TEXTS, pd.Series(truth, index=range(10, 20))) == 0.9
    with pytest.warns(DataConversionWarning, match="column-vector") as caught:
        assert model.score(TEXTS, np.array(truth).reshape(10, 1)) == 0.9
    assert caught[0].filename == __file__
    assert model.score(TEXTS, truth, sample_weight=[5, *[1] * 9]) == 9 / 14
    never_met = "never met" if labels is LABELS else 99
    assert model.score(TEXTS, [never_met, *labels[1:]]) == 0.9


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["a"], "X has 10 texts but y has 1 labels; they must pair up"),
        (LABELS * 2, "X has 10 texts but y has 20 labels"),
        (np.array([LABELS, LABELS]), "expected one column"),
        ("arrival", "y is str 'arrival'; expected a list"),
        (None, "requires y"),
        ([1] * 10, r"y\[0\] is int '1', but the model's labels are of type str, such as 'arrival'"),
        ([*LABELS[:9], None], r"y\[9\] is None"),
        ([*LABELS[:9], ("a", 1)], r"y\[9\] is tuple"),
    ],
)
def test_score_refuses_labels_that_do_not_pair_up(labels, says):
    with pytest.raises(DataError, match=says):
        tiny().fit(TEXTS, LABELS).score(TEXTS, labels)


def test_score_refuses_text_where_the_labels_were_numbers():
    numbers = [0] * 5 + [7] * 5
    with pytest.raises(
        DataError, match=r"y\[0\] is str '0', but the model's labels are of type int, such as 0"
    ):
        tiny().fit(TEXTS, numbers).score(TEXTS, [str(n) for n in numbers])
    careful = tiny(coverage=0.8).fit(TEXTS, numbers)
    assert (
        careful.score(["zebra quux", TEXTS[0]], [NONE, 0]) == 1.0
    )  # strangers are called so, whatever the labels
    assert careful.score(["zebra quux", TEXTS[0]], [0, 0]) == 0.5
    with pytest.raises(DataError, match="none would be right"):
        tiny().fit(TEXTS, numbers).score(["zebra quux"], [NONE])


def test_descriptions_and_settings_of_another_type_are_refused():
    for odd in (["undo", "take money back"], "undo", 3):
        with pytest.raises(DataError, match=r"descriptions is .*; expected a mapping \{label: words\}"):
            tiny().fit(TEXTS, LABELS, odd)
        with pytest.raises(DataError, match="descriptions is"):
            tiny().fit(TEXTS, LABELS).partial_fit(TEXTS, LABELS, descriptions=odd)
    for words in ("\ufeff", "half a \ud83d", 3):
        with pytest.raises(DataError, match=r"The description of 'undo' is .*; expected words"):
            tiny().fit(TEXTS, LABELS, {"undo": words})
    with pytest.raises(DataError, match="use_names is 'no'; expected True, False or None"):
        tiny(use_names="no").fit(TEXTS, LABELS)
    with pytest.raises(DataError, match="tune is 'yes'; expected True"):
        tiny(tune="yes").fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("one text", "got one text"),
        ([], "0 sample"),
        (["a", ""], r"X\[1\] is empty"),
        (["a", "\u200b \ufeff\x07\u2028"], r"X\[1\] is empty"),
        (["a", "b\ud83d"], r"X\[1\] is 'b\\ud83d', with half of a surrogate pair"),
        (["a", 3], r"X\[1\] is int '3', expected a text"),
        (np.zeros((2, 3)), "expected one column"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts, says):
    with pytest.raises(DataError, match=says):
        tiny().fit(texts, ["x", "y"])
    with pytest.raises(DataError, match=says):
        tiny().fit(TEXTS, LABELS).predict(texts)


def test_partial_fit_adds_an_example_and_a_class():
    model = tiny().fit(TEXTS, LABELS, descriptions={"undo": "take money back"})
    assert "pelican" not in model.predict(["a pelican eats fish"])
    model.partial_fit(["pelicans eat fish", "a fish for the pelican"], ["bird", "bird"])
    assert model.classes_.tolist() == ["arrival", "bird", "undo"]
    assert model.predict(["a pelican eats fish", *TEXTS]).tolist() == ["bird", *LABELS]
    assert model.task_.label_descriptions == {"undo": "take money back"}
    with pytest.raises(DataError, match="mixes text"):
        model.partial_fit(["one more"], [3])
    fresh = tiny().partial_fit(TEXTS, LABELS)  # as good as fit
    assert fresh.predict(TEXTS).tolist() == LABELS


def test_a_threshold_answers_none_of_these():
    model = tiny(coverage=0.8).fit(TEXTS, LABELS)
    assert model.predict(["zebra quux"]).tolist() == [NONE]
    assert model.predictions(["zebra quux"])[0].label is None
    assert (model.predict(TEXTS) != NONE).mean() >= 0.8
    with pytest.raises(DataError, match="coverage is 2"):
        tiny(coverage=2).fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    "labels", [LABELS, [3] * 5 + [11] * 5, [True] * 5 + [False] * 5], ids=["str", "int", "bool"]
)
def test_saved_and_loaded_it_is_the_same(tmp_path, labels):
    model = tiny(coverage=0.9).fit(TEXTS, labels)
    model.save(tmp_path / "model")
    again = FewShotTextClassifier.load(tmp_path / "model")
    assert (again.predict_proba(TEXTS) == model.predict_proba(TEXTS)).all()
    assert again.predict([*TEXTS, "zebra quux"]).tolist() == model.predict([*TEXTS, "zebra quux"]).tolist()
    assert again.classes_.dtype == model.classes_.dtype
    assert again.explain(TEXTS[0]) == model.explain(TEXTS[0])
    assert again.suggest(TEXTS, 3).tolist() == model.suggest(TEXTS, 3).tolist()
    more = (["a pelican", "fish"], [labels[0], labels[-1]])
    assert (
        again.partial_fit(*more).predict_proba(TEXTS) == model.partial_fit(*more).predict_proba(TEXTS)
    ).all()
