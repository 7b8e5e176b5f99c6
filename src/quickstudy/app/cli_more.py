"""`quickstudy demo`, `encoders` and `bench`."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from quickstudy.app import actions, results, screen
from quickstudy.app.cli_options import COMMON, OF_DOMAIN, Common, OfDomain
from quickstudy.app.cli_use import LEGEND, show_explained
from quickstudy.core.errors import DataError, ModelError, did_you_mean
from quickstudy.domains import EncoderInfo, domains, sorting

SUITES = {
    "choose": "quickstudy.bench.choose:main",
    "classic": "quickstudy.bench.classic:main",
    "engine": "quickstudy.bench.engine:main",
    "kg_bank": "quickstudy.bench.kg_bank:main",
    "kg_end_to_end": "quickstudy.bench.kg_end_to_end:main",
    "kg_entities": "quickstudy.bench.kg_entities:main",
    "kg_linking": "quickstudy.bench.kg_linking:main",
    "kg_completion": "quickstudy.bench.kg_completion:main",
    "kg_relations": "quickstudy.bench.kg_relations:main",
    "kg_store": "quickstudy.bench.kg_store:main",
    "learners": "quickstudy.bench.learners:main",
    "product": "quickstudy.bench.product:main",
}


def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("quickstudy-demo"),
    tune_encoder: bool = True,
    episodes: int = 100,
    seed: int = 0,
    common: OfDomain = OF_DOMAIN,
) -> int:
    """Learn from bundled data, adapt to intents of a domain never seen from 5 examples each, show what came of it.

    Args:
        out: folder for the report, the prior, a model and the examples that it learned from.
        tune_encoder: tune the encoder too, by low-rank adapters (half a minute more).
        episodes: how many tasks of 5 intents to judge by.
        seed: of everything drawn at random.
    """
    common.start()
    with screen.bar("demo") as move:
        result = sorting(common.domain).load("demo")(
            out, tune_encoder=tune_encoder, episodes=episodes, seed=seed, progress=move
        )
    common.show(result, _demonstrated)
    return 0


def _demonstrated(result: results.Demonstrated) -> None:
    screen.say(result.report.table(), result.verdict)
    screen.say(
        "",
        f"Never seen: {len(result.left_out)} intents of the past that the bank has too were left out of it "
        f"({', '.join(result.left_out)}). {result.audit}",
    )
    screen.say(
        "", "One task of 5 intents with 5 examples each; the new sentences that it was least sure of:", ""
    )
    for explained, truth in zip(result.answers, result.truth, strict=True):
        right = "right" if explained.answer.label == truth else f"wrong, it is {truth}"
        screen.say(f'"{explained.answer.text}"  ({right})')
        show_explained(explained, legend=False)
    screen.say(
        LEGEND, "", f"Written to {result.folder}: {', '.join(result.files)}  ({result.seconds:.0f} s in all)"
    )
    screen.type_next(result.next)


def encoders(*, common: OfDomain = OF_DOMAIN) -> int:
    """List the encoders that are known by name. A folder, or a Hugging Face id, will do as well."""
    found = actions.encoders(domain=common.domain)
    common.show({"encoders": found}, lambda _: _encoders(found))
    return 0


def _encoders(found: list[EncoderInfo]) -> None:
    made = screen.table("name", "licence", "installed", "what it is")
    for one in found:
        made.add_row(one.name, one.licence, "yes" if one.installed else f"no: {one.install}", one.about)
    screen.say(
        made, "Or a folder with config.json, model.safetensors and tokenizer.json, or a Hugging Face id."
    )


def bench(*, common: Common = COMMON) -> int:
    """Run a benchmark suite: `quickstudy bench SUITE …`; each suite has its own --help.

    `quickstudy bench check` lists every bar with its figure, and what falls short.
    """
    common.show({"suites": suites()}, lambda _: screen.say(f"Suites: {', '.join([*suites(), 'check'])}"))
    return 0


def suites() -> dict[str, str]:
    """The suites by name: one of each domain, and the house's own."""
    return {name: domain.bench for name, domain in domains().items()} | SUITES


def run_suite(name: str, arguments: list[str]) -> int:
    """Call a suite's `main(arguments)`; its result, if a number, is the exit code."""
    if name == "check":
        return check_bars(arguments)
    known = suites()
    if name not in known:
        names = [*known, "check"]
        raise DataError(
            f"there is no suite {name!r}.{did_you_mean(name, names)} There are: {', '.join(names)}.",
            file="bench",
        )
    module, _, function = known[name].partition(":")
    try:
        main: Any = getattr(import_module(module), function)
    except ModuleNotFoundError as problem:
        if problem.name != module:
            raise
        raise ModelError(f"The suite {name!r} is not part of this installation ({module}).") from None
    code = main(arguments) if inspect.signature(main).parameters else main()
    return code if isinstance(code, int) else 0


def check_bars(arguments: list[str]) -> int:
    """`quickstudy bench check [--json | --markdown] [--strict]`: bars and figures; 1 if strict and one falls short."""
    from quickstudy.bench import bars

    known = ("--json", "--markdown", "--strict")
    for argument in arguments:
        if argument not in known:
            raise DataError(f"unknown option {argument!r}; expected {', '.join(known)}.", file="bench check")
    checks = bars.check(bars.load_bars(), bars.load_runs())
    if "--json" in arguments:
        print(f'{{"summary": {results.as_json(bars.summary(checks))}, "bars": {bars.as_json(checks)}}}')
    elif "--markdown" in arguments:
        print(bars.as_markdown(checks), end="")
    else:
        screen.console(markup=True).print(bars.as_table(checks), bars.summary(checks), sep="\n")
    return int("--strict" in arguments and any(c.status in ("short", "not run") for c in checks))
