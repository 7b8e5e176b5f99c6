"""FewShotTextClassifier: few-shot text classification with scikit-learn's face."""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from quickstudy.core import engine
from quickstudy.core.adapted import Adapted, Explanation, Prediction
from quickstudy.core.encoder import Encoder
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.task import Task
from quickstudy.domains.text.abstain import Abstention, suggest
from quickstudy.domains.text.choose import Choice, candidates_for, choose
from quickstudy.domains.text.prior import (
    SHIPPED,
    Experienced,
    Prior,
    encoder_for,
    load_prior,
    named_in_file,
)
from quickstudy.domains.text.specialise import keep, specialise, worthwhile
from quickstudy.domains.text.tasks import checked_descriptions, checked_texts, speaks, task_from, truth_for
from quickstudy.encoders.text import TextEncoder

NONE = "none of these"


class FewShotTextClassifier(ClassifierMixin, BaseEstimator):
    """Learns to sort texts into your categories from a few examples of each.

    Starts from what past tasks taught (`prior`), judges it by held-out examples, and falls back to the frozen encoder
    where they speak for that. Fitting takes about a second; nothing leaves the machine.

    Args:
        prior: "default" for the shipped one (learned on MiniLM: another encoder then starts without), a folder that
            `quickstudy learn` wrote, a `Prior`, or None for none.
        encoder: name or folder of an encoder; None takes the one that the prior was learned on.
        coverage: with a number in (0, 1), answer "none of these" for texts unlike any category, with a threshold that
            still answers this share of texts that do belong to one.
        use_names: whether a category's name (or description) counts as an example of it; None lets words count and
            codes such as "7b" not.
        tune: whether to tune the encoder on your own examples too, which takes a minute or two: True, False, or
            "auto" for tasks of ten categories or more with five examples each or more, on average. Kept only if it
            helps on examples held out.
        random_state: seed of the folds that larger supports are judged by.

    Attributes:
        classes_: the categories, sorted.
        choice_: what was chosen and the gain over the frozen baseline.
        tuned_on_: how many examples the encoder was tuned on; 0 when it wasn't.
        adapted_: the model itself (`quickstudy.Adapted`).
    """

    def __init__(
        self,
        prior: str | Path | Prior | None = "default",
        *,
        encoder: str | None = None,
        coverage: float | None = None,
        use_names: bool | None = None,
        tune: bool | str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.prior = prior
        self.encoder = encoder
        self.coverage = coverage
        self.use_names = use_names
        self.tune = tune
        self.random_state = random_state

    def fit(self, X: Any, y: Any, descriptions: Mapping[Any, str] | None = None) -> Self:
        """Learn from labelled texts.

        Args:
            X: texts, one or more for each category: a list, an array, a pandas column.
            y: their categories: strings, numbers or booleans.
            descriptions: what a category means, in words, for any of the categories.

        Raises:
            DataError: an empty text, one category only, lengths that differ, labels of a type that can't be saved, a
                description of an unknown category.
        """
        share = isinstance(self.coverage, numbers.Real) and 0 < float(self.coverage) < 1
        if self.coverage is not None and not share:
            raise DataError(
                f"coverage is {self.coverage!r}; expected a number between 0 and 1, such as 0.95, or None."
            )
        if self.use_names not in (True, False, None):
            raise DataError(f"use_names is {self.use_names!r}; expected True, False or None.")
        if self.tune not in (True, False, "auto"):
            raise DataError(f'tune is {self.tune!r}; expected True, False or "auto".')
        task, classes = task_from(X, y, descriptions)
        return self._fit(task, classes)

    def _fit(self, task: Task, classes: np.ndarray, tuned: Experienced | None = None) -> Self:
        if self.coverage is not None and NONE in task.labels:
            raise DataError(
                f"A category is called {NONE!r}, which is what `coverage` answers for texts of no category. "
                "Call it something else, or leave `coverage` out."
            )
        self.task_, self.classes_ = task, classes
        prior = load_prior(self.prior) if isinstance(self.prior, str | Path) else self.prior
        others = self.prior == SHIPPED and prior is not None and self.encoder not in (None, prior.encoder)
        if others:
            prior = None  # the shipped prior is one encoder's; another starts without experience
        self.prior_ = prior
        named = self.encoder
        if named is None and prior is not None:
            from_file = isinstance(self.prior, str | Path)
            named = named_in_file(prior.encoder, str(self.prior)) if from_file else prior.encoder
        self.encoder_name_ = named or "minilm"
        base = encoder_for(self.encoder_name_)
        if self.tune is True and not hasattr(base, "tunable"):
            raise ModelError(
                f"The encoder {self.encoder_name_!r} has no layers that could be tuned; leave `tune` out."
            )
        self._learn(task, prior, base, tuned)
        if others:
            told = f"the shipped prior knows another encoder than {self.encoder!r}; `quickstudy learn` makes one for it"
            self.choice_ = replace(self.choice_, reason=f"{self.choice_.reason} ({told})")
        return self

    def partial_fit(
        self,
        X: Sequence[str],
        y: Sequence[Any],
        classes: Any = None,
        descriptions: Mapping[Any, str] | None = None,
    ) -> Self:
        """Learn further examples, of known categories or of new ones; the encoder's cache spares those known already.

        An encoder that was tuned on the task is tuned anew only once there are twice as many examples.

        Args:
            classes: ignored, since categories may come at any time; there for scikit-learn's sake.
        """
        if not hasattr(self, "task_"):
            return self.fit(X, y, descriptions)
        more, kinds = task_from(X, y, None, least_classes=1)
        known, new = self._given(self.task_, self.classes_), self._given(more, kinds)
        # Labels of two kinds are left as they are, for `fit` to refuse; numpy would make text of them.
        labels = (
            np.concatenate([known, new])
            if known.dtype.kind == new.dtype.kind
            else [*known.tolist(), *new.tolist()]
        )
        told = {
            self.classes_.tolist()[self.task_.labels.index(k)]: v
            for k, v in self.task_.label_descriptions.items()
        }
        told |= checked_descriptions(descriptions)
        task, kinds = task_from([*self.task_.support, *more.support], labels, told)
        encoder = self.adapted_.encoder
        few = len(task.support) < 2 * self.tuned_on_  # too few new ones to tune anew
        return self._fit(task, kinds, encoder if few and isinstance(encoder, Experienced) else None)

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The category of each text; `quickstudy.domains.text.NONE` where `coverage` says that it fits none."""
        proba, fits = self._judge(X)
        answers = self.classes_[proba.argmax(1)]
        return answers if self.coverage is None else np.where(fits, answers.astype(object), NONE)

    def score(self, X: Sequence[str], y: Sequence[Any], sample_weight: Any = None) -> float:
        """The share of texts answered rightly; 'none of these' is right only where y says so.

        Raises:
            DataError: lengths that differ, or labels of another type than the model's.
        """
        check_is_fitted(self, "adapted_")
        texts = checked_texts(X)
        truth = truth_for(y, len(texts), self.classes_, None if self.coverage is None else NONE)
        right = [answer == label for answer, label in zip(self.predict(texts).tolist(), truth, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Calibrated probabilities [n, categories], in the order of `classes_`."""
        return self._judge(X)[0]

    def predictions(self, X: Sequence[str]) -> list[Prediction]:
        """Label (None for 'none of these'), its probability, and all probabilities, of each text."""
        proba, fits = self._judge(X)
        labels = self.task_.labels
        return [
            Prediction(
                labels[row.argmax()] if fit or self.coverage is None else None,
                float(row.max()),
                dict(zip(labels, row.tolist(), strict=True)),
            )
            for row, fit in zip(proba, fits, strict=True)
        ]

    def explain(self, text: str, *, label: Any = None, most: int | None = 5) -> Explanation:
        """Which examples spoke for an answer: the effect of leaving each out (`core.explain`)."""
        check_is_fitted(self, "adapted_")
        (text,) = checked_texts([text])
        return self.adapted_.explain(text, label=None if label is None else str(label), most=most)

    def suggest(self, X: Sequence[str], n: int = 1) -> np.ndarray:
        """The positions of the `n` unlabelled texts whose label would teach most. Raises DataError for n below 1."""
        check_is_fitted(self, "adapted_")
        if not isinstance(n, Integral) or n < 1:
            raise DataError(f"n is {n!r}; expected a whole number, 1 or more: how many texts to suggest.")
        texts = checked_texts(X)
        x = self.adapted_.encoder.encode(texts)
        return suggest(x, torch.from_numpy(self._judge(texts)[0]), self.adapted_.support, n).numpy()

    def save(self, folder: str | Path) -> None:
        """Write the classifier to a folder, whole or not at all. It holds its examples' texts."""
        check_is_fitted(self, "adapted_")
        from quickstudy.domains.text.store import save

        save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, encoder: str | None = None) -> "FewShotTextClassifier":
        """Read what `save` wrote. Raises CheckpointError for one that is damaged, hostile or of another encoder."""
        from quickstudy.domains.text.store import load

        return load(Path(folder), encoder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    @staticmethod
    def _given(task: Task, classes: np.ndarray) -> np.ndarray:
        """The support's labels in the type they came in."""
        number = {label: i for i, label in enumerate(task.labels)}
        return classes[[number[label] for label in task.support_labels]]

    def _learn(self, task: Task, prior: Prior | None, base: TextEncoder, tuned: Experienced | None) -> None:
        ways, told = len(task.labels), speaks(task, self.use_names)
        number = {label: i for i, label in enumerate(task.labels)}
        y = torch.tensor([number[label] for label in task.support_labels])
        names = [task.describe(label) for label in task.labels] if told else []
        seed = self.random_state
        if not isinstance(seed, int):  # None or a RandomState, as scikit-learn allows
            seed = int(check_random_state(seed).randint(2**31))
        if tuned is not None:
            encoder: Encoder = tuned
            choice = keep(task, y, names, prior, tuned, self.choice_, self.tuned_on_)
        else:
            encoder, choice = self._chosen(task, y, names, prior, base, seed)
        self.choice_: Choice = choice
        chosen = choice.chosen
        fast = engine.adapt(chosen.learner, chosen.meta, chosen.support)
        items = (*task.support, *names)[: len(chosen.support.y)]
        self.adapted_ = Adapted(
            chosen.learner, chosen.meta, fast, chosen.support, items, task.labels, encoder, choice.temperature
        )
        self.abstention_ = Abstention.fit(chosen.support, ways, len(y), self.coverage or 1.0)

    def _chosen(
        self,
        task: Task,
        y: Tensor,
        names: Sequence[str],
        prior: Prior | None,
        base: TextEncoder,
        seed: int,
    ) -> tuple[Encoder, Choice]:
        """What the task is learned by: chosen on its own examples, the encoder tuned on them where that helps."""
        texts = [*task.support, *names]
        own = Experienced(base, None, 0.0) if prior is None else prior.experienced(base)
        frozen, felt = own.encode_both(texts)
        candidates = candidates_for(prior, len(task.labels), y, frozen, felt)
        familiar = prior is not None and prior.familiarity(frozen[: len(y)]) >= prior.familiar_from
        choice = choose(candidates, y, familiar=familiar, seed=seed)
        self.tuned_on_ = 0
        if self.tune is True or (self.tune == "auto" and worthwhile(task) and hasattr(base, "tunable")):
            frozen_best = max(
                (c for c in candidates if not c.experienced),
                key=lambda c: choice.accuracy[c.name].mean if c.name in choice.accuracy else 0.0,
            )
            better = specialise(task, y, names, prior, base, choice, frozen_best, seed=seed)
            if better is not None:
                self.tuned_on_ = len(y)
                return better
        return own if choice.chosen.experienced else base, choice

    def _judge(self, X: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities [n, categories], and whether each text fits a category at all [n]."""
        check_is_fitted(self, "adapted_")
        x = self.adapted_.encoder.encode(checked_texts(X))
        # In float64, so that an answer doesn't depend on which texts it was computed along with.
        exact = replace(self.adapted_, meta=_float64(self.adapted_.meta), fast=_float64(self.adapted_.fast))
        probabilities = torch.softmax(exact.outputs(x.double()), -1)
        return probabilities.numpy(), self.abstention_.fits(x).numpy()


def _float64(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}
