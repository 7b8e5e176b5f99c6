"""README, docs and examples are held to the code: what they show runs, and what they link is there."""

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import quickstudy.learners

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import make_tables  # noqa: E402
import run_pages  # noqa: E402

PAGES = run_pages.pages()
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def by_path(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(autouse=True)
def same_numbers(tmp_path_factory, monkeypatch):
    """A cache of their own, and the global generator left as it was."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.getbasetemp() / "vectors"))
    monkeypatch.delenv("COLUMNS", raising=False)
    with torch.random.fork_rng(devices=[]):
        yield


def shows_something(page: Path) -> bool:
    return run_pages.BLOCK.search(page.read_text(encoding="utf-8")) is not None


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if shows_something(page)], ids=by_path)
def test_what_a_page_shows_is_what_it_prints(page, tmp_path):
    _, wrong = run_pages.play(page.read_text(encoding="utf-8"), by_path(page), tmp_path)
    assert not wrong, "\n\n".join([*wrong, "If the page is behind: python tools/run_pages.py --write"])


@pytest.mark.parametrize("page", make_tables.pages(), ids=by_path)
def test_a_generated_part_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert make_tables.filled(text) == text, "run: python tools/make_tables.py"


def test_the_readme_is_short_and_has_no_badges():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "shields.io" not in text and "badge" not in text


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=by_path)
def test_every_link_leads_somewhere(page):
    missing = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            missing.append(link)
    assert missing == []


def test_every_page_of_the_docs_is_in_the_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        line for tree in re.findall(r"```\{toctree\}\n(.*?)```", index, re.S) for line in tree.splitlines()
    }
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= listed


def test_the_file_tree_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## Files\n\n")[2].partition("\n\n")[0]
    named, base = [], ""
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip()) - 4
        folders = re.match(r"(?:[\w/]+/ *)+", line.strip())[0].split()
        base = folders[0] if len(folders) == 1 and line.rstrip().endswith("/") else base if indent else ""
        named += [base + f if indent else f for f in folders]
    assert len(named) >= 10 and [name for name in named if not (ROOT / name).is_dir()] == []


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_every_learner_stands_in_the_table_with_its_paper_and_its_use():
    text = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8").partition("## Every learner")[2]
    table = {cells(row)[0].strip("`"): cells(row) for row in text.splitlines() if row.startswith("| `")}
    assert set(table) == set(quickstudy.learners.__all__)
    for name, (_, when, _, _, paper) in table.items():
        kind = getattr(quickstudy.learners, name)
        number = re.search(r"(?:arXiv:|doi:|OpenReview:|https://)(\S+)", kind.paper)[1]
        author = kind.paper.split()[0].strip(",")
        year = re.search(r"\b(19|20)\d\d\b", kind.paper)[0]
        assert number in paper and author in paper and year in paper, name
        assert len(when) > 20, name


def test_every_learner_was_measured_with_the_others():
    """Or is named below the table, with the command that measures it."""
    text = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    part = make_tables.PART.search(text[text.index("<!-- begin: choose -->") :])[0]
    rows = [cells(row) for row in part.splitlines() if row.startswith(("| `", "| *`"))]
    measured, absent = [row[0].strip("*`") for row in rows], part.partition("Not measured yet: ")[2]
    assert all(len(row) == len(rows[0]) and all(row) for row in rows)
    assert sorted([*measured, *re.findall(r"`(\w+)`", absent)]) == sorted(quickstudy.learners.__all__)


def told_of_papers() -> dict[str, str]:
    """What docs/papers.md says of each learner."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    return {
        section.partition("`")[0]: re.split(r"\n#", section)[0]
        for section in re.split(r"^### `", text, flags=re.M)[1:]
    }


def test_every_learner_with_a_paper_stands_on_the_page_of_papers():
    sections = told_of_papers()
    assert set(sections) == set(quickstudy.learners.__all__)
    for name, section in sections.items():
        kind = getattr(quickstudy.learners, name)
        number = re.search(r"(?:arXiv:|doi:|OpenReview:|https://)(\S+)", kind.paper)[1]
        author = kind.paper.split()[0].strip(",")
        year = re.search(r"\b(19|20)\d\d\b", kind.paper)[0]
        assert number in section and author in section and year in section, name
        sources = {cells(row)[2] for row in section.splitlines() if row.startswith("|")} - {"", "---"}
        assert sources <= {"c", "m", "m, c"} and sources, name
        assert ("c" in "".join(sources)) <= ("Code:" in section), name


def test_our_settings_on_the_page_of_papers_are_those_of_the_code():
    compared = 0
    for name, section in told_of_papers().items():
        defaults = {f.name: f.default for f in fields(getattr(quickstudy.learners, name))}
        for row in section.splitlines():
            if row.startswith("| ") and not row.startswith("| setting"):
                for field, value in re.findall(r"`(\w+)=([^`…]+)`", cells(row)[3]):
                    assert defaults[field] == ast.literal_eval(value), (name, field)
                    compared += 1
    assert compared > 50


def test_extras_named_in_the_docs_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for named in re.findall(r"quickstudy\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= set(extras), by_path(page)


def test_make_targets_named_in_the_docs_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^ {4}|`|\$ )make (\w+)", text, re.M)) <= targets, by_path(page)


# -- the runner itself: it has to notice what is wrong


@pytest.mark.parametrize(
    ("shown", "printed", "equal"),
    [
        ("a  b\n", "a b\n", True),
        ("right\n", "wrong\n", False),
        ("87.4 ± 0.6\n", "87.9 ± 0.7\n", True),
        ("87.4 ± 0.6\n", "88.1 ± 0.6\n", False),
        ("+0.31\n", "+0.34\n", True),
        ("+0.31\n", "-0.31\n", False),
        ("+0.31\n", "+0.36\n", False),
        ("75%\n", "77%\n", True),
        ("75%\n", "79%\n", False),
        ("20 examples\n", "21 examples\n", False),
        ("Saved: my-model  (… s)\n", "Saved: my-model  (0.8 s)\n", True),
        ("first\n…\nlast\n", "first\n2\n3\nlast\n", True),
        ("first\n…\nlast\n", "first\n2\n3\n", False),
        ("────\n", "──────\n", True),
        ("", "something\n", False),
        ("something\n", "", False),
    ],
)
def test_outputs_are_compared_as_the_runner_says(shown, printed, equal):
    assert run_pages.same(shown, printed) == equal


def test_the_runner_finds_and_mends_a_wrong_output(tmp_path):
    page = "```python\nx = 1\nprint(x + 1)\n```\n\n```text\n3\n```\n\n```python\nprint(x)\n```\n"
    mended, wrong = run_pages.play(page, "page.md", tmp_path)
    assert len(wrong) == 2 and "page.md:1" in wrong[0]
    assert "```text\n2\n```" in mended and "```text\n1\n```" in mended
    assert run_pages.play(mended, "page.md", tmp_path)[1] == []


def test_the_runner_runs_commands_and_writes_files(tmp_path):
    page = "`some.csv`:\n\n```csv\ntext,label\na,b\n```\n\n"
    page += "```console\n$ quickstudy --version\n9.9\n$ rm -r some.csv\n```\n"
    mended, wrong = run_pages.play(page, "page.md", tmp_path)
    assert (tmp_path / "some.csv").read_text() == "text,label\na,b\n"
    assert len(wrong) == 1 and f"$ quickstudy --version\n{quickstudy.__version__}\n$ rm" in mended


def test_a_block_that_fails_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_pages.play("```python\n1 / 0\n```\n", "page.md", tmp_path)


def test_a_generated_part_that_is_behind_is_noticed():
    behind = "<!-- begin: domains -->\nold\n<!-- end: domains -->"
    assert "`text`" in make_tables.filled(behind) and "old" not in make_tables.filled(behind)
    with pytest.raises(KeyError):
        make_tables.filled("<!-- begin: nothing -->\n<!-- end: nothing -->")


@pytest.mark.slow
def test_the_docs_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "html" / "index.html").is_file()
