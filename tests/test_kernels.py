"""oneDNN keeps few kernels, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from quickstudy.encoders.kernels import KERNELS, VARIABLE

CODE = f"""
import os
from quickstudy.encoders.text import load_encoder
load_encoder("tiny-bert", cache=False)
print(os.environ["{VARIABLE}"])
"""


@pytest.mark.parametrize(("given", "kept"), [({}, KERNELS), ({VARIABLE: "5"}, 5)])
def test_an_encoder_asks_for_few_kernels(given, kept):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == kept
