"""Labelled examples: each format gives back what was labelled, to the character; faults are named with file and row."""

import gzip
import json
import warnings
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.reading.conll import spans_of
from quickstudy.domains.kg.reading.examples import FORMATS, read_annotated
from quickstudy.domains.kg.reading.format import format_of
from quickstudy.domains.kg.reading.rows import joined
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.schema import Schema

SCHEMA = Schema.of(
    {"entities": ["person", "company"], "relations": {"works_for": {"head": "person", "tail": "company"}}}
)
TEXT = "Jo works for Acme plc."
JO, ACME = (0, 2, "person"), (13, 21, "company")
FACTS = [("Jo", "works_for", "Acme plc")]


def lines(*values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


OURS = {
    "text": TEXT,
    "spans": [{"start": 0, "end": 2, "type": "person"}, {"start": 13, "end": 21, "type": "company"}],
    "relations": [{"head": 0, "tail": 1, "type": "works_for"}],
}
PRODIGY = {
    "text": TEXT,
    "_input_hash": 1,
    "tokens": [{"text": "Jo", "start": 0, "end": 2, "id": 0}],
    "spans": [{"start": 0, "end": 2, "label": "person"}, {"start": 13, "end": 21, "label": "company"}],
    "relations": [
        {
            "head": 0,
            "child": 4,
            "label": "works_for",
            "head_span": {"start": 0, "end": 2, "label": "person"},
            "child_span": {"start": 13, "end": 21, "label": "company"},
        }
    ],
    "answer": "accept",
}
DOCCANO = {
    "id": 5,
    "text": TEXT,
    "entities": [
        {"id": 8, "label": "company", "start_offset": 13, "end_offset": 21},
        {"id": 7, "label": "person", "start_offset": 0, "end_offset": 2},
    ],
    "relations": [{"id": 1, "from_id": 7, "to_id": 8, "type": "works_for"}],
}


def studio(*results, **more):
    return {"id": 3, "data": {"text": TEXT}, "annotations": [{"id": 1, "result": list(results), **more}]}


def region(name, start, end, label, text=None):
    value = {"start": start, "end": end, "labels": [label]} | ({} if text is None else {"text": text})
    return {"id": name, "type": "labels", "from_name": "label", "to_name": "text", "value": value}


def arrow(head, tail, direction="right", labels=("works_for",)):
    return {
        "type": "relation",
        "from_id": head,
        "to_id": tail,
        "direction": direction,
        "labels": list(labels),
    }


STUDIO = studio(
    region("a", 0, 2, "person", "Jo"), region("b", 13, 21, "company", "Acme plc"), arrow("a", "b")
)
SPERT = {
    "tokens": ["Jo", "works", "for", "Acme", "plc."],
    "entities": [{"type": "person", "start": 0, "end": 1}, {"type": "company", "start": 3, "end": 5}],
    "relations": [{"type": "works_for", "head": 0, "tail": 1}],
    "orig_id": 12,
}
FEWREL = {
    "works_for": [
        {
            "tokens": ["Jo", "works", "for", "Acme", "plc", ";", "Jo"],
            "h": ["jo", "Q1", [[0], [6]]],
            "t": ["acme plc", "Q2", [[3, 4]]],
        }
    ]
}
CONLL04 = """#doc 12
0\tJo\tB-person\t['works_for']\t[4]
1\tworks\tO\t['N']\t[1]
2\tfor\tO\t['N']\t[2]
3\tAcme\tB-company\t['N']\t[3]
4\tplc.\tI-company\t['N']\t[4]
"""
PUBTATOR = """7|t|Jo works for Acme plc.
7|a|More of it.
7\t0\t2\tJo\tperson\tD1
7\t13\t21\tAcme plc\tcompany\tD2|D3
7\tworks_for\tD1\tD3

"""
MARKED = '8001\t"<e1>Jo</e1> works for <e2> Acme plc </e2>."\nworks_for(e1,e2)\nComment: none\n\n'
INLINE = "# by hand\n\n[person]{Jo} works for [company]{Acme plc}.\n    works_for: Jo -> Acme plc\n"

# format -> (content, mentions, facts)
WITH_FACTS = {
    "jsonl": lines(OURS),
    "jsonl as a list": json.dumps([OURS], indent=2),
    "jsonl as one object": json.dumps(OURS, indent=1),
    "jsonl marked": lines(
        {
            "marked": "[person]{Jo} works for [company]{Acme plc}.",
            "relations": [{"head": 0, "tail": 1, "type": "works_for"}],
        }
    ),
    "prodigy": lines(PRODIGY),
    "doccano": lines(DOCCANO),
    "label-studio": json.dumps([STUDIO]),
    "label-studio as one task": json.dumps(STUDIO, indent=2),
    "conll04": json.dumps([SPERT]),
    "conll04 as lines": CONLL04,
    "pubtator": PUBTATOR,
    "inline": INLINE,
    "marked": MARKED,
    "fewrel": json.dumps(FEWREL),
}
SPANS_ONLY = {
    "conll": "Jo B-person\nworks O\nfor O\nAcme B-company\nplc. I-company\n",
    "conll with more columns": "-DOCSTART- O\n\nJo N B-person\nworks V O\nfor P O\nAcme N B-company\nplc. N I-company",
    "conll with tabs": "Jo\tS-person\nworks\tO\nfor\tO\nAcme\tB-company\nplc.\tE-company\n",
    "spacy": json.dumps([[TEXT, {"entities": [[0, 2, "person"], [13, 21, "company"]]}], None]),
    "spacy as a tool exports it": json.dumps(
        {
            "classes": ["person"],
            "annotations": [[TEXT, {"entities": [[0, 2, "person"], [13, 21, "company"]]}]],
        }
    ),
    "spacy as lines": lines(
        {"text": TEXT, "entities": [{"start": 0, "end": 2, "label": "person"}, [13, 21, "company"]]}
    ),
    "doccano label": lines({"id": 1, "text": TEXT, "label": [[0, 2, "person"], [13, 21, "company"]]}),
    "doccano labels": lines({"text": TEXT, "labels": [[0, 2, "person"], [13, 21, "company"]]}),
    "label-studio min": json.dumps(
        [
            {
                "id": 1,
                "text": TEXT,
                "label": [
                    {"start": 0, "end": 2, "text": "Jo", "labels": ["person"]},
                    {"start": 13, "end": 21, "text": "Acme plc", "labels": ["company"]},
                ],
            }
        ]
    ),
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="examples.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def facts(one):
    return [(one.of(head), kind, one.of(tail)) for head, tail, kind in one.relations]


def mentions(one):
    return [(one.of(i).rstrip("."), span.type) for i, span in enumerate(one.spans)]


def refused(path, *parts, row=None, file=None, **options):
    with pytest.raises(DataError) as caught:
        read_annotated(path, **options)
    assert caught.value.file == str(file or path)
    assert caught.value.row == row
    for part in parts:
        assert part in str(caught.value)


# -- what is read


@pytest.mark.parametrize("name", ["examples.json", "x.txt.gz", "no_ending"])
@pytest.mark.parametrize("kind", WITH_FACTS)
def test_entities_and_relations_are_read(write, kind, name):
    path = write(WITH_FACTS[kind], name)
    format = kind.split()[0]
    assert format_of(path) == format
    for found in (read_annotated(path, SCHEMA), read_annotated(path, SCHEMA, format)):
        (one,) = found
        assert set(mentions(one)) >= {("Jo", "person"), ("Acme plc", "company")}
        assert [(a, kind, b.rstrip(".")) for a, kind, b in facts(one)] == FACTS
        assert one.complete == (format in ("conll04", "pubtator"))
        assert one.document.source == str(path)


def test_marked_words_without_a_relation_are_unrelated_where_a_file_has_relations(write):
    met = "[person]{Jo} passed by [company]{Acme plc} today. Bolt is unmarked.\nNobody came.\n"
    path = write(met + "[person]{Al} joined [company]{Bolt}.\n    works_for: Al -> Bolt\n", "x.txt")
    first, bare, last = read_annotated(path, SCHEMA)
    assert [pair.type for pair in labelled_pairs(first)] == [None, None]
    assert not bare.unrelated and not last.unrelated
    # What isn't marked teaches no more than without relations: a sentence without marks says nothing of names.
    assert not any(one.complete for one in (first, bare, last))
    assert not any(one.unrelated for one in read_annotated(write(met, "names.txt"), SCHEMA))


@pytest.mark.parametrize("kind", SPANS_ONLY)
@pytest.mark.filterwarnings("ignore:.*null, no example")
def test_entities_are_read(write, kind):
    path = write(SPANS_ONLY[kind])
    assert format_of(path) == kind.split()[0]
    (one,) = read_annotated(path, SCHEMA)
    assert mentions(one) == [("Jo", "person"), ("Acme plc", "company")]
    assert one.text == TEXT and not one.relations
    assert one.complete == kind.startswith("conll")
    (one,) = read_annotated(path, complete=True)
    assert one.complete


def test_every_format_is_tested():
    assert {kind.split()[0] for kind in {**WITH_FACTS, **SPANS_ONLY}} | {"brat"} == set(FORMATS)


plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() and text == text.strip()
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(plain, st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=4))
def test_offsets_come_back_as_they_were(write, rows):
    given = [(text, min(a, len(text) - 1), text) for text, a, _ in rows]
    given = [(text, a, min(len(text), a + b)) for (text, a, _), (_, _, b) in zip(given, rows, strict=True)]
    given = [(text, a, b) if text[a:b].strip() else (text, 0, len(text)) for text, a, b in given]
    wanted = [(text, text[a:b].strip()) for text, a, b in given]
    studio = [
        {"id": i, "data": {"text": text}, "annotations": [{"result": [region("r", *utf16(text, a, b), "t")]}]}
        for i, (text, a, b) in enumerate(given)
    ]  # fmt: skip
    for content in (
        lines(*({"text": text, "spans": [{"start": a, "end": b, "type": "t"}]} for text, a, b in given)),
        json.dumps([[text, {"entities": [[a, b, "t"]]}] for text, a, b in given]),
        lines(*({"text": text, "label": [[a, b, "t"]]} for text, a, b in given)),
        json.dumps(studio),
    ):
        found = read_annotated(write(content))
        assert [(one.text, one.of(0)) for one in found] == wanted


def utf16(text, start, end):
    return tuple(len(text[:at].encode("utf-16-le")) // 2 for at in (start, end))


def test_ids_are_the_files_or_the_row(write):
    path = write(lines({**OURS, "id": "a"}, {**OURS, "id": 2}, OURS), "x.jsonl")
    assert [one.document.id for one in read_annotated(path)] == ["a", "2", "x.jsonl:3"]
    refused(
        write(lines(OURS, {**OURS, "id": "a"}, {**OURS, "id": "a"})),
        "the id 'a' stands in row 2 already",
        row=3,
    )


def test_links_to_a_catalogue_are_kept(write):
    spans = [{**span, "link": f"Q{i}"} for i, span in enumerate(OURS["spans"])]
    (one,) = read_annotated(write(lines({**OURS, "spans": spans})))
    assert one.links == {0: "Q0", 1: "Q1"}
    (one,) = read_annotated(write(PUBTATOR))
    assert one.links == {0: "D1", 1: "D2|D3"}
    (one,) = read_annotated(write(json.dumps(FEWREL)))
    assert one.links == {0: "Q1", 1: "Q2", 2: "Q1"} and one.of(2) == "Jo"


# -- what is wrong, in any format


def test_blanks_at_the_ends_of_a_mention_are_left_out(write):
    (one,) = read_annotated(write(lines({"text": "a  b c", "spans": [{"start": 1, "end": 5, "type": "t"}]})))
    assert one.of(0) == "b"


def with_spans(*spans):
    return lines(
        {"text": TEXT, "spans": [dict(zip(("start", "end", "type"), span, strict=True)) for span in spans]}
    )


def test_spans_may_be_nested_and_may_touch_but_not_cross(write):
    spans = [(0, 8, "a"), (0, 2, "b"), (0, 8, "c"), (3, 8, "b"), (8, 10, "a")]
    (one,) = read_annotated(write(with_spans(*spans)))
    assert one.spans == ((0, 8, "a"), (0, 2, "b"), (0, 8, "c"), (3, 8, "b"), (9, 10, "a"))
    refused(
        write(with_spans((0, 8, "a"), (3, 12, "b"))),
        "'Jo works' (a, 0 to 8)",
        "'works for'",
        "overlap",
        row=1,
    )
    refused(write(with_spans((0, 2, "a"), (0, 2, "a"))), "'Jo' (a) stands twice", row=1)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"spans": [{"start": 0, "end": 23, "type": "t"}]}, ["goes from 0 to 23", "22"]),
        ({"spans": [{"start": 5, "end": 2, "type": "t"}]}, ["goes from 5 to 2"]),
        ({"spans": [{"start": 2, "end": 3, "type": "t"}]}, ["nothing but blanks"]),
        ({"spans": [{"start": "0", "end": 3, "type": "t"}]}, ["'start' of a span", "whole number"]),
        ({"spans": [{"start": 0.0, "end": 3, "type": "t"}]}, ["whole number"]),
        ({"spans": [{"start": True, "end": 3, "type": "t"}]}, ["whole number"]),
        ({"spans": [{"start": 0, "end": 3}]}, ["no 'type'"]),
        ({"spans": [{"start": 0, "end": 3, "type": ""}]}, ["'type'", "a text"]),
        ({"spans": [[0, 3]]}, ["expected a span such as"]),
        ({"spans": {"a": 1}}, ["a list of spans"]),
        ({"relations": [{"head": 0, "tail": 2, "type": "t"}]}, ["its tail is span 2; there are 2"]),
        ({"relations": [{"head": 0, "tail": 0, "type": "t"}]}, ["to itself"]),
        ({"relations": [{"head": 0, "type": "t"}]}, ["no 'tail'"]),
        ({"relations": ["x"]}, ["expected a relation such as"]),
        ({"text": 3}, ["the text is 3"]),
        ({"text": " \n", "spans": [], "relations": []}, ["is empty"]),
        ({"text": "\ud800" + TEXT}, ["surrogate"]),
        ({"id": [1]}, ["the id is [1]"]),
        ({"complete": "yes"}, ["complete"]),
        ({"relatons": []}, ["'relatons' is unknown", 'Did you mean "relations"']),
        ({"marked": "x"}, ['"marked" alone']),
    ],
)
def test_a_bad_row_is_named(write, change, parts):
    path = write(json.dumps(OURS) + "\n" + json.dumps({**OURS, **change}) + "\n")
    refused(path, *parts, row=2)


def test_the_first_bad_row_is_named_and_the_others_are_counted(write):
    bad = {**OURS, "spans": [{"start": 0, "end": 99, "type": "t"}]}
    path = write(lines(OURS, bad, OURS, bad, "text", bad))
    refused(path, "99", "And 3 more that can't be used: row 4, 5, 6.", row=2)
    with pytest.warns(UserWarning, match=r"row 2.*And 3 more"):
        assert len(read_annotated(path, bad="warn")) == 2
    refused(write(json.dumps(OURS) + "\n{not json}\n"), "not a JSON object on one line", row=2)


def test_types_are_held_to_the_schema(write):
    other = {**OURS, "spans": [{"start": 0, "end": 2, "type": "persn"}]}
    refused(write(lines({**other, "relations": []})), "'Jo'", "'persn'", '"person"', schema=SCHEMA, row=1)
    turned = {**OURS, "relations": [{"head": 1, "tail": 0, "type": "works_for"}]}
    refused(
        write(lines(turned)), "'Acme plc' → 'Jo'", "The other way round it would fit", schema=SCHEMA, row=1
    )
    named = {**OURS, "relations": [{"head": 0, "tail": 1, "type": "work_for"}]}
    refused(write(lines(named)), 'Did you mean "works_for"', schema=SCHEMA, row=1)
    refused(write(MARKED.replace("works_for", "worksfor")), 'Did you mean "works_for"', schema=SCHEMA, row=1)


def test_files_that_are_none_are_refused(write, tmp_path):
    refused(write(""), "empty")
    refused(write("\n \n"), "empty")
    refused(write("just a sentence.\n"), "the format isn't known", "'just a sentence.'", " conll, ")
    refused(write('{"a": 1}\n{"b": 2}\n'), "isn't known")
    refused(write("[]"), "empty")
    refused(write(zlib.compress(b"\x81\xa6tokens"), "train.spacy"), "DocBin", "json.dumps")
    refused(write(zlib.compress(b"\x81\xa6tokens"), "train.bin"), "DocBin")
    refused(write("Jo B-person\nJos\xe9 O\n".encode("latin-1")), "not UTF-8", "iconv", row=2)
    refused(write("J\0o B-person\n"), "NUL", row=1)
    refused(write('{"text": "x", "spans": []', "cut.jsonl"), "JSON", row=1)
    refused(write('[{"text": "x", "spans": []}'), "cut off", row=2)
    refused(tmp_path / "exampels.txt", "not found", file=tmp_path / "exampels.txt")
    with pytest.raises(DataError, match=r"no format 'conl'. Did you mean \"conll\""):
        read_annotated(write("x O\n"), format="conl")


def test_a_key_that_stands_twice_within_is_named(write):
    text = '{"text": "Jo", "spans": [{"start": 0, "start": 1, "end": 2, "type": "t"}]}\n'
    refused(write(text), '"start" stands twice', row=1)


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_lets_another_through_as_a_traceback(write, format, tmp_path):
    """Whatever a file holds, it is read or refused with a message."""
    odd = [
        "",
        "[[[[",
        "{}",
        "[1]",
        '["a", {}]',
        "null\n",
        '{"text": null}',
        '{"h": 1, "t": 2}',
        "x\n",
        "T1\tp 0 1\tx\n",
    ]
    odd += [
        '[{"data": 3, "annotations": [{"result": [3]}]}]',
        '{"r": [3]}',
        '{"r": 3}',
        "\ufeff\n",
        "#doc\n",
        "1|t|\n",
    ]
    odd += [
        '{"tokens": [1], "entities": 3}',
        '{"text": "a", "entities": 5}',
        '{"text": "a", "label": [[1]]}',
        "-DOCSTART-",
    ]
    odd += [
        '{"annotations": 3}',
        '[["a"]]',
        "[null]",
        '{"label": [{"labels": []}], "text": "a"}',
        "\\]{[",
        "[a]{",
        "}\n",
        "1\t",
    ]
    for number, text in enumerate([*odd, *WITH_FACTS.values(), *SPANS_ONLY.values()]):
        path = write(text, f"{number}.txt")
        for how in ("raise", "warn"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = read_annotated(path, format=format, bad=how)
            except DataError as problem:
                assert problem.file  # noqa: PT017
            else:
                assert all(one.checked() for one in found)


# -- CoNLL


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-a I-a O B-b B-b", [(0, 2, "a"), (3, 4, "b"), (4, 5, "b")]),  # IOB2
        ("I-a I-a O I-b B-b", [(0, 2, "a"), (3, 4, "b"), (4, 5, "b")]),  # IOB1
        ("B-a E-a O S-b S-b", [(0, 2, "a"), (3, 4, "b"), (4, 5, "b")]),  # BIOES
        ("B-a I-a L-a U-b U-b", [(0, 3, "a"), (3, 4, "b"), (4, 5, "b")]),  # BILOU
        ("B-a M-a E-a S-b S-b", [(0, 3, "a"), (3, 4, "b"), (4, 5, "b")]),  # BMES
        ("B-a I-b I-b E-b I-b", [(0, 1, "a"), (1, 4, "b"), (4, 5, "b")]),
        ("E-a E-a O O I-b", [(0, 1, "a"), (1, 2, "a"), (4, 5, "b")]),
        ("B-a-b I-a-b O O O", [(0, 2, "a-b")]),
        ("O O O O O", []),
    ],
)
def test_all_schemes_of_tags_are_read(tags, spans):
    assert spans_of(tags.split()) == spans


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from("ab")), max_size=6),
    st.sampled_from(["BIIB", "BIES", "BILU", "BMES"]),
)
def test_tags_that_are_written_are_read_back(parts, letters):
    tags, spans = [], []
    first, middle, last, only = letters
    for gap, size, kind in parts:
        tags += ["O"] * gap
        spans.append((len(tags), len(tags) + size, kind))
        inner = [only] if size == 1 else [first, *([middle] * (size - 2)), last]
        tags += [f"{letter}-{kind}" for letter in inner]
    assert spans_of(tags) == spans


@given(st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=3), max_size=8))
def test_tokens_stand_where_they_are_said_to(tokens):
    text, places = joined(tokens)
    assert [text[start:end] for start, end in places] == tokens
    assert "".join(text.split()) == "".join("".join(tokens).split())


def test_chinese_tokens_have_no_blanks_between():
    assert joined(list("吴重阳,2003年"))[0] == "吴重阳,2003年"
    assert joined(["苹果", "公司", "buys", "Bolt", "。"])[0] == "苹果公司 buys Bolt 。"
    assert joined(["한국", "사람"])[0] == "한국 사람"


def test_sentences_of_a_document_stay_apart(write):
    path = write("-DOCSTART- O\n\nJo B-p\nran O\n\n\nBo B-p\n\n-DOCSTART- O\n\nAl S-p\n", "x.txt")
    found = read_annotated(path)
    assert [(one.text, mentions(one), one.document.id) for one in found] == [
        ("Jo ran\n\nBo", [("Jo", "p"), ("Bo", "p")], "x.txt:3"),
        ("Al", [("Al", "p")], "x.txt:11"),
    ]
    found = read_annotated(write("# sent 1\nJo B-p\n# O\n\r\n\nBo\tx y\tB-p\n"))
    assert [(one.text, one.document.id) for one in found] == [
        ("Jo #", "examples.txt:2"),
        ("Bo", "examples.txt:6"),
    ]


def test_bad_lines_of_conll_are_named(write):
    refused(write("Jo B-p\nran\n\nBo O\n"), "'ran' has one column", row=2)
    refused(write("Jo B-p\nran X\n\nBo Y\n"), "'X', the last column of 'ran X'", "And 1 more", "row 4", row=2)
    refused(write("Jo\tB-p\nran\t\n"), "is no tag", row=2)
    refused(write("\tB-p\nran\tO\n"), "goes from 0 to 0", row=1)
    with pytest.warns(UserWarning, match="1 × row left out: a sentence of blanks"):
        assert len(read_annotated(write("Jo O\n\n \tO\n"))) == 1


# -- brat


def brat(write, ann, text=TEXT):
    write(text, "b/one.txt")
    return write(ann, "b/one.ann")


ANN = "T1\tperson 0 2\tJo\nT2\tcompany 13 21\tAcme plc\n"
ANN += "R1\tworks_for Arg1:T1 Arg2:T2\nN1\tReference T2 Wikidata:Q5\tAcme\n"


def test_brat_is_read_from_a_folder_and_from_a_file(write):
    path = brat(write, ANN)
    write("Bo", "b/sub/two.txt")
    write("T1\tperson 0 2\tBo\n", "b/sub/two.ann")
    found = read_annotated(path.parent, SCHEMA)
    assert [one.document.id for one in found] == ["one", "sub/two"]
    for (one,) in (found[:1], read_annotated(path, SCHEMA), read_annotated(path.with_suffix(".txt"), SCHEMA)):
        assert (mentions(one), facts(one)) == ([("Jo", "person"), ("Acme plc", "company")], FACTS)
        assert one.links == {1: "Wikidata:Q5"} and not one.complete


def test_events_become_relations_of_their_triggers(write):
    ann = "E2\thire:T3 Cause:E1\nE1\twork:T2 Who:T1 Whom:T3\n"
    ann += "T1\tperson 0 2\tJo\nT2\twork 3 8\tworks\nT3\tcompany 13 21\tAcme plc\n"
    (one,) = read_annotated(brat(write, ann))
    assert facts(one) == [
        ("Acme plc", "Cause", "works"),
        ("works", "Who", "Jo"),
        ("works", "Whom", "Acme plc"),
    ]


def test_what_brat_has_and_a_graph_has_not_is_said(write):
    more = "T3\tx 3 5;9 12\two for\nA1\tNegated T1\nM1 \tx T1\n"
    more += "*\tEquiv T1 T2\n#1\tNote T1\thm\nN2\tReference T2 W:1\tA\n"
    with pytest.warns(UserWarning, match="passed over") as said:
        (one,) = read_annotated(brat(write, ANN + more))
    assert one.of(2) == "works for"
    for part in ("1 × mention in pieces", "2 × attribute", "1 × equivalence", "1 × note", "1 × second id"):
        assert part in str(said[0].message)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("T1\tx 0 2\tJo", ["T1 stands twice"]),
        ("R1\tx Arg1:T1 Arg2:T2", ["R1 stands twice"]),
        ("T3\tx 0 99\tJo", ["'Jo' goes from 0 to 99"]),
        ("T3\tx 3 8\twalks", ["'walks' should stand at 3, where the text has 'works'"]),
        ("T3\tx 3\tworks", ["is no mention"]),
        ("T3\tx a b\tworks", ["is no mention"]),
        ("R2\tx Arg1:T1", ["is no relation"]),
        ("R2\tx Arg1:T1 Arg2:T9", ["speaks of 'T9'"]),
        ("E1\tx:T9", ["speaks of 'T9'"]),
        ("N2\tReference T1", ["is no reference"]),
        ("X1\tx", ["is no line of brat"]),
        ("\tx", ["is no line of brat"]),
    ],
)
def test_bad_lines_of_brat_are_named(write, line, parts):
    refused(brat(write, f"{ANN}{line}\n"), *parts, row=5)


def test_pairs_that_are_not_whole_are_named(write):
    path = write(ANN, "c/one.ann")
    refused(path.parent, "not found", file=path.with_suffix(".txt"))
    path = brat(write, ANN)
    write("more", "b/two.txt")
    with pytest.warns(UserWarning, match="a .txt without an .ann beside it"):
        assert len(read_annotated(path.parent)) == 1
    write("", "d/readme.txt")
    refused(path.parent.parent / "d", "with .ann files")


def test_offsets_of_brat_count_line_ends(write):
    (one,) = read_annotated(brat(write, "T1\tp 4 11\tJo Ray\n", "A\r\n\nJo\r\nRay"))
    assert one.of(0) == "Jo\r\nRay"


# -- the tools that people label with


def test_rejected_rows_of_prodigy_are_left_out_and_counted(write):
    rows = [
        PRODIGY,
        {**PRODIGY, "answer": "reject"},
        {**PRODIGY, "answer": "ignore"},
        {**PRODIGY, "answer": "ignore"},
    ]
    with pytest.warns(
        UserWarning, match="1 × row left out: answered 'reject'; 2 × row left out: answered 'ignore'"
    ):
        assert len(read_annotated(write(lines(*rows)))) == 1
    with pytest.warns(UserWarning, match="reject"):
        refused(write(lines(rows[1])), "no labelled example")
    refused(write(lines({**PRODIGY, "answer": "maybe"})), "'maybe'", row=1)


def test_ends_of_prodigys_relations_are_spans(write):
    bare = {**PRODIGY, "spans": []}
    assert facts(read_annotated(write(lines(bare)))[0]) == FACTS
    ends = {end: {"start": 3, "end": 8, "label": None} for end in ("head_span", "child_span")}
    bad = {**PRODIGY, "relations": [{**PRODIGY["relations"][0], **ends}]}
    refused(write(lines(bad)), "'works', which isn't labelled", row=1)
    refused(
        write(lines({**PRODIGY, "relations": [{"head": 0, "child": 4, "label": "x"}]})), "head_span", row=1
    )


def test_ids_of_doccano_are_looked_up(write):
    refused(
        write(lines({**DOCCANO, "relations": [{"from_id": 7, "to_id": 9, "type": "x"}]})), "entity 9", row=1
    )
    refused(write(lines({**DOCCANO, "entities": [DOCCANO["entities"][0]] * 2})), "have the id 8", row=1)
    refused(write(lines({"text": TEXT, "label": [[0, 2]]})), "expected a span such as", row=1)
    refused(write(lines({"text": TEXT, "label": [[0, 40, "x"]]})), "goes from 0 to 40", row=1)


def test_label_studio_counts_as_javascript_does(write):
    text = "😀 Jo met 😀 Acme"
    task = studio(
        region("a", 3, 5, "person", "Jo"), region("b", 13, 17, "company", "Acme"), arrow("b", "a", "left")
    )
    task["data"] = {"txt": text}
    (one,) = read_annotated(write(json.dumps([task])))
    assert facts(one) == [("Jo", "works_for", "Acme")]
    task = studio(region("a", 2, 4, "person", "Jo"))
    task["data"] = {"text": text}
    (one,) = read_annotated(write(json.dumps([task])))
    assert one.of(0) == "Jo"


def test_what_label_studio_says_of_a_task_counts(write):
    both = studio(
        region("a", 0, 2, "p"), region("b", 3, 8, "c"), arrow("a", "b", "bi", ["x", "y"]), {"type": "choices"}
    )
    both["annotations"].append({"result": [], "was_cancelled": True})
    none = {"id": 9, "data": {"text": "x"}, "annotations": []}
    with pytest.warns(
        UserWarning, match=r"1 × result of the type 'choices' passed over; 1 × row left out: no annotation"
    ):
        (one,) = read_annotated(write(json.dumps([both, none])))
    assert sorted(facts(one)) == [
        ("Jo", "x", "works"),
        ("Jo", "y", "works"),
        ("works", "x", "Jo"),
        ("works", "y", "Jo"),
    ]
    twice = studio(region("a", 0, 2, "p"))
    twice["annotations"].append({"result": [region("a", 3, 8, "c")]})
    refused(write(json.dumps([twice])), "annotated 2 times", row=1)
    twice["annotations"][1]["ground_truth"] = True
    assert mentions(read_annotated(write(json.dumps([twice])))[0]) == [("works", "c")]


@pytest.mark.parametrize(
    ("results", "part"),
    [
        ([region("a", 0, 2, "p", "Bo")], "'Bo' should stand from 0 to 2, where the text has 'Jo'"),
        ([region("a", 0, 99, "p")], "goes from 0 to 99"),
        ([region("a", 0, 2, "p"), arrow("a", "z")], "'z', which isn't there"),
        ([region("a", 0, 2, "p"), region("b", 3, 8, "p"), arrow("a", "b", labels=())], "its type isn't said"),
        ([{**region("a", 0, 2, "p"), "type": "hypertextlabels"}], "Label it as Text"),
        ([{**region("a", 0, 2, "p"), "value": {"start": 0, "end": 2}}], "no label"),
    ],
)
def test_bad_results_of_label_studio_are_named(write, results, part):
    refused(write(json.dumps([studio(*results)])), part, row=1)


def test_spacys_examples_say_their_entities(write):
    refused(write(json.dumps([[TEXT, {"cats": {"a": 1}}]])), 'no "entities"', row=1, format="spacy")
    refused(write(json.dumps([[TEXT, {"entities": [[0, 2]]}]])), "expected a span such as", row=1)
    refused(write(json.dumps([[TEXT, {"entities": [[0, 2, "a"], [1, 4, "b"]]}]])), "overlap", row=1)
    with pytest.warns(UserWarning, match="null"):
        assert len(read_annotated(write(json.dumps([[TEXT, {"entities": []}], None])))) == 1


# -- data sets of relations


def test_fewrel_and_opennre(write):
    lost = {"r": [{"tokens": ["a", "b"], "h": ["a", "Q1", [[0]]], "t": ["b", "Q2", [[2]]]}]}
    refused(write(json.dumps(lost)), "from token 2 up to 3", row=1)
    same = {"r": [{"tokens": ["a", "b"], "h": ["a", "Q1", [[0]]], "t": ["a", "Q2", [[0]]]}]}
    refused(write(json.dumps(same)), "the same words, 'a'", row=1)
    ends = {"h": {"name": "Acme", "id": "Q2", "pos": [3, 5]}, "t": {"name": "Jo", "pos": [0, 1]}}
    tokens = {"token": ["Jo", "works", "for", "Acme", "plc"], "relation": "employs", **ends}
    (one,) = read_annotated(write(lines(tokens)))
    assert facts(one) == [("Acme plc", "employs", "Jo")] and one.links == {1: "Q2"}
    text = {"text": TEXT, "h": {"pos": [13, 21]}, "t": {"pos": [0, 2]}, "relation": "NA"}
    (one,) = read_annotated(write(lines(text)))
    assert mentions(one) == [("Jo", "entity"), ("Acme plc", "entity")] and not one.relations


def test_bad_lines_of_conll04_are_named(write):
    for old, new, part, row in [
        ("2\tfor", "7\tfor", "the token's number, here 2", 4),
        ("['works_for']\t[4]", "['works_for']\t[2]", "no entity ends at 2", 2),
        ("['works_for']\t[4]", "['works_for']\t[4, 4]", "1 relations lead to 2 tokens", 2),
        ("['N']\t[1]", "[__import__('os')]\t[1]", "ends in no lists", 3),
    ]:
        refused(write(CONLL04.replace(old, new)), part, row=row)


def test_relations_of_ids_are_between_mentions_of_a_sentence(write):
    text = "8|t|Ax hurts Bx. Not Cx.\n8|a|Ax and Cx. Bx.\n"
    for start, word, name in [(0, "Ax", 1), (9, "Bx", 2), (17, "Cx", 3), (21, "Ax", 1), (28, "Cx", 3)]:
        text += f"8\t{start}\t{start + 2}\t{word}\tx\t{name}\n"
    path = write(text + "8\tCID\t1\t2\n8\tCID\t1\t3\n8\tBIO\t2\t3\n")
    (one,) = read_annotated(path)
    assert one.relations == (
        (0, 1, "CID"),
        (3, 4, "CID"),
        (1, 2, "BIO"),
    )  # B and C never share one: the nearest


@pytest.mark.parametrize(
    ("old", "new", "part", "row"),
    [
        ("7|t|Jo", "7|x|Jo", "is no title", 1),
        ("7\t0\t2\tJo", "7\t1\t3\tJo", "'Jo' should stand from 1 to 3, where the text has 'o'", 3),
        ("7\t0\t2\tJo", "8\t0\t2\tJo", "stands in the document 7", 3),
        ("7\t0\t2\tJo\tperson\tD1", "7\t0\t2", "is no mention", 3),
        ("works_for\tD1", "works_for\tD9", "speaks of D9", 5),
        ("works_for\tD1", "works_for\tD2", "which are one mention", 5),
    ],
)
def test_bad_lines_of_pubtator_are_named(write, old, new, part, row):
    refused(write(PUBTATOR.replace(old, new)), part, row=row, format="pubtator")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("</e1>", "", "expected one <e1>"),
        ("<e2>", "<e1>", "stands where it can't"),
        ("works_for(e1,e2)", "works_for(e1)", "is no relation"),
        ("works_for(e1,e2)\nComment: none\n", "", "no line with its relation"),
        ("Comment", "Remark", "stands below the relation"),
    ],
)
def test_bad_rows_of_marked_sentences_are_named(write, old, new, part):
    refused(write(MARKED.replace(old, new)), part, row=1, format="marked")


def test_marked_sentences_without_a_relation(write):
    (one,) = read_annotated(write(MARKED.replace("works_for(e1,e2)", "Other")))
    assert one.text == "Jo works for  Acme plc ." and mentions(one) == [
        ("Jo", "entity"),
        ("Acme plc", "entity"),
    ]
    assert not one.relations
    (one,) = read_annotated(write(MARKED.replace("(e1,e2)", "(e2,e1)")))
    assert facts(one) == [("Acme plc", "works_for", "Jo")]


def test_relations_by_hand_name_what_is_marked(write):
    for below, parts in [
        ("works_for: Jo -> Bolt", ["'Bolt' isn't marked", '"Acme plc"']),
        ("works_for Jo Acme", ["is no relation"]),
    ]:
        refused(write(INLINE.replace("works_for: Jo -> Acme plc", below)), *parts, row=4)
    refused(write("[p]{Jo} and [p]{Jo}\n r: Jo -> Jo\n"), "is marked 2 times", row=2)
    refused(write("  r: a -> b\n[p]{Jo}\n"), "no sentence above it", row=1, format="inline")
    refused(write("[p]{Jo ran\n[p]{Bo} ran\n"), "never closed", row=1)


@pytest.mark.parametrize("kind", ["jsonl", "doccano"])
def test_names_of_a_text_without_a_relation_are_unrelated_beside_others_that_have_some(write, kind):
    rows = {
        "jsonl": [
            {"marked": "[person]{Jo} runs [company]{Acme}", "relations": [{"head": 0, "tail": 1, "type": "works_for"}]},
            {"marked": "[person]{Jo} saw [company]{Acme}"},
        ],
        "doccano": [
            {"id": 1, "text": "Jo runs Acme", "Comments": [],
             "entities": [{"id": 1, "label": "person", "start_offset": 0, "end_offset": 2},
                          {"id": 2, "label": "company", "start_offset": 8, "end_offset": 12}],
             "relations": [{"id": 3, "from_id": 1, "to_id": 2, "type": "works_for"}]},
            {"id": 2, "text": "Jo saw Acme", "Comments": [],
             "entities": [{"id": 4, "label": "person", "start_offset": 0, "end_offset": 2},
                          {"id": 5, "label": "company", "start_offset": 7, "end_offset": 11}], "relations": []},
        ],
    }[kind]  # fmt: skip
    both = read_annotated(write("\n".join(map(json.dumps, rows)), "x.jsonl"), SCHEMA, kind)
    assert [one.unrelated for one in both] == [(), ((0, 1), (1, 0))]
    assert [pair.type for pair in labelled_pairs(both[1])] == [None, None]
    [alone] = read_annotated(write(json.dumps(rows[1]), "y.jsonl"), SCHEMA, kind)
    assert alone.unrelated == ()
