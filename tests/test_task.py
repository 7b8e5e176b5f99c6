"""Tasks say what is wrong with them before anything is learned."""

import pytest

from quickstudy.core.errors import DataError
from quickstudy.core.task import Task, spell_out


def test_labels_are_sorted_unless_given():
    assert Task(["a", "b", "c"], ["y", "x", "y"]).labels == ("x", "y")
    assert Task(["a", "b"], ["y", "x"], labels=("y", "x")).labels == ("y", "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"support": [], "support_labels": []}, "at least one labelled example"),
        ({"support": ["a"], "support_labels": ["x", "y"]}, "1 items but `support_labels` has 2"),
        ({"query": ["q"], "query_labels": []}, "`query` has 1 items but `query_labels` has 0"),
        ({"query": ["q"], "query_labels": ["cart"]}, r"`query_labels` holds 'cart'.*Did you mean \"card\"\?"),
        ({"labels": ("card", "card", "rate")}, "'card' stands more than once"),
        ({"labels": ("card",)}, "labelled 'rate', which `labels` leaves out"),
        ({"labels": ("card", "rate", "else")}, "`labels` names 'else', but no support example"),
        ({"label_descriptions": {"rates": "…"}}, r"describes 'rates'.*Did you mean \"rate\"\?"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_fit_together_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Task(**{"support": ["a", "b"], "support_labels": ["card", "rate"], **arguments})


def test_a_label_without_description_is_described_by_its_name():
    task = Task(["a", "b"], ["card_arrival", "rate"], label_descriptions={"rate": "what money costs"})
    assert task.describe("rate") == "what money costs"
    assert task.describe("card_arrival") == "card arrival"


@pytest.mark.parametrize(
    ("label", "words"),
    [("card_arrival", "card arrival"), ("cardArrival", "card Arrival"), ("a-b", "a b"), ("FAQ", "FAQ"), ("__", "__"),
     ("größeÄnderung", "größe Änderung"), ("", "")],
)  # fmt: skip
def test_identifiers_are_spelled_out(label, words):
    assert spell_out(label) == words


def test_a_task_is_frozen():
    with pytest.raises(AttributeError):
        Task(["a"], ["x"]).id = "other"
