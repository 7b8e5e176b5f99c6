"""`bench kg` sends each row to the suite that measures it."""

from importlib import import_module
from importlib.util import find_spec

import pytest

from quickstudy.bench import kg
from quickstudy.bench.bars import load_bars
from quickstudy.core.errors import DataError


def test_every_row_that_has_a_bar_has_a_suite():
    rows = {row.rpartition(".")[0] for row in (bar.id for bar in load_bars()) if row.startswith("kg.")}
    assert rows == {row for own in kg.SUITES.values() for row in own}


@pytest.mark.parametrize("suite", kg.SUITES)
def test_suites_are_there(suite):
    assert find_spec(f"quickstudy.bench.{suite}") is not None


def test_rows_are_grouped_by_suite_and_handed_on(monkeypatch):
    asked = []
    for suite in ("kg_relations", "kg_linking"):
        module = import_module(f"quickstudy.bench.{suite}")
        monkeypatch.setattr(module, "main", lambda given, suite=suite: asked.append((suite, given)) or 0)
    assert kg.main(["--only", "kg.6,kg.2,kg.1", "--seed", "3"]) == 0
    assert asked == [
        ("kg_relations", ["--only", "kg.1", "--seed", "3"]),
        ("kg_relations", ["--only", "kg.2", "--seed", "3"]),
        ("kg_linking", ["--seed", "3"]),
    ]


def test_an_unknown_row_is_named():
    with pytest.raises(DataError, match=r"no row 'kg.4.1'.*kg.4"):
        kg.chosen("kg.4.1")
