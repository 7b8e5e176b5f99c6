"""Reading few-shot text: every format gives back what was written, and every fault is named with file and row."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import textwrap
import unicodedata

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.core.errors import DataError, MissingExtra
from quickstudy.domains.text.read import (
    Examples,
    read_datasets,
    read_descriptions,
    read_examples,
    read_texts,
)

PAIRS = [("how do I pay?", "payment"), ("card is lost", "card"), ("where is my card", "card")]
TEXTS, LABELS = [text for text, _ in PAIRS], [label for _, label in PAIRS]


@pytest.fixture
def write(tmp_path):
    """Write `content` to a file (folders are made) and give its path."""

    def write(name, content="text,label\nhow do I pay?,payment\ncard is lost,card\nwhere is my card,card\n"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def refused(path, *parts, row=None, read=read_examples, **options):
    """The input is refused with a DataError that carries file and row and says all of `parts`."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    error = caught.value
    assert error.file == str(path)
    assert error.row == row
    assert str(error).startswith(f"{path}, row {row}: " if row is not None else f"{path}: ")
    for part in parts:
        assert part in str(error)
    return str(error)


# -- what is read ------------------------------------------------------------------------------------------------


def as_delimited(delimiter):
    def text(pairs):
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=delimiter).writerows([("text", "label"), *pairs])
        return buffer.getvalue().encode()

    return text


def as_jsonl(pairs):
    return b"".join(json.dumps({"text": t, "label": y}).encode() + b"\n" for t, y in pairs)


def as_json(pairs):
    return json.dumps([{"text": t, "label": y} for t, y in pairs], ensure_ascii=False).encode()


def as_parquet(pairs):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [t for t, _ in pairs], "label": [y for _, y in pairs]}), buffer)
    return buffer.getvalue()


FORMATS = {
    "a.csv": as_delimited(","),
    "a.tsv": as_delimited("\t"),
    "semicolons.csv": as_delimited(";"),
    "a.jsonl": as_jsonl,
    "a.json": as_json,
    "lines.json": as_jsonl,
    "a.parquet": as_parquet,
    "a.csv.gz": as_delimited(","),
    "A.JSONL.GZ": as_jsonl,
}
plain_text = (
    st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), st.sampled_from('",;\t\r\n|')
        )
    )
    .map(str.strip)
    .filter(lambda text: any(unicodedata.category(c) not in ("Cc", "Cf", "Zs", "Zl", "Zp") for c in text))
)


@pytest.mark.parametrize("name", FORMATS)
@given(pairs=st.lists(st.tuples(plain_text, plain_text), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, name, pairs):
    data = FORMATS[name](pairs)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    examples = read_examples(path)
    assert list(zip(examples.texts, examples.labels, strict=True)) == pairs
    assert examples.source == str(path)


@given(pairs=st.lists(st.tuples(plain_text, plain_text), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_frames_and_pairs_are_read_like_files(pairs):
    frame = pd.DataFrame(pairs, columns=["Utterance", "Intent"])
    for source in (frame, tuple(zip(*pairs, strict=True)), (frame["Utterance"], frame["Intent"].to_numpy())):
        examples = read_examples(source)
        assert list(zip(examples.texts, examples.labels, strict=True)) == pairs


def test_a_json_list_longer_than_one_piece_is_read_whole(tmp_path):
    pairs = [(f"text {i}" + " é" * (i % 300), str(i % 7)) for i in range(2000)]
    path = tmp_path / "a.json"
    path.write_bytes(as_json(pairs))
    assert path.stat().st_size > 3 * 2**16
    examples = read_examples(path)
    assert list(zip(examples.texts, examples.labels, strict=True)) == pairs


def test_a_long_parquet_file_is_read_whole(tmp_path):
    pairs = [(f"text {i}", str(i % 7)) for i in range(3000)]
    path = tmp_path / "a.parquet"
    path.write_bytes(as_parquet(pairs))
    assert read_examples(path).texts == [text for text, _ in pairs]


@pytest.mark.parametrize(
    "header",
    ["TEXT,Label", "sentence,category", "Customer Id,utterance,intent", "label,text", " query , class "],
)
def test_columns_are_found_by_their_usual_names(write, header):
    names = [name.strip().lower() for name in header.split(",")]
    row = [
        "pay" if n in ("label", "category", "intent", "class") else "7" if "id" in n else "how?"
        for n in names
    ]
    examples = read_examples(write("a.csv", f"{header}\n{','.join(row)}\n"))
    assert (examples.texts, examples.labels) == (["how?"], ["pay"])


def test_given_columns_win_over_usual_names(write):
    path = write("a.csv", "text,label,Titel,fach\na,b,c,d\n")
    examples = read_examples(path, text="titel", label="fach")
    assert (examples.texts, examples.labels) == (["c"], ["d"])


def test_of_two_unknown_columns_the_one_with_few_values_is_the_label_and_that_is_said(write):
    path = write("a.csv", "fach,satz\nx,a1\nx,a2\ny,b1\ny,b2\n")
    with pytest.warns(UserWarning, match=r'a\.csv: took column "satz" for the text, and "fach", which has 2'):
        examples = read_examples(path)
    assert (examples.texts, examples.labels) == (["a1", "a2", "b1", "b2"], ["x", "x", "y", "y"])


@pytest.mark.parametrize("name", ["bom.csv", "crlf.csv", "blank.csv", "spaces.csv", "index.csv"])
def test_what_spreadsheets_and_people_add_is_no_fault(write, name):
    rows = "text,label\na,x\nb,y\n"
    content = {
        "bom.csv": b"\xef\xbb\xbf" + rows.encode(),
        "crlf.csv": rows.replace("\n", "\r\n"),
        "blank.csv": rows.replace("\n", "\n\n"),
        "spaces.csv": 'text , label \n a , "x" \n b,y  \n'.replace('"x" ', '"x"'),
        "index.csv": ",text,label\n0,a,x\n1,b,y\n",
    }[name]
    examples = read_examples(write(name, content))
    assert (examples.texts, examples.labels) == (["a", "b"], ["x", "y"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "frame", "pair"])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [([1, 2], ["1", "2"]), ([1.0, 2.5], ["1", "2.5"]), ([True, False], ["true", "false"])],
)
def test_labels_become_text(write, tmp_path, name, labels, expected):
    if name == "a.jsonl":
        source = write(name, as_jsonl(zip(["a", "b"], labels, strict=True)))
    elif name == "a.parquet":
        source = write(name, as_parquet(list(zip(["a", "b"], labels, strict=True))))
    else:
        frame = pd.DataFrame({"text": ["a", "b"], "label": labels})
        source = frame if name == "frame" else (["a", "b"], list(frame["label"].to_numpy()))
    assert read_examples(source).labels == expected


def test_cells_that_look_like_formulas_are_text(write):
    examples = read_examples(write("a.csv", 'text,label\n"=HYPERLINK(""x"")",+1\n@SUM(A1),-1\n'))
    assert (examples.texts, examples.labels) == (['=HYPERLINK("x")', "@SUM(A1)"], ["+1", "-1"])


def test_blank_lines_in_json_lines_are_allowed_and_counted(write):
    good, bad = '{"text": "a", "label": "x"}\n', '{"text": "", "label": "x"}\n'
    assert read_examples(write("a.jsonl", f"\n{good}\n  \n{good}")).texts == ["a", "a"]
    refused(write("b.jsonl", f"\n{good}\n{bad}"), '"text" is empty', row=4)


def test_a_folder_per_class_is_read_in_order(write, tmp_path):
    write("set/b/2.txt", "two\nlines\n")
    write("set/b/1.txt", "one")
    write("set/a/x.txt.gz", "packed")
    write("set/notice/1.txt", "a class may be called notice")
    write("set/README.md", "about")
    write("set/.DS_Store", b"\0")
    examples = read_examples(tmp_path / "set")
    assert examples.texts == ["packed", "one", "two\nlines", "a class may be called notice"]
    assert examples.labels == ["a", "b", "b", "notice"]


INVISIBLE = "\u200b\ufeff\u00ad\x07\u2028\u3000"


def test_a_text_of_invisible_characters_is_empty(write):
    refused(write("a.csv", f"text,label\na,x\n{INVISIBLE},x\n"), '"text" is empty', row=3)
    refused(write("a.jsonl", as_jsonl([("a", "x"), ("b", INVISIBLE)])), '"label" is empty', row=2)
    seen = f"{INVISIBLE}a{INVISIBLE}"
    assert read_examples((["a", seen], ["x", "y"])).texts == ["a", seen.strip()]
    path = write("a.txt", f"one\n{INVISIBLE[:3]}\ntwo\n")
    assert read_texts(path) == ["one", "two"]
    assert read_texts(path, blank=True) == ["one", INVISIBLE[:3], "two"]
    refused(write("b.txt", f"{INVISIBLE[:3]}\n"), "the file is empty", read=read_texts)


def test_texts_alone(write):
    assert read_texts(write("a.txt", "one\n\n two \r\nthree")) == ["one", "two", "three"]
    assert read_texts(write("a.csv", "id,text\n1,one\n2,two\n")) == ["one", "two"]
    assert read_texts(write("b.csv", "anything\none\n")) == ["one"]
    assert read_texts(write("c.csv", "p,q\n1,one\n"), text="q") == ["one"]
    assert read_texts(write("d.jsonl.gz", '{"utterance": "one"}')) == ["one"]


def test_data_sets_of_a_folder(write, tmp_path):
    write("sets/b.csv")
    write("sets/a/x/1.txt", "hello")
    write("sets/c.jsonl.gz", as_jsonl(PAIRS))
    write("sets/LICENSE", "CC BY")
    found = read_datasets(tmp_path / "sets")
    assert [os.path.basename(examples.source) for examples in found] == ["a", "b.csv", "c.jsonl.gz"]
    assert [len(examples) for examples in found] == [1, 3, 3]


# -- Examples ----------------------------------------------------------------------------------------------------


def test_classes_conflicts_and_duplicates():
    examples = read_examples((["a", "a", "b", "b", "c"], ["x", "y", "x", "x", "x"]))
    assert examples.classes == ("x", "y")
    assert examples.conflicts() == {"a": ("x", "y")}
    assert examples.duplicates() == {("b", "x"): 2}


def test_one_class_is_refused_where_two_are_needed(write):
    path = write("a.csv", "text,label\na,x\nb,x\n")
    examples = read_examples(path)
    examples.check_classes(1)
    refused(path, '1 class came ("x")', "expected at least 2", read=lambda _: examples.check_classes())


def test_a_description_column_describes_labels(write):
    path = write("a.csv", "text,label,Description\na,x,the x\nb,x,\nc,y,is empty\n")
    assert read_examples(path).descriptions == {"x": "the x", "y": "is empty"}


def test_two_descriptions_of_a_label_are_refused(write):
    path = write("a.csv", "text,label,description\na,x,the x\nb,x,an x\n")
    refused(path, 'a second description of "x": "an x", before "the x"', row=3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '{"card": "cards", "payment": "paying"}'),
        (
            "d.json",
            '[{"label": "card", "description": "cards"}, {"label": "payment", "description": "paying"}]',
        ),
        ("d.csv", "Label;Description\ncard;cards\npayment;paying\n"),
        (
            "d.jsonl",
            '{"label": "card", "description": "cards"}\n{"label": "payment", "description": "paying"}',
        ),
    ],
)
def test_descriptions_from_a_file_of_their_own(write, name, content):
    descriptions = read_descriptions(write(name, content))
    assert descriptions == {"card": "cards", "payment": "paying"}
    assert read_examples(write("a.csv")).with_descriptions(descriptions).descriptions == descriptions


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("d.json", '{"card": "cards",\n\n "paymnet": "paying"}', 2),
        ("d.csv", "label,description\ncard,cards\n\npaymnet,paying\n", 4),
        ("d.jsonl", '{"label": "paymnet", "description": "paying"}', 1),
    ],
)
def test_a_described_label_without_examples_is_refused_by_the_file_that_describes_it(
    write, name, content, row
):
    path, examples = write(name, content), read_examples(write("a.csv"))
    refused(
        path,
        '"paymnet" has a description, and no example. Did you mean "payment"?',
        row=row,
        read=lambda path: examples.with_descriptions(read_descriptions(path)),
    )


def test_a_described_label_without_examples_is_refused(write):
    path = write("a.csv")
    examples = read_examples(path)
    refused(
        path,
        '"paymnet" has a description, and no example. Did you mean "payment"?',
        'Labels: "card", "payment"',
        read=lambda _: examples.with_descriptions({"paymnet": "paying"}),
    )


@pytest.mark.parametrize(
    ("name", "content", "row", "part"),
    [
        ("d.json", '{"card":\n "cards"', 2, "not JSON"),
        ("d.json", '{"card": "a", "card": "b"}', 2, 'a second description of "card"'),
        ("d.json", '{"card": ["a"]}', 1, '"description" is list'),
        ("d.json", '{"card": ""}', 1, '"description" is empty'),
        ("d.csv", "label,meaning\ncard,cards\n", 1, "no column is known to hold the description"),
        ("d.json", "{}", None, "holds no example"),
        ("d.json", '["card", "payment"]', 1, "came a string; expected an object"),
        ("d.json", '["card", "payment"]', 1, "or the whole file as one object {label: words}."),
        ("d.json", '"card"', 1, "or the whole file as one object {label: words}."),
        (
            "d.json",
            '[{"card": "cards"}]',
            None,
            'there are "card". Expected the columns "label" and "description"',
        ),
        ("d.jsonl", '{"card": "cards"}', None, "or JSON {label: words}."),
        (
            "d.json",
            '[{"label": "card", "label": "x", "description": "a"}]',
            1,
            'the key "label" stands twice',
        ),
    ],
)
def test_faulty_descriptions_are_refused(write, name, content, row, part):
    refused(write(name, content), part, row=row, read=read_descriptions)


def test_texts_and_labels_go_in_pairs():
    with pytest.raises(DataError, match="2 texts came with 1 labels"):
        read_examples((["a", "b"], ["x"]))
    with pytest.raises(DataError, match="2 texts came with 1 labels"):
        Examples(["a", "b"], ["x"])


# -- columns that can't be found -----------------------------------------------------------------------------------


def test_a_missing_column_names_those_there_and_the_closest(write):
    path = write("a.csv", "text,lable,id\na,x,1\nb,y,2\n")
    refused(
        path, 'hold the label. There are "text", "lable", "id". Did you mean "lable"?', 'label="lable"', row=1
    )
    refused(
        path,
        'no column "labl" for the label',
        '"text", "lable", "id". Did you mean "lable"?',
        row=1,
        label="labl",
    )
    refused(path, 'no column "txt" for the text', 'Did you mean "text"?', row=1, text="txt")
    refused(path, '"text" cannot be both', text="text", label="text")


def test_two_columns_without_an_obvious_label_are_refused(write):
    refused(
        write("a.csv", "p,q\na,x\nb,y\nc,z\n"),
        'no column is known to hold the text. There are "p", "q"',
        row=1,
    )
    refused(write("b.csv", "text,id\na,1\nb,2\n"), "no column is known to hold the label", row=1)


@pytest.mark.parametrize(
    "content",
    [
        "how do I pay?,payment\ncard is lost,card\n",
        "hello,greet\nhi,greet\nhowdy,greet\nbye,part\nciao,part\n",
    ],
)
def test_a_missing_header_is_suspected(write, content):
    refused(write("a.csv", content), "the header missing?", '"text,label"', row=1)


def test_a_missing_header_of_texts_alone_is_suspected(write):
    refused(write("a.csv", "how do I pay?\ncard is lost\n"), "Is the header missing?", row=1, read=read_texts)


def test_a_column_named_twice_is_refused(write):
    refused(write("a.csv", "text,label,text\na,x,b\n"), 'the column "text" stands more than once', row=1)


def test_a_missing_key_is_named_with_its_row(write):
    path = write("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n')
    refused(path, 'no "label" here', row=2)


# -- rows that can't be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "row", "part"),
    [
        ("a.csv", 'text,label\n"two\nlines",x\n,x\n', 3, '"text" is empty'),
        ("a.csv", "text,label\na,x\n\n\nb, \n", 5, '"label" is empty'),
        (
            "a.csv",
            "text,label\na,x\nb, c,x\n",
            3,
            '2 cells expected, as in the header, but 3 came (a text with "," in it needs quotes',
        ),
        ("a.tsv", "text\tlabel\na\n", 2, "2 cells expected, as in the header, but 1 came (a text with a tab"),
        ("a.csv", 'text,label\na,x\n"b,x\nc,y\n', 3, "a quote opened in this row is never closed"),
        ("a.csv", 'text,label\n"a" b,x\n', 2, "double each quote"),
        ("a.csv", "text,label\na,x\rb,y\r", 2, "bare carriage return"),
        ("a.csv", "text,label\na,x\nb\0,y\n", 3, "a NUL byte at offset 16"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", \n', 2, "not a JSON object on one line"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n["b", "y"]\n', 2, "came a list; expected an object"),
        ("a.jsonl", '"text"\n', 1, "came a string; expected an object"),
        ("a.jsonl", '{"text": "a", "label": {"id": 1}}\n', 1, '"label" is dict'),
        ("a.jsonl", '{"text": ["a"], "label": "x"}\n', 1, '"text" is list'),
        (
            "a.jsonl",
            '{"text": null, "label": NaN}\n',
            1,
            '"text" is missing (null or NaN) and "label" is missing',
        ),
        ("a.jsonl", '{"text": "a\\u0000", "label": "x"}\n', 1, '"text" holds a NUL'),
        ("a.jsonl", '{"text": "a\\ud800", "label": "x"}\n', 1, "half of a surrogate pair"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n' + "[" * 100_000, 2, "not a JSON object"),
        (
            "a.jsonl",
            '{"text": "a", "label": "x"}\n{"text": "b", "label": "x", "label": "y"}\n',
            2,
            'the key "label" stands twice in this object: keep one',
        ),
        ("a.jsonl", '{"n": 1, "text": "b", "n": 1, "label": "x"}\n', 1, 'the key "n" stands twice'),
        (
            "a.json",
            '[{"text": "a", "label": "x"}, {"text": "b", "text": "b", "label": "y"}]',
            2,
            'key "text" stands',
        ),
        ("a.jsonl", '{"text": {"a": 1, "a": 2}, "label": "x"}\n', 1, 'the key "a" stands twice'),
        ("a.json", '[{"text": "a", "label": "x"}, 3]', 2, "came a number; expected an object"),
        ("a.json", '[{"text": "a", "label": "x"} {"text": "b"}]', 2, "where a comma or ] should stand"),
        ("a.json", '[{"text": "a", "label": "x"}, {"text": b}, {"text": "long enough"}]', 2, "not JSON"),
        ("a.json", '[{"text": "a", "label": "x"}, {"text": "b', 2, "is the file cut off?"),
        ("a.json", '[{"text": "a", "label": "x"},', 2, "cut off"),
        ("a.json", '[{"text": "a", "label": "x"}', 2, "cut off"),
        (
            "a.json",
            '[{"text": "a", "label": "x"}]\n[{"text": "b", "label": "y"}]',
            2,
            "after the end of the JSON list",
        ),
        ("a.json", '[{"text": "a", "label": "x"}, ' + "[" * 100_000, 2, "nested too deep"),
    ],
)
def test_a_bad_row_is_named(write, name, content, row, part):
    refused(write(name, content), part, row=row)


def test_up_to_five_bad_rows_stand_in_one_error(write):
    message = refused(write("a.csv", "text,label\na,x\n" + ",x\nb,\n" * 4), row=3)
    assert message.count("is empty") == 5
    assert "row 4: " in message
    assert "row 7: " in message
    assert "row 8" not in message


def test_bad_cells_of_a_frame_are_named_by_its_index():
    frame = pd.DataFrame({"text": ["a", None, pd.NA], "label": ["x", "y", float("nan")]}, index=[10, 20, 30])
    with pytest.raises(
        DataError, match=r'DataFrame, row 20: "text" is missing .*; row 30: "text" .* and "label"'
    ) as caught:
        read_examples(frame)
    assert (caught.value.file, caught.value.row) == ("DataFrame", 20)


def test_bad_cells_of_sequences_are_named_by_their_place():
    with pytest.raises(DataError, match=r'examples, row 1: "text" is bytes') as caught:
        read_examples((["a", b"b"], ["x", "y"]))
    assert caught.value.row == 1


def test_a_frame_with_a_column_twice_is_refused():
    with pytest.raises(DataError, match='DataFrame: the column "text" stands more than once'):
        read_examples(pd.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"]))


def test_bad_rows_of_parquet_are_named(write):
    refused(write("a.parquet", as_parquet([("a", "x"), (None, "y")])), '"text" is missing', row=2)
    nested = io.BytesIO()
    pq.write_table(pa.table({"text": [["a"]], "label": ["x"]}), nested)
    refused(write("b.parquet", nested.getvalue()), '"text" is list', row=1)
    broken = io.BytesIO()
    column = pa.array([b"good", b"caf\xe9"]).view(pa.utf8())
    pq.write_table(pa.table({"text": column, "label": ["x", "y"]}), broken)
    refused(write("c.parquet", broken.getvalue()), "byte 0xe9 at place 3", row=2)


# -- files that can't be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_broken_byte_is_named_with_row_offset_and_remedy(write, name):
    content = b'text,label\n"two\nlines",x\n' + "the café,y\n".encode("cp1252")
    offset = content.index(b"\xe9")
    refused(
        write(name, content),
        f"byte 0xe9 at offset {offset} is not UTF-8",
        '"the café,y"',
        "WINDOWS-1252",
        row=3,
    )


def test_the_offset_of_a_broken_byte_counts_the_byte_order_mark_and_earlier_pieces(write):
    content = b"\xef\xbb\xbf" + as_json([("é" * 50_000, "x"), ("b", "y")])[:-3] + b"\xff"
    refused(write("a.json", content), f"byte 0xff at offset {len(content) - 1} is not UTF-8", row=2)
    content = b'[{"text": "a", "label": "x"}, \xc3'
    refused(write("b.json", content), f"byte 0xc3 at offset {len(content) - 1} is not UTF-8", row=2)


def test_a_broken_byte_in_texts_alone(write):
    refused(write("a.txt", b"one\ntw\xf6\n"), "byte 0xf6 at offset 6", row=2, read=read_texts)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("text,label\na,x\n".encode("utf-16"), "in UTF-16"),
        ("text,label\na,x\n".encode("utf-32"), "in UTF-32"),
        (b"PK\x03\x04...", "Excel workbook"),
        (gzip.compress(b"text,label\na,x\n", mtime=0), "packed with gzip: add .gz"),
        (as_parquet(PAIRS), "rename it to .parquet"),
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"text,label\n", "holds no example"),
    ],
)
def test_a_file_that_is_something_else_is_recognised(write, content, part):
    refused(write("a.csv", content), part)


def test_utf_16_without_a_mark_is_suspected(write):
    refused(write("a.csv", "text,label\n".encode("utf-16-le")), "a NUL byte at offset 1", "UTF-16", row=1)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_empty_files_are_refused(write, name):
    refused(write(name, ""), "the file is empty", read=read_texts)


def test_an_empty_json_list_is_refused(write):
    refused(write("a.json", "[ ]"), "the file is empty")


def test_a_damaged_gzip_is_refused(write, tmp_path):
    path = write("a.csv.gz", "text,label\n" + "".join(f"text {i * i},x\n" for i in range(5000)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="damaged or cut off") as caught:
        read_examples(path)
    assert caught.value.file == str(path)
    assert caught.value.row > 1
    (tmp_path / "b.csv.gz").write_bytes(b"text,label\n")
    refused(tmp_path / "b.csv.gz", "damaged or cut off", row=1)


def test_a_damaged_parquet_is_refused(write):
    data = as_parquet(PAIRS)
    refused(write("a.parquet", data[: len(data) // 2]), "not a Parquet file that can be read")
    refused(write("b.parquet", b"text,label\n"), "not a Parquet file that can be read")


def test_parquet_without_pyarrow_names_the_extra(write, monkeypatch):
    path = write("a.parquet", as_parquet(PAIRS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"quickstudy\[parquet\]"):
        read_examples(path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a.xlsx", "CSV UTF-8"),
        ("a.zip", "unpack it first"),
        ("a.pkl", 'came a ".pkl" file; expected one of .csv, .tsv'),
        ("data", "a file without suffix"),
        ("a.txt", "it has no labels"),
    ],
)
def test_other_files_are_refused(write, name, part):
    refused(write(name), part)


def test_a_missing_file_names_the_closest(write, tmp_path):
    write("tickets.csv")
    refused(tmp_path / "ticket.csv", 'not found. Did you mean "tickets.csv"?')
    refused(tmp_path / "nowhere" / "a.csv", "there is no folder")


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    refused(tmp_path / "a.csv", "neither a file nor a folder")


@pytest.mark.parametrize("source", [None, 3, ["a", "b"], ("a", "b"), (1, 2), {"text": "a"}])
def test_other_sources_are_refused(source):
    with pytest.raises(DataError, match=f"came {type(source).__name__}; expected the path"):
        read_examples(source)


# -- folders -------------------------------------------------------------------------------------------------------


def test_faulty_class_folders_are_refused(write, tmp_path):
    write("tables/train.csv")
    refused(tmp_path / "tables", "holds no sub-folder", '"train.csv": give such a file')
    refused(write("mixed/stray.csv"), "beside the classes' folders", read=lambda p: mixed(write, p))
    (tmp_path / "empty" / "x").mkdir(parents=True)
    refused(tmp_path / "empty" / "x", "a class without a text", read=lambda p: read_examples(p.parent))
    blank = write("blank/x/1.txt", " \n")
    refused(blank, "the text is empty", read=lambda p: read_examples(p.parent.parent))
    other = write("other/x/1.doc", "text")
    refused(other, "expected only .txt files", read=lambda p: read_examples(p.parent.parent))
    broken = write("broken/x/1.txt", b"one\ntw\xf6")
    refused(broken, "byte 0xf6 at offset 6", row=2, read=lambda p: read_examples(p.parent.parent))
    refused(tmp_path / "blank", "a folder of classes has no columns", text="text")


def mixed(write, path):
    write("mixed/x/1.txt", "text")
    read_examples(path.parent)


def test_links_are_followed_inside_a_folder_and_refused_out_of_it(write, tmp_path):
    first = write("set/x/1.txt", "one")
    link = first.with_name("2.txt")
    link.symlink_to("1.txt")
    assert read_examples(tmp_path / "set").texts == ["one", "one"]
    link.unlink()
    link.symlink_to(write("outside.txt", "secret"))
    refused(link, "leads out of", read=lambda _: read_examples(tmp_path / "set"))
    link.unlink()
    link.symlink_to("gone.txt")
    refused(link, "a symbolic link that leads nowhere", read=lambda _: read_examples(tmp_path / "set"))


def test_faulty_folders_of_data_sets_are_refused(write, tmp_path):
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "holds no data set", read=read_datasets)
    write("one/x/1.txt", "text")
    refused(tmp_path / "one", "looks like one data set", read=read_datasets)
    write("odd/a.csv")
    refused(write("odd/notes.docx"), 'came a ".docx" file', read=lambda p: read_datasets(p.parent))
    refused(tmp_path / "odd" / "a.csv", "a file; expected a folder", read=read_datasets)
    refused(tmp_path / "od", 'Did you mean "odd"?', read=read_datasets)


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("a.csv", "text,label\na,x\n" + "b" * 200 + ",y\n", 3),
        ("a.jsonl", as_jsonl([("a", "x"), ("b" * 200, "y")]).decode(), 2),
        ("a.json", as_json([("a", "x"), ("b" * 200, "y")]).decode(), 2),
        ("a.txt", "a\n" + "b" * 200, 2),
    ],
)
def test_lines_and_texts_are_bounded(write, name, content, row):
    refused(write(name, content), "longer than 100", row=row, read=read_texts, limit=100)


def test_an_item_and_a_cell_are_bounded(write):
    path = write("a.json", '[{"text": "' + "a" * 3_000_000 + '", "label": "x"}]')
    refused(path, "an item longer than 1,048,576", row=1)
    path = write("a.parquet", as_parquet([("a" * 2_000_000, "x")]))
    refused(path, '"text" is longer than 1,048,576 characters', row=1)


def test_a_text_of_many_lines_is_bounded(write):
    path = write("set/x/1.txt", "line\n" * 50)
    refused(
        path, "longer than 100 characters", row=21, read=lambda p: read_examples(p.parent.parent, limit=100)
    )


def test_a_long_text_below_the_bound_is_read(write):
    text = "word " * 100_000
    assert read_examples(write("a.csv", f"text,label\n{text},x\n")).texts == [text.strip()]


def test_an_open_quote_is_not_read_to_the_end_of_a_big_file(write):
    path = write("a.csv", 'text,label\na,x\n"b,x\n' + "c,x\n" * 1_000_000)
    refused(path, "a quote opened in this row is never closed", row=3)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a.csv.gz"])
def test_a_line_of_a_gigabyte_is_refused_at_once_and_in_little_memory(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".gz"):
        piece = gzip.compress(b"a" * 2**24)
        path.write_bytes(piece * 64)
    else:
        with path.open("wb") as file:
            file.truncate(2**30)
    script = """
        import resource, sys, time
        from quickstudy.core.errors import DataError
        from quickstudy.domains.text.read import read_texts
        used, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            read_texts(sys.argv[1])
        except DataError as error:
            print(error.row, "longer than 1,048,576 bytes" in str(error))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used, time.perf_counter() - start)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found, cost = done.stdout.splitlines()
    kilobytes, seconds = cost.split()
    assert found == "1 True"
    assert int(kilobytes) < 30_000
    assert float(seconds) < 2


def test_reading_imports_neither_torch_nor_pandas_nor_pyarrow(write):
    script = (
        "import sys; from quickstudy.domains.text.read import read_examples; read_examples(sys.argv[1]); "
        "print([name for name in ('torch', 'pandas', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(write("a.csv"))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
