"""core.1, core.2 and core.4: five-way episodes of classes that no prior has met.

Protocols: ProtAugment's five class splits of BANKING77 (Dopierre et al. 2021, arXiv:2105.12995), 15 queries a class;
HuffPost's class split of Bao et al. 2020 (arXiv:1908.06039), 25 queries a class. Label names are no part of these
protocols, so the main figures are without them; with them stands beside.
"""

from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from quickstudy.bench.data import ClassSplit, only
from quickstudy.bench.leaks import audit
from quickstudy.bench.text_play import (
    CENTROID,
    WAYS,
    Clock,
    Findings,
    Method,
    Played,
    Setting,
    audit_row,
    baselines,
    class_names,
    gain_over_splits,
    index_episodes,
    numbered,
    over_splits,
    row,
)
from quickstudy.core.calibration import Answers
from quickstudy.core.report import Report
from quickstudy.domains.text.prior import Prior
from quickstudy.domains.text.read import Examples

FAR, NEAR, FOREIGN = "CLINC150", "CLINC150 + own classes", "CLINC150 without banking"
SHOTS = (1, 5)


class Table:
    """Methods by name, each with its scores a split; becomes a report."""

    def __init__(self) -> None:
        self.played: dict[str, list[Played]] = {}
        self.baseline: dict[str, bool] = {}

    def add(self, method: Method, played: Played) -> None:
        self.played.setdefault(method.name, []).append(played)
        self.baseline[method.name] = method.baseline

    def accuracy(self, name: str) -> list[list[float]]:
        return [played.accuracy for played in self.played[name]]

    def ece(self, name: str) -> float:
        return Answers.pooled([played.answers for played in self.played[name]]).ece

    def report(self, title: str, seeds: Sequence[int]) -> Report:
        report = Report(title, seeds=list(seeds))
        for name in self.played:
            note = f"ECE {self.ece(name):.3f}"
            report.add(name, {"accuracy": self.accuracy(name)}, baseline=self.baseline[name], note=note)
        return report


def banking77(
    setting: Setting,
    clinc: Examples,
    foreign: Examples,
    full: Examples,
    splits: Sequence[ClassSplit],
    rows: Collection[str] = ("core.1", "core.2"),
) -> Findings:
    """core.1 (priors that met CLINC150 alone) and core.2 (the split's training classes too), on the same episodes.

    Args:
        clinc: CLINC150, to meta-train on.
        foreign: CLINC150 without the domains that are near banking.
        full: all of BANKING77.
    """
    findings, clock, base = Findings(), Clock(), setting.base
    setting.show(f"BANKING77, {len(full):,} sentences: encoding")
    frozen, names = base.encode(full.texts), base.encode(class_names(full))
    (clinc,), found = audit("core.1", [clinc], full, encode=base.encode)
    findings.audits.append(found)
    common: list[tuple[str, Prior]] = []
    if "core.1" in rows:
        (foreign,), found = audit("core.1 without banking", [foreign], full, encode=base.encode)
        findings.audits.append(found)
        common = _taught(setting, FAR, [clinc]) + _taught(setting, FOREIGN, [foreign])[:1]
    felt = [(name, prior, *_felt(prior, setting, full)) for name, prior in common]
    seconds = {"core.1": clock.seconds, "core.2": 0.0}
    y = numbered(full).y
    plain, named = {k: Table() for k in SHOTS}, {k: Table() for k in SHOTS}
    for split in setting.splits(splits):
        clock = Clock()
        own: list[tuple[str, Prior, Tensor, Tensor]] = []
        test = only(full, split.test)
        if "core.2" in rows:
            parts = [clinc, only(full, split.train, f"BANKING77, {split.name}, training classes"),
                     only(full, split.valid, f"BANKING77, {split.name}, validation classes")]  # fmt: skip
            (far, near, valid), found = audit(f"core.2 {split.name}", parts, test, encode=base.encode)
            findings.audits.append(found)
            own = [
                (name, prior, *_felt(prior, setting, full, test))
                for name, prior in _taught(setting, NEAR, [far, near], [valid])
            ]
        for shots in SHOTS:
            episodes = index_episodes(
                full, split.test, shots=shots, queries=15, episodes=setting.tasks, seed=setting.seed
            )
            for table, told in ((plain[shots], False), (named[shots], True)):
                methods = baselines(frozen, names if told else None)
                methods += [
                    Method(_ours(name, told), prior.for_ways(WAYS), prior.meta, x, n if told else None)
                    for name, prior, x, n in (*felt, *own)
                ]
                for method in methods:
                    table.add(method, method.play(episodes, y))
        setting.show(f"  {split.name}: {clock.seconds:.0f} s")
        for key in seconds:
            seconds[key] += clock.seconds
    for id, source in (("core.1", FAR), ("core.2", NEAR)):
        if id in rows:
            _write(findings, setting, id, source, plain, named, seconds[id])
    for shots in SHOTS:
        for table, what in ((plain[shots], ""), (named[shots], ", label names given")):
            title = f"BANKING77, ProtAugment splits, 5-way {shots}-shot{what}"
            title += f" ({setting.encoder}, {setting.tasks} episodes a split)"
            setting.show(table.report(title, [setting.seed]).table())
    return findings


def _write(
    findings: Findings,
    setting: Setting,
    id: str,
    source: str,
    plain: dict[int, Table],
    named: dict[int, Table],
    seconds: float,
) -> None:
    """Rows for one kind of prior: without names (the figure), with names, and what else belongs beside it."""
    command = f"quickstudy bench text --only {id}"
    audits = [a for a in findings.audits if a.name.startswith(id)]
    findings.rows.append(audit_row(f"{id}.leaks", audits, command, seconds))
    for place, shots in enumerate(SHOTS, start=1):
        for table, told in ((plain[shots], False), (named[shots], True)):
            more = " + name" if told else ""
            report = table.report("", [setting.seed])
            ours = _ours(source, told)
            [mine] = [r for r in report.rows if r.name == ours]
            [centroid] = [r for r in report.rows if r.name == CENTROID + more]
            words = [
                "with label names" if told else "without label names",
                over_splits(mine),
                gain_over_splits(table.accuracy(ours), table.accuracy(CENTROID + more)),
                f"ECE {table.ece(ours):.4f}",
            ]
            beside = [source + HEAD, FOREIGN] if id == "core.1" else [source + HEAD]
            for theirs in (r for r in report.rows if r.name in [_ours(other, told) for other in beside]):
                gain = report.difference(theirs, centroid, "accuracy")
                score = theirs.metrics["accuracy"].text()
                words.append(f"{theirs.name} {score}, gain {gain and gain.text(2, sign=True)}")
            findings.rows.append(
                row(f"{id}.{place}" + (".names" if told else ""), report, ours, CENTROID + more,
                    command=command, seconds=seconds, note="; ".join(word for word in words if word))
            )  # fmt: skip
            if not told:
                findings.calibration[f"{id} 5-way {shots}-shot"] = table.ece(ours)


def huffpost(setting: Setting, headlines: Examples, split: ClassSplit) -> Findings:
    """core.4: HuffPost, a prior of the 20 training classes chosen by the 5 validation classes."""
    command = "quickstudy bench text --only core.4"
    findings, clock, base = Findings(), Clock(), setting.base
    parts = [only(headlines, part, f"HuffPost, {what} classes")
             for part, what in ((split.train, "training"), (split.valid, "validation"))]  # fmt: skip
    test = only(headlines, split.test)
    setting.show(f"HuffPost, {len(test):,} test headlines: encoding")
    frozen = base.encode(test.texts)
    (train, valid), found = audit("core.4", parts, test, encode=base.encode)
    findings.audits.append(found)
    findings.rows.append(audit_row("core.4.leaks", [found], command, clock.seconds))
    y = numbered(test).y
    ours = [
        Method(
            _ours(name, False), prior.for_ways(WAYS), prior.meta, prior.experienced(base).encode(test.texts)
        )
        for name, prior in _taught(setting, "HuffPost", [train], [valid])
    ]
    for place, shots in enumerate(SHOTS, start=1):
        table = Table()
        seeds = [setting.seed + i for i in range(1 if setting.quick else 3)]
        for seed in seeds:
            episodes = index_episodes(
                test, split.test, shots=shots, queries=25, episodes=setting.tasks, seed=seed
            )
            for method in (*baselines(frozen), *ours):
                table.add(method, method.play(episodes, y))
        report = table.report(
            f"HuffPost, published class split, 5-way {shots}-shot ({setting.encoder}, 25 queries a class, "
            f"{len(seeds)} × {setting.tasks} episodes)",
            seeds,
        )
        for line in report.rows:
            line.splits.clear()  # the groups are seeds here, of one class split
        setting.show(report.table())
        name = ours[0].name
        note = f"25 queries a class; no label names (the data has none); ECE {table.ece(name):.4f}"
        if len(ours) > 1:
            [head] = [r for r in report.rows if r.name == ours[1].name]
            note += f"; {head.name}: {head.metrics['accuracy'].text()}"
        findings.calibration[f"core.4 5-way {shots}-shot"] = table.ece(name)
        findings.rows.append(
            row(f"core.4.{place}", report, name, CENTROID, command=command, seconds=clock.seconds, note=note)
        )
    return findings


HEAD = ", encoder not tuned"


def _taught(
    setting: Setting, name: str, datasets: Sequence[Examples], valid: Sequence[Examples] | None = None
) -> list[tuple[str, Prior]]:
    """The prior, and (where it came with a tuned encoder) the one without."""
    clock = Clock()
    found = [(name, setting.teach(datasets, valid))]
    if setting.tune:
        found.append((name + HEAD, setting.teach(datasets, valid, tune=False)))
    setting.show(f"  prior of {name}: {clock.seconds:.0f} s")
    return found


def _felt(
    prior: Prior, setting: Setting, full: Examples, part: Examples | None = None
) -> tuple[Tensor, Tensor]:
    """A prior's features of every sentence (zero for those outside of `part`, which nobody reads) and class name."""
    encode: Callable[[Sequence[str]], Tensor] = prior.experienced(setting.base).encode
    names = encode(class_names(full))
    if part is None:
        return encode(full.texts), names
    wanted = set(part.labels)
    places = [i for i, label in enumerate(full.labels) if label in wanted]
    felt = names.new_zeros(len(full), names.shape[1])
    felt[places] = encode([full.texts[i] for i in places])
    return felt, names


def _ours(name: str, told: bool) -> str:
    return f"ours: {name}" + (" + name" if told else "")
