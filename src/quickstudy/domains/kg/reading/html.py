"""The text of a web page: what a reader sees, with an empty line between blocks. Offsets count in this text."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from quickstudy.files.source import TextSource

_HIDDEN = frozenset(
    (
        "script",
        "style",
        "template",
        "noscript",
        "title",
        "svg",
        "math",
        "object",
        "iframe",
        "select",
        "textarea",
    )
)
_BLOCKS = frozenset(
    (
        *(
            "p",
            "div",
            "section",
            "article",
            "header",
            "footer",
            "main",
            "nav",
            "aside",
            "address",
            "blockquote",
        ),
        *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "caption"),
        *(
            "pre",
            "figure",
            "figcaption",
            "form",
            "fieldset",
            "hr",
            "details",
            "summary",
            "body",
            "head",
            "html",
        ),
    )
)
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLANK = re.compile(r"[ \t\n\r\f]+")
PENDING = 2**22
"""Characters that a tag, comment or script may have."""


def text_of_html(path: Path) -> Iterator[str]:
    """The text in pieces. Raises DataError for a file that isn't UTF-8, or has a tag or script of over 4 MB."""
    source, parser = TextSource(path), _Text()
    try:
        for chunk in source.chunks():
            source.row += chunk.count("\n")
            if "\0" in chunk:
                raise source.error("a NUL byte: the file is damaged, or not UTF-8 text.")
            parser.feed(chunk)
            if len(parser.rawdata) > PENDING:
                raise source.error(
                    "a tag, comment or script of over 4 MB that doesn't end. Is this a web page?"
                )
            yield parser.taken()
        parser.close()
    except AssertionError as problem:  # of the parser's own, at <![…
        raise source.error(f"HTML that can't be read ({problem}).") from None
    yield parser.taken()


class _Text(HTMLParser):
    """Collects the words that are seen; `gap` is what goes before the next of them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.gap, self.begun = "", False
        self.hidden: list[str] = []  # open elements from the first that isn't seen
        self.kept = 0  # open <pre>

    def taken(self) -> str:
        """The words since the last call."""
        text = "".join(self.parts)
        self.parts.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "body":  # whatever wasn't closed before
            self.hidden.clear()
        if self.hidden or tag in _HIDDEN or "hidden" in given or _INVISIBLE.search(given.get("style") or ""):
            if tag not in _VOID and len(self.hidden) < 1000:
                self.hidden.append(tag)
            return
        self._space(tag)
        self.kept += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.hidden:
            self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            if tag in self.hidden:  # and whatever was left open within
                del self.hidden[len(self.hidden) - 1 - self.hidden[::-1].index(tag) :]
            return
        self._space(tag)
        self.kept -= tag == "pre" and self.kept > 0

    def _space(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.gap = "\n\n"
        elif tag == "br":
            self.gap = self.gap if "\n" in self.gap else "\n"
        elif tag in ("td", "th") and "\n" not in self.gap:
            self.gap = "\t"

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.kept:
            self._add(data)
            return
        words = _BLANK.sub(" ", data)
        if words.startswith(" "):
            self.gap = self.gap or " "
        if seen := words.strip(" "):
            self._add(seen)
            self.gap = " " if words.endswith(" ") else ""

    def _add(self, words: str) -> None:
        if words:
            self.parts += [self.gap if self.begun else "", words]
            self.gap, self.begun = "", True
