"""Intervals that hold what they promise, verdicts that claim no more, reports that come back equal."""

import io
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from quickstudy.core import picture
from quickstudy.core.errors import DataError, MissingExtra, QuickstudyError
from quickstudy.core.estimate import Estimate, paired
from quickstudy.core.report import Report, Row, environment

finite = st.floats(-1e6, 1e6)


def show(report: Report, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report.table())
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def example(gain: float = 1.0, seed: int = 0, episodes: int = 200) -> Report:
    """A baseline and a method that is better by `gain` on average, on the same episodes."""
    random = np.random.default_rng(seed)
    easy = random.normal(80, 10, episodes)
    report = Report("A task", seeds=[0], settings={"shots": 5})
    report.add("centroid", {"accuracy": easy}, baseline=True)
    report.add("ours", {"accuracy": easy + gain + random.normal(0, 2, episodes)})
    return report


# Intervals of means


@given(st.lists(finite, min_size=2, max_size=30))
def test_agrees_with_scipy(values):
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    spread = stats.sem(values)
    expected = spread * stats.t.ppf(0.975, len(values) - 1)
    assert estimate.half == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert estimate.n == len(values)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_95_of_100_intervals_hold_the_truth(n):
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, n))
    hits = sum((e := Estimate.of(row)).low <= 3.0 <= e.high for row in draws)
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_over_groups_covers_the_mean_of_new_groups_where_the_plain_interval_does_not():
    random = np.random.default_rng(1)
    plain = grouped = 0
    for _ in range(1000):
        groups = random.normal(80, 3, 5)[:, None] + random.normal(0, 8, (5, 100))
        over_episodes, over_splits = Estimate.of(groups.ravel()), Estimate.over_groups(groups)
        assert over_splits.mean == pytest.approx(over_episodes.mean)
        assert over_splits.n == 5
        plain += over_episodes.low <= 80 <= over_episodes.high
        grouped += over_splits.low <= 80 <= over_splits.high
    assert grouped / 1000 == pytest.approx(0.95, abs=0.025)
    assert plain / 1000 < 0.6


def test_pairing_finds_the_difference_that_the_episodes_hide():
    random = np.random.default_rng(2)
    hits = seen = 0
    for _ in range(1000):
        easy = random.normal(80, 10, 50)
        ours = easy + 1 + random.normal(0, 1, 50)
        difference = paired(ours, easy)
        hits += difference.low <= 1 <= difference.high
        seen += difference.excludes_zero
        assert Estimate.of(ours).low < Estimate.of(easy).high  # apart they overlap
    assert hits / 1000 == pytest.approx(0.95, abs=0.025)
    assert seen == 1000


def test_a_difference_that_is_not_there_is_claimed_in_5_of_100():
    draws = np.random.default_rng(3).normal(0, 1, (2000, 2, 30))
    claims = sum(paired(a, b).excludes_zero for a, b in draws)
    assert claims / 2000 == pytest.approx(0.05, abs=0.017)


def test_one_value_has_no_interval_and_claims_nothing():
    estimate = Estimate.of([3.0])
    assert math.isnan(estimate.half)
    assert not estimate.excludes_zero
    assert str(estimate) == "3.0"


def test_tensors_and_arrays_are_values_too():
    assert Estimate.of(torch.tensor([1.0, 3.0])) == Estimate.of(np.array([1.0, 3.0])) == Estimate.of([1, 3])
    assert paired(torch.ones(3), [0, 0, 0]) == Estimate(1.0, 0.0, 3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "no scores"),
        ([1.0, float("nan")], "score 1 of 2 is nan"),
        ([float("inf")], "is inf"),
        ([[1.0]], "flat sequence"),
        (["x"], "flat sequence"),
    ],
)
def test_bad_scores_are_named(values, says):
    with pytest.raises(DataError, match=says):
        Estimate.of(values)


def test_unequal_pairs_are_refused():
    with pytest.raises(DataError, match="same episodes, got 2 and 3"):
        paired([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("estimate", "sign", "text"),
    [
        (Estimate(87.44, 0.61, 600), False, "87.4 ± 0.6"),
        (Estimate(87.44, 0.034, 600), False, "87.44 ± 0.03"),
        (Estimate(20.0, 0.0, 600), False, "20.0 ± 0.0"),
        (Estimate(0.52, 0.21, 9), True, "+0.5 ± 0.2"),
        (Estimate(-0.52, 0.21, 9), True, "-0.5 ± 0.2"),
        (Estimate(0.25, 0.24, 9), True, "+0.25 ± 0.24"),  # '+0.2 ± 0.2' would read as if it held 0
        (Estimate(-0.0, 0.5, 9), True, "+0.0 ± 0.5"),
    ],
)
def test_is_written_as_people_write_it(estimate, sign, text):
    assert estimate.text(sign=sign) == text


# Verdicts


def test_the_best_row_is_named_with_its_gain():
    verdict = example(1.0).verdict()
    assert verdict.startswith("ours is best (accuracy 8")
    assert "against centroid" in verdict
    assert "over 200 paired episodes" in verdict


def test_a_baseline_that_wins_is_said_to_win():
    assert example(-1.0).verdict().startswith("No gain: the baseline centroid is best")


def test_nothing_is_claimed_without_a_difference():
    verdict = example(0.0).verdict()
    assert verdict.startswith("Nothing can be told apart: ")
    assert "ours" in verdict
    assert "centroid" in verdict


def test_nothing_is_claimed_without_paired_scores():
    rows = [
        Row("centroid", {"acc": Estimate(50.0, 0.1, 600)}, baseline=True),
        Row("ours", {"acc": Estimate(90.0, 0.1, 600)}),
    ]
    assert "Nothing can be told apart" in Report("T", rows).verdict()
    assert "not scored on the same episodes" in Report("T", rows).verdict()


def test_two_that_tie_may_still_beat_the_baselines():
    report = example(3.0)
    ours = report.per_task["accuracy"]["ours"]
    report.add("twin", {"accuracy": ours + np.random.default_rng(5).normal(0, 2, 200)})
    verdict = report.verdict()
    assert verdict.startswith("No row is best alone: ")
    assert "does beat every baseline (+" in verdict
    report = example(0.0)
    report.add("chance", {"accuracy": np.random.default_rng(5).normal(20, 2, 200)}, baseline=True)
    assert "No proven gain" in report.verdict() or "beat every baseline" not in report.verdict()


def test_lower_can_be_better():
    random = np.random.default_rng(0)
    report = Report("T", lower_is_better=("ECE",))
    report.add("centroid", {"ECE": random.uniform(0.10, 0.12, 50)}, baseline=True)
    report.add("ours", {"ECE": random.uniform(0.01, 0.03, 50)})
    assert report.verdict().startswith("ours is best (ECE 0.02")
    assert "; -0.0" in report.verdict()


def test_one_row_or_none_has_no_rival():
    assert "nothing to compare" in Report("T", [Row("ours", {"acc": Estimate(50.0, 1.0, 9)})]).verdict()
    assert Report("T").verdict() == "Nothing was measured."


def test_a_win_without_a_difference_is_claimed_in_5_of_100_at_most():
    claims = sum("is best (" in example(0.0, seed, 40).verdict() for seed in range(600))
    assert claims / 600 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_the_order_of_rows_does_not_change_the_verdict():
    report = example(1.0)
    turned = Report("A task", report.rows[::-1], per_task=report.per_task)
    assert turned.verdict() == report.verdict()


def test_a_name_stands_once():
    report = example()
    with pytest.raises(DataError, match='a row "ours" already'):
        report.add("ours", {"accuracy": [1.0]})


def test_lists_of_lists_are_class_splits():
    report = Report("T")
    row = report.add("ours", {"acc": [[80, 82], [60, 62], [70, 72]]})
    assert row.metrics["acc"] == Estimate.of([80, 82, 60, 62, 70, 72])
    assert row.splits["acc"] == Estimate.of([81, 61, 71])
    assert report.per_task["acc"]["ours"] == [80, 82, 60, 62, 70, 72]


# Table, card, JSON, files


def full() -> Report:
    report = example()
    report.add("third | <b>[bold]x[/bold]</b> `$x_1$`", {"accuracy": [50.0], "ECE": [0.5]}, note="one\nline")
    report.rows[1].splits["accuracy"] = Estimate(81.0, 2.0, 5)
    report.curves = {
        "centroid": {1: Estimate(70.0, 1.0, 9), 10: Estimate(80.0, 1.0, 9)},
        "ours": {1: Estimate(75.0, 2.0, 9)},
    }
    report.lower_is_better = ("ECE",)
    report.settings = {"encoder": "größe", "nested": {"a": [1, None, True]}}
    return report


def test_json_gives_an_equal_report():
    report = full()
    again = Report.from_json(report.to_json())
    assert again == report
    assert again.to_json() == report.to_json()
    assert math.isnan(again.rows[2].metrics["accuracy"].half)


@given(
    st.dictionaries(st.text(min_size=1), st.lists(finite, min_size=1, max_size=5), min_size=1, max_size=4),
    st.text(),
)
def test_any_report_comes_back(scores, title):
    report = Report(title, seeds=[1, 2], environment={"cores": 2})
    report.add("a", scores)
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "verdict": ""}',
        '{"format": NaN}',
        "[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(DataError, match="report"):
        Report.from_json(text)


def test_extra_or_missing_fields_are_refused():
    content = json.loads(full().to_json())
    with pytest.raises(DataError, match="surprise"):
        Report.from_json(json.dumps({**content, "surprise": 1}))
    content["rows"][0]["metrics"]["accuracy"] = [1, 2]
    with pytest.raises(DataError, match="not a report"):
        Report.from_json(json.dumps(content))


def test_the_table_shows_every_number_and_names_as_they_are():
    report = full()
    shown = show(report)
    assert "[bold]x[/bold]" in shown
    assert "centroid (baseline)" in shown
    for row in report.rows:
        assert row.metrics["accuracy"].text() in shown
    assert "81.0 ± 2.0" in shown
    assert report.gain(report.rows[1], "accuracy").text(sign=True) in shown
    assert " ".join(report.verdict().split()) in " ".join(shown.split())
    show(report, width=30)
    show(Report("empty"))


def test_the_card_holds_the_table_whatever_the_names():
    card = full().to_markdown()
    table = [line for line in card.split("\n## ")[0].splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3
    bars = {line.replace("\\|", "").count("|") for line in table}
    assert len(bars) == 1
    assert "<b>" not in card
    assert example().verdict() in example().to_markdown()
    assert "| encoder | größe |" in card
    assert "cores" in card


def test_saved_files_are_whole_and_say_the_same(tmp_path):
    report = full()
    files = report.save(tmp_path / "new" / "report")
    assert sorted(path.name for path in files) == ["curve.png", "report.json", "report.md", "report.png"]
    assert sorted(os.listdir(tmp_path / "new" / "report")) == sorted(path.name for path in files)
    assert Report.from_json(files[0].read_bytes()) == report
    assert files[1].read_text(encoding="utf-8") == report.to_markdown()
    for path in files[2:]:
        width, height = size(path.read_bytes())
        assert width > 600
        assert height > 300
    report.title = "Again"
    report.save(tmp_path / "new" / "report", picture=False)
    assert Report.from_json(files[0].read_bytes()).title == "Again"


def test_a_report_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QuickstudyError, match="cannot save"):
        example().save(tmp_path / "file", picture=False)


@pytest.mark.parametrize(
    "report",
    [
        Report("One row", [Row("ours", {"acc": Estimate(50.0, 1.0, 9)})]),
        Report(
            "One episode",
            [Row("a", {"R²": Estimate(-0.2, math.nan, 1)}, baseline=True),
             Row("b", {"R²": Estimate(0.4, math.nan, 1)})],
        ),
        Report("All zero",
               [Row("a", {"acc": Estimate(0.0, 0.0, 5)}, baseline=True), Row("b", {"acc": Estimate(0.0, 0.0, 5)})]),
        Report("$\\frac{" * 30,
               [Row("長い名前" * 20, {"a$": Estimate(5.0, 1.0, 9)}), Row("$x_", {"other": Estimate(1.0, 2.0, 3)})]),
    ],
    ids=lambda report: report.title[:10],
)  # fmt: skip
def test_odd_reports_are_drawn_too(report):
    width, height = size(picture.bars(report))
    assert width > 600
    assert height > 300


def test_a_baseline_looks_different_from_ours():
    as_baseline, as_ours = (
        picture.bars(Report("T", [Row("x", {"acc": Estimate(50.0, 1.0, 9)}, baseline=flag)]))
        for flag in (True, False)
    )
    assert as_baseline != as_ours


def test_the_same_report_gives_the_same_picture():
    assert picture.bars(example()) == picture.bars(example())


def test_without_matplotlib_the_extra_is_named_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"quickstudy\[plot\]"):
        example().save(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    example().save(tmp_path / "report", picture=False)


def test_environment_tells_no_path_and_no_host():
    found = environment()
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == str(torch.__version__)
    text = json.dumps(found)
    assert platform.node() not in found.values()
    assert "/" not in text


def test_importing_the_report_loads_nothing_heavy():
    heavy = ["torch", "scipy", "matplotlib", "rich"]
    code = f"import sys, quickstudy.core.report; print([m for m in {heavy} if m in sys.modules])"
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
