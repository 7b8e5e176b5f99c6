"""A first schema to change into one's own: an example with comments that say what each part is for."""

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
# for any. In an example, [head]{{…}} and [tail]{{…}} stand around the two.
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
    try:
        write_new(path, [starter(path.stem).encode()])
    except FileExistsError:
        raise DataError(
            "there is one already, and it stays as it is: choose another name.", file=path
        ) from None
    except OSError as problem:
        raise DataError(f"can't be written: {problem.strerror or problem}.", file=path) from None
    return path
