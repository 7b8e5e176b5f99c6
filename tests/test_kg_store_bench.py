"""The benchmark of the store: engines give the same answers, and a difference is an error."""

import pytest

from quickstudy.bench import kg_store
from quickstudy.core.errors import QuickstudyError


@pytest.mark.slow
def test_engines_agree_and_rows_compare_with_the_one_on_disk(monkeypatch):
    monkeypatch.setattr(kg_store, "LOOKUPS", 50)
    monkeypatch.setattr(kg_store, "ROUNDS", 1)
    found = {engine: kg_store.measured(engine, 2000) for engine in (kg_store.OURS, *kg_store.PEERS)}
    lookups, memory = kg_store.rows(found, 2000, 1.0)
    assert lookups.value == lookups.baselines["pyoxigraph on disk"] / found["quickstudy"]["lookups"]
    assert lookups.id == "kg.13.1" and memory.id == "kg.13.2" and "ladybug: not run" in (memory.note or "")
    assert found["quickstudy"]["answers"][0] > 50
    found["quickstudy"]["answers"] = [1, 2]
    with pytest.raises(QuickstudyError, match="same answers"):
        kg_store.rows(found, 2000, 1.0)
