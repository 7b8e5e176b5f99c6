"""A completion in a folder: tensors and a JSON record, which loading reads and runs nothing of."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError, ModelError
from quickstudy.core.learner import MetaLearner, part, prefixed
from quickstudy.core.spec import Spec
from quickstudy.domains.kg.completion.embedding import Embedding
from quickstudy.domains.kg.completion.evidence import Known
from quickstudy.domains.kg.completion.formers import ClosedForm, Vector
from quickstudy.domains.kg.completion.graph import Graph, Traits
from quickstudy.domains.kg.completion.scorer import Scorer
from quickstudy.learners import MAML, BayesianRidge, MetaR

KIND = "completion"
_FORMERS = {"closed form": (ClosedForm, BayesianRidge), "metar": (Vector, MetaR)}


def save(known: Known, scorer: Scorer, folder: Path | str) -> None:
    """Write what a completion knows to a folder, whole or not at all.

    Raises:
        ModelError: a way to form relations that isn't this package's.
        CheckpointError: it can't be written there.
    """
    graph, tensors = known.graph, {"triples": torch.from_numpy(known.graph.triples)}
    tensors |= {"entities": known.embedding.entities, "relations": known.embedding.relations}
    if graph.kinds is not None:
        tensors["kinds"] = torch.from_numpy(np.stack([graph.kinds.row, graph.kinds.column], 1))
    formers: list[dict[str, Any]] = []
    for i, former in enumerate(known.formers):
        if not isinstance(former, ClosedForm | Vector):
            raise ModelError(
                f"the former {former.name!r} isn't one that can be saved: {', '.join(_FORMERS)}."
            )
        formers.append({"name": former.name, "learner": former.learner.to_json()})
        tensors |= prefixed(former.meta, f"former.{i}.")
    tensors |= prefixed(scorer.meta, "scorer.") | {"center": scorer.center, "spread": scorer.spread}
    record = {
        "kind": KIND, "entities": graph.entities, "relations": graph.relations, "types": graph.types,
        "formers": formers, "scorer": scorer.learner.to_json(),
    }  # fmt: skip
    save_folder(folder, tensors, record)


def load(folder: Path | str) -> tuple[Known, Scorer]:
    """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
    tensors, record = load_folder(folder, kind=KIND)
    try:
        return _made(tensors, record)
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"{folder} doesn't hold a whole completion ({problem}). Learn it again."
        ) from None


def _made(tensors: dict[str, Tensor], record: dict[str, Any]) -> tuple[Known, Scorer]:
    entities, relations, types = (
        tuple(map(str, record[name])) for name in ("entities", "relations", "types")
    )
    triples, kinds = _within(tensors["triples"], (len(entities), len(relations), len(entities))), None
    if "kinds" in tensors:
        row, column = _within(tensors["kinds"], (len(entities), len(types))).T
        kinds = Traits.of(row.copy(), column.copy(), len(entities), len(types))
    graph = Graph(entities, relations, triples, kinds, types)
    table, slots = tensors["entities"], tensors["relations"]
    if table.ndim != 2 or slots.shape != (graph.slots, table.shape[1]) or len(table) != len(entities):
        raise ValueError(f"vectors of shapes {list(table.shape)} and {list(slots.shape)}")
    formers = []
    for i, one in enumerate(record["formers"]):
        kind, wanted = _FORMERS[one["name"]]
        formers.append(kind(*_learner(one["learner"], wanted, part(tensors, f"former.{i}."))))
    known = Known(graph, Embedding(table, slots), tuple(formers))
    center, spread = tensors["center"], tensors["spread"]
    if center.shape != (len(known.signs),) or spread.shape != center.shape:
        raise ValueError(f"{len(center)} signs, where there are {len(known.signs)}")
    learner, meta = _learner(record["scorer"], MAML, part(tensors, "scorer."))
    return known, Scorer(learner, meta, center, spread)


def _within(rows: Tensor, below: tuple[int, ...]) -> np.ndarray:
    """Rows of numbers, each from 0 to below its column's bound. Raises ValueError."""
    if rows.dtype != torch.int64 or rows.ndim != 2 or rows.shape[1] != len(below):
        raise ValueError(f"numbers of shape {list(rows.shape)}")
    if len(rows) and (int(rows.min()) < 0 or (rows.amax(0) >= torch.tensor(below)).any()):
        raise ValueError("numbers of entities or relations that it lacks")
    return rows.numpy()


def _learner(
    record: Any, wanted: type[MetaLearner], meta: dict[str, Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    learner = Spec.from_json(record)
    if not isinstance(learner, wanted):
        raise ValueError(f"a {type(learner).__name__} in place of {wanted.__name__}")
    learner.check(meta)
    return learner, meta
