"""The public names and the registry of domains: there, lazy, and helpful when misspelt."""

import ast
import os
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import quickstudy
from quickstudy.core.errors import ModelError
from quickstudy.domains import BUILT_IN, Domain, domains, find, sorting

SRC = Path(quickstudy.__file__).parents[1]


def run(code: str, *paths: Path) -> str:
    path = os.pathsep.join(map(str, (SRC, *paths)))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", quickstudy.__all__)
def test_every_public_name_is_there(name):
    assert getattr(quickstudy, name) is not None
    assert name in dir(quickstudy)


def test_the_names_of_the_readme_are_public():
    asked = {
        "FewShotTextClassifier", "Task", "Episode", "Labelled", "MetaLearner", "Adapted", "Prior", "load_encoder",
        "meta_train", "meta_gradient", "evaluate", "Report", "Estimate", "MLP",
    }  # fmt: skip
    import quickstudy.learners

    assert asked | set(quickstudy.learners.__all__) <= set(quickstudy.__all__)


def test_a_typo_gets_a_suggestion():
    with pytest.raises(
        AttributeError, match=r'no attribute .FewShotTextClasifier.\. Did you mean "FewShotTextClassifier"'
    ):
        quickstudy.FewShotTextClasifier  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name"):
        exec("from quickstudy import nothing_like_it")
    assert not hasattr(quickstudy, "__wrapped__")


def test_the_stub_for_editors_names_the_same():
    tree = ast.parse((SRC / "quickstudy" / "__init__.pyi").read_text())
    told = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    assert told == quickstudy._MODULE


def test_light_names_load_no_torch():
    code = "import sys, quickstudy as q; q.DataError, q.Domain, q.__version__, dir(q); print('torch' in sys.modules)"
    assert run(code) == "False"


# Domains


@pytest.mark.parametrize("domain", BUILT_IN, ids=lambda domain: domain.name)
def test_every_part_of_a_built_in_domain_is_there(domain):
    for field in fields(domain)[3:]:
        # One with commands of its own has what these need, and says so of the rest.
        if field.name == "keeper":  # what a bank asks it for is a record
            assert domain.load("keeper").domain == domain.name
        elif getattr(domain, field.name) or not domain.commands:
            assert callable(domain.load(field.name)), field.name
    methods = ("learn", "read") if domain.commands else ("fit", "predictions", "explain", "suggest")
    for method in (*methods, "save", "load"):
        assert callable(getattr(domain.load("model"), method))


def test_the_registry_loads_nothing_of_a_domain():
    code = (
        "import sys; from quickstudy.domains import domains, find; find(); domains(); "
        "print([m for m in sys.modules if m.startswith('quickstudy.domains.')], 'torch' in sys.modules)"
    )
    assert run(code) == "[] False"


def test_a_domain_is_found_by_name_and_a_typo_gets_a_suggestion():
    assert find() is find("text") is domains()["text"]
    with pytest.raises(ModelError, match=r"no domain 'txt'\. Did you mean \"text\"\?"):
        find("txt")


def test_a_domain_with_commands_of_its_own_names_them():
    with pytest.raises(ModelError, match=r"'kg' doesn't sort items.*quickstudy kg --help"):
        sorting("kg")
    with pytest.raises(
        ModelError, match=r"'kg' has no read_items\. It has commands of its own: quickstudy kg"
    ):
        find("kg").load("read_items")


PLUGIN = """
from quickstudy.domains import Domain
PARTS = dict.fromkeys(["model", "read_examples", "read_items", "read_datasets", "learn", "demo", "bench"], "songs:play")
DOMAIN = Domain(name="songs", about="songs", **PARTS)
TAKEN = Domain(name="text", about="again", **PARTS)
def play(): return "la"
"""


@pytest.mark.parametrize(
    ("entry", "code", "says"),
    [
        ("songs:DOMAIN", "print(*domains(), find('songs').load('demo')())", "text kg songs la"),
        ("songs:DOMAIN", "print(find('songs').name, find().name)", "songs text"),
        ("songs:TAKEN", "domains()", "there is one of that name"),
        ("songs:play", "domains()", "is a function, expected a Domain"),
        ("no_such_module:DOMAIN", "domains()", "can't be loaded: No module named 'no_such_module'"),
        ("no_such_module:DOMAIN", "print(find('text').name)", "text"),  # and harms nobody else
    ],
)
def test_a_package_adds_a_domain(tmp_path, entry, code, says):
    (tmp_path / "songs.py").write_text(PLUGIN)
    info = tmp_path / "songs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: songs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[quickstudy.domains]\nsongs = {entry}\n")
    wrapped = f"""
from quickstudy.domains import domains, find
try:
    {code}
except Exception as error:
    print(type(error).__name__, error)
"""
    said = run(wrapped, tmp_path)
    assert says in said
    assert not said.startswith(("Attribute", "Type"))


def test_a_part_that_is_not_there_is_named():
    broken = Domain(
        name="b", about="", model="quickstudy.core.errors:Nothing", read_examples="quickstudy.nowhere:x",
        read_items="", read_datasets="", learn="", demo="", bench="",
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"quickstudy\.core\.errors:Nothing as its model"):
        broken.load("model")
    with pytest.raises(ModelError, match=r"quickstudy\.nowhere:x as its read_examples"):
        broken.load("read_examples")


def test_a_part_that_a_domain_leaves_out_is_named():
    parts = dict.fromkeys(
        ["model", "read_examples", "read_items", "read_datasets", "learn", "demo", "bench"], "x:y"
    )
    with pytest.raises(ModelError, match=r"The domain 'songs' has no encoders\."):
        Domain(name="songs", about="", **parts).load("encoders")


def test_only_the_demo_of_a_domain_knows_it_by_name():
    app = Path(quickstudy.__file__).parent / "app"
    knowing = {path.name for path in app.rglob("*.py") if "domains.text" in path.read_text(encoding="utf-8")}
    assert knowing <= {"demo.py", "demo_tasks.py"}


def test_this_installation_has_no_broken_plugin():
    assert all(isinstance(point.load(), Domain) for point in entry_points(group="quickstudy.domains"))
