"""The demo's tasks: few examples of intents never seen, and all methods on the same ones.

All methods get the same examples, the same label names as further examples, the same questions. Ours is what `adapt`
would choose on the examples alone, the frozen baselines included.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import engine
from quickstudy.core.report import Report
from quickstudy.core.task import spell_out
from quickstudy.data import sample
from quickstudy.domains.text.choose import candidates_for, choose
from quickstudy.domains.text.prior import Prior, encoder_for

SHOTS = 5
FEW = 5
"""Intents in a small task."""
MANY = 20
"""Intents in a larger one, which is drawn a tenth as often."""
UNNAMED = f"{FEW}×1 unnamed"
"""The hardest small task, one example each of labels that say nothing; drawn four times as often, as it is quick."""
NEW = 10
"""Sentences of each intent to draw examples from, and as many others to ask."""
OURS = "quickstudy"


@dataclass(frozen=True)
class Bank:
    """Intents never seen: sentences to learn from and to ask, and the features of both."""

    classes: list[str]
    texts: dict[str, list[list[str]]]
    """For each of "train" and "test": the sentences of each class."""
    rows: dict[str, list[np.ndarray]]
    """The same as rows of the features."""
    names: Tensor
    """The rows of the classes' names."""
    frozen: Tensor
    """Features [rows, dim] without experience."""
    felt: Tensor
    """The same with it."""
    prior: Prior

    @classmethod
    def of(cls, prior: Prior, encoder: str) -> "Bank":
        """The bundled BANKING77, encoded without and with the prior."""
        met: Counter[tuple[str, str]] = Counter()
        rows = []
        for row in sample("banking77"):
            place = row["label"], row["split"]
            met[place] += 1
            rows += [row] if met[place] <= NEW else []
        classes = sorted({row["label"] for row in rows})
        places: dict[str, list[np.ndarray]] = {}
        for split in ("train", "test"):
            of_class = [
                [i for i, r in enumerate(rows) if (r["label"], r["split"]) == (c, split)] for c in classes
            ]
            places[split] = [np.array(some) for some in of_class]
        texts = {
            s: [[rows[i]["text"] for i in some] for some in per_class] for s, per_class in places.items()
        }
        everything = [row["text"] for row in rows] + [spell_out(label) for label in classes]
        frozen, felt = prior.experienced(encoder_for(encoder)).encode_both(everything)
        return cls(classes, texts, places, torch.arange(len(rows), len(everything)), frozen, felt, prior)


def measure(bank: Bank, episodes: int, seed: int, progress: Callable[[str, int, int], None]) -> Report:
    """Accuracy of every method on the same tasks."""
    report = Report("Intents never seen × examples of each: accuracy, %", seeds=[seed])
    kinds = ((FEW, SHOTS, True, episodes), (FEW, 1, True, episodes), (FEW, 1, False, 4 * episodes))
    kinds += ((MANY, SHOTS, True, max(2, episodes // 10)),)
    scores: dict[str, dict[str, list[float]]] = {}
    for size, shots, named, times in kinds:
        metric = f"{size}×{shots}" + ("" if named else " unnamed")
        for task in range(times):
            progress(f"adapting to {size} intents × {shots}", task, times)
            rng = np.random.default_rng([seed, size, shots, task])
            for name, score in {"chance": 100 / size, **_one_task(bank, size, shots, named, rng)}.items():
                scores.setdefault(name, {}).setdefault(metric, []).append(score)
    for name, metrics in scores.items():
        report.add(name, metrics, baseline=name != OURS)
    return report


def _one_task(bank: Bank, size: int, shots: int, named: bool, rng: np.random.Generator) -> dict[str, float]:
    """{method: accuracy in percent} on one task: a few sentences to learn from, unseen ones to ask."""
    classes = rng.choice(len(bank.classes), size, replace=False)
    known = np.concatenate([rng.choice(bank.rows["train"][c], shots, replace=False) for c in classes])
    asked = torch.from_numpy(np.concatenate([bank.rows["test"][c] for c in classes]))
    truth = torch.arange(size).repeat_interleave(torch.tensor([len(bank.rows["test"][c]) for c in classes]))
    names = bank.names[torch.from_numpy(classes)] if named else bank.names[:0]
    support = torch.cat([torch.from_numpy(known), names])
    y = torch.arange(size).repeat_interleave(shots)
    frozen = bank.frozen[support]
    candidates = candidates_for(bank.prior, size, y, frozen, bank.felt[support])
    familiar = bank.prior.familiarity(frozen[: len(y)]) >= bank.prior.familiar_from
    methods = {candidate.name: candidate for candidate in candidates if not candidate.experienced}
    methods[OURS] = choose(candidates, y, familiar=familiar).chosen
    found = {}
    for name, candidate in methods.items():
        fast = engine.adapt(candidate.learner, candidate.meta, candidate.support)
        x = (bank.felt if candidate.experienced else bank.frozen)[asked]
        out = engine.predict(candidate.learner, candidate.meta, fast, x)
        found[name] = float((out.argmax(-1) == truth).double().mean() * 100)
    return found
