"""`quickstudy bench kg_linking`: BC5CDR's mentions linked to ids never seen in training, beside the letters alone.

The catalogue has every id of the documents seen before under all names that it has there, and every new id under one
name: the words of its first mention in the new documents. All later mentions of new ids are asked for. The ranker is
the product's (`linking.ranker`): meta-trained on worlds made of the training documents alone, adapted to the catalogue
by its own names. Beside it stands what `--catalogue` does where four in ten new ids are in no catalogue.

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
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.linking import link, prior, worlds
from quickstudy.domains.kg.linking.across import LEAST
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry
from quickstudy.domains.kg.linking.catalogue import plain as plain_name
from quickstudy.domains.kg.linking.link import Mention, Pairs
from quickstudy.domains.kg.linking.merge import read_definitions
from quickstudy.domains.kg.linking.prior import LinkPrior
from quickstudy.domains.kg.linking.ranker import Ranker
from quickstudy.domains.kg.linking.worlds import linked
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.encoders.text import load_encoder

SUITE, COMMAND = "kg_linking", "quickstudy bench kg_linking"
FILES = {part: f"linking/bc5cdr_el/CDR_{part}.PubTator.txt.gz" for part in ("train", "dev", "test")}
WORLDS = 3
"""Worlds made of the training documents."""
LONG = 200
"""Steps of the ranker that isn't meta-trained."""
SURE, EVEN = 0.9, 0.5
"""Where links are made, by default and at even odds."""


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
            for mention, id in linked(one):
                names.setdefault(id, {})[mention.text] = None
                kinds[id] = mention.type
        known, mentions, ids = set(names), [], []
        for number, one in enumerate(self.new):
            for mention, id in linked(one):
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


def by_ranker(world: World, ranker: Ranker) -> list[int | None]:
    """Ours: the likeliest candidate."""
    number = {entry.id: i for i, entry in enumerate(world.catalogue.entries)}
    found = ranker.linker.best(world.mentions, [one.document for one in world.new])
    return [None if one.id is None else number[one.id] for one in found]


def make_prior(data: Path, encoder: Encoder, *, seed: int = 0, steps: int = prior.STEPS) -> LinkPrior:
    """What is shipped (`tools/make_kg_priors.py`): learned from worlds made of the training documents."""
    return _learned(read_annotated(data / FILES["train"], format="pubtator"), encoder, seed, steps, WORLDS)


def _learned(train: Sequence[Annotated], encoder: Encoder, seed: int, steps: int, count: int) -> LinkPrior:
    draw, order, played = random.Random(seed), list(train), []
    for number in range(count):
        draw.shuffle(order)
        half = len(order) // 2
        played.append(worlds.of_documents(order[:half], order[half:], seed=seed + number))
    source = {"name": "BC5CDR, training part", "licence": "public domain", "worlds": count, "seed": seed}
    return LinkPrior.learn(played, encoder, steps=steps, seed=seed, record={"sources": [source]})


class Rate(tuple[int, int, int]):
    """Right links, links made, and names that are in the catalogue."""

    def __str__(self) -> str:
        right, made, there = self
        shares = 100 * right / max(1, made), 100 * right / max(1, there), 200 * right / max(1, made + there)
        return "precision {:.1f}, recall {:.1f}, F1 {:.1f}".format(*shares)


def with_strangers(world: worlds.World, ranker: Ranker) -> dict[str, Rate]:
    """What links are made where many names are in no catalogue: by names alone, and with the ranker."""
    entities = [Entity(mention.text, mention.type) for mention in world.mentions]
    texts = [world.documents[mention.document].text for mention in world.mentions]
    truth = dict(zip(entities, world.ids, strict=True))
    defined = read_definitions([(one.id, one.text) for one in world.documents])
    links, strangers = ranker.names.sorted(entities, defined)
    text = dict(zip(entities, texts, strict=True))
    ranked = ranker.look_up(strangers, [text[one] for one in strangers])
    there = sum(id is not None for id in truth.values())

    def rate(of: Sequence[Any], known: int) -> Rate:
        return Rate((sum(truth[one.entity] == one.id for one in of), len(of), known))

    open_ = sum(truth[one] is not None for one in strangers)
    maybe = [one for one in ranked if LEAST <= one.score < SURE]
    return {
        "names alone": rate(links, there),
        f"names, and the ranker at {SURE}": rate([*links, *(o for o in ranked if o.score >= SURE)], there),
        f"names, and the ranker at {EVEN}": rate([*links, *(o for o in ranked if o.score >= EVEN)], there),
        f"suggested, {LEAST} to {SURE}, of what is left": rate(maybe, open_),
    }


def rows(
    data: Path, *, seed: int = 0, quick: bool = False, part: str = "test", show: Callable[[Any], None] = print
) -> list[dict[str, Any]]:
    """Row kg.6.1; `part` "dev" is what choices were made on."""
    clock, encoder = Clock(), load_encoder("minilm")
    read = {name: read_annotated(data / file, format="pubtator") for name, file in FILES.items()}
    steps, count = (20, 1) if quick else (prior.STEPS, WORLDS)
    past = read["train"] + (read["dev"] if part == "test" else [])
    world, learned = World(past, read[part], encoder), _learned(read["train"], encoder, seed, steps, count)
    longer = replace(learned.learner, steps=LONG)
    blank = replace(learned, learner=longer, meta=longer.init(seed))
    ours = world.right(by_ranker(world, Ranker(world.catalogue, encoder, learned, seed=seed)))
    others = {
        "letters": world.right(by_letters(world)),
        "meaning (MiniLM)": world.right(by_meaning(world)),
        "the ranker, not meta-trained": world.right(
            by_ranker(world, Ranker(world.catalogue, encoder, blank, seed=seed))
        ),
    }
    half = worlds.of_documents(past, read[part], seed=seed)
    rates = with_strangers(half, Ranker(half.catalogue, encoder, learned, seed=seed))
    for name, rate in rates.items():
        show(
            f"{len(half.ids):,} names, {sum(id is None for id in half.ids):,} in no catalogue; {name}: {rate}"
        )
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
            f"training part alone. Where {sum(id is None for id in half.ids):,} of {len(half.ids):,} names are in no "
            "catalogue, " + "; ".join(f"{name}: {rate}" for name, rate in rates.items()),
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
