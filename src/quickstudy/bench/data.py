"""Published data sets and their published splits, read from one folder that the user names.

The folder is laid out as `FILES` says, each file plain or with `.gz`. The SHA-256 of its content is checked, so a
figure is always a figure on these very sentences.
"""

import csv
import gzip
import hashlib
import io
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quickstudy.core.errors import DataError
from quickstudy.domains.text.read import Examples

if TYPE_CHECKING:
    from quickstudy.core.dataset import Split

VARIABLE = "QUICKSTUDY_DATA"


class Origin(NamedTuple):
    """Where a file comes from, and the SHA-256 of its uncompressed content."""

    url: str
    sha256: str


_RAW = "https://raw.githubusercontent.com"
_BANKING = f"{_RAW}/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data"
_CLINC = f"{_RAW}/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data"
_SPLITS = f"{_RAW}/tdopierre/ProtAugment/4233bbae0d7544e632692c4d2c185b2ed2a19eef/data/BANKING77"
_HUFF = f"{_RAW}/ws-jiang/MetaPrompter_public/dea17d573a5eb4f31b3366ba1fe88b1beb865c50/data"
_HUFF_SPLIT = f"{_RAW}/YujiaBao/Distributional-Signatures/c613ed070af3e7ae4967b9942fde16864af28cde"

FILES: dict[str, Origin] = {
    "text/banking77/train.csv": Origin(
        f"{_BANKING}/train.csv", "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b"
    ),
    "text/banking77/test.csv": Origin(
        f"{_BANKING}/test.csv", "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d"
    ),
    "text/clinc150/data_full.json": Origin(
        f"{_CLINC}/data_full.json", "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"
    ),
    "text/clinc150/domains.json": Origin(
        f"{_CLINC}/domains.json", "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a"
    ),
    "text/protaugment_splits/BANKING77/full.jsonl": Origin(
        f"{_SPLITS}/full.jsonl", "2aef59a59888b66ebfd99a08e82a18f396a81c0430410938ef416a4bd5081b98"
    ),
    "text/ds_huffpost/huffpost.json": Origin(
        f"{_HUFF}/huffpost.json", "2485569669dd7ec5bf1e2f7468568a1d019faeb9941205bc9fb7edae93c488d6"
    ),
    # The class numbers of Distributional-Signatures' src/dataset/loader.py, as JSON.
    "text/ds_huffpost/split.json": Origin(
        f"{_HUFF_SPLIT}/src/dataset/loader.py",
        "461761b723155427805a04f1dd37fac5209fc0cfac271dfe87a7f9f5fcd30a13",
    ),
}
_LABEL_LISTS = {
    "01/train": "24c65da022d4b08284576a486b40184ee289ce743adf31cfcb4f455c57d4d2a6",
    "01/valid": "bd16328f26fb6ddb3b1ca5b2d4c851bdf241efd5655ff42757bda4db528d60b3",
    "01/test": "49f28d5d8407026f65e8695f6ed4f5197f8bc01d472b409b13c05e001fa1cff3",
    "02/train": "9f46fe71d7458846d12332f6d5ca08ab90fea22ba265c0cd764979e20bcd8657",
    "02/valid": "3ccedcdeec8edfc30f87f70dab84e4c9d6f61276cca514c29a2796569de10409",
    "02/test": "b4e88a349d35188ab969cb58d774528574403f8e8545761c366f9a17a934c644",
    "03/train": "e4c304f1e05b5c103d77e584501af0c89399bebc3488eca6e213c4c205113ee3",
    "03/valid": "5a7de8fb72c7091672930f26a0bca15596577950ce4e4425db1de4fea336f0d8",
    "03/test": "6e9a900c934ffbf099708fb02ccae92dce027c7ab6c4867668aee2b070307cf5",
    "04/train": "2babffff35ec25c9385b51122fcd90f39d86fbd457e43e0b4bdd275d2e2e0178",
    "04/valid": "15528effc2dd837e4f29b73219ee34ca45b688252d36c495c70fb26d246d6972",
    "04/test": "cc33a69762dcbb6b600843771a3c4167096cc9ae4bfdfa4a8827cc2e8e9cac79",
    "05/train": "21c00659254cd525e1f21ce775b17da1823471d4870cfdec5860e050bb3c696e",
    "05/valid": "c6b96cd2c97427e48ca9447851767006a6c82ee9028689f9c6e925e79e24341e",
    "05/test": "2a00100b5fa1131a1c573489be6bc268fe49c00d8e090d1dea450cf3d56f7ff3",
}
for _part, _sha256 in _LABEL_LISTS.items():
    _path = "few_shot/{}/labels.{}.txt".format(*_part.split("/"))
    FILES[f"text/protaugment_splits/BANKING77/{_path}"] = Origin(f"{_SPLITS}/{_path}", _sha256)

OMNIGLOT = "dfeb2d627a338d4760a7c556d347e61a8143f899082e019a448ec010cd0b2f5e"
"""SHA-256 of Omniglot's validation images, 28×28 and rotated, in the order of classes."""


@dataclass(frozen=True)
class ClassSplit:
    """Class names to meta-train on, to choose by, and to report on; no class is in two parts."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        parts = [*self.train, *self.valid, *self.test]
        if len(set(parts)) != len(parts):
            twice = sorted({name for name in parts if parts.count(name) > 1})
            raise DataError(f"a class is in two parts: {', '.join(twice[:5])}", file=self.name)


def folder(given: Path | str | None = None) -> Path:
    """The benchmarks' data folder: the one given, else the environment variable QUICKSTUDY_DATA.

    Raises DataError when neither names a folder.
    """
    named = given or os.environ.get(VARIABLE)
    if not named:
        raise DataError(
            f"The benchmarks need a folder of published data sets. Give --data FOLDER or set {VARIABLE}. "
            f"It should hold {next(iter(FILES))} and the other files that quickstudy.bench.data.FILES lists "
            "(each plain or .gz), with their addresses."
        )
    path = Path(named).expanduser()
    if not path.is_dir():
        raise DataError(f"{path} is no folder; --data or {VARIABLE} must name one.")
    return path


def banking77(data: Path) -> tuple[Examples, Examples]:
    """BANKING77's official (train, test): 10,003 and 3,080 sentences of 77 intents."""

    def part(name: str) -> Examples:
        rows = list(csv.DictReader(io.StringIO(_text(data, f"text/banking77/{name}.csv"), newline="")))
        return Examples(
            [r["text"].strip() for r in rows], [r["category"] for r in rows], source=f"BANKING77 {name}"
        )

    return part("train"), part("test")


def clinc150(data: Path, *, without_domains: Collection[str] = ()) -> Examples:
    """CLINC150's official training part: 15,000 sentences of 150 intents, out-of-scope ones left out.

    Raises DataError for a domain that it doesn't have.
    """
    domains: dict[str, list[str]] = json.loads(_text(data, "text/clinc150/domains.json"))
    if unknown := set(without_domains) - set(domains):
        raise DataError(f"CLINC150 has no domain {', '.join(sorted(unknown))}; it has {', '.join(domains)}.")
    left_out = {label for domain in without_domains for label in domains[domain]}
    rows = json.loads(_text(data, "text/clinc150/data_full.json"))["train"]
    kept = [(text.strip(), label) for text, label in rows if label not in left_out]
    source = "CLINC150" + (f" without {', '.join(sorted(without_domains))}" if without_domains else "")
    return Examples([text for text, _ in kept], [label for _, label in kept], source=source)


def protaugment(data: Path) -> tuple[Examples, list[ClassSplit]]:
    """BANKING77 whole (13,083 sentences), and ProtAugment's five class splits of it (25 / 25 / 27 classes)."""
    root = "text/protaugment_splits/BANKING77"
    rows = [json.loads(line) for line in _text(data, f"{root}/full.jsonl").splitlines()]
    splits = [
        ClassSplit(
            f"split {number}",
            *(
                tuple(_text(data, f"{root}/few_shot/0{number}/labels.{part}.txt").split())
                for part in ("train", "valid", "test")
            ),
        )
        for number in range(1, 6)
    ]
    return Examples(
        [r["sentence"].strip() for r in rows], [r["label"] for r in rows], source="BANKING77"
    ), splits


def huffpost(data: Path) -> tuple[Examples, ClassSplit]:
    """HuffPost headlines (36,900 of 41 classes) and the class split of Bao et al. 2020 (20 / 5 / 16).

    Classes are numbers: their names are not part of the published file.
    """
    rows = [json.loads(line) for line in _text(data, "text/ds_huffpost/huffpost.json").splitlines()]
    numbers = json.loads(_text(data, "text/ds_huffpost/split.json"))
    parts = [tuple(str(number) for number in numbers[part]) for part in ("train", "val", "test")]
    examples = Examples([r["raw"].strip() for r in rows], [str(r["label"]) for r in rows], source="HuffPost")
    return examples, ClassSplit("HuffPost, Bao et al. 2020", *parts)


def omniglot(data: Path) -> "Split":
    """Omniglot with rotations at 28×28 pixels, in the split of Vinyals et al. 2016; the test part may be empty.

    Raises DataError when the validation part's images aren't the published ones.
    """
    from quickstudy.domains import vision

    where = data / "images" / "omniglot"
    split = vision.omniglot(where)
    if hashlib.sha256(split.valid.x.numpy().tobytes()).hexdigest() != OMNIGLOT:
        raise DataError(
            "the validation alphabets' images aren't the published ones, so figures would compare with nothing.",
            file=where,
        )
    return split


def only(examples: Examples, classes: Collection[str], source: str = "") -> Examples:
    """The examples of these classes alone. Raises DataError for a class that has none."""
    if missing := set(classes) - set(examples.labels):
        raise DataError(f"no example of {', '.join(sorted(missing)[:5])}", file=examples.source)
    wanted = set(classes)
    return take(
        examples, [i for i, label in enumerate(examples.labels) if label in wanted], source or examples.source
    )


def take(examples: Examples, rows: Collection[int], source: str = "") -> Examples:
    """The examples in these rows, with the descriptions of the classes that are left."""
    labels = [examples.labels[i] for i in rows]
    left = set(labels)
    told = {label: text for label, text in examples.descriptions.items() if label in left}
    return Examples([examples.texts[i] for i in rows], labels, told, source or examples.source)


def read_text(data: Path, name: str, origin: Origin) -> str:
    """The content of the file `name` of the data folder. Raises DataError if it isn't there, or isn't this one."""
    plain, packed = data / name, data / f"{name}.gz"
    if plain.is_file():
        content = plain.read_bytes()
    elif packed.is_file():
        content = gzip.decompress(packed.read_bytes())
    else:
        raise DataError(
            f"the data folder holds neither {name} nor {name}.gz. It comes from {origin.url}", file=name
        )
    found = hashlib.sha256(content).hexdigest()
    if found != origin.sha256:
        raise DataError(
            f"its content has SHA-256 {found[:12]}…, expected {origin.sha256[:12]}…: it isn't the published file, "
            f"so its figures would compare with nothing. Fetch it from {origin.url}",
            file=name,
        )
    return content.decode()


def _text(data: Path, name: str) -> str:
    return read_text(data, name, FILES[name])
