"""The leak audit on leaks that were planted, and on what only looks like one."""

import io
import json

import pytest
import torch
from rich.console import Console

from quickstudy.bench.leaks import as_table, audit, near_duplicates, normalised
from quickstudy.core.errors import DataError
from quickstudy.domains.text.read import Examples
from quickstudy.encoders.tiny import HashEncoder

TEST = Examples(
    ["Why was my card declined?", "How do I top up?", "My PIN is blocked"],
    ["card_declined", "top_up", "pin_blocked"],
    source="bank",
)


def past(*pairs: tuple[str, str], source: str = "past") -> Examples:
    return Examples([text for text, _ in pairs], [label for _, label in pairs], source=source)


def test_a_clean_past_stays_as_it_is():
    data = past(("play some jazz", "music"), ("will it rain", "weather"))
    [clean], found = audit("a", [data], TEST)
    assert clean == data
    assert (found.exact, found.normalised, found.dropped, found.near, found.classes) == (0, 0, 0, (), ())
    assert found.clean


@pytest.mark.parametrize(
    ("planted", "exact"),
    [
        ("Why was my card declined?", 1),
        ("why was my card declined", 0),
        ("  WHY was my -- card\tdeclined?! ", 0),
        ("Why was my card declined\uff1f", 0),  # a full-width question mark
        ("why_was_my_card_declined", 0),
    ],
)
def test_a_test_sentence_in_another_form_is_dropped_and_counted(planted, exact):
    data = past((planted, "music"), ("will it rain", "weather"))
    [clean], found = audit("a", [data], TEST)
    assert clean.texts == ["will it rain"] and clean.labels == ["weather"]
    assert (found.exact, found.normalised, found.dropped) == (exact, 1, 1)
    assert found.examples == (planted,)


def test_without_dropping_a_test_sentence_is_an_error_that_shows_it():
    data = past(("how do i top up", "music"), ("will it rain", "weather"))
    with pytest.raises(DataError, match="how do i top up"):
        audit("a", [data], TEST, drop=False)


def test_every_data_set_is_cleaned_and_keeps_its_source_and_descriptions():
    first = past(("how do i top up", "phone"), ("my phone is slow", "phone"), source="one")
    second = Examples(
        ["my pin is blocked!", "hello"], ["pin", "hi"], {"pin": "a code", "hi": "a greeting"}, "two"
    )
    clean, found = audit("a", [first, second], TEST)
    assert [c.texts for c in clean] == [["my phone is slow"], ["hello"]]
    assert [c.source for c in clean] == ["one", "two"]
    assert clean[1].descriptions == {"hi": "a greeting"}
    assert (found.train, found.test, found.dropped) == (4, 3, 2)


def test_class_names_in_both_are_listed_however_they_are_written():
    data = past(("no funds", "cardDeclined"), ("will it rain", "weather"))
    _, found = audit("a", [data], TEST)
    assert found.classes == (("cardDeclined", "card_declined"),)
    assert "cardDeclined as card_declined" in found.text()


def test_a_description_counts_as_the_name():
    data = Examples(["no funds", "rain"], ["7", "8"], {"7": "Card declined"}, "past")
    _, found = audit("a", [data], TEST)
    assert found.classes == (("7", "card_declined"),)


def test_numbers_as_labels_say_nothing():
    data = past(("will it rain", "1"), ("play jazz", "2"))
    _, found = audit("a", [data], Examples(["a b c", "d e f"], ["1", "2"], source="numbers"))
    assert found.classes == ()


def test_a_test_class_of_the_same_source_in_meta_training_is_an_error():
    data = past(("it said declined", "card_declined"), ("rain", "weather"), source="bank, training classes")
    with pytest.raises(DataError, match="card_declined"):
        audit("a", [data], TEST)


LONG = "I transferred some money to a friend abroad and it has not arrived"


def test_near_duplicates_by_letters_are_dropped_and_listed():
    data = past((LONG + " yet", "a"), ("will it rain", "b"), (LONG + " yet", "c"), source="one")
    [clean], found = audit("a", [data], Examples([LONG, "x y z"], ["c", "d"], source="bank"))
    assert clean.texts == ["will it rain"]
    assert (found.normalised, found.near_dropped, found.dropped, found.clean) == (0, 2, 2, True)
    [near] = found.near
    assert (near.train, near.test) == (LONG + " yet", LONG)
    assert near.letters > 0.8 and near.cosine is None
    assert "1 near duplicates" in found.text() and "2 dropped from meta-training;" in found.text()


def test_near_duplicates_are_only_listed_where_that_is_asked():
    data = past((LONG + " yet", "a"), (LONG.upper(), "b"))
    [clean], found = audit("a", [data], Examples([LONG, "x y"], ["c", "d"], source="bank"), drop_near=False)
    assert clean.texts == [LONG + " yet"]
    assert (len(found.near), found.near_dropped, found.dropped, found.clean) == (1, 0, 1, False)
    assert "the others left" in found.text()


def test_near_duplicates_by_vectors_are_dropped_too():
    vectors = {"alpha": [1.0, 0.0], "beta": [0.0, 1.0], "first letter": [0.96, 0.28], "second": [-1.0, 0.0]}
    test = Examples(["first letter", "second"], ["c", "d"], source="bank")
    [clean], found = audit(
        "a", [past(("alpha", "a"), ("beta", "b"))], test,
        encode=lambda texts: torch.tensor([vectors[t] for t in texts]),
    )  # fmt: skip
    assert clean.texts == ["beta"]
    assert found.near_dropped == 1


def test_what_only_shares_words_stays():
    data = past(("what do i need to change my oil", "car"))
    [clean], found = audit(
        "a", [data], Examples(["I need to change my name what do I do?"], ["n"], source="b")
    )
    assert len(clean) == 1 and not found.near


def test_classes_of_the_same_name_are_dropped_where_that_is_asked():
    data = past(
        ("no funds", "cardDeclined"), ("how do i top up", "cardDeclined"), ("will it rain", "weather")
    )
    [clean], found = audit("a", [data], TEST, drop_classes=True)
    assert clean.texts == ["will it rain"]
    assert (found.dropped, found.normalised, found.classes_dropped, found.clean) == (2, 1, 1, True)
    assert "1 more sentences dropped with them" in found.text()
    [kept], found = audit("a", [data], TEST)
    assert kept.texts == ["no funds", "will it rain"] and found.classes_dropped == 0


def test_near_duplicates_by_vectors_are_flagged():
    vectors = {"alpha": [1.0, 0.0], "beta": [0.0, 1.0], "first letter": [0.995, 0.0998749]}
    [near] = near_duplicates(
        ["alpha", "beta"], ["first letter"], encode=lambda texts: torch.tensor([vectors[t] for t in texts])
    )
    assert (near.train, near.test, near.cosine) == ("alpha", "first letter", 0.995)
    assert near.letters < 0.9


def test_the_short_cut_finds_what_comparing_every_pair_finds():
    words = [f"{a} {b} {c} in the bank of town" for a in ("my", "your", "our") for b in ("card", "cards", "pin")
             for c in ("fails", "failed", "is gone")]  # fmt: skip
    train, test = words[::2], words[1::2]

    def grams(text):
        padded = f" {normalised(text)} "
        return {padded[i : i + 3] for i in range(len(padded) - 2)}

    for least in (0.5, 0.7, 0.9):
        every = {
            (a, b) for a in train for b in test if len(grams(a) & grams(b)) / len(grams(a) | grams(b)) > least
        }
        assert {(n.train, n.test) for n in near_duplicates(train, test, letters=least)} == every
        assert every or least == 0.9


def test_the_audit_can_be_written_down():
    data = past(("how do i top up", "card_declined"), ("will it rain", "weather"))
    _, found = audit("core.1", [data], TEST, encode=HashEncoder().encode)
    record = json.loads(json.dumps(found.as_record()))
    assert record["dropped"] == 1 and record["name"] == "core.1"
    assert "1 dropped" in found.text() and "card_declined" in found.text()
    screen = io.StringIO()
    Console(width=150, file=screen).print(as_table([found]))
    assert "core.1" in screen.getvalue()
