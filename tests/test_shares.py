"""Intervals of rows that are right or wrong: those of the literature, and true to their 95% for few rows too."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from quickstudy.core import card, picture, shares
from quickstudy.core.errors import DataError
from quickstudy.core.estimate import Estimate, paired_share
from quickstudy.core.report import Report


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (4, 4), (1, 4), (3, 4), (0, 20), (81, 263), (599, 600)]
)
def test_a_share_has_the_interval_that_scipy_gives(hits, n):
    estimate = Estimate.share(hits, n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)
    assert estimate.mean == pytest.approx(100 * hits / n)
    assert estimate.n == n
    assert estimate.high - estimate.low == pytest.approx(2 * estimate.half)


def test_few_rows_that_agree_are_not_taken_for_certainty():
    assert str(Estimate.share(4, 4)) == "100 (51 to 100)"  # Student's t: 100.0 ± 0.0
    assert str(Estimate.share(1, 4)) == "25 (5 to 70)"  # Student's t: 25.0 ± 79.6
    assert str(Estimate.share(3, 4)) == "75 (30 to 95)"
    assert str(Estimate.share(450, 600)) == "75.0 (71.4 to 78.3)"


@pytest.mark.parametrize(("hits", "n"), [(5, 4), (-1, 4), (0, 0)])
def test_a_share_that_cannot_be_is_refused(hits, n):
    with pytest.raises(DataError, match=f"got {hits} of {n}"):
        Estimate.share(hits, n)


@pytest.mark.parametrize(
    ("cells", "n", "low", "high"),
    [
        ((12, 2), 50, 0.0611, 0.3447),
        ((0, 0), 4, -0.4899, 0.4899),
        ((5, 0), 10, 0.0837, 0.7634),
    ],
)
def test_tangos_interval_turns_round_with_the_table(cells, n, low, high):
    assert shares.tango(*cells, n) == pytest.approx((low, high), abs=5e-5)
    assert shares.tango(*cells[::-1], n) == pytest.approx((-high, -low), abs=5e-5)


@pytest.mark.parametrize("cells", list(itertools.product(range(0, 13, 3), range(0, 13, 4))))
def test_tangos_ends_are_where_the_likelihood_under_the_difference_puts_them(cells):
    """The score with its nuisance share found by maximising the likelihood, which the closed form must equal."""
    won, lost, n = *cells, 25
    grid = np.linspace(0, 1, 200_001)
    for end in shares.tango(won, lost, n):
        theirs = grid[(grid + end >= 0) & (2 * grid + end <= 1)]
        ours, same = theirs + end, 1 - 2 * theirs - end
        with np.errstate(divide="ignore", invalid="ignore"):
            told = [np.where(k > 0, k * np.log(np.maximum(p, 0)), 0.0) for k, p in
                    ((won, ours), (lost, theirs), (n - won - lost, same))]  # fmt: skip
        q = theirs[np.argmax(sum(told))]
        z = ((won - lost) / n - end) / np.sqrt((2 * q + end - end**2) / n)
        assert abs(z) == pytest.approx(1.96, abs=2e-3)


@pytest.mark.parametrize("n", [4, 30])
def test_it_holds_zero_where_mcnemars_test_finds_nothing(n):
    for won, lost in itertools.product(range(n + 1), range(n + 1)):
        if won + lost <= n:
            ours = [1] * won + [0] * (n - won)
            theirs = [0] * won + [1] * lost + [0] * (n - won - lost)
            if won + lost:
                found = (won - lost) ** 2 / (won + lost) > stats.chi2.ppf(0.95, 1)
                assert paired_share(ours, theirs).excludes_zero == found


@pytest.mark.parametrize(
    ("n", "share", "gain"), [(5, 0.3, 0.1), (8, 0.2, 0.0), (20, 0.1, 0.05), (30, 0.1, 0.02)]
)
def test_intervals_of_differences_hold_the_truth_about_95_times_in_100(n, share, gain):
    """By exact sums over all tables."""
    p = (share + gain, share, 1 - 2 * share - gain)
    held = whole = 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            counts = (won, lost, n - won - lost)
            weight = (
                math.comb(n, won)
                * math.comb(n - won, lost)
                * math.prod(q**k for q, k in zip(p, counts, strict=True))
            )
            low, high = shares.tango(won, lost, n)
            held += weight * (low <= gain <= high)
            whole += weight
    assert whole == pytest.approx(1)
    assert 0.93 <= held <= 0.995


def test_paired_outcomes_count_as_right_whatever_they_are_written_with():
    ours, theirs = [100.0, 0, 100, 100], [0, 0, 100.0, 0]
    estimate = paired_share(ours, theirs)
    assert (estimate.mean, estimate.n) == (50, 4)
    assert estimate == paired_share(np.array(ours) > 0, np.array(theirs) > 0)
    assert paired_share([1, 1], [1, 1]).low < 0 < paired_share([1, 1], [1, 1]).high
    with pytest.raises(DataError, match="same rows, got 2 and 3"):
        paired_share([1, 0], [1, 0, 1])


@pytest.mark.parametrize(
    ("cells", "n", "text"),
    [
        ((1, 0), 4, "+25 (-36 to +70)"),
        ((0, 0), 4, "+0 (-49 to +49)"),
        ((30, 10), 1000, "+2.0 (+0.8 to +3.4)"),
        ((9, 2), 100, "+7 (+1 to +15)"),
        ((8, 2), 100, "+6.0 (-0.2 to +13.4)"),
        ((45, 27), 2000, "+0.9 (+0.1 to +1.8)"),
    ],
)
def test_a_signed_interval_reads_as_what_it_claims(cells, n, text):
    won, lost = cells
    ours = [1] * won + [0] * (n - won)
    estimate = paired_share(ours, [0] * won + [1] * lost + [0] * (n - won - lost))
    assert estimate.text(sign=True) == text


# In reports


def judged() -> Report:
    report = Report("Four rows", seeds=[0], shares=("accuracy",))
    report.add("frozen", {"accuracy": [100, 0, 0, 0]}, baseline=True)
    report.add("ours", {"accuracy": [100, 100, 100, 100]})
    report.curves = {"ours": {1: Estimate.share(3, 4), 5: Estimate.share(4, 4)}}
    return report


def test_a_report_of_rows_right_or_wrong_has_their_intervals_and_comes_back_equal():
    report = judged()
    assert report.rows[1].metrics["accuracy"] == Estimate.share(4, 4)
    assert report.gain(report.rows[1], "accuracy") == paired_share([1, 1, 1, 1], [1, 0, 0, 0])
    assert "100 (51 to 100)" in report.to_markdown()
    assert "Wilson" in report.to_markdown()
    assert "Student" not in report.to_markdown()
    again = Report.from_json(report.to_json())
    assert again == report
    assert card.markdown(again) == card.markdown(report)
    assert picture.bars(report)[:4] == b"\x89PNG"
    assert picture.curves("T", report.curves)[:4] == b"\x89PNG"


def test_a_report_written_before_there_were_shares_is_read():
    content = json.loads(judged().to_json())
    del content["shares"]
    content["rows"][1]["metrics"]["accuracy"] = [75.0, 2.0, 9]
    again = Report.from_json(json.dumps(content))
    assert again.shares == ()
    assert again.rows[1].metrics["accuracy"] == Estimate(75.0, 2.0, 9)


def test_a_share_that_is_a_mean_is_refused():
    with pytest.raises(DataError, match="each score is 0 or 100; got 50"):
        judged().add("third", {"accuracy": [100, 50, 0, 0]})


def test_bounds_come_back_from_json_as_they_were():
    estimate = Estimate.share(3, 4)
    assert Estimate(**json.loads(json.dumps(estimate.__dict__))) == estimate
