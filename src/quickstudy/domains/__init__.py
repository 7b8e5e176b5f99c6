"""The domains, as one record each; nothing of a domain is imported before it is asked for.

CLI, service, studio and bench go by these records and know no domain by name. A package adds one by an entry point:

    [project.entry-points."quickstudy.domains"]
    songs = "my_package.songs:DOMAIN"
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from quickstudy.core.errors import ModelError, did_you_mean
from quickstudy.encoders.packaged import EncoderInfo as EncoderInfo

GROUP = "quickstudy.domains"


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What there is to know of a domain before any of it is loaded; its parts are written "module:name"."""

    name: str
    about: str
    """One line for people: what is learned from what."""
    commands: str = ""
    """The command whose subcommands serve this domain; empty where `adapt`, `predict`, `explain` … do."""
    model: str
    """What is adapted; without `commands` a class with scikit-learn's face: `fit`, `predictions`, `explain`, `suggest`,
    `save`, `load`."""
    read_examples: str
    """(path, …) -> labelled examples."""
    read_descriptions: str = ""
    """(path) -> {label: what it means}. This and the next two may be left out."""
    read_items: str = ""
    """(path, …) -> items without labels."""
    baselines: str = ""
    """(model, items) -> {name: probabilities} of what knows no past tasks, given the model's own examples."""
    encoders: str = ""
    """() -> the encoders known by name, as `EncoderInfo`."""
    read_datasets: str = ""
    """(folder) -> past tasks to learn from. This and `learn` may be left out where a prior is shipped."""
    learn: str = ""
    """(datasets, …) -> a prior."""
    demo: str
    """The main job on bundled data: (folder, progress) -> result."""
    bench: str
    """(arguments) -> exit code: the domain's benchmark suite."""
    keeper: str = ""
    """A `bank.entry.Keeper`: what a bank keeps of the domain's models. May be left out."""

    def load(self, part: str) -> Any:
        """Import a part by the name of its field. Raises ModelError for a plug-in whose part isn't there."""
        if not getattr(self, part):
            own = f" It has commands of its own: quickstudy {self.commands} --help." if self.commands else ""
            raise ModelError(f"The domain {self.name!r} has no {part}.{own}")
        module, _, name = getattr(self, part).partition(":")
        try:
            return getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as problem:
            if isinstance(problem, ModuleNotFoundError) and problem.name != module:
                raise
            raise ModelError(
                f"The domain {self.name!r} names {module}:{name} as its {part}: {problem}."
            ) from problem


TEXT = Domain(
    name="text",
    about="sort short texts into categories, from a few examples of each",
    model="quickstudy.domains.text.use:FewShotTextClassifier",
    read_examples="quickstudy.domains.text.read:read_examples",
    read_descriptions="quickstudy.domains.text.read:read_descriptions",
    read_items="quickstudy.domains.text.read:read_texts",
    read_datasets="quickstudy.domains.text.read:read_datasets",
    learn="quickstudy.domains.text.learn:learn",
    baselines="quickstudy.domains.text.baselines:baselines",
    encoders="quickstudy.encoders.packaged:encoders",
    demo="quickstudy.app.demo:demo",
    bench="quickstudy.bench.text:main",
    keeper="quickstudy.domains.text.kept:KEEPER",
)
KG = Domain(
    name="kg",
    about="draw a knowledge graph out of documents, from a few labelled examples of each type",
    commands="kg",
    model="quickstudy.domains.kg.use:GraphModel",
    read_examples="quickstudy.domains.kg.reading.examples:read_annotated",
    demo="quickstudy.app.kg_demo:demo",
    bench="quickstudy.bench.kg:main",
    keeper="quickstudy.domains.kg.kept:KEEPER",
)
BUILT_IN = (TEXT, KG)


@cache
def domains() -> dict[str, Domain]:
    """All domains by name, the built-in ones first; the first is the default.

    Raises ModelError for an entry point that takes a name that is taken, or that leads to no `Domain`.
    """
    found = {domain.name: domain for domain in BUILT_IN}
    for point in entry_points(group=GROUP):
        try:
            domain = point.load()
        except (ImportError, AttributeError) as problem:
            raise ModelError(
                f"The domain {point.name!r} ({point.value}) can't be loaded: {problem}."
            ) from problem
        if not isinstance(domain, Domain):
            raise ModelError(
                f"The entry point {point.value} is a {type(domain).__name__}, expected a Domain."
            )
        if domain.name in found:
            raise ModelError(f"{point.value} adds a domain {domain.name!r}, and there is one of that name.")
        found[domain.name] = domain
    return found


def keepers() -> dict[str, Callable[[], Any]]:
    """What says how a domain's models are kept in a bank, by the domain's name; it is imported when it is called."""
    return {name: partial(domain.load, "keeper") for name, domain in domains().items() if domain.keeper}


def sorting(name: str | None = None) -> Domain:
    """The domain of that name, to sort items into labels with. Raises ModelError for one that does another job."""
    domain = find(name)
    if domain.commands:
        raise ModelError(
            f"The domain {domain.name!r} doesn't sort items into labels; it has commands of its own: "
            f"quickstudy {domain.commands} --help."
        )
    return domain


def find(name: str | None = None) -> Domain:
    """The domain of that name; None gives the default. Raises ModelError when there is none, naming those there are."""
    for domain in BUILT_IN:  # first, so that a broken plug-in stops nobody who doesn't use it
        if name is None or name == domain.name:
            return domain
    assert name is not None
    known = domains()
    if name not in known:
        raise ModelError(
            f"There is no domain {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}."
        )
    return known[name]
