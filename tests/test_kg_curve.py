"""A curve forecasts what more labels would buy, with an interval that holds what comes."""

import numpy as np
import pytest
from kg_field import document, learned

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.learning.curve import Point, curve, draw_examples, measure, picture


def points(rng, a, b, c, shots=(1, 2, 5, 10), draws=3, noise=3.0):
    return [
        Point(k, {"triples": tuple(a - b * k**-c + rng.normal(0, noise, draws))}, k) for k in shots
    ]  # fmt: skip


def test_a_forecast_holds_what_comes_as_often_as_it_says():
    rng, held, rounds, told = np.random.default_rng(0), 0, 200, []
    for _ in range(rounds):
        a, b, c = rng.uniform(40, 90), rng.uniform(10, 60), rng.uniform(0.2, 1.2)
        said = curve(points(rng, a, b, c)).forecast(more=5)
        truth = b * (10.0**-c - 15.0**-c)
        held += said.gain.low <= truth <= said.gain.high
        told.append((said.gain.mean, truth))
    assert 0.9 <= held / rounds <= 1.0
    ours, truth = np.array(told).T
    assert np.abs(ours - truth).mean() < 1.2  # points


def test_a_steep_curve_promises_more_than_a_flat_one():
    rng = np.random.default_rng(1)
    steep, flat = curve(points(rng, 80, 60, 0.4)), curve(points(rng, 60, 5, 0.4))
    assert steep.forecast(5).gain.mean > flat.forecast(5).gain.mean + 1
    assert steep.forecast(5).gain.low > 0
    assert steep.forecast(20).then.mean > steep.forecast(5).then.mean > steep.forecast(5).now
    assert 0 <= flat.at([1])[0].low <= flat.at([1])[0].high <= 100
    assert picture([steep], more=5).startswith(b"\x89PNG")


def test_a_curve_needs_three_points():
    rng = np.random.default_rng(2)
    with pytest.raises(DataError, match="2 points; a curve needs triples"):
        curve(points(rng, 80, 40, 0.5, shots=(1, 2)))
    with pytest.raises(DataError, match="more is 0"):
        curve(points(rng, 80, 40, 0.5)).forecast(0)


def test_examples_are_drawn_rarest_type_first():
    examples = [document(i) for i in range(12)]
    for k in (1, 3):
        drawn = draw_examples(examples, k, seed=1)
        said = [relation.type for one in drawn for relation in one.relations]
        assert min(said.count("sued"), said.count("works_for")) == k and len(drawn) == 2 * k
    assert draw_examples(examples, 2, seed=1) == draw_examples(examples, 2, seed=1)
    assert draw_examples(examples, 2, seed=1) != draw_examples(examples, 2, seed=2)


def test_models_of_few_examples_are_measured():
    gold = [document(i, firms=1) for i in range(12)]
    said = []
    found = measure(
        [document(i) for i in range(12)], gold, learned, shots=(1, 3, 50), draws=1,
        progress=lambda *done: said.append(done),
    )  # fmt: skip
    assert [point.shots for point in found] == [1, 3] and said == [(1, 2), (2, 2)]
    assert found[1].scores["entities"][0] >= found[0].scores["entities"][0]
    with pytest.raises(DataError, match="none of 50 can be drawn"):
        measure([document(0)], gold, learned, shots=(50,))
