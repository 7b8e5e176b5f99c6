"""A small made-up world whose relations follow from one another, for the tests of relation inference."""

import random
from functools import cache

from quickstudy.domains.kg.completion.completion import Completion
from quickstudy.domains.kg.completion.embedding import Training

Triple = tuple[str, str, str]
QUICK = Training(size=8, epochs=15, batch=200, drawn=40)


def world(people: int = 40, cities: int = 12, lands: int = 4) -> tuple[list[Triple], dict[str, list[str]]]:
    """Triples and types: people, the cities they are born in, the firms they work for, and where these are."""
    draw = random.Random(0)
    based = [draw.randrange(cities) for _ in range(6)]
    types = {f"city {i}": ["city"] for i in range(cities)} | {f"land {i}": ["land"] for i in range(lands)}
    types |= {f"tongue {i}": ["language"] for i in range(lands)} | {f"firm {i}": ["firm"] for i in range(6)}
    triples: list[Triple] = [(f"city {i}", "lies in", f"land {i % lands}") for i in range(cities)]
    triples += [(f"land {i}", "has language", f"tongue {i}") for i in range(lands)]
    triples += [(f"firm {i}", "based in", f"city {city}") for i, city in enumerate(based)]
    triples += [(f"firm {i}", "sells in", f"land {city % lands}") for i, city in enumerate(based)]
    for i in range(people):
        name, firm = f"person {i}", draw.randrange(6)
        types[name] = ["person"]
        triples += [(name, "born in", f"city {draw.randrange(cities)}"), (name, "works for", f"firm {firm}")]
        triples += [
            (name, "works in", f"city {based[firm]}"),
            (name, "taxed by", f"land {based[firm] % lands}"),
        ]
        triples.append((name, "knows", f"person {draw.randrange(people)}"))
    return triples, types


def citizens() -> list[tuple[str, str]]:
    """A relation that the world lacks: which land each person is born in."""
    triples, _ = world()
    land = {head: tail for head, relation, tail in triples if relation == "lies in"}
    return [(head, land[tail]) for head, relation, tail in triples if relation == "born in"]


@cache
def taught() -> Completion:
    """What the world teaches."""
    return Completion.learn(*world(), played=("works in", "taxed by"), training=QUICK, times=2)
