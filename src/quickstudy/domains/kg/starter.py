"""A first schema and first examples to change into one's own, with comments that say what each part is for."""

from os import PathLike
from pathlib import Path

from quickstudy.core.atomic import write_new
from quickstudy.core.errors import DataError

_STARTER = """\
# What your graph is made of. Change names and add types; nothing but entities is needed.
name: {name}

# Kinds of things that have names in your texts. A description counts as one more example, so a clear sentence is
# worth writing; examples are names of such things.
entities:
  company:
    description: A business that makes, sells or lends something, also by its short name.
    examples: [Acme plc, Northern Rock]
  person:
    description: A human being, by name.
    examples: [Jo Ray]
  place:
    description: A town, region or country.
  amount:
    description: A sum of money with its currency.
    examples: [$3.5 million]

# What may be said of two of them. head and tail are the types that it leads from and to: one, a list, or none of them
# for any. In an example, [head]{{…}} and [tail]{{…}} stand around the two; it counts as one more labelled sentence, and
# so do name and description together.
relations:
  works_for:
    head: person
    tail: company
    description: The person has a job or an office at the company.
    examples:
      - "[tail]{{Acme plc}} named [head]{{Jo Ray}} its chief executive."
  acquired:
    head: company
    tail: company
    description: The first company bought the second, or most of it.
    examples:
      - "[head]{{Acme plc}} paid $3.5 million for [tail]{{Bolt}}."
  based_in:
    head: company
    tail: place
    description: The company has its head office there.
  competes_with:
    head: company
    tail: company
    symmetric: true            # said of A and B, it holds of B and A
    description: The companies sell the same thing to the same customers.
"""

_EXAMPLES = """\
# Labelled sentences for the schema {name}: change them into ones of your documents, five or more of each type.
# A sentence a line; its mentions are marked [type]{{words}}. Below it, indented, what it says of them. In a sentence
# with marks, mark all that is there: what isn't marked counts as none.

[company]{{Acme plc}} named [person]{{Jo Ray}} its chief executive.
    works_for: Jo Ray -> Acme plc
[company]{{Bolt}} of [place]{{Leeds}} was bought by [company]{{Acme plc}} for [amount]{{$3.5 million}}.
    based_in: Bolt -> Leeds
    acquired: Acme plc -> Bolt
"We sell more than [company]{{Corvo}} in every market," said [person]{{Lena Hart}}, who runs sales at [company]{{Bolt}}.
    competes_with: Bolt -> Corvo
    works_for: Lena Hart -> Bolt
[company]{{Corvo AG}}, with head office in [place]{{Zurich}}, lost [amount]{{12 million francs}} last year.
    based_in: Corvo AG -> Zurich
[person]{{Sam Oduya}} joined [company]{{Northern Rock}} as finance director in March.
    works_for: Sam Oduya -> Northern Rock
[company]{{Dyne Systems}} of [place]{{Boston}} agreed to pay [amount]{{$48 million}} in cash for [company]{{Fizz}}.
    based_in: Dyne Systems -> Boston
    acquired: Dyne Systems -> Fizz
[company]{{Fizz}} and [company]{{Tonic Drinks}} are fighting over the same shelves.
    competes_with: Fizz -> Tonic Drinks
[person]{{Ana Souza}}, chairman of [company]{{Enco}}, flew to [place]{{Lisbon}} on Monday.
    works_for: Ana Souza -> Enco
[company]{{Enco}} completed its takeover of [company]{{Halden Power}} for [amount]{{£210m}}.
    acquired: Enco -> Halden Power
Analysts in [place]{{London}} expect [company]{{Halden Power}} to earn [amount]{{£14m}}.
Its main rival, [company]{{Voltaic}}, is based in [place]{{Oslo}}.
    based_in: Voltaic -> Oslo
[person]{{Lena Hart}} met [person]{{Ana Souza}} in [place]{{Geneva}}.
[company]{{Voltaic}} competes with [company]{{Enco}} for wind farms.
    competes_with: Voltaic -> Enco
"""


def starter_examples(name: str = "graph") -> str:
    """Sentences labelled by hand with the types of `starter`: `read_annotated` takes them as they are."""
    return _EXAMPLES.format(name="".join(sign if sign.isprintable() else "?" for sign in name))


def starter(name: str = "graph") -> str:
    """A schema in YAML, with comments, named `name`: `Schema.read` takes it as it is."""
    signs = [sign if sign.isprintable() and sign not in '"\\' else f"\\U{ord(sign):08x}" for sign in name]
    return _STARTER.format(name=f'"{"".join(signs)}"')


def write_starter(path: str | PathLike[str]) -> Path:
    """Write `starter` to a .yaml or .yml file that isn't there yet, named as the file is; returns its path.

    Raises DataError when there is something already, or nothing can be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise DataError("the starter has comments, so its file is .yaml or .yml.", file=path)
    return _written(path, starter(path.stem))


def write_starter_examples(path: str | PathLike[str], name: str) -> Path:
    """Write `starter_examples` to a file that isn't there yet, for that schema. Raises as `write_starter`."""
    return _written(Path(path), starter_examples(name))


def _written(path: Path, text: str) -> Path:
    try:
        write_new(path, [text.encode()])
    except FileExistsError:
        raise DataError(
            "there is one already, and it stays as it is: choose another name.", file=path
        ) from None
    except OSError as problem:
        raise DataError(f"can't be written: {problem.strerror or problem}.", file=path) from None
    return path
