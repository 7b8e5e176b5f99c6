"""Labels that can be learned from and look like mistakes."""

from dataclasses import replace

import pytest
from kg_field import document

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.calibrate import check_precision
from quickstudy.domains.kg.document import Annotated, Document, Span
from quickstudy.domains.kg.reading.odd import once


def labelled(text: str, *spans: tuple[int, int, str], id: str = "a") -> Annotated:
    return Annotated(Document(id, text), tuple(Span(*span) for span in spans))


def test_a_text_with_the_same_labels_counts_once_in_whatever_order():
    one = document(0)
    turned = Annotated(Document("copy", one.text), one.spans[::-1], (), True)
    copy = Annotated(Document("copy", one.text), one.spans, one.relations, True)
    assert once([one, document(1), copy]) == (
        [one, document(1)], ["labelled texts that stand there twice with the same labels, and count once: 1."]
    )  # fmt: skip
    found, [note] = once([one, turned])  # without the relation: something else is said of it
    assert found == [one, turned] and "other labels" in note


def test_labels_that_cut_words_or_differ_at_one_place_are_pointed_out():
    notes = once([labelled("Great Agnes rang", (2, 8, "bell")), labelled("Ada", (0, 3, "a"), (0, 3, "b"))])[1]
    assert notes == [
        "labels that begin or end within a word: 1, such as 'eat Ag' (bell). Are offsets right?",
        "names of several types at one place: 1, such as 'Ada' (a, b).",
    ]
    # Signs of a script without blanks are words one by one; names within names are usual.
    assert (
        once([labelled("苹果公司", (0, 2, "firm"), (0, 4, "firm")), labelled("Ada's", (0, 3, "a"))])[1] == []
    )


@pytest.mark.parametrize("precision", [0, 1, 7, float("nan")])
def test_a_precision_is_a_share(precision):
    with pytest.raises(DataError, match="expected a share between 0 and 1"):
        check_precision(precision)


def test_copies_that_differ_in_what_is_not_labelled_count_once():
    plain = Annotated(Document("a", "Jo saw Acme"), (Span(0, 2, "person"), Span(7, 11, "company")))
    whole, apart = replace(plain, complete=True), replace(plain, unrelated=((0, 1), (1, 0)))
    found, notes = once([plain, apart, whole])
    assert found == [whole] and "stand there twice with the same labels" in notes[0]
    assert once([apart, plain])[0] == [apart]
