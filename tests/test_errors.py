"""The errors' contract: one base, the built-ins callers expect, and messages that lead with file and row."""

import pickle
from pathlib import Path

import pytest

from quickstudy.core import errors
from quickstudy.core.errors import DataError, MissingExtra, QuickstudyError, did_you_mean, missing_extra


@pytest.mark.parametrize(
    ("name", "builtins"),
    [
        ("DataError", (ValueError,)),
        ("ModelError", (ValueError,)),
        ("CheckpointError", (ValueError,)),
        ("NotFitted", (AttributeError, ValueError)),
        ("MissingExtra", (ImportError,)),
    ],
)
def test_each_error_is_ours_and_the_builtin_callers_expect(name, builtins):
    error = getattr(errors, name)("what came; what was expected")
    assert isinstance(error, QuickstudyError)
    assert all(isinstance(error, builtin) for builtin in builtins)
    assert str(error) == "what came; what was expected"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "the text is empty."),
        ({"file": "a.csv"}, "a.csv: the text is empty."),
        ({"file": Path("a.csv"), "row": 3}, "a.csv, row 3: the text is empty."),
        ({"row": 0}, "row 0: the text is empty."),
    ],
)
def test_a_data_error_leads_with_file_and_row_and_keeps_them(where, message):
    error = DataError("the text is empty.", **where)
    assert str(error) == message
    assert error.file == (str(where["file"]) if "file" in where else None)
    assert error.row == where.get("row")


def test_a_data_error_crosses_a_process_boundary_unchanged():
    error = DataError("the text is empty.", file="a.csv", row=3)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.file, copy.row) == (str(error), "a.csv", 3)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("txet", ' Did you mean "Text"?'), ("LABLE", ' Did you mean "label"?'), ("zzz", ""), ("", "")],
)
def test_did_you_mean_finds_the_closest_name_whatever_its_case(word, expected):
    assert did_you_mean(word, ["Text", "label"]) == expected


def test_did_you_mean_of_nothing_is_empty():
    assert did_you_mean("text", []) == ""


def test_a_missing_extra_names_the_package_and_the_command():
    error = missing_extra("pyarrow", "tables")
    assert isinstance(error, MissingExtra)
    assert error.name == "pyarrow"
    assert "pip install 'quickstudy[tables]'" in str(error)
