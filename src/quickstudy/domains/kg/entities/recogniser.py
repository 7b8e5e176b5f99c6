"""Entities of a field from a few labelled sentences: where they stand, of what type, and how sure that is.

Words get states from two networks. One was tuned on past corpora and then on the examples: a `Detector` finds spans by
it. The other was tuned on past corpora alone: a `Typing` tells types by it, as what past types taught the learner of
types holds for its states. On CrossNER's dev parts (politics and AI, 5 examples a type, two seeds, 200 sentences)
tuning on the examples takes the spans' F1 from 65 to 75, and types told by tuned states cost .9 of the whole F1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.document import Annotated, Document, Span
from quickstudy.domains.kg.entities import types as typing
from quickstudy.domains.kg.entities.detect import (
    Detector,
    Place,
    WordTypes,
    choose_strength,
    fit,
    labels_of,
    levels,
    pair_scores,
    word_types,
)
from quickstudy.domains.kg.entities.prior import Prior, labelled, prior_from
from quickstudy.domains.kg.entities.sure import MADE, Sure, how_made
from quickstudy.domains.kg.entities.tune import Heads, Labelled, Tuning, features, tune
from quickstudy.domains.kg.entities.words import Sentence, batch_of, batches, split, states
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder, resolve_dtype
from quickstudy.nets.word_bert import WordBert

LEAST = 0.2
"""A mention less probable than this isn't found: on the dev parts of five fields .2 harms none, and .3 those
whose networks weren't tuned."""
LEAST_INNER = 3
"""With fewer spans inside of others than this, none is looked for."""
WINDOW = 256
"""Documents at a time."""
Progress = Callable[[int, float], None]


class Found(NamedTuple):
    """A span that was found."""

    span: Span
    score: float
    """Probability that the span and its type are right (`sure`)."""
    types: dict[str, float]
    """Probability of each type, given the span, as the learner of types has it."""
    place: float
    """Probability that its words are an entity, as the detector has it."""


@dataclass(frozen=True)
class Recogniser:
    """Finds the entities of one schema. Made by `learn`; never changed afterwards, so threads may share one."""

    schema: Schema
    encoder: TextEncoder
    tuned: Prior
    """The parameters of the network that finds spans, in the form of a prior."""
    past: Prior
    """The same of the network that tells types; it is the same one where the examples tuned nothing."""
    detectors: tuple[Detector, ...]
    """Of spans that lie in no other; then, if there are such, of those that do."""
    words: WordTypes
    """Of which type single words are: it keeps the paths of `detectors` from joining what isn't of one type."""
    typing: typing.Typing
    sure: Sure
    """What makes probabilities of what these say."""
    report: dict[str, Any] = field(default_factory=dict)
    """What was learned from, and what was tried."""
    networks: tuple[WordBert, ...] = field(default=(), repr=False)
    """The networks of `tuned` and `past`, or the one that is both."""

    def __post_init__(self) -> None:
        made = self.networks or _networks(self.tuned, self.past, self.encoder)
        object.__setattr__(self, "networks", made)

    def find(self, document: Document | str) -> list[Found]:
        """The entities of one text, in the order in which they stand."""
        return self.find_all([document])[0]

    def find_all(self, documents: Sequence[Document | str]) -> list[list[Found]]:
        """The entities of each text. A text without any word has none."""
        given = [d if isinstance(d, Document) else Document(str(i), d) for i, d in enumerate(documents)]
        found: list[list[Found]] = []
        for begin in range(0, len(given), WINDOW):
            pieces = split(given[begin : begin + WINDOW], self.encoder)
            each = iter(self.entities([piece for part in pieces for piece in part]))
            found += [[entity for _ in part for entity in next(each)] for part in pieces]
        return found

    def entities(self, sentences: Sequence[Sentence]) -> list[list[Found]]:
        """Those of each sentence, in the order in which they stand.

        The second network reads no sentence in which the first found nothing.
        """
        first, second = self.networks[0], self.networks[-1]
        shared = _shared(self.tuned, self.past, first) if second is not first else 0
        places: list[dict[Place, float]] = [{} for _ in sentences]
        x: dict[int, Tensor] = {}
        with torch.no_grad():
            for rows in batches([len(sentence.ids) for sentence in sentences]):
                batch = batch_of([sentences[row] for row in rows])
                hidden = first.lower(batch, shared)
                state = first.upper(batch, hidden, shared)
                found = self._places(state, [len(sentences[row]) for row in rows])
                held = [i for i, spans in enumerate(found) if spans]
                kinds = state[held]
                if held and second is not first:
                    some = batch.chosen(held)
                    kinds = second.upper(some, hidden[held] if shared else second.lower(some, 0), shared)
                for i, row in enumerate(rows):
                    places[row] = found[i]
                x |= {rows[i]: features(kind, list(found[i])) for i, kind in zip(held, kinds, strict=True)}
        if not x:
            return [[] for _ in sentences]
        names = list(self.schema.entities)
        rows = sorted(x)
        chances = iter(
            self.typing.probabilities(torch.cat([x[row] for row in rows]))[:, : len(names)].tolist()
        )
        answers = []
        for sentence, spans in zip(sentences, places, strict=True):
            entities = []
            for (begin, end), place in spans.items():
                told = dict(zip(names, next(chances), strict=True))
                best = max(told, key=told.__getitem__)
                if (score := self.sure.probability(place, told[best])) >= LEAST:
                    span = Span(sentence.offsets[begin][0], sentence.offsets[end - 1][1], best)
                    entities.append(Found(span, score, told, place))
            answers.append(sorted(entities, key=lambda entity: entity.span))
        return answers

    def _places(
        self, state: Float[Tensor, "sentence word dim"], lengths: Sequence[int]
    ) -> list[dict[Place, float]]:
        """Where the entities of padded sentences stand, with the probability of each."""
        found = [dict(places) for places in self.detectors[0].find_all(state, lengths, self.words)]
        for detector in self.detectors[1:]:
            for outer, within in zip(found, detector.find_all(state, lengths), strict=True):
                for inner, score in within:
                    # Only inside of a span that was found, and other than it.
                    if any(a <= inner[0] and inner[1] <= b and (a, b) != inner for a, b in list(outer)):
                        outer.setdefault(inner, score)
        return found

    def save(self, folder: Path | str, *, card: str = "") -> None:
        """Write it to a folder, whole or not at all. Raises as `save_folder`."""
        tuned, record = self.tuned.parts()
        tensors = {f"tuned.{k}": v for k, v in tuned.items()}
        apart = None
        if self.past is not self.tuned:
            past, apart = self.past.parts()
            tensors |= {f"past.{k}": v for k, v in past.items()}
        for level, detector in enumerate(self.detectors):
            tensors |= {
                f"detector{level}.weights": detector.weights,
                f"detector{level}.pairs": detector.pairs,
            }
        tensors |= {"words.weights": self.words.weights, "words.often": self.words.often}
        parts, told = self.typing.parts()
        tensors |= {f"typing.{k}": v for k, v in parts.items()}
        whole = {
            "kind": "entities",
            "schema": self.schema.to_json(),
            "tuned": record,
            "past": apart,
            "levels": len(self.detectors),
            "typing": told,
            "sure": list(self.sure.weights),
            "report": self.report,
        }
        save_folder(folder, tensors, whole, extra_files={"README.md": card} if card else {})

    @classmethod
    def load(cls, folder: Path | str, encoder: TextEncoder) -> "Recogniser":
        """Read what `save` wrote.

        Raises:
            CheckpointError: the folder is damaged or holds something else.
            ModelError: it was made with another encoder.
        """
        tensors, record = load_folder(folder, kind="entities")
        where = str(folder)
        try:
            schema = Schema.of(record.get("schema"))
        except DataError as error:
            raise CheckpointError(f"{where}: {error}") from None
        tuned = prior_from(_part(tensors, "tuned."), record.get("tuned"), where)
        apart = record.get("past")
        past = tuned if apart is None else prior_from(_part(tensors, "past."), apart, where)
        ways, dim = len(schema.entities), tuned.shapes.shape[1]
        detectors = []
        for level in range(record["levels"] if record.get("levels") in (1, 2) else 0):
            part = _part(tensors, f"detector{level}.")
            weights, pairs = part.get("weights"), part.get("pairs")
            if weights is None or pairs is None or weights.shape != (3, dim + 1) or pairs.shape != (3, 3):
                raise CheckpointError(
                    f"{where}: detector {level} should be [3, {dim + 1}] with pairs [3, 3]."
                )
            detectors.append(Detector(weights, pairs))
        if not detectors:
            raise CheckpointError(f"{where}: levels is {record.get('levels')!r}, expected 1 or 2.")
        of_words = _part(tensors, "words.")
        weights, often = of_words.get("weights"), of_words.get("often")
        if weights is None or often is None or weights.shape != (ways, dim + 1) or often.shape != (ways,):
            raise CheckpointError(f"{where}: the types of words should be [{ways}, {dim + 1}] and [{ways}].")
        kinds = typing.Typing.of(_part(tensors, "typing."), record.get("typing"), ways, dim, where)
        sure = record.get("sure")
        if not isinstance(sure, list) or len(sure) != 3 or not all(isinstance(w, int | float) for w in sure):
            raise CheckpointError(f"{where}: how sure it may be is {sure!r}, expected three numbers.")
        report = record.get("report")
        told = report if isinstance(report, dict) else {}
        words = WordTypes(weights, often)
        a, b, c = map(float, sure)
        return cls(schema, encoder, tuned, past, tuple(detectors), words, kinds, Sure((a, b, c)), told)


ON_TASK = Tuning(batch=8, rate=5e-4, typing=0.0)
"""How the network is tuned on a field's own examples, for spans alone; steps follow from `EPOCHS`."""
EPOCHS = 10
MOST_STEPS = 160
"""But not more steps than this: two minutes on one core."""
RICH = 30
"""With so many spans a type, on average, types are tuned for as well, and told by the tuned network."""
LEAST_SENTENCES = 10
"""With fewer labelled sentences the network stays as past corpora made it."""


def learn(
    examples: Sequence[Annotated],
    schema: Schema,
    prior: Prior | None,
    encoder: TextEncoder,
    *,
    tuning: Tuning | None = None,
    epochs: int = EPOCHS,
    tuned: bool | None = None,
    quick: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Recogniser:
    """Learn the entities of a schema from labelled documents.

    Args:
        prior: what past corpora taught; None starts from the frozen encoder.
        tuning: how the network is tuned on the examples; steps are replaced by what `epochs` say.
        tuned: whether it is; None: from `LEAST_SENTENCES` sentences on.
        quick: tell types by the network that finds spans, too: documents are read once and not twice, for about a point
            of F1. With `RICH` examples that is so in any case, and better.

    Raises:
        DataError: an offset or a type is wrong, or no example has a span.
        ModelError: the prior belongs to another encoder.
    """
    names = list(schema.entities)
    task = labelled([example.checked(schema) for example in examples], names, encoder)
    if not any(task.spans):
        raise DataError(
            f"none of the {len(examples)} examples has a span; label entities of the types {', '.join(names)[:200]}."
        )
    outer = [levels(found) for found in task.spans]
    flat = replace(task, spans=[o for o, _ in outer])
    start = past = (prior or Prior.blank(encoder)).rounded()
    mixed = _mixed(encoder)
    net, parameters = start.network(encoder, mixed=mixed)
    tuned = len(task.sentences) >= LEAST_SENTENCES if tuned is None else tuned
    rich = sum(map(len, task.spans)) >= RICH * len(names)
    if tuned:
        steps = min(MOST_STEPS, epochs * -(-len(flat.sentences) // (tuning or ON_TASK).batch))
        heads = _heads(net, flat, start.detector)
        chosen = replace(tuning or replace(ON_TASK, typing=float(rich)), spec=start.spec, steps=steps)
        tune(net, parameters, heads, [flat], chosen, seed=seed, progress=progress)
        origin = heads.detector.detach()
        start = replace(
            start,
            adapter={k: v.detach().half().float() for k, v in parameters.items() if k != "shapes"},
            shapes=parameters["shapes"].detach().half().float(),
            detector=origin,
            typing=None,
            maml=None,
        )
    other = start if quick or rich else past
    nets = _networks(start, other, encoder)
    seen = [states(network, task.sentences) for network in nets]
    lengths = [len(s) for s in task.sentences]
    labels = labels_of(lengths, flat.spans)
    strength = None if tuned else choose_strength(seen[0], labels, start.detector)
    weights = start.detector if strength is None else fit(seen[0], labels, start.detector, strength)
    pairs = start.pairs if prior is not None else pair_scores(labels)
    detectors = [Detector(weights, pairs)]
    if sum(len(inner) for _, inner in outer) >= LEAST_INNER:
        inner = labels_of(lengths, [i for _, i in outer])
        detectors.append(Detector(fit(seen[0], inner, torch.zeros_like(weights), 10.0), pair_scores(inner)))
    words = word_types(seen[0], flat.spans, len(names))
    kinds = _types(nets[-1], seen[-1], task, schema, past, encoder)
    made = how_made(prior is not None, tuned, quick or rich)
    report = {
        "sentences": len(task.sentences),
        "spans": sum(map(len, task.spans)),
        "tuned": tuned,
        "networks": len(nets),
        "made": made,
        "strength": strength,
        "typing": kinds.name,
        "losses": dict(kinds.losses),
    }
    return Recogniser(schema, encoder, start, other, tuple(detectors), words, kinds, MADE[made], report, nets)


def _types(
    net: WordBert,
    seen: Sequence[Tensor],
    task: Labelled,
    schema: Schema,
    prior: Prior,
    encoder: TextEncoder,
) -> typing.Typing:
    x = torch.cat(
        [features(s, [f[:2] for f in found]) for s, found in zip(seen, task.spans, strict=True) if found]
    )
    y = torch.tensor([s[2] for found in task.spans for s in found])
    sentence = torch.tensor([i for i, found in enumerate(task.spans) for _ in found])
    texts = [
        (i, t) for i, (name, kind) in enumerate(schema.entities.items()) for t in typing.told(name, kind)
    ]
    read = zip(texts, typing.read(net, [text for _, text in texts], encoder), strict=True)
    known = [(i, row) for (i, _), row in read if row is not None]
    told = torch.stack([row for _, row in known]) if known else x[:0]
    of = torch.tensor([i for i, _ in known], dtype=torch.long)
    return typing.learn(x, y, sentence, told, of, len(schema.entities), prior.typing, prior.maml)


def _heads(net: WordBert, task: Labelled, detector: Tensor) -> Heads:
    """The prior's detector, and for each type the mean direction of its spans beside that of all."""
    seen = states(net, task.sentences)
    x = torch.cat(
        [features(s, [f[:2] for f in found]) for s, found in zip(seen, task.spans, strict=True) if found]
    )
    y = torch.tensor([s[2] for found in task.spans for s in found])
    vectors = torch.full((task.ways, x.shape[1]), 1e-6)
    for kind in y.unique():
        vectors[kind] += x[y == kind].mean(0) - x.mean(0)
    heads = Heads.zero(x.shape[1], [task])
    return replace(heads, detector=detector.clone(), types=[vectors])


def _shared(tuned: Prior, past: Prior, network: WordBert) -> int:
    """Up to which layer the networks of two priors are the same; 0 for not at all."""
    if tuned.spec != past.spec or not torch.equal(tuned.shapes, past.shapes):
        return 0
    changed = [int(k.split(".")[2]) for k, v in tuned.adapter.items() if not torch.equal(v, past.adapter[k])]
    return min([*changed, *network.layers])


def _networks(tuned: Prior, past: Prior, encoder: TextEncoder) -> tuple[WordBert, ...]:
    mixed = _mixed(encoder)
    made = [
        prior.network(encoder, mixed=mixed, merged=True)[0]
        for prior in ([tuned] if past is tuned else [tuned, past])
    ]
    return tuple(network.requires_grad_(False) for network in made)


def _mixed(encoder: TextEncoder) -> bool:
    return encoder.dtype is torch.bfloat16 and resolve_dtype(None) is torch.bfloat16


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
