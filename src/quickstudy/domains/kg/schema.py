"""What a field's graph is made of: types of entities, and of relations with the types that they may join."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from quickstudy.core.errors import DataError, did_you_mean, missing_extra
from quickstudy.core.untrusted import Refused, parse_json
from quickstudy.files.source import suffix_of, whole_text

_STRICT = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True)
class EntityType:
    """A kind of things that have names."""

    __pydantic_config__ = _STRICT

    description: str = ""
    """What it is, in a sentence: it counts as one more example."""
    examples: tuple[str, ...] = ()
    """Names of such things."""


@dataclass(frozen=True)
class RelationType:
    """A kind of statements about two entities."""

    __pydantic_config__ = _STRICT

    head: tuple[str, ...] = ()
    """Types of entity that it may start from; none means any."""
    tail: tuple[str, ...] = ()
    """Types of entity that it may lead to; none means any."""
    description: str = ""
    symmetric: bool = False
    """Whether it holds in both directions or in none."""
    examples: tuple[str, ...] = ()
    """Sentences with [head]{…} and [tail]{…} around the two entities."""


@dataclass(frozen=True)
class Schema:
    """Types by name."""

    __pydantic_config__ = _STRICT

    name: str = "graph"
    entities: Mapping[str, EntityType] = field(default_factory=dict)
    relations: Mapping[str, RelationType] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "Schema":
        """A schema from a .yaml, .yml or .json file.

        Raises:
            DataError: it says what is wrong, in which type.
            MissingExtra: YAML without PyYAML.
        """
        path = Path(path)
        kind = suffix_of(path)
        if kind not in (".yaml", ".yml", ".json"):
            raise DataError(
                f"a schema is .yaml or .json; this is {kind or 'a file without suffix'}.", file=path
            )
        text = whole_text(path)
        return cls.of(_json(text, path) if kind == ".json" else _yaml(text, path), path)

    @classmethod
    def of(cls, record: Any, file: str | PathLike[str] | None = None) -> "Schema":
        """A schema from plain values, as a file holds them. Raises DataError."""
        if not isinstance(record, dict):
            raise DataError(
                f"a schema is a mapping with entities and relations; this is {str(record)[:60]!r}.", file=file
            )
        record = dict(record)
        for part in ("entities", "relations"):
            given = record.get(part) or {}
            if isinstance(given, list):  # names alone
                given = {name: {} for name in given}
            if not isinstance(given, dict):
                raise DataError(
                    f"{part}: a mapping of names to what they are, or a list of names, is expected.",
                    file=file,
                )
            record[part] = {name: _plural(value) for name, value in given.items()}
        try:
            schema = TypeAdapter(cls).validate_python(record)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            known = {"head", "tail", "description", "symmetric", "examples", "name", "entities", "relations"}
            hint = did_you_mean(str(first["loc"][-1]), known) if first["type"] == "extra_forbidden" else ""
            raise DataError(
                f"{place}: {first['msg']}; got {str(first['input'])[:60]!r}.{hint}", file=file
            ) from None
        return schema._checked(file)

    def _checked(self, file: str | PathLike[str] | None) -> "Schema":
        if not self.entities:
            raise DataError("the schema has no entity type; name one or more under entities.", file=file)
        for part, types in (("entities", self.entities), ("relations", self.relations)):
            for name in types:
                if not name.strip() or "\n" in name or len(name) > 100:
                    raise DataError(
                        f"{part}: {name[:60]!r} is no name: one line of 1 to 100 characters.", file=file
                    )
        for name, relation in self.relations.items():
            for end in ("head", "tail"):
                for kind in getattr(relation, end):
                    if kind not in self.entities:
                        raise DataError(
                            f"relations.{name}.{end} names the type {kind!r}, which isn't under entities."
                            f"{did_you_mean(kind, self.entities)} There are: {', '.join(self.entities)}.",
                            file=file,
                        )
            if relation.symmetric and set(relation.head) != set(relation.tail):
                raise DataError(
                    f"relations.{name} is symmetric, so head and tail must be the same types.", file=file
                )
        return self

    def admits(self, relation: str, head: str, tail: str) -> bool:
        """Whether a relation may lead from an entity of type `head` to one of type `tail`."""
        kind = self.relations[relation]
        return (not kind.head or head in kind.head) and (not kind.tail or tail in kind.tail)

    def check_relation(self, relation: str, head: str, tail: str, file: str | None = None) -> None:
        """Raises DataError for a relation that isn't there, or that doesn't join these types."""
        if relation not in self.relations:
            raise DataError(
                f"the schema has no relation {relation!r}.{did_you_mean(relation, self.relations)} It has: "
                f"{', '.join(self.relations) or 'none'}.",
                file=file,
            )
        if not self.admits(relation, head, tail):
            kind = self.relations[relation]
            turned = " The other way round it would fit." if self.admits(relation, tail, head) else ""
            raise DataError(
                f"{relation} leads from {' or '.join(kind.head) or 'anything'} to "
                f"{' or '.join(kind.tail) or 'anything'}; here it leads from {head} to {tail}.{turned}",
                file=file,
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `of` reads them."""
        return TypeAdapter(Schema).dump_python(self, mode="json")


def _plural(value: Any) -> Any:
    """A type as people write it: nothing, a description alone, one head instead of a list of them."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"description": value}
    if isinstance(value, dict):
        single = ("head", "tail", "examples")
        return {
            key: [v] if key in single and isinstance(v, str) else v or [] if key in single else v
            for key, v in value.items()
        }
    return value


def _json(text: str, path: Path) -> Any:
    try:
        return parse_json(text.encode(), depth=10)
    except Refused as problem:
        raise DataError(f"{problem}.", file=path) from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise missing_extra("PyYAML", "kg") from None
    try:
        if any(
            isinstance(token, yaml.AliasToken) for token in yaml.scan(text)
        ):  # a few of them make billions
            raise DataError("aliases (*name) are not read; write it out.", file=path)
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        said = getattr(problem, "problem", None) or "it is no YAML"
        raise DataError(f"{said}.", file=path, row=None if mark is None else mark.line + 1) from None
