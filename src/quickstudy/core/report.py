"""What was measured: means with 95% confidence intervals, and a verdict that claims no more than they allow.

An interval over episodes says how sure the mean is for these classes; the one over class splits
(`Estimate.over_groups`) is wider and says what to expect from other classes.
"""

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.core import atomic, card
from quickstudy.core.errors import DataError, QuickstudyError
from quickstudy.core.estimate import Estimate, Scores, numbers, paired, paired_share
from quickstudy.core.untrusted import Refused, parse_json

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Row:
    """One method: `metrics` are over episodes, `splits` (where measured) the same over class splits."""

    name: str
    metrics: dict[str, Estimate]
    note: str = ""
    baseline: bool = False
    splits: dict[str, Estimate] = field(default_factory=dict)


@dataclass
class Report:
    """Rows of results with all that is needed to judge and repeat them.

    `per_task` is {metric: {row: scores, one an episode, in the same order in all rows}} and backs the paired
    comparisons; `curves` is {row: {examples per class: estimate}} of the first metric. The first metric of the
    first row is the main one. Metrics named in `shares` are 0 or 100 each (one row, wrong or right), and their
    intervals are those of shares.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=lambda: environment())
    per_task: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: dict[str, dict[int, Estimate]] = field(default_factory=dict)
    lower_is_better: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    counted: str = "episodes"
    """What there is one score of: a report on texts says so."""

    def add(
        self,
        name: str,
        scores: Mapping[str, Scores],
        *,
        baseline: bool = False,
        note: str = "",
    ) -> Row:
        """Add a row from its scores an episode; a list of lists holds one list for each class split.

        Raises DataError for a name that is taken, for scores that aren't finite numbers, and for shares that are
        neither 0 nor 100.
        """
        if any(row.name == name for row in self.rows):
            raise DataError(f'the report has a row "{name}" already; rows are told apart by their names')
        row = Row(name, {}, note, baseline)
        flats = {}
        for metric, values in scores.items():
            groups = [numbers(g) for g in values] if _is_nested(values) else [numbers(values)]
            flats[metric] = [score for group in groups for score in group]
            row.metrics[metric] = self._estimate(metric, flats[metric])
            if len(groups) > 1:
                row.splits[metric] = Estimate.over_groups(groups)
        for metric, flat in flats.items():
            self.per_task.setdefault(metric, {})[name] = flat
        self.rows.append(row)
        return row

    def _estimate(self, metric: str, flat: list[float]) -> Estimate:
        if metric not in self.shares:
            return Estimate.of(flat)
        if odd := [score for score in flat if score not in (0.0, 100.0)]:
            raise DataError(
                f"{metric} is among the report's shares, so each score is 0 or 100; got {odd[0]:g}"
            )
        return Estimate.share(flat.count(100.0), len(flat))

    @property
    def metrics(self) -> list[str]:
        """All metrics, in the order in which rows first name them; the first is the main one."""
        return list(dict.fromkeys(metric for row in self.rows for metric in row.metrics))

    def ranked(self, metric: str) -> list[Row]:
        """The rows that have the metric, best first."""
        rows = [row for row in self.rows if metric in row.metrics]
        return sorted(
            rows, key=lambda row: row.metrics[metric].mean, reverse=metric not in self.lower_is_better
        )

    def best_baseline(self, metric: str) -> Row | None:
        return next((row for row in self.ranked(metric) if row.baseline), None)

    def difference(self, ours: Row, theirs: Row, metric: str) -> Estimate | None:
        """The paired difference of two rows, or None when they weren't scored on the same episodes."""
        scores = self.per_task.get(metric, {})
        left, right = scores.get(ours.name), scores.get(theirs.name)
        if not left or not right or len(left) != len(right):
            return None
        return paired_share(left, right) if metric in self.shares else paired(left, right)

    def gain(self, row: Row, metric: str) -> Estimate | None:
        """The row's paired difference to the best baseline; None for baselines and where there is none."""
        best = self.best_baseline(metric)
        return None if best is None or row.baseline else self.difference(row, best, metric)

    def beats(self, ours: Row, theirs: Row, metric: str) -> bool:
        """Is ours better, with a paired interval that excludes 0?"""
        difference = self.difference(ours, theirs, metric)
        better = -1 if metric in self.lower_is_better else 1
        return difference is not None and difference.excludes_zero and difference.mean * better > 0

    def wins(self, row: Row, metric: str) -> bool:
        """Does the row beat all others (and is there another)?"""
        others = [other for other in self.ranked(metric) if other is not row]
        return bool(others) and metric in row.metrics and all(self.beats(row, o, metric) for o in others)

    def digits(self, metric: str) -> int:
        """Decimals to write: 1 for points, 3 for what stays below 2 (ECE, seconds)."""
        return 1 if max(abs(row.metrics[metric].mean) for row in self.ranked(metric)) >= 2 else 3

    def verdict(self, metric: str | None = None) -> str:
        """Say in one or two plain sentences which row is best, as far as the paired intervals allow."""
        metric = metric or next(iter(self.metrics), "")
        rows = self.ranked(metric)
        if not rows:
            return "Nothing was measured."
        best, digits = rows[0], self.digits(metric)
        score = f"{metric} {best.metrics[metric].text(digits)}"
        if len(rows) == 1:
            return f"{best.name}: {score}; there is nothing to compare it with."
        tied = [row for row in rows[1:] if not self.beats(best, row, metric)]
        if not tied:
            rival = rows[1] if best.baseline else self.best_baseline(metric) or rows[1]
            what = f"{self._difference_text(best, rival, metric)} against {rival.name}"
            if best.baseline:
                return f"No gain: the baseline {best.name} is best ({score}; {what})."
            return f"{best.name} is best ({score}; {what})."
        names = listed([best.name, *(row.name for row in tied)])
        if len(tied) == 1:
            why = self._difference_text(best, tied[0], metric)
        else:
            why = f"{metric} {best.metrics[metric].text(digits)} to {tied[-1].metrics[metric].text(digits)}"
        if len(tied) == len(rows) - 1:
            return f"Nothing can be told apart: {names} ({why})."
        said = f"No row is best alone: {names} can't be told apart ({why})."
        baseline = self.best_baseline(metric)
        if baseline and not best.baseline:
            gain = f"{self._difference_text(best, baseline, metric)} against {baseline.name}"
            beaten = self.beats(best, baseline, metric)
            said += (
                f" {best.name} does beat every baseline ({gain})." if beaten else f" No proven gain: {gain}."
            )
        return said

    def _difference_text(self, ours: Row, theirs: Row, metric: str) -> str:
        difference = self.difference(ours, theirs, metric)
        if difference is None:
            return f"not scored on the same {self.counted}"
        return f"{difference.text(self.digits(metric), sign=True)} over {difference.n} paired {self.counted}"

    def table(self) -> "Table":
        """The table for a terminal."""
        return card.table(self)

    def to_markdown(self) -> str:
        """A card: the verdict, the table, and what is needed to repeat it."""
        return card.markdown(self)

    def to_json(self) -> str:
        """The whole report as JSON; `from_json` gives an equal one back."""
        content = {
            "format": 1,
            "title": self.title,
            "verdict": self.verdict(),
            "rows": [
                {
                    "name": row.name,
                    "baseline": row.baseline,
                    "note": row.note,
                    "metrics": {name: _packed(estimate) for name, estimate in row.metrics.items()},
                    "splits": {name: _packed(estimate) for name, estimate in row.splits.items()},
                }
                for row in self.rows
            ],
            "seeds": self.seeds,
            "settings": self.settings,
            "environment": self.environment,
            "lower_is_better": list(self.lower_is_better),
            "shares": list(self.shares),
            "counted": self.counted,
            "curves": {
                name: {str(shots): _packed(estimate) for shots, estimate in curve.items()}
                for name, curve in self.curves.items()
            },
            "per_task": self.per_task,
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Report":
        """Read what `to_json` wrote. Raises DataError when it isn't a report."""
        try:
            content = parse_json(text.encode() if isinstance(text, str) else text, depth=64)
            if content.pop("format") != 1:
                raise DataError("this report has a format that this version doesn't know: upgrade quickstudy")
            content.pop("verdict")
            rows = [
                Row(
                    **{
                        **row,
                        "metrics": {name: _unpacked(packed) for name, packed in row["metrics"].items()},
                        "splits": {name: _unpacked(packed) for name, packed in row["splits"].items()},
                    }
                )
                for row in content.pop("rows")
            ]
            curves = {
                name: {int(shots): _unpacked(packed) for shots, packed in curve.items()}
                for name, curve in content.pop("curves").items()
            }
            lower, shares = tuple(content.pop("lower_is_better")), tuple(content.pop("shares", ()))
            if not isinstance(content.get("counted", ""), str):
                raise DataError("not a report: what it counts is no word")
            return cls(rows=rows, curves=curves, lower_is_better=lower, shares=shares, **content)
        except Refused as error:
            raise DataError(f"not a report: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"not a report of this version: {type(error).__name__} {error}") from None

    def save(self, folder: Path | str, *, picture: bool = True) -> list[Path]:
        """Write report.json, report.md and report.png (and curve.png for `curves`), each whole or not at all.

        All are made before the first is written. Raises MissingExtra without matplotlib (unless `picture` is
        False), QuickstudyError when the disk is full or the folder can't be written.
        """
        folder = Path(folder)
        files: dict[str, str | bytes] = {"report.json": self.to_json(), "report.md": self.to_markdown()}
        if picture:
            from quickstudy.core import picture as pictures

            if self.rows:
                files["report.png"] = pictures.bars(self)
            if self.curves:
                baselines = {row.name for row in self.rows if row.baseline}
                files["curve.png"] = pictures.curves(self.title, self.curves, self.metrics[:1], baselines)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                atomic.write_file(folder / name, data)
        except OSError as error:
            size = sum(len(data) for data in files.values())
            raise QuickstudyError(atomic.write_problem(error, folder, size)) from error
        return [folder / name for name in files]


def environment() -> dict[str, Any]:
    """What the numbers depend on besides the code: cores, threads, versions, platform; no paths, no host name."""
    import torch

    from quickstudy import __version__

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": ".".join(map(str, sys.version_info[:3])),
        "quickstudy": __version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _is_nested(values: Any) -> bool:
    return len(values) > 0 and hasattr(values[0], "__len__") and not isinstance(values[0], str)


def _packed(estimate: Estimate) -> list[float | int | None]:
    half = None if math.isnan(estimate.half) else estimate.half
    return [estimate.mean, half, estimate.n, *(estimate.bounds or ())]


def _unpacked(packed: Any) -> Estimate:
    mean, half, n, *bounds = packed
    low_high = (float(bounds[0]), float(bounds[1])) if bounds else None
    return Estimate(float(mean), math.nan if half is None else float(half), int(n), low_high)


def listed(names: Sequence[str]) -> str:
    """Write names as 'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
