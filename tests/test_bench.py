"""The text benchmark: its figures on cases worked out by hand, its suites on small made-up data, its errors."""

import gzip
import io
import itertools
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from quickstudy.bench import data as published
from quickstudy.bench import peers, product, setfit_run, text, text_episodes, text_play, text_ways
from quickstudy.bench.data import ClassSplit
from quickstudy.bench.runs import load_runs, write_run
from quickstudy.core.calibration import Answers, expected_error
from quickstudy.core.errors import DataError, MissingExtra
from quickstudy.core.report import Report
from quickstudy.domains.text.prior import encoder_for
from quickstudy.domains.text.read import Examples

# -- calibration


def test_calibration_error_by_hand():
    # Two bins of 15 are used: (.8667, .9333] holds .9 .9 .9 with two right, (.4667, .5333] holds .5 with none right.
    # 3/4 · |.9 - 2/3| + 1/4 · |.5 - 0| = .175 + .125
    assert expected_error([0.9, 0.9, 0.9, 0.5], [True, True, False, False]) == pytest.approx(0.3)


def test_calibration_error_of_perfect_and_of_worst_answers():
    assert expected_error([1.0, 1.0], [True, True]) == 0
    assert expected_error([1.0, 1.0], [False, False]) == 1
    assert expected_error([0.0], [False]) == 0


def test_a_bin_ends_with_its_upper_edge():
    # 1/3 is the upper edge of the fifth of 15 bins; .30 is in it, .34 is not: gaps don't cancel over the edge.
    assert expected_error([0.30, 1 / 3], [True, False]) == pytest.approx(abs(0.7 - 1 / 3) / 2)
    assert expected_error([0.34, 1 / 3], [True, False]) == pytest.approx((0.66 + 1 / 3) / 2)


def test_answers_are_pooled_not_averaged():
    one, other = Answers(np.array([0.9]), np.array([1.0])), Answers(np.array([0.9]), np.array([0.0]))
    assert Answers.pooled([one, other]).ece == pytest.approx(0.4)
    assert (one.ece + other.ece) / 2 == pytest.approx(0.5)


@pytest.mark.parametrize(("p", "right"), [([], []), ([0.5], [1, 0]), ([1.2], [1]), ([float("nan")], [1])])
def test_what_is_no_probability_is_refused(p, right):
    with pytest.raises(DataError):
        expected_error(p, right)


def test_the_worst_of_core_1_and_core_3_is_core_8():
    errors = {"core.1 5-way 1-shot": 0.02, "core.3 77-way 5-shot": 0.03, "core.4 5-way 1-shot": 0.5}
    row = text.calibration(errors, 1.0, 0)
    assert row["id"] == "core.8.1" and row["value"] == 0.03 and "core.4 5-way 1-shot 0.5" in row["note"]


# -- suites on made-up data


def intents(prefix: str, classes: int, each: int, seed: int) -> Examples:
    """Classes with words of their own among common ones; no sentence occurs twice."""
    draw, syllables = random.Random(seed), [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    texts, labels, seen = [], [], set()
    common = ["please", "now", "the", "my", "it", "can", "how", "when"]
    for number in range(classes):
        own = ["".join(draw.choices(syllables, k=3)) for _ in range(4)]
        made = 0
        while made < each:
            sentence = " ".join(draw.sample(own, 2) + draw.sample(common, 3))
            if sentence not in seen:
                seen.add(sentence)
                texts.append(sentence)
                labels.append(f"{prefix}_{own[0]}_{'abcdefghijklmnopqrstuvwxyz'[number]}")
                made += 1
    return Examples(texts, labels, source=prefix)


PAST = intents("past", 12, 12, 0)
FULL = intents("bank", 17, 32, 1)
SPLITS = [ClassSplit(f"split {i}", FULL.classes[:5], FULL.classes[5:11], FULL.classes[11:]) for i in (1, 2)]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A setting whose encoder caches in a folder of the test's, and what it showed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        encoder_for.cache_clear()
        screen = io.StringIO()
        made = text_play.Setting(
            show=Console(width=200, file=screen).print, quick=True, tune=False, encoder="tiny-bert"
        )
        made.__dict__["screen"] = screen
        yield made
        encoder_for.cache_clear()


def valid_rows(rows, folder):
    """The ids, once the rows went through the run file's own checks."""
    write_run("text", rows, folder)
    [run] = load_runs(folder)
    return [row.id for row in run.rows]


@pytest.mark.slow
def test_episode_suites_on_banking77s_form(setting, tmp_path):
    leak = Examples([*PAST.texts, FULL.texts[0].upper()], [*PAST.labels, PAST.labels[0]], source="past")
    found = text_episodes.banking77(setting, leak, PAST, FULL, SPLITS)
    ids = valid_rows(found.rows, tmp_path)
    assert ids == [
        f"core.{row}.{what}" for row in (1, 2) for what in ("1", "1.names", "2", "2.names", "leaks")
    ]
    rows = {row["id"]: row for row in found.rows}
    # The untrained encoder finds everything alike, so near duplicates leave with the one sentence that is the same.
    assert rows["core.1.leaks"]["value"] >= 1 and "1 equal but for case" in rows["core.1.leaks"]["note"]
    assert all(rows[id]["gain"]["over"] == "frozen centroid" for id in ("core.1.1", "core.2.2"))
    assert rows["core.1.1.names"]["gain"]["over"] == "frozen centroid + name"
    assert rows["core.1.1"]["value"] > 30  # chance is 20
    assert set(found.calibration) == {f"core.{row} 5-way {k}-shot" for row in (1, 2) for k in (1, 5)}
    assert "CLINC150 without banking" in rows["core.1.1"]["note"]
    assert "frozen logistic regression + name" in setting.screen.getvalue()


@pytest.mark.slow
def test_all_ways_through_the_classifier(setting, tmp_path):
    eight = published.only(FULL, FULL.classes[:8])  # fewer than it takes to tune the encoder on a task
    place = [i % 32 < 20 for i in range(len(eight))]
    train = published.take(eight, [i for i, first in enumerate(place) if first])
    test = published.take(eight, [i for i, first in enumerate(place) if not first])
    doubled = Examples([*train.texts, test.texts[0]], [*train.labels, test.labels[0]], source="bank")
    found = text_ways.all_ways(setting, PAST, doubled, test, shots=(2, 3))
    assert valid_rows(found.rows, tmp_path) == ["core.3.1", "core.3.2", "core.3.leaks"]
    rows = {row["id"]: row for row in found.rows}
    assert len(rows["core.3.1"]["baselines"]) == 4
    assert rows["core.3.1"]["value"] > 100 / 8 * 2
    assert "1 sentences of the training part stand in the test part" in rows["core.3.leaks"]["note"]
    assert set(found.calibration) == {"core.3 8-way 2-shot", "core.3 8-way 3-shot"}


@pytest.mark.slow
def test_huffposts_form_has_no_names(setting, tmp_path):
    found = text_episodes.huffpost(setting, FULL, SPLITS[0])
    assert valid_rows(found.rows, tmp_path) == ["core.4.1", "core.4.2", "core.4.leaks"]
    assert "no label names" in found.rows[1]["note"] and "25 queries" in found.rows[1]["note"]


def test_speed_is_measured_in_milliseconds(setting, tmp_path):
    found = text_ways.speed(setting, setting.teach([PAST]), FULL)
    [row] = found.rows
    assert valid_rows(found.rows, tmp_path) == ["core.6.1"]
    assert row["unit"] == "ms" and 0.01 < row["value"] < 1000


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(setting):
    one, two = (text_episodes.huffpost(setting, FULL, SPLITS[0]).rows[1:] for _ in range(2))
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in one]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in two]


def test_all_methods_play_the_same_episodes_of_the_classes_asked_for():
    episodes = text_play.index_episodes(FULL, SPLITS[0].test, shots=1, queries=15, episodes=40, seed=3)
    assert (
        len(episodes) == 2
        and episodes[0].support.x.shape == (20, 5)
        and episodes[0].query.x.shape == (20, 75)
    )
    for episode in episodes:
        for part in episode:
            labels = [[FULL.labels[i] for i in row] for row in part.x.tolist()]
            assert {label for row in labels for label in row} <= set(SPLITS[0].test)
            assert all(
                len({(a, b) for a, b in zip(row, y, strict=True)}) == 5
                for row, y in zip(labels, part.y.tolist(), strict=True)
            )
        assert not any(
            set(s) & set(q) for s, q in zip(episode.support.x.tolist(), episode.query.x.tolist(), strict=True)
        )


def test_a_name_stands_in_the_support_of_its_own_class(setting):
    """Names that are the classes' own features, and features that say nothing: only names can tell classes apart."""
    y = text_play.numbered(FULL).y
    features = torch.eye(len(FULL.classes))[y]
    query_only = features.clone()
    episodes = text_play.index_episodes(FULL, SPLITS[0].test, shots=1, queries=15, episodes=20, seed=0)
    for episode in episodes:
        query_only[episode.support.x.flatten()] = 1.0  # a support example is like every class
    names = torch.eye(len(FULL.classes)) * 50
    queries = torch.cat([e.query.x.flatten() for e in episodes])
    clean = (query_only[queries].sum(-1) == 1).double().mean()
    for told in (True, False):
        method, _ = text_play.baselines(query_only, names if told else None)
        score = np.mean(method.play(episodes, y).accuracy)
        assert (score > 90 * clean) if told else (score < 40)


# -- the rival


def test_pairs_are_counted_as_setfit_draws_them():
    labels = ["a", "a", "a", "b", "b", "c"]
    pairs = list(itertools.combinations_with_replacement(range(6), 2))
    same = sum(labels[i] == labels[j] for i, j in pairs)
    assert setfit_run.default_pairs(labels) == 2 * max(same, len(pairs) - same)
    assert setfit_run.default_pairs([str(i % 77) for i in range(385)]) == 146_300
    assert setfit_run.default_pairs([str(i % 77) for i in range(770)]) == 585_200


def test_both_rows_come_from_what_the_processes_gave():
    truth = ["a", "b", "c", "d"]
    mine = {"cpu_seconds": 2.0, "seconds": 3.0, "load_seconds": 1.0, "predictions": ["a", "b", "c", "x"],
            "chosen": "learned prior", "tune": "auto", "peak_mb": 600.0}  # fmt: skip
    probe = {"default_pairs": 32_000, "default_steps": 2000, "batch": 16, "step_cpu_seconds": [0.5, 0.5, 0.5],
             "step_seconds": [0.6, 0.6, 0.6]}  # fmt: skip
    theirs = {
        "cpu_seconds": 100.0,
        "steps": 200,
        "predictions": ["a", "x", "x", "d"],
        "peak_mb": 1400.0,
        "versions": {},
    }
    shared = {"command": "quickstudy bench text", "seconds": 1.0, "seeds": [0]}
    time, accuracy = peers._rows(mine, probe, theirs, truth, full=False, threads=1, shared=shared)
    assert time["value"] == 2000 * 0.5 / 2 and time["n"] == 3 and "PROJECTED" in time["note"]
    assert accuracy["value"] == 25.0 and accuracy["baselines"] == {"SetFit": 50.0}
    assert "50.0× ours" in accuracy["note"] and "200 steps of the 2,000 of its default" in accuracy["note"]
    assert "NOT measured" in accuracy["note"]
    time, _ = peers._rows(mine, probe, theirs, truth, full=True, threads=1, shared=shared)
    assert time["value"] == 50 and "PROJECTED" not in time["note"] and "ci95" not in time


@pytest.mark.slow
def test_our_side_runs_in_a_process_of_its_own(setting, tmp_path):
    setting.teach([PAST]).save(tmp_path / "prior")
    own = published.only(FULL, FULL.classes[:3])
    job = {"texts": own.texts[:64], "labels": own.labels[:64], "test": own.texts[-32:], "threads": 1, "seed": 0,
           "tune": False, "prior": str(tmp_path / "prior"), "cache": str(tmp_path / "cache")}  # fmt: skip
    found = peers._child(sys.executable, ["-m", "quickstudy.bench.peers"], tmp_path, job, 1)
    assert len(found["predictions"]) == 32 and set(found["predictions"]) <= set(own.labels)
    assert found["seconds"] > 0 and 50 < found["peak_mb"] < 20_000
    assert (tmp_path / "cache" / "embeddings.sqlite").exists()  # it began with an empty cache of its own


def test_setfit_missing_names_the_extra(monkeypatch):
    monkeypatch.delenv(peers.PYTHON, raising=False)
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"quickstudy\[setfit\]"):
        peers.setfit_python()


# -- data and command line


def test_without_a_data_folder_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    with pytest.raises(DataError, match=r"--data FOLDER or set QUICKSTUDY_DATA"):
        text.main([])


def test_a_folder_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(DataError, match="no such thing"):
        text.main(["--data", "no such thing"])


def test_a_missing_file_is_named_with_its_address(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv.*https://") as raised:
        published.banking77(tmp_path)
    assert raised.value.file == "text/banking77/train.csv"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_with_other_content_is_refused(tmp_path, packed):
    path = tmp_path / "text/banking77/train.csv"
    path.parent.mkdir(parents=True)
    content = b"text,category\nhello,greeting\n"
    Path(f"{path}.gz").write_bytes(gzip.compress(content)) if packed else path.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        published.banking77(tmp_path)


def test_rows_and_data_sets_can_be_asked_for():
    assert text.chosen("core.1,HuffPost") == {"core.1", "core.4"}
    assert text.chosen("core.3.2") == {"core.3"}
    assert text.chosen("banking77") == {"core.1", "core.2", "core.3"}
    assert text.chosen(None) == set(text.ROWS)
    with pytest.raises(DataError, match="huffpost"):
        text.chosen("hufpost")


def test_a_class_in_two_parts_of_a_split_is_an_error():
    with pytest.raises(DataError, match="b"):
        ClassSplit("x", ("a", "b"), (), ("b",))


def test_a_support_is_drawn_by_class_and_by_seed():
    rows = text_ways.draw(FULL, 3, 0)
    labels = [FULL.labels[i] for i in rows]
    assert len(set(rows)) == len(rows) and all(labels.count(c) == 3 for c in FULL.classes)
    assert text_ways.draw(FULL, 3, 0) == rows != text_ways.draw(FULL, 3, 1)


def test_intervals_stay_around_rounded_values():
    report = Report("", seeds=[0])
    report.add("ours", {"accuracy": [1 / 3, 1 / 3, 1 / 3]})
    report.add("base", {"accuracy": [0.1, 0.2, 0.3]}, baseline=True)
    row = text_play.row("core.1.1", report, "ours", "base", command="x", seconds=0.0)
    assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    assert row["gain"]["value"] == pytest.approx(1 / 3 - 0.2, abs=1e-4)
    assert math.isfinite(row["gain"]["ci95"][1])


# -- the product


def test_the_help_is_timed_and_imports_no_torch():
    first, second = product.help_rows(runs=1)
    assert (first["id"], second["id"]) == ("core.9.1", "core.9.2")
    assert first["value"] == 1.0 and 0 < second["value"] < 60
