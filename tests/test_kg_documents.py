"""Documents: what is seen in a file is read in bounded memory; what can't be read is named with what to do."""

import gzip
import io
import json
import subprocess
import sys
import tracemalloc
import warnings

import pypdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.core.errors import DataError, MissingExtra
from quickstudy.domains.kg.document import sentences
from quickstudy.domains.kg.reading.documents import read_documents
from quickstudy.domains.kg.reading.html import text_of_html


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def read(path, **options):
    return [(one.id, one.text) for one in read_documents(path, **options)]


def refused(path, *parts, row=None, file=None, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert caught.value.file == str(file or path)
    assert caught.value.row == row
    for part in parts:
        assert part in str(caught.value)


def pdf(*pages, password=None):
    """A PDF with a line of text a page; None for a page without."""
    writer = pypdf.PdfWriter()
    font = pypdf.generic.DictionaryObject(
        {
            pypdf.generic.NameObject("/Type"): pypdf.generic.NameObject("/Font"),
            pypdf.generic.NameObject("/Subtype"): pypdf.generic.NameObject("/Type1"),
            pypdf.generic.NameObject("/BaseFont"): pypdf.generic.NameObject("/Helvetica"),
        }
    )
    for words in pages:
        page = writer.add_blank_page(300, 300)
        if words is not None:
            stream = pypdf.generic.DecodedStreamObject()
            stream.set_data(f"BT /F1 12 Tf 20 200 Td ({words}) Tj ET".encode())
            page[pypdf.generic.NameObject("/Contents")] = writer._add_object(stream)
            page[pypdf.generic.NameObject("/Resources")] = pypdf.generic.DictionaryObject(
                {
                    pypdf.generic.NameObject("/Font"): pypdf.generic.DictionaryObject(
                        {pypdf.generic.NameObject("/F1"): writer._add_object(font)}
                    )
                }
            )
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


# -- texts and tables


@pytest.mark.parametrize("name", ["a.txt", "A.TXT.gz", "a.md", "a.text"])
def test_a_text_is_a_document_as_it_stands(write, name):
    text = "# Heading\r\n\r\n Jo works – here. \n"
    path = write(name, text)
    (one,) = read_documents(path)
    assert (one.id, one.text, one.source) == (name, text, str(path))
    assert read(write(name, b"\xef\xbb\xbfJo"))[0][1] == "Jo"


@pytest.mark.parametrize(
    ("name", "content", "options", "found"),
    [
        ("a.csv", 'text,n\n"Jo, ran",1\nBo,2\n', {}, [("a.csv:2", "Jo, ran"), ("a.csv:3", "Bo")]),
        ("a.csv", "id,text\nx,Jo\ny,Bo\n", {}, [("x", "Jo"), ("y", "Bo")]),
        ("a.tsv", "no\tbody\n1\tJo\n2\tBo\n", {"text": "body", "id": "no"}, [("1", "Jo"), ("2", "Bo")]),
        ("a.csv", "body\nJo\n", {}, [("a.csv:2", "Jo")]),
        (
            "a.jsonl.gz",
            '{"text": "Jo", "id": 5}\n{"text": "Bo", "id": "b"}\n',
            {},
            [("5", "Jo"), ("b", "Bo")],
        ),
        ("a.json", '[{"text": "Jo"}, {"text": "Bo"}]', {}, [("a.json:1", "Jo"), ("a.json:2", "Bo")]),
    ],
)
def test_tables_hold_a_document_a_row(write, name, content, options, found):
    assert read(write(name, content), **options) == found


@pytest.mark.parametrize(
    ("content", "row", "parts"),
    [
        ('{"text": "Jo"}\n{"text": 3}\n', 2, ["the text is 3"]),
        ('{"text": "Jo"}\n{"txt": "Bo"}\n', 2, ['no "text" here']),
        ('{"text": "Jo"}\n{broken\n', 2, ["not a JSON object"]),
        ('{"text": "Jo"}\n{"text": "\\ud800"}\n', 2, ["surrogate"]),
        ('{"text": "Jo", "id": "a"}\n{"text": "Bo", "id": "a"}\n', None, ["the id 'a' stands in"]),
        ('{"text": "Jo", "id": "a"}\n{"text": "Bo", "id": [1]}\n', 2, ["the id is [1]"]),
        ('{"text": "Jo", "id": "a"}\n{"text": "Bo", "id": " "}\n', 2, ["the id is ' '"]),
        ('{"body": "Jo", "texts": "x"}\n', None, ['no column "text"', 'Did you mean "texts"', "text="]),
    ],
)
def test_a_bad_row_is_named(write, content, row, parts):
    path = write("a.jsonl", content)
    refused(path, *parts, row=row)
    if row == 2:
        with pytest.warns(UserWarning, match=r"left out 1 that can't be used"):
            assert [text for _, text in read(path, bad="warn")] == ["Jo"]


def test_empty_documents_are_left_out_and_named(write, tmp_path):
    path = write("a.csv", "id,text\nx,Jo\ny,\nz,  \n" + "".join(f"w{i},\n" for i in range(9)))
    with pytest.warns(UserWarning, match=r"a.csv: left out 11 without words: y; z; w0; w1; w2, and 6 more"):
        assert read(path) == [("x", "Jo")]
    with pytest.warns(UserWarning, match="left out 1 without words: b.txt"):
        refused(write("b.txt", " \n\n"), "no document with words")


def test_what_is_no_utf8_is_named_with_what_to_do(write):
    refused(write("a.txt", "Jo\nJos\xe9 ran".encode("latin-1")), "not UTF-8", "José", "iconv", row=2)
    refused(write("a.html", "<p>Jo\nJos\xe9 ran".encode("latin-1")), "not UTF-8", "iconv", row=2)
    refused(write("a.csv", "text\nJos\xe9\n".encode("latin-1")), "not UTF-8", "iconv", row=2)
    refused(write("a.txt", "Jo".encode("utf-16")), "UTF-16")
    refused(write("a.txt", "Jo\nx\0y"), "NUL", row=2)
    refused(write("a.html", "Jo\nx\0y"), "NUL", row=2)
    good = write("b/a.txt", "Jo")
    write("b/b.txt", "Jos\xe9".encode("latin-1"))
    with pytest.warns(UserWarning, match="left out 1 that can't be used.*iconv"):
        assert read(good.parent, bad="warn") == [("a.txt", "Jo")]


# -- pieces


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab \n.", max_size=200), st.integers(1, 30))
def test_pieces_hold_all_of_a_text(write, text, longest):
    path = write("a.txt", text)
    if not text.strip():
        return
    found = read(path, longest=longest)
    assert all(len(piece) <= longest and piece.strip() for _, piece in found)
    assert "".join("".join(piece for _, piece in found).split()) == "".join(text.split())
    assert [name for name, _ in found] == (
        ["a.txt"] if len(found) == 1 else [f"a.txt#{i + 1}" for i in range(len(found))]
    )


def test_pieces_are_cut_where_a_paragraph_ends(write):
    path = write("a.txt", "One two.\n\nThree four. Five\nsix seven")
    assert [text for _, text in read(path, longest=16)] == ["One two.\n\n", "Three four. ", "Five\nsix seven"]
    with pytest.raises(DataError, match="at least one character"):
        read_documents(path, longest=0)


@pytest.mark.parametrize("name", ["big.txt", "big.html"])
def test_a_document_of_any_size_passes_in_bounded_memory(write, name):
    """Of a small size here, so that the test is quick; nothing grows with it."""
    line = "Jo works for Acme plc. It grew by 3.5%. " * 20
    path = write(name, f"<p>{line}\n\n" * 1_500)
    tracemalloc.start()
    count = sum(len(one.text) for one in read_documents(path, longest=20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 10**6 and peak < 2**20
    assert path.stat().st_size > 1.2 * 10**6


def test_lines_without_end_are_no_trouble_in_a_text_and_refused_in_a_table(write):
    assert len(read(write("a.txt", "x" * 3_000_000))) == 3
    refused(write("a.jsonl", json.dumps({"text": "x" * 5_000_000})), "longer than 4,194,304 bytes", row=1)


# -- web pages


def html(write, page):
    return "".join(text_of_html(write("page.html", page)))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<h1>Acme</h1><p>Jo  works\nhere.</p><p>Bo too.", "Acme\n\nJo works here.\n\nBo too."),
        ("a<b>b</b>c <i> d</i>", "abc d"),
        ("<ul><li>one<li>two</ul>", "one\n\ntwo"),
        ("<table><tr><th>a<td>b<tr><td>c<td>d</table>", "a\tb\n\nc\td"),
        ("x<br>y<br/>z", "x\ny\nz"),
        ("<pre>a  b\n  c</pre>d   e", "a  b\n  c\n\nd e"),
        ("AT&amp;T &lt;b&gt; caf&eacute; &#8364;5 &nosuch;", "AT&T <b> café €5 &nosuch;"),
        ("<title>t</title><style>p{}</style><script>if (a<b) x('</p>')</script>seen", "seen"),
        ("a<div hidden>b<div>c</div></div><p style='display: none'>d</p><p>e", "a\n\ne"),
        ("a<svg><text>b</text></svg><noscript>c</noscript><template>d</template>e", "ae"),
        ("<head><noscript>never closed<body>seen", "seen"),
        ("a<!-- b --><!DOCTYPE html><?php c ?>d", "ad"),
        ("</p></div></pre>a</svg>b", "ab"),
        # What needs no end tag ends where the next begins, or with what it stands in, seen or not.
        ("<p>ok</p><ul><li hidden>x<li>y</ul><p>rest</p>", "ok\n\ny\n\nrest"),
        ("<ul><li hidden>x<ul><li>y</ul>z<li>a</ul>b", "a\n\nb"),
        ("<p>hello</p><select><option hidden>a<option>b</select><p>rest", "hello\n\nrest"),
        ("<p>a<datalist><option hidden>b<option>c</datalist>d", "acd"),
        ('<p style="display:none">cookies<p>The report.', "The report."),
        ("<p hidden>a<hr/>b", "b"),
        ("<p hidden>a <b>b</b> c</p>d", "d"),
        ("<dl><dt hidden>a<dd>b<dt>c<dd hidden>d</dl>e", "b\n\nc\n\ne"),
        ("<table><tr><td hidden>a<td>b<tr hidden><td>c<tr><th>d</table>e", "b\n\nd\n\ne"),
        ("<table><tbody hidden><tr><td>a<tbody><tr><td>b</table>", "b"),
        ("<table><tr><td hidden><table><tr><td>a</table>b<td>c</table>", "c"),
        ("<div>a<span hidden>b</div>c", "a\n\nc"),
        ("<i>a<b hidden>b</i>c", "ac"),
        ("<i>a<div hidden>b</i>c</div>d", "ad"),
        ("<form><select><option>a</form>b", "b"),
        ("<p>a<noscript><div>b</div></noscript>c</p>", "ac"),
        ("<div>a<textarea></div>b</textarea>c</div>", "ac"),
        # Without an end a tag or a comment is text.
        ("<p>a <b c &lt; <d", "a <b c < <d"),
        ("a<!-- b <p>c <p>d <!-- e", "a<!-- b <p>c\n\nd <!-- e"),
        ("a &lt;", "a <"),
        ("", ""),
    ],
)
def test_what_is_seen_of_a_page_is_its_text(write, page, text):
    assert html(write, page) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            '< > & ; a " <p> </p> <! <![ <![CDATA[ <!-- --> <script> </script> &# <svg> </svg> <body> <pre>'.split()  # noqa: SIM905
        ),
        max_size=30,
    )
)
def test_no_page_is_a_traceback(write, parts):
    try:
        text = html(write, "".join(parts))
    except DataError as problem:
        assert "HTML" in str(problem)  # noqa: PT017
    else:
        assert text == text.lstrip("\n")


@pytest.mark.parametrize("part", ["<a ", "</a ", "<!--x>", "<![if >", "<![CDATA[ >", "<! ", "<? "])
def test_what_never_ends_is_looked_through_once(write, part):
    """By the megabyte, which took from minutes to hours when each was looked for to the end of the page."""
    count = 10**6 // len(part)
    text = html(write, "<p>x</p>" + part * count)
    assert text.startswith("x\n\n<") and text.count("<") == count


def test_a_script_without_end_is_refused(write):
    refused(write("a.html", "<script>" + "x<y " * 2_000_000), "over 4 MB", row=1)


# -- PDF


def test_the_pages_of_a_pdf_are_its_text(write):
    ((name, text),) = read(write("a.pdf", pdf("Jo works for Acme.", "It grew.")))
    assert name == "a.pdf" and [text[a:b] for a, b in sentences(text)] == ["Jo works for Acme.", "It grew."]
    path = write("a.pdf", pdf("Jo works for Acme.", None, "It grew."))
    with pytest.warns(UserWarning, match=r"no text on 1 of 3 pages \(2\)"):
        assert "It grew." in read(path)[0][1]


def test_a_pdf_that_cannot_be_read_says_why(write, monkeypatch):
    whole = pdf("Jo works for Acme.")
    refused(write("a.pdf", pdf("Jo", password="secret")), "needs a password", "qpdf")
    refused(write("a.pdf", pdf(None, None)), "without text, on any of its 2 pages", "ocrmypdf")
    refused(write("a.pdf", b""), "no PDF that can be read")
    refused(write("a.pdf", b"hello, this is a text"), "no PDF that can be read")
    for size in range(0, len(whole), 37):
        damaged = whole[:size] + b"\x00\xff" + whole[size + 9 :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(write("a.pdf", damaged))
            except DataError as problem:
                assert "a.pdf" in str(problem)  # noqa: PT017
    good = write("b/a.txt", "Jo")
    write("b/b.pdf", whole[:100])
    with pytest.warns(UserWarning, match="left out 1 that can't be used.*no PDF"):
        assert read(good.parent, bad="warn") == [("a.txt", "Jo")]
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(MissingExtra, match=r"quickstudy\[kg\]"):
        read(write("a.pdf", whole))


# -- folders


def test_a_folder_is_read_in_the_order_of_names(write, tmp_path):
    write("f/b.txt", "Bo")
    write("f/a/z.md", "Jo")
    write("f/a/t.csv", "text\nAl\nCy\n")
    write("f/.hidden", "x")
    write("f/.git/x.docx", "x")
    assert read(tmp_path / "f") == [
        ("a/t.csv:2", "Al"),
        ("a/t.csv:3", "Cy"),
        ("a/z.md", "Jo"),
        ("b.txt", "Bo"),
    ]


def test_what_is_no_document_in_a_folder_is_named(write, tmp_path):
    write("f/a.txt", "Jo")
    odd = write("f/b.docx", "x")
    write("f/c.xyz", "x")
    refused(tmp_path / "f", "save it as PDF", "There are 1 more such files", file=odd)
    with pytest.warns(UserWarning, match="left out 1 that can't be used"):
        assert read(tmp_path / "f", bad="warn") == [("a.txt", "Jo")]
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no document")
    refused(tmp_path / "f" / "a.tx", "not found", "a.txt")
    write("g/a.jsonl", '{"text": "Jo", "id": "x"}\n')
    twice = write("g/b.jsonl", '{"text": "Jo", "id": "x"}\n')
    refused(tmp_path / "g", "the id 'x' stands in", "a.jsonl", file=twice)


def test_a_link_out_of_the_folder_is_refused(write, tmp_path):
    write("f/a.txt", "Jo")
    (tmp_path / "f" / "b.txt").symlink_to(write("secret.txt", "Bo"))
    refused(tmp_path / "f", "leads out", file=tmp_path / "f" / "b.txt")


def test_a_broken_pdf_is_told_of_once(tmp_path):
    (tmp_path / "cut.pdf").write_text("%PDF-1.4 broken")
    code = f"""
from quickstudy.domains.kg.reading.pdf import text_of_pdf
try:
    list(text_of_pdf({str(tmp_path / "cut.pdf")!r}))
except Exception as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no PDF that can be read" in done.stdout and done.stderr == ""
