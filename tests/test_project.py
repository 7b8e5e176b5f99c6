"""The house rules that a linter doesn't know: layers, sizes, lazy imports, no pickle, no machine's own paths."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import quickstudy

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "quickstudy"
SOURCES = sorted(SRC.rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORT_NAME = {"scikit-learn": "sklearn"}


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def by_path(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_a_source_file_is_short_and_has_a_telling_name(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


@pytest.mark.parametrize(
    "module", ["quickstudy", "quickstudy.core.errors", "quickstudy.data", "quickstudy.bench.bars"]
)
def test_importing_it_imports_no_torch(module):
    heavy = "{'torch', 'sklearn', 'pandas', 'pyarrow', 'matplotlib', 'tokenizers'}"
    code = f"import sys, {module}; sys.exit(', '.join(sorted({heavy} & set(sys.modules))) or None)"
    done = run(sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": str(SRC.parent)})
    assert (done.returncode, done.stderr) == (0, "")


def module_level_imports(tree: ast.Module) -> set[str]:
    """Top-level names of what is imported as soon as the module is; `try` blocks are left out (they fall back)."""
    names: set[str] = set()
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.Import):
            names |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
            names.add(statement.module.split(".")[0])
        elif isinstance(statement, ast.ClassDef) or (
            isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.dump(statement.test)
        ):
            waiting += statement.body
    return names


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_only_base_dependencies_are_imported_at_module_level(path):
    base = {name_of(r) for r in PYPROJECT["project"]["dependencies"]}
    allowed = (
        {IMPORT_NAME.get(name, name).replace("-", "_") for name in base}
        | {"quickstudy"}
        | sys.stdlib_module_names
    )
    assert module_level_imports(ast.parse(path.read_text(encoding="utf-8"))) <= allowed


UNSAFE = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_nothing_is_pickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & UNSAFE
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE
            assert node.module != "torch" or not {"load", "save"} & {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


def committed_texts() -> list[Path]:
    listed = run("git", "-C", str(ROOT), "ls-files", "-z")
    if listed.returncode:
        pytest.skip("not a git clone")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def test_no_file_names_a_registry_host_or_a_path_of_one_machine():
    # Written in pieces, so that this file isn't found itself.
    hosts = ["pypi" + r"\.org", "python" + r"hosted\.org", "npm" + r"js\.org", "download" + r"\.pytorch\.org"]
    folders = "|".join(["work", "root", "home", "opt"])
    bad = re.compile("|".join(hosts) + rf"|(?<![\w.*)}}>-])/(?:{folders})/\w")
    found = {}
    for path in committed_texts():
        if hit := bad.search(path.read_text(encoding="utf-8", errors="replace")):
            found[by_path(path)] = hit[0]
    assert found == {}


def test_bundled_data_is_small():
    for path in (SRC / "data").glob("*.gz"):
        assert path.stat().st_size < 500_000, path.name
    bundled = [path for path in SRC.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert sum(path.stat().st_size for path in bundled) < 8_000_000


def test_the_version_is_the_same_everywhere():
    version = PYPROJECT["project"]["version"]
    assert quickstudy.__version__ == version
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_dependency_of_the_base_and_of_dev_is_pinned():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(r for e in ("dev", "plot", "parquet", "hub", "rl", "minilm") for r in extras[e]),
    ]
    names = {name_of(requirement) for requirement in wanted} - {"quickstudy"}
    assert names - {name.lower().replace("_", "-") for name in pins} == set()
    # A local tag (+cpu) would tie the pin to one index.
    assert not [pin for pin in pins.values() if "+" in pin]


def test_the_bundled_data_has_its_notice_and_licences():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name in (
        "clinc150.jsonl.gz",
        "banking77.jsonl.gz",
        "bc5cdr_learn.pubtator.gz",
        "bc5cdr_read.pubtator.gz",
    ):
        assert (SRC / "data" / name).is_file() and name in notice
    assert "Attribution 3.0" in (SRC / "data" / "licenses" / "CC-BY-3.0.txt").read_text()
    assert "Attribution 4.0" in (SRC / "data" / "licenses" / "CC-BY-4.0.txt").read_text()
    assert "PUBLIC DOMAIN NOTICE" in (SRC / "data" / "licenses" / "BC5CDR-README.txt").read_text()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


LAYERS = ["app", "bench", "domains", "bank", "encoders", "files", "data", "learners", "nets", "core"]


@pytest.mark.parametrize(
    ("module", "imports", "allowed"),
    [
        ("app/cli.py", "quickstudy.core", True),
        ("domains/text/use.py", "quickstudy.learners", True),
        ("core/engine.py", "quickstudy.nets", False),
        ("learners/maml.py", "quickstudy.nets", False),
        ("bench/text.py", "quickstudy.app", False),
        ("domains/text/use.py", "quickstudy.domains.kg", False),
    ],
)
def test_the_layer_contracts_hold_imports_to_one_direction(tmp_path, module, imports, allowed):
    """On a toy package with the same layers: so a contract that is too lax is seen."""
    for folder in ["", *LAYERS, "domains/text", "domains/kg"]:
        (tmp_path / "quickstudy" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "quickstudy" / folder / "__init__.py").touch()
    (tmp_path / "quickstudy" / module).write_text(f"import {imports}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = run(
        str(linter), "--no-cache", "--config", str(ROOT / "pyproject.toml"), cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ("BROKEN" in done.stdout, done.returncode != 0) == (not allowed, not allowed), (
        done.stdout + done.stderr
    )


def recipe(target: str) -> str:
    """What `make target` would run, without running it."""
    made = subprocess.run(
        ["make", "-n", "--no-print-directory", "-o", "setup", target, "VENV=venv"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return made.stdout


def test_a_benchmark_run_renews_the_tables():
    steps = recipe("bench")
    assert (
        steps.index("quickstudy bench text")
        < steps.index("tools/make_tables.py")
        < steps.index("bench check")
    )


def test_what_ci_runs_includes_the_docs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make --no-print-directory docs || failed=1" in script
    assert script.index(" docs ") < script.index(" test ")  # pytest's closing line stays the last
    steps = recipe("docs")
    assert "'.[docs]'" in steps and "-m sphinx -q -W " in steps
