"""What a model is judged beside: the frozen encoder with its own examples, and no experience."""

from collections.abc import Sequence

import numpy as np
import torch

from quickstudy.core import engine
from quickstudy.domains.text.choose import candidates_for
from quickstudy.domains.text.use import FewShotTextClassifier


def baselines(model: FewShotTextClassifier, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Probabilities [n, labels] of each frozen baseline, adapted to the model's own examples (and names)."""
    task, items = model.task_, model.adapted_.items
    encoder = getattr(model.adapted_.encoder, "base", model.adapted_.encoder)
    number = {label: i for i, label in enumerate(task.labels)}
    y = torch.tensor([number[label] for label in task.support_labels])
    known, new = encoder.encode(list(items)), encoder.encode(list(texts))
    found = {}
    for candidate in candidates_for(None, len(task.labels), y, known, known):
        fast = engine.adapt(candidate.learner, candidate.meta, candidate.support)
        out = engine.predict(candidate.learner, candidate.meta, fast, new)
        found[candidate.name] = torch.softmax(out.double(), -1).numpy()
    return found
