"""How probable a triple is: learned on other fields, moved by a field's own answers."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from quickstudy.core.calibration import expected_error
from quickstudy.domains.kg.calibrate import CLIP, MANY, Answer, Calibration, isotonic, learn_calibration


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


def test_the_law_of_other_fields_is_found():
    learned = learn_calibration([answers(4000, 0), answers(4000, 1)])
    assert learned.weights == pytest.approx((-0.3, 0.6, -0.5, 0.8), abs=0.25)
    new = answers(3000, 2)
    assert error(learned, new) < 0.03 < error(Calibration(), new)


def mean(model: Calibration, found: list[Answer]) -> float:
    return float(np.mean([model.triple(*one[:3]) for one in found]))


def test_each_field_has_one_vote():
    many, few, asked = answers(2000, 0, bias=-2.0), answers(100, 1, bias=2.0), answers(500, 2)
    low, high = mean(learn_calibration([many]), asked), mean(learn_calibration([few]), asked)
    both, pooled = (
        mean(learn_calibration([many, few]), asked),
        mean(learn_calibration([[*many, *few]]), asked),
    )
    assert low < pooled < low + (high - low) / 4 < both < high


def test_own_answers_move_it_the_more_of_them_there_are():
    start, own, asked = learn_calibration([answers(2000, 0)]), answers(2000, 1, bias=1.5), answers(500, 2)
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
