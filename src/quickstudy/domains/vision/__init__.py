"""Few-shot image classification: Omniglot as its papers use it, and folders of images.

from quickstudy.domains.vision import omniglot

split = omniglot("folder/with/omniglot")
sample = split.train.sampler(Shots(ways=5, shots=1))
"""

from quickstudy.domains.vision.distort import distorted, mirrored
from quickstudy.domains.vision.read import read_image_folder, read_omniglot
from quickstudy.domains.vision.tasks import omniglot, rotated, vinyals_split

__all__ = [
    "distorted",
    "mirrored",
    "omniglot",
    "read_image_folder",
    "read_omniglot",
    "rotated",
    "vinyals_split",
]
