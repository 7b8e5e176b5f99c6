"""The text of a web page: what a reader sees, with an empty line between blocks. Offsets count in this text."""

import re
from collections.abc import Callable, Iterator
from html import unescape
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
_CELLS = frozenset(("td", "th", "caption"))
_ROWS = frozenset(("tr", "thead", "tbody", "tfoot"))
_TABLE = _HIDDEN | {"table"}
# Start tag -> what it ends, as that needs no end tag of its own; and what may not stand between the two.
_ENDS = {
    "li": (frozenset(("li",)), _HIDDEN | {"ul", "ol", "menu"}),
    **dict.fromkeys(("dt", "dd"), (frozenset(("dt", "dd")), _HIDDEN | {"dl"})),
    **dict.fromkeys(("td", "th"), (_CELLS, _TABLE)),
    "tr": (_CELLS | {"tr"}, _TABLE),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (_CELLS | _ROWS, _TABLE)),
    "option": (frozenset(("option",)), _HIDDEN | {"datalist"}),
    "optgroup": (frozenset(("option", "optgroup")), _HIDDEN | {"datalist"}),
}
_PARAGRAPH, _AROUND_PARAGRAPHS = frozenset(("p",)), _TABLE | _CELLS | {"button"}
# An end tag ends nothing from within these: a browser takes what is in them for text, or for a page of its own.
_APART = _HIDDEN - {"select", "svg", "math"}
_STRUCTURE = _BLOCKS | _CELLS | _ROWS | {"select", "button"}
_AROUND_WORDS = _APART | _STRUCTURE
_DEEPEST = 200  # elements that are kept in mind above what isn't seen; and how far up an end is looked for
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_WORD = re.compile(r"[\w.-]*")
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
        self.open: list[str] = []  # elements
        self.hidden: int | None = None  # how many of them are open above the first that isn't seen
        self.kept = 0  # open <pre>
        self.endless: tuple[str, set[str]] = "", set()  # a text, and what has no end in it

    def close(self) -> None:
        """The end of the page. Without a > no tag is left: the parser would look for one at each < to the end."""
        if ">" not in self.rawdata:
            rest, self.rawdata = self.rawdata, ""
            self.handle_data(unescape(rest))
        super().close()

    def parse_comment(self, i: int, report: bool = True) -> int:
        return self._until("--", super().parse_comment, i, report)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        word = _WORD.match(self.rawdata, i + 3)
        return self._until(word[0].lower() if word else "", super().parse_marked_section, i, report)

    def _until(self, what: str, read: Callable[[int, bool], int], i: int, report: bool) -> int:
        """What `read` gives. Where one of these has no end the next has none either: it isn't looked for again."""
        if self.endless[0] is not self.rawdata:
            self.endless = self.rawdata, set()
        end = -1 if what in self.endless[1] else read(i, report)
        if end < 0:
            self.endless[1].add(what)
        return end

    def taken(self) -> str:
        """The words since the last call."""
        text = "".join(self.parts)
        self.parts.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "body":  # whatever wasn't closed before
            self.open.clear()
            self.hidden = None
        self._imply(tag)
        seen = self.hidden is None
        if seen and (tag in _HIDDEN or "hidden" in given or _INVISIBLE.search(given.get("style") or "")):
            seen = False
            if tag not in _VOID:
                self.hidden = len(self.open)
        if tag not in _VOID:
            self._push(tag)
        if seen:
            self._space(tag)
            self.kept += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._imply(tag)
        if self.hidden is None:
            self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden is not None and tag in self.open[self.hidden :]:  # and whatever was left open within
            self._end(len(self.open) - 1 - self.open[::-1].index(tag))
            return
        self._leave(frozenset((tag,)), _APART if tag in _STRUCTURE else _AROUND_WORDS)
        if self.hidden is None:
            self._space(tag)
            self.kept -= tag == "pre" and self.kept > 0

    def _push(self, tag: str) -> None:
        if self.hidden is not None:
            if len(self.open) - self.hidden < 1000:
                self.open.append(tag)
        elif tag not in ("html", "body"):  # which last to the end of the page, wherever their end tags stand
            if len(self.open) == _DEEPEST:
                del self.open[0]
            self.open.append(tag)

    def _imply(self, tag: str) -> None:
        """End what a start tag ends."""
        if tag in _ENDS:
            ended, around = _ENDS[tag]
            while self._leave(ended, around):
                pass
        if tag in _BLOCKS:
            self._leave(_PARAGRAPH, _AROUND_PARAGRAPHS)

    def _leave(self, ended: frozenset[str], around: frozenset[str]) -> bool:
        """End the innermost of `ended` with all in it, unless one of `around` is open in it. Was there one?"""
        if ended.isdisjoint(self.open[-_DEEPEST:]):  # quick, and the most common
            return False
        for place in range(len(self.open) - 1, max(-1, len(self.open) - 1 - _DEEPEST), -1):
            if self.open[place] in ended:
                self._end(place)
                return True
            if self.open[place] in around:
                break
        return False

    def _end(self, place: int) -> None:
        del self.open[place:]
        if self.hidden is not None and place <= self.hidden:
            self.hidden = None

    def _space(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.gap = "\n\n"
        elif tag == "br":
            self.gap = self.gap if "\n" in self.gap else "\n"
        elif tag in ("td", "th") and "\n" not in self.gap:
            self.gap = "\t"

    def handle_data(self, data: str) -> None:
        if self.hidden is not None:
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
