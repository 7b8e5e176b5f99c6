"""Run the examples of README and docs, block by block, as a reader would in an empty folder.

    python tools/run_pages.py [--write] [PAGE …]     compare what the pages show with what is printed, or put it there

A ```python block runs; what it prints must stand in the ```text block right after it. In a ```console block each line
`$ quickstudy …` or `$ python examples/…` runs, and its output must follow. A block right after a line that ends with
`name`: is written as that file. Nothing else runs, nor a block after <!-- not run -->.

In an output `…` stands for anything on its line, and alone on a line for any lines. CPUs round differently: a mean ±
half its interval may differ by that half, another number with a point or a percent sign by 3 in its last digit.
"""

import io
import itertools
import os
import re
import runpy
import shlex
import sys
import tempfile
import types
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
WIDTH = "88"
BLOCK = re.compile(r"^```(python|console|text|csv|json|toml)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"`([\w./-]+)`[^`\n]*:\n\n?$")
STAGE = re.compile(r"^(learn|demo|extract): .* …\n", re.M)  # where a terminal would show a bar
TOKEN = re.compile(
    r"(?P<any>…)|(?P<rule>─+)|(?P<number>(\d[\d,]*\.\d+)( ± \d+\.\d+)?|\d+(?=%))|(?P<space>[ \t]+)"
)


def pages() -> list[Path]:
    """README and every page of the docs."""
    return [
        *(ROOT / f"{folder}README.md" for folder in ("", "benchmarks/", "examples/")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]


def same(shown: str, printed: str) -> bool:
    """Whether an output is what a page shows, by the rules above."""
    wanted, numbers = "", []
    for line in shown.strip("\n").splitlines():
        if line.strip() == "…":
            wanted += r"(?:.*\n)*?"
            continue
        place = 0
        for token in TOKEN.finditer(line := line.rstrip()):
            wanted += re.escape(line[place : token.start()])
            wanted += {
                "any": ".*",
                "rule": "─+",
                "number": r"(\d[\d,]*\.?\d*(?: ± \d+\.\d+)?)",
                "space": r"[ \t]+",
            }[token.lastgroup or ""]
            numbers += [token[0]] if token.lastgroup == "number" else []
            place = token.end()
        wanted += re.escape(line[place:]) + r"[ \t]*\n"
    found = re.fullmatch(wanted, printed.strip("\n") + "\n" if printed.strip() else "")
    return found is not None and all(map(_near, numbers, found.groups()))


def _near(shown: str, printed: str) -> bool:
    (a, half), (b, _) = (text.replace(",", "").partition(" ± ")[::2] for text in (shown, printed))
    return abs(float(a) - float(b)) <= max(float(half or 0), 3.001 * 10 ** -len(a.partition(".")[2]))


def play(page: str, name: str, folder: Path) -> tuple[str, list[str]]:
    """Run a page's blocks in `folder`. Returns the page as it ought to be, and what differs from it."""
    module = types.ModuleType(f"page_{re.sub(r'[^a-z]', '_', name.lower())}")
    sys.modules[module.__name__] = module  # dataclasses look their annotations up there
    blocks, edits, wrong = list(BLOCK.finditer(page)), [], []
    for block, after in itertools.zip_longest(blocks, blocks[1:]):
        kind, body, before = block[1], block[2], page[: block.start()]
        line = before.count("\n") + 1
        if before.rstrip().endswith("<!-- not run -->"):
            continue
        with chdir(folder):
            if file := FILE.search(before):
                Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
                Path(file[1]).write_text(body, encoding="utf-8")
            elif kind == "python":
                printed = _captured(
                    lambda b=body, n=line: exec(compile("\n" * n + b, name, "exec"), module.__dict__)
                )
                follows = (
                    after is not None and after[1] == "text" and not page[block.end() : after.start()].strip()
                )
                shown = after[2] if after is not None and follows else ""
                if not same(shown, printed):
                    wrong.append(f"{name}:{line} prints\n{printed}\nand not\n{shown}")
                    edits.append(
                        (*after.span(2), printed)
                        if after and follows
                        else (block.end(), block.end(), f"\n\n```text\n{printed}```")
                    )
            elif kind == "console":
                for step in re.finditer(
                    r"^\$ (quickstudy .*|python examples/.*)\n((?:(?!\$ ).*\n)*)", body, re.M
                ):
                    printed = _captured(lambda c=step[1]: _command(c))
                    if not same(step[2], printed):
                        wrong.append(f"{name}:{line} $ {step[1]} prints\n{printed}\nand not\n{step[2]}")
                        start = block.start(2)
                        edits.append((start + step.start(2), start + step.end(2), printed))
    for start, end, text in reversed(edits):
        page = page[:start] + text + page[end:]
    return page, wrong


def _command(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "python":
        before, sys.argv = sys.argv, arguments
        try:
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
        finally:
            sys.argv = before
        return
    from quickstudy.app.cli import main

    main(arguments)


def _captured(run: object) -> str:
    """What `run` prints, to either stream; times are left out."""
    out, shown = io.StringIO(), warnings.showwarning
    # Nothing is kept in the bank of whoever runs this.
    here = {"COLUMNS": WIDTH, "QUICKSTUDY_BANK": str(Path.cwd() / "bank.sqlite")}
    try:
        with redirect_stdout(out), redirect_stderr(out), patch.dict(os.environ, here):
            run()  # pyright: ignore[reportCallIssue]
    finally:
        warnings.showwarning = shown  # the command line puts its own there
    text = STAGE.sub("", out.getvalue()).replace(f"{Path.cwd()}/", "")
    text = re.sub(r"\(\d+(\.\d)? s( in all)?\)", r"(… s\2)", text)
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


def main() -> int:
    """Compare or write; 1 if something differs."""
    write, named = "--write" in sys.argv, [Path(a).resolve() for a in sys.argv[1:] if not a.startswith("-")]
    failed = 0
    for page in named or pages():
        with tempfile.TemporaryDirectory() as folder:
            text, wrong = play(
                page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix(), Path(folder)
            )
        print(*wrong, sep="\n\n", end="\n" if wrong else "")
        failed += len(wrong)
        if write:
            page.write_text(text, encoding="utf-8")
    return int(failed > 0 and not write)


if __name__ == "__main__":
    sys.exit(main())
