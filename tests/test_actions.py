"""The actions: what they return, that they print nothing, and figures that are checked by hand."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from quickstudy.app import actions, results
from quickstudy.app.answers import lines, piped, save
from quickstudy.app.threads import free_cores, use_threads
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.report import Estimate, Report

ROWS = [
    *[(text, "arrival") for text in ("where is my card", "my card is not here", "when does the card come")],
    *[(text, "undo") for text in ("cancel the transfer", "undo my transfer", "take the transfer back")],
]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> results.Adapted:
    folder = tmp_path_factory.mktemp("models") / "cards"
    return actions.adapt(FRAME, folder, prior=None, encoder="tiny")


@pytest.fixture(scope="module")
def model(made):
    return actions.load(made.model)


@pytest.fixture(autouse=True)
def silence(capsys):
    yield
    assert capsys.readouterr() == ("", "")


def test_adapt_says_what_was_chosen_and_beside_what(made):
    assert made.examples == {"arrival": 3, "undo": 3}
    assert {m.name for m in made.methods} == {"frozen + centroid", "frozen + logistic regression"}
    assert made.chosen in {m.name for m in made.methods}
    assert all(m.baseline and m.accuracy.n == 6 for m in made.methods)
    assert (made.prior, made.gain, made.names_used, made.notes) == (None, None, True, [])
    assert made.next[0].startswith(f"quickstudy predict {made.model} --text ")
    json.loads(results.as_json(made))


def test_adapt_names_what_is_odd(tmp_path):
    rows = [*ROWS, ("where is my card", "undo"), ROWS[0], ("good day", "greeting")]
    odd = actions.adapt(
        pd.DataFrame(rows, columns=["text", "label"]), tmp_path / "m", prior="none", encoder="tiny"
    )
    assert len(odd.notes) == 3
    assert '"where is my card" stands under arrival and undo' in odd.notes[0]
    assert odd.notes[1].startswith("1 example stands there twice")
    assert odd.notes[2] == "1 of 3 labels have one example only: greeting."


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["card", "Card"], "2 labels differ only by case: Card, card."),
        (["card lost", "card  lost"], "2 labels differ only by spaces: card  lost, card lost."),
        (["Card lost", "card  lost"], "2 labels differ only by case and spaces: Card lost, card  lost."),
        (
            ["card_lost", "card-lost", "card lost."],
            "3 labels differ only by punctuation: card lost., card-lost,",
        ),
        (["card_lost", "Card lost!"], "2 labels differ only by case and punctuation: Card lost!, card_lost."),
        (["-1", "1", "+1"], None),
        (["card", "cards", "cart"], None),
    ],
)
def test_labels_that_are_written_in_two_ways_are_noted(tmp_path, labels, says):
    rows = [(f"{text} {label}", label) for label in labels for text in ("where is", "not here")]
    frame = pd.DataFrame([*rows, *ROWS], columns=["text", "label"])
    notes = actions.adapt(frame, tmp_path / "m", prior=None, encoder="tiny").notes
    assert len(notes) == (says is not None)
    assert says is None or notes[0].startswith(says)


@pytest.mark.parametrize("coverage", ["x", "0.9", True, 0, 1, -1, 1.5, float("nan")])
def test_a_coverage_that_is_no_share_is_refused(tmp_path, coverage):
    with pytest.raises(DataError, match=r"expected a number between 0 and 1, such as 0\.95\. Leave it out"):
        actions.adapt(FRAME, tmp_path / "m", prior=None, encoder="tiny", coverage=coverage)
    assert not (tmp_path / "m").exists()


def test_one_example_of_each_leaves_nothing_to_judge_by(tmp_path):
    one = actions.adapt(FRAME.iloc[[0, 3]], tmp_path / "m", prior=None, encoder="tiny", names=False)
    assert (one.methods, one.gain) == ([], None)
    assert "nothing to hold out" in one.reason
    assert "can't be measured" in one.gain_text


def test_one_example_of_each_is_judged_by_what_the_labels_say(tmp_path):
    one = actions.adapt(FRAME.iloc[[0, 3]], tmp_path / "m", prior=None, encoder="tiny", names=True)
    assert all(method.accuracy is not None and method.accuracy.n == 2 for method in one.methods)


def test_predict_is_lazy_and_takes_a_folder_or_a_model(made, model):
    asked = []

    def texts() -> Iterator[str]:
        for text, _ in ROWS:
            asked.append(text)
            yield text

    stream = actions.predict(model, texts(), batch=2)
    first = next(stream)
    assert len(asked) == 2
    assert (first.text, first.label) == ROWS[0]
    assert first.probability == max(first.probabilities.values())
    assert sum(first.probabilities.values()) == pytest.approx(1)
    assert [a.label for a in (first, *stream)] == [label for _, label in ROWS]
    (again,) = actions.predict(made.model, [ROWS[0][0]])
    assert (again.label, again.probabilities) == (first.label, pytest.approx(first.probabilities))


def test_a_blank_text_gets_an_answer_of_its_own(model):
    found = list(actions.predict(model, ["", ROWS[0][0], " \u200b", ROWS[3][0]], batch=2))
    assert [(a.text, a.label) for a in found] == [("", None), ROWS[0], (" \u200b", None), ROWS[3]]
    assert [a.probability == 0 for a in found] == [True, False, True, False]


def test_explain_shows_both_ends(model):
    told = actions.explain(model, "where is the card", most=1)
    assert (told.label, told.answer.label) == ("arrival", "arrival")
    assert len(told.examples) == 2
    assert told.examples[0].effect > 0 > told.examples[1].effect
    assert told.examples[0].label == "arrival"
    effects = [spoke.effect for spoke in actions.explain(model, "where is the card", most=3).examples]
    sides = [[e for e in effects if e > 0], [e for e in effects if e < 0]]
    assert effects == [*sorted(sides[0], reverse=True), *sorted(sides[1])]  # the strongest of each side first
    everything = actions.explain(model, "where is the card", label="undo", most=None).examples
    assert len(everything) == 8  # six examples and two names
    assert sum(spoke.is_name for spoke in everything) == 2
    with pytest.raises(DataError, match="`n` is 0; expected 1 or more"):
        actions.explain(model, "where", most=0)
    with pytest.raises(DataError, match=r"no label 'undoo'\. Did you mean \"undo\""):
        actions.explain(model, "where", label="undoo")


def test_evaluate_counts_right(made, model, tmp_path):
    rows = [
        ("where is the card", "arrival"),
        ("undo the transfer", "undo"),
        ("cancel the transfer", "arrival"),
        ROWS[0],
    ]
    judged = actions.evaluate(
        model, pd.DataFrame(rows, columns=["text", "label"]), report=tmp_path / "report"
    )
    ours = judged.methods[0]
    assert (ours.baseline, ours.accuracy.mean, ours.accuracy.n) == (False, 75.0, 4)
    assert [m.name for m in judged.methods[1:]] == ["frozen + centroid", "frozen + logistic regression"]
    assert all(0 <= m.error <= 1 for m in judged.methods)
    # One of the two is what was chosen, and so it answers alike: the gain over the better one isn't above 0.
    assert judged.gain.mean <= 0
    assert judged.classes == [
        results.ClassScore("arrival", 3, 100.0, pytest.approx(200 / 3)),
        results.ClassScore("undo", 1, 50.0, 100.0),
    ]
    assert judged.confusions == [results.Confusion("arrival", "undo", 1)]
    assert (judged.answered, judged.seen) == (100.0, 2)  # two of the texts were learned from
    report = Report.from_json((tmp_path / "report" / "report.json").read_text())
    card = (tmp_path / "report" / "report.md").read_text()
    assert report.counted == "texts" and "over 4 texts." in card and "episode" not in card
    assert report.rows[0].metrics["accuracy"] == ours.accuracy
    assert (tmp_path / "report" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (tmp_path / "report" / "report.md").read_text()


def test_evaluate_counts_none_of_these_as_wrong(tmp_path):
    actions.adapt(FRAME, tmp_path / "m", prior=None, encoder="tiny", coverage=0.8)
    rows = [("zebra quux", "arrival"), *ROWS]
    judged = actions.evaluate(tmp_path / "m", pd.DataFrame(rows, columns=["text", "label"]))
    assert judged.answered < 100
    assert ("arrival", "none of these") in [(c.label, c.taken_for) for c in judged.confusions]
    assert judged.methods[0].accuracy.mean <= judged.answered


def test_evaluate_judges_strangers_apart(tmp_path):
    careful = actions.load(
        actions.adapt(FRAME, tmp_path / "m", prior=None, encoder="tiny", coverage=0.6).model
    )
    known = [*ROWS, ("a pelican", "undo")]
    strangers = ["zebra quux", "my zebra", "where is my card now"]
    rows = [*known, *((text, "none of these") for text in strangers)]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    taken = [answer.label for answer in actions.predict(careful, [text for text, _ in rows])]
    caught, refused = taken[7:].count(None), taken[:7].count(None)
    assert 0 < caught < 3 and 0 < refused < 7  # so that each count can be told from the others
    judged = actions.evaluate(careful, frame, report=tmp_path / "report")
    assert (judged.texts, judged.strangers.texts) == (10, 3)
    assert judged.strangers.caught == Estimate.share(caught, 3)
    assert judged.strangers.refused == Estimate.share(refused, 7)
    right = sum(a == b for a, (_, b) in zip(taken[:7], known, strict=True))
    assert judged.strangers.right == Estimate.share(right + caught, 10)
    # What concerns texts with a label is as if there were no strangers.
    alone = actions.evaluate(careful, frame[:7], report=tmp_path / "alone")
    assert alone.strangers is None
    assert (judged.methods, judged.gain, judged.answered) == (alone.methods, alone.gain, alone.answered)
    assert judged.methods[0].accuracy == Estimate.share(right, 7)
    last = judged.classes[-1]
    assert (last.label, last.texts, last.recall) == ("none of these", 3, pytest.approx(100 * caught / 3))
    assert last.precision == pytest.approx(100 * caught / (caught + refused))
    assert [one.recall for one in judged.classes[:-1]] == [one.recall for one in alone.classes]
    assert sum(c.texts for c in judged.confusions if c.label == "none of these") == 3 - caught
    report = Report.from_json((tmp_path / "report" / "report.json").read_text())
    metrics = report.rows[0].metrics
    assert (metrics["strangers caught"], metrics["refused wrongly"]) == (
        judged.strangers.caught,
        judged.strangers.refused,
    )
    assert list(report.rows[1].metrics) == ["accuracy", "ECE"]  # baselines answer every text
    assert "strangers" not in (tmp_path / "alone" / "report.md").read_text()
    only = actions.evaluate(careful, frame[7:], report=tmp_path / "only")
    assert (only.methods, only.gain, only.strangers.refused) == ([], None, None)
    assert only.strangers.caught == only.strangers.right == judged.strangers.caught
    json.loads(results.as_json(only))


def test_suggest_gives_positions_in_the_file(model):
    texts = [*(text for text, _ in ROWS), "please call me a taxi", "cards and transfers"]
    found = actions.suggest(model, pd.DataFrame({"text": texts}), n=2)
    assert [texts[one.position] for one in found] == [one.text for one in found]
    assert {one.position for one in found} == {6, 7}  # the others are known already
    assert len(actions.suggest(model, pd.DataFrame({"text": texts}), n=99)) == 8
    for n in (0, -1, 1.5, "2"):
        with pytest.raises(DataError, match=f"n is {n!r}; expected a whole number, 1 or more"):
            actions.suggest(model, pd.DataFrame({"text": texts}), n=n)


def test_encoders_have_licences():
    found = {one.name: one for one in actions.encoders()}
    assert found["minilm"].licence == "Apache-2.0"
    assert found["tiny"].installed
    assert all(one.about and one.licence for one in found.values())


def test_learn_refuses_to_tune_what_has_no_layers(tmp_path):
    with pytest.raises(ModelError, match="'tiny' has no layers"):
        actions.learn(tmp_path, tmp_path / "prior", encoder="tiny", tune_encoder=True)


def past_tasks(folder: Path, each: int, names: Sequence[str] = ("one", "two")) -> Path:
    """Tasks of three labels with so many texts each."""
    folder.mkdir()
    for name in names:
        rows = [(f"{word} {name} {n}", f"{word}s") for word in ("dog", "cat", "bird") for n in range(each)]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / f"{name}.csv", index=False)
    return folder


TUNED = {"encoder": "tiny-bert", "tune_encoder": True, "steps": 2, "checkpoint_every": 1}


def stop(step: int, steps: int, loss: float) -> None:
    raise KeyboardInterrupt


def test_a_stopped_run_is_neither_discarded_in_silence_nor_mixed_with_another(tmp_path):
    past, valid, place = past_tasks(tmp_path / "past", 4), past_tasks(tmp_path / "valid", 15), tmp_path / "p"
    state = actions.checkpoint_folder(place)
    with pytest.raises(KeyboardInterrupt):
        actions.learn(past, place, **TUNED, progress=stop)
    before = {file.name: file.read_bytes() for file in state.iterdir()}
    with pytest.raises(
        CheckpointError, match=r"p\.checkpoint holds the state .* by --resume, .* by --restart"
    ):
        actions.learn(past, place, **TUNED)
    with pytest.raises(CheckpointError, match=r"made with validation tasks none, the run uses [0-9a-f]{8}…"):
        actions.learn(past, place, **TUNED, valid=valid, resume=True)
    with pytest.raises(ModelError, match="Give one of them"):
        actions.learn(past, place, **TUNED, resume=True, restart=True)
    with pytest.raises(DataError, match="not found"):  # nothing is discarded before the data are read
        actions.learn(tmp_path / "none", place, **TUNED, restart=True)
    assert {file.name: file.read_bytes() for file in state.iterdir()} == before
    assert not place.exists()
    record = json.loads(before["record.json"])
    del record["state"]["fingerprints"]["validation tasks"]  # as versions before this one wrote it
    (state / "record.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="made without noting its validation tasks, the run uses none"):
        actions.learn(past, place, **TUNED, resume=True)
    with pytest.raises(KeyboardInterrupt):  # anew, so that what --valid adds is noted
        actions.learn(past, place, **TUNED, valid=valid, restart=True, progress=stop)
    with pytest.raises(CheckpointError, match=r"validation tasks [0-9a-f]{8}…, the run uses none"):
        actions.learn(past, place, **TUNED, resume=True)
    assert actions.learn(past, place, **TUNED, valid=valid, resume=True).tuned
    assert not state.exists()


@pytest.mark.parametrize(
    ("each", "says"),
    [
        (14, r"one\.csv: A task of `valid` needs 3 categories with at least 15 different texts each, 5 to learn from "
             r"and 10 to judge by; 0 of 3 have that many \(birds 14, cats 14, dogs 14\)"),
        (1, r"one\.csv: A task of `valid` needs two categories with two different texts each"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_by_is_refused_before_the_first_step(tmp_path, each, says):
    valid = past_tasks(tmp_path / "valid", each)
    past = past_tasks(tmp_path / "past", 4)
    with pytest.raises(DataError, match=says):
        actions.learn(
            past, tmp_path / "p", **TUNED, valid=valid, progress=lambda *_: pytest.fail("it took a step")
        )
    assert not (tmp_path / "p.checkpoint").exists()


def test_a_prior_is_learned_and_used(tmp_path):
    past = past_tasks(tmp_path / "past", 4)
    learned = actions.learn(past, tmp_path / "prior", encoder="tiny")
    assert (learned.encoder, learned.tuned) == ("tiny", False)
    assert [(s["name"], s["classes"], s["examples"]) for s in learned.sources] == [
        ("one.csv", 3, 12),
        ("two.csv", 3, 12),
    ]
    assert "| one.csv | 3 | 12 |" in (tmp_path / "prior" / "README.md").read_text()
    adapted = actions.adapt(FRAME, tmp_path / "m", prior=tmp_path / "prior")
    assert adapted.encoder == "tiny"
    assert "learned prior" in [m.name for m in adapted.methods]
    assert isinstance(adapted.gain, Estimate)
    with pytest.raises(ModelError, match="learned on encoder 'tiny', the one at hand is 'tiny-bert'"):
        actions.adapt(FRAME, tmp_path / "other", prior=tmp_path / "prior", encoder="tiny-bert")
    assert not (tmp_path / "other").exists()
    with pytest.raises(CheckpointError, match="holds a prior"):
        actions.load(tmp_path / "prior")


# Results as JSON


def test_results_are_json_without_nan():
    value = results.Method("m", True, Estimate(1.0, float("nan"), 1), float("inf"))
    assert json.loads(results.as_json({"a": [value], "b": ("x", None)})) == {
        "a": [
            {
                "name": "m",
                "baseline": True,
                "accuracy": {"mean": 1.0, "half": None, "n": 1, "bounds": None},
                "error": None,
            }
        ],
        "b": ["x", None],
    }


def test_json_escapes_what_could_take_hold_of_a_terminal():
    line = results.as_json({"text": "\x1b[2J\x9b2J\x7fé"})
    assert line.isprintable()
    assert json.loads(line) == {"text": "\x1b[2J\x9b2J\x7fé"}
    odd = os.fsdecode(b"caf\xe9")
    line = results.as_json({odd: Path(odd)})
    assert json.loads(line.encode()) == {odd: odd}


# Pipes


class Drip:
    """A pipe that gives so many bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def read1(self, _: int) -> bytes:
        part, self.data = self.data[: self.size], self.data[self.size :]
        return part


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_come_whole_however_the_pipe_drips(size):
    data = "\ufeffeins\n\nzwei ü\r\n  drei  ".encode()
    assert [text for some in piped(Drip(data, size)) for text in some] == ["eins", "", "zwei ü", "drei"]
    assert list(piped(Drip(b"", size))) == []


def test_a_pipe_answers_before_it_ends():
    stream = piped(Drip(b"a\nb\nc\n", 2))
    assert next(stream) == ["a"]
    assert stream.gi_frame is not None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"good\nb\xff\n", "stdin, row 2: byte 0xff is not UTF-8"),
        (b"\n" + b"x" * 2**21, "row 2: a line longer"),
    ],
)
def test_a_bad_line_in_a_pipe_is_named(data, says):
    with pytest.raises(DataError, match=says):
        list(piped(Drip(data, 2**16)))


def test_answers_are_written_whole_or_not_at_all(tmp_path):
    good = results.Answer('say "hi", now', None, 0.25, {"a": 0.25})
    assert "".join(lines([good], "csv")) == 'text,label,probability\n"say ""hi"", now",none of these,0.2500\n'
    assert json.loads("".join(lines([good], "jsonl"))) == {
        "text": good.text,
        "label": None,
        "probability": 0.25,
    }

    def broken():
        yield good
        raise DataError("row 2 is bad")

    (tmp_path / "old.csv").write_text("old")
    with pytest.raises(DataError):
        save(lines(broken(), "csv"), tmp_path / "old.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


def test_threads_are_those_asked_for_or_the_free_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert use_threads() == 3
    assert use_threads(2) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert free_cores() == use_threads() == 1
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert free_cores() >= 1
