"""A classifier in a folder: the adapted model, and the prior it came from, so that it can go on learning."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.core.adapted import Adapted
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError
from quickstudy.core.estimate import Estimate
from quickstudy.core.spec import Spec
from quickstudy.core.task import Task
from quickstudy.domains.text.abstain import Abstention
from quickstudy.domains.text.choose import Candidate, Choice
from quickstudy.domains.text.prior import Experienced, Prior, encoder_for, named_in_file, prior_from
from quickstudy.domains.text.use import FewShotTextClassifier
from quickstudy.nets.lora import Adapter, LoRA

HEADS = ("Gaussian", "Centroid", "Logistic", "Pool")
_PRIOR, _ADAPTER = "prior.", "adapter."


def save(model: FewShotTextClassifier, folder: Path) -> None:
    """Write a fitted classifier, whole or not at all."""
    adapted, prior, task = model.adapted_, model.prior_, model.task_
    tensors, record = adapted.parts()
    if prior is not None:
        prior_tensors, record["prior"] = prior.parts()
        tensors |= {_PRIOR + name: value for name, value in prior_tensors.items()}
    felt = adapted.encoder if isinstance(adapted.encoder, Experienced) else None
    if felt is not None and felt.adapter is not None:
        tensors |= {_ADAPTER + name: value for name, value in felt.adapter.tensors.items()}
    record["text"] = {
        "adapter": felt.adapter.spec.to_json() if felt is not None and felt.adapter is not None else None,
        "blend": felt.blend if felt is not None else 0.0,
        "encoder": model.encoder_name_,
        "classes": model.classes_.tolist(),
        "dtype": model.classes_.dtype.str,
        "support_labels": list(task.support_labels),
        "descriptions": dict(task.label_descriptions),
        "choice": model.choice_.as_record(),
        "experienced": model.choice_.chosen.experienced,
        "tuned_on": model.tuned_on_,
        "settings": {
            **{name: getattr(model, name) for name in ("coverage", "use_names", "tune")},
            "random_state": model.random_state if isinstance(model.random_state, int) else None,
        },
    }
    save_folder(folder, tensors, {"kind": "adapted", **record})


def load(folder: Path, encoder: str | None = None) -> FewShotTextClassifier:
    """Read what `save` wrote; nothing in it is trusted, and no encoder is fetched unless `encoder` names it."""
    tensors, record = load_folder(folder, kind="adapted")
    try:
        return _rebuilt(tensors, record, encoder, str(folder))
    except CheckpointError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: record.json isn't that of a text classifier ({type(error).__name__}: {error}). Adapt it anew."
        ) from error


def _rebuilt(
    tensors: dict[str, Any], record: dict[str, Any], encoder_name: str | None, where: str
) -> FewShotTextClassifier:
    text = record["text"]
    for place, head in enumerate((record["learner"], *record["learner"].get("members", ()))):
        if head["type"] not in HEADS or (place and head["type"] == "Pool"):
            raise CheckpointError(
                f"{where}: its learner is {head['type']!r}; a text classifier's is {' or '.join(HEADS)}."
            )
    name = encoder_name or named_in_file(str(text["encoder"]), where)
    if not 0 <= float(text["blend"]) <= 100:
        raise CheckpointError(f"{where}: blend is {text['blend']!r}, expected a number from 0 to 100.")
    prior: Prior | None = None
    if "prior" in record:
        own = {name.removeprefix(_PRIOR): value for name, value in tensors.items() if name.startswith(_PRIOR)}
        prior = prior_from(own, record["prior"], where)
    base = encoder_for(name)
    made_with, here = str(record.get("encoder")).partition("+")[0], base.identity
    if made_with != here:
        saved = str(text["encoder"])
        raise CheckpointError(
            f"{where} was made with encoder {saved!r}"
            + (
                f", and this is {name!r}. Load it with the encoder that it was made with, or adapt anew."
                if saved != name
                else f", whose files were others then ({made_with[:12]}…, now {here[:12]}…). Restore them, or adapt "
                "anew."
            )
        )
    encoder = base
    if text["adapter"] is not None:
        low_rank = {
            name.removeprefix(_ADAPTER): value for name, value in tensors.items() if name.startswith(_ADAPTER)
        }
        spec = Spec.from_json(text["adapter"])
        if not isinstance(spec, LoRA):
            raise CheckpointError(f"{where}: its adapter is {type(spec).__name__}, expected LoRA.")
        encoder = Experienced(base, Adapter(spec, low_rank, base.identity), float(text["blend"]))
    elif text["experienced"]:
        encoder = Experienced(base, None, 0.0)
    adapted = Adapted.from_parts(tensors, record, encoder, where)
    labels = [str(label) for label in text["support_labels"]]
    model = FewShotTextClassifier(prior, encoder=name, **text["settings"])
    model.prior_, model.encoder_name_ = prior, name
    model.classes_ = np.asarray(text["classes"])
    if "dtype" in text:
        dtype = np.dtype(str(text["dtype"]))
        widest = 4 * max(
            8, *map(len, adapted.labels)
        )  # numpy's strings take 4 bytes a character, whatever they hold
        if dtype.kind not in "OUbiuf" or dtype.itemsize > widest:
            raise CheckpointError(
                f"{where}: its classes are of type {text['dtype']!r}, which no labels have."
            )
        model.classes_ = model.classes_.astype(dtype)
    if not all(isinstance(item, str) for item in adapted.items):
        raise CheckpointError(f"{where}: its items are not all texts.")
    model.adapted_ = adapted
    model.task_ = Task(
        adapted.items[: len(labels)], labels, labels=adapted.labels, label_descriptions=text["descriptions"]
    )
    choice = text["choice"]
    said = {key: str(choice[key]) for key in ("chosen", "reason", "judged")}
    chosen = Candidate(
        said["chosen"], adapted.learner, adapted.meta, adapted.support, bool(text["experienced"])
    )
    accuracy = {str(name): _estimate(e) for name, e in choice["accuracy"].items()}
    gain = _estimate(choice["gain"]) if choice["gain"] else None
    model.choice_ = Choice(chosen, accuracy, gain, said["reason"], adapted.temperature, said["judged"])
    tuned_on = text["tuned_on"]
    if type(tuned_on) is not int or not 0 <= tuned_on <= len(labels):
        raise CheckpointError(
            f"{where}: tuned_on is {tuned_on!r}, expected a number of examples from 0 to {len(labels)}."
        )
    model.tuned_on_ = tuned_on
    if tuple(str(c) for c in model.classes_.tolist()) != adapted.labels:
        raise CheckpointError(f"{where}: its classes and its labels don't say the same.")
    if adapted.support.x.shape[-1] != base.dim:
        raise CheckpointError(
            f"{where}: its features have {adapted.support.x.shape[-1]} columns, the encoder's {base.dim}."
        )
    model.abstention_ = Abstention.fit(
        adapted.support, len(adapted.labels), len(labels), model.coverage or 1.0
    )
    return model


def _estimate(record: dict[str, Any]) -> Estimate:
    """An estimate from a file: numbers, the mean a finite one."""
    bounds = record.get("bounds")
    values = [record["mean"], record["half"], record["n"], *(bounds or ())]
    if any(type(value) not in (int, float) for value in values) or not math.isfinite(record["mean"]):
        raise ValueError(f"an estimate is {str(record)[:80]}")
    return Estimate(record["mean"], record["half"], record["n"], bounds)
