"""The benchmark of the store: engines give the same answers, and a difference is an error."""

import pytest

from quickstudy.bench import kg_store
from quickstudy.core.errors import QuickstudyError


@pytest.mark.slow
def test_engines_agree_and_rows_compare_with_the_best_that_keeps_a_file(monkeypatch):
    monkeypatch.setattr(kg_store, "LOOKUPS", 50)
    monkeypatch.setattr(kg_store, "ROUNDS", 2)
    python = kg_store.ladybug_python()
    engines = [engine for engine in (kg_store.OURS, *kg_store.PEERS) if python or engine != kg_store.LADYBUG]
    found = {
        engine: kg_store.measured(engine, 2000, python if engine == kg_store.LADYBUG else None)
        for engine in engines
    }
    lookups, memory = kg_store.rows(found, 2000, 1.0)
    ours = found["quickstudy"]
    best = min(lookups.baselines[engine] for engine in kg_store.KEEPING if engine in found)
    assert lookups.id == "kg.13.1" and lookups.value == best / ours["lookups"]
    assert memory.id == "kg.13.2" and memory.value == min(memory.baselines.values()) / ours["memory"]
    assert ("ladybug: not run" in (lookups.note or "")) == (python is None)
    assert ours["answers"][0] > 50 and ours["first"] >= ours["lookups"]
    ours["answers"] = [1, 2]
    with pytest.raises(QuickstudyError, match="same answers"):
        kg_store.rows(found, 2000, 1.0)


def test_rows_without_ladybug_say_so():
    same = {"answers": [1, 1], "load": 1.0, "first": 9.0, "join": 1.0, "file": 1.0}
    found = {
        "quickstudy": same | {"lookups": 2.0, "memory": 10.0},
        "pyoxigraph on disk": same | {"lookups": 6.0, "memory": 40.0},
        "pyoxigraph in memory": same | {"lookups": 1.0, "memory": 20.0},
    }
    lookups, memory = kg_store.rows(found, 5, 1.0)
    assert (lookups.value, memory.value) == (3.0, 2.0) and "ladybug: not run" in (lookups.note or "")
    found["ladybug on disk"] = same | {"lookups": 4.0, "memory": 15.0}
    lookups, memory = kg_store.rows(found, 5, 1.0)
    assert (lookups.value, memory.value) == (2.0, 1.5) and "not run" not in (lookups.note or "")
