"""How many of the kernels that oneDNN makes, one for each shape of a batch, stay in memory."""

import os

VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS = 64
"""oneDNN's own 1,024 hold a gigabyte after a thousand batches of texts, hardly two of which have one shape. The layers
of a batch share theirs, for which these are enough: it takes as long, and encoding's memory is level from 500 on."""


def keep_few_kernels() -> None:
    """Ask oneDNN to keep KERNELS, unless the environment says otherwise; it listens before the first product alone."""
    os.environ.setdefault(VARIABLE, str(KERNELS))
