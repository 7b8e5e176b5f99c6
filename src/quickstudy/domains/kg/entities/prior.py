"""What past corpora taught about entities, in a few megabytes: a tuned network, a detector, and how types scatter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.spec import Spec
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.entities.detect import labels_of, pair_scores
from quickstudy.domains.kg.entities.tune import Heads, Labelled, Tuning, tune
from quickstudy.domains.kg.entities.typing_prior import by_gradient, closed_form, pools_of
from quickstudy.domains.kg.entities.words import SHAPES, network, split
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import Gaussian, ProtoMAML
from quickstudy.nets.lora import LoRA
from quickstudy.nets.word_bert import WordBert

AnyLearner = TypeVar("AnyLearner", bound=MetaLearner)
LONGEST = 64
"""Sentences of more tokens aren't learned from: one of them pads its whole batch."""


@dataclass(frozen=True)
class Source:
    """A corpus to learn from."""

    name: str
    documents: Sequence[Annotated]
    weight: float = 1.0
    """How often it is drawn."""
    partial: bool = False
    """Whether only some entities are marked: then it teaches types alone."""
    licence: str = ""


@dataclass(frozen=True)
class Prior:
    """What was learned across corpora, for one encoder."""

    encoder: str
    """The encoder's name, as `load_encoder` takes it."""
    identity: str
    """The encoder's identity; another one is refused."""
    spec: LoRA
    adapter: dict[str, Tensor] = field(repr=False)
    shapes: Float[Tensor, "shape dim"] = field(repr=False)
    detector: Float[Tensor, "3 dim_and_one"] = field(repr=False)
    pairs: Float[Tensor, "3 3"] = field(repr=False)
    typing: tuple[Gaussian, Meta] | None = field(default=None, repr=False)
    """A closed-form learner of types, and what past types taught it."""
    maml: tuple[ProtoMAML, Meta] | None = field(default=None, repr=False)
    """The same of a learner that goes on by gradient steps."""
    sources: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def network(
        self, encoder: TextEncoder, *, mixed: bool = False, merged: bool = False
    ) -> tuple[WordBert, dict[str, Tensor]]:
        """The tuned network, and its parameters (none where `merged`: then it is as fast as the encoder itself).

        Raises ModelError for another encoder than it was made for.
        """
        if encoder.frozen.identity != self.identity:
            raise ModelError(
                f"What was learned about entities belongs to the encoder {self.encoder!r} ({self.identity[:12]}…), not "
                f"to {encoder.name!r} ({encoder.frozen.identity[:12]}…). Load that one, or learn a prior for this one."
            )
        return network(
            encoder, shapes=self.shapes, spec=self.spec, adapter=self.adapter, mixed=mixed, merged=merged
        )

    def save(self, folder: Path | str, *, card: str = "") -> None:
        """Write it to a folder, whole or not at all; matrices in float16."""
        tensors, record = self.parts()
        files = {"README.md": card} if card else {}
        save_folder(folder, tensors, {"kind": "entity-prior", **record}, extra_files=files)

    def rounded(self) -> "Prior":
        """The same with numbers as a folder keeps them, so that what is learned from it comes back as it was."""
        kinds = self.typing
        if kinds is not None:
            learner, meta = kinds
            kinds = learner, {k: v.half().float() if v.ndim == 2 else v for k, v in meta.items()}
        steps = self.maml and (self.maml[0], {k: v.half().float() for k, v in self.maml[1].items()})
        adapter = {k: v.half().float() for k, v in self.adapter.items()}
        return replace(self, adapter=adapter, shapes=self.shapes.half().float(), typing=kinds, maml=steps)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON record, for a folder that holds more than this."""
        tensors = {f"adapter.{k}": v.half() for k, v in self.adapter.items()}
        tensors |= {"shapes": self.shapes.half(), "detector": self.detector, "pairs": self.pairs}
        record: dict[str, Any] = {
            "encoder": self.encoder,
            "identity": self.identity,
            "spec": self.spec.to_json(),
            "sources": list(self.sources),
            "settings": self.settings,
        }
        if self.typing is not None:
            learner, meta = self.typing
            record["typing"] = learner.to_json()
            tensors |= {f"typing.{k}": v.half() if v.ndim == 2 else v for k, v in meta.items()}
        if self.maml is not None:
            learner, meta = self.maml
            record["maml"] = learner.to_json()
            tensors |= {f"maml.{k}": v.half() for k, v in meta.items()}
        return tensors, record

    @classmethod
    def blank(cls, encoder: TextEncoder) -> "Prior":
        """A prior that has learned nothing, with adapters that change nothing."""
        spec = replace(Tuning().spec, layers=tuple(range(encoder.weights.config.num_hidden_layers)))
        net, parameters = network(encoder, spec=spec)
        adapter = {k: v.detach() for k, v in parameters.items() if k != "shapes"}
        zero = torch.zeros(3, encoder.dim + 1)
        shapes = net.shapes.detach()
        return cls(encoder.name, encoder.frozen.identity, spec, adapter, shapes, zero, pair_scores([]))

    @classmethod
    def shipped(cls) -> "Prior":
        """What quickstudy brings along, for the encoder minilm: README.md beside it says what it has learned from."""
        return _shipped()

    @classmethod
    def load(cls, folder: Path | str) -> "Prior":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        tensors, record = load_folder(folder, kind="entity-prior")
        return prior_from(tensors, record, str(folder))


@lru_cache(maxsize=1)
def _shipped() -> Prior:
    with resources.as_file(resources.files("quickstudy.domains.kg") / "shipped" / "entities") as folder:
        return Prior.load(folder)


def prior_from(tensors: dict[str, Tensor], record: Any, where: str) -> Prior:
    """A prior from checked tensors and a record. Raises CheckpointError."""
    spec = Spec.from_json(record.get("spec")) if isinstance(record, dict) else None
    if not isinstance(spec, LoRA):
        raise CheckpointError(f"{where}: its spec is a {type(spec).__name__}, expected LoRA.")
    shapes, detector, pairs = (tensors.get(name) for name in ("shapes", "detector", "pairs"))
    if shapes is None or shapes.ndim != 2 or len(shapes) != SHAPES:
        raise CheckpointError(f"{where}: shapes should be [{SHAPES}, dim]: made by another version?")
    if detector is None or detector.shape != (3, shapes.shape[1] + 1):
        raise CheckpointError(f"{where}: detector should be [3, {shapes.shape[1] + 1}].")
    if pairs is None or pairs.shape != (3, 3):
        raise CheckpointError(f"{where}: pairs should be [3, 3].")
    typing = _kept(tensors, record, "typing", Gaussian, where)
    maml = _kept(tensors, record, "maml", ProtoMAML, where)
    for learner, dim in (
        (typing and typing[0].dim, "typing"),
        (maml and getattr(maml[0].net, "inputs", 0), "maml"),
    ):
        if learner is not None and learner != shapes.shape[1]:
            raise CheckpointError(
                f"{where}: its {dim} takes {learner} features, the network gives {shapes.shape[1]}."
            )
    adapter = {k.removeprefix("adapter."): v.float() for k, v in tensors.items() if k.startswith("adapter.")}
    sources, settings = record.get("sources") or [], record.get("settings") or {}
    if not isinstance(sources, list) or not isinstance(settings, dict):
        raise CheckpointError(f"{where}: sources should be a list and settings an object.")
    return Prior(
        str(record.get("encoder")), str(record.get("identity")), spec, adapter, shapes.float(), detector.float(),
        pairs.float(), typing, maml, tuple(sources), settings,
    )  # fmt: skip


def _kept(
    tensors: dict[str, Tensor], record: dict[str, Any], name: str, kind: type[AnyLearner], where: str
) -> tuple[AnyLearner, Meta] | None:
    """A learner of types with its meta-parameters, if the folder has it. Raises CheckpointError for another one."""
    if record.get(name) is None:
        return None
    learner = Spec.from_json(record[name])
    if not isinstance(learner, kind):
        raise CheckpointError(f"{where}: its {name} is a {type(learner).__name__}, expected {kind.__name__}.")
    meta = {k.removeprefix(f"{name}."): v.float() for k, v in tensors.items() if k.startswith(f"{name}.")}
    learner.check(meta)
    return learner, meta


def labelled(documents: Sequence[Annotated], types: Sequence[str], encoder: TextEncoder) -> Labelled:
    """Sentences of documents, with spans in words. A sentence without spans counts only in complete documents."""
    number = {name: i for i, name in enumerate(types)}
    sentences, spans = [], []
    parts = split([d.document for d in documents], encoder)
    for document, pieces in zip(documents, parts, strict=True):
        for piece in pieces:
            found = [(a, b, number[kind]) for a, b, kind in piece.spans(document.spans)]
            if found or document.complete:
                sentences.append(piece)
                spans.append(found)
    return Labelled(sentences, spans, len(types))


def learn_prior(
    sources: Sequence[Source],
    encoder: TextEncoder,
    tuning: Tuning | None = None,
    *,
    mixed: bool = False,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Prior:
    """Tune the network and both heads over all corpora, then learn how the spans of a type scatter.

    Raises:
        DataError: no corpus has a span.
    """
    tuning = Tuning() if tuning is None else tuning
    tasks = tasks_of(sources, encoder)
    if not any(found for task in tasks for found in task.spans):
        raise DataError(
            "no source has a span in a sentence that is short enough; there is nothing to learn from."
        )
    net, parameters = network(encoder, spec=tuning.spec, mixed=mixed, seed=seed)
    heads = Heads.zero(encoder.dim, tasks)
    weights = [source.weight * bool(task.sentences) for source, task in zip(sources, tasks, strict=True)]
    tune(net, parameters, heads, tasks, tuning, weights=weights, seed=seed, progress=progress)
    tuned = Prior(
        encoder.name,
        encoder.frozen.identity,
        tuning.spec,
        {name: value.detach() for name, value in parameters.items() if name != "shapes"},
        parameters["shapes"].detach(),
        heads.detector.detach(),
        pair_scores([]),
        sources=tuple(
            {"name": s.name, "sentences": len(t.sentences), "types": t.ways, "licence": s.licence}
            for s, t in zip(sources, tasks, strict=True)
        ),
        settings={"tuning": tuning.to_json(), "seed": seed},
    )
    return estimated(tuned, tasks, encoder, mixed=mixed, seed=seed)


def tasks_of(sources: Sequence[Source], encoder: TextEncoder) -> list[Labelled]:
    """The sentences of each corpus that are short enough to learn from."""
    tasks = []
    for source in sources:
        names = sorted({span.type for document in source.documents for span in document.spans})
        task = labelled(source.documents, names, encoder)
        kept = [i for i, sentence in enumerate(task.sentences) if len(sentence.ids) <= LONGEST]
        chosen = [task.sentences[i] for i in kept], [task.spans[i] for i in kept]
        tasks.append(Labelled(*chosen, len(names), source.partial))
    return tasks


def estimated(
    prior: Prior, tasks: Sequence[Labelled], encoder: TextEncoder, *, mixed: bool = False, seed: int = 0
) -> Prior:
    """The prior with all that is counted or solved for, and not tuned: pairs of labels, and how types scatter."""
    prior = prior.rounded()
    full = [task for task in tasks if not task.partial]
    labels = [row for t in full for row in labels_of([len(s) for s in t.sentences], t.spans)]
    net, _ = prior.network(encoder, mixed=mixed, merged=True)
    pools = pools_of(net, tasks, seed)
    return replace(
        prior,
        pairs=pair_scores(labels),
        typing=closed_form(pools, encoder.dim),
        maml=by_gradient(pools, encoder.dim, seed),
    )
