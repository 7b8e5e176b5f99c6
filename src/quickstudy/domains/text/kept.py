"""What a bank keeps of a text classifier: its examples, what its labels mean, and the frozen encoder's features."""

from pathlib import Path

import torch

from quickstudy.bank.entry import Entry, Keeper, Part, fewer
from quickstudy.domains.text.prior import encoder_for
from quickstudy.domains.text.use import FewShotTextClassifier


def entry_of(
    model: FewShotTextClassifier,
    *,
    name: str,
    consent: str,
    description: str = "",
    source: str = "",
    licence: str = "",
) -> Entry:
    """A fitted classifier's task as an entry; all of its texts are kept as material, features of some.

    Raises:
        NotFitted: it wasn't fitted.
        DataError: no consent, or a name that is none.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model, "adapted_")
    task = model.task_
    encoder = encoder_for(model.encoder_name_)
    texts, labels = list(task.support), list(task.support_labels)
    number = {label: i for i, label in enumerate(task.labels)}
    part = Part(
        "",
        tuple(task.labels),
        encoder.encode(texts),
        torch.tensor([number[label] for label in labels]),
        encoder.encode([task.describe(label) for label in task.labels]),
    )
    material = {"texts": texts, "labels": labels, "descriptions": dict(task.label_descriptions)}
    return Entry(
        domain="text", name=name, consent=consent, encoder=encoder.name, identity=encoder.identity,
        parts=(fewer(part),), material=material, description=description, source=source, licence=licence,
    ).checked()  # fmt: skip


def saved_entry(folder: Path | str, **about: str) -> Entry:
    """The same of a classifier that was saved; `about` as `entry_of` takes it. Raises CheckpointError too."""
    return entry_of(FewShotTextClassifier.load(folder), **about)


KEEPER = Keeper("text", lambda folder: (folder / "record.json").is_file(), saved_entry)
