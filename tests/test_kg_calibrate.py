"""How probable mentions and triples are: learned on other fields, moved by a field's own answers."""

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from quickstudy.core.calibration import expected_error
from quickstudy.domains.kg.calibrate import (
    BEYOND,
    CLIP,
    MANY,
    SCALE,
    SEEN,
    Answer,
    Calibration,
    Law,
    best_cut,
    isotonic,
    learn_law,
)
from quickstudy.domains.kg.entities.sure import MADE, Sure, how_made


def answers(n: int, seed: int, bias: float = -0.5, ends: float = 0.6, said: float = 0.8) -> list[Answer]:
    """Triples whose parts are surer than they should be, by a known law."""
    rng = np.random.default_rng(seed)
    parts = rng.uniform(0.05, 0.99, size=(n, 3))
    truth = Calibration((-0.3, ends, bias, said))
    return [Answer(*row, bool(rng.random() < truth.triple(*row))) for row in parts.tolist()]


def error(model: Calibration, found: list[Answer]) -> float:
    return expected_error([model.triple(*one[:3]) for one in found], [one.right for one in found])


def test_a_triple_is_as_probable_as_its_parts_allow():
    plain = Calibration()
    assert plain.triple(1.0, 1.0, 0.7) > plain.triple(0.8, 1.0, 0.7) > plain.triple(0.8, 0.8, 0.7)
    assert plain.triple(0.5, 0.8, 0.5) == pytest.approx(0.2) and plain.triple(1.0, 1.0, 0.6) == pytest.approx(
        0.6
    )
    assert 0 < plain.triple(0.0, 0.0, 0.0) < CLIP < 1 - 2 * CLIP < plain.triple(1.0, 1.0, 1.0) < 1
    doubtful = Calibration((-1.0, 1.0, 0.0, 1.0))
    assert doubtful.triple(1.0, 1.0, 0.6) == pytest.approx(0.6) and doubtful.triple(0.9, 0.9, 0.6) < 0.4


def cell(n: int, labelled: int, seed: int, law: Law) -> tuple[int, list[Answer]]:
    """A field's triples by a law, of relations learned from so many labelled pairs."""
    rng = np.random.default_rng(seed)
    truth = law.of(labelled)
    parts = rng.uniform(0.05, 0.99, size=(n, 3)).tolist()
    return labelled, [Answer(*row, bool(rng.random() < truth.triple(*row))) for row in parts]


def test_the_law_of_other_fields_is_found():
    law = Law(-0.6, 0.5, 0.8)
    learned = learn_law([cell(3000, n, n, law) for n in (40, 100, 400, 1200)])
    assert learned == pytest.approx(law, abs=0.2)
    _, new = cell(4000, 60, 7, law)
    assert error(learned.of(60), new) < 0.03 < error(Calibration(), new)
    assert learn_law([]) == learn_law([(100, [])]) == Law()


def test_few_labelled_pairs_make_a_relation_less_probable():
    chances = [SCALE.of(n).triple(0.9, 0.9, 0.8) for n in (0, SEEN[0], 100, 1000, SEEN[1], 10**6)]
    assert chances[0] == chances[1] < chances[2] < chances[3] < chances[4] == chances[5]


def mean(model: Calibration, found: list[Answer]) -> float:
    return float(np.mean([model.triple(*one[:3]) for one in found]))


def test_each_field_has_one_vote():
    many, few = cell(2000, 100, 0, Law(-2.0)), cell(100, 100, 1, Law(2.0))
    _, asked = cell(500, 100, 2, Law())
    low, high = mean(learn_law([many]).of(100), asked), mean(learn_law([few]).of(100), asked)
    both = mean(learn_law([many, few]).of(100), asked)
    pooled = mean(learn_law([(100, [*many[1], *few[1]])]).of(100), asked)
    assert low < pooled < low + (high - low) / 4 < both < high


def test_the_cut_of_the_highest_expected_f1_is_found_without_labels():
    rng = np.random.default_rng(0)
    for shape in (0.3, 1.0):
        p = rng.beta(shape, 2.0, size=20_000)
        right = rng.random(20_000) < p
        missed = (BEYOND - 1) * p.sum()

        def f1(cut: float, p=p, right=right, missed=missed) -> float:
            said = p >= cut
            return 2 * right[said].sum() / (said.sum() + right.sum() + missed)

        best = max(f1(cut) for cut in np.linspace(0.01, 0.99, 99))
        assert f1(best_cut(p.tolist())) > best - 0.01 > f1(0.0)
    assert best_cut([]) == 1.0 and best_cut([0.3]) == 0.3


def test_mentions_are_as_sure_as_those_of_other_fields_made_alike():
    assert Sure().probability(0.5, 0.5) == pytest.approx(0.5)
    for sure in MADE.values():
        assert sure.probability(0.5, 0.9) < sure.probability(0.9, 0.9) <= sure.probability(0.9, 0.99)
        assert 0 < sure.probability(0.0, 0.0) < sure.probability(1.0, 1.0) < 1
    assert {how_made(*map(bool, map(int, f"{n:03b}"))) for n in range(8)} == set(MADE)
    a, b, c = MADE["tuned"].weights
    assert MADE["tuned"].probability(0.8, 0.7) == pytest.approx(
        1 / (1 + math.exp(-(a + b * math.log(4) + c * math.log(7 / 3))))
    )


def test_own_answers_move_it_the_more_of_them_there_are():
    start, own, asked = Calibration((-0.3, 0.6, -0.5, 0.8)), answers(2000, 1, bias=1.5), answers(500, 2)
    means = [mean(start.refined(own[:n]), asked) for n in (0, 8, 60, 390)]
    assert means[1:] == sorted(means[1:]) and abs(means[1] - means[0]) < 0.05 and start.refined([]) == start
    assert abs(means[-1] - mean(Calibration((-0.3, 0.6, 1.5, 0.8)), asked)) < 0.05
    assert not start.refined(own[: MANY - 1]).steps and start.refined(own[:MANY]).steps


def test_many_own_answers_are_followed_where_no_line_can():
    rng = np.random.default_rng(0)
    parts = rng.uniform(0.05, 0.99, size=(4000, 3)).tolist()
    # Right or not by a step: sure ones are right four times in five, all others once in ten.
    own = [Answer(*row, bool(rng.random() < (0.8 if np.prod(row) > 0.4 else 0.1))) for row in parts]
    model = Calibration().refined(own[:2000])
    line = Calibration(model.weights)
    assert error(model, own[2000:]) < 0.04 and error(model, own[2000:]) < error(line, own[2000:])


def test_the_step_function_is_the_nearest_rising_one():
    rng = np.random.default_rng(1)
    p = np.sort(rng.random(200))
    right = rng.random(200) < p
    steps = isotonic(p.tolist(), right.tolist())
    heights = [height for _, height in steps]
    assert heights == sorted(heights)
    fitted = IsotonicRegression().fit_transform(p, right.astype(float))
    begins = [begin for begin, _ in steps]
    for (begin, height), end in zip(steps, [*begins[1:], 2.0], strict=True):
        own = (p >= begin) & (p < end)
        assert np.ptp(fitted[own]) < 1e-9
        assert height == pytest.approx((fitted[own].sum() + 1) / (own.sum() + 2))


def test_the_step_function_rises_whatever_the_answers_are():
    rng = np.random.default_rng(2)
    for n in rng.integers(1, 60, size=300):
        p = np.sort(rng.integers(0, 40, size=n) / 40)
        right = rng.random(n) < rng.choice([p, np.full(n, 0.9), 1 - p])
        steps = isotonic(p.tolist(), right.tolist())
        begins, heights = zip(*steps, strict=True)
        assert list(begins) == sorted(set(begins)) and begins[0] == p[0]
        assert list(heights) == sorted(heights) and heights[0] > 0 and heights[-1] < 1
        for begin, height, end in zip(begins, heights, [*begins[1:], 2.0], strict=True):
            own = right[(p >= begin) & (p < end)]
            assert height == pytest.approx((own.sum() + 1) / (len(own) + 2))
    # One answer pulled towards a half is below the many before it: it joins them.
    assert isotonic([0.1] * 10 + [0.9], [False] + [True] * 10) == ((0.1, 11 / 13),)
