"""What `quickstudy bench kg_end_to_end` counts, and what its rows say of it."""

import pytest

from quickstudy.bench.kg_cells import BARE, OURS, SPACY, Setting, compared, count, named, slices
from quickstudy.bench.kg_end_to_end import SHOTS, against, calibration, falsely, main
from quickstudy.bench.kg_fields import SCHEMAS
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import Reading
from quickstudy.encoders.text import load_encoder

NEWS = Schema.of(SCHEMAS["CoNLL04"])
TEXT = "Ann Ray works for Acme in Rome. Bob lives in Bonn."
MARKS = ("Ann Ray", "Peop"), ("Acme", "Org"), ("Rome", "Loc"), ("Bob", "Peop"), ("Bonn", "Loc")


def news() -> Annotated:
    spans = tuple(Span(TEXT.index(words), TEXT.index(words) + len(words), kind) for words, kind in MARKS)
    said = Relation(0, 1, "Work_For"), Relation(3, 4, "Live_In")
    return Annotated(Document("n", TEXT), spans, said, complete=True)


def test_a_triple_counts_once_and_as_sure_as_its_surest_sentence():
    one = news()
    s = one.spans
    made = compared(
        one,
        s[:4],
        [(s[0], "Work_For", s[1], 0.4), (s[0], "Work_For", s[1], 0.8), (s[1], "OrgBased_In", s[2], 0.5)],
    )
    assert sorted(made["said"]) == [[0.5, False], [0.8, True]]
    assert made["entities"] == [4, 4, 5] and made["truth"] == 2
    assert count(made, 0.25) == (1, 2, 2) and count(made, 0.6) == (1, 1, 2) and count(made, 0.9) == (0, 0, 2)


def test_what_is_asserted_falsely_of_mentions_in_one_sentence():
    one = news()
    silent = named(NEWS, one, set())
    # Ann and Rome, Acme and Rome; Live_In and OrgBased_In are not said of the first sentence, though it has the types.
    assert silent == {"pairs": [2, 0], "sentences": [2, 0], "related": [2, 0]}
    told = named(NEWS, one, {(0, 2, "Live_In"), (0, 1, "Work_For")})
    assert told == {"pairs": [2, 1], "sentences": [2, 1], "related": [2, 1]}


def test_offsets_of_a_store_slice_to_their_words():
    one = news()
    mentions = [Mention(*span, 0.9) for span in one.spans]
    ends = TEXT.index(".") + 1
    said = [Statement(0, "Work_For", 1, (0, ends), 0.9), Statement(0, "Live_In", 2, (0, ends), 0.4, False)]
    assert slices([one], [Reading(mentions, said)]) == [[2, 2]]


def setting(tmp_path) -> Setting:
    encoder = load_encoder("tiny-bert", cache=False)
    return Setting(tmp_path, encoder, (0, 1), None, None, "", None, "test", lambda *_: None)


def cells(right: int, false: int = 0) -> dict:
    """20 documents of two triples each, of which so many are found, at .8; and one unrelated pair in each."""
    one = {
        "said": [[0.8, True]] * right + [[0.3, False]], "truth": 2, "entities": [3, 4, 5], "slices": [right + 1] * 2,
        "named": {"pairs": [2, false], "sentences": [1, false], "related": [2, right]},
    }  # fmt: skip
    made = {"documents": [one] * 20, "sentences": 9, "seconds": 1.0}
    return {(field, shots, seed): made for field in SCHEMAS for shots in SHOTS for seed in (0, 1)}


def test_it_beats_both_only_where_it_does_so_everywhere(tmp_path):
    better = {OURS: cells(2), BARE: cells(1), SPACY: cells(0)}
    verdict, *rows = against(setting(tmp_path), better)
    assert verdict["id"] == "kg.8.1" and verdict["value"] == 1 and len(rows) == 4
    # What is false stands below the cut of the highest expected F1.
    assert rows[0]["value"] == pytest.approx(100)
    assert rows[0]["gain"]["over"] == BARE and rows[0]["gain"]["value"] == pytest.approx(100 - 200 / 3)
    better[SPACY] = {
        **cells(0),
        ("BC5CDR", 5, 0): cells(2)["BC5CDR", 5, 0],
        ("BC5CDR", 5, 1): cells(2)["BC5CDR", 5, 1],
    }
    assert against(setting(tmp_path), better)[0]["value"] == 0


def test_rows_of_false_relations_and_of_calibration(tmp_path):
    [row] = falsely(setting(tmp_path), cells(1, false=1))
    assert falsely(setting(tmp_path), cells(0)) == []  # who says nothing says nothing false
    assert row["value"] == pytest.approx(100) and "of unrelated pairs 50.0%" in row["note"]
    ece, exact = calibration(setting(tmp_path), cells(1))
    assert (
        ece["value"] == pytest.approx((0.2 + 0.3) / 2) and exact["value"] == 100 and exact["n"] == 20 * 8 * 2
    )


def test_what_cannot_be_run_is_said():
    with pytest.raises(DataError, match="There are: kg"):
        main(["--only", "kg.7"])
    with pytest.raises(DataError, match="wants --spacy"):
        main(["--only", "kg.8"])
