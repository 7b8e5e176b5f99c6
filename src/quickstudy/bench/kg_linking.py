"""`quickstudy bench kg_linking`: BC5CDR's mentions linked to ids never seen in training, beside the letters alone.

The catalogue has every id of the documents seen before under all names that it has there, and every new id under one
name: the words of its first mention in the new documents. All later mentions of new ids are asked for. The ranker
learns from worlds of the same kind, made of the training documents alone: half of them are the past, half are new.

BC5CDR: Li et al. 2016, doi:10.1093/database/baw068. Mentions with several ids or none (-1) are left out.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from quickstudy.bench import data as published
from quickstudy.bench.runs import write_run
from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.encoder import Encoder
from quickstudy.core.engine import adapt, meta_train, predict
from quickstudy.core.episode import Episode, stack
from quickstudy.core.learner import Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.linking import link
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry
from quickstudy.domains.kg.linking.catalogue import plain as plain_name
from quickstudy.domains.kg.linking.link import SIGNS, Mention, Pairs
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.encoders.text import load_encoder
from quickstudy.learners import MAML
from quickstudy.nets import MLP

SUITE, COMMAND = "kg_linking", "quickstudy bench kg_linking"
FILES = {part: f"linking/bc5cdr_el/CDR_{part}.PubTator.txt.gz" for part in ("train", "dev", "test")}
LEARNER = MAML(
    objective=Classify(ways=2), net=MLP(inputs=len(SIGNS), outputs=2, hidden=(32,)), steps=3, rate=0.1
)
WORLDS, STEPS, SUPPORT, QUERY = 3, 400, 10, 30
"""Worlds made of the training documents; steps of meta-training; mentions to adapt to and to be judged by in a task."""


@dataclass(frozen=True)
class World:
    """Documents seen before and new ones; of the new ones' ids, those that the past doesn't have."""

    past: Sequence[Annotated]
    new: Sequence[Annotated]
    encoder: Encoder

    @cached_property
    def _read(self) -> tuple[Catalogue, list[Mention], list[str]]:
        names: dict[str, dict[str, None]] = {}
        kinds: dict[str, str] = {}
        for one in self.past:
            for mention, id in _linked(one):
                names.setdefault(id, {})[mention.text] = None
                kinds[id] = mention.type
        known, mentions, ids = set(names), [], []
        for number, one in enumerate(self.new):
            for mention, id in _linked(one):
                if id in known:
                    continue
                if id in names:
                    mentions.append(mention._replace(document=number))
                    ids.append(id)
                else:
                    names[id] = {mention.text: None}
                    kinds[id] = mention.type
        return Catalogue(Entry(id, tuple(of), kinds[id]) for id, of in names.items()), mentions, ids

    @property
    def catalogue(self) -> Catalogue:
        return self._read[0]

    @property
    def mentions(self) -> list[Mention]:
        return self._read[1]

    @property
    def ids(self) -> list[str]:
        return self._read[2]

    @cached_property
    def pairs(self) -> Pairs:
        return link.pair(self.catalogue, self.encoder, self.mentions, [one.document for one in self.new])

    def right(self, chosen: Sequence[int | None]) -> torch.Tensor:
        """100 where the entry chosen for a mention is its own."""
        entries = self.catalogue.entries
        return torch.tensor(
            [100.0 * (c is not None and entries[c].id == id) for c, id in zip(chosen, self.ids, strict=True)]
        )


def _linked(one: Annotated) -> list[tuple[Mention, str]]:
    return [
        (Mention(one.of(number), one.spans[number].type), id)
        for number, id in one.links.items()
        if id != "-1" and "|" not in id
    ]


def by_letters(world: World) -> list[int | None]:
    """The baseline: the entry of the same plain name, or else of the name with the most letter n-grams in common."""
    catalogue = world.catalogue
    same: dict[str, int] = {}
    for name, owner in zip(catalogue.names, catalogue.owner, strict=True):
        same.setdefault(plain_name(name), owner)
    near = catalogue.candidates([mention.text for mention in world.mentions], 1)
    return [
        same.get(plain_name(mention.text), some[0].entry if some else None)
        for mention, some in zip(world.mentions, near, strict=True)
    ]


def by_meaning(world: World) -> list[int | None]:
    """A second baseline: the entry of the name whose sentence vector is nearest."""
    names = world.catalogue.vectors(world.encoder)
    told = torch.nn.functional.normalize(world.encoder.encode([m.text for m in world.mentions]), dim=-1)
    return [world.catalogue.owner[i] for i in (told @ names.t()).argmax(-1).tolist()]


def by_ranker(world: World, learner: MetaLearner, meta: Meta, support: Any) -> list[int | None]:
    """Ours: the most probable candidate."""
    fast, chosen = adapt(learner, meta, support), []
    for some, signs in zip(*world.pairs, strict=True):
        told = predict(learner, meta, fast, signs) if some else None
        chosen.append(None if told is None else some[int((told[:, 1] - told[:, 0]).argmax())].entry)
    return chosen


def learned(worlds: Sequence[World], seed: int, steps: int) -> Meta:
    """Meta-train the ranker over tasks drawn from the worlds: some mentions to adapt to, others to be judged by."""
    draw, tasks = random.Random(seed), []
    for world in worlds:
        order = list(range(len(world.ids)))
        draw.shuffle(order)
        for start in range(0, len(order) - SUPPORT - QUERY + 1, SUPPORT + QUERY):
            parts = order[start : start + SUPPORT], order[start + SUPPORT : start + SUPPORT + QUERY]
            tasks.append(Episode(*(rows_of(world, part) for part in parts)))

    def sample(step: int) -> Episode:
        return stack(random.Random(seed * 1_000_003 + step).sample(tasks, min(8, len(tasks))))

    *_, last = meta_train(LEARNER, sample, steps=steps, rate=3e-3, decay=True, seed=seed)
    return last.meta


def rows_of(world: World, mentions: Sequence[int]) -> Any:
    """The pairs of some mentions, labelled."""
    some = Pairs([world.pairs.candidates[i] for i in mentions], [world.pairs.rows[i] for i in mentions])
    return link.labelled(world.catalogue, some, [world.ids[i] for i in mentions])


def rows(
    data: Path, *, seed: int = 0, quick: bool = False, part: str = "test", show: Callable[[Any], None] = print
) -> list[dict[str, Any]]:
    """Row kg.6.1; `part` "dev" is what choices were made on."""
    clock, encoder = Clock(), load_encoder("minilm")
    read = {name: read_annotated(data / file, format="pubtator") for name, file in FILES.items()}
    train, draw, worlds = list(read["train"]), random.Random(seed), []
    for _ in range(1 if quick else WORLDS):
        draw.shuffle(train)
        worlds.append(World(train[: len(train) // 2], train[len(train) // 2 :], encoder))
    meta = learned(worlds, seed, 20 if quick else STEPS)
    past = read["train"] + (read["dev"] if part == "test" else [])
    world = World(past, read[part], encoder)
    ours = world.right(by_ranker(world, LEARNER, meta, rows_of(worlds[0], range(60))))
    others = {
        "letters": world.right(by_letters(world)),
        "meaning (MiniLM)": world.right(by_meaning(world)),
        "the ranker, not meta-trained": world.right(
            by_ranker(world, replace(LEARNER, steps=50), LEARNER.init(seed), rows_of(worlds[0], range(60)))
        ),
    }
    reach = Estimate.of(world.right([
        next((c.entry for c in some if world.catalogue.entries[c.entry].id == id), None)
        for some, id in zip(world.pairs.candidates, world.ids, strict=True)
    ]))  # fmt: skip
    table = Table(
        "", "accuracy at 1", "ours above it", title=f"BC5CDR {part}: {len(ours)} mentions of new ids"
    )
    for name, told in {"ours": ours, **others}.items():
        table.add_row(
            name, Estimate.of(told).text(1), "" if name == "ours" else paired(ours, told).text(1, sign=True)
        )
    show(table)
    return [
        plain(
            "kg.6.1",
            paired(ours, others["letters"]),
            unit="points",
            command="",
            seconds=clock.seconds,
            seeds=[seed],
            baselines={name: round(float(told.mean()), 2) for name, told in others.items()},
            note=f"BC5CDR {part}, {len(ours)} mentions of {len(set(world.ids))} MeSH ids that are in no document seen "
            f"before, {len(world.catalogue.entries):,} entries; ours {Estimate.of(ours).text(2)}% right, of which "
            f"letters alone reach {Estimate.of(others['letters']).text(2)}%; the right entry is a candidate for "
            f"{reach.text(2)}%; a new id has one name, that of its first mention; the ranker is meta-trained on the "
            "training part alone",
        )
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Link, print, and write benchmarks/runs/kg_linking.json unless --quick or --part dev. Raises DataError."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="BC5CDR linked to ids never seen (kg.6).")
    parser.add_argument(
        "--data", metavar="FOLDER", help="published data sets; default: the variable QUICKSTUDY_DATA"
    )
    parser.add_argument("--part", default="test", choices=("dev", "test"), help="choices were made on dev")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps, to see that it works; writes nothing"
    )
    given = parser.parse_args(arguments)
    console = Console()
    found = rows(
        published.folder(given.data), seed=given.seed, quick=given.quick, part=given.part, show=console.print
    )
    for row in found:
        row["command"] = COMMAND + (f" --seed {given.seed}" if given.seed else "")
        console.print(f"{row['id']}: {row['value']:g} {row['unit']} · {row['note']}")
    if given.part == "test" and not given.quick:
        console.print(f"Written: {write_run(SUITE, found).name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
