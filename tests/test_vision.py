"""Omniglot from each of its forms, on folders made here; its rotations and its split."""

import csv
import gzip
import io
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.core.dataset import MetaDataset, Shots
from quickstudy.core.errors import DataError
from quickstudy.domains.vision import (
    distorted,
    mirrored,
    omniglot,
    read_image_folder,
    read_omniglot,
    rotated,
    vinyals_split,
)
from quickstudy.domains.vision.tasks import TEST, VALID

PARTS = {
    "background": {"Greek": 2, "Hebrew": 2, "Korean": 1},
    "evaluation": {"Gurmukhi": 43, "Tibetan": 2, "Angelic": 1},
}


def drawings(part, each=2):
    """(alphabet, character, 105 × 105 bits): no two alike, ink in few places."""
    draw = np.random.default_rng(sorted(PARTS).index(part))
    for alphabet, characters in PARTS[part].items():
        for number in range(1, characters + 1):
            for _ in range(each):
                yield alphabet, f"character{number:02}", draw.random((105, 105)) < 0.1


def png(bits):
    written = io.BytesIO()
    Image.fromarray(~bits).convert("1").save(
        written, "png"
    )  # as published: black ink on white, one bit a pixel
    return written.getvalue()


def packed(folder, parts=PARTS, zipped=True):
    for part in parts:
        rows = list(drawings(part))
        np.savez_compressed(
            folder / f"{part}_105_packed.npz", packed=np.stack([np.packbits(b) for *_, b in rows])
        )
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["row", "alphabet", "character", "file"])
        table.writerows([i, a, c, f"{i}.png"] for i, (a, c, _) in enumerate(rows))
        plain = folder / f"{part}_index.csv"
        if zipped:
            plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(text.getvalue().encode()))
        else:
            plain.write_text(text.getvalue())
    return folder


def unpacked(folder, parts=PARTS):
    for part in parts:
        for i, (alphabet, character, bits) in enumerate(drawings(part)):
            home = folder / f"images_{part}" / alphabet / character
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{i:04}.png").write_bytes(png(bits))
    return folder


def archived(folder, parts=PARTS):
    for part in parts:
        with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as content:
            for i, (alphabet, character, bits) in enumerate(drawings(part)):
                content.writestr(f"images_{part}/{alphabet}/{character}/{i:04}.png", png(bits))
    return folder


@pytest.fixture
def data(tmp_path):
    return read_omniglot(packed(tmp_path))


def test_every_form_gives_the_same_images(data, tmp_path_factory):
    assert data.x.dtype == torch.uint8 and data.x.shape == (102, 1, 28, 28)
    assert data.classes[:2] == ("Angelic/character01", "Greek/character01")
    assert data.groups[0] == "Angelic" and len(data.classes) == 51
    for make in (unpacked, archived, lambda folder: packed(folder, zipped=False)):
        other = read_omniglot(make(tmp_path_factory.mktemp("form")))
        assert torch.equal(data.x, other.x) and torch.equal(data.y, other.y)
        assert data.classes == other.classes and data.groups == other.groups


def test_each_class_has_its_own_images(data):
    expected = {}
    for part in PARTS:
        for alphabet, character, bits in drawings(part):
            expected.setdefault(f"{alphabet}/{character}", []).append(bits)
    for number, rows in enumerate(data.rows()):
        for row, bits in zip(rows, expected[data.classes[number]], strict=True):
            small = data.x[row, 0].double() / 255
            # Areas are averaged: the whole keeps its amount of ink, and so does every quarter of the image.
            half = np.where(np.arange(105) < 52, 1.0, np.where(np.arange(105) == 52, 0.5, 0.0))
            for rows_of, few in ((half, slice(0, 14)), (1 - half, slice(14, 28))):
                ink = (bits * rows_of[:, None] * half).sum() / 52.5**2
                assert abs(float(small[few, :14].mean()) - ink) < 0.002


def test_pixels_are_averages_of_areas(tmp_path):
    whole = read_omniglot(packed(tmp_path), size=105)
    third = read_omniglot(tmp_path, size=35)
    blocks = whole.x.double().reshape(-1, 1, 35, 3, 35, 3).mean((3, 5))
    assert (third.x - blocks).abs().max() <= 0.5 + 1e-3
    assert set(whole.x.unique().tolist()) == {0, 255}


def test_images_stay_bytes_until_a_task_draws_them(data):
    batch = data.sampler(Shots(ways=5, shots=1, queries=1, tasks=3))(0)
    assert batch.support.x.shape == (3, 5, 1, 28, 28) and batch.support.x.dtype == torch.float32
    assert batch.support.x.min() >= 0 and 0.3 < batch.support.x.max() <= 1
    row = (batch.support.x[0, 0] * 255).round().to(torch.uint8)
    assert (data.x == row).flatten(1).all(-1).any()
    assert data.only([3]).join(data.only([4])).decode is data.decode
    raw = data.only([3])
    with pytest.raises(DataError, match="different `decode`"):
        raw.join(type(raw)(raw.x, raw.y, raw.classes))


def test_rotations_are_classes_of_their_own(data):
    turned = rotated(data)
    assert len(turned.classes) == 4 * len(data.classes) == len(set(turned.classes))
    rows = {name: turned.x[r] for name, r in zip(turned.classes, turned.rows(), strict=True)}
    for name, own in zip(data.classes, data.rows(), strict=True):
        straight = data.x[own]
        assert torch.equal(rows[f"{name}/rot000"], straight)
        # A quarter turn to the left: the last column becomes the first row.
        assert torch.equal(rows[f"{name}/rot090"][:, :, 0], straight[..., -1])
        assert torch.equal(rows[f"{name}/rot180"], straight.flip(-1, -2))
        assert torch.equal(rows[f"{name}/rot270"][:, :, :, -1], straight[:, :, 0])
    assert turned.groups[turned.classes.index("Greek/character02/rot270")] == "Greek"


def test_mirror_images_are_classes_of_their_own(data):
    both = mirrored(data)
    number = len(data.classes)
    assert both.classes[number:] == tuple(f"{name}/mirrored" for name in data.classes)
    for own, seen in zip(both.rows()[:number], both.rows()[number:], strict=True):
        assert torch.equal(both.x[own].flip(-1), both.x[seen])
    assert both.groups == data.groups * 2 and both.decode is data.decode
    named = MetaDataset(data.x, data.y, data.classes, names=torch.rand(len(data.classes), 3))
    assert mirrored(named).names is None


SHOTS = Shots(ways=3, shots=1, queries=1, tasks=2)
NONE = {"turn": 0, "shear": 0, "scale": 0, "shift": 0, "chance": 1}


def test_an_undistorted_image_is_the_same_image(data):
    plain = data.sampler(SHOTS)
    for sample in (distorted(plain, **NONE), distorted(plain, chance=0)):
        for old, new in zip(plain(3), sample(3), strict=True):
            assert torch.allclose(old.x, new.x, atol=1e-6)


def test_distortions_are_those_asked_for():
    """Each alone, told from where the ink of a square in the middle goes."""
    square = torch.zeros(200, 1, 29, 29)
    square[:, :, 10:19, 10:19] = 1
    squares = MetaDataset(square, torch.arange(200) // 2, tuple(str(c) for c in range(100)))
    sample = squares.sampler(Shots(ways=100, shots=1, queries=1, tasks=1))

    def inks(**asked):
        x = distorted(sample, **NONE | asked)(0).support.x[0, :, 0].double()
        at = torch.arange(29.0, dtype=torch.float64) - 14
        mass = x.sum((1, 2))
        across, down = x.sum(1) @ at / mass, x.sum(2) @ at / mass
        both = torch.einsum("nij,i,j->n", x, at, at) / mass - across * down
        return mass, across, down, both

    mass, across, *_ = inks()
    assert torch.allclose(mass, torch.tensor(81.0).double()) and across.abs().max() < 1e-5

    mass, across, down, *_ = inks(shift=3 / 29)
    assert 2.5 < across.abs().max() <= 3 + 1e-4 and 2.5 < down.abs().max() <= 3 + 1e-4
    assert torch.allclose(mass, torch.tensor(81.0).double(), atol=1e-3)
    assert across.min() < -1 and across.max() > 1 and (across - down).abs().max() > 1

    mass, across, *_ = inks(scale=0.2)
    assert (
        mass.max() <= 81 / 0.8**2 + 3
        and mass.min() >= 81 / 1.2**2 - 3
        and mass.max() > 95
        and mass.min() < 70
    )
    assert across.abs().max() < 1e-4

    # A square of 9 pixels has a variance of 20/3 along each axis; a slope of at most .3 moves that much of one to both.
    mass, across, _, both = inks(shear=0.3)
    assert 1 < both.abs().max() < 1.5 * (0.3 + 0.3) * 20 / 3 and across.abs().max() < 1e-4
    assert (both > 0.3).any() and (both < -0.3).any()

    mass, across, *_ = inks(turn=45)
    assert (mass - 81).abs().max() < 2 and across.abs().max() < 1e-3
    corner = distorted(sample, **NONE | {"turn": 45})(0).support.x[0, :, 0, 10, 10]
    assert corner.min() < 0.1  # where a turned square has no ink any more


@pytest.mark.parametrize(("height", "width"), [(41, 41), (41, 61), (61, 41)])
def test_turns_are_of_at_most_so_many_degrees_whatever_the_sides(height, width):
    """Told from the axis of a bar's ink."""
    bar = torch.zeros(200, 1, height, width)
    bar[:, :, height // 2, width // 2 - 15 : width // 2 + 16] = 1
    sample = MetaDataset(bar, torch.arange(200) // 2, tuple(map(str, range(100)))).sampler(
        Shots(ways=100, shots=1, queries=1, tasks=1)
    )
    x = distorted(sample, **NONE | {"turn": 20})(0).support.x[0, :, 0].double()
    down, across = (torch.arange(float(n), dtype=torch.float64) - n // 2 for n in (height, width))
    mass = x.sum((1, 2))
    moments = [(x.sum(1) @ across**2) / mass, (x.sum(2) @ down**2) / mass]
    both = torch.einsum("nij,i,j->n", x, down, across) / mass
    angles = torch.rad2deg(0.5 * torch.atan2(2 * both, moments[0] - moments[1]))
    assert 18 < angles.abs().max() < 20.5 and angles.min() < -15 and angles.max() > 15


def test_tasks_without_queries_are_distorted(data):
    drawn = distorted(data.sampler(Shots(ways=3, shots=1, queries=0, tasks=2)), chance=1)(0)
    assert drawn.query.x.shape[:2] == (2, 0) and drawn.support.x.shape == (2, 3, 1, 28, 28)


def test_each_batch_is_distorted_anew(data):
    always = data.sampler(SHOTS)(0)
    sample = distorted(lambda _: always, chance=1)
    assert not torch.equal(sample(0).support.x, sample(1).support.x)


def test_half_of_the_images_are_left_as_they_are(data):
    plain = data.sampler(Shots(ways=40, shots=1, queries=1, tasks=5))
    moved = distorted(plain, **NONE | {"turn": 90, "chance": 0.5})
    same = (plain(0).support.x - moved(0).support.x).abs().flatten(2).amax(-1) < 1e-5
    assert 0.35 < same.double().mean() < 0.65


def test_distorted_tasks_are_drawn_again_the_same_and_each_image_apart(data):
    plain = data.sampler(SHOTS)
    sample = distorted(plain, seed=4)
    first, again, other, elsewhere = sample(7), sample(7), sample(8), distorted(plain, seed=5)(7)
    assert torch.equal(first.support.x, again.support.x) and torch.equal(first.query.x, again.query.x)
    assert torch.equal(first.support.y, plain(7).support.y) and torch.equal(
        first.query.mask, plain(7).query.mask
    )
    assert not torch.equal(first.support.x, elsewhere.support.x)
    assert not torch.equal(first.support.x, other.support.x)
    one = data.only([0])
    alike = MetaDataset(
        one.x[:1].expand(4, -1, -1, -1), torch.tensor([0, 0, 1, 1]), ("a", "b"), decode=one.decode
    )
    drawn = distorted(alike.sampler(Shots(ways=2, shots=1, queries=1, tasks=1)), chance=1)(0)
    images = torch.cat([drawn.support.x[0], drawn.query.x[0]])
    assert all(not torch.equal(images[i], images[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize(
    "asked",
    [{"turn": -1}, {"turn": 181}, {"shear": 1}, {"scale": 1.0}, {"shift": float("nan")}, {"chance": 2}],
)
def test_distortions_that_are_none_are_refused(data, asked):
    with pytest.raises(DataError, match=f"{next(iter(asked))}=.*expected"):
        distorted(data.sampler(SHOTS), **asked)


def test_only_images_are_distorted():
    rows = MetaDataset(torch.randn(8, 5), torch.arange(8) // 2, tuple("abcd"))
    with pytest.raises(DataError, match="expected images"):
        distorted(rows.sampler(SHOTS))(0)


@pytest.mark.parametrize("change", [rotated, mirrored])
def test_only_data_sets_of_images_are_rotated_and_mirrored(data, change):
    rows = MetaDataset(torch.randn(8, 5), torch.arange(8) // 2, tuple("abcd"))
    name = change.__name__
    with pytest.raises(
        DataError, match=rf"`{name}` got inputs \[8, 5\]; expected images, \[n, channels, h.*width\]"
    ):
        change(rows)
    flat = MetaDataset(torch.randn(8, 5, 5), rows.y, rows.classes)
    with pytest.raises(DataError, match=r"\[8, 5, 5\]; expected images.*x\.unsqueeze\(1\)"):
        change(flat)
    for wrong, called in ((data.sampler(SHOTS), "function"), (data.x, "Tensor"), (data.split(), "Split")):
        with pytest.raises(DataError, match=rf"`{name}` got a {called}; expected a MetaDataset.*{name}\("):
            change(wrong)


def test_only_square_images_are_rotated():
    def of(*shape):
        return MetaDataset(torch.randn(4, *shape), torch.arange(4) // 2, ("a", "b"))

    with pytest.raises(
        DataError, match=r"\[4, 1, 6, 9\], of height 6 and width 9; expected square.*crop or resize"
    ):
        rotated(of(1, 6, 9))
    with pytest.raises(DataError, match=r"\[4, 6, 6, 3\].*x\.permute\(0, 3, 1, 2\)"):
        rotated(of(6, 6, 3))
    assert mirrored(of(1, 6, 9)).x.shape == (8, 1, 6, 9)


def test_what_draws_no_tasks_is_not_distorted(data):
    for wrong, called in ((data, "MetaDataset"), (data.x, "Tensor"), (data.sampler(SHOTS)(0), "Episode")):
        with pytest.raises(DataError, match=rf"`distorted` got a {called}; expected.*data\.sampler\(shots\)"):
            distorted(wrong)


def test_the_split_keeps_a_characters_rotations_together(tmp_path):
    split = omniglot(packed(tmp_path))
    characters = [{name.rpartition("/")[0] for name in part.classes} for part in vars(split).values()]
    assert len(split.train.classes) == 4 * len(characters[0])
    assert {name.split("/")[0] for name in split.valid.classes} == {"Hebrew"}
    assert {name for name in characters[2] if "Gurm" in name} == {
        "Gurmukhi/character42",
        "Gurmukhi/character43",
    }
    assert {name.split("/")[0] for name in split.test.classes} == {"Gurmukhi", "Tibetan"}
    assert "Gurmukhi/character41" in characters[0] and "Angelic/character01" in characters[0]
    assert not (characters[0] & characters[1] | characters[0] & characters[2] | characters[1] & characters[2])
    assert sum(map(len, characters)) == 51
    assert not set(VALID) & set(TEST) and (len(VALID), len(TEST)) == (5, 12)


def test_one_part_alone_will_do(tmp_path):
    split = omniglot(packed(tmp_path, parts=["background"]))
    assert (len(split.train.classes), len(split.valid.classes), len(split.test.classes)) == (12, 8, 0)
    with pytest.raises(DataError, match="0 of 0 classes"):
        split.test.sampler(Shots(ways=5, shots=1, queries=1))


def test_what_is_wrong_is_named(tmp_path, data):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError, match=r"nowhere.*neither images_background\.zip.*brendenlake/omniglot"):
        read_omniglot(nowhere)
    (tmp_path / "background_index.csv.gz").unlink()
    with pytest.raises(DataError, match=r"background_index\.csv is missing"):
        read_omniglot(tmp_path)
    (tmp_path / "background_index.csv").write_text("row,alphabet,character\n0,Greek,character01\n")
    with pytest.raises(DataError, match=r"has 10 images, but its index has 1 rows"):
        read_omniglot(tmp_path)
    with pytest.raises(DataError, match=r"'spoon' is no character of Omniglot"):
        vinyals_split(type(data)(data.x[:1], data.y[:1] * 0, ("spoon",)))
    odd = tmp_path / "odd" / "images_background" / "Greek" / "character01"
    odd.mkdir(parents=True)
    Image.new("1", (28, 28)).save(odd / "a.png")
    with pytest.raises(DataError, match=r"Greek/character01.*\(28, 28\); expected 105×105"):
        read_omniglot(tmp_path / "odd")
    (odd / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^images_background/Greek/character01/a\.png: is not an image"):
        read_omniglot(tmp_path / "odd")


def test_a_folder_of_images(tmp_path):
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (20, 10 + i), colour).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes.txt").write_text("nothing")
    data = read_image_folder(tmp_path, size=8)
    assert data.classes == ("blue", "red") and data.y.tolist() == [0, 0, 1, 1]
    assert data.x.shape == (4, 3, 8, 8) and data.x.dtype == torch.uint8
    assert data.x[3, :, 0, 0].tolist() == [255, 0, 0]
    assert read_image_folder(tmp_path, size=8, grey=True).x.shape == (4, 1, 8, 8)
    with pytest.raises(DataError, match="one subfolder for each class"):
        read_image_folder(tmp_path / "red")


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("size", [0, -3, 16.5, True, "28", None])
@pytest.mark.parametrize("read", [read_image_folder, read_omniglot])
def test_a_size_is_a_number_of_pixels(folder, read, size):
    with pytest.raises(DataError, match=rf"^size={size!r}; expected a whole number of pixels, 1 or more"):
        read(folder, size=size)


def test_a_size_may_be_one_of_numpys(folder):
    assert read_image_folder(folder, size=np.int64(3)).x.shape == (4, 3, 3, 3)


def test_a_broken_image_is_named_with_its_class(folder):
    def chunk(kind, content):
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    whole = (folder / "dog" / "1.png").read_bytes()
    start, header, rest = whole[:8], whole[16:29], whole[33:]
    damaged = {
        "of no known format": b"no image",
        "truncated": whole[:50],
        "Truncated IHDR": start + chunk(b"IHDR", header[:5]) + rest,
        "broken PNG": whole[:33] + chunk(b"IDAT", rest[8:12]) + b"\0\0\0\0\1\2\3\4",
        "exceeds limit": start + chunk(b"IHDR", b"\0\1\0\0" * 2 + header[8:]) + rest,
    }
    for reason, content in damaged.items():
        (folder / "dog" / "1.png").write_bytes(content)
        with pytest.raises(DataError, match=reason) as problem:
            read_image_folder(folder)
        assert str(problem.value).startswith("dog/1.png: is not an image that can be read")
        assert "BytesIO" not in str(problem.value)


def test_a_folder_that_is_none_is_said_to_be_none(folder):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; expected"):
        read_image_folder(folder / "nowhere")
    with pytest.raises(DataError, match=r"0\.png: is a file; expected a folder"):
        read_image_folder(folder / "cat" / "0.png")


def test_a_class_without_images_is_left_out_and_named(folder):
    (folder / ".hidden").mkdir()
    (folder / "emu").mkdir()
    (folder / "emu" / "notes.txt").write_text("none yet")
    with pytest.warns(UserWarning, match=r"left out, as they hold no image.*: 'emu'\.") as told:
        assert read_image_folder(folder, size=4).classes == ("cat", "dog")
    assert len(told) == 1 and told[0].filename == __file__
