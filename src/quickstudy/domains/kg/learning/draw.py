"""The neighbourhood of an entity as a picture: SVG, PNG, or a page that needs nothing else.

    drawn = neighbourhood(store, "naloxone")
    drawn.svg(), drawn.html(), drawn.png()

What was extracted, what waits for review, what was inferred and what was rejected look different, in colour and in
dashes. The page and the SVG show on hover which sentence says so, how surely, and which model found it. The page runs
no script and may load nothing; all text is escaped.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np

from quickstudy.core.errors import missing_extra
from quickstudy.core.untrusted import harmless
from quickstudy.domains.kg.graph.export import NO_XML
from quickstudy.domains.kg.graph.query import entity_of, resolve
from quickstudy.domains.kg.graph.records import Entity, Name, Said, Triple
from quickstudy.domains.kg.graph.settle import ASSERTED
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.layout import places

SHOWN = (*ASSERTED, "review", "proposed")
"""What is drawn unless something else is asked for."""
LOOKS = {  # colour, width, dashes in pixels, what the legend says
    "accepted": ("#006D4E", 2.4, (), "accepted by a reviewer"),
    "given": ("#444444", 1.8, (), "given"),
    "extracted": ("#0072B2", 1.8, (), "extracted"),
    "review": ("#B35C00", 1.6, (7, 4), "extracted, waits for review"),
    "proposed": ("#A0438C", 1.6, (2, 4), "inferred: nobody said so"),
    "rejected": ("#C03020", 1.0, (10, 3, 2, 3), "rejected"),
}
"""Okabe and Ito's colours, darkened where they are text: told apart by colour-blind readers, and by dashes."""
FILLS = ("#E3F0FA", "#FDEBD3", "#E0F3EA", "#F7E4F0", "#FBF7CC", "#E8E8F8", "#F2E6DC", "#E6E6E6")
"""Of names, by type; light, so that black text is read on them."""
LETTER, LINE = 6.6, 15.0
"""Width of a letter and height of a line in pixels."""
WIDEST = 26
"""Letters of a name in one line; the rest is on hover."""
MARGIN = 40.0


class Edge(NamedTuple):
    """A triple, and the sentence that says it best."""

    triple: Triple
    head: int
    tail: int
    said: Said | None


@dataclass(frozen=True)
class Drawing:
    """Names and triples with their places."""

    title: str
    nodes: tuple[Entity, ...]
    """The entity asked for comes first."""
    edges: tuple[Edge, ...]
    at: np.ndarray
    """Centres of names in pixels [n, 2]."""
    left_out: int
    """Neighbours for which there was no room."""

    def svg(self) -> str:
        """The picture alone."""
        return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', *self._svg()]) + "\n"

    def html(self) -> str:
        """A page with the picture, and below it every triple with its sentence."""
        rows = "\n".join(self._row(edge) for edge in self.edges)
        more = f"<p>{self.left_out} more neighbours are not shown.</p>" if self.left_out else ""
        return _PAGE.format(title=_text(self.title), svg="\n".join(self._svg()), rows=rows, more=more)

    def png(self, scale: float = 2.0) -> bytes:
        """The same as PNG. Raises MissingExtra without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise missing_extra("matplotlib", "plot") from error
        low, size = self._frame()
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), facecolor="white")
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_xlim(low[0], low[0] + size[0])
        axis.set_ylim(low[1] + size[1], low[1])
        axis.axis("off")
        for edge, (start, middle, end) in zip(self.edges, self._lines(), strict=True):
            colour, width, dashes, _ = LOOKS[edge.triple.status]
            line = _quadratic(start, middle, end)
            axis.plot(
                *line.T, color=colour, linewidth=width, linestyle=(0, dashes) if dashes else "-", zorder=1
            )
            axis.annotate(
                "", xy=(end[0], end[1]), xytext=(line[-4, 0], line[-4, 1]), zorder=2,
                arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "lw": width},
            )  # fmt: skip
            x, y = _middle(start, middle, end)
            axis.text(
                x, y, edge.triple.relation, color=colour, fontsize=11, ha="center",
                va="center", parse_math=False, zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
        for number, (node, at) in enumerate(zip(self.nodes, self.at, strict=True)):
            axis.text(
                at[0], at[1], "\n".join(_lines_of(node)), fontsize=11, ha="center", va="center", parse_math=False,
                zorder=4,
                fontweight="bold" if number == 0 else "normal",
                bbox={"facecolor": self._fill(node), "edgecolor": "#555555", "boxstyle": "round,pad=0.35",
                      "linewidth": 2.0 if number == 0 else 0.8},
            )  # fmt: skip
        for row, (_, colour, width, dashes, words) in enumerate(self._legend()):
            y = low[1] + size[1] - 14 - 16 * row
            style = (0, dashes) if dashes else "-"
            axis.plot([low[0] + 12, low[0] + 48], [y, y], color=colour, linewidth=width, linestyle=style)
            axis.text(low[0] + 56, y, words, fontsize=10.5, va="center", parse_math=False)
        with io.BytesIO() as file:
            figure.savefig(file, format="png", dpi=72 * scale, metadata={"Software": None})
            return file.getvalue()

    def _svg(self) -> list[str]:
        low, size = self._frame()
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{low[0]:.0f} {low[1]:.0f} {size[0]:.0f} {size[1]:.0f}" '
            f'width="{size[0]:.0f}" height="{size[1]:.0f}" role="img" font-family="sans-serif" font-size="12">',
            f"<title>{_text(self.title)}</title>",
            f'<rect x="{low[0]:.0f}" y="{low[1]:.0f}" width="{size[0]:.0f}" height="{size[1]:.0f}" fill="white"/>',
            "<defs>",
            *(
                f'<marker id="to-{status}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
                f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
                for status, (colour, *_) in LOOKS.items()
            ),
            "</defs>",
        ]
        for edge, (start, middle, end) in zip(self.edges, self._lines(), strict=True):
            status = edge.triple.status
            colour, width, dashes, _ = LOOKS[status]
            dash = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
            x, y = _middle(start, middle, end)
            words = _text(edge.triple.relation)
            wide = LETTER * 0.92 * len(harmless(edge.triple.relation)) + 6
            out += [
                f'<g class="{status}"><title>{_text(told(edge))}</title>',
                f'<path d="M{start[0]:.1f},{start[1]:.1f} Q{middle[0]:.1f},{middle[1]:.1f} {end[0]:.1f},{end[1]:.1f}" '
                f'fill="none" stroke="{colour}" stroke-width="{width}"{dash} marker-end="url(#to-{status})"/>',
                f'<rect x="{x - wide / 2:.1f}" y="{y - 8:.1f}" width="{wide:.1f}" height="15" fill="white"/>',
                f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" font-size="11" fill="{colour}">'
                f"{words}</text></g>",
            ]
        for number, (node, at) in enumerate(zip(self.nodes, self.at, strict=True)):
            wide, high = _size(node)
            lines = _lines_of(node)
            border, weight = ("2.5", ' font-weight="bold"') if number == 0 else ("1", "")
            out += [
                f"<g><title>{_text(f'{node.name} ({node.type})')}</title>",
                f'<rect x="{at[0] - wide / 2:.1f}" y="{at[1] - high / 2:.1f}" width="{wide:.1f}" '
                f'height="{high:.1f}" rx="7" '
                f'fill="{self._fill(node)}" stroke="#555555" stroke-width="{border}"/>',
            ]
            for row, line in enumerate(lines):
                y = at[1] + LINE * (row - (len(lines) - 1) / 2) + 4
                style = ' font-size="10" fill="#555555"' if row == len(lines) - 1 else weight
                out.append(
                    f'<text x="{at[0]:.1f}" y="{y:.1f}" text-anchor="middle"{style}>{_text(line)}</text>'
                )
            out.append("</g>")
        for row, (_, colour, width, dashes, words) in enumerate(self._legend()):
            y = low[1] + size[1] - 14 - 16 * row
            dash = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
            out += [
                f'<line x1="{low[0] + 12:.0f}" y1="{y:.0f}" x2="{low[0] + 48:.0f}" y2="{y:.0f}" stroke="{colour}" '
                f'stroke-width="{width}"{dash}/>',
                f'<text x="{low[0] + 56:.0f}" y="{y + 4:.0f}" font-size="11">{words}</text>',
            ]
        return [*out, "</svg>"]

    def _legend(self) -> list[tuple]:
        present = {edge.triple.status for edge in self.edges}
        return [(status, *look) for status, look in reversed(LOOKS.items()) if status in present]

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Left upper corner and size of the picture, with room for the legend below."""
        sizes = np.array([_size(node) for node in self.nodes])
        low, high = (self.at - sizes / 2).min(0) - MARGIN, (self.at + sizes / 2).max(0) + MARGIN
        high[1] += 16 * len(self._legend())
        return low, np.maximum(high - low, (300.0, 120.0))

    def _fill(self, node: Entity) -> str:
        kinds = list(dict.fromkeys(sorted(one.type for one in self.nodes)))
        return FILLS[kinds.index(node.type) % len(FILLS)]

    def _lines(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Start, bend and end of each edge; those between the same two names bend apart."""
        between: dict[tuple[int, int], int] = {}
        total: dict[tuple[int, int], int] = {}
        for edge in self.edges:
            key = min(edge.head, edge.tail), max(edge.head, edge.tail)
            total[key] = total.get(key, 0) + 1
        found = []
        for edge in self.edges:
            key = min(edge.head, edge.tail), max(edge.head, edge.tail)
            turn = between.get(key, 0)
            between[key] = turn + 1
            a, b = self.at[edge.head], self.at[edge.tail]
            if edge.head == edge.tail:
                wide, high = _size(self.nodes[edge.head])
                top = a - np.array([0.0, high / 2])
                side = np.array([wide / 4, 0.0])
                found.append((top - side, top - np.array([0.0, 44.0 + 22 * turn]), top + side))
                continue
            along = self.at[key[1]] - self.at[key[0]]
            across = np.array([-along[1], along[0]]) / (math.hypot(*along) or 1.0)
            middle = (a + b) / 2 + across * 46 * (turn - (total[key] - 1) / 2)
            for aside in (0, 70, -70, 140, -140):  # around names that stand in the way
                if not self._in_the_way(a, middle + across * aside, b, key):
                    middle = middle + across * aside
                    break
            start = _border(a, middle, _size(self.nodes[edge.head]))
            found.append((start, middle, _border(b, middle, _size(self.nodes[edge.tail]))))
        return found

    def _in_the_way(self, a: np.ndarray, middle: np.ndarray, b: np.ndarray, ends: tuple[int, int]) -> bool:
        points = _quadratic(a, middle, b)
        return any(
            (np.abs(points - self.at[number]) < np.array(_size(node)) / 2 + 3).all(1).any()
            for number, node in enumerate(self.nodes)
            if number not in ends
        )

    def _row(self, edge: Edge) -> str:
        triple, said = edge.triple, edge.said
        cells = (triple.head.name, triple.relation, triple.tail.name, LOOKS[triple.status][3], _score(triple))
        where = "" if said is None else f"{_marked(said)} <small>{_text(said.document)}</small>"
        body = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        return f'<tr class="{triple.status}">{body}<td>{where}</td></tr>'


def neighbourhood(
    store: GraphStore,
    entity: Name,
    *,
    hops: int = 1,
    most: int = 24,
    status: Iterable[str] = SHOWN,
    seed: int = 0,
) -> Drawing:
    """The triples around an entity.

    Args:
        hops: triples from it, at most.
        most: entities in the picture; the surest triples' come first.
        status: which triples are drawn.
        seed: of the layout.

    Raises:
        DataError: no such entity or status.
    """
    wanted, here = tuple(status), entity_of(store, resolve(store, entity))
    nodes: dict[Entity, int] = {here: 0}
    triples: dict[tuple, Triple] = {}
    rim, left_out = [here], 0
    for _ in range(hops):
        found = [t for node in rim for t in store.neighbours(node, status=wanted, surest=True)]
        rim = []
        for triple in sorted(
            found, key=lambda t: (t.status not in ASSERTED, -(t.score or 1.0), t.head, t.tail)
        ):
            for end in (triple.head, triple.tail):
                if end not in nodes and len(nodes) < most:
                    nodes[end] = len(nodes)
                    rim.append(end)
            if triple.head in nodes and triple.tail in nodes:
                triples[triple[:3]] = triple
            else:
                left_out += 1
    edges = []
    for triple in triples.values():
        said = store.said(triple)
        edges.append(Edge(triple, nodes[triple.head], nodes[triple.tail], said[0] if said else None))
    sizes, joined = [_size(node) for node in nodes], [(edge.head, edge.tail) for edge in edges]
    at = places(sizes, joined, 92.0, seed)
    return Drawing(f"{here.name} ({here.type})", tuple(nodes), tuple(edges), at, left_out)


def told(edge: Edge) -> str:
    """What is shown on hover: what is said, how surely, where, and who found it."""
    triple, said = edge.triple, edge.said
    lines = [
        f"{triple.head.name} {triple.relation} {triple.tail.name}",
        f"{LOOKS[triple.status][3]} {_score(triple)}",
    ]
    if said is not None:
        lines += ["“" + " ".join(said.sentence.text.split()) + "”", f"{said.document}, model {said.model}"]
    elif triple.inferred:
        lines.append("no sentence says so")
    return "\n".join(lines)


def _score(triple: Triple) -> str:
    return "" if triple.score is None else f"{triple.score:.2f}"


def _marked(said: Said) -> str:
    """The sentence with both ends marked, escaped."""
    base, text = said.sentence.start, said.sentence.text
    parts, at = [], 0
    for start, end in sorted((end.start - base, end.end - base) for end in (said.head, said.tail)):
        if start >= at:
            parts += [_text(text[at:start]), f"<mark>{_text(text[start:end])}</mark>"]
            at = end
    return "".join([*parts, _text(text[at:])])


def _text(text: str) -> str:
    """Text for XML and HTML: escaped, and without signs that neither allows."""
    shown = "\n".join(harmless(line) for line in text.split("\n"))
    return escape(NO_XML.sub("\N{REPLACEMENT CHARACTER}", shown))


def _lines_of(node: Entity) -> list[str]:
    """A name in one or two lines, and its type."""
    name, words = " ".join(harmless(node.name).split()), []
    for word in name.split(" "):
        if words and len(words[-1]) + 1 + len(word) <= WIDEST:
            words[-1] += f" {word}"
        else:
            words.append(word)
    shown = [line if len(line) <= WIDEST else line[: WIDEST - 1] + "…" for line in words[:2]]
    if len(words) > 2:
        shown[1] = shown[1][: WIDEST - 1] + "…"
    return [*shown, harmless(node.type)[:WIDEST]]


def _size(node: Entity) -> tuple[float, float]:
    lines = _lines_of(node)
    return LETTER * max(map(len, lines)) + 20, LINE * len(lines) + 8


def _border(at: np.ndarray, toward: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Where a line from the middle of a box leaves it."""
    away = toward - at
    reach = max(abs(away[0]) / (size[0] / 2 + 2), abs(away[1]) / (size[1] / 2 + 2), 1e-9)
    return at + away / max(reach, 1.0)


def _middle(start: np.ndarray, bend: np.ndarray, end: np.ndarray) -> np.ndarray:
    return start / 4 + bend / 2 + end / 4


def _quadratic(start: np.ndarray, bend: np.ndarray, end: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 40)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #222; }}
svg {{ max-width: 100%; height: auto; border: 1px solid #ddd; }}
svg g:hover path {{ stroke-width: 4; }}
table {{ border-collapse: collapse; margin-top: 1rem; }}
td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
tr.rejected td:nth-child(-n+3) {{ text-decoration: line-through; }}
tr.proposed, tr.review {{ color: #555; }} tr.proposed {{ font-style: italic; }}
mark {{ background: #fde9b8; }} small {{ color: #666; }}
</style></head><body>
<h1>{title}</h1>
{svg}
{more}
<table><thead><tr><th>head</th><th>relation</th><th>tail</th><th>status</th><th>score</th><th>sentence</th></tr></thead>
<tbody>
{rows}
</tbody></table>
</body></html>
"""
