"""Specs: frozen dataclasses that describe a learner, a network or an objective, and survive a trip through JSON."""

import dataclasses
import importlib
import inspect
from functools import cache
from typing import Annotated, Any, ClassVar, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from quickstudy.core.errors import DataError, did_you_mean

# Modules whose import registers more specs. Named as text: the core imports nothing above it.
PLUGINS = ["quickstudy.learners", "quickstudy.nets", "quickstudy.core.policy"]
DEEPEST = 20

# Ranges of hyper-parameters, checked when a spec is made and when it is read: wide enough for any sane use, narrow
# enough that no file can ask for a year's work. Memory is guarded by `MetaLearner.check`.
Size = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of a layer, of an output: 1 to a million."""
Steps = Annotated[int, Field(ge=0, le=10_000)]
"""Of gradient descent: 0 to ten thousand."""
Rate = Annotated[float, Field(ge=0, le=1_000)]
"""Of learning: 0 to a thousand."""
Positive = Annotated[float, Field(gt=0, le=1_000_000)]
"""A scale, a temperature, a penalty: above 0, at most a million."""
Share = Annotated[float, Field(ge=0, lt=1)]
"""From 0 to below 1."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""Between 0 and 1, neither included: what has a logit."""


class Spec:
    """Base of every frozen dataclass that can be written to JSON and read back.

    A subclass is known by its class name, so `from_json` can rebuild it; nothing but registered specs, numbers,
    strings, booleans, None and lists of these is ever built from a file.
    """

    registry: ClassVar[dict[str, type["Spec"]]] = {}
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Spec.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        """Check every field that has a range.

        Raises:
            DataError: a value outside it.
        """
        for name in _switches(type(self)):
            if not isinstance(value := getattr(self, name), bool):
                raise DataError(f"{type(self).__name__}.{name} is {str(value)[:80]!r}; give True or False.")
        for name, adapter in _ranges(type(self)):
            value = getattr(self, name)
            where = f"{type(self).__name__}.{name}"
            if isinstance(value, str):  # which pydantic would read as a number, and torch would not
                raise DataError(f"{where} is the text {value[:80]!r}; give a number.")
            try:
                read = adapter.validate_python(value)
            except ValidationError as error:
                # What pydantic doesn't take for a number, such as numpy's, may be one.
                first = next((e for e in error.errors() if e["type"] in _OUTSIDE), None)
                if first is not None:
                    raise DataError(_complaint(type(self).__name__, (name, *first["loc"]), first)) from None
                if value is None:
                    raise DataError(f"{where} is None; give a number.") from None
                read = None
            if isinstance(value, float) and not isinstance(read, float):
                raise DataError(f"{where} is {value}; give a whole number.")

    def to_json(self) -> dict[str, Any]:
        """Return `{"type": class name, field: value, …}`, ready for `json.dumps`.

        Raises:
            DataError: a field holds something that JSON can't carry, such as an `nn.Module`.
        """
        assert dataclasses.is_dataclass(self)
        fields = {f.name: _encode(getattr(self, f.name), f"{type(self).__name__}.{f.name}")
                  for f in dataclasses.fields(self)}  # fmt: skip
        return {"type": type(self).__name__, **fields}

    @staticmethod
    def from_json(record: Any, *, depth: int = 0) -> Any:
        """Rebuild the spec that `to_json` wrote; every field is checked against its annotation.

        Args:
            record: an object with a "type".
            depth: how many specs it is nested in already.

        Raises:
            DataError: an unknown type or field, a value of the wrong kind, or nesting without end.
        """
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            raise DataError(f'A spec is an object with a "type"; this is {str(record)[:80]!r}.')
        name = record["type"]
        cls = _resolve(name)
        if inspect.isabstract(cls):
            raise DataError(f"{name} is abstract; name one of its kinds.")
        values = {key: _decode(value, depth + 1) for key, value in record.items() if key != "type"}
        try:
            # Nested specs are built already; pydantic only has to check them and the plain values.
            spec = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(_complaint(name, first["loc"], first)) from None
        for key, value in values.items():
            if _guessed(value, getattr(spec, key)):
                wanted = type(getattr(spec, key)).__name__
                raise DataError(
                    f"{name}.{key}: {str(value)[:80]!r} is a {type(value).__name__}, not a {wanted}."
                )
        return spec


_OUTSIDE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_long", "too_short"}


@cache
def _ranges(cls: type[Spec]) -> list[tuple[str, Any]]:  # a TypeAdapter each, which beartype has no hint for
    assert dataclasses.is_dataclass(cls)
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(cls)}
    return [(name, TypeAdapter(type)) for name, type in types.items() if get_origin(type) is Annotated]


@cache
def _switches(cls: type[Spec]) -> list[str]:
    assert dataclasses.is_dataclass(cls)
    return [field.name for field in dataclasses.fields(cls) if field.type is bool]


def _complaint(name: str, place: tuple[Any, ...], error: Any) -> str:
    where = ".".join(str(part) for part in (name, *place))
    return f"{where}: {error['msg']}; got {str(error['input'])[:80]!r}."


def _resolve(name: str) -> type[Spec]:
    if name not in Spec.registry:
        for plugin in PLUGINS:
            importlib.import_module(plugin)
    if name not in Spec.registry:
        known = sorted(Spec.registry)
        raise DataError(f"Unknown type {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return Spec.registry[name]


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [_encode(item, where) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DataError(
        f"{where} is a {type(value).__name__}, which a file can't carry. "
        "Describe it by a spec (for networks: a class with `build`, see quickstudy.nets.MLP)."
    )


def _guessed(value: Any, built: Any) -> bool:
    """Whether validation made something else of a value, as of "3" or true where a number belongs."""
    if isinstance(value, tuple):
        return any(map(_guessed, value, built))
    return type(value) is not type(built) and not (type(value) is int and type(built) is float)


def _decode(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise DataError(f"This spec is nested more than {DEEPEST} deep; no real one is.")
    if isinstance(value, dict):
        return Spec.from_json(value, depth=depth)
    if isinstance(value, list):
        return tuple(_decode(item, depth + 1) for item in value)
    return value
