"""Adapted: a learner that has learned one task. It predicts, explains itself, and lives in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.core import engine, explain
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.encoder import Encoder, identity
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec
from quickstudy.core.task import Task


class Prediction(NamedTuple):
    """An answer: `label` is None where the model says 'none of these'."""

    label: str | None
    probability: float
    """Of the likeliest label, whether or not it was given out."""
    probabilities: dict[str, float]


class Influence(NamedTuple):
    """What one support example did for an answer: `effect` is the change of the answer's log-odds by having it."""

    item: Any
    label: str
    effect: float


class Explanation(NamedTuple):
    """An answer and the support examples behind it, those that spoke for it first."""

    prediction: Prediction
    label: str
    """The label that is explained."""
    influences: list[Influence]


@dataclass(frozen=True)
class Adapted:
    """A task, learned: learner, what it knew (`meta`), what it learned (`fast`), and the support it learned from."""

    learner: MetaLearner
    meta: Meta
    fast: Fast
    support: Labelled
    items: tuple[Any, ...]
    """The support as people see it, row by row."""
    labels: tuple[str, ...]
    encoder: Encoder
    temperature: float = 1.0
    """What outputs are divided by before they are read as probabilities."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything a domain wants kept beside the model, as JSON."""

    @classmethod
    def learn(cls, learner: MetaLearner, meta: Meta, task: Task, encoder: Encoder) -> "Adapted":
        """Encode a task's support once and adapt to it."""
        number = {label: i for i, label in enumerate(task.labels)}
        y = torch.tensor([number[label] for label in task.support_labels])
        support = Labelled.of(encoder.encode(list(task.support)), y)
        fast = engine.adapt(learner, meta, support)
        return cls(learner, meta, fast, support, tuple(task.support), task.labels, encoder)

    def outputs(self, x: Tensor) -> Tensor:
        """Logits [n, ways] (or real outputs) for encoded items [n, …]."""
        out = engine.predict(self.learner, self.meta, self.fast, x)
        return out / self.temperature if isinstance(self.learner.objective, Classify) else out

    def predict(self, items: Sequence[Any], *, threshold: float = 0.0) -> list[Prediction]:
        """Classify items.

        Args:
            threshold: answer 'none of these' (label None) where the best probability is below it.
        """
        self._classifies("predict")
        probabilities = torch.softmax(self.outputs(self.encoder.encode(list(items))), -1)
        return [self._prediction(row, threshold) for row in probabilities]

    def explain(self, item: Any, *, label: str | None = None, most: int | None = None) -> Explanation:
        """Say which support examples spoke for `label` (by default the predicted one), by leaving each out."""
        self._classifies("explain")
        x = self.encoder.encode([item])
        prediction = self._prediction(torch.softmax(self.outputs(x), -1)[0], 0.0)
        label = label if label is not None else prediction.label
        if label not in self.labels:
            raise DataError(f"No label {label!r}; there are {', '.join(self.labels)}.")
        number = self.labels.index(label)
        effects = explain.influence(
            self.learner, self.meta, self.support, x[0], number, temperature=self.temperature
        )
        order = torch.argsort(effects, descending=True)[:most].tolist()
        y = self.support.y.tolist()
        return Explanation(
            prediction,
            label,
            [Influence(self.items[i], self.labels[y[i] % self._ways], float(effects[i])) for i in order],
        )

    def save(self, folder: Path | str) -> None:
        """Write the model to a folder, whole or not at all: tensors as safetensors, the rest as JSON."""
        tensors, record = self.parts()
        save_folder(Path(folder), tensors, {"kind": "adapted", **record})

    @classmethod
    def load(cls, folder: Path | str, encoder: Encoder) -> "Adapted":
        """Read what `save` wrote; nothing in the folder is trusted, and nothing is ever unpickled.

        Raises:
            CheckpointError: the folder is damaged, hostile, or was made with another encoder.
        """
        tensors, record = load_folder(Path(folder), kind="adapted")
        return cls.from_parts(tensors, record, encoder, str(folder))

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model as tensors and a JSON record, for a folder that holds more than this.

        Raises DataError for labels that aren't text, which a file wouldn't give back.
        """
        if odd := [label for label in self.labels if not isinstance(label, str)]:
            raise DataError(
                f"Label {odd[0]!r} is a {type(odd[0]).__name__}; labels that are kept are text: str(label)."
            )
        parts = {"meta": self.meta, "fast": self.fast, "support": self.support._asdict()}
        tensors = {
            f"{part}.{name}": value.contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        record = {
            "learner": self.learner.to_json(),
            "labels": list(self.labels),
            "items": list(self.items),
            "encoder": identity(self.encoder),
            "temperature": self.temperature,
            "notes": self.notes,
        }
        return tensors, record

    @classmethod
    def from_parts(
        cls, tensors: dict[str, Tensor], record: dict[str, Any], encoder: Encoder, where: str
    ) -> "Adapted":
        """What `parts` gave; tensors under other names are left alone."""
        if record.get("encoder") != identity(encoder):
            raise CheckpointError(
                f"{where} was made with encoder {str(record.get('encoder'))[:12]}…, "
                f"this one is {identity(encoder)[:12]}…. "
                "Load it with the encoder it was made with."
            )
        parts: dict[str, dict[str, Tensor]] = {"meta": {}, "fast": {}, "support": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = value
        try:
            learner = Spec.from_json(record.get("learner"))
        except DataError as problem:
            raise CheckpointError(f"{where}: {problem}") from None
        labels, items = record.get("labels"), record.get("items")
        temperature, notes = record.get("temperature"), record.get("notes", {})
        if (
            not isinstance(learner, MetaLearner)
            or not isinstance(labels, list)
            or not all(isinstance(label, str) for label in labels)
            or not isinstance(items, list)
            or not isinstance(notes, dict)
            or not isinstance(temperature, float)
            or not 1e-3 <= temperature <= 1e3
        ):
            raise CheckpointError(
                f"{where}: record.json lacks a learner, labels, items or a temperature, or they make no sense."
            )
        rows = {len(part) if part.ndim else -1 for part in parts["support"].values()}
        whole = set(parts["support"]) == {"x", "y", "mask"} and rows == {len(items)}
        if not whole or parts["support"]["mask"].dtype != torch.bool:
            raise CheckpointError(f"{where}: the support's tensors and its {len(items)} items don't pair up.")
        model = cls(
            learner, parts["meta"], parts["fast"], Labelled(**parts["support"]), tuple(items), tuple(labels), encoder,
            temperature, notes,
        )  # fmt: skip
        model._check(where)
        return model

    def _check(self, where: str) -> None:
        """Refuse parts that don't belong together: now, and not at the first question."""
        ways, y = len(self.labels), self.support.y
        if isinstance(self.learner.objective, Classify):
            if len(set(self.labels)) != ways or ways > self.learner.objective.ways:
                raise CheckpointError(
                    f"{where} has {ways} labels, {len(set(self.labels))} of them distinct, "
                    f"for a learner of {self.learner.objective.ways} classes."
                )
            # A row may describe a class instead of being an example of it; its number is then `ways` higher.
            if y.is_floating_point() or not ((y >= 0) & (y < 2 * self._ways) & (y % self._ways < ways)).all():
                raise CheckpointError(f"{where}: the support has class numbers outside its {ways} labels.")
        try:
            self.learner.check(self.meta)
            rows = Labelled(*(part.unsqueeze(0) for part in self.support))
            self.learner.check_answers(rows, "support")
            told = self.outputs(self.support.trimmed().x)
            if told.shape[-1] != self.learner.objective.outputs:
                raise ValueError(f"it gives {told.shape[-1]} outputs for {self.learner.objective.outputs}")
        except (KeyError, RuntimeError, ValueError, TypeError) as problem:
            name = type(self.learner).__name__
            raise CheckpointError(
                f"{where}: its tensors are not those of a {name}: {str(problem)[:200]}"
            ) from problem

    def _prediction(self, row: Tensor, threshold: float) -> Prediction:
        if not bool(torch.isfinite(row).all()):
            raise DataError("An item's features, or what the model makes of them, hold NaN or infinity.")
        row = row[: len(self.labels)]  # a learner may have more outputs than this task has classes
        best = int(row.argmax())
        probability = float(row[best])
        label = self.labels[best] if probability >= threshold else None
        return Prediction(label, probability, dict(zip(self.labels, row.tolist(), strict=True)))

    @property
    def _ways(self) -> int:
        return self.learner.objective.outputs

    def _classifies(self, what: str) -> None:
        if not isinstance(self.learner.objective, Classify):
            raise DataError(
                f"`{what}` is for classification; this task is {type(self.learner.objective).__name__}."
            )
