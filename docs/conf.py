"""Sphinx reads this; `make docs` builds docs/_build/html, and a warning is an error."""

import tomllib
from pathlib import Path

from pygments.lexers.special import TextLexer

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]

project = _project["name"]
version = release = _project["version"]
author = "The quickstudy authors"
copyright = "2026, the quickstudy authors"

extensions = ["myst_parser"]
exclude_patterns = ["_build", "outputs"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing"
]  # links to source files are links for GitHub; tests/test_docs.py checks them

html_theme = "furo"
html_title = f"quickstudy {version}"
html_copy_source = False


def setup(app):
    """Tables in the pages are marked as csv, for GitHub; Pygments knows no such language."""
    app.add_lexer("csv", TextLexer)
