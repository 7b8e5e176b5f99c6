"""Pictures of a report as PNG: bars with their intervals, and accuracy against examples per class.

Colours are Okabe and Ito's, told apart by colour-blind readers; baselines are grey and hatched as well, so that
grey print keeps the difference. Bars start at 0; what they can't show, the panel of differences does.
"""

import io
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from quickstudy.core.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from quickstudy.core.report import Estimate, Report

OURS, BASELINE, INK, QUIET = "#0072B2", "#A6A6A6", "#222222", "#666666"
_LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_MARKERS = "osD^vP"
_MOST_METRICS = 3


def bars(report: "Report") -> bytes:
    """Horizontal bars of each metric (the first three) and the paired gains over the best baseline, as PNG.

    Raises MissingExtra without matplotlib.
    """
    metrics = report.metrics[:_MOST_METRICS]
    baseline = report.best_baseline(metrics[0])
    gains = {row.name: gain for row in report.rows if (gain := report.gain(row, metrics[0]))}
    gains = {name: gain for name, gain in gains.items() if not math.isnan(gain.half)}
    panels = len(metrics) + bool(gains)
    height = 0.42 * len(report.rows) + 2.0
    figure = _figure(3.4 + 3.1 * panels, height)
    axes: Sequence[Axes] = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    places = range(len(report.rows))
    for axis, metric in zip(axes, metrics, strict=False):
        digits, widest = report.digits(metric), 0.0
        for place, row in zip(places, report.rows, strict=True):
            estimate = row.metrics.get(metric)
            if estimate is None:
                continue
            look: dict[str, Any] = (
                {"color": BASELINE, "hatch": "////", "edgecolor": "white"}
                if row.baseline
                else {"color": OURS}
            )
            axis.barh(place, estimate.mean, height=0.62, linewidth=0, **look)
            reach = estimate.mean
            if not math.isnan(estimate.half):
                _interval(axis, estimate, place, INK)
                reach = estimate.high
            axis.annotate(
                estimate.text(digits), (max(reach, 0), place), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=9, color=INK,
            )  # fmt: skip
            widest = max(widest, reach)
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]), right=(widest or 1.0) * 1.42)
        _few_ticks(axis, widest)
        _dress(axis, metric + (" (lower is better)" if metric in report.lower_is_better else ""))
    if gains and baseline:
        axis = axes[-1]
        axis.axvline(0, color=QUIET, linewidth=1)
        for place, row in zip(places, report.rows, strict=True):
            if gain := gains.get(row.name):
                colour = OURS if gain.excludes_zero else QUIET
                _interval(axis, gain, place, colour)
                face = colour if gain.excludes_zero else "white"
                axis.plot(
                    gain.mean, place, "o", color=colour, markerfacecolor=face, markersize=6, clip_on=False
                )
                axis.annotate(
                    gain.text(report.digits(metrics[0]), sign=True), (gain.high, place), xytext=(5, 0),
                    textcoords="offset points", va="center", fontsize=9, color=INK,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
        low, high = min(gain.low for gain in gains.values()), max(gain.high for gain in gains.values())
        span = max(high, 0) - min(low, 0) or 1.0
        axis.set_xlim(min(low, 0) - 0.08 * span, max(high, 0) + 0.55 * span)  # room for the numbers
        _few_ticks(axis, high)
        _dress(axis, f"gain in {metrics[0]} over\n{shorten(baseline.name, 34, placeholder='…')}, paired")
    names = [shorten(row.name, 34, placeholder="…") or row.name[:33] + "…" for row in report.rows]
    axes[0].set_yticks(list(places), names, fontsize=10, color=INK, parse_math=False)
    axes[0].set_ylim(len(report.rows) - 0.4, -0.6)  # the first row on top
    counts = sorted({row.metrics[metrics[0]].n for row in report.ranked(metrics[0])})
    foot = (
        f"Lines: 95% interval over {' / '.join(f'{n:,}' for n in counts)} {report.counted}."
        if counts[-1] > 1
        else ""
    )
    foot += " Grey, hatched: baselines." if baseline else ""
    foot += " Hollow: can't be told from 0." if any(not gain.excludes_zero for gain in gains.values()) else ""
    return _png(figure, report.title, report.verdict(), foot)


def curves(
    title: str,
    lines: "Mapping[str, Mapping[int, Estimate]]",
    metric: Sequence[str] = (),
    baselines: Collection[str] = (),
) -> bytes:
    """Scores against examples per class, a line with its 95% band for each method, as PNG.

    `lines` is {method: {examples per class: estimate}}; `baselines` names those to draw grey and dashed. Raises
    MissingExtra without matplotlib.
    """
    figure = _figure(7.6, 4.6)
    axis: Axes = figure.subplots()
    colours = iter(_LINES * (1 + len(lines) // len(_LINES)))
    markers = _MARKERS * (1 + len(lines) // len(_MARKERS))
    shown = sorted({shots for line in lines.values() for shots in line})
    ends = []
    for (name, line), marker in zip(lines.items(), markers, strict=False):
        points = sorted(line.items())
        x, means = [shots for shots, _ in points], [estimate.mean for _, estimate in points]
        bands = [(e.mean, e.mean) if math.isnan(e.half) else (e.low, e.high) for _, e in points]
        plain = name in baselines
        colour = QUIET if plain else next(colours)
        axis.fill_between(
            x, [low for low, _ in bands], [high for _, high in bands],
            color=colour, alpha=0.18, linewidth=0,
        )  # fmt: skip
        axis.plot(
            x, means, color=colour, marker=marker, markersize=5, linewidth=1.6 if plain else 2.2,
            linestyle="--" if plain else "-",
        )  # fmt: skip
        ends.append((means[-1], x[-1], shorten(name, 30, placeholder="…") or name[:29] + "…", colour))
    axis.set_xscale("log")
    axis.set_xticks(shown, [str(shots) for shots in shown])
    axis.minorticks_off()
    axis.set_xlabel("examples per class", color=QUIET)
    _dress(axis, metric[0] if metric else "", grid="both")
    low, high = axis.get_ylim()
    at = -math.inf
    for mean, x, name, colour in sorted(
        ends
    ):  # names stand at their lines' ends, pushed apart where they'd touch
        at = max(mean, at + (high - low) * 0.055)
        axis.annotate(
            name, (x, mean), xytext=(shown[-1] * 1.06, at), va="center", fontsize=9.5, color=colour,
            annotation_clip=False, parse_math=False,
        )  # fmt: skip
    return _png(
        figure, title, "", "Bands: 95% intervals." + (" Dashed, grey: baselines." if baselines else "")
    )


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure  # without pyplot: no global state, no window, any thread
    except ImportError as error:
        raise missing_extra("matplotlib", "plot") from error
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _interval(axis: "Axes", estimate: "Estimate", place: int, colour: str) -> None:
    axis.plot(
        [estimate.low, estimate.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt"
    )


def _few_ticks(axis: "Axes", end: float) -> None:
    """Leave ticks where there is data, not under the numbers beside it."""
    axis.locator_params(axis="x", nbins=5)
    left, right = axis.get_xlim()
    axis.set_xticks(
        [tick for tick in axis.get_xticks() if left <= tick <= max(end, 0) + 0.1 * (right - left)]
    )


def _dress(axis: "Axes", title: str, grid: str = "x") -> None:
    axis.set_title(title, loc="left", fontsize=10, color=QUIET, parse_math=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#BBBBBB")
    axis.tick_params(length=0, labelcolor=QUIET, labelsize=9)
    axis.grid(axis=grid, color="#E6E6E6", linewidth=0.8)  # pyright: ignore[reportArgumentType]
    axis.set_axisbelow(True)


def _png(figure: "Figure", title: str, said: str, foot: str) -> bytes:
    # The constrained layout makes room for a suptitle and a supxlabel only, so the verdict joins the title's block.
    title, said = fill(title, int(figure.get_figwidth() * 9)), fill(said, int(figure.get_figwidth() * 13))
    room = "\n" * (1 + said.count("\n") if said else 0)
    figure.suptitle(
        title + room, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK, parse_math=False
    )
    if said:
        below = 0.985 - 0.28 * (1 + title.count("\n")) / figure.get_figheight()
        figure.text(0.01, below, said, ha="left", va="top", fontsize=10, color=INK, parse_math=False)
    figure.supxlabel(foot, x=0.01, ha="left", fontsize=8.5, color=QUIET)
    with warnings.catch_warnings(), io.BytesIO() as file:
        # A name in a script that the font lacks is drawn as boxes; the table and the JSON have it right.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
        return file.getvalue()
