"""Images from files, as bytes: [n, channels, height, width] of 0 to 255, made numbers when a task draws them."""

import csv
import gzip
import io
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from quickstudy.core.dataset import MetaDataset
from quickstudy.core.errors import DataError, missing_extra

SIDE = 105
"""Pixels of Omniglot's drawings, in height and width."""
PARTS = ("background", "evaluation")
KINDS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}


class Drawing(NamedTuple):
    """One image of a class; ink is 255."""

    alphabet: str
    character: str
    pixels: UInt8[np.ndarray, "h w"]


def as_numbers(x: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1."""
    return x.to(torch.get_default_dtype()) / 255


def read_omniglot(folder: Path | str, *, size: int = 28) -> MetaDataset:
    """Omniglot (Lake et al. 2015): a class for each character, named "alphabet/character", its alphabet as the group.

    Takes the official `images_background.zip` and `images_evaluation.zip`, the folders that they unpack to, or
    `background_105_packed.npz` (key `packed`: the bits of each image) with `background_index.csv` or `.csv.gz`. A part
    that isn't there is left out: background has 964 characters, evaluation 659.

    Args:
        folder: what holds the parts.
        size: pixels of height and width that images are brought to, by averaging areas. Ink is bright.

    Raises:
        DataError: neither part is there, an image can't be read, or `size` is no number of pixels.
        MissingExtra: PNG files want Pillow.
    """
    _check_size(size)
    folder = Path(folder).expanduser()
    drawings: dict[tuple[str, str], list[np.ndarray]] = {}
    squeeze = _areas(SIDE, size)
    for part in PARTS:
        for alphabet, character, pixels in _part(folder, part):
            if pixels.shape != (SIDE, SIDE):
                raise DataError(
                    f"{alphabet}/{character} has an image of {pixels.shape}; expected {SIDE}×{SIDE} pixels.",
                    file=folder,
                )
            small = squeeze @ pixels.astype(np.float32) @ squeeze.T
            drawings.setdefault((alphabet, character), []).append(small.round().astype(np.uint8))
    if not drawings:
        raise DataError(
            "holds neither images_background.zip or images_evaluation.zip, nor the folders that they unpack to, nor "
            "background_105_packed.npz. They come from the repository brendenlake/omniglot, folder python.",
            file=folder,
        )
    classes = sorted(drawings)
    return MetaDataset(
        x=torch.from_numpy(np.stack([image for c in classes for image in drawings[c]])).unsqueeze(1),
        y=torch.tensor([i for i, c in enumerate(classes) for _ in drawings[c]]),
        classes=tuple("/".join(c) for c in classes),
        groups=tuple(alphabet for alphabet, _ in classes),
        decode=as_numbers,
    )


def read_image_folder(folder: Path | str, *, size: int = 84, grey: bool = False) -> MetaDataset:
    """Images in one subfolder a class, brought to `size` × `size` pixels.

    Files beside images, and images beside subfolders, are passed over. A subfolder without an image is no class: it is
    left out, with a warning, unless it is hidden.

    Raises:
        DataError: there is no such folder, no subfolder holds an image, a file can't be read as one, or `size` is no
            number of pixels.
        MissingExtra: Pillow isn't installed.
    """
    _check_size(size)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise DataError(
            f"{what}; expected a folder with one subfolder of images for each class.", file=folder
        )
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in KINDS)
    if not files:
        raise DataError("has no subfolders with images; expected one subfolder for each class.", file=folder)
    classes = tuple(sorted({path.parent.name for path in files}))
    empty = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and entry.name not in classes and not entry.name.startswith(".")
    )
    if empty:
        named = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        warnings.warn(
            f"{folder}: left out, as they hold no image ({', '.join(sorted(KINDS))}): {named}.",
            UserWarning,
            stacklevel=2,
        )
    mode = "L" if grey else "RGB"
    images = [_opened(path.read_bytes(), _within(folder, path), mode, size) for path in files]
    x = torch.from_numpy(np.stack(images))
    return MetaDataset(
        x=x.unsqueeze(1) if grey else x.permute(0, 3, 1, 2).contiguous(),
        y=torch.tensor([classes.index(path.parent.name) for path in files]),
        classes=classes,
        decode=as_numbers,
    )


def _part(folder: Path, part: str) -> Iterator[Drawing]:
    packed, archive, plain = (
        folder / f"{part}_{SIDE}_packed.npz",
        folder / f"images_{part}.zip",
        folder / f"images_{part}",
    )
    if packed.is_file():
        with np.load(packed, allow_pickle=False) as content:
            bits = content["packed"]
        index = _index(folder, part)
        if len(index) != len(bits):
            raise DataError(f"has {len(bits)} images, but its index has {len(index)} rows.", file=packed.name)
        for (alphabet, character), row in zip(index, bits, strict=True):
            ink = np.unpackbits(row, count=SIDE * SIDE).reshape(SIDE, SIDE)
            yield Drawing(alphabet, character, ink * np.uint8(255))
    elif archive.is_file():
        with zipfile.ZipFile(archive) as content:
            for name in sorted(name for name in content.namelist() if name.endswith(".png")):
                *_, alphabet, character, _ = name.split("/")
                yield Drawing(alphabet, character, 255 - _opened(content.read(name), name, "L"))
    else:
        for path in sorted(plain.glob("*/*/*.png")):
            drawn = 255 - _opened(path.read_bytes(), _within(folder, path), "L")
            yield Drawing(path.parent.parent.name, path.parent.name, drawn)


def _index(folder: Path, part: str) -> list[tuple[str, str]]:
    path = folder / f"{part}_index.csv"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif (folder / f"{path.name}.gz").is_file():
        text = gzip.decompress((folder / f"{path.name}.gz").read_bytes()).decode()
    else:
        raise DataError(f"{path.name} is missing; it names the character of each image.", file=folder)
    return [(row["alphabet"], row["character"]) for row in csv.DictReader(io.StringIO(text))]


def _opened(content: bytes, name: str, mode: str, size: int | None = None) -> UInt8[np.ndarray, "h w *c"]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise missing_extra("Pillow", "images") from None
    try:
        with Image.open(io.BytesIO(content)) as image:
            image = image.convert(mode)
    except UnidentifiedImageError:  # its text names no file, but the object in memory
        raise DataError(
            "is not an image that can be read: its content is of no known format. Replace or remove it.",
            file=name,
        ) from None
    # Of damaged headers Pillow raises the other three, too.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise DataError(
            f"is not an image that can be read: {str(problem).rstrip('.')}. Replace or remove it.", file=name
        ) from None
    return np.asarray(image if size is None else image.resize((size, size), Image.Resampling.BOX))


def _within(folder: Path, path: Path) -> str:
    """What a file is called within its folder: names such as 0001.png are in every class."""
    return path.relative_to(folder).as_posix()


def _check_size(size: int) -> None:
    """Raise DataError for what is no side of an image."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole or size < 1:
        raise DataError(f"size={size!r}; expected a whole number of pixels, 1 or more.")


def _areas(large: int, small: int) -> Float[np.ndarray, "small large"]:
    """The matrix that averages `large` pixels in a row over `small` stretches of equal length."""
    edges = np.arange(small + 1) * large / small
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(large)
    shared = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return (np.clip(shared, 0, None) * small / large).astype(np.float32)
