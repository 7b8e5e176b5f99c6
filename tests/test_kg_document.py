"""Sentences, words and checked annotations: every offset slices back to the text, in time, whatever it holds."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import (
    Annotated,
    Document,
    Relation,
    Sentence,
    Span,
    holding,
    sentences,
    words,
)
from quickstudy.domains.kg.schema import Schema

texts = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                ".",
                " ",
                "\n",
                "\t",
                "!",
                "。",
                "”",
                '"',
                "Dr",
                "U.S",
                "3.5",
                "A",
                "b",
                "#",
                "-",
                "中",
                "\u00a0",
                "e\u0301",
            ]
        ),
        max_size=60,
    ).map("".join),
)


def cut(text, longest=1000):
    return [text[start:end] for start, end in sentences(text, longest)]


def said(text):
    return [text[start:end] for start, end in words(text)]


# -- sentences


@given(texts, st.integers(1, 40))
@example("a   b" * 20, 4)
def test_sentences_hold_all_that_is_no_blank_in_order(text, longest):
    found = list(sentences(text, longest))
    at = 0
    for start, end in found:
        assert at <= start < end <= len(text) and end - start <= longest
        assert not text[at:start].strip()
        assert text[start:end] == text[start:end].strip()
        at = end
    assert not text[at:].strip()


@pytest.mark.parametrize(
    "expected",
    [
        ["Acme grew.", "Bolt shrank!", "Did it?", "Yes…", "It did."],
        ["Dr. A. B. Smith met Mrs. Jones.", "They left."],
        ["It rose by 3.5 to 1,000.50 in Jan. 2020.", "Fine."],
        ["J. R. R. Tolkien and J.-P. Sartre wrote.", "We read."],
        ["George P. Shultz met Ann P. Lee in Rome.", "They left."],
        ["See p. 12, P. 12 and pp. 3 of it.", "Then left."],
        ["The U.S. Senate voted at 5 p.m. on it.", "Then all left."],
        ["See Fig. 3 and No. 5.", "He said no.", "Then he went."],
        ["Smith et al. Nature, i.e. a journal, e.g. Nature.", "End."],
        ["He said “Go.”", "She went (at last!)", "Then nothing."],
        ['"Is it so?" she asked.', '"Yes."', "So it was."],
        ["It hangs in St Werburgh's.", "A crack was found by Lloyd's.", "Then not."],
        ["Acme Inc. Chairman Jo Ray bought Bolt Ltd. Shares fell."],
        ["The index... fell.", "It rose..", "Then not."],
        ["Это дом.", "Он большой."],
        ["Das ist z.B. ein Haus.", "Öl ist teuer."],
        ["in 2020 it was version 2.", "5 came later."],
    ],
)
def test_sentences_end_where_a_reader_says(expected):
    assert cut(" ".join(expected)) == expected


def test_chinese_and_other_stops():
    assert cut("苹果公司发布了新手机。“好！”他说。真的？是的") == [
        "苹果公司发布了新手机。",
        "“好！”",
        "他说。",
        "真的？",
        "是的",
    ]
    assert cut("यह घर है। वह बड़ा है।") == ["यह घर है।", "वह बड़ा है।"]


def test_headings_and_lists_stand_alone():
    assert cut("Results\n\nIt grew.\nIt was\nlarge. ") == ["Results", "It grew.", "It was\nlarge."]
    assert cut("# 1. Intro. Here\nIt is.\n## Next\nmore") == ["# 1. Intro. Here", "It is.", "## Next", "more"]
    assert cut("Bring:\n- milk\n- 2 eggs\n  • bread\n1. One\n2. Two\nend") == [
        *("Bring:", "- milk", "- 2 eggs", "• bread", "1. One", "2. Two\nend"),
    ]
    assert cut("1. Introduction\n\n2. Methods") == ["1. Introduction", "2. Methods"]
    assert cut("a\r\n\r\nb\n \t\nc") == ["a", "b", "c"]


def test_a_long_one_is_cut_at_a_blank():
    assert cut("aaa bbb\tccc\nddd", 7) == ["aaa bbb", "ccc\nddd"]
    assert cut("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert max(map(len, cut("word " * 1000))) <= 1000
    with pytest.raises(DataError, match="at least one character"):
        list(sentences("a", 0))


HOSTILE = [
    *(
        ".",
        " ",
        "\n",
        "Dr. ",
        ".. ",
        ". ",
        "\n ",
        '"',
        '."',
        "# ",
        "- ",
        "\n- ",
        "\n#",
        "1. ",
        "\n1. ",
        "A.",
        "A. ",
        "…",
    ),
    *(
        "a",
        "中",
        "。",
        "！” ",
        "(",
        ". (",
        "\u00a0",
        "\t",
        "\r",
        "\n\r",
        "e\u0301",
        "\u0301",
        "x.\n\n",
        "U.S. ",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_time_in_proportion(piece):
    """What is quadratic takes minutes for 100 kB."""
    text = piece * (10**5 // len(piece))
    began = time.process_time()
    for one in (text, f"{text}x", f"a.{text}X", f"\n{text}"):
        found = list(sentences(one))
        assert sum(end - start for start, end in found) <= len(one)
    assert time.process_time() - began < 5
    words(text)
    assert time.process_time() - began < 6


# -- words


@given(texts)
def test_words_hold_all_that_is_no_blank_in_order(text):
    at = 0
    for start, end in words(text):
        assert at <= start < end
        assert not text[at:start].strip() and not any(map(str.isspace, text[start:end]))
        at = end
    assert not text[at:].strip()


@given(texts, st.integers(0, 50), st.integers(0, 50))
def test_words_of_a_part_are_within_it(text, start, size):
    end = min(len(text), start + size)
    found = words(text, start, end)
    assert all(start <= first < last <= end for first, last in found)
    assert "".join(text[a:b] for a, b in found) == "".join(text[start:end].split())


def test_words_are_what_a_reader_calls_words():
    assert said("It rose 3.5%, e.g. in R_1.") == [
        *("It", "rose", "3", ".", "5", "%", ",", "e", ".", "g", ".", "in", "R", "_", "1", "."),
    ]
    assert said("苹果2号 한국 𠀀𠀁") == ["苹", "果", "2", "号", "한", "국", "𠀀", "𠀁"]
    assert said("Cafe\u0301 हिन्दी שָׁלוֹם") == ["Cafe\u0301", "हिन्दी", "שָׁלוֹם"]
    assert said("naïve—Größe's 👍") == ["naïve", "—", "Größe", "'", "s", "👍"]


# -- which sentences hold a span


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=8),
    st.integers(0, 40),
    st.integers(1, 20),
)
def test_holding_finds_the_sentences_that_a_span_touches(gaps, start, size):
    found, at = [], 0
    for gap, length in gaps:
        found.append(Sentence(at + gap, at + gap + length))
        at += gap + length
    touched = [i for i, s in enumerate(found) if s.start < start + size and start < s.end]
    assert list(holding(found, start, start + size)) == touched


# -- annotations

SCHEMA = Schema.of(
    {"entities": ["person", "company"], "relations": {"works_for": {"head": "person", "tail": "company"}}}
)
DOC = Document("d", "Jo works for Acme.", "d.txt")
JO, ACME = Span(0, 2, "person"), Span(13, 17, "company")


def test_good_annotations_pass():
    one = Annotated(DOC, (JO, ACME), (Relation(0, 1, "works_for"),))
    assert one.checked(SCHEMA) is one and one.checked() is one
    assert (one.of(0), one.of(1), one.text) == ("Jo", "Acme", DOC.text)
    assert JO.overlaps(Span(1, 5, "x")) and not JO.overlaps(Span(2, 5, "x"))


@pytest.mark.parametrize(
    ("spans", "relations", "parts"),
    [
        ([Span(0, 19, "person")], [], ["span 0 (person) goes from 0 to 19", "18"]),
        ([Span(-1, 2, "person")], [], ["goes from -1 to 2"]),
        ([Span(3, 3, "person")], [], ["goes from 3 to 3"]),
        ([Span(2, 3, "person")], [], ["nothing but blanks"]),
        ([JO, Span(13, 17, "compny")], [], ["'Acme'", "'compny'", 'Did you mean "company"']),
        ([JO, ACME], [(0, 2, "works_for")], ["its tail is span 2; there are 2"]),
        ([JO, ACME], [(-1, 1, "works_for")], ["its head is span -1"]),
        ([JO, ACME], [(1, 1, "works_for")], ["to itself"]),
        ([JO, ACME], [(0, 1, "work_for")], ["'Jo' → 'Acme'", 'Did you mean "works_for"']),
        ([JO, ACME], [(1, 0, "works_for")], ["'Acme' → 'Jo'", "from company to person", "other way round"]),
    ],
)
def test_bad_annotations_are_named(spans, relations, parts):
    one = Annotated(DOC, tuple(spans), tuple(Relation(*relation) for relation in relations))
    with pytest.raises(DataError) as caught:
        one.checked(SCHEMA, row=7)
    assert caught.value.file == "d.txt" and caught.value.row == 7
    for part in parts:
        assert part in str(caught.value)
