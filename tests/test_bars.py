"""Bars against run files: what is met, what falls short, and that a run file is what the house says it is."""

import json
import subprocess

import pytest
from rich.console import Console

from quickstudy.bench import bars as bench
from quickstudy.bench.bars import (
    as_json,
    as_markdown,
    as_table,
    check,
    load_bars,
    load_runs,
    summary,
    write_run,
)
from quickstudy.core.errors import DataError

ROW = {
    "id": "kg.4.1",
    "value": 41.2,
    "ci95": [39.8, 42.6],
    "unit": "F1",
    "n": 600,
    "seeds": [0],
    "baselines": {"token logistic regression": 24.6},
    "command": "quickstudy bench kg --only crossner",
    "seconds": 212,
}
RUN = {
    "suite": "kg",
    "commit": "abc",
    "date": "2026-11-21",
    "machine": {"cores": 2, "torch": "2.13.0"},
    "rows": [ROW],
}
GAIN = {"value": 0.7, "ci95": [0.4, 1.0], "over": "frozen centroid"}


def bar(**fields):
    return bench.Bar(**{"id": "kg.4.1", "what": "spans", "unit": "F1", "better": "bigger", **fields})


def write(folder, run=RUN, name="kg.json", **changes):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({**run, **changes}))
    return folder


def status(folder, the_bar, **changes):
    [only] = check([the_bar], load_runs(write(folder, rows=[{**ROW, **changes}])))
    return only.status, only.reason


def test_the_committed_bars_cover_every_figure_of_the_table():
    ids = [b.id for b in load_bars()]
    assert [i for i in ids if i.startswith("core.")] == [
        "core.1.1", "core.1.2", "core.2.1", "core.2.2", "core.3.1", "core.3.2", "core.4.1", "core.4.2", "core.5.1",
        "core.5.2", "core.6.1", "core.7.1", "core.8.1", "core.9.1", "core.9.2", "core.10.1",
    ]  # fmt: skip


def test_the_committed_runs_are_valid_and_in_the_units_of_their_bars():
    checks = check(load_bars(), load_runs())
    assert [c.id for c in checks if "measured in" in c.reason] == []


def test_the_run_file_of_the_architecture_is_read_as_it_stands(tmp_path):
    [run] = load_runs(write(tmp_path))
    assert run.rows[0].model_dump(mode="json", exclude_none=True) == ROW


@pytest.mark.parametrize(
    ("value", "expected"),
    [(49.9, "short"), (50, "bar met"), (54.9, "bar met"), (55, "aim met"), (60, "aim met")],
)
def test_bigger_is_better_reaches_the_bar(tmp_path, value, expected):
    the_bar = bar(at_least=50, aim=55)
    assert status(tmp_path, the_bar, value=value, ci95=None)[0] == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(5, "short"), (4.99, "bar met"), (1, "bar met"), (0.99, "aim met")]
)
def test_smaller_is_better_stays_below_the_bar(tmp_path, value, expected):
    the_bar = bar(at_least=5, aim=1, better="smaller")
    assert status(tmp_path, the_bar, value=value, ci95=None)[0] == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(-1.1, "short"), (-1, "bar met"), (0, "bar met"), (0.1, "aim met")]
)
def test_an_aim_to_be_passed_is_not_met_by_reaching_it(tmp_path, value, expected):
    the_bar = bar(at_least=-1, aim=0, above_aim=True)
    assert status(tmp_path, the_bar, value=value, ci95=None)[0] == expected


@pytest.mark.parametrize(
    ("value", "gain", "expected"),
    [
        (41.2, {**GAIN, "value": 0.49}, "short"),
        (41.2, {**GAIN, "value": 0.5}, "bar met"),
        (41.2, None, "short"),
        (42.0, GAIN, "aim met"),
        (42.0, {**GAIN, "value": 0.4}, "short"),  # an aim doesn't make up for a missed gain
    ],
)
def test_a_gain_is_held_to_its_own_bar(tmp_path, value, gain, expected):
    assert status(tmp_path, bar(gain_at_least=0.5, aim=42), value=value, gain=gain)[0] == expected


def test_a_bar_with_nothing_but_an_aim_is_never_short(tmp_path):
    assert status(tmp_path, bar(aim=0.2, better="smaller"))[0] == "bar met"


def test_a_figure_in_another_unit_is_short_and_says_so(tmp_path):
    assert status(tmp_path, bar(at_least=0.4), unit="fraction") == (
        "short",
        'measured in "fraction", the bar is in "F1"',
    )


def test_what_was_not_run_and_what_has_no_bar_are_both_listed(tmp_path):
    checks = check([bar(id="kg.5.1", aim=1)], load_runs(write(tmp_path)))
    assert [(c.id, c.status) for c in checks] == [("kg.5.1", "not run"), ("kg.4.1", "no bar")]
    assert summary(checks) == "0 of 1 bars met, 0 of them with the aim; not run: kg.5.1"


def test_the_three_outputs_show_figure_interval_gain_and_status(tmp_path):
    rows = [{**ROW, "gain": GAIN}, {**ROW, "id": "kg.4.2", "value": 0.031, "ci95": [0.03, 0.04]}]
    checks = check(
        [bar(gain_at_least=0.5), bar(id="kg.4.2", at_least=0.05)], load_runs(write(tmp_path, rows=rows))
    )
    table = "".join(segment.text for segment in Console(width=200).render(as_table(checks)))
    for text in (table, as_markdown(checks)):
        assert "41.2 ± 1.4, gain +0.7 ± 0.3 over frozen centroid F1" in text
        assert "0.031 [0.03, 0.04] F1" in text
        assert "bar met" in text and "short" in text
    assert "0.031 is not ≥ 0.05" in table
    assert [(c["id"], c["value"], c["status"]) for c in json.loads(as_json(checks))] == [
        ("kg.4.1", 41.2, "bar met"),
        ("kg.4.2", 0.031, "short"),
    ]


def test_markdown_cells_survive_a_vertical_bar(tmp_path):
    text = as_markdown(check([bar(what="a|b", aim=1)], []))
    assert r"a\|b" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "rows.0.value: .*finite"),
        ({"value": "41.2"}, "rows.0.value: .*number"),
        ({"value": True}, "rows.0.value"),
        ({"ci95": [42.6, 39.8]}, "rows.0.ci95: .*lower bound"),
        ({"value": 50.0}, "outside its interval"),
        ({"secnods": 1}, 'rows.0.secnods: .*Did you mean "seconds"'),
        ({"n": 0}, "rows.0.n"),
        ({"command": ""}, "rows.0.command"),
        ({"id": "KG 4"}, "rows.0.id"),
        ({"gain": {"value": 1}}, "rows.0.gain.over: .*required"),
    ],
)
def test_an_invalid_row_is_refused_naming_file_and_field(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as caught:
        load_runs(write(tmp_path, rows=[{**ROW, **change}]))
    assert caught.value.file == "kg.json"


def test_a_run_file_is_refused_when_broken_misnamed_doubled_or_without_a_date(tmp_path):
    for number, (changes, message) in enumerate(
        [
            ({"suite": "text"}, 'expected "kg"'),
            ({"rows": [ROW, ROW]}, "kg.4.1 stands there twice"),
            ({"date": "yesterday"}, "date: .*isoformat"),
            ({"machine": {"cores": 2}}, "machine.torch: .*required"),
        ]
    ):
        with pytest.raises(DataError, match=message):
            load_runs(write(tmp_path / str(number), **changes))
    (tmp_path / "kg.json").write_text('{"suite": "kg"')
    with pytest.raises(DataError, match=r"kg\.json: .*JSON"):
        load_runs(tmp_path)


def test_a_row_in_two_suites_is_refused(tmp_path):
    write(tmp_path)
    write(tmp_path, name="text.json", suite="text")
    with pytest.raises(DataError, match=r"text\.json: row kg\.4\.1 is also in kg\.json"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[bar]]\nid = "a.1.1"\nwhat = "w"\nunit = "u"\nbetter = "bigger"\n', "row a.1.1: .*at_least"),
        ('[[bar]]\nid = "a.1.1"\nwhat = "w"\nunit = "u"\nbetter = "up"\naim = 1\n', "row a.1.1: better"),
        (2 * '[[bar]]\nid = "a.1.1"\nwhat = "w"\nunit = "u"\nbetter = "bigger"\naim = 1\n', "a.1.1: .*twice"),
        ("[[bar]\n", "no valid TOML"),
    ],
)
def test_invalid_bars_are_refused_naming_the_row(tmp_path, text, message):
    (tmp_path / "bars.toml").write_text(text)
    with pytest.raises(DataError, match=rf"bars\.toml.*{message}"):
        load_bars(tmp_path / "bars.toml")


def test_a_written_run_is_read_back_with_commit_date_and_machine(tmp_path):
    path = write_run("kg", [ROW], tmp_path / "runs")
    [run] = load_runs(path.parent)
    assert run.rows[0].model_dump(mode="json", exclude_none=True) == ROW
    assert run.machine.cores >= 1 and run.machine.torch[0].isdigit() and "+" not in run.machine.torch
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert run.commit.removesuffix("+changes") in {head, "unknown"}


def test_a_second_run_replaces_its_own_rows_and_marks_the_others_with_their_origin(tmp_path):
    write(tmp_path, rows=[ROW, {**ROW, "id": "kg.10.1"}, {**ROW, "id": "kg.9.1"}])
    write_run("kg", [{**ROW, "value": 42.0}], tmp_path)
    [run] = load_runs(tmp_path)
    assert [(row.id, row.value) for row in run.rows] == [
        ("kg.4.1", 42.0),
        ("kg.9.1", 41.2),
        ("kg.10.1", 41.2),
    ]
    assert (run.rows[0].commit, run.rows[0].date, run.rows[0].machine) == (None, None, None)
    assert (run.rows[1].commit, run.rows[1].date, run.rows[1].machine.torch) == (
        "abc",
        "2026-11-21",
        "2.13.0",
    )
    # A third run must not give the old rows the second one's origin.
    write_run("kg", [{**ROW, "value": 42.5}], tmp_path)
    [run] = load_runs(tmp_path)
    assert (run.rows[1].commit, run.rows[1].date) == ("abc", "2026-11-21")


@pytest.mark.parametrize(
    "change",
    [
        {"command": "quickstudy bench kg --data /srv/data"},
        {"command": "QUICKSTUDY_DATA=/srv/data quickstudy bench kg"},
        {"command": "quickstudy bench kg --data ~/data"},
        {"note": "read from C:\\data"},
    ],
)
def test_a_path_of_this_machine_is_not_written(tmp_path, change):
    with pytest.raises(DataError, match="is a path of this machine"):
        write_run("kg", [{**ROW, **change}], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_row_leaves_the_file_as_it_was(tmp_path):
    write(tmp_path)
    before = (tmp_path / "kg.json").read_bytes()
    for rows in ([{**ROW, "value": float("inf")}], [ROW, ROW]):
        with pytest.raises(DataError):
            write_run("kg", rows, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kg.json"]
    assert (tmp_path / "kg.json").read_bytes() == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (87.4, "87.4"),
        (87.456, "87.46"),
        (0.0321, "0.032"),
        (0.00015, "0.00015"),
        (1e-12, "1e-12"),
        (-2.34e-16, "-2.3e-16"),
        (0, "0"),
        (1250, "1,250"),
        (-0.5, "-0.5"),
        (0.2, "0.2"),
    ],
)
def test_figures_are_short(value, shown):
    assert bench.figure(value) == shown
