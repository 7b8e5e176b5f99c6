"""Omniglot as papers use it: four rotations of each character as classes, the split of Vinyals et al. 2016."""

from dataclasses import replace
from pathlib import Path

import torch

from quickstudy.core.dataset import MetaDataset, Split
from quickstudy.core.errors import DataError
from quickstudy.domains.vision.distort import need_images
from quickstudy.domains.vision.read import read_omniglot

# The lists that come with prototypical networks' code name 1,028, 172 and 423 characters; these alphabets, and
# training has all the rest.
VALID = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
TEST = (
    "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti",
    "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG",
)  # fmt: skip
# Of this one the last four characters are in the test part, the others in training.
CUT, FIRST_OF_TEST = "Gurmukhi", 42


def omniglot(folder: Path | str, *, size: int = 28) -> Split:
    """Omniglot with rotations, split as Vinyals et al.; see `read_omniglot` for what the folder holds.

    Without the evaluation part, the test part is empty and training has 792 characters instead of 1,028.
    """
    return vinyals_split(rotated(read_omniglot(folder, size=size)))


def rotated(data: MetaDataset) -> MetaDataset:
    """Every class four times, turned by 0, 90, 180 and 270 degrees: "…/rot090" is a class of its own.

    Raises:
        DataError: what is no data set of images [n, channels, height, width], or images that aren't square.
    """
    need_images(data, "rotated")
    *_, height, width = data.x.shape
    if height != width:
        # Images of numpy and Pillow have their channels last.
        last = width in (1, 3, 4) and data.x.shape[1] == height
        add = "x.permute(0, 3, 1, 2), as channels go before height" if last else "crop or resize them"
        raise DataError(
            f"`rotated` got images {list(data.x.shape)}, of height {height} and width {width}; expected square ones, "
            f"[n, channels, height, width], as a quarter turn swaps height and width: {add}."
        )
    turns = range(4)
    number = len(data.classes)
    return replace(
        data,
        x=torch.cat([data.x.rot90(turn, (-2, -1)) for turn in turns]),
        y=torch.cat([data.y + turn * number for turn in turns]),
        classes=tuple(f"{name}/rot{90 * turn:03}" for turn in turns for name in data.classes),
        groups=data.groups * len(turns),
        names=None,
        kin=data.kin * len(turns),
    )


def vinyals_split(data: MetaDataset) -> Split:
    """Omniglot's classes in three parts, all rotations of a character in the same one.

    Raises:
        DataError: classes that aren't named "alphabet/character…", as `read_omniglot` names them.
    """
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for number, name in enumerate(data.classes):
        alphabet, _, rest = name.partition("/")
        if not rest.startswith("character"):
            raise DataError(f"{name!r} is no character of Omniglot; expected such as 'Greek/character01'.")
        late = alphabet == CUT and int(rest.removeprefix("character")[:2]) >= FIRST_OF_TEST
        part = "test" if alphabet in TEST or late else "valid" if alphabet in VALID else "train"
        parts[part].append(number)
    return Split(**{part: data.only(classes) for part, classes in parts.items()})
