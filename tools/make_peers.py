"""Make an interpreter that has the libraries which the benchmarks compare with: .venv-peers/bin/python.

    python tools/make_peers.py [FOLDER]

It sees the packages of the Python that runs this, so that all are measured on the very same torch; only the peers are
added, by pip alone. What can't be had is named, and the benchmarks go without it; exit code 1 if learn2learn is
missing, with which everything of the engine is compared.

learn2learn 0.2.0 can't be installed: its C files were made for an older Python, and its imports ask for gym and
torchvision. Its MAML is plain Python, so the source archive is fetched and unpacked without being built.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

# The versions that were measured. --no-deps: TorchOpt's and parallel-metalearn's ask for what is there already.
PACKAGES = {
    "higher": ["higher==0.2.1"],
    "TorchOpt": ["torchopt==0.7.3", "graphviz==0.21", "optree==0.20.0"],
    "parallel-metalearn": ["parallel-metalearn==0.5.6", "tqdm"],
    "ladybug": ["ladybug==0.22.0"],
}
JAX = ["jax==0.10.2", "jaxlib==0.10.2", "ml_dtypes", "opt_einsum"]
LEARN2LEARN = "learn2learn==0.2.0"
MODULES = {
    "higher": "higher",
    "TorchOpt": "torchopt",
    "parallel-metalearn": "metalearn.algorithms",
    "JAX": "jax",
    "ladybug": "ladybug",
}


def main(folder: Path) -> int:
    """Make it, install what can be had, say what came of it."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    own = Path(_says(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "shared.pth").write_text("\n".join(sorted(shared)) + "\n", encoding="utf-8")
    steps: dict[str, Callable[[], None]] = {
        "learn2learn": lambda: unpacked(python, own),
        **{name: lambda wanted=wanted: installed(python, wanted) for name, wanted in PACKAGES.items()},
        "JAX": lambda: installed(python, JAX),
    }
    missing = []
    for name, step in steps.items():
        try:
            step()
            if name in MODULES:
                _says(python, f"import {MODULES[name]}")
        except subprocess.CalledProcessError as problem:
            missing.append(name)
            said = (problem.stderr or "").strip().splitlines() or ["no reason was given"]
            print(f"{name}: can't be had here: {said[-1][:300]}")
        else:
            print(f"{name}: there")
    print(f"{python}: {len(steps) - len(missing)} of {len(steps)} peers")
    return int("learn2learn" in missing)


def installed(python: Path, wanted: list[str]) -> None:
    """Install packages without what they depend on."""
    _pip(python, "install", "--no-deps", *wanted)


def unpacked(python: Path, own: Path) -> None:
    """Fetch learn2learn's source archive and put its package beside the others, unbuilt."""
    if (own / "learn2learn").exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        _pip(python, "download", "--no-deps", "--no-binary", "learn2learn", "--dest", scratch, LEARN2LEARN)
        archive = next(Path(scratch).glob("learn2learn-*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        shutil.move(Path(scratch) / archive.name.removesuffix(".tar.gz") / "learn2learn", own / "learn2learn")


def _pip(python: Path, *arguments: str) -> None:
    _run([python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"])


def _says(python: Path, code: str) -> str:
    return _run([python, "-c", code])


def _run(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv-peers")))
