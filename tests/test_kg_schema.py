"""The schema of a field: what people write is read, what is wrong is named, and nothing hangs or runs."""

import json
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.marks import marked, unmarked
from quickstudy.domains.kg.schema import EntityType, RelationType, Schema
from quickstudy.domains.kg.starter import starter, write_starter

names = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "Pd"]), min_size=1, max_size=20)


def written(tmp_path, text, name="s.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path, text, *parts, row=None, name="s.yaml"):
    path = written(tmp_path, text, name)
    with pytest.raises(DataError) as caught:
        Schema.read(path)
    assert caught.value.file == str(path) and caught.value.row == row
    for part in parts:
        assert part in str(caught.value)


# -- what is read


def test_the_short_forms_and_the_long_ones_say_the_same(tmp_path):
    short = written(
        tmp_path, "entities: [a, b]\nrelations: {r: {head: a, tail: [b], examples: '[head]{x} [tail]{y}'}}"
    )
    long = {
        "name": "graph",
        "entities": {"a": {"description": "", "examples": []}, "b": {}},
        "relations": {"r": {"head": ["a"], "tail": ["b"], "examples": ["[head]{x} [tail]{y}"]}},
    }
    assert Schema.read(short) == Schema.of(long)
    assert Schema.read(written(tmp_path, json.dumps(long), "s.json")) == Schema.of(long)


def test_a_key_with_nothing_after_it_says_nothing(tmp_path):
    path = written(tmp_path, "entities:\n  a:\n    description:\n    examples:\n  b:\nrelations:\n")
    assert Schema.read(path).entities == {"a": EntityType(), "b": EntityType()}


@settings(max_examples=40)
@given(
    entities=st.dictionaries(
        names, st.builds(EntityType, st.text("ab c"), st.tuples(names)), min_size=1, max_size=4
    ),
    data=st.data(),
)
def test_what_is_written_as_json_is_read_back(entities, data):
    some = st.lists(st.sampled_from(sorted(entities)), unique=True).map(tuple)
    relations = data.draw(st.dictionaries(names, st.builds(RelationType, head=some, tail=some), max_size=4))
    entities = {name: EntityType(kind.description.strip(), kind.examples) for name, kind in entities.items()}
    schema = Schema("n", entities, relations)
    assert Schema.of(json.loads(json.dumps(schema.to_json()))) == schema


def test_relations_join_the_types_that_they_say():
    schema = Schema.of({"entities": ["a", "b"], "relations": {"r": {"head": "a", "tail": "b"}, "any": None}})
    assert schema.admits("r", "a", "b") and not schema.admits("r", "b", "a")
    assert schema.admits("any", "b", "a") and schema.misfit("any", "b", "a") == ""
    with pytest.raises(
        DataError, match=r"r leads from a to b; here it leads from b to a. The other way round"
    ):
        schema.check_relation("r", "b", "a")
    with pytest.raises(DataError, match=r"no relation 'annny'. Did you mean \"any\""):
        schema.check_relation("annny", "a", "b")


# -- what isn't


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["a schema is a mapping"]),
        ("- a\n- b", ["a schema is a mapping"]),
        ("relations: {r: {}}", ["no entity type"]),
        ("entities: a", ["mapping of names"]),
        ("entities: [a, [b]]", ["mapping of names"]),
        ("entities: [{a: b}]", ["mapping of names"]),
        ("entities: {a: 3}", ["entities.a", "a description or a mapping"]),
        ("entities: {NO: norway}", ["False is no text", "quotes"]),
        ("entities: {2020-01-01: x}", ["is no text", "quotes"]),
        ("entities: [a, b, a]", ["'a' stands twice"]),
        ("entities: [a]\nname: 7", ["name:", "7"]),
        ("entities: {'': x}", ["is no name"]),
        ('entities: {"a\\nb": x}', ["is no name"]),
        (f"entities: {{{'x' * 101}: y}}", ["is no name"]),
        ("entities: {a: {exmples: [x]}}", ["entities.a.exmples", 'Did you mean "examples"']),
        ("entitys: [a]\nentities: [a]", ['Did you mean "entities"']),
        ("entities: [person]\nrelations: {r: {head: persn}}", ["relations.r.head", 'Did you mean "person"']),
        ("entities: [a]\nrelations: {r: {symmetric: maybe}}", ["relations.r.symmetric"]),
        ("entities: [a, b]\nrelations: {r: {symmetric: true, head: a, tail: b}}", ["is symmetric"]),
        ("entities: [a]\nrelations: {r: {examples: ['[head]{x} y']}}", ["one [head]{…} and one [tail]{…}"]),
        ("entities: [a]\nrelations: {r: {examples: ['[head]{x [tail]{y}']}}", ["never closed"]),
        ("entities: !!python/object/apply:os.system ['true']", ["no YAML"]),
        ("entities: [a]\nname: 2020-13-45", ["no YAML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, parts):
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        Schema.read(path)
    assert caught.value.file == str(path)
    for part in parts:
        assert part in str(caught.value)


def test_broken_yaml_says_where(tmp_path):
    refused(tmp_path, "entities:\n  a: [b\n  c: d\n", "no YAML", row=3)
    refused(tmp_path, "entities:\n  a: x\n  b: y\n  a: z\n", "'a' stands twice", row=4)
    refused(tmp_path, "entities: {a: {description: x, description: y}}", "stands twice", row=1)
    refused(tmp_path, "entities:\n  a: &x [1]\n  b: *x\n", "aliases", row=3)
    refused(tmp_path, "entities:\n\tb: x\n", "no YAML", row=2)


def test_broken_json_is_no_traceback(tmp_path):
    for text in (
        "{",
        '{"entities": {"a": {}, "a": {}}}',
        "[" * 5000,
        '{"entities": NaN}',
        '{"entities": ["\\ud800"]}',
    ):
        refused(tmp_path, text, name="s.json")


def test_hostile_files_are_refused_in_time(tmp_path):
    began = time.process_time()
    refused(tmp_path, "entities: " + "[" * 5000, "nested too deeply", row=1)
    refused(tmp_path, "a:\n" + "".join(f"{' ' * i}b:\n" for i in range(1, 300)), "nested too deeply", row=11)
    refused(tmp_path, "a: " + "x" * 2**20, "longer than", row=1)
    bomb = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}]\n" for i in range(9))
    refused(tmp_path, bomb, "aliases", row=2)
    assert time.process_time() - began < 5


def test_other_files_are_refused(tmp_path):
    refused(tmp_path, "entities: [a]", "this is .toml", name="s.toml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("entities: [société]".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8.*iconv"):
        Schema.read(path)
    with pytest.raises(DataError, match=r"not found. Did you mean \"latin.yaml\""):
        Schema.read(tmp_path / "latim.yaml")


# -- the starter


def test_the_starter_is_a_schema_with_every_part(tmp_path):
    path = write_starter(tmp_path / "my field.yaml")
    schema = Schema.read(path)
    assert schema.name == "my field" and path.read_text(encoding="utf-8") == starter("my field")
    assert {"company", "person"} <= set(schema.entities) and all(
        kind.description for kind in schema.entities.values()
    )
    assert any(kind.symmetric for kind in schema.relations.values())
    assert all(kind.description for kind in schema.relations.values())
    assert Schema.of(schema.to_json()) == schema


@settings(max_examples=20)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)
def test_the_starter_takes_any_name(name):
    assert yaml.safe_load(starter(name))["name"] == name


def test_the_starter_overwrites_nothing(tmp_path):
    path = written(tmp_path, "mine")
    with pytest.raises(DataError, match="there is one already"):
        write_starter(path)
    assert path.read_text() == "mine"
    with pytest.raises(DataError, match=r"is \.yaml or \.yml"):
        write_starter(tmp_path / "s.json")
    with pytest.raises(DataError, match="can't be written"):
        write_starter(tmp_path / "nowhere" / "s.yaml")
    assert list(tmp_path.iterdir()) == [path]


# -- marks


def nested(draw, start, end, depth=0):
    spans, at = [], start
    while at < end and draw(st.booleans()):
        first = draw(st.integers(at, end - 1))
        last = draw(st.integers(first + 1, end))
        spans.append((first, last, draw(names)))
        if depth < 2 and last - first > 1:
            spans += nested(draw, first + 1, last, depth + 1)
        at = last
    return spans


@given(st.text("ab[]{}\\ é", max_size=20), st.data())
def test_marks_come_off_as_they_were_put_on(text, data):
    spans = sorted(nested(data.draw, 0, len(text)), key=lambda span: (span[0], -span[1]))
    assert unmarked(marked(text, spans)) == (text, spans)


def test_marks_that_are_wrong_are_named():
    with pytest.raises(DataError, match="closes no mark, after 'a }'"):
        unmarked("a } b")
    with pytest.raises(DataError, match=r"\[x\]\{ is never closed by a \}; it begins 'open'"):
        unmarked("[x]{open")
    assert unmarked(r"\[x\]\{y\} C:\dir [1] ") == (r"[x]{y} C:\dir [1] ", [])
