"""Specs travel through JSON, and nothing but a registered spec with right fields comes back."""

import json
import math

import pytest
from torch import nn

from quickstudy.core.errors import DataError
from quickstudy.core.objective import Classify, Regress
from quickstudy.core.spec import Spec
from quickstudy.learners import MAML, Centroid, FineTune, Ridge
from quickstudy.nets import MLP

RECORD = MAML(objective=Classify(ways=3), net=MLP(inputs=2, outputs=3)).to_json()


@pytest.mark.parametrize("spec", [Classify(ways=7), Regress(dim=2), MLP(inputs=2, outputs=3, hidden=())])
def test_there_and_back(spec):
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_module_cannot_be_written_and_the_message_says_where_it_stands():
    with pytest.raises(DataError, match=r"MAML\.net is a Linear.*Describe it by a spec"):
        MAML(objective=Classify(ways=3), net=nn.Linear(2, 3)).to_json()


def test_an_unknown_type_is_named_with_what_was_meant():
    with pytest.raises(DataError, match=r"Unknown type 'Clasify'\. Did you mean \"Classify\"\?"):
        Spec.from_json({"type": "Clasify", "ways": 3})


@pytest.mark.parametrize(
    "record", [None, 3, "MAML", [], {}, {"type": 3}, {"type": None}, {"type": ["MAML"]}], ids=str
)
def test_what_is_no_spec_is_refused(record):
    with pytest.raises(DataError, match="object with a"):
        Spec.from_json(record)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"steps": "many"}, "MAML.steps"),
        ({"steps": 2.5}, "MAML.steps"),
        ({"net": "MLP"}, "MAML.net"),
        ({"net": {"type": "Classify", "ways": 3}}, "MAML.net"),
        ({"net": {"type": "MLP", "inputs": 1, "outputs": 1, "norm": "spectral"}}, "MLP.norm"),
        ({"rates": 1.0}, "MAML.rates"),
        ({"objective": {"type": "Classify"}}, "Classify.ways"),
    ],
    ids=str,
)
def test_the_message_names_the_field(change, where):
    with pytest.raises(DataError, match=where):
        Spec.from_json({**RECORD, **change})


@pytest.mark.parametrize(
    "record",
    [
        {"type": "Objective"},
        {"type": "MetaLearner", "objective": RECORD["objective"]},
        {"type": "NetLearner", "objective": RECORD["objective"], "net": RECORD["net"]},
    ],
    ids=lambda record: record["type"],
)
def test_an_abstract_type_is_refused(record):
    with pytest.raises(DataError, match=f"{record['type']} is abstract"):
        Spec.from_json(record)


@pytest.mark.parametrize(
    "wrap", [lambda inner: {"type": "Classify", "ways": inner}, lambda inner: [inner]], ids=["{", "["]
)
def test_a_record_nested_without_end_is_refused(wrap):
    record = 3
    for _ in range(100_000):
        record = wrap(record)
    with pytest.raises(DataError):
        Spec.from_json({"type": "Classify", "ways": record})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MLP(inputs=0, outputs=3), r"MLP\.inputs: .*greater than or equal to 1; got '0'"),
        (lambda: MLP(inputs=2, outputs=3, hidden=(4, 10**7)), r"MLP\.hidden\.1: "),
        (lambda: MLP(inputs=2, outputs=3, dropout=1.0), r"MLP\.dropout"),
        (lambda: Classify(ways=0), r"Classify\.ways"),
        (lambda: Regress(dim=-1), r"Regress\.dim"),
        (lambda: MAML(objective=Classify(ways=3), net=nn.Linear(2, 3), steps=10**9), r"MAML\.steps"),
        (lambda: FineTune(objective=Classify(ways=3), net=nn.Linear(2, 3), rate=math.nan), r"FineTune\.rate"),
        (lambda: Ridge(objective=Classify(ways=3), penalty=0.0), r"Ridge\.penalty"),
        (lambda: Centroid(objective=Classify(ways=3), scale=-1.0), r"Centroid\.scale"),
    ],
)
def test_ranges_are_checked_when_a_spec_is_made(make, says):
    with pytest.raises(DataError, match=says):
        make()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused(number):
    record = json.loads(json.dumps(RECORD).replace('"rate": 0.1', f'"rate": {number}'))
    with pytest.raises(DataError, match="rate"):
        Spec.from_json(record)


@pytest.mark.parametrize("change", [{"ways": "3"}, {"ways": True}, {"ways": 3.0}], ids=str)
def test_numbers_are_not_guessed_from_other_things(change):
    with pytest.raises(DataError, match=r"Classify\.ways"):
        Spec.from_json({"type": "Classify", **change})
