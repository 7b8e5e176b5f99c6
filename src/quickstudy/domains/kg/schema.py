"""What a field's graph is made of: types of entities, and of relations with the types that they may join."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from quickstudy.core.errors import DataError, did_you_mean, missing_extra
from quickstudy.core.untrusted import Refused, parse_json
from quickstudy.domains.kg.marks import unmarked
from quickstudy.files.source import suffix_of, whole_text

_LONGEST = 2**19
"""Characters of a schema's file: PyYAML takes seconds for that, and it holds thousands of types."""
_DEPTH = 10
_STRICT = ConfigDict(extra="forbid", str_strip_whitespace=True)


def words(name: str) -> str:
    """A type's name as people say it: works_for and worksFor are "works for"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", name).strip().lower()


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
        if path.is_dir():
            raise DataError("a folder; a schema is a .yaml or .json file.", file=path)
        if kind not in (".yaml", ".yml", ".json"):
            raise DataError(
                f"a schema is .yaml or .json; this is {kind or 'a file without suffix'}.", file=path
            )
        text = whole_text(path, _LONGEST)
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
            given = record.get(part)
            given = {} if given is None else given
            names = list(given) if isinstance(given, list | dict) else [None]
            if not all(isinstance(name, str | int | float | date | None) for name in names) or None in names:
                raise DataError(
                    f"{part}: a mapping of names to what they are, or a list of names, is expected; got "
                    f"{str(given)[:60]!r}.",
                    file=file,
                )
            for name in names:
                if not isinstance(name, str):
                    raise DataError(
                        f"{part}: the name {name!r} is no text; YAML takes yes, no, on, off, numbers and dates for "
                        "what they say. Put quotes around it.",
                        file=file,
                    )
            twice = [
                name for name, count in Counter(name.strip() for name in map(str, names)).items() if count > 1
            ]
            if twice:
                raise DataError(f"{part}: {twice[0]!r} stands twice; give it another name.", file=file)
            described = given if isinstance(given, dict) else dict.fromkeys(given)
            record[part] = {name: _plural(value) for name, value in described.items()}
        try:
            schema = TypeAdapter(cls).validate_python(record)
        except ValidationError as error:
            first = error.errors()[0]
            place, said, hint = ".".join(str(part) for part in first["loc"]), first["msg"], ""
            if first["type"] == "unexpected_keyword_argument":
                known = {1: Schema, 3: EntityType if first["loc"][0] == "entities" else RelationType}
                names = [field.name for field in fields(known[len(first["loc"])])]
                said = f"nothing of this name is known here; there are {', '.join(names)}"
                hint = did_you_mean(str(first["loc"][-1]), names)
            elif first["type"] == "dataclass_type":
                said = "a description or a mapping is expected"
            raise DataError(f"{place}: {said}; got {str(first['input'])[:60]!r}.{hint}", file=file) from None
        return schema._checked(file)

    def _checked(self, file: str | PathLike[str] | None) -> "Schema":
        if not self.entities:
            raise DataError("the schema has no entity type; name one or more under entities.", file=file)
        for part, types in (("entities", self.entities), ("relations", self.relations)):
            for name in types:
                if not name.isprintable() or not name or len(name) > 100:
                    raise DataError(
                        f"{part}: {name[:60]!r} is no name: one line of 1 to 100 characters that can be seen.",
                        file=file,
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
            for example in relation.examples:
                try:
                    marks = sorted(kind for _, _, kind in unmarked(example)[1])
                except DataError as problem:
                    raise DataError(f"relations.{name}.examples: {problem}", file=file) from None
                if marks != ["head", "tail"]:
                    raise DataError(
                        f"relations.{name}.examples: {example[:60]!r} should have one [head]{{…}} and one [tail]{{…}} "
                        "around the two entities.",
                        file=file,
                    )
        return self

    def admits(self, relation: str, head: str, tail: str) -> bool:
        """Whether a relation may lead from an entity of type `head` to one of type `tail`."""
        kind = self.relations[relation]
        return (not kind.head or head in kind.head) and (not kind.tail or tail in kind.tail)

    def possible(self, head: str, tail: str) -> bool:
        """Whether any relation may."""
        return any(self.admits(relation, head, tail) for relation in self.relations)

    def misfit(self, relation: str, head: str, tail: str) -> str:
        """What is wrong with a relation between entities of two types; '' if nothing is."""
        if relation not in self.relations:
            return (
                f"the schema has no relation {relation!r}.{did_you_mean(relation, self.relations)} It has: "
                f"{', '.join(self.relations) or 'none'}."
            )
        if self.admits(relation, head, tail):
            return ""
        kind = self.relations[relation]
        turned = " The other way round it would fit." if self.admits(relation, tail, head) else ""
        return (
            f"{relation} leads from {' or '.join(kind.head) or 'anything'} to "
            f"{' or '.join(kind.tail) or 'anything'}; here it leads from {head} to {tail}.{turned}"
        )

    def check_relation(self, relation: str, head: str, tail: str, file: str | None = None) -> None:
        """Raises DataError for a relation that isn't there, or that doesn't join these types."""
        problem = self.misfit(relation, head, tail)
        if problem:
            raise DataError(problem, file=file)

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
        listed = ("head", "tail", "examples")
        return {
            key: [v] if key in listed and isinstance(v, str) else v
            for key, v in value.items()
            if v is not None  # a key with nothing after it
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
        depth = 0
        for token in yaml.scan(text):
            depth += isinstance(token, _starts(yaml)) - isinstance(token, _ends(yaml))
            row = token.start_mark.line + 1
            if depth > _DEPTH:
                raise DataError(f"nested too deeply: more than {_DEPTH} levels.", file=path, row=row)
            if isinstance(token, yaml.AliasToken):  # a few of them make billions
                raise DataError("aliases (*name) are not read; write it out.", file=path, row=row)
        tree = yaml.compose(text, yaml.SafeLoader)
        _refuse_repeated(tree, path)
        return yaml.safe_load(text)
    except DataError:  # a ValueError too
        raise
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        said = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise DataError(f"no YAML: {said}.", file=path, row=None if mark is None else mark.line + 1) from None
    except ValueError as problem:  # 2026-13-45 is no date, thousands of digits no number
        raise DataError(f"no YAML: {problem}.", file=path) from None


def _starts(yaml: Any) -> tuple[type, ...]:
    return (
        yaml.BlockMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.FlowSequenceStartToken,
    )


def _ends(yaml: Any) -> tuple[type, ...]:
    return yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken


def _refuse_repeated(node: Any, path: Path) -> None:
    """Raise DataError for a key that stands twice in a mapping, of which PyYAML would keep the last."""
    if node is None or isinstance(node.value, str):
        return
    seen: set[str] = set()
    for item in node.value:
        key, *rest = item if isinstance(item, tuple) else (None, item)
        if key is not None and isinstance(key.value, str):
            if key.value in seen:
                row = key.start_mark.line + 1
                raise DataError(f"the key {key.value[:60]!r} stands twice: keep one.", file=path, row=row)
            seen.add(key.value)
        for below in rest:
            _refuse_repeated(below, path)
